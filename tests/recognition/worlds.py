"""Small worlds to try cases in: procedures made by hand or at random, and histories that the rules allow.

`procedure` and `stage` make a procedure without a file. `Story` tells a case step by step, each step checked by the
rules. `procedures` and `histories` are strategies for hypothesis; `worlds` draws both.
"""

import datetime as dt
import random
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Any, Final

from hypothesis import strategies as st

from services.kit.errors import HutongError
from services.recognition import rules
from services.recognition.calendars import Calendars
from services.recognition.case import CaseState
from services.recognition.events import WHOLE_CASE, Assurance, Event, Kind, Pause, ResultCode, Submission
from services.recognition.procedure import (
    DeemedRule,
    Escalation,
    Extension,
    Fact,
    Lights,
    OnFail,
    Overdue,
    Procedure,
    Question,
    Stage,
)
from services.recognition.statutory import Limit, Unit

CALENDARS: Final = Calendars.load()
T0: Final = dt.datetime(2026, 3, 2, 1, 0, tzinfo=dt.UTC)
"""A Monday, nine in the morning in Beijing."""
HOUR: Final = dt.timedelta(hours=1)
DAY: Final = dt.timedelta(days=1)
LATER: Final = T0 + dt.timedelta(days=3650)
"""A present moment for which nothing is in the future."""

AGENCIES: Final = ("commerce", "taxation", "customs")
SERVICE: Final = rules.SERVICE
APPLICANT: Final = "applicant"


def days(amount: int) -> Limit:
    return Limit(amount, Unit.WORKING_DAY)


def hours(amount: int) -> Limit:
    return Limit(amount, Unit.HOUR)


def stage(code: str, after: str = "", agency: str = "commerce", **said: Any) -> Stage:
    """A stage; `after` names those it waits for, with spaces between. `fact` says what it proves."""
    if fact := said.pop("fact", ""):
        said["proves"] = Fact(fact, Assurance.SUBSTANTIVE)
    if said.get("supplement"):
        said["pauses"] = {Pause.SUPPLEMENT: None, **said.get("pauses", {})}
    return Stage(code, code, code, agency, tuple(after.split()), **said)


def procedure(*stages: Stage, **said: Any) -> Procedure:
    """A procedure of these stages, which nobody has checked."""
    fields: dict[str, Any] = {
        "code": "TRY",
        "version": "1.0.0",
        "title": "Trial",
        "local_title": "试",
        "lead": "commerce",
        "calendar": "CN",
        "roll": True,
        "subject_schemes": ("cn.uscc",),
        "questions": {},
        "stages": MappingProxyType({s.code: s for s in stages}),
        "agencies": {},
        "deemed": DeemedRule.ALLOWED,
        "matters": (),
        "lights": Lights(),
        "escalation": (),
        "case_limit": None,
        "effective_from": dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
        "text": "",
        "digest": "",
    }
    return Procedure(**(fields | said))


def submit(procedure: Procedure, at: dt.datetime = T0, **said: Any) -> Event:
    """The application that begins a case."""
    answers = tuple(sorted(said.pop("answers", {}).items()))
    said = {"scheme": procedure.subject_schemes[0], "subject": "91310115MA1K4XYZ1A", "answers": answers} | said
    submission = Submission(procedure.label, **said)
    return Event("e1", Kind.SUBMIT, WHOLE_CASE, SERVICE, at, at, submission=submission)


class Story:
    """A case, told step by step. Moments are aware, or hours after the application."""

    def __init__(self, procedure: Procedure, at: dt.datetime = T0, **said: Any) -> None:
        self.procedure = procedure
        self.events: list[Event] = [submit(procedure, at, **said)]
        self.state = CaseState.begin(procedure, self.events[0])
        self.now = at

    def event(self, kind: Kind, stage: str = WHOLE_CASE, at: dt.datetime | float | None = None, **said: Any) -> Event:
        """Word an event; who says it is who may, unless told otherwise."""
        if at is None:
            at = self.now
        elif not isinstance(at, dt.datetime):
            at = self.events[0].at + at * HOUR
        if "agency" not in said:
            said["agency"] = self._agency(kind, stage)
        return Event(f"e{len(self.events) + 1}", kind, stage, at=at, recorded_at=at, **said)

    def _agency(self, kind: Kind, stage: str) -> str:
        if kind in {Kind.RECOGNISE, Kind.DEEMED, Kind.REMIND, Kind.RECOMPUTE}:
            return SERVICE
        if stage == WHOLE_CASE:
            return self.procedure.lead
        if kind is Kind.REVOKE and self.state.stages[stage].source_agency:
            return self.state.stages[stage].source_agency
        return self.procedure.stages[stage].agency

    def say(self, kind: Kind, stage: str = WHOLE_CASE, at: dt.datetime | float | None = None, **said: Any) -> "Story":
        """Add an event that the rules allow."""
        event = self.event(kind, stage, at, **said)
        self.now = max(self.now, event.at)
        rules.check(
            self.state,
            event,
            now=self.now,
            caller_agency=event.agency,
            enterprise=event.agency == APPLICANT,
        )
        self.events.append(event)
        self.state.apply(event)
        return self

    def start(self, stage: str, at: dt.datetime | float | None = None) -> "Story":
        return self.say(Kind.START, stage, at)

    def end(
        self, stage: str, at: dt.datetime | float | None = None, result: ResultCode = ResultCode.PASS, **said: Any
    ) -> "Story":
        """Open a stage where it is not, and end it."""
        if self.state.stages[stage].opened_at is None and not self.procedure.stages[stage].instant:
            self.start(stage, at)
        ref = "" if result is ResultCode.FAIL else f"ref-{stage}"
        reason = "" if result is ResultCode.PASS else "WHY"
        return self.say(Kind.RESULT, stage, at, **({"result": result, "ref": ref, "reason": reason} | said))

    def recognise(self, stage: str, at: dt.datetime | float | None = None, ref: str = "foreign-1") -> "Story":
        return self.say(Kind.RECOGNISE, stage, at, ref=ref, source_agency="customs", arrangement="MRA@1.0.0")

    def statuses(self) -> dict[str, str]:
        return {code: found.status.value for code, found in self.state.stages.items()}


# At random.

_PAUSES: Final = (Pause.TEST, Pause.EXPERT, Pause.INQUIRY)


@st.composite
def procedures(draw: st.DrawFn, most: int = 5) -> Procedure:
    """Acyclic procedures of a few stages with everything a stage can say, in any order in the file."""
    codes = "ABCDEFGH"[: draw(st.integers(1, most))]
    stages: dict[str, Stage] = {}
    above: dict[str, set[str]] = {}
    for number, code in enumerate(codes):
        before = draw(st.lists(st.sampled_from(codes[:number]), unique=True, max_size=3)) if number else []
        above[code] = set(before).union(*(above[b] for b in before))
        stages[code] = draw(_stages(code, before, sorted(above[code])))
    order = draw(st.permutations(codes))
    questions = {"foreign": Question("?", "?", ("false", "true"), "false")}
    return procedure(
        *(stages[code] for code in order),
        questions=questions,
        case_limit=draw(st.sampled_from((None, days(10)))),
        roll=draw(st.booleans()),
        escalation=(Escalation(days(1), "superior"), Escalation(hours(30), "supervision"))[: draw(st.integers(0, 2))],
    )


@st.composite
def _stages(draw: st.DrawFn, code: str, before: Sequence[str], above: Sequence[str]) -> Stage:
    seldom = st.integers(0, 3).map(lambda n: n == 3)
    limit = draw(st.sampled_from((None, hours(5), days(1), days(3), Limit(4, Unit.CALENDAR_DAY))))
    said: dict[str, Any] = {"limit": limit}
    if draw(seldom):
        said["when"] = {"foreign": draw(st.sampled_from(("true", "false")))}
    if draw(seldom) and above:
        wanted = frozenset(draw(st.sets(st.sampled_from(ResultCode), min_size=1)))
        said["when_result"] = {draw(st.sampled_from(above)): wanted}
    if draw(seldom) and above:
        said["clock"] = f"started:{draw(st.sampled_from(above))}"
    if limit and draw(seldom):
        said["extension"] = Extension(2, 2, "superior")
    if draw(seldom):
        said["reaches"] = draw(st.sampled_from(("ACCEPTED", "IN_REVIEW", "DECIDED", "ISSUED", "DELIVERED")))
    if draw(seldom):
        said["fact"] = f"fact_{code}"
    said["pauses"] = dict.fromkeys(draw(st.lists(st.sampled_from(_PAUSES), max_size=2)))
    said["overdue"] = draw(st.sampled_from((Overdue.ESCALATE, Overdue.DEEMED) if limit else (Overdue.NONE,)))
    said["on_fail"] = draw(st.sampled_from((OnFail.REFUSE, OnFail.CONTINUE, OnFail.CONTINUE)))
    said["supplement"], said["accepts"] = draw(st.booleans()), draw(st.booleans())
    for name in ("optional", "repeatable", "instant", "stops_clocks"):
        said[name] = draw(seldom)
    return stage(code, " ".join(before), draw(st.sampled_from(AGENCIES)), **said)


def wild(state: CaseState, code: str, kind: Kind, at: dt.datetime, number: int, pick: int = 0) -> Event:
    """Word an event of any kind of any stage, whether allowed or not; `pick` chooses where there is a choice."""
    found, of = state.stages[code], state.procedure.stages[code]
    said: dict[str, Any] = {"agency": of.agency, "reason": "WHY"}
    if kind in {Kind.RECOGNISE, Kind.DEEMED, Kind.REMIND, Kind.RECOMPUTE}:
        said["agency"] = SERVICE
    match kind:
        case Kind.SUSPEND:
            known = [p for p in of.pauses if p is not Pause.SUPPLEMENT] or list(_PAUSES)
            said["pause"] = known[pick % len(known)]
        case Kind.EXTEND:
            said |= {"extension": 1 + pick % 2, "approval_ref": "A-1"}
        case Kind.RESULT:
            said |= {"result": list(ResultCode)[pick % 3], "ref": f"ref-{number}"}
        case Kind.RECOGNISE:
            said |= {"ref": f"foreign-{pick % 3}", "source_agency": "customs", "arrangement": "MRA@1.0.0"}
        case Kind.REVOKE:
            said["agency"] = found.source_agency or of.agency
        case Kind.REMIND:
            said |= {"threshold": ("yellow", "red")[pick % 2], "addressee": "desk"}
        case Kind.RECOMPUTE:
            said["calendar"] = "CN@2027"
        case _:
            pass
    return Event(f"e{number}", kind, code, at=at, recorded_at=at, **said)


def allowed(state: CaseState, now: dt.datetime, number: int, pick: int = 0) -> Iterator[Event]:
    """Every event that the rules allow now, happening now or as early as it may have."""
    for code in state.stages:
        for kind in Kind:
            if kind is Kind.SUBMIT:
                continue
            at = now if pick % 2 else min(now, rules.not_before(state, kind, code))
            event = wild(state, code, kind, at, number, pick)
            if permits(state, event, now):
                yield event


def permits(state: CaseState, event: Event, now: dt.datetime = LATER) -> bool:
    """Whether the rules allow an event, from who says that it is theirs."""
    try:
        rules.check(state, event, now=now, caller_agency=event.agency, backdating=None)
    except HutongError:
        return False
    return True


_STEPS: Final = (dt.timedelta(0), HOUR, 5 * HOUR, DAY, 3 * DAY)
_WEIGHTS: Final = {
    Kind.START: 6.0,
    Kind.RESULT: 5.0,
    Kind.SUPPLEMENT_RECEIVED: 3.0,
    Kind.SUSPEND: 3.0,
    Kind.RESUME: 3.0,
    Kind.RECOGNISE: 2.0,
    Kind.REFUSE_RECOGNITION: 4.0,
    Kind.REMIND: 0.3,
    Kind.RECOMPUTE: 0.3,
}
"""How often things happen, so that much of a case happens; everything else once."""


@st.composite
def histories(draw: st.DrawFn, procedure: Procedure, most: int = 16) -> list[Event]:
    """Events that the rules allow one after the other, the application first.

    A seed chooses them, and the length is drawn beside it: what fails shrinks to its beginning.
    """
    length = min(most, draw(st.integers(0, 3 * most)))
    chance = random.Random(draw(st.integers(0, 2**32 - 1)))
    events = [submit(procedure, answers=chance.choice(({}, {"foreign": "true"})))]
    state = CaseState.begin(procedure, events[0])
    now = T0
    for number in range(2, 2 + length):
        now += chance.choice(_STEPS)
        found = list(allowed(state, now, number, chance.randrange(6)))
        whole = Event(f"e{number}", Kind.WITHDRAW, WHOLE_CASE, procedure.lead, now, now, reason="WHY")
        if permits(state, whole):
            found.append(whole)
        if not found:
            break
        event = chance.choices(found, [_weight(procedure, e) for e in found])[0]
        events.append(event)
        state.apply(event)
    return events


def _weight(procedure: Procedure, event: Event) -> float:
    ends = event.stage == WHOLE_CASE or (
        event.result is ResultCode.FAIL and procedure.stages[event.stage].on_fail is OnFail.REFUSE
    )
    return 0.2 if ends else _WEIGHTS.get(event.kind, 1.0)


@st.composite
def worlds(draw: st.DrawFn, stages: int = 5, steps: int = 16) -> tuple[Procedure, list[Event]]:
    """A procedure and a history on it."""
    found = draw(procedures(stages))
    return found, draw(histories(found, steps))
