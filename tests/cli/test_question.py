"""How a question on the command line becomes a request, and what is refused before anything is sent."""

import datetime as dt
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.cli import question
from services.cli.main import app
from services.kit.errors import InvalidArgument, Reason

SUBJECT = "cn.uscc:91350211M0000XUF47"
runner = CliRunner()


def test_every_argument_has_its_place() -> None:
    made = question.request(
        ["P-REBATE"],
        "CN-VAT-REBATE",
        SUBJECT,
        ["customs.Declaration:declaration_no, lines.hs10", "commerce.Enterprise"],
        ['customs.Declaration:ie_flag = "E" AND declared_at >= "2026-01-01T00:00:00Z"'],
        ["commerce.Enterprise:abc:def"],
        7,
        "2026-03-01",
        "CASE-1",
        "AUTH-1",
        "officer-7",
    )
    assert (made.context.purpose, made.context.legal_basis) == ("P-REBATE", "CN-VAT-REBATE")
    assert (made.context.case_ref, made.context.authorization_id) == ("CASE-1", "AUTH-1")
    assert made.context.on_behalf_of == "officer-7"
    assert (made.subject.scheme, made.subject.value) == ("cn.uscc", "91350211M0000XUF47")
    declaration, enterprise = made.selections
    assert list(declaration.fields) == ["declaration_no", "lines.hs10"]
    assert declaration.filter == 'ie_flag = "E" AND declared_at >= "2026-01-01T00:00:00Z"'
    assert declaration.page_size == 7
    assert enterprise.page_token == "abc:def"
    assert not enterprise.fields
    assert made.as_of.ToDatetime(dt.UTC) == dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def test_several_purposes_are_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        question.request(["P-REBATE", "P-RISK"], "B", SUBJECT, ["commerce.Enterprise"])
    assert caught.value.reason is Reason.PURPOSE_SEVERAL


def test_several_purposes_are_an_error_with_exit_code_1() -> None:
    arguments = [
        "query",
        "--as",
        "taxation/refund",
        "--purpose",
        "P-REBATE",
        "--purpose",
        "P-RISK",
        "--subject",
        SUBJECT,
    ]
    for command in ("query", "explain"):
        arguments[0] = command
        result = runner.invoke(app, [*arguments, "--json"])
        assert result.exit_code == 1
        assert json.loads(result.stdout)["error"]["reason"] == "PURPOSE_SEVERAL"


@pytest.mark.parametrize(
    "arguments",
    [
        {"selects": [":declaration_no"]},
        {"selects": [""]},
        {"filters": ["quality.Certificate:cert_status = 1"]},
        {"filters": ["no colon"]},
        {"page_tokens": ["commerce.Enterprise:a", "commerce.Enterprise:b"]},
        {"as_of": "last Tuesday"},
    ],
)
def test_what_is_not_even_a_question_is_a_usage_error(arguments: dict[str, list[str]]) -> None:
    whole: dict[str, list[str]] = {"selects": ["commerce.Enterprise"], **arguments}
    with pytest.raises(typer.BadParameter):
        question.request(["P"], "B", SUBJECT, **whole)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("text", "expected"), [("500ms", 0.5), ("5s", 5.0), ("2m", 120.0)])
def test_durations(text: str, expected: float) -> None:
    assert question.seconds(text) == expected


def test_a_wrong_duration_says_how_to_write_one() -> None:
    with pytest.raises(typer.BadParameter, match="500ms"):
        question.seconds("soon")


def test_nobody_asking_is_a_usage_error() -> None:
    result = runner.invoke(app, ["query", "--purpose", "P-REBATE", "--subject", SUBJECT])
    assert result.exit_code == 2
    assert "--as" in result.stderr


def test_without_a_zone_the_error_says_what_to_do(tmp_path: Path) -> None:
    result = runner.invoke(
        app, ["query", "--as", "taxation/refund", "--purpose", "P-REBATE", "--subject", SUBJECT, "--dir", str(tmp_path)]
    )
    assert result.exit_code == 1
    assert "error: ZONE_MISSING" in result.stderr
    assert "next:" in result.stderr
