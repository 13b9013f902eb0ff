"""Held payments on call: taken (SettleInvoice) or given back (CancelInvoice).

Both ask the node first what stands, so that a refusal says why. A release is written into the document, and whoever
keeps the node's hold invoices takes the payment: so it is priced and decided in one place, and what a kill or an
outage interrupts is done afterwards. A cancellation is the node's at once, then it is told and the document closed; a
kill in between leaves that to the sweep over open documents (`daemon.ingest.holds` has the whole list).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from daemon.domain.errors import BadInput, NotFound, TellerdError, Unavailable
from daemon.domain.identifiers import PaymentHash
from daemon.domain.node_events import InvoiceEnded
from daemon.domain.ports import InvoiceState, LightningNode, NodeAnswer, NodeInvoice, StoredInvoice
from daemon.serving import fields
from daemon.serving.api import Api
from daemon.serving.choice import node_of_pubkey

BY_CALL = "by_call"
"""The reason that a cancellation by CancelInvoice is told with."""


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
            _tell_canceled(api, invoice, found)
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
        fits = hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == invoice.payment_hash
    except ValueError:  # another program's document
        fits = False
    if not fits:
        remedy = "give the 32 bytes whose SHA-256 is the payment_hash"
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


def _wait(api: Api, payment_hash: PaymentHash, is_done: Callable[[StoredInvoice], bool]) -> None:
    """Blocks until the document says so, for `Api.answer_wait_s` at most."""
    pause_s, waited_s = 0.1, 0.0
    while waited_s < api.answer_wait_s:
        sequence = api.board.sequence  # before reading: a commit in between wakes the wait below
        now = api.invoices.get(payment_hash)
        if now is None or is_done(now):
            return
        api.gate.check()
        if not api.board.wait_beyond(sequence, timeout_s=pause_s):
            waited_s += pause_s
