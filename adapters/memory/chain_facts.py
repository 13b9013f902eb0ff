"""`ChainFacts` in memory."""

from __future__ import annotations

from collections.abc import Callable

from adapters.memory.state import Tables
from daemon.domain.accounts import wallet_account
from daemon.domain.books import ChainFacts, Wanted
from daemon.domain.chain import Deposit
from daemon.domain.identifiers import JournalId, Outpoint
from daemon.domain.money import Currency


def wants_chain(wanted: Wanted) -> bool:
    """Whether anything of the chain is asked for."""
    return bool(wanted.chain or wanted.outpoints or wanted.gone_txids or wanted.disconnected or wanted.wallet_ids)


def chain_facts(tables: Tables, wanted: Wanted, *, is_ours: Callable[[JournalId], bool]) -> ChainFacts:
    """See `daemon.domain.books`; the caller holds the lock."""

    def is_disconnected(deposit: Deposit) -> bool:
        return deposit.block is not None and deposit.block.hash in wanted.disconnected

    def is_booked_elsewhere(outpoint: Outpoint) -> bool:
        txid, _, vout = outpoint.partition(":")
        legs = (tables.legs[leg_id] for leg_id in tables.legs_by_hash.get(txid, ()))
        return any(
            leg.details.get("type") == "onchain_receipt"
            and leg.details.get("vout") in (None, int(vout))
            and not is_ours(leg.journal_id)
            for leg in legs
        )

    deposits = {
        outpoint: deposit
        for outpoint, deposit in tables.deposits.items()
        if outpoint in wanted.outpoints or deposit.txid in wanted.gone_txids or is_disconnected(deposit)
    }
    wallet_ids = wanted.wallet_ids | {deposit.wallet_id for deposit in deposits.values()}
    wallet_ids |= {one.credited_to for one in deposits.values() if one.credited_to is not None}
    currencies = {
        wallet_id: tables.wallets[wallet_id].wallet.currency for wallet_id in wallet_ids if wallet_id in tables.wallets
    }
    return ChainFacts(
        cursor=tables.chain_cursor,
        policy=tables.policies[-1].after if tables.policies else None,
        bank_owner=tables.bank_owner,
        deposits=deposits,
        currencies=currencies,
        booked_elsewhere=frozenset(filter(is_booked_elsewhere, wanted.outpoints)),
        balances={
            wallet_id: tables.balances.get((wallet_account(wallet_id), currencies.get(wallet_id, Currency.BTC)), 0)
            for wallet_id in (wallet_ids if wanted.disconnected else ())
        },
        dealer=tables.dealer if Currency.USD in currencies.values() else None,
        barred={
            wallet_id: barred
            for wallet_id in currencies
            if (barred := tables.barred.get(tables.wallets[wallet_id].wallet.account_id)) is not None
        },
    )
