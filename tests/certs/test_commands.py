"""`hutong certs`, called as people and machines call it."""

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from certs.authority import DEFAULT_TTL, Authority
from certs.commands import app
from certs.register import State
from certs.spiffe import SpiffeId
from tests.certs.bogus import ZONE
from tests.certs.mesh import wall_clock

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""Some build machines insist on colour."""

COMMANDS = ("init", "issue", "list", "rotate", "revoke", "agent")
STEPS = ("show", "prepare", "activate", "rotate", "prune")


class Shell:
    """Runs commands on one zone folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, exit_code: int = 0) -> tuple[str, str]:
        """Run and give what was printed and what was complained."""
        runner = CliRunner(env={"HUTONG_CERTS": str(self.folder), "COLUMNS": "250", "FORCE_COLOR": None})
        result = runner.invoke(app, arguments)
        assert result.exit_code == exit_code, result.output
        return _COLOUR.sub("", result.stdout), _COLOUR.sub("", result.stderr)

    def json(self, *arguments: str) -> Any:
        """Run with --json and give the answer; nothing is complained."""
        out, err = self(*arguments, "--json")
        assert err == ""
        return json.loads(out)

    def refusal(self, *arguments: str) -> dict[str, str]:
        """Run with --json and give the refusal; nothing is printed."""
        out, err = self(*arguments, "--json", exit_code=1)
        assert out == ""
        error: dict[str, str] = json.loads(err)["error"]
        assert set(error) == {"reason", "message", "hint"}
        return error


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path / "zone")


@pytest.fixture
def zone(shell: Shell) -> Shell:
    shell("init", "--zone", ZONE)
    return shell


def test_the_way_of_an_identity(zone: Shell) -> None:
    assert "issued" in zone("issue", "customs/node")[0]
    assert f"spiffe://{ZONE}/customs/node" in zone("list")[0]
    assert "Nothing is due" in zone("rotate")[0]
    assert "renewed" in zone("rotate", "customs/node")[0]
    assert "revoked" in zone("revoke", "customs/node", "--reason", "key-compromise")[0]
    assert "revoked: key-compromise" in zone("list")[0]
    assert "issued" in zone("issue", "customs/node", "--ttl", "90m")[0]


def test_the_way_of_an_identity_for_machines(shell: Shell) -> None:
    made = shell.json("init", "--zone", ZONE)
    assert (made["zone"], len(made["root_sha256"])) == (ZONE, 64)
    assert Path(made["bundle"]).is_file()
    assert Path(made["revocation_list"]).is_file()
    (issued,) = shell.json("issue", "customs/node")["issued"]
    assert issued["spiffe_id"] == f"spiffe://{ZONE}/customs/node"
    assert 0 < issued["seconds_left"] <= DEFAULT_TTL.total_seconds()
    assert Path(issued["certificate"]).is_file()
    (listed,) = shell.json("list")
    assert 0 < listed.pop("seconds_left") <= issued.pop("seconds_left")
    assert listed == issued
    (renewed,) = shell.json("rotate", "--all")["renewed"]
    assert shell.json("rotate") == {"renewed": []}
    revoked = shell.json("revoke", "customs/node", "--reason", "superseded")["revoked"]
    assert [entry["serial"] for entry in revoked] == [issued["serial"], renewed["serial"]]
    assert {(entry["state"], entry["revocation_reason"]) for entry in revoked} == {("revoked", "superseded")}


def test_without_certificates_the_list_says_what_to_do(zone: Shell) -> None:
    assert "hutong certs issue" in zone("list")[0]
    assert zone.json("list") == []


def test_states_are_shown(zone: Shell) -> None:
    authority, now = Authority.open(zone.folder), wall_clock()
    for system, age in (("valid", 0), ("due", 13), ("expired", 25)):
        authority.issue(SpiffeId.of(ZONE, "customs", system), now - dt.timedelta(hours=age))
    authority.issue(SpiffeId.of(ZONE, "customs", "replaced"), now)
    authority.renew(SpiffeId.of(ZONE, "customs", "replaced"), now)
    listed = [(entry["spiffe_id"].rsplit("/", 1)[1], entry["state"]) for entry in zone.json("list", "--all")]
    assert listed == [
        ("valid", "valid"),
        ("due", "due"),
        ("expired", "expired"),
        ("replaced", "replaced"),
        ("replaced", "valid"),
    ]
    assert State.EXPIRED not in {entry["state"] for entry in zone.json("list")}
    shown = zone("list", "--all")[0]
    assert all(state in shown for state in ("valid", "due", "expired", "replaced"))
    assert {entry["spiffe_id"].rsplit("/", 1)[1] for entry in zone.json("rotate")["renewed"]} == {"due", "expired"}


def test_one_certificate_is_revoked_by_its_serial(zone: Shell) -> None:
    (first,) = zone.json("issue", "customs/node")["issued"]
    (second,) = zone.json("rotate", "--all")["renewed"]
    zone("revoke", first["serial"][:12])
    assert [entry["state"] for entry in zone.json("list")] == ["revoked", "valid"]
    zone("revoke", second["spiffe_id"])
    assert [entry["state"] for entry in zone.json("list")] == ["revoked", "revoked"]


def test_an_expired_certificate_can_be_revoked_by_its_serial(zone: Shell) -> None:
    authority = Authority.open(zone.folder)
    entry = authority.issue(SpiffeId.of(ZONE, "customs", "node"), wall_clock() - dt.timedelta(days=2))
    zone("revoke", entry.serial_text)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("init", "--zone", ZONE), "ZONE_EXISTS"),
        (("issue", "customs"), "NAME_REFUSED"),
        (("issue", "Customs/node"), "NAME_REFUSED"),
        (("issue", "customs/node/1"), "NAME_REFUSED"),
        (("issue", "../node"), "NAME_REFUSED"),
        (("issue", "customs/node", "--ttl", "8d"), "TTL_REFUSED"),
        (("issue", "customs/node", "--ttl", "0s"), "TTL_REFUSED"),
        (("issue", "taxation/node"), "SVID_EXISTS"),
        (("rotate", "customs/node"), "SVID_UNKNOWN"),
        (("rotate", "nonsense"), "NAME_REFUSED"),
        (("revoke", "0123456789abcdef"), "SVID_UNKNOWN"),
        (("revoke", "customs/node"), "SVID_UNKNOWN"),
        (("revoke", "spiffe://south.example/taxation/node"), "SVID_UNKNOWN"),
    ],
)
def test_refused(zone: Shell, arguments: tuple[str, ...], reason: str) -> None:
    zone("issue", "taxation/node")
    before = {path: path.read_bytes() for path in zone.folder.rglob("*") if path.is_file()}
    error = zone.refusal(*arguments)
    assert error["reason"] == reason
    assert error["hint"], "a refusal says what to do next"
    out, err = zone(*arguments, exit_code=1)
    assert out == ""
    assert f"({reason})" in err
    assert error["hint"] in err
    assert {path: path.read_bytes() for path in zone.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", [("issue", "customs/node"), ("list",), ("rotate",), ("revoke", "customs/node")])
def test_no_zone(shell: Shell, command: tuple[str, ...]) -> None:
    assert shell.refusal(*command)["reason"] == "ZONE_MISSING"


def test_a_bad_zone_name_leaves_nothing(shell: Shell) -> None:
    assert shell.refusal("init", "--zone", "North Example")["reason"] == "NAME_REFUSED"
    assert not shell.folder.exists()


def test_a_revoked_system_is_not_renewed(zone: Shell) -> None:
    zone("issue", "customs/node")
    zone("revoke", "customs/node")
    assert zone.refusal("rotate", "customs/node")["reason"] == "REVOCATION_REFUSED"
    assert zone.refusal("revoke", "customs/node")["reason"] == "REVOCATION_REFUSED"
    assert zone.json("rotate", "--all") == {"renewed": []}


@pytest.mark.parametrize(
    "arguments",
    [
        ("init",),
        ("issue",),
        ("issue", "customs/node", "--ttl", "soon"),
        ("issue", "customs/node", "--ttl", "24"),
        ("rotate", "customs/node", "--all"),
        ("revoke",),
        ("revoke", "customs/node", "--reason", "because"),
        ("list", "--unknown"),
        ("forge",),
    ],
)
def test_called_wrongly(zone: Shell, arguments: tuple[str, ...]) -> None:
    zone(*arguments, exit_code=2)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_examples(shell: Shell, command: str) -> None:
    out, _ = shell(command, "--help")
    assert f"hutong certs {command}" in out
    assert "--json" in out


def test_help_shows_every_command(shell: Shell) -> None:
    out, _ = shell("--help")
    assert all(f"hutong certs {command}" in out for command in COMMANDS)


@pytest.mark.parametrize("step", STEPS)
def test_help_of_the_steps_teaches_with_examples(shell: Shell, step: str) -> None:
    out, _ = shell("ca", step, "--help")
    assert f"hutong certs ca {step}" in out
    assert "--json" in out


def test_the_authority_is_rotated(zone: Shell) -> None:
    """As an operator types it: each step waits until nodes can have seen the one before."""
    (issued,) = zone.json("issue", "customs/node")["issued"]
    assert zone.refusal("ca", "activate")["reason"] == "CA_STEP_REFUSED"
    assert "next: hutong certs ca activate" in zone("ca", "prepare", "--root")[0]
    assert "next: hutong certs ca rotate" in zone("ca", "activate")[0]
    refused = zone.refusal("ca", "prune", "--cut")
    assert issued["spiffe_id"] in refused["message"]
    assert "ca rotate" in refused["hint"]
    (renewed,) = zone.json("ca", "rotate")["renewed"]
    assert renewed["serial"] != issued["serial"]
    assert "next: hutong certs ca prune" in zone("ca", "show")[0]
    assert issued["serial"][:16] in zone.refusal("ca", "prune")["message"]
    (current,) = zone.json("ca", "prune", "--cut")
    assert (current["role"], current["usable"]) == ("current", [issued["spiffe_id"]])
    assert zone.json("ca", "show") == [current]
    assert Authority.open(zone.folder).zone == ZONE


def test_the_default_lifetime_is_the_authoritys(zone: Shell) -> None:
    zone("issue", "customs/node")
    (entry,) = Authority.open(zone.folder).register.entries()
    assert entry.ttl == DEFAULT_TTL
