"""A case stays on the version of the procedure that it began with, whatever becomes of files, checks and agencies."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from hutong.api.recognition.v1 import case_pb2
from hutong.api.recognition.v1.case_service_pb2 import CaseView
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.recognition.agencies import Agencies
from services.recognition.events import Kind
from services.recognition.procedure_file import ProcedureRefused, parse, restore
from services.recognition.publication import CalendarFiles
from tests.recognition.desk import DEMO, EXPRESS, START, Bed, Hand, desk, execute
from tests.recognition.mesh import POLICE, REGISTRY, Mesh, firm

NEWER = DEMO.replace("version: 1.0.0", "version: 1.1.0").replace("limit: 3 working days", "limit: 1 working day")
"""The same with shorter limits."""

UNCHECKED = DEMO.replace("foreign-investment", "harbour-office").replace("[establishment]", "[food]")
"""What no check passes today: an agency that is gone, and silence that counts as a pass where the law forbids it."""


CALENDAR = """\
id: CN-XM
title: Xiamen
zone: Asia/Shanghai
country: CN
source: made up for a test
"""

ARRANGEMENT = """\
code: FIT-AND-PROPER
version: 1.0.0
title: Fit and proper
local_title: 资格互认
recognisers: [taxation]
fact: fit_and_proper
issuers: [commerce]
assurance: FORM_REVIEW
outside: true
effective_from: 2024-01-01T00:00:00+08:00
basis: CN-RIGHT-TO-KNOW
mark: design
"""


def folder_of(path: Path, **texts: str) -> Path:
    """Write procedures into a folder, by their versions: `folder_of(path, v1_0_0=text)`."""
    path.mkdir(exist_ok=True)
    for version, text in texts.items():
        (path / f"demo@{version[1:].replace('_', '.')}.yaml").write_text(text, encoding="utf-8")
    return path


async def test_a_newer_file_is_for_new_cases_only(tmp_path: Path) -> None:
    mesh, subject = Mesh(tmp_path), firm()
    mesh.changes = {"procedures": folder_of(tmp_path / "procedures", v1_0_0=DEMO)}
    try:
        await mesh.start()
        old = (await mesh.submit(procedure="DEMO", subject=subject)).case.case_id
        await mesh.passed(REGISTRY, old, "A", subject=subject)
        before = await mesh.get(POLICE, old)
        folder_of(tmp_path / "procedures", v1_1_0=NEWER)
        await mesh.restart()
        after = await mesh.get(POLICE, old)
        assert [s.SerializeToString() for s in after.stages] == [s.SerializeToString() for s in before.stages]
        assert (after.case.procedure_version, limit_of(after, "B")) == ("1.0.0", 3)
        new = await mesh.submit(procedure="DEMO", subject=firm())
        assert new.case.procedure_version == "1.1.0"
        # The old file goes: the store has its text.
        (tmp_path / "procedures" / "demo@1.0.0.yaml").unlink()
        await mesh.restart()
        await mesh.event(POLICE, old, "B", "START")
        assert limit_of(await mesh.get(POLICE, old), "B") == 3
    finally:
        await mesh.stop()


def limit_of(view: CaseView, code: str) -> int:
    (stage,) = [s for s in view.stages if s.code == code]
    return stage.clock.limit


async def test_a_changed_file_of_a_version_in_use_stops_the_start(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    folder = folder_of(tmp_path / "procedures", v1_0_0=DEMO)
    mesh.changes = {"procedures": folder}
    try:
        await mesh.start()
        await mesh.submit(procedure="DEMO", subject=firm())
        folder_of(folder, v1_0_0=DEMO.replace("limit: 3 working days", "limit: 9 working days"))
        with pytest.raises(FailedPrecondition) as caught:
            await mesh.restart()
        assert caught.value.reason is Reason.PROCEDURE_CHANGED
    finally:
        await mesh.stop()


async def test_the_law_of_the_day_of_application_counts(sqlite_url: str, tmp_path: Path) -> None:
    """It changes at midnight: what was applied for before stays with the old one, also where it is handed in after."""
    changes = START + dt.timedelta(days=1)
    newer = NEWER.replace("2024-01-01T00:00:00+08:00", changes.isoformat())
    async with desk(sqlite_url, tmp_path, Hand(changes + dt.timedelta(hours=1)), procedures=(DEMO, newer)) as bed:
        new = await bed.submit()
        old = await bed.submit(applied_at=changes - dt.timedelta(hours=1))
        assert (old.head.procedure_version, new.head.procedure_version) == ("1.0.0", "1.1.0")


def test_a_stored_text_is_not_checked_again() -> None:
    with pytest.raises(ProcedureRefused):
        parse(UNCHECKED)
    found = restore(UNCHECKED, Agencies.load())
    assert found.stages == {**parse(DEMO).stages, "X": found.stages["X"]}
    assert found.agencies["harbour-office"].line[0].code == "harbour-office"
    for text in ("", "code: DEMO", UNCHECKED.replace("limit: 3 working days", "limit: soon")):
        with pytest.raises(ProcedureRefused) as caught:
            restore(text, Agencies.load())
        assert caught.value.reason is Reason.PROCEDURE_INVALID


@pytest.fixture
async def inherited(sqlite_url: str, tmp_path: Path) -> AsyncIterator[tuple[Bed, str]]:
    """A case whose version no file has, on a text that passes no check any more."""
    clock = Hand()
    async with desk(sqlite_url, tmp_path, clock) as bed:
        case = await bed.submit(answers={"foreign": "true"})
    digest = sha256(UNCHECKED.encode()).hexdigest()
    quoted = UNCHECKED.replace("'", "''")
    # A colon is a parameter's beginning to the statement, not to the text.
    execute(
        sqlite_url,
        f"UPDATE procedure SET digest = '{digest}', text = '{quoted}' WHERE code = 'DEMO'".replace(":", r"\:"),
    )
    async with desk(sqlite_url, tmp_path, clock, procedures=(EXPRESS,)) as bed:
        yield bed, case.case_id


async def test_a_case_goes_on_after_its_files_its_checks_and_its_agency_are_gone(inherited: tuple[Bed, str]) -> None:
    bed, case_id = inherited
    await bed.act(case_id, Kind.START, "A", "commerce")
    await bed.result(case_id, "A", "commerce")
    bed.clock.move(days=40)
    assert await bed.cases.tick() > 0
    reminded = {(e.stage, e.addressee) for e in await bed.cases.events(case_id) if e.kind is Kind.REMIND}
    assert ("X", "harbour-office") in reminded
    await bed.act(case_id, Kind.START, "X", "harbour-office")
    await bed.result(case_id, "X", "harbour-office")
    await bed.through(case_id, ("B", "publicsecurity"), ("C", "taxation"), ("D", "commerce"), ("E", "commerce"))
    assert (await bed.cases.get(case_id)).head.status == "DELIVERED"
    with pytest.raises(HutongError) as caught:
        await bed.submit()
    assert caught.value.reason is Reason.PROCEDURE_UNKNOWN


async def test_nobody_begins_on_what_is_not_in_force(sqlite_url: str, tmp_path: Path) -> None:
    text = DEMO.replace("2024-01-01T00:00:00+08:00", (START + dt.timedelta(days=9)).isoformat())
    async with desk(sqlite_url, tmp_path, procedures=(text,)) as bed:
        with pytest.raises(HutongError) as caught:
            await bed.submit()
        assert caught.value.reason is Reason.PROCEDURE_UNKNOWN


async def test_demands_may_be_met_by_a_zones_own_arrangement(tmp_path: Path) -> None:
    """A node takes a procedure whose demand only an arrangement beside it meets, on a calendar of the zone's own."""
    procedures, arrangements, calendars = (tmp_path / name for name in ("procedures", "arrangements", "calendars"))
    for folder in (procedures, arrangements, calendars):
        folder.mkdir()
    text = EXPRESS.replace("calendar: CN", "calendar: CN-XM").replace(
        "    reaches: DELIVERED", "    requires: [{fact: fit_and_proper}]\n    reaches: DELIVERED"
    )
    (procedures / "express@1.0.0.yaml").write_text(text, encoding="utf-8")
    mesh = Mesh(tmp_path)
    mesh.changes = {"procedures": procedures, "arrangements": arrangements, "calendars": calendars}
    (calendars / "CN-XM.yaml").write_text(CALENDAR, encoding="utf-8")
    try:
        with pytest.raises(ProcedureRefused, match="nobody proves 'fit_and_proper'"):
            await mesh.start()
        (arrangements / "fit-and-proper@1.0.0.yaml").write_text(
            ARRANGEMENT.replace("CN-RIGHT-TO-KNOW", "CN-NO-SUCH-BASIS"), encoding="utf-8"
        )
        with pytest.raises(FailedPrecondition, match="there is no legal basis 'CN-NO-SUCH-BASIS'"):
            await mesh.start()
        (arrangements / "fit-and-proper@1.0.0.yaml").write_text(ARRANGEMENT, encoding="utf-8")
        await mesh.start()
        subject = firm()
        case_id = (await mesh.submit("taxation/refund", procedure="EXPRESS", subject=subject)).case.case_id
        await mesh.passed(POLICE, case_id, "P", "person_verified", subject=subject)
        await mesh.event("taxation/refund", case_id, "Q", "START")
        with pytest.raises(HutongError) as caught:
            await mesh.event("taxation/refund", case_id, "Q", "RESULT", result_code=case_pb2.RESULT_CODE_PASS)
        assert caught.value.reason is Reason.FACT_NOT_PROVEN
        await mesh.register("commerce/registry", "fit_and_proper", subject=subject)
        await mesh.event("taxation/refund", case_id, "Q", "RESULT", result_code=case_pb2.RESULT_CODE_PASS)
        assert (await mesh.get(POLICE, case_id)).case.case_status == case_pb2.CASE_STATUS_DELIVERED
    finally:
        await mesh.stop()


async def test_whoever_looks_at_calendars_while_somebody_does_waits_for_what_comes_of_it(
    bed: Bed, tmp_path: Path
) -> None:
    calendars = tmp_path / "calendars"
    calendars.mkdir()
    files = CalendarFiles(calendars)
    for number in range(50):  # so that a look takes some time
        (calendars / f"{number}.yaml").write_text("no: calendar", encoding="utf-8")
    for look in asyncio.as_completed([files.poll(bed.cases) for _ in range(20)]):
        await look
        assert files.last_error is not None


async def test_a_calendar_that_cases_run_on_is_not_taken_away(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    folder, calendars = tmp_path / "procedures", tmp_path / "calendars"
    folder_of(folder, v1_0_0=DEMO.replace("calendar: CN", "calendar: CN-XM"))
    calendars.mkdir()
    own = calendars / "CN-XM.yaml"
    own.write_text(CALENDAR, encoding="utf-8")
    mesh.changes = {"procedures": folder, "calendars": calendars}
    try:
        node = await mesh.start()
        case_id = (await mesh.submit(procedure="DEMO", subject=firm())).case.case_id
        own.unlink()
        await node.calendar_files.poll(node.cases)
        assert node.calendar_files.last_error is not None
        assert node.calendar_files.last_error.reason is Reason.CALENDAR_UNKNOWN
        view = await mesh.get(REGISTRY, case_id)
        assert view.stages[0].clock.calendar.startswith("CN-XM@")
    finally:
        await mesh.stop()
