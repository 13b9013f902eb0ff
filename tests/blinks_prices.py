"""Blink's price feed and dealer as real gRPC servers, with the answers that a test sets."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from adapters.prices._pb import dealer_pb2, dealer_pb2_grpc, price_pb2, price_pb2_grpc


@dataclass
class Servers:
    """What the two servers answer with, and what they were asked."""

    price: float = 60_000.0
    ratio: float = 0.0601
    sats: int = 1_670
    cents: int = 59
    later_cents: int = 58
    failure: str = ""
    asked: list[Any] = field(default_factory=list)

    def answer(self, request: Any, context: grpc.ServicerContext, response: Any) -> Any:
        """The response, unless there is a failure to tell."""
        self.asked.append(request)
        if self.failure:
            context.abort(grpc.StatusCode.UNKNOWN, self.failure)
        return response


class Feed(price_pb2_grpc.PriceFeedServicer):
    """Blink's price server."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def GetPrice(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (Blink's name)
        """Dollars per bitcoin."""
        return self.servers.answer(request, context, price_pb2.PriceResponse(price=self.servers.price))


class Dealer(dealer_pb2_grpc.PriceServiceServicer):
    """Stablesats."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers

    def GetCentsFromSatsForImmediateBuy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (as above)
        """What a wallet gets now."""
        response = dealer_pb2.GetCentsFromSatsForImmediateBuyResponse(amount_in_cents=self.servers.cents)
        return self.servers.answer(request, context, response)

    def GetCentsFromSatsForFutureBuy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (as above)
        """What a wallet gets for sats that an invoice asks for."""
        response = dealer_pb2.GetCentsFromSatsForFutureBuyResponse(amount_in_cents=self.servers.later_cents)
        return self.servers.answer(request, context, response)

    def GetSatsFromCentsForFutureBuy(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (as above)
        """What an invoice asks for."""
        response = dealer_pb2.GetSatsFromCentsForFutureBuyResponse(amount_in_satoshis=self.servers.sats)
        return self.servers.answer(request, context, response)

    def GetCentsPerSatsExchangeMidRate(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 (as above)
        """What is shown."""
        response = dealer_pb2.GetCentsPerSatsExchangeMidRateResponse(ratio_in_cents_per_satoshis=self.servers.ratio)
        return self.servers.answer(request, context, response)


@contextmanager
def serving(servers: Servers, *, feed: bool = True, dealer: bool = True, port: int = 0) -> Iterator[str]:
    """One server with the services asked for, until left; gives its address. A port 0 is one that is free."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    if feed:
        price_pb2_grpc.add_PriceFeedServicer_to_server(Feed(servers), server)
    if dealer:
        dealer_pb2_grpc.add_PriceServiceServicer_to_server(Dealer(servers), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
