"""What a batch needs to know, in two round trips (three where it meets what is booked already)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.barred import barred_wallets
from adapters.mongo.chain_facts import ChainFactsReader, wants_chain
from adapters.mongo.documents import (
    LND_CURSORS,
    Document,
    balance_id,
    cents_of,
    cursor_from,
    head_from,
    release_of,
    suspense_from,
    text_of,
)
from adapters.mongo.dollar_facts import DollarFactsReader
from adapters.mongo.errors import mapped
from adapters.mongo.journals import leg_from
from adapters.mongo.known_wallets import KnownWallet, KnownWallets
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import LIGHTNING, Barred
from daemon.domain.books import Expectation, Facts, Head, Known, SuspenseEntry, Wanted
from daemon.domain.chain import Deposit
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId, deposit_key
from daemon.domain.money import Currency

_KIND = "kind"

_LEG_FIELDS: Document = {"hash": 1, "accounts": 1, "currency": 1, "debit": 1, "credit": 1}


class FactsReader:
    """Reads facts; keeps what never changes of wallets."""

    def __init__(self, db: Database[Document], writer_id: bytes) -> None:
        self._db = db
        self._writer_id = writer_id
        self._wallets = KnownWallets(db)
        self._dollars = DollarFactsReader(db)
        self._chain = ChainFactsReader(db, writer_id, self._wallets, self._dollars.dealer)

    def read(self, wanted: Wanted) -> Facts:
        """The facts; the head first, so that what is read after it is at least as new."""
        with mapped("reading facts"):
            facts = self._facts(self._documents(_parts(wanted, self._writer_id)), wanted.known)
            if wants_chain(wanted):
                facts.chain = self._chain.read(wanted)
                facts.suspense = {**facts.suspense, **self._suspense_of(facts.chain.deposits.values())}
            if in_dollars := [one for one in facts.expectations.values() if one.is_in_dollars]:
                hashes, accounts = zip(*((one.payment_hash, one.account_id) for one in in_dollars), strict=True)
                facts.dollars = self._dollars.read(set(hashes), set(accounts))
            return facts

    def _documents(self, parts: Sequence[_Part]) -> dict[str, list[Document]]:
        """What all parts find, by kind."""
        by_kind: dict[str, list[Document]] = {}
        if parts:
            first, *others = parts
            unions = [{"$unionWith": {"coll": part.collection, "pipeline": part.stages()}} for part in others]
            for document in self._db[first.collection].aggregate([*first.stages(), *unions]):
                by_kind.setdefault(document[_KIND], []).append(document)
        return by_kind

    def _facts(self, by_kind: dict[str, list[Document]], known: Known | None) -> Facts:
        booked = {document["_id"] for document in by_kind.get("key", ())}
        suspense = self._suspense(booked)
        cursors = {} if known is None else dict(known.cursors)
        cursors |= {cursor.pubkey: cursor for cursor in map(cursor_from, by_kind.get("cursor", ()))}
        invoices = by_kind.get("invoice", [])
        wallets = self._wallets.of({WalletId(text_of(document, "walletId")) for document in invoices})
        barred = barred_wallets(self._db, {wallet_id: one.account_id for wallet_id, one in wallets.items()})
        return Facts(
            head=_head(by_kind) if known is None else known.head,
            booked=booked,
            expectations={
                PaymentHash(document["_id"]): _expectation(document, wallets, barred) for document in invoices
            },
            suspense={entry.key: entry for entry in suspense},
            cursors=cursors,
            booked_elsewhere={PaymentHash(document["hash"]) for document in by_kind.get("leg", ())},
            booked_elsewhere_sat=taken_from_lightning(by_kind.get("leg", ())),
            received={
                document["_id"]: int(document["received_msat"])
                for document in by_kind.get("key", ())
                if document.get("received_msat") is not None
            },
            lightning_balance=sum(int(document["balance"]) for document in by_kind.get("balance", ())),
        )

    def _suspense(self, booked: set[str]) -> list[SuspenseEntry]:
        """Money in suspense has a booked key, and most batches have none: they are not asked for it."""
        if not booked:
            return []
        return [suspense_from(one) for one in self._db[names.SUSPENSE].find({"_id": {"$in": list(booked)}})]

    def _suspense_of(self, deposits: Iterable[Deposit]) -> dict[str, SuspenseEntry]:
        """The entries of deposits that were booked to suspense; nearly none was."""
        booked = [one for one in deposits if one.booking is not None and one.booking.suspense_reason]
        keys = {deposit_key(one.outpoint, one.settlements) for one in booked}
        return {entry.key: entry for entry in self._suspense(keys)}


@dataclass(frozen=True, slots=True)
class _Part:
    """Documents of one collection, marked with their kind."""

    collection: str
    kind: str
    match: Document
    project: Document | None = None

    def stages(self) -> list[Document]:
        """As a pipeline."""
        project = [{"$project": self.project}] if self.project else []
        return [{"$match": self.match}, *project, {"$set": {_KIND: self.kind}}]


def _parts(wanted: Wanted, writer_id: bytes) -> list[_Part]:
    """Each part costs some 0.15 ms, however little it finds."""
    parts: list[_Part] = []
    if wanted.known is None:
        parts.append(_Part(names.HEAD, "head", {"_id": "head"}))
    keys, hashes = list(wanted.keys), list(wanted.payment_hashes)
    if keys:
        parts.append(_Part(names.KEYS, "key", {"_id": {"$in": keys}}, {"received_msat": 1}))
    if hashes:
        parts.append(_Part(names.INVOICES, "invoice", {"_id": {"$in": hashes}}, {"paymentRequest": 0}))
        # Ours are told by their keys: the same hash, paid on another node, is money of its own.
        elsewhere = {"hash": {"$in": hashes}, "type": "invoice", **not_made_by(writer_id, "$_journal")}
        parts.append(_Part(names.LEGS, "leg", elsewhere, _LEG_FIELDS))
    pubkeys = wanted.pubkeys if wanted.known is None else wanted.pubkeys - wanted.known.cursors.keys()
    if wanted.opening:
        parts.append(_Part(names.CURSORS, "cursor", LND_CURSORS))
        balance = {"_id": balance_id(LIGHTNING, Currency.BTC)}
        parts.append(_Part(names.BALANCES, "balance", balance, {"balance": 1}))
    elif pubkeys:
        parts.append(_Part(names.CURSORS, "cursor", {"_id": {"$in": [f"lnd:{pubkey}" for pubkey in pubkeys]}}))
    return parts


def _expectation(
    document: Document, wallets: Mapping[WalletId, KnownWallet], barred: Mapping[WalletId, Barred]
) -> Expectation:
    currency, wallet_id = str(document.get("currency")), WalletId(text_of(document, "walletId"))
    wallet = wallets.get(wallet_id)
    return Expectation(
        payment_hash=PaymentHash(document["_id"]),
        wallet_id=wallet_id,
        account_id=AccountId("") if wallet is None else wallet.account_id,
        external_id=text_of(document, "externalId") or document["_id"],
        currency=Currency(currency) if currency in Currency.__members__ else None,
        wallet_currency=None if wallet is None else wallet.currency,
        cents=cents_of(document),
        paid=bool(document.get("paid")),
        pubkey=NodePubkey(document["pubkey"]) if document.get("pubkey") else None,
        preimage=text_of(document, "secret") or None,
        completed=bool(document.get("processingCompleted")),
        release=release_of(document),
        barred=barred.get(wallet_id),
    )


def taken_from_lightning(legs: Iterable[Document]) -> dict[PaymentHash, int]:
    """By payment hash, what these legs of receipts debit the Lightning account with, in sats."""
    sums: dict[PaymentHash, int] = {}
    for document in legs:
        if (document.get("accounts"), document.get("currency")) == (LIGHTNING, Currency.BTC):
            payment_hash = PaymentHash(document["hash"])
            sums[payment_hash] = sums.get(payment_hash, 0) + _taken_sat(document)
    return sums


def _taken_sat(document: Document) -> int:
    """Another program may write anything there: what is no money is a gap of its own (`adapters.mongo.journals`)."""
    try:
        leg = leg_from(document)
    except InvariantViolation:
        return 0
    return leg.debit - leg.credit


def _head(by_kind: dict[str, list[Document]]) -> Head:
    if "head" not in by_kind:
        raise InvariantViolation("teller_head has no head document: the database was not made by `tellerd init`")
    return head_from(by_kind["head"][0])
