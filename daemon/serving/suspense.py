"""Money in suspense, for those who look after it: what there is, and whose it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from daemon.domain.books import SuspenseEntry, SuspenseState
from daemon.domain.errors import AlreadyExists, BadInput, Conflict, InvariantViolation, NotFound, TellerdError
from daemon.domain.money import Currency
from daemon.domain.node_events import SuspenseAssigned
from daemon.domain.outcomes import Assigned, AssignmentProblem, NotAssigned
from daemon.domain.ports import Wallet
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason
from daemon.serving import fields, paging
from daemon.serving.api import Api
from daemon.serving.invoice_terms import NoPrice
from daemon.serving.reconciliation import ANSWER_S, NotInTime
from daemon.serving.wallets import get_wallet

COMMIT_S: Final = 10.0
"""A caller without a deadline waits this long for a commit, which takes milliseconds, or the election of a primary."""

MAX_KEY_CHARS: Final = 250
"""Longer than any key: the longest is of an AMP set's money, two times 64 digits and a pubkey."""

_TOKEN_KIND = "suspense"  # noqa: S105 (names a list, is no secret)


class NotAssignable(TellerdError):
    """Money in suspense cannot become the wallet's that the caller names."""


def list_suspense(
    api: Api, *, states: Sequence[SuspenseState | None], page_size: int, page_token: str
) -> tuple[Sequence[SuspenseEntry], str]:
    """A page of entries, newest receipt first, and the next page's token. `states` has at most one: none given means
    all, None one that does not exist. Raises BadInput, Unavailable."""
    if None in states:
        raise BadInput(field="state", value=list(states), remedy=f"give one of {', '.join(SuspenseState)}, or none")
    limit = paging.page_size(page_size)
    after = paging.read_token(_TOKEN_KIND, page_token)
    page, next_after = api.suspense.page(state=next(iter(states), None), after=after, limit=limit)
    return page, paging.make_token(_TOKEN_KIND, next_after)


def assign_suspense(
    api: Api, *, entry_key: str, wallet_id: str, assigned_by: str, reason: str, remaining_s: float | None
) -> SuspenseEntry:
    """Money in suspense is the wallet's; returns the entry as it stands in the books.

    `remaining_s` is what the caller's deadline leaves, None without one. Raises BadInput, NotFound, AlreadyExists,
    NotAssignable, NoPrice, Conflict, NotInTime, Unavailable.
    """
    key = fields.words("entry_key", entry_key, MAX_KEY_CHARS)
    by = fields.words("assigned_by", assigned_by, fields.MAX_NAME_CHARS)
    why = fields.words("reason", reason, fields.MAX_REASON_CHARS)
    wallet = get_wallet(api, wallet_id)
    entry = api.suspense.get(key)
    if entry is None:
        raise NotFound(f"entry_key: nothing in suspense has the key {key!r}; ListSuspense shows what there is")
    asked_at_ns = time.monotonic_ns()
    deal = _deal(api, wallet, entry)
    asked = SuspenseAssigned(
        key=key,
        wallet_id=wallet.wallet_id,
        by=by,
        reason=why,
        at_ms=int(api.now().timestamp() * 1000),
        payment_hash=entry.payment_hash or None,
        outpoint=entry.outpoint,
        deal=deal,
        asked_at_ns=asked_at_ns,
    )
    timeout_s = COMMIT_S if remaining_s is None else max(remaining_s - ANSWER_S, 0.0)
    outcome = api.decider.ask(asked, timeout_s=timeout_s)
    if outcome is None:
        raise NotInTime(f"it was not in the books after {timeout_s:.1f} s, and may be later; repeat the call")
    if isinstance(outcome, Assigned):
        return outcome.entry
    if isinstance(outcome, NotAssigned):
        raise _refusal(outcome, wallet, deal)
    raise InvariantViolation(f"posting has made {outcome} of an assignment")


def _deal(api: Api, wallet: Wallet, entry: SuspenseEntry) -> Deal | Unpriced | None:
    """What a dollar wallet gets for the entry's sats now; None where nobody has to be asked."""
    if wallet.currency is not Currency.USD or entry.state is not SuspenseState.WAITING or api.pricing is None:
        return None
    return api.pricing.cents_for(amount_sat=entry.amount_sat) if entry.amount_sat else None


def _refusal(refused: NotAssigned, wallet: Wallet, deal: Deal | Unpriced | None) -> TellerdError:
    entry, wallet_id = refused.entry, wallet.wallet_id
    match refused.problem:
        case AssignmentProblem.NO_ENTRY:
            return NotFound(f"entry_key: nothing in suspense has the key {refused.key!r}")
        case AssignmentProblem.NO_WALLET:
            return NotFound(f"wallet_id: there is no wallet {wallet_id}")
        case AssignmentProblem.ASSIGNED:
            owner = entry.assigned_to if entry is not None else None
            return AlreadyExists(
                f"entry_key: it was assigned to wallet {owner} before, and is not taken back from there; "
                "if that was a mistake, move the money from that wallet"
            )
        case AssignmentProblem.REVERSED:
            source = f" from wallet {entry.assigned_to}" if entry is not None and entry.assigned_to is not None else ""
            return NotAssignable(
                f"a reorg took this deposit back{source}; when it confirms again it has another entry: see ListSuspense"
            )
        case AssignmentProblem.BARRED:
            return NotAssignable(f"the account of wallet {wallet_id} is locked or closed; give another wallet")
        case AssignmentProblem.BOOKED_ELSEWHERE:
            return NotAssignable(
                "another program has credited this payment to a wallet already, so the books have it twice: "
                "find its journal by the payment hash, or the txid, and correct that one"
            )
        case AssignmentProblem.NO_DEALER:
            return NotAssignable("there is no dealer to give dollars; give a wallet in sats, or run `tellerd init`")
        case AssignmentProblem.NO_PRICE:
            unpriced = deal if isinstance(deal, Unpriced) else Unpriced(UnpricedReason.STALE)
            reason = "no [prices] in the configuration" if deal is None else unpriced.reason.value
            return NoPrice(f"there is no price for dollars now ({reason}); repeat the call when there is one")
        case AssignmentProblem.CHANGED:
            return Conflict("more money came to this entry at the same moment; repeat the call")
        case AssignmentProblem.UNDER_ONE_CENT:
            return NotAssignable("it is worth less than a cent; give a wallet in sats, as the account's own")
