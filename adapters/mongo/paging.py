"""Pages over documents by a time and `_id`, newest first; a token is `<Unix ms>:<_id>` of the last one before."""

from __future__ import annotations

from bson.datetime_ms import DatetimeMS

from adapters.mongo.documents import Document
from daemon.domain.errors import BadInput

_MAX_MS_DIGITS = 14
"""Unix milliseconds up to the year 5138."""


def newest_first(field: str) -> list[tuple[str, int]]:
    """The order of such a list."""
    return [(field, -1), ("_id", -1)]


def older_than(token: str, field: str) -> Document:
    """A query for what comes after the token's document. Raises BadInput for what is no token."""
    at_ms, separator, key = token.partition(":")
    if not (separator and at_ms.isascii() and at_ms.isdecimal() and len(at_ms) <= _MAX_MS_DIGITS):
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    at = DatetimeMS(int(at_ms))
    return {field: {"$lte": at}, "$or": [{field: {"$lt": at}}, {"_id": {"$lt": key}}]}
