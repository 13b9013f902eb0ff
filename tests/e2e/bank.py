"""A bank under test: tellerd on the real nodes with a database of its own, and what must hold of its books."""

from __future__ import annotations

import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from bson import ObjectId
from pymongo import MongoClient

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, event_pb2, invoice_pb2
from adapters.mongo.collections import ACCOUNTS, CURSORS, INVOICES, JOURNALS, KEYS, LEGS, OUTBOX, WALLETS
from regtest.lnd_rest import Payment
from regtest.process import take_port
from regtest.stack import Stack
from regtest.tellerd import CALL_S, RUN, Client, Tellerd

SETTLED_S = 120.0
"""From a payer's success to the books: milliseconds; a restarted daemon or node takes seconds, and what was away is
tried again every 15 s. On a busy machine all of it takes several times as long: a bound against hanging."""

COMMAND_S = 300.0
"""A command takes a second."""


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = SETTLED_S) -> None:
    """Returns when the condition holds; fails the test if it does not within the bound."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


class Bank:
    """One tellerd (and standbys, if asked for) on a stack, in a fresh database."""

    def __init__(self, stack: Stack, folder: Path, *, settings: str = "") -> None:
        """`settings` is TOML that is added to the configuration of every daemon of this bank."""
        self.stack = stack
        self.settings = settings
        self.folder = folder
        self.database = f"bank_{uuid.uuid4().hex[:12]}"
        # Majority, as tellerd reads: else a test sees a commit moments before the daemon itself does.
        client = MongoClient[dict[str, Any]](stack.mongod.url, tz_aware=True, readConcernLevel="majority")
        self.db = client[self.database]
        self.tellerd = self.daemon("tellerd")
        self._daemons = [self.tellerd]

    def daemon(self, name: str) -> Tellerd:
        """A daemon of this bank that was not started yet; ports of its own."""
        api, http = take_port(), take_port()
        config = self.stack.tellerd_config(
            self.folder / name, database=self.database, api_port=api, http_port=http, extra=self.settings
        )
        return Tellerd(config, api=f"127.0.0.1:{api}", http_address=f"127.0.0.1:{http}", name=name)

    def standby(self, name: str) -> Tellerd:
        """A second daemon, stopped with the bank."""
        daemon = self.daemon(name)
        self._daemons.append(daemon)
        return daemon

    def open(self) -> None:
        """Initialises the database and starts tellerd, until the opening balance is booked; the payer can pay, however
        the test before has left it."""
        self.stack.wait_payable()
        self.command("init")
        self.tellerd.start()
        self.tellerd.wait_ready()
        self.wait_opened()

    def wait_opened(self) -> None:
        """Returns when the node's opening balance is booked."""
        wait_for(
            lambda: self.db[CURSORS].find_one({"name": "lnd1", "opening_index": {"$ne": None}}) is not None,
            "the opening balance is booked",
        )

    def close(self) -> None:
        """Ends the daemons and forgets the database."""
        for daemon in self._daemons:
            daemon.process.stop()
        self.db.client.drop_database(self.database)
        self.db.client.close()

    def command(self, *arguments: str, expect: int | None = 0) -> str:
        """Runs `tellerd <arguments> --config FILE`; returns what it printed. `expect` is its exit code."""
        command = [*RUN, *arguments, "--config", str(self.tellerd.config_file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        output = done.stdout + done.stderr
        assert expect is None or done.returncode == expect, f"{arguments}: exit {done.returncode}\n{output}"
        return output

    # --- what people do ---------------------------------------------------------------------------------

    def invoices(self, client: Client, wallet_id: str, amounts_sat: Iterable[int]) -> list[invoice_pb2.Invoice]:
        """One invoice per amount."""
        return [client.create_invoice(wallet_id, amount_sat) for amount_sat in amounts_sat]

    def pay(self, invoices: Sequence[invoice_pb2.Invoice], *, in_flight: int = 10) -> None:
        """The payer pays all; every payment must succeed."""
        payments = self.stack.pay_many([invoice.payment_request for invoice in invoices], in_flight)
        failed = [payment for payment in payments if not payment.succeeded]
        assert not failed, failed

    def start_paying(self, invoices: Sequence[invoice_pb2.Invoice], *, in_flight: int = 4) -> Future[list[Payment]]:
        """The payer pays in the background."""
        pool = ThreadPoolExecutor(1)
        requests = [invoice.payment_request for invoice in invoices]
        return pool.submit(lambda: self.stack.pay_many(requests, in_flight))

    # --- what another program does -------------------------------------------------------------------------

    def write_wallet(self) -> str:
        """A wallet with an account that tellerd has not made; returns its id."""
        wallet, account = str(uuid.uuid4()), str(uuid.uuid4())
        self.db[ACCOUNTS].insert_one({"id": account, "kratosUserId": account, "role": "user"})
        self.db[WALLETS].insert_one({"id": wallet, "accountId": account, "type": "checking", "currency": "BTC"})
        return wallet

    def write_invoice_document(self, payment_hash: str, wallet_id: str, *, paid: bool = False) -> None:
        """An `invoiceusers` document as Blink's core writes it, without what tellerd would add."""
        wallet = self.db[WALLETS].find_one({"id": wallet_id})
        assert wallet is not None
        document = {
            "_id": payment_hash,
            "walletId": wallet_id,
            "accountId": wallet["accountId"],
            "secret": "00" * 32,
            "currency": "BTC",
            "timestamp": datetime.now(UTC),
            "selfGenerated": True,
            "pubkey": self.stack.lnd.pubkey,
            "paid": paid,
            "processingCompleted": paid,
            "externalId": payment_hash,
            "__v": 0,
        }
        self.db[INVOICES].insert_one(document)

    def write_status(self, wallet_id: str, status: str) -> None:
        """As Blink's core does when somebody locks the wallet's account."""
        wallet = self.db[WALLETS].find_one({"id": wallet_id})
        assert wallet is not None
        change = {"$push": {"statusHistory": {"status": status, "updatedAt": datetime.now(UTC)}}}
        assert self.db[ACCOUNTS].update_one({"id": wallet["accountId"]}, change).modified_count == 1

    def write_transfer(self, sender: str, recipient: str, amount_sat: int, *, payment_hash: str = "") -> None:
        """A transfer between wallets, as Blink's core books it; with a hash the payment of an invoice."""
        details = {"type": "on_us"}
        if payment_hash:
            details = {"type": "ln_on_us", "hash": payment_hash, "pubkey": self.stack.lnd.pubkey}
        self._write_journal(f"Liabilities:{sender}", f"Liabilities:{recipient}", amount_sat, details)

    def write_receipt(self, wallet_id: str, payment_hash: str, amount_sat: int) -> None:
        """A Lightning receive, as Blink's core books it."""
        details = {"type": "invoice", "hash": payment_hash, "pubkey": self.stack.lnd.pubkey}
        self._write_journal("Assets:Reserve:Lightning", f"Liabilities:{wallet_id}", amount_sat, details)

    def _write_journal(self, source: str, target: str, amount_sat: int, details: dict[str, Any]) -> None:
        """In the order in which medici writes: legs, then the journal."""
        journal, now = ObjectId(), datetime.now(UTC)
        common = {"_journal": journal, "book": "MainBook", "datetime": now, "timestamp": now, "memo": "", **details}
        legs = [
            {
                **common,
                "account_path": account.split(":"),
                "accounts": account,
                "currency": "BTC",
                "debit": debit,
                "credit": credit,
            }
            for account, debit, credit in ((source, amount_sat, 0), (target, 0, amount_sat))
        ]
        self.db.command("insert", LEGS, documents=legs)
        ids = [leg["_id"] for leg in self.db[LEGS].find({"_journal": journal})]
        self.db[JOURNALS].insert_one(
            {"_id": journal, "datetime": now, "memo": "", "_transactions": ids, "book": "MainBook"}
        )

    # --- what must hold ---------------------------------------------------------------------------------

    def wait_balance(self, wallet_id: str, balance_sat: int, *, through: Tellerd | None = None) -> None:
        """Returns when GetBalance says so, exactly."""
        found = -1

        def reached() -> bool:
            nonlocal found
            try:
                found = client.balance_sat(wallet_id)
            except grpc.RpcError as refusal:
                if refusal.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False  # a leader that had no database for as long as its lease stands by for a moment
            return found >= balance_sat

        with (through or self.tellerd).client() as client:
            wait_for(reached, f"balance {balance_sat} of {wallet_id}")
        assert found == balance_sat

    def check_books(self, *, through: Tellerd | None = None) -> None:
        """Trial balance zero, books equal to the node to the msat, feed gapless, once each, and `verify` content."""
        with (through or self.tellerd).client() as client:
            rows, totals = client.trial_balance()
            assert totals == {} or set(totals.values()) == {0}, totals
            lightning_sat = -sum(row.balance for row in rows if row.account == "Assets:Reserve:Lightning")
        cursor = self.cursor(self.stack.lnd.pubkey)
        books_msat = lightning_sat * 1000 + cursor["remainder_msat"]
        # A payer's success comes before the last commitment: the node's own balance lags by a moment.
        wait_for(lambda: books_msat == self.node_msat(), f"the node holds the {books_msat} msat of the books")
        self.check_feed()
        self.command("verify")

    def check_whole(self) -> None:
        """The same where money came to one payment hash more than once: books and node agree as tellerd compares
        them, the feed is gapless, and every leg is a journal's."""
        rows = [row["_id"] for row in self.db[OUTBOX].find().sort("_id", 1)]
        assert rows == list(range(1, len(rows) + 1)), "the feed has gaps"
        legs = sum(len(journal["_transactions"]) for journal in self.db[JOURNALS].find())
        assert legs == self.db[LEGS].count_documents({}), "a journal and its legs differ"
        with self.tellerd.client() as client:
            _, totals = client.trial_balance()
            assert set(totals.values()) <= {0}, totals

            def explained() -> bool:
                look = client.admin.Reconcile(admin_pb2.ReconcileRequest(), timeout=60).reconciliation
                return look.steady and [side.difference_msat for side in look.sides] == [0]

            wait_for(explained, "books and node agree to the msat")
        self.command("verify")

    def cursor(self, pubkey: str) -> dict[str, Any]:
        """The stored position of a node; empty if there is none."""
        return self.db[CURSORS].find_one({"_id": f"lnd:{pubkey}"}) or {}

    def settled_count(self) -> int:
        """How many credits are in the books."""
        return self.db[OUTBOX].count_documents({"type": "invoice.settled"})

    def node_status(self, client: Client) -> admin_pb2.LndStatus:
        """What GetStatus says of the node."""
        return client.admin.GetStatus(admin_pb2.GetStatusRequest(), timeout=CALL_S).lnd[0]

    def node_msat(self) -> int:
        """What our LND holds: its channels, all opened by the payer, so that no fee is ours, and its wallet."""
        return self.stack.lnd.held_msat()

    def check_feed(self) -> None:
        """The feed's numbers have no gap, and no event, key or journal is there twice."""
        # One snapshot: what a killed daemon sent last may be committed while this reads.
        with self.db.client.start_session(snapshot=True) as at:
            rows = list(self.db[OUTBOX].find(session=at).sort("_id", 1))
            paid = list(self.db[LEGS].find({"type": "invoice"}, session=at))
            journals = list(self.db[JOURNALS].find(session=at))
            legs = self.db[LEGS].count_documents({}, session=at)
            keys = self.db[KEYS].count_documents({"_id": {"$regex": "^ln:"}}, session=at)
        assert [row["_id"] for row in rows] == list(range(1, len(rows) + 1)), "the feed has gaps"
        ids = [row["id"] for row in rows]
        assert len(ids) == len(set(ids)), "an event is told twice"
        credited = {(leg["hash"], leg["_journal"]) for leg in paid}
        assert len(credited) == len({payment_hash for payment_hash, _ in credited}), "an invoice is credited twice"
        assert sum(len(journal["_transactions"]) for journal in journals) == legs, "a journal and its legs differ"
        assert keys <= len(rows)

    def feed(self, *, after_sequence: int, count: int, types: Sequence[str] = ()) -> list[event_pb2.Event]:
        """The next events, through the API."""
        request = event_pb2.SubscribeRequest(after_sequence=after_sequence, types=types)
        found: list[event_pb2.Event] = []
        with self.tellerd.client() as client:
            stream = client.events.Subscribe(request, timeout=SETTLED_S)
            for answer in stream:
                found.append(answer.event)
                if len(found) == count:
                    stream.cancel()
                    break
        return found
