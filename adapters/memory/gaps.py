"""`Gaps` in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from adapters.memory.state import Tables
from daemon.domain.books import Gap, GapState
from daemon.domain.errors import BadInput


class MemoryGaps:
    """See `daemon.domain.ports.Gaps`."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def put(self, gaps: Collection[Gap]) -> None:
        with self._tables.lock:
            for gap in gaps:
                known = self._tables.gaps.get(gap.key)
                seen_at_ms = gap.seen_at_ms if known is None else known.seen_at_ms
                self._tables.gaps[gap.key] = replace(gap, seen_at_ms=seen_at_ms)

    def get(self, keys: Collection[str]) -> Mapping[str, Gap]:
        with self._tables.lock:
            return {key: replace(self._tables.gaps[key]) for key in keys if key in self._tables.gaps}

    def by_kind(self, kind: str, *, states: Collection[GapState], limit: int) -> Sequence[Gap]:
        return [gap for gap in self._newest_first() if gap.kind == kind and gap.state in states][:limit]

    def page(self, *, states: Collection[GapState], after: str | None, limit: int) -> tuple[Sequence[Gap], str | None]:
        place = None if after is None else _place_from(after)
        found = [
            gap
            for gap in self._newest_first()
            if (not states or gap.state in states) and (place is None or _place_of(gap) < place)
        ]
        page = found[:limit]
        return page, f"{page[-1].seen_at_ms}:{page[-1].key}" if len(found) > limit else None

    def totals(self) -> Mapping[tuple[str, GapState], tuple[int, int]]:
        sums: dict[tuple[str, GapState], tuple[int, int]] = {}
        for gap in self._newest_first():
            if gap.state is not GapState.CLOSED:
                gaps, amount_msat = sums.get((gap.kind, gap.state), (0, 0))
                sums[gap.kind, gap.state] = (gaps + 1, amount_msat + gap.amount_msat)
        return sums

    def _newest_first(self) -> list[Gap]:
        with self._tables.lock:
            return sorted(map(replace, self._tables.gaps.values()), key=_place_of, reverse=True)


def _place_of(gap: Gap) -> tuple[int, str]:
    return gap.seen_at_ms, gap.key


def _place_from(token: str) -> tuple[int, str]:
    at_ms, separator, key = token.partition(":")
    if not (separator and at_ms.isascii() and at_ms.isdecimal()):
        raise BadInput(field="page_token", value=token, remedy="use next_page_token of the page before")
    return int(at_ms), key
