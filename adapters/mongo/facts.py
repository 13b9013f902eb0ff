"""What a batch needs to know, in two round trips (three where it meets what is booked already)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.barred import barred_accounts
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
)
from adapters.mongo.dollar_facts import DollarFactsReader
from adapters.mongo.errors import mapped
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import LIGHTNING, Barred
from daemon.domain.books import Expectation, Facts, Head, Known, SuspenseEntry, Wanted
from daemon.domain.chain import Deposit
from daemon.domain.errors import InvariantViolation
from daemon.domain.identifiers import AccountId, NodePubkey, PaymentHash, WalletId, deposit_key
from daemon.domain.money import Currency

_MAX_WALLETS_CACHED = 200_000
"""A wallet's currency never changes, so it is read once; 200,000 of them are about 40 MB."""

_KIND = "kind"

_LEG_FIELDS: Document = {"hash": 1, "accounts": 1, "currency": 1, "debit": 1, "credit": 1}


class FactsReader:
    """Reads facts; keeps wallets' currencies, which never change."""

    def __init__(self, db: Database[Document], writer_id: bytes) -> None:
        self._db = db
        self._writer_id = writer_id
        self._currencies: dict[str, Currency] = {}
        self._dollars = DollarFactsReader(db)
        self._chain = ChainFactsReader(db, writer_id, self._currencies_of, self._dollars.dealer)

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
        barred = barred_accounts(self._db, {AccountId(one.get("accountId", "")) for one in invoices})
        self._learn_currencies(document.get("walletId", "") for document in invoices)
        return Facts(
            head=_head(by_kind) if known is None else known.head,
            booked=booked,
            expectations={PaymentHash(document["_id"]): self._expectation(document, barred) for document in invoices},
            suspense={entry.key: entry for entry in suspense},
            cursors=cursors,
            booked_elsewhere={PaymentHash(document["hash"]) for document in by_kind.get("leg", ())},
            booked_elsewhere_sat=_taken_from_lightning(by_kind.get("leg", ())),
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

    def _learn_currencies(self, wallet_ids: Iterable[str]) -> None:
        if len(self._currencies) > _MAX_WALLETS_CACHED:
            self._currencies.clear()
        unknown = {wallet_id for wallet_id in wallet_ids if wallet_id not in self._currencies}
        if not unknown:
            return
        query = {"id": {"$in": list(unknown)}}
        for wallet in self._db[names.WALLETS].find(query, {"id": 1, "currency": 1}):
            # A wallet of a kind that is not known here cannot be credited here: as if it were not there.
            if wallet.get("currency") in Currency.__members__:
                self._currencies[wallet["id"]] = Currency(wallet["currency"])

    def _currencies_of(self, wallet_ids: Collection[WalletId]) -> dict[WalletId, Currency]:
        self._learn_currencies(wallet_ids)
        return {wallet_id: self._currencies[wallet_id] for wallet_id in wallet_ids if wallet_id in self._currencies}

    def _expectation(self, document: Document, barred: Mapping[AccountId, Barred]) -> Expectation:
        currency = str(document.get("currency"))
        return Expectation(
            payment_hash=PaymentHash(document["_id"]),
            wallet_id=WalletId(document.get("walletId", "")),
            account_id=AccountId(document.get("accountId", "")),
            external_id=document.get("externalId") or document["_id"],
            currency=Currency(currency) if currency in Currency.__members__ else None,
            wallet_currency=self._currencies.get(document.get("walletId", "")),
            cents=cents_of(document),
            paid=bool(document.get("paid")),
            pubkey=NodePubkey(document["pubkey"]) if document.get("pubkey") else None,
            preimage=document.get("secret"),
            completed=bool(document.get("processingCompleted")),
            release=release_of(document),
            barred=barred.get(AccountId(document.get("accountId", ""))),
        )


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


def _taken_from_lightning(legs: Iterable[Document]) -> dict[PaymentHash, int]:
    """By payment hash, what these legs of receipts debit the Lightning account with, in sats."""
    sums: dict[PaymentHash, int] = {}
    for leg in legs:
        if (leg.get("accounts"), leg.get("currency")) == (LIGHTNING, Currency.BTC):
            payment_hash = PaymentHash(leg["hash"])
            # Another program may write any number there: its journal is adopted, or is a gap of its own.
            sums[payment_hash] = sums.get(payment_hash, 0) + int(leg.get("debit", 0)) - int(leg.get("credit", 0))
    return sums


def _head(by_kind: dict[str, list[Document]]) -> Head:
    if "head" not in by_kind:
        raise InvariantViolation("teller_head has no head document: the database was not made by `tellerd init`")
    return head_from(by_kind["head"][0])
