"""The one door of errors: a reason, a message, and what to do next; never a traceback unless asked for."""

import json

import pytest
from typer.testing import CliRunner

from certs.errors import ZoneMissing
from services.cli import door
from services.cli.hints import HINTS
from services.cli.main import app
from services.kit.errors import InvalidArgument, Reason


def test_our_errors_keep_reason_metadata_and_get_a_hint() -> None:
    error = InvalidArgument(Reason.FIELD_UNKNOWN, "there is no such field", field="x")
    described = door.describe(error)
    assert described["reason"] == "FIELD_UNKNOWN"
    assert described["metadata"] == {"field": "x"}
    assert described["hint"] == HINTS["FIELD_UNKNOWN"]


def test_certificate_errors_bring_their_own_hint() -> None:
    described = door.describe(ZoneMissing("no zone in x", "make one"))
    assert (described["reason"], described["hint"]) == ("ZONE_MISSING", "make one")


def test_file_errors_name_the_file() -> None:
    described = door.describe(FileNotFoundError(2, "No such file or directory", "x.csv"))
    assert described["reason"] == "FILE_ERROR"
    assert described["message"] == "x.csv: No such file or directory"


def test_the_first_of_several_errors_is_told() -> None:
    group = BaseExceptionGroup("two", [InvalidArgument(Reason.FILTER_INVALID, "first"), ValueError("second")])
    assert door.describe(group)["reason"] == "FILTER_INVALID"


def test_what_nobody_foresaw_is_internal_and_says_how_to_see_more() -> None:
    described = door.describe(ZeroDivisionError("division by zero"))
    assert described["reason"] == "INTERNAL"
    assert "--debug" in str(described["hint"])


def test_for_people_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    door.tell(InvalidArgument(Reason.SUBJECT_INVALID, "no such thing"), as_json=False)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: SUBJECT_INVALID: no such thing\n")
    assert " next: " in err


def test_for_machines_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    door.tell(InvalidArgument(Reason.SUBJECT_INVALID, "no such thing"), as_json=True)
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out)["error"]["reason"] == "SUBJECT_INVALID"


def test_every_hint_is_for_a_reason_there_is() -> None:
    beside = {"SVID_UNREADABLE", "FILE_ERROR"}
    assert set(HINTS) <= set(Reason.__members__) | beside


def test_debug_lets_the_error_through() -> None:
    result = CliRunner().invoke(app, ["--debug", "catalogue", "nothing.Known"])
    assert isinstance(result.exception, InvalidArgument)
