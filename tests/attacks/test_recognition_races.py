"""Several at once on one case: whoever disposes, revokes, decides and withdraws in the same moment gains nothing by it.

Each has a connection of its own, as replicas have, and the database alone decides who comes first. Whatever the order
was, no revocation is lost on a decision, no task is disposed of twice, and nothing fails for no reason.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.kit.credentials import results as credentials
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.results import Statement
from services.kit.errors import HutongError, Reason
from services.recognition.case import fold
from services.recognition.casework import Snapshot
from services.recognition.events import Kind, ResultCode
from services.recognition.registry import Change
from services.recognition.results import Results
from services.recognition.stage_results import State
from services.recognition.stages import StageStatus
from services.recognition.tables import CASE
from services.recognition.tasks import Disposition
from tests.recognition.desk import START, ZONE, Bed, Hand, build, fresh, prepare
from tests.recognition.mesh import firm

ROUNDS = 6
POLICE = "publicsecurity"

EXPECTED = {
    Reason.RECOGNISED_RESULT_INVALID,
    Reason.STAGE_NOT_READY,
    Reason.EVENT_NOT_ALLOWED,
    Reason.EVENT_OUT_OF_ORDER,
    Reason.TASK_DISPOSED,
    Reason.CASE_CLOSED,
    Reason.RESULT_REVOKED,
    Reason.DISPOSITION_INVALID,
}


@dataclass
class Replica:
    """One node on the database."""

    bed: Bed
    results: Results


Replicas = list[Replica]


@pytest.fixture
async def replicas(any_url: str, tmp_path: Path) -> AsyncIterator[Replicas]:
    prepare(any_url, tmp_path)
    signing = SigningKeys.create(tmp_path / "own", f"spiffe://{ZONE}/recognition", START - dt.timedelta(days=1))
    signing.publish(tmp_path / "keys")
    clock = Hand()
    made: Replicas = []
    for _ in range(4):
        bed = build(any_url, tmp_path, clock)
        made.append(Replica(bed, Results(bed.database, bed.cases, signing, clock, lambda: None)))
    yield made
    for replica in made:
        replica.bed.database.close()


async def issue(replica: Replica, subject: str, issuer: str = POLICE, fact: str = "person_verified") -> str:
    ref = fresh()
    place = await replica.results.reserve(issuer, ref)
    now = replica.bed.clock()
    statement = Statement(
        ref=ref,
        issuer=issuer,
        scheme="cn.uscc",
        subject=subject,
        fact=fact,
        assurance="SUBSTANTIVE",
        issued_at=now,
        valid_from=now,
        valid_until=now + dt.timedelta(days=30),
        status_uri=place.uri,
        status_index=place.index,
    )
    signed = credentials.issue(statement, replica.bed.keys(issuer))
    return (await replica.results.register(issuer, signed)).result.result_ref


async def recognised(replicas: Replicas) -> tuple[str, str]:
    """Bring a case to its decision, resting on a result from outside; gives the result's reference and the case."""
    bed = replicas[0].bed
    subject = firm()
    ref = await issue(replicas[0], subject)
    case_id = (await bed.submit(subject=subject)).case_id
    await bed.through(case_id, ("A", "commerce"), ("C", "taxation"))
    assert (await bed.cases.get(case_id)).state.stages["B"].ref == ref
    await bed.act(case_id, Kind.START, "D", "commerce")
    return ref, case_id


async def at_once(*calls: Awaitable[Any]) -> list[HutongError]:
    """Run calls at once; gives why some were refused. Anything that is no refusal fails the test."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    errors = [d for d in done if isinstance(d, BaseException)]
    for error in errors:
        if not isinstance(error, HutongError):
            raise error
    refused = [e for e in errors if isinstance(e, HutongError)]
    assert {e.reason for e in refused} <= EXPECTED
    return refused


async def sound(bed: Bed, case_id: str) -> Snapshot:
    """See that the row of a case is what its events say, numbered without a gap; gives the case."""
    snapshot = await bed.cases.get(case_id)
    (row,) = [row for row in await bed.rows(CASE) if row["case_id"] == case_id]
    state = fold(snapshot.procedure, await bed.cases.events(case_id))
    assert (row["version"], row["status"], row["closed_at"]) == (state.version, state.status.value, state.closed_at)
    return snapshot


async def test_a_decision_in_the_moment_in_which_its_ground_is_revoked(replicas: Replicas) -> None:
    """Either it is refused, or its agency has a task: it never stands unnoticed."""
    one, two, *_ = replicas
    for _ in range(ROUNDS):
        ref, case_id = await recognised(replicas)
        await at_once(
            one.results.change(POLICE, ref, "ISSUED_IN_ERROR", Change.REVOKE),
            two.bed.result(case_id, "D", "commerce"),
        )
        snapshot = await sound(one.bed, case_id)
        assert (await one.results.get(ref)).state is State.REVOKED
        owners = {task.owner_agency for task in await all_tasks(one, case_id)}
        assert POLICE in owners
        if snapshot.state.stages["D"].status is StageStatus.PASSED:
            assert "commerce" in owners
        else:
            assert snapshot.state.stages["D"].status is StageStatus.OPEN


async def all_tasks(replica: Replica, case_id: str) -> list[Any]:
    found: list[Any] = []
    for owner in (POLICE, "commerce", "taxation"):
        found += await replica.results.tasks(owner, disposed=True, case_id=case_id, limit=100)
    return found


async def test_everything_at_once(replicas: Replicas) -> None:
    """The task is disposed of in two ways, the stage given back, the result revoked again, the case decided, closed."""
    one, two, three, four = replicas
    for _ in range(ROUNDS):
        ref, case_id = await recognised(replicas)
        await one.results.change(POLICE, ref, "ISSUED_IN_ERROR", Change.REVOKE)
        (task,) = await one.results.tasks(POLICE, case_id=case_id, limit=10)
        await at_once(
            one.results.dispose(POLICE, task.task_id, Disposition.REEXAMINED, reason="EXAMINED_ANEW"),
            two.results.dispose(POLICE, task.task_id, Disposition.UPHELD, reason="DECISION_STANDS"),
            three.results.change(POLICE, ref, "FACTS_CHANGED", Change.REVOKE),
            four.bed.result(case_id, "D", "commerce"),
            one.bed.act(case_id, Kind.REFUSE_RECOGNITION, "B", POLICE, reason="NOT_STANDING"),
            two.bed.act(case_id, Kind.WITHDRAW, "", "applicant", enterprise=True),
            three.bed.cases.tick(),
        )
        snapshot = await sound(one.bed, case_id)
        kinds = await one.bed.kinds(case_id)
        assert kinds.count("REFUSE_RECOGNITION:B") <= 1
        assert kinds.count("RESULT:D") <= 1
        (disposed,) = [t for t in await all_tasks(one, case_id) if t.task_id == task.task_id]
        if disposed.disposition is Disposition.REEXAMINED:
            assert "REFUSE_RECOGNITION:B" in kinds
        if "RESULT:D" in kinds:
            # Only on a ground that its recogniser upheld.
            assert disposed.disposition is Disposition.UPHELD
        assert snapshot.state.closed_at is not None


async def test_a_revocation_and_its_taking_back_at_once(replicas: Replicas) -> None:
    """Suspended, reinstated and revoked in one moment: revoked it is, and stays."""
    one, two, three, four = replicas
    for _ in range(ROUNDS):
        ref = await issue(one, firm())
        await at_once(
            one.results.change(POLICE, ref, "ISSUED_IN_ERROR", Change.SUSPEND),
            two.results.change(POLICE, ref, "", Change.REINSTATE),
            three.results.change(POLICE, ref, "ISSUED_IN_ERROR", Change.REVOKE),
            four.results.change(POLICE, ref, "", Change.REINSTATE),
        )
        assert (await one.results.get(ref)).state is State.REVOKED
        await at_once(two.results.change(POLICE, ref, "", Change.REINSTATE))
        assert (await one.results.get(ref)).state is State.REVOKED


async def test_one_reference_reserved_and_used_by_two_agencies_at_once(replicas: Replicas) -> None:
    one, two, *_ = replicas
    for _ in range(ROUNDS):
        ref = fresh()
        done = await asyncio.gather(
            one.results.reserve(POLICE, ref), two.results.reserve("customs", ref), return_exceptions=True
        )
        refused = [d for d in done if isinstance(d, HutongError)]
        assert [e.reason for e in refused] == [Reason.RESULT_ID_REUSED]


async def test_withdrawn_by_its_applicant_while_it_is_decided(replicas: Replicas) -> None:
    """It ends one way or the other, not both."""
    one, two, three, _ = replicas
    for _ in range(ROUNDS):
        _, case_id = await recognised(replicas)
        await at_once(
            one.bed.act(case_id, Kind.WITHDRAW, "", "applicant", enterprise=True),
            two.bed.result(case_id, "D", "commerce", ResultCode.FAIL, reason="CONDITIONS_NOT_MET"),
            three.bed.act(case_id, Kind.WITHDRAW, "", "commerce", reason="APPLICANT_WITHDREW"),
        )
        snapshot = await sound(one.bed, case_id)
        kinds = await one.bed.kinds(case_id)
        assert kinds.count("WITHDRAW") + kinds.count("RESULT:D") == 1
        assert snapshot.state.closed_at is not None
