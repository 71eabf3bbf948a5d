"""What a procedure must be like to be run: checks over a draft, each of which finds every mistake of its kind.

Checked are: that agencies, offices, stages, questions and answers exist; that the graph has no cycle; that clocks and
lights can run; that silence counts as a pass only where the law lets it; that a fact is proven by one stage, and that
what stages demand can be met: by a stage before them, at that assurance, for that agency, in time; and that the case
comes to an end.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from typing import Final

from services.kit.errors import Reason
from services.kit.records.catalogue import nearest
from services.recognition import graph, matters
from services.recognition.agencies import Agencies
from services.recognition.events import Pause
from services.recognition.procedure import CLOSING, REACHABLE, STARTED, DeemedRule, Overdue, Stage
from services.recognition.procedure_demands import demands
from services.recognition.procedure_draft import Draft, Head

Found = tuple[Reason, str, str]
"""Reason, stage code or nothing, and what is wrong."""

_LAXNESS: Final = tuple(DeemedRule)


class Checks:
    """A draft, with what the checks need to know of it."""

    def __init__(self, draft: Draft, agencies: Agencies, calendars: Collection[str]) -> None:
        self.head: Head | None = draft.head
        self._unreadable_words = draft.unreadable_words
        self.stages = draft.stages
        self.agencies = agencies
        self.calendars = calendars
        self.names = draft.stages.keys() | draft.unreadable
        self.readable = not draft.unreadable

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """For each stage, those it waits for, directly or not; a stage in a cycle waits for itself."""
        return graph.ancestors({stage.code: stage.after for stage in self.stages.values()})

    def read(self, *words: str) -> bool:
        """Tell whether these words of the head could be read: what rests on others is not worth a word."""
        return self.head is not None and self._unreadable_words.isdisjoint(words)

    def run(self) -> Iterator[Found]:
        """Find every mistake."""
        for check in (_agencies, _edges, _questions, _clocks, _extras, _facts, _deemed):
            for stage in self.stages.values():
                for message in check(self, stage):
                    yield Reason.PROCEDURE_INVALID, stage.code, message
        for check_all in (_head, _cycles, _proven_twice, _demands, _unused_questions, _end):
            yield from check_all(self)


Check = Callable[[Checks, Stage], Iterable[str]]


def _agencies(checks: Checks, stage: Stage) -> Iterator[str]:
    known = checks.agencies
    declared = checks.read("agencies", "parties")
    if declared and stage.agency not in known.agencies:
        yield f"the agency {stage.agency!r} is unknown{nearest(stage.agency, known.agencies)}"
    for code in stage.recognised_by:
        if declared and not known.knows(code):
            hint = nearest(code, [*known.agencies, *known.parties])
            yield f"recognised_by: {code!r} is neither agency nor party{hint}"
    if stage.recognised_by and stage.proves is None:
        yield "recognised_by: it proves nothing that could be recognised"
    if stage.extension and not known.knows_office(stage.extension.approver):
        yield f"extension: there is no office {stage.extension.approver!r}"


def _edges(checks: Checks, stage: Stage) -> Iterator[str]:
    for before in stage.after:
        if before not in checks.names:
            yield f"after: there is no stage {before!r}{nearest(before, checks.names)}"
    for before in sorted({b for b in stage.after if stage.after.count(b) > 1}):
        yield f"after: {before} stands twice"
    for before, codes in stage.when_result.items():
        if before not in checks.names:
            yield f"when_result: there is no stage {before!r}{nearest(before, checks.names)}"
        elif checks.readable and before not in checks.ancestors[stage.code]:
            yield f"when_result: {before} does not come before it"
        if not codes:
            yield f"when_result: no result of {before} is named"


def _questions(checks: Checks, stage: Stage) -> Iterator[str]:
    if checks.head is None or not checks.read("questions"):
        return
    questions = checks.head.questions
    for name, value in stage.when.items():
        if name not in questions:
            yield f"when: there is no question {name!r}{nearest(name, questions)}"
        elif value not in questions[name].values:
            yield f"when: {value!r} is no answer to {name!r}; there are {', '.join(questions[name].values)}"
    if by := stage.limits_by:
        if by.question not in questions:
            yield f"limits_by: there is no question {by.question!r}{nearest(by.question, questions)}"
            return
        values = questions[by.question].values
        for value in sorted(by.limits.keys() - set(values)):
            yield f"limits_by: {value!r} is no answer to {by.question!r}; there are {', '.join(values)}"
        for value in values:
            if value not in by.limits and stage.limit is None:
                yield f"limits_by: no limit for the answer {value!r}, and no other limit"


def _clocks(checks: Checks, stage: Stage) -> Iterator[str]:
    limits = [limit for limit in (stage.limit, *(stage.limits_by.limits.values() if stage.limits_by else ())) if limit]
    if stage.clock.startswith(STARTED):
        yield from _clock_start(checks, stage)
    if not limits:
        wanting = {
            "clock": bool(stage.clock_from),
            "overdue": stage.overdue is not Overdue.NONE,
            "yellow": stage.yellow is not None,
            "extension": stage.extension is not None,
        }
        yield from (f"{word}: it has no limit" for word, wants in wanting.items() if wants)
    elif stage.instant:
        yield "instant: what is done on the spot has no limit"
    if limits and stage.yellow is not None and stage.yellow >= min(limit.amount for limit in limits):
        yield "yellow: it would never be green; its limit is no longer than that"
    if len({limit.unit for limit in limits}) > 1:
        yield "limits_by: all limits of a stage are counted in the same unit"
    if Pause.SUPPLEMENT in stage.pauses and not stage.supplement:
        yield "pauses: SUPPLEMENT stands with `supplement: true` only"
    if stage.instant and stage.pauses:
        yield "instant: what is done on the spot does not pause"


def _clock_start(checks: Checks, stage: Stage) -> Iterator[str]:
    start = stage.clock_from
    if start not in checks.names:
        yield f"clock: there is no stage {start!r}{nearest(start, checks.names)}"
    elif checks.readable and start not in checks.ancestors[stage.code]:
        yield f"clock: {start} does not come before it"
    elif start in checks.stages and not _always_with(checks.stages[start], stage):
        yield f"clock: {start} does not apply to every case that it applies to"


def _always_with(start: Stage, stage: Stage) -> bool:
    """Tell whether `start` applies wherever `stage` does."""
    with_answers = all(stage.when.get(question) == value for question, value in start.when.items())
    with_results = all(stage.when_result.get(before) == codes for before, codes in start.when_result.items())
    return with_answers and with_results and not start.optional


def _extras(_checks: Checks, stage: Stage) -> Iterator[str]:
    if stage.repeatable and stage.proves:
        yield "repeatable: a stage that proves a fact ends once"
    if stage.optional and stage.reaches == CLOSING:
        yield "optional: the stage that closes the case cannot be dropped"


def _facts(_checks: Checks, stage: Stage) -> Iterator[str]:
    if stage.accepts and stage.proves is None:
        yield "accepts: it proves no fact, so that no result can take its place"
    twice = [demand.fact for demand in stage.requires]
    for fact in sorted({fact for fact in twice if twice.count(fact) > 1}):
        yield f"requires: {fact} stands twice"


def _deemed(checks: Checks, stage: Stage) -> Iterator[str]:
    if stage.overdue is not Overdue.DEEMED or checks.head is None:
        return
    if checks.head.deemed is DeemedRule.FORBIDDEN:
        yield "overdue: deemed is forbidden in this procedure"
    elif checks.head.deemed is DeemedRule.ACCEPTANCE and stage.reaches != "ACCEPTED":
        yield "overdue: deemed is forbidden in this procedure, but for the stage that reaches ACCEPTED"


def _head(checks: Checks) -> Iterator[Found]:
    head = checks.head
    if head is None:
        return
    for message in (*_head_agencies(checks, head), *_head_matters(checks, head), *_head_questions(head)):
        yield Reason.PROCEDURE_INVALID, "", message


def _head_agencies(checks: Checks, head: Head) -> Iterator[str]:
    if checks.read("lead", "agencies") and head.lead not in checks.agencies.agencies:
        yield f"lead: the agency {head.lead!r} is unknown{nearest(head.lead, checks.agencies.agencies)}"
    if checks.read("calendar") and head.calendar not in checks.calendars:
        hint = nearest(head.calendar, checks.calendars) or f"; there are {', '.join(checks.calendars)}"
        yield f"calendar: {head.calendar!r} is unknown{hint}"
    for step in head.escalation:
        if checks.read("agencies") and not checks.agencies.knows_office(step.to):
            yield f"escalation: there is no office {step.to!r}; write superior, supervision or the code of an office"
    for before, step in zip(head.escalation, head.escalation[1:], strict=False):
        if graph.nominal_seconds(step.after) <= graph.nominal_seconds(before.after):
            yield f"escalation: the step to {step.to!r} comes no later than the one before it"


def _head_matters(checks: Checks, head: Head) -> Iterator[str]:
    if not checks.read("matters"):
        return
    known = matters.load()
    for name in head.matters:
        if name not in known:
            hint = nearest(name, known) or f"; there are {', '.join(known)}"
            yield f"matters: {name!r} is unknown{hint}"
        elif _LAXNESS.index(head.deemed) > _LAXNESS.index(known[name].deemed):
            yield f"deemed: {head.deemed} is laxer than the law on {name} allows: {known[name].deemed}"


def _head_questions(head: Head) -> Iterator[str]:
    for name, question in head.questions.items():
        if question.default is not None and question.default not in question.values:
            yield f"questions: {name}: the default {question.default!r} is none of its values"
        if len(set(question.values)) < len(question.values):
            yield f"questions: {name}: a value stands twice"


def _cycles(checks: Checks) -> Iterator[Found]:
    for cycle in graph.cycles({stage.code: stage.after for stage in checks.stages.values()}):
        path = " -> ".join((*cycle, cycle[0]))
        yield Reason.PROCEDURE_CYCLE, cycle[0], f"after: the stages wait for each other: {path}"


def _proven_twice(checks: Checks) -> Iterator[Found]:
    first: dict[str, str] = {}
    for stage in checks.stages.values():
        if stage.proves and (other := first.setdefault(stage.proves.code, stage.code)) != stage.code:
            yield Reason.PROCEDURE_INVALID, stage.code, f"proves: {stage.proves.code} is proven by {other} already"


def _demands(checks: Checks) -> Iterator[Found]:
    """Find demands that cannot be met; left out where a cycle makes "before" mean nothing."""
    if any(code in before for code, before in checks.ancestors.items()):
        return
    for code, message in demands(checks.stages, checks.ancestors, whole=checks.readable):
        yield Reason.PROCEDURE_INVALID, code, message


def _unused_questions(checks: Checks) -> Iterator[Found]:
    if checks.head is None or not checks.read("questions") or not checks.readable:
        return
    used = {name for stage in checks.stages.values() for name in stage.when}
    used |= {stage.limits_by.question for stage in checks.stages.values() if stage.limits_by}
    if not checks.stages or not used <= checks.head.questions.keys():
        return  # then it is the other name that is wrong
    for name in checks.head.questions:
        if name not in used:
            yield Reason.PROCEDURE_INVALID, "", f"questions: {name} is asked, and decides nothing"


def _exclude(one: Stage, other: Stage) -> bool:
    """Tell whether no case has both stages."""
    return any(other.when.get(question, value) != value for question, value in one.when.items())


def _end(checks: Checks) -> Iterator[Found]:
    rank = {status: index for index, status in enumerate(REACHABLE)}
    for stage in checks.stages.values():
        for before in sorted(checks.ancestors[stage.code] - {stage.code}):
            earlier = checks.stages[before].reaches
            if stage.reaches and earlier and rank[earlier] > rank[stage.reaches]:
                message = f"reaches: {stage.reaches}, though {before} before it has reached {earlier}"
                yield Reason.PROCEDURE_INVALID, stage.code, message
    if not checks.readable or not checks.stages:
        return
    closing = [s for s in checks.stages.values() if s.reaches == CLOSING]
    if not any(not s.when and not s.when_result for s in closing):
        yield Reason.PROCEDURE_INVALID, "", f"no stage that always applies reaches {CLOSING}: a case would never end"
    for last in closing:
        for stage in checks.stages.values():
            behind = stage.code not in checks.ancestors[last.code] and stage is not last
            if behind and not stage.optional and not _exclude(stage, last):
                message = f"reaches: {CLOSING}, though the case may still wait for {stage.code}"
                yield Reason.PROCEDURE_INVALID, last.code, message
