"""A server in a process of its own, as nodes run it, on uvloop: what attacks cost it is seen from outside."""

import asyncio
import datetime as dt
import os
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import uvloop
from google.protobuf.message import Message

from certs.authority import Authority
from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit.config import LimitsSection
from services.kit.rpc import Call
from services.kit.transport.nghttp2.bounds import Timing
from tests.killable import Killable
from tests.transport.raw import LIMIT
from tests.transport.served import Room, serving
from tests.zone import Zone

LIMITS: Final = LimitsSection(request_bytes=64 * 1024, deadline=dt.timedelta(seconds=1), connections=100)
TIMING: Final = Timing(handshake=1, preface=1, stalled=2, look=0.1)
LARGE: Final = 1 << 20
"""Bytes of an answer that is large."""


class Target(Room):
    """A room that tells what it has done; it counts calls, and keeps none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0

    async def unary(self, request: SignedContext, call: Call) -> Message:
        if request.payload == b"tell":
            return SignedContext(payload=b"%d %d" % (self.begun, self.running))
        self.begun += 1
        if request.payload == b"large":
            return SignedContext(payload=bytes(LARGE))
        answer = await super().unary(request, call)
        self.calls.clear()
        return answer

    async def stream(self, request: SignedContext, call: Call) -> AsyncIterator[Message]:
        self.begun += 1
        async for answer in super().stream(request, call):
            yield answer


class Existing(Zone):
    """A zone that another process has made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.open(folder / "zone")
        self.name = self.authority.zone


def serve(folder: Path) -> None:
    """Serve until killed; says its port."""
    # Whatever an attack could make it keep, it has not the memory for.
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    uvloop.run(_serve(folder))


async def _serve(folder: Path) -> None:
    async with serving(Existing(folder), Target(), LIMITS, TIMING) as server:
        print(server.port, os.getpid(), flush=True)  # noqa: T201
        await asyncio.Event().wait()


class Victim:
    """The process."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._process = Killable(serve, zone.folder)
        port, pid = next(self._process.said()).split()
        self.port = int(port)
        self._pid = int(pid)

    @property
    def memory(self) -> int:
        """Bytes that are its own now: as its page tables have them, which `status` only estimates."""
        text = Path(f"/proc/{self._pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Anonymous:"))

    async def grown(self, before: int, enough: int) -> int:
        """Give the bytes by which it has grown, once they are fewer than enough or a while is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LIMIT):
                while self.memory - before >= enough:  # noqa: ASYNC110 - it is another process that changes it
                    await asyncio.sleep(0.1)
        return self.memory - before

    def places(self, most: int = 8) -> str:
        """Say where most of that memory lies: the largest mappings, kilobytes first."""
        found: list[tuple[int, str]] = []
        mapping = ""
        for line in Path(f"/proc/{self._pid}/smaps").read_text().splitlines():
            first, *rest = line.split()
            if not first.endswith(":"):
                mapping = line
            elif first == "Anonymous:":
                found.append((int(rest[0]), mapping))
        return "\n".join(f"{size} {mapping}" for size, mapping in sorted(found)[-most:])

    @property
    def worked(self) -> float:
        """Seconds of a processor that it has used."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.code is None

    def kill(self) -> None:
        """End it."""
        self._process.kill()
        self._process.ended()
