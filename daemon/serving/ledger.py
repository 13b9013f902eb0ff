"""The books as the API shows them: balances, a wallet's journals, the trial balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from daemon.domain.accounts import wallet_account
from daemon.domain.ports import AccountEntry, TrialBalancePage, Wallet
from daemon.serving import paging
from daemon.serving.api import Api
from daemon.serving.wallets import get_wallet

_ENTRIES_TOKEN = "entries"  # noqa: S105 (names a list, is no secret)
_ACCOUNTS_TOKEN = "accounts"  # noqa: S105 (the same)


class SettlementMethod(StrEnum):
    """How money came or went."""

    UNKNOWN = "unknown"
    LIGHTNING = "lightning"
    ON_CHAIN = "on_chain"
    INTRA_LEDGER = "intra_ledger"
    INTERNAL = "internal"


_METHOD_OF_TYPE = {
    "invoice": SettlementMethod.LIGHTNING,
    "payment": SettlementMethod.LIGHTNING,
    "fee_reimbursement": SettlementMethod.LIGHTNING,
    "onchain_receipt": SettlementMethod.ON_CHAIN,
    "onchain_payment": SettlementMethod.ON_CHAIN,
    "on_us": SettlementMethod.INTRA_LEDGER,
    "ln_on_us": SettlementMethod.INTRA_LEDGER,
    "onchain_on_us": SettlementMethod.INTRA_LEDGER,
    "self_trade": SettlementMethod.INTRA_LEDGER,
    "ln_self_trade": SettlementMethod.INTRA_LEDGER,
    "onchain_self_trade": SettlementMethod.INTRA_LEDGER,
    "reconciliation": SettlementMethod.INTERNAL,
}
"""The ledger's `type` of a leg (blink-contract.md 2.3), as far as a wallet can have one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletBalance:
    """What a wallet holds, at least as new as `sequence`, in its currency's minor unit."""

    wallet: Wallet
    balance: int
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletEntry:
    """A journal as a wallet's owner sees it. `fee` is 0 or more, in the wallet's minor unit.

    `payment_hash` is set for Lightning, `txid` and `vout` for the chain, where the journal has them.
    """

    entry: AccountEntry
    method: SettlementMethod
    fee: int
    external_id: str
    payment_hash: str | None = None
    txid: str | None = None
    vout: int | None = None


def get_balance(api: Api, wallet_id: str) -> WalletBalance:
    """What a wallet holds. Raises BadInput, NotFound, Unavailable."""
    wallet = get_wallet(api, wallet_id)
    balance, sequence = api.ledger.balance((wallet_account(wallet.wallet_id), wallet.currency.value))
    return WalletBalance(wallet=wallet, balance=balance, sequence=sequence)


def list_wallet_entries(
    api: Api, *, wallet_id: str, page_size: int, page_token: str
) -> tuple[Sequence[WalletEntry], str]:
    """A page of what has moved a wallet's balance, newest first, and the next page's token."""
    limit = paging.page_size(page_size)
    before = paging.read_number_token(_ENTRIES_TOKEN, page_token)
    account = wallet_account(get_wallet(api, wallet_id).wallet_id)
    entries = api.ledger.entries(account=account, before=before, limit=limit + 1)
    position = str(entries[limit - 1].position) if len(entries) > limit else None
    return [view_entry(entry) for entry in entries[:limit]], paging.make_token(_ENTRIES_TOKEN, position)


def trial_balance(api: Api, *, page_size: int, page_token: str) -> tuple[TrialBalancePage, str]:
    """A page of all accounts and the next page's token. Raises BadInput, Unavailable."""
    limit = paging.page_size(page_size)
    after = paging.read_token(_ACCOUNTS_TOKEN, page_token)
    page = api.ledger.trial_balance(after=after, limit=limit)
    return page, paging.make_token(_ACCOUNTS_TOKEN, page.next_token)


def view_entry(entry: AccountEntry) -> WalletEntry:
    """What the metadata of the wallet's leg says; other programs' journals may say little."""
    details = entry.details
    method = _METHOD_OF_TYPE.get(_text(details, "type"), SettlementMethod.UNKNOWN)
    hash_ = _text(details, "hash") or None
    vout = details.get("vout")
    on_chain = method is SettlementMethod.ON_CHAIN and hash_ is not None and isinstance(vout, int)
    return WalletEntry(
        entry=entry,
        method=method,
        fee=_amount(details, "satsFee" if entry.currency == "BTC" else "centsFee"),
        external_id=_text(details, "external_id"),
        payment_hash=hash_ if method is SettlementMethod.LIGHTNING else None,
        txid=hash_ if on_chain else None,
        vout=vout if on_chain else None,
    )


def _text(details: Mapping[str, Any], name: str) -> str:
    value = details.get(name)
    return value if isinstance(value, str) else ""


def _amount(details: Mapping[str, Any], name: str) -> int:
    """Other programs' drivers may have written a whole number as a double."""
    value = details.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0
