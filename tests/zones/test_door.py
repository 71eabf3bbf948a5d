"""The door between zones, attacked and broken: who gets in, what the others see of it, how trust is kept up to date."""

import asyncio
import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

import pytest

from certs import rollover
from certs.register import RevocationReason
from certs.revocation import LOOK_EVERY
from certs.rollover import Rollover
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from gateway import trust
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, zone_pb2
from services.kit.client import Client
from services.kit.config import LimitsSection
from services.kit.errors import FailedPrecondition, HutongError, Reason
from tests.exchange.mesh import QUERY, Mesh, question
from tests.zone import now
from tests.zones.world import FAR, GIVEN, INLAND, PORT, REFUND, SUBJECT, WHY, World, door, known, world, zoned

DECLARATION = f"{INLAND}/customs.Declaration:{GIVEN}"
BEYOND = f"{FAR}/customs.Declaration:{GIVEN}"
OK = exchange_pb2.SECTION_STATUS_OK


@pytest.fixture
async def own(tmp_path: Path) -> AsyncGenerator[World]:
    """A world of one's own, to break."""
    async with world(tmp_path) as made:
        yield made


async def until(holds: Callable[[], Awaitable[bool]], within: float = 20) -> None:
    """Ask until it holds."""
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - what is waited for happens at another node
            await asyncio.sleep(0.05)


async def came_of(world: World, *selections: str) -> list[tuple[int, str]]:
    return [(section.status, section.reason) for section in (await world.ask(*selections)).sections]


async def trust_of(mesh: Mesh, other: Mesh, who: str, target: str) -> zone_pb2.GetTrustResponse:
    """Ask at an address for another zone's trust, as somebody of `mesh`."""
    files = mesh.zone.files(who)
    credentials = SvidFiles(files.certificate, files.key, other.zone.authority.layout.bundle)
    client = Client(target, SpiffeId.of(other.zone.name, "gateway", "main"), credentials)
    try:
        request = zone_pb2.GetTrustRequest()
        return await client.unary(trust.GET_TRUST, request, zone_pb2.GetTrustResponse, timeout=2)
    finally:
        await client.close()


async def test_a_gateway_of_another_zone_gets_in_at_the_door_only(zones: World) -> None:
    found = await trust_of(zones.port, zones.inland, "gateway/main", door(zones.inland))
    assert found.bundle == zones.inland.zone.authority.layout.bundle.read_bytes()
    with pytest.raises(HutongError) as caught:
        await trust_of(zones.port, zones.inland, "gateway/main", zones.inland.host("gateway").address)
    assert caught.value.reason == Reason.DEPARTMENT_UNREACHABLE, "its roots are no roots there: no handshake"


async def test_nobody_else_gets_in(zones: World) -> None:
    with pytest.raises(HutongError) as caught:
        await trust_of(zones.port, zones.inland, REFUND, door(zones.inland))
    assert caught.value.reason == Reason.CALLER_NOT_LISTED
    with pytest.raises(HutongError) as caught:
        await trust_of(zones.inland, zones.inland, "gateway/main", door(zones.inland))
    assert caught.value.reason == Reason.DEPARTMENT_UNREACHABLE, "nor does anybody of its own zone"


async def test_a_zone_that_is_away_costs_its_own_sections(own: World) -> None:
    assert own.far.gateway is not None
    await own.far.gateway.stop()
    own.far.gateway = None
    assert await came_of(own, DECLARATION, BEYOND) == [
        (OK, ""),
        (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.ZONE_UNREACHABLE),
    ]


async def test_refusals_at_the_door_are_those_of_the_caller_that_another_zone_asks_for(tmp_path: Path) -> None:
    async with world(tmp_path, LimitsSection(refusals=0.01)) as made:
        log = made.inland.host("gateway").log
        assert log is not None
        # Port asks for somebody whom inland does not let ask, and for somebody with a page token that is none.
        for reason in (Reason.CALLER_NOT_LISTED, Reason.RATE_EXCEEDED, Reason.RATE_EXCEEDED):
            before = log.size
            (section,) = (await made.ask(DECLARATION, who="customs/desk")).sections
            assert section.reason == reason
            assert log.size - before == (reason is Reason.CALLER_NOT_LISTED), "what is too much is not logged"
            assert await came_of(made, DECLARATION) == [(OK, "")]
        forged = zoned(question(SUBJECT, DECLARATION, **WHY))
        forged.selections[0].page_token = "forged"
        with pytest.raises(HutongError) as caught:
            await made.port.client("taxation/desk").unary(QUERY, forged, federation_pb2.QueryResponse, timeout=5)
        assert caught.value.reason is Reason.PAGE_TOKEN_INVALID
        assert await came_of(made, DECLARATION) == [(OK, "")]


async def test_a_department_lets_in_whom_it_lists(tmp_path: Path) -> None:
    """Its own gateway may bring whom it likes: a department that was not told of a zone refuses."""
    async with world(tmp_path) as made:
        await made.inland.departments.pop("customs").stop()
        made.inland.lets_in = []
        customs = await made.inland.start("customs")
        await made.inland.replace_gateway(customs=customs.host.address)

        async def refused() -> bool:
            """The way there is found again first."""
            (came,) = await came_of(made, DECLARATION)
            assert came[0] == exchange_pb2.SECTION_STATUS_UNAVAILABLE
            return came[1] == Reason.DEPARTMENT_FAILED

        await until(refused)


async def test_a_gateway_that_is_revoked_is_out_within_seconds(own: World) -> None:
    """Only its own zone is told; the others find out."""
    assert await came_of(own, DECLARATION) == [(OK, "")]
    authority = own.port.zone.authority
    entry = authority.current()[SpiffeId.of(PORT, "gateway", "main")]
    authority.revoke((entry.serial,), RevocationReason.KEY_COMPROMISE, now())
    seen: set[tuple[int, str]] = set()

    async def refused() -> bool:
        with contextlib.suppress(HutongError):
            seen.update(await came_of(own, DECLARATION))
        return (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.CERTIFICATE_REVOKED) in seen

    await until(refused, within=15)


async def test_of_a_gateway_that_is_revoked_nothing_is_asked(own: World) -> None:
    assert await came_of(own, BEYOND) == [(OK, "")]
    authority = own.inland.zone.authority
    entry = authority.current()[SpiffeId.of(INLAND, "gateway", "main")]
    authority.revoke((entry.serial,), RevocationReason.KEY_COMPROMISE, now())

    async def unheard() -> bool:
        (came,) = await came_of(own, BEYOND)
        return came == (exchange_pb2.SECTION_STATUS_UNAVAILABLE, Reason.ZONE_UNREACHABLE)

    await until(unheard)


async def test_an_authority_is_replaced_while_zones_ask_each_other(own: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root and all, and nobody carries a file: each step waits until the other zone has heard of the one before."""
    monkeypatch.setattr(rollover, "SETTLES", LOOK_EVERY + dt.timedelta(milliseconds=300))
    authority = own.inland.zone.authority
    rotation, copies = Rollover(authority), own.port.folder / "trust" / INLAND
    answers, stop = 0, asyncio.Event()

    async def keep_asking() -> None:
        nonlocal answers
        while not stop.is_set():
            assert await came_of(own, DECLARATION) == [(OK, "")]
            answers += 1

    async def heard() -> bool:
        layout = authority.layout
        same = all((copies / path.name).read_bytes() == path.read_bytes() for path in (layout.bundle, layout.revoked))
        settled = rotation.settles_at()
        return same and answers > before and (settled is None or now() >= settled)

    async with asyncio.timeout(60):
        asking = asyncio.ensure_future(keep_asking())
        for step in (
            lambda: rotation.prepare(now(), new_root=True),
            lambda: rotation.activate(now(), [copies]),
            lambda: rotation.rotate(now()),
            lambda: rotation.prune(now(), cut=True),
        ):
            before = answers + 5
            step()
            while not await heard():
                assert not asking.done(), asking.exception()
                await asyncio.sleep(0.05)
        stop.set()
        await asking
    assert authority.layout.bundle.read_bytes().count(b"BEGIN CERTIFICATE") == 1
    assert answers > 20


def older(mesh: Mesh) -> bytes:
    """Make the zone's list anew, and give the one before; both are known to whoever follows."""
    layout = mesh.zone.authority.layout
    before = layout.revoked.read_bytes()
    mesh.zone.authority.publish_revocations(now())
    known = mesh.folder.parent / PORT / "trust" / INLAND / "revoked.crl"
    known.write_bytes(layout.revoked.read_bytes())
    return before


async def test_trust_that_does_not_stand_is_not_taken(own: World) -> None:
    """A list that somebody else signed, and nonsense: what was known before goes on to be known."""
    made = own.port.gateway
    assert made is not None
    section = own.port.zones[INLAND]
    assert section.revoked is not None
    stale = older(own.inland)
    before = section.bundle.read_bytes(), section.revoked.read_bytes()
    client = own.port.client(REFUND)
    follower = trust.Trust(INLAND, section, client, now)
    other = own.far.zone.authority.layout
    for bundle, revoked in (
        (b"nonsense", before[1]),
        (before[0], stale),
        (before[0], before[1] + b"-----BEGIN X509 CRL-----" * 100_000),
        (before[0], before[1] * 20),
        (before[0], other.revoked.read_bytes()),
        (before[0], b""),
        (before[0] * 20_000, before[1]),
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is, nothing was written
            follower.take(zone_pb2.GetTrustResponse(bundle=bundle, revoked=revoked))
        assert (section.bundle.read_bytes(), section.revoked.read_bytes()) == before


def test_what_was_brought_by_hand_counts_until_the_zone_tells_of_newer(zones: World, tmp_path: Path) -> None:
    """And once more when something else is brought; a restart is no reason to forget what was heard."""
    brought = known(zones.port, zones.far, folder=tmp_path / "far")
    section = trust.kept(FAR, brought)
    assert section.bundle == tmp_path / "far" / "bundle.crt"
    assert section.bundle.read_bytes() == brought.bundle.read_bytes()
    newer = section.bundle.read_bytes() + zones.port.zone.authority.layout.bundle.read_bytes()
    section.bundle.write_bytes(newer)
    assert trust.kept(FAR, brought).bundle.read_bytes() == newer
    other = zones.inland.zone.authority.layout.bundle.read_bytes()
    brought.bundle.write_bytes(other)
    assert trust.kept(FAR, brought).bundle.read_bytes() == other
    brought.bundle.unlink()
    with pytest.raises(FailedPrecondition, match=r"zones\.far\.example: bring its roots"):
        trust.kept(FAR, brought)


async def test_one_zone_asks_in_the_name_of_nobody_else(zones: World) -> None:
    """Without a word, or with one for somebody else's connection, the door stays shut; and it says why."""
    request = zone_pb2.QueryZoneRequest(query_id="0" * 32)
    request.selections.add(record_type="customs.Declaration")
    files = zones.port.zone.files("gateway/main")
    credentials = SvidFiles(files.certificate, files.key, zones.inland.zone.authority.layout.bundle)
    client = Client(door(zones.inland), SpiffeId.of(INLAND, "gateway", "main"), credentials)
    try:
        with pytest.raises(HutongError) as caught:
            await client.unary(
                "/hutong.api.exchange.v1.ZoneService/QueryZone", request, zone_pb2.QueryZoneResponse, timeout=2
            )
        assert caught.value.reason == Reason.CONTEXT_MISSING
        request.query_id = "x" * 1000
        with pytest.raises(HutongError) as caught:
            await client.unary(
                "/hutong.api.exchange.v1.ZoneService/QueryZone", request, zone_pb2.QueryZoneResponse, timeout=2
            )
        assert caught.value.reason == Reason.MALFORMED_REQUEST
    finally:
        await client.close()


async def test_who_is_asked_here_cannot_be_asked_from_beyond_by_name(zones: World) -> None:
    """Inland's own taxation gets the buyer's initials; port's, of the same name at home, is somebody else here."""
    asked = question(SUBJECT, "customs.Declaration:overseas_party_name", **WHY)
    answer = await zones.inland.client(REFUND).unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)
    assert {name for d in answer.sections[0].decisions for name in d.policy_ids} == {"R07-party"}
    other = await zones.ask(f"{INLAND}/customs.Declaration:overseas_party_name")
    assert [d.reason for d in other.sections[0].decisions] == [Reason.NO_PERMIT]
