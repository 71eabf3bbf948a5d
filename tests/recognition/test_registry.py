"""The register of stage results: reserved, entered, superseded, revoked, suspended, standing."""

import datetime as dt
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from services.kit.credentials import results
from services.kit.errors import HutongError, Reason
from services.recognition import registry, stage_results, status_lists
from services.recognition.registry import Change
from services.recognition.stage_results import State
from services.recognition.tables import RESTS_ON, RESULT, STATUS
from tests.recognition.desk import SUBJECT
from tests.recognition.register import Register, fresh, register


@pytest.fixture
def held(any_url: str, tmp_path: Path) -> Iterator[Register]:
    with register(any_url, tmp_path) as made:
        yield made


@pytest.fixture
def lite(sqlite_url: str, tmp_path: Path) -> Iterator[Register]:
    with register(sqlite_url, tmp_path) as made:
        yield made


def refused(reason: Reason) -> "pytest.RaisesExc[HutongError]":
    return pytest.raises(HutongError, check=lambda error: error.reason is reason)


def state(held: Register, ref: str) -> State:
    with held.write() as (connection, _):
        return stage_results.get(connection, ref).state


def status(held: Register, ref: str) -> int:
    with held.write() as (connection, _):
        return int(connection.execute(sa.select(STATUS.c.value).where(STATUS.c.result_ref == ref)).scalar_one())


# Reserving.


def test_an_entry_is_reserved_once(held: Register) -> None:
    ref = fresh()
    with held.write() as (connection, _):
        first = status_lists.reserve(connection, "customs", ref, held.now)
        assert status_lists.reserve(connection, "customs", ref, held.now) == first
        assert first.uri == "urn:hutong:status:customs:1"
        assert 0 <= first.index < status_lists.SIZE
        with refused(Reason.RESULT_ID_REUSED):
            status_lists.reserve(connection, "taxation", ref, held.now)


@pytest.mark.parametrize("ref", ["", "short", "with space in it", "x" * 129, "~starts-badly", "line\nbreak-in-it"])
def test_a_reference_has_a_form(lite: Register, ref: str) -> None:
    with lite.write() as (connection, _), refused(Reason.RESULT_MALFORMED):
        status_lists.reserve(connection, "customs", ref, lite.now)


def test_places_are_at_random_and_a_crowded_list_is_followed_by_the_next(lite: Register) -> None:
    with lite.write() as (connection, _):
        rows = [
            {"issuer": "customs", "list": 1, "index": index, "result_ref": f"taken-{index}", "value": 0}
            | {"reserved_at": lite.now, "entered_at": lite.now}
            for index in range(status_lists.SIZE)
        ]
        connection.execute(sa.insert(STATUS), rows)
        places = [status_lists.reserve(connection, "customs", fresh(), lite.now) for _ in range(40)]
    assert {place.uri for place in places} == {"urn:hutong:status:customs:2"}
    indexes = [place.index for place in places]
    assert len(set(indexes)) == 40
    assert indexes not in (sorted(indexes), sorted(indexes, reverse=True))


def test_whoever_reserves_at_once_gets_a_place_each(held: Register) -> None:
    same, together = fresh(), threading.Barrier(8)

    def reserve(number: int) -> tuple[str, int]:
        together.wait()
        with held.made.begin() as connection:
            own = status_lists.reserve(connection, "customs", fresh(), held.now)
            shared = status_lists.reserve(connection, "customs", same, held.now)
        return f"{own.uri}:{own.index}", shared.index

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(reserve, range(8)))
    assert len({own for own, _ in found}) == 8
    assert len({shared for _, shared in found}) == 1


def test_nobody_reserves_without_end(held: Register) -> None:
    """Places that nothing is ever entered for are lost: there is an end to them, until old ones are past hope."""
    statement, text = held.sign("customs", "customs_code")
    rows = [
        {"issuer": "customs", "list": 2, "index": index, "result_ref": f"waiting-{index}", "value": 0}
        | {"reserved_at": held.now + dt.timedelta(minutes=index), "entered_at": None}
        for index in range(status_lists.OPEN - 1)
    ]
    with held.write() as (connection, _):
        connection.execute(sa.insert(STATUS), rows)

    def reserve(issuer: str = "customs", ref: str = "") -> None:
        with held.write() as (connection, _):
            status_lists.reserve(connection, issuer, ref or fresh(), held.now)

    with refused(Reason.RESERVATIONS_TOO_MANY):
        reserve()
    reserve(ref="waiting-0")  # what it has, it is given again
    reserve("taxation")
    held.put(statement, text)
    reserve()
    with refused(Reason.RESERVATIONS_TOO_MANY):
        reserve()
    held.now += dt.timedelta(days=7, minutes=1)
    reserve()


# Entering.


def test_a_result_is_entered_and_its_recognisers_are_told(held: Register) -> None:
    ref = held.enter(case_id="CASE-1", stage="E2", recognisers=["customs", "commerce", "publicsecurity"])
    with held.write() as (connection, _):
        found = stage_results.get(connection, ref)
        listed = stage_results.of_subject(connection, "cn.uscc", SUBJECT, fact="person_verified")
    assert found == listed[0]
    assert (found.issuer, found.case_id, found.stage, found.state) == ("publicsecurity", "CASE-1", "E2", State.VALID)
    assert found.key_id
    assert [(e.audience, e.kind, e.key) for e in held.post] == [
        ("commerce", "result.issued", "CASE-1"),
        ("customs", "result.issued", "CASE-1"),
    ]
    assert SUBJECT not in str(held.post)


def test_entered_again_it_changes_nothing(held: Register) -> None:
    statement, text = held.sign(value={"level": 1})
    assert held.put(statement, text, recognisers=["customs"]).fresh
    again = held.put(statement, results.present(text, []), recognisers=["customs"])
    assert not again.fresh
    assert again.result.credential == text
    assert len(held.post) == 1


def test_what_was_taken_back_is_not_handed_in_again(lite: Register) -> None:
    statement, text = lite.sign()
    lite.put(statement, text)
    lite.change(statement.ref, Change.SUSPEND)
    with refused(Reason.RESULT_SUSPENDED):
        lite.put(statement, text)
    lite.change(statement.ref)
    with refused(Reason.RESULT_REVOKED):
        lite.put(statement, text)
    assert state(lite, statement.ref) is State.REVOKED


def test_a_reference_stands_for_one_result(lite: Register) -> None:
    statement, text = lite.sign()
    other, changed = lite.sign(ref=statement.ref, fact="tax_ok")
    lite.put(statement, text)
    with refused(Reason.RESULT_ID_REUSED):
        lite.put(other, changed)
    with refused(Reason.RESULT_ID_REUSED):
        lite.put(statement, text, case_id="CASE-2", stage="")
    third, otherwise = lite.sign(ref=statement.ref, value={"level": 2})
    with refused(Reason.RESULT_ID_REUSED):
        lite.put(third, otherwise)


def test_a_result_names_its_own_place_only(lite: Register) -> None:
    statement, text = lite.sign(case_id="CASE-1", stage="E2")
    with refused(Reason.RESULT_SUBJECT):
        lite.put(statement, text, case_id="CASE-2", stage="E2")
    with refused(Reason.RESULT_SUBJECT):
        lite.put(statement, text, case_id="CASE-1", stage="E3")


def test_a_result_withholds_nothing_from_the_register(lite: Register) -> None:
    hidden: list[dict[str, Any]] = [{"value": {"level": 1}}, {"case_id": "CASE-1"}]
    for said in hidden:
        statement, text = lite.sign(**said)
        shown = results.present(text, [])
        part = results.verify(shown, lite.published, at=lite.now)
        with refused(Reason.RESULT_DISCLOSURE):
            lite.put(part, shown, case_id=statement.case_id)


@pytest.mark.parametrize(
    "changed",
    [{"status_uri": "", "status_index": 0}, {"status_index": 70_000}, {"status_uri": "urn:hutong:status:customs:1"}],
)
def test_a_result_names_the_entry_that_was_reserved_for_it(lite: Register, changed: dict[str, Any]) -> None:
    statement, text = lite.sign(**changed)
    with refused(Reason.STATUS_LIST_INVALID):
        lite.put(statement, text)


def test_an_assurance_nobody_knows_is_refused(lite: Register) -> None:
    statement, text = lite.sign(assurance="GUESSED")
    with refused(Reason.RESULT_MALFORMED):
        lite.put(statement, text)


def test_a_newer_one_takes_the_place_of_an_older_one(held: Register) -> None:
    old = held.enter()
    others = [held.enter("bank"), held.enter(fact="tax_ok"), held.enter(stage="E9"), held.enter(value={"about": "D-1"})]
    held.recognise(old, "CASE-1", "Q", "customs")
    held.move(days=1)
    statement, text = held.sign()
    entered = held.put(statement, text)
    assert entered.superseded == (old,)
    assert state(held, old) is State.SUPERSEDED
    assert status(held, old) == 3
    assert {state(held, ref) for ref in others} == {State.VALID}
    assert [(e.audience, e.kind) for e in held.post] == [("customs", "result.superseded")]


def test_what_is_about_different_things_stands_side_by_side(lite: Register) -> None:
    one = lite.enter("customs", "decl_cleared", value={"about": "D-1"})
    other = lite.enter("customs", "decl_cleared", value={"about": "D-2"})
    assert (state(lite, one), state(lite, other)) == (State.VALID, State.VALID)
    newer = lite.enter("customs", "decl_cleared", value={"about": "D-1"})
    assert (state(lite, one), state(lite, other), state(lite, newer)) == (State.SUPERSEDED, State.VALID, State.VALID)


def test_an_older_one_that_comes_late_takes_no_place(lite: Register) -> None:
    new = lite.enter()
    late = lite.enter(issued_at=lite.now - dt.timedelta(days=3))
    assert (state(lite, new), state(lite, late)) == (State.VALID, State.SUPERSEDED)
    assert status(lite, late) == 3


def test_whoever_enters_at_once_leaves_one_standing(held: Register) -> None:
    signed = [held.sign() for _ in range(6)]
    together = threading.Barrier(6)

    def enter(number: int) -> None:
        statement, text = signed[number]
        together.wait()
        with held.made.begin() as connection:
            registry.enter(connection, statement, text, case_id="", stage="", now=held.now, post=[])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(enter, range(6)))
    states = [state(held, statement.ref) for statement, _ in signed]
    assert sorted(states) == [State.SUPERSEDED] * 5 + [State.VALID]


# Revoking.


def test_a_revoked_result_stays_revoked(held: Register) -> None:
    ref = held.enter()
    assert held.change(ref).changed
    assert (state(held, ref), status(held, ref)) == (State.REVOKED, 1)
    again = held.change(ref, reason="FACTS_CHANGED")
    assert not again.changed
    assert again.result.state_reason == "ISSUED_IN_ERROR"
    for change in (Change.SUSPEND, Change.REINSTATE):
        with refused(Reason.RESULT_REVOKED):
            held.change(ref, change)


def test_a_suspended_result_may_stand_again(held: Register) -> None:
    ref = held.enter()
    held.recognise(ref, "CASE-1", "Q", "customs")
    assert held.change(ref, Change.SUSPEND).tasks == ()
    assert (state(held, ref), status(held, ref)) == (State.SUSPENDED, 2)
    assert held.standing(ref).reason is Reason.RESULT_SUSPENDED
    assert not held.change(ref, Change.SUSPEND).changed
    assert held.change(ref, Change.REINSTATE, reason="").changed
    assert (state(held, ref), status(held, ref)) == (State.VALID, 0)
    assert not held.change(ref, Change.REINSTATE).changed
    assert held.standing(ref).ok
    assert [(e.audience, e.kind) for e in held.post] == [
        ("customs", "result.suspended"),
        ("customs", "result.reinstated"),
    ]


def test_who_was_told_of_a_result_is_told_what_becomes_of_it(held: Register) -> None:
    """Also who has not recognised it yet: what lies in its inbox must not stand there for ever."""
    old = held.enter(recognisers=["bank", "customs"])
    held.enter(recognisers=["quality"], stage="B")  # somebody else's
    for change, reason in (
        (Change.SUSPEND, "ISSUED_IN_ERROR"),
        (Change.REINSTATE, ""),
        (Change.REVOKE, "FACTS_CHANGED"),
    ):
        held.post.clear()
        held.change(old, change, reason=reason)
        assert {e.audience for e in held.post} == {"bank", "customs"}, change
    newer = held.enter(recognisers=["bank"])
    held.post.clear()
    held.enter()
    assert [(e.audience, e.kind, e.payload["result_ref"]) for e in held.post] == [("bank", "result.superseded", newer)]


def test_a_suspended_result_that_was_replaced_meanwhile_does_not_stand_again(lite: Register) -> None:
    ref = lite.enter()
    lite.change(ref, Change.SUSPEND)
    lite.enter()
    assert lite.change(ref, Change.REINSTATE).result.state is State.SUPERSEDED
    with refused(Reason.RESULT_SUPERSEDED):
        lite.change(ref, Change.SUSPEND)
    assert lite.change(ref).result.state is State.REVOKED


def test_only_its_issuer_revokes_and_with_a_reason(lite: Register) -> None:
    ref = lite.enter()
    for wrong in (fresh(), ref):
        with refused(Reason.RESULT_NOT_FOUND):
            lite.change(wrong, issuer="customs")
    with refused(Reason.REASON_MISSING):
        lite.change(ref, reason="")
    with refused(Reason.REASON_UNKNOWN):
        lite.change(ref, reason="BECAUSE")
    assert state(lite, ref) is State.VALID


# Standing.


def test_what_stands(lite: Register) -> None:
    good = lite.enter(stage="A")
    ended = lite.enter(stage="B", valid_until=lite.now + dt.timedelta(days=1))
    later = lite.enter(stage="C", valid_from=lite.now + dt.timedelta(days=2))
    denied = lite.enter(stage="D", value={"holds": False})
    absent = fresh()
    lite.move(days=1)
    found = lite.standings([good, ended, later, denied, absent])
    assert {ref: s.reason for ref, s in found.items()} == {
        good: None,
        ended: Reason.RESULT_EXPIRED,
        later: Reason.RESULT_NOT_YET_VALID,
        denied: Reason.RESULT_FACT,
        absent: Reason.RESULT_NOT_FOUND,
    }
    assert [ref for ref, s in found.items() if s.ok] == [good]
    assert lite.standings([]) == {}


def test_what_was_signed_with_a_revoked_key_does_not_stand(lite: Register) -> None:
    old = lite.enter()
    keys = lite.keys("publicsecurity")
    kid = keys.active(lite.now).kid
    lite.move(hours=1)
    keys.rotate(lite.now)
    keys.publish(lite.folder / "keys")
    assert lite.standing(old).ok
    keys.revoke(kid, lite.now, "compromised")
    keys.publish(lite.folder / "keys")
    assert lite.standing(old).reason is Reason.KEY_REVOKED


def test_a_replaced_one_stands_with_its_successor_that_says_the_same(lite: Register) -> None:
    old = lite.enter(value={"person": "p-1", "level": 2})
    lite.move(days=1)
    new = lite.enter(value={"person": "p-1"})
    assert lite.standing(old).ok
    lite.change(new)
    assert lite.standing(old).reason is Reason.RESULT_SUPERSEDED


@pytest.mark.parametrize(
    "said", [{"value": {"person": "p-2"}}, {"value": {"person": "p-1", "holds": False}}, {"assurance": "AUTO"}]
)
def test_a_replaced_one_does_not_stand_where_its_successor_says_less_or_else(
    lite: Register, said: dict[str, Any]
) -> None:
    old = lite.enter(value={"person": "p-1", "holds": True})
    lite.move(days=1)
    newer: dict[str, Any] = {"value": {"person": "p-1", "holds": True}}
    lite.enter(**newer | said)
    assert lite.standing(old).reason is Reason.RESULT_SUPERSEDED


def test_edges_are_kept_once(lite: Register) -> None:
    one, other = lite.enter(), lite.enter(fact="tax_ok")
    built = lite.enter("commerce", "registered", rests_on=[one, other, one])
    with lite.write() as (connection, _):
        rows = connection.execute(sa.select(RESTS_ON.c.rests_on).where(RESTS_ON.c.result_ref == built)).scalars()
        assert sorted(rows) == sorted([one, other])
        assert connection.execute(sa.select(sa.func.count()).select_from(RESULT)).scalar() == 3
