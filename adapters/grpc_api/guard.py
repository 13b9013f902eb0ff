"""What stands around every call: the gate, the places for streams, error mapping, metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc
import structlog

from adapters.grpc_api.status_codes import code_of
from daemon.domain.errors import InvariantViolation, TellerdError
from daemon.serving.gate import Gate

_ALWAYS_ANSWERED = ("/grpc.reflection.", "/tellerd.v1.AdminService/GetStatus")
"""By a standby and while draining, too."""

_HEALTH = "/grpc.health."
"""Left alone: it holds no thread while it watches, and its answers must not depend on anything."""

log = structlog.get_logger()


class ApiMetrics(Protocol):
    """What is counted about calls; `daemon.serving.metrics.PrometheusMetrics`."""

    def call_ended(self, *, method: str, code: str, duration_s: float | None) -> None:
        """A call ended; `duration_s` is None for streams."""
        ...

    def stream_opened(self, method: str) -> None:
        """A stream began."""
        ...

    def stream_ended(self, method: str) -> None:
        """It ended."""
        ...


class Guard(grpc.ServerInterceptor):
    """Wraps the methods of our services; `on_broken` is told of a broken invariant and ends the process."""

    def __init__(
        self, *, gate: Gate, metrics: ApiMetrics, max_streams: int, on_broken: Callable[[InvariantViolation], None]
    ) -> None:
        self._gate = gate
        self._metrics = metrics
        self._max_streams = max_streams
        self._places = threading.BoundedSemaphore(max_streams)
        self._on_broken = on_broken

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler that grpc would call, wrapped."""
        method = handler_call_details.method
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(_HEALTH):
            return handler
        codecs = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._guard_call(method, handler.unary_unary), *codecs)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(method, handler.unary_stream), *codecs)
        if handler.stream_stream is not None:  # reflection's only method
            return grpc.stream_stream_rpc_method_handler(self._guard_stream(method, handler.stream_stream), *codecs)
        raise InvariantViolation(f"{method} is of a kind that no service of ours has")

    def _guard_call(
        self, method: str, behaviour: Callable[[Any, grpc.ServicerContext], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            code, text = grpc.StatusCode.OK, ""
            try:
                self._check_gate(method)
                return behaviour(request, context)
            except Exception as error:  # noqa: BLE001 (told to the caller, and to the process where it matters)
                code, text = self._explain(method, error)
            finally:
                duration_s = time.perf_counter() - started
                self._metrics.call_ended(method=_short(method), code=code.name, duration_s=duration_s)
            return context.abort(code, text)

        return call

    def _guard_stream(
        self, method: str, behaviour: Callable[[Any, grpc.ServicerContext], Iterator[Any]]
    ) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            if not self._places.acquire(blocking=False):
                code = grpc.StatusCode.RESOURCE_EXHAUSTED
                self._metrics.call_ended(method=_short(method), code=code.name, duration_s=None)
                context.abort(code, f"{self._max_streams} streams are open, which is the bound; close one first")
            self._metrics.stream_opened(_short(method))
            code, text = grpc.StatusCode.CANCELLED, ""  # stays so when the caller goes away
            try:
                self._check_gate(method)
                yield from behaviour(request, context)
                if context.is_active():
                    code = grpc.StatusCode.OK
            except Exception as error:  # noqa: BLE001 (as above)
                code, text = self._explain(method, error)
            finally:
                self._places.release()
                self._metrics.stream_ended(_short(method))
                self._metrics.call_ended(method=_short(method), code=code.name, duration_s=None)
            if text:
                context.abort(code, text)

        return stream

    def _check_gate(self, method: str) -> None:
        if not method.startswith(_ALWAYS_ANSWERED):
            self._gate.check()

    def _explain(self, method: str, error: Exception) -> tuple[grpc.StatusCode, str]:
        """Status and text for the caller; what is not the caller's business is logged, without detail to him."""
        code = code_of(error) if isinstance(error, TellerdError) else None
        if code is not None:
            return code, str(error)
        log.error("api.call_failed", method=_short(method), exc_info=error)
        if isinstance(error, InvariantViolation):
            self._on_broken(error)
        return grpc.StatusCode.INTERNAL, "internal error: the daemon's log has it"


def _short(method: str) -> str:
    """`tellerd.v1.WalletService/GetWallet`."""
    return method.removeprefix("/")
