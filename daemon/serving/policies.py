"""The confirmation policy: how deep deposits must be, who changed that, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange, checked_tiers
from daemon.domain.errors import Conflict
from daemon.serving import fields, paging
from daemon.serving.api import Api, OnChain

_TOKEN_KIND = "policies"  # noqa: S105 (names a list, is no secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPage:
    """The policy in force, and a page of its history, newest first."""

    current: ConfirmationPolicy
    history: Sequence[PolicyChange]
    next_page_token: str


def get_confirmation_policy(api: Api, *, page_size: int, page_token: str) -> PolicyPage:
    """The policy for deposits first seen now, and what it was. Raises BadInput, NotConfigured, Unavailable."""
    limit = paging.page_size(page_size)
    before = paging.read_number_token(_TOKEN_KIND, page_token)
    chain = api.chain()
    changes = chain.policies.history(before_version=before, limit=limit + 1)
    position = str(changes[limit - 1].after.version) if len(changes) > limit else None
    return PolicyPage(
        current=_current(chain),
        history=changes[:limit],
        next_page_token=paging.make_token(_TOKEN_KIND, position),
    )


def set_confirmation_policy(
    api: Api,
    *,
    tiers: Sequence[ConfirmationTier],
    changed_by: str,
    reason: str,
    expected_version: int | None,
) -> PolicyChange:
    """The next version of the policy, for deposits first seen from now on.

    Raises BadInput, NotConfigured, Unavailable, and Conflict: the policy is not the expected version, or was
    changed at the same time.
    """
    ordered = checked_tiers(tiers)
    who = fields.words("changed_by", changed_by, fields.MAX_NAME_CHARS)
    why = fields.words("reason", reason, fields.MAX_REASON_CHARS)
    chain = api.chain()
    before = _current(chain)
    if expected_version is not None and expected_version != before.version:
        raise Conflict(
            f"expected_version: {expected_version} is not the policy in force, which is version {before.version}; "
            "call GetConfirmationPolicy and decide again"
        )
    try:
        return chain.policies.change(before=before, tiers=ordered, changed_by=who, reason=why)
    except Conflict:
        raise Conflict(
            f"the policy was changed at the same time, version {before.version} is no longer in force; "
            "call GetConfirmationPolicy and decide again"
        ) from None


def _current(chain: OnChain) -> ConfirmationPolicy:
    return chain.policies.current() or chain.default_policy
