"""Wallets: made once per external_id, read one by one or in pages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from daemon.domain.errors import BadInput, NotFound, TellerdError
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet
from daemon.serving import fields, paging
from daemon.serving.api import Api
from daemon.serving.invoice_terms import pricing_of

_TOKEN_KIND = "wallets"  # noqa: S105 (names a list, is no secret)


class AccountBarred(TellerdError):
    """Nothing is credited to the account's wallets: it is locked or closed."""


def create_wallet(api: Api, *, account_id: str, currency: Currency | None, external_id: str) -> Wallet:
    """A wallet and, without account_id, an account. A repeat with the same external_id returns the first.

    Raises BadInput, NotFound (account), AlreadyExists, NotConfigured (a dollar wallet without [prices]), Unavailable.
    """
    if currency is None:
        raise BadInput(field="currency", value="unspecified", remedy="give CURRENCY_BTC or CURRENCY_USD")
    if currency is Currency.USD:
        pricing_of(api)  # nothing could ever be credited to it
    owner = fields.account_id(account_id) if account_id else None
    name = fields.external_id(external_id) if external_id else str(uuid.uuid4())
    return api.wallets.create(account_id=owner, currency=currency, external_id=name)


def get_wallet(api: Api, wallet_id: str) -> Wallet:
    """One wallet. Raises BadInput, NotFound, Unavailable."""
    wallet = api.wallets.get(fields.wallet_id(wallet_id))
    if wallet is None:
        raise NotFound(f"wallet_id: there is no wallet {wallet_id}")
    return wallet


def check_credited(api: Api, wallet: Wallet) -> None:
    """Raises AccountBarred for a wallet that nobody should be asked to pay now, and Unavailable."""
    barred = api.wallets.barred(wallet)
    if barred is not None:
        raise AccountBarred(
            f"wallet_id: the account of wallet {wallet.wallet_id} is {barred.removeprefix('account_')}; "
            "what is paid to it would wait in suspense"
        )


def list_wallets(api: Api, *, page_size: int, page_token: str) -> tuple[Sequence[Wallet], str]:
    """A page of all wallets and the next page's token. Raises BadInput, Unavailable."""
    limit = paging.page_size(page_size)
    after = paging.read_token(_TOKEN_KIND, page_token)
    wallets, next_after = api.wallets.page(account_id=None, after=after, limit=limit)
    return wallets, paging.make_token(_TOKEN_KIND, next_after)
