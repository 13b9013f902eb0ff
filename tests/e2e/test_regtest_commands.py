"""What `make regtest` prints can be copied, and its payer pays in every way that tellerd receives."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient

from adapters.grpc_api._pb.tellerd.v1 import invoice_pb2, suspense_pb2
from adapters.mongo.collections import CURSORS
from regtest.__main__ import NOTE, SETTINGS, payer_note, where
from regtest.process import NodeProcess
from regtest.stack import Stack
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for


@pytest.fixture
def client(stack: Stack, tmp_path: Path) -> Iterator[Client]:
    """Of a tellerd that was started by the two printed commands, as they are, at the address that is printed."""
    stack.wait_payable()
    database = f"regtest_{uuid.uuid4().hex[:12]}"
    text = where(stack, stack.tellerd_config(tmp_path, database=database, extra=SETTINGS))
    init, run = (tuple(shlex.split(line)) for line in text.splitlines() if "--config" in line)
    address = re.search(r"^its API +(\S+)$", text, re.MULTILINE)
    assert address is not None
    subprocess.run(init, check=True, timeout=300, capture_output=True)
    tellerd = NodeProcess("tellerd", run, tmp_path / "tellerd.log")
    with MongoClient[dict[str, Any]](stack.mongod.url, readConcernLevel="majority") as mongo:
        tellerd.start()
        try:
            opened = {"opening_index": {"$ne": None}}
            wait_for(lambda: mongo[database][CURSORS].find_one(opened) is not None, "the opening balance is booked")
            with Client(address[1]) as client:
                yield client
        finally:
            tellerd.stop()
            mongo.drop_database(database)


def test_the_payer_pays_in_every_way(stack: Stack, client: Client, tmp_path: Path) -> None:
    """An invoice, more than it asks for, one without an amount, and without an invoice: for a wallet, or nobody."""
    (tmp_path / NOTE).write_text(json.dumps(payer_note(stack)))
    environment = {**os.environ, "TELLERD_CACHE": str(tmp_path)}

    def pays(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "regtest", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    wallet = client.create_wallet("shop")
    asks, over = client.create_invoice(wallet, 1_000), client.create_invoice(wallet, 2_000)
    any_amount = client.invoices.CreateInvoice(invoice_pb2.CreateInvoiceRequest(wallet_id=wallet), timeout=CALL_S)
    done = [
        pays("pay", asks.payment_request),
        pays("pay", over.payment_request, "--amount-sat", "2500"),
        pays("pay", any_amount.invoice.payment_request, "--amount-sat", "4000"),
        pays("keysend", "8000", "--wallet", wallet),
        pays("keysend", "16000", "--wallet", wallet, "--amp"),
        pays("keysend", "32000", "--to", stack.lnd.pubkey),
    ]
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * len(done)
    assert done[1].stdout == f"paid 2500000 msat, payment hash {over.payment_hash}\n"
    wait_for(lambda: client.balance_sat(wallet) == 1_000 + 2_500 + 4_000 + 8_000 + 16_000, "all of it is the wallet's")
    waits = client.suspense.ListSuspense(suspense_pb2.ListSuspenseRequest(), timeout=CALL_S).entries
    assert [(one.amount_sat, one.suspense_reason) for one in waits] == [(32_000, "no_expectation")]
    refused = pays("pay", asks.payment_request)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "already paid" in refused.stderr


def test_without_a_stack_it_says_what_to_do(tmp_path: Path) -> None:
    """Exit code 1 and one line."""
    done = subprocess.run(
        [sys.executable, "-m", "regtest", "keysend", "1"],
        env={**os.environ, "TELLERD_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "regtest: no stack is up: start one with `make regtest`\n")
