"""How long cases take, where they wait, and whether they ended in time: counted from the events, and nothing else.

A *passage* is one time that a case went through a stage, up to a result or up to being deemed passed. It begins when
the stage was ready. A repeatable stage waits for nothing and happens as it comes: its passage begins with what happened
last in the case before. Where the agency said when it began, the passage is split: waiting until then, standing still
for others, and working. What was recognised takes no time of anybody, and is counted by itself. What is done on the
spot takes none either: where the end of a case is that, the time since what happened last is its *rest*, which is no
stage's.

The *bottleneck* is the stage in which cases spent the most time in all.
"""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from services.kit.records.database import Database
from services.recognition import ledger
from services.recognition.case import CaseState
from services.recognition.events import Event, Kind
from services.recognition.ledger import Selection
from services.recognition.procedure import CLOSING, Procedure, Stage
from services.recognition.rulebook import Rulebook
from services.recognition.stages import StageState, StageStatus

_SILENT: Final = frozenset({Kind.REMIND, Kind.RECOMPUTE})
_ENDS: Final = frozenset({Kind.RESULT, Kind.DEEMED})
_CLOSING: Final = _ENDS | {Kind.RECOGNISE}
_NONE: Final = dt.timedelta()
_PAGE: Final = 500
"""Cases that are read at once."""

ShowCases = Callable[[int], None]
"""Told how many cases were counted."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, over all times it happened."""

    count: int
    median: dt.timedelta
    p90: dt.timedelta
    total: dt.timedelta

    @staticmethod
    def of(spans: Iterable[dt.timedelta]) -> "Spread | None":
        """Take the measure of spans; None where there are none. Quantiles lie between neighbours where they have to."""
        found = sorted(spans)
        if not found:
            return None
        return Spread(len(found), quantile(found, 0.5), quantile(found, 0.9), sum(found, _NONE))


def quantile(ordered: Sequence[dt.timedelta], share: float) -> dt.timedelta:
    """Give the span below which a share of all lies, between neighbours in proportion; `ordered` is not empty."""
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Passage:
    """One time that a case went through a stage."""

    stage: str
    agency: str
    """Who ended it; the stage's agency where silence did."""
    took: dt.timedelta
    waited: dt.timedelta | None = None
    """Until the agency began; None where nobody said when."""
    stood: dt.timedelta | None = None
    worked: dt.timedelta | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """The passages of one stage, or of one agency."""

    code: str
    title: str
    cases: int
    took: Spread
    waited: Spread | None
    stood: Spread | None
    worked: Spread | None
    share: float
    """Of the time of all passages."""
    agency: str = ""
    """Of a stage: who spent the most time in it."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How cases stand to the deadlines that were stated with them; a case without one counts nowhere."""

    stated: int
    """Cases with a deadline."""
    ended_after_deadline: int
    ended_after_planned_end: int
    last_event_after_deadline: int
    """Cases in which something happened after the deadline, besides being closed."""


@dataclass(frozen=True, slots=True)
class Stats:
    """The cases of one procedure, whatever version they run on."""

    procedure: str
    """Its code."""
    title: str
    cases: int
    events: int
    """What happened in them: without applications, the ends that close cases, reminders."""
    ended: int
    throughput: Spread | None
    """From application to end, of cases that have ended."""
    rest: Spread | None
    """From what happened last to the end, of cases that are closed on the spot; see above."""
    deadlines: Deadlines
    stages: tuple[Times, ...]
    """The most time first."""
    agencies: tuple[Times, ...]
    """The most time first."""
    recognised: Mapping[str, int]
    """How often a recognised result took the place of a stage, by stage."""

    @property
    def without_end(self) -> int:
        """Cases that have not ended."""
        return self.cases - self.ended

    @property
    def bottleneck(self) -> Times | None:
        """The stage in which cases spent the most time; None where no stage took any."""
        first = self.stages[0] if self.stages else None
        return first if first is not None and first.took.total else None


@dataclass(slots=True)
class _Spans:
    """What is gathered of one stage, or of one agency."""

    cases: set[int] = field(default_factory=set[int])
    took: list[dt.timedelta] = field(default_factory=list[dt.timedelta])
    waited: list[dt.timedelta] = field(default_factory=list[dt.timedelta])
    stood: list[dt.timedelta] = field(default_factory=list[dt.timedelta])
    worked: list[dt.timedelta] = field(default_factory=list[dt.timedelta])
    by_agency: dict[str, dt.timedelta] = field(default_factory=dict[str, dt.timedelta])

    def add(self, case: int, passage: Passage) -> None:
        self.cases.add(case)
        self.took.append(passage.took)
        self.by_agency[passage.agency] = self.by_agency.get(passage.agency, _NONE) + passage.took
        if passage.waited is not None and passage.stood is not None and passage.worked is not None:
            self.waited.append(passage.waited)
            self.stood.append(passage.stood)
            self.worked.append(passage.worked)

    def times(self, code: str, title: str, total: dt.timedelta, agency: str = "") -> Times:
        took = Spread.of(self.took)
        assert took is not None  # noqa: S101 - made with its first passage
        share = took.total / total if total else 0.0
        waited, stood, worked = (Spread.of(spans) for spans in (self.waited, self.stood, self.worked))
        return Times(code, title, len(self.cases), took, waited, stood, worked, share, agency)


class Counting:
    """Counts the cases of one procedure, one after the other."""

    def __init__(self, procedure: Procedure, title: Callable[[str], str] = str) -> None:
        """`procedure` gives the titles of stages: the newest version that is known; `title` those of agencies."""
        self._procedure = procedure
        self._titles = {code: stage.title for code, stage in procedure.stages.items()}
        self._title = title
        self._cases = self._events = 0
        self._stages: dict[str, _Spans] = {}
        self._by_agency: dict[str, _Spans] = {}
        self._recognised: Counter[str] = Counter()
        self._throughput: list[dt.timedelta] = []
        self._rest: list[dt.timedelta] = []
        self._late: Counter[str] = Counter()

    def add(self, procedure: Procedure, events: Sequence[Event]) -> None:
        """Count a case, on the version of the procedure that it runs on."""
        self._cases += 1
        for code, stage in procedure.stages.items():
            self._titles.setdefault(code, stage.title)
        state = CaseState.begin(procedure, events[0])
        last_at = events[0].at
        for event in events[1:]:
            for passage in _passages(state, event):
                self._stages.setdefault(passage.stage, _Spans()).add(self._cases, passage)
                self._by_agency.setdefault(passage.agency, _Spans()).add(self._cases, passage)
            state.apply(event)
            if event.kind is Kind.RECOGNISE:
                self._recognised[event.stage] += 1
            if _closes(procedure, event):
                if procedure.stages[event.stage].instant:
                    self._rest.append(max(event.at - last_at, _NONE))
            elif event.kind not in _SILENT:
                self._events += 1
                last_at = max(last_at, event.at)
        self._count(state, last_at)

    def _count(self, state: CaseState, last_at: dt.datetime) -> None:
        said = state.submission
        ended = state.closed_at
        if ended is not None:
            self._throughput.append(max(ended - state.applied_at, _NONE))
        late = (
            ("stated", said.deadline is not None),
            ("ended_after_deadline", _after(ended, said.deadline)),
            ("ended_after_planned_end", _after(ended, said.planned_end)),
            ("last_event_after_deadline", _after(last_at, said.deadline)),
        )
        self._late.update(name for name, holds in late if holds)

    def done(self) -> Stats:
        """Give what was counted."""
        total = sum((span for spans in self._stages.values() for span in spans.took), _NONE)
        stages = (
            spans.times(code, self._titles.get(code, code), total, _most(spans.by_agency))
            for code, spans in self._stages.items()
        )
        agencies = (spans.times(code, self._title(code), total) for code, spans in self._by_agency.items())
        return Stats(
            procedure=self._procedure.code,
            title=self._procedure.title,
            cases=self._cases,
            events=self._events,
            ended=len(self._throughput),
            throughput=Spread.of(self._throughput),
            rest=Spread.of(self._rest),
            deadlines=Deadlines(**{name: self._late[name] for name in Deadlines.__slots__}),
            stages=tuple(sorted(stages, key=_by_time)),
            agencies=tuple(sorted(agencies, key=_by_time)),
            recognised=MappingProxyType(dict(sorted(self._recognised.items()))),
        )


def _after(moment: dt.datetime | None, stated: dt.datetime | None) -> bool:
    return moment is not None and stated is not None and moment > stated


def _by_time(times: Times) -> tuple[dt.timedelta, str]:
    return -times.took.total, times.code


def _most(by_agency: dict[str, dt.timedelta]) -> str:
    return max(sorted(by_agency), key=lambda agency: by_agency[agency])


def _closes(procedure: Procedure, event: Event) -> bool:
    """Tell whether an event is the end that closes its case."""
    of = procedure.stages.get(event.stage) if event.kind in _CLOSING else None
    return of is not None and of.reaches == CLOSING


def _passages(state: CaseState, event: Event) -> Iterator[Passage]:
    """Give the passage that an event ends, before it is applied; none where it ends none."""
    if event.kind not in _ENDS:
        return
    stage, of = state.stages[event.stage], state.procedure.stages[event.stage]
    if of.instant or stage.status is StageStatus.DEEMED:
        return  # done on the spot, or a late opinion: the stage has ended before
    began = _began(state, stage, of)
    took = max(event.at - began, _NONE)
    agency = event.agency if event.kind is Kind.RESULT else of.agency
    if stage.opened_at is None:
        yield Passage(event.stage, agency, took)
        return
    stood = _stood(stage, event.at)
    waited = max(stage.opened_at - began, _NONE)
    yield Passage(event.stage, agency, took, waited, stood, max(took - waited - stood, _NONE))


def _began(state: CaseState, stage: StageState, of: Stage) -> dt.datetime:
    if of.repeatable or stage.ready_at is None:
        return state.latest_at
    return stage.ready_at


def _stood(stage: StageState, at: dt.datetime) -> dt.timedelta:
    """Say how long a stage stood still after it was opened."""
    opened = stage.opened_at or at
    spans = (max((suspension.end or at) - max(suspension.start, opened), _NONE) for suspension, _ in stage.suspensions)
    return sum(spans, _NONE)


async def measure(
    database: Database, rulebook: Rulebook, code: str = "", show: ShowCases | None = None
) -> tuple[Stats, ...]:
    """Count the cases of a store, of one procedure (`code`) or of each; in order of the procedures' codes.

    Raises `FailedPrecondition` where a case runs on a procedure that neither files nor store have.
    """
    counts: dict[str, Counting] = {}
    after: tuple[dt.datetime, str] | None = None
    done = 0
    while page := await database.read(_page(rulebook, code, after)):
        for procedure, events in page.cases:
            if procedure.code not in counts:
                newest = (procedure, *rulebook.procedures.versions(procedure.code))[-1]
                counts[procedure.code] = Counting(newest, rulebook.agencies_of(newest).title)
            counts[procedure.code].add(procedure, events)
        after, done = page.after, done + len(page.cases)
        if show is not None:
            show(done)
    return tuple(counts[name].done() for name in sorted(counts))


@dataclass(frozen=True, slots=True)
class _Page:
    cases: list[tuple[Procedure, tuple[Event, ...]]]
    after: tuple[dt.datetime, str]


def _page(
    rulebook: Rulebook, code: str, after: tuple[dt.datetime, str] | None
) -> Callable[[sa.Connection], _Page | None]:
    def work(connection: sa.Connection) -> _Page | None:
        heads = ledger.list_heads(connection, Selection(procedure_code=code), limit=_PAGE, after=after)
        if not heads:
            return None
        stored = ledger.load_many(connection, heads)
        cases = [(rulebook.procedure(connection, found.head.procedure), found.events) for found in stored]
        return _Page(cases, (heads[-1].applied_at, heads[-1].case_id))

    return work
