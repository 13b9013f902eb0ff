"""Coins that no wallet of bitcoind knows, so that nobody sends them again by himself, and what is made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from embit.ec import PrivateKey
from embit.networks import NETWORKS
from embit.script import Script, p2wpkh
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from regtest.bitcoind import Bitcoind

REPLACEABLE = 0xFFFFFFFD
"""A sequence number that allows replacement (BIP125)."""

FEE_SAT = 10_000
"""Far above every least fee of a small tx."""

_KEY = PrivateKey(hashlib.sha256(b"tellerd tests: coins").digest())
_SCRIPT = p2wpkh(_KEY.get_public_key())


@dataclass(frozen=True, slots=True)
class Coin:
    """An output that is in a block and unspent."""

    txid: str
    vout: int
    amount_sat: int


@dataclass(frozen=True, slots=True)
class SignedTx:
    """A tx that nobody has seen yet."""

    txid: str
    hex: str


def make_coin(bitcoind: Bitcoind, amount_sat: int = 20_000_000) -> Coin:
    """A fresh coin from the miner's wallet; mines one block."""
    txid = bitcoind.send(str(_SCRIPT.address(NETWORKS["regtest"])), amount_sat)
    block = bitcoind.mine(1)[0]
    outputs = bitcoind.rpc("getrawtransaction", txid, True, block)["vout"]
    vout = next(int(out["n"]) for out in outputs if out["scriptPubKey"]["hex"] == _SCRIPT.data.hex())
    return Coin(txid, vout, amount_sat)


def spend(
    bitcoind: Bitcoind, coin: Coin, outputs: Sequence[tuple[str, int]] = (), *, fee_sat: int = FEE_SAT
) -> SignedTx:
    """A tx that pays these addresses these sats, in order, and the rest back; it is not sent."""
    paid_sat = sum(amount_sat for _, amount_sat in outputs)
    paying = [TransactionOutput(amount_sat, _script(bitcoind, address)) for address, amount_sat in outputs]
    change = TransactionOutput(coin.amount_sat - paid_sat - fee_sat, _SCRIPT)
    source = TransactionInput(bytes.fromhex(coin.txid), coin.vout, sequence=REPLACEABLE)
    tx = Transaction(vin=[source], vout=[*paying, change])
    signed = bitcoind.rpc("signrawtransactionwithkey", tx.serialize().hex(), [_KEY.wif(NETWORKS["regtest"])])
    assert signed["complete"], signed
    return SignedTx(tx.txid().hex(), signed["hex"])


def _script(bitcoind: Bitcoind, address: str) -> Script:
    return Script(bytes.fromhex(bitcoind.rpc("validateaddress", address)["scriptPubKey"]))
