"""On-chain deposits on a real bitcoind: from the mempool to the wallet, or gone before that."""

from __future__ import annotations

from adapters.grpc_api._pb.tellerd.v1 import admin_pb2, deposit_pb2
from adapters.mongo.collections import DEPOSITS
from regtest.tellerd import CALL_S, Client
from tests.e2e.bank import wait_for
from tests.e2e.chain_bank import ChainBank
from tests.e2e.coins import make_coin, spend

SHARED_CHAIN = {
    # What was in the mempool is gone after a restart: the only sure way to make bitcoind evict a tx.
    "flags": ("-persistmempool=0",),
    "sections": """
[deposits]
confirmations = [{ from_sat = 0, confirmations = 2 }, { from_sat = 2_000_000, confirmations = 4 }]
""",
}

COINBASE_CONFIRMATIONS = 100


def test_a_deposit_goes_from_the_mempool_to_the_wallet(shared_chain: ChainBank) -> None:
    """Detected in the mempool, confirmed in a block, settled two deep, less the fee."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("mempool")
        txid, vout = chain.send(chain.address(client, wallet), 500_000)
        chain.wait_state(txid, vout, "detected")
        chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "confirmed")
        assert client.balance_sat(wallet) == 0
        chain.bitcoind.mine(1)
        chain.wait_state(txid, vout, "settled")
        assert client.balance_sat(wallet) == 497_000
    assert chain.told(txid) == ["deposit.detected", "deposit.confirmed", "deposit.settled"]
    assert chain.booking_keys(txid) == [f"chain:{txid}:{vout}:1"]


def test_the_feed_tells_each_step_with_its_own_payload_and_without_gaps(shared_chain: ChainBank) -> None:
    """What a subscriber sees of one deposit: place, amounts, block and journal."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("feed")
        address = chain.address(client, wallet)
        txid, vout = chain.send(address, 500_000)
        chain.wait_state(txid, vout, "detected")
        block, _ = chain.bitcoind.mine(2)
        chain.wait_state(txid, vout, "settled")
        detected, confirmed, settled = chain.events(client, wallet, 3)
        height = chain.bitcoind.height() - 1
    assert [event.type for event in (detected, confirmed, settled)] == chain.told(txid)
    assert detected.sequence < confirmed.sequence < settled.sequence
    assert settled.id == f"chain:{txid}:{vout}:1#deposit.settled"
    for told in (detected.deposit_detected, confirmed.deposit_confirmed, settled.deposit_settled):
        assert (told.txid, told.vout, told.wallet_id, told.address) == (txid, vout, wallet, address)
        assert told.amount_sat == 500_000
    assert detected.deposit_detected.confirmations_required == 2
    assert not detected.deposit_detected.again
    assert (confirmed.deposit_confirmed.block_height, confirmed.deposit_confirmed.block_hash) == (height, block)
    booked = settled.deposit_settled
    assert (booked.fee_sat, booked.credited_sat, booked.is_dust, booked.settlement) == (3_000, 497_000, False, 1)
    assert (booked.block_height, booked.block_hash, len(booked.journal_id)) == (height, block, 24)
    everything = chain.bank.feed(after_sequence=detected.sequence - 1, count=settled.sequence - detected.sequence + 1)
    assert [event.sequence for event in everything] == list(range(detected.sequence, settled.sequence + 1))


def test_confirmations_are_asked_for_by_amount_and_counted_block_by_block(shared_chain: ChainBank) -> None:
    """The tiers of the configuration: just below the step two, from it on four; GetDeposit says n of m."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, marker = client.create_wallet("tiers"), client.create_wallet("tiers-marker")
        small = chain.send(chain.address(client, wallet), 1_999_999)
        large = chain.send(chain.address(client, wallet, new=True), 2_000_000)
        seen = []
        for outpoint in (small, large):
            chain.wait_state(*outpoint, "detected")
        for confirmations in range(5):
            if confirmations:
                chain.bitcoind.mine(1)
            chain.wait_credited(client, marker)
            seen.append([_standing(chain, client, outpoint) for outpoint in (small, large)])
    detected, confirmed, settled = (
        deposit_pb2.DEPOSIT_STATE_DETECTED,
        deposit_pb2.DEPOSIT_STATE_CONFIRMED,
        deposit_pb2.DEPOSIT_STATE_SETTLED,
    )
    assert [one for one, _ in seen] == [
        (detected, 0, 2),
        (confirmed, 1, 2),
        (settled, 2, 2),
        (settled, 3, 2),
        (settled, 4, 2),
    ]
    assert [one for _, one in seen] == [
        (detected, 0, 4),
        (confirmed, 1, 4),
        (confirmed, 2, 4),
        (confirmed, 3, 4),
        (settled, 4, 4),
    ]


def _standing(chain: ChainBank, client: Client, outpoint: tuple[str, int]) -> tuple[int, int, int]:
    deposit = chain.deposit(client, *outpoint)
    return deposit.state, deposit.confirmations, deposit.confirmations_required


def test_a_policy_set_over_the_api_counts_for_deposits_first_seen_afterwards(shared_chain: ChainBank) -> None:
    """The deposit seen before keeps its two confirmations; who, when, old and new stand in the history for good."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("policy")
        before = _policy(client).policy
        earlier = chain.send(chain.address(client, wallet), 100_000)
        chain.wait_state(*earlier, "detected")
        change = _set_policy(client, [(0, 3)], reason="a test asks for more")
        later = chain.send(chain.address(client, wallet), 100_000)
        chain.wait_state(*later, "detected")
        restored = _set_policy(client, [(tier.from_sat, tier.confirmations) for tier in before.tiers], reason="undo")
        assert chain.deposit(client, *earlier).confirmations_required == 2
        assert chain.deposit(client, *later).confirmations_required == 3
        chain.bitcoind.mine(2)
        chain.wait_state(*earlier, "settled")
        chain.wait_state(*later, "confirmed")
        chain.bitcoind.mine(1)
        chain.wait_state(*later, "settled")
        history = _policy(client).history
    assert list(history[:2]) == [restored, change]
    assert (change.changed_by, change.reason, change.version) == ("tests", "a test asks for more", before.version + 1)
    assert change.old_policy == before
    assert [(tier.from_sat, tier.confirmations) for tier in change.new_policy.tiers] == [(0, 3)]
    assert change.changed_at.seconds > 0
    assert restored.old_policy == change.new_policy


def _policy(client: Client) -> admin_pb2.GetConfirmationPolicyResponse:
    return client.admin.GetConfirmationPolicy(admin_pb2.GetConfirmationPolicyRequest(), timeout=CALL_S)


def _set_policy(client: Client, tiers: list[tuple[int, int]], *, reason: str) -> admin_pb2.ConfirmationPolicyChange:
    request = admin_pb2.SetConfirmationPolicyRequest(
        tiers=[admin_pb2.ConfirmationTier(from_sat=from_sat, confirmations=asked) for from_sat, asked in tiers],
        changed_by="tests",
        reason=reason,
    )
    return client.admin.SetConfirmationPolicy(request, timeout=CALL_S).change


def test_fee_and_dust_are_booked_so_that_nothing_is_lost(shared_chain: ChainBank) -> None:
    """Flat fee, basis points from a million sats on, dust whole to its own account; the rest to the wallet."""
    chain = shared_chain
    dust, just_enough, small, large = 4_999, 5_000, 999_999, 1_000_000
    with chain.bank.tellerd.client() as client:
        wallet, owner = client.create_wallet("fees"), chain.bank_owner()
        accounts = ("Assets:OnChain", "Liabilities:Teller:Dust", f"Liabilities:{owner}", f"Liabilities:{wallet}")
        before = [chain.account_sat(client, account) for account in accounts]
        address = chain.address(client, wallet)
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(address, n) for n in (dust, just_enough, small, large)])
        chain.broadcast(tx)
        for vout in range(4):
            chain.wait_state(tx.txid, vout, "detected")
        assert chain.deposit(client, tx.txid, 0).is_dust
        chain.bitcoind.mine(2)
        for vout in range(4):
            chain.wait_state(tx.txid, vout, "settled")
        booked = [chain.account_sat(client, account) - was for account, was in zip(accounts, before, strict=True)]
        assert [chain.deposit(client, tx.txid, vout).fee_sat for vout in range(4)] == [0, 3_000, 3_000, 3_000]
    assert booked == [-(dust + just_enough + small + large), dust, 9_000, just_enough + small + large - 9_000]


def test_what_is_under_way_is_shown_to_blinks_readers_until_it_is_settled(shared_chain: ChainBank) -> None:
    """walletonchainpendingreceives: from the mempool on, after the fee, in sats and dollars; dust is never there."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("pending")
        address = chain.address(client, wallet)
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(address, 4_000), (address, 500_000)])
        chain.broadcast(tx)
        for vout in range(2):
            chain.wait_state(tx.txid, vout, "detected")
        (shown,) = chain.pending(wallet)
        created_at = shown.pop("createdAt")
        assert created_at == chain.bank.db[DEPOSITS].find_one({"_id": f"{tx.txid}:1"})["detected_at"]  # type: ignore[index]  # it is there
        del shown["_id"]
        assert shown == {
            "walletId": wallet,
            "address": address,
            "transactionHash": tx.txid,
            "vout": 1,
            "walletAmount": 497_000,
            "walletFee": 3_000,
            "walletCurrency": "BTC",
            "displayAmount": "298.20",
            "displayFee": "1.80",
            "displayPriceBase": "60000000000",
            "displayPriceOffset": "12",
            "displayPriceCurrency": "USD",
            "__v": 0,
        }
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 1, "confirmed")
        assert [one["vout"] for one in chain.pending(wallet)] == [1]
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 1, "settled")
        assert chain.pending(wallet) == []


def test_one_tx_pays_an_address_twice_and_another_wallet(shared_chain: ChainBank) -> None:
    """Each output is a deposit of its own."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        first, second = client.create_wallet("twice"), client.create_wallet("once")
        twice, once = chain.address(client, first), chain.address(client, second)
        outputs = [(twice, 100_000), (once, 200_000), (twice, 100_000)]
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), outputs)
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 2, "detected")
        chain.bitcoind.mine(2)
        for vout in range(3):
            chain.wait_state(tx.txid, vout, "settled")
        assert (client.balance_sat(first), client.balance_sat(second)) == (194_000, 197_000)
    assert sorted(chain.booking_keys(tx.txid)) == [f"chain:{tx.txid}:{vout}:1" for vout in range(3)]


def test_a_deposit_first_seen_in_a_block_is_credited(shared_chain: ChainBank) -> None:
    """A miner's own tx that was never in a mempool: detected and confirmed at once."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("block")
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(chain.address(client, wallet), 500_000)])
        chain.mine_txs(tx)
        chain.wait_state(tx.txid, 0, "confirmed")
        chain.bitcoind.mine(1)
        chain.wait_state(tx.txid, 0, "settled")
        assert client.balance_sat(wallet) == 497_000
    assert chain.told(tx.txid) == ["deposit.detected", "deposit.confirmed", "deposit.settled"]


def test_two_deposits_in_one_block_to_one_wallet_are_both_credited(shared_chain: ChainBank) -> None:
    """Both change the same balance in one commit."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("two")
        address = chain.address(client, wallet)
        coins = [make_coin(chain.bitcoind) for _ in range(2)]
        txs = [spend(chain.bitcoind, coin, [(address, 500_000)]) for coin in coins]
        chain.mine_txs(*txs)
        chain.bitcoind.mine(1)
        for tx in txs:
            chain.wait_state(tx.txid, 0, "settled")
        assert client.balance_sat(wallet) == 994_000


def test_a_coinbase_needs_a_hundred_confirmations(shared_chain: ChainBank) -> None:
    """However few the policy asks for: before that consensus lets nobody spend it."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("coinbase")
        (block,) = chain.bitcoind.mine(1, chain.address(client, wallet))
        coinbase = chain.bitcoind.rpc("getblock", block, 2)["tx"][0]
        txid, amount_sat = coinbase["txid"], int(coinbase["vout"][0]["value"].scaleb(8))
        chain.wait_state(txid, 0, "confirmed")
        chain.bitcoind.mine(COINBASE_CONFIRMATIONS - 2)
        chain.wait_credited(client, client.create_wallet("coinbase-marker"))
        waiting = chain.deposit(client, txid, 0)
        assert (waiting.confirmations, waiting.confirmations_required) == (99, COINBASE_CONFIRMATIONS)
        assert waiting.state == deposit_pb2.DEPOSIT_STATE_CONFIRMED
        assert client.balance_sat(wallet) == 0
        chain.bitcoind.mine(1)
        chain.wait_state(txid, 0, "settled")
        assert client.balance_sat(wallet) == amount_sat - _fee_sat(amount_sat)


def _fee_sat(amount_sat: int) -> int:
    """30 basis points, rounded half down (blink-contract.md 2.6)."""
    return (amount_sat * 30 + 4_999) // 10_000


def test_a_replaced_tx_is_dropped_and_its_replacement_credited_once(shared_chain: ChainBank) -> None:
    """bumpfee: the old deposit says by which tx it was replaced."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("bumped")
        address = chain.address(client, wallet)
        old, old_vout = chain.send(address, 500_000)
        chain.wait_state(old, old_vout, "detected")
        new = chain.bitcoind.rpc("bumpfee", old)["txid"]
        chain.wait_state(old, old_vout, "dropped")
        new_vout = chain.vout(new, address)
        chain.wait_state(new, new_vout, "detected")
        dropped = chain.deposit(client, old, old_vout)
        assert (dropped.dropped_reason, dropped.replaced_by) == ("replaced", new)
        assert [one["transactionHash"] for one in chain.pending(wallet)] == [new]
        chain.bitcoind.mine(2)
        chain.wait_state(new, new_vout, "settled")
        assert client.balance_sat(wallet) == 497_000
        told = next(one for one in chain.events(client, wallet, 3) if one.type == "deposit.dropped").deposit_dropped
    assert (told.txid, told.reason, told.replaced_by) == (old, "replaced", new)
    assert chain.state(old, old_vout) == "dropped"


def test_a_deposit_that_a_block_double_spends_is_dropped(shared_chain: ChainBank) -> None:
    """The payer mines the same coin back to himself; nothing is credited."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("cheated")
        coin = make_coin(chain.bitcoind)
        tx = spend(chain.bitcoind, coin, [(chain.address(client, wallet), 500_000)])
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 0, "detected")
        chain.mine_txs(spend(chain.bitcoind, coin))
        chain.wait_state(tx.txid, 0, "dropped")
        assert chain.deposit(client, tx.txid, 0).dropped_reason == "double_spent"
        assert chain.pending(wallet) == []
        assert client.balance_sat(wallet) == 0
    assert chain.told(tx.txid) == ["deposit.detected", "deposit.dropped"]


def test_an_evicted_deposit_is_detected_again_when_it_is_sent_again(shared_chain: ChainBank) -> None:
    """Dropped when bitcoind has lost it, though the coin is still there; settled once in the end."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("evicted")
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(chain.address(client, wallet), 500_000)])
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 0, "detected")
        chain.bitcoind.restart()
        chain.wait_state(tx.txid, 0, "dropped")
        assert chain.deposit(client, tx.txid, 0).dropped_reason == "evicted"
        assert chain.pending(wallet) == []
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 0, "detected")
        assert len(chain.pending(wallet)) == 1
        chain.bitcoind.mine(2)
        chain.wait_state(tx.txid, 0, "settled")
        assert client.balance_sat(wallet) == 497_000
        again = chain.events(client, wallet, 3)[2]
    assert again.deposit_detected.again
    assert chain.told(tx.txid) == [
        "deposit.detected",
        "deposit.dropped",
        "deposit.detected",
        "deposit.confirmed",
        "deposit.settled",
    ]
    assert chain.booking_keys(tx.txid) == [f"chain:{tx.txid}:0:1"]


def test_deposits_are_listed_by_wallet_and_state_page_by_page(shared_chain: ChainBank) -> None:
    """Newest first; other wallets' are not among them."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet, other = client.create_wallet("list"), client.create_wallet("other")
        txids = []
        for owner in (wallet, wallet, other, wallet):
            outpoint = chain.send(chain.address(client, owner), 100_000)
            chain.wait_state(*outpoint, "detected")
            txids.append(outpoint[0])
        newest_first = [txids[3], txids[1], txids[0]]
        first, token = _page(client, wallet_id=wallet, page_size=2)
        rest, end = _page(client, wallet_id=wallet, page_size=2, page_token=token)
        assert ([*first, *rest], end) == (newest_first, "")
        assert len(first) == 2
        detected, settled = deposit_pb2.DEPOSIT_STATE_DETECTED, deposit_pb2.DEPOSIT_STATE_SETTLED
        assert _page(client, wallet_id=wallet, states=[settled]) == ([], "")
        assert _page(client, wallet_id=wallet, states=[detected]) == (newest_first, "")
        chain.bitcoind.mine(2)
        wait_for(
            lambda: _page(client, wallet_id=wallet, states=[settled]) == (newest_first, ""), "all of them are settled"
        )
        everybody, _ = _page(client, page_size=4)
    assert everybody == [txids[3], txids[2], txids[1], txids[0]]


def _page(client: Client, **asked: object) -> tuple[list[str], str]:
    request = deposit_pb2.ListDepositsRequest(**asked)  # type: ignore[arg-type]  # fields by name
    answer = client.deposits.ListDeposits(request, timeout=CALL_S)
    return [one.txid for one in answer.deposits], answer.next_page_token


def test_an_address_of_another_program_does_not_count_unless_configured(shared_chain: ChainBank) -> None:
    """That program may credit it itself: without `foreign_addresses` only tellerd's own addresses are watched."""
    chain = shared_chain
    with chain.bank.tellerd.client() as client:
        wallet = client.create_wallet("off")
        foreign = chain.bitcoind.new_address()
        chain.write_address(wallet, foreign)
        own = chain.address(client, wallet, new=True)
        tx = spend(chain.bitcoind, make_coin(chain.bitcoind), [(foreign, 100_000), (own, 200_000)])
        chain.broadcast(tx)
        chain.wait_state(tx.txid, 1, "detected")
        chain.bitcoind.mine(2)
        chain.wait_state(tx.txid, 1, "settled")
        assert client.balance_sat(wallet) == 197_000
    assert chain.state(tx.txid, 0) is None
