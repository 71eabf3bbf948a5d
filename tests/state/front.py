"""TLS in front of a PostgreSQL server that was built without: what libpq sees is a server under TLS.

A client says that it wants TLS (SSLRequest), hears "S", shakes hands, and from there on bytes go through. The server
behind is the real one. What proves itself is the certificate here.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Final

_REQUEST: Final = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""SSLRequest, as PostgreSQL's protocol has it."""
_CHUNK: Final = 1 << 16


class Front:
    """A listener that takes connections under TLS only, and passes them on."""

    def __init__(self, server: str, certificate: Path, key: Path) -> None:
        """`server` is the path of the real server's socket."""
        self._path = server
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate, key)
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self.port = 0
        self.plain = 0
        """Connections that did not ask for TLS, and were turned away."""
        ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(ready),))
        self._thread.start()
        ready.wait()

    async def _run(self, ready: threading.Event) -> None:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = int(server.sockets[0].getsockname()[1])
            ready.set()
            await self._stop.wait()
        self._end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if await reader.readexactly(len(_REQUEST)) != _REQUEST:
                self.plain += 1
                return
            writer.write(b"S")
            await writer.drain()
            await writer.start_tls(self._context)
            behind, to = await asyncio.open_unix_connection(self._path)
            self._writers |= {writer, to}
            await asyncio.gather(_pump(reader, to), _pump(behind, writer))
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    def _end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def cut(self) -> None:
        """End every connection there is, as a restart of the server does."""
        done = threading.Event()

        def end() -> None:
            self._end()
            done.set()

        self._loop.call_soon_threadsafe(end)
        done.wait()

    def close(self) -> None:
        """Take no more, end what there is."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
    target.close()


@contextlib.contextmanager
def fronted(server: str, certificate: Path, key: Path) -> Generator[Front]:
    """Put TLS in front of a server."""
    front = Front(server, certificate, key)
    try:
        yield front
    finally:
        front.close()
