"""A wire between two nodes that can be slow, cut, or lead somewhere else."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator

_CHUNK = 65536


class Line:
    """A TCP proxy on this machine."""

    def __init__(self, target: str) -> None:
        """`target` is where connections lead, `host:port`: those that are made from now on."""
        self.target = target
        self.delay = 0.0
        """Seconds that everything takes longer, each way."""
        self.joined = asyncio.Event()
        """Not set while nothing comes through, and nobody is told so: connections stand, and can be made."""
        self.joined.set()
        self.opened = 0
        """Connections made so far."""
        self._ends: set[asyncio.StreamWriter] = set()
        self._copying: set[asyncio.Task[None]] = set()

    def cut(self) -> None:
        """Break every connection there is; the next ones stand."""
        for end in self._ends:
            end.transport.abort()
        self._ends.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lead a connection on."""
        self.opened += 1
        host, _, port = self.target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self._ends |= {writer, back}
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        self._ends -= {writer, back}

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Pass on what comes, each piece after the delay: pieces wait side by side, as on a long wire."""
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1000)

        async def arrive() -> None:
            with contextlib.suppress(OSError):
                while (piece := await on_the_way.get())[1]:
                    await asyncio.sleep(max(0.0, piece[0] - time.monotonic()))
                    await self.joined.wait()
                    sink.write(piece[1])
                    await sink.drain()
            sink.transport.abort()

        arriving = asyncio.create_task(arrive())
        data = b" "
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            await on_the_way.put((time.monotonic() + self.delay, data))
        await arriving

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncGenerator[str]:
        """Take connections; gives the address."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.cut()
