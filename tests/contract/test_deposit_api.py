"""Deposits and the confirmation policy over a real gRPC connection: what callers see, errors and events included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from structlog.testing import capture_logs

from adapters.grpc_api._pb.tellerd.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    deposit_pb2,
    deposit_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
)
from adapters.grpc_api.server import start_grpc
from daemon.domain.accounts import ON_CHAIN, wallet_account
from daemon.domain.chain import BlockRef
from daemon.domain.entries import Leg
from daemon.domain.errors import InvariantViolation, Unavailable
from daemon.domain.identifiers import BlockHash, Txid
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet
from tests.unit.addresses.keys import tpub
from tests.unit.serving.bank_in_memory import Bank, open_bank
from tests.unit.serving.bank_on_chain import ChainBank, derived_with_embit, open_chain_bank

CALL_TIMEOUT_S = 20.0
"""Never reached when all is well."""

NOBODY = "00000000-0000-4000-8000-000000000000"
FIRST, SECOND, THIRD = (derived_with_embit(f"wpkh({tpub(11)}/0/*)", index) for index in range(3))


@dataclass(slots=True)
class Caller:
    """The services that deposits touch, over one connection."""

    bank: Bank
    channel: grpc.Channel
    deposits: deposit_pb2_grpc.DepositServiceStub
    admin: admin_pb2_grpc.AdminServiceStub
    events: event_pb2_grpc.EventServiceStub
    ledger: ledger_pb2_grpc.LedgerServiceStub

    def address(self, wallet_id: str, *, new: bool = False) -> deposit_pb2.GetAddressResponse:
        request = deposit_pb2.GetAddressRequest(wallet_id=wallet_id, new=new)
        return self.deposits.GetAddress(request, timeout=CALL_TIMEOUT_S)

    def deposit(self, txid: str, vout: int = 1) -> deposit_pb2.Deposit:
        request = deposit_pb2.GetDepositRequest(txid=txid, vout=vout)
        return self.deposits.GetDeposit(request, timeout=CALL_TIMEOUT_S).deposit

    def listed(self, **fields: Any) -> deposit_pb2.ListDepositsResponse:
        return self.deposits.ListDeposits(deposit_pb2.ListDepositsRequest(**fields), timeout=CALL_TIMEOUT_S)

    def policy(self, **fields: Any) -> admin_pb2.GetConfirmationPolicyResponse:
        request = admin_pb2.GetConfirmationPolicyRequest(**fields)
        return self.admin.GetConfirmationPolicy(request, timeout=CALL_TIMEOUT_S)

    def set_policy(self, *tiers: tuple[int, int], **fields: Any) -> admin_pb2.ConfirmationPolicyChange:
        asked: dict[str, Any] = {"changed_by": "ann", "reason": "ticket 7"} | fields
        request = admin_pb2.SetConfirmationPolicyRequest(
            tiers=[admin_pb2.ConfirmationTier(from_sat=from_sat, confirmations=n) for from_sat, n in tiers], **asked
        )
        return self.admin.SetConfirmationPolicy(request, timeout=CALL_TIMEOUT_S).change

    def told(self, number: int, *types: str) -> list[event_pb2.Event]:
        """The first events of these types."""
        stream = self.events.Subscribe(event_pb2.SubscribeRequest(types=types), timeout=CALL_TIMEOUT_S)
        return [next(stream).event for _ in range(number)]

    def status(self) -> admin_pb2.ChainStatus:
        return self.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_TIMEOUT_S).chain

    def addresses_of(self, wallet: Wallet) -> list[str]:
        return self.bank.store.another.addresses(wallet.wallet_id)


def connected_to(bank: Bank) -> Iterator[Caller]:
    server = start_grpc(bank.api, address="127.0.0.1:0", metrics=bank.metrics, on_broken=bank.broken.append)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Caller(
                bank,
                channel,
                deposit_pb2_grpc.DepositServiceStub(channel),
                admin_pb2_grpc.AdminServiceStub(channel),
                event_pb2_grpc.EventServiceStub(channel),
                ledger_pb2_grpc.LedgerServiceStub(channel),
            )
    finally:
        bank.api.gate.drain()
        server.stop(grace_s=2.0)


@pytest.fixture
def world() -> ChainBank:
    """The bank behind `caller`, with its chain."""
    return open_chain_bank()


@pytest.fixture
def caller(world: ChainBank) -> Iterator[Caller]:
    yield from connected_to(world.bank)


@pytest.fixture
def without_bitcoind() -> Iterator[Caller]:
    yield from connected_to(open_bank())


@pytest.fixture
def standby() -> Iterator[Caller]:
    bank = open_chain_bank(leading=False).bank
    bank.api.gate.stand_by()
    yield from connected_to(bank)


@pytest.fixture
def without_key() -> Iterator[Caller]:
    yield from connected_to(open_chain_bank(with_key=False).bank)


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    """The status of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


# --- addresses --------------------------------------------------------------------------------------


def test_a_wallets_first_address_is_the_keys_next_and_stays_until_it_is_paid(caller: Caller, world: ChainBank) -> None:
    """Made by the first call only, written where other programs look, another one once a deposit was seen."""
    wallet = caller.bank.wallet()
    first = caller.address(wallet.wallet_id)
    assert (first.address, first.wallet_id, first.index, first.created) == (FIRST, wallet.wallet_id, 0, True)
    assert first.HasField("index")
    again = caller.address(wallet.wallet_id)
    assert (again.address, again.created, again.HasField("index")) == (FIRST, False, False)
    assert caller.addresses_of(wallet) == [FIRST]

    world.see(world.output(wallet, 50_000, address=FIRST))
    paid = caller.address(wallet.wallet_id)
    assert (paid.address, paid.index, paid.created) == (SECOND, 1, True)
    assert caller.address(wallet.wallet_id).address == SECOND
    assert caller.addresses_of(wallet) == [FIRST, SECOND]


def test_a_new_address_is_another_one_each_time(caller: Caller) -> None:
    """For one wallet as for two: no address pays two wallets."""
    one, two = caller.bank.wallet("one"), caller.bank.wallet("two")
    given = [caller.address(wallet.wallet_id, new=True) for wallet in (one, two, one)]
    assert [(answer.address, answer.index) for answer in given] == [(FIRST, 0), (SECOND, 1), (THIRD, 2)]
    assert (caller.addresses_of(one), caller.addresses_of(two)) == ([FIRST, THIRD], [SECOND])
    assert caller.address(one.wallet_id).address == THIRD


def test_addresses_asked_for_at_once_are_all_different(caller: Caller) -> None:
    """Eight threads, one wallet: eight addresses, and all of them are the wallet's."""
    wallet = caller.bank.wallet()
    ready, given = threading.Barrier(8), []

    def call() -> None:
        ready.wait()
        given.append(caller.address(wallet.wallet_id, new=True))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.index for answer in given) == list(range(8))
    assert {answer.address for answer in given} == set(caller.addresses_of(wallet))
    assert len(caller.addresses_of(wallet)) == 8


def test_no_address_is_given_out_that_bitcoind_derives_differently(
    caller: Caller, world: ChainBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused, logged with both, written nowhere; the daemon goes on, and so do addresses that agree."""
    wallet = caller.bank.wallet()
    with capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(world.node, "derive", lambda descriptor, index: derived_with_embit(descriptor, index + 1))
        code, text = refused(lambda: caller.address(wallet.wallet_id))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "different addresses at index 0" in text
    assert "check xpub and network" in text
    told = next(log for log in logs if log["event"] == "address.derivations_differ")
    assert (told["log_level"], told["of_tellerd"], told["of_bitcoind"]) == ("error", FIRST, SECOND)
    assert caller.addresses_of(wallet) == []
    assert caller.bank.broken == []
    assert caller.address(wallet.wallet_id).address == SECOND


def test_an_address_needs_bitcoind_and_uses_up_no_index_without_it(caller: Caller, world: ChainBank) -> None:
    """UNAVAILABLE, however often; the address that was given out before is still told."""
    one, two = caller.bank.wallet("one"), caller.bank.wallet("two")
    caller.address(one.wallet_id)
    world.node.go_away()
    for _ in range(3):
        assert refused(lambda: caller.address(two.wallet_id))[0] == grpc.StatusCode.UNAVAILABLE
    assert caller.address(one.wallet_id).address == FIRST
    world.node.come_back()
    assert caller.address(two.wallet_id).index == 1


def test_what_bitcoind_refuses_is_said(caller: Caller, world: ChainBank, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own words; an outage between the two derivations is an outage."""
    wallet_id = caller.bank.wallet().wallet_id
    with monkeypatch.context() as patched:
        patched.setattr(world.node, "_derive", None)
        code, text = refused(lambda: caller.address(wallet_id))
    assert (code, text) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "bitcoind refused deriveaddresses: it was given no derivation",
    )

    def fail(_descriptor: str, _index: int) -> str:
        raise Unavailable("connection reset")

    monkeypatch.setattr(world.node, "derive", fail)
    assert refused(lambda: caller.address(wallet_id)) == (grpc.StatusCode.UNAVAILABLE, "connection reset")
    assert caller.bank.broken == []


def test_an_address_of_another_wallet_ends_the_process(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that comes twice would credit the wrong wallet: better stopped than wrong."""
    caller.address(caller.bank.wallet("one").wallet_id)
    monkeypatch.setattr(caller.bank.store.addresses, "take_index", lambda *, key_id: 0)
    code, text = refused(lambda: caller.address(caller.bank.wallet("two").wallet_id))
    assert (code, text) == (grpc.StatusCode.INTERNAL, "internal error: the daemon's log has it")
    assert [type(problem) for problem in caller.bank.broken] == [InvariantViolation]


def test_who_gets_no_address(caller: Caller) -> None:
    """Dollar wallets not without prices, unknown wallets never, and a bad id names field, value and remedy."""
    dollars = caller.bank.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
    code, text = refused(lambda: caller.address(dollars.wallet_id))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "set [prices]" in text
    assert refused(lambda: caller.address(NOBODY))[0] == grpc.StatusCode.NOT_FOUND
    code, text = refused(lambda: caller.address("$ne"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert text == "wallet_id: '$ne' cannot be accepted; give the wallet's UUID in lower case"
    assert caller.addresses_of(dollars) == []


def test_without_a_key_deposits_are_shown_but_no_address_is_given(without_key: Caller) -> None:
    """The remedy names the key of the configuration."""
    wallet_id = without_key.bank.wallet().wallet_id
    code, text = refused(lambda: without_key.address(wallet_id))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert text.endswith("set xpub in [bitcoind]")
    assert list(without_key.listed().deposits) == []


def test_without_bitcoind_everything_on_chain_names_what_to_set(without_bitcoind: Caller) -> None:
    """FAILED_PRECONDITION for each method; status and Lightning's balances are answered."""
    caller, wallet_id = without_bitcoind, without_bitcoind.bank.wallet().wallet_id
    calls: list[Callable[[], Any]] = [
        lambda: caller.address(wallet_id),
        caller.listed,
        lambda: caller.deposit("ab" * 32),
        caller.policy,
        lambda: caller.set_policy((0, 1)),
    ]
    for call in calls:
        code, text = refused(call)
        assert code == grpc.StatusCode.FAILED_PRECONDITION
        assert text.endswith("set [bitcoind] in its configuration")
    assert caller.status() == admin_pb2.ChainStatus()
    assert caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=wallet_id)).balance_sat == 0


# --- deposits ---------------------------------------------------------------------------------------


def test_a_deposit_is_shown_from_the_mempool_to_the_books(caller: Caller, world: ChainBank) -> None:
    """Confirmations n of m, its block, its fee, and the balance that follows."""
    wallet = caller.bank.wallet()
    output = world.output(wallet, 50_000, address=FIRST)
    world.see(output)
    seen = caller.deposit(output.txid)
    assert (seen.txid, seen.vout, seen.wallet_id, seen.address) == (output.txid, 1, wallet.wallet_id, FIRST)
    assert seen.state == deposit_pb2.DEPOSIT_STATE_DETECTED
    assert (seen.confirmations, seen.confirmations_required, seen.policy_version) == (0, 2, 0)
    assert (seen.amount_sat, seen.fee_sat, seen.is_dust, seen.settlements) == (50_000, 3_000, False, 0)
    assert (seen.HasField("block_height"), seen.block_hash) == (False, "")
    assert seen.detected_at == seen.updated_at

    block = world.mine(output)
    confirmed = caller.deposit(output.txid.upper())
    assert (confirmed.state, confirmed.confirmations) == (deposit_pb2.DEPOSIT_STATE_CONFIRMED, 1)
    assert (confirmed.block_height, confirmed.block_hash) == (1, block.hash)
    assert confirmed.detected_at == seen.detected_at
    assert confirmed.updated_at.seconds > seen.updated_at.seconds

    world.mine()
    assert caller.deposit(output.txid).confirmations == 2
    world.settle(output)
    settled = caller.deposit(output.txid)
    assert (settled.state, settled.settlements, settled.fee_sat) == (deposit_pb2.DEPOSIT_STATE_SETTLED, 1, 3_000)
    balance = caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=wallet.wallet_id))
    assert balance.balance_sat == 47_000


def test_a_reorg_is_shown_in_the_deposit(caller: Caller, world: ChainBank) -> None:
    """In no block again, not credited; in the new branch its confirmations begin anew."""
    wallet = caller.bank.wallet()
    output = world.output(wallet, 2_000_000)
    world.mine(output)
    world.mine()
    world.settle(output)
    world.mine(instead_of=2)
    lost = caller.deposit(output.txid)
    assert (lost.state, lost.confirmations) == (deposit_pb2.DEPOSIT_STATE_DETECTED, 0)
    assert (lost.HasField("block_height"), lost.block_hash, lost.settlements) == (False, "", 1)
    assert lost.fee_sat == 6_000  # 30 basis points
    block = world.mine(output)
    back = caller.deposit(output.txid)
    assert (back.confirmations, back.block_height, back.block_hash) == (1, 2, block.hash)


def test_dust_dropped_and_held_deposits_say_why(caller: Caller, world: ChainBank) -> None:
    """Reasons that callers can act on."""
    wallet = caller.bank.wallet()
    dollars = caller.bank.store.wallets.create(account_id=None, currency=Currency.USD, external_id="dollars")
    dust, gone, held = world.output(wallet, 4_999), world.output(wallet, 60_000), world.output(dollars, 70_000)
    world.see(dust, gone, held)
    world.lose(gone, "replaced", Txid("cd" * 32))
    world.mine(dust, held)
    world.mine()
    world.settle(dust)
    world.settle(held)

    shown = caller.deposit(dust.txid)
    assert (shown.is_dust, shown.fee_sat, shown.HasField("fee_sat")) == (True, 0, True)
    assert shown.state == deposit_pb2.DEPOSIT_STATE_SETTLED
    shown = caller.deposit(gone.txid)
    assert shown.state == deposit_pb2.DEPOSIT_STATE_DROPPED
    assert (shown.dropped_reason, shown.replaced_by) == ("replaced", "cd" * 32)
    shown = caller.deposit(held.txid)
    assert shown.state == deposit_pb2.DEPOSIT_STATE_CONFIRMED
    assert (shown.held_reason, shown.confirmations) == ("price_missing", 2)


def test_the_fee_of_another_programs_credit_is_not_guessed(caller: Caller, world: ChainBank) -> None:
    """It is SETTLED, and what was taken is that program's to say."""
    wallet = caller.bank.wallet()
    output = world.output(wallet, 50_000)
    legs = (
        Leg(account=ON_CHAIN, currency="BTC", debit=50_000),
        Leg(account=wallet_account(wallet.wallet_id), currency="BTC", credit=50_000),
    )
    details = {"type": "onchain_receipt", "hash": output.txid, "vout": output.vout}
    caller.bank.store.another.write_journal(legs, details=details)
    world.mine(output)
    world.mine()
    world.settle(output)
    shown = caller.deposit(output.txid)
    assert (shown.state, shown.settlements) == (deposit_pb2.DEPOSIT_STATE_SETTLED, 0)
    assert not shown.HasField("fee_sat")


def test_deposits_are_listed_page_by_page_newest_first(caller: Caller, world: ChainBank) -> None:
    """Every one stands on exactly one page, and the last page has no token."""
    wallet = caller.bank.wallet()
    outputs = [world.output(wallet, 10_000 + number) for number in range(5)]
    for output in outputs:
        world.see(output)
    seen, token, pages = [], "", 0
    while True:
        page = caller.listed(page_size=2, page_token=token)
        seen += [deposit.txid for deposit in page.deposits]
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (seen, pages) == ([output.txid for output in reversed(outputs)], 3)
    assert page.deposits[0] == caller.deposit(outputs[0].txid)


def test_deposits_are_listed_by_wallet_and_state(caller: Caller, world: ChainBank) -> None:
    """No state means all; several mean any of them; counted to the last block in the books."""
    one, two = caller.bank.wallet("one"), caller.bank.wallet("two")
    first, second, other = world.output(one, 10_000), world.output(one, 20_000), world.output(two, 30_000)
    world.see(first, second, other)
    world.mine(first, other)
    world.mine()
    detected, confirmed = deposit_pb2.DEPOSIT_STATE_DETECTED, deposit_pb2.DEPOSIT_STATE_CONFIRMED

    def amounts(**fields: Any) -> list[int]:
        return sorted(deposit.amount_sat for deposit in caller.listed(**fields).deposits)

    assert amounts() == [10_000, 20_000, 30_000]
    assert amounts(wallet_id=one.wallet_id) == [10_000, 20_000]
    assert amounts(wallet_id=one.wallet_id, states=[confirmed]) == [10_000]
    assert amounts(states=[confirmed]) == [10_000, 30_000]
    assert amounts(states=[detected, confirmed, detected]) == [10_000, 20_000, 30_000]
    assert amounts(states=[deposit_pb2.DEPOSIT_STATE_SETTLED]) == []
    assert [deposit.confirmations for deposit in caller.listed(states=[confirmed]).deposits] == [2, 2]


def test_bad_deposit_requests_name_field_value_and_remedy(caller: Caller) -> None:
    """One case per field; unknown names are NOT_FOUND."""
    unknown: Any = 99
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: caller.deposit("ab"), "txid: 'ab' cannot"),
        (lambda: caller.deposit("zz" * 32), "txid: 'zzzz"),
        (lambda: caller.deposit(""), "txid: '' cannot"),
        (lambda: caller.listed(wallet_id="x"), "wallet_id: 'x' cannot"),
        (lambda: caller.listed(states=[deposit_pb2.DEPOSIT_STATE_UNSPECIFIED]), "states: 'unspecified' cannot"),
        (lambda: caller.listed(states=[unknown]), "states: 'unspecified' cannot"),
        (lambda: caller.listed(page_size=-1), "page_size: -1 cannot"),
        (lambda: caller.listed(page_size=1001), "page_size: 1001 cannot"),
        (lambda: caller.listed(page_token="?"), "page_token: '?' cannot"),
    ]
    for call, field in cases:
        code, text = refused(call)
        assert code == grpc.StatusCode.INVALID_ARGUMENT, text
        assert text.startswith(field)
        assert "; give " in text
    assert refused(lambda: caller.listed(wallet_id=NOBODY))[0] == grpc.StatusCode.NOT_FOUND
    code, text = refused(lambda: caller.deposit("ab" * 32, 7))
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, f"txid, vout: there is no deposit {'ab' * 32}:7")


def test_a_token_of_another_list_is_refused(caller: Caller) -> None:
    """A page of deposits cannot be asked for with a place in the policy's history."""
    caller.set_policy((0, 1))
    caller.set_policy((0, 2))
    token = caller.policy(page_size=1).next_page_token
    assert token
    assert refused(lambda: caller.listed(page_token=token))[0] == grpc.StatusCode.INVALID_ARGUMENT


# --- the confirmation policy ------------------------------------------------------------------------


def test_the_policy_is_the_configurations_until_one_is_set(caller: Caller) -> None:
    """Version 0 without a history; then the one that was set, and who, when and why, old and new."""
    found = caller.policy()
    assert (found.policy.version, len(found.history)) == (0, 0)
    assert [(tier.from_sat, tier.confirmations) for tier in found.policy.tiers] == [(0, 2)]
    began = datetime.now(UTC)
    change = caller.set_policy((1_000_000, 6), (0, 1), changed_by=" ann ", reason="ticket 7")
    assert (change.version, change.changed_by, change.reason) == (1, "ann", "ticket 7")
    assert abs((change.changed_at.ToDatetime(tzinfo=UTC) - began).total_seconds()) < 60
    assert change.old_policy == found.policy
    assert [(tier.from_sat, tier.confirmations) for tier in change.new_policy.tiers] == [(0, 1), (1_000_000, 6)]
    after = caller.policy()
    assert after.policy == change.new_policy
    assert list(after.history) == [change]


def test_the_history_is_read_page_by_page_newest_first(caller: Caller) -> None:
    """Every change is there, on exactly one page; the policy in force is on every page."""
    changes = [caller.set_policy((0, confirmations)) for confirmations in range(1, 6)]
    seen, token, pages = [], "", 0
    while True:
        page = caller.policy(page_size=2, page_token=token)
        assert page.policy.version == 5
        seen += list(page.history)
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert (seen, pages) == (changes[::-1], 3)


def test_a_policy_counts_for_deposits_first_seen_afterwards(caller: Caller, world: ChainBank) -> None:
    """One that was seen before keeps what it was told."""
    wallet = caller.bank.wallet()
    before, after = world.output(wallet, 50_000), world.output(wallet, 50_000)
    world.see(before)
    caller.set_policy((0, 4))
    world.see(after)
    world.mine(before, after)
    asked = [caller.deposit(output.txid) for output in (before, after)]
    assert [(one.confirmations_required, one.policy_version) for one in asked] == [(2, 0), (4, 1)]


def test_a_policy_that_is_not_the_expected_one_is_not_overwritten(caller: Caller) -> None:
    """ABORTED with the version in force; the expected one, 0 included, lets the change through."""
    assert caller.set_policy((0, 3), expected_version=0).version == 1
    code, text = refused(lambda: caller.set_policy((0, 9), expected_version=0))
    assert code == grpc.StatusCode.ABORTED
    assert text.startswith("expected_version: 0 is not the policy in force, which is version 1; ")
    assert text.endswith("call GetConfirmationPolicy and decide again")
    assert caller.policy().policy.version == 1
    assert caller.set_policy((0, 3), expected_version=1).version == 2


def test_of_changes_at_the_same_time_none_is_lost(
    caller: Caller, world: ChainBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that read the same version: one is set, the other is ABORTED and told to look again."""
    policies = world.bank.store.policies
    both_have_read, read = threading.Barrier(2), policies.current

    def current() -> Any:
        found = read()
        both_have_read.wait(CALL_TIMEOUT_S)
        return found

    answers: list[tuple[grpc.StatusCode, str]] = []

    def change() -> None:
        try:
            caller.set_policy((0, 3))
            answers.append((grpc.StatusCode.OK, ""))
        except grpc.RpcError as error:
            answers.append((error.code(), error.details() or ""))

    with monkeypatch.context() as patched:
        patched.setattr(policies, "current", current)
        threads = [threading.Thread(target=change) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    codes = sorted(code.name for code, _ in answers)
    assert codes == ["ABORTED", "OK"]
    assert any("call GetConfirmationPolicy and decide again" in text for _, text in answers)
    assert caller.policy().policy.version == 1


@pytest.mark.parametrize(
    ("tiers", "fields", "field"),
    [
        ([], {}, "tiers: 0 cannot"),
        ([(number, 1) for number in range(21)], {}, "tiers: 21 cannot"),
        ([(1, 1)], {}, "tiers: 1 cannot"),
        ([(-5, 1), (0, 1)], {}, "tiers: -5 cannot"),
        ([(0, 1), (0, 2)], {}, "tiers: 0 cannot"),
        ([(0, 3), (10, 2)], {}, "tiers: 2 cannot"),
        ([(0, 0)], {}, "tiers.confirmations: 0 cannot"),
        ([(0, 1001)], {}, "tiers.confirmations: 1001 cannot"),
        ([(0, 1)], {"changed_by": ""}, "changed_by: '' cannot"),
        ([(0, 1)], {"changed_by": "  "}, "changed_by: '  ' cannot"),
        ([(0, 1)], {"changed_by": "x" * 101}, "changed_by: 'xxx"),
        ([(0, 1)], {"reason": ""}, "reason: '' cannot"),
        ([(0, 1)], {"reason": "y" * 1001}, "reason: 'yyy"),
        ([(0, 1)], {"reason": "two\nlines"}, "reason: 'two\\nlines' cannot"),
    ],
)
def test_what_is_no_policy_is_refused(
    caller: Caller, tiers: list[tuple[int, int]], fields: dict[str, Any], field: str
) -> None:
    """INVALID_ARGUMENT names the field, and nothing is set."""
    code, text = refused(lambda: caller.set_policy(*tiers, **fields))
    assert code == grpc.StatusCode.INVALID_ARGUMENT, text
    assert text.startswith(field)
    assert caller.policy().policy.version == 0


def test_bad_pages_of_the_history_are_refused(caller: Caller) -> None:
    """As in every list."""
    assert refused(lambda: caller.policy(page_size=-1))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert refused(lambda: caller.policy(page_token="x"))[0] == grpc.StatusCode.INVALID_ARGUMENT


# --- events -----------------------------------------------------------------------------------------


def test_each_event_of_a_deposit_has_its_payload(caller: Caller, world: ChainBank) -> None:
    """Detected, confirmed, settled, reversed, detected again, dropped: what the books did, with the journals."""
    wallet = caller.bank.wallet()
    output = world.output(wallet, 50_000, address=FIRST)
    world.see(output)
    block = world.mine(output)
    world.mine()
    world.settle(output)
    world.mine(instead_of=2)
    world.lose(output, "double_spent")

    told = caller.told(6)
    names = ["detected", "confirmed", "settled", "reversed", "detected", "dropped"]
    assert [event.type for event in told] == [f"deposit.{name}" for name in names]
    assert [event.WhichOneof("payload") for event in told] == [f"deposit_{name}" for name in names]
    assert {event.wallet_id for event in told} == {wallet.wallet_id}
    payloads = [getattr(event, f"deposit_{name}") for event, name in zip(told, names, strict=True)]
    for payload in payloads:
        assert (payload.txid, payload.vout, payload.wallet_id) == (output.txid, 1, wallet.wallet_id)
        assert (payload.address, payload.amount_sat) == (FIRST, 50_000)
    state = deposit_pb2.DepositState.Value
    assert [payload.state for payload in payloads] == [
        state(f"DEPOSIT_STATE_{name}")
        for name in ("DETECTED", "CONFIRMED", "SETTLED", "SETTLED", "DETECTED", "DROPPED")
    ]
    detected, confirmed, settled, reversed_, again, dropped = payloads
    assert (detected.confirmations_required, detected.again, again.again) == (2, False, True)
    assert confirmed.confirmations_required == 2
    for payload in (confirmed, settled, reversed_):
        assert (payload.block_height, payload.block_hash) == (1, block.hash)
    for payload in (settled, reversed_):
        assert (payload.fee_sat, payload.credited_sat, payload.is_dust) == (3_000, 47_000, False)
        assert payload.settlement == 1
        assert len(payload.journal_id) == 24
    assert settled.journal_id != reversed_.journal_id
    assert (dropped.reason, dropped.replaced_by) == ("double_spent", "")


def test_dust_is_told_as_dust(caller: Caller, world: ChainBank) -> None:
    """Booked, and nothing credited."""
    output = world.output(caller.bank.wallet(), 4_000)
    world.mine(output)
    world.mine()
    world.settle(output)
    (event,) = caller.told(1, "deposit.settled")
    settled = event.deposit_settled
    assert (settled.is_dust, settled.fee_sat, settled.credited_sat, settled.amount_sat) == (True, 0, 0, 4_000)


def test_a_wallet_that_spent_what_is_taken_back_is_told_as_overdrawn(caller: Caller, world: ChainBank) -> None:
    """With its balance below zero, and the deposit and the journal that did it."""
    wallet = caller.bank.wallet()
    output = world.output(wallet, 50_000)
    world.mine(output)
    world.mine()
    world.settle(output)
    spent = (
        Leg(account=wallet_account(wallet.wallet_id), currency="BTC", debit=40_000),
        Leg(account=ON_CHAIN, currency="BTC", credit=40_000),
    )
    caller.bank.store.another.write_journal(spent)
    caller.bank.post(*caller.bank.store.journals.foreign_journals(after=None, limit=10))
    world.mine(instead_of=2)
    reversal, overdrawn = caller.told(2, "deposit.reversed", "wallet.overdrawn")
    payload = overdrawn.wallet_overdrawn
    assert (payload.wallet_id, payload.balance_sat) == (wallet.wallet_id, -40_000)
    assert (payload.txid, payload.vout) == (output.txid, output.vout)
    assert payload.journal_id == reversal.deposit_reversed.journal_id
    balance = caller.ledger.GetBalance(ledger_pb2.GetBalanceRequest(wallet_id=wallet.wallet_id))
    assert balance.balance_sat == -40_000


# --- status, roles ----------------------------------------------------------------------------------


def test_status_shows_how_the_chain_is_followed(caller: Caller, world: ChainBank) -> None:
    """Before bitcoind was reached what cannot be known is absent; then node, books and the way between them."""
    chain = caller.status()
    assert (chain.configured, chain.name, chain.connected, chain.state) == (True, "bitcoind", False, "starting")
    assert not chain.HasField("tip")
    assert not chain.HasField("cursor")
    assert not chain.HasField("blocks_behind")
    assert not chain.HasField("connected_since")
    assert (chain.zmq, chain.halted) == (admin_pb2.CHAIN_HINTS_OFF, False)

    tip, cursor = (BlockRef(height=height, hash=BlockHash(f"{height:064x}")) for height in (120, 103))
    world.status.connected, world.status.connected_since = True, datetime(2026, 11, 21, tzinfo=UTC)
    world.status.state, world.status.hints = "catching up: block 103 of 120", "live"
    world.status.tip, world.status.cursor, world.status.catch_up_blocks_per_s = tip, cursor, 40
    output, other = world.output(caller.bank.wallet(), 50_000), world.output(caller.bank.wallet(), 60_000)
    world.see(output, other)
    world.mine(output)
    chain = caller.status()
    assert (chain.connected, chain.connected_since.seconds) == (True, 1_795_219_200)
    assert (chain.tip.height, chain.tip.hash) == (120, tip.hash)
    assert (chain.cursor.height, chain.cursor.hash) == (103, cursor.hash)
    assert (chain.blocks_behind, chain.catch_up_blocks_per_s) == (17, 40)
    assert (chain.state, chain.zmq) == ("catching up: block 103 of 120", admin_pb2.CHAIN_HINTS_LIVE)
    assert (chain.HasField("pending_deposits"), chain.pending_deposits) == (True, 2)


def test_status_shows_trouble_with_the_chain(caller: Caller, world: ChainBank) -> None:
    """A node that came back with a lower tip is not negatively behind; a halt and its reason are told."""
    world.status.tip = BlockRef(height=90, hash=BlockHash("aa" * 32))
    world.status.cursor = BlockRef(height=100, hash=BlockHash("bb" * 32))
    world.status.hints, world.status.halted = "silent", True
    world.status.last_error = "a reorganisation of 101 blocks"
    chain = caller.status()
    assert (chain.HasField("blocks_behind"), chain.blocks_behind) == (True, 0)
    assert (chain.zmq, chain.halted) == (admin_pb2.CHAIN_HINTS_SILENT, True)
    assert chain.last_error == "a reorganisation of 101 blocks"


def test_status_shows_the_chain_without_the_database(caller: Caller) -> None:
    """How many deposits wait cannot be known then, and 0 would be wrong."""
    caller.bank.probe.away = "no primary"
    chain = caller.status()
    assert chain.configured
    assert not chain.HasField("pending_deposits")


def test_deposits_are_served_by_the_leader_only(standby: Caller) -> None:
    """A standby gives out no address and takes no policy, but shows its chain."""
    wallet_id = standby.bank.wallet().wallet_id
    calls: list[Callable[[], Any]] = [
        lambda: standby.address(wallet_id),
        standby.listed,
        lambda: standby.deposit("ab" * 32),
        standby.policy,
        lambda: standby.set_policy((0, 1)),
    ]
    for call in calls:
        code, text = refused(call)
        assert (code, text.split(":")[0]) == (grpc.StatusCode.UNAVAILABLE, "standby")
    assert standby.status().configured
    assert standby.bank.store.policies.current() is None


def test_reflection_and_health_know_the_service(caller: Caller) -> None:
    """As every other service of the API."""
    stub = reflection_pb2_grpc.ServerReflectionStub(caller.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = stub.ServerReflectionInfo(iter([request]), timeout=CALL_TIMEOUT_S)
    names = [service.name for answer in answers for service in answer.list_services_response.service]
    assert "tellerd.v1.DepositService" in names
    health = health_pb2_grpc.HealthStub(caller.channel)
    asked = health_pb2.HealthCheckRequest(service="tellerd.v1.DepositService")
    assert health.Check(asked, timeout=CALL_TIMEOUT_S).status == health_pb2.HealthCheckResponse.SERVING
