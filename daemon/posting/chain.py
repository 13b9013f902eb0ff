"""The hash chain over journals: whoever holds one link can tell whether anything before it was changed.

A link covers what nobody may change: the idempotency key, the journal's `_id`, its datetime in
milliseconds, and its legs (account, currency, debit, credit, in the order of their `_id`). It leaves
out what Blink's core updates in place (`pending`, `voided`, `hash` of a payout and others).

    link = SHA-256( previous link, 32 bytes || canonical JSON (RFC 8785) of
                    {"datetime_ms", "id", "key", "legs": [[account, currency, debit, credit], ...]} )
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import rfc8785

from daemon.domain.entries import Leg


def link_hash(*, previous: str, key: str, journal_id: str, datetime_ms: int, legs: Sequence[Leg]) -> str:
    """The link of one journal, 64 hex digits; `previous` is the one before, `GENESIS_HASH` for the first."""
    content = rfc8785.dumps(
        {
            "datetime_ms": datetime_ms,
            "id": journal_id,
            "key": key,
            "legs": [[leg.account, leg.currency, leg.debit, leg.credit] for leg in legs],
        }
    )
    return hashlib.sha256(bytes.fromhex(previous) + content).hexdigest()
