"""`hutong case import` and `hutong stats`: a log into a store, what became of its cases, and what they tell."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.cli.rooms import RECOGNITION
from services.cli.zone import Zone
from tests.adapters.logs import Case, event, hours, packed, table, xes
from tests.cli.conftest import Ran, run
from tests.recognition.logged import TEXT

PROFILE = """\
procedure: LOGGED
columns: {zone: Europe/Amsterdam}
deadline: due
end: {attribute: closed, stage: Z}
"""
CASES = (
    Case("1", [event("Look", hours(0)), event("Think", hours(30))], {"closed": hours(40).isoformat()}),
    Case("2", [event("Look", hours(1)), event("Think", hours(3))], {"due": hours(2).isoformat(), "closed": ""}),
)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """A folder with a procedure of one's own, a profile, and where to put logs."""
    (tmp_path / "logged@1.0.0.yaml").write_text(TEXT)
    (tmp_path / "profile.yaml").write_text(PROFILE)
    return tmp_path


def bring(bench: Path, content: str | bytes, *more: str | Path) -> Ran:
    log = bench / "log"
    log.write_bytes(content if isinstance(content, bytes) else content.encode())
    how = ("--procedure", bench / "logged@1.0.0.yaml", "--profile", bench / "profile.yaml", "--store", store(bench))
    return run("case", "import", log, *how, *more)


def store(bench: Path) -> str:
    return f"sqlite:///{bench / 'cases.db'}"


def counts(ran: Ran, exit_code: int = 0) -> dict[str, Any]:
    assert ran.exit_code == exit_code, ran.stdout + ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["read"] == found["loaded"] + found["unchanged"] + found["refused"]
    assert found["refused"] == len(found["refusals"]) == sum(found["reasons"].values())
    return found


def test_a_log_goes_into_a_store_of_its_own_once(bench: Path) -> None:
    first = counts(bring(bench, xes(CASES), "--json"))
    assert (first["form"], first["procedure"], first["read"], first["loaded"]) == ("XES", "LOGGED@1.0.0", 2, 2)
    assert first["events"] == 7
    again = counts(bring(bench, packed(table(CASES)), "--json"))
    assert (again["form"], again["unchanged"], again["events"]) == ("CSV", 2, 0)
    assert (bench / "cases.db").stat().st_mode & 0o077 == 0


def test_what_became_of_a_log_is_told(bench: Path) -> None:
    bad = [Case(f"bad {n}", [event("Wait", hours(1))]) for n in range(25)]
    ran = bring(bench, xes([*CASES, *bad]))
    assert ran.exit_code == 0
    assert "STAGE_UNKNOWN 25" in ran.stdout
    assert "bad 0" in ran.stdout
    assert "no stage goes by 'Wait'" in ran.stdout
    assert "and 5 more" in ran.stdout
    assert ran.stderr == ""
    grown = bring(bench, xes([CASES[0], Case("2", [*CASES[1].events, event("Look", hours(5))], CASES[1].said)]))
    assert "Of those loaded, 1 were there before" in grown.stdout


def test_a_log_of_which_nothing_is_taken_is_a_failure(bench: Path) -> None:
    found = counts(bring(bench, xes([Case("1", [event("Wait", hours(1))])]), "--json"), exit_code=1)
    assert found["refusals"][0] == {
        "case": "1",
        "line": 6,
        "event": 1,
        "reason": "STAGE_UNKNOWN",
        "message": "no stage goes by 'Wait'",
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (xes(CASES)[:-40], "was cut"),
        (packed(xes(CASES))[:-20], "was cut"),
        ("a,b\n1,2\n", "case:concept:name"),
        ("<a/>", "its root is no <log> but <a>"),
    ],
)
def test_a_log_that_is_none_is_refused_and_leaves_nothing_behind(bench: Path, content: str | bytes, said: str) -> None:
    ran = bring(bench, content, "--json")
    assert ran.exit_code == 1
    error = json.loads(ran.stdout)["error"]
    assert error["reason"] == "LOG_INVALID"
    assert said in error["message"]
    assert not (bench / "cases.db").exists()


@pytest.mark.parametrize(
    ("procedure", "reason", "said"),
    [
        ("WABO-RECIEPT", "PROCEDURE_UNKNOWN", "WABO-RECEIPT"),
        ("WABO-RECEIPT@9.0.0", "PROCEDURE_UNKNOWN", "WABO-RECEIPT@1.0.0"),
        ("wabo-receipt@1.0.0.yaml", "PROCEDURE_INVALID", "cannot be read"),
        ("WABO-RECEIPT", "CONFIG_INVALID", "the profile is for LOGGED"),
    ],
)
def test_a_procedure_or_profile_that_does_not_fit(bench: Path, procedure: str, reason: str, said: str) -> None:
    log = bench / "log"
    log.write_text(xes(CASES))
    profile = ("--profile", bench / "profile.yaml")
    ran = run("case", "import", log, "--procedure", procedure, *profile, "--store", store(bench), "--json")
    assert ran.exit_code == 1
    error = json.loads(ran.stdout)["error"]
    assert (error["reason"], said in error["message"]) == (reason, True)


def test_sources_keep_logs_apart(bench: Path) -> None:
    assert counts(bring(bench, xes(CASES), "--json"))["loaded"] == 2
    assert counts(bring(bench, xes(CASES), "--source", "other", "--json"))["loaded"] == 2


def test_stats_are_told_to_people_and_machines(bench: Path) -> None:
    bring(bench, xes(CASES))
    ran = run("stats", "--store", store(bench))
    assert ran.exit_code == 0, ran.stderr
    assert (
        "Bottleneck: B Think, most of it at unit-2: 100% of all time in stages, median 16.0 h, P90 1.1 d" in ran.stdout
    )
    assert "ended after the deadline" in ran.stdout
    assert "Waiting" not in ran.stdout
    found = json.loads(run("stats", "--store", store(bench), "--json").stdout)
    (figures,) = found["procedures"]
    assert (figures["procedure"], figures["cases"], figures["events"]) == ("LOGGED", 2, 4)
    assert (figures["ended"], figures["without_end"], figures["with_deadline"]) == (1, 1, 1)
    assert (figures["last_event_after_deadline"], figures["bottleneck"]) == (1, {"stage": "B", "agency": "unit-2"})
    think = next(stage for stage in figures["stages"] if stage["code"] == "B")
    assert think["took"] == {"count": 2, "median": 57_600.0, "p90": 97_920.0, "total": 115_200.0}
    assert figures["throughput"] == {"count": 1, "median": 144_000.0, "p90": 144_000.0, "total": 144_000.0}


def test_stats_split_time_where_agencies_say_when_they_began(bench: Path) -> None:
    worked = [event("Work", hours(2), transition="start"), event("Work", hours(7), transition="complete")]
    bring(bench, xes([Case("1", [event("Look", hours(0)), *worked])]))
    assert "Waiting" in run("stats", "--store", store(bench)).stdout
    found = json.loads(run("stats", "--store", store(bench), "--json").stdout)["procedures"][0]
    work = next(stage for stage in found["stages"] if stage["code"] == "W")
    assert (work["waited"]["median"], work["worked"]["median"]) == (7200.0, 18_000.0)


def test_stats_of_one_procedure_only(bench: Path) -> None:
    bring(bench, xes(CASES))
    assert "LOGGED" in run("stats", "--store", store(bench), "--procedure", "LOGGED").stdout
    assert "There is no case of FTZ-EST" in run("stats", "--store", store(bench), "--procedure", "ftz-est").stdout


def test_stats_make_no_store_where_there_is_none(bench: Path) -> None:
    ran = run("stats", "--store", store(bench), "--json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["error"]["reason"] == "STORE_NOT_MIGRATED"
    assert not (bench / "cases.db").exists()


def test_the_real_log_into_a_zone(zone: Zone, shared_data: Path) -> None:
    log = shared_data / "approval" / "coselog_receipt.xes.gz"
    ran = run("case", "import", log, "--procedure", "wabo-receipt", "--dir", zone.folder, "--json")
    assert (counts(ran)["loaded"], counts(ran)["moved"]) == (1434, 4)
    assert zone.config_file(RECOGNITION).exists()
    (found,) = json.loads(run("stats", "--dir", zone.folder, "--json").stdout)["procedures"]
    assert (found["cases"], found["events"], found["without_end"]) == (1434, 8577, 105)
    assert (found["ended_after_deadline"], found["ended_after_planned_end"]) == (377, 389)
    assert (found["last_event_after_deadline"], found["bottleneck"]["stage"]) == (92, "T01")


def test_progress_is_shown_to_who_looks_and_to_nobody_else(bench: Path) -> None:
    log = bench / "cases.csv"
    log.write_text(table([Case(f"{n}", [event("Look", hours(n))], {"due": "", "closed": ""}) for n in range(600)]))
    command = [sys.executable, "-P", "-m", "services.cli.main", "case", "import", str(log), "--store", store(bench)]
    command += ["--procedure", str(bench / "logged@1.0.0.yaml"), "--profile", str(bench / "profile.yaml")]
    look, terminal = os.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env=os.environ | {"TERM": "xterm"}
    ) as watched:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # the other end of a terminal is closed with an error
            while piece := os.read(look, 4096):
                shown += piece
        assert watched.stdout is not None
        assert b"600" in watched.stdout.read()
    os.close(look)
    assert watched.returncode == 0
    assert b"600 cases" in shown
    assert subprocess.run(command, capture_output=True, check=True).stderr == b""
