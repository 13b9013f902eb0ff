"""`teller_api_keys`: one document a key, without its secret."""

from __future__ import annotations

from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS
from pymongo import ReturnDocument, WriteConcern, errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, milliseconds
from adapters.mongo.errors import mapped
from daemon.domain.api_keys import ApiKey, Scope
from daemon.domain.errors import AlreadyExists, BadInput

_MAX_MS_DIGITS = 14
"""Unix milliseconds up to the year 5138."""


class MongoApiKeys:
    """`daemon.domain.ports.ApiKeys` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._keys = db[names.API_KEYS]
        # A caller waits for this write, and losing it loses nothing: no majority, no journal.
        self._unsafe_keys = self._keys.with_options(write_concern=WriteConcern(1))

    def insert(self, key: ApiKey) -> None:
        """See the port."""
        with mapped("writing an API key"):
            try:
                self._keys.insert_one(_document_of(key))
            except errors.DuplicateKeyError:
                raise AlreadyExists(f"key_id: {key.key_id} is taken; make another key") from None

    def get(self, key_id: str) -> ApiKey | None:
        """See the port."""
        with mapped("reading an API key"):
            document = self._keys.find_one({"_id": key_id})
        return _key_from(document) if document else None

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[ApiKey], str | None]:
        """See the port; the token is the last key's time of creation and id."""
        query: Document = {} if after is None else _older_than(after)
        with mapped("listing API keys"):
            found = list(self._keys.find(query).sort([("created_at", -1), ("_id", -1)]).limit(limit + 1))
        token = None
        if len(found) > limit:
            last = found[limit - 1]
            token = f"{milliseconds(last['created_at'])}:{last['_id']}"
        return [_key_from(document) for document in found[:limit]], token

    def revoke(self, key_id: str, *, at_ms: int) -> ApiKey | None:
        """See the port."""
        change = {"$set": {"revoked_at": DatetimeMS(at_ms)}}
        with mapped("revoking an API key"):
            document = self._keys.find_one_and_update(
                {"_id": key_id, "revoked_at": None}, change, return_document=ReturnDocument.AFTER
            )
        return _key_from(document) if document else self.get(key_id)

    def touch_last_used(self, key_id: str, *, at_ms: int) -> None:
        """See the port."""
        with mapped("noting the use of an API key"):
            self._unsafe_keys.update_one({"_id": key_id}, {"$max": {"last_used_at": DatetimeMS(at_ms)}})


def _older_than(token: str) -> Document:
    at_ms, _, key_id = token.partition(":")
    if not at_ms.isdecimal() or len(at_ms) > _MAX_MS_DIGITS:
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    at = DatetimeMS(int(at_ms))
    return {"created_at": {"$lte": at}, "$or": [{"created_at": {"$lt": at}}, {"_id": {"$lt": key_id}}]}


def _document_of(key: ApiKey) -> Document:
    document: Document = {
        "_id": key.key_id,
        "name": key.name,
        "secret_sha256": key.secret_hash,
        "scopes": sorted(scope.value for scope in key.scopes),
        "created_at": DatetimeMS(key.created_at_ms),
    }
    times = {"expires_at": key.expires_at_ms, "revoked_at": key.revoked_at_ms, "last_used_at": key.last_used_at_ms}
    return document | {name: DatetimeMS(at_ms) for name, at_ms in times.items() if at_ms is not None}


def _key_from(document: Document) -> ApiKey:
    return ApiKey(
        key_id=document["_id"],
        name=document["name"],
        secret_hash=document["secret_sha256"],
        scopes=frozenset(Scope(scope) for scope in document["scopes"]),
        created_at_ms=milliseconds(document["created_at"]),
        expires_at_ms=_milliseconds_or_none(document.get("expires_at")),
        revoked_at_ms=_milliseconds_or_none(document.get("revoked_at")),
        last_used_at_ms=_milliseconds_or_none(document.get("last_used_at")),
    )


def _milliseconds_or_none(moment: object) -> int | None:
    return None if moment is None else milliseconds(moment)
