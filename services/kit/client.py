"""Calls to another node: one channel a peer, its identity checked, our certificate fresh, errors with their reasons.

A channel is opened with the certificate of the moment. When the files change, a new channel takes over and the old
one closes once its calls are done; no call fails for it.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar, cast

from google.protobuf.message import DecodeError, Message

from certs.spiffe import SpiffeId
from certs.svid import Svid, SvidFiles, SvidVersion
from services.kit.config import TRANSPORT, Transport
from services.kit.errors import Reason, Unavailable
from services.kit.identity import Identity
from services.kit.transport import choice
from services.kit.transport.seam import Channel, Metadata, Vouch

R = TypeVar("R", bound=Message)

_RETIRE_AFTER = 30.0
"""Seconds that a channel of a former certificate stays usable, for calls that were prepared with it."""


class Client:
    """A connection to one node."""

    def __init__(
        self,
        target: str,
        server: SpiffeId,
        own: Identity | SvidFiles,
        *,
        response_bytes: int = 16 * 1024 * 1024,
        transport: Transport = TRANSPORT,
        vouch: Vouch | None = None,
    ) -> None:
        """Connect lazily to `target` (`host:port`), which must prove to be `server`, as `own`.

        `vouch` says whether its certificate still stands, where somebody knows of revocations (`MakeChannel`).
        """
        self.target = target
        self._server = server
        self._identity = own if isinstance(own, Identity) else Identity(own)
        self._response_bytes = response_bytes
        self._make = choice.channel(transport)
        self._vouch = vouch
        self._channels: dict[SvidVersion, Channel] = {}
        self._retiring: set[asyncio.Task[None]] = set()

    def channel(self, svid: Svid | None = None) -> Channel:
        """Get the channel that calls with an identity; with the present one where none is given."""
        svid = svid or self._identity.svid()
        channel = self._channels.get(svid.version)
        if channel is None:
            for former in tuple(self._channels):
                task = asyncio.get_running_loop().create_task(self._retire(former))
                self._retiring.add(task)
                task.add_done_callback(self._retiring.discard)
            channel = self._make(self.target, self._server, svid, self._response_bytes, self._vouch)
            self._channels[svid.version] = channel
        return channel

    async def _retire(self, version: SvidVersion) -> None:
        await asyncio.sleep(_RETIRE_AFTER)
        channel = self._channels.pop(version, None)
        if channel:
            await channel.close(_RETIRE_AFTER)

    async def unary(
        self,
        method: str,
        request: Message | bytes,
        response: type[R],
        *,
        timeout: float | None,
        traceparent: str = "",
        svid: Svid | None = None,
    ) -> R:
        """Make a unary call; raises the `HutongError` the other side answered with.

        `svid` is the identity to call with, where the request was signed with its key; the present one otherwise.
        """
        return parse(await self.raw(method, request, timeout=timeout, traceparent=traceparent, svid=svid), response)

    async def raw(
        self,
        method: str,
        request: Message | bytes,
        *,
        timeout: float | None,
        traceparent: str = "",
        svid: Svid | None = None,
    ) -> bytes:
        """Make a unary call, and give the answer's bytes as they came, of which a log has the digest; as `unary`."""
        return await self.channel(svid).unary(method, _serialize(request), timeout, _metadata(traceparent))

    async def stream(
        self, method: str, request: Message, response: type[R], *, timeout: float | None, traceparent: str = ""
    ) -> AsyncIterator[R]:
        """Make a server-streaming call; raises the `HutongError` the other side answered with."""
        raws = self.channel().stream(method, _serialize(request), timeout, _metadata(traceparent))
        async with aclosing(cast("Any", raws)):
            async for raw in raws:
                yield parse(raw, response)

    async def bidi(
        self, method: str, requests: AsyncIterator[Message], response: type[R], *, timeout: float | None
    ) -> AsyncIterator[R]:
        """Make a bidirectional call; raises the `HutongError` the other side answered with."""
        raws = self.channel().stream(method, (_serialize(request) async for request in requests), timeout)
        async with aclosing(cast("Any", raws)):
            async for raw in raws:
                yield parse(raw, response)

    async def close(self) -> None:
        """Close the connections, cutting what still runs."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def parse(raw: bytes, response: type[R]) -> R:
    """Read the bytes of an answer; raises `Unavailable` DEPARTMENT_FAILED where they are none."""
    try:
        return response.FromString(raw)
    except DecodeError:
        raise Unavailable(Reason.DEPARTMENT_FAILED, f"the answer is no {response.DESCRIPTOR.full_name}") from None


def _serialize(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.SerializeToString()


def _metadata(traceparent: str) -> Metadata:
    return (("traceparent", traceparent),) if traceparent else ()
