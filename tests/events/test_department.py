"""A department follows what its config names, serves its inbox, and starts and stops whatever becomes of the others."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from hutong.api.exchange.v1 import event_pb2
from services.kit import config
from services.kit.config import DepartmentConfig, EventsSection
from services.kit.department import DepartmentNode
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason
from services.kit.events import outbox
from services.kit.events.service import EVENT
from tests.events.bed import Log, create, event, source_node
from tests.exchange.mesh import ROOMS, Mesh
from tests.recording.bed import included, newest
from tests.zone import ZONE

LIST = "/hutong.api.exchange.v1.InboxService/ListInboxEvents"


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    mesh = Mesh(tmp_path)
    yield mesh
    await mesh.stop()


async def start(mesh: Mesh, listen: str = "127.0.0.1:0", **events: str) -> DepartmentNode:
    """Start customs, following the nodes at these addresses."""
    sections = {agency: EventsSection(target=target) for agency, target in events.items()}
    settings = mesh.config("customs", listen).model_copy(update={"events": sections})
    node = DepartmentNode(ROOMS["customs"], settings, mesh.url("customs"), mesh.zone.frame(settings))
    await node.start()
    mesh.departments["customs"] = node
    return node


def gauges(node: DepartmentNode) -> dict[str, float]:
    """Read whom the node says it hears, as a scrape does."""
    samples = (sample for metric in node.host.telemetry.registry.collect() for sample in metric.samples)
    found = ((re.fullmatch(r"hutong_events_(\w+)_followed", sample.name), sample.value) for sample in samples)
    return {name[1]: value for name, value in found if name}


async def listed(mesh: Mesh, who: str = "customs/release", after: int = 0) -> event_pb2.ListInboxEventsResponse:
    request = event_pb2.ListInboxEventsRequest(after=after)
    return await mesh.client(who, "customs").unary(LIST, request, event_pb2.ListInboxEventsResponse, timeout=5)


async def received(mesh: Mesh, count: int) -> list[int]:
    async with asyncio.timeout(20):
        while len(found := (await listed(mesh)).events) < count:
            pass
    return [int(e.payload.removeprefix('{"number":').removesuffix("}")) for e in found]


@asynccontextmanager
async def recognition(mesh: Mesh, address: str = "127.0.0.1:0") -> AsyncGenerator[tuple[Log, str]]:
    url = f"sqlite:///{mesh.folder}/source.db"
    create(url, outbox.METADATA)
    log = Log(url)
    async with source_node(mesh.zone, log, address) as host:
        yield log, host.address
        log.outbox.stop()


async def test_a_department_that_follows_nobody_has_an_empty_inbox(mesh: Mesh) -> None:
    await mesh.start("customs")
    found = await listed(mesh)
    assert (list(found.events), found.next_after) == ([], 0)
    for who in ("taxation/release", "gateway/main", "operator/admin"):
        with pytest.raises(PermissionDenied) as caught:
            await listed(mesh, who)
        assert caught.value.reason is Reason.CALLER_NOT_LISTED


async def test_what_is_told_is_in_the_inbox(mesh: Mesh) -> None:
    async with recognition(mesh) as (log, address):
        await start(mesh, recognition=address)
        await log.tell(event(1), event(2, "taxation"), event(3))
        assert await received(mesh, 2) == [1, 3]
        answer = await listed(mesh)
        (first, _) = answer.events
        assert (first.source, first.audience, first.kind) == ("recognition/node", "customs", "result.issued")
        # Who reads an inbox is logged, too.
        host = mesh.departments["customs"].host
        await included(mesh.client("customs/release", "customs"), host, answer.receipt)
        entry = await newest(host)
        (given,) = entry.disclosures
        assert (entry.rpc, entry.caller) == (LIST, f"spiffe://{ZONE}/customs/release")
        assert (given.record_type, given.mask_digest, given.rows, len(given.named)) == (EVENT, b"", 2, 0)


async def test_it_starts_while_its_source_is_away_and_stops_all_the_same(mesh: Mesh) -> None:
    async with recognition(mesh) as (log, address):
        await log.put(event(1))
    node = await start(mesh, recognition=address, courts="127.0.0.1:1")
    assert not (await listed(mesh)).events
    assert gauges(node) == {"recognition": 0, "courts": 0}
    async with recognition(mesh, address) as (log, _):
        await log.tell(event(2))
        assert await received(mesh, 2) == [1, 2]
        assert gauges(node) == {"recognition": 1, "courts": 0}
    async with asyncio.timeout(5):
        await node.stop()


async def test_what_was_told_while_it_was_down_is_there_afterwards(mesh: Mesh) -> None:
    listen = "127.0.0.1:0"
    async with recognition(mesh) as (log, address):
        for number in range(3):
            await log.put(event(number))
            node = await start(mesh, listen, recognition=address)
            listen = node.host.address
            assert await received(mesh, number + 1) == list(range(number + 1))
            await node.stop()


def test_the_config_names_whom_to_follow(mesh: Mesh, tmp_path: Path) -> None:
    written = f"""
secret = "secret"
[node]
zone = "zone.example"
agency = "customs"
listen = "127.0.0.1:0"
[tls]
certificate = "c"
key = "k"
bundle = "b"
revoked = "r"
[store]
url = "sqlite:///{tmp_path}/x.db"
[policy]
files = ["p.cedar"]
[events.recognition]
target = "127.0.0.1:5006"
"""
    path = tmp_path / "node.toml"
    path.write_text(written)
    assert config.read(path, DepartmentConfig).events == {
        "recognition": EventsSection(target="127.0.0.1:5006", system="node")
    }
    for wrong, reason in (("target = 1", Reason.CONFIG_INVALID), ("tagret = '1'", Reason.CONFIG_UNKNOWN_KEY)):
        path.write_text(written.replace('target = "127.0.0.1:5006"', wrong))
        with pytest.raises(FailedPrecondition) as caught:
            config.read(path, DepartmentConfig)
        assert caught.value.reason is reason
    path.write_text(written.partition("[events")[0])
    assert config.read(path, DepartmentConfig).events == {}
