"""Every rpc × every kind of caller, on running nodes: fails on an rpc without an expectation and on the reverse."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from services.kit import access, health
from services.kit.client import Client
from services.kit.errors import HutongError, Reason
from services.kit.health import Health
from services.kit.host import KIT_ACCESS
from services.kit.log import serving
from services.kit.rpc import served
from tests.exchange.mesh import ROOMS, Mesh

CALLERS = {
    "agency": [f"{agency}/system" for agency in ROOMS],
    "consumer": ["logistics/gate"],
    "supervisor": ["supervision/monitor"],
    "enterprise": ["enterprise/91110000600037341l"],
    "gateway": ["gateway/main"],
    "operator": ["operator/admin"],
    "member": ["visitor/app", "gateway2/main"],
}
EXPECTED: dict[str, dict[str, list[str]]] = yaml.safe_load((Path(__file__).parent / "matrix.yaml").read_text())
BIDI = {"ServerReflectionInfo", "Session", "FetchSession"}
EXCHANGE = "hutong.api.exchange.v1."
LOG = "hutong.api.log.v1."


def node_services() -> dict[str, list[str]]:
    """Which services each node serves."""
    common = [*served(health.rpcs(Health(()), ())), f"{LOG}LogService", f"{LOG}WitnessService"]
    found = {
        room.agency: [
            *common,
            f"{EXCHANGE}RecordSourceService",
            f"{EXCHANGE}ReadsService",
            f"{EXCHANGE}InboxService",
            room.service.full_name,
        ]
        for room in ROOMS.values()
    }
    return found | {"gateway": [*common, f"{EXCHANGE}FederationService"]}


async def admitted(client: Client, method: str, *, streams: bool) -> bool:
    """Call with an empty request; whatever comes back but the access list's refusal means that the caller got in."""

    async def nothing() -> AsyncIterator[Message]:
        for _ in ():
            yield Empty()

    try:
        if method.rpartition("/")[2] in BIDI:
            async for _ in client.bidi(method, nothing(), Empty, timeout=5):
                break
        elif streams:
            async for _ in client.stream(method, Empty(), Empty, timeout=5):
                break
        else:
            await client.unary(method, Empty(), Empty, timeout=5)
    except HutongError as error:
        return error.reason is not Reason.CALLER_NOT_LISTED
    return True


@pytest.mark.parametrize("node", sorted(node_services()))
async def test_exactly_the_expected_callers_get_in(mesh: Mesh, node: str) -> None:
    cases = [
        (kind, who, service, rpc)
        for service in node_services()[node]
        for rpc in EXPECTED[service]
        for kind, callers in CALLERS.items()
        for who in callers
    ]

    async def check(kind: str, who: str, service: str, rpc: str) -> str:
        streams = rpc in {"Watch", "StreamQuery"}
        got_in = await admitted(mesh.client(who, node), f"/{service}/{rpc}", streams=streams)
        kinds = {kind, "own"} if who.startswith(f"{node}/") else {kind}
        return (
            ""
            if got_in == bool(kinds & set(EXPECTED[service][rpc]))
            else f"{who} on {service}/{rpc}: let in is {got_in}"
        )

    wrong = [found for found in await asyncio.gather(*(check(*case) for case in cases)) if found]
    assert not wrong


def test_every_rpc_has_an_expectation_and_every_expectation_an_rpc(mesh: Mesh) -> None:
    assert mesh.gateway is not None
    nodes = [*(d.host for d in mesh.departments.values()), mesh.gateway.host]
    there = {service: sorted(rpcs) for host in nodes for service, rpcs in host.served.items()}
    assert there == {service: sorted(rpcs) for service, rpcs in EXPECTED.items()}


def test_every_listed_rpc_is_expected() -> None:
    gateway = Path(__file__).parents[2] / "gateway" / "access.yaml"
    listed: dict[str, set[str]] = {}
    for path in (KIT_ACCESS, *serving.ACCESS, gateway, *(room.access for room in ROOMS.values())):
        for service, rpcs in access.read(path).items():
            listed.setdefault(service, set()).update(rpcs)
    assert listed == {service: set(rpcs) for service, rpcs in EXPECTED.items()}
