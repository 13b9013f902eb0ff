"""LND's invoices as ours: states, amounts, AMP sets."""

from __future__ import annotations

import pytest

from adapters.lnd._pb import lightning_pb2 as pb
from adapters.lnd.invoices import node_invoice, settlements
from daemon.domain.ports import InvoiceState
from tests.samples import NODE

R_HASH = bytes(range(32))


def test_a_settled_invoice_is_one_settlement() -> None:
    """Amounts come from the msat fields, times are LND's seconds."""
    invoice = pb.Invoice(
        r_hash=R_HASH,
        memo="coffee",
        state=pb.Invoice.SETTLED,
        settle_index=7,
        settle_date=1_790_000_000,
        value_msat=1_000_000,
        amt_paid_msat=1_000_999,
        amt_paid_sat=1_000,
    )
    (event,) = settlements(invoice, pubkey=NODE, seen_at_ns=5)
    assert (event.payment_hash, event.settled_id) == (R_HASH.hex(), R_HASH.hex())
    assert (event.settle_index, event.received_msat, event.settled_at_ms) == (7, 1_000_999, 1_790_000_000_000)
    assert (event.pubkey, event.memo, event.seen_at_ns) == (NODE, "coffee", 5)


@pytest.mark.parametrize("state", [pb.Invoice.OPEN, pb.Invoice.ACCEPTED, pb.Invoice.CANCELED])
def test_what_is_not_settled_is_no_settlement(state: pb.Invoice.InvoiceState.ValueType) -> None:
    """A canceled hold invoice keeps its amt_paid (node-interfaces.md A.0): the state counts."""
    assert settlements(pb.Invoice(r_hash=R_HASH, state=state, amt_paid_msat=5_000), pubkey=NODE) == ()


def amp(**sets: tuple[pb.InvoiceHTLCState.ValueType, int, int]) -> pb.Invoice:
    """An AMP invoice with sets of (state, settle_index, amt_paid_msat)."""
    invoice = pb.Invoice(r_hash=R_HASH, is_amp=True, state=pb.Invoice.SETTLED, amt_paid_msat=99_999)
    for set_id, (state, index, amount) in sets.items():
        found = invoice.amp_invoice_state[set_id]
        found.state, found.settle_index, found.amt_paid_msat, found.settle_time = state, index, amount, 1_790_000_000
    return invoice


def test_amp_settles_once_per_settled_set() -> None:
    """The top-level amount is the sum over all sets and counts for none; sets under way are not settled."""
    invoice = amp(aa=(pb.SETTLED, 3, 1_000), bb=(pb.SETTLED, 5, 2_000), cc=(pb.ACCEPTED, 0, 4_000))
    events = settlements(invoice, pubkey=NODE)
    assert [(e.settled_id, e.settle_index, e.received_msat) for e in events] == [("aa", 3, 1_000), ("bb", 5, 2_000)]
    assert {e.payment_hash for e in events} == {R_HASH.hex()}


def test_spontaneous_amp_is_named_by_its_set() -> None:
    """It has no payment hash."""
    invoice = amp(aa=(pb.SETTLED, 3, 1_000))
    invoice.r_hash = b""
    (event,) = settlements(invoice, pubkey=NODE)
    assert (event.payment_hash, event.settled_id) == ("aa", "aa")


RECORD = 696_969


def keysend(*htlcs: pb.InvoiceHTLC) -> pb.Invoice:
    """A keysend that settled with these HTLCs."""
    return pb.Invoice(r_hash=R_HASH, is_keysend=True, state=pb.Invoice.SETTLED, amt_paid_msat=1_000, htlcs=htlcs)


def htlc(
    index: int, value: bytes | None, *, at_s: int = 5, state: pb.InvoiceHTLCState.ValueType = pb.SETTLED
) -> pb.InvoiceHTLC:
    """An HTLC with the record, if it has a value, and with another one."""
    records = {RECORD + 1: b"other"} | ({} if value is None else {RECORD: value})
    return pb.InvoiceHTLC(chan_id=1, htlc_index=index, resolve_time=at_s, state=state, custom_records=records)


@pytest.mark.parametrize(
    ("htlcs", "named"),
    [
        ([htlc(1, b"wallet-1")], "wallet-1"),
        ([htlc(1, None)], None),
        ([], None),
        ([htlc(2, b"second"), htlc(1, b"first")], "first"),
        ([htlc(1, b"later", at_s=6), htlc(2, b"earlier")], "earlier"),
        ([htlc(1, b"failed", at_s=1, state=pb.CANCELED), htlc(2, b"settled")], "settled"),
        ([htlc(1, None), htlc(2, b"came again")], None),
        ([htlc(1, b"\xff\xfe")], "\ufffd\ufffd"),
        ([htlc(1, b"x" * 1_200)], "x" * 65),
    ],
)
def test_a_keysend_names_the_wallet_of_its_first_part(htlcs: list[pb.InvoiceHTLC], named: str | None) -> None:
    """Whatever order LND tells the parts in; what is no id stays one that no wallet has."""
    (event,) = settlements(keysend(*htlcs), pubkey=NODE, wallet_record=RECORD)
    assert event.wallet_named == named


def test_only_spontaneous_payments_name_a_wallet() -> None:
    """Who pays an invoice cannot send the money elsewhere; and without a configured record nobody can."""
    one = htlc(1, b"wallet-1")
    invoice = keysend(one)
    assert settlements(invoice, pubkey=NODE)[0].wallet_named is None
    invoice.is_keysend = False
    assert settlements(invoice, pubkey=NODE, wallet_record=RECORD)[0].wallet_named is None
    of_amp = amp(aa=(pb.SETTLED, 3, 1_000))
    one.amp.set_id = bytes.fromhex("aa")
    of_amp.htlcs.append(one)
    assert settlements(of_amp, pubkey=NODE, wallet_record=RECORD)[0].wallet_named is None
    of_amp.r_hash = b""
    assert settlements(of_amp, pubkey=NODE, wallet_record=RECORD)[0].wallet_named == "wallet-1"


def test_each_set_of_a_spontaneous_amp_payment_names_its_own_wallet() -> None:
    """Who has sent one can send another to the same payment address (LND keeps the invoice open), for somebody else."""
    invoice = amp(aa=(pb.SETTLED, 3, 1_000), bb=(pb.SETTLED, 4, 2_000), cc=(pb.SETTLED, 5, 3_000))
    invoice.r_hash = b""
    for set_id, named, at_s in (("aa", b"wallet-1", 5), ("bb", b"wallet-2", 6), ("cc", None, 7)):
        part = htlc(at_s, named, at_s=at_s)
        part.amp.set_id = bytes.fromhex(set_id)
        invoice.htlcs.append(part)
    events = settlements(invoice, pubkey=NODE, wallet_record=RECORD)
    assert [event.wallet_named for event in events] == ["wallet-1", "wallet-2", None]


def test_an_amp_invoice_without_a_settled_set_is_no_settlement() -> None:
    """Whatever its top-level state says."""
    assert settlements(amp(), pubkey=NODE) == ()


def test_a_value_in_sats_is_read_in_msat() -> None:
    """Invoices made with `value` alone."""
    invoice = node_invoice(pb.Invoice(r_hash=R_HASH, value=5, state=pb.Invoice.ACCEPTED), pubkey=NODE)
    assert invoice.value_msat == 5_000
    assert invoice.state is InvoiceState.ACCEPTED
