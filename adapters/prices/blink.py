"""The price of Blink's own servers: its dealer (stablesats) and its price feed, by gRPC (blink-contract.md 2.6).

| asked | with a dealer | without |
| --- | --- | --- |
| mid price, shown beside sats | the dealer's, else the feed's | the feed's |
| sats for cents, cents for sats | the dealer, each time | mid price |

The dealer's price has a spread and may depend on the amount, so it is asked for each.

Both are plain gRPC inside Blink's network, as Blink's core calls them: no TLS, no credentials.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Final

import grpc
import structlog

from adapters.prices._pb import dealer_pb2, dealer_pb2_grpc, price_pb2, price_pb2_grpc
from adapters.prices.jumps import ANY_JUMP
from adapters.prices.refreshed import PriceUnreadable, RefreshedPrice
from daemon.domain.money import SATS_PER_BTC, Price
from daemon.domain.quotes import Deal, Unpriced, UnpricedReason, deal_of

CALL_S: Final = 2.0
"""For one call: a payer and a held HTLC wait for it."""

_RATIO_PRECISION: Final = 1_000_000
"""Blink's core keeps so many parts of a cent per sat, rounded down (toWalletPriceRatio)."""

_MICROCENTS: Final = SATS_PER_BTC * 1_000_000 // _RATIO_PRECISION
"""Millionths of a cent per bitcoin in one such part per sat."""

_MIN_RATIO, _MAX_RATIO = 0.01 * 100 / SATS_PER_BTC, 1e9 * 100 / SATS_PER_BTC
"""Cents per sat: `daemon.domain.money`'s bounds of a price."""

_MAX_AMOUNT: Final = 2_100_000_000_000_000
"""All bitcoin in sats; more, in sats or cents, is no answer but a mistake."""

_MAX_CENTS_PER_SAT: Final = 1_000
_MAX_SATS_PER_CENT: Final = 100_000_000
"""The same bounds for whole amounts."""

_NO_ANSWER: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS: Final = (("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 2_000))

log = structlog.get_logger()


class BlinkPrice(RefreshedPrice):
    """Implements `PriceSource` and `Dealer`; thread-safe. At least one address (host:port) must be given."""

    def __init__(
        self,
        *,
        price_address: str | None,
        dealer_address: str | None,
        refresh_s: float,
        max_age_s: float,
        max_jump_percent: float = ANY_JUMP,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(
            name="blink",
            refresh_s=refresh_s,
            max_age_s=max_age_s,
            max_jump_percent=max_jump_percent,
            clock=clock,
            rng=rng,
        )
        self._channels: list[grpc.Channel] = []
        self._feed = None if price_address is None else price_pb2_grpc.PriceFeedStub(self._channel(price_address))
        self._dealer = (
            None if dealer_address is None else dealer_pb2_grpc.PriceServiceStub(self._channel(dealer_address))
        )

    def close(self) -> None:
        """Ends every call that is under way."""
        for channel in self._channels:
            channel.close()

    def sats_for(self, *, amount_cents: int, expiry_s: int) -> Deal | Unpriced:
        """See `Dealer`."""
        if self._dealer is None:
            return super().sats_for(amount_cents=amount_cents, expiry_s=expiry_s)
        request = dealer_pb2.GetSatsFromCentsForFutureBuyRequest(amount_in_cents=amount_cents, time_in_seconds=expiry_s)
        try:
            answer = self._dealer.GetSatsFromCentsForFutureBuy(request, timeout=CALL_S)
        except grpc.RpcError as error:
            return _refused("GetSatsFromCentsForFutureBuy", error)
        return self._deal(amount_sat=answer.amount_in_satoshis, amount_cents=amount_cents)

    def cents_for(self, *, amount_sat: int, expiry_s: int = 0) -> Deal | Unpriced:
        """See `Dealer`."""
        if self._dealer is None:
            return super().cents_for(amount_sat=amount_sat)
        if expiry_s:
            return self._cents_later(self._dealer, amount_sat, expiry_s)
        request = dealer_pb2.GetCentsFromSatsForImmediateBuyRequest(amount_in_satoshis=amount_sat)
        try:
            answer = self._dealer.GetCentsFromSatsForImmediateBuy(request, timeout=CALL_S)
        except grpc.RpcError as error:
            return _refused("GetCentsFromSatsForImmediateBuy", error)
        return self._deal(amount_sat=amount_sat, amount_cents=answer.amount_in_cents)

    def _cents_later(self, dealer: dealer_pb2_grpc.PriceServiceStub, amount_sat: int, expiry_s: int) -> Deal | Unpriced:
        request = dealer_pb2.GetCentsFromSatsForFutureBuyRequest(
            amount_in_satoshis=amount_sat, time_in_seconds=expiry_s
        )
        try:
            answer = dealer.GetCentsFromSatsForFutureBuy(request, timeout=CALL_S)
        except grpc.RpcError as error:
            return _refused("GetCentsFromSatsForFutureBuy", error)
        return self._deal(amount_sat=amount_sat, amount_cents=answer.amount_in_cents)

    def _deal(self, *, amount_sat: int, amount_cents: int) -> Deal | Unpriced:
        """No sats for cents, more of either than there can be, or a price beyond its bounds is no price. No cents may
        be a rounded fraction of one: whoever credits looks at that."""
        most_cents = min(_MAX_AMOUNT, amount_sat * _MAX_CENTS_PER_SAT)
        most_sat = min(_MAX_AMOUNT, (amount_cents + 1) * _MAX_SATS_PER_CENT - 1)
        if not 0 < amount_sat <= most_sat or amount_cents > most_cents:
            log.warning("dealer.no_price", amount_sat=amount_sat, amount_cents=amount_cents)
            return Unpriced(UnpricedReason.REFUSED)
        return deal_of(amount_sat=amount_sat, amount_cents=amount_cents, source=self._name)

    def _read(self) -> Price:
        problem = ""
        if self._dealer is not None:
            try:
                answer = self._dealer.GetCentsPerSatsExchangeMidRate(
                    dealer_pb2.GetCentsPerSatsExchangeMidRateRequest(), timeout=CALL_S
                )
                return _price(answer.ratio_in_cents_per_satoshis)
            except (grpc.RpcError, PriceUnreadable) as failure:
                problem = f"the dealer: {_text(failure)}"
        if self._feed is not None:
            try:
                found = self._feed.GetPrice(price_pb2.PriceQuery(currency="USD"), timeout=CALL_S).price
                return _price(found / SATS_PER_BTC * 100)
            except (grpc.RpcError, PriceUnreadable) as failure:
                problem = f"{problem}; the price feed: {_text(failure)}".lstrip("; ")
        raise PriceUnreadable(problem)

    def _channel(self, address: str) -> grpc.Channel:
        channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._channels.append(channel)
        return channel


def _price(cents_per_sat: float) -> Price:
    """As Blink's core reads it; the servers speak in floats."""
    if not _MIN_RATIO <= cents_per_sat <= _MAX_RATIO:  # NaN is in no bounds
        raise PriceUnreadable(f"no price within bounds: {cents_per_sat} cents per sat")
    # 0.29 * 1e6 is 289999.99…: what is a whole number but for the last bits of a float is that number.
    parts = math.floor(round(cents_per_sat * _RATIO_PRECISION, 3))
    if parts == 0:
        raise PriceUnreadable(f"{cents_per_sat} cents per sat is less than Blink can tell from nothing")
    return Price(parts * _MICROCENTS)


def _refused(call: str, error: grpc.RpcError) -> Unpriced:
    """Blink's dealer tells why by its text (KnownDealerErrorDetails)."""
    text = _text(error)
    log.warning("dealer.refused", call=call, cause=text)
    if "StalePrice" in text:
        return Unpriced(UnpricedReason.STALE)
    if "No price data available" in text or "No connection established" in text:
        return Unpriced(UnpricedReason.MISSING)
    return Unpriced(UnpricedReason.DEALER_AWAY if _is_away(error) else UnpricedReason.REFUSED)


def _is_away(failure: Exception) -> bool:
    return isinstance(failure, grpc.Call) and failure.code() in _NO_ANSWER


def _text(failure: Exception) -> str:
    if isinstance(failure, grpc.Call):
        return f"{failure.code().name} {(failure.details() or '')[:200]}"
    return str(failure)
