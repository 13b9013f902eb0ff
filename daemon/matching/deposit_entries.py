"""The journal entries and events of deposits: legs and metadata as blink-contract.md 2.5, on-chain receive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from daemon.domain import outbox
from daemon.domain.accounts import DUST, ON_CHAIN, SUSPENSE, DealerWallets, wallet_account
from daemon.domain.books import SuspenseEntry
from daemon.domain.chain import Deposit, DepositBooking, PendingReceive
from daemon.domain.deposit_terms import DepositTerms
from daemon.domain.entries import Detail, JournalEntry, Leg
from daemon.domain.identifiers import WalletId, deposit_key, reversal_key, revision_key
from daemon.domain.money import Currency, Price, fee_in_cents
from daemon.domain.outbox import OutboxEvent
from daemon.domain.quotes import Deal
from daemon.matching import receipts
from daemon.matching.plan import Step

_BTC, _USD = Currency.BTC.value, Currency.USD.value


def booking_of(
    deposit: Deposit,
    terms: DepositTerms,
    bank_owner: WalletId | None,
    price: Price | None,
    exchange: tuple[DealerWallets, Deal] | None = None,
) -> DepositBooking:
    """What crediting this deposit does: dust whole to the dust account, else the fee to the bank owner's wallet.

    `exchange` is for a dollar wallet: whose wallets change the sats, and what he gives for all of them.
    """
    if terms.is_dust(deposit.amount_sat):
        return DepositBooking(is_dust=True, fee_sat=0, bank_owner=None)
    fee_sat = terms.fee_sat(deposit.amount_sat)
    if exchange is None:
        cents, fee_cents = _cents(deposit.amount_sat, fee_sat, price)
    else:
        cents, fee_cents = _shared(deposit.amount_sat, fee_sat, exchange[1].amount_cents)
    return DepositBooking(
        is_dust=False,
        fee_sat=fee_sat,
        bank_owner=bank_owner if fee_sat else None,
        cents=cents,
        fee_cents=fee_cents,
        dealer=None if exchange is None else exchange[0],
    )


def _cents(amount_sat: int, fee_sat: int, price: Price | None) -> tuple[int | None, int | None]:
    """What the credited sats and the fee are worth; the fee is rounded up (blink-contract.md 2.6)."""
    if price is None:
        return None, None
    return _shared(amount_sat, fee_sat, price.cents(amount_sat=amount_sat))


def _shared(amount_sat: int, fee_sat: int, total_cents: int) -> tuple[int, int]:
    fee_cents = fee_in_cents(fee_sat=fee_sat, total_sat=amount_sat, total_cents=total_cents)
    return total_cents - fee_cents, fee_cents


def _legs(deposit: Deposit, booking: DepositBooking) -> tuple[Leg, ...]:
    """Bank owner first, as Blink writes them; legs of zero are left out."""
    total = Leg(account=ON_CHAIN, currency=_BTC, debit=deposit.amount_sat)
    if booking.is_dust:
        return (total, Leg(account=DUST, currency=_BTC, credit=deposit.amount_sat))
    rest = _credited(deposit, booking)
    if booking.bank_owner is None:
        return (total, *rest)
    return (Leg(account=wallet_account(booking.bank_owner), currency=_BTC, credit=booking.fee_sat), total, *rest)


def _credited(deposit: Deposit, booking: DepositBooking) -> tuple[Leg, ...]:
    """What is left after the fee: the wallet's, or the dealer's who gives the wallet cents for it."""
    credited_sat = deposit.amount_sat - booking.fee_sat
    wallet = _target(deposit, booking)
    if booking.dealer is None:
        return (Leg(account=wallet, currency=_BTC, credit=credited_sat),)
    btc, usd = wallet_account(booking.dealer.btc), wallet_account(booking.dealer.usd)
    to_dealer = Leg(account=btc, currency=_BTC, credit=credited_sat)
    if not booking.cents:
        return (to_dealer,)
    given = Leg(account=usd, currency=_USD, debit=booking.cents)
    return (given, to_dealer, Leg(account=wallet, currency=_USD, credit=booking.cents))


def _target(deposit: Deposit, booking: DepositBooking) -> str:
    """The account that has it: the wallet's, or suspense until somebody says whose it is."""
    if not booking.suspense_reason:
        return wallet_account(deposit.wallet_id)
    return SUSPENSE if booking.assigned_to is None else wallet_account(booking.assigned_to)


def _details(deposit: Deposit, booking: DepositBooking) -> dict[str, Detail]:
    """Metadata of every leg; without a price the dollar fields are absent."""
    is_nobodys = booking.is_dust or _target(deposit, booking) == SUSPENSE
    details: dict[str, Detail] = {
        # Blink counts a leg {hash, vout, type "onchain_receipt"} as credited to a wallet.
        "type": "reconciliation" if is_nobodys else "onchain_receipt",
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
    return Step(key, entry, (settled_event(key, deposit, booking, at_ms),))


def settled_event(key: str, deposit: Deposit, booking: DepositBooking, at_ms: int) -> OutboxEvent:
    """deposit.settled: the wallet has it, or it is dust."""
    return _event(outbox.DEPOSIT_SETTLED, key, deposit, at_ms, _booked(deposit, booking))


def suspense_step(deposit: Deposit, booking: DepositBooking, waiting: SuspenseEntry, at_ms: int) -> Step:
    """A deposit whose wallet must not have it: booked as to the wallet, the fee included, but to suspense."""
    step = settlement_step(deposit, booking, at_ms)
    return replace(step, events=(receipts.suspense_event(waiting),))


def assignment_entry(key: str, deposit: Deposit, booking: DepositBooking, at_ms: int) -> JournalEntry:
    """A deposit that waited in suspense becomes a wallet's: `booking` is how it stands after that."""
    credited_sat = deposit.amount_sat - booking.fee_sat
    source = Leg(account=SUSPENSE, currency=_BTC, debit=credited_sat)
    return JournalEntry(
        key=key,
        memo="",
        datetime_ms=at_ms,
        legs=(source, *_credited(deposit, booking)),
        details=_details(deposit, booking),
    )


def reversal_step(
    deposit: Deposit, booking: DepositBooking, at_ms: int, taken_back: SuspenseEntry | None = None
) -> Step:
    """The journal that undoes the credit of a deposit whose block is no longer in the chain. `taken_back` is its entry
    in suspense, if it has one; its wallet hears of the reversal only if it had the money."""
    key = reversal_key(deposit_key(deposit.outpoint, deposit.settlements))
    legs = tuple(replace(leg, debit=leg.credit, credit=leg.debit) for leg in _legs(deposit, booking))
    entry = JournalEntry(
        key=key,
        memo="the block of this deposit is no longer in the chain",
        datetime_ms=at_ms,
        legs=legs,
        details=_details(deposit, booking),
    )
    events: tuple[OutboxEvent, ...] = ()
    if taken_back is not None:
        events += (receipts.reversed_event(key, taken_back, at_ms),)
    if taken_back is None or booking.assigned_to is not None:
        owner = replace(deposit, wallet_id=booking.assigned_to or deposit.wallet_id)
        events += (_event(outbox.DEPOSIT_REVERSED, key, owner, at_ms, _booked(deposit, booking)),)
    return Step(key, entry, events)


def _booked(deposit: Deposit, booking: DepositBooking) -> dict[str, Any]:
    credited_sat = 0 if booking.is_dust else deposit.amount_sat - booking.fee_sat
    in_cents = {} if booking.dealer is None else {"credited_cents": booking.cents, "fee_cents": booking.fee_cents}
    return {
        **in_cents,
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


def overdrawn_event(deposit: Deposit, key: str, balance: int, currency: Currency, at_ms: int) -> OutboxEvent:
    """wallet.overdrawn: a reversal took back money that was spent already."""
    return OutboxEvent(
        type=outbox.WALLET_OVERDRAWN,
        key=key,
        occurred_at_ms=at_ms,
        wallet_ids=(deposit.wallet_id,),
        payload={
            "wallet_id": deposit.wallet_id,
            "balance_sat" if currency is Currency.BTC else "balance_cents": balance,
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


def pending_receive(
    deposit: Deposit, terms: DepositTerms, price: Price | None, currency: Currency = Currency.BTC
) -> PendingReceive | None:
    """What Blink's readers see while a deposit is not settled; None for dust, which reaches no wallet, and where a
    dollar wallet's cents cannot be told without a price."""
    if terms.is_dust(deposit.amount_sat) or (currency is Currency.USD and price is None):
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
        currency=currency,
    )
