"""`hutong audit recompute` and `hutong policy diff`: from a node, from its database, from a file."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.log.v1 import log_pb2
from services.cli.logs import decisions
from services.cli.zone import Zone
from services.kit.log import masks
from services.kit.log.openings import Draft
from tests.cli.logged import SUBJECT, fill, log_of, reason, run, serving, told

COUNT = 30
SEED = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    made = Zone.prepare(tmp_path_factory.mktemp("audited") / "zone")
    asyncio.run(fill(made, COUNT))
    return made


@pytest.fixture
def own(zone: Zone, tmp_path: Path) -> Zone:
    """A copy of the zone, to be spoiled."""
    shutil.copytree(zone.folder, tmp_path / "zone")
    return Zone.open(tmp_path / "zone")


@pytest.fixture(scope="module")
def export(zone: Zone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("export") / "customs.decisions"
    told("log", "export", "customs", "--decisions", file, "--dir", zone.folder)
    return file


RECOMPUTE = ("audit", "recompute", "--node", "customs")


def test_all_of_a_database_follows_from_the_policy(zone: Zone) -> None:
    found = told(*RECOMPUTE, "--dir", zone.folder)
    assert found["ok"]
    assert found["verdicts"] == {"SAME": COUNT + 3, "DIFFERS": 0, "BROKEN": 0, "ERASED": 0, "NOT_RECOMPUTABLE": 0}
    purposes = {finding["purpose"] for finding in found["findings"]}
    assert purposes == {"P-REBATE", "P-PUBLIC-REG", "P-AEO", "P-NOTHING"}
    shown = run(*RECOMPUTE, "--dir", zone.folder)
    assert shown.exit_code == 0
    assert "nothing contradicts the policies that were in force" in shown.stdout


def test_a_log_in_which_nothing_was_decided_yet(zone: Zone, tmp_path: Path) -> None:
    node = ("audit", "recompute", "--node", "taxation", "--dir", zone.folder)
    found = told(*node, "--save", tmp_path / "none")
    assert (found["ok"], found["log"], found["size"]) == (True, "ftz.example/taxation/node", 0)
    assert set(found["verdicts"].values()) == {0}
    for asked in (node, ("audit", "recompute", "--file", tmp_path / "none", "--keys", zone.keys)):
        shown = run(*asked)
        assert (shown.exit_code, "nothing was decided yet" in shown.stdout) == (0, True)
    (empty := tmp_path / "empty").touch()
    assert reason("audit", "recompute", "--file", empty, "--keys", zone.keys) == "LOG_ENTRY_UNKNOWN"


def test_an_auditor_draws_at_the_node_and_keeps_what_was_given(zone: Zone, tmp_path: Path) -> None:
    kept = tmp_path / "kept.decisions"
    officer = ("--as", "audit/desk", "--officer", "a-3", "--dir", zone.folder)
    with serving(zone, "customs"):
        found = told(*RECOMPUTE, "--draw", "12", "--seed", SEED, "--save", kept, *officer)
        assert (found["ok"], found["seed"], found["verdicts"]["SAME"]) == (True, SEED, 12)
        shown = run(*RECOMPUTE, "--draw", "5", *officer)
        assert (shown.exit_code, "Seed" in shown.stdout) == (0, True)
        # The node's own data officer may too, and nobody without a token, or with another agency's.
        own = ("--as", "customs/release", "--officer", "d-1", "--dir", zone.folder)
        assert told(*RECOMPUTE, *own)["ok"]
        other = ("--as", "taxation/refund", "--officer", "d-1", "--dir", zone.folder)
        assert reason(*RECOMPUTE, *other) == "ISSUER_UNKNOWN"
        assert run(*RECOMPUTE, "--as", "audit/desk", "--dir", zone.folder).exit_code == 2
    offline = told("audit", "recompute", "--file", kept, "--keys", zone.keys)
    assert [f["index"] for f in offline["findings"]] == [f["index"] for f in found["findings"]]
    assert kept.stat().st_mode & 0o077 == 0


def test_a_token_of_an_identity_provider_takes_the_nonce_that_is_told(zone: Zone, tmp_path: Path) -> None:
    asked = (*RECOMPUTE, "--draw", "5", "--as", "audit/desk", "--dir", zone.folder)
    assert run(*asked, "--nonce").exit_code == 2
    told_nonce = json.loads(run(*asked, "--seed", SEED, "--nonce").stdout)
    assert (told_nonce["aud"], told_nonce["role"]) == ("spiffe://ftz.example/customs/node", "auditor")
    request = tmp_path / "request.json"
    seed = "ABEiM0RVZneImaq7zN3u/w=="
    request.write_text(json.dumps({"draw": 5, "seed": seed, "page_size": decisions.PAGE}), encoding="utf-8")
    made = told(
        "officer", "token", "--as", "audit/desk", "--subject", "a-3", "--role", "auditor", "--for", "SampleDecisions",
        "--request", request, "--audience", "customs/node", "--dir", zone.folder,
    )  # fmt: skip
    assert made["nonce"] == told_nonce["nonce"]
    (token := tmp_path / "token").write_text(made["token"], encoding="ascii")
    with serving(zone, "customs"):
        assert told(*asked, "--seed", SEED, "--token", token)["ok"]
        assert reason(*asked, "--seed", SEED, "--token", token) in {"OFFICER_TOKEN_REPLAYED", "OFFICER_TOKEN_EXPIRED"}


def test_a_time(zone: Zone) -> None:
    assert reason(*RECOMPUTE, "--dir", zone.folder, "--file", "/nowhere") == "FILE_ERROR"
    ahead = told(*RECOMPUTE, "--dir", zone.folder, "--since", "2099-01-01")
    assert (ahead["ok"], ahead["findings"]) == (True, [])
    empty = told(*RECOMPUTE, "--dir", zone.folder, "--until", "2099-01-01")
    assert empty["verdicts"]["SAME"] == COUNT + 3


def test_a_decision_that_does_not_follow_is_shown_field_by_field(own: Zone) -> None:
    asyncio.run(claim(own))
    found = told(*RECOMPUTE, "--dir", own.folder, code=1)
    (bad,) = [finding for finding in found["findings"] if finding["verdict"] == "DIFFERS"]
    assert bad["differences"] == [
        {
            "record_type": "customs.Declaration",
            "field": "contract_no",
            "logged": "clear",
            "follows": "refused: NO_PERMIT",
        }
    ]
    shown = run(*RECOMPUTE, "--dir", own.folder)
    assert shown.exit_code == 1
    assert "contract_no: logged clear; follows refused: NO_PERMIT" in " ".join(shown.stdout.split())
    assert f"1 of {len(found['findings'])} entries do not stand" in shown.stdout


async def claim(zone: Zone) -> None:
    """Log that customs gave tax a field that its policy does not give."""
    log = log_of(zone)
    await log.open()
    try:
        entries = [one.entry for one in await log.entries(0, 200)]
        digest = next(e.disclosures[0].mask_digest for e in entries if e.purpose == "P-REBATE" and e.disclosures)
        (text,) = await log.texts([digest.hex()])
        wrong = masks.read(text.text)
        section = masks.decisions_of(wrong)
        for decision in section:
            if decision.field == "contract_no":
                decision.Clear()
                decision.field, decision.reason = "contract_no", "PERMITTED"
                decision.verdict = exchange_pb2.VERDICT_CLEAR
        wrong.decisions = b"".join(b"\x3a" + written(each.SerializeToString()) for each in section)
        wrong.digest = masks.digest_of(wrong.record_type, wrong.policy_version, wrong.decisions)
        log.text("mask", wrong.digest.hex(), wrong.SerializeToString())
        entry = log_pb2.LogEntry(
            rpc="/x/Y", caller=str(zone.identity("taxation/refund")), purpose="P-REBATE", legal_basis="CN-VAT-REBATE",
            outcome=log_pb2.OUTCOME_ANSWERED,
        )  # fmt: skip
        entry.disclosures.add(record_type=wrong.record_type, mask_digest=wrong.digest, rows=1)
        await log.append(Draft(entry))
    finally:
        await log.close()


def written(data: bytes) -> bytes:
    """A message field after its length, which here takes one byte or two."""
    return (bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])) + data


def test_an_opening_that_was_changed_is_found(own: Zone) -> None:
    with sqlite3.connect(own.config_file("customs").with_name("log.db")) as connection:
        index, opening = connection.execute('SELECT "index", opening FROM log_opening LIMIT 1').fetchone()
        spoiled = opening.replace(SUBJECT[1].encode(), b"91350211M000100Y47")
        assert spoiled != opening
        connection.execute('UPDATE log_opening SET opening = ? WHERE "index" = ?', (spoiled, index))
    found = told(*RECOMPUTE, "--dir", own.folder, code=1)
    assert [each["index"] for each in found["findings"] if each["verdict"] == "BROKEN"] == [index]


def test_an_entry_that_was_changed_is_found(zone: Zone, export: Path, tmp_path: Path) -> None:
    (broken := tmp_path / "broken").write_bytes(export.read_bytes().replace(b"P-REBATE", b"P-REBATF", 1))
    found = told("audit", "recompute", "--file", broken, "--keys", zone.keys, code=1)
    assert found["verdicts"]["BROKEN"] == 1


def test_what_was_erased_is_no_complaint(own: Zone) -> None:
    told("log", "erase", ":".join(SUBJECT), "customs", "--dir", own.folder, "--yes")
    found = told(*RECOMPUTE, "--dir", own.folder)
    assert found["ok"]
    assert found["verdicts"]["SAME"] + found["verdicts"]["ERASED"] == COUNT + 3


def test_files_that_are_no_exports(zone: Zone, export: Path, tmp_path: Path) -> None:
    data, broken = export.read_bytes(), tmp_path / "broken"
    for spoiled, why in (
        (data[:-1], "MALFORMED_REQUEST"),
        (b"\xff" * 30, "MALFORMED_REQUEST"),
        (b"\x05hello", "MALFORMED_REQUEST"),
        (b"", "LOG_ENTRY_UNKNOWN"),
        (data.replace(b"ftz.example/customs/node\n", b"ftz.example/customs/nodf\n", 1), "LOG_KEY_UNKNOWN"),
    ):
        broken.write_bytes(spoiled)
        assert reason("audit", "recompute", "--file", broken, "--keys", zone.keys) == why
    wrong = ("--log", "ftz.example/taxation/node")
    assert reason("audit", "recompute", "--file", export, "--keys", zone.keys, *wrong) == "LOG_KEY_UNKNOWN"


@pytest.mark.parametrize(
    "arguments",
    [(), ("--node", "customs", "--draw", "3", "--seed", "zz"), ("--node", "customs", "--draw", "3", "--seed", "00")],
)
def test_wrong_calls(zone: Zone, arguments: tuple[str, ...]) -> None:
    assert run("audit", "recompute", *arguments, "--dir", zone.folder).exit_code == 2


@pytest.fixture
def proposed(zone: Zone, tmp_path: Path) -> Path:
    """Customs' policy, with the buyer in clear, another retention, and one field more for the refund."""
    text = zone.policy("customs").read_text(encoding="utf-8")
    text = text.replace('@transform("initials")\n', "", 1).replace('@retain("P10Y")', '@retain("P5Y")')
    field = '        Hutong::Field::"customs.Declaration.declaration_no",\n'
    assert field in text
    text = text.replace(field, field + '        Hutong::Field::"customs.Declaration.contract_no",\n', 1)
    (made := tmp_path / "customs.cedar").write_text(text, encoding="utf-8")
    return made


def test_a_proposed_policy_against_the_log(zone: Zone, proposed: Path, export: Path) -> None:
    old = zone.policy("customs")
    found = told("policy", "diff", old, proposed, "--log", export)
    assert (found["changed"], found["answers"]) == (True, COUNT)
    by_field = {change["field"]: change for change in found["changes"]}
    assert {change["caller"] for change in found["changes"]} == {"taxation/refund"}
    assert by_field["contract_no"]["changes"] == ["opened"]
    assert by_field["contract_no"]["answers"] == COUNT // 3
    assert by_field["overseas_party_name"]["changes"] == ["other transform", "other retention"]
    assert by_field["declaration_no"]["changes"] == ["other retention"]
    at_node = told("policy", "diff", old, proposed, "--node", "customs", "--dir", zone.folder)
    assert at_node == found
    with serving(zone, "customs"):
        own = ("--as", "customs/release", "--officer", "d-1", "--dir", zone.folder)
        assert told("policy", "diff", old, proposed, "--node", "customs", *own) == found | {"answers": COUNT}
    shown = run("policy", "diff", old, proposed, "--log", export)
    assert shown.exit_code == 0
    for word in ("taxation/refund", "P-REBATE", "contract_no", "opened", "initials", "changes for 1 callers"):
        assert word in shown.stdout


def test_exit_codes_are_like_those_of_git_diff(zone: Zone, proposed: Path, export: Path, tmp_path: Path) -> None:
    old, arguments = zone.policy("customs"), ("--log", export, "--exit-code")
    assert run("policy", "diff", old, old, *arguments).exit_code == 0
    assert run("policy", "diff", old, proposed, *arguments).exit_code == 1
    folder = tmp_path / "proposed"
    folder.mkdir()
    shutil.copy(proposed, folder / "customs.cedar")
    assert run("policy", "diff", zone.folder / "policy", folder, *arguments).exit_code == 1
    same = run("policy", "diff", old, old, "--log", export)
    assert "nothing changes for anybody who has asked" in same.stdout


def test_a_policy_that_has_ended_by_then(zone: Zone, export: Path) -> None:
    old = zone.policy("customs")
    assert not told("policy", "diff", old, old, "--log", export, "--at", "2099-01-01")["changed"]


def test_policies_that_do_not_load(zone: Zone, export: Path, tmp_path: Path) -> None:
    old = zone.policy("customs")
    (bad := tmp_path / "customs.cedar").write_text("permit (", encoding="utf-8")
    assert reason("policy", "diff", old, bad, "--log", export) == "POLICY_INVALID"
    (empty := tmp_path / "empty").mkdir()
    assert reason("policy", "diff", old, empty, "--log", export) == "POLICY_INVALID"
    assert reason("policy", "diff", old, tmp_path / "none.cedar", "--log", export) == "POLICY_INVALID"
    assert run("policy", "diff", old, old).exit_code == 2
    assert run("policy", "diff", old, old, "--log", export, "--node", "customs").exit_code == 2
