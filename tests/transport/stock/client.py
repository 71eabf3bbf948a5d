"""Stock clients: grpcio's own with generated stubs, and grpc-js in a process of its own, moved in the same words.

Nothing here uses a channel of ours: what these two can do, any gRPC client can.
"""

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, cast

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2  # pyright: ignore[reportMissingTypeStubs]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certs.spiffe import SpiffeId, server_name
from certs.svid import SvidFiles
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, federation_pb2_grpc
from services.kit import wire
from tests.transport import echo

DETAILS: Final = wire.DETAILS_KEY
Metadata = Sequence[tuple[str, str | bytes]]
Headers = dict[str, list[str | bytes]]
LIMIT: Final = 30.0
"""Seconds after which whatever is awaited is taken never to come: tests fail then."""
PROGRAM: Final = Path(__file__).with_name("client.js")
MODULES: Final = Path(__file__).resolve().parents[3] / ".venv" / "stock" / "node_modules"
"""Where `make dev` installs what `package-lock.json` says."""


@dataclass(frozen=True)
class Status:
    """How a call ended."""

    code: int
    message: str
    trailers: Headers

    @property
    def reason(self) -> str:
        """The machine reason in the details; empty where there are none."""
        info = self._info()
        return info.reason if info else ""

    @property
    def said(self) -> dict[str, str]:
        """The metadata in the details."""
        info = self._info()
        return dict(info.metadata) if info else {}

    def _info(self) -> error_details_pb2.ErrorInfo | None:
        found = self.trailers.get(DETAILS)
        if not found:
            return None
        raw = found[0]
        assert isinstance(raw, bytes)
        status = status_pb2.Status.FromString(raw)
        info = error_details_pb2.ErrorInfo()
        assert status.details[0].Unpack(info)
        return info


class Ongoing(Protocol):
    """A call that has begun. A bidirectional one is sent messages; to others their request was given at once."""

    async def send(self, message: Message) -> None:
        """Send one more message."""
        ...

    async def done(self) -> None:
        """Say that no more messages will be sent."""
        ...

    async def next(self) -> Any:
        """Wait for the next message; None once there will be no more."""
        ...

    async def status(self) -> Status:
        """Wait for how it ends."""
        ...

    async def headers(self) -> Headers:
        """Wait for the headers of the answer."""
        ...

    def cancel(self) -> None:
        """Have no more interest in it."""
        ...


class Stock(Protocol):
    """A client of one node, as one identity."""

    def call(
        self,
        method: str,
        request: Message | None = None,
        *,
        timeout: float | None = LIMIT,
        metadata: Metadata = (),
        waits: bool = False,
    ) -> Ongoing:
        """Begin a call; `waits` for a connection where there is none."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


Connect = Callable[[str, SpiffeId, SvidFiles], Stock]
"""From `host:port`, whom it must prove to be, and whom to call as."""


async def rest(call: Ongoing) -> list[Any]:
    """Wait for all messages that are still to come."""
    found: list[Any] = []
    while (message := await call.next()) is not None:
        found.append(message)
    return found


# grpcio


class _PythonCall:
    def __init__(self, call: Any, *, streams: bool) -> None:
        self._call = call
        self._streams = streams
        self._given = False

    async def send(self, message: Message) -> None:
        await self._call.write(message)

    async def done(self) -> None:
        await self._call.done_writing()

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT):
            try:
                if not self._streams:
                    first, self._given = not self._given, True
                    return await self._call if first else None
                found = await self._call.read()
            except grpc.aio.AioRpcError:
                return None
            return None if found is grpc.aio.EOF else found

    async def status(self) -> Status:
        async with asyncio.timeout(LIMIT):
            code = await self._call.code()
            details = await self._call.details()
            return Status(code.value[0], details or "", _headers(await self._call.trailing_metadata()))

    async def headers(self) -> Headers:
        async with asyncio.timeout(LIMIT):
            return _headers(await self._call.initial_metadata())

    def cancel(self) -> None:
        self._call.cancel()


def _headers(metadata: Any) -> Headers:
    found: Headers = {}
    for name, value in metadata or ():
        found.setdefault(name, []).append(value)
    return found


class PythonStock:
    """grpcio, with the stubs that its own generator made."""

    def __init__(self, target: str, server: SpiffeId, files: SvidFiles) -> None:
        credentials = grpc.ssl_channel_credentials(
            files.bundle.read_bytes(), files.key.read_bytes(), files.load().chain
        )
        options = [("grpc.ssl_target_name_override", server_name(server)), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        stubs: tuple[Any, ...] = (
            # The stubs of stubs know one kind of channel; these work with either.
            federation_pb2_grpc.FederationServiceStub(cast("Any", self._channel)),
            health_pb2_grpc.HealthStub(cast("Any", self._channel)),
            reflection_pb2_grpc.ServerReflectionStub(cast("Any", self._channel)),
        )
        packages = (
            federation_pb2.DESCRIPTOR.services_by_name["FederationService"].full_name,
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].full_name,
        )
        self._stubs = dict(zip(packages, stubs, strict=True))

    def call(
        self,
        method: str,
        request: Message | None = None,
        *,
        timeout: float | None = LIMIT,
        metadata: Metadata = (),
        waits: bool = False,
    ) -> Ongoing:
        service, _, name = method.removeprefix("/").partition("/")
        make = getattr(self._stubs[service], name) if service in self._stubs else self._echo(method, name)
        how = {"timeout": timeout, "metadata": grpc.aio.Metadata(*metadata), "wait_for_ready": waits}
        made = make(**how) if request is None else make(request, **how)
        return _PythonCall(made, streams=not isinstance(made, grpc.aio.UnaryUnaryCall))

    def _echo(self, method: str, name: str) -> Any:
        makers: dict[str, Any] = {
            "Unary": self._channel.unary_unary,
            "Stream": self._channel.unary_stream,
            "Bidi": self._channel.stream_stream,
        }
        kind = exchange_pb2.SignedContext
        return makers[name](method, request_serializer=kind.SerializeToString, response_deserializer=kind.FromString)

    async def close(self) -> None:
        await self._channel.close()


# grpc-js


@dataclass
class _Events:
    """What has happened to a call in the other process."""

    response: type[Message]
    messages: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue[Message | None])
    headers: asyncio.Future[Headers] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    status: asyncio.Future[Status] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def take(self, event: dict[str, Any]) -> None:
        if event["event"] == "message":
            self.messages.put_nowait(self.response.FromString(base64.b64decode(event["data"])))
        elif event["event"] == "headers":
            self.headers.set_result(_decoded(event["headers"]))
        else:
            self.status.set_result(Status(event["code"], event["details"], _decoded(event["trailers"])))
            self.messages.put_nowait(None)


def _decoded(headers: dict[str, list[str]]) -> Headers:
    def value(name: str, text: str) -> str | bytes:
        return base64.b64decode(text) if name.endswith("-bin") else text

    return {name: [value(name, text) for text in values] for name, values in headers.items()}


class Node:
    """The process that runs `client.js`: as many clients as are wanted, each with as many calls."""

    def __init__(self, process: asyncio.subprocess.Process, methods: dict[str, MethodDescriptor]) -> None:
        self._process = process
        self._methods = methods
        self._numbers = itertools.count(1)
        self._calls: dict[int, _Events] = {}
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, folder: Path) -> AsyncGenerator["Node"]:
        """Run one; `folder` is for what it reads."""
        known, methods = _contracts()
        described = folder / "contracts.bin"
        described.write_bytes(known.SerializeToString())
        process = await asyncio.create_subprocess_exec(
            *("node", "--no-warnings", str(PROGRAM), str(described)),
            env={"NODE_PATH": str(MODULES), "PATH": "/usr/local/bin:/usr/bin:/bin"},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=64 * 1024 * 1024,
        )
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline()) == {"id": 0, "event": "ready"}
        node = cls(process, methods)
        try:
            yield node
        finally:
            node._reading.cancel()
            await asyncio.gather(node._reading, return_exceptions=True)
            process.kill()
            await process.wait()

    def connect(
        self, target: str, server: SpiffeId, files: SvidFiles, options: Mapping[str, int] | None = None
    ) -> Stock:
        """Open a client; `options` are those of its channel."""
        number = next(self._numbers)
        paths = {"roots": str(files.bundle), "key": str(files.key), "chain": str(files.certificate)}
        name = server_name(server)
        self.order("open", client=number, target=target, name=name, options=dict(options or {}), **paths)
        return _JavascriptStock(self, number)

    def order(self, what: str, **more: Any) -> None:
        """Have something done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **more}).encode() + b"\n")

    def begin(self, client: int, method: str, request: Message | None, **more: Any) -> "_JavascriptCall":
        """Begin a call."""
        number = next(self._numbers)
        output = self._methods[method].output_type
        self._calls[number] = events = _Events(message_factory.GetMessageClass(output))
        data = None if request is None else base64.b64encode(request.SerializeToString()).decode()
        self.order("call", client=client, id=number, method=method, request=data, **more)
        return _JavascriptCall(self, number, events)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            event = json.loads(line)
            self._calls[event["id"]].take(event)


class _JavascriptCall:
    def __init__(self, node: Node, number: int, events: _Events) -> None:
        self._node = node
        self._number = number
        self._events = events

    async def send(self, message: Message) -> None:
        self._node.order("send", id=self._number, data=base64.b64encode(message.SerializeToString()).decode())

    async def done(self) -> None:
        self._node.order("done", id=self._number)

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT):
            found = await self._events.messages.get()
            if found is None:
                self._events.messages.put_nowait(None)
            return found

    async def status(self) -> Status:
        async with asyncio.timeout(LIMIT):
            return await asyncio.shield(self._events.status)

    async def headers(self) -> Headers:
        async with asyncio.timeout(LIMIT):
            return await asyncio.shield(self._events.headers)

    def cancel(self) -> None:
        self._node.order("cancel", id=self._number)


class _JavascriptStock:
    def __init__(self, node: Node, number: int) -> None:
        self._node = node
        self._number = number

    def call(
        self,
        method: str,
        request: Message | None = None,
        *,
        timeout: float | None = LIMIT,
        metadata: Metadata = (),
        waits: bool = False,
    ) -> Ongoing:
        told = [(n, base64.b64encode(v).decode() if isinstance(v, bytes) else v) for n, v in metadata]
        return self._node.begin(self._number, method, request, timeout=timeout, metadata=told, waits=waits)

    async def close(self) -> None:
        self._node.order("close", client=self._number)


def _contracts() -> tuple[descriptor_pb2.FileDescriptorSet, dict[str, MethodDescriptor]]:
    """Describe every service that is called, and whatever it needs; gives the rpcs by their paths, too."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        files.setdefault(file.name, file)

    for file in (federation_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, echo.DESCRIPTOR):
        add(cast("FileDescriptor", file))
    described = descriptor_pb2.FileDescriptorSet()
    methods: dict[str, MethodDescriptor] = {}
    for file in files.values():
        file.CopyToProto(described.file.add())
        for service in file.services_by_name.values():
            methods |= {f"/{service.full_name}/{method.name}": method for method in service.methods}
    return described, methods
