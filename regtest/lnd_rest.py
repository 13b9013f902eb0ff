"""LND's REST interface, as far as a regtest stack needs it: stdlib only, so that this package needs no stubs.

Amounts are msat or sat as the names say; hashes and preimages are hex. Every call has a deadline. Safe to use from
several threads: a connection serves one call at a time and is kept for the next.
"""

import base64
import hashlib
import http.client
import json
import secrets
import ssl
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regtest.descriptors import is_readable
from regtest.process import NodeError

CALL_S: Final = 60.0
"""LND's GetInfo hangs 22 s while bitcoind is away; everything else answers within a second."""

PAY_S: Final = 120
"""For a payment attempt; LND's own default is 60 s, of which its restart under load was seen to take half."""

PAY_GRACE_S: Final = 300.0
"""LND ends a payment at its timeout by itself, unless it is held, or there is no bitcoind: this ends the wait."""

FEE_LIMIT_SAT: Final = 1_000  # a direct channel costs nothing; LND's own default for small payments is 100 %
KEYSEND_RECORD: Final = 5_482_373_484  # TLV type of a keysend's preimage
TO_AN_ADDRESS: Final = (9, 15, 17)  # feature bits of a payee: TLV onion, payment address, several parts
HTTP_OK: Final = 200


class LndError(Exception):
    """LND refused a call."""

    def __init__(self, call: str, code: int, message: str) -> None:
        """`code` is the gRPC status code: 2 UNKNOWN for most refusals, 5 NOT_FOUND, 6 ALREADY_EXISTS."""
        super().__init__(f"{call}: {message} (code {code})")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedInvoice:
    """What AddInvoice and AddHoldInvoice answer."""

    payment_hash: str
    payment_request: str
    add_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceState:
    """What LND knows about an invoice."""

    payment_hash: str
    payment_request: str
    memo: str
    state: str
    """OPEN, ACCEPTED, SETTLED or CANCELED."""
    value_msat: int
    amt_paid_msat: int
    add_index: int
    settle_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The end of a payment attempt."""

    payment_hash: str
    status: str
    """SUCCEEDED or FAILED."""
    preimage: str
    failure_reason: str
    """FAILURE_REASON_…, of which FAILURE_REASON_NONE goes with SUCCEEDED."""
    value_msat: int
    fee_msat: int

    @property
    def succeeded(self) -> bool:
        """True when the preimage came back."""
        return self.status == "SUCCEEDED"


class LndRest:
    """Calls to one LND. The certificate and the macaroon are read when they are needed, so they may come later."""

    def __init__(self, port: int, tls_cert_file: Path, macaroon_file: Path, *, host: str = "127.0.0.1") -> None:
        """`port` is LND's REST port; the macaroon decides what may be called."""
        self._host = host
        self._port = port
        self._tls_cert_file = tls_cert_file
        self._macaroon_file = macaroon_file
        self._idle: deque[http.client.HTTPSConnection] = deque()

    def wallet_state(self) -> str:
        """RPC_ACTIVE, SERVER_ACTIVE, …; needs no macaroon."""
        return str(self.call("GET", "/v1/state", with_macaroon=False)["state"])

    def get_info(self) -> dict[str, Any]:
        """LND's GetInfo: identity_pubkey, block_height, synced_to_chain, …"""
        return self.call("GET", "/v1/getinfo")

    def new_address(self) -> str:
        """A fresh P2WPKH address of LND's wallet."""
        return str(self.call("GET", "/v1/newaddress?type=WITNESS_PUBKEY_HASH")["address"])

    def wallet_balance(self) -> int:
        """Confirmed coins in LND's on-chain wallet, in sat."""
        return int(self.call("GET", "/v1/balance/blockchain")["confirmed_balance"])

    def channel_balance(self) -> int:
        """What is ours in open channels, in msat, without HTLCs that are under way.

        A payment counts a moment after its payer has the preimage: both sides first commit to it.
        """
        return int(self.call("GET", "/v1/balance/channels")["local_balance"]["msat"])

    def held_msat(self) -> int:
        """What is ours in open channels, and in the wallet on the chain with what is unconfirmed, in msat.

        Without the commitment fees of channels that it has opened itself, and what is in channels that close.
        """
        return self.channel_balance() + int(self.call("GET", "/v1/balance/blockchain")["total_balance"]) * 1000

    def list_channels(self) -> list[dict[str, Any]]:
        """The open channels: active, channel_point, remote_pubkey, local_balance (sat, a string), …"""
        channels: list[dict[str, Any]] = self.call("GET", "/v1/channels")["channels"]
        return channels

    def connect(self, pubkey: str, p2p_address: str) -> None:
        """Connect to a peer; does nothing if it is connected."""
        try:
            body = {"addr": {"pubkey": pubkey, "host": p2p_address}, "perm": True, "timeout": "10"}
            self.call("POST", "/v1/peers", body)
        except LndError as refusal:
            if "already connected" not in str(refusal):
                raise

    def open_channel(self, pubkey: str, capacity_sat: int, push_sat: int = 0) -> str:
        """Open a channel to a connected peer; returns its channel point. Its transaction is in the mempool then."""
        body = {
            "node_pubkey": _base64(pubkey),
            "local_funding_amount": str(capacity_sat),
            "push_sat": str(push_sat),
            "sat_per_vbyte": "2",
        }
        point = self.call("POST", "/v1/channels", body)
        txid = base64.b64decode(point["funding_txid_bytes"])[::-1].hex()
        return f"{txid}:{point['output_index']}"

    def add_invoice(
        self, value_msat: int, memo: str = "", *, preimage: str | None = None, expiry_s: int | None = None
    ) -> AddedInvoice:
        """An ordinary invoice; 0 msat takes any amount. LND chooses the preimage unless one is given."""
        body: dict[str, object] = {"value_msat": str(value_msat), "memo": memo}
        if preimage is not None:
            body["r_preimage"] = _base64(preimage)
        if expiry_s is not None:
            body["expiry"] = str(expiry_s)
        added = self.call("POST", "/v1/invoices", body)
        return _added(base64.b64decode(added["r_hash"]).hex(), added)

    def add_hold_invoice(
        self, payment_hash: str, value_msat: int, memo: str = "", *, expiry_s: int | None = None
    ) -> AddedInvoice:
        """A hold invoice: what is paid waits for settle_hold or cancel_invoice."""
        body: dict[str, object] = {"hash": _base64(payment_hash), "value_msat": str(value_msat), "memo": memo}
        if expiry_s is not None:
            body["expiry"] = str(expiry_s)
        return _added(payment_hash, self.call("POST", "/v2/invoices/hodl", body))

    def add_amp_invoice(self, value_msat: int, memo: str = "") -> AddedInvoice:
        """An AMP invoice: it can be paid any number of times, and LND chooses the preimages as they come."""
        added = self.call("POST", "/v1/invoices", {"value_msat": str(value_msat), "memo": memo, "is_amp": True})
        return _added(base64.b64decode(added["r_hash"]).hex(), added)

    def settle_hold(self, preimage: str) -> None:
        """Take what a hold invoice holds; again is no error."""
        self.call("POST", "/v2/invoices/settle", {"preimage": _base64(preimage)})

    def cancel_invoice(self, payment_hash: str) -> None:
        """Cancel an open or held invoice; again is no error."""
        self.call("POST", "/v2/invoices/cancel", {"payment_hash": _base64(payment_hash)})

    def lookup_invoice(self, payment_hash: str) -> InvoiceState:
        """What LND knows about an invoice; LndError with code 5 for an unknown one."""
        found = self.call("GET", f"/v1/invoice/{payment_hash}")
        return InvoiceState(
            payment_hash=payment_hash,
            payment_request=found["payment_request"],
            memo=found["memo"],
            state=found["state"],
            value_msat=int(found["value_msat"]),
            amt_paid_msat=int(found["amt_paid_msat"]),
            add_index=int(found["add_index"]),
            settle_index=int(found["settle_index"]),
        )

    def pay(self, payment_request: str, *, timeout_s: int = PAY_S, amount_msat: int | None = None) -> Payment:
        """Pay an invoice and wait for the end; `amount_msat` only for an invoice without an amount.

        A held invoice keeps this waiting until it is settled or cancelled: timeout_s ends the search for a route,
        not an HTLC under way. LndError when LND refuses (code 6: this hash is paid or under way).
        """
        body: dict[str, object] = {"payment_request": payment_request}
        if amount_msat is not None:
            body["amt_msat"] = str(amount_msat)
        return self._send(body, timeout_s)

    def asked_msat(self, payment_request: str) -> int:
        """What an invoice asks for; 0 where its payer decides."""
        return int(self.call("GET", f"/v1/payreq/{payment_request}")["num_msat"])

    def overpay(self, payment_request: str, amount_msat: int, *, timeout_s: int = PAY_S) -> Payment:
        """Pay more than an invoice asks for, which LND's own sender refuses: by its hash and payment address."""
        asked = self.call("GET", f"/v1/payreq/{payment_request}")
        body = {
            "dest": _base64(asked["destination"]),
            "amt_msat": str(amount_msat),
            "payment_hash": _base64(asked["payment_hash"]),
            "payment_addr": asked["payment_addr"],
            "final_cltv_delta": int(asked["cltv_expiry"]),
            "dest_features": list(TO_AN_ADDRESS),
        }
        return self._send(body, timeout_s)

    def pay_amp(self, payment_request: str, *, timeout_s: int = PAY_S, amount_msat: int | None = None) -> Payment:
        """Pay an AMP invoice, once more if need be; an amount if it has none. The payment's hash is its set id."""
        body: dict[str, object] = {"payment_request": payment_request, "amp": True}
        if amount_msat is not None:
            body["amt_msat"] = str(amount_msat)
        return self._send(body, timeout_s)

    def spontaneous_amp(
        self,
        pubkey: str,
        amount_msat: int,
        *,
        records: Mapping[int, bytes] | None = None,
        most_msat: int | None = None,
        timeout_s: int = PAY_S,
    ) -> Payment:
        """Pay a node without an invoice by AMP, in parts of at most `most_msat`, with these custom records."""
        body: dict[str, object] = {
            "dest": _base64(pubkey),
            "amt_msat": str(amount_msat),
            "amp": True,
            "dest_custom_records": _records(records or {}),
        }
        if most_msat is not None:
            body["max_shard_size_msat"] = str(most_msat)
        return self._send(body, timeout_s)

    def keysend(
        self,
        pubkey: str,
        amount_msat: int,
        *,
        preimage: str | None = None,
        records: Mapping[int, bytes] | None = None,
        timeout_s: int = PAY_S,
    ) -> Payment:
        """Pay a node without an invoice, with these custom records (types from 65536 on); with the preimage of an
        invoice there, money comes to that invoice again."""
        secret = bytes.fromhex(preimage) if preimage is not None else secrets.token_bytes(32)
        body = {
            "dest": _base64(pubkey),
            "amt_msat": str(amount_msat),
            "payment_hash": _base64(hashlib.sha256(secret).hexdigest()),
            "dest_custom_records": _records({**(records or {}), KEYSEND_RECORD: secret}),
        }
        return self._send(body, timeout_s)

    def probe(self, pubkey: str, amount_msat: int, *, timeout_s: int = 10) -> bool:
        """True if `amount_msat` could be paid to the node now. Moves no money and leaves no invoice there: the hash
        is one that nobody knows, and the payee's refusal of it is the proof that the payment arrived."""
        body = {
            "dest": _base64(pubkey),
            "amt_msat": str(amount_msat),
            "payment_hash": _base64(secrets.token_hex(32)),
            "final_cltv_delta": 80,
        }
        return self._send(body, timeout_s).failure_reason == "FAILURE_REASON_INCORRECT_PAYMENT_DETAILS"

    def bake_macaroon(self, uris: Iterable[str], root_key_id: int, file: Path) -> Path:
        """Write a macaroon that may call just these methods (`/lnrpc.Lightning/GetInfo`, …), readable by the owner."""
        permissions = [{"entity": "uri", "action": uri} for uri in uris]
        baked = self.call("POST", "/v1/macaroon", {"permissions": permissions, "root_key_id": str(root_key_id)})
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(bytes.fromhex(baked["macaroon"]))
        return file

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        timeout_s: float = CALL_S,
        with_macaroon: bool = True,
    ) -> dict[str, Any]:
        """Any call of the REST interface; a stream's last message. LndError when LND refuses, NodeError or OSError
        when it cannot be asked. Never retried."""
        headers = {"Grpc-Metadata-macaroon": self._macaroon_file.read_bytes().hex()} if with_macaroon else {}
        connection = self._connection(timeout_s)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            lines = response.read().splitlines()
        except http.client.HTTPException as failure:
            connection.close()
            raise NodeError(f"lnd: {path}: {failure!r}") from failure
        except OSError:
            connection.close()
            raise
        self._idle.append(connection)
        return _last_message(f"{method} {path}", response.status, lines)

    def forget_connections(self) -> None:
        """After a restart: the kept connections are dead, and the certificate may be another."""
        while self._idle:
            self._idle.pop().close()

    def _send(self, body: Mapping[str, object], timeout_s: int) -> Payment:
        """SendPaymentV2, without the updates before the last."""
        whole = {
            **body,
            "timeout_seconds": timeout_s,
            "fee_limit_sat": str(FEE_LIMIT_SAT),
            "no_inflight_updates": True,
        }
        sent = self.call("POST", "/v2/router/send", whole, timeout_s=timeout_s + PAY_GRACE_S)
        return Payment(
            payment_hash=sent["payment_hash"],
            status=sent["status"],
            preimage=sent["payment_preimage"],
            failure_reason=sent["failure_reason"],
            value_msat=int(sent["value_msat"]),
            fee_msat=int(sent["fee_msat"]),
        )

    def _connection(self, timeout_s: float) -> http.client.HTTPSConnection:
        """A kept connection that LND has not closed meanwhile, else a new one."""
        while self._idle:
            try:
                kept = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if kept.sock is not None and not is_readable(kept.sock.fileno()):
                kept.timeout = timeout_s
                kept.sock.settimeout(timeout_s)
                return kept
            kept.close()  # readable without a question asked: the end of the stream
        context = ssl.create_default_context(cafile=str(self._tls_cert_file))
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=context)


def _last_message(call: str, status: int, lines: list[bytes]) -> dict[str, Any]:
    """The answer, or of a stream ({"result": …} a line) the last message; LndError for an error in either form."""
    try:
        message: dict[str, Any] = json.loads(lines[-1]) if status == HTTP_OK and lines else json.loads(b"".join(lines))
    except ValueError as failure:
        raise NodeError(f"lnd: {call}: HTTP {status} {b' '.join(lines)[:200]!r}") from failure
    error = message.get("error") if status == HTTP_OK else message.get("error") or message
    if isinstance(error, dict):
        raise LndError(call, int(error.get("code", 2)), str(error.get("message", error)))
    if status != HTTP_OK:
        raise LndError(call, int(message.get("code", 2)), str(message.get("message", message)))
    result: dict[str, Any] = message.get("result", message)
    return result


def _added(payment_hash: str, added: dict[str, Any]) -> AddedInvoice:
    return AddedInvoice(
        payment_hash=payment_hash,
        payment_request=added["payment_request"],
        add_index=int(added["add_index"]),
    )


def _records(records: Mapping[int, bytes]) -> dict[str, str]:
    """Custom TLV records as REST takes them."""
    return {str(kind): _base64(value.hex()) for kind, value in records.items()}


def _base64(hexadecimal: str) -> str:
    """REST takes bytes as base64."""
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
