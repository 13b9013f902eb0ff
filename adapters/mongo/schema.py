"""`tellerd init`: makes what is missing and changes nothing that is there, but for which deposits are due; and the
check that it was done."""

from __future__ import annotations

import secrets
import uuid
from datetime import UTC, datetime
from typing import Any

import structlog
from bson.int64 import Int64
from pymongo.database import Database
from pymongo.errors import OperationFailure

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, head_of
from adapters.mongo.errors import DUPLICATE_KEY, is_lost_race, mapped
from adapters.mongo.script_numbers import COUNTER
from daemon.domain.books import Head
from daemon.domain.chain import DepositState
from daemon.domain.errors import InvariantViolation
from daemon.domain.money import Currency

log = structlog.get_logger()

_NAMESPACE_EXISTS = 48  # MongoDB's error code

_SYSTEM_ROLES: dict[str, tuple[Currency, ...]] = {
    "bankowner": (Currency.BTC,),
    "dealer": (Currency.BTC, Currency.USD),
    "funder": (Currency.BTC,),
}
"""Blink's system accounts by role, with the wallets they need; the first one is the default wallet."""


def init(db: Database[Document]) -> list[str]:
    """Makes collections, indexes, head, lease and system accounts where missing; returns what it made.

    An older database becomes one of this version: versions have only added to each other so far. Deposits that were
    held for want of a wallet or a dealer are looked at again: it may be there now.
    """
    with mapped("init"):
        made = []
        present = set(db.list_collection_names())
        for name, indexes in names.INDEXES.items():
            # A transaction cannot make a collection on the way at the speed that a commit needs.
            if name not in present and _create_collection(db, name):
                made.append(f"collection {name}")
            if indexes:
                db[name].create_indexes(indexes)
        made += _make_singletons(db)
        for role, currencies in _SYSTEM_ROLES.items():
            made += _try_system_account(db, role, currencies)
        return made + _release_deposits(db) + _raise_version(db)


def _create_collection(db: Database[Document], name: str) -> bool:
    try:
        db.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise
        return False  # another daemon that starts now was faster
    return True


def _make_singletons(db: Database[Document]) -> list[str]:
    singletons: dict[str, Document] = {
        names.HEAD: {"_id": "head", **head_of(Head(fence=0), 0)},
        names.LEASE: {
            "_id": "lease",
            "holder": None,
            "fence": 0,
            "session": None,
            "expires_at": datetime.fromtimestamp(0, UTC),
        },
        names.SCHEMA: {
            "_id": "schema",
            "version": names.SCHEMA_VERSION,
            "writer_id": secrets.token_bytes(5),
        },
        names.DERIVATIONS: {"_id": COUNTER, "n": Int64(0)},
    }
    made = []
    for name, document in singletons.items():
        identity = document.pop("_id")
        result = db[name].update_one({"_id": identity}, {"$setOnInsert": document}, upsert=True)
        if result.upserted_id is not None:
            made.append(f"document {name}")
    return made


def _release_deposits(db: Database[Document]) -> list[str]:
    """What still lacks its wallet is held again. (Version 2 knew no dollar wallets, and held all their deposits.)"""
    held = {"state": DepositState.CONFIRMED.value, "held": True}  # no other is held, and the state has an index
    due_again = {"$set": {"held": False, "held_reason": ""}}
    released = db[names.DEPOSITS].update_many(held, due_again).modified_count
    return [f"{released} deposits that were held are due again"] if released else []


def _raise_version(db: Database[Document]) -> list[str]:
    """Last of all, so that a database says what it is only when it is so; a newer one stays newer."""
    older = {"_id": "schema", "version": {"$lt": names.SCHEMA_VERSION}}
    if db[names.SCHEMA].find_one(older) is None:
        return []
    change = {"$set": {"version": names.SCHEMA_VERSION}}
    raised = db[names.SCHEMA].update_one(older, change).modified_count
    return [f"schema version {names.SCHEMA_VERSION}"] if raised else []


def _try_system_account(db: Database[Document], role: str, currencies: tuple[Currency, ...]) -> list[str]:
    try:
        return _make_system_account(db, role, currencies)
    except OperationFailure as error:
        if error.code != DUPLICATE_KEY and not is_lost_race(error):
            raise
        return []  # another daemon that starts now was faster


def _make_system_account(db: Database[Document], role: str, currencies: tuple[Currency, ...]) -> list[str]:
    if db[names.ACCOUNTS].find_one({"role": role}) is not None:
        return []
    account_id = str(uuid.uuid4())
    wallets = [wallet_document(account_id, currency) for currency in currencies]
    with db.client.start_session() as session, session.start_transaction():
        account = account_document(account_id, default_wallet_id=wallets[0]["id"], role=role)
        db[names.ACCOUNTS].insert_one(account, session=session)
        db[names.WALLETS].insert_many(wallets, session=session)
        # Taken once: of two daemons that start together, one makes the account.
        db[names.KEYS].insert_one({"_id": f"system:{role}", "account_id": account_id}, session=session)
    return [f"system account {role}"]


def account_document(account_id: str, *, default_wallet_id: str, role: str = "user") -> Document:
    """An account as Blink's core makes it (blink-contract.md 1), active from the start.

    `kratosUserId` is unique in Blink's database; an account that no user logs in to has its own id there.
    """
    now = datetime.now(UTC)
    return {
        "id": account_id,
        "kratosUserId": account_id,
        "role": role,
        "level": 0,
        "statusHistory": [{"status": "active", "updatedAt": now, "comment": "made by tellerd"}],
        "contactEnabled": False,
        "contacts": [],
        "defaultWalletId": default_wallet_id,
        "displayCurrency": Currency.USD.value,
        "created_at": now,
        "__v": 0,
    }


def wallet_document(account_id: str, currency: Currency) -> Document:
    """A wallet as Blink's core makes it."""
    return {
        "id": str(uuid.uuid4()),
        "accountId": account_id,
        "type": "checking",
        "currency": currency.value,
        "onchain": [],
        "__v": 0,
    }


def require(db: Database[Document]) -> bytes:
    """Returns the writer id; raises InvariantViolation unless `init` was run with this schema version."""
    with mapped("schema"):
        schema: Any = db[names.SCHEMA].find_one({"_id": "schema"})
    if schema is None:
        raise InvariantViolation(
            f"database {db.name!r} is not initialised: run `tellerd init`, or set init = true under [mongo]"
        )
    if schema["version"] != names.SCHEMA_VERSION:
        is_older = schema["version"] < names.SCHEMA_VERSION
        raise InvariantViolation(
            f"database {db.name!r} has schema version {schema['version']}, this tellerd needs {names.SCHEMA_VERSION}: "
            + ("run `tellerd init`" if is_older else "run the tellerd that belongs to it")
        )
    return bytes(schema["writer_id"])
