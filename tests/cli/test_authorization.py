"""`hutong authorization`, against a running mesh."""

import asyncio
import base64
import json
from pathlib import Path

import pytest

from services.cli.fleet import Fleet
from services.cli.sample import Subject
from services.cli.zone import Zone
from tests.cli.authorized import AML, ANALYST, COLLEAGUE, CUSTOMS, DECLARATION, OWNER, TAX, WHY, Desks
from tests.cli.conftest import run


@pytest.fixture
def desks(mesh: Fleet) -> Desks:
    return Desks(mesh)


@pytest.fixture
def about(exporter: Subject) -> tuple[str, str]:
    return "--subject", exporter.text


def test_what_was_asked_for_is_shown(desks: Desks, about: tuple[str, str]) -> None:
    asked = ("request", *WHY, *about, "--select", DECLARATION, "--rows", "12", "--per-minute", "6", "--days", "3")
    shown = desks.told(*asked, who=AML, officer=ANALYST)
    for text in ("REQUESTED", AML, "STR-2026-7", about[1], "0 of 12, 6 a minute, no bulk", "gross_wt_kg", "requested"):
        assert text in shown
    assert ANALYST not in shown
    assert "officer-" in shown
    name = desks.told(*asked, "--quiet", who=AML, officer=ANALYST).strip()
    assert desks.read("show", name, who=AML)["state"] == "AUTHORIZATION_STATE_REQUESTED"


def test_an_approver_sees_before_approving(desks: Desks, about: tuple[str, str]) -> None:
    found = desks.request(*about)
    name, digest = found["authorization_id"], base64.b64decode(found["scope_digest"]).hex()
    explained = desks.told("explain", name, who=CUSTOMS)
    for text in ("total_value_cny", "R21", "NO_PERMIT", f"--digest {digest}"):
        assert text in explained
    assert f"--digest {digest}" in desks.told("approve", name, who=CUSTOMS)
    assert desks.read("approve", name, who=CUSTOMS)["scope_digest"] == found["scope_digest"]
    assert desks.read("show", name, who=CUSTOMS)["state"] == "AUTHORIZATION_STATE_REQUESTED"


def test_two_others_bring_it_into_force(desks: Desks, about: tuple[str, str]) -> None:
    found = desks.request(*about)
    name, digest = found["authorization_id"], base64.b64decode(found["scope_digest"]).hex()
    approve = ("approve", name, "--digest", digest)
    assert desks.refused(*approve, who=AML, officer=ANALYST) == "APPROVER_NOT_ALLOWED"
    assert "APPROVED_ONCE" in desks.told(*approve, who=CUSTOMS, officer=OWNER)
    assert desks.refused(*approve, who=CUSTOMS, officer=OWNER) == "APPROVER_NOT_ALLOWED"
    assert desks.refused("use", name, who=AML, officer=ANALYST) == "AUTHORIZATION_NOT_ACTIVE"
    active = desks.read(*approve, who=AML, officer=COLLEAGUE)
    assert active["state"] == "AUTHORIZATION_STATE_ACTIVE"
    assert [event["kind"] for event in active["events"]] == ["requested", "approved", "approved"]


def test_what_an_act_was_answered_with_is_proven_by_its_receipt(
    desks: Desks, about: tuple[str, str], tmp_path: Path
) -> None:
    found = desks.request(*about)
    answers = found, desks.read("show", found["authorization_id"], who=CUSTOMS)
    for number, each in enumerate(answers):
        kept = tmp_path / f"{number}.json"
        kept.write_text(json.dumps(each), encoding="utf-8")
        proven = run("log", "prove", kept, "--dir", desks.folder, "--as", AML, "--json")
        assert json.loads(proven.stdout)["log"].endswith("/supervision/node")


def test_another_scope_is_not_approved(desks: Desks, about: tuple[str, str]) -> None:
    name = desks.request(*about)["authorization_id"]
    reason = desks.refused("approve", name, "--digest", "00" * 32, who=CUSTOMS, officer=OWNER)
    assert reason == "AUTHORIZATION_CHANGED"


def test_one_officer_of_an_owner_has_to_approve(desks: Desks, about: tuple[str, str]) -> None:
    found = desks.request(*about)
    approve = ("approve", found["authorization_id"], "--digest", found["scope_digest"])
    desks.read(*approve, who=AML, officer=COLLEAGUE)
    assert desks.refused(*approve, who=AML, officer="43") == "OWNER_APPROVAL_MISSING"


def test_what_is_rejected_is_over(desks: Desks, about: tuple[str, str]) -> None:
    found = desks.request(*about)
    name = found["authorization_id"]
    assert desks.refused("reject", name, who=CUSTOMS, officer=OWNER) == "REASON_MISSING"
    assert "REJECTED" in desks.told("reject", name, "--reason", "TOO_WIDE", who=CUSTOMS, officer=OWNER)
    approve = ("approve", name, "--digest", found["scope_digest"])
    assert desks.refused(*approve, who=CUSTOMS, officer=OWNER) == "AUTHORIZATION_CHANGED"


@pytest.mark.parametrize(
    ("who", "officer", "more"), [(CUSTOMS, OWNER, ()), (AML, COLLEAGUE, ()), (AML, ANALYST, ("--requester",))]
)
def test_any_of_them_revokes(
    desks: Desks, about: tuple[str, str], who: str, officer: str, more: tuple[str, ...]
) -> None:
    name = desks.active(*about)
    shown = desks.told("revoke", name, "--reason", "CASE_CLOSED", *more, who=who, officer=officer)
    assert "REVOKED" in shown
    assert "CASE_CLOSED" in shown
    assert desks.refused("use", name, who=AML, officer=ANALYST) == "AUTHORIZATION_REVOKED"


def test_a_ticket_is_one_line(desks: Desks, about: tuple[str, str]) -> None:
    name = desks.active(*about)
    used = desks("use", name, who=AML, officer=ANALYST)
    assert used.stdout.strip().count(".") == 2
    assert "\n" not in used.stdout.strip()
    assert used.stderr.startswith("ends 20")
    assert {"ticket", "expires_at"} <= desks.read("use", name, who=AML, officer=ANALYST).keys()
    assert [event["kind"] for event in desks.read("show", name, who=AML)["events"]].count("used") == 2


def test_only_those_concerned_hear_of_it(desks: Desks, about: tuple[str, str]) -> None:
    name = desks.request(*about)["authorization_id"]
    for who in (AML, CUSTOMS, "audit/desk"):
        listed = desks.read("list", "--state", "requested", "--page-size", "200", who=who)["authorizations"]
        assert name in {each["authorization_id"] for each in listed}
    assert desks.refused("show", name, who=TAX) == "AUTHORIZATION_UNKNOWN"
    assert desks.refused("explain", name, who=TAX) == "AUTHORIZATION_UNKNOWN"
    assert name not in desks.told("list", "--page-size", "200", who=TAX)


def test_lists_go_on_where_they_ended(desks: Desks, about: tuple[str, str]) -> None:
    names = {desks.request(*about)["authorization_id"] for _ in range(2)}
    first = desks.read("list", "--page-size", "1", who=AML)
    token = first["next_page_token"]
    second = desks.read("list", "--page-size", "1", "--page-token", token, who=AML)
    assert {each["authorizations"][0]["authorization_id"] for each in (first, second)} == names
    assert "more: --page-token" in desks.told("list", "--page-size", "1", who=AML)


def test_an_identity_provider_of_ones_own(desks: Desks, about: tuple[str, str], tmp_path: Path) -> None:
    """The nonce says what to sign; a token over it is taken once."""
    name = desks.active(*about)
    asked = json.dumps({"authorization_id": name})
    (tmp_path / "use.json").write_text(asked)
    nonce = desks.read("use", name, "--nonce", who=AML)
    assert nonce["aud"] == "spiffe://ftz.example/supervision/node"
    assert nonce["role"] == "requester"
    signed = run(
        "officer", "token", "--dir", desks.folder, "--as", AML, "--subject", ANALYST, "--role", "requester",
        "--for", "UseAuthorization", "--request", tmp_path / "use.json", "--json",
    )  # fmt: skip
    assert signed.exit_code == 0, signed.stderr
    token = json.loads(signed.stdout)
    assert token["nonce"] == nonce["nonce"]
    (tmp_path / "token").write_text(token["token"])
    assert desks.read("use", name, "--token", tmp_path / "token", who=AML)["ticket"]
    assert desks.refused("use", name, "--token", tmp_path / "token", who=AML) == "OFFICER_TOKEN_REPLAYED"


def test_a_token_is_for_one_request(desks: Desks, about: tuple[str, str]) -> None:
    asked = ("request", *WHY, *about, "--select", DECLARATION)
    assert desks(*asked, "--nonce", who=AML).exit_code == 2
    same = ("--id", "5b0a7e9e-9f25-4a3c-8c53-6d7d0b1c2f10", "--from", "2027-01-01")
    assert desks.read(*asked, *same, "--nonce", who=AML) == desks.read(*asked, *same, "--nonce", who=AML)


def test_a_condition_in_place_of_subjects(desks: Desks) -> None:
    select = "customs.Declaration:declaration_no,declared_at"
    bulk = ("--bulk", "--condition", "customs.Declaration:declared_at >= '2020-01-01T00:00:00Z'")
    found = desks.request(*bulk, select=select)
    assert found["scope"]["types"][0]["condition"].startswith("declared_at")
    assert "no_bulk" not in found["scope"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--select", "customs.Declaratoin:x"), "RECORD_TYPE_UNKNOWN"),
        (("--select", "customs.Declaration:weight"), "FIELD_UNKNOWN"),
        (("--select", DECLARATION, "--days", "400"), "SCOPE_INVALID"),
        (("--select", DECLARATION, "--purpose", "P-RISK"), "PURPOSE_MISSING"),
        (("--select", DECLARATION, "--emergency"), "EMERGENCY_NOT_ALLOWED"),
        (
            ("--select", DECLARATION, "--condition", "customs.Declaration:total_value_cny > 3"),
            "FILTER_FIELD_NOT_INDEXED",
        ),
    ],
)
def test_what_does_not_stand_is_not_even_asked_for(
    desks: Desks, about: tuple[str, str], arguments: tuple[str, ...], reason: str
) -> None:
    assert desks.refused("request", *WHY, *about, *arguments, who=AML, officer=ANALYST) == reason


@pytest.mark.parametrize(
    "arguments",
    [
        ("request", *WHY),
        ("request", *WHY, "--select", DECLARATION, "--condition", "taxation.VatFiling:period = '2026-01'"),
        ("request", *WHY, "--select", DECLARATION, "--rows", "0"),
        ("approve", "x", "--digest", "beef"),
        ("list", "--state", "asleep"),
    ],
)
def test_what_is_written_wrong_is_said_at_once(desks: Desks, arguments: tuple[str, ...]) -> None:
    officer = "" if arguments[0] == "list" else ANALYST
    assert desks(*arguments, who=AML, officer=officer).exit_code == 2


def test_somebody_has_to_act(desks: Desks, about: tuple[str, str]) -> None:
    ran = desks("request", *WHY, *about, "--select", DECLARATION, who=AML)
    assert ran.exit_code == 2
    assert "--officer" in ran.stderr


def test_an_officer_acts_through_a_system_of_the_same_agency(desks: Desks, about: tuple[str, str]) -> None:
    """The system of an agency that has no identity provider here cannot bring an officer along."""
    name = desks.request(*about)["authorization_id"]
    enterprise = run("certs", "issue", "logistics/gate", "--dir", desks.folder / "certs")
    assert enterprise.exit_code == 0
    assert desks("approve", name, "--digest", "00" * 32, who="logistics/gate", officer="1").exit_code == 1


async def test_an_emergency_where_the_zone_knows_them(zone: Zone, exporter: Subject) -> None:
    """One approver, hours, and a review by somebody who had no part in it."""
    config = zone.config_file("supervision")
    config.write_text(config.read_text().replace("break_glass = false", "break_glass = true"))

    def in_an_emergency(desks: Desks) -> None:
        found = desks.request("--subject", exporter.text, "--emergency")
        name, approve = found["authorization_id"], ("--digest", found["scope_digest"])
        shown = desks.told("approve", name, *approve, who=CUSTOMS, officer=OWNER)
        assert "ACTIVE" in shown
        assert "to be reviewed by" in shown
        assert "emergency, review by" in " ".join(desks.told("list", who="audit/desk").split())
        review = ("review", name, "--reason", "JUSTIFIED")
        assert desks.refused(*review, who=CUSTOMS, officer=OWNER) == "APPROVER_NOT_ALLOWED"
        reviewed = desks.read(*review, "--auditor", who="audit/desk", officer="a-3")
        assert reviewed["events"][-1]["kind"] == "reviewed"
        assert "review by" not in desks.told("list", who="audit/desk")
        assert "reviewed" in desks.told("show", name, who="audit/desk")

    async with Fleet(zone, nodes=("supervision",)) as alone:
        await asyncio.to_thread(in_an_emergency, Desks(alone))
