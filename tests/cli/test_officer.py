"""`hutong officer`: identity providers in a zone folder, and tokens that nodes take."""

import json
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.log.v1 import log_service_pb2
from services.cli.officer import acts, token_for
from services.cli.zone import Zone
from services.kit.caller import Caller
from services.kit.clock import system_clock
from services.kit.config import IssuerSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.officers.issuer import officers_uri
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.officers.seen import MemorySeen
from services.kit.officers.tokens import Role
from services.kit.officers.verifier import Officers
from services.kit.rpc import Call
from tests.cli.conftest import run

SERVICE = "/hutong.api.authorization.v1.AuthorizationService"
USE = f"{SERVICE}/UseAuthorization"
SYSTEM = "customs/release"


def read(*arguments: str | Path, folder: Path) -> Any:
    ran = run("officer", *arguments, "--dir", folder, "--json")
    assert ran.exit_code == 0, ran.stdout or ran.stderr
    return json.loads(ran.stdout)


def reason(*arguments: str | Path, folder: Path) -> str:
    ran = run("officer", *arguments, "--dir", folder, "--json")
    assert ran.exit_code == 1, ran.stdout or ran.stderr
    error: dict[str, str] = json.loads(ran.stdout)["error"]
    return error["reason"]


def node(zone: Zone, agency: str = "customs", audience: str = "supervision/node") -> Officers:
    """A node that knows the officers of an agency."""
    section = IssuerSection(issuer=officers_uri(zone.name, agency), jwks=zone.published_officers(agency))
    pseudonyms = Pseudonyms(bytes(32))
    return Officers({agency: section}, str(zone.identity(audience)), system_clock, MemorySeen(system_clock), pseudonyms)


def call(zone: Zone, method: str = USE, path: str = SYSTEM) -> Call:
    return Call(method, Caller.of(zone.identity(path)), zone.credentials(path).load().chain, None)


def test_what_needs_an_officer() -> None:
    assert set(acts()) == {
        "RequestAuthorization",
        "ApproveAuthorization",
        "RejectAuthorization",
        "RevokeAuthorization",
        "UseAuthorization",
        "ReviewAuthorization",
        "SampleDecisions",
    }


async def test_a_token_for_an_act_in_this_process(zone: Zone) -> None:
    request = authorization_pb2.UseAuthorizationRequest(authorization_id="a-1")
    token = token_for(zone, SYSTEM, "o-17", [Role.REQUESTER], USE, request, "supervision/node")
    officer = await node(zone).verify(token, USE, request, call(zone), Role.REQUESTER)
    assert officer.reference == "customs:o-17"
    full = token_for(zone, SYSTEM, "o-17", [Role.REQUESTER], USE, request, str(zone.identity("supervision/node")))
    await node(zone).verify(full, USE, request, call(zone), Role.REQUESTER)


def test_an_agency_without_identity_provider_has_no_officers(zone: Zone) -> None:
    request = authorization_pb2.UseAuthorizationRequest(authorization_id="a-1")
    with pytest.raises(FailedPrecondition) as refused:
        token_for(zone, "operator/admin", "o-17", [Role.REQUESTER], USE, request, "supervision/node")
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING


@pytest.mark.parametrize("name", ["UseAuthorization", USE])
async def test_a_token_from_the_command_line(zone: Zone, tmp_path: Path, name: str) -> None:
    (tmp_path / "use.json").write_text('{"authorization_id": "a-1"}')
    arguments = ("token", "--as", SYSTEM, "--subject", "o-17", "--role", "requester", "--role", "auditor")
    made = read(*arguments, "--for", name, "--request", tmp_path / "use.json", folder=zone.folder)
    assert made["method"] == USE
    request = authorization_pb2.UseAuthorizationRequest(authorization_id="a-1")
    officer = await node(zone).verify(made["token"], USE, request, call(zone), Role.REQUESTER)
    assert officer.roles == {Role.REQUESTER, Role.AUDITOR}
    ran = run("officer", *arguments, "--for", name, "--request", tmp_path / "use.json", "--dir", zone.folder)
    await node(zone).verify(ran.stdout.strip(), USE, request, call(zone), Role.REQUESTER)


async def test_a_token_for_a_node_of_another_kind(zone: Zone, tmp_path: Path) -> None:
    (tmp_path / "draw.json").write_text('{"draw": 5}')
    arguments = ("token", "--as", "audit/desk", "--subject", "a-3", "--role", "auditor", "--for", "SampleDecisions")
    made = read(
        *arguments,
        "--request",
        tmp_path / "draw.json",
        "--audience",
        "customs/node",
        "--life",
        "1m",
        folder=zone.folder,
    )
    method = "/hutong.api.log.v1.LogService/SampleDecisions"
    request = log_service_pb2.SampleDecisionsRequest(draw=5)
    officers = node(zone, "audit", "customs/node")
    officer = await officers.verify(made["token"], method, request, call(zone, method, "audit/desk"), Role.AUDITOR)
    assert (officer.expires_at - officer.issued_at).total_seconds() == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "MALFORMED_REQUEST"),
        ("[]", "MALFORMED_REQUEST"),
        ('{"colour": 1}', "MALFORMED_REQUEST"),
        ('{"authorization_id": 1}', "MALFORMED_REQUEST"),
        ('{"authorization_id": "a", "authorization_id": "b"}', "MALFORMED_REQUEST"),
        (" " * (1 << 20) + "{}", "REQUEST_TOO_LARGE"),
    ],
)
def test_a_request_that_is_none(zone: Zone, tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "use.json").write_text(text)
    arguments = ("token", "--as", SYSTEM, "--subject", "o-17", "--role", "requester", "--for", "UseAuthorization")
    assert reason(*arguments, "--request", tmp_path / "use.json", folder=zone.folder) == expected


def test_what_is_called_wrongly(zone: Zone, tmp_path: Path) -> None:
    (tmp_path / "use.json").write_text("{}")
    good = {"--as": SYSTEM, "--subject": "o-17", "--role": "requester", "--for": "UseAuthorization"}
    for option, value in (
        ("--as", ""),
        ("--role", "minister"),
        ("--for", "GetAuthorization"),
        ("--for", "/other.Service/UseAuthorization"),
        ("--life", "soon"),
    ):
        words = [word for pair in {**good, option: value}.items() for word in pair]
        ran = run("officer", "token", *words, "--request", tmp_path / "use.json", "--dir", zone.folder)
        assert ran.exit_code == 2, ran.stdout
    words = [word for pair in good.items() for word in pair]
    arguments: tuple[str | Path, ...] = ("token", *words, "--request", tmp_path / "use.json")
    assert reason(*arguments, "--life", "11m", folder=zone.folder) == "OFFICER_TOKEN_INVALID"
    assert reason(*arguments, "--as", "customs/unknown", folder=zone.folder) == "SVID_UNREADABLE"


def test_the_life_of_an_identity_provider(zone: Zone) -> None:
    made = read("issuer", "create", "laboratory", folder=zone.folder)
    assert made["issuer"] == officers_uri(zone.name, "laboratory")
    assert Path(made["jwks"]) == zone.published_officers("laboratory")
    assert reason("issuer", "create", "laboratory", folder=zone.folder) == "FOLDER_NOT_EMPTY"
    zone.published_officers("laboratory").unlink()
    assert read("issuer", "publish", "laboratory", folder=zone.folder) == made
    rotated = read("issuer", "rotate", "laboratory", folder=zone.folder)
    assert rotated["keys"][0] == made["keys"][0]
    assert len(rotated["keys"]) == 2
    published = json.loads(zone.published_officers("laboratory").read_text())
    assert [key["kid"] for key in published["keys"]] == rotated["keys"]
    assert reason("issuer", "publish", "nobody", folder=zone.folder) == "CONFIG_FILE_MISSING"
    told = run("officer", "issuer", "publish", "laboratory", "--dir", zone.folder).stdout
    assert str(zone.published_officers("laboratory")) in told
