"""`hutong result`, as far as it needs no service: keys, signing, verifying, showing."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from services.cli.lazy import Entry, LazyGroup
from services.cli.zone import Zone
from services.kit.credentials import signed, status
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.status import StatusList
from tests.cli.conftest import Ran
from tests.credentials.making import DAY, LIST, NOW, SUBJECT, Agencies

STATEMENT = f"""
ref: 00000000-0000-4000-8000-000000000001
subject: {SUBJECT}
fact: person_verified
assurance: ON_SITE
value: {{method: chip, register: national}}
case_id: case-1
stage: E2
issued_at: {NOW:%Y-%m-%dT%H:%M:%SZ}
valid_until: 2099-01-01T00:00:00Z
status: {{uri: "{LIST}", index: 1}}
"""


class _Result(LazyGroup):
    entries = (Entry("result", "services.cli.result", "Stage results.", "Ask"),)


_app = typer.Typer(cls=_Result)


@_app.callback()
def _root(debug: bool = False) -> None:
    """Take what holds for every command."""


def run(*arguments: str | Path, given: str = "") -> Ran:
    """Run `hutong result …` in this process."""
    done = typer.testing.CliRunner().invoke(_app, ["result", *map(str, arguments)], input=given)
    return Ran(done.exit_code, done.stdout, done.stderr)


def failed(ran: Ran) -> str:
    """Give the reason a command that was asked for JSON failed with."""
    assert ran.exit_code == 1, ran.stdout
    reason: str = json.loads(ran.stdout)["error"]["reason"]
    return reason


@pytest.fixture
def agencies(tmp_path: Path) -> Agencies:
    """Two agencies with keys of their own, in no zone folder."""
    return Agencies.found(tmp_path / "agencies", "publicsecurity", "recognition", now=NOW - DAY)


@pytest.fixture
def credential(tmp_path: Path, agencies: Agencies) -> Path:
    """A result that was signed on the command line."""
    (tmp_path / "statement.yaml").write_text(STATEMENT)
    out = tmp_path / "result.sdjwt"
    made = run(
        "sign", "publicsecurity", tmp_path / "statement.yaml", "--signing", agencies.folder / "publicsecurity",
        "--out", out,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    return out


def verified(file: Path, agencies: Agencies, *arguments: str | Path) -> dict[str, Any]:
    ran = run("verify", file, "--keys", agencies.keys, "--at", "2026-12-01", *arguments, "--json")
    assert ran.exit_code == 0, ran.stdout
    read: dict[str, Any] = json.loads(ran.stdout)
    return read


def test_what_is_signed_is_verified(credential: Path, agencies: Agencies) -> None:
    said = verified(credential, agencies, "--issuer", "publicsecurity", "--subject", SUBJECT)
    assert said["value"] == {"method": "chip", "register": "national"}
    assert (said["fact"], said["case_id"], said["withheld"]) == ("person_verified", "case-1", 0)
    assert (said["issuer"], said["status"]) == ("publicsecurity", "NOT_LOOKED_UP")
    assert stat.S_IMODE(credential.stat().st_mode) == 0o600


def test_for_people(credential: Path, agencies: Agencies) -> None:
    shown = run("verify", credential, "--keys", agencies.keys)
    assert shown.exit_code == 0
    for word in ("verified", "person_verified", "chip", SUBJECT, "NOT_LOOKED_UP"):
        assert word in shown.stdout


def test_one_file_of_keys_is_enough(credential: Path, agencies: Agencies) -> None:
    keys = agencies.keys / "publicsecurity.jwks.json"
    assert run("verify", credential, "--keys", keys).exit_code == 0
    assert failed(run("verify", credential, "--keys", agencies.keys / "recognition.jwks.json", "--json")) == (
        "RESULT_ISSUER"
    )


def test_from_standard_input(credential: Path, agencies: Agencies) -> None:
    ran = run("verify", "-", "--keys", agencies.keys, "--json", given=f"\n{credential.read_text()}\n")
    assert json.loads(ran.stdout)["fact"] == "person_verified"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--issuer", "customs"], "RESULT_ISSUER"),
        (["--subject", "cn.uscc:91110108551385082Q"], "RESULT_SUBJECT"),
        (["--fact", "seal_registered"], "RESULT_FACT"),
        (["--at", "2099-01-01"], "RESULT_EXPIRED"),
        (["--at", "2026-11-22T08:58:59Z"], "RESULT_NOT_YET_VALID"),
        (["--keys", "nowhere"], "KEY_UNKNOWN"),
    ],
)
def test_each_refusal_has_its_reason(credential: Path, agencies: Agencies, arguments: list[str], reason: str) -> None:
    assert failed(run("verify", credential, "--keys", agencies.keys, *arguments, "--json")) == reason


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * (signed.LIMIT + 1), "é".encode(), b"{}"])
def test_a_file_that_is_no_result(tmp_path: Path, agencies: Agencies, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for arguments in (("verify", tmp_path / "x", "--keys", agencies.keys), ("present", tmp_path / "x")):
        assert failed(run(*arguments, "--json")) == "RESULT_MALFORMED"


def test_a_file_that_is_not_there(tmp_path: Path, agencies: Agencies) -> None:
    assert failed(run("verify", tmp_path / "x", "--keys", agencies.keys, "--json")) == "FILE_ERROR"


def test_a_holder_shows_a_subset(tmp_path: Path, credential: Path, agencies: Agencies) -> None:
    out = tmp_path / "shown.sdjwt"
    assert run("present", credential, "--keep", "method", "--out", out).exit_code == 0
    said = verified(out, agencies)
    assert (said["value"], said["case_id"], said["withheld"]) == ({"method": "chip"}, "", 2)
    nothing = run("present", credential)
    out.write_text(nothing.stdout)
    assert verified(out, agencies)["value"] == {}
    ran = run("present", credential, "--keep", "case_id", "--json")
    assert json.loads(ran.stdout)["disclosed"] == ["case_id"]
    assert failed(run("present", credential, "--keep", "methud", "--json")) == "RESULT_DISCLOSURE"


@pytest.mark.parametrize(("value", "reason"), [(0, ""), (1, "RESULT_REVOKED"), (2, "RESULT_SUSPENDED")])
def test_the_status_list_is_looked_at(
    tmp_path: Path, credential: Path, agencies: Agencies, value: int, reason: str
) -> None:
    path = tmp_path / "list.jwt"
    made = StatusList.of(LIST, [0, value])
    path.write_text(status.issue(made, agencies.signing["recognition"], NOW, 365 * DAY, DAY))
    if reason:
        arguments = ("verify", credential, "--keys", agencies.keys, "--status", path, "--at", "2026-12-01", "--json")
        assert failed(run(*arguments)) == reason
    else:
        assert verified(credential, agencies, "--status", path)["status"] == "VALID"
    arguments = ("verify", credential, "--keys", agencies.keys, "--status", path, "--at", "2028-01-01", "--json")
    assert failed(run(*arguments)) == "STATUS_LIST_INVALID"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "RESULT_MALFORMED"),
        ("[]", "RESULT_MALFORMED"),
        ("{", "RESULT_MALFORMED"),
        (STATEMENT + "colour: red\n", "RESULT_MALFORMED"),
        (STATEMENT + "fact: twice\n", "RESULT_MALFORMED"),
        (STATEMENT.replace("09:00:00Z", "09:00:00"), "RESULT_MALFORMED"),
        (STATEMENT.replace("cn.uscc:", ""), "RESULT_MALFORMED"),
        (STATEMENT + "disclosable: [colour]\n", "RESULT_DISCLOSURE"),
        (STATEMENT.replace("2026-11-22", "2020-11-22"), "KEY_EXPIRED"),
    ],
)
def test_a_statement_that_is_none_is_not_signed(tmp_path: Path, agencies: Agencies, text: str, reason: str) -> None:
    (tmp_path / "statement.yaml").write_text(text)
    signing = agencies.folder / "publicsecurity"
    ran = run("sign", "publicsecurity", tmp_path / "statement.yaml", "--signing", signing, "--json")
    assert failed(ran) == reason


def test_nobody_signs_with_anothers_keys(tmp_path: Path, agencies: Agencies) -> None:
    (tmp_path / "statement.yaml").write_text(STATEMENT)
    signing = agencies.folder / "recognition"
    ran = run("sign", "publicsecurity", tmp_path / "statement.yaml", "--signing", signing, "--json")
    assert failed(ran) == "KEY_INVALID"


def listed(*arguments: str | Path) -> list[dict[str, Any]]:
    ran = run("keys", *arguments, "--json")
    assert ran.exit_code == 0, ran.stdout
    keys: list[dict[str, Any]] = json.loads(ran.stdout)["keys"]
    return keys


def test_the_life_of_keys_in_a_zone(zone: Zone, tmp_path: Path) -> None:
    there = ("--dir", zone.folder)
    (first,) = listed("list", "publicsecurity", *there)
    assert first["state"] == "active"
    (tmp_path / "statement.yaml").write_text(STATEMENT.replace(f"issued_at: {NOW:%Y-%m-%dT%H:%M:%SZ}", ""))
    out = tmp_path / "result.sdjwt"
    assert run("sign", "publicsecurity", tmp_path / "statement.yaml", "--out", out, *there).exit_code == 0
    assert [key["state"] for key in listed("rotate", "publicsecurity", *there)] == ["retired", "active"]
    assert run("verify", out, *there).exit_code == 0
    # As one would do it: copied from the list, shortened.
    keys = listed("revoke", "publicsecurity", first["kid"][:8], *there)
    assert [(key["state"], key["revoked_reason"]) for key in keys] == [("revoked", "key-compromise"), ("active", "")]
    assert failed(run("verify", out, *there, "--json")) == "KEY_REVOKED"
    keys = listed("revoke", "publicsecurity", keys[1]["kid"], "--reason", "cessation", *there)
    assert [key["state"] for key in keys] == ["revoked", "revoked", "active"]
    keys = listed("rotate", "publicsecurity", "--lead", "24h", *there)
    assert [key["state"] for key in keys] == ["revoked", "revoked", "active", "planned"]
    shown = run("keys", "list", "publicsecurity", *there).stdout
    assert "revoked: cessation" in shown
    assert "planned" in shown


def test_keys_that_lie_elsewhere(tmp_path: Path) -> None:
    there = ("--signing", tmp_path / "signing", "--published", tmp_path / "published")
    (key,) = listed("init", "laboratory", "--zone", "north.example", *there)
    assert (tmp_path / "published" / "laboratory.jwks.json").is_file()
    assert SigningKeys.open(tmp_path / "signing").issuer == "spiffe://north.example/laboratory"
    assert listed("list", "laboratory", *there) == [key]
    assert failed(run("keys", "init", "laboratory", "--zone", "north.example", *there, "--json")) == "FOLDER_NOT_EMPTY"
    assert failed(run("keys", "list", "customs", *there, "--json")) == "KEY_INVALID"
    assert failed(run("keys", "revoke", "laboratory", "nobodyknows", *there, "--json")) == "KEY_UNKNOWN"
    assert failed(run("keys", "revoke", "laboratory", key["kid"][:4], *there, "--json")) == "KEY_UNKNOWN"
    assert run("keys", "init", "other", *there).exit_code == 2


def test_an_agency_that_has_no_keys_yet(zone: Zone) -> None:
    assert failed(run("keys", "list", "laboratory", "--dir", zone.folder, "--json")) == "CONFIG_FILE_MISSING"
    (key,) = listed("init", "laboratory", "--dir", zone.folder)
    assert key["state"] == "active"
    assert (zone.keys / "laboratory.jwks.json").is_file()


def test_no_private_key_is_shown(zone: Zone) -> None:
    shown = "".join(
        run("keys", *arguments, "--dir", zone.folder, "--json").stdout
        for arguments in (("list", "customs"), ("rotate", "customs"))
    )
    secrets = [json.loads(path.read_text())["d"] for path in zone.signing("customs").glob("*.private.jwk.json")]
    assert secrets
    assert not any(secret in shown for secret in secrets)
    assert not any(secret in (zone.keys / "customs.jwks.json").read_text() for secret in secrets)
