"""What a node keeps of what it is told, and what it does not believe."""

import asyncio
import logging
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.authorizations import registry as module
from services.kit.authorizations.registry import Registry
from services.kit.errors import Reason, Unavailable
from tests.authorizations.bed import NOW, SECOND, SILENCE, Steady, authorization, scope, told

ACTIVE = pb.AUTHORIZATION_STATE_ACTIVE


@pytest.fixture(name="known")
def a_registry() -> Registry:
    return Registry(SILENCE, Steady())


def state(known: Registry, name: str) -> int | None:
    standing = known.find(name)
    return None if standing is None else standing.state


def test_nothing_was_heard_yet(known: Registry) -> None:
    assert known.silent_for == float("inf")
    with pytest.raises(Unavailable):
        known.require_heard(NOW)
    assert known.judged(NOW) == NOW


def test_a_snapshot_begins_anew(known: Registry) -> None:
    known.apply(told(authorization(scope(), name="a"), authorization(scope(), name="b"), snapshot=True))
    known.apply(told(authorization(scope(), pb.AUTHORIZATION_STATE_REVOKED, "a")))
    known.apply(told(authorization(scope(), name="c"), snapshot=True))
    # What is not in it is not in force, whatever it was before; and why it ended is remembered where it was told.
    assert state(known, "a") == pb.AUTHORIZATION_STATE_REVOKED
    assert state(known, "b") == pb.AUTHORIZATION_STATE_UNSPECIFIED
    assert state(known, "c") == ACTIVE
    known.apply(told(authorization(scope(), name="b"), snapshot=True))
    assert state(known, "b") == ACTIVE


async def test_a_snapshot_in_parts_counts_when_the_last_has_come(known: Registry) -> None:
    """In between everything stands as it did: nobody is refused because the list is long."""
    known.apply(told(*(authorization(scope(), name=name) for name in "abc"), snapshot=True))
    waiting = asyncio.ensure_future(known.change(3600))
    await asyncio.sleep(0)
    known.apply(told(authorization(scope(), name="d"), snapshot=True, more=True))
    known.apply(told(authorization(scope(), name="a"), more=True))
    assert [state(known, name) for name in "abcd"] == [ACTIVE, ACTIVE, ACTIVE, None]
    await asyncio.sleep(0)
    assert not waiting.done()
    known.apply(told(authorization(scope(), name="b")))
    assert [state(known, name) for name in "abcd"] == [ACTIVE, ACTIVE, pb.AUTHORIZATION_STATE_UNSPECIFIED, ACTIVE]
    await waiting
    # It is over: what comes now are changes.
    known.apply(told(authorization(scope(), pb.AUTHORIZATION_STATE_REVOKED, "a")))
    assert (state(known, "a"), state(known, "b")) == (pb.AUTHORIZATION_STATE_REVOKED, ACTIVE)


def test_a_snapshot_that_breaks_off_is_worth_nothing() -> None:
    steady = Steady()
    known = Registry(SILENCE, steady)
    known.apply(told(authorization(scope(), name="a"), snapshot=True))
    steady.seconds += SILENCE.total_seconds()
    known.apply(told(authorization(scope(), name="b"), snapshot=True, more=True))
    # Nor is a part of it a word that would let what was known stand any longer.
    assert known.silent_for == SILENCE.total_seconds()
    known.apply(told(authorization(scope(), name="c"), snapshot=True))
    assert [state(known, name) for name in "abc"] == [pb.AUTHORIZATION_STATE_UNSPECIFIED, None, ACTIVE]
    assert known.silent_for == 0


def test_parts_without_end_are_not_believed(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    monkeypatch.setattr(module, "_ENDED", 1)
    known.apply(told(authorization(scope(), name="a"), snapshot=True, more=True))
    known.apply(told(authorization(scope(), name="b"), more=True))
    with pytest.raises(Unavailable):
        known.apply(told(authorization(scope(), name="c"), more=True))
    # That stream is over; the next one may be believed.
    known.apply(told(authorization(scope(), name="c"), snapshot=True))
    assert [state(known, name) for name in "abc"] == [None, None, ACTIVE]


def test_heartbeats_change_nothing(known: Registry) -> None:
    known.apply(told(authorization(scope()), snapshot=True))
    known.apply(told(as_of=NOW + SECOND))
    assert state(known, "a-1") == ACTIVE


@pytest.mark.parametrize(
    "broken",
    [
        pb.Authorization(authorization_id="a-1"),
        pb.Authorization(authorization_id="a-1", state=ACTIVE),
        pb.Authorization(authorization_id="a-1", scope=scope(), scope_digest=bytes(32), state=ACTIVE),
        authorization(scope(types=[pb.ScopedType(record_type="x.Y"), pb.ScopedType(record_type="x.Y")])),
        authorization(scope(subjects=[{"scheme": "no.such", "value": "1"}])),
    ],
)
def test_what_cannot_be_read_opens_nothing(known: Registry, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    known.apply(told(authorization(scope()), snapshot=True))
    with caplog.at_level(logging.ERROR):
        known.apply(told(broken))
    assert known.find("a-1") is None
    assert "cannot be read" in caplog.text


def test_what_tells_no_moment_is_not_believed(known: Registry) -> None:
    silent = pb.FollowAuthorizationsResponse(snapshot=True)
    wild = pb.FollowAuthorizationsResponse(snapshot=True)
    wild.as_of.seconds = 2**60
    for response in (silent, wild):
        with pytest.raises(Unavailable) as refused:
            known.apply(response)
        assert refused.value.reason is Reason.AUTHORIZATION_STATE_UNKNOWN
    assert known.silent_for == float("inf")


def test_the_latest_moment_counts(known: Registry) -> None:
    known.apply(told(as_of=NOW + SECOND, snapshot=True))
    known.apply(told(as_of=NOW))
    assert known.judged(NOW) == NOW + SECOND


def test_ended_ones_are_forgotten_in_the_end(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDED", 2)
    ended = [authorization(scope(), pb.AUTHORIZATION_STATE_REVOKED, name) for name in "abc"]
    known.apply(told(*ended, snapshot=True))
    assert known.find("a") is None
    assert {state(known, name) for name in "bc"} == {pb.AUTHORIZATION_STATE_REVOKED}


def test_more_than_anyone_has_are_none(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 1)
    monkeypatch.setattr(module, "_ENDED", 1)
    with pytest.raises(Unavailable):
        known.apply(told(*(authorization(scope(), name=name) for name in "abc"), snapshot=True))
    assert [known.find(name) for name in "abc"] == [None] * 3


async def test_whoever_waits_hears_of_a_change_at_once(known: Registry) -> None:
    known.apply(told(authorization(scope()), snapshot=True))
    waiting = [asyncio.ensure_future(known.change(3600)) for _ in range(3)]
    await asyncio.sleep(0)
    known.apply(told())
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    known.apply(told(authorization(scope(), pb.AUTHORIZATION_STATE_REVOKED)))
    await asyncio.gather(*waiting)


async def test_a_look_out_that_is_called_off_as_something_changes_ends(known: Registry) -> None:
    """Otherwise a question would wait for ever for the look-out that it has just called off."""

    async def look_out() -> None:
        while True:
            await known.change(3600)

    known.apply(told(authorization(scope()), snapshot=True))
    for steps in range(4):
        looking = asyncio.ensure_future(look_out())
        await asyncio.sleep(0)
        known.apply(told(authorization(scope(), pb.AUTHORIZATION_STATE_EXHAUSTED)))
        for _ in range(steps):
            await asyncio.sleep(0)
        looking.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert looking.cancelled(), steps
