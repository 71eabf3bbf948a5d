"""An echo behind each transport, in the same words, for tests that compare what comes out of them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit import errors
from services.kit.config import LimitsSection, NodeConfig, Transport
from services.kit.errors import HutongError, Reason
from services.kit.host import Host
from services.kit.rpc import Call, Rpc, Shape
from tests.zone import Zone

SERVICE: Final = "test.Echo"
UNARY, STREAM, BIDI = (f"/{SERVICE}/{name}" for name in ("Unary", "Stream", "Bidi"))
ACCESS: Final = f"{SERVICE}: {{Unary: ['taxation/*'], Stream: ['taxation/*'], Bidi: ['taxation/*']}}"
WHO: Final = "taxation/refund"
NODE: Final = "customs/node"
LIMITS: Final = LimitsSection(request_bytes=4096, response_bytes=1 << 20)

ERRORS: Final[dict[bytes, type[HutongError]]] = {
    kind.__name__.encode(): kind
    for kind in (
        errors.InvalidArgument,
        errors.Unauthenticated,
        errors.PermissionDenied,
        errors.NotFound,
        errors.FailedPrecondition,
        errors.Aborted,
        errors.ResourceExhausted,
        errors.DeadlineExceeded,
        errors.Unavailable,
        errors.Internal,
    )
}


def _described() -> FileDescriptor:
    """Describe the echo as a contract, which clients of other makes read."""
    signed = SignedContext.DESCRIPTOR
    file = descriptor_pb2.FileDescriptorProto(name="test/echo.proto", package="test", dependency=[signed.file.name])
    service = file.service.add(name="Echo")
    for name, asks, answers in (("Unary", False, False), ("Stream", False, True), ("Bidi", True, True)):
        kind = f".{signed.full_name}"
        service.method.add(
            name=name, input_type=kind, output_type=kind, client_streaming=asks, server_streaming=answers
        )
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


DESCRIPTOR: Final = _described()


class Echo:
    """Gives back what it is given, fails, or waits, as the payload's first word says; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.running = 0
        """How many handlers wait, as they were told to."""
        self._news = asyncio.Condition()

    async def unary(self, request: SignedContext, call: Call) -> Message:
        return await self._one(request, call)

    async def stream(self, request: SignedContext, call: Call) -> AsyncIterator[Message]:
        self.calls.append(call)
        for number in range(min(len(request.signature), 16)):
            yield SignedContext(payload=request.payload, signature=bytes((number,)))
        await self._do(request)

    async def bidi(self, requests: AsyncIterator[SignedContext], call: Call) -> AsyncIterator[Message]:
        self.calls.append(call)
        async for request in requests:
            await self._do(request)
            yield request
        yield SignedContext(signature=b"done")

    async def _one(self, request: SignedContext, call: Call) -> Message:
        self.calls.append(call)
        await self._do(request)
        return request

    async def _do(self, request: SignedContext) -> None:
        verb, _, rest = request.payload.partition(b" ")
        if verb in ERRORS:
            raise ERRORS[verb](Reason.RECORD_INVALID, rest.decode(errors="replace"), said=rest.hex())
        if verb == b"bug":
            raise ZeroDivisionError("a secret")
        if verb == b"wait":
            await self._count(1)
            try:
                await asyncio.Event().wait()
            finally:
                await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._news:
            self.running += change
            self._news.notify_all()

    async def until_running(self, count: int) -> None:
        """Wait until so many handlers wait; tests fail where that never is."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: self.running == count)


def rpcs(echo: Echo) -> tuple[Rpc, ...]:
    """The echo's rpcs."""
    return tuple(
        Rpc(method, SERVICE, method.rpartition("/")[2], shape, SignedContext, handler)
        for method, shape, handler in (
            (UNARY, Shape.UNARY, echo.unary),
            (STREAM, Shape.SERVER_STREAM, echo.stream),
            (BIDI, Shape.BIDI, echo.bidi),
        )
    )


def _listed(folder: Path) -> Path:
    listed = folder / "echo.yaml"
    listed.write_text(ACCESS)
    return listed


@contextlib.asynccontextmanager
async def serving(
    zone: Zone, transport: Transport, echo: Echo, limits: LimitsSection = LIMITS, listen: str = "127.0.0.1:0"
) -> AsyncGenerator[Host]:
    """Serve an echo over a transport."""
    node = zone.node(NODE).model_copy(update={"transport": transport, "listen": listen})
    host = zone.frame(NodeConfig(node=node, tls=zone.tls(NODE), limits=limits))
    await host.start(rpcs(echo), [_listed(zone.folder)])
    try:
        yield host
    finally:
        await host.stop()
