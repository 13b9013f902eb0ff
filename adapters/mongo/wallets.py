"""Wallets and accounts in Blink's collections."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from pymongo import errors
from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.barred import barred_accounts
from adapters.mongo.documents import Document
from adapters.mongo.errors import DUPLICATE_KEY, mapped
from adapters.mongo.schema import account_document, wallet_document
from daemon.domain.accounts import Barred
from daemon.domain.errors import AlreadyExists, BadInput, Conflict, NotFound
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet

_MAX_TRIES = 5
"""Two callers with one external_id conflict once; more needs as many callers."""


class MongoWallets:
    """`daemon.domain.ports.Wallets` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def create(self, *, account_id: AccountId | None, currency: Currency, external_id: str) -> Wallet:
        """See the port. The external_id is an idempotency key of its own, `wallet:<external_id>`."""
        asked = {"account_id": account_id, "currency": currency.value}
        for _ in range(_MAX_TRIES):
            with mapped("creating a wallet"):
                key = self._db[names.KEYS].find_one({"_id": f"wallet:{external_id}"})
                if key is not None:
                    return self._first_answer(key, asked, external_id)
                try:
                    return self._create(asked, external_id)
                except errors.DuplicateKeyError:
                    continue
                except errors.OperationFailure as error:
                    if error.code != DUPLICATE_KEY and not error.has_error_label("TransientTransactionError"):
                        raise
        raise Conflict(f"wallet {external_id}: too many callers with one external_id")

    def _first_answer(self, key: Document, asked: Document, external_id: str) -> Wallet:
        if key["asked"] != asked:
            raise AlreadyExists(f"external_id {external_id!r} was used before with other arguments: use a new one")
        document = self._db[names.WALLETS].find_one({"id": key["wallet_id"]})
        if document is None:
            raise NotFound(f"wallet {key['wallet_id']} of external_id {external_id!r} is gone")
        return _wallet(document)

    def _create(self, asked: Document, external_id: str) -> Wallet:
        with self._db.client.start_session() as session, session.start_transaction():
            account_id = asked["account_id"] or str(uuid.uuid4())
            document = wallet_document(account_id, Currency(asked["currency"]))
            if asked["account_id"] is None:
                account = account_document(account_id, default_wallet_id=document["id"])
                self._db[names.ACCOUNTS].insert_one(account, session=session)
            elif not self._account_exists(account_id, session):
                raise NotFound(f"account_id: no account {account_id}; leave it out to have one made")
            self._db[names.WALLETS].insert_one(document, session=session)
            self._db[names.KEYS].insert_one(
                {"_id": f"wallet:{external_id}", "wallet_id": document["id"], "asked": asked}, session=session
            )
        return _wallet(document)

    def _account_exists(self, account_id: str, session: ClientSession) -> bool:
        return self._db[names.ACCOUNTS].find_one({"id": account_id}, {"_id": 1}, session=session) is not None

    def get(self, wallet_id: WalletId) -> Wallet | None:
        """See the port."""
        with mapped("reading a wallet"):
            document = self._db[names.WALLETS].find_one({"id": wallet_id})
        return _wallet(document) if document else None

    def barred(self, wallet: Wallet) -> Barred | None:
        """See the port."""
        with mapped("reading an account's status"):
            return barred_accounts(self._db, [wallet.account_id]).get(wallet.account_id)

    def page(
        self, *, account_id: AccountId | None, after: str | None, limit: int
    ) -> tuple[Sequence[Wallet], str | None]:
        """See the port; the token is the last document's `_id`."""
        query: dict[str, Any] = {} if account_id is None else {"accountId": account_id}
        if after is not None:
            if not ObjectId.is_valid(after):
                raise BadInput(field="page_token", value=after, remedy="use next_page_token of the page before")
            query["_id"] = {"$gt": ObjectId(after)}
        with mapped("listing wallets"):
            found = list(self._db[names.WALLETS].find(query).sort("_id", 1).limit(limit + 1))
        token = str(found[limit - 1]["_id"]) if len(found) > limit else None
        return [_wallet(document) for document in found[:limit]], token


def _wallet(document: Document) -> Wallet:
    return Wallet(
        wallet_id=WalletId(document["id"]),
        account_id=AccountId(document["accountId"]),
        currency=Currency(document["currency"]),
    )
