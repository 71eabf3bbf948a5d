"""One GET over HTTPS, bounded in time and size, that follows nowhere: how published keys come from elsewhere."""

import asyncio
import http.client
import io
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

_PORT: Final = 443
_HEAD: Final = 16 * 1024
"""Most bytes of status line and headers."""


class NotFetched(Exception):
    """What was asked for did not come; says why, to whoever runs the node."""


async def fetch(url: str, *, ca: Path | None, limit: int, timeout: float) -> bytes:
    """Get what lies at an `https` URL; raises `NotFetched`.

    `ca` holds the roots that are trusted instead of the system's; `limit` is in bytes, `timeout` in seconds for all of
    it. A redirect is an error: what is trusted is the host that was configured. Nothing of it blocks the event loop.
    """
    try:
        host, port, request = _request(url)
        async with asyncio.timeout(timeout):
            # Reading the system's roots takes long enough to be noticed.
            context = await asyncio.to_thread(trust, ca)
            return _body(await _exchange(host, port, context, request, limit), limit)
    except TimeoutError:
        raise NotFetched("it took too long") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NotFetched(str(error) or type(error).__name__) from None


def trust(ca: Path | None) -> ssl.SSLContext:
    """Make the context in which a server has to prove who it is; raises `OSError`."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _request(url: str) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ValueError("not an https URL of a host and a path")
    asked = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    text = f"GET {asked} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\nConnection: close\r\n\r\n"
    return parts.hostname, parts.port or _PORT, text.encode("ascii")


async def _exchange(host: str, port: int, context: ssl.SSLContext, request: bytes, limit: int) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(request)
        raw = bytearray()
        while chunk := await reader.read(limit):
            raw += chunk
            if len(raw) > _HEAD + limit:
                raise ValueError("too large")
        return bytes(raw)
    finally:
        # Nothing more is wanted, not even a farewell that could be waited for.
        writer.transport.abort()


class _Received:
    """Bytes that came, as `http.client` wants them."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, *_: Any) -> io.BytesIO:
        return io.BytesIO(self._raw)


def _body(raw: bytes, limit: int) -> bytes:
    response = http.client.HTTPResponse(_Received(raw))  # type: ignore[arg-type]
    response.begin()
    if response.status != http.HTTPStatus.OK:
        raise ValueError(f"status {response.status}")
    body = response.read()
    if len(body) > limit:
        raise ValueError("too large")
    return body
