"""`teller_audit`: one document a call; the `_id` sorts by time."""

from __future__ import annotations

from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS
from pymongo import errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, milliseconds
from adapters.mongo.errors import DUPLICATE_KEY, mapped
from daemon.domain.audit_log import AuditEntry, is_entry_id
from daemon.domain.errors import BadInput


class MongoAuditLog:
    """`daemon.domain.ports.AuditLog` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._entries = db[names.AUDIT]

    def append(self, entries: Sequence[AuditEntry]) -> None:
        """See the port."""
        if not entries:
            return
        with mapped("writing the audit log"):
            try:
                self._entries.insert_many([_document_of(entry) for entry in entries], ordered=False)
            except errors.BulkWriteError as refused:
                # Those of an earlier try whose outcome was not known are there already.
                if refused.details.get("writeConcernErrors") or any(
                    problem["code"] != DUPLICATE_KEY for problem in refused.details["writeErrors"]
                ):
                    raise

    def page(self, *, after: str | None, limit: int) -> tuple[Sequence[AuditEntry], str | None]:
        """See the port; the token is the last entry's id."""
        if after is not None and not is_entry_id(after):
            raise BadInput(field="page_token", value=after, remedy="use next_page_token of the page before")
        query: Document = {} if after is None else {"_id": {"$lt": after}}
        with mapped("reading the audit log"):
            found = list(self._entries.find(query).sort("_id", -1).limit(limit + 1))
        page = [_entry_from(document) for document in found[:limit]]
        return page, page[-1].entry_id if len(found) > limit else None


def _document_of(entry: AuditEntry) -> Document:
    return {
        "_id": entry.entry_id,
        "at": DatetimeMS(entry.at_ms),
        "method": entry.method,
        "key_id": entry.key_id,
        "key_name": entry.key_name,
        "peer": entry.peer,
        "code": entry.code,
        "subjects": dict(entry.subjects),
    }


def _entry_from(document: Document) -> AuditEntry:
    return AuditEntry(
        entry_id=document["_id"],
        at_ms=milliseconds(document["at"]),
        method=document["method"],
        key_id=document["key_id"],
        key_name=document["key_name"],
        peer=document["peer"],
        code=document["code"],
        subjects=dict(document["subjects"]),
    )
