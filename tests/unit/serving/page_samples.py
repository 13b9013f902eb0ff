"""A page with something in every part of it, and what a browser reads of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

from daemon.domain import accounts, outbox
from daemon.domain.books import Head
from daemon.domain.chain import BlockRef
from daemon.domain.cursors import LndCursor
from daemon.domain.identifiers import BlockHash, NodePubkey
from daemon.domain.ports import AccountRow, LeaseView, StoredEvent, StoreInfo, TrialBalancePage
from daemon.domain.status import ChainStatus, NodeStatus
from daemon.serving.gate import Role
from daemon.serving.overview import BooksView, Overview, ReconciliationView
from daemon.serving.page import render
from tests.unit.serving.bank_in_memory import START
from tests.unit.serving.reconciliation_samples import CHECK, look

NOW = START + timedelta(hours=26, minutes=3)
PUBKEY = NodePubkey("02" + "ab" * 32)
WALLET = "80895f9c-2559-44ea-9454-4d592974e074"
EVIL = """<script>alert("x")</script><img src='http://example.com/x'>&"""


class Reading(HTMLParser):
    """What a browser makes of it: the text, and every tag with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._in_style = False
        self._in_word = False
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_style = tag == "style"
        self._in_word = tag == "wbr"

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if self._in_word:
            self.words[-1] += data
        elif not self._in_style:
            self.words.append(data)
        self._in_word = False


def event(sequence: int, type_: str = outbox.INVOICE_SETTLED, **payload: object) -> StoredEvent:
    return StoredEvent(
        sequence=sequence,
        id=f"key-{sequence}#{type_}",
        type=type_,
        occurred_at_ms=int(START.timestamp() * 1000),
        wallet_ids=(WALLET,),
        payload=payload or {"amount_sat": 21_000},
    )


def books(**changed: object) -> BooksView:
    """Two accounts that add up, two events."""
    rows = [
        AccountRow(account=accounts.LIGHTNING, currency="BTC", balance=-271_000),
        AccountRow(account=f"Liabilities:{WALLET}", currency="BTC", balance=271_000),
    ]
    whole = BooksView(
        read_at=NOW,
        store=StoreInfo(replica_set="rs0", version="6.0.5"),
        head=Head(fence=3, sequence=1_234, chain_length=1_200),
        lease=LeaseView(holder="teller1:77:abcd", fence=3, expires_at=NOW + timedelta(seconds=5)),
        events=[event(1_234), event(1_233, outbox.SUSPENSE_RECEIVED, amount_sat=7)],
        accounts=TrialBalancePage(rows=rows, totals={"BTC": 0}, sequence=1_234, next_token=None),
        suspense_sat=0,
        deposits=[],
        pending_count=0,
        pending_sat=0,
        gaps=[],
        open_gaps=0,
    )
    return replace(whole, **changed)  # type: ignore[arg-type]  # fields by name


def compared(*, unknown_msat: int = 0, ago_s: int = 60, problem: str = "") -> ReconciliationView:
    """A minute ago, all explained."""
    at_ms = int(NOW.timestamp() - ago_s) * 1000
    return ReconciliationView(
        steady=look(at_ms=at_ms, unknown_msat=unknown_msat),
        full_check=replace(CHECK, ended_at_ms=at_ms),
        problem=problem,
    )


def view(**changed: object) -> Overview:
    """A leader whose world is well."""
    node = NodeStatus(name="lnd1", pubkey=PUBKEY, connected=True, connected_since=START, state="live")
    block = BlockRef(height=840_000, hash=BlockHash("00" * 32))
    whole = Overview(
        now=NOW,
        network="regtest",
        version="0.1.0",
        started_at=START,
        role=Role.LEADER,
        refusal=None,
        loop_age_s=0.5,
        nodes=[node],
        cursors=[LndCursor(pubkey=PUBKEY, name="lnd1", settle_index=5_678)],
        chain=ChainStatus(connected=True, connected_since=START, state="live", tip=block, cursor=block, hints="live"),
        reconciliation=compared(),
        books=books(),
        books_problem="",
    )
    return replace(whole, **changed)  # type: ignore[arg-type]  # fields by name


def text(shown: Overview) -> str:
    return Reading(render(shown)).text
