"""`hutong query` and `hutong explain`, against a running mesh."""

import json
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import federation_pb2
from hutong.api.log.v1 import log_pb2
from services.cli.fleet import Fleet
from services.cli.sample import Subject
from services.kit.log.proof_text import ProofText
from services.kit.log.receipts import split
from tests.cli.conftest import Ran, run

REBATE = ("--as", "taxation/refund", "--purpose", "P-REBATE", "--basis", "CN-VAT-REBATE")
DECLARATION = ("--select", "customs.Declaration:declaration_no,overseas_party_name,lines.hs10,lines.unit_price")


class Asking:
    """Asks the mesh about the exporter."""

    def __init__(self, mesh: Fleet, exporter: Subject) -> None:
        self.folder = mesh.zone.folder
        self.address = mesh.address("gateway")
        self.subject = exporter.text

    def __call__(self, command: str, *arguments: str | Path, subject: str = "") -> Ran:
        return run(command, "--dir", self.folder, "--subject", subject or self.subject, *arguments)

    def sections(self, *arguments: str) -> list[dict[str, Any]]:
        result = self("query", *arguments, "--json")
        assert result.exit_code == 0, result.stdout
        return list(json.loads(result.stdout)["sections"])


@pytest.fixture
def ask(mesh: Fleet, exporter: Subject) -> Asking:
    return Asking(mesh, exporter)


def test_people_see_records_transforms_and_refusals(ask: Asking) -> None:
    result = ask("query", *REBATE, *DECLARATION, "--select", "commerce.Enterprise:name")
    assert result.exit_code == 0
    for text in ("customs.Declaration", "PARTIAL", "overseas_party_name ~initials", "as of", "query "):
        assert text in result.stdout
    assert "refused NO_PERMIT: lines.unit_price" in result.stdout
    assert "commerce.Enterprise  commerce  DENIED  NO_PERMIT" in result.stdout


def test_machines_get_the_contract(ask: Asking) -> None:
    (section,) = ask.sections(*REBATE, *DECLARATION, "--page-size", "1")
    assert section["status"] == "SECTION_STATUS_PARTIAL"
    (record,) = section["records"]
    assert record["@type"] == "type.googleapis.com/hutong.api.customs.v1.Declaration"
    assert record["lines"][0]["hs10"]
    assert "unit_price" not in record["lines"][0]
    verdicts = {decision["field"]: decision["verdict"] for decision in section["decisions"]}
    assert verdicts == {
        "declaration_no": "VERDICT_CLEAR",
        "overseas_party_name": "VERDICT_TRANSFORMED",
        "lines.hs10": "VERDICT_CLEAR",
        "lines.unit_price": "VERDICT_REFUSED",
    }


def test_pages_go_on_where_they_ended(ask: Asking) -> None:
    (first,) = ask.sections(*REBATE, *DECLARATION, "--page-size", "1")
    token = f"customs.Declaration:{first['next_page_token']}"
    (second,) = ask.sections(*REBATE, *DECLARATION, "--page-size", "1", "--page-token", token)
    numbers = [section["records"][0]["declaration_no"] for section in (first, second)]
    assert len(set(numbers)) == 2


def test_filters(ask: Asking) -> None:
    (found,) = ask.sections(*REBATE, *DECLARATION, "--filter", 'customs.Declaration:trade_mode = "9999"')
    assert found["status"] == "SECTION_STATUS_NO_RECORD"


def test_a_stream_gives_one_section_a_line(ask: Asking) -> None:
    result = ask("query", *REBATE, *DECLARATION, "--select", "quality.FoodFiling", "--stream", "--json")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["section"]["record_type"] for line in lines} == {"customs.Declaration", "quality.FoodFiling"}
    assert len({line["query_id"] for line in lines}) == 1


def test_a_stream_for_people(ask: Asking) -> None:
    assert "customs.Declaration" in ask("query", *REBATE, *DECLARATION, "--stream").stdout


def test_an_answer_that_was_kept_is_compared_with_its_entry_by_whoever_may_read_entries(
    ask: Asking, tmp_path: Path
) -> None:
    kept, proof, folder = tmp_path / "answer", tmp_path / "answer.tlog-proof", ("--dir", ask.folder)
    assert ask("query", *REBATE, *DECLARATION, "--save", kept).exit_code == 0
    assert kept.stat().st_mode & 0o077 == 0
    prove = ("log", "prove", kept, *folder)

    def told(*arguments: str | Path) -> dict[str, Any]:
        ran = run(*arguments, "--json")
        found: dict[str, Any] = json.loads(ran.stdout)
        assert ran.exit_code == (1 if "error" in found else 0)
        return found

    for reader in ("audit/desk", ""):
        assert told(*prove, "--as", reader)["answer"] is True
    assert "this is the answer" in run(*prove, "--as", "audit/desk").stdout
    # Who asked has the proof of what was promised; entries are for the log's readers.
    found = told(*prove, "--as", "taxation/refund", "--out", proof)
    assert (found["receipt"], found["answer"]) == (True, None)
    # The salt of the answer's digest is for who got the answer; a proof goes to everybody.
    receipt = split(kept.read_bytes(), federation_pb2.QueryResponse).receipt
    shown = log_pb2.Receipt.FromString(ProofText.parse(proof.read_text()).extra)
    assert receipt.answer_salt
    assert (shown.leaf_hash, shown.signature, shown.answer_salt) == (receipt.leaf_hash, receipt.signature, b"")
    assert told("log", "consistency", proof, "--node", "gateway", "--as", "taxation/refund", *folder)["kept"] is True
    # One letter of a record, and it is another answer.
    whole = kept.read_bytes()
    at = whole.index(b"declaration_no")
    kept.write_bytes(whole[:at] + b"D" + whole[at + 1 :])
    assert told(*prove, "--as", "taxation/refund")["answer"] is None
    assert "not compared" in run(*prove, "--as", "taxation/refund").stdout
    assert told(*prove, "--as", "audit/desk")["error"]["reason"] == "RECEIPT_INVALID"


def test_a_stream_is_not_kept_as_one_answer(ask: Asking, tmp_path: Path) -> None:
    assert ask("query", *REBATE, *DECLARATION, "--stream", "--save", tmp_path / "answer").exit_code == 2


def test_nothing_given_is_exit_code_3(ask: Asking) -> None:
    for more in ((), ("--stream",), ("--json",)):
        assert ask("query", *REBATE, "--select", "commerce.Enterprise", *more).exit_code == 3


def test_knowing_nothing_is_an_answer(ask: Asking) -> None:
    result = ask("query", *REBATE, *DECLARATION, subject="cn.uscc:91999901MA07HYX927")
    assert result.exit_code == 0
    assert "NO_RECORD" in result.stdout


def test_explain_gives_decisions_and_no_data(ask: Asking) -> None:
    result = ask("explain", *REBATE, *DECLARATION, "--json")
    assert result.exit_code == 0
    (section,) = json.loads(result.stdout)["sections"]
    assert "records" not in section
    assert section["decisions"][0]["policy_ids"] == ["R07"]
    shown = ask("explain", *REBATE, *DECLARATION).stdout
    for text in ("initials", "NO_PERMIT", "CN-VAT-REBATE", "P10Y", "R07"):
        assert text in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--select", "customs.Declaratoin"), "RECORD_TYPE_UNKNOWN"),
        (("--select", "customs.Declaration:hs10"), "FIELD_UNKNOWN"),
        ((), "SELECTION_MISSING"),
        (("--select", "customs.Declaration", "--select", "customs.Declaration"), "RECORD_TYPE_REPEATED"),
        ((*DECLARATION, "--purpose", "P-RISK"), "PURPOSE_SEVERAL"),
        ((*DECLARATION, "--filter", "customs.Declaration:gross_wt_kg > 3"), "FILTER_FIELD_NOT_INDEXED"),
        ((*DECLARATION, "--page-token", "customs.Declaration:forged"), "PAGE_TOKEN_INVALID"),
        ((*DECLARATION, "--as-of", "2199-01-01"), "AS_OF_IN_FUTURE"),
    ],
)
def test_wrong_questions_are_refused_with_the_reason(ask: Asking, arguments: tuple[str, ...], reason: str) -> None:
    result = ask("query", *REBATE, *arguments, "--json")
    answered = json.loads(result.stdout)
    if "error" in answered:
        assert result.exit_code == 1
        assert answered["error"]["reason"] == reason
    else:
        # What only the department can tell costs its own section, with the same reason.
        assert [section["reason"] for section in answered["sections"]] == [reason]
        assert result.exit_code == 3


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("cn.uscc:123", "SUBJECT_INVALID"),
        ("cn.usc:91999901MA07HYX927", "SUBJECT_SCHEME_UNKNOWN"),
        ("iso6346:CSQU3054383", "SUBJECT_SCHEME_UNSUPPORTED"),
        ("91999901MA07HYX927", "SUBJECT_MISSING"),
    ],
)
def test_wrong_subjects(ask: Asking, subject: str, reason: str) -> None:
    result = ask("query", *REBATE, *DECLARATION, "--json", subject=subject)
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["reason"] == reason


def test_somebody_without_a_certificate(ask: Asking) -> None:
    result = ask("query", "--as", "taxation/nobody", *REBATE[2:], *DECLARATION)
    assert result.exit_code == 1
    assert "error: SVID_UNREADABLE" in result.stderr
    assert "hutong certs issue" in result.stderr


def test_somebody_who_may_not_ask(ask: Asking) -> None:
    result = ask("query", "--as", "operator/admin", *REBATE[2:], *DECLARATION)
    assert result.exit_code == 1
    assert "error: CALLER_NOT_LISTED" in result.stderr


def test_a_caller_that_brings_everything_along(ask: Asking, mesh: Fleet) -> None:
    files = mesh.zone.credentials("taxation/refund")
    own = ("--gateway", ask.address, "--cert", files.certificate, "--bundle", files.bundle, "--dir", "nowhere")
    assert ask("query", *REBATE[2:], *DECLARATION, *own).exit_code == 0


def test_a_gateway_that_is_another(ask: Asking) -> None:
    other = ("--gateway-id", "spiffe://ftz.example/gateway/other")
    result = ask("query", *REBATE, *DECLARATION, *other, "--deadline", "2s")
    assert result.exit_code == 1
    assert "error: DEPARTMENT_UNREACHABLE" in result.stderr


def test_nobody_at_that_address(ask: Asking) -> None:
    result = ask("query", *REBATE, *DECLARATION, "--gateway", "127.0.0.1:1", "--deadline", "2s")
    assert result.exit_code == 1
    assert "error: DEPARTMENT_UNREACHABLE" in result.stderr
    assert "hutong up" in result.stderr


def test_a_certificate_needs_its_roots(ask: Asking) -> None:
    assert ask("query", *REBATE, *DECLARATION, "--cert", "x.pem").exit_code == 2
