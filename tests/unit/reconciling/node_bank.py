"""A teller whose node does more than receive: it forwards, pays, has a wallet, opens and closes channels."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import trio

from daemon.domain.accounts import LIGHTNING, wallet_account
from daemon.domain.books import Gap, GapState
from daemon.domain.identifiers import Outpoint, Txid
from daemon.domain.movements import (
    ClosedChannel,
    ClosingChannel,
    Forward,
    OwnChannel,
    PaymentState,
    SentPayment,
    WalletTx,
)
from daemon.domain.ports import SystemWallet
from daemon.domain.reconciliation import ItemKind, Side
from daemon.ingest.handover import Inbox
from daemon.ingest.journals import JournalFinder
from daemon.matching.node_review import Booking
from daemon.reconciling.lightning import LightningSide, Looked
from daemon.reconciling.lightning_gaps import LightningGaps
from daemon.supervision import keep_running
from tests.samples import MORNING_MS, hash_of, moved
from tests.unit.ingest.teller import FAST, Teller, WatchedNode, eventually

RECEIVED_MSAT = 1_000_000

HEIGHT = 150
"""The memory node's."""


def txid_of(name: str) -> Txid:
    """A txid, the same for the same name."""
    return Txid(hash_of(f"tx {name}"))


def point_of(name: str) -> Outpoint:
    """The first output of the tx with this name."""
    return Outpoint(f"{txid_of(name)}:0")


class NodeBank(Teller):
    """`funds_msat` in channels and `wallet_sat` in the wallet are there before tellerd's first start."""

    def __init__(self, *, funds_msat: int = 9_000_500, wallet_sat: int = 7_000, booking: Booking | None = None) -> None:
        super().__init__(WatchedNode(funds_msat=funds_msat))
        self.node.money.wallet_sat = wallet_sat
        self.booking = booking or Booking()
        self._side: LightningSide | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Followed and opened, and ready to be compared."""
        async with self.open_when(lambda: (cursor := self.cursor()) is not None and cursor.opened):
            yield

    @asynccontextmanager
    async def open_when(self, ready: Callable[[], bool]) -> AsyncIterator[None]:
        """Followed, until this holds."""

        def start(nursery: trio.Nursery, inbox: Inbox) -> None:
            finder = JournalFinder(journals=self.store.journals, inbox=inbox, pace=FAST)
            for task in (self.follower(inbox).run, finder.run):
                nursery.start_soon(partial(keep_running, task, name="task", rng=random.Random(1)))
            self._side = self.side(inbox)

        async with self._posting(start):
            await eventually(ready)
            yield

    def side(self, inbox: Inbox) -> LightningSide:
        """As the composition root builds it."""
        return LightningSide(
            nodes=[self.node],
            books=self.store.lightning_books,
            gaps=LightningGaps(gaps=self.store.gaps, books=self.store.lightning_books),
            inbox=inbox,
            booking=self.booking,
            now_ms=lambda: MORNING_MS,
            quiet_s=0.0,
            retry_s=0.001,
        )

    async def look(self) -> Looked:
        """One look."""
        assert self._side is not None
        return await self._side.look()

    async def compared(self) -> Side:
        """A steady look's side; nothing of it is unknown."""
        looked = await self.look()
        assert looked.steady, looked.problem
        assert looked.side is not None
        assert looked.side.unknown_msat == 0, looked.side
        return looked.side

    async def explained(self) -> dict[ItemKind, int]:
        """What explains the difference."""
        return dict((await self.compared()).explained_msat())

    @property
    def bank_owner_sat(self) -> int:
        """What the bank owner's wallet has."""
        return self.balance(wallet_account(self.store.figures.system_wallets()[SystemWallet.BANK_OWNER]))

    def kept(self, kind: str, *, state: GapState = GapState.EXPLAINED) -> list[Gap]:
        """Gaps of a kind."""
        return list(self.store.gaps.by_kind(kind, states=[state], limit=100))

    # --- what moves the node's money -----------------------------------------------------------------

    def forward(self, number: int, fee_msat: int, *, resolved: bool = True) -> None:
        """A payment of others over a million msat goes through; not `resolved`: the HTLC that brought it is there."""
        cursor = self.cursor()
        assert cursor is not None
        assert cursor.movements is not None
        incoming = None if resolved else self.node.htlcs.add(RECEIVED_MSAT, 0)
        self.node.money.forwards.append(
            Forward(
                at_ns=cursor.movements.forwards_ns + number,
                fee_msat=fee_msat,
                received_msat=RECEIVED_MSAT,
                incoming_htlc=None if incoming is None else (incoming.chan_id, incoming.htlc_index),
            )
        )
        self.node.spend(-fee_msat if resolved else RECEIVED_MSAT - fee_msat)

    def pay(self, index: int, name: str, sent_msat: int, state: PaymentState = PaymentState.SUCCEEDED) -> None:
        """The node is told to pay somebody, or a payment ends."""
        payment = SentPayment(
            index=index, payment_hash=hash_of(name), state=state, sent_msat=sent_msat, began_at_ms=MORNING_MS
        )
        payments = self.node.money.payments
        payments[:] = [one for one in payments if one.index != index] + [payment]
        if state is PaymentState.SUCCEEDED:
            self.node.spend(sent_msat)

    def move_coins(
        self, name: str, amount_sat: int, *, height: int = 0, fee_sat: int = 0, spends: tuple[Outpoint, ...] = ()
    ) -> None:
        """A tx changes the wallet; the same name again: it is confirmed."""
        money = self.node.money
        known = [one for one in money.txs if one.txid == txid_of(name)]
        for tx in known:
            money.txs[money.txs.index(tx)] = replace(tx, height=height)
        if not known:
            money.wallet_sat += amount_sat
            money.txs.append(
                WalletTx(
                    txid=txid_of(name),
                    amount_sat=amount_sat,
                    spent_sat=max(0, -amount_sat),
                    outputs_sat=abs(amount_sat),
                    fee_sat=fee_sat,
                    height=height,
                    spends=spends,
                )
            )
        money.moves += 1

    def forget_tx(self, name: str) -> None:
        """It was replaced, or evicted."""
        money = self.node.money
        gone = next(one for one in money.txs if one.txid == txid_of(name))
        money.txs.remove(gone)
        money.wallet_sat -= gone.amount_sat
        money.moves += 1

    def open_channel(self, name: str, capacity_sat: int, fee_sat: int, *, pushed_sat: int = 0, height: int = 0) -> None:
        """The node opens a channel with coins of its wallet; again with a height: it is open."""
        if not any(one.txid == txid_of(name) for one in self.node.money.txs):
            self.node.spend(-(capacity_sat - pushed_sat) * 1000)
        self.move_coins(name, -capacity_sat - fee_sat, height=height, fee_sat=fee_sat)
        self.node.money.channels = [
            OwnChannel(
                channel_point=point_of(name),
                capacity_sat=capacity_sat,
                opened_by_us=True,
                pushed_sat=pushed_sat,
                height=height,
            )
        ]

    def begin_close(self, name: str, held_msat: int, *, to_come_sat: int) -> None:
        """A channel that held so much closes; what is to come is not in the wallet yet."""
        self.node.money.channels = []
        self.node.money.closing.append(
            ClosingChannel(
                channel_point=point_of(name),
                closing_txid=txid_of(f"closing {name}"),
                held_sat=held_msat // 1000,
                to_come_sat=to_come_sat,
                capacity_sat=1_000_000,
                opened_by_us=True,
            )
        )
        self.node.spend(held_msat)

    def end_close(self, *names: str, height: int = HEIGHT + 3, breach: bool = False) -> None:
        """Nothing of these channels is outstanding any more."""
        money = self.node.money
        points = {point_of(name) for name in names}
        money.closing = [one for one in money.closing if one.channel_point not in points]
        money.closed += [
            ClosedChannel(
                channel_point=point_of(name),
                closing_txid=txid_of(f"closing {name}"),
                capacity_sat=1_000_000,
                opened_by_us=True,
                settled_sat=0,
                htlcs_sat=0,
                close_height=height,
                breach=breach,
            )
            for name in names
        ]
        money.moves += 1

    def told(self, kind: str) -> list[dict[str, Any]]:
        """Payloads of the feed's events of a type."""
        rows = self.store.ledger.events(after_sequence=0, limit=1_000)
        return [dict(row.payload) for row in rows if row.type == kind]

    async def book_elsewhere(self, name: str, amount_sat: int) -> None:
        """Another program books what it sent (below zero: got) with this hash; returns when that is in the balances."""
        before = self.balance(LIGHTNING)
        wallet = wallet_account(self.wallet)
        source, target = (wallet, LIGHTNING) if amount_sat > 0 else (LIGHTNING, wallet)
        self.store.another.write_journal(
            moved(source, target, abs(amount_sat)), details={"hash": name, "type": "payment"}
        )
        await eventually(lambda: self.balance(LIGHTNING) == before + amount_sat)
