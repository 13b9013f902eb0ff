"""What a batch with events of the chain needs to know; a batch without them does not come here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from pymongo.client_session import ClientSession
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.barred import barred_wallets
from adapters.mongo.chain_documents import CHAIN_CURSORS, chain_cursor_from, deposit_from
from adapters.mongo.documents import Document, balance_id
from adapters.mongo.known_wallets import KnownWallets
from adapters.mongo.policies import newest_policy
from adapters.mongo.snapshots import not_made_by
from daemon.domain.accounts import DealerWallets, wallet_account
from daemon.domain.books import ChainFacts, Wanted
from daemon.domain.chain import ChainCursor, Deposit
from daemon.domain.identifiers import Outpoint, WalletId
from daemon.domain.money import Currency


def wants_chain(wanted: Wanted) -> bool:
    """Whether anything of the chain is asked for."""
    return bool(wanted.chain or wanted.outpoints or wanted.gone_txids or wanted.disconnected or wanted.wallet_ids)


def read_chain_cursor(db: Database[Document], session: ClientSession | None = None) -> ChainCursor | None:
    """The chain's position; the one written last, should a database have followed two chains."""
    document = db[names.CURSORS].find_one(CHAIN_CURSORS, sort=[("updated_at", -1)], session=session)
    return chain_cursor_from(document) if document else None


class ChainFactsReader:
    """Reads `ChainFacts`. `dealer` tells whose wallets change sats into dollars."""

    def __init__(
        self,
        db: Database[Document],
        writer_id: bytes,
        wallets: KnownWallets,
        dealer: Callable[[], DealerWallets | None],
    ) -> None:
        self._db = db
        self._writer_id = writer_id
        self._wallets = wallets
        self._dealer = dealer
        self._bank_owner: WalletId | None = None

    def read(self, wanted: Wanted) -> ChainFacts:
        """The facts; the caller has read the head before."""
        deposits = self._deposits(wanted)
        wallet_ids = wanted.wallet_ids | {deposit.wallet_id for deposit in deposits.values()}
        wallet_ids |= {one.credited_to for one in deposits.values() if one.credited_to is not None}
        wallets = self._wallets.of(wallet_ids)
        currencies = {wallet_id: one.currency for wallet_id, one in wallets.items()}
        return ChainFacts(
            cursor=read_chain_cursor(self._db),
            policy=newest_policy(self._db),
            bank_owner=self._find_bank_owner(),
            deposits=deposits,
            currencies=currencies,
            booked_elsewhere=self._booked_elsewhere(wanted.outpoints),
            balances=self._balances(wallet_ids if wanted.disconnected else (), currencies),
            dealer=self._dealer() if Currency.USD in currencies.values() else None,
            barred=barred_wallets(self._db, {wallet_id: one.account_id for wallet_id, one in wallets.items()}),
        )

    def _find_bank_owner(self) -> WalletId | None:
        """Found once: Blink, too, caches it for the life of the process, and there is no index on roles."""
        if self._bank_owner is None:
            account = self._db[names.ACCOUNTS].find_one({"role": "bankowner"}, {"defaultWalletId": 1})
            wallet_id = account.get("defaultWalletId") if account else None
            self._bank_owner = WalletId(wallet_id) if wallet_id else None
        return self._bank_owner

    def _deposits(self, wanted: Wanted) -> dict[Outpoint, Deposit]:
        asked: dict[str, Collection[str]] = {
            "_id": wanted.outpoints,
            "txid": wanted.gone_txids,
            "block.hash": wanted.disconnected,
        }
        clauses = [{field: {"$in": list(values)}} for field, values in asked.items() if values]
        if not clauses:
            return {}
        found = self._db[names.DEPOSITS].find({"$or": clauses})
        return {deposit.outpoint: deposit for deposit in map(deposit_from, found)}

    def _booked_elsewhere(self, outpoints: Collection[Outpoint]) -> frozenset[Outpoint]:
        """Old legs of Blink's have no vout: such a leg stands for all outputs of its tx (blink-contract.md 3.4)."""
        if not outpoints:
            return frozenset()
        txids = list({outpoint.partition(":")[0] for outpoint in outpoints})
        query = {"hash": {"$in": txids}, "type": "onchain_receipt", **not_made_by(self._writer_id, "$_journal")}
        booked = {(leg["hash"], leg.get("vout")) for leg in self._db[names.LEGS].find(query, {"hash": 1, "vout": 1})}
        return frozenset(outpoint for outpoint in outpoints if _names_of(outpoint) & booked)

    def _balances(self, wallet_ids: Iterable[WalletId], currencies: Mapping[WalletId, Currency]) -> dict[WalletId, int]:
        by_id = {
            balance_id(wallet_account(wallet_id), currencies.get(wallet_id, Currency.BTC)): wallet_id
            for wallet_id in wallet_ids
        }
        if not by_id:
            return {}
        found = self._db[names.BALANCES].find({"_id": {"$in": list(by_id)}}, {"balance": 1})
        return dict.fromkeys(by_id.values(), 0) | {by_id[row["_id"]]: int(row["balance"]) for row in found}


def _names_of(outpoint: Outpoint) -> set[tuple[str, int | None]]:
    txid, _, vout = outpoint.partition(":")
    return {(txid, int(vout)), (txid, None)}
