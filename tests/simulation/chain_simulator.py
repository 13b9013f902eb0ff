"""One seed's world with a chain beside Lightning: payers who replace, miners who disagree, a bitcoind that fails.

The verdict is a fold over the final chain: each output that pays a wallet and is deep enough is credited once,
net of all that was taken back, and nothing else is.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import trio

from adapters.memory.chain_node import MemoryChain
from adapters.memory.raw_blocks import MemoryBlock, MemoryTx
from daemon.domain.accounts import DUST, ON_CHAIN, wallet_account
from daemon.domain.chain import BlockRef, Deposit, DepositState
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import Outpoint, WalletId, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.outbox import DEPOSIT_REVERSED, DEPOSIT_SETTLED
from daemon.domain.ports import DerivedAddress
from daemon.matching.deposits import BLINKS_RULES
from tests.simulation.daemons import Host, Killed
from tests.simulation.simulator import Report, World, run_world
from tests.simulation.swarm import Swarm

KEY_ID = "simulation"
FOREIGN = "foreign-"
AMOUNTS_SAT = (4_000, 50_000, 999_999, 1_000_000, 123_456_789)
"""Dust, and both sides of the fee's threshold."""

TERMS = BLINKS_RULES.terms
POLICY = BLINKS_RULES.default_policy
BANK_OWNER = "system:bankowner"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSwarm:
    """Probabilities of each step, and of each call of bitcoind; a third does not exist in a seed."""

    zmq: bool
    steps: int
    pause_s: float
    mined_only_p: float
    late_script_p: float
    replace_p: float
    evict_p: float
    rebroadcast_p: float
    mine_p: float
    double_spend_p: float
    coinbase_p: float
    reorganise_p: float
    invalidate_p: float
    crash_p: float
    restart_p: float
    hints_lost_p: float
    download_p: float
    away_p: float
    call_fails_p: float
    call_killed_p: float

    @classmethod
    def draw(cls, rng: random.Random) -> ChainSwarm:
        """One world."""

        def fault(most: float) -> float:
            return rng.choice((0.0, most / 4, most))

        return cls(
            zmq=rng.random() < 0.7,
            steps=rng.randint(20, 120),
            pause_s=rng.choice((0.02, 0.5, 4.0)),
            mined_only_p=fault(0.3),
            late_script_p=fault(0.3),
            replace_p=fault(0.3),
            evict_p=fault(0.2),
            rebroadcast_p=fault(0.3),
            mine_p=rng.choice((0.1, 0.4)),
            double_spend_p=fault(0.2),
            coinbase_p=fault(0.1),
            reorganise_p=fault(0.2),
            invalidate_p=fault(0.1),
            crash_p=fault(0.1),
            restart_p=fault(0.1),
            hints_lost_p=fault(0.3),
            download_p=fault(0.05),
            away_p=fault(0.1),
            call_fails_p=fault(0.02),
            call_killed_p=fault(0.005),
        )

    def __str__(self) -> str:
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return " ".join(f"{name}={value:g}" for name, value in named)


def chain_rng(seed: int) -> random.Random:
    """The chain's own chances, so that Lightning's are those of the seed without a chain."""
    return random.Random(f"chain of {seed}")


def simulate_with_chain(seed: int) -> Report:
    """As `simulator.simulate`, with a chain."""
    return run_world(seed, chain_world(seed))


def chain_world(seed: int) -> ChainWorld:
    """The world of a seed, before it has run."""
    rng, outside = random.Random(seed), chain_rng(seed)
    return ChainWorld(Swarm.draw(rng), rng, ChainSwarm.draw(outside), outside)


class FailingChain(MemoryChain):
    """`at_call` sees each call of the port; what it raises, the caller gets."""

    def __init__(self, *, zmq: bool, at_call: Callable[[], None]) -> None:
        self.at_call: Callable[[], None] = lambda: None
        super().__init__(zmq=zmq)
        self.at_call = at_call

    def _reachable(self) -> threading.RLock:
        self.at_call()
        return super()._reachable()

    @property
    def best(self) -> Sequence[MemoryBlock]:
        """The best chain, for the verdict."""
        return self._chain

    @property
    def waiting(self) -> Sequence[MemoryTx]:
        """The mempool, for the verdict."""
        return list(self._mempool.values())


class ChainWorld(World):
    """Payments on both ways; the wallets of the chain are others than Lightning's."""

    def __init__(self, swarm: Swarm, rng: random.Random, chain_swarm: ChainSwarm, outside: random.Random) -> None:
        super().__init__(swarm, rng)
        self.chain_swarm = chain_swarm
        self.outside = outside
        self.chain = FailingChain(zmq=chain_swarm.zmq, at_call=self.at_call)
        self.chain.mine_empty(20)
        self.evicted: list[MemoryTx] = []
        self.unlearnt: list[tuple[WalletId, str]] = []
        self.owners: dict[bytes, WalletId] = {}
        self.happened: Counter[str] = Counter()
        self.forgotten = False
        self.depositors = [
            self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id=f"chain{n}").wallet_id
            for n in range(3)
        ]
        for n in range(6):
            self.give(n)

    def at_call(self) -> None:
        if self.chance(self.chain_swarm.call_fails_p):
            raise Unavailable("work queue depth exceeded")
        if self.chance(self.chain_swarm.call_killed_p):
            raise Killed("call")

    def host(self, name: str) -> Host:
        host = super().host(name)
        host.chain = self.chain
        return host

    # --- what happens outside -----------------------------------------------------------------------

    async def live(self) -> None:
        async with trio.open_nursery() as both:
            both.start_soon(super().live)
            both.start_soon(self.live_on_chain)

    async def live_on_chain(self) -> None:
        swarm = self.chain_swarm
        steps: dict[str, tuple[float, Callable[[], None]]] = {
            "mine": (swarm.mine_p, self.mine),
            "replace": (swarm.replace_p, self.replace),
            "evict": (swarm.evict_p, self.evict),
            "rebroadcast": (swarm.rebroadcast_p, self.rebroadcast),
            "double spend": (swarm.double_spend_p, self.double_spend),
            "coinbase": (swarm.coinbase_p, self.mine_coinbase),
            "reorganise": (swarm.reorganise_p, self.reorganise),
            "invalidate": (swarm.invalidate_p, self.invalidate),
            "crash": (swarm.crash_p, self.crash),
            "restart": (swarm.restart_p, self.chain.restart),
            "away": (swarm.away_p, self.chain.go_away),
        }
        for _ in range(swarm.steps):
            await trio.sleep(self.outside.expovariate(1) * swarm.pause_s)
            if self.outside.random() < 0.3:
                self.come_back()
            if self.outside.random() < 0.3:
                self.learn()
            self.chain.hints_lost = self.outside.random() < swarm.hints_lost_p
            self.chain.initial_download = self.outside.random() < swarm.download_p
            if not self.knows_all():
                continue
            self.pay_on_chain()
            for name, (probability, step) in steps.items():
                if self.knows_all() and self.outside.random() < probability:
                    step()
                    self.happened[name] += 1

    def knows_all(self) -> bool:
        """Nobody mines, or pays, on what the node has forgotten."""
        return not self.forgotten

    def give(self, n: int) -> bytes:
        """An address of a wallet, known before it is paid."""
        script, wallet_id = _script(n), self.depositors[n % len(self.depositors)]
        self.store.addresses.give(wallet_id, DerivedAddress(index=n, address=f"own-{n}", script=script), key_id=KEY_ID)
        self.owners[script] = wallet_id
        return script

    def pay_on_chain(self) -> None:
        if self.outside.random() < self.chain_swarm.late_script_p:
            n = 1_000 + len(self.owners)
            wallet_id = self.owners[_script(n)] = self.outside.choice(self.depositors)
            tx = self.payment([_script(n)])
            self.send(tx)
            if self.outside.random() < 0.5:
                self.mine()
            self.happened["late script"] += 1
            self.unlearnt.append((wallet_id, f"{FOREIGN}{n}"))
        else:
            self.send(self.payment(self.outside.choices(list(self.owners), k=self.outside.randint(1, 3))))

    def learn(self) -> None:
        """Another program writes its addresses into the wallets, and the finder finds them."""
        for wallet_id, address in self.unlearnt:
            self.store.another.add_address(wallet_id, address)
        self.unlearnt.clear()
        self.store.foreign_addresses(_script_of_address).sweep(after=None, limit=1_000)

    def payment(self, scripts: Sequence[bytes], spends: Sequence[Outpoint] = ()) -> MemoryTx:
        pays = [(script, self.outside.choice(AMOUNTS_SAT) + self.outside.randint(0, 999)) for script in scripts]
        return self.chain.payment((b"\x51", 1), *pays, spends=spends)

    def send(self, tx: MemoryTx) -> None:
        if self.outside.random() < self.chain_swarm.mined_only_p:
            self.chain.mine(tx)
        else:
            self.chain.submit(tx)

    def mine(self) -> None:
        self.chain.mine()

    def mine_coinbase(self) -> None:
        self.chain.mine(coinbase_to=self.outside.choice(list(self.owners)))

    def replace(self) -> None:
        if old := self.one_waiting():
            scripts = self.outside.choices([*self.owners, b"\x52"], k=2)
            self.chain.submit(self.payment(scripts, spends=old.inputs))

    def evict(self) -> None:
        if old := self.one_waiting():
            self.evicted.append(old)
            self.chain.evict(old.txid)

    def rebroadcast(self) -> None:
        if self.evicted:
            tx = self.evicted.pop()
            if all(map(self.chain._unspent.__contains__, tx.inputs)):
                self.chain.submit(tx)

    def double_spend(self) -> None:
        if old := self.one_waiting():
            self.chain.mine(self.payment([self.outside.choice([*self.owners, b"\x52"])], spends=old.inputs))

    def one_waiting(self) -> MemoryTx | None:
        waiting = self.chain.waiting
        return self.outside.choice(waiting) if waiting else None

    def reorganise(self) -> None:
        """Another branch: some lost txs are in it, some are double-spent in it, the rest is in the mempool again."""
        depth = self.outside.randint(1, 4)
        branch: list[list[MemoryTx]] = [[] for _ in range(depth + 1)]
        for block in self.chain.best[-depth:]:
            for tx in block.txs:
                fate = self.outside.random()
                if tx.is_coinbase or fate < 0.4:
                    continue
                other = tx if fate < 0.7 else self.payment([b"\x52"], spends=tx.inputs)
                self.outside.choice(branch).append(other)
        self.chain.reorganise(depth, *branch)

    def invalidate(self) -> None:
        self.chain.invalidate(self.outside.randint(1, 3))

    def crash(self) -> None:
        """kill -9: the newest blocks are unknown for a while, and the mempool is empty."""
        self.evicted.extend(self.chain.waiting)
        self.chain.crash(self.outside.randint(0, 3))
        self.forgotten = True

    def come_back(self) -> None:
        self.chain.come_back()
        if self.forgotten:
            self.chain.return_blocks()
            self.forgotten = False

    def heal(self) -> None:
        """Everything works; then what waits is mined and gets deep, and three deposits are left on their way."""
        super().heal()
        self.chain.hints_lost = self.chain.initial_download = False
        self.come_back()
        self.learn()
        self.chain.mine()
        self.chain.mine_empty(POLICY.tiers[-1].confirmations + 3)
        self.chain.submit(self.payment(list(self.owners)[:2]))
        self.chain.mine()
        self.chain.submit(self.payment(list(self.owners)[:1]))

    # --- the verdict --------------------------------------------------------------------------------

    def is_open(self) -> bool:
        return super().is_open() and self.store.deposits.cursor() is not None

    def check_always(self) -> None:
        super().check_always()
        self.check_deposits()

    def check_deposits(self) -> None:
        """What each deposit says of itself is what the journals and the feed say."""
        settled = {one.outpoint: one for one in self.deposits() if one.state is DepositState.SETTLED}
        assert self.balance(ON_CHAIN) == -sum(one.amount_sat for one in settled.values())
        net: Counter[str] = Counter()
        for event in self.store.ledger.events(after_sequence=0, limit=10**6):
            if event.type in (DEPOSIT_SETTLED, DEPOSIT_REVERSED):
                outpoint = outpoint_of(event.payload["txid"], event.payload["vout"])
                net[outpoint] += 1 if event.type == DEPOSIT_SETTLED else -1
                assert net[outpoint] in (0, 1)
        assert {outpoint for outpoint, times in net.items() if times} == set(settled)
        pending = {
            one.outpoint
            for one in self.deposits()
            if one.state in (DepositState.DETECTED, DepositState.CONFIRMED) and not TERMS.is_dust(one.amount_sat)
        }
        assert self.store.pending_receives().keys() == pending

    def check_final(self) -> None:
        """A fold over the final chain and the mempool, worked out anew."""
        super().check_final()
        self.check_deposits()
        best = self.chain.best
        cursor = self.store.deposits.cursor()
        assert cursor is not None
        assert cursor.block == BlockRef(height=best[-1].height, hash=best[-1].hash)
        expected: dict[Outpoint, DepositState] = {}
        balances: Counter[str] = Counter()
        for block in best:
            for tx in block.txs:
                for outpoint, wallet_id, amount_sat in self.paid_by(tx):
                    required = POLICY.confirmations_for(amount_sat, is_coinbase=tx.is_coinbase)
                    is_deep = best[-1].height - block.height + 1 >= required
                    expected[outpoint] = DepositState.SETTLED if is_deep else DepositState.CONFIRMED
                    if is_deep:
                        self.fold(balances, wallet_id, amount_sat)
        for tx in self.chain.waiting:
            expected.update((outpoint, DepositState.DETECTED) for outpoint, _, _ in self.paid_by(tx))
        shown = {one.outpoint: one.state for one in self.deposits() if one.state is not DepositState.DROPPED}
        assert shown == expected
        for account in [*map(wallet_account, self.depositors), self.bank_owner(), DUST]:
            assert self.balance(account) == balances[account], account

    def paid_by(self, tx: MemoryTx) -> list[tuple[Outpoint, WalletId, int]]:
        return [
            (tx.outpoint(vout), self.owners[output.script], output.value_sat)
            for vout, output in enumerate(tx.outputs)
            if output.script in self.owners
        ]

    def fold(self, balances: Counter[str], wallet_id: WalletId, amount_sat: int) -> None:
        if TERMS.is_dust(amount_sat):
            balances[DUST] += amount_sat
            return
        fee_sat = TERMS.fee_sat(amount_sat)
        balances[wallet_account(wallet_id)] += amount_sat - fee_sat
        balances[self.bank_owner()] += fee_sat

    def deposits(self) -> Sequence[Deposit]:
        return self.store.deposits.page(wallet_id=None, states=(), after=None, limit=10**6)[0]

    def balance(self, account: str) -> int:
        return self.store.ledger.balance((account, "BTC"))[0]

    def bank_owner(self) -> str:
        wallet = self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id=BANK_OWNER)
        return wallet_account(wallet.wallet_id)


def _script(n: int) -> bytes:
    return b"\x00\x14" + n.to_bytes(20, "big")


def _script_of_address(address: str) -> bytes:
    if not address.startswith(FOREIGN):
        raise ValueError(address)
    return _script(int(address.removeprefix(FOREIGN)))
