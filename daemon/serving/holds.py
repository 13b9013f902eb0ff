"""Held payments on call: taken (SettleInvoice) or given back (CancelInvoice).

Both ask the node first what stands, so that a refusal says why. A release is written into the document, and whoever
keeps the node's hold invoices takes the payment: so it is priced and decided in one place, and what a kill or an
outage interrupts is done afterwards. A cancellation is the node's at once, then it is told and the document closed; a
kill in between leaves that to the sweep over open documents (`daemon.ingest.holds` has the whole list).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from daemon.domain.errors import BadInput, BadSecret, NotFound, TellerdError, Unavailable
from daemon.domain.holds import Release, is_preimage
from daemon.domain.identifiers import PaymentHash
from daemon.domain.node_events import InvoiceEnded
from daemon.domain.ports import InvoiceState, LightningNode, NodeAnswer, NodeInvoice, StoredInvoice
from daemon.domain.quotes import release_until_ms
from daemon.serving import fields
from daemon.serving.api import Api
from daemon.serving.choice import node_of_pubkey

BY_CALL = "by_call"
"""The reason that a cancellation by CancelInvoice is told with."""

_WAIT_POLL_S: Final = 0.1
"""How late a change by another process can be noticed."""

_WAIT_PAUSE_S: Final = 0.02
"""Shortest time between two reads of an invoice that is waited for, however many commits there are."""


class WrongState(TellerdError):
    """The invoice is not in a state in which this can be done; says in which, and what can be done instead."""


def release(api: Api, payment_hash: str, preimage: bytes) -> PaymentHash:
    """Lets a held payment be taken, and waits a few seconds for it to be credited.

    `preimage` is empty where tellerd has it. A payment that is credited already is no error. Raises BadInput,
    NotFound, WrongState, Unavailable: then a repeat is safe.
    """
    invoice = _stored(api, payment_hash)
    if invoice.paid:
        return invoice.payment_hash
    _check_not_over(invoice)
    checked = _checked_preimage(invoice, preimage)
    _, found = _on_node(api, invoice)
    if found.state is not InvoiceState.SETTLED:
        _check_held(found)
        _check_price(api, invoice, found)
        api.invoices.release(invoice.payment_hash, None if checked == invoice.preimage else checked)
        api.hints.look(invoice.pubkey, invoice.payment_hash)
    _wait(api, invoice.payment_hash, lambda now: now.paid or now.completed)
    return invoice.payment_hash


def cancel(api: Api, payment_hash: str, *, also_if_held: bool) -> PaymentHash:
    """Makes an invoice unpayable and waits a few seconds until that is told.

    What it holds goes back to the payer, if `also_if_held`. One that is over without a payment is no error. Raises
    BadInput, NotFound, WrongState, Unavailable: then a repeat is safe.
    """
    invoice = _stored(api, payment_hash)
    if invoice.paid:
        raise WrongState(f"payment_hash: {payment_hash} is settled; pay the payer back if the money is not to be kept")
    if invoice.completed:
        return invoice.payment_hash
    node, found = _on_node(api, invoice)
    if found.state is InvoiceState.ACCEPTED and not also_if_held:
        raise WrongState(
            f"payment_hash: {payment_hash} holds a payment; set also_if_held to give it back, or call SettleInvoice"
        )
    # Said before the node is asked: whoever watches the invoice hears of its end at once.
    api.hints.canceling(invoice.pubkey, invoice.payment_hash, reason=BY_CALL)
    match node.cancel_invoice(invoice.payment_hash):
        case NodeAnswer.SETTLED:
            raise WrongState(f"payment_hash: {payment_hash} is settled; pay the payer back if it is not to be kept")
        case NodeAnswer.UNKNOWN:
            raise _unknown(node, invoice)
        case _:
            # Looked at once more: a payment may have come in between. Some nodes delete what they have canceled.
            _tell_canceled(api, invoice, node.lookup_invoice(invoice.payment_hash) or found)
    return invoice.payment_hash


def _tell_canceled(api: Api, invoice: StoredInvoice, found: NodeInvoice) -> None:
    """Told and closed, in one commit; whoever keeps the hold invoices may be faster. Not in time: it is on its way."""
    canceled = InvoiceEnded(
        pubkey=invoice.pubkey,
        payment_hash=invoice.payment_hash,
        reason=BY_CALL,
        returned_msat=0 if found.hold is None else found.hold.received_msat,
        ended_at_ms=int(api.now().timestamp() * 1000),
    )
    try:
        api.decider.ask(canceled, timeout_s=api.answer_wait_s)
    except Unavailable:  # many ask at once: the node's own word comes to the books, too
        _wait(api, invoice.payment_hash, lambda now: now.completed)


def _stored(api: Api, payment_hash: str) -> StoredInvoice:
    known_hash = fields.payment_hash(payment_hash)
    invoice = api.invoices.get(known_hash)
    if invoice is None:
        raise NotFound(f"payment_hash: there is no invoice {known_hash}")
    return invoice


def _check_not_over(invoice: StoredInvoice) -> None:
    if invoice.completed:
        raise WrongState(
            f"payment_hash: {invoice.payment_hash} is over without a payment (GetInvoice says how); make another one"
        )


def _checked_preimage(invoice: StoredInvoice, given: bytes) -> str:
    """The preimage that opens the invoice, in hex. Raises BadInput, which does not repeat it."""
    preimage = given.hex() or invoice.preimage
    try:
        fits = is_preimage(bytes.fromhex(preimage), invoice.payment_hash)
    except ValueError:  # another program's document
        fits = False
    remedy = "give the 32 bytes whose SHA-256 is the payment_hash"
    if not fits and given:
        raise BadSecret(field="preimage", problem="does not fit the payment_hash", remedy=remedy)
    if not fits:
        raise BadInput(field="preimage", value="", remedy=remedy)
    return preimage


def _on_node(api: Api, invoice: StoredInvoice) -> tuple[LightningNode, NodeInvoice]:
    node = node_of_pubkey(api, invoice.pubkey)
    found = node.lookup_invoice(invoice.payment_hash)
    if found is None:
        raise _unknown(node, invoice)
    return node, found


def _unknown(node: LightningNode, invoice: StoredInvoice) -> WrongState:
    if invoice.payment_request is None:
        return WrongState(
            f"payment_hash: {invoice.payment_hash} is not on {node.name} yet; repeat the CreateInvoice that made it"
        )
    return WrongState(f"payment_hash: {node.name} does not have {invoice.payment_hash} any more: it cannot be paid")


def _check_held(found: NodeInvoice) -> None:
    if found.state is InvoiceState.CANCELED:
        raise WrongState(f"payment_hash: {found.payment_hash} was canceled on its node; make another one")
    if found.hold is None:
        raise WrongState(f"payment_hash: {found.payment_hash} is no hold invoice: it settles by itself when it is paid")
    if found.state is InvoiceState.OPEN:
        raise WrongState(f"payment_hash: {found.payment_hash} holds nothing yet; wait for HELD (WatchInvoice)")


def _check_price(api: Api, invoice: StoredInvoice, found: NodeInvoice) -> None:
    """A price is no option (`daemon.domain.quotes.release_until_ms`). A release that stands already was in time."""
    if invoice.release is not Release.MANUAL or invoice.cents is None or api.pricing is None or found.hold is None:
        return
    quote = api.pricing.of(invoice.payment_hash)
    if quote is None:
        return
    until_ms = release_until_ms(quote.expires_at_ms, held_at_s=found.hold.accepted_at_s)
    if api.now().timestamp() * 1000 >= until_ms:
        until = datetime.fromtimestamp(until_ms / 1000, tz=UTC)
        raise WrongState(
            f"payment_hash: {invoice.payment_hash} could be released at its price until {until:%Y-%m-%d %H:%M:%S} UTC; "
            "the payment goes back to the payer: make another invoice"
        )


def _wait(api: Api, payment_hash: PaymentHash, is_done: Callable[[StoredInvoice], bool]) -> None:
    """Blocks until the document says so, for `Api.answer_wait_s` at most."""
    give_up_at = time.monotonic() + api.answer_wait_s
    while time.monotonic() < give_up_at:
        sequence = api.board.sequence  # before reading: a commit in between wakes the wait below
        now = api.invoices.get(payment_hash)
        if now is None or is_done(now):
            return
        api.gate.check()
        api.gate.pause(_WAIT_PAUSE_S)
        api.board.wait_beyond(sequence, timeout_s=_WAIT_POLL_S)
