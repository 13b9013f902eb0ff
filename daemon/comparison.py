"""What [reconciliation] adds to the composition: the comparison of the books with every node."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

from adapters.mongo import MongoStore
from daemon.config import ReconciliationConfig
from daemon.domain.ports import LightningNode
from daemon.domain.reconciliation import ReconciliationStatus
from daemon.ingest.clock import Clock
from daemon.ingest.handover import Inbox
from daemon.matching.node_review import Booking
from daemon.on_chain import Chain
from daemon.reconciling.coins import CoinSide
from daemon.reconciling.deposits import DepositCheck
from daemon.reconciling.invoices import InvoiceCheck
from daemon.reconciling.lightning import LightningSide
from daemon.reconciling.lightning_gaps import LightningGaps
from daemon.reconciling.requests import ReconciliationRequests
from daemon.reconciling.rounds import Rounds


def rounds(
    config: ReconciliationConfig,
    *,
    store: MongoStore,
    nodes: Sequence[LightningNode],
    chain: Chain | None,
    inbox: Inbox,
    status: ReconciliationStatus,
    requests: ReconciliationRequests,
) -> Rounds:
    """The rounds of one turn as leader."""
    now_ms = Clock().now_ms
    coins = None if chain is None else _coins(chain, store)
    return Rounds(
        lightning=LightningSide(
            nodes=nodes,
            books=store.lightning_books,
            gaps=LightningGaps(gaps=store.gaps, books=store.lightning_books),
            inbox=inbox,
            booking=Booking(routing=config.book_routing, channel_fees=config.book_channel_fees),
            now_ms=now_ms,
        ),
        invoices=[InvoiceCheck(node=node, books=store.books, inbox=inbox, now_ms=now_ms) for node in nodes],
        coins=coins,
        deposits=None if chain is None or coins is None else _deposits(chain, store, coins),
        gaps=store.gaps,
        requests=requests,
        status=status,
        now=partial(datetime.now, UTC),
        every_s=config.every_s,
        nightly_at=config.nightly_time,
    )


def _coins(chain: Chain, store: MongoStore) -> CoinSide:
    return CoinSide(
        node=chain.node,
        deposits=store.deposits,
        coins=store.coins,
        gaps=store.gaps,
        reorg_depth=chain.limits.max_reorg_depth,
        now_ms=Clock().now_ms,
    )


def _deposits(chain: Chain, store: MongoStore, coins: CoinSide) -> DepositCheck:
    return DepositCheck(node=chain.node, deposits=store.deposits, gaps=store.gaps, coins=coins, now_ms=Clock().now_ms)
