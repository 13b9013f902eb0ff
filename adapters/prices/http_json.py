"""The price read every so often from a JSON document by HTTP."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from http.client import HTTPException
from urllib.error import HTTPError

import structlog
import trio

from daemon.domain.money import Price

FETCH_TIMEOUT_S = 10.0
"""For connecting and for each read: a price service that takes longer is as good as away."""

_MAX_BODY_BYTES = 1_000_000
"""Enough for any ticker; a body beyond it is an error, not a memory problem."""

_MAX_BACKOFF_S = 300.0
"""Longest pause after failures in a row; a service that is back is found within this time."""

log = structlog.get_logger()


class PriceUnreadable(Exception):
    """The service answered nothing that a price can be read from."""


class HttpJsonPrice:
    """Implements `PriceSource`; `run` keeps it fresh. A price older than `max_age_s` is none.

    `json_path` names keys and list indexes from the document's root, joined by dots ("data.amount",
    "rates.0.usd"). The number there is dollars per bitcoin, as JSON number or string.
    """

    def __init__(
        self,
        *,
        url: str,
        json_path: str,
        refresh_s: float,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._url = url  # may hold a key: never logged
        self._json_path = json_path
        self._refresh_s = refresh_s
        self._max_age_s = max_age_s
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 (spreads requests, guards nothing)
        self._latest: tuple[Price, float] | None = None
        self._thread = trio.CapacityLimiter(1)  # one request at a time: a slow service must not pile up threads

    def current(self) -> Price | None:
        """The newest price; None before the first one and when it is too old."""
        if self._latest is None:
            return None
        price, read_at = self._latest
        return price if self._clock() - read_at <= self._max_age_s else None

    async def run(self) -> None:
        """Refreshes until cancelled; a failure is logged and tried again with backoff."""
        failures = 0
        while True:
            try:
                await trio.to_thread.run_sync(self.refresh, limiter=self._thread, abandon_on_cancel=True)
                failures = 0
            except PriceUnreadable as problem:
                failures += 1
                log.warning("price.not_read", cause=str(problem), failures=failures)
            longest_s = max(self._refresh_s, _MAX_BACKOFF_S)
            pause_s = min(self._refresh_s * 2 ** min(failures, 10), longest_s) if failures else self._refresh_s
            await trio.sleep(pause_s * self._rng.uniform(0.9, 1.0))

    def refresh(self) -> None:
        """Reads the price once; blocks. Raises PriceUnreadable and then leaves the former price in place."""
        asked_at = self._clock()  # not when it came: a late answer is not younger for it
        self._latest = read_price(self._fetch(), self._json_path), asked_at

    def _fetch(self) -> bytes:
        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})  # noqa: S310 (http or https: config.py)
        try:
            with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310 (as above)
                body: bytes = response.read(_MAX_BODY_BYTES + 1)
        except HTTPError as answer:
            answer.close()
            raise PriceUnreadable(f"the service answered with status {answer.code}") from None
        except (OSError, HTTPException) as problem:
            raise PriceUnreadable(f"request failed: {type(problem).__name__}") from None
        if len(body) > _MAX_BODY_BYTES:
            raise PriceUnreadable("the answer is too long")
        return body


def read_price(body: bytes, json_path: str) -> Price:
    """The price in a JSON document; raises PriceUnreadable. No float is ever made of it."""
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise PriceUnreadable("the answer is not JSON") from None
    for key in json_path.split("."):
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise PriceUnreadable(f"the answer has nothing at {json_path}") from None
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise PriceUnreadable(f"no number at {json_path}")
    try:
        return Price.from_usd_per_btc(Decimal(value))
    except (InvalidOperation, ValueError):
        raise PriceUnreadable(f"no price within bounds at {json_path}") from None
