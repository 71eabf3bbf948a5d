"""Cases from their events: compared with a second interpreter, replayed, and step by step."""

from typing import Any

from hypothesis import given, settings

from services.recognition.case import CaseState
from services.recognition.events import Event
from services.recognition.procedure import Procedure
from tests.recognition import worlds
from tests.recognition.brute import LEFT_OUT, Brute

World = tuple[Procedure, list[Event]]


def picture(state: CaseState) -> dict[str, Any]:
    """What the brute-force interpreter says too."""
    return {
        "version": state.version,
        "status": state.status,
        "closed_at": state.closed_at,
        "reached": dict(state.reached),
        "held_by": list(state.held_by),
        "standing": [(s.start, s.end) for s in state.suspensions],
        "stopped": sorted((s.start, s.end) for s in state.stopped),
        "stages": {code: _stage(state, code) for code in state.stages},
    }


def _stage(state: CaseState, code: str) -> dict[str, Any]:
    found = state.stages[code]
    said: dict[str, Any] = {
        "status": found.status,
        "doubtful": found.doubtful,
        "revoked": found.revoked,
        "refused": list(found.refused_refs),
        "supplements": found.supplements,
        "late_opinion": found.late_opinion,
    }
    if found.status not in LEFT_OUT:
        said |= {
            "ready_at": found.ready_at,
            "started_at": found.started_at,
            "passed_at": found.passed_at,
            "suspensions": [((s.start, s.end), pause) for s, pause in found.suspensions],
            "extended": found.extended,
            "ended_at": found.ended_at,
            "ref": found.ref,
            "source": found.source_agency,
        }
    return said


@given(worlds.worlds())
@settings(max_examples=400)
def test_the_brute_force_interpreter_agrees_after_every_event(world: World) -> None:
    found, events = world
    brute = Brute(found, events)
    state = CaseState.begin(found, events[0])
    assert picture(state) == brute.picture(1)
    for number, event in enumerate(events[1:], 2):
        state.apply(event)
        assert picture(state) == brute.picture(number), event
