"""How far a revocation reaches: everybody it should, nobody else, once, whatever the shape."""

import datetime as dt
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.events import outbox, retention
from services.recognition import cascade, locks, recognising, registry
from services.recognition.events import Assurance
from services.recognition.recognising import Match
from services.recognition.tables import RECOGNITION, RESTS_ON, RESULT, TASK
from services.recognition.tasks import TaskKind
from tests.recognition.register import Register, register

AGENCIES = ("commerce", "customs", "taxation", "quality")


@pytest.fixture
def held(any_url: str, tmp_path: Path) -> Iterator[Register]:
    with register(any_url, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Register]:
    """One register for many examples; each wipes it."""
    folder = tmp_path_factory.mktemp("cascade")
    with register(f"sqlite+aiosqlite:///{folder / 'store.db'}", folder) as made:
        yield made


# By hand.


def test_who_was_told_of_a_result_is_told_of_its_end_when_the_outbox_no_longer_says_so(held: Register) -> None:
    ref, more = (held.enter(recognisers=["customs", "taxation"], subject=subject) for subject in ("A", "B"))
    with held.made.begin() as connection:
        for agency in ("customs", "taxation"):
            retention.heard(connection, f"{agency}/node", outbox.last(connection), held.now)
        while retention.remove(connection, held.now + dt.timedelta(seconds=1), leaving=registry.leaving):
            pass
        assert outbox.audiences(connection, "issued") == set()
    for each in (ref, more):
        held.post.clear()
        held.change(each)
        assert {new.audience for new in held.post if new.kind == "result.revoked"} == {"customs", "taxation"}
        assert {new.payload["result_ref"] for new in held.post} == {each}


def test_a_revocation_reaches_through_what_was_decided_on_it(held: Register) -> None:
    person = held.enter(case_id="CASE-1", stage="E2")
    held.recognise(person, "CASE-9", "P", "customs")
    registered = held.enter("commerce", "registered", case_id="CASE-1", stage="E4", rests_on=[person])
    held.recognise(registered, "CASE-7", "V0", "taxation")
    held.recognise(registered, "CASE-8", "F1", "quality")
    refund = held.enter("taxation", "refund_approved", case_id="CASE-7", stage="V6", rests_on=[registered, person])
    unrelated = held.enter("customs", "customs_code", case_id="CASE-1", stage="E5c")
    held.recognise(unrelated, "CASE-7", "V0", "taxation")
    held.post.clear()

    found = held.change(person).tasks
    assert {(t.owner_agency, t.case_id, t.stage, t.result_ref) for t in found} == {
        ("customs", "CASE-9", "P", person),
        ("commerce", "CASE-1", "E4", registered),
        ("taxation", "CASE-7", "V0", registered),
        ("quality", "CASE-8", "F1", registered),
        ("taxation", "CASE-7", "V6", refund),
    }
    assert {(t.kind, t.origin_ref, t.reason) for t in found} == {(TaskKind.RESULT_REVOKED, person, "ISSUED_IN_ERROR")}
    kinds = [(e.kind, e.audience) for e in held.post]
    assert sorted(kinds) == sorted(
        [("result.revoked", a) for a in ("commerce", "customs", "quality", "taxation")]
        + [("task.raised", t.owner_agency) for t in found]
    )
    # Nothing is undone by itself.
    assert [held.standing(ref).ok for ref in (registered, refund, unrelated)] == [True, True, True]
    # Done again, nothing comes of it.
    held.post.clear()
    assert held.change(person).tasks == ()
    assert held.post == []


def test_what_lies_behind_a_revoked_result_is_reached_but_its_issuer_is_not_asked(held: Register) -> None:
    base = held.enter()
    built = held.enter("commerce", "registered", case_id="CASE-1", stage="E4", rests_on=[base])
    held.recognise(built, "CASE-2", "V0", "taxation")
    held.change(built, issuer="commerce")
    found = held.change(base).tasks
    assert [(t.owner_agency, t.origin_ref) for t in found] == [("taxation", base)]


def test_results_outside_cases_have_a_task_each(held: Register) -> None:
    base = held.enter()
    built = [held.enter("commerce", fact, rests_on=[base]) for fact in ("registered", "name_reserved")]
    found = held.change(base).tasks
    assert sorted(t.result_ref for t in found) == sorted(built)


def test_it_ends_in_a_circle(held: Register) -> None:
    one, other = held.enter(stage="A"), held.enter("commerce", "registered", stage="B")
    with held.write() as (connection, _):
        edges = [{"result_ref": one, "rests_on": other}, {"result_ref": other, "rests_on": one}]
        connection.execute(sa.insert(RESTS_ON), [*edges, {"result_ref": one, "rests_on": one}])
    assert [t.result_ref for t in held.change(one).tasks] == [other]


def test_each_revocation_has_tasks_of_its_own(held: Register) -> None:
    one, other = held.enter(stage="A"), held.enter(fact="tax_ok", issuer="taxation", stage="B")
    built = held.enter("commerce", "registered", case_id="CASE-1", stage="E4", rests_on=[one, other])
    first = held.change(one).tasks
    second = held.change(other, issuer="taxation").tasks
    assert [(t.result_ref, t.origin_ref) for t in (*first, *second)] == [(built, one), (built, other)]


def test_a_wide_one_is_reached_whole(held: Register) -> None:
    base = held.enter()
    rows = [
        {
            "case_id": f"CASE-{n}",
            "stage": "Q",
            "result_ref": base,
            "recogniser": AGENCIES[n % 4],
            "arrangement": "TEST@1.0.0",
            "recognised_at": held.now,
            "refused_at": None,
            "refused_reason": "",
        }
        for n in range(3000)
    ]
    with held.write() as (connection, _):
        connection.execute(sa.insert(RECOGNITION), rows)
    assert len(held.change(base).tasks) == 3000
    revoked = [e for e in held.post if e.kind == "result.revoked"]
    assert sorted(e.audience for e in revoked) == sorted(AGENCIES)


# Of any shape.


@dataclass(frozen=True)
class Web:
    """Results that rest on each other, and who recognised them."""

    issuers: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    """Case and stage of each result."""
    edges: frozenset[tuple[int, int]]
    """The first rests on the second."""
    recognitions: frozenset[tuple[int, str, str, str, bool]]
    """Result, case, stage, recogniser, refused since."""
    revoked: frozenset[int]


@st.composite
def webs(draw: st.DrawFn) -> Web:
    size = draw(st.integers(1, 9))
    node = st.integers(0, size - 1)
    agency, case, stage = st.sampled_from(AGENCIES), st.sampled_from(["C1", "C2", ""]), st.sampled_from(["S1", "S2"])
    places = draw(st.lists(st.tuples(case, stage), min_size=size, max_size=size))
    by = draw(st.frozensets(st.tuples(node, st.sampled_from(["C1", "C2", "C3"]), stage, agency, st.booleans())))
    # One row for a stage and a result, as the table has it.
    unique = {(r, c, s): (r, c, s, a, refused) for r, c, s, a, refused in sorted(by)}
    return Web(
        tuple(draw(st.lists(agency, min_size=size, max_size=size))),
        tuple((c, s if c else "") for c, s in places),
        draw(st.frozensets(st.tuples(node, node), max_size=16)),
        frozenset(unique.values()),
        draw(st.frozensets(node)),
    )


def expected(web: Web, origin: int) -> set[tuple[str, ...]]:
    """Say whom it must reach, by Warshall's closure over the whole web."""
    size = range(len(web.issuers))
    reach = {(b, a) for a, b in web.edges}
    for k, i, j in itertools.product(size, size, size):
        if (i, k) in reach and (k, j) in reach:
            reach.add((i, j))
    reached = {origin} | {n for n in size if (origin, n) in reach}
    places: set[tuple[str, ...]] = set()
    for n, case, stage, agency, refused in web.recognitions:
        if n in reached and not refused:
            places.add((agency, case, stage))
    for n in reached - {origin} - web.revoked:
        case, stage = web.places[n]
        places.add((web.issuers[n], case, stage) if case else (web.issuers[n], "", "", f"result-{n}"))
    return places


def spin(held: Register, web: Web) -> None:
    """Put a web into the tables."""
    empty: dict[str, Any] = dict.fromkeys((c.name for c in RESULT.c), "")
    results = [
        empty
        | {
            "result_ref": f"result-{n}",
            "issuer": web.issuers[n],
            "case_id": web.places[n][0],
            "stage": web.places[n][1],
            "state": "REVOKED" if n in web.revoked else "VALID",
            "issued_at": held.now,
            "valid_from": held.now,
            "valid_until": None,
            "state_changed_at": held.now,
        }
        for n in range(len(web.issuers))
    ]
    with held.write() as (connection, _):
        for table in (RESULT, RESTS_ON, RECOGNITION, TASK):
            connection.execute(sa.delete(table))
        connection.execute(sa.insert(RESULT), results)
        for a, b in web.edges:
            connection.execute(sa.insert(RESTS_ON).values(result_ref=f"result-{a}", rests_on=f"result-{b}"))
        for n, case, stage, agency, refused in web.recognitions:
            row = {
                "case_id": case,
                "stage": stage,
                "result_ref": f"result-{n}",
                "recogniser": agency,
                "arrangement": "",
                "recognised_at": held.now,
                "refused_at": held.now if refused else None,
                "refused_reason": "",
            }
            connection.execute(sa.insert(RECOGNITION).values(**row))


@given(web=webs(), data=st.data())
@settings(max_examples=150)
def test_it_reaches_what_is_connected_and_nothing_else(shared: Register, web: Web, data: st.DataObject) -> None:
    origin = data.draw(st.integers(0, len(web.issuers) - 1))
    spin(shared, web)
    with shared.write() as (connection, _):
        found = cascade.affected(connection, f"result-{origin}")
    places = [item.place for item in found]
    assert len(places) == len(set(places))
    assert set(places) == expected(web, origin)


# At the same moment.


@pytest.mark.parametrize("number", range(6))
def test_whoever_recognises_while_it_is_revoked_is_told_or_does_not(held: Register, number: int) -> None:
    ref = held.enter()
    together = threading.Barrier(5)

    def recognise(which: int) -> bool:
        together.wait()
        with held.made.begin() as connection:
            locks.building(connection)
            standing = registry.standing(connection, held.published, [ref], held.now)[ref]
            if not standing.ok:
                return False
            match = Match(ref, "publicsecurity", "TEST@1.0.0", Assurance.SUBSTANTIVE, None)
            recognising.note(
                connection, case_id=f"CASE-{which}", stage="Q", match=match, recogniser="customs", now=held.now
            )
            return True

    def revoke() -> int:
        together.wait()
        return len(held.change(ref).tasks)

    with ThreadPoolExecutor(5) as pool:
        recognised = [pool.submit(recognise, n) for n in range(4)]
        tasks = pool.submit(revoke)
        assert sum(f.result() for f in recognised) == tasks.result()


def test_two_revocations_that_meet_raise_what_each_alone_would(held: Register) -> None:
    one, other = held.enter(stage="A"), held.enter(stage="B", fact="tax_ok", issuer="taxation")
    for n in range(20):
        held.enter("commerce", "registered", case_id=f"CASE-{n}", stage="E4", rests_on=[one, other])
    together = threading.Barrier(2)

    def revoke(ref: str, issuer: str) -> int:
        together.wait()
        return len(held.change(ref, issuer=issuer).tasks)

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(revoke, one, "publicsecurity"), pool.submit(revoke, other, "taxation")]
        assert [f.result() for f in found] == [20, 20]
