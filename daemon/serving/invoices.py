"""Invoices: made so that no crash leaves a payable one that nobody knows, shown, and watched.

Making one writes the document with the preimage first, then asks the node for an invoice with that
preimage, then puts the payment request into the document (design.md section 4). After a crash before the
last step, a repeat with the same external_id goes on where it stopped: the node returns what it has.

The document also says what was asked for. A repeat with other arguments is refused on that alone, before it asks for
a price or the node: the first call may still be under way, and nothing may change between its steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from daemon.domain.errors import AlreadyExists, BadInput, NodeRefused, NotFound
from daemon.domain.holds import Release
from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import MSAT_PER_SAT, Currency
from daemon.domain.outbox import INVOICE_CANCELED, INVOICE_EXPIRED, INVOICE_HELD
from daemon.domain.payment_requests import PaymentRequest, decode_payment_request
from daemon.domain.ports import (
    AskedTerms,
    LightningNode,
    NewHoldInvoice,
    NewInvoice,
    NodeInvoice,
    StoredInvoice,
    Wallet,
)
from daemon.domain.quotes import Deal
from daemon.serving import fields, paging
from daemon.serving.api import Api
from daemon.serving.choice import choose_node, named_node, node_of_pubkey
from daemon.serving.invoice_terms import check_amount, deal_for, expiry_of, keep_deal, pricing_of, value_msat
from daemon.serving.wallets import check_credited, get_wallet

MAX_MEMO_BYTES = 639
"""What fits a payment request's description (BOLT #11); a longer one fails on the node (node-interfaces.md A.0)."""

EXPIRY_GRACE = timedelta(seconds=1)
"""By then its node has canceled an invoice that has expired, unless it holds its payment."""

WATCH_POLL_S = 1.0
"""How late a change by another process can be noticed."""

_WATCH_PAUSE_S = 0.05
"""Shortest time between two reads of a watched invoice, however many commits there are."""

_TOKEN_KIND = "invoices"  # noqa: S105 (names a list, is no secret)


class InvoiceState(StrEnum):
    """What has become of an invoice."""

    OPEN = "open"
    HELD = "held"
    SETTLED = "settled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    CLOSED = "closed"

    @property
    def is_final(self) -> bool:
        """Whether no other can follow."""
        return self not in (InvoiceState.OPEN, InvoiceState.HELD)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceRequest:
    """What a caller asks for. Empty text means that nothing was given; at most one of memo and
    `description_hash` is given; `expiry_s` 0 means the default; None as both amounts: the payer decides."""

    wallet_id: str
    amount_sat: int | None
    amount_cents: int | None = None
    memo: str = ""
    description_hash: bytes = b""
    expiry_s: int = 0
    external_id: str = ""
    node: str = ""
    hold: bool = False
    """What is paid waits for SettleInvoice."""
    payment_hash: str = ""
    """With hold: of a preimage that the caller keeps."""
    release: Release | None = None
    """Who releases what is held; follows from the rest."""
    default_expiry: bool = False
    """No expiry_s was given; follows from the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceView:
    """An invoice as it is now. What only the payment request says is 0, empty or None without one.

    `received_sat` and `settled_at` are None until it is settled, and where another program settled it;
    `received_cents` also where it was not in dollars that the money was credited.
    """

    stored: StoredInvoice
    state: InvoiceState
    amount_sat: int
    memo: str
    expires_at: datetime | None
    received_sat: int | None
    settled_at: datetime | None
    received_cents: int | None = None
    held_msat: int | None = None
    """Set while it is HELD, as `expiry_height`."""
    expiry_height: int | None = None
    cancel_reason: str = ""


def create_invoice(api: Api, request: InvoiceRequest) -> InvoiceView:
    """A new invoice, or the one that an earlier call with the same external_id made.

    Raises BadInput, NotFound (wallet, node), AlreadyExists (external_id used with other arguments), NotConfigured
    (dollars without prices), NodeRefused, and NoPrice and Unavailable: then a repeat with the same external_id is
    safe.
    """
    check_request(request)
    wallet = get_wallet(api, request.wallet_id)
    request = _with_terms(api, wallet, request)
    invoice = _earlier(api, wallet, request.external_id)
    if invoice is None:
        invoice = _insert(api, wallet, request)
    elif request.default_expiry and invoice.asked is not None and invoice.asked.default_expiry:
        request = replace(request, expiry_s=invoice.asked.expiry_s)  # the configuration may have changed since
    if invoice.wallet_id != wallet.wallet_id:
        raise AlreadyExists(f"external_id: {request.external_id!r} is another wallet's; give another external_id")
    _check_same(api, invoice, request)
    if invoice.payment_request is None:
        invoice = _complete(api, invoice, request)
        _check_same(api, invoice, request)
    return view(api, invoice)


def get_invoice(api: Api, *, payment_hash: str, wallet_id: str, external_id: str) -> InvoiceView:
    """One invoice, by its hash or by wallet and external_id. Raises BadInput, NotFound, Unavailable."""
    if bool(payment_hash) == bool(wallet_id or external_id):
        raise BadInput(field="payment_hash", value=payment_hash, remedy="give either it, or wallet_id and external_id")
    if payment_hash:
        return view(api, _stored(api, fields.payment_hash(payment_hash)))
    wallet = get_wallet(api, wallet_id)
    invoice = _earlier(api, wallet, fields.external_id(external_id))
    if invoice is None or invoice.wallet_id != wallet.wallet_id:
        raise NotFound(f"external_id: wallet {wallet_id} has no invoice {external_id!r}")
    return view(api, invoice)


def list_invoices(api: Api, *, wallet_id: str, page_size: int, page_token: str) -> tuple[Sequence[InvoiceView], str]:
    """A page of a wallet's invoices, newest first, and the next page's token."""
    limit = paging.page_size(page_size)
    after = paging.read_token(_TOKEN_KIND, page_token)
    wallet = get_wallet(api, wallet_id)
    page, next_after = api.invoices.page(wallet_id=wallet.wallet_id, after=after, limit=limit)
    return [view(api, invoice) for invoice in page], paging.make_token(_TOKEN_KIND, next_after)


def watch_invoice(api: Api, payment_hash: str, is_wanted: Callable[[], bool]) -> Iterator[InvoiceView]:
    """The invoice now, then after each change, until it is settled or closed, or `is_wanted` says no.

    BadInput and NotFound are raised at once; the iteration raises Closed and Unavailable.
    """
    known_hash = fields.payment_hash(payment_hash)
    _stored(api, known_hash)
    return _watch(api, known_hash, is_wanted)


def _watch(api: Api, payment_hash: PaymentHash, is_wanted: Callable[[], bool]) -> Iterator[InvoiceView]:
    shown: InvoiceView | None = None
    while is_wanted():
        api.gate.check()
        sequence = api.board.sequence  # before reading: a commit in between wakes the wait below
        now = view(api, _stored(api, payment_hash))
        if now != shown:
            shown = now
            yield now
        if now.state.is_final:
            return
        api.gate.pause(_WATCH_PAUSE_S)
        api.board.wait_beyond(sequence, timeout_s=WATCH_POLL_S)


def _with_terms(api: Api, wallet: Wallet, request: InvoiceRequest) -> InvoiceRequest:
    """The request with its defaults filled in, by what the wallet counts in; raises BadInput, NotConfigured."""
    check_amount(wallet, request.amount_sat, request.amount_cents)
    in_dollars = wallet.currency is Currency.USD
    pricing = pricing_of(api) if in_dollars else None
    has_amount = (request.amount_sat, request.amount_cents) != (None, None)
    quote_s = pricing.quote_s if pricing is not None and has_amount else None
    # A dollar invoice without an amount is priced while its payment is held, and then settled by itself.
    release = Release.MANUAL if request.hold else Release.AUTOMATIC if in_dollars and not has_amount else None
    expiry_s, default_expiry = expiry_of(request.expiry_s, has_amount=has_amount, quote_s=quote_s), not request.expiry_s
    payment_hash = request.payment_hash.lower()
    # A payment hash of the caller's own is as good a name as any.
    external_id = request.external_id or payment_hash
    request = replace(request, expiry_s=expiry_s, default_expiry=default_expiry, release=release)
    return replace(request, external_id=external_id, payment_hash=payment_hash)


def check_request(request: InvoiceRequest) -> None:
    """Raises BadInput for what no wallet's invoice can be."""
    memo_bytes = len(request.memo.encode())
    if memo_bytes > MAX_MEMO_BYTES:
        raise BadInput(
            field="memo",
            value=request.memo,
            remedy=f"it has {memo_bytes} bytes of UTF-8: give at most {MAX_MEMO_BYTES}, or a description_hash",
        )
    if request.description_hash and len(request.description_hash) != hashlib.sha256().digest_size:
        raise BadInput(
            field="description_hash", value=request.description_hash.hex(), remedy="give a SHA-256, 32 bytes"
        )
    if request.external_id:
        fields.external_id(request.external_id)
    if request.payment_hash:
        fields.payment_hash(request.payment_hash)
        if not request.hold:
            remedy = "give it together with hold: an ordinary invoice has a preimage that its node knows"
            raise BadInput(field="payment_hash", value=request.payment_hash, remedy=remedy)


def _earlier(api: Api, wallet: Wallet, external_id: str) -> StoredInvoice | None:
    """What an earlier call with this external_id left; external_ids are unique in an account."""
    return api.invoices.get_by_external_id(wallet.account_id, external_id) if external_id else None


def _insert(api: Api, wallet: Wallet, request: InvoiceRequest) -> StoredInvoice:
    """The document, before anybody can pay it."""
    check_credited(api, wallet)
    node, pubkey = choose_node(api, request.node)
    preimage = b"" if request.payment_hash else api.new_preimage()
    payment_hash = PaymentHash(request.payment_hash or hashlib.sha256(preimage).hexdigest())
    if request.payment_hash and node.lookup_invoice(payment_hash) is not None:
        # Somebody else's: with a document for it, their money would go to this wallet.
        raise AlreadyExists(f"payment_hash: {node.name} has an invoice with {payment_hash} already; give another one")
    # Without a price not even the document is made; the quote follows it, for only the document tells whose hash it is.
    deal = _deal(api, wallet, request)
    invoice = StoredInvoice(
        payment_hash=payment_hash,
        wallet_id=wallet.wallet_id,
        account_id=wallet.account_id,
        external_id=request.external_id or payment_hash,
        pubkey=pubkey,
        currency=wallet.currency,
        payment_request=None,
        paid=False,
        completed=False,
        created_at=_whole_ms(api.now()),
        preimage=preimage.hex(),
        cents=None if deal is None else deal.amount_cents,
        release=request.release,
        asked=_asked(request),
    )
    if request.release is None:
        api.hints.ordinary(payment_hash)
    try:
        api.invoices.insert(invoice)
    except AlreadyExists:
        # The same call came twice at once, and the other one was faster: its document counts.
        first = _earlier(api, wallet, request.external_id)
        if first is None:
            raise
        return first
    if deal is not None:
        keep_deal(api, invoice, deal, request.expiry_s, made_at=invoice.created_at)
    return invoice


def _deal(api: Api, wallet: Wallet, request: InvoiceRequest) -> Deal | None:
    """What the amount is changed at; None for a wallet in sats, and where the payer decides."""
    if wallet.currency is not Currency.USD:
        return None
    return deal_for(api, amount_sat=request.amount_sat, amount_cents=request.amount_cents, expiry_s=request.expiry_s)


def _complete(api: Api, invoice: StoredInvoice, request: InvoiceRequest) -> StoredInvoice:
    """Gets the payment request of a document that has none, and puts it in."""
    if invoice.paid or invoice.completed:
        raise AlreadyExists(f"external_id: {invoice.external_id!r} is an invoice that is over; give another one")
    node = node_of_pubkey(api, invoice.pubkey)
    made = _add(api, node, invoice, request)
    terms = _terms(made.payment_request)
    if terms is None or terms.payment_hash != invoice.payment_hash:
        raise NodeRefused(f"{node.name} answered with a payment request that is not the invoice's")
    api.invoices.set_payment_request(invoice.payment_hash, made.payment_request)
    return replace(invoice, payment_request=made.payment_request)


def _add(api: Api, node: LightningNode, invoice: StoredInvoice, request: InvoiceRequest) -> NodeInvoice:
    """The node's invoice for the document: a hold one where somebody is to release what is paid."""
    amount_msat = value_msat(api, invoice, amount_sat=request.amount_sat, expiry_s=request.expiry_s)
    if invoice.release is None:
        return node.add_invoice(
            NewInvoice(
                preimage=bytes.fromhex(invoice.preimage),
                value_msat=amount_msat,
                memo=request.memo,
                description_hash=request.description_hash,
                expiry_s=request.expiry_s,
            )
        )
    api.hints.look(invoice.pubkey, invoice.payment_hash)  # watched before anybody can pay it
    return node.add_hold_invoice(
        NewHoldInvoice(
            payment_hash=invoice.payment_hash,
            value_msat=amount_msat,
            memo=request.memo,
            description_hash=request.description_hash,
            expiry_s=request.expiry_s,
        )
    )


def _asked(request: InvoiceRequest) -> AskedTerms:
    """What a repeat has to ask for, too. The node is left out: the document has the one that was chosen."""
    return AskedTerms(
        amount_sat=request.amount_sat,
        amount_cents=request.amount_cents,
        memo=request.memo,
        description_hash=request.description_hash,
        expiry_s=request.expiry_s,
        hold=request.hold,
        payment_hash=request.payment_hash,
        default_expiry=request.default_expiry,
    )


def _check_same(api: Api, invoice: StoredInvoice, request: InvoiceRequest) -> None:
    """AlreadyExists unless the invoice is what the request asks for, by its document, and by what its node has made."""
    differs = _unlike_document(invoice, request)
    if not differs and invoice.payment_request is not None:
        differs = _unlike_made(_terms(invoice.payment_request), request)
    if request.node and not _is_on(api, invoice, request.node):
        differs.append("node")
    if differs:
        raise AlreadyExists(
            f"external_id: {invoice.external_id!r} was used with another {' and '.join(differs)}; "
            "repeat with the first arguments, or give another external_id"
        )


def _unlike_document(invoice: StoredInvoice, request: InvoiceRequest) -> list[str]:
    if invoice.asked is not None:
        # A default that is given is none the less the same.
        asked, first = asdict(_asked(request)), asdict(replace(invoice.asked, default_expiry=request.default_expiry))
        return [name for name in asked if asked[name] != first[name]]
    # Another program's, or from before documents said it.
    same = {
        "amount_cents": request.amount_cents == invoice.cents,
        "hold": (request.release is None) == (invoice.release is None),
        "payment_hash": request.payment_hash in ("", invoice.payment_hash),
    }
    return [name for name, is_same in same.items() if not is_same]


def _unlike_made(terms: PaymentRequest | None, request: InvoiceRequest) -> list[str]:
    """Whoever made the node's invoice. What cents were priced at is the quote's."""
    in_cents = request.amount_cents is not None
    asked_msat = (request.amount_sat or 0) * MSAT_PER_SAT
    same = {
        "amount_sat": terms is not None and (in_cents or asked_msat == terms.amount_msat),
        "memo": terms is not None and request.memo == terms.memo,
        "description_hash": terms is not None and request.description_hash == terms.description_hash,
        "expiry_s": terms is not None and request.expiry_s == terms.expiry_s,
    }
    return [name for name, is_same in same.items() if not is_same]


def _is_on(api: Api, invoice: StoredInvoice, wanted: str) -> bool:
    """Whether the node of this name or public key has it; one that is away need not be asked."""
    return wanted.lower() == invoice.pubkey or node_of_pubkey(api, invoice.pubkey) is named_node(api, wanted)


def view(api: Api, invoice: StoredInvoice) -> InvoiceView:
    """The invoice as it is now."""
    terms = _terms(invoice.payment_request)
    expires_at = None if terms is None else datetime.fromtimestamp(terms.expires_at_s, tz=UTC)
    told = {} if invoice.paid else api.invoices.states_told(invoice)
    state = _state(invoice, told)
    if state is InvoiceState.OPEN and expires_at is not None and api.now() > expires_at + EXPIRY_GRACE:
        api.hints.look(invoice.pubkey, invoice.payment_hash)  # the node is asked, and the next view knows
    held = told.get(INVOICE_HELD, {}) if state is InvoiceState.HELD else {}
    settlement = api.invoices.settlement(invoice.payment_hash) if state is InvoiceState.SETTLED else None
    settled_at_ms = None if settlement is None else settlement["settled_at_ms"]
    return InvoiceView(
        stored=invoice,
        state=state,
        amount_sat=0 if terms is None else terms.amount_msat // MSAT_PER_SAT,
        memo="" if terms is None else terms.memo,
        expires_at=expires_at,
        received_sat=None if settlement is None else settlement["amount_sat"],
        settled_at=None if settled_at_ms is None else datetime.fromtimestamp(settled_at_ms / 1000, tz=UTC),
        received_cents=None if settlement is None else settlement.get("amount_cents"),
        held_msat=held.get("received_msat"),
        expiry_height=held.get("expiry_height"),
        cancel_reason=told[INVOICE_CANCELED]["reason"] if state is InvoiceState.CANCELED else "",
    )


def _state(invoice: StoredInvoice, told: Mapping[str, Mapping[str, Any]]) -> InvoiceState:
    """It is over when its document says so, which is closed only after its node was asked: until then a payment may
    be on its way, or held, however long ago it has expired."""
    if invoice.paid:
        return InvoiceState.SETTLED
    if invoice.completed:
        if INVOICE_CANCELED in told:
            return InvoiceState.CANCELED
        return InvoiceState.EXPIRED if INVOICE_EXPIRED in told else InvoiceState.CLOSED
    return InvoiceState.HELD if INVOICE_HELD in told else InvoiceState.OPEN


def _stored(api: Api, payment_hash: PaymentHash) -> StoredInvoice:
    invoice = api.invoices.get(payment_hash)
    if invoice is None:
        raise NotFound(f"payment_hash: there is no invoice {payment_hash}")
    return invoice


def _terms(payment_request: str | None) -> PaymentRequest | None:
    """What the payment request says; None where another program wrote something else."""
    try:
        return None if payment_request is None else decode_payment_request(payment_request)
    except ValueError:
        return None


def _whole_ms(moment: datetime) -> datetime:
    """What MongoDB keeps of a time, so that the first answer and later ones are equal."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
