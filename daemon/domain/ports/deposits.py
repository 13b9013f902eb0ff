"""Deposits, addresses and the confirmation policy, as the API and the chain's follower read and make them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from daemon.domain.chain import ChainCursor, Deposit, DepositState
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange
from daemon.domain.identifiers import Outpoint, WalletId
from daemon.domain.ports.chain import DerivedAddress


class Deposits(Protocol):
    """Deposits, for reading: majority read concern. Only posting writes them."""

    def cursor(self) -> ChainCursor | None:
        """The chain's position in the books."""
        ...

    def get(self, outpoint: Outpoint) -> Deposit | None:
        """The deposit, None if there is none."""
        ...

    def page(
        self, *, wallet_id: WalletId | None, states: Collection[DepositState], after: str | None, limit: int
    ) -> tuple[Sequence[Deposit], str | None]:
        """Deposits, all or a wallet's, newest first by detection, in these states (none given: all); and the
        token of the next page, None after the last."""
        ...

    def detected(self, *, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        """Deposits that are in no block and not dropped, ascending by outpoint."""
        ...

    def due(self, *, height: int, after: Outpoint | None, limit: int) -> Sequence[Deposit]:
        """Confirmed deposits that are deep enough when the tip is at `height`, ascending by outpoint; those that are
        held only where that may pass by itself, as for want of a price (`Deposit.is_held`)."""
        ...

    def in_dollars(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        """Those of these wallets that count in dollars."""
        ...

    def waiting(self) -> tuple[int, int]:
        """How many deposits are detected or confirmed, and their sats: for metrics."""
        ...


class Addresses(Protocol):
    """Addresses that tellerd gives out: an index is taken once per key, whoever asks."""

    def current(self, wallet_id: WalletId, *, key_id: str) -> str | None:
        """The wallet's newest address of this key, if no deposit has ever been seen on it; None otherwise."""
        ...

    def take_index(self, *, key_id: str) -> int:
        """The next index of a key, taken atomically; the first is 0. What is not used afterwards stays unused."""
        ...

    def give(self, wallet_id: WalletId, derived: DerivedAddress, *, key_id: str) -> None:
        """Writes the script and appends the address to the wallet's `onchain[]`, in one transaction; NotFound if
        there is no such wallet, InvariantViolation if the script is another wallet's."""
        ...


class Policies(Protocol):
    """The confirmation policy and its history."""

    def current(self) -> ConfirmationPolicy | None:
        """The newest policy that was set, None if none ever was."""
        ...

    def change(
        self, *, before: ConfirmationPolicy, tiers: tuple[ConfirmationTier, ...], changed_by: str, reason: str
    ) -> PolicyChange:
        """Sets the next version; Conflict if `before` is not the newest any more."""
        ...

    def history(self, *, before_version: int | None, limit: int) -> Sequence[PolicyChange]:
        """Changes, newest first, those before a version."""
        ...
