"""One connection pool, one database, and the ports that are implemented over them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from adapters.mongo import schema
from adapters.mongo.addresses import MongoAddresses
from adapters.mongo.api_keys import MongoApiKeys
from adapters.mongo.audit_log import MongoAuditLog
from adapters.mongo.books import MongoBooks
from adapters.mongo.coins import MongoCoins
from adapters.mongo.deposits import MongoDeposits
from adapters.mongo.documents import Document
from adapters.mongo.errors import mapped
from adapters.mongo.figures import MongoFigures
from adapters.mongo.foreign_addresses import MongoForeignAddresses
from adapters.mongo.gaps import MongoGaps
from adapters.mongo.invoices import MongoInvoices, MongoOpenInvoices
from adapters.mongo.journals import MongoJournals
from adapters.mongo.leases import MongoLeases
from adapters.mongo.ledger import MongoLedger
from adapters.mongo.lightning_books import MongoLightningBooks
from adapters.mongo.policies import MongoPolicies
from adapters.mongo.quotes import MongoQuotes
from adapters.mongo.scripts import MongoScripts
from adapters.mongo.sessions import PostingSession
from adapters.mongo.suspense import MongoSuspense
from adapters.mongo.wallets import MongoWallets
from daemon.domain.errors import BadInput
from daemon.domain.ports import StoreInfo

_SERVER_SELECTION_MS = 3_000
"""How long a call looks for a primary before it says Unavailable; the callers wait and try again."""

_SOCKET_MS = 20_000
"""A server that hangs is given up after this; the longest call, a commit of a full batch, takes far less."""

_POOL_SIZE = 100
"""Connections at most: the gRPC threads (48) and tellerd's own, with room."""


class MongoStore:
    """tellerd's database. `connect` does no I/O; `books`, `journals` and `coins` are there after `open`."""

    def __init__(self, client: MongoClient[Document], database: str) -> None:
        self.client = client
        self.db = client.get_database(
            database,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority", j=True),
            read_preference=ReadPreference.PRIMARY,
        )
        self._posting = PostingSession(client)
        self.leases = MongoLeases(self.db, self._posting)
        self.open_invoices = MongoOpenInvoices(self.db)
        self.wallets = MongoWallets(self.db)
        self.invoices = MongoInvoices(self.db)
        self.ledger = MongoLedger(self.db)
        self.deposits = MongoDeposits(self.db)
        self.addresses = MongoAddresses(self.db)
        self.policies = MongoPolicies(self.db)
        self.scripts = MongoScripts(self.db)
        self.api_keys = MongoApiKeys(self.db)
        self.figures = MongoFigures(self.db)
        self.quotes = MongoQuotes(self.db)
        self.gaps = MongoGaps(self.db)
        self.suspense = MongoSuspense(self.db)
        self.audit_log = MongoAuditLog(self.db)

    @classmethod
    def connect(cls, url: str, database: str) -> MongoStore:
        """A store over a URL with a replicaSet; raises BadInput if the URL cannot be understood."""
        try:
            client: MongoClient[Document] = MongoClient(
                url,
                appname="tellerd",
                tz_aware=True,
                uuidRepresentation="standard",
                # What another program has written must be readable, whatever it is: a date that Python has not (a
                # program that takes microseconds for milliseconds writes the year 58000), bytes that are no UTF-8.
                datetime_conversion="DATETIME_AUTO",
                unicode_decode_error_handler="replace",
                maxPoolSize=_POOL_SIZE,
                connectTimeoutMS=_SERVER_SELECTION_MS,
                serverSelectionTimeoutMS=_SERVER_SELECTION_MS,
                socketTimeoutMS=_SOCKET_MS,
            )
        except (InvalidURI, ConfigurationError) as problem:
            # The URL may hold a password: only PyMongo's reason is shown.
            raise BadInput(
                field="mongo.url",
                value="(not shown)",
                remedy=f"use mongodb://host:port/?replicaSet=…: {problem}",
            ) from None
        return cls(client, database)

    @property
    def database(self) -> str:
        """The database's name."""
        return self.db.name

    def probe(self) -> StoreInfo:
        """See `daemon.domain.ports.StoreProbe`."""
        with mapped("probe"):
            hello = self.client.admin.command("hello")
            build = self.client.admin.command("buildInfo")
        return StoreInfo(replica_set=hello.get("setName", ""), version=build["version"])

    def init(self) -> list[str]:
        """`tellerd init`; see `adapters.mongo.schema`."""
        return schema.init(self.db)

    def open(self) -> None:
        """Makes the ports that write; raises InvariantViolation if the database was not initialised."""
        writer_id = schema.require(self.db)
        self.books = MongoBooks(self.db, posting=self._posting, leases=self.leases, writer_id=writer_id)
        self.journals = MongoJournals(self.db, writer_id)
        self.coins = MongoCoins(self.db, writer_id)
        self.lightning_books = MongoLightningBooks(self.db, writer_id)

    def foreign_addresses(self, script_of: Callable[[str], bytes]) -> MongoForeignAddresses:
        """Addresses that other programs wrote; `script_of` raises ValueError for what is no address here."""
        return MongoForeignAddresses(self.db, script_of)

    def close(self) -> None:
        """Closes all connections; a transaction that is open is aborted by the server."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
