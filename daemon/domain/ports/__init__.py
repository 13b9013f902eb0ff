"""What tellerd needs of the outside world; `adapters` implements it, `adapters.memory` fakes it.

All calls block and are made from worker threads, unless they are marked async. Every call has a
deadline of its own. `Unavailable` is the only error that stands for an outage.
"""

from __future__ import annotations

from daemon.domain.ports.api_keys import ApiKeys
from daemon.domain.ports.audit import Audit, AuditedJournal, AuditedLink
from daemon.domain.ports.audit_log import AuditLog
from daemon.domain.ports.chain import (
    AddressSource,
    ChainHint,
    ChainInfo,
    ChainNode,
    DerivedAddress,
    ForeignAddresses,
    HeaderInfo,
    HintsLost,
    MempoolSnapshot,
    RawTx,
    Scripts,
    TipChanged,
    TxAdded,
    TxRemoved,
    WatchedScript,
)
from daemon.domain.ports.coins import Coins
from daemon.domain.ports.deposits import Addresses, Deposits, Policies
from daemon.domain.ports.figures import BookTotals, Figures, SuspenseTotal, SystemWallet
from daemon.domain.ports.gaps import Gaps
from daemon.domain.ports.ledger import (
    AccountEntry,
    AccountRow,
    LedgerReader,
    StoredEvent,
    StoreInfo,
    StoreProbe,
    TrialBalancePage,
)
from daemon.domain.ports.lightning import (
    HoldPage,
    HoldState,
    HoldWatch,
    HtlcResolution,
    IncomingHtlcs,
    InvoicePage,
    InvoiceState,
    LightningNode,
    NewHoldInvoice,
    NewInvoice,
    NodeAnswer,
    NodeFunds,
    NodeInfo,
    NodeInvoice,
)
from daemon.domain.ports.lightning_books import LightningBooks, LightningTotals
from daemon.domain.ports.metrics import HoldMetrics, Metrics
from daemon.domain.ports.other_programs import Journals, OpenInvoice, OpenInvoices
from daemon.domain.ports.posting import Books, Leases, LeaseView
from daemon.domain.ports.prices import Dealer, PriceSource, Quotes
from daemon.domain.ports.suspense import Suspense
from daemon.domain.ports.wallets import AskedTerms, Invoices, StoredInvoice, Wallet, Wallets

__all__ = [
    "AccountEntry",
    "AccountRow",
    "AddressSource",
    "Addresses",
    "ApiKeys",
    "AskedTerms",
    "Audit",
    "AuditLog",
    "AuditedJournal",
    "AuditedLink",
    "BookTotals",
    "Books",
    "ChainHint",
    "ChainInfo",
    "ChainNode",
    "Coins",
    "Dealer",
    "Deposits",
    "DerivedAddress",
    "Figures",
    "ForeignAddresses",
    "Gaps",
    "HeaderInfo",
    "HintsLost",
    "HoldMetrics",
    "HoldPage",
    "HoldState",
    "HoldWatch",
    "HtlcResolution",
    "IncomingHtlcs",
    "InvoicePage",
    "InvoiceState",
    "Invoices",
    "Journals",
    "LeaseView",
    "Leases",
    "LedgerReader",
    "LightningBooks",
    "LightningNode",
    "LightningTotals",
    "MempoolSnapshot",
    "Metrics",
    "NewHoldInvoice",
    "NewInvoice",
    "NodeAnswer",
    "NodeFunds",
    "NodeInfo",
    "NodeInvoice",
    "OpenInvoice",
    "OpenInvoices",
    "Policies",
    "PriceSource",
    "Quotes",
    "RawTx",
    "Scripts",
    "StoreInfo",
    "StoreProbe",
    "StoredEvent",
    "StoredInvoice",
    "Suspense",
    "SuspenseTotal",
    "SystemWallet",
    "TipChanged",
    "TrialBalancePage",
    "TxAdded",
    "TxRemoved",
    "Wallet",
    "Wallets",
    "WatchedScript",
]
