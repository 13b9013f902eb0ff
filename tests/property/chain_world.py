"""A node with a tree of blocks and a mempool, a follower that tells of it, and what the books must say.

`Fold` works out the right books from the events alone, without anything of the daemon. `ChainRun` drives the
daemon's own deciding, sealing and committing, with faults and deaths on the way, and compares after every commit.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import hypothesis.strategies as st

from adapters.memory import CommitFault, MemoryStore
from daemon.domain.accounts import DUST, ON_CHAIN, wallet_account
from daemon.domain.chain import BlockRef, DepositState
from daemon.domain.chain_events import (
    ChainEvent,
    ChainMoved,
    ConnectedBlock,
    DepositDue,
    GoneTx,
    OutputsFound,
    OutputsSeen,
    TxsGone,
    WatchedOutput,
)
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, DepositTerms
from daemon.domain.errors import Conflict, Unavailable
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId, outpoint_of
from daemon.domain.money import Currency, Price
from daemon.domain.ports import SystemWallet
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason, cents_at
from daemon.matching.deposits import DepositRules
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from tests.property import auditor
from tests.samples import GENESIS, MORNING_MS, block_at, moved, txid_of
from tests.silent import SilentMetrics

BTC_WALLETS = ("one", "two", "owner")
PAID = (*BTC_WALLETS, "dollars", "nobody")
SIXTY_THOUSAND = Price(microcents_per_btc=6_000_000 * 1_000_000)
DEEP = 5
"""More blocks than any policy here asks for."""
POLICIES = (((0, 2), (1_000_000, 4)), ((0, 1),), ((0, 3), (50_000, 5)))
KILLED_AT = ("read", "commit", "committed")
Fate = CommitFault | str | None
"""What befalls the next commit: a fault of the store, death at one of KILLED_AT, or nothing."""


class Killed(BaseException):
    """SIGKILL: nothing in the daemon may catch it."""


# --- the outside world ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Payment:
    """An output of a tx. `late`: its script is learnt only later. `booked`: another program has booked it."""

    wallet: str
    amount_sat: int
    late: bool
    booked: bool


@dataclass(frozen=True)
class WatchedTx:
    """A tx that spends one coin, as others may do, too."""

    txid: Txid
    coin: Outpoint
    payments: tuple[Payment, ...]


@st.composite
def tx_sets(draw: st.DrawFn) -> tuple[WatchedTx, ...]:
    """Some txs, some of which spend the same coin."""
    amounts = st.one_of(st.sampled_from((0, 1, 4_999, 5_000, 999_999, 1_000_000, 1_000_500)), st.integers(0, 2_000_000))
    wallets = st.one_of(st.sampled_from(BTC_WALLETS), st.sampled_from(PAID))
    rare = st.sampled_from((False, False, False, True))
    payments = st.builds(Payment, wallet=wallets, amount_sat=amounts, late=rare, booked=rare)
    count = draw(st.integers(1, 5))
    return tuple(
        WatchedTx(
            txid=txid_of(f"w{number}"),
            coin=outpoint_of(txid_of(f"coin {draw(st.integers(0, 3))}"), 0),
            payments=tuple(draw(st.lists(payments, min_size=1, max_size=3))),
        )
        for number in range(count)
    )


@dataclass
class Node:
    """A bitcoind: blocks know their parent; the best chain is whatever it is told to be."""

    txs: tuple[WatchedTx, ...]
    tip: BlockRef = field(default_factory=lambda: block_at(100))
    parents: dict[BlockRef, BlockRef] = field(default_factory=dict)
    held: dict[BlockRef, tuple[WatchedTx, ...]] = field(default_factory=dict)
    mempool: set[WatchedTx] = field(default_factory=set)

    def path(self, block: BlockRef) -> list[BlockRef]:
        """From the first block to this one."""
        blocks = [block]
        while (parent := self.parents.get(blocks[-1])) is not None:
            blocks.append(parent)
        return blocks[::-1]

    def mined(self) -> list[WatchedTx]:
        """The txs of the best chain."""
        return [tx for block in self.path(self.tip) for tx in self.held.get(block, ())]

    def mine(self, picks: Sequence[int]) -> None:
        """One more block, with those of the picked txs that are valid on the tip."""
        spent, chosen = {tx.coin for tx in self.mined()}, []
        for tx in self._picked(picks):
            if tx.coin not in spent:
                chosen.append(tx)
                spent.add(tx.coin)
        block = block_at(self.tip.height + 1, f"block {len(self.parents)}")
        self.parents[block], self.held[block] = self.tip, tuple(chosen)
        self._choose(block)

    def reorg(self, depth: int, branches: Sequence[Sequence[int]]) -> None:
        """The last blocks are replaced by one more on another branch."""
        path = self.path(self.tip)
        self._choose(path[max(0, len(path) - 1 - depth)])
        for picks in branches:
            self.mine(picks)

    def choose_any(self, number: int) -> None:
        """An operator invalidates and reconsiders: any known block is the tip."""
        blocks = [block_at(100), *self.parents]
        self._choose(blocks[number % len(blocks)])

    def broadcast(self, pick: int) -> None:
        """A tx comes into the mempool, if it is valid, and replaces what spends the same coin."""
        (tx,) = self._picked([pick])
        if all(tx.coin != other.coin for other in self.mined()):
            self.mempool = {other for other in self.mempool if other.coin != tx.coin} | {tx}

    def evict(self, pick: int) -> None:
        """A tx leaves the mempool."""
        self.mempool -= set(self._picked([pick]))

    def _picked(self, picks: Sequence[int]) -> list[WatchedTx]:
        return [self.txs[pick % len(self.txs)] for pick in picks]

    def _choose(self, block: BlockRef) -> None:
        """What the chain loses comes back into the mempool, what it holds or excludes leaves it."""
        self.mempool |= set(self.mined())
        self.tip = block
        spent = {tx.coin for tx in self.mined()}
        self.mempool = {tx for tx in sorted(self.mempool, key=lambda tx: tx.txid) if tx.coin not in spent}
        coins = {tx.coin: tx for tx in sorted(self.mempool, key=lambda tx: tx.txid)}
        self.mempool = set(coins.values())


# --- the right books ------------------------------------------------------------------------------------


def fee_of(amount_sat: int) -> int:
    """Blink's deposit fee, in its own words: 3,000 below a million, else 30 basis points, a half down."""
    return 3_000 if amount_sat < 1_000_000 else (amount_sat * 30 + 4_999) // 10_000


def cents_of(amount_sat: int, fee_sat: int) -> int:
    """What is left for a dollar wallet at 60,000 dollars: 6 cents for 100 sats, the nearest, a half down; the fee's
    share of them is rounded up."""
    total_cents = (amount_sat * 6 + 49) // 100
    return total_cents - (fee_sat * total_cents + amount_sat - 1) // amount_sat


def is_dust(amount_sat: int) -> bool:
    """Blink's threshold is above every fee of such an amount."""
    return amount_sat < 5_000


@dataclass
class Fold:
    """What the events that are in the books come to. Deposits are known by outpoint."""

    wallets: dict[str, str]
    booked_elsewhere: frozenset[Outpoint]
    policy: tuple[tuple[int, int], ...]
    dealer: tuple[str, str] = ("", "")
    """The accounts of his wallets, in sats and in cents."""
    cursor: BlockRef | None = None
    outputs: dict[Outpoint, WatchedOutput] = field(default_factory=dict)
    needs: dict[Outpoint, int] = field(default_factory=dict)
    blocks: dict[Outpoint, BlockRef] = field(default_factory=dict)
    credited: set[Outpoint] = field(default_factory=set)
    settled_elsewhere: set[Outpoint] = field(default_factory=set)
    held: set[Outpoint] = field(default_factory=set)
    gone: set[Outpoint] = field(default_factory=set)
    gaps: set[Outpoint] = field(default_factory=set)

    def apply(self, event: ChainEvent) -> None:
        """One event more."""
        match event:
            case OutputsSeen():
                for output in event.outputs:
                    self._know(output, unless_in_block=True)
            case ChainMoved():
                self._move(event)
            case OutputsFound() if event.base == self.cursor:
                self._connect(event.blocks)
            case TxsGone() if event.base == self.cursor:
                txids = {tx.txid for tx in event.txs}
                self.gone |= {key for key, one in self.outputs.items() if one.txid in txids and key not in self.blocks}
            case DepositDue():
                self._credit(outpoint_of(event.txid, event.vout), has_price=isinstance(event.deal, Deal))
            case _:
                pass

    def _know(self, output: WatchedOutput, *, unless_in_block: bool = False) -> None:
        key = outpoint_of(output.txid, output.vout)
        if output.amount_sat == 0 or (unless_in_block and key in self.blocks):
            return
        self.gone.discard(key)
        if key not in self.outputs:
            self.outputs[key] = output
            self.needs[key] = next(n for start, n in reversed(self.policy) if start <= output.amount_sat)

    def _move(self, event: ChainMoved) -> None:
        if event.target.block == self.cursor:
            return
        if event.base is not None:
            lost = {key for key, block in self.blocks.items() if block in event.disconnected}
            self.gaps |= lost & self.settled_elsewhere
            self.credited -= lost
            self.settled_elsewhere -= lost
            self.held -= lost
            for key in lost:
                del self.blocks[key]
            self._connect(event.connected)
        self.cursor = event.target.block

    def _connect(self, blocks: Sequence[ConnectedBlock]) -> None:
        for connected in blocks:
            for output in connected.outputs:
                self._know(output)
                if output.amount_sat:
                    self.blocks[outpoint_of(output.txid, output.vout)] = connected.block

    def is_deep(self, key: Outpoint) -> bool:
        """Whether it has the confirmations that it needs."""
        assert self.cursor is not None
        return key in self.blocks and self.cursor.height - self.blocks[key].height + 1 >= self.needs[key]

    def _credit(self, key: Outpoint, *, has_price: bool) -> None:
        if not self.is_deep(key) or key in self.credited:
            return
        output = self.outputs[key]
        name = self.wallets.get(output.wallet_id)
        if key in self.booked_elsewhere:
            self.settled_elsewhere.add(key)
        elif is_dust(output.amount_sat) or name in BTC_WALLETS or (name == "dollars" and has_price):
            self.credited.add(key)
            self.held.discard(key)
        else:
            self.held.add(key)

    def books(self, credited: set[Outpoint]) -> dict[str, int]:
        """What every account holds, in its own unit, if these deposits are credited."""
        sums: dict[str, int] = {}
        for output in (self.outputs[key] for key in credited):
            amount_sat, wallet = output.amount_sat, wallet_account(output.wallet_id)
            fee_sat = 0 if is_dust(amount_sat) else fee_of(amount_sat)
            if self.wallets[output.wallet_id] == "dollars" and not is_dust(amount_sat):
                dealer_btc, dealer_usd = self.dealer
                cents = cents_of(amount_sat, fee_sat)
                sums[wallet] = sums.get(wallet, 0) + cents
                sums[dealer_usd] = sums.get(dealer_usd, 0) - cents
                wallet = dealer_btc
            owner = wallet_account(next(WalletId(key) for key, name in self.wallets.items() if name == "owner"))
            for account, delta in (
                (ON_CHAIN, -amount_sat),
                (owner, fee_sat),
                (DUST if is_dust(amount_sat) else wallet, amount_sat - fee_sat),
            ):
                sums[account] = sums.get(account, 0) + delta
        return {account: balance for account, balance in sums.items() if balance}

    def pending(self) -> set[Outpoint]:
        """What is on its way to a wallet, as far as another program has not booked it."""
        done = self.credited | self.settled_elsewhere | self.gone
        return {key for key, one in self.outputs.items() if key not in done and not is_dust(one.amount_sat)}

    def state(self, key: Outpoint) -> DepositState:
        """Where a deposit stands."""
        if key in self.credited | self.settled_elsewhere:
            return DepositState.SETTLED
        if key in self.blocks:
            return DepositState.CONFIRMED
        return DepositState.DROPPED if key in self.gone else DepositState.DETECTED


# --- the daemon -----------------------------------------------------------------------------------------


class ChainRun:
    """One node, one store, and daemons that come and go."""

    def __init__(self, txs: tuple[WatchedTx, ...]) -> None:
        self.node = Node(txs)
        self.store = MemoryStore(now_s=lambda: MORNING_MS / 1000)
        self.wallets = self._make_wallets()
        self.learnt = False
        self._version = 0
        self._queue: list[ChainEvent] = []
        self._told_before: list[ChainEvent] = []
        self.fold = Fold(
            wallets={wallet_id: name for name, wallet_id in self.wallets.items()},
            booked_elsewhere=frozenset(self._book_elsewhere()),
            policy=POLICIES[0],
            dealer=self._dealer(),
        )
        self.view = copy.deepcopy(self.fold)
        self._start()
        first = ConnectedBlock(block=self.node.tip, outputs=())
        self._tell(self._move_to(None, None, (), (first,)))
        self.flush((), None)

    # --- what the follower does -------------------------------------------------------------------------

    def follow(self, sizes: Sequence[int]) -> None:
        """Walks to the node's tip: back to the fork, then forward in moves of these sizes; tells what is due."""
        assert self.view.cursor is not None
        path, old = self.node.path(self.node.tip), self.node.path(self.view.cursor)
        lost = [block for block in reversed(old) if block not in path]
        if lost:
            self._tell(self._move_to(old[-1], self.node.parents[lost[-1]], lost, ()))
            self._tell_due()
        ahead = [ConnectedBlock(block=block, outputs=self._outputs_of(block)) for block in path if block not in old]
        for size in (*sizes, len(ahead)):
            if part := tuple(ahead[:size]):
                self._tell(self._move_to(self.view.cursor, None, (), part))
                self._tell_due()
            ahead = ahead[size:]
        self._tell_due()  # as in every round: what waits for a price is asked about again

    def hop(self) -> None:
        """To the node's tip in one move, back and forward at once."""
        assert self.view.cursor is not None
        path, old = self.node.path(self.node.tip), self.node.path(self.view.cursor)
        lost = [block for block in reversed(old) if block not in path]
        ahead = [ConnectedBlock(block=block, outputs=self._outputs_of(block)) for block in path if block not in old]
        if lost or ahead:
            fork = self.node.parents[lost[-1]] if lost else None
            self._tell(self._move_to(self.view.cursor, fork, lost, tuple(ahead)))
            self._tell_due()

    def look(self) -> None:
        """Looks at the whole mempool, if the tip is the cursor's block."""
        cursor = self.view.cursor
        if cursor is None or self.node.tip != cursor:
            return
        for tx in sorted(self.node.mempool, key=lambda tx: tx.txid):
            if outputs := self._watched(tx):
                self._tell(OutputsSeen(outputs=outputs, seen_at_ms=MORNING_MS))
        there = {tx.txid for tx in self.node.mempool}
        view = self.view
        missing = sorted(
            {one.txid for key, one in view.outputs.items() if view.state(key) is DepositState.DETECTED} - there
        )
        if missing:
            txs = tuple(GoneTx(txid=txid, reason="evicted") for txid in missing)
            self._tell(TxsGone(base=cursor, txs=txs, gone_at_ms=MORNING_MS))

    def hint(self, pick: int) -> None:
        """A tx of the mempool is announced, or one that was there a moment ago."""
        if outputs := self._watched(self.node.txs[pick % len(self.node.txs)]):
            self._tell(OutputsSeen(outputs=outputs, seen_at_ms=MORNING_MS))

    def repeat(self, number: int) -> None:
        """An event comes again that may come again: all but moves, which the follower tells in order."""
        again = [event for event in self._told_before if not isinstance(event, ChainMoved)]
        if again:
            event = again[number % len(again)]
            if not isinstance(event, DepositDue) or outpoint_of(event.txid, event.vout) in self.view.outputs:
                self._tell(event)

    def ask_too_early(self) -> None:
        """Deposits are told due without looking at their depth, and without a price."""
        for output in list(self.view.outputs.values()):
            self._tell(self._due(output, has_price=False))

    def learn(self) -> None:
        """The scripts that were not known are learnt, and looked for in all blocks up to the cursor."""
        self.learnt = True
        assert self.view.cursor is not None
        path = self.node.path(self.view.cursor)[1:]
        found = tuple(ConnectedBlock(block=block, outputs=self._outputs_of(block)) for block in reversed(path))
        self._tell(OutputsFound(base=self.view.cursor, blocks=found, found_at_ms=MORNING_MS))
        self._tell_due()

    def set_policy(self, number: int) -> None:
        """An operator sets another policy; what was told before is in the books by then."""
        self.flush((), None)
        tiers = POLICIES[number % len(POLICIES)]
        self.store.policies.change(
            before=ConfirmationPolicy(version=self._version, tiers=()),
            tiers=tuple(ConfirmationTier(from_sat=start, confirmations=count) for start, count in tiers),
            changed_by="op",
            reason="",
        )
        self._version += 1
        self.fold.policy = self.view.policy = tiers

    # --- posting ------------------------------------------------------------------------------------------

    def flush(self, sizes: Sequence[int], fate: Fate) -> None:
        """Posts what waits, in batches of these sizes; the fate strikes the first commit.

        A daemon that dies forgets what waited, and the next one begins at its cursor.
        """
        try:
            for size in (*sizes, len(self._queue)):
                batch, self._queue = self._queue[:size], self._queue[size:]
                if batch:
                    self._arm(fate)
                    self._post(batch, fate)
                    fate = None
        except Killed:
            self._queue = []
            self.view = copy.deepcopy(self.fold)
            self._start()
            self.check()

    def finish(self) -> None:
        """All scripts are known, the follower is at the tip and has looked, and the chain grows deep."""
        self.flush((), None)
        self.learn()
        for _ in range(DEEP):
            self.node.mine(())
        self.follow(())
        self.look()
        self.flush((), None)

    def _post(self, batch: list[ChainEvent], fate: Fate) -> None:
        for _ in range(10):
            try:
                self._poster.commit(batch)
            except (Conflict, Unavailable):
                continue
            except Killed:
                if fate == "committed":
                    self._fold(batch)
                raise
            self._fold(batch)
            self.check()
            return
        raise AssertionError("a batch cannot be committed")

    def _fold(self, batch: list[ChainEvent]) -> None:
        for event in batch:
            self.fold.apply(event)

    def _arm(self, fate: Fate) -> None:
        self.store.faults.heal()
        self.store.faults.at_step = lambda _step: None
        if isinstance(fate, CommitFault):
            self.store.faults.plan(fate)
        elif fate is not None:
            self.store.faults.at_step = lambda step: _die(step, fate)

    def _start(self) -> None:
        self._arm(None)
        fence = self.store.leases.acquire(holder="daemon", ttl_s=5)
        assert fence is not None
        tiers = tuple(ConfirmationTier(from_sat=start, confirmations=count) for start, count in POLICIES[0])
        self._poster = Poster(
            books=self.store.books,
            prices=FixedPrice(),
            board=Board(),
            metrics=SilentMetrics(),
            fence=fence,
            now_ms=lambda: MORNING_MS,
            rng=random.Random(0),
            rules=DepositRules(terms=DepositTerms(), default_policy=ConfirmationPolicy(version=0, tiers=tiers)),
        )

    # --- the verdict --------------------------------------------------------------------------------------

    def check(self) -> None:
        """What must hold after every commit."""
        auditor.check_books(self.store, ())
        fold, cursor = self.fold, self.store.deposits.cursor()
        assert (cursor.block if cursor else None) == fold.cursor
        assert {account: sat for account, sat in auditor.balances(self.store).items() if sat} == fold.books(
            fold.credited
        )
        assert {gap.key.rpartition(":lost")[0].rpartition(":")[0] for gap in self.store.known_gaps().values()} == {
            f"chain:{key}" for key in fold.gaps
        }
        self._check_deposits()
        self._check_keys()

    def _check_deposits(self) -> None:
        page, _ = self.store.deposits.page(wallet_id=None, states=(), after=None, limit=1_000)
        deposits = {deposit.outpoint: deposit for deposit in page}
        assert deposits.keys() == self.fold.outputs.keys()
        for key, deposit in deposits.items():
            assert deposit.state is self.fold.state(key)
            assert deposit.block == self.fold.blocks.get(key)
            assert deposit.confirmations_required == self.fold.needs[key]
            assert (deposit.booking is not None) == (key in self.fold.credited)
            assert bool(deposit.held_reason) == (key in self.fold.held)
        ours = self.store.another.pending_receives() - self.fold.booked_elsewhere
        assert ours == self.fold.pending() - self.fold.booked_elsewhere

    def _check_keys(self) -> None:
        """Every deposit was credited 1, 2, … times, and each time but a standing one taken back once."""
        page, _ = self.store.deposits.page(wallet_id=None, states=(), after=None, limit=1_000)
        expected = set()
        for deposit in page:
            credited = [f"chain:{deposit.outpoint}:{number}" for number in range(1, deposit.settlements + 1)]
            taken_back = credited[:-1] if deposit.booking else credited
            expected |= {*credited, *(f"{key}:reorg" for key in taken_back)}
        journals = [linked.link.key for linked in self.store.chain()]
        assert len(journals) == len(expected)
        assert set(journals) == expected

    def check_final(self) -> None:
        """The books are those of the final chain: what is deep enough is credited, and nothing else."""
        self.check()
        mined = {tx.txid: tx for tx in self.node.mined()}
        deep = set()
        for key, output in self.fold.outputs.items():
            usable = is_dust(output.amount_sat) or self.fold.wallets.get(output.wallet_id) in (*BTC_WALLETS, "dollars")
            if output.txid in mined and usable and key not in self.fold.booked_elsewhere:
                deep.add(key)
        known = {
            outpoint_of(tx.txid, vout)
            for tx in mined.values()
            for vout, payment in enumerate(tx.payments)
            if payment.amount_sat
        }
        assert known <= self.fold.outputs.keys()
        assert {account: sat for account, sat in auditor.balances(self.store).items() if sat} == self.fold.books(deep)
        there = {tx.txid for tx in self.node.mempool}
        for key, output in self.fold.outputs.items():
            if output.txid not in mined:
                deposit = self.store.deposits.get(key)
                assert deposit is not None
                waits = output.txid in there
                assert deposit.state is (DepositState.DETECTED if waits else DepositState.DROPPED)
        tip = self.node.tip.height
        assert self.store.deposits.due(height=tip, after=None, limit=100) == []

    # --- inside -------------------------------------------------------------------------------------------

    def _tell(self, event: ChainEvent) -> None:
        self._queue.append(event)
        self._told_before.append(event)
        self.view.apply(event)

    def _tell_due(self) -> None:
        done = self.view.credited | self.view.settled_elsewhere
        for key, output in list(self.view.outputs.items()):
            if self.view.is_deep(key) and key not in done:
                self._tell(self._due(output, has_price=True))

    def _move_to(
        self,
        base: BlockRef | None,
        fork: BlockRef | None,
        lost: Sequence[BlockRef],
        blocks: tuple[ConnectedBlock, ...],
    ) -> ChainMoved:
        return ChainMoved(
            genesis=BlockHash(GENESIS),
            base=base,
            fork=fork,
            disconnected=tuple(lost),
            connected=blocks,
            moved_at_ms=MORNING_MS,
        )

    def _outputs_of(self, block: BlockRef) -> tuple[WatchedOutput, ...]:
        return tuple(output for tx in self.node.held.get(block, ()) for output in self._watched(tx))

    def _watched(self, tx: WatchedTx) -> tuple[WatchedOutput, ...]:
        return tuple(
            WatchedOutput(
                txid=tx.txid,
                vout=vout,
                wallet_id=self.wallets[payment.wallet],
                address=f"bcrt1q-{payment.wallet}",
                amount_sat=payment.amount_sat,
                is_coinbase=False,
                inputs=(tx.coin,),
            )
            for vout, payment in enumerate(tx.payments)
            if self.learnt or not payment.late
        )

    def _dealer(self) -> tuple[str, str]:
        wallets = self.store.figures.system_wallets()
        return wallet_account(wallets[SystemWallet.DEALER_BTC]), wallet_account(wallets[SystemWallet.DEALER_USD])

    def _due(self, output: WatchedOutput, *, has_price: bool) -> DepositDue:
        """As the follower tells it: with what the dealer gives for a dollar wallet's sats, or why he gives nothing."""
        deal: Deal | Unpriced | None = None
        if self.fold.wallets.get(output.wallet_id) == "dollars":
            deal = Unpriced(UnpricedReason.STALE)
            if has_price:
                deal = cents_at(SIXTY_THOUSAND, amount_sat=output.amount_sat, source="fixed")
        return DepositDue(txid=output.txid, vout=output.vout, due_at_ms=MORNING_MS, deal=deal)

    def _make_wallets(self) -> dict[str, WalletId]:
        made = {
            name: self.store.wallets.create(account_id=None, currency=currency, external_id=name).wallet_id
            for name, currency in (("one", Currency.BTC), ("two", Currency.BTC), ("dollars", Currency.USD))
        }
        owner = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id="system:bankowner")
        return {**made, "owner": owner.wallet_id, "nobody": WalletId("nobody")}

    def _book_elsewhere(self) -> list[Outpoint]:
        booked = []
        for tx in self.node.txs:
            for vout, payment in enumerate(tx.payments):
                if payment.booked and payment.amount_sat:
                    booked.append(outpoint_of(tx.txid, vout))
                    self.store.another.write_journal(
                        moved(ON_CHAIN, wallet_account(self.wallets[payment.wallet]), payment.amount_sat),
                        details={"type": "onchain_receipt", "hash": tx.txid, "vout": vout},
                    )
        return booked


class FixedPrice:
    """A price that never moves."""

    def current(self) -> Price | None:
        """60,000 dollars."""
        return SIXTY_THOUSAND


def _die(step: str, at: str) -> None:
    if step == at:
        raise Killed(step)
