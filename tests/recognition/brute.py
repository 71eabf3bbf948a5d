"""What a case is, said a second time and in another way: every question is answered by looking through all events.

Nothing is kept from one event to the next. Where `services.recognition.case` changes what it knows, this asks again
what the first k events say: slow, and easy to compare with the rules in words.
"""

import datetime as dt
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from services.recognition.events import WHOLE_CASE, Event, Kind, Pause, ResultCode
from services.recognition.procedure import OnFail, Procedure, Stage

RESULTS: Final = (Kind.RESULT, Kind.RECOGNISE, Kind.DEEMED)
PAUSED: Final = (Kind.SUSPEND, Kind.SUPPLEMENT_REQUEST)
RESUMED: Final = (Kind.RESUME, Kind.SUPPLEMENT_RECEIVED)
SATISFIED: Final = ("PASSED", "CONDITIONAL", "RECOGNISED", "DEEMED")
UNDER_WAY: Final = ("READY", "OPEN", "SUSPENDED")
LEFT_OUT: Final = ("NOT_APPLICABLE", "WITHDRAWN")
RANKS: Final = ("APPLIED", "ACCEPTED", "IN_REVIEW", "DECIDED", "ISSUED", "DELIVERED")

Span = tuple[dt.datetime, dt.datetime | None]


class Brute:
    """A case; `k` is always how many of its events are looked at."""

    def __init__(self, procedure: Procedure, events: Sequence[Event]) -> None:
        self.procedure = procedure
        self.events = events
        self.begun = events[0].at
        said = events[0].submission
        assert said is not None
        self.answers = {name: q.default for name, q in procedure.questions.items()} | dict(said.answers)
        for name in ("passes", "raw", "started", "ready", "status", "closed", "case"):
            setattr(self, name, lru_cache(maxsize=None)(getattr(self, name)))

    # The events of a stage.

    def of(self, code: str, k: int) -> list[tuple[int, Event]]:
        return [(i, e) for i, e in enumerate(self.events[:k]) if e.stage == code]

    def reopened(self, code: str, k: int) -> tuple[int, Event] | None:
        """When the stage was last opened again: its recognition refused, or started anew though it had ended."""
        return next(((i, e) for i, e in reversed(self.of(code, k)) if self.opens_again(i, e)), None)

    def opens_again(self, i: int, event: Event) -> bool:
        if event.kind is Kind.START:
            return bool(self.results(event.stage, i))
        return event.kind is Kind.REFUSE_RECOGNITION

    def round(self, code: str, k: int) -> list[tuple[int, Event]]:
        """Events since the stage was last opened again; that it was started anew is the first of them."""
        again = self.reopened(code, k)
        return [(i, e) for i, e in self.of(code, k) if again is None or i > again[0] or e is again[1]]

    def results(self, code: str, k: int) -> list[tuple[int, Event]]:
        """Events that ended the stage; what comes after it was deemed passed is an opinion."""
        found: list[tuple[int, Event]] = []
        for i, e in self.round(code, k):
            if e.kind in RESULTS and not (found and found[-1][1].kind is Kind.DEEMED):
                found.append((i, e))
        return found

    def opinion(self, code: str, k: int) -> Event | None:
        found = self.results(code, k)
        if not found or found[-1][1].kind is not Kind.DEEMED:
            return None
        return next((e for i, e in self.round(code, k) if i > found[-1][0] and e.kind is Kind.RESULT), None)

    def dropped(self, code: str, k: int) -> Event | None:
        return next((e for _, e in self.round(code, k) if e.kind is Kind.WITHDRAW), None)

    def touched_at(self, code: str, k: int) -> int | None:
        """How many events there were before the stage was opened or ended: from then on it is as it is."""
        return next((i for i, e in self.round(code, k) if e.kind is Kind.START or e.kind in RESULTS), None)

    # The graph.

    def refuses(self, event: Event) -> bool:
        of = self.procedure.stages[event.stage]
        return event.kind is Kind.RESULT and event.result is ResultCode.FAIL and of.on_fail is OnFail.REFUSE

    def excluded(self, code: str) -> bool:
        return any(self.answers.get(q) != v for q, v in self.procedure.stages[code].when.items())

    def turned_away(self, code: str, k: int) -> bool:
        """Whether how another stage ended says that this one does not apply."""
        if self.touched_at(code, k) is not None:
            return False
        wanted = self.procedure.stages[code].when_result
        return any(self.passes(c, k) is not None and self.passed_as(c, k) not in codes for c, codes in wanted.items())

    def passed_as(self, code: str, k: int) -> ResultCode | None:
        found = self.results(code, k)
        return (found[0][1].result or ResultCode.PASS) if found else None

    def behind_all(self, code: str, k: int) -> dt.datetime | None:
        """When the last of what the stage waits for was out of the way."""
        of = self.procedure.stages[code]
        needs = {*of.after, *of.when_result, of.clock.removeprefix("started:")} & self.procedure.stages.keys()
        moments = [self.passes(c, k) for c in needs]
        return None if None in moments else max([self.begun, *(m for m in moments if m)])

    def passes(self, code: str, k: int) -> dt.datetime | None:
        """When the stage was out of the way."""
        dropped = self.dropped(code, k)
        if self.excluded(code) or dropped or self.turned_away(code, k):
            moment = self.behind_all(code, k)
            return moment and max(moment, dropped.at if dropped else moment)
        found = self.results(code, k)
        return found[0][1].at if found and not self.refuses(found[0][1]) else None

    def ready(self, code: str, k: int) -> dt.datetime | None:
        touched, again = self.touched_at(code, k), self.reopened(code, k)
        moment = self.behind_all(code, k if touched is None else touched)
        return moment and max(moment, again[1].at if again else moment)

    def started(self, code: str, k: int) -> dt.datetime | None:
        """When the stage's clock started."""
        touched, again = self.touched_at(code, k), self.reopened(code, k)
        if again and again[0] == touched:
            return self.ready(code, k)
        if touched is not None:
            return self.started(code, touched)
        if self.excluded(code) or self.turned_away(code, k):
            return None
        source = self.procedure.stages[code].clock.removeprefix("started:")
        if source not in self.procedure.stages or again:
            return self.ready(code, k)
        return self.passes(source, k)

    def since_clock(self, code: str, k: int) -> list[Event]:
        """Events of the stage since its clock last began."""
        again = self.reopened(code, k)
        first = again[0] + 1 if again else 1
        lost = [j for j in range(first, k + 1) if self.started(code, j) is None]
        return [e for i, e in self.of(code, k) if i >= max([first, *lost])]

    # One stage.

    def spans(self, code: str, k: int) -> list[tuple[Span, Pause]]:
        """When the clock stood."""
        spans: list[tuple[Span, Pause]] = []
        for e in self.since_clock(code, k):
            if e.kind in PAUSED:
                spans.append(((e.at, None), e.pause or Pause.SUPPLEMENT))
            elif spans and spans[-1][0][1] is None and e.kind in (*RESUMED, *RESULTS, Kind.WITHDRAW):
                (start, _), pause = spans[-1]
                spans[-1] = ((start, max(start, e.at)), pause)
        return spans

    def raw(self, code: str, k: int) -> str:
        """Where the stage stands, had the case not been closed."""
        if self.excluded(code):
            return "NOT_APPLICABLE"
        if self.dropped(code, k):
            return "WITHDRAWN"
        if found := self.results(code, k):
            event = found[-1][1]
            if event.kind is Kind.RESULT:
                return {"PASS": "PASSED", "FAIL": "FAILED", "CONDITIONAL": "CONDITIONAL"}[event.result or ""]
            return {Kind.RECOGNISE: "RECOGNISED", Kind.DEEMED: "DEEMED"}[event.kind]
        if self.turned_away(code, k):
            return "NOT_APPLICABLE"
        spans = self.spans(code, k)
        if spans and spans[-1][0][1] is None:
            return "SUSPENDED"
        if any(e.kind is Kind.START for _, e in self.round(code, k)):
            return "OPEN"
        return "WAITING" if self.ready(code, k) is None else "READY"

    def status(self, code: str, k: int) -> str:
        closed = self.closed(k)
        if closed is not None and self.raw(code, closed[0]) in ("WAITING", *UNDER_WAY):
            return "WITHDRAWN"
        return self.raw(code, k)

    def applying(self) -> list[Stage]:
        return [s for s in self.procedure.stages.values() if not self.excluded(s.code)]

    # The case.

    def closed(self, k: int) -> tuple[int, str] | None:
        """After how many events the case was closed, and as what."""
        stages = self.applying()
        delivering = [s for s in stages if s.reaches == "DELIVERED"]
        needed = delivering + [s for s in stages if not s.repeatable and not (delivering and s.optional)]
        for j in range(2, k + 1):
            event = self.events[j - 1]
            if event.kind is Kind.WITHDRAW and event.stage == WHOLE_CASE:
                return j, "WITHDRAWN"
            if event.kind is Kind.RESULT and self.refuses(event) and not self.is_opinion(j):
                return j, "REFUSED"
            ends = (event.kind in RESULTS and not self.is_opinion(j)) or event.kind is Kind.WITHDRAW
            if ends and needed and all(self.passes(s.code, j) is not None for s in needed):
                return j, "DELIVERED"
        return None

    def is_opinion(self, j: int) -> bool:
        event = self.events[j - 1]
        return event is self.opinion(event.stage, j)

    def ends(self, k: int) -> list[Event]:
        return [e for j, e in enumerate(self.events[:k], 1) if e.kind in RESULTS and not self.is_opinion(j)]

    def reached(self, k: int) -> dict[str, dt.datetime]:
        found: dict[str, dt.datetime] = {}
        for event in self.ends(k):
            reaches = self.procedure.stages[event.stage].reaches
            if reaches and event.result is not ResultCode.FAIL:
                found.setdefault(reaches, event.at)
        return found

    def examined(self, k: int) -> bool:
        acceptors = {s.code for s in self.applying() if s.reaches == "ACCEPTED"}
        acceptance = acceptors.union(*(self.procedure.ancestors(c) for c in acceptors))
        starts = [e for e in self.events[:k] if e.kind is Kind.START]
        own = [e for e in self.ends(k) if e.kind is Kind.RESULT]
        return any(e.stage not in acceptance for e in starts + own)

    def case(self, k: int) -> str:
        """How far the case has come."""
        if closed := self.closed(k):
            return closed[1]
        rank = max([0, *(RANKS.index(r) for r in self.reached(k))])
        statuses = {code: self.status(code, k) for code in self.procedure.stages}
        moving = [
            code
            for code, status in statuses.items()
            if status == "OPEN" or (status == "READY" and not self.procedure.stages[code].repeatable)
        ]
        if rank < RANKS.index("DECIDED") and "SUSPENDED" in statuses.values() and not moving:
            return "SUSPENDED"
        accepted = rank >= 1 or not any(s.reaches == "ACCEPTED" for s in self.applying())
        if rank <= 1:
            return "IN_REVIEW" if accepted and self.examined(k) else RANKS[rank]
        return RANKS[min(rank, RANKS.index("ISSUED"))]

    def standing(self, k: int) -> list[Span]:
        """When everything under way stood still."""
        spans: list[Span] = []
        for j in range(2, k + 1):
            at = self.events[j - 1].at
            if self.case(j) == "SUSPENDED" != self.case(j - 1):
                spans.append((at, None))
            elif self.case(j) != "SUSPENDED" == self.case(j - 1):
                spans[-1] = (spans[-1][0], max(spans[-1][0], at))
        return spans

    def stopped(self, k: int) -> list[Span]:
        """Runs, at an end, of stages that stop others' clocks."""
        spans: list[Span] = []
        for j in range(2, k + 1):
            at = self.events[j - 1].at
            for code, of in self.procedure.stages.items():
                ready = self.ready(code, j - 1)
                ran = of.stops_clocks and self.status(code, j - 1) in UNDER_WAY and ready is not None
                ended = self.status(code, j) in (*SATISFIED, "FAILED", "WITHDRAWN")
                if ran and ended and ready and at > ready:
                    spans.append((ready, at))
        return spans

    def broken(self, code: str, k: int) -> str:
        """What last happened to the stage's result, if it does not stand: revoked, refused, or started anew."""
        last = ""
        for j, e in enumerate(self.events[:k], 1):
            if e.stage == code:
                if e.kind is Kind.REVOKE or self.opens_again(j - 1, e):
                    last = e.kind
                elif e.kind in RESULTS and not self.is_opinion(j):
                    last = ""
        return last

    def doubtful(self, code: str, k: int) -> bool:
        if self.status(code, k) in ("WAITING", *LEFT_OUT):
            return False
        above = self.procedure.ancestors(code)
        return self.broken(code, k) == "REVOKE" or any(self.broken(c, k) for c in above)

    def held_by(self, k: int) -> list[str]:
        holders: list[str] = []
        for code, of in self.procedure.stages.items():
            status, spans = self.status(code, k), self.spans(code, k)
            if self.closed(k) or status not in UNDER_WAY or (status == "READY" and of.repeatable):
                continue
            asked = status == "SUSPENDED" and spans[-1][1] in (Pause.SUPPLEMENT, Pause.IMPROVEMENT)
            holder = "applicant" if asked else of.agency
            holders += [] if holder in holders else [holder]
        return holders

    def picture(self, k: int) -> dict[str, Any]:
        """All of it, after k events."""
        closed = self.closed(k)
        return {
            "version": k,
            "status": self.case(k),
            "closed_at": closed and self.events[closed[0] - 1].at,
            "reached": self.reached(k),
            "held_by": self.held_by(k),
            "standing": self.standing(k),
            "stopped": sorted(self.stopped(k)),
            "stages": {code: self.stage(code, k) for code in self.procedure.stages},
        }

    def stage(self, code: str, k: int) -> dict[str, Any]:
        status, refusal = self.status(code, k), Kind.REFUSE_RECOGNITION
        since = self.since_clock(code, k)
        found, opinion = self.results(code, k), self.opinion(code, k)
        picture: dict[str, Any] = {
            "status": status,
            "doubtful": self.doubtful(code, k),
            "revoked": self.broken(code, k) == "REVOKE",
            "refused": [self.results(code, i)[-1][1].ref for i, e in self.of(code, k) if e.kind is refusal],
            "supplements": sum(e.kind is Kind.SUPPLEMENT_REQUEST for _, e in self.of(code, k)),
            "late_opinion": opinion and opinion.result,
        }
        if status not in LEFT_OUT:
            picture |= {
                "ready_at": self.ready(code, k),
                "started_at": self.started(code, k),
                "passed_at": self.passes(code, k),
                "suspensions": self.spans(code, k),
                "extended": sum(e.extension for e in since if e.kind is Kind.EXTEND),
                "ended_at": found[-1][1].at if found else None,
                "ref": (opinion or found[-1][1]).ref if found else "",
                "source": found[-1][1].source_agency if found else "",
            }
        return picture
