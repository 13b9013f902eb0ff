"""What moves an LND's money apart from invoices: forwards, payments, its wallet on the chain, channels that close."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daemon.domain.identifiers import Outpoint, PaymentHash, Txid


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A payment of others that went through the node. `at_ns` is Unix time and names it: it grows from one to the
    next. `incoming_htlc` is (short channel id, index), None of an LND before v0.20."""

    at_ns: int
    fee_msat: int
    received_msat: int
    incoming_htlc: tuple[int, int] | None


class PaymentState(StrEnum):
    """LND's states of a payment; one that was begun and has sent nothing yet is in flight."""

    IN_FLIGHT = "in_flight"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPayment:
    """A payment that the node was told to send. `index` grows from one to the next; `sent_msat` has the fee in it."""

    index: int
    payment_hash: PaymentHash
    state: PaymentState
    sent_msat: int
    began_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletTx:
    """A tx that an LND's wallet on the chain knows: `amount_sat` is what the wallet got less what it spent.


    `spent_sat` is what it spent of the wallet's, `outputs_sat` what all its outputs hold. `fee_sat` is the whole miner
    fee where all inputs are the wallet's, else 0. `height` is 0 while unconfirmed. `spends` are the outpoints that were
    not the wallet's, as those of channels.
    Txs that close a channel are there, too, with an amount of 0 where they pay the wallet nothing; LND calls those
    unconfirmed for ever (seen on v0.21.3-beta with a commitment tx of its own).
    """

    txid: Txid
    amount_sat: int
    spent_sat: int
    outputs_sat: int
    fee_sat: int
    height: int
    spends: tuple[Outpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnChannel:
    """A channel that is open or about to open: then its `height` is 0. `pushed_sat` went to the other side with the
    opening."""

    channel_point: Outpoint
    capacity_sat: int
    opened_by_us: bool
    pushed_sat: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosingChannel:
    """A channel that closes, and is not fully resolved. `held_sat` is what it held for us when it was open, with the
    commitment fee and the anchors where we opened it; `to_come_sat` what has not reached the wallet yet."""

    channel_point: Outpoint
    closing_txid: Txid | None
    held_sat: int
    to_come_sat: int
    capacity_sat: int
    opened_by_us: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedChannel:
    """A channel of which nothing is outstanding any more.

    `settled_sat` is our output of a cooperative close, else what the commitment tx had for us. `htlcs_sat` is what
    HTLCs brought on the chain less what they took there: those are payments, not costs of the close. `breach`: the
    other side had tried to cheat.
    """

    channel_point: Outpoint
    closing_txid: Txid
    capacity_sat: int
    opened_by_us: bool
    settled_sat: int
    htlcs_sat: int
    close_height: int
    breach: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MovementMarks:
    """From where on a node's movements are not in the books yet; part of its cursor.

    `forwards_ns`: the newest forward that is booked. `payments_index`: payments up to it are done with, but for those
    of `payments_open` (index, hash), which were in flight. `height`: txs of the wallet up to it are done with.
    `known_txids`: txs that were not confirmed when the node was opened, and are in its opening balance. `closing`:
    what each channel that closes held (sats by channel point): what does not come back of it is the cost.
    """

    forwards_ns: int
    payments_index: int
    height: int
    payments_open: tuple[tuple[int, PaymentHash], ...] = ()
    known_txids: frozenset[Txid] = frozenset()
    closing: Mapping[Outpoint, int] = field(default_factory=dict)
