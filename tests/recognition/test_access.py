"""Every rpc of the recognition node × every kind of caller, over real mutual TLS."""

import asyncio
from pathlib import Path

import pytest
import yaml

from services.kit import access
from services.kit.host import KIT_ACCESS
from services.kit.log import serving
from services.recognition.agencies import Agencies
from services.recognition.node import ACCESS
from tests.exchange.test_matrix import admitted
from tests.recognition.mesh import SIGNERS, Mesh, enterprise

CALLERS = {
    "agency": [f"{agency}/system" for agency in SIGNERS],
    "party": ["bank/core", "laboratory/lims", "foreign-investment/desk"],
    "enterprise": [enterprise()],
    "consumer": ["supervision/monitor", "audit/desk", "partner-customs/hub"],
    "gateway": ["gateway/main"],
    "operator": ["operator/admin"],
    "member": ["visitor/app", "gateway2/main", "recognition/other"],
}
EXPECTED: dict[str, dict[str, list[str]]] = yaml.safe_load((Path(__file__).parent / "matrix.yaml").read_text())
STREAMS = {"Watch", "WatchCase", "Follow"}


@pytest.mark.parametrize("service", sorted(EXPECTED))
async def test_exactly_the_expected_callers_get_in(mesh: Mesh, service: str) -> None:
    async def check(kind: str, who: str, rpc: str) -> str:
        got_in = await admitted(mesh.client(who), f"/{service}/{rpc}", streams=rpc in STREAMS)
        return "" if got_in == (kind in EXPECTED[service][rpc]) else f"{who} on {service}/{rpc}: let in is {got_in}"

    cases = [(kind, who, rpc) for rpc in EXPECTED[service] for kind, callers in CALLERS.items() for who in callers]
    assert not [found for found in await asyncio.gather(*(check(*case) for case in cases)) if found]


def test_every_rpc_has_an_expectation_and_every_expectation_an_rpc(mesh: Mesh) -> None:
    assert mesh.node is not None
    there = {service: sorted(rpcs) for service, rpcs in mesh.node.host.served.items()}
    assert there == {service: sorted(rpcs) for service, rpcs in EXPECTED.items()}


def test_every_listed_rpc_is_expected() -> None:
    listed = {service: set(rpcs) for service, rpcs in access.read(KIT_ACCESS, *serving.ACCESS, ACCESS).items()}
    assert listed == {service: set(rpcs) for service, rpcs in EXPECTED.items()}


def test_the_list_and_the_policy_name_every_agency_that_has_stages() -> None:
    known = {f"{agency}/*" for agency in Agencies.load().agencies}
    cases = access.read(ACCESS)["hutong.api.recognition.v1.CaseService"]
    assert all(set(identities) == known | {"enterprise/*"} for identities in cases.values())
    policy = (ACCESS.parent / "policy" / "recognition.cedar").read_text(encoding="utf-8")
    assert all(f'"{agency}"' in policy for agency in Agencies.load().agencies)
