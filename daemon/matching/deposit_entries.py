"""The journal entries and events of deposits: legs and metadata as blink-contract.md 2.5, on-chain receive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.domain import outbox
from daemon.domain.accounts import DUST, ON_CHAIN, wallet_account
from daemon.domain.chain import Deposit, DepositBooking, PendingReceive
from daemon.domain.deposit_terms import DepositTerms
from daemon.domain.entries import Detail, JournalEntry, Leg
from daemon.domain.identifiers import WalletId, deposit_key, reversal_key, revision_key
from daemon.domain.money import Currency, Price
from daemon.domain.outbox import OutboxEvent
from daemon.matching.plan import Step

_BTC = Currency.BTC.value


def booking_of(
    deposit: Deposit, terms: DepositTerms, bank_owner: WalletId | None, price: Price | None
) -> DepositBooking:
    """What crediting this deposit does: dust whole to the dust account, else the fee to the bank owner's wallet."""
    if terms.is_dust(deposit.amount_sat):
        return DepositBooking(is_dust=True, fee_sat=0, bank_owner=None)
    fee_sat = terms.fee_sat(deposit.amount_sat)
    cents, fee_cents = _cents(deposit.amount_sat, fee_sat, price)
    return DepositBooking(
        is_dust=False, fee_sat=fee_sat, bank_owner=bank_owner if fee_sat else None, cents=cents, fee_cents=fee_cents
    )


def _cents(amount_sat: int, fee_sat: int, price: Price | None) -> tuple[int | None, int | None]:
    """What the credited sats and the fee are worth; the fee is rounded up (blink-contract.md 2.6)."""
    if price is None:
        return None, None
    total_cents = price.cents(amount_sat=amount_sat)
    fee_cents = -(-fee_sat * total_cents // amount_sat)
    return total_cents - fee_cents, fee_cents


def _legs(deposit: Deposit, booking: DepositBooking) -> tuple[Leg, ...]:
    """Bank owner first, as Blink writes them; legs of zero are left out."""
    total = Leg(account=ON_CHAIN, currency=_BTC, debit=deposit.amount_sat)
    if booking.is_dust:
        return (total, Leg(account=DUST, currency=_BTC, credit=deposit.amount_sat))
    credited = Leg(
        account=wallet_account(deposit.wallet_id), currency=_BTC, credit=deposit.amount_sat - booking.fee_sat
    )
    if booking.bank_owner is None:
        return (total, credited)
    return (Leg(account=wallet_account(booking.bank_owner), currency=_BTC, credit=booking.fee_sat), total, credited)


def _details(deposit: Deposit, booking: DepositBooking) -> dict[str, Detail]:
    """Metadata of every leg; without a price the dollar fields are absent."""
    details: dict[str, Detail] = {
        # Blink counts a leg {hash, vout, type "onchain_receipt"} as credited to a wallet, which dust is not.
        "type": "reconciliation" if booking.is_dust else "onchain_receipt",
        "pending": False,
        "hash": deposit.txid,
        "vout": deposit.vout,
        "payee_addresses": (deposit.address,),
        "request_id": None,
        "external_id": None,
        "satsAmount": deposit.amount_sat - booking.fee_sat,
        "satsFee": booking.fee_sat,
    }
    if booking.cents is not None and booking.fee_cents is not None:
        details |= {"centsAmount": booking.cents, "centsFee": booking.fee_cents}
        details |= {"displayAmount": booking.cents, "displayFee": booking.fee_cents}
        details |= {"displayCurrency": Currency.USD.value}
    return details


def settlement_step(deposit: Deposit, booking: DepositBooking, at_ms: int) -> Step:
    """The credit of a deposit for the time that it counts as `deposit.settlements`."""
    key = deposit_key(deposit.outpoint, deposit.settlements)
    entry = JournalEntry(
        key=key, memo="", datetime_ms=at_ms, legs=_legs(deposit, booking), details=_details(deposit, booking)
    )
    return Step(key, entry, (_event(outbox.DEPOSIT_SETTLED, key, deposit, at_ms, _booked(deposit, booking)),))


def reversal_step(deposit: Deposit, booking: DepositBooking, at_ms: int) -> Step:
    """The journal that undoes the credit of a deposit whose block is no longer in the chain."""
    key = reversal_key(deposit_key(deposit.outpoint, deposit.settlements))
    legs = tuple(replace(leg, debit=leg.credit, credit=leg.debit) for leg in _legs(deposit, booking))
    entry = JournalEntry(
        key=key,
        memo="the block of this deposit is no longer in the chain",
        datetime_ms=at_ms,
        legs=legs,
        details=_details(deposit, booking),
    )
    return Step(key, entry, (_event(outbox.DEPOSIT_REVERSED, key, deposit, at_ms, _booked(deposit, booking)),))


def _booked(deposit: Deposit, booking: DepositBooking) -> dict[str, Any]:
    credited_sat = 0 if booking.is_dust else deposit.amount_sat - booking.fee_sat
    return {
        "fee_sat": booking.fee_sat,
        "credited_sat": credited_sat,
        "is_dust": booking.is_dust,
        "settlement": deposit.settlements,
        **_block(deposit),
    }


def _block(deposit: Deposit) -> dict[str, Any]:
    return {"block_height": deposit.block.height, "block_hash": deposit.block.hash} if deposit.block else {}


def detected_event(deposit: Deposit, *, again: bool) -> OutboxEvent:
    """deposit.detected: it is in the mempool, or in a block from now on; `again` after it was gone or in a lost one."""
    details = {"confirmations_required": deposit.confirmations_required, "again": again}
    return _changed(outbox.DEPOSIT_DETECTED, deposit, details)


def confirmed_event(deposit: Deposit) -> OutboxEvent:
    """deposit.confirmed: it came into a block."""
    details = {"confirmations_required": deposit.confirmations_required, **_block(deposit)}
    return _changed(outbox.DEPOSIT_CONFIRMED, deposit, details)


def dropped_event(deposit: Deposit) -> OutboxEvent:
    """deposit.dropped: its tx is neither in the chain nor in the mempool."""
    details = {"reason": deposit.dropped_reason, "replaced_by": deposit.replaced_by or ""}
    return _changed(outbox.DEPOSIT_DROPPED, deposit, details)


def revision_step(deposit: Deposit, *events: OutboxEvent) -> Step:
    """A change of a deposit that books nothing."""
    return Step(revision_key(deposit.outpoint, deposit.revision), None, events)


def overdrawn_event(deposit: Deposit, key: str, balance_sat: int, at_ms: int) -> OutboxEvent:
    """wallet.overdrawn: a reversal took back money that was spent already."""
    return OutboxEvent(
        type=outbox.WALLET_OVERDRAWN,
        key=key,
        occurred_at_ms=at_ms,
        wallet_ids=(deposit.wallet_id,),
        payload={
            "wallet_id": deposit.wallet_id,
            "balance_sat": balance_sat,
            "txid": deposit.txid,
            "vout": deposit.vout,
        },
    )


def _changed(event_type: str, deposit: Deposit, details: dict[str, Any]) -> OutboxEvent:
    key = revision_key(deposit.outpoint, deposit.revision)
    return _event(event_type, key, deposit, deposit.updated_at_ms, details)


def _event(event_type: str, key: str, deposit: Deposit, at_ms: int, details: dict[str, Any]) -> OutboxEvent:
    payload = {
        "txid": deposit.txid,
        "vout": deposit.vout,
        "wallet_id": deposit.wallet_id,
        "address": deposit.address,
        "amount_sat": deposit.amount_sat,
        "state": deposit.state.value,
        **details,
    }
    return OutboxEvent(type=event_type, key=key, occurred_at_ms=at_ms, wallet_ids=(deposit.wallet_id,), payload=payload)


def pending_receive(deposit: Deposit, terms: DepositTerms, price: Price | None) -> PendingReceive | None:
    """What Blink's readers see while a deposit is not settled; None for dust, which reaches no wallet."""
    if terms.is_dust(deposit.amount_sat):
        return None
    fee_sat = terms.fee_sat(deposit.amount_sat)
    cents, fee_cents = _cents(deposit.amount_sat, fee_sat, price)
    return PendingReceive(
        outpoint=deposit.outpoint,
        txid=deposit.txid,
        vout=deposit.vout,
        wallet_id=deposit.wallet_id,
        address=deposit.address,
        amount_sat=deposit.amount_sat - fee_sat,
        fee_sat=fee_sat,
        cents=cents,
        fee_cents=fee_cents,
        price_base=None if price is None else price.picocents_per_sat,
        created_at_ms=deposit.detected_at_ms,
    )
