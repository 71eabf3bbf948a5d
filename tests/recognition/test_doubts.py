"""What is shown to be doubtful, until whoever it concerns has disposed of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.kit.errors import HutongError, Reason
from services.recognition import messages
from services.recognition.events import Kind
from services.recognition.registry import Change
from services.recognition.tasks import Disposition, Task
from tests.recognition.test_results import Office, office_on

THROUGH = (("A", "commerce"), ("C", "taxation"), ("D", "commerce"))


@pytest.fixture
async def office(any_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with office_on(any_url, tmp_path) as made:
        yield made


async def doubtful(office: Office, case_id: str) -> set[str]:
    """The stages of a case that are shown to be doubtful."""
    snapshot = await office.bed.cases.get(case_id)
    return {code for code, of in snapshot.procedure.stages.items() if messages.stage(snapshot, of).doubtful}


async def task(office: Office, owner: str, stage: str) -> Task:
    (found,) = [t for t in await office.tasks(owner) if t.stage == stage]
    return found


async def disposed(office: Office, owner: str, stage: str, how: Disposition) -> None:
    reasons = {
        Disposition.UPHELD: "DECISION_STANDS",
        Disposition.REEXAMINED: "EXAMINED_ANEW",
        Disposition.NOT_AFFECTED: "NOT_CONCERNED",
        Disposition.TAKEN_BACK: "DECISION_TAKEN_BACK",
    }
    office.bed.clock.move(minutes=1)
    found = await task(office, owner, stage)
    await office.results.dispose(owner, found.task_id, how, reason=reasons[how], officer="o-1")


async def built(office: Office) -> tuple[str, str]:
    """A case whose identity was recognised, and what was decided on it; gives its id and the result recognised."""
    ref = await office.register()
    case = await office.bed.submit()
    await office.bed.through(case.case_id, *THROUGH)
    assert await office.stage(case.case_id, "B") == "RECOGNISED"
    office.bed.clock.move(hours=1)
    return case.case_id, ref


async def test_what_was_looked_at_and_upheld_is_doubtful_no_more(office: Office) -> None:
    case_id, ref = await built(office)
    assert await doubtful(office, case_id) == set()
    await office.revoke(ref)
    # The delivery is ready, and rests on both; C knows nothing of an identity.
    assert await doubtful(office, case_id) == {"B", "D", "E"}
    await disposed(office, "publicsecurity", "B", Disposition.UPHELD)
    assert await doubtful(office, case_id) == {"D"}
    await disposed(office, "commerce", "D", Disposition.UPHELD)
    assert await doubtful(office, case_id) == set()


async def test_each_task_is_about_its_own_stage(office: Office) -> None:
    case_id, ref = await built(office)
    await office.revoke(ref)
    await disposed(office, "commerce", "D", Disposition.NOT_AFFECTED)
    assert await doubtful(office, case_id) == {"B", "E"}


async def test_what_is_upheld_is_doubtful_again_once_something_else_falls(office: Office) -> None:
    case_id, ref = await built(office)
    await office.revoke(ref, change=Change.SUSPEND)
    office.bed.clock.move(minutes=1)
    await office.revoke(ref)
    await disposed(office, "publicsecurity", "B", Disposition.UPHELD)
    await disposed(office, "commerce", "D", Disposition.UPHELD)
    await office.bed.act(case_id, Kind.REVOKE, "C", "taxation", reason="ISSUED_IN_ERROR")
    assert await doubtful(office, case_id) == {"C", "D", "E"}
    await disposed(office, "commerce", "D", Disposition.UPHELD)
    # Its own agency has taken it back: that nobody upholds but by another result. What comes behind waits for that.
    assert await doubtful(office, case_id) == {"C", "E"}


async def test_what_is_examined_anew_is_doubtful_until_it_ends(office: Office) -> None:
    case_id, ref = await built(office)
    await office.revoke(ref)
    await disposed(office, "publicsecurity", "B", Disposition.REEXAMINED)
    await disposed(office, "commerce", "D", Disposition.UPHELD)
    # The decision is upheld; whoever delivers has not been asked, and waits for what comes of it.
    assert await doubtful(office, case_id) == {"E"}
    await office.bed.through(case_id, ("B", "publicsecurity"))
    assert await doubtful(office, case_id) == set()


async def test_what_was_examined_anew_after_the_end_is_doubtful_no_more(office: Office) -> None:
    case_id, ref = await built(office)
    await office.bed.through(case_id, ("E", "commerce"))
    await office.revoke(ref)
    assert await doubtful(office, case_id) == {"B", "D", "E"}
    await disposed(office, "publicsecurity", "B", Disposition.REEXAMINED)
    await disposed(office, "commerce", "D", Disposition.REEXAMINED)
    assert await doubtful(office, case_id) == set()


async def test_what_was_taken_back_stays_doubtful(office: Office) -> None:
    case_id, ref = await built(office)
    await office.revoke(ref)
    await office.bed.act(case_id, Kind.REVOKE, "D", "commerce", reason="RESTS_ON_REVOKED")
    await disposed(office, "commerce", "D", Disposition.TAKEN_BACK)
    await disposed(office, "publicsecurity", "B", Disposition.UPHELD)
    assert await doubtful(office, case_id) == {"D", "E"}


async def test_whoever_is_about_to_decide_may_uphold_too(office: Office) -> None:
    """A result of the case itself: nobody recognised it, so that the next to decide on it is asked."""
    case = await office.bed.submit()
    await office.bed.through(case.case_id, ("A", "commerce"), ("B", "publicsecurity"), ("C", "taxation"))
    await office.bed.act(case.case_id, Kind.START, "D", "commerce")
    await office.bed.act(case.case_id, Kind.REVOKE, "B", "publicsecurity", reason="ISSUED_IN_ERROR")
    with pytest.raises(HutongError) as caught:
        await office.bed.result(case.case_id, "D", "commerce")
    assert caught.value.reason is Reason.RECOGNISED_RESULT_INVALID
    assert await doubtful(office, case.case_id) == {"B", "D"}
    await disposed(office, "commerce", "D", Disposition.UPHELD)
    assert await doubtful(office, case.case_id) == {"B"}
    await office.bed.result(case.case_id, "D", "commerce")
    await office.bed.through(case.case_id, ("E", "commerce"))
    assert await doubtful(office, case.case_id) == {"B"}
