"""The port `Wallets`: one wallet per external_id, whatever is repeated."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from daemon.domain.errors import AlreadyExists, NotFound
from daemon.domain.identifiers import AccountId, WalletId
from daemon.domain.money import Currency
from daemon.domain.ports import Wallet
from tests.contract.conftest import Database


def test_a_wallet_is_made_with_an_account_of_its_own(store: Database) -> None:
    """Without account_id both are made; the wallet is read back as it was returned."""
    first, second = store.new_wallet("w1"), store.new_wallet("w2")
    assert store.wallets.get(first.wallet_id) == first
    assert first.wallet_id != second.wallet_id
    assert first.account_id != second.account_id


def test_a_repeat_returns_the_first_wallet(store: Database) -> None:
    """The same external_id and arguments make no second wallet."""
    first = store.new_wallet("w1")
    assert store.new_wallet("w1") == first
    wallets, _ = store.wallets.page(account_id=first.account_id, after=None, limit=10)
    assert wallets == [first]


def test_a_repeat_with_other_arguments_is_refused(store: Database) -> None:
    """An external_id stands for one request only."""
    first = store.new_wallet("w1")
    with pytest.raises(AlreadyExists):
        store.wallets.create(account_id=None, currency=Currency.USD, external_id="w1")
    with pytest.raises(AlreadyExists):
        store.wallets.create(account_id=first.account_id, currency=Currency.BTC, external_id="w1")


def test_a_second_wallet_of_an_account(store: Database) -> None:
    """With account_id the wallet belongs to that account."""
    first = store.new_wallet("w1")
    second = store.wallets.create(account_id=first.account_id, currency=Currency.USD, external_id="w2")
    assert (second.account_id, second.currency) == (first.account_id, Currency.USD)
    assert store.wallets.page(account_id=first.account_id, after=None, limit=10) == ([first, second], None)


def test_an_unknown_account_is_not_found_and_leaves_nothing(store: Database) -> None:
    """No wallet is made for an account that does not exist, and the external_id stays free."""
    with pytest.raises(NotFound):
        store.wallets.create(account_id=AccountId("nobody"), currency=Currency.BTC, external_id="w1")
    assert store.new_wallet("w1").currency is Currency.BTC


def test_an_unknown_wallet_is_none(store: Database) -> None:
    """There is no error for it."""
    assert store.wallets.get(WalletId("nothing")) is None


def test_pages_follow_the_order_of_creation(store: Database) -> None:
    """Every wallet stands on exactly one page; the last page has no token."""
    owner = store.new_wallet("w0")
    made = [owner] + [
        store.wallets.create(account_id=owner.account_id, currency=Currency.BTC, external_id=f"w{n}")
        for n in range(1, 5)
    ]
    seen: list[Wallet] = []
    token = None
    for expected in (2, 2, 1):
        page, token = store.wallets.page(account_id=owner.account_id, after=token, limit=2)
        assert len(page) == expected
        seen += page
    assert (seen, token) == (made, None)
    everybody, _ = store.wallets.page(account_id=None, after=None, limit=100)
    assert [wallet for wallet in everybody if wallet in made] == made


def test_callers_at_once_with_one_external_id_get_one_wallet(store: Database) -> None:
    """A race makes one wallet, and all callers get it."""
    with ThreadPoolExecutor(4) as threads:
        wallets = list(threads.map(store.new_wallet, ["same"] * 4))
    assert len({wallet.wallet_id for wallet in wallets}) == 1
