"""One log line for each fact that moved money, and nothing else in it."""

from __future__ import annotations

import random
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import structlog
import trio
from trio.testing import MockClock

from adapters.memory import MemoryStore
from adapters.prices.nothing import NoPrice
from daemon.domain import outbox
from daemon.domain.identifiers import WalletId
from daemon.domain.money import Currency
from daemon.domain.node_events import NodeEvent
from daemon.domain.outbox import EVENT_TYPES
from daemon.posting.board import Board
from daemon.posting.money_log import MONEY_FACTS
from daemon.posting.poster import INBOX_BATCHES, Poster
from tests.samples import (
    NODE,
    block_at,
    chain_moved,
    connected,
    deposit_due,
    hash_of,
    invoice,
    node_opened,
    output,
    preimage_of,
    seen,
    settled,
    txid_of,
    txs_gone,
)
from tests.silent import SilentMetrics

OPENED = node_opened()
TOLD_WITH_ANOTHER = {
    outbox.INVOICE_OVERPAID,
    outbox.SUSPENSE_ASSIGNED,
    outbox.WALLET_OVERDRAWN,
    outbox.DEPOSIT_DETECTED,
    outbox.DEPOSIT_CONFIRMED,
    outbox.INVOICE_HELD,
    outbox.INVOICE_CANCELED,
    outbox.INVOICE_EXPIRED,
}
"""Not lines of their own: see MONEY_FACTS."""


class Till:
    """A poster that logs money, on a memory store with one wallet."""

    def __init__(self, *, logs_money: bool = True) -> None:
        self.store = MemoryStore()
        self.wallet = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="shop").wallet_id
        fence = self.store.leases.acquire(holder="one", ttl_s=60)
        assert fence is not None
        self._poster = Poster(
            books=self.store.books,
            prices=NoPrice(),
            board=Board(),
            metrics=SilentMetrics(),
            fence=fence,
            rng=random.Random(1),
            logs_money=logs_money,
        )

    async def posts(self, *batches: Sequence[NodeEvent]) -> list[MutableMapping[str, Any]]:
        """The lines of these batches, each of which is a commit of its own."""
        with structlog.testing.capture_logs() as logs:
            for batch in batches:
                send, receive = trio.open_memory_channel[Sequence[NodeEvent]](INBOX_BATCHES)
                send.send_nowait(batch)
                send.close()
                await self._poster.run(receive)
        return [line for line in logs if line["event"] == "money.posted"]

    def expect(self, name: str, wallet_id: WalletId) -> None:
        """An invoice of the wallet is open."""
        self.store.invoices.insert(invoice(name, wallet_id))

    def told(self) -> list[Mapping[str, Any]]:
        """The outbox, as (type, key, sequence, journal)."""
        return [
            {"fact": row.type, "sequence": row.sequence, "journal_id": row.payload.get("journal_id")}
            for row in self.store.ledger.events(after_sequence=0, limit=1000)
            if row.type in MONEY_FACTS
        ]


def told_as(line: Mapping[str, Any]) -> dict[str, Any]:
    return {"fact": line["fact"], "sequence": line["sequence"], "journal_id": line.get("journal_id")}


def test_every_type_of_event_is_a_line_or_told_with_another() -> None:
    """A new type must be put into one of the two."""
    assert set(EVENT_TYPES) == MONEY_FACTS | TOLD_WITH_ANOTHER
    assert not MONEY_FACTS & TOLD_WITH_ANOTHER


async def test_a_payment_is_one_line_with_its_key(autojump_clock: MockClock) -> None:
    """Amount, wallet, place in the feed and journal: enough to find it everywhere else."""
    till = Till()
    till.expect("coffee", till.wallet)
    await till.posts([OPENED])
    (line,) = await till.posts([settled("coffee", 1, 21_000_999)])
    assert line.pop("journal_id") == till.told()[-1]["journal_id"]
    assert line == {
        "event": "money.posted",
        "log_level": "info",
        "fact": "invoice.settled",
        "key": f"ln:{NODE}:{hash_of('coffee')}",
        "sequence": 2,
        "amount_sat": 21_000,
        "wallet_id": till.wallet,
    }


async def test_suspense_and_its_assignment_are_one_line_each(autojump_clock: MockClock) -> None:
    """Why it had to wait, then whose it is; a repeat is none."""
    till = Till()
    (waits,) = [line for line in await till.posts([OPENED], [settled("late", 1, 7_000)]) if "reason" in line]
    assert (waits["fact"], waits["reason"], waits["amount_sat"]) == ("suspense.received", "no_expectation", 7)
    assert "wallet_id" not in waits
    till.expect("late", till.wallet)
    (line,) = await till.posts([settled("late", 1, 7_000)], [settled("late", 1, 7_000)])
    assert (line["fact"], line["wallet_id"], line["amount_sat"]) == ("invoice.settled", till.wallet, 7)


async def test_a_deposit_is_told_when_it_settles_is_reversed_or_dropped(
    autojump_clock: MockClock,
) -> None:
    """Not when it is detected or confirmed: nothing is credited then."""
    till = Till()
    paid = output("deposit", till.wallet)
    lines = await till.posts(
        [chain_moved(None, connected(block_at(1)))],
        [seen(paid)],
        [chain_moved(block_at(1), connected(block_at(2), paid), connected(block_at(3)))],
        [deposit_due("deposit")],
        [chain_moved(block_at(3), connected(block_at(2, "b")), lost=[block_at(3), block_at(2)], fork=block_at(1))],
        [txs_gone(block_at(2, "b"), "deposit")],
    )
    assert [line["fact"] for line in lines] == ["deposit.settled", "deposit.reversed", "deposit.dropped"]
    assert [line["wallet_id"] for line in lines] == [till.wallet] * 3
    assert (lines[0]["key"], lines[0]["amount_sat"]) == (f"chain:{txid_of('deposit')}:0:1", 100_000)
    assert lines[0]["credited_sat"] == 97_000
    assert lines[1]["key"] == f"chain:{txid_of('deposit')}:0:1:reorg"
    assert "journal_id" not in lines[2]
    assert [told_as(line) for line in lines] == till.told()


async def test_no_preimage_is_in_a_line(autojump_clock: MockClock) -> None:
    """The journal has it, the log does not; nor what people wrote on the invoice."""
    till = Till()
    till.expect("coffee", till.wallet)
    lines = await till.posts([OPENED], [settled("coffee", 1, 21_000)])
    assert len(lines) == 2
    assert preimage_of("coffee").hex() not in str(lines)
    assert "memo of coffee" not in str(lines)


async def test_it_can_be_switched_off(autojump_clock: MockClock) -> None:
    """`[log] money = false`."""
    till = Till(logs_money=False)
    assert await till.posts([OPENED], [settled("coffee", 1, 21_000)]) == []
    assert len(till.told()) == 2
