"""Several writers at once, each with a connection of its own as two replicas have: nothing is lost, nothing doubled.

Every writer's transaction runs in a thread of its own, and the database alone decides who comes first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.errors import HutongError, Reason
from services.recognition.casework import Act, Snapshot
from services.recognition.events import Kind, Pause, ResultCode
from services.recognition.tables import CASE, EXAMINATION, RECOGNITION, REMINDER, TASK
from tests.recognition.desk import Bed, Hand, build, fresh, prepare
from tests.recognition.test_cases import accepted

REPLICAS = 4
T = TypeVar("T")


class Replicas(list[Bed]):
    """Several nodes on one database, with one clock."""

    @property
    def clock(self) -> Hand:
        return self[0].clock


@pytest.fixture
async def replicas(any_url: str, tmp_path: Path) -> AsyncIterator[Replicas]:
    prepare(any_url, tmp_path)
    clock = Hand()
    beds = Replicas(build(any_url, tmp_path, clock) for _ in range(REPLICAS))
    yield beds
    for bed in beds:
        bed.database.close()


def company(number: int) -> str:
    """An enterprise's code; its check digit is not right, as that of many real ones is not."""
    return f"91350200M{number:09d}"


async def at_once(*calls: Awaitable[T]) -> tuple[list[T], list[HutongError]]:
    """Run calls at once; gives what came of those that were taken, and why the others were not."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    unexpected = [d for d in done if isinstance(d, BaseException) and not isinstance(d, HutongError)]
    assert unexpected == []
    return [d for d in done if not isinstance(d, BaseException)], [d for d in done if isinstance(d, HutongError)]


def reasons(errors: list[HutongError]) -> set[Reason]:
    return {error.reason for error in errors}


async def test_one_request_gives_one_case(replicas: Replicas) -> None:
    for _ in range(5):
        request = fresh()
        cases, errors = await at_once(*(bed.submit(request_id=request) for bed in replicas))
        assert errors == []
        assert len({case.case_id for case in cases}) == 1
    assert len(await replicas[0].rows(CASE)) == 5


async def test_one_event_sent_by_several_is_one_event(replicas: Replicas) -> None:
    case = await accepted(replicas[0])
    said: dict[str, Any] = {"id": fresh()}
    done, errors = await at_once(
        *(bed.act(case.case_id, Kind.START, "B", "publicsecurity", **said) for bed in replicas)
    )
    assert errors == []
    assert sorted(d.duplicate for d in done) == [False, True, True, True]
    assert {d.sequence for d in done} == {case.version + 1}


async def test_one_of_those_who_saw_the_same_version_wins(replicas: Replicas) -> None:
    case = await accepted(replicas[0])
    await replicas[0].act(case.case_id, Kind.START, "B", "publicsecurity")
    request: dict[str, Any] = {"reason": "MATERIAL_MISSING", "expected_version": case.version + 1}
    done, errors = await at_once(
        *(bed.act(case.case_id, Kind.SUPPLEMENT_REQUEST, "B", "publicsecurity", **request) for bed in replicas)
    )
    assert len(done) == 1
    assert reasons(errors) == {Reason.VERSION_CONFLICT}


async def test_of_two_examinations_in_the_same_moment_one_is_told_of_the_other(replicas: Replicas) -> None:
    for number in range(8):
        cases = [await accepted(bed, subject=company(number)) for bed in replicas]
        done, errors = await at_once(
            *(bed.act(case.case_id, Kind.START, "C", "taxation") for bed, case in zip(replicas, cases, strict=True))
        )
        assert len(done) == 1
        assert reasons(errors) == {Reason.EXAMINATION_OPEN}
        (opened,) = [r for r in await replicas[0].rows(EXAMINATION) if r["subject"] == company(number)]
        assert {error.metadata["case_id"] for error in errors} == {opened["case_id"]}
        # All who were told of it go on despite that, at once: each is told of nothing else.
        others = [(b, c) for b, c in zip(replicas, cases, strict=True) if c.case_id != opened["case_id"]]
        named: dict[str, Any] = {"despite": errors[0].metadata["despite"], "reason": "LEGAL_DUTY"}
        done, errors = await at_once(*(b.act(c.case_id, Kind.START, "C", "taxation", **named) for b, c in others))
        assert errors == []
        slots = [r["slot"] for r in await replicas[0].rows(EXAMINATION) if r["subject"] == company(number)]
        assert sorted(slots) == [0, 1, 2, 3]


async def test_an_examination_ends_while_another_one_begins(replicas: Replicas) -> None:
    """Whichever comes first, the second is told: of the examination, or of the result."""
    one, two = replicas[:2]
    for number in range(8):
        first, second = [await accepted(bed, subject=company(number)) for bed in (one, two)]
        await one.act(first.case_id, Kind.START, "C", "taxation")
        done, errors = await at_once(
            one.result(first.case_id, "C", "taxation"), two.act(second.case_id, Kind.START, "C", "taxation")
        )
        assert [d.event.kind for d in done] == [Kind.RESULT]
        assert reasons(errors) <= {Reason.EXAMINATION_OPEN, Reason.EXAMINATION_VALID}


async def test_nobody_recognises_what_is_being_revoked_unnoticed(replicas: Replicas) -> None:
    """A case begins while the result it would rest on is revoked: it does not rest on it, or it is told of it."""
    one, two = replicas[:2]
    for number in range(8):
        issued = await accepted(one, subject=company(number))
        await one.through(issued.case_id, ("B", "publicsecurity"))
        revoke = one.act(issued.case_id, Kind.REVOKE, "B", "publicsecurity", reason="FALSE_MATERIAL")
        submit = two.submit("EXPRESS", subject=company(number))
        (_, begun), errors = await at_once(revoke, submit)
        assert errors == []
        assert isinstance(begun, Snapshot)
        case = await one.cases.get(begun.case_id)
        rested = [r for r in await one.rows(RECOGNITION) if r["case_id"] == case.case_id]
        told = [t for t in await one.rows(TASK) if t["case_id"] == case.case_id and t["kind"] == "RESULT_REVOKED"]
        assert len(rested) == len(told)
        assert (case.state.stages["P"].status == "RECOGNISED") is bool(rested)


async def test_reminders_come_once_whoever_sends_them(replicas: Replicas) -> None:
    cases = [await accepted(bed, subject=company(n)) for n, bed in enumerate(replicas)]
    for _ in range(6):
        replicas.clock.move(days=2)
        _, errors = await at_once(*(bed.cases.tick() for bed in replicas))
        assert errors == []
    rows = [(r["case_id"], r["stage"], r["threshold"]) for r in await replicas[0].rows(REMINDER)]
    sent = [
        (case.case_id, e.stage, e.threshold)
        for case in cases
        for e in await replicas[0].cases.events(case.case_id)
        if e.kind is Kind.REMIND
    ]
    assert len(sent) == len(set(sent)) == 8 * len(cases)
    assert sorted(sent) == sorted(rows)
    assert len(await replicas[0].reminded()) == len(sent)


async def test_a_stage_is_deemed_passed_once(replicas: Replicas) -> None:
    cases = [await bed.submit(subject=company(n)) for n, bed in enumerate(replicas)]
    replicas.clock.move(days=9)
    _, errors = await at_once(*(bed.cases.tick() for bed in replicas))
    assert errors == []
    for case in cases:
        assert (await replicas[0].kinds(case.case_id)).count("DEEMED:A") == 1
    assert len(await replicas[0].rows(TASK)) == len(cases)


# Any interleaving is some serial order.

_ACTS: dict[str, list[dict[str, Any]]] = {
    "publicsecurity": [
        {"kind": Kind.START, "stage": "B"},
        {"kind": Kind.SUPPLEMENT_REQUEST, "stage": "B", "reason": "MATERIAL_MISSING"},
        {"kind": Kind.SUPPLEMENT_RECEIVED, "stage": "B"},
        {"kind": Kind.RESULT, "stage": "B", "result": ResultCode.PASS},
    ],
    "taxation": [
        {"kind": Kind.START, "stage": "C"},
        {"kind": Kind.SUSPEND, "stage": "C", "pause": Pause.INQUIRY, "reason": "THIRD_PARTY_NEEDED"},
        {"kind": Kind.RESUME, "stage": "C"},
        {"kind": Kind.RESULT, "stage": "C", "result": ResultCode.FAIL, "reason": "ARREARS"},
    ],
    "commerce": [
        {"kind": Kind.START, "stage": "A"},
        {"kind": Kind.RESULT, "stage": "A", "result": ResultCode.PASS},
        {"kind": Kind.WITHDRAW, "stage": "", "reason": "APPLICANT_WITHDREW"},
        {"kind": Kind.START, "stage": "D"},
    ],
}

scripts = st.fixed_dictionaries(
    {agency: st.lists(st.integers(0, len(acts) - 1), max_size=6) for agency, acts in _ACTS.items()}
)
"""What each agency tries, one after the other."""


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Replicas for many examples; each has a case of its own."""
    folder = tmp_path_factory.mktemp("shared")
    with ExitStack() as stack:
        url = f"sqlite:///{folder}/cases.db"
        if request.param == "postgres":
            url = stack.enter_context(request.getfixturevalue("postgres_server").fresh())
        prepare(url, folder)
        clock = Hand()
        beds = Replicas(build(url, folder, clock) for _ in _ACTS)
        yield beds
        for bed in beds:
            bed.database.close()


async def _try(bed: Bed, case: Snapshot, agency: str, said: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Append an act; gives the id of its event with what was said, None where it was refused."""
    if said["kind"] is Kind.RESULT and said["stage"] == "B":
        said = {**said, "credential": await bed.sign(case, case.procedure.stage("B"))}
    event_id = fresh()
    try:
        done = await bed.cases.append(case.case_id, Act(id=event_id, **said), agency=agency)
    except HutongError:
        return None
    assert not done.duplicate
    return event_id, said


async def _interleaved(beds: Replicas, script: dict[str, list[int]], subject: str) -> None:
    case = await beds[0].submit(subject=subject)

    async def agency_at_work(bed: Bed, agency: str) -> dict[str, tuple[str, dict[str, Any]]]:
        done = [await _try(bed, case, agency, _ACTS[agency][number]) for number in script[agency]]
        return {event_id: (agency, said) for event_id, said in filter(None, done)}

    work = [agency_at_work(bed, agency) for bed, agency in zip(beds, script, strict=True)]
    taken = {k: v for found in await asyncio.gather(*work) for k, v in found.items()}
    live = await beds[0].cases.get(case.case_id)
    assert [e.id for e in live.events if e.agency != "recognition"] == [e.id for e in live.events if e.id in taken]
    assert len([e for e in live.events if e.id in taken]) == len(taken)
    # The same, one after the other in the order it was recorded: all of it is taken again, and comes out alike.
    alone = await beds[0].submit(subject=subject[::-1].replace("M", "H"))
    for event in live.events:
        if event.id in taken:
            agency, said = taken[event.id]
            said = {k: v for k, v in said.items() if k != "credential"}
            assert await _try(beds[0], alone, agency, said), (event.kind, event.stage)
    serial = await beds[0].cases.get(alone.case_id)
    assert serial.head.status == live.head.status
    assert {c: s.status for c, s in serial.state.stages.items()} == {c: s.status for c, s in live.state.stages.items()}


_numbers = iter(range(10**6))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts)
def test_any_interleaving_is_some_serial_order(shared: Replicas, script: dict[str, list[int]]) -> None:
    full = {"publicsecurity": [0, 1, 2, 3], "taxation": [0, 1, 2], "commerce": [0, 1, *script["commerce"]]}
    for one in (script, {agency: full[agency] + script[agency] for agency in script}):
        number = next(_numbers)
        asyncio.run(_interleaved(shared, one, f"91350200M{number:08d}1"))
