"""What happens to a case: the events, of which everything else is a pure function.

The values of the enumerations are the names in `hutong.api.recognition.v1` without their prefix, and are what stores
and files hold.
"""

import datetime as dt
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What happened."""

    SUBMIT = "SUBMIT"
    START = "START"
    SUPPLEMENT_REQUEST = "SUPPLEMENT_REQUEST"
    SUPPLEMENT_RECEIVED = "SUPPLEMENT_RECEIVED"
    SUSPEND = "SUSPEND"
    RESUME = "RESUME"
    EXTEND = "EXTEND"
    RESULT = "RESULT"
    RECOGNISE = "RECOGNISE"
    REFUSE_RECOGNITION = "REFUSE_RECOGNITION"
    DEEMED = "DEEMED"
    WITHDRAW = "WITHDRAW"
    REVOKE = "REVOKE"
    REMIND = "REMIND"
    RECOMPUTE = "RECOMPUTE"


OWN: Final = frozenset({Kind.SUBMIT, Kind.RECOGNISE, Kind.DEEMED, Kind.REMIND, Kind.RECOMPUTE})
"""Events that only the recognition service itself appends."""

WHOLE_CASE: Final = ""
"""Stage code of events that concern the whole case."""


class ResultCode(StrEnum):
    """How a stage ended."""

    PASS = "PASS"  # noqa: S105 - a verdict, not a secret
    FAIL = "FAIL"
    CONDITIONAL = "CONDITIONAL"


class Pause(StrEnum):
    """Why a clock stands."""

    SUPPLEMENT = "SUPPLEMENT"
    INSPECTION = "INSPECTION"
    TEST = "TEST"
    QUARANTINE = "QUARANTINE"
    EXPERT = "EXPERT"
    HEARING = "HEARING"
    IMPROVEMENT = "IMPROVEMENT"
    INQUIRY = "INQUIRY"


class Mode(StrEnum):
    """How a case is handled."""

    NORMAL = "NORMAL"
    COMMITMENT = "COMMITMENT"
    PARALLEL = "PARALLEL"


class Assurance(StrEnum):
    """How thoroughly a fact was examined, in ascending order; see `rank`."""

    AUTO = "AUTO"
    FORM_REVIEW = "FORM_REVIEW"
    SUBSTANTIVE = "SUBSTANTIVE"
    ON_SITE = "ON_SITE"

    @property
    def rank(self) -> int:
        """Its place in the order: what is enough at one place is enough at every higher one."""
        return list(Assurance).index(self)


@dataclass(frozen=True, slots=True)
class Submission:
    """What an application says, beside when: the content of the first event of a case."""

    procedure: str
    """`CODE@version` of the procedure the case stays on."""
    scheme: str
    """Scheme of the subject: "cn.uscc", or "hutong.token"."""
    subject: str
    mode: Mode = Mode.NORMAL
    answers: tuple[tuple[str, str], ...] = ()
    """Answers to the procedure's questions, in order of their names."""
    commitment_id: str = ""
    explicit_request_id: str = ""
    deadline: dt.datetime | None = None
    """A deadline stated from outside, as imported logs do; the procedure's own limits run beside it."""
    planned_end: dt.datetime | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a case. Its number in the case is its place in the list, from 1."""

    id: str
    kind: Kind
    stage: str
    """Stage code; `WHOLE_CASE` for events of the whole case."""
    agency: str
    """Who did it; "recognition" for the service's own events."""
    at: dt.datetime
    """When it happened, by the agency's word: aware, in UTC."""
    recorded_at: dt.datetime
    reason: str = ""
    result: ResultCode | None = None
    ref: str = ""
    """Id of the result issued, recognised, refused or revoked."""
    source_agency: str = ""
    """Whose result was recognised."""
    arrangement: str = ""
    """`CODE@version` it was recognised under."""
    pause: Pause | None = None
    extension: int = 0
    """How much EXTEND adds, in the unit of the stage's limit."""
    approval_ref: str = ""
    threshold: str = ""
    """The threshold passed, with REMIND: "yellow", "red", "escalation-1" …, "manual"."""
    addressee: str = ""
    """The office of the agency's line that a REMIND went to."""
    calendar: str = ""
    """`ID@version`, with RECOMPUTE."""
    due_before: dt.datetime | None = None
    due_after: dt.datetime | None = None
    officer: str = field(default="", repr=False)
    """The agency's own reference; never printed."""
    submission: Submission | None = None
    """With SUBMIT."""
