"""Known wallets are read once, and are there for whoever asks, whatever other threads ask meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapters.mongo import known_wallets
from adapters.mongo.known_wallets import KnownWallets
from daemon.domain.identifiers import WalletId

FIRST, SECOND, THIRD = WalletId("first"), WalletId("second"), WalletId("third")


class WalletsCollection:
    """Stands for the database and its collection; `meanwhile` happens while the server answers, once."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __getitem__(self, name: str) -> WalletsCollection:
        return self

    def find(self, query: dict[str, Any], fields: dict[str, Any]) -> list[dict[str, Any]]:
        asked = sorted(query["id"]["$in"])
        self.asked.append(asked)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return [{"id": one, "currency": "BTC", "accountId": f"of {one}"} for one in asked]


def test_a_wallet_that_another_thread_makes_room_for_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A known wallet that seems not to exist would send a payment to suspense, and hold a deposit for good."""
    monkeypatch.setattr(known_wallets, "MAX_CACHED", 0)
    wallets = WalletsCollection()
    known = KnownWallets(wallets)  # type: ignore[arg-type]  # all that it asks of a database
    known.of({FIRST})
    monkeypatch.setattr(known_wallets, "MAX_CACHED", 1)

    def another_thread() -> None:
        monkeypatch.setattr(known_wallets, "MAX_CACHED", 0)
        known.of({THIRD})

    wallets.meanwhile = another_thread
    assert set(known.of({FIRST, SECOND})) == {FIRST, SECOND}


def test_known_wallets_are_not_read_again() -> None:
    """Nothing of them changes."""
    wallets = WalletsCollection()
    known = KnownWallets(wallets)  # type: ignore[arg-type]  # all that it asks of a database
    known.of({FIRST, SECOND})
    assert known.of({FIRST})[FIRST].account_id == "of first"
    assert wallets.asked == [["first", "second"]]
