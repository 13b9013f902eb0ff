"""`tellerd keys`: makes, lists and revokes API keys straight in the database, so that the first one can be made."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from adapters.mongo import MongoStore
from daemon.domain.api_keys import ApiKey, Scope
from daemon.serving import keys
from daemon.serving.paging import MAX_PAGE_SIZE

NAME = "keys"
MAX_DAYS = 36_500
"""A hundred years."""

_MS_PER_DAY = 86_400_000


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's own arguments."""
    what = "make, list and revoke keys of the API"
    actions = commands.add_parser(NAME, help=what, description=what).add_subparsers(dest="action", required=True)
    create = _action(actions, "create", "make a key and print it, this once, to stdout")
    create.add_argument("--name", required=True, help="who will have it")
    create.add_argument("--scopes", type=_scopes, required=True, metavar="S,S", help=f"out of {', '.join(Scope)}")
    create.add_argument("--expires-days", type=_days, metavar="D", help="days until it is refused; default: never")
    _action(actions, "list", "list all keys, without their secrets")
    revoke = _action(actions, "revoke", "end a key for good; a running tellerd refuses it within 5 seconds")
    revoke.add_argument("key_id", metavar="ID", help="the key's first 12 characters, tlr_ and 8 more")


def act(arguments: argparse.Namespace, store: MongoStore) -> Iterator[str]:
    """Does what the arguments say; what it yields are the lines for stdout.

    Of a new key that is the key and nothing else, so that a script can take it from there. Raises BadInput, NotFound,
    Unavailable, and InvariantViolation before `init`.
    """
    store.open()
    now_ms = time.time_ns() // 1_000_000
    if arguments.action == "create":
        days = arguments.expires_days
        _, text = keys.create_api_key(
            store.api_keys,
            name=arguments.name,
            scopes=arguments.scopes,
            expires_at_ms=None if days is None else now_ms + days * _MS_PER_DAY,
            now_ms=now_ms,
        )
        yield text.reveal()
    elif arguments.action == "list":
        yield from _all_keys(store)
    else:
        yield _line(keys.revoke_api_key(store.api_keys, arguments.key_id, now_ms=now_ms))


def _all_keys(store: MongoStore) -> Iterator[str]:
    token = ""
    while True:
        page, token = keys.list_api_keys(store.api_keys, page_size=MAX_PAGE_SIZE, page_token=token)
        yield from map(_line, page)
        if not token:
            return


def _line(key: ApiKey) -> str:
    """A key on one line, the name last: it alone may hold blanks."""
    times = {
        "created": key.created_at_ms,
        "expires": key.expires_at_ms,
        "revoked": key.revoked_at_ms,
        "last used": key.last_used_at_ms,
    }
    shown = [f"{what} {_day_and_time(at_ms)}" for what, at_ms in times.items() if at_ms is not None]
    return "  ".join([key.key_id, ",".join(scope for scope in Scope if scope in key.scopes), *shown, key.name])


def _day_and_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name.strip()) for name in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"give one or more of {','.join(Scope)}, with commas between") from None


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"give 1 to {MAX_DAYS} days")
    return int(text)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=what, description=what)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML, see the README")
    return parser
