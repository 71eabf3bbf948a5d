"""Keys from a URL: over TLS that proves the host, bounded in time and size, and never from elsewhere."""

import asyncio
import ssl
from pathlib import Path

import pytest

from services.kit.officers.fetching import NotFetched, fetch
from tests.officers.provider import HOST, Provider, answer, provider

LIMIT = 4096


async def fetched(there: Provider, url: str = "", ca: Path | None = None) -> bytes:
    return await fetch(url or there.url, ca=ca or there.ca, limit=LIMIT, timeout=10)


async def test_what_lies_there_is_fetched(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.body = b'{"keys": []}'
        assert await fetched(there) == there.body
        assert there.asked == ["GET /realms/customs/keys?kind=officers HTTP/1.1"]
        assert await fetched(there, f"https://{HOST}:{there.port}") == there.body
        assert there.asked[1:] == ["GET / HTTP/1.1"]


async def test_it_may_come_in_chunks(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        assert await fetched(there) == b"abcde"


async def test_tls_1_2_is_taken_and_older_is_not(tmp_path: Path) -> None:
    async with provider(tmp_path, version=ssl.TLSVersion.TLSv1_2) as there:
        there.body = b"keys"
        assert await fetched(there) == b"keys"


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
async def test_the_largest_is_taken_and_one_more_is_not(tmp_path: Path, size: int) -> None:
    async with provider(tmp_path) as there:
        there.body = b"x" * size
        if size == LIMIT:
            assert await fetched(there) == there.body
        else:
            with pytest.raises(NotFetched, match="too large"):
                await fetched(there)


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"keys", "404 Not Found"),
        answer(b"keys", "500 Internal Server Error"),
        answer(b"", "204 No Content"),
        answer(b"", "302 Found", "Location: https://127.0.0.1/"),
        answer(b"", "301 Moved Permanently", "Location: http://127.0.0.1/"),
        answer(b"keys")[:-1],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\nab",
        b"",
        b"keys",
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\nkeys",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (1 << 20),
        b"x" * (1 << 20),
    ],
    ids=range(15),
)
async def test_what_is_no_answer(tmp_path: Path, raw: bytes) -> None:
    async with provider(tmp_path) as there:
        there.raw = raw
        with pytest.raises(NotFetched):
            await fetched(there)
        assert len(there.asked) == 1, "nothing is followed, nothing is tried again"


async def test_a_server_that_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        there.silent = True
        with pytest.raises(NotFetched, match="too long"):
            await fetch(there.url, ca=there.ca, limit=LIMIT, timeout=0.2)


async def test_nor_one_that_does_not_even_greet() -> None:
    """A listener that nobody accepts at: the connection stands, TLS never begins."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0)
    async with server:
        url = f"https://{HOST}:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(NotFetched, match="too long"):
            await fetch(url, ca=None, limit=LIMIT, timeout=0.2)
        for writer in held:
            writer.transport.abort()


async def test_the_host_has_to_prove_itself(tmp_path: Path) -> None:
    async with provider(tmp_path / "a") as there, provider(tmp_path / "b") as other:
        there.body = other.body = b"keys"
        with pytest.raises(NotFetched):
            await fetched(there, ca=other.ca)
        with pytest.raises(NotFetched):
            await fetch(there.url, ca=None, limit=LIMIT, timeout=10)
        assert there.asked == []


async def test_under_its_own_name(tmp_path: Path) -> None:
    async with provider(tmp_path, name="officers.example") as there:
        with pytest.raises(NotFetched):
            await fetched(there)
        assert there.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "file:///etc/passwd",
        "https://",
        "https://a:b@127.0.0.1/",
        "https://127.0.0.1:99999/",
        "https://[::1/",
        "https://127.0.0.1/ö",
        "https://127.0.0.1:1/",
    ],
)
async def test_what_is_no_address(url: str) -> None:
    with pytest.raises(NotFetched):
        await fetch(url, ca=None, limit=LIMIT, timeout=10)


async def test_roots_that_are_none(tmp_path: Path) -> None:
    async with provider(tmp_path) as there:
        for ca in (tmp_path / "absent.pem", tmp_path):
            with pytest.raises(NotFetched):
                await fetched(there, ca=ca)
