"""What a call was about, for the audit log: the ids in its request and its answer, and nothing else of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from daemon.domain.api_keys import is_key_id

_NAMES: Final = frozenset(
    {
        "wallet_id",
        "account_id",
        "external_id",
        "payment_hash",
        "key_id",
        "address",
        "txid",
        "vout",
        "node",
        "name",
        "changed_by",
        "closed_by",
        "gap_key",
        "version",
        "full",
        "entry_key",
        "assigned_by",
    }
)
"""Fields that are recorded: named one by one, so that a secret of a later release is not by mistake."""

_MAX_CHARS: Final = 100
"""Of a value; longer ones are cut off: a hostile one must not fill the log."""


def subjects_of(request: object, answer: object) -> dict[str, str]:
    """By field name; what the answer says goes before what was asked. One level of messages in the answer is looked
    into, for `CreateWallet` answers with a wallet."""
    return dict([*_ids_in(request), *_ids_below(answer), *_ids_in(answer)])


def _ids_in(message: object) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields() if isinstance(message, Message) else ():
        if field.name in _NAMES and field.type != FieldDescriptor.TYPE_MESSAGE and not field.is_repeated:
            # Who gives a whole key for its id must not find it in the log.
            shown = "(not an id)" if field.name == "key_id" and not is_key_id(value) else str(value)
            yield field.name, shown[:_MAX_CHARS]


def _ids_below(message: object) -> Iterator[tuple[str, str]]:
    for field, value in message.ListFields() if isinstance(message, Message) else ():
        if field.type == FieldDescriptor.TYPE_MESSAGE and not field.is_repeated:
            yield from _ids_in(value)
