"""Real blocks of regtest as full as mainnet's, without a wallet: 2,500 txs, 6,250 outputs to scripts of their own.

A coin here is an output to a P2WSH script that anybody can spend: its witness has a signature's and a key's sizes,
and nothing is signed. Each coin has another witness script, so that no two outputs have the same script. Blocks are
made by generateblock, which takes what consensus allows and asks neither for fees nor for the mempool.

Serialisation: Bitcoin Core `primitives/transaction.h`, the witness: BIP144.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from regtest.bitcoind import MATURITY_BLOCKS, Bitcoind

TXS: Final = 2_500
"""In a block, the coinbase left out."""

DEPOSITS: Final = 5
"""Outputs of a block that pay watched scripts."""

DEPOSIT_SAT: Final = 50_000
PAYMENT_SAT: Final = 1_000

_COINBASES: Final = 4
_COINS_OF_EACH: Final = 1_000
"""Together more coins than a block spends: 3,750, for every second tx has two inputs. It makes as many anew."""

_COINBASE_SAT: Final = 5_000_000_000
_SIGNATURE: Final = bytes(71)
_KEY: Final = bytes(33)
_DROPS: Final = b"\x75\x6d\x51"
"""OP_DROP OP_2DROP OP_TRUE: behind a push of the coin's number it takes number, key and signature away."""

_FINAL: Final = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output; `number` is what makes its script different from all others."""

    outpoint: bytes
    amount_sat: int
    number: int


class BlockMaker:
    """Mines on `bitcoind`, whose chain must be at its genesis. The same seed makes the same payments."""

    def __init__(self, bitcoind: Bitcoind, watched: Sequence[bytes], *, seed: int = 1) -> None:
        """`watched` are the scripts that deposits go to."""
        self._bitcoind = bitcoind
        self._watched = watched
        self._random = random.Random(seed)
        self._numbers = 0
        self._coins = deque(self._fan_out())

    def mine(self, blocks: int) -> None:
        """That many blocks of 2,500 txs."""
        for _ in range(blocks):
            self._generate(self._txs())

    def _fan_out(self) -> list[Coin]:
        """Coins enough for a block, from coinbases that are mature."""
        number = self._next_number()
        descriptor = f"raw({_script(number).hex()})"
        hashes = self._bitcoind.rpc("generatetodescriptor", MATURITY_BLOCKS - 1 + _COINBASES, descriptor)
        coinbases = [self._bitcoind.rpc("getblock", block_hash, 1)["tx"][0] for block_hash in hashes[:_COINBASES]]
        txs, coins = [], []
        for txid in coinbases:
            source = Coin(bytes.fromhex(txid)[::-1] + bytes(4), _COINBASE_SAT, number)
            tx, made = self._tx([source], coins=_COINS_OF_EACH)
            txs.append(tx)
            coins += made
        self._generate(txs)
        return coins

    def _txs(self) -> list[str]:
        """A block's txs: one or two coins in, as many out, and a payment."""
        payments = [(self._stranger(), PAYMENT_SAT) for _ in range(TXS - DEPOSITS)]
        payments += [(self._random.choice(self._watched), DEPOSIT_SAT) for _ in range(DEPOSITS)]
        self._random.shuffle(payments)
        txs: list[str] = []
        made: list[Coin] = []
        for number, payment in enumerate(payments):
            spent = [self._coins.popleft() for _ in range(1 + number % 2)]
            tx, coins = self._tx(spent, coins=len(spent), payment=payment)
            txs.append(tx)
            made += coins
        self._coins += made
        return txs

    def _tx(
        self, spent: Sequence[Coin], *, coins: int, payment: tuple[bytes, int] | None = None
    ) -> tuple[str, list[Coin]]:
        """A tx in hex, and the coins that it makes, of equal amounts; without a fee."""
        paid = [] if payment is None else [payment]
        each_sat = (sum(coin.amount_sat for coin in spent) - sum(amount for _, amount in paid)) // coins
        numbers = [self._next_number() for _ in range(coins)]
        outputs = [(_script(number), each_sat) for number in numbers] + paid
        version, lock_time = (2).to_bytes(4, "little"), bytes(4)
        body = b"".join(
            (
                _compact_size(len(spent)),
                *(coin.outpoint + b"\0" + _FINAL for coin in spent),
                _compact_size(len(outputs)),
                *(amount.to_bytes(8, "little") + _sized(script) for script, amount in outputs),
            )
        )
        witness = b"".join(_stack(coin.number) for coin in spent)
        txid = sha256(sha256(version + body + lock_time).digest()).digest()
        made = [Coin(txid + vout.to_bytes(4, "little"), each_sat, number) for vout, number in enumerate(numbers)]
        return (version + b"\0\1" + body + witness + lock_time).hex(), made

    def _generate(self, txs: Sequence[str]) -> None:
        self._bitcoind.rpc("generateblock", f"raw({self._stranger().hex()})", txs)

    def _stranger(self) -> bytes:
        """A script (P2WPKH) that nobody watches."""
        return b"\x00\x14" + self._random.randbytes(20)

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _witness_script(number: int) -> bytes:
    return _sized(number.to_bytes(8, "big")) + _DROPS


def _script(number: int) -> bytes:
    """The coin's scriptPubKey: OP_0 and the hash of its witness script."""
    return b"\x00" + _sized(sha256(_witness_script(number)).digest())


def _stack(number: int) -> bytes:
    return b"\x03" + _sized(_SIGNATURE) + _sized(_KEY) + _sized(_witness_script(number))


def _sized(data: bytes) -> bytes:
    return _compact_size(len(data)) + data


def _compact_size(number: int) -> bytes:
    return bytes([number]) if number < 253 else b"\xfd" + number.to_bytes(2, "little")
