"""One seed's world: payers, two nodes at most, another program, a leader and a standby, and what goes wrong.

First everything happens and fails at once, and after every commit the books must be sound. Then everything
heals, and within simulated minutes the books must be exactly what the nodes' own record says.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import trio
from trio.testing import MockClock

from adapters.memory import MemoryLightningNode, MemoryStore
from daemon.domain.accounts import LIGHTNING, SUSPENSE, wallet_account
from daemon.domain.errors import CommitUnknown, Conflict, Unavailable
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, lightning_key
from daemon.domain.money import Currency
from daemon.domain.node_events import InvoiceSettled
from daemon.domain.outbox import INVOICE_SETTLED
from daemon.domain.ports import NewInvoice, StoredInvoice
from daemon.posting.leadership import LEASE_TTL_S
from tests.property import auditor
from tests.samples import MORNING_MS, moved
from tests.simulation.daemons import Host, Killed
from tests.simulation.inline_threads import deterministic_scheduling, inline_threads, latencies
from tests.simulation.swarm import Swarm

OPENING_S = 600.0
CONVERGED_S = 900.0
"""Simulated bounds; in real time both are seconds at most."""


@dataclass(frozen=True, slots=True)
class Report:
    """How a seed ended: `trace` is equal for equal runs."""

    commits: int
    lives: int
    payments: int
    faults: int
    trace: str


def simulate(seed: int, swarm: Swarm | None = None) -> Report:
    """Runs one seed; raises AssertionError, in an exception group, where the books are not as they must be."""
    rng = random.Random(seed)
    return run_world(seed, World(swarm or Swarm.draw(rng), rng))


def run_world(seed: int, world: World) -> Report:
    """Runs a world with the scheduling of its seed."""
    with deterministic_scheduling(seed), inline_threads(world.latency):
        trio.run(world.run, clock=MockClock(autojump_threshold=0))
    return world.report()


class World:
    """Payments over Lightning, and all that goes wrong around them."""

    def __init__(self, swarm: Swarm, rng: random.Random) -> None:
        self.swarm = swarm
        self.rng = rng
        self.healed = True  # faults begin when the nodes are open
        self.faults = self.commits = 0
        self.skew_s = 0.0
        self.trace = hashlib.sha256()
        self.moves: list[tuple[str, str, int]] = []
        self.held_back: list[tuple[MemoryLightningNode, InvoiceSettled]] = []
        self.stall = latencies(rng, stall_p=swarm.stall_p, stall_s=2 * LEASE_TTL_S)
        self.smooth = latencies(rng, stall_p=0.0, stall_s=0.0)
        self.store = MemoryStore(now_s=self.now_s)
        self.store.faults.at_step = self.at_step

    def now_s(self) -> float:
        return MORNING_MS / 1000 + trio.current_time() + self.skew_s

    def latency(self) -> float:
        return self.smooth() if self.healed else self.stall()

    def chance(self, probability: float) -> bool:
        happens = not self.healed and self.rng.random() < probability
        self.faults += happens
        return happens

    # --- the database misbehaves --------------------------------------------------------------------

    def at_step(self, step: str) -> None:
        swarm = self.swarm
        if step == "committed":
            self.commits += 1
            self.check_always()
            if self.chance(swarm.reply_lost_p):
                raise CommitUnknown("reply lost")
        elif self.chance(swarm.unavailable_p):
            raise Unavailable("database away")
        if step == "commit":
            if self.chance(swarm.conflict_p):
                raise Conflict("somebody else moved")
            if self.chance(swarm.request_lost_p):
                raise CommitUnknown("request lost")
            if self.chance(swarm.usurp_p):
                self.usurp()
        if self.chance(swarm.kill_p):
            raise Killed(step)

    def usurp(self) -> None:
        """The leader slept past its lease between deciding and committing, and another took it meanwhile."""
        self.skew_s += LEASE_TTL_S + 1
        fence = self.store.leases.acquire(holder="usurper", ttl_s=LEASE_TTL_S)
        assert fence is not None
        self.store.leases.release(fence=fence)

    # --- what happens outside -----------------------------------------------------------------------

    async def run(self) -> None:
        self.nodes = [
            MemoryLightningNode(
                name=f"lnd{n}", pubkey=f"0{n + 2}" * 33, funds_msat=self.rng.randint(0, 10**7), now_s=self.now_s
            )
            for n in range(self.swarm.nodes)
        ]
        self.wallets = [
            self.store.wallets.create(account_id=None, currency=Currency.BTC, external_id=f"w{n}") for n in range(3)
        ]
        for _ in range(self.swarm.old_payments):
            self.pay(late=False)
        self.hosts = [self.host(f"host{n}") for n in range(2)]
        async with trio.open_nursery() as nursery:
            for host in self.hosts:
                nursery.start_soon(host.run)
            await self.until(self.is_open, OPENING_S)
            assert self.is_open()
            self.healed = False
            await self.live()
            self.heal()
            await self.until(self.has_converged, CONVERGED_S)
            self.check_final()
            nursery.cancel_scope.cancel()

    def host(self, name: str) -> Host:
        """A leader or a standby."""
        return Host(name, self.store, self.nodes, self.now_s, random.Random(self.rng.random()))

    async def live(self) -> None:
        async with trio.open_nursery() as late_documents:
            for _ in range(self.swarm.payments):
                await trio.sleep(self.rng.expovariate(1) * self.swarm.pause_s)
                if self.chance(self.swarm.foreign_journal_p):
                    self.move_inside()
                self.disturb(self.rng.choice(self.nodes))
                late = self.pay(late=self.chance(self.swarm.late_document_p))
                if late is not None:
                    late_documents.start_soon(self.write_late, late)

    def pay(self, *, late: bool) -> StoredInvoice | None:
        """A payment: expected, by nobody, or by a document that is written later (then it is returned)."""
        node, swarm = self.rng.choice(self.nodes), self.swarm
        received_msat = self.rng.choice((self.rng.randint(1, 3000), self.rng.randint(1000, 10**8)))
        self.hold_or_deliver(node)
        if self.rng.random() < swarm.unknown_p:
            self.after_settling(node, node.keysend(received_msat))
            return None
        invoice = self.new_document(node)
        if not late:
            self.store.invoices.insert(invoice)
        asked = NewInvoice(
            preimage=bytes.fromhex(invoice.preimage), value_msat=0, memo="m", description_hash=b"", expiry_s=86_400
        )
        node.add_by_another(asked)
        self.after_settling(node, node.settle(invoice.payment_hash, received_msat))
        return invoice if late else None

    def new_document(self, node: MemoryLightningNode) -> StoredInvoice:
        preimage = self.rng.randbytes(32)
        wallet = self.rng.choice(self.wallets)
        payment_hash = PaymentHash(hashlib.sha256(preimage).hexdigest())
        return StoredInvoice(
            payment_hash=payment_hash,
            wallet_id=wallet.wallet_id,
            account_id=AccountId(wallet.account_id),
            external_id=payment_hash,
            pubkey=node.pubkey,
            currency=Currency.BTC,
            payment_request="lnbcrt1",
            paid=False,
            completed=False,
            created_at=datetime.fromtimestamp(self.now_s(), tz=UTC),
            preimage=preimage.hex(),
        )

    async def write_late(self, invoice: StoredInvoice) -> None:
        await trio.sleep(self.rng.uniform(0.1, 20))
        self.store.another.insert_invoice(invoice)

    def move_inside(self) -> None:
        source, target = (wallet_account(wallet.wallet_id) for wallet in self.rng.sample(self.wallets, 2))
        amount = self.rng.randint(1, 50)
        self.moves.append((source, target, amount))
        self.store.another.write_journal(moved(source, target, amount))

    # --- the stream misbehaves ----------------------------------------------------------------------

    def hold_or_deliver(self, node: MemoryLightningNode) -> None:
        node.deliver_live = not self.chance(self.swarm.hold_back_p)

    def after_settling(self, node: MemoryLightningNode, event: InvoiceSettled) -> None:
        """What was held back comes later, out of order; anything may come twice."""
        if not node.deliver_live:
            self.held_back.append((node, event))
        elif self.held_back and self.rng.random() < 0.5:
            owner, held = self.held_back.pop(self.rng.randrange(len(self.held_back)))
            owner.send([held])
        if self.chance(self.swarm.duplicate_p):
            known = node.settled_after(0)
            node.send(self.rng.choices(known, k=self.rng.randint(1, 4)))

    def disturb(self, node: MemoryLightningNode) -> None:
        if self.chance(self.swarm.burn_index_p):
            node.burn_settle_index(self.rng.randint(1, 3))
        if self.chance(self.swarm.disconnect_p):
            node.disconnect(lose_pending=self.rng.random() < 0.7)
        if self.chance(self.swarm.node_away_p):
            node.go_away()
        elif self.rng.random() < 0.3:
            node.come_back()

    def heal(self) -> None:
        """What was on its way arrives; no stream is broken for it: what stands must do."""
        self.healed = True
        for node in self.nodes:
            node.deliver_live = True
            node.come_back()
        for node, event in self.held_back:
            node.send([event])

    # --- the verdict --------------------------------------------------------------------------------

    def is_open(self) -> bool:
        cursors = auditor.all_cursors(self.store, self.pubkeys())
        return len(cursors) == len(self.nodes) and all(cursor.opened for cursor in cursors.values())

    def pubkeys(self) -> tuple[NodePubkey, ...]:
        return tuple(node.pubkey for node in self.nodes)

    def check_always(self) -> None:
        """After every commit: sound books, and no cursor ahead of them."""
        auditor.check_books(self.store, self.pubkeys())
        auditor.check_sums(self.store, self.pubkeys())
        taken = self.store.taken_keys()
        for node in self.nodes:
            cursor = auditor.all_cursors(self.store, self.pubkeys()).get(node.pubkey)
            if cursor is None or cursor.opening_index is None:
                continue
            assert cursor.newest_index() <= node.newest_settle_index
            for event in node.settled_after(cursor.opening_index):
                if cursor.has_booked(event.settle_index):
                    assert lightning_key(node.pubkey, event.settled_id) in taken, "the cursor is ahead of the books"
        self.trace.update(f"{self.store.ledger.head()} {trio.current_time():.6f}".encode())

    def has_converged(self) -> bool:
        try:
            self.check_final()
        except AssertionError:
            return False
        return True

    def check_final(self) -> None:
        """The nodes' own record against the books, worked out anew."""
        cursors = auditor.all_cursors(self.store, self.pubkeys())
        balances = dict.fromkeys((wallet_account(w.wallet_id) for w in self.wallets), 0)
        suspense = credited = 0
        for node in self.nodes:
            opening_index = cursors[node.pubkey].opening_index
            assert opening_index is not None
            for event in node.settled_after(0):
                document = self.store.invoices.get(event.payment_hash)
                if document is not None:
                    assert document.paid
                    credited += 1
                    balances[wallet_account(document.wallet_id)] += event.received_msat // 1000
                elif event.settle_index > opening_index:
                    suspense += event.received_msat // 1000
        for source, target, amount in self.moves:
            balances[source] -= amount
            balances[target] += amount
        shown = {account: self.store.ledger.balance((account, "BTC"))[0] for account in balances}
        assert shown == balances
        assert self.store.ledger.balance((SUSPENSE, "BTC"))[0] == suspense
        remainders_msat = sum(cursor.remainder_msat for cursor in cursors.values())
        lightning_msat = -self.store.ledger.balance((LIGHTNING, "BTC"))[0] * 1000
        assert lightning_msat + remainders_msat == sum(node.funds().funds_msat for node in self.nodes)
        told = [e for e in self.store.ledger.events(after_sequence=0, limit=10**6) if e.type == INVOICE_SETTLED]
        assert len(told) == credited
        for node in self.nodes:
            cursor = cursors[node.pubkey]
            last = max((event.settle_index for event in node.settled_after(0)), default=0)
            assert cursor.settle_index >= last
            assert cursor.gaps() == ()

    async def until(self, reached: Callable[[], bool], bound_s: float) -> None:
        """Returns when it is reached, or when the time is up: the caller then says what is wrong."""
        with trio.move_on_after(bound_s):
            while not reached():  # noqa: ASYNC110  what is waited for is seen from outside only
                await trio.sleep(1)

    def report(self) -> Report:
        return Report(
            commits=self.commits,
            lives=sum(host.lives for host in self.hosts),
            payments=sum(len(node.settled_after(0)) for node in self.nodes),
            faults=self.faults,
            trace=self.trace.hexdigest(),
        )
