"""What was revoked is examined again: by an event that everybody sees, with a clock of its own."""

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.kit.errors import HutongError, Reason
from services.recognition.agencies import Agencies
from services.recognition.events import Kind, ResultCode
from services.recognition.reminding import due_now
from services.recognition.tables import RESULT, TASK
from services.recognition.tasks import Disposition
from tests.recognition.brute import Brute
from tests.recognition.desk import Bed
from tests.recognition.test_results import Office, office_on
from tests.recognition.worlds import CALENDARS, Story, days, procedure, stage

CHAIN = procedure(
    stage("A", limit=days(3), fact="a"), stage("B", "A", limit=days(3), fact="b"), stage("C", "B", limit=days(3))
)


def told() -> Story:
    """A and B are passed, C waits for its agency; then A's result is revoked."""
    return Story(CHAIN).end("A", 1).end("B", 2).say(Kind.REVOKE, "A", 30, reason="WHY")


def doubtful(story: Story) -> list[str]:
    return [code for code, found in story.state.stages.items() if found.doubtful]


def test_a_stage_is_started_anew_with_a_new_clock() -> None:
    story = told()
    assert story.statuses() == {"A": "PASSED", "B": "PASSED", "C": "READY"}
    story.start("A", 48)
    found = story.state.stages["A"]
    begun = story.events[0].at + dt.timedelta(hours=48)
    assert (found.status, found.started_at, found.opened_at, found.ref) == ("OPEN", begun, begun, "")
    assert (found.rounds, found.revoked, found.doubtful) == (1, False, False)
    # What was decided on it stays, and is doubtful; what nobody has begun behind that stays as it is.
    assert story.statuses() == {"A": "OPEN", "B": "PASSED", "C": "READY"}
    assert doubtful(story) == ["B", "C"]
    story.say(Kind.RESULT, "A", 50, result=ResultCode.PASS, ref="ref-again")
    assert doubtful(story) == []
    assert story.state.stages["A"].ref == "ref-again"
    brute = Brute(CHAIN, story.events)
    assert [brute.status(code, len(story.events)) for code in "ABC"] == ["PASSED", "PASSED", "READY"]


def test_what_stands_is_not_started_anew() -> None:
    story = Story(CHAIN).end("A", 1)
    with pytest.raises(HutongError) as caught:
        story.start("A", 2)
    assert caught.value.reason is Reason.EVENT_NOT_ALLOWED


def test_what_rests_on_a_stage_that_is_open_again_waits_for_it() -> None:
    story = told().say(Kind.REVOKE, "B", 31, reason="WHY").start("A", 48)
    with pytest.raises(HutongError) as caught:
        story.start("B", 49)
    assert caught.value.reason is Reason.STAGE_NOT_READY
    story.say(Kind.RESULT, "A", 60, result=ResultCode.PASS, ref="ref-again")
    with pytest.raises(HutongError) as caught:
        story.start("B", 55)  # before what it rests on was there
    assert caught.value.reason is Reason.EVENT_OUT_OF_ORDER
    story.start("B", 61)
    assert story.state.stages["B"].started_at == story.events[0].at + dt.timedelta(hours=61)
    assert story.statuses()["C"] == "WAITING"


def test_its_new_clock_reminds_anew() -> None:
    story = told().start("A", 48)
    later = story.events[0].at + dt.timedelta(days=30)
    thresholds = [r.threshold for r in due_now(story.state, CALENDARS, Agencies.load(), later) if r.stage == "A"]
    assert thresholds == ["yellow.2", "red.2"]


# In the store.


@pytest.fixture
async def office(any_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with office_on(any_url, tmp_path) as made:
        yield made


async def decided(bed: Bed) -> str:
    """A case that was decided, and not delivered yet."""
    case = await bed.submit()
    await bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"), ("D", "commerce"))
    return case.case_id


async def why_not(bed: Bed, case_id: str, stage: str, agency: str, credential: str) -> Reason:
    """Try to pass a stage, and be refused."""
    with pytest.raises(HutongError) as caught:
        await bed.result(case_id, stage, agency, credential=credential)
    return caught.value.reason


async def test_the_legal_representative_changes_in_the_middle_of_a_case(any_bed: Bed) -> None:
    """What was found about the old one ends with that; nothing is decided until the new one is examined."""
    bed = any_bed
    case = await bed.submit()
    await bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"))
    of = case.procedure.stage("B")
    (row,) = [r for r in await bed.rows(RESULT) if r["fact"] == "person_verified"]
    await bed.act(case.case_id, Kind.START, "D", "commerce")
    reason = "LEGAL_REPRESENTATIVE_CHANGED"
    await bed.act(case.case_id, Kind.REVOKE, "B", "publicsecurity", reason=reason)
    signed = await bed.sign(case, case.procedure.stage("D"))
    assert await why_not(bed, case.case_id, "D", "commerce", signed) is Reason.RECOGNISED_RESULT_INVALID
    # Nor does it count for anybody else.
    assert (await bed.submit("EXPRESS")).state.stages["P"].status == "READY"
    bed.clock.move(hours=1)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    assert await why_not(bed, case.case_id, "B", "publicsecurity", row["credential"]) is Reason.RESULT_REVOKED
    new = await bed.sign(case, of, value={"legal_representative": "the new one"})
    await bed.result(case.case_id, "B", "publicsecurity", credential=new)
    await bed.result(case.case_id, "D", "commerce", credential=signed)
    seen = (await bed.cases.get(case.case_id)).state
    assert not any(stage.doubtful for stage in seen.stages.values())


async def test_a_decision_taken_back_is_examined_again(office: Office) -> None:
    """The task of who decided on something revoked: it takes its decision back, and says that it examines anew."""
    bed = office.bed
    case_id = await decided(bed)
    await bed.act(case_id, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL")
    (task,) = await office.tasks("commerce")
    assert (task.stage, task.result_ref) == ("D", (await bed.cases.get(case_id)).state.stages["D"].ref)
    await bed.act(case_id, Kind.REVOKE, "D", "commerce", reason="RESTS_ON_REVOKED")
    bed.clock.move(minutes=5)
    done = await office.results.dispose(
        "commerce", task.task_id, Disposition.REEXAMINED, reason="EXAMINED_ANEW", officer="o-1"
    )
    assert done.disposition is Disposition.REEXAMINED
    event = (await bed.cases.events(case_id))[-1]
    assert (event.kind, event.stage, event.agency, event.officer) == (Kind.START, "D", "commerce", "o-1")
    assert (await bed.cases.get(case_id)).state.stages["D"].status == "OPEN"
    assert await bed.ready(case_id) == []  # the delivery waits again
    # It is decided on what stands, and on nothing else.
    signed = await bed.sign(await bed.cases.get(case_id), (await bed.cases.get(case_id)).procedure.stage("D"))
    assert await why_not(bed, case_id, "D", "commerce", signed) is Reason.RECOGNISED_RESULT_INVALID
    await bed.through(case_id, ("B", "publicsecurity"))
    await bed.result(case_id, "D", "commerce", credential=signed)
    await bed.through(case_id, ("E", "commerce"))
    assert (await bed.cases.get(case_id)).head.status == "DELIVERED"


async def test_a_decision_that_stands_is_not_opened_by_its_task(office: Office) -> None:
    """Examined anew, and found to be right: that is kept with the task, and the case stays as it is."""
    bed = office.bed
    case_id = await decided(bed)
    await bed.act(case_id, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL")
    before = await bed.kinds(case_id)
    (task,) = await office.tasks("commerce")
    await office.results.dispose(
        "commerce", task.task_id, Disposition.REEXAMINED, reason="EXAMINED_ANEW", officer="o-1"
    )
    assert await bed.kinds(case_id) == before
    (row,) = [r for r in await bed.rows(TASK) if r["task_id"] == task.task_id]
    assert row["disposition"] == "REEXAMINED"
