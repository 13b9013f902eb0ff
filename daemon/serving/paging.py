"""Pages: how large, and tokens that say where the next one begins."""

from __future__ import annotations

import base64
import binascii

from daemon.domain.errors import BadInput

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
"""A page of this many invoices or journals is some 500 kB and a few tenths of a second of one thread."""

_MAX_TOKEN_LENGTH = 512
"""Longer than any token that we give; a longer one is not decoded."""

_REMEDY = "give next_page_token of the page before, unchanged, to the same method"


def page_size(value: int) -> int:
    """How many items to return; 0 means the default."""
    if not 0 <= value <= MAX_PAGE_SIZE:
        raise BadInput(
            field="page_size", value=value, remedy=f"give 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}"
        )
    return value or DEFAULT_PAGE_SIZE


def make_token(kind: str, position: str | None) -> str:
    """An opaque token; empty after the last page. `kind` keeps tokens of one list out of another."""
    if position is None:
        return ""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode().rstrip("=")


def read_token(kind: str, token: str) -> str | None:
    """The position that a token holds; None for the first page. Raises BadInput for a token not ours."""
    if not token:
        return None
    try:
        if len(token) > _MAX_TOKEN_LENGTH:
            raise ValueError
        padded = token.encode() + b"=" * (-len(token) % 4)
        found, separator, position = base64.b64decode(padded, b"-_", validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        raise BadInput(field="page_token", value=token, remedy=_REMEDY) from None
    if found != kind or not separator or not position:
        raise BadInput(field="page_token", value=token, remedy=_REMEDY)
    return position


def read_number_token(kind: str, token: str) -> int | None:
    """As `read_token`, for positions that are numbers."""
    position = read_token(kind, token)
    if position is None:
        return None
    if not (position.isascii() and position.isdigit() and len(position) < 19):  # fits a signed 64-bit integer
        raise BadInput(field="page_token", value=token, remedy=_REMEDY)
    return int(position)
