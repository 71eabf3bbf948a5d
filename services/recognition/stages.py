"""The words for where a case and its stages stand, and what is known of one stage."""

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.recognition.events import Pause, ResultCode
from services.recognition.statutory import Suspension

APPLICANT: Final = "applicant"
"""Stands in `held_by` where it is the applicant's turn."""


class Status(StrEnum):
    """How far a case has come; the names of `CaseStatus` without their prefix."""

    APPLIED = "APPLIED"
    ACCEPTED = "ACCEPTED"
    IN_REVIEW = "IN_REVIEW"
    SUSPENDED = "SUSPENDED"
    DECIDED = "DECIDED"
    ISSUED = "ISSUED"
    DELIVERED = "DELIVERED"
    WITHDRAWN = "WITHDRAWN"
    REFUSED = "REFUSED"


class StageStatus(StrEnum):
    """Where a stage stands; the names of the wire without their prefix."""

    NOT_APPLICABLE = "NOT_APPLICABLE"
    WAITING = "WAITING"
    READY = "READY"
    OPEN = "OPEN"
    SUSPENDED = "SUSPENDED"
    PASSED = "PASSED"
    CONDITIONAL = "CONDITIONAL"
    FAILED = "FAILED"
    RECOGNISED = "RECOGNISED"
    DEEMED = "DEEMED"
    WITHDRAWN = "WITHDRAWN"


SATISFIED: Final = frozenset({StageStatus.PASSED, StageStatus.CONDITIONAL, StageStatus.RECOGNISED, StageStatus.DEEMED})
UNDER_WAY: Final = frozenset({StageStatus.READY, StageStatus.OPEN, StageStatus.SUSPENDED})
"""Somebody has to do something, or waits for the applicant."""
ENDED: Final = SATISFIED | {StageStatus.FAILED}
"""A result, or what stands for one, is there."""
NOT_BEGUN: Final = frozenset({StageStatus.NOT_APPLICABLE, StageStatus.WAITING, StageStatus.WITHDRAWN})
"""Nobody relies on anything yet."""
APPLICANTS: Final = frozenset({Pause.SUPPLEMENT, Pause.IMPROVEMENT})
"""Pauses in which it is the applicant's turn."""


# Made for every stage of every case that is read: what is not set costs nothing, it stands in the class.
@dataclass(init=False)
class StageState:
    """Where one stage stands."""

    status: StageStatus = StageStatus.WAITING
    ready_at: dt.datetime | None = None
    """When the last of what it waits for was out of the way; not before its recognition was refused, where it was."""
    started_at: dt.datetime | None = None
    """When its clock started, which may be before it is ready."""
    opened_at: dt.datetime | None = None
    """When the agency opened its examination."""
    ended_at: dt.datetime | None = None
    """When its result came, or what stands for one; when it was dropped."""
    passed_at: dt.datetime | None = None
    """Since when it has not been in the way of others."""
    passed_as: ResultCode | None = None
    """With which result that was; recognised and deemed count as PASS, and left out as none."""
    last_at: dt.datetime | None = None
    """Moment of its last event."""
    suspensions: tuple[tuple[Suspension, Pause], ...] = ()
    """When its clock stood, and why; the last may be going on."""
    supplements: int = 0
    """How often the applicant was asked for more."""
    extensions: int = 0
    """How often its limit was extended."""
    extended: int = 0
    """By how much in all, in the unit of its limit."""
    result: ResultCode | None = None
    ref: str = ""
    """The result issued or recognised, or the document that was still owed after it was deemed passed."""
    source_agency: str = ""
    arrangement: str = ""
    refused_refs: tuple[str, ...] = ()
    """Results that were refused here, and are never recognised here again."""
    rounds: int = 0
    """How often it was opened again: its recognition was refused, or its own result revoked and examined anew."""
    reopened_at: dt.datetime | None = None
    """When that was last."""
    revoked: bool = False
    """Its result was revoked."""
    doubtful: bool = False
    """Its result, or one that a stage before it rests on, does not stand any more."""
    late_opinion: ResultCode | None = None
    """What the agency said after the stage had been deemed passed."""
    late_opinion_at: dt.datetime | None = None

    @property
    def satisfied(self) -> bool:
        """Tell whether it is passed, or something stands for that."""
        return self.status in SATISFIED

    @property
    def owes_document(self) -> bool:
        """Tell whether its agency still owes the document of a stage that was deemed passed."""
        return self.status is StageStatus.DEEMED and self.late_opinion is None

    @property
    def pause(self) -> Pause | None:
        """Why its clock stands; None where it does not."""
        return self.suspensions[-1][1] if self.status is StageStatus.SUSPENDED else None
