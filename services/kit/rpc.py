"""Rpcs without a transport: a handler is a function of request and call, whatever brought the bytes.

`bind` joins a protobuf service to its implementation by name (`GetDeclaration` → `get_declaration`); a `Dispatcher`
runs an rpc inside what every server has. An rpc whose answer has a receipt is recorded: neither its answer nor a
refusal leaves before the log holds it. Transports (`services.kit.transport`) carry bytes in and out and turn raised
`HutongError`s into their own form of a status.
"""

import re
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol, cast

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.caller import Caller
from services.kit.errors import (
    FailedPrecondition,
    HutongError,
    InvalidArgument,
    Reason,
    ResourceExhausted,
    Unavailable,
)
from services.kit.log import receipts
from services.kit.log.facts import Facts

_UNLOGGED: Final = frozenset({Reason.LOG_UNAVAILABLE, Reason.RATE_EXCEEDED, Reason.QUOTA_EXCEEDED, Reason.OVERLOADED})
"""Refusals that are not recorded: a log that is away cannot hold them, nor must one grow by what is kept out."""

MESSAGE_BYTES: Final = 64 * 1024
"""A message of a stream of requests may have so many bytes, though single requests may have fewer."""


class Traced(Protocol):
    """The trace that a call is part of."""

    @property
    def parent(self) -> str:
        """W3C trace context for calls made on behalf of this one."""
        ...

    @property
    def told(self) -> bool:
        """Whether others are to hear of it: it is recorded, or the caller named it."""
        ...


class Shape(Enum):
    """How many messages go each way."""

    UNARY = "unary"
    SERVER_STREAM = "server stream"
    BIDI = "bidi"


@dataclass(slots=True)
class Call:
    """What a handler may know of the call beside its request."""

    method: str
    """`/package.Service/Rpc`."""
    caller: Caller
    """The verified peer."""
    certificate: bytes
    """The peer's certificate, PEM, as the handshake proved it."""
    deadline: float | None
    """When the caller stops waiting, on `time.monotonic`; None for streams without one."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    trace: Traced | None = None
    """The trace it is part of, once it has begun."""
    check: Callable[[], object] | None = None
    """Raises where the peer's certificate no longer stands: asked before every message of a stream."""
    facts: Facts = field(default_factory=Facts)
    """What the handler tells for the log."""
    answer_bytes: int = sys.maxsize
    """An answer that has more is refused before it is logged."""
    run: "Run | None" = None
    """Runs a call inside this one, a stream (`services.kit.sessions`); it is traced, checked and logged by itself."""

    @property
    def traceparent(self) -> str:
        """W3C trace context for calls made on behalf of this one."""
        return self.trace.parent if self.trace else ""

    def remaining(self) -> float | None:
        """Seconds until the deadline; never negative."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


Reply = Message | bytes
"""What a handler answers with: a message, or the bytes of one where it had those already."""

Run = Callable[["Rpc", Call, Callable[[], Awaitable[Reply]]], Awaitable[bytes]]
"""From the rpc, its call, and what begins its handler."""


class Tracer(Protocol):
    """Traces and counts calls (`services.kit.telemetry.Trace`)."""

    def begin(self, call: Call, rpc: "Rpc", /) -> None:
        """Continue the caller's trace, or begin one."""
        ...

    def end(self, call: Call, rpc: "Rpc", error: BaseException | None, /) -> None:
        """Count how the call ended."""
        ...


class Check(Protocol):
    """Lets a call through or raises (`services.kit.interceptors`)."""

    def __call__(self, call: Call, rpc: "Rpc", /) -> None:
        """Raise `HutongError` to refuse."""
        ...


class Gate(Protocol):
    """Lets a call in or turns it away, before anything else (`services.kit.shedding`)."""

    def __call__(self, call: Call, rpc: "Rpc", /) -> None:
        """Raise `HutongError` to turn away: that is counted, and not logged."""
        ...

    def giving(self, call: Call) -> None:
        """Count what is about to leave and be logged; raise `HutongError` where it must not."""
        ...

    def refused(self, call: Call, error: HutongError) -> HutongError:
        """Know of a refusal; gives the error to refuse with, where there were too many."""
        ...


class Translator(Protocol):
    """Turns what nobody expected into an error that tells a stranger nothing (`services.kit.interceptors.Errors`)."""

    def __call__(self, error: Exception, call: Call, rpc: "Rpc", /) -> HutongError:
        """Give the error that leaves."""
        ...


class Recorder(Protocol):
    """Logs what leaves, durably, before it leaves (`services.kit.log.recording`)."""

    async def answered(self, call: Call, rpc: "Rpc", answer: bytes) -> bytes:
        """Log an answer; gives the receipt as the answer's last field. Raises `Unavailable` LOG_UNAVAILABLE."""
        ...

    async def refused(self, call: Call, rpc: "Rpc", error: HutongError) -> None:
        """Log a refusal; raises `Unavailable` LOG_UNAVAILABLE."""
        ...


@dataclass(frozen=True, slots=True)
class Rpc:
    """One rpc, bound to its handler."""

    method: str
    service: str
    name: str
    shape: Shape
    request: type[Message]
    handler: Callable[..., Any]
    receipt: int = 0
    """Number of the field of its answers that is their receipt; 0 where it has none and is not recorded."""
    states: bool = False
    """Its requests say why in a field `context`."""


def bind(descriptor: ServiceDescriptor, implementation: object) -> tuple[Rpc, ...]:
    """Join a service to the object that implements it; raises `FailedPrecondition` where an rpc has no method."""
    return tuple(bind_method(method, implementation) for method in descriptor.methods)


def snake(name: str) -> str:
    """Write `ListVatFilings` as `list_vat_filings`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def bind_method(method: MethodDescriptor, implementation: object) -> Rpc:
    """Join one rpc to the object that implements it; raises as `bind` does."""
    handler = getattr(implementation, snake(method.name), None)
    service = method.containing_service.full_name
    if handler is None:
        raise FailedPrecondition(
            Reason.SCHEMA_INVALID, f"{service}.{method.name} has no method {snake(method.name)!r} to serve it"
        )
    shape = Shape.BIDI if method.client_streaming else Shape.SERVER_STREAM if method.server_streaming else Shape.UNARY
    return Rpc(
        method=f"/{service}/{method.name}",
        service=service,
        name=method.name,
        shape=shape,
        request=message_factory.GetMessageClass(method.input_type),
        handler=handler,
        receipt=receipts.number_of(method.output_type),
        states=_states(method.input_type),
    )


def _states(request: Descriptor) -> bool:
    context = request.fields_by_name.get("context")
    return (
        context is not None
        and context.message_type is not None
        and context.message_type.full_name == exchange_pb2.RequestContext.DESCRIPTOR.full_name
    )


def served(rpcs: Iterable[Rpc]) -> dict[str, list[str]]:
    """List services and their rpcs, as access lists want them."""
    services: dict[str, list[str]] = {}
    for rpc in rpcs:
        services.setdefault(rpc.service, []).append(rpc.name)
    return services


def _serialized(reply: Reply) -> bytes:
    return reply if isinstance(reply, bytes) else reply.SerializeToString()


def _too_large(answer: bytes, most: int) -> ResourceExhausted:
    message = f"the answer has {len(answer)} bytes; the limit is {most}"
    return ResourceExhausted(Reason.ANSWER_TOO_LARGE, message, limit_bytes=str(most))


class Dispatcher:
    """Runs rpcs: bytes in, bytes out, `HutongError` raised.

    Around every call, from the outside in: it is traced, whatever comes of it; what comes of it is recorded; what
    nobody expected becomes INTERNAL before it is seen; whom the gate turns away gets no further, nor does anybody
    unlisted; the deadline is bounded last, next to the handler.
    """

    def __init__(
        self,
        trace: Tracer,
        gate: Gate,
        access: Check,
        errors: Translator,
        context: Check,
        request_bytes: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`request_bytes` is the size of the largest request."""
        self._trace = trace
        self._gate = gate
        self._access = access
        self._errors = errors
        self._context = context
        self._request_bytes = request_bytes
        self._recorder = recorder

    async def unary(self, rpc: Rpc, raw: bytes, call: Call) -> bytes:
        """Run a unary rpc."""
        return await self.run(rpc, call, lambda: rpc.handler(self._request(rpc, raw, call), call))

    async def run(self, rpc: Rpc, call: Call, work: Callable[[], Awaitable[Reply]]) -> bytes:
        """Run a unary rpc whose request was read; `work` begins its handler."""
        # What `_around` does, written out: for one answer, opening and closing that costs more than what is in it.
        self._trace.begin(call, rpc)
        ended: BaseException | None = None
        try:
            self._gate(call, rpc)
            self._access(call, rpc)
            self._context(call, rpc)
            answer = _serialized(await work())
            if len(answer) > call.answer_bytes:
                raise _too_large(answer, call.answer_bytes)
            return answer + await self._receipt(rpc, answer, call) if rpc.receipt else answer
        except Exception as error:
            ended = error = await self._refused(rpc, call, error)
            raise error from None
        except BaseException as error:
            ended = error
            raise
        finally:
            self._trace.end(call, rpc, ended)

    @asynccontextmanager
    async def _around(self, rpc: Rpc, call: Call) -> AsyncGenerator[None]:
        self._trace.begin(call, rpc)
        ended: BaseException | None = None
        try:
            self._gate(call, rpc)
            self._access(call, rpc)
            self._context(call, rpc)
            yield
        except Exception as error:
            ended = error = await self._refused(rpc, call, error)
            raise error from None
        except BaseException as error:
            ended = error
            raise
        finally:
            self._trace.end(call, rpc, ended)

    async def stream(self, rpc: Rpc, raw: bytes, call: Call) -> AsyncIterator[bytes]:
        """Run a server-streaming rpc."""
        async with self._around(rpc, call):
            responses: AsyncIterator[Reply] = rpc.handler(self._request(rpc, raw, call), call)
            async for response in responses:
                yield await self._message(rpc, response, call)

    async def bidi(self, rpc: Rpc, raws: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        """Run a bidirectional rpc."""
        call.run = self.run
        async with self._around(rpc, call):
            requests = (self._request(rpc, raw, call) async for raw in raws)
            responses: AsyncIterator[Reply] = rpc.handler(requests, call)
            async for response in responses:
                yield await self._message(rpc, response, call)

    async def _message(self, rpc: Rpc, response: Reply, call: Call) -> bytes:
        """Make a message of a stream; one that discloses nothing, a heartbeat, is not logged."""
        if call.check is not None:
            call.check()
        answer = _serialized(response)
        if rpc.receipt and call.facts.disclosures:
            answer += await self._receipt(rpc, answer, call)
            call.facts.clear()
        return answer

    async def _receipt(self, rpc: Rpc, answer: bytes, call: Call) -> bytes:
        if self._recorder is None:
            raise Unavailable(Reason.LOG_UNAVAILABLE, "this node keeps no log, and answers nothing that must be logged")
        self._gate.giving(call)
        return await self._recorder.answered(call, rpc, answer)

    async def _refused(self, rpc: Rpc, call: Call, error: Exception) -> HutongError:
        """Record a refusal; gives the error that leaves."""
        known = error if isinstance(error, HutongError) else self._errors(error, call, rpc)
        known = self._gate.refused(call, known)
        if rpc.receipt and self._recorder is not None and known.reason not in _UNLOGGED:
            try:
                await self._recorder.refused(call, rpc, known)
            except HutongError as unlogged:
                return unlogged
        return known

    def _request(self, rpc: Rpc, raw: bytes, call: Call) -> Message:
        request: Any = self._parse(rpc, raw)
        if rpc.states and rpc.receipt and request.HasField("context"):
            call.facts.stated(request.context)
        return cast("Message", request)

    def _parse(self, rpc: Rpc, raw: bytes) -> Message:
        most = self._request_bytes
        if rpc.shape is Shape.BIDI and most < MESSAGE_BYTES:
            most = MESSAGE_BYTES
        if len(raw) > most:
            message = f"the request has {len(raw)} bytes; the limit is {most}"
            raise ResourceExhausted(Reason.REQUEST_TOO_LARGE, message, limit_bytes=str(most))
        try:
            return rpc.request.FromString(raw)
        except DecodeError:
            raise InvalidArgument(
                Reason.MALFORMED_REQUEST, f"the request is no {rpc.request.DESCRIPTOR.full_name}"
            ) from None
