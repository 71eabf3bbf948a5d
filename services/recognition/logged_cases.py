"""Logged cases as cases of a procedure: every event of the log an event of the case, allowed by the same rules.

A log tells what has happened, so that events may be of any age; everything else is as for events that come in today. A
case that breaks a rule is refused whole: a case with a hole would be a false history.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from adapters.eventlog import LoggedCase, LoggedEvent
from services.kit import identifiers
from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.identifiers import Verdict
from services.kit.records.catalogue import nearest
from services.recognition import rules
from services.recognition.case import CaseState
from services.recognition.casework import SERVICE
from services.recognition.events import WHOLE_CASE, Event, Kind, ResultCode, Submission
from services.recognition.log_profiles import TOKEN, LogProfile, Meaning
from services.recognition.procedure import Procedure
from services.recognition.reasons import Reasons

_MAX_SOURCE: Final = 32
_MAX_OFFICER: Final = 200
_NO_ANSWERS: Final[Mapping[str, str]] = {}
"""A log answers nothing: what a procedure asks needs a default."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A case of a log that was left out."""

    case_id: str
    """As the log names it; empty where it does not."""
    reason: Reason
    message: str
    event: int = 0
    """Number of the event in the log's case; 0 where it is the case itself."""
    line: int = 0
    """Line of the log; 0 where that is not known."""


class CaseRefused(Exception):
    """A case of a log is left out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Replayed:
    """A case as it is stored."""

    case_id: str
    logged_id: str
    """As the log names it."""
    request_id: str
    events: tuple[Event, ...]
    state: CaseState
    moved: bool
    """Whether the log says that it was applied for later than something happened in it: it begins with that."""


@dataclass(frozen=True, slots=True)
class _Act:
    """What an event of a log is in a case."""

    meaning: Meaning
    stage: str
    agency: str


class Replayer:
    """Makes cases of a procedure out of the cases of a log."""

    def __init__(
        self,
        procedure: Procedure,
        profile: LogProfile,
        now: dt.datetime,
        source: str = "",
        reasons: Reasons | None = None,
    ) -> None:
        """`source` keeps apart cases of several logs that go by the same numbers.

        Raises `InvalidArgument` NAME_INVALID where it is no short printable word.
        """
        if len(source) > _MAX_SOURCE or not source.isprintable() or " " in source:
            raise InvalidArgument(Reason.NAME_INVALID, f"a source is one word of at most {_MAX_SOURCE} characters")
        self._procedure = procedure
        self._profile = profile
        self._now = now
        self._source = source
        self._reasons = reasons
        self._stand_ins = frozenset(procedure.agencies)
        self._stages = dict(_named((code, of.title, of.local_title) for code, of in procedure.stages.items()))
        self._stages |= profile.activities
        self._agencies = {code: code for code in procedure.takes_part}
        self._agencies |= _named((code, of.title, of.local_title) for code, of in procedure.agencies.items())
        self._agencies |= profile.groups
        self._acts: dict[tuple[str, str, str], _Act] = {}
        """What events of the log are, by activity, group and transition: a log has few of them, again and again."""
        self._officers: set[str] = set()
        """References of officers that were looked at."""

    def case_id(self, logged: str) -> str:
        """Say under which id a case of the log is stored."""
        return "-".join(part for part in (self._procedure.code, self._source, logged) if part)

    def replay(self, logged: LoggedCase) -> Replayed:
        """Make a case; raises `CaseRefused`."""
        seed = f"{self._procedure.code}\n{self._source}\n{logged.case_id}\n"
        number = 0
        try:
            first, moved = self._first(logged, seed)
            rules.check_first(self._procedure, first, now=self._now, backdating=None)
            state = CaseState.begin(self._procedure, first)
            events = [first]
            for number, told in enumerate(logged.events, 1):
                event = self._event(told, f"{seed}{number}")
                if event is not None:
                    self._add(state, events, event)
            number = 0
            end = self._end(logged, seed)
            if end is not None:
                self._add(state, events, end)
        except HutongError as error:
            line = logged.line
            raise CaseRefused(Refusal(logged.case_id, error.reason, error.message, number, line)) from None
        return Replayed(self.case_id(logged.case_id), logged.case_id, _id(seed), tuple(events), state, moved)

    def _add(self, state: CaseState, events: list[Event], event: Event) -> None:
        rules.check(
            state,
            event,
            now=self._now,
            caller_agency=event.agency,
            backdating=None,
            reasons=self._reasons,
            stand_ins=self._stand_ins,
        )
        state.apply(event)
        events.append(event)

    def _first(self, logged: LoggedCase, seed: str) -> tuple[Event, bool]:
        profile = self._profile
        stated, end = _moment(logged, profile.applied), self._ended(logged)
        moments = [event.at for event in logged.events[:1]] + [m for m in (stated, end) if m is not None]
        if not moments:
            raise InvalidArgument(Reason.LOG_INVALID, "the log knows no moment of it")
        at = min(moments)
        scheme, subject = self._subject(logged, seed)
        submission = Submission(
            self._procedure.label,
            scheme,
            subject,
            answers=tuple(self._procedure.complete(_NO_ANSWERS).items()),
            deadline=_moment(logged, profile.deadline),
            planned_end=_moment(logged, profile.planned_end),
        )
        event = Event(_id(f"{seed}0"), Kind.SUBMIT, WHOLE_CASE, SERVICE, at, self._now, submission=submission)
        return event, stated is not None and at < stated

    def _subject(self, logged: LoggedCase, seed: str) -> tuple[str, str]:
        source = self._profile.subject
        if source is None:
            return TOKEN, f"log-{hashlib.sha256(seed.encode()).hexdigest()[:40]}"
        found = identifiers.check(source.scheme, str(logged.attributes.get(source.attribute, "")))
        if found.verdict is Verdict.INVALID:
            raise InvalidArgument(Reason.SUBJECT_INVALID, f"its {source.attribute!r} is no {source.scheme}")
        return source.scheme, found.value

    def _event(self, told: LoggedEvent, seed: str) -> Event | None:
        said = (told.activity, told.group, told.transition)
        act = self._acts.get(said)
        if act is None:
            act = self._acts[said] = self._act(told)
        if act.meaning == "IGNORE":
            return None
        if told.resource not in self._officers:
            self._check_officer(told.resource)
        if act.meaning == "START":
            return Event(_id(seed), Kind.START, act.stage, act.agency, told.at, self._now, officer=told.resource)
        return Event(
            _id(seed),
            Kind.RESULT,
            act.stage,
            act.agency,
            told.at,
            self._now,
            result=ResultCode.PASS,
            officer=told.resource,
        )

    def _act(self, told: LoggedEvent) -> "_Act":
        """Say what an event of the log is; raises `InvalidArgument` where nobody knows."""
        meaning = self._meaning(told.transition)
        if meaning == "IGNORE":
            return _Act(meaning, "", "")
        stage = self._stages.get(told.activity)
        if stage is None:
            hint = nearest(told.activity, self._stages)
            raise InvalidArgument(Reason.STAGE_UNKNOWN, f"no stage goes by {told.activity[:80]!r}{hint}")
        agency = self._agencies.get(told.group) if told.group else self._procedure.stages[stage].agency
        if agency is None:
            hint = nearest(told.group, self._agencies)
            raise InvalidArgument(Reason.AGENCY_UNKNOWN, f"no agency goes by {told.group[:80]!r}{hint}")
        return _Act(meaning, stage, agency)

    def _check_officer(self, officer: str) -> None:
        if len(officer) > _MAX_OFFICER or not officer.isprintable():
            message = f"who did it is named by more than {_MAX_OFFICER} printable characters"
            raise InvalidArgument(Reason.LOG_INVALID, message)
        self._officers.add(officer)

    def _meaning(self, transition: str) -> Meaning:
        found = self._profile.transitions.get(transition)
        if found is None:
            found = self._profile.transitions.get(transition.lower())
        if found is None:
            message = f"the profile does not say what the transition {transition[:40]!r} is"
            raise InvalidArgument(Reason.LOG_INVALID, message)
        return found

    def _ended(self, logged: LoggedCase) -> dt.datetime | None:
        return _moment(logged, self._profile.end.attribute) if self._profile.end else None

    def _end(self, logged: LoggedCase, seed: str) -> Event | None:
        at, end = self._ended(logged), self._profile.end
        if at is None or end is None:
            return None
        agency = self._procedure.stages[end.stage].agency
        return Event(_id(f"{seed}end"), Kind.RESULT, end.stage, agency, at, self._now, result=ResultCode.PASS)


def _named(entries: Iterable[tuple[str, str, str]]) -> Mapping[str, str]:
    """Map titles and codes to codes; a code counts more than a title."""
    found: dict[str, str] = {}
    codes: dict[str, str] = {}
    for code, title, local_title in entries:
        found.setdefault(title, code)
        found.setdefault(local_title, code)
        codes[code] = code
    return found | codes


def _moment(logged: LoggedCase, name: str) -> dt.datetime | None:
    found = logged.attributes.get(name) if name else None
    return found if isinstance(found, dt.datetime) else None


def _id(seed: str) -> str:
    """Make the id that the same thing always has: a UUID of version 8."""
    text = hashlib.sha256(seed.encode()).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:32]}"
