"""What `make test` does with tests that fail."""

from pathlib import Path

import pytest

from tests import __main__ as tests

LATE = """
from pathlib import Path

def test_late():
    seen = Path(__file__).with_name("seen")
    before = seen.exists()
    seen.touch()
    assert before
"""


def run(folder: Path, text: str) -> int:
    (folder / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = session\n")
    (folder / "test_some.py").write_text(text)
    return tests.main(["-q", "--numprocesses=0"], folder)


def test_what_passes_alone_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, LATE) == 0
    assert capfd.readouterr().out.endswith("Passed only when run once more, alone:\n  test_some.py::test_late\n")


def test_what_fails_again_has_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, f"{LATE}\ndef test_wrong():\n    assert not 1\n") == 1
    said = capfd.readouterr().out
    assert said.count("FAILED test_some.py::test_wrong") == 2
    assert "Passed only" not in said


def test_many_failures_are_not_the_machines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    many = "".join(
        LATE.replace("late", f"late_{number}").replace('"seen"', f'"seen_{number}"') for number in range(tests.FEW + 1)
    )
    assert run(tmp_path, many) == 1
    assert capfd.readouterr().out.count("FAILED") == tests.FEW + 1


def test_an_error_of_another_kind_is_none_of_time(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "def test_it(:") == 2
    assert capfd.readouterr().out.count("ERROR test_some.py") == 1
