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

from adapters.prices.jumps import ANY_JUMP
from adapters.prices.refreshed import PriceUnreadable, RefreshedPrice
from daemon.domain.money import Price

__all__ = ["HttpJsonPrice", "PriceUnreadable", "read_price"]

FETCH_TIMEOUT_S = 10.0
"""For connecting and for each read: a price service that takes longer is as good as away."""

_MAX_BODY_BYTES = 1_000_000
"""Enough for any ticker; a body beyond it is an error, not a memory problem."""


class HttpJsonPrice(RefreshedPrice):
    """A `RefreshedPrice`.

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
        max_jump_percent: float = ANY_JUMP,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            name="http",
            refresh_s=refresh_s,
            max_age_s=max_age_s,
            max_jump_percent=max_jump_percent,
            clock=clock,
            rng=rng,
        )
        self._url = url  # may hold a key: never logged
        self._json_path = json_path

    def _read(self) -> Price:
        return read_price(self._fetch(), self._json_path)

    def _fetch(self) -> bytes:
        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})  # noqa: S310 (http or https: config.py)
        try:
            with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as response:  # noqa: S310 (as above)
                body: bytes = response.read(_MAX_BODY_BYTES + 1)
        except HTTPError as answer:
            answer.close()
            raise PriceUnreadable(f"the service answered with status {answer.code}") from None
        except (OSError, HTTPException, ValueError) as problem:  # ValueError: a redirect to what is no address
            raise PriceUnreadable(f"request failed: {type(problem).__name__}") from None
        if len(body) > _MAX_BODY_BYTES:
            raise PriceUnreadable("the answer is too long")
        return body


def read_price(body: bytes, json_path: str) -> Price:
    """The price in a JSON document; raises PriceUnreadable. No float is ever made of it."""
    try:
        value = json.loads(body, parse_float=Decimal)
    except (ValueError, InvalidOperation, RecursionError):  # InvalidOperation: an exponent beyond any Decimal's
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
