"""Nouns of the chain: blocks, where tellerd stands among them, and deposits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from daemon.domain.accounts import DealerWallets
from daemon.domain.identifiers import BlockHash, Outpoint, Txid, WalletId, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.quotes import PRICE_REASONS

PASSING_REASONS: Final = PRICE_REASONS | {"not_a_btc_wallet"}
"""Reasons why a deposit that is deep enough is not credited yet, and is tried again: the price comes back; releases
before dollar wallets held their deposits with the last one."""

COINBASE_MATURITY: Final = 100
"""Confirmations before the output of a coinbase can be spent (a rule of consensus)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """A block's place: two blocks of one height differ in their hash."""

    height: int
    hash: BlockHash


MAX_RECENT: Final = 100
"""Blocks below the cursor's whose hashes are kept: 7 kB in its document, and more than any reorg there ever was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainCursor:
    """The last block that is in the books, with everything before it. `genesis` says of which chain.

    `recent` are the hashes of the blocks below it, the nearest first: with them the fork is found even where the
    node has forgotten our branch (killed before it was flushed, or another node at the same address).
    """

    genesis: BlockHash
    block: BlockRef
    recent: tuple[BlockHash, ...] = field(default=(), compare=False)

    def moved(self, to: BlockRef, *, disconnected: int, connected: Sequence[BlockRef]) -> ChainCursor:
        """The cursor at `to`: some blocks back, and then on over these."""
        below = (self.block.hash, *self.recent)[disconnected:]
        branch = (*(block.hash for block in reversed(connected)), *below)
        return replace(self, block=to, recent=branch[1 : MAX_RECENT + 1])


class DepositState(StrEnum):
    """Where a deposit stands: seen in the mempool, in a block, credited, or gone."""

    DETECTED = "detected"
    CONFIRMED = "confirmed"
    SETTLED = "settled"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositBooking:
    """What a settled deposit's journal did, so that its reversal undoes exactly that.

    `bank_owner` is the wallet that got the fee, None where there was none. Dust is booked whole to the dust
    account, without a fee. `cents` and `fee_cents` are what was written beside the sats, None without a price; a
    dollar wallet got these `cents`, from `dealer`, who got the sats.
    """

    is_dust: bool
    fee_sat: int
    bank_owner: WalletId | None
    cents: int | None = None
    fee_cents: int | None = None
    dealer: DealerWallets | None = None
    suspense_reason: str = ""
    """Why the wallet did not get it: it went to suspense, and from there to `assigned_to`, None while it waits."""
    assigned_to: WalletId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deposit:
    """One output that pays a wallet: (txid, vout), for one tx may pay one address twice.

    `block` is set in the states confirmed and settled. `inputs` are the outpoints that its tx spends: whoever
    else spends one of them has replaced it. The policy that counts is the one in force when it was first seen.
    `settlements` is how often it was credited (a reorg takes it back), `revision` how often it changed.
    `booking` is set while tellerd's own journal stands; a settled deposit without one was booked by another
    program. `held_reason` says why a deposit that is deep enough is not credited yet.
    """

    txid: Txid
    vout: int
    wallet_id: WalletId
    address: str
    amount_sat: int
    is_coinbase: bool
    inputs: tuple[Outpoint, ...]
    state: DepositState
    policy_version: int
    confirmations_required: int
    detected_at_ms: int
    updated_at_ms: int
    block: BlockRef | None = None
    settlements: int = 0
    revision: int = 0
    booking: DepositBooking | None = None
    held_reason: str = ""
    dropped_reason: str = ""
    replaced_by: Txid | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is deep enough and cannot be credited, and that does not pass by itself."""
        return self.held_reason != "" and self.held_reason not in PASSING_REASONS

    @property
    def outpoint(self) -> Outpoint:
        """`txid:vout`, its name in the store."""
        return outpoint_of(self.txid, self.vout)

    @property
    def settles_at_height(self) -> int | None:
        """The height of the tip from which on it is deep enough; None while it is in no block."""
        return None if self.block is None else self.block.height + self.confirmations_required - 1

    @property
    def credited_to(self) -> WalletId | None:
        """The wallet that is credited with it, or will be; None while it waits in suspense."""
        if self.booking is None or not self.booking.suspense_reason:
            return self.wallet_id
        return self.booking.assigned_to

    def confirmations(self, tip_height: int) -> int:
        """Blocks from its own to the tip, both counted; 0 while it is in no block."""
        return 0 if self.block is None else max(0, tip_height - self.block.height + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReceive:
    """Blink's `walletonchainpendingreceives` document of a deposit that is not settled (blink-contract.md 1).

    `amount_sat` is after the fee. `cents` and `fee_cents` are what they are worth, None without a price;
    `price_base` is the price of a sat in cents, times 10^12. `currency` is the wallet's: its readers are shown the
    amount in that.
    """

    outpoint: Outpoint
    txid: Txid
    vout: int
    wallet_id: WalletId
    address: str
    amount_sat: int
    fee_sat: int
    cents: int | None
    fee_cents: int | None
    price_base: int | None
    created_at_ms: int
    currency: Currency = Currency.BTC
