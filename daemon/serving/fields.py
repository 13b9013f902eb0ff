"""What callers may put into fields; each check returns the value to work with or raises BadInput."""

from __future__ import annotations

import re

from daemon.domain.errors import BadInput
from daemon.domain.identifiers import AccountId, PaymentHash, Txid, WalletId

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_EXTERNAL_ID = re.compile(r"[a-z0-9_-]{1,100}")


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
