"""The feed of everything that was booked or decided, for one subscriber."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from daemon.domain.errors import BadInput, OutOfRange
from daemon.domain.outbox import EVENT_TYPES
from daemon.domain.ports import StoredEvent
from daemon.serving import fields
from daemon.serving.api import Api

MAX_WALLET_IDS = 1000
"""In one filter: a subscriber who wants more wallets than this wants the whole feed."""

MAX_SEQUENCE = 2**63 - 1


def subscribe(
    api: Api,
    *,
    after_sequence: int,
    types: Sequence[str],
    wallet_ids: Sequence[str],
    is_wanted: Callable[[], bool],
) -> Iterator[StoredEvent]:
    """Events above a sequence, then new ones as they come, until `is_wanted` says no.

    Bad arguments raise at once: BadInput, OutOfRange (beyond the newest event). The iteration raises Closed
    when the process stops serving, and Unavailable.
    """
    for name in types:
        if name not in EVENT_TYPES:
            raise BadInput(field="types", value=name, remedy=f"give any of {', '.join(EVENT_TYPES)}")
    if len(wallet_ids) > MAX_WALLET_IDS:
        raise BadInput(
            field="wallet_ids",
            value=f"{len(wallet_ids)} wallets",
            remedy=f"give at most {MAX_WALLET_IDS}, or none and filter the feed yourself",
        )
    for wallet_id in wallet_ids:
        fields.wallet_id(wallet_id)
    if after_sequence < 0:
        raise BadInput(field="after_sequence", value=after_sequence, remedy="give 0 or more")
    newest = api.ledger.head().sequence
    if after_sequence > newest:
        raise OutOfRange(
            field="after_sequence",
            value=after_sequence,
            remedy=f"the newest event is {newest}: is this the database that you had that sequence from?",
        )
    return _follow(api, after_sequence, types, wallet_ids, is_wanted)


def _follow(
    api: Api,
    after_sequence: int,
    types: Sequence[str],
    wallet_ids: Sequence[str],
    is_wanted: Callable[[], bool],
) -> Iterator[StoredEvent]:
    yield from api.feed.follow(
        after_sequence=after_sequence,
        types=types,
        wallet_ids=wallet_ids,
        is_wanted=lambda: api.gate.is_open and is_wanted(),
    )
    api.gate.check()
