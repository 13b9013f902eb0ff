"""The legs table of blink-contract.md 2.5: every row that is a receive, read from MongoDB past tellerd, compared leg by
leg and field by field. Rows that are sends, transfers inside or fees of the bank's own are not tellerd's to write.

One difference from Blink is wanted: the display amounts are in dollars on the user's leg, too, whatever the account
shows, because a price is had for dollars only (daemon/matching/receipts.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from bson import ObjectId

from adapters.mongo.collections import INVOICES, JOURNALS, LEG_METADATA, LEGS
from tests.e2e.bank import Bank, wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.receives import dealers, wait_cents

Leg = dict[str, Any]

LIGHTNING = "Assets:Reserve:Lightning"
ON_CHAIN = "Assets:OnChain"

DEPOSIT_SAT = 1_234_567
FEE_SAT = 3_704
"""30 hundredths of a percent, rounded to the nearest."""
DEPOSIT_CENTS = 74_074
"""At 60,000 dollars a bitcoin."""
FEE_CENTS = 223
"""ceil(FEE_SAT * DEPOSIT_CENTS / DEPOSIT_SAT), from 222.24."""


def leg(account: str, currency: str, *, debit: int = 0, credit: int = 0) -> Leg:
    """What is a leg's own."""
    path = account.split(":")
    return {"accounts": account, "account_path": path, "currency": currency, "debit": debit, "credit": credit}


def journal_of(bank: Bank, payment_hash: str, *, memo: str) -> tuple[list[Leg], list[dict[str, Any] | None]]:
    """The legs with this hash in the order of their ids, without what no test can know, and the metadata of each.

    What no test can know is checked here: one journal with just these legs in this order, in MainBook, times of now.
    """
    legs = list(bank.db[LEGS].find({"hash": payment_hash}).sort("_id", 1))
    journal = bank.db[JOURNALS].find_one({"_id": legs[0]["_journal"]})
    ids = [one.pop("_id") for one in legs]
    assert journal is not None
    datetime_ = journal.pop("datetime")
    assert journal == {"_id": legs[0]["_journal"], "memo": memo, "_transactions": ids, "book": "MainBook"}
    assert all(isinstance(one, ObjectId) for one in ids)
    for one in legs:
        assert (one.pop("_journal"), one.pop("datetime"), one.pop("book")) == (journal["_id"], datetime_, "MainBook")
        assert datetime.now(UTC) - timedelta(minutes=2) < one.pop("timestamp") <= datetime.now(UTC)
        assert one.pop("memo") == memo
        assert not [name for name, value in one.items() if isinstance(value, float)], "amounts are integers"
    return legs, [bank.db[LEG_METADATA].find_one({"_id": one}, {"_id": 0}) for one in ids]


def lightning_common(bank: Bank, payment_hash: str, *, sats: int, cents: int, external_id: str) -> Leg:
    """Metadata of every leg of a Lightning receive."""
    return {
        "type": "invoice",
        "pending": False,
        "hash": payment_hash,
        "pubkey": bank.stack.lnd.pubkey,
        "satsAmount": sats,
        "satsFee": 0,
        "centsAmount": cents,
        "centsFee": 0,
        "external_id": external_id,
        "displayAmount": cents,
        "displayFee": 0,
        "displayCurrency": "USD",
    }


def proof_of(bank: Bank, payment_hash: str) -> dict[str, Any]:
    """Metadata apart from the legs: the hash, and the preimage of the invoice's document."""
    document = bank.db[INVOICES].find_one({"_id": payment_hash})
    assert document is not None
    return {"hash": payment_hash, "revealedPreImage": document["secret"], "__v": 0}


def test_ln_receive_to_btc(bank: Bank) -> None:
    """Lightning B | wallet B."""
    with bank.tellerd.client() as client:
        wallet = client.create_wallet("legs")
        invoice = client.create_invoice(wallet, 12_345, memo="a coffee", external_id="legs-btc")
        bank.pay([invoice])
        bank.wait_balance(wallet, 12_345)
    paid = invoice.payment_hash
    legs, proofs = journal_of(bank, paid, memo="a coffee")
    common = lightning_common(bank, paid, sats=12_345, cents=741, external_id="legs-btc")
    assert legs == [
        common | leg(LIGHTNING, "BTC", debit=12_345),
        common | leg(f"Liabilities:{wallet}", "BTC", credit=12_345),
    ]
    assert proofs == [proof_of(bank, paid)] * 2
    bank.check_books()


def test_ln_receive_to_usd(bank: Bank) -> None:
    """Lightning B, dealerUSD U | dealerBTC B, wallet U."""
    with bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("legs")
        invoice = client.create_dollar_invoice(wallet, 250, memo="a coffee", external_id="legs-usd")
        bank.pay([invoice])
        wait_cents(client, wallet, 250)
    paid = invoice.payment_hash
    dealer_btc, dealer_usd = dealers(bank)
    legs, proofs = journal_of(bank, paid, memo="a coffee")
    common = lightning_common(bank, paid, sats=4_167, cents=250, external_id="legs-usd")
    assert legs == [
        common | leg(LIGHTNING, "BTC", debit=4_167),
        common | leg(dealer_usd, "USD", debit=250),
        common | leg(dealer_btc, "BTC", credit=4_167),
        common | leg(f"Liabilities:{wallet}", "USD", credit=250),
    ]
    assert proofs == [proof_of(bank, paid)] * 4
    bank.check_books()


def on_chain_common(txid: str, vout: int, address: str) -> Leg:
    """Metadata of every leg of an on-chain receive: amounts after the fee, names that Blink's driver writes as null."""
    return {
        "type": "onchain_receipt",
        "pending": False,
        "hash": txid,
        "vout": vout,
        "payee_addresses": [address],
        "request_id": None,
        "external_id": None,
        "satsAmount": DEPOSIT_SAT - FEE_SAT,
        "satsFee": FEE_SAT,
        "centsAmount": DEPOSIT_CENTS - FEE_CENTS,
        "centsFee": FEE_CENTS,
        "displayAmount": DEPOSIT_CENTS - FEE_CENTS,
        "displayFee": FEE_CENTS,
        "displayCurrency": "USD",
    }


def receive(chain: ChainBank, address: str) -> tuple[str, int]:
    """A deposit to this address, settled; its output."""
    txid, vout = chain.send(address, DEPOSIT_SAT)
    chain.wait_state(txid, vout, "detected")
    chain.bitcoind.mine(2)
    chain.wait_state(txid, vout, "settled")
    return txid, vout


def test_onchain_receive_to_btc(shared_chain: ChainBank) -> None:
    """OnChain B | bank owner fB, which is the first leg, wallet B - fB."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("legs-btc")
        address = chain.address(client, wallet)
        txid, vout = receive(chain, address)
        assert client.balance_sat(wallet) == DEPOSIT_SAT - FEE_SAT
    legs, proofs = journal_of(chain.bank, txid, memo="")
    common = on_chain_common(txid, vout, address)
    assert legs == [
        common | leg(f"Liabilities:{chain.bank_owner()}", "BTC", credit=FEE_SAT),
        common | leg(ON_CHAIN, "BTC", debit=DEPOSIT_SAT),
        common | leg(f"Liabilities:{wallet}", "BTC", credit=DEPOSIT_SAT - FEE_SAT),
    ]
    assert not any((proof or {}).get("hash") for proof in proofs), "a txid is no proof of payment"


def test_onchain_receive_to_usd(shared_chain: ChainBank) -> None:
    """OnChain B, dealerUSD U - fU | bank owner fB, dealerBTC B - fB, wallet U - fU."""
    chain = shared_chain
    credited_sat, credited_cents = DEPOSIT_SAT - FEE_SAT, DEPOSIT_CENTS - FEE_CENTS
    with chain.bank.tellerd.client() as client:
        wallet = client.create_dollar_wallet("legs-usd")
        address = chain.address(client, wallet)
        txid, vout = receive(chain, address)
        wait_for(lambda: client.balance_cents(wallet) == credited_cents, "the cents are in the wallet")
    dealer_btc, dealer_usd = dealers(chain.bank)
    legs, proofs = journal_of(chain.bank, txid, memo="")
    common = on_chain_common(txid, vout, address)
    assert legs == [
        common | leg(f"Liabilities:{chain.bank_owner()}", "BTC", credit=FEE_SAT),
        common | leg(ON_CHAIN, "BTC", debit=DEPOSIT_SAT),
        common | leg(dealer_usd, "USD", debit=credited_cents),
        common | leg(dealer_btc, "BTC", credit=credited_sat),
        common | leg(f"Liabilities:{wallet}", "USD", credit=credited_cents),
    ]
    assert not any((proof or {}).get("hash") for proof in proofs), "a txid is no proof of payment"
