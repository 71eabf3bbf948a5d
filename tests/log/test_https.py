"""Tiles over HTTPS, on real sockets: who gets in, what is served and how, what is borne of strangers."""

import asyncio
import contextlib
import ssl
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.register import RevocationReason
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import PeerVerifier
from hutong.api.log.v1 import log_pb2
from services.kit.config import NodeConfig
from services.kit.errors import FailedPrecondition, Reason
from services.kit.log import verifying
from services.kit.log.checkpoint import open_checkpoint
from services.kit.log.https import Limits, TileServer
from services.kit.log.nodelog import Draft, NodeLog
from services.kit.log.tiles import decode_entries, decode_hashes
from tests.log.bed import KEY, Clock, draft, fill, opened
from tests.zone import ZONE, Zone, now

MEMBER, READER, NODE = "taxation/node", "supervision/node", "customs/node"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def context(files: SvidFiles, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """TLS of a client that proves itself and knows the zone's roots."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(files.bundle)
    made.load_cert_chain(files.certificate, files.key)
    if newest:
        made.maximum_version = newest
    return made


class Connection:
    """One connection to the tiles, of a client that follows HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def get(self, path: str, method: str = "GET") -> Answer:
        return await self.send(f"{method} {path} HTTP/1.1\r\nHost: node.customs.{ZONE}\r\n\r\n".encode(), method)

    async def send(self, raw: bytes, method: str = "GET") -> Answer:
        self.writer.write(raw)
        line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(one.lower().split(": ", 1) for one in lines)
        length = 0 if method == "HEAD" else int(headers["content-length"])
        return Answer(int(line.split()[1]), headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        try:
            return await self.reader.read() == b""
        except OSError:
            return True

    @property
    def serial(self) -> int:
        """Serial number of the server's certificate."""
        tls: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
        found = tls.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


@dataclass
class Served:
    """Tiles of a log, being served."""

    zone: Zone
    log: NodeLog
    server: TileServer
    clock: Clock

    @asynccontextmanager
    async def connection(self, path: str = MEMBER, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Connection]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1",
            self.server.port,
            ssl=tls or context(self.zone.files(path)),
            server_hostname=f"node.customs.{ZONE}",
            ssl_shutdown_timeout=0.5,
        )
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def get(self, path: str, caller: str = MEMBER, method: str = "GET") -> Answer:
        async with self.connection(caller) as connection:
            return await connection.get(path, method)


@asynccontextmanager
async def serving(folder: Path, limits: Limits | None = None) -> AsyncGenerator[Served]:
    zone = Zone(folder / "z")
    clock = Clock(now())
    tls = zone.tls(NODE)
    verifier = PeerVerifier(ZONE, RevocationList(tls.revoked, tls.bundle), clock)
    async with opened(f"sqlite:///{folder / 'log.db'}") as log:
        server = TileServer("127.0.0.1:0", log, zone.files(NODE), verifier, [READER], limits)
        await server.start()
        try:
            yield Served(zone, log, server, clock)
        finally:
            await server.stop()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as made:
        await fill(made.log, 300)
        yield made


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One for tests that only ask."""
    async with serving(tmp_path_factory.mktemp("tiles")) as made:
        await fill(made.log, 300)
        yield made


# what is served


async def test_a_checkpoint_and_tiles(shared: Served) -> None:
    async with shared.connection() as connection:
        # All over one connection.
        checkpoint = await connection.get("/checkpoint")
        assert checkpoint.status == 200
        assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
        assert checkpoint.headers["cache-control"] == "no-cache"
        assert open_checkpoint(checkpoint.body.decode(), [KEY]).checkpoint.size == 300
        for path, width in (("/tile/0/000", 256), ("/tile/0/001.p/44", 44), ("/tile/1/000.p/1", 1)):
            tile = await connection.get(path)
            assert tile.status == 200
            assert tile.headers["content-type"] == "application/octet-stream"
            assert tile.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert len(decode_hashes(tile.body, width)) == width
        # A smaller one, of a tree that was.
        assert (await connection.get("/tile/0/001.p/3")).status == 200


async def test_entries_are_for_readers(shared: Served) -> None:
    assert (await shared.get("/tile/entries/000")).status == 403
    assert (await shared.get("/tile/entries/999")).status == 403
    bundle = await shared.get("/tile/entries/001.p/44", READER)
    assert bundle.status == 200
    assert bundle.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert decode_entries(bundle.body, 44)[0] == (await shared.log.entry(256)).data


async def test_a_head_is_a_get_without_a_body(shared: Served) -> None:
    async with shared.connection() as connection:
        whole = await connection.get("/tile/0/000")
        head = await connection.get("/tile/0/000", "HEAD")
        assert (head.status, head.body, head.headers) == (200, b"", whole.headers)
        assert (await connection.get("/checkpoint")).status == 200


async def test_a_whole_log_is_verified_over_https(shared: Served) -> None:
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=named(shared, READER)))

    def fetch(path: str) -> bytes:
        with opener.open(f"https://localhost:{shared.server.port}/{path}", timeout=30) as answer:
            return bytes(answer.read())

    found = await asyncio.to_thread(verifying.verify_tiles, fetch, KEY)
    assert found.size == 300


def named(served: Served, path: str) -> ssl.SSLContext:
    """TLS of a client that reaches the node by another name than its certificate's."""
    made = context(served.zone.files(path))
    made.check_hostname = False
    return made


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/checkpoint/",
        "/checkpoint?x=1",
        "//checkpoint",
        "/tile/0/002",
        "/tile/0/001",
        "/tile/0/001.p/45",
        "/tile/0/0",
        "/tile/0/000.p/256",
        "/tile/0/000%2e",
        "/tile/../checkpoint",
        "/../../../etc/passwd",
        "/log.db",
        "/tile/0/x000/000",
    ],
)
async def test_what_there_is_not(shared: Served, path: str) -> None:
    async with shared.connection() as connection:
        answer = await connection.get(path)
        assert (answer.status, answer.body) == (404, b"Not Found\n")
        assert answer.headers["cache-control"] == "no-store"
        assert (await connection.get("/checkpoint")).status == 200


async def test_an_empty_log(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert (await served.get("/checkpoint")).status == 404
        await served.log.append(draft())
        assert (await served.get("/checkpoint")).status == 200


async def test_a_log_that_cannot_be_read(served: Served) -> None:
    await served.log.close()
    for path in ("/checkpoint", "/tile/0/000"):
        assert (await served.get(path)).status == 503


# who gets in


async def refused(served: Served, tls: ssl.SSLContext) -> None:
    """The handshake fails: with TLS 1.3 the client hears of it with its first read."""
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        async with served.connection(tls=tls) as connection:
            await connection.get("/checkpoint")


async def test_nobody_without_a_certificate(served: Served) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(served.zone.files(MEMBER).bundle)
    await refused(served, tls)
    assert (await served.get("/checkpoint")).status == 200


async def test_nobody_of_another_zone(served: Served, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", ZONE, now())
    stranger = SpiffeId.parse(f"spiffe://{ZONE}/{MEMBER}")
    other.issue(stranger, now())
    tls = context(other.layout.svid(stranger))
    tls.load_verify_locations(served.zone.files(MEMBER).bundle)
    await refused(served, tls)


async def test_nobody_with_an_older_tls(served: Served) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        async with served.connection(tls=context(served.zone.files(MEMBER), newest=ssl.TLSVersion.TLSv1_2)):
            pass


async def test_a_revoked_member_is_out_at_once(served: Served) -> None:
    async with served.connection() as connection:
        assert (await connection.get("/checkpoint")).status == 200
        serial = served.zone.files(MEMBER).load().leaf.serial_number
        served.zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
        served.clock.move(seconds=2)
        answer = await connection.get("/checkpoint")
        assert (answer.status, answer.body) == (403, b"Forbidden\n")
        assert await connection.ended()
    assert (await served.get("/checkpoint")).status == 403
    assert (await served.get("/checkpoint", READER)).status == 200


async def test_a_connection_does_not_outlive_its_certificate(served: Served) -> None:
    async with served.connection() as connection:
        assert (await connection.get("/checkpoint")).status == 200
        served.clock.move(days=400)
        assert (await connection.get("/checkpoint")).status == 403


async def test_a_renewed_certificate_serves_the_next_connection(served: Served) -> None:
    async with served.connection() as before:
        first = before.serial
        served.zone.authority.renew(served.zone.identity(NODE), now())
        async with served.connection() as after:
            assert after.serial != first
        # The one there was goes on.
        assert (await before.get("/checkpoint")).status == 200


async def test_files_that_make_no_sense_change_nothing(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    certificate = served.zone.files(NODE).certificate
    good = certificate.read_bytes()
    certificate.write_bytes(b"no certificate")
    for _ in range(3):
        assert (await served.get("/checkpoint")).status == 200
    assert sum("could not be renewed" in line.message for line in caplog.records) == 1
    certificate.write_bytes(good)
    assert (await served.get("/checkpoint")).status == 200


# what is borne

HOST = b"Host: a\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /checkpoint HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", 405),
        (b"DELETE /checkpoint HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"get /checkpoint HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (b"GET /checkpoint HTTP/1.0\r\n" + HOST + b"\r\n", 505),
        (b"GET /checkpoint HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"GET /checkpoint\r\n" + HOST + b"\r\n", 400),
        (b"GET  /checkpoint HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://a/checkpoint HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabcde", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"Content-Length : 0\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b" folded: x\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"X: \xff\r\n\r\n", 400),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 40 + b"\r\n", 400),
        (b"GET /" + b"a" * 100 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 9000 + b"\r\n\r\n", 431),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
    ],
)
async def test_requests_that_are_none_end_the_connection(shared: Served, raw: bytes, status: int) -> None:
    async with shared.connection() as connection:
        answer = await connection.send(raw)
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        assert answer.headers.get("allow", "") == ("get, head" if status == 405 else "")
        assert await connection.ended()
    assert (await shared.get("/checkpoint")).status == 200


async def test_a_client_may_close(shared: Served) -> None:
    async with shared.connection() as connection:
        raw = b"GET /checkpoint HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        assert (await connection.send(raw)).status == 200
        assert await connection.ended()


async def test_whoever_says_nothing_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(handshake=0.1, idle=0.1)) as served:
        await fill(served.log, 3)
        async with served.connection() as connection:
            connection.writer.write(b"GET /checkpoint HTTP/1.1\r\n")
            assert await connection.ended()
        # Not even a handshake.
        reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
        async with served.connection() as connection:
            assert (await connection.get("/checkpoint")).status == 200


async def test_whoever_does_not_take_answers_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(connections=1, sending=0.2)) as served:
        large = (Draft(log_pb2.LogEntry(query_id="x" * 65_000)) for _ in range(256))
        await asyncio.gather(*map(served.log.append, large))
        async with served.connection(READER) as connection:
            # Sixteen megabytes do not fit into what lies between us.
            connection.writer.write(b"GET /tile/entries/000 HTTP/1.1\r\n" + HOST + b"\r\n")
            # There is room for one connection: this one waits for that one's end.
            assert (await served.get("/checkpoint")).status == 200


async def test_one_caller_does_not_take_every_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(connections=4)) as served:
        await fill(served.log, 3)
        async with served.connection() as one, served.connection() as two, served.connection() as three:
            assert [(await each.get("/checkpoint")).status for each in (one, two, three)] == [200, 200, 429]
            assert await three.ended()
            assert (await served.get("/checkpoint", READER)).status == 200
        # Whose connections ended may come again.
        assert (await served.get("/checkpoint")).status == 200


async def test_more_connections_than_are_borne_wait(tmp_path: Path) -> None:
    async with serving(tmp_path, Limits(connections=2)) as served:
        await fill(served.log, 3)
        async with served.connection() as one, served.connection(READER) as two:
            assert (await one.get("/checkpoint")).status == 200
            assert (await two.get("/checkpoint")).status == 200
            waiting = asyncio.create_task(served.get("/checkpoint", READER))
            # Both are still served, and nobody else is.
            assert (await one.get("/tile/0/000.p/3")).status == 200
            assert not waiting.done()
        assert (await waiting).status == 200


async def test_a_stop_cuts_connections(tmp_path: Path) -> None:
    async with serving(tmp_path) as served, served.connection() as connection:
        await fill(served.log, 3)
        assert (await connection.get("/checkpoint")).status == 200
        await served.server.stop()
        assert await connection.ended()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", served.server.port)


async def test_an_address_in_use(served: Served) -> None:
    other = TileServer(f"127.0.0.1:{served.server.port}", served.log, served.zone.files(NODE), served.server._verifier)  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(FailedPrecondition) as caught:
        await other.start()
    assert caught.value.reason is Reason.ADDRESS_IN_USE


async def test_a_node_serves_tiles_where_its_config_says(tmp_path: Path) -> None:
    zone = Zone(tmp_path / "z")
    section = zone.log(NODE).model_copy(update={"tiles": "127.0.0.1:0"})
    host = zone.frame(NodeConfig(node=zone.node(NODE), tls=zone.tls(NODE), log=section))
    await host.start([], [])
    try:
        assert host.log is not None
        await host.log.append(draft())
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", host.tiles_port, ssl=context(zone.files(MEMBER)), server_hostname=f"node.customs.{ZONE}"
        )
        assert (await Connection(reader, writer).get("/checkpoint")).status == 200
        writer.close()
    finally:
        await host.stop()
