"""Revocation lists from node to node: within seconds, whoever brings them, and only those that the authority signed."""

import asyncio
import contextlib
import datetime as dt
import math
import shutil
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certs import issuance
from certs.authority import Authority
from certs.files import write_atomically
from certs.register import RevocationReason
from certs.revocation import Brought, RevocationList, signed_list
from certs.rollover import Rollover
from certs.verify import ServerVerifier
from hutong.api.node.v1 import node_pb2
from services.cli.statuses import Asked, Light, ask, lights
from services.kit import revocations
from services.kit.client import Client
from services.kit.config import NodeConfig, PeerSection, TlsSection
from services.kit.errors import HutongError, Reason
from services.kit.host import Host
from services.kit.identity import Ends
from services.kit.revocations import LISTENERS, WATCH, Hearing, Telling, recall
from services.kit.rpc import Call
from tests.zone import ZONE, Zone, now

CALL = "/grpc.health.v1.Health/Check"
"""Something that every member of the zone may call at every node."""
CALLER = "gateway/main"
SOON = 8.0
"""Seconds in which whatever is waited for here has to come; most of it takes one."""


Stream = AsyncGenerator[node_pb2.WatchRevocationsResponse]


class Field:
    """Nodes of one zone, each with a copy of its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.zone = Zone(folder)
        self.folder = folder
        self.hosts: dict[str, Host] = {}

    @property
    def list(self) -> bytes:
        """The list that the authority published last."""
        return self.zone.authority.layout.revoked.read_bytes()

    def revoked_at(self, agency: str) -> Path:
        """Where a node's list lies."""
        path = self.folder / agency / "revoked.crl"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            shutil.copy(self.zone.authority.layout.revoked, path)
        return path

    def tls(self, agency: str, **sources: Host | str) -> TlsSection:
        files = self.zone.files(f"{agency}/node")
        targets = {name: host if isinstance(host, str) else host.address for name, host in sources.items()}
        return TlsSection(
            certificate=files.certificate,
            key=files.key,
            bundle=files.bundle,
            revoked=self.revoked_at(agency),
            revocations_from={name: PeerSection(target=target) for name, target in targets.items()},
            heard=self.folder / agency / "heard.crl",
        )

    async def start(self, agency: str, listen: str = "127.0.0.1:0", **sources: Host | str) -> Host:
        node = self.zone.node(f"{agency}/node").model_copy(update={"listen": listen})
        host = self.zone.frame(NodeConfig(node=node, tls=self.tls(agency, **sources)))
        await host.start((), [])
        self.hosts[agency] = host
        return host

    async def stop(self, agency: str) -> None:
        await self.hosts.pop(agency).stop()

    def revoke(self, who: str) -> None:
        """Revoke a system; the list is published at the authority, and nowhere else."""
        serial = self.zone.files(who).load().leaf.serial_number
        self.zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())


@pytest.fixture
async def field(tmp_path: Path) -> AsyncGenerator[Field]:
    field = Field(tmp_path)
    try:
        yield field
    finally:
        for agency in reversed(list(field.hosts)):
            await field.stop(agency)


def listen(client: Client) -> Stream:
    messages = client.stream(WATCH, node_pb2.WatchRevocationsRequest(), node_pb2.WatchRevocationsResponse, timeout=None)
    return cast("Stream", messages)


@contextlib.asynccontextmanager
async def closing(client: Client) -> AsyncGenerator[Client]:
    try:
        yield client
    finally:
        await client.close()


def read(host: Host, name: str, **labels: str) -> float:
    """Read what a node measures."""
    found = host.telemetry.readings()
    return sum(value for title, have, value in found if title == name and labels.items() <= have.items())


def heard(host: Host, outcome: Brought) -> float:
    return read(host, "hutong_revocations_heard", outcome=outcome.value)


def is_heard(host: Host, outcome: Brought, count: int = 1) -> bool:
    return heard(host, outcome) == count


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110 - what is measured tells nobody that it changed
            await asyncio.sleep(0.01)


async def until_refused(client: Client) -> HutongError:
    """Call until there is no answer; gives why."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                await client.raw(CALL, b"", timeout=5)
            except HutongError as error:
                return error
            await asyncio.sleep(0.01)


async def until_answered(client: Client) -> None:
    async with asyncio.timeout(SOON):
        while True:
            with contextlib.suppress(HutongError):
                await client.raw(CALL, b"", timeout=5)
                return
            await asyncio.sleep(0.01)


async def test_what_one_node_reads_every_node_knows_within_seconds(field: Field) -> None:
    """Down a line of three: only the first one's file is written to."""
    first = await field.start("supervision")
    second = await field.start("customs", supervision=first)
    third = await field.start("taxation", customs=second)
    async with field.zone.client(third, CALLER) as open_before, field.zone.client(third, "gateway/other") as other:
        async with contextlib.aclosing(listen(open_before)) as running:
            assert (await anext(running)).lists
            field.revoke(CALLER)
            write_atomically(field.revoked_at("supervision"), field.list)
            assert (await until_refused(open_before)).reason is Reason.CERTIFICATE_REVOKED
            with pytest.raises(HutongError) as cut:
                while True:
                    await anext(running)
        assert cut.value.reason is Reason.CERTIFICATE_REVOKED
        await other.raw(CALL, b"", timeout=5)
    assert heard(third, Brought.TAKEN) == 1


async def test_a_node_that_starts_again_remembers_what_it_heard(field: Field) -> None:
    first = await field.start("supervision")
    second = await field.start("customs", supervision=first)
    field.revoke(CALLER)
    write_atomically(field.revoked_at("supervision"), field.list)
    kept = field.folder / "customs" / "heard.crl"
    await until(lambda: heard(second, Brought.TAKEN) == 1)
    await until(lambda: kept.exists() and kept.read_bytes() == field.list)
    await field.stop("customs")
    await field.stop("supervision")
    again = await field.start("customs", supervision=first.address)
    async with field.zone.client(again, CALLER) as client:
        with pytest.raises(HutongError) as refused:
            await client.raw(CALL, b"", timeout=5)
    assert refused.value.reason is Reason.CERTIFICATE_REVOKED
    assert read(again, "hutong_revocations_followed") == 0


async def test_an_older_list_counts_no_more_after_a_restart_either(field: Field) -> None:
    """Of a node that listens to nobody, and was killed: what it keeps it keeps while it runs."""
    before, kept = field.list, field.folder / "customs" / "heard.crl"
    host = await field.start("customs")
    field.revoke(CALLER)
    write_atomically(field.revoked_at("customs"), field.list)
    await until(lambda: kept.exists() and kept.read_bytes() == field.list)
    left = kept.read_bytes()
    await field.stop("customs")
    write_atomically(kept, left)
    write_atomically(field.revoked_at("customs"), before)
    again = await field.start("customs", host.address)
    async with field.zone.client(again, CALLER) as revoked, field.zone.client(again, "gateway/other") as other:
        assert (await until_refused(revoked)).reason is Reason.CERTIFICATE_REVOKED
        async with contextlib.aclosing(listen(other)) as stream:
            assert (await anext(stream)).lists == left
    assert not any(name.startswith("hutong_revocations_heard") for name, _, _ in again.telemetry.readings())


async def test_two_that_listen_to_each_other_tell_a_list_once(field: Field) -> None:
    first = await field.start("supervision")
    second = await field.start("customs", supervision=first)
    address = first.address
    await field.stop("supervision")
    first = await field.start("supervision", address, customs=second)
    await until(lambda: read(first, "hutong_revocations_followed") == read(second, "hutong_revocations_followed") == 1)
    field.revoke(CALLER)
    write_atomically(field.revoked_at("customs"), field.list)
    await until(lambda: heard(first, Brought.TAKEN) == 1)
    assert [heard(second, each) for each in (Brought.TAKEN, Brought.OLDER)] == [0, 0]


class Liar:
    """Tells lists of a test's choice, in a node's name."""

    def __init__(self) -> None:
        self.tells: asyncio.Queue[bytes] = asyncio.Queue()

    async def get_status(self, _: node_pb2.GetStatusRequest, __: Call) -> node_pb2.GetStatusResponse:
        return node_pb2.GetStatusResponse()

    async def watch_revocations(
        self, _: node_pb2.WatchRevocationsRequest, __: Call
    ) -> AsyncIterator[node_pb2.WatchRevocationsResponse]:
        while True:
            yield node_pb2.WatchRevocationsResponse(lists=await self.tells.get())


def told_by(liar: Liar, *_: object) -> Liar:
    """Stand in the place of a node's service."""
    return liar


@contextlib.asynccontextmanager
async def lying(field: Field, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[Liar, Host]]:
    """Run a node that listens to one that lies, and has the newest list."""
    liar = Liar()
    monkeypatch.setattr("services.kit.status.NodeService", partial(told_by, liar))
    host = await field.start("supervision")
    monkeypatch.undo()
    yield liar, await field.start("customs", supervision=host)


async def test_what_no_authority_signed_changes_nothing(
    field: Field, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = field.list
    field.revoke("taxation/refund")
    stranger = Authority.create(tmp_path / "elsewhere", ZONE, now())
    issuer, entries = field.zone.authority.signer.certificate, ()
    forged = signed_list(tmp_path / "none", entries, issuer, ec.generate_private_key(ec.SECP256R1()), now())
    bad = {
        Brought.OLDER: older,
        Brought.STRANGE: stranger.layout.revoked.read_bytes(),
        Brought.FORGED: forged,
    }
    async with lying(field, monkeypatch) as (liar, host):
        for outcome, lists in bad.items():
            liar.tells.put_nowait(lists)
            await until(partial(is_heard, host, outcome))
        # After a lie it is listened to again, and again no further than what is signed.
        liar.tells.put_nowait(b"nothing that can be read")
        await until(lambda: heard(host, Brought.FORGED) == 2)
        assert heard(host, Brought.TAKEN) == 0
        await until(lambda: (field.folder / "customs" / "heard.crl").read_bytes() == field.list)
        async with field.zone.client(host, CALLER) as well, field.zone.client(host, "taxation/refund") as revoked:
            await well.raw(CALL, b"", timeout=5)
            with pytest.raises(HutongError) as refused:
                await revoked.raw(CALL, b"", timeout=5)
            assert refused.value.reason is Reason.CERTIFICATE_REVOKED
            # And what the authority did sign counts, even from a liar.
            field.revoke(CALLER)
            liar.tells.put_nowait(field.list)
            assert (await until_refused(well)).reason is Reason.CERTIFICATE_REVOKED


async def test_a_node_that_is_away_delays_nothing_and_is_heard_when_it_comes(field: Field) -> None:
    first = await field.start("supervision")
    address = first.address
    await field.stop("supervision")
    second = await field.start("customs", supervision=address)
    async with field.zone.client(second, CALLER) as client:
        await client.raw(CALL, b"", timeout=5)
        field.revoke(CALLER)
        write_atomically(field.revoked_at("supervision"), field.list)
        await field.start("supervision", address)
        assert (await until_refused(client)).reason is Reason.CERTIFICATE_REVOKED


async def test_where_nothing_can_be_kept_it_counts_all_the_same(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    first = await field.start("supervision")
    # In the way of what is kept: a folder nobody can write a file over.
    (field.folder / "customs" / "heard.crl" / "something").mkdir(parents=True)
    second = await field.start("customs", supervision=first)
    async with field.zone.client(second, CALLER) as client:
        for who in ("taxation/refund", CALLER):
            field.revoke(who)
            write_atomically(field.revoked_at("supervision"), field.list)
            await until(partial(is_heard, second, Brought.TAKEN, 1 + (who == CALLER)))
        assert (await until_refused(client)).reason is Reason.CERTIFICATE_REVOKED
    assert sum("held in memory only" in record.message for record in caplog.records) == 1


class Watched(RevocationList):
    """Lists that remember who took some in: the event loop, or another thread."""

    def __init__(self, path: Path, bundle: Path) -> None:
        super().__init__(path, bundle)
        self.taken_by: list[threading.Thread] = []

    def take(self, pem: bytes, now: dt.datetime, *, bounded: bool = True) -> Counter[Brought]:
        self.taken_by.append(threading.current_thread())
        return super().take(pem, now, bounded=bounded)


class Looks:
    """A clock that knows how often it was looked at."""

    count = 0

    def __call__(self) -> dt.datetime:
        self.count += 1
        return now()


@contextlib.asynccontextmanager
async def keeping(lists: RevocationList, kept: Path, clock: Looks, looks: int) -> AsyncGenerator[None]:
    """Keep lists in a file, and wait until they were looked at so often."""
    hearing = Hearing(lists, Telling(lists, clock), kept, clock)
    hearing.start()
    try:
        await until(lambda: clock.count >= looks)
        yield
    finally:
        await hearing.stop()


async def test_what_cannot_be_written_is_read_ever_more_seldom_and_not_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocations, "LOOK_EVERY", dt.timedelta(milliseconds=5))
    layout, clock = Zone(tmp_path).authority.layout, Looks()
    # It can be read; but whatever is to be renamed over it has a name that is too long.
    kept = tmp_path / ("k" * 250)
    kept.write_bytes(layout.revoked.read_bytes())
    lists = Watched(layout.revoked, layout.bundle)
    async with keeping(lists, kept, clock, 200):
        first, *others = lists.taken_by
    assert first is threading.main_thread(), "before anybody is served"
    assert threading.main_thread() not in others
    assert 2 <= len(others) < 20


def is_another(file: Path, inode: int) -> bool:
    return file.stat().st_ino != inode


async def test_what_cannot_be_verified_yet_is_kept_all_the_same(tmp_path: Path) -> None:
    """The list of an authority whose root is missing at the start: once it is there, no older one counts."""
    authority = Zone(tmp_path).authority
    layout, bundle, path, kept = authority.layout, tmp_path / "here.crt", tmp_path / "here.crl", tmp_path / "heard.crl"
    bundle.write_bytes(layout.bundle.read_bytes())
    Rollover(authority).prepare(now(), new_root=True)
    older = layout.revoked.read_bytes()
    authority.publish_revocations(now())
    newer = layout.revoked.read_bytes()
    path.write_bytes(older)
    kept.write_bytes(newer)
    for _ in range(2):
        before = kept.stat().st_ino
        async with keeping(RevocationList(path, bundle), kept, Looks(), 1):
            await until(partial(is_another, kept, before))
    bundle.write_bytes(layout.bundle.read_bytes())
    lists = RevocationList(path, bundle)
    recall(lists, kept, now)
    assert lists.take(newer, now()) == {Brought.KNOWN: 2}
    assert lists.take(older, now()) == {Brought.OLDER: 2}


async def test_a_mistake_while_writing_is_logged_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(revocations, "LOOK_EVERY", dt.timedelta(milliseconds=5))
    layout, kept, tried = Zone(tmp_path).authority.layout, tmp_path / "heard.crl", list[Path]()

    def fail(path: Path, _: bytes) -> None:
        tried.append(path)
        raise RuntimeError("nobody expects this")

    monkeypatch.setattr(revocations, "write_atomically", fail)
    async with keeping(RevocationList(layout.revoked, layout.bundle), kept, Looks(), 5):
        await until(lambda: len(tried) > 2)
        monkeypatch.setattr(revocations, "write_atomically", write_atomically)
    assert kept.read_bytes() == layout.revoked.read_bytes(), "the stop waits for no pause"
    (said,) = [record for record in caplog.records if "held in memory only" in record.message]
    assert said.exc_info is not None


async def test_nobody_listens_more_often_than_it_may(field: Field) -> None:
    host = await field.start("customs")
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(field.zone.client(host, CALLER))

        async def first() -> bytes:
            return (await anext(await stack.enter_async_context(contextlib.aclosing(listen(client))))).lists

        assert [await first() for _ in range(LISTENERS)] == [field.revoked_at("customs").read_bytes()] * LISTENERS
        with pytest.raises(HutongError) as refused:
            await first()
    assert refused.value.reason is Reason.STREAMS_TOO_MANY


async def test_of_a_server_that_is_revoked_nothing_is_asked(field: Field) -> None:
    host, layout = await field.start("customs"), field.zone.authority.layout

    def connect() -> "contextlib.AbstractAsyncContextManager[Client]":
        vouch = ServerVerifier(RevocationList(layout.revoked, layout.bundle), now).verify
        files = field.zone.files(CALLER)
        return closing(Client(host.address, host.identity, files, transport="nghttp2", vouch=vouch))

    async with connect() as client, contextlib.aclosing(listen(client)) as stream:
        assert (await anext(stream)).lists
        field.revoke("customs/node")
        # What runs ends, and what comes after is not even begun.
        async with asyncio.timeout(SOON):
            with pytest.raises(HutongError, match="lost"):
                while True:
                    await anext(stream)
        assert "is revoked" in (await until_refused(client)).message
        field.zone.authority.issue(host.identity, now())
        await until_answered(client)
    # Where the list is lost nobody is known to be revoked: whoever has a newer one must be heard.
    layout.revoked.unlink()
    async with connect() as client:
        await client.raw(CALL, b"", timeout=5)


async def test_a_node_calls_no_server_that_is_revoked(field: Field) -> None:
    first = await field.start("supervision")
    second = await field.start("customs", supervision=first)
    await until(lambda: read(second, "hutong_revocations_followed") == 1)
    field.revoke("supervision/node")
    write_atomically(field.revoked_at("customs"), field.list)
    if second.config.node.transport == "nghttp2":
        await until(lambda: read(second, "hutong_revocations_followed") == 0)


async def test_a_zone_without_lists_tells_none_and_shows_none(tmp_path: Path) -> None:
    zone = Zone(tmp_path)
    files = zone.files("customs/node")
    tls = TlsSection.model_validate(
        {"certificate": files.certificate, "key": files.key, "bundle": files.bundle, "longest_life": "25h"}
    )
    host = zone.frame(NodeConfig(node=zone.node("customs/node"), tls=tls))
    await host.start((), [])
    try:
        async with zone.client(host, CALLER) as client, contextlib.aclosing(listen(client)) as stream:
            assert not (await anext(stream)).lists
        (standing,) = await ask([Asked(host.address, host.identity, zone.files("operator/admin"))])
        assert lights(standing)[0] is not Light.RED
        assert "hutong_revocations_seconds_left" not in standing.names
        assert all(math.isfinite(standing.value(name)) for name in standing.names)
    finally:
        await host.stop()


async def test_it_shows_how_long_authorities_last_that_people_renew(field: Field) -> None:
    host = await field.start("customs")
    days = {name: read(host, f"hutong_{name}_seconds_left") / 86_400 for name in ("authority", "root")}
    assert {name: round(left) for name, left in days.items()} == {"authority": 1825, "root": 3650}


def test_authorities_that_renew_themselves_end_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for life in ("ROOT_LIFE", "INTERMEDIATE_LIFE"):
        monkeypatch.setattr(issuance, life, dt.timedelta(days=60))
    assert Ends.of(Zone(tmp_path).files("customs/node").load()) == Ends(None, None)
