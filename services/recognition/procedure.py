"""Procedures: graphs of stages, as versioned data. A case stays on the version it began with.

This module is the model and what can be asked of it. `services.recognition.procedure_file` reads files,
`procedure_checks` refuses what does not hold together, `procedures` keeps all versions there are.

Who runs a case has to know of a stage, beside what its fields say:

- it *applies* where the answers given at submission fit `when`; with `when_result` that is settled later: it waits
  until the stage named there has ended, and applies where that ended with one of the codes named (recognised and deemed
  count as PASS);
- a stage that does not apply is in nobody's way;
- `stops_clocks`: while it runs, the case's own limit and the clocks that began before it (`clock: "started:…"`) stand;
- `requires`: facts that must be proven when the stage is decided, by an earlier stage of the case or, where none of the
  case proves it, by a result that the stage's agency accepts. What a stage that does not apply would prove is not
  demanded.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, get_args

from services.kit.durations import add_duration
from services.kit.errors import InvalidArgument, Reason
from services.kit.records.catalogue import nearest
from services.recognition import graph
from services.recognition.agencies import ALL, Agency
from services.recognition.events import Assurance, Pause, ResultCode
from services.recognition.statutory import Limit, Unit

Reached = Literal["ACCEPTED", "IN_REVIEW", "DECIDED", "ISSUED", "DELIVERED"]
REACHABLE: Final[tuple[str, ...]] = get_args(Reached)
"""Case statuses that a stage's end may bring about, in the order a case goes through them."""

CLOSING: Final[Reached] = "DELIVERED"
"""The status that closes a case."""

PREREQUISITES: Final = "prerequisites"
"""A stage's clock runs from the moment its last prerequisite was satisfied."""

STARTED: Final = "started:"
"""What stands before the stage from whose end a clock runs."""


class Overdue(StrEnum):
    """What happens when a stage's limit has passed."""

    ESCALATE = "escalate"
    DEEMED = "deemed"
    NONE = "none"


class OnFail(StrEnum):
    """What a failed stage means for the case."""

    REFUSE = "refuse"
    CONTINUE = "continue"


class DeemedRule(StrEnum):
    """Where the law lets silence count as a pass."""

    FORBIDDEN = "forbidden"
    ACCEPTANCE = "acceptance"
    """Only in stages that reach ACCEPTED."""
    ALLOWED = "allowed"


@dataclass(frozen=True, slots=True)
class Question:
    """Something asked once, at submission, that decides which stages apply and how long they may take."""

    title: str
    local_title: str
    values: tuple[str, ...]
    default: str | None
    """None: it must be answered."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a stage proves."""

    code: str
    assurance: Assurance
    """How thoroughly the stage examines it."""
    valid_for: str | None = None
    """ISO 8601 duration; None: it does not end by itself."""

    def until(self, start: dt.datetime) -> dt.datetime | None:
        """Say until when it holds, if it was proven at `start`."""
        return add_duration(start, self.valid_for) if self.valid_for else None


@dataclass(frozen=True, slots=True)
class Demand:
    """A fact that must be proven, how thoroughly at least, and how long ago at most."""

    fact: str
    assurance: Assurance = Assurance.AUTO
    max_age: str | None = None
    """ISO 8601 duration; None: any age, while it is valid."""

    def fresh(self, issued_at: dt.datetime, now: dt.datetime) -> bool:
        """Tell whether a fact proven at `issued_at` is recent enough."""
        return self.max_age is None or now <= add_duration(issued_at, self.max_age)


@dataclass(frozen=True, slots=True)
class Extension:
    """How a limit may be extended, with somebody's approval."""

    amount: int
    """At most this much each time, in the unit of the limit."""
    times: int
    approver: str
    """An office, or "superior"."""


@dataclass(frozen=True, slots=True)
class LimitsBy:
    """Limits that depend on an answer."""

    question: str
    limits: Mapping[str, Limit]


@dataclass(frozen=True, slots=True)
class Escalation:
    """Where an overdue stage is taken, how long after it was due."""

    after: Limit
    to: str
    """"superior", "supervision", or the code of an office."""


@dataclass(frozen=True, slots=True)
class Lights:
    """When a stage turns yellow."""

    share: int = 25
    """Percentage of the limit that is left then."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: one agency's work."""

    code: str
    title: str
    local_title: str
    agency: str
    after: tuple[str, ...] = ()
    when: Mapping[str, str] = field(default_factory=dict[str, str])
    """Answers it needs, all of them; empty: it always applies."""
    when_result: Mapping[str, frozenset[ResultCode]] = field(default_factory=dict[str, frozenset[ResultCode]])
    """How stages before it must have ended for it to apply; see the module's first words."""
    limit: Limit | None = None
    limits_by: LimitsBy | None = None
    clock: str = PREREQUISITES
    overdue: Overdue = Overdue.ESCALATE
    yellow: int | None = None
    """It turns yellow when this much is left, in the unit of its limit; None: by the procedure's lights."""
    extension: Extension | None = None
    supplement: bool = False
    """The applicant may be asked for more, once."""
    pauses: Mapping[Pause, Limit | None] = field(default_factory=dict[Pause, "Limit | None"])
    """What may stop its clock, and how long that itself may take. Has SUPPLEMENT where `supplement` is true."""
    stops_clocks: bool = False
    proves: Fact | None = None
    recognised_by: tuple[str, ...] = ()
    """Agencies and parties, or "all"."""
    requires: tuple[Demand, ...] = ()
    accepts: bool = False
    """A recognised result may take its place."""
    reaches: Reached | None = None
    """Case status that its end brings about, one of `REACHABLE`."""
    optional: bool = False
    """The branch may be dropped."""
    on_fail: OnFail = OnFail.REFUSE
    repeatable: bool = False
    instant: bool = False

    @property
    def clock_from(self) -> str:
        """The stage from whose end its clock runs; empty where that is the end of its prerequisites."""
        return self.clock.removeprefix(STARTED) if self.clock.startswith(STARTED) else ""

    def recognisable_by(self, agency: str) -> bool:
        """Tell whether an agency is named among those who recognise its fact."""
        return agency in self.recognised_by or ALL in self.recognised_by

    def applies(self, answers: Mapping[str, str]) -> bool:
        """Tell whether it applies as far as the answers say; `when_result` is settled later."""
        return all(answers.get(question) == value for question, value in self.when.items())


@dataclass(frozen=True)
class Procedure:
    """One version of one procedure, checked. Stages are in the order of the file."""

    code: str
    version: str
    title: str
    local_title: str
    lead: str
    calendar: str
    roll: bool
    """A limit in calendar days that ends on a rest day goes on to the next working day."""
    subject_schemes: tuple[str, ...]
    questions: Mapping[str, Question]
    stages: Mapping[str, Stage]
    agencies: Mapping[str, Agency]
    """Agencies that only this procedure knows."""
    deemed: DeemedRule
    matters: tuple[str, ...]
    """What it is about, where the law has something to say on that: food, tax refunds."""
    lights: Lights
    escalation: tuple[Escalation, ...]
    case_limit: Limit | None
    effective_from: dt.datetime
    text: str = field(repr=False)
    digest: str
    """SHA-256 of the text, in hex."""

    @cached_property
    def label(self) -> str:
        """`CODE@version`."""
        return f"{self.code}@{self.version}"

    @cached_property
    def file(self) -> str:
        """What its file is named."""
        return f"{self.label.lower()}.yaml"

    def stage(self, code: str) -> Stage:
        """Give a stage; raises `InvalidArgument` with STAGE_UNKNOWN, naming the nearest."""
        if found := self.stages.get(code):
            return found
        hint = nearest(code, self.stages)
        raise InvalidArgument(Reason.STAGE_UNKNOWN, f"{self.label} has no stage {code[:64]!r}{hint}", stage=code[:64])

    def complete(self, answers: Mapping[str, str]) -> Mapping[str, str]:
        """Fill answers up with defaults, in order of the questions' names.

        Raises `InvalidArgument` with ANSWER_UNKNOWN for a question or a value that the procedure does not know, and
        with ANSWER_MISSING where a question without a default is not answered.
        """
        for name, value in answers.items():
            self._check_answer(name, value)
        full: dict[str, str] = {}
        for name in sorted(self.questions):
            answer = answers[name] if name in answers else self.questions[name].default
            if answer is None:
                options = ", ".join(self.questions[name].values)
                raise InvalidArgument(
                    Reason.ANSWER_MISSING, f"{self.label} asks for {name!r}: one of {options}", question=name
                )
            full[name] = answer
        return MappingProxyType(full)

    def _check_answer(self, name: str, value: str) -> None:
        question = self.questions.get(name)
        if question is None:
            hint = nearest(name, self.questions)
            message = f"{self.label} asks no question {name[:64]!r}{hint}"
            raise InvalidArgument(Reason.ANSWER_UNKNOWN, message, question=name[:64])
        if value not in question.values:
            message = f"{self.label}: {name!r} is one of {', '.join(question.values)}"
            raise InvalidArgument(Reason.ANSWER_UNKNOWN, message, question=name)

    def applicable(self, answers: Mapping[str, str]) -> tuple[Stage, ...]:
        """Give the stages that apply, in order; answers must be complete. `when_result` is settled later."""
        return tuple(stage for stage in self.stages.values() if stage.applies(answers))

    def limit_of(self, stage: Stage, answers: Mapping[str, str]) -> Limit | None:
        """Give a stage's limit, with these answers; None: it has none."""
        by = stage.limits_by
        return by.limits.get(answers.get(by.question, ""), stage.limit) if by else stage.limit

    def lead_of(self, stage: Stage, limit: Limit) -> int | None:
        """Say how much of a limit is left when the light turns yellow, in its unit; None for hours, by their share."""
        if stage.yellow is not None:
            return stage.yellow
        return None if limit.unit is Unit.HOUR else limit.amount * self.lights.share // 100

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Stage codes, each after those it waits for; otherwise as in the file."""
        return graph.order({stage.code: stage.after for stage in self.stages.values()})

    @cached_property
    def followers(self) -> Mapping[str, tuple[str, ...]]:
        """For each stage, those that wait for it directly."""
        found: dict[str, list[str]] = {code: [] for code in self.stages}
        for stage in self.stages.values():
            for before in stage.after:
                found[before].append(stage.code)
        return MappingProxyType({code: tuple(codes) for code, codes in found.items()})

    def ancestors(self, code: str) -> frozenset[str]:
        """Give every stage that a stage waits for, directly or not."""
        return self._ancestors[self.stage(code).code]

    @cached_property
    def _ancestors(self) -> Mapping[str, frozenset[str]]:
        return graph.ancestors({stage.code: stage.after for stage in self.stages.values()})

    @cached_property
    def provers(self) -> Mapping[str, Stage]:
        """For each fact that a stage proves, the stage."""
        return MappingProxyType({stage.proves.code: stage for stage in self.stages.values() if stage.proves})

    def needs(self, stage: Stage) -> Demand | None:
        """Say what a result must be like to take the stage's place; None where nothing may.

        As thorough as the stage itself would be, and as every stage behind it demands; as recent as they demand.
        """
        if not stage.accepts or stage.proves is None:
            return None
        fact = stage.proves
        demands = [d for other in self.stages.values() for d in other.requires if d.fact == fact.code]
        ages = [d.max_age for d in demands if d.max_age]
        now = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
        return Demand(
            fact.code,
            max((fact.assurance, *(d.assurance for d in demands)), key=lambda a: a.rank),
            min(ages, key=lambda age: add_duration(now, age), default=None),
        )

    @cached_property
    def timed(self) -> bool:
        """Whether any stage has a limit; without one, nothing ever becomes due."""
        return any(stage.limit or stage.limits_by for stage in self.stages.values())

    @cached_property
    def takes_part(self) -> frozenset[str]:
        """Every agency that leads or has a stage."""
        return frozenset({self.lead, *(stage.agency for stage in self.stages.values())})
