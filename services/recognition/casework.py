"""What people and nodes hand in to cases, and what they get back: plain values, no behaviour."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from services.recognition.events import Event, Kind, Mode, Pause, ResultCode
from services.recognition.ledger import Head

if TYPE_CHECKING:
    from services.recognition.case import CaseState
    from services.recognition.doubts import Question
    from services.recognition.procedure import Procedure
    from services.recognition.view import CaseReckoning

APPLICANT: Final = "applicant"
"""Agency of events that the enterprise itself sends in."""

SERVICE: Final = "recognition"
"""Agency of the service's own events."""


@dataclass(frozen=True, slots=True)
class Application:
    """An application, as it is handed in."""

    request_id: str
    """A UUID chosen by the submitter: sent again, it gives the same case."""
    submitter: str
    """Who hands it in: `agency/system`, or `enterprise/code`."""
    procedure: str
    """Code of the procedure; the case begins on the version in force."""
    scheme: str
    subject: str
    mode: Mode = Mode.NORMAL
    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    commitment_id: str = ""
    explicit_request_id: str = ""
    applied_at: dt.datetime | None = None
    """None for now."""


@dataclass(frozen=True, slots=True)
class Act:
    """An event as its sender words it, before it is checked and recorded."""

    id: str
    """A UUID chosen by the sender: sent again with the same content, it is the same event."""
    kind: Kind
    stage: str = ""
    """Stage code; empty for the whole case."""
    at: dt.datetime | None = None
    """None for now."""
    reason: str = ""
    result: ResultCode | None = None
    credential: str = ""
    """The signed result (SD-JWT VC), with RESULT of a stage that proves a fact, and with REFUSE_RECOGNITION nothing."""
    ref: str = ""
    """The result refused, with REFUSE_RECOGNITION; the one revoked, with REVOKE. Empty takes the stage's own."""
    pause: Pause | None = None
    extension: int = 0
    approval_ref: str = ""
    officer: str = field(default="", repr=False)
    despite: str = ""
    """With START: the examination or result that the sender was told of and repeats for `reason`."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of an act."""

    event: Event
    sequence: int
    """The event's number in its case."""
    version: int
    """The case's version now, with all that followed from the event."""
    duplicate: bool = False
    """It had been recorded before."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A case at a moment."""

    head: Head
    procedure: "Procedure"
    state: "CaseState"
    events: tuple[Event, ...]
    reckoning: "CaseReckoning"
    questions: tuple["Question", ...] = ()
    """What agencies were asked of results that are revoked, where any of its stages rests on one."""

    @property
    def case_id(self) -> str:
        """Id of the case."""
        return self.head.case_id

    @property
    def version(self) -> int:
        """Number of its last event."""
        return self.head.version
