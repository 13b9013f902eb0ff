"""The look-ups of open invoices find what no stream tells."""

from __future__ import annotations

from datetime import UTC, datetime

import trio

from daemon.domain.cursors import LndCursor
from daemon.domain.errors import Unavailable
from daemon.domain.identifiers import NodePubkey, PaymentHash
from daemon.domain.node_events import InvoiceSettled, NodeOpened
from daemon.domain.payment_requests import PaymentRequest, encode_unsigned
from daemon.domain.ports import NewHoldInvoice, NodeInvoice
from daemon.posting.invoice_hints import InvoiceHints
from tests.samples import hash_of, invoice
from tests.unit.ingest.teller import Teller, WatchedNode, eventually

OTHER = NodePubkey("03" * 33)


async def opened_teller(node: WatchedNode | None = None) -> Teller:
    """With the opening booked, and no stream any more."""
    teller = Teller(node)
    async with teller.follow():
        await eventually(lambda: any(isinstance(event, NodeOpened) for event in teller.handed_over))
        await eventually(lambda: (c := teller.cursor()) is not None and c.opened)
    return teller


async def test_a_settlement_without_an_event_is_credited() -> None:
    """LND says SETTLED when it is asked: that is enough."""
    teller = await opened_teller()
    teller.expected_invoice("still open")
    teller.node.settle(teller.expected_invoice("settled unseen"))
    async with teller.sweep():
        await eventually(lambda: teller.credited_sat == 1000)
    assert teller.books_equal_node()


async def test_what_settles_later_is_found_in_the_next_round() -> None:
    """Open documents are looked up again and again."""
    teller = await opened_teller()
    payment_hash = teller.expected_invoice("a")
    async with teller.sweep():
        await eventually(lambda: teller.node.lookups.count(payment_hash) >= 2)
        teller.node.settle(payment_hash)
        await eventually(lambda: teller.credited_sat == 1000)


async def test_a_document_that_comes_after_the_money_takes_it_out_of_suspense() -> None:
    """Another program wrote it too late for the stream; the sweep asks, and posting assigns."""
    teller = await opened_teller()
    teller.node.add("late", 1_000_000)
    async with teller.follow():
        teller.node.settle(hash_of("late"))
        await eventually(lambda: any(isinstance(e, InvoiceSettled) for e in teller.handed_over))
    async with teller.sweep():
        teller.store.another.insert_invoice(
            invoice(
                "late",
                teller.wallet,
                pubkey=teller.node.pubkey,
                created_at_ms=int(datetime.now(tz=UTC).timestamp() * 1000),
            )
        )
        await eventually(lambda: teller.credited_sat == 1000)
    assert teller.books_equal_node()


async def test_every_document_is_looked_up_whatever_their_number() -> None:
    """More than a page of them."""
    teller = await opened_teller()
    hashes = {teller.expected_invoice(f"invoice {number}") for number in range(120)}
    async with teller.sweep():
        await eventually(lambda: hashes <= set(teller.node.lookups))


async def test_a_canceled_invoice_is_not_looked_up_for_ever() -> None:
    """CANCELED is final, but its document stays unpaid."""
    teller = await opened_teller()
    canceled, open_ = teller.expected_invoice("canceled"), teller.expected_invoice("open")
    teller.node.cancel(canceled)
    async with teller.sweep():
        await eventually(lambda: teller.node.lookups.count(open_) >= 5)
    # Once by the sweep, and at most once more by the look for new documents.
    assert 1 <= teller.node.lookups.count(canceled) <= 2


async def test_answers_of_another_node_are_not_handed_over() -> None:
    """The node at the address was replaced while a page was looked up; then its own documents are looked up."""
    teller = await opened_teller()
    first = teller.node.pubkey
    teller.expected_invoice("on the old node")
    teller.node.settle(hash_of("on the old node"))
    handed_over = len(teller.handed_over)

    class ReplacedInTheMiddle(type(teller.node)):  # type: ignore[misc]  # a base class known at run time only
        """Replaced after the first answer."""

        def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
            """The old node's answer; then the new node is there."""
            answer: NodeInvoice | None = super().lookup_invoice(payment_hash)
            self.replace_by_empty(OTHER)
            return answer

    teller.node.__class__ = ReplacedInTheMiddle
    async with teller.sweep():
        await eventually(lambda: teller.node.pubkey == OTHER)
        teller.node.__class__ = ReplacedInTheMiddle.__bases__[0]
        teller.board.publish(cursors=[LndCursor(pubkey=OTHER, name="lnd1", opening_index=0)], sequence=0)
        looked_up = teller.expected_invoice("on the new node")
        await eventually(lambda: looked_up in teller.node.lookups)
    assert first != OTHER
    assert teller.handed_over[handed_over:] == []


async def test_a_canceled_invoice_is_told_and_its_document_closed() -> None:
    """After the node has said so, never before: one that has expired by the clock is still open here."""
    teller = await opened_teller()
    canceled, open_ = teller.expected_invoice("canceled"), teller.expected_invoice("open")
    teller.node.cancel(canceled)

    def closed(payment_hash: PaymentHash) -> bool:
        stored = teller.store.invoices.get(payment_hash)
        return stored is not None and stored.completed

    async with teller.sweep():
        await eventually(lambda: closed(canceled))
        await eventually(lambda: teller.node.lookups.count(open_) >= 5)
    assert not closed(open_)
    told = [row for row in teller.store.ledger.events(after_sequence=0, limit=10) if row.type != "books.opened"]
    assert [(row.type, row.payload["reason"]) for row in told] == [("invoice.canceled", "on_node")]


class AwayOnce(WatchedNode):
    """Away when it is first asked for one invoice."""

    away_for: PaymentHash | None = None

    def lookup_invoice(self, payment_hash: PaymentHash) -> NodeInvoice | None:
        """An outage, then answers."""
        if payment_hash == self.away_for:
            self.away_for = None
            raise Unavailable("the node is away")
        return super().lookup_invoice(payment_hash)


async def test_an_end_that_an_outage_kept_from_being_told_is_asked_for_again() -> None:
    """The node went away in the middle of a page: what it had said of the invoices before is not taken as told."""
    node = AwayOnce(funds_msat=0)
    teller = await opened_teller(node)
    canceled, node.away_for = sorted(teller.expected_invoice(name) for name in ("first", "second"))
    node.cancel(canceled)
    async with teller.sweep():
        await eventually(lambda: (one := teller.store.invoices.get(canceled)) is not None and one.completed)
    assert node.away_for is None


async def test_a_hold_invoice_that_nobody_keeps_is_hinted() -> None:
    """The look-ups find it, whatever was missed."""
    teller = await opened_teller()
    hints = InvoiceHints()
    asked = NewHoldInvoice(payment_hash=hash_of("a"), value_msat=1_000, memo="", description_hash=b"", expiry_s=600)
    teller.node.add_hold_invoice(asked)
    teller.expect("a")
    with hints.listen(teller.node.pubkey) as inbox, trio.fail_after(10):
        async with teller.sweep(hints):
            assert await inbox.take() == [hash_of("a")]


async def test_what_the_node_has_deleted_is_over_an_hour_after_its_expiry() -> None:
    """As a node does with canceled invoices where it is told to; what may still be made is left alone."""
    teller = await opened_teller()
    now_s = int(datetime.now(tz=UTC).timestamp())
    for name, expired_s_ago in (("gone", 3_700), ("just expired", 3_500), ("unreadable", 0)):
        terms = PaymentRequest(
            payment_hash=hash_of(name),
            amount_msat=1_000,
            memo="",
            description_hash=b"",
            created_at_s=now_s - expired_s_ago - 60,
            expiry_s=60,
        )
        text = encode_unsigned(terms) if expired_s_ago else "no payment request"
        document = invoice(name, teller.wallet, pubkey=teller.node.pubkey, payment_request=text)
        teller.store.another.insert_invoice(document)

    def open_names() -> list[PaymentHash]:
        pubkey = teller.node.pubkey
        found = teller.store.open_invoices.open_invoices(pubkey=pubkey, after=None, limit=10)
        return [one.payment_hash for one in found]

    async with teller.sweep():
        await eventually(lambda: hash_of("gone") not in open_names())
        await eventually(lambda: teller.node.lookups.count(hash_of("just expired")) >= 3)
    assert set(open_names()) == {hash_of("just expired"), hash_of("unreadable")}
