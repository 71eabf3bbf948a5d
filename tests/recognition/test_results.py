"""Results and tasks over real cases: registered, revoked, looked up offline, and what their cases make of it."""

import datetime as dt
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.kit.credentials import results, status
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import PublishedKeys
from services.kit.credentials.results import Statement
from services.kit.errors import HutongError, Reason
from services.recognition.events import Kind
from services.recognition.registry import Change
from services.recognition.results import Results
from services.recognition.stage_results import State
from services.recognition.stages import StageStatus
from services.recognition.tasks import Disposition, Task, TaskKind
from tests.recognition.desk import START, SUBJECT, ZONE, Bed, desk, fresh


@dataclass
class Office:
    """Cases, and the register beside them."""

    bed: Bed
    results: Results
    folder: Path
    rung: list[int] = field(default_factory=list[int])

    async def sign(self, issuer: str = "publicsecurity", fact: str = "person_verified", **said: Any) -> str:
        ref = said.setdefault("ref", fresh())
        place = await self.results.reserve(issuer, ref)
        whole: dict[str, Any] = {
            "issuer": issuer,
            "scheme": "cn.uscc",
            "subject": SUBJECT,
            "fact": fact,
            "assurance": "SUBSTANTIVE",
            "issued_at": self.bed.clock(),
            "valid_from": self.bed.clock(),
            "status_uri": place.uri,
            "status_index": place.index,
        }
        return results.issue(Statement(**whole | said), self.bed.keys(issuer))

    async def register(self, issuer: str = "publicsecurity", fact: str = "person_verified", **said: Any) -> str:
        entered = await self.results.register(issuer, await self.sign(issuer, fact, **said))
        return entered.result.result_ref

    async def revoke(self, ref: str, issuer: str = "publicsecurity", change: Change = Change.REVOKE) -> int:
        return len((await self.results.change(issuer, ref, "ISSUED_IN_ERROR", change)).tasks)

    async def stage(self, case_id: str, code: str) -> StageStatus:
        return (await self.bed.cases.get(case_id)).state.stages[code].status

    async def tasks(self, owner: str, **said: Any) -> list[Task]:
        return await self.results.tasks(owner, limit=100, **said)


@asynccontextmanager
async def office_on(url: str, folder: Path, **more: Any) -> AsyncGenerator[Office]:
    """Cases with the register beside them, on an empty database."""
    signing = SigningKeys.create(folder / "own", f"spiffe://{ZONE}/recognition", START - dt.timedelta(days=1))
    async with desk(url, folder, **more) as bed:
        signing.publish(folder / "keys")
        rung: list[int] = []
        made = Results(bed.database, bed.cases, signing, bed.clock, lambda: rung.append(1))
        yield Office(bed, made, folder, rung)


@pytest.fixture
async def office(any_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    async with office_on(any_url, tmp_path) as made:
        yield made


def refused(reason: Reason) -> "pytest.RaisesExc[HutongError]":
    return pytest.raises(HutongError, check=lambda error: error.reason is reason)


# Registering and looking up.


async def test_registered_outside_a_case_it_is_there_for_everybody_it_is_for(office: Office) -> None:
    ref = await office.register()
    found = await office.results.get(ref)
    assert (found.issuer, found.case_id, found.state) == ("publicsecurity", "", State.VALID)
    assert [r.result_ref for r in await office.results.of_subject("cn.uscc", SUBJECT, limit=10)] == [ref]
    told = {row["audience"] for row in await office.bed.outbox("result.issued")}
    assert {"commerce", "customs", "taxation"} <= told
    assert office.rung == [1]
    await office.results.register("publicsecurity", found.credential)
    assert office.rung == [1]


async def test_what_cannot_be_registered(office: Office) -> None:
    with refused(Reason.RESULT_ISSUER):
        await office.results.register("customs", await office.sign())
    text = await office.sign(case_id="CASE-1")
    with refused(Reason.RESULT_SUBJECT):
        await office.results.register("publicsecurity", text)
    with refused(Reason.RESULT_DISCLOSURE):
        await office.results.register("publicsecurity", results.present(text, []))
    with refused(Reason.SUBJECT_SCHEME_UNKNOWN):
        await office.results.register("publicsecurity", await office.sign(scheme="cn.passport"))
    with refused(Reason.RESULT_MALFORMED):
        await office.results.register("publicsecurity", "not a credential")
    with refused(Reason.RESULT_NOT_FOUND):
        await office.results.get(fresh())


async def test_results_are_listed_page_by_page(office: Office) -> None:
    refs: list[str] = []
    for number in range(5):
        office.bed.clock.move(minutes=1)
        refs.append(await office.register(stage=f"S{number}"))
    first = await office.results.of_subject("cn.uscc", SUBJECT, limit=3)
    last = first[-1]
    rest = await office.results.of_subject("cn.uscc", SUBJECT, limit=3, after=(last.issued_at, last.result_ref))
    assert [r.result_ref for r in (*first, *rest)] == refs[::-1]


async def test_the_status_list_tells_offline_what_became_of_it(office: Office) -> None:
    ref, other = await office.register(), await office.register(fact="seal_registered")
    text = (await office.results.get(ref)).credential
    published = PublishedKeys.of(*(office.results.keys(a).encode() for a in ("publicsecurity", "recognition")))

    async def looked_up() -> status.StatusList:
        token = await office.results.status_list("urn:hutong:status:publicsecurity:1")
        return status.verify(token, published, at=office.bed.clock(), issuer="recognition")

    now = office.bed.clock()
    assert results.verify(text, published, at=now, status=await looked_up()).ref == ref
    assert len(await looked_up()) == 2**16
    for change, reason in ((Change.SUSPEND, Reason.RESULT_SUSPENDED), (Change.REVOKE, Reason.RESULT_REVOKED)):
        await office.revoke(ref, change=change)
        with refused(reason):
            results.verify(text, published, at=now, status=await looked_up())
    kept = (await office.results.get(other)).credential
    assert results.verify(kept, published, at=now, status=await looked_up()).ref == other


@pytest.mark.parametrize("uri", ["", "urn:hutong:status:customs:1", "urn:hutong:status:publicsecurity:2", "x" * 5000])
async def test_there_is_no_other_list(office: Office, uri: str) -> None:
    await office.register()
    with refused(Reason.STATUS_LIST_INVALID):
        await office.results.status_list(uri)


async def test_keys_of_a_stranger_are_not_there(office: Office) -> None:
    with refused(Reason.KEY_UNKNOWN):
        office.results.keys("nobody")


# Cases.


async def test_a_case_that_waits_takes_what_is_registered_meanwhile(office: Office) -> None:
    case = await office.bed.submit("EXPRESS")
    assert await office.stage(case.case_id, "P") == StageStatus.READY
    ref = await office.register()
    found = (await office.bed.cases.get(case.case_id)).state.stages["P"]
    assert (found.status, found.ref, found.source_agency) == (StageStatus.RECOGNISED, ref, "publicsecurity")
    assert found.arrangement == "PERSON-VERIFIED@1.0.0"


async def recognised(office: Office) -> tuple[str, str]:
    """Begin a case whose first stage a result takes the place of."""
    ref = await office.register()
    case = await office.bed.submit("EXPRESS")
    assert await office.stage(case.case_id, "P") == StageStatus.RECOGNISED
    return case.case_id, ref


async def test_revoked_between_recognition_and_decision(office: Office) -> None:
    case_id, ref = await recognised(office)
    await office.bed.act(case_id, Kind.START, "Q", "taxation")
    office.bed.clock.move(hours=1)
    assert await office.revoke(ref) == 1
    assert await office.revoke(ref) == 1  # the same one, told again
    assert await office.stage(case_id, "P") == StageStatus.RECOGNISED  # nothing is undone
    with refused(Reason.RECOGNISED_RESULT_INVALID):
        await office.bed.result(case_id, "Q", "taxation")
    (task,) = await office.tasks("publicsecurity")
    assert (task.kind, task.case_id, task.stage, task.result_ref) == (TaskKind.RESULT_REVOKED, case_id, "P", ref)
    assert await office.tasks("taxation") == []

    done = await office.results.dispose(
        "publicsecurity", task.task_id, Disposition.UPHELD, reason="DECISION_STANDS", officer="o-1"
    )
    assert done.disposed_at == office.bed.clock()
    await office.bed.result(case_id, "Q", "taxation")
    assert (await office.bed.cases.get(case_id)).state.closed_at is not None


async def test_examined_anew_the_stage_is_the_agencys_own_again(office: Office) -> None:
    case_id, ref = await recognised(office)
    await office.revoke(ref)
    (task,) = await office.tasks("publicsecurity")
    for _ in range(2):
        await office.results.dispose(
            "publicsecurity", task.task_id, Disposition.REEXAMINED, reason="EXAMINED_ANEW", officer="o-1"
        )
    assert await office.stage(case_id, "P") == StageStatus.READY
    kinds = await office.bed.kinds(case_id)
    assert kinds.count("REFUSE_RECOGNITION:P") == 1
    (lead,) = await office.tasks("taxation")
    assert (lead.kind, lead.reason) == (TaskKind.RECOGNITION_REFUSED, "NOT_STANDING")
    await office.bed.through(case_id, ("P", "publicsecurity"), ("Q", "taxation"))
    assert (await office.bed.cases.get(case_id)).state.closed_at is not None


async def test_what_has_ended_by_the_time_of_decision_raises_a_task(office: Office) -> None:
    await office.register(valid_until=START + dt.timedelta(days=2))
    case = await office.bed.submit("EXPRESS")
    await office.bed.act(case.case_id, Kind.START, "Q", "taxation")
    office.bed.clock.move(days=2)
    for _ in range(2):
        with refused(Reason.RECOGNISED_RESULT_INVALID):
            await office.bed.result(case.case_id, "Q", "taxation")
    (task,) = await office.tasks("publicsecurity")
    assert task.reason == Reason.RESULT_EXPIRED


async def test_examined_anew_after_its_end_a_case_stays_as_it_is(office: Office) -> None:
    """That somebody has looked again is kept with the task; there is no stage to give back."""
    case_id, ref = await recognised(office)
    await office.bed.through(case_id, ("Q", "taxation"))
    assert await office.revoke(ref) == 1
    before = await office.bed.kinds(case_id)
    (task,) = await office.tasks("publicsecurity")
    done = await office.results.dispose(
        "publicsecurity", task.task_id, Disposition.REEXAMINED, reason="EXAMINED_ANEW", officer="o-1"
    )
    assert done.disposition is Disposition.REEXAMINED
    assert await office.tasks("publicsecurity") == []
    assert await office.bed.kinds(case_id) == before
    assert await office.stage(case_id, "P") == StageStatus.RECOGNISED


async def test_revoking_a_result_of_a_case_is_an_event_of_the_case(office: Office) -> None:
    case = await office.bed.submit("EXPRESS")
    await office.bed.through(case.case_id, ("P", "publicsecurity"))
    ref = (await office.bed.cases.get(case.case_id)).state.stages["P"].ref
    other = await office.bed.submit("EXPRESS")
    assert await office.stage(other.case_id, "P") == StageStatus.RECOGNISED
    assert await office.revoke(ref) == 1
    assert (await office.bed.kinds(case.case_id))[-1] == "REVOKE:P"
    assert (await office.results.get(ref)).state is State.REVOKED
    assert await office.revoke(ref) == 1
    assert (await office.bed.kinds(case.case_id)).count("REVOKE:P") == 1
    told = {row["audience"] for row in await office.bed.outbox("task.raised")}
    assert told == {"publicsecurity"}


async def test_only_its_issuer_revokes_it(office: Office) -> None:
    ref = await office.register()
    with refused(Reason.RESULT_NOT_FOUND):
        await office.revoke(ref, "customs")
    with refused(Reason.RESULT_NOT_FOUND):
        await office.revoke(fresh())


async def test_tasks_are_their_owners(office: Office) -> None:
    _, ref = await recognised(office)
    await office.revoke(ref)
    (task,) = await office.tasks("publicsecurity")
    with refused(Reason.TASK_NOT_FOUND):
        await office.results.dispose("taxation", task.task_id, Disposition.UPHELD, reason="DECISION_STANDS")
