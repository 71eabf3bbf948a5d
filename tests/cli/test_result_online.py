"""`hutong result` where it needs the recognition service: issue, get, list, revoke, status; keys of others."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from services.cli.fleet import Fleet
from tests.cli.conftest import run
from tests.cli.office import CUSTOMS, POLICE, QUALITY, TAX, Office
from tests.recognition.mesh import firm


@pytest.fixture
def office(mesh: Fleet) -> Office:
    return Office(mesh)


@pytest.fixture
def code() -> str:
    return firm()


@pytest.fixture
def issued(office: Office, code: str, tmp_path: Path) -> Path:
    """A result that public security has issued outside any case."""
    statement, out = tmp_path / "statement.yaml", tmp_path / "result.sdjwt"
    until = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
    statement.write_text(
        f"subject: cn.uscc:{code}\nfact: person_verified\nassurance: ON_SITE\n"
        f"value: {{method: chip, document: passport}}\nvalid_until: {until.isoformat()}\n"
    )
    said = office.told("result", "issue", statement, "--out", out, who=POLICE)
    assert said.endswith(f"person_verified of publicsecurity is registered; it lies in {out}\n")
    return out


def verified(office: Office, file: Path, *arguments: str | Path) -> dict[str, Any]:
    ran = run("result", "verify", file, "--dir", office.folder, *arguments, "--json")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_result_issued_beforehand_satisfies_a_stage_at_once(office: Office, code: str, issued: Path) -> None:
    case_id = office.accepted(code)
    stage = office.stage(case_id, "E2")
    assert stage["status"] == "STAGE_STATUS_RECOGNISED"
    assert (stage["source_agency"], stage["arrangement"]) == ("publicsecurity", "PERSON-VERIFIED@1.0.0")
    assert stage["result_ref"] == verified(office, issued)["ref"]
    assert not stage.get("late")


def test_its_holder_gets_it_and_shows_a_part(office: Office, code: str, issued: Path, tmp_path: Path) -> None:
    who, ref = office.enterprise(code), str(verified(office, issued)["ref"])
    got, shown = tmp_path / "got.sdjwt", tmp_path / "shown.sdjwt"
    office.told("result", "get", ref, "--out", got, who=who)
    assert got.read_text() == issued.read_text()
    assert run("result", "present", got, "--keep", "method", "--out", shown).exit_code == 0
    assert verified(office, shown)["value"] == {"method": "chip"}
    assert ref in office.told("result", "list", "--subject", f"cn.uscc:{code}", who=who)
    (listed,) = office.read("result", "list", "--subject", f"cn.uscc:{code}", "--fact", "person_verified", who=who)[
        "results"
    ]
    assert listed["result_state"] == "RESULT_STATE_VALID"


def test_who_has_nothing_to_do_with_it_is_told_of_nothing(office: Office, code: str, issued: Path) -> None:
    ref = str(verified(office, issued)["ref"])
    for who in (office.enterprise(), QUALITY):
        assert office.refused("result", "get", ref, who=who)["reason"] == "RESULT_NOT_FOUND"
        assert office.told("result", "list", "--subject", f"cn.uscc:{code}", who=who).startswith("There is no result")
    # Customs may recognise it one day: it knows that it is there, and has no case to look into it for.
    assert "credential" not in office.read("result", "get", ref, who=CUSTOMS)
    assert office.refused("result", "get", ref, "--out", "nowhere", who=CUSTOMS)["reason"] == "RESULT_NOT_FOUND"


def test_published_keys_can_be_fetched(office: Office, issued: Path, tmp_path: Path) -> None:
    keys = tmp_path / "publicsecurity.jwks.json"
    office.told("result", "keys", "fetch", "publicsecurity", "--out", keys, who=CUSTOMS)
    assert run("result", "verify", issued, "--keys", keys).exit_code == 0
    assert office.refused("result", "keys", "fetch", "nobody", who=CUSTOMS)["reason"] == "KEY_UNKNOWN"


def test_revoked_suspended_and_reinstated_by_its_issuer_alone(office: Office, issued: Path, tmp_path: Path) -> None:
    said = verified(office, issued)
    ref, uri, listed = str(said["ref"]), str(said["status_uri"]), tmp_path / "list.jwt"

    def looked_up() -> str:
        listed.unlink(missing_ok=True)
        office.told("result", "status", uri, "--out", listed, who=TAX)
        found = verified(office, issued, "--status", listed)
        return str(found["error"]["reason"] if "error" in found else found["status"])

    assert said["status"] == "NOT_LOOKED_UP"
    assert looked_up() == "VALID"
    assert office.refused("result", "revoke", ref, "--reason", "FACTS_CHANGED", who=TAX)["reason"] == "RESULT_NOT_FOUND"
    suspended = office.told("result", "revoke", ref, "--suspend", "--reason", "FACTS_CHANGED", who=POLICE)
    assert suspended == f"{ref}: SUSPENDED; 0 tasks raised\n"
    assert looked_up() == "RESULT_SUSPENDED"
    office.told("result", "revoke", ref, "--reinstate", "--reason", "FACTS_CHANGED", who=POLICE)
    assert looked_up() == "VALID"
    assert office.refused("result", "revoke", ref, who=POLICE)["reason"] == "REASON_MISSING"
    assert office.refused("result", "revoke", ref, "--reason", "BECAUSE", who=POLICE)["reason"] == "REASON_UNKNOWN"
    office.told("result", "revoke", ref, "--reason", "FACTS_CHANGED", who=POLICE)
    assert looked_up() == "RESULT_REVOKED"


def test_a_status_list_that_is_none(office: Office) -> None:
    error = office.refused("result", "status", "urn:hutong:status:nobody:1", who=TAX)
    assert error["reason"] == "STATUS_LIST_INVALID"


def test_what_was_signed_elsewhere_is_handed_in(office: Office, code: str, issued: Path) -> None:
    """A result that was issued outside the case is not the one that a stage has to give."""
    other = firm()
    case_id = office.accepted(other)
    office.event(case_id, "E2", "start", who=POLICE)
    handed_in = ("case", "event", case_id, "E2", "result", "pass", "--credential", issued)
    assert office.refused(*handed_in, who=POLICE)["reason"] == "RESULT_SUBJECT"


def test_only_agencies_issue(office: Office, code: str, tmp_path: Path) -> None:
    statement = tmp_path / "statement.yaml"
    statement.write_text(f"subject: cn.uscc:{code}\nfact: person_verified\nassurance: ON_SITE\n")
    who = office.enterprise(code)
    assert office("result", "issue", statement, who=who).exit_code == 1
    assert office.read("result", "list", "--subject", f"cn.uscc:{code}", who=who).keys() == {"receipt"}
