"""Whoever would fill a log, write into it, or keep others from it: floods, giant contexts, requests without an end."""

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from certs.register import RevocationReason
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, reads_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.department import DepartmentNode
from services.kit.errors import HutongError, Reason
from services.kit.log import receipts, verifying
from services.kit.log.tiles import Tile
from services.kit.records.database import engine
from tests.attacks.asking import CUSTOMS, DECLARATION, MONITOR, REBATE, SUBJECT, TAX, refused, why
from tests.exchange.mesh import EXPLAIN, QUERY, ROOMS, STREAM, Mesh, question
from tests.exchange.records import EXPORTER, RECORDS
from tests.recording.bed import everything, key_of, log_of, raw
from tests.zone import ZONE, now

LIST = "/hutong.api.exchange.v1.FederationService/ListReads"
LOUD = "SECRET-" + "x" * 4000
READER = "audit/desk"
FIRM = f"enterprise/{EXPORTER.lower()}"


# flooding


async def test_a_flood_of_refusals_is_logged_small_and_says_nothing_of_the_flooder(own: Mesh) -> None:
    """An unlisted member by the hundred: whoever is listed is answered meanwhile, and the log is one log."""
    host, flooder = own.departments["customs"].host, "laboratory/lims"
    request = service_pb2.GetDeclarationRequest(
        name=f"declarations/{LOUD}", context=why(**REBATE, case_ref=LOUD, on_behalf_of=LOUD), fields=[LOUD]
    )
    get, response = f"{CUSTOMS}/GetDeclaration", service_pb2.GetDeclarationResponse
    good = service_pb2.GetDeclarationRequest(name=DECLARATION, context=why(**REBATE))

    async def flooded() -> str:
        client = own.client(flooder, "customs")
        return (await refused(client.unary(get, request, response, timeout=60))).reason

    flood = [asyncio.create_task(flooded()) for _ in range(300)]
    answered = [receipts.split(await raw(own.client(TAX, "customs"), get, good), response) for _ in range(5)]
    assert set(await asyncio.gather(*flood)) <= {Reason.CALLER_NOT_LISTED, Reason.CALLS_TOO_MANY}
    entries = await everything(host)
    theirs = [entry for entry in entries if entry.caller == f"spiffe://{ZONE}/{flooder}"]
    outcomes = Counter(entry.reason for entry in theirs)
    assert outcomes[Reason.CALLER_NOT_LISTED] > 200
    for entry in theirs:
        data = entry.SerializeToString()
        assert b"SECRET" not in data
        assert len(data) < 300
        assert not entry.purpose
        assert not entry.case_commitment
        assert not entry.subject_commitments
    # Nothing of it lies beside the log either: there is nothing to open, and nobody to find.
    log = log_of(host)
    assert [await log.opening(index) for index in range(log.size)].count(None) >= len(theirs)
    for each in answered:
        assert (await log.entry(each.receipt.index)).entry.answer_digest == each.digest
    assert host.config.log is not None
    opened = engine(host.config.log.read_url(Path()), writer=False)
    with opened.connect() as connection:
        verifying.verify_all(connection, key_of(host))
    opened.dispose()


def stuffed(**fields: str) -> exchange_pb2.RequestContext:
    return why(**MONITOR | fields)


GIANTS: dict[str, dict[str, str]] = {
    "case": {"case_ref": LOUD},
    "behalf": {"on_behalf_of": LOUD},
    "purpose": {"purpose": LOUD},
    "basis": {"legal_basis": LOUD},
    "authorization": {"authorization_id": LOUD},
    "ticket": {"authorization_id": "a-1", "authorization_ticket": "SECRET." * 20_000},
    "lines": {"case_ref": "SECRET\n{}\r\n"},
    "direction": {"case_ref": "SECRET\u202e\u2066"},
    "personal": {"purpose": "91990000MA0000001X", "legal_basis": "SECRET 91990000MA0000001X"},
}


@pytest.mark.parametrize("fields", GIANTS.values(), ids=GIANTS)
async def test_contexts_do_not_write_into_the_log(mesh: Mesh, fields: dict[str, str]) -> None:
    """Through every door that takes one: refused, and what is kept of it is bounded and can be erased."""
    context = stuffed(**fields)
    query = question(SUBJECT, "customs.Declaration")
    query.context.CopyFrom(context)
    subject = common_pb2.SubjectId(scheme="cn.uscc", value=EXPORTER)
    doors: list[tuple[str, str, str, Any]] = [
        (TAX, "gateway", QUERY, query),
        (TAX, "gateway", EXPLAIN, federation_pb2.ExplainRequest(query=query)),
        (FIRM, "gateway", LIST, reads_pb2.ListReadsRequest(subject=subject, context=context)),
        (TAX, "customs", f"{CUSTOMS}/GetDeclaration", get(context)),
    ]
    for who, node, method, request in doors:
        log = log_of(mesh.host(node))
        before = log.size
        with pytest.raises(HutongError) as caught:
            await raw(mesh.client(who, node), method, request)
        assert "SECRET" not in caught.value.message
        assert log.size == before + 1, method
        logged = await log.entry(before)
        assert b"SECRET" not in logged.data
        assert b"91990000" not in logged.data.replace(who.encode(), b"")
        assert len(logged.data) < 1000
        opening = await log.opening(before)
        assert opening is None or opening.ByteSize() < 1000
    streamed = mesh.client(TAX).stream(
        STREAM, federation_pb2.StreamQueryRequest(query=query), federation_pb2.StreamQueryResponse, timeout=10
    )
    await refused(anext(streamed))


def get(context: exchange_pb2.RequestContext) -> service_pb2.GetDeclarationRequest:
    return service_pb2.GetDeclarationRequest(name=DECLARATION, context=context)


async def test_what_is_no_request_at_all_is_logged_too(mesh: Mesh) -> None:
    """By who sent it and as what, and by nothing that was in it."""
    log = log_of(mesh.host("customs"))
    for data in (b"\xff" * 100, b"SECRET" * 1000, b"\x0a\xff\xff\xff\xff\x0fSECRET", b"\x00"):
        before = log.size
        with pytest.raises(HutongError) as caught:
            await raw(mesh.client(TAX, "customs"), f"{CUSTOMS}/GetDeclaration", data)
        entry = (await log.entry(before)).entry
        assert (entry.outcome, entry.reason) == (log_pb2.OUTCOME_REFUSED, caught.value.reason)
        assert b"SECRET" not in entry.SerializeToString()


# tiles


class Door:
    """The tiles of a department's log, at the address its config names."""

    def __init__(self, mesh: Mesh, port: int) -> None:
        self.mesh = mesh
        self.port = port

    def tls(self, who: str) -> ssl.SSLContext:
        files = self.mesh.zone.files(who)
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(files.bundle)
        made.load_cert_chain(files.certificate, files.key)
        return made

    @contextlib.asynccontextmanager
    async def line(
        self, tls: ssl.SSLContext | None
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        name = f"node.customs.{ZONE}" if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def send(self, raw_: bytes, tls: ssl.SSLContext | None) -> bytes:
        """Send something, and read until the other side has enough, or an answer is whole."""
        async with self.line(tls) as (reader, writer):
            writer.write(raw_)
            with contextlib.suppress(asyncio.IncompleteReadError, OSError, ssl.SSLError):
                return await reader.readuntil(b"\r\n")
            return b""

    async def status(self, path: str, who: str = TAX) -> int:
        line = await self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), self.tls(who))
        return int(line.split()[1]) if line else 0


@pytest.fixture(scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Door]:
    mesh = Mesh(tmp_path_factory.mktemp("tiles"))
    config = mesh.config("customs", "127.0.0.1:0")
    assert config.log is not None
    log = config.log.model_copy(update={"tiles": "127.0.0.1:0", "readers": [READER]})
    config = config.model_copy(update={"log": log})
    node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), mesh.zone.frame(config))
    try:
        await node.start()
        mesh.departments["customs"] = node
        await mesh.load("customs", RECORDS["customs"])
        await raw(mesh.client(TAX, "customs"), f"{CUSTOMS}/GetDeclaration", get(why(**REBATE)))
        yield Door(mesh, node.host.tiles_port)
    finally:
        await mesh.stop()


async def test_nothing_is_served_without_a_good_certificate(door: Door) -> None:
    assert await door.status("/checkpoint") == 200
    request = b"GET /checkpoint HTTP/1.1\r\nHost: x\r\n\r\n"
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.load_verify_locations(door.mesh.zone.files(TAX).bundle)
    old = door.tls(TAX)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert await door.send(request, None) == b""
    assert await door.send(request, anonymous) == b""
    with pytest.raises((OSError, ssl.SSLError)):
        await door.send(request, old)


async def test_a_revoked_certificate_is_none(door: Door) -> None:
    zone, who = door.mesh.zone, "quality/revoked"
    assert await door.status("/checkpoint", who) == 200
    zone.authority.revoke((zone.files(who).load().leaf.serial_number,), RevocationReason.KEY_COMPROMISE, now())
    async with asyncio.timeout(30):
        # The list is looked at again within moments.
        while await door.status("/checkpoint", who) == 200:
            pass
    assert await door.status("/checkpoint", who) == 403
    assert await door.status("/checkpoint") == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../customs.node.key",
        "/tile/../../customs.node.key",
        "/%2e%2e/%2e%2e/secret",
        "/tile/0/..%2f..%2fsecret",
        "//etc/passwd",
        "/tile/0/000/../../../secret",
        "/tile/entries/%30%30%30",
        "/tile/0/000?entries",
        "/tile/0/000;x",
        "/tile/0/\uff10\uff10\uff10",
        "http://127.0.0.1/checkpoint",
        "/log.db",
        "/" + "a" * 300,
        "/tile/0/" + "x001/" * 100 + "001",
    ],
)
async def test_paths_that_lead_elsewhere(door: Door, path: str) -> None:
    assert await door.status(path) in {400, 404, 414}


async def test_entries_are_for_readers_whatever_they_are_called(door: Door) -> None:
    size = log_of(door.mesh.host("customs")).size
    path = f"/{Tile(None, 0, size).path}"
    assert await door.status(path, READER) == 200
    for who in (TAX, "customs/node", "audit/other", FIRM):
        assert await door.status(path, who) == 403
    for other in (path.upper(), path.replace("entries", "entries/"), path.replace("/tile/", "/tile//")):
        assert await door.status(other) == 404


@pytest.mark.parametrize(
    ("raw_", "status"),
    [
        (b"GET /checkpoint HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /checkpoint HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 500 + b"\r\n", b"400"),
        (b"GET /checkpoint HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"GET /checkpoint HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"POST /checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nSMUGGLED!", b"405"),
        (b"PUT /tile/0/000 HTTP/1.1\r\nHost: x\r\n\r\n", b"405"),
        (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /checkpoint HTTP/1.0\r\n\r\n", b"505"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    ],
    ids=["a header", "headers", "hosts", "smuggling", "a body", "writing", "a proxy", "an old one", "a new one"],
)
async def test_requests_that_are_none(door: Door, raw_: bytes, status: bytes) -> None:
    assert (await door.send(raw_, door.tls(TAX))).split(b" ")[1] == status
    assert await door.status("/checkpoint") == 200


async def test_who_never_ends_a_request_keeps_nobody_out(door: Door) -> None:
    """One member opens all the connections there are, and sends a letter on each: others are served all the same."""
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        tls = door.tls("quality/slow")
        for _ in range(80):
            _reader, writer = await stack.enter_async_context(door.line(tls))
            writer.write(b"G")
        assert await door.status("/checkpoint") == 200
        assert await door.status("/checkpoint", READER) == 200
