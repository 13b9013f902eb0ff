"""What the chain means for the books: one example per rule of design.md section 5.

Each event is read for, decided, sealed and committed on a database in memory, so that what is wanted, and what a
later event finds, is part of each claim.
"""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest

from adapters.memory import CommitFault, MemoryStore
from daemon.domain.accounts import DUST, ON_CHAIN, wallet_account
from daemon.domain.books import ChainFacts, Facts, Head
from daemon.domain.chain import BlockRef, ChainCursor, Deposit, DepositState
from daemon.domain.chain_events import ChainMoved, DepositDue, WatchedOutput
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, DepositTerms
from daemon.domain.entries import JournalEntry
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import BlockHash, WalletId, outpoint_of
from daemon.domain.money import Currency, Price
from daemon.domain.node_events import NodeEvent
from daemon.domain.outcomes import AlreadyPosted, DepositsChanged, Held, Outcome, Stale
from daemon.domain.ports import StoredEvent
from daemon.domain.quotes import Deal
from daemon.matching.decide import decide, wanted_by
from daemon.matching.deposits import DepositRules
from daemon.matching.plan import Plan
from daemon.posting.board import Board
from daemon.posting.poster import Poster
from tests.samples import (
    GENESIS,
    MORNING_MS,
    block_at,
    chain_moved,
    connected,
    deposit_due,
    moved,
    output,
    outputs_found,
    seen,
    txid_of,
    txs_gone,
)
from tests.silent import SilentMetrics

START = block_at(100)
DETECTED, CONFIRMED = DepositState.DETECTED, DepositState.CONFIRMED
SETTLED, DROPPED = DepositState.SETTLED, DepositState.DROPPED
SIXTY_THOUSAND = Price.from_usd_per_btc(Decimal(60_000))


class Bank:
    """A database in memory that follows the chain at block 100, and the daemon's own way into it.

    A deposit needs `confirmations`, one of a million sats and more six.
    """

    def __init__(
        self, *, price: Price | None = None, confirmations: int = 1, terms: DepositTerms | None = None
    ) -> None:
        self.price = price
        self.store = MemoryStore(now_s=lambda: MORNING_MS / 1000)
        self.wallet, self.other = self._wallet("one", Currency.BTC), self._wallet("two", Currency.BTC)
        self.dollars = self._wallet("dollars", Currency.USD)
        self.owner = self.store.books.read_facts(wanted_by([seen()])).chain.bank_owner or WalletId("")
        self._tiers = (
            ConfirmationTier(from_sat=0, confirmations=confirmations),
            ConfirmationTier(from_sat=1_000_000, confirmations=6),
        )
        self.start(terms or DepositTerms())
        self.post(chain_moved(None, connected(START)))

    def start(self, terms: DepositTerms) -> None:
        """A daemon with these terms takes over."""
        fence = self.store.leases.acquire(holder="daemon", ttl_s=5)
        assert fence is not None
        self.rules = DepositRules(terms=terms, default_policy=ConfirmationPolicy(version=0, tiers=self._tiers))
        self.poster = Poster(
            books=self.store.books,
            prices=self,
            board=Board(),
            metrics=SilentMetrics(),
            fence=fence,
            now_ms=lambda: MORNING_MS,
            rng=random.Random(0),
            rules=self.rules,
        )

    def _wallet(self, name: str, currency: Currency) -> WalletId:
        return self.store.wallets.create(account_id=None, currency=currency, external_id=name).wallet_id

    def current(self) -> Price | None:
        """The price, now."""
        return self.price

    def post(self, *events: NodeEvent) -> list[Outcome]:
        """Posts these events in one commit."""
        return self.poster.commit(events).plan.outcomes

    def pays(
        self, name: str = "a", amount_sat: int = 100_000, *, vout: int = 0, coinbase: bool = False
    ) -> WatchedOutput:
        """An output of the tx with this name to the first wallet."""
        return output(name, self.wallet, amount_sat, vout=vout, is_coinbase=coinbase)

    def mine(self, *outputs: WatchedOutput, branch: str = "main") -> None:
        """One more block, with these outputs."""
        base = self.tip
        self.post(chain_moved(base, connected(block_at(base.height + 1, branch), *outputs)))

    def settle(self, *outputs: WatchedOutput) -> None:
        """One more block with these outputs, which are then deep enough."""
        self.mine(*outputs)
        self.post(*(deposit_due_of(one) for one in outputs))

    def lose_tip(self, *instead: WatchedOutput, branch: str = "other") -> None:
        """The last block is replaced by one of another branch."""
        lost = self.tip
        block = connected(block_at(lost.height, branch), *instead)
        self.post(chain_moved(lost, block, lost=[lost], fork=block_at(lost.height - 1)))

    @property
    def tip(self) -> BlockRef:
        """The block that the books are at."""
        cursor = self.store.deposits.cursor()
        assert cursor is not None
        return cursor.block

    def deposit(self, name: str = "a", vout: int = 0) -> Deposit:
        """The deposit as it is in the books."""
        found = self.store.deposits.get(outpoint_of(txid_of(name), vout))
        assert found is not None
        return found

    def balance(self, account: str) -> int:
        """Sats, credit minus debit."""
        return self.store.ledger.balance((account, Currency.BTC))[0]

    def of_wallet(self) -> int:
        """What the first wallet has."""
        return self.balance(wallet_account(self.wallet))

    def told(self, kind: str = "") -> list[StoredEvent]:
        """The feed, all of it or of one type."""
        return [one for one in self.store.ledger.events(after_sequence=0, limit=1_000) if kind in (one.type, "")]

    def types(self) -> list[str]:
        """The types of the feed's events."""
        return [event.type.removeprefix("deposit.") for event in self.told()]

    def keys(self) -> list[str]:
        """The keys of journals, in order."""
        return [linked.link.key for linked in self.store.chain()]

    def pending(self) -> set[str]:
        """What another program's readers see as on its way."""
        return set(self.store.another.pending_receives())


def deposit_due_of(one: WatchedOutput) -> DepositDue:
    """It is deep enough."""
    return DepositDue(txid=one.txid, vout=one.vout, due_at_ms=MORNING_MS + 5)


def only_entry(plan: Plan) -> JournalEntry:
    """The one journal of a plan."""
    (entry,) = (step.entry for step in plan.steps if step.entry is not None)
    return entry


def legs(entry: JournalEntry) -> list[tuple[str, int]]:
    """Every leg as (account, credit minus debit)."""
    return [(leg.account, leg.credit - leg.debit) for leg in entry.legs]


def settlement(bank: Bank, amount_sat: int = 100_000) -> JournalEntry:
    """The journal that credits a deposit of this amount."""
    bank.mine(bank.pays("a", amount_sat))
    return only_entry(bank.poster.commit([deposit_due("a")]).plan)


# --- seen, confirmed, settled -----------------------------------------------------------------------


def test_an_output_in_the_mempool_is_detected() -> None:
    """Nothing is booked; the policy is fixed, and the other readers see it as pending."""
    bank = Bank(confirmations=2)
    assert bank.post(seen(bank.pays())) == [DepositsChanged(detected=1)]
    deposit = bank.deposit()
    assert (deposit.state, deposit.block, deposit.revision) == (DETECTED, None, 0)
    assert (deposit.policy_version, deposit.confirmations_required) == (0, 2)
    assert (bank.keys(), bank.pending()) == ([], {deposit.outpoint})
    (event,) = bank.told("deposit.detected")
    assert event.payload == {
        "txid": txid_of("a"),
        "vout": 0,
        "wallet_id": bank.wallet,
        "address": deposit.address,
        "amount_sat": 100_000,
        "state": "detected",
        "confirmations_required": 2,
        "again": False,
    }
    assert (event.wallet_ids, event.occurred_at_ms) == ((bank.wallet,), MORNING_MS + 1)


def test_seen_again_changes_nothing() -> None:
    """Hints repeat; so does a look at the mempool."""
    bank = Bank()
    bank.post(seen(bank.pays(), bank.pays()), seen(bank.pays()))
    assert bank.post(seen(bank.pays())) == [DepositsChanged()]
    assert bank.types() == ["detected"]


def test_an_output_in_a_block_is_confirmed() -> None:
    """Nothing is booked yet; it is still pending."""
    bank = Bank(confirmations=2)
    bank.post(seen(bank.pays()))
    bank.mine(bank.pays())
    deposit = bank.deposit()
    assert (deposit.state, deposit.block) == (CONFIRMED, block_at(101))
    assert (bank.keys(), bank.pending(), bank.types()) == ([], {deposit.outpoint}, ["detected", "confirmed"])
    (event,) = bank.told("deposit.confirmed")
    assert event.payload["block_height"] == 101
    assert event.payload["block_hash"] == block_at(101).hash


def test_an_output_first_seen_in_a_block_is_detected_and_confirmed() -> None:
    """The feed tells both, in this order, with ids of their own."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    assert bank.types() == ["detected", "confirmed"]
    assert len({event.id for event in bank.told()}) == 2


def test_what_is_seen_after_its_block_stays_confirmed() -> None:
    """A hint that was late."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    bank.post(seen(bank.pays()))
    assert bank.deposit().state is CONFIRMED


def test_a_deep_deposit_is_credited_less_its_fee() -> None:
    """The wallet gets amount less fee, the bank owner the fee, and it is pending no more."""
    bank = Bank()
    bank.mine(bank.pays())
    assert bank.post(deposit_due("a")) == [DepositsChanged(settled=1, settled_sat=100_000)]
    assert (bank.of_wallet(), bank.balance(wallet_account(bank.owner)), bank.balance(ON_CHAIN)) == (
        97_000,
        3_000,
        -100_000,
    )
    deposit = bank.deposit()
    assert (deposit.state, deposit.settlements, bank.pending()) == (SETTLED, 1, set())
    (event,) = bank.told("deposit.settled")
    assert event.id == f"chain:{deposit.outpoint}:1#deposit.settled"
    told = {"fee_sat": 3_000, "credited_sat": 97_000, "is_dust": False, "settlement": 1, "state": "settled"}
    assert told.items() <= event.payload.items()


def test_the_fee_leg_comes_first_as_blink_writes_it() -> None:
    """Bank owner, OnChain, wallet (blink-contract.md 2.5)."""
    bank = Bank()
    assert legs(settlement(bank)) == [
        (wallet_account(bank.owner), 3_000),
        (ON_CHAIN, -100_000),
        (wallet_account(bank.wallet), 97_000),
    ]


def test_without_a_fee_there_is_no_fee_leg() -> None:
    """A leg of zero is left out."""
    bank = Bank(terms=DepositTerms(flat_fee_sat=0))
    assert legs(settlement(bank)) == [(ON_CHAIN, -100_000), (wallet_account(bank.wallet), 100_000)]


def test_a_large_deposit_pays_basis_points() -> None:
    """30 of the whole amount, from a million sats on."""
    bank = Bank()
    bank.mine(bank.pays("a", 2_000_000))
    for _ in range(5):
        bank.mine()
    bank.post(deposit_due("a"))
    assert (bank.of_wallet(), bank.balance(wallet_account(bank.owner))) == (1_994_000, 6_000)


def test_a_credit_carries_blinks_metadata() -> None:
    """Without a price no dollar fields; no hash beside the preimages; an empty memo (blink-contract.md 2.5)."""
    bank = Bank()
    entry = settlement(bank)
    assert (entry.key, entry.memo, entry.datetime_ms) == (f"chain:{txid_of('a')}:0:1", "", MORNING_MS + 5)
    assert (entry.payment_hash, entry.preimage) == (None, None)
    assert entry.details == {
        "type": "onchain_receipt",
        "pending": False,
        "hash": txid_of("a"),
        "vout": 0,
        "payee_addresses": (f"bcrt1q-{bank.wallet}",),
        "request_id": None,
        "external_id": None,
        "satsAmount": 97_000,
        "satsFee": 3_000,
    }


def test_with_a_price_cents_stand_beside_the_sats() -> None:
    """100,001 sats are 6,000.06 cents; the fee's share is rounded up, the rest is the wallet's (2.6)."""
    details = settlement(Bank(price=SIXTY_THOUSAND), 100_001).details
    assert (details["centsAmount"], details["centsFee"]) == (6_000 - 180, 180)  # 179.998…
    shown = ("displayAmount", "displayFee", "displayCurrency")
    assert [details[name] for name in shown] == [5_820, 180, "USD"]


def test_cents_that_are_exactly_a_half_go_down() -> None:
    """At 62,500 dollars 100,008 sats are 6,250.5 cents: Blink writes 6,250 (2.6)."""
    half = Price.from_usd_per_btc(Decimal(62_500))
    details = settlement(Bank(price=half), 100_008).details
    assert (details["centsAmount"], details["centsFee"]) == (6_250 - 188, 188)  # fee 187.48…


def test_the_projection_shows_what_will_reach_the_wallet() -> None:
    """After the fee, with the price of a sat (blink-contract.md 1)."""
    bank = Bank(price=SIXTY_THOUSAND)
    plan = bank.poster.commit([seen(bank.pays())]).plan
    (pending,) = plan.pending.values()
    assert pending is not None
    assert (pending.amount_sat, pending.fee_sat, pending.created_at_ms) == (97_000, 3_000, MORNING_MS + 1)
    assert (pending.cents, pending.fee_cents, pending.price_base) == (5_820, 180, 60_000_000_000)


# --- dust -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount_sat", "threshold_sat"), [(4_999, 5_000), (3_000, 0), (1, 0)])
def test_dust_is_booked_whole_to_its_own_account(amount_sat: int, threshold_sat: int) -> None:
    """Below the threshold, or not more than its fee: no wallet gets it, no fee is taken, nobody waits for it."""
    bank = Bank(terms=DepositTerms(dust_threshold_sat=threshold_sat))
    bank.mine(bank.pays("a", amount_sat))
    assert bank.pending() == set()
    entry = only_entry(bank.poster.commit([deposit_due("a")]).plan)
    assert legs(entry) == [(ON_CHAIN, -amount_sat), (DUST, amount_sat)]
    assert (entry.details["type"], entry.details["satsAmount"]) == ("reconciliation", amount_sat)
    (event,) = bank.told("deposit.settled")
    assert (event.payload["credited_sat"], event.payload["is_dust"]) == (0, True)


def test_dust_of_a_wallet_that_cannot_be_credited_is_booked_too() -> None:
    """It reaches no wallet, so the wallet does not matter."""
    bank = Bank()
    bank.settle(output("a", bank.dollars, 600), output("b", "nobody", 600))
    assert bank.balance(DUST) == 1_200


def test_dust_in_a_lost_block_is_taken_from_the_dust_account() -> None:
    """No wallet is overdrawn by it."""
    bank = Bank()
    bank.settle(bank.pays("a", 600))
    bank.lose_tip()
    assert (bank.balance(DUST), bank.balance(ON_CHAIN), bank.told("wallet.overdrawn")) == (0, 0, [])


def test_an_output_of_nothing_is_no_deposit() -> None:
    """A miner may put one into a block: there is nothing to book, and nothing to stop for."""
    bank = Bank(terms=DepositTerms(flat_fee_sat=0, dust_threshold_sat=0))
    nothing = bank.pays("a", 0)
    bank.post(seen(nothing), outputs_found(START, connected(START, nothing)))
    bank.mine(nothing)
    assert (bank.told(), bank.store.deposits.get(outpoint_of(txid_of("a"), 0))) == ([], None)


# --- how deep is deep enough ------------------------------------------------------------------------


def test_too_early_is_stale() -> None:
    """The decision counts for itself; nothing is written."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    assert bank.post(deposit_due("a")) == [Stale(bank.deposit().outpoint)]
    bank.mine()
    bank.post(deposit_due("a"))
    assert bank.of_wallet() == 97_000


def test_due_in_the_mempool_is_stale() -> None:
    """Its block was lost since."""
    bank = Bank()
    bank.post(seen(bank.pays()))
    assert bank.post(deposit_due("a")) == [Stale(bank.deposit().outpoint)]


def test_due_twice_is_credited_once() -> None:
    """In one batch and in two."""
    bank = Bank()
    bank.mine(bank.pays())
    key = bank.deposit().outpoint
    assert bank.post(deposit_due("a"), deposit_due("a"))[1] == AlreadyPosted(key)
    assert bank.post(deposit_due("a")) == [AlreadyPosted(key)]
    assert bank.of_wallet() == 97_000


def test_due_without_a_deposit_stops_the_daemon() -> None:
    """What is due was read from the books: then it must be there."""
    with pytest.raises(InvariantViolation, match="not in the books"):
        Bank().post(deposit_due("a"))


def test_a_deposit_can_come_and_be_credited_in_one_commit() -> None:
    """How events are batched changes nothing: the wallet's currency is known although the deposit is new."""
    bank = Bank()
    block = connected(block_at(101), bank.pays())
    bank.post(chain_moved(START, block), deposit_due("a"))
    assert (bank.deposit().state, bank.of_wallet()) == (SETTLED, 97_000)


def test_the_policy_counts_that_was_in_force_at_first_sight() -> None:
    """A change in between is for later deposits, also where this one was gone and came back."""
    bank = Bank(confirmations=2)
    bank.post(seen(bank.pays("old")))
    before = ConfirmationPolicy(version=0, tiers=(ConfirmationTier(from_sat=0, confirmations=2),))
    tiers = (ConfirmationTier(from_sat=0, confirmations=4),)
    bank.store.policies.change(before=before, tiers=tiers, changed_by="op", reason="")
    bank.post(txs_gone(START, "old"), seen(bank.pays("old"), bank.pays("new")))
    assert [(bank.deposit(n).policy_version, bank.deposit(n).confirmations_required) for n in ("old", "new")] == [
        (0, 2),
        (1, 4),
    ]


def test_a_coinbase_waits_for_its_maturity() -> None:
    """Not credited with 99 confirmations, credited with 100."""
    bank = Bank()
    bank.mine(bank.pays(coinbase=True))
    later = [connected(block_at(height)) for height in range(102, 200)]
    bank.post(chain_moved(bank.tip, *later))
    assert bank.post(deposit_due("a")) == [Stale(bank.deposit().outpoint)]
    bank.mine()
    bank.post(deposit_due("a"))
    assert (bank.tip.height, bank.of_wallet()) == (200, 97_000)


# --- gone and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "replaced_by"), [("replaced", "b"), ("double_spent", None), ("evicted", None), ("coinbase_lost", None)]
)
def test_what_is_gone_is_dropped_and_pending_no_more(reason: str, replaced_by: str | None) -> None:
    """With the reason, and with the tx that took its place, if one did."""
    bank = Bank()
    bank.post(seen(bank.pays()))
    assert bank.post(txs_gone(START, "a", reason=reason, replaced_by=replaced_by)) == [DepositsChanged(dropped=1)]
    deposit = bank.deposit()
    assert (deposit.state, deposit.dropped_reason, bank.pending()) == (DROPPED, reason, set())
    (event,) = bank.told("deposit.dropped")
    other = txid_of(replaced_by) if replaced_by else None
    assert (event.payload["reason"], event.payload["replaced_by"], deposit.replaced_by) == (reason, other or "", other)


def test_all_outputs_of_a_tx_go_with_it() -> None:
    """Also where only the txid is known."""
    bank = Bank()
    bank.post(seen(bank.pays("a"), bank.pays("a", vout=1), bank.pays("b")))
    bank.post(txs_gone(START, "a"))
    assert [bank.deposit(name, vout).state for name, vout in (("a", 0), ("a", 1), ("b", 0))] == [
        DROPPED,
        DROPPED,
        DETECTED,
    ]


def test_gone_counts_only_at_the_block_where_it_was_seen() -> None:
    """A later block may hold the tx."""
    bank = Bank(confirmations=2)
    bank.post(seen(bank.pays()))
    bank.mine()
    assert bank.post(txs_gone(START, "a")) == [Stale(f"chain:{START.hash}")]
    assert bank.deposit().state is DETECTED


def test_what_is_in_a_block_or_unknown_is_not_dropped() -> None:
    """A look at the mempool cannot take away what the chain holds."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    bank.post(txs_gone(bank.tip, "a", "never seen"))
    assert bank.deposit().state is CONFIRMED


def test_broadcast_again_it_is_detected_again_and_settles_once() -> None:
    """Evicted, back, mined: the reason is forgotten, and the feed has ids of their own for all of it."""
    bank = Bank()
    bank.post(seen(bank.pays()))
    bank.post(txs_gone(START, "a", reason="replaced", replaced_by="b"))
    bank.post(seen(bank.pays()))
    deposit = bank.deposit()
    assert (deposit.state, deposit.dropped_reason, deposit.replaced_by) == (DETECTED, "", None)
    assert (bank.told()[-1].payload["again"], bank.pending()) == (True, {deposit.outpoint})
    bank.settle(bank.pays())
    assert (bank.of_wallet(), bank.keys()) == (97_000, [f"chain:{deposit.outpoint}:1"])
    assert bank.types() == ["detected", "dropped", "detected", "confirmed", "settled"]


def test_mined_after_it_was_dropped_it_is_confirmed() -> None:
    """The mempool is never the last word."""
    bank = Bank()
    bank.post(seen(bank.pays()), txs_gone(START, "a", reason="replaced", replaced_by="b"))
    bank.settle(bank.pays())
    deposit = bank.deposit()
    assert (deposit.state, deposit.dropped_reason, deposit.replaced_by) == (SETTLED, "", None)


# --- several at once --------------------------------------------------------------------------------


def test_two_deposits_in_one_block_to_one_wallet_are_two() -> None:
    """Both credited, each with its own fee and key."""
    bank = Bank()
    bank.settle(bank.pays("a"), bank.pays("b", 50_000))
    assert (bank.of_wallet(), len(bank.keys())) == (97_000 + 47_000, 2)


def test_one_tx_may_pay_one_address_twice_and_several_wallets() -> None:
    """The outpoint is the deposit."""
    bank = Bank()
    bank.settle(bank.pays("a"), bank.pays("a", vout=1), output("a", bank.other, 20_000, vout=2))
    assert (bank.of_wallet(), bank.balance(wallet_account(bank.other))) == (194_000, 17_000)


# --- reorgs -----------------------------------------------------------------------------------------


def test_a_confirmed_deposit_in_a_lost_block_falls_back() -> None:
    """Nothing was booked, nothing is reversed; it waits in the mempool."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    bank.lose_tip()
    deposit = bank.deposit()
    assert (deposit.state, deposit.block, bank.keys(), bank.pending()) == (DETECTED, None, [], {deposit.outpoint})
    assert bank.types() == ["detected", "confirmed", "detected"]


def test_a_settled_deposit_in_a_lost_block_is_reversed_at_once() -> None:
    """By a journal that undoes each leg; it is pending again."""
    bank = Bank()
    bank.settle(bank.pays())
    lost = bank.tip
    move = chain_moved(lost, lost=[lost], fork=START)
    plan = bank.poster.commit([move]).plan
    assert plan.outcomes == [DepositsChanged(detected=1, reversed=1, reversed_sat=100_000)]
    entry = only_entry(plan)
    assert entry.key == f"chain:{txid_of('a')}:0:1:reorg"
    assert legs(entry) == [
        (wallet_account(bank.owner), -3_000),
        (ON_CHAIN, 100_000),
        (wallet_account(bank.wallet), -97_000),
    ]
    deposit = bank.deposit()
    assert (deposit.state, deposit.booking, deposit.settlements) == (DETECTED, None, 1)
    assert (bank.of_wallet(), bank.pending(), bank.tip) == (0, {deposit.outpoint}, START)
    assert bank.types()[-2:] == ["reversed", "detected"]


def test_a_reversal_undoes_what_was_booked_not_what_would_be_now() -> None:
    """Fee and price may have changed in between."""
    bank = Bank(price=SIXTY_THOUSAND)
    bank.settle(bank.pays())
    bank.price = None
    bank.start(DepositTerms(flat_fee_sat=9))
    lost = bank.tip
    entry = only_entry(bank.poster.commit([chain_moved(lost, lost=[lost], fork=START)]).plan)
    assert legs(entry)[0] == (wallet_account(bank.owner), -3_000)
    assert entry.details["centsFee"] == 180


def test_a_reversed_deposit_settles_again_under_the_next_key() -> None:
    """Twice lost, three times credited: six journals, the money once, and no event id twice."""
    bank = Bank()
    bank.settle(bank.pays())
    for branch in ("second", "third"):
        bank.lose_tip(bank.pays(), branch=branch)
        assert bank.of_wallet() == 0
        bank.post(deposit_due("a"))
    key = f"chain:{txid_of('a')}:0"
    assert bank.keys() == [f"{key}:1", f"{key}:1:reorg", f"{key}:2", f"{key}:2:reorg", f"{key}:3"]
    assert (bank.of_wallet(), bank.deposit().settlements) == (97_000, 3)
    ids = [event.id for event in bank.told()]
    assert len(set(ids)) == len(ids)


def test_in_both_branches_it_falls_back_and_is_confirmed_in_one_move() -> None:
    """Its new block is the one that counts for its depth."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    bank.mine()
    lost = [block_at(102), block_at(101)]
    blocks = [connected(block_at(101, "new")), connected(block_at(102, "new"), bank.pays())]
    bank.post(chain_moved(bank.tip, *blocks, lost=lost, fork=START))
    assert (bank.deposit().block, bank.deposit().state) == (block_at(102, "new"), CONFIRMED)
    assert bank.post(deposit_due("a")) == [Stale(bank.deposit().outpoint)]


def test_blocks_below_the_fork_are_left_alone() -> None:
    """Only what was in a lost block is taken back."""
    bank = Bank()
    bank.settle(bank.pays("kept"))
    bank.settle(bank.pays("lost"))
    bank.lose_tip()
    assert (bank.deposit("kept").state, bank.deposit("lost").state, bank.of_wallet()) == (SETTLED, DETECTED, 97_000)


def test_connected_and_lost_in_one_commit_it_falls_back() -> None:
    """A later event of a batch sees what an earlier one did, the credit included."""
    bank = Bank()
    bank.post(
        chain_moved(START, connected(block_at(101), bank.pays())),
        deposit_due("a"),
        chain_moved(block_at(101), lost=[block_at(101)], fork=START),
    )
    assert (bank.deposit().state, bank.of_wallet(), len(bank.keys())) == (DETECTED, 0, 2)


# --- money that was spent already ---------------------------------------------------------------------


def spend(bank: Bank, amount_sat: int) -> None:
    """Another program takes money out of the first wallet."""
    bank.store.another.write_journal(moved(wallet_account(bank.wallet), wallet_account(bank.other), amount_sat))
    bank.post(*bank.store.journals.foreign_journals(after=None, limit=10))


def test_a_reversal_may_take_a_wallet_below_zero_and_tells() -> None:
    """The balance after it, beside the deposit that did it."""
    bank = Bank()
    bank.settle(bank.pays())
    spend(bank, 90_000)
    bank.lose_tip()
    (event,) = bank.told("wallet.overdrawn")
    assert event.id == f"chain:{txid_of('a')}:0:1:reorg#wallet.overdrawn"
    assert event.payload == {
        "wallet_id": bank.wallet,
        "balance_sat": -90_000,
        "txid": txid_of("a"),
        "vout": 0,
        "journal_id": bank.store.chain()[-1].link.journal_id,
    }
    assert bank.of_wallet() == -90_000


def test_a_wallet_that_stays_at_zero_is_not_overdrawn() -> None:
    """Zero is no debt."""
    bank = Bank()
    bank.settle(bank.pays())
    bank.lose_tip()
    assert bank.told("wallet.overdrawn") == []


def test_several_reversals_of_one_wallet_count_one_after_the_other() -> None:
    """Each event has the balance as its own journal leaves it; the first ones leave enough."""
    bank = Bank()
    bank.settle(bank.pays("a"), bank.pays("b"), bank.pays("c"))
    spend(bank, 150_000)
    bank.lose_tip()
    assert [event.payload["balance_sat"] for event in bank.told("wallet.overdrawn")] == [-53_000, -150_000]


def test_the_bank_owners_own_deposits_count_with_the_fees() -> None:
    """Its wallet gives back amount and fee, and the fee of everybody else's deposit in the same blocks."""
    bank = Bank()
    bank.settle(output("a", bank.owner), bank.pays("b"), output("c", bank.owner))
    bank.store.another.write_journal(moved(wallet_account(bank.owner), wallet_account(bank.other), 203_000))
    bank.post(*bank.store.journals.foreign_journals(after=None, limit=10))
    bank.lose_tip()
    balances = [event.payload["balance_sat"] for event in bank.told("wallet.overdrawn")]
    assert balances == [-100_000, -203_000]


# --- the cursor ---------------------------------------------------------------------------------------


def test_the_first_move_sets_the_cursor_and_counts_no_outputs() -> None:
    """What was before tellerd is not its business."""
    bank = Bank()
    assert bank.store.deposits.cursor() == ChainCursor(genesis=GENESIS, block=START)
    facts = Facts(head=Head(fence=1), booked=set(), expectations={}, suspense={}, cursors={}, booked_elsewhere=set())
    plan = decide([chain_moved(None, connected(START, bank.pays()))], facts, price=None)
    assert (plan.deposits, plan.moved_to) == ({}, ChainCursor(genesis=GENESIS, block=START))


def test_a_block_without_deposits_moves_the_cursor_alone() -> None:
    """No row in the feed, no journal, but a commit."""
    bank = Bank()
    bank.mine()
    assert (bank.tip, bank.told()) == (block_at(101), [])


def test_a_move_that_comes_twice_is_a_success() -> None:
    """Nothing is written again."""
    bank = Bank(confirmations=2)
    move = chain_moved(START, connected(block_at(101), bank.pays()))
    bank.post(move, move)
    assert bank.post(move) == [AlreadyPosted(f"chain:{block_at(101).hash}")]
    assert bank.types() == ["detected", "confirmed"]


@pytest.mark.parametrize(
    "move",
    [
        chain_moved(block_at(99), connected(block_at(100, "other"))),
        chain_moved(block_at(100, "other"), connected(block_at(101))),
        chain_moved(None, connected(block_at(50))),
        chain_moved(START, connected(block_at(101)), genesis=BlockHash("aa" * 32)),
    ],
)
def test_a_move_that_does_not_begin_at_the_cursor_stops_the_daemon(move: ChainMoved) -> None:
    """Another block, another branch, a second beginning, another chain: better stopped than wrong."""
    with pytest.raises(InvariantViolation, match="begins at"):
        Bank().post(move)


def test_a_batch_of_moves_whose_reply_was_lost_is_posted_once() -> None:
    """The whole batch comes again; the cursor is at its last block, and every event of it is in the books."""
    bank = Bank()
    batch: list[NodeEvent] = [
        seen(bank.pays("b")),
        txs_gone(START, "b"),
        chain_moved(START, connected(block_at(101), bank.pays("a"))),
        deposit_due("a"),
        chain_moved(block_at(101), connected(block_at(102))),
        chain_moved(block_at(102), connected(block_at(103))),
        outputs_found(block_at(103), connected(block_at(102), bank.pays("c"))),
    ]
    bank.store.faults.plan(CommitFault.REPLY_LOST)
    with pytest.raises(Unavailable):
        bank.post(*batch)
    before = bank.told()
    outcomes = bank.post(*batch)
    assert bank.told() == before
    assert all(isinstance(outcome, AlreadyPosted) for outcome in outcomes[:6])
    assert (bank.tip, bank.of_wallet(), bank.deposit("b").state) == (block_at(103), 97_000, DROPPED)


def test_what_follows_a_repeated_move_still_counts() -> None:
    """Only what came before it is known to be in the books."""
    bank = Bank()
    bank.mine()
    bank.post(
        chain_moved(START, connected(block_at(101))),
        chain_moved(block_at(101), connected(block_at(102), bank.pays())),
        deposit_due("a"),
    )
    assert (bank.tip, bank.of_wallet()) == (block_at(102), 97_000)


def test_there_and_back_in_one_commit_ends_where_it_began() -> None:
    """A block is invalidated and reconsidered: not mistaken for a batch that is in the books already."""
    bank = Bank()
    bank.mine(bank.pays("a"))
    tip = bank.tip
    bank.post(
        chain_moved(tip, lost=[tip], fork=START),
        chain_moved(START, connected(block_at(101, "other"), bank.pays("b"))),
        chain_moved(block_at(101, "other"), connected(tip, bank.pays("a")), lost=[block_at(101, "other")], fork=START),
    )
    assert (bank.tip, bank.deposit("a").state, bank.deposit("b").state) == (tip, CONFIRMED, DETECTED)


# --- scripts learnt late -------------------------------------------------------------------------------


def test_outputs_found_in_old_blocks_are_confirmed_there() -> None:
    """And are due at once where they are deep enough."""
    bank = Bank(confirmations=2)
    bank.mine()
    bank.mine()
    bank.post(outputs_found(bank.tip, connected(block_at(101), bank.pays())), deposit_due("a"))
    assert (bank.deposit().block, bank.of_wallet()) == (block_at(101), 97_000)


def test_outputs_found_that_are_known_change_nothing() -> None:
    """A scan that is made again after a crash."""
    bank = Bank()
    bank.settle(bank.pays())
    assert bank.post(outputs_found(bank.tip, connected(bank.tip, bank.pays()))) == [DepositsChanged()]
    assert bank.deposit().state is SETTLED


def test_outputs_found_count_only_at_the_block_where_they_were_found() -> None:
    """The chain may have left those blocks since."""
    bank = Bank()
    bank.mine()
    found = outputs_found(START, connected(START, bank.pays()))
    assert bank.post(found) == [Stale(f"chain:{START.hash}")]
    assert bank.told() == []


def test_an_output_in_two_blocks_of_one_chain_stops_the_daemon() -> None:
    """A deposit cannot be counted from two blocks."""
    bank = Bank(confirmations=2)
    bank.mine(bank.pays())
    with pytest.raises(InvariantViolation, match="is in"):
        bank.mine(bank.pays())


# --- who cannot be credited, and who was credited by somebody else --------------------------------------


def test_a_deposit_that_no_wallet_can_take_is_held() -> None:
    """It stays confirmed and pending, is not due again, and is told once."""
    bank, reason = Bank(), "no_wallet"
    bank.mine(output("a", "nobody"))
    outpoint = bank.deposit().outpoint
    assert bank.post(deposit_due("a")) == [Held(outpoint, reason)]
    assert (bank.deposit().state, bank.deposit().held_reason) == (CONFIRMED, reason)
    assert (bank.keys(), bank.pending()) == ([], {outpoint})
    assert bank.store.deposits.due(height=200, after=None, limit=9) == []
    assert bank.post(deposit_due("a")) == [AlreadyPosted(outpoint)]


@pytest.mark.parametrize("cents", [0, 2**53])
def test_nothing_and_more_than_a_ledger_can_hold_are_no_price(cents: int) -> None:
    """A dealer's mistake holds one deposit; it neither stops the daemon nor takes the sats for nothing."""
    bank = Bank()
    bank.mine(output("a", bank.dollars))
    absurd = Deal(amount_sat=100_000, amount_cents=cents, price="1.00", source="blink")
    assert bank.post(replace(deposit_due("a"), deal=absurd)) == [Held(bank.deposit().outpoint, "price_missing")]
    sane = Deal(amount_sat=100_000, amount_cents=6_000, price="60000.00", source="blink")
    assert bank.post(replace(deposit_due("a"), deal=sane)) == [DepositsChanged(settled=1, settled_sat=100_000)]


def test_a_held_deposit_that_confirms_again_is_asked_about_again() -> None:
    """Its reason belongs to the block that was lost."""
    bank = Bank()
    bank.settle(output("a", bank.dollars))
    bank.lose_tip(output("a", bank.dollars))
    assert bank.deposit().held_reason == ""
    assert isinstance(bank.post(deposit_due("a"))[0], Held)


def booked_by_another(bank: Bank, vout: int | None = 0) -> None:
    """Another program has booked the tx with the name a."""
    details = {"type": "onchain_receipt", "hash": txid_of("a")}
    bank.store.another.write_journal(
        moved(ON_CHAIN, wallet_account(bank.wallet), 100_000),
        details=details if vout is None else {**details, "vout": vout},
    )


@pytest.mark.parametrize("vout", [0, None])
def test_what_another_program_has_booked_is_never_credited(vout: int | None) -> None:
    """A leg with its hash and vout, or of old without a vout: settled, without a journal of ours."""
    bank = Bank()
    booked_by_another(bank, vout)
    bank.settle(bank.pays())
    deposit = bank.deposit()
    assert (deposit.state, deposit.booking, deposit.settlements) == (SETTLED, None, 0)
    assert (bank.keys(), bank.pending(), bank.told("deposit.settled")) == ([], set(), [])


def test_what_another_program_has_booked_is_not_shown_as_pending() -> None:
    """It took its own projection away when it booked (blink-contract.md 3.4)."""
    bank = Bank(confirmations=6)
    bank.post(seen(bank.pays()))
    booked_by_another(bank)
    bank.mine(bank.pays())
    assert (bank.deposit().state, bank.pending()) == (CONFIRMED, set())


def test_another_vout_of_the_tx_is_still_ours() -> None:
    """One output that another program has booked does not stand for the others."""
    bank = Bank()
    booked_by_another(bank, vout=7)
    bank.settle(bank.pays())
    assert bank.keys() == [f"chain:{txid_of('a')}:0:1"]


def test_another_programs_credit_on_a_lost_block_is_a_gap() -> None:
    """Its journal is not ours to undo: a person must look; and it is not credited when it confirms again."""
    bank = Bank()
    booked_by_another(bank)
    bank.settle(bank.pays())
    lost = bank.tip
    bank.lose_tip(bank.pays())
    (gap,) = bank.store.known_gaps().values()
    assert (gap.kind, gap.amount_msat) == ("foreign_deposit_lost", 100_000_000)
    assert lost.hash in gap.key
    bank.post(deposit_due("a"))
    assert (bank.keys(), bank.deposit().state) == ([], SETTLED)


def test_our_own_booking_is_not_taken_for_another_programs() -> None:
    """After a reorg the old legs of ours are still in the ledger, with this hash and vout."""
    bank = Bank()
    bank.settle(bank.pays())
    bank.lose_tip(bank.pays())
    bank.post(deposit_due("a"))
    assert bank.deposit().settlements == 2


def test_a_fee_without_a_bank_owner_stops_the_daemon() -> None:
    """A bank without system accounts was never initialised."""
    bank = Bank()
    bank.mine(bank.pays())
    facts = bank.store.books.read_facts(wanted_by([deposit_due("a")]))
    chain = facts.chain
    facts.chain = ChainFacts(cursor=chain.cursor, deposits=chain.deposits, currencies=chain.currencies)
    with pytest.raises(InvariantViolation, match="tellerd init"):
        decide([deposit_due("a")], facts, price=None, rules=bank.rules)


# --- a whole life ---------------------------------------------------------------------------------------


def test_it_is_pending_exactly_while_it_is_detected_or_confirmed() -> None:
    """Through every state there is, and every event of it has an id of its own."""
    bank = Bank()
    here, gone_from_view = {outpoint_of(txid_of("a"), 0)}, set[str]()
    life: list[tuple[DepositState, set[str]]] = []

    def note() -> None:
        life.append((bank.deposit().state, bank.pending()))

    bank.post(seen(bank.pays()))
    note()
    bank.post(txs_gone(bank.tip, "a"))
    note()
    bank.post(seen(bank.pays()))
    note()
    bank.mine(bank.pays())
    note()
    bank.post(deposit_due("a"))
    note()
    bank.lose_tip()
    note()
    bank.post(txs_gone(bank.tip, "a", reason="double_spent"))
    note()
    bank.mine(bank.pays())
    bank.post(deposit_due("a"))
    note()
    assert life == [
        (DETECTED, here),
        (DROPPED, gone_from_view),
        (DETECTED, here),
        (CONFIRMED, here),
        (SETTLED, gone_from_view),
        (DETECTED, here),
        (DROPPED, gone_from_view),
        (SETTLED, gone_from_view),
    ]
    ids = [event.id for event in bank.told()]
    assert len(set(ids)) == len(ids) == 10
    assert [event.sequence for event in bank.told()] == list(range(1, 11))
