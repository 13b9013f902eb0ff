"""CreateInvoice repeated while the first call is under way, or after a crash between its steps: the first call's terms
count, and nobody else's. What happens in between is forced: it runs inside the first call, at one of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, Final

import pytest

from adapters.prices.fixed import FixedPrice
from daemon.domain.errors import AlreadyExists
from daemon.domain.identifiers import PaymentHash
from daemon.domain.money import Currency
from daemon.domain.ports import NewHoldInvoice, NewInvoice, NodeInvoice, Wallet
from daemon.domain.quotes import Deal, Quote
from daemon.posting.pricing import Pricing
from daemon.serving.invoices import InvoiceRequest, InvoiceView, create_invoice
from tests.contract.conftest import Database
from tests.samples import hash_of
from tests.unit.serving.bank_in_memory import ALICE_PUBKEY, BOB_PUBKEY, Clock, Node, open_bank


class Killed(BaseException):
    """The process ends here."""


class Moments:
    """The steps of a call; `at` lets something happen once, when the next call comes there."""

    def __init__(self) -> None:
        self._planned: dict[str, Callable[[], None]] = {}

    def at(self, moment: str, action: Callable[[], None]) -> None:
        self._planned[moment] = action

    def come(self, moment: str) -> None:
        action = self._planned.pop(moment, None)
        if action is not None:
            action()


BEFORE: Final = "the document is about to be written"
DOCUMENT: Final = "the document is written, no quote yet"
ASKED: Final = "the node is asked"
ANSWERED: Final = "the node has answered, the document does not know"
PRICED: Final = "the dealer is asked"
MOMENTS: Final = (DOCUMENT, ASKED, ANSWERED)


class StepNode(Node):
    """Says when it is asked, and when it has answered."""

    moments: Moments

    def add_invoice(self, invoice: NewInvoice) -> NodeInvoice:
        self.moments.come(ASKED)
        made = super().add_invoice(invoice)
        self.moments.come(ANSWERED)
        return made

    def add_hold_invoice(self, invoice: NewHoldInvoice) -> NodeInvoice:
        self.moments.come(ASKED)
        made = super().add_hold_invoice(invoice)
        self.moments.come(ANSWERED)
        return made


class StepInvoices:
    """The store's, which says when a document is written; `as_before` as the first releases did."""

    as_before = False

    def __init__(self, invoices: Any, moments: Moments) -> None:
        self._invoices = invoices
        self._moments = moments

    def __getattr__(self, name: str) -> Any:
        return getattr(self._invoices, name)

    def insert(self, invoice: Any) -> None:
        self._moments.come(BEFORE)
        self._invoices.insert(replace(invoice, asked=None) if self.as_before else invoice)
        self._moments.come(DOCUMENT)


class Dealer:
    """A price that tests set."""

    name = "fixed"
    usd_per_btc = "60000.00"

    def __init__(self, moments: Moments) -> None:
        self._moments = moments

    def age_s(self) -> float | None:
        return 0.0

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal:
        self._moments.come(PRICED)
        return FixedPrice(Decimal(self.usd_per_btc)).sats_for(amount_cents=amount_cents, expiry_s=expiry_s)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal:
        return FixedPrice(Decimal(self.usd_per_btc)).cents_for(amount_sat=amount_sat, expiry_s=expiry_s)


class Counter:
    """Where invoices are asked for, on one database."""

    def __init__(self, store: Database) -> None:
        bank = open_bank()
        self.store, self.moments = store, Moments()
        self.dealer = Dealer(self.moments)
        self.clock: Clock = bank.clock
        nodes = [
            StepNode(name=name, pubkey=pubkey, now_s=bank.clock.unix_s)
            for name, pubkey in (("alice", ALICE_PUBKEY), ("bob", BOB_PUBKEY))
        ]
        for node in nodes:
            node.moments = self.moments
        self.nodes = nodes
        self.invoices = StepInvoices(store.invoices, self.moments)
        self.api = replace(
            bank.api,
            nodes=nodes,
            wallets=store.wallets,
            invoices=self.invoices,
            pricing=Pricing(dealer=self.dealer, quotes=store.quotes, now_ms=lambda: int(bank.clock.unix_s() * 1000)),
        )
        dollars = store.new_dollar_wallet()
        self.wallets = {"dollars": dollars, "sats": self._wallet(dollars, Currency.BTC, "sats")}
        self.wallets["other"] = self._wallet(dollars, Currency.BTC, "other")
        self.begin("the only one")

    def _wallet(self, beside: Wallet, currency: Currency, name: str) -> Wallet:
        return self.store.wallets.create(account_id=beside.account_id, currency=currency, external_id=name)

    def begin(self, case: str) -> None:
        """From here on another external_id is used, and what is on the nodes is no matter."""
        self._case = hash_of(case)
        self._before = {one.payment_hash for one in self._listed()}

    def call(self, *, wallet: str, payment_hash: str = "", **fields: Any) -> InvoiceView:
        asked = {
            "amount_sat": None,
            "external_id": self._case,
            "payment_hash": self._case if payment_hash == OF_THE_CASE else payment_hash,
            **fields,
        }
        return create_invoice(self.api, InvoiceRequest(wallet_id=self.wallets[wallet].wallet_id, **asked))

    def on_nodes(self) -> list[NodeInvoice]:
        return [one for one in self._listed() if one.payment_hash not in self._before]

    def _listed(self) -> list[NodeInvoice]:
        return [one for node in self.nodes for one in node.list_invoices(after_add_index=0, limit=100).invoices]

    def quote(self, payment_hash: PaymentHash) -> Quote | None:
        return self.store.quotes.get(payment_hash)


@pytest.fixture
def counter(store: Database) -> Counter:
    return Counter(store)


Asked = dict[str, Any]

OF_THE_CASE: Final = "a hash of this case's own"
SATS: Final[Asked] = {"wallet": "sats", "amount_sat": 1_000}
CENTS: Final[Asked] = {"wallet": "dollars", "amount_cents": 60}
DOLLARS_IN_SATS: Final[Asked] = {"wallet": "dollars", "amount_sat": 1_000}
ANY_DOLLARS: Final[Asked] = {"wallet": "dollars"}
OWN_HASH: Final[Asked] = {**SATS, "hold": True, "payment_hash": OF_THE_CASE}

MIXTURES: Final[dict[str, tuple[Asked, Asked, str]]] = {
    # Both are 60 cents at this price.
    "cents, then sats": (CENTS, {"amount_cents": None, "amount_sat": 1_001}, "amount_sat and amount_cents"),
    "sats, then cents": (DOLLARS_IN_SATS, {"amount_sat": None, "amount_cents": 60}, "amount_sat and amount_cents"),
    "other sats of the same cents": (DOLLARS_IN_SATS, {"amount_sat": 1_001}, "another amount_sat;"),
    "cents": (CENTS, {"amount_cents": 61}, "another amount_cents;"),
    "cents, then none": (CENTS, {"amount_cents": None, "expiry_s": 300}, "another amount_cents;"),
    "none, then cents": ({**ANY_DOLLARS, "expiry_s": 300}, {"amount_cents": 60}, "another amount_cents;"),
    "expiry of a quote": (CENTS, {"expiry_s": 60}, "another expiry_s;"),
    "sats": (SATS, {"amount_sat": 2_000}, "another amount_sat;"),
    "memo": (SATS, {"memo": "other"}, "another memo;"),
    "description hash": (SATS, {"description_hash": bytes(32)}, "another description_hash;"),
    "expiry": (SATS, {"expiry_s": 61}, "another expiry_s;"),
    "hold": (SATS, {"hold": True, "memo": "other"}, "another memo and hold;"),
    "hold, then not": ({**SATS, "hold": True}, {"hold": False, "memo": "other"}, "another memo and hold;"),
    # Both are hold invoices on the node: one waits for a person, the other for a price.
    "hold without an amount": (ANY_DOLLARS, {"hold": True}, "another hold;"),
    "hold without an amount, then not": ({**ANY_DOLLARS, "hold": True}, {"hold": False}, "another hold;"),
    "payment hash": (OWN_HASH, {"payment_hash": hash_of("not made")}, "another payment_hash;"),
    "payment hash, then none": (OWN_HASH, {"payment_hash": ""}, "another payment_hash;"),
    "node": (SATS, {"node": "bob", "memo": "other"}, "another memo and node;"),
    "wallet": (SATS, {"wallet": "other"}, "another wallet's"),
}
"""What is asked for first, what another caller changes of it, and what his refusal names."""


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_repeat_with_other_arguments_is_refused_and_changes_nothing(counter: Counter, moment: str) -> None:
    """Whatever the first call has done by then: it gets what it has asked for, and document, quote and node agree."""
    for case, (first, change, named) in MIXTURES.items():
        counter.begin(case)
        refusals: list[str] = []

        def repeat(asked: Asked = {**first, **change}, refusals: list[str] = refusals) -> None:  # noqa: B006 (read only)
            with pytest.raises(AlreadyExists) as refused:
                counter.call(**asked)
            refusals.append(str(refused.value))

        counter.moments.at(moment, repeat)
        made = counter.call(**first)
        assert_is(counter, made, first)
        assert counter.call(**first) == made
        repeat()
        assert [named in refusal for refusal in refusals] == [True, True], (case, refusals)


def test_whose_document_is_written_first_is_the_first(counter: Counter) -> None:
    """The other one has found none either: it is refused, and what it was told of prices is nobody's."""
    for case, (asked, change, _) in MIXTURES.items():
        counter.begin(case)
        first: list[InvoiceView] = []
        counter.moments.at(BEFORE, partial(_append_call, first, counter, {**asked, **change}))
        with pytest.raises(AlreadyExists, match="another"):
            counter.call(**asked)
        (on_node,) = counter.on_nodes()
        assert counter.call(**{**asked, **change}) == first[0]
        assert first[0].amount_sat * 1_000 == on_node.value_msat
        quote = counter.quote(on_node.payment_hash)
        assert quote is None or (quote.sat, quote.cents) == (first[0].amount_sat, first[0].stored.cents)


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_crash_the_first_arguments_count(counter: Counter, moment: str) -> None:
    """The caller who comes with others is refused, whichever step was the last one; the first one gets his invoice."""

    def crash() -> None:
        raise Killed

    for case, (first, change, named) in MIXTURES.items():
        counter.begin(case)
        counter.moments.at(moment, crash)
        with pytest.raises(Killed):
            counter.call(**first)
        with pytest.raises(AlreadyExists, match=named):
            counter.call(**{**first, **change})
        assert_is(counter, counter.call(**first), first)


@pytest.mark.parametrize("moment", MOMENTS)
def test_after_a_crash_and_another_default_the_same_call_gets_its_invoice(counter: Counter, moment: str) -> None:
    """The configuration's quote_s was changed before the restart; the caller's arguments are the same."""

    def kill() -> None:
        raise Killed

    counter.begin(moment)
    counter.moments.at(moment, kill)
    with pytest.raises(Killed):
        counter.call(**CENTS)
    assert counter.api.pricing is not None
    counter.api.pricing.quote_s = 200
    made = counter.call(**CENTS)
    assert made.stored.cents == 60
    assert counter.call(**CENTS).stored == made.stored


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_same_call_in_flight_gets_the_same_invoice(counter: Counter, moment: str) -> None:
    """Both calls: one invoice, one quote."""
    for asked in (SATS, CENTS, DOLLARS_IN_SATS, ANY_DOLLARS, OWN_HASH):
        counter.begin(repr(asked))
        repeated: list[InvoiceView] = []
        counter.moments.at(moment, partial(_append_call, repeated, counter, asked))
        made = counter.call(**asked)
        assert repeated == [made]
        assert_is(counter, made, asked)


def _append_call(answers: list[InvoiceView], counter: Counter, asked: Asked) -> None:
    answers.append(counter.call(**asked))


TOLD_BY_THE_DOCUMENT_ALONE: Final = {
    # Both of a pair look the same on the node.
    "hold without an amount",
    "hold without an amount, then not",
    "payment hash, then none",
    # Such a document's cents count as what was asked for.
    "sats, then cents",
    "other sats of the same cents",
}


def test_of_a_document_that_does_not_say_what_was_asked_for_the_rest_tells(counter: Counter) -> None:
    """It is of a release before, or another program's: the node's invoice shows most of it."""
    counter.invoices.as_before = True
    for case in MIXTURES.keys() - TOLD_BY_THE_DOCUMENT_ALONE:
        first, change, _ = MIXTURES[case]
        counter.begin(case)
        made = counter.call(**first)
        assert counter.call(**first).stored == replace(made.stored, asked=None)
        with pytest.raises(AlreadyExists, match="another"):
            counter.call(**{**first, **change})


def test_a_call_that_hangs_does_not_replace_the_price_of_its_repeat(counter: Counter) -> None:
    """It has written its document and stands still, until the quote of the faster repeat has expired: the node's
    invoice was made at that one, and a payment of its last second is still on its way."""
    repeated: list[InvoiceView] = []

    def meanwhile() -> None:
        counter.dealer.usd_per_btc = "50000.00"
        repeated.append(counter.call(**CENTS))
        counter.clock.advance(seconds=301)

    counter.moments.at(DOCUMENT, meanwhile)
    with pytest.raises(AlreadyExists, match="has expired"):
        counter.call(**CENTS)
    assert_is(counter, repeated[0], CENTS)


def test_a_repeat_that_hangs_does_not_replace_the_price_of_another(counter: Counter) -> None:
    """A crash has left the document alone: of two repeats that each ask for a price the first to keep it counts."""

    def crash() -> None:
        raise Killed

    counter.moments.at(DOCUMENT, crash)
    with pytest.raises(Killed):
        counter.call(**CENTS)
    repeated: list[InvoiceView] = []

    def meanwhile() -> None:
        counter.dealer.usd_per_btc = "50000.00"
        repeated.append(counter.call(**CENTS))
        counter.dealer.usd_per_btc = "40000.00"
        counter.clock.advance(seconds=301)

    counter.moments.at(PRICED, meanwhile)
    assert counter.call(**CENTS).stored == repeated[0].stored
    assert_is(counter, repeated[0], CENTS)


def assert_is(counter: Counter, made: InvoiceView, asked: dict[str, Any]) -> None:
    """The view, the document, the quote and the only invoice on any node are what was asked for."""
    (on_node,) = counter.on_nodes()
    stored, quote = made.stored, counter.quote(made.stored.payment_hash)
    assert counter.store.invoices.get(stored.payment_hash) == stored
    assert on_node.payment_hash == stored.payment_hash
    assert (on_node.value_msat, on_node.memo) == (made.amount_sat * 1_000, asked.get("memo", ""))
    is_amountless = asked.keys().isdisjoint({"amount_sat", "amount_cents"})
    assert (on_node.hold is not None) == (asked.get("hold", False) or is_amountless)
    assert stored.wallet_id == counter.wallets[asked["wallet"]].wallet_id
    assert "payment_hash" not in asked or stored.payment_hash == stored.external_id
    if asked["wallet"] != "dollars" or is_amountless:
        assert (made.amount_sat, stored.cents, quote) == (asked.get("amount_sat", 0), None, None)
        return
    assert quote is not None
    assert (quote.sat, quote.cents, stored.cents) == (made.amount_sat, 60, 60)
    assert made.amount_sat == asked.get("amount_sat", made.amount_sat)
