"""Wallets: made once per external_id, read one by one or in pages."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from daemon.domain.errors import BadInput, NotFound, NotSupported
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet
from daemon.serving import fields, paging
from daemon.serving.api import Api

_TOKEN_KIND = "wallets"  # noqa: S105 (names a list, is no secret)


def create_wallet(api: Api, *, account_id: str, currency: Currency | None, external_id: str) -> Wallet:
    """A wallet and, without account_id, an account. A repeat with the same external_id returns the first.

    Raises BadInput, NotFound (account), AlreadyExists, NotSupported (dollar wallets), Unavailable.
    """
    if currency is None:
        raise BadInput(field="currency", value="unspecified", remedy="give CURRENCY_BTC")
    if currency is not Currency.BTC:
        raise NotSupported("currency: dollar wallets come in a later release; give CURRENCY_BTC")
    owner = fields.account_id(account_id) if account_id else None
    name = fields.external_id(external_id) if external_id else str(uuid.uuid4())
    return api.wallets.create(account_id=owner, currency=currency, external_id=name)


def get_wallet(api: Api, wallet_id: str) -> Wallet:
    """One wallet. Raises BadInput, NotFound, Unavailable."""
    wallet = api.wallets.get(fields.wallet_id(wallet_id))
    if wallet is None:
        raise NotFound(f"wallet_id: there is no wallet {wallet_id}")
    return wallet


def list_wallets(api: Api, *, page_size: int, page_token: str) -> tuple[Sequence[Wallet], str]:
    """A page of all wallets and the next page's token. Raises BadInput, Unavailable."""
    limit = paging.page_size(page_size)
    after = paging.read_token(_TOKEN_KIND, page_token)
    wallets, next_after = api.wallets.page(account_id=None, after=after, limit=limit)
    return wallets, paging.make_token(_TOKEN_KIND, next_after)
