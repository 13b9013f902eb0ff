"""What stands around every call: keys, the gate, the places for streams, error mapping, metrics, the audit log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol
from urllib.parse import unquote

import grpc
import structlog

from adapters.grpc_api.status_codes import code_of
from adapters.grpc_api.subjects import subjects_of
from daemon.domain.errors import InvariantViolation, TellerdError
from daemon.serving.audit_trail import AuditTrail, is_audited
from daemon.serving.gate import Gate
from daemon.serving.keys import Caller, Forbidden, KeyCheck

_ALWAYS_ANSWERED = ("/grpc.reflection.", "/tellerd.v1.AdminService/GetStatus")
"""By a standby and while draining, too."""

_HEALTH = "/grpc.health."
"""Left alone, without a key, too: it holds no thread while it watches, and its answers must not depend on anything."""

RECHECK_S = 0.5
"""How often a stream's key is looked at again, at most: a row of the feed takes less time than the look."""

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
    """Wraps the methods of our services; `on_broken` is told of a broken invariant and ends the process.

    `keys` is None where callers need none. A caller's key comes before everything else, on the call's own thread:
    looking it up may wait for the database. Calls that may change something are recorded in `audit`; those that were
    refused without a key, or by the gate, are not: whoever can reach the port could fill it.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        metrics: ApiMetrics,
        max_streams: int,
        on_broken: Callable[[InvariantViolation], None],
        keys: KeyCheck | None = None,
        audit: AuditTrail | None = None,
    ) -> None:
        self._keys = keys
        self._audit = audit
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
            caller: Caller | None = None
            answer = None
            try:
                caller = self._admit(method, context)
                answer = behaviour(request, context)
                return answer
            except Exception as error:  # noqa: BLE001 (told to the caller, and to the process where it matters)
                code, text = self._explain(method, error)
                caller = error.caller if isinstance(error, Forbidden) else caller
            finally:
                duration_s = time.perf_counter() - started
                self._metrics.call_ended(method=_short(method), code=code.name, duration_s=duration_s)
                if caller is not None:
                    self._record(method, caller, context, code, request, answer)
            return context.abort(code, text)

        return call

    def _guard_stream(
        self, method: str, behaviour: Callable[[Any, grpc.ServicerContext], Iterator[Any]]
    ) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            refusal = self._refuse_stream(method, context)
            if refusal is not None:
                self._metrics.call_ended(method=_short(method), code=refusal[0].name, duration_s=None)
                context.abort(*refusal)
            self._metrics.stream_opened(_short(method))
            code, text = grpc.StatusCode.CANCELLED, ""  # stays so when the caller goes away
            try:
                self._check_gate(method)
                if self._keys is None:
                    yield from behaviour(request, context)
                else:
                    yield from _while_allowed(behaviour, request, context, partial(self._check_key, method, context))
                if context.is_active():
                    code = grpc.StatusCode.OK
            except Exception as error:  # noqa: BLE001 (as above)
                # grpcio's own error while the caller's messages are read: he went away, which is no news.
                if context.is_active() or not isinstance(error, grpc.RpcError):
                    code, text = self._explain(method, error)
            finally:
                self._places.release()
                self._metrics.stream_ended(_short(method))
                self._metrics.call_ended(method=_short(method), code=code.name, duration_s=None)
            if text:
                context.abort(code, text)

        return stream

    def _refuse_stream(self, method: str, context: grpc.ServicerContext) -> tuple[grpc.StatusCode, str] | None:
        """Why a stream is not opened; None if it is, and it then holds a place."""
        try:
            self._check_key(method, context)
        except Exception as error:  # noqa: BLE001 (as below)
            return self._explain(method, error)
        if not self._places.acquire(blocking=False):
            text = f"{self._max_streams} streams are open, which is the bound; close one first"
            return grpc.StatusCode.RESOURCE_EXHAUSTED, text
        return None

    def _admit(self, method: str, context: grpc.ServicerContext) -> Caller:
        """Who calls; raises unless he may, and calls are served."""
        caller = self._check_key(method, context)
        self._check_gate(method)
        return caller

    def _check_key(self, method: str, context: grpc.ServicerContext) -> Caller:
        """Who calls; raises unless the caller's key allows this method now."""
        if self._keys is None:
            return Caller()
        given = [str(value) for name, value in context.invocation_metadata() if name == "authorization"]
        return self._keys.authorise(_short(method), given)

    def _record(
        self,
        method: str,
        caller: Caller,
        context: grpc.ServicerContext,
        code: grpc.StatusCode,
        request: object,
        answer: object,
    ) -> None:
        if self._audit is not None and is_audited(_short(method)):
            self._audit.note(
                method=_short(method),
                caller=caller,
                peer=unquote(context.peer()),
                code=code.name,
                subjects=subjects_of(request, answer),
            )

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


def _while_allowed(
    behaviour: Callable[[Any, Any], Iterator[Any]],
    request: Any,
    context: grpc.ServicerContext,
    check_key: Callable[[], object],
) -> Iterator[Any]:
    """A stream's answers as long as its key counts; raises what `check_key` raises."""
    watched = _WatchedContext(context, check_key)
    for answer in behaviour(request, watched):
        watched.check()
        yield answer


class _WatchedContext:
    """A stream's context. Whoever asks whether the stream is still wanted, as each stream of ours does at least once
    a second, has its key checked again."""

    def __init__(self, context: grpc.ServicerContext, check_key: Callable[[], object]) -> None:
        self._context = context
        self._check_key = check_key
        self._checked_at_s = time.monotonic()

    def is_active(self) -> bool:
        """As grpc's; raises what the check of the key raises."""
        self.check()
        return self._context.is_active()

    def check(self) -> None:
        """Looks at the key again if the last look is RECHECK_S ago."""
        now_s = time.monotonic()
        if now_s - self._checked_at_s >= RECHECK_S:
            self._check_key()
            self._checked_at_s = now_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)


def _short(method: str) -> str:
    """`tellerd.v1.WalletService/GetWallet`."""
    return method.removeprefix("/")
