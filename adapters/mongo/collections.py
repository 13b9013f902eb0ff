"""Names and indexes of all collections that tellerd touches (blink-contract.md 1, 2; design.md section 3)."""

from __future__ import annotations

from typing import Any, Final

from pymongo import ASCENDING, DESCENDING, IndexModel

INVOICES: Final = "invoiceusers"
WALLETS: Final = "wallets"
ACCOUNTS: Final = "accounts"
LEGS: Final = "medici_transactions"
JOURNALS: Final = "medici_journals"
LEG_METADATA: Final = "medici_transaction_metadatas"
SNAPSHOTS: Final = "medici_balances"
PENDING_RECEIVES: Final = "walletonchainpendingreceives"

HEAD: Final = "teller_head"
LEASE: Final = "teller_lease"
CURSORS: Final = "teller_cursors"
KEYS: Final = "teller_keys"
BALANCES: Final = "teller_balances"
OUTBOX: Final = "teller_outbox"
LINKS: Final = "teller_links"
SUSPENSE: Final = "teller_suspense"
GAPS: Final = "teller_gaps"
SCHEMA: Final = "teller_schema"
DEPOSITS: Final = "teller_deposits"
COINS: Final = "teller_coins"
SCRIPTS: Final = "teller_scripts"
POLICIES: Final = "teller_policies"
DERIVATIONS: Final = "teller_derivations"
API_KEYS: Final = "teller_api_keys"
AUDIT: Final = "teller_audit"
QUOTES: Final = "teller_quotes"

SCHEMA_VERSION: Final = 3
"""Version 2 has the collections of deposits and addresses, version 3 the audit log and what reconciliation keeps."""

_Keys = list[tuple[str, int]]

SETTLED_SUMS: Final[_Keys] = [("state", ASCENDING), ("amount_sat", ASCENDING), ("booking.is_dust", ASCENDING)]
SPENT_SUMS: Final[_Keys] = [("spender", ASCENDING), ("amount_sat", ASCENDING)]
"""Indexes that hold all that is added up at every look of the reconciliation."""


def _index(*keys: str, **options: Any) -> IndexModel:
    fields: _Keys = [(key.lstrip("-"), DESCENDING if key.startswith("-") else ASCENDING) for key in keys]
    return IndexModel(fields, **options)


INDEXES: Final[dict[str, list[IndexModel]]] = {
    INVOICES: [
        _index("walletId", "paid"),
        _index("paid", "processingCompleted"),
        _index("accountId", "externalId", unique=True),
        # Ours: pages of a wallet's invoices, and the sweep of a node's open ones.
        _index("walletId", "-timestamp", "-_id"),
        _index("pubkey", "_id", partialFilterExpression={"paid": False, "processingCompleted": False}),
        _index("pubkey", "-timestamp", partialFilterExpression={"paid": False, "processingCompleted": False}),
    ],
    WALLETS: [_index("id", unique=True), _index("accountId")],
    ACCOUNTS: [_index("id", unique=True)],
    LEGS: [
        _index("accounts", "book", "-datetime", "-timestamp", "-_id"),
        _index("accounts", "type", "-timestamp"),
        _index("type", "pending", "account_path"),
        _index("account_path"),
        _index("hash"),
        _index("payout_id"),
        _index("_original_journal"),
        _index("related_journal"),
        _index("external_id"),
        _index("book", "account_path.0", "account_path.1", "-_id"),
        _index("book", "accounts", "currency", "_id"),
        _index("book", "account_path.0", "account_path.1", "account_path.2", "currency", "_id"),
        _index("_journal"),
        _index("book", "accounts", "-datetime"),
        _index("book", "account_path.0", "account_path.1", "account_path.2", "-datetime"),
    ],
    JOURNALS: [],
    LEG_METADATA: [_index("hash")],
    SNAPSHOTS: [_index("key"), _index("expireAt", expireAfterSeconds=0), _index("createdAt")],
    HEAD: [],
    LEASE: [],
    CURSORS: [_index("name")],
    KEYS: [],
    BALANCES: [],
    OUTBOX: [],
    LINKS: [
        _index("n", unique=True),
        _index("effects.account", "-n"),
        _index("foreign", "-_id", partialFilterExpression={"foreign": True}),
    ],
    SUSPENSE: [_index("assigned_to", "-received_at", "-_id"), _index("-received_at", "-_id")],
    GAPS: [
        _index("-seen_at", "-_id"),
        _index("state", "-seen_at", "-_id"),
        _index("kind", "state", "-seen_at", "-_id"),
    ],
    SCHEMA: [],
    PENDING_RECEIVES: [_index("walletId", "-createdAt"), _index("transactionHash", "vout", unique=True)],
    DEPOSITS: [
        _index("state", "-detected_at", "-_id"),
        _index("wallet_id", "state", "-detected_at", "-_id"),
        _index("state", "_id", partialFilterExpression={"state": "detected"}),
        _index("settles_at", "_id", partialFilterExpression={"state": "confirmed", "held": False}),
        _index("txid"),
        _index("block.hash", sparse=True),
        _index("address"),
        IndexModel(SETTLED_SUMS, partialFilterExpression={"state": "settled"}),
    ],
    COINS: [IndexModel(SPENT_SUMS), _index("height"), _index("spender", "_id")],
    SCRIPTS: [
        _index("wallet_id", "key_id", "-index", partialFilterExpression={"key_id": {"$exists": True}}),
        # A second script without a number is refused, too: it could not be found.
        _index("n", unique=True),
        _index("unscanned", "_id", partialFilterExpression={"unscanned": True}),
    ],
    POLICIES: [],
    DERIVATIONS: [],
    API_KEYS: [_index("-created_at", "-_id")],
    AUDIT: [],
    QUOTES: [],
}
"""Blink's own indexes as blink-contract.md lists them: on a database of Blink's they are there already."""
