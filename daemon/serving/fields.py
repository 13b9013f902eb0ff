"""What callers may put into fields; each check returns the value to work with or raises BadInput."""

from __future__ import annotations

import re

from daemon.domain.errors import BadInput
from daemon.domain.identifiers import AccountId, PaymentHash, Txid, WalletId

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_EXTERNAL_ID = re.compile(r"[a-z0-9_-]{1,100}")

MAX_NAME_CHARS = 100
"""A name, an address, a ticket."""

MAX_REASON_CHARS = 1_000
"""A paragraph: it is kept for good and shown in lists."""


def wallet_id(value: str) -> WalletId:
    """A wallet's id."""
    if not _UUID.fullmatch(value):
        raise BadInput(field="wallet_id", value=value, remedy="give the wallet's UUID in lower case")
    return WalletId(value)


def account_id(value: str) -> AccountId:
    """An account's id."""
    if not _UUID.fullmatch(value):
        raise BadInput(field="account_id", value=value, remedy="give the account's UUID in lower case")
    return AccountId(value)


def payment_hash(value: str) -> PaymentHash:
    """A payment hash, in either case."""
    if not _HASH.fullmatch(value.lower()):
        raise BadInput(field="payment_hash", value=value, remedy="give 64 hex digits")
    return PaymentHash(value.lower())


def txid(value: str) -> Txid:
    """A tx's id, in either case."""
    if not _HASH.fullmatch(value.lower()):
        raise BadInput(field="txid", value=value, remedy="give 64 hex digits, in the order that people read")
    return Txid(value.lower())


def external_id(value: str) -> str:
    """A name of the caller's choice; the rule is Blink's (blink-contract.md 1, `externalId`)."""
    if not _EXTERNAL_ID.fullmatch(value):
        raise BadInput(field="external_id", value=value, remedy="give 1 to 100 characters out of a-z, 0-9, - and _")
    return value


def words(field: str, value: str, max_chars: int) -> str:
    """What a person wrote about a change: required, on one line, without blanks around it."""
    text = value.strip()
    if not 1 <= len(text) <= max_chars or not text.isprintable():
        raise BadInput(field=field, value=value, remedy=f"give 1 to {max_chars} printable characters on one line")
    return text
