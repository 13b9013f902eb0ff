"""The confirmation policy: one document a version, never changed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import errors
from pymongo.database import Database

from adapters.mongo import collections as names
from adapters.mongo.documents import Document, milliseconds
from adapters.mongo.errors import mapped
from daemon.domain.deposit_terms import ConfirmationPolicy, ConfirmationTier, PolicyChange
from daemon.domain.errors import Conflict


class MongoPolicies:
    """`daemon.domain.ports.Policies` over one database."""

    def __init__(self, db: Database[Document]) -> None:
        self._db = db

    def current(self) -> ConfirmationPolicy | None:
        """See the port."""
        with mapped("reading the policy"):
            return newest_policy(self._db)

    def change(
        self, *, before: ConfirmationPolicy, tiers: tuple[ConfirmationTier, ...], changed_by: str, reason: str
    ) -> PolicyChange:
        """See the port."""
        change = PolicyChange(
            before=before,
            after=ConfirmationPolicy(version=before.version + 1, tiers=tiers),
            changed_by=changed_by,
            reason=reason,
            changed_at_ms=time.time_ns() // 1_000_000,
        )
        with mapped("changing the policy"):
            newest = newest_policy(self._db)
            if before.version != (newest.version if newest else 0):
                raise _changed_meanwhile(before)
            try:
                self._db[names.POLICIES].insert_one(_change_of(change))
            except errors.DuplicateKeyError:
                raise _changed_meanwhile(before) from None
        return change

    def history(self, *, before_version: int | None, limit: int) -> Sequence[PolicyChange]:
        """See the port."""
        query: Document = {} if before_version is None else {"_id": {"$lt": before_version}}
        with mapped("reading the policy's history"):
            return [_change_from(found) for found in self._db[names.POLICIES].find(query).sort("_id", -1).limit(limit)]


def newest_policy(db: Database[Document]) -> ConfirmationPolicy | None:
    """The newest policy that was set, None if none ever was."""
    document = db[names.POLICIES].find_one({}, {"tiers": 1}, sort=[("_id", -1)])
    return _policy_from(document["_id"], document["tiers"]) if document else None


def _changed_meanwhile(before: ConfirmationPolicy) -> Conflict:
    return Conflict(f"version {before.version} of the policy is not the newest any more")


def _change_of(change: PolicyChange) -> Document:
    return {
        "_id": change.after.version,
        "tiers": _tiers_of(change.after),
        "before": {"version": change.before.version, "tiers": _tiers_of(change.before)},
        "changed_by": change.changed_by,
        "reason": change.reason,
        "changed_at": DatetimeMS(change.changed_at_ms),
    }


def _change_from(document: Document) -> PolicyChange:
    before = document["before"]
    return PolicyChange(
        before=_policy_from(before["version"], before["tiers"]),
        after=_policy_from(document["_id"], document["tiers"]),
        changed_by=document["changed_by"],
        reason=document["reason"],
        changed_at_ms=milliseconds(document["changed_at"]),
    )


def _tiers_of(policy: ConfirmationPolicy) -> list[Document]:
    return [{"from_sat": Int64(tier.from_sat), "confirmations": tier.confirmations} for tier in policy.tiers]


def _policy_from(version: int, tiers: list[Document]) -> ConfirmationPolicy:
    return ConfirmationPolicy(
        version=version,
        tiers=tuple(
            ConfirmationTier(from_sat=int(tier["from_sat"]), confirmations=tier["confirmations"]) for tier in tiers
        ),
    )
