"""Deposits: the addresses they are paid to, and how far they are.

Nothing that only one program has derived is given out: tellerd derives an address from the configured key,
bitcoind derives it from the same descriptor, and money can be asked for only where the two agree.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import structlog

from daemon.domain.chain import ChainCursor, Deposit, DepositState
from daemon.domain.errors import BadInput, NotFound, TellerdError
from daemon.domain.identifiers import WalletId, outpoint_of
from daemon.domain.money import Currency
from daemon.domain.ports import AddressSource, DerivedAddress
from daemon.serving import fields, paging
from daemon.serving.api import Api, NotConfigured, OnChain
from daemon.serving.invoice_terms import pricing_of
from daemon.serving.wallets import check_credited, get_wallet

_TOKEN_KIND = "deposits"  # noqa: S105 (names a list, is no secret)

log = structlog.get_logger()


class DerivationsDiffer(TellerdError):
    """bitcoind derives another address from the descriptor than tellerd: nobody may pay to either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenAddress:
    """An address that pays a wallet. `index` is its place below the key, None unless it was made just now."""

    wallet_id: WalletId
    address: str
    index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositView:
    """A deposit as it is now. `confirmations` are counted to the last block in the books, not in the node.

    `fee_sat` is what was taken, or would be; None where another program credited the deposit.
    """

    deposit: Deposit
    confirmations: int
    fee_sat: int | None
    is_dust: bool


def get_address(api: Api, *, wallet_id: str, new: bool) -> GivenAddress:
    """The wallet's newest address if nothing was ever paid to it, else a new one; with `new` always a new one.

    Raises BadInput, NotFound, NotConfigured (also for a dollar wallet without [prices]), DerivationsDiffer,
    NodeRefused, AccountBarred where a new one were needed, and Unavailable (the database, or bitcoind).
    """
    wallet = get_wallet(api, wallet_id)
    if wallet.currency is Currency.USD:
        pricing_of(api)  # without prices its deposits would be held for good
    chain = api.chain()
    if chain.source is None:
        raise NotConfigured("this daemon has no key to derive addresses from; set xpub in [bitcoind]")
    current = None if new else chain.addresses.current(wallet.wallet_id, key_id=chain.source.key_id)
    if current is not None:
        return GivenAddress(wallet_id=wallet.wallet_id, address=current, index=None)
    check_credited(api, wallet)
    derived = _derive_next(chain, chain.source)
    chain.addresses.give(wallet.wallet_id, derived, key_id=chain.source.key_id)
    return GivenAddress(wallet_id=wallet.wallet_id, address=derived.address, index=derived.index)


def _derive_next(chain: OnChain, source: AddressSource) -> DerivedAddress:
    """The address at the key's next index, once bitcoind has derived the same."""
    # Callers repeat while bitcoind is away. An index must not be used up each time: wallet software that restores
    # from the key stops looking after 20 unused addresses (BIP44's gap limit).
    chain.node.tip()
    index = chain.addresses.take_index(key_id=source.key_id)
    derived = source.derive(index)
    of_node = chain.node.derive(source.descriptor, index)
    if of_node != derived.address:
        log.error(
            "address.derivations_differ",
            key_id=source.key_id,
            index=index,
            of_tellerd=derived.address,
            of_bitcoind=of_node,
        )
        raise DerivationsDiffer(
            f"tellerd and bitcoind derive different addresses at index {index} of the configured key, so none is "
            "given out; check xpub and network in the configuration, and report this to tellerd's developers"
        )
    return derived


def list_deposits(
    api: Api, *, wallet_id: str, states: Collection[DepositState | None], page_size: int, page_token: str
) -> tuple[Sequence[DepositView], str]:
    """A page of deposits, newest first by detection, and the next page's token.

    Of one wallet unless `wallet_id` is empty, in any of these states unless there are none; None stands for a
    state that does not exist. Raises BadInput, NotFound, NotConfigured, Unavailable.
    """
    limit = paging.page_size(page_size)
    after = paging.read_token(_TOKEN_KIND, page_token)
    wanted = {_state(state) for state in states}
    chain = api.chain()
    owner = get_wallet(api, wallet_id).wallet_id if wallet_id else None
    page, next_after = chain.deposits.page(wallet_id=owner, states=wanted, after=after, limit=limit)
    # After the deposits: none of them can then be in a block beyond the cursor that they are counted to.
    cursor = chain.deposits.cursor()
    return [_view(chain, deposit, cursor) for deposit in page], paging.make_token(_TOKEN_KIND, next_after)


def get_deposit(api: Api, *, txid: str, vout: int) -> DepositView:
    """One deposit. Raises BadInput, NotFound, NotConfigured, Unavailable."""
    outpoint = outpoint_of(fields.txid(txid), vout)
    chain = api.chain()
    deposit = chain.deposits.get(outpoint)
    if deposit is None:
        raise NotFound(f"txid, vout: there is no deposit {outpoint}")
    return _view(chain, deposit, chain.deposits.cursor())


def _view(chain: OnChain, deposit: Deposit, cursor: ChainCursor | None) -> DepositView:
    booking = deposit.booking
    is_dust = chain.terms.is_dust(deposit.amount_sat) if booking is None else booking.is_dust
    fee_sat: int | None
    if booking is not None:
        fee_sat = booking.fee_sat
    elif deposit.state is DepositState.SETTLED:
        fee_sat = None
    else:
        fee_sat = 0 if is_dust else chain.terms.fee_sat(deposit.amount_sat)
    return DepositView(
        deposit=deposit,
        confirmations=0 if cursor is None else deposit.confirmations(cursor.block.height),
        fee_sat=fee_sat,
        is_dust=is_dust,
    )


def _state(state: DepositState | None) -> DepositState:
    if state is None:
        raise BadInput(field="states", value="unspecified", remedy="give states that deposits have, or none for all")
    return state
