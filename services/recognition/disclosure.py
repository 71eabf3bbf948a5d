"""What of a case, its events, results and tasks leaves this node for a caller: cut by policy, as every record is.

`services.recognition.reach` has decided before which case or result it may be at all. A stage as it stands is no record
of its own: it is computed from stage events, so of a stage a caller gets what it is given of the events.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2, stage_result_pb2
from services.kit import reader
from services.kit.caller import Caller
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.records.catalogue import Catalogue
from services.kit.records.values import Column
from services.recognition import messages
from services.recognition.casework import APPLICANT, Snapshot
from services.recognition.events import Event
from services.recognition.ledger import Head
from services.recognition.reach import ALL, Depth, Reached, shows
from services.recognition.stage_results import Result
from services.recognition.tasks import Task

CASE: Final = "recognition.Case"
EVENT: Final = "recognition.StageEvent"
RESULT: Final = "recognition.StageResult"
TASK: Final = "recognition.Task"

CREDENTIAL: Final = "credential"

CALLER: Final = "caller_agency"
"""Who reads, among the parameters that conditions may use."""

_BASE: Final = ("stage_code",)
_MOVES: Final = ("stage_code", "stage_event", "event_time")
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "code": _BASE,
    "title": _BASE,
    "local_title": _BASE,
    "agency": ("stage_code", "agency"),
    "status": ("stage_code", "stage_event"),
    "clock": _MOVES,
    "pause": (*_MOVES, "pause"),
    "pause_clock": (*_MOVES, "pause"),
    "ended_at": _MOVES,
    "late": _MOVES,
    "result_ref": (*_BASE, "result_ref"),
    "source_agency": (*_BASE, "source_agency"),
    "arrangement": (*_BASE, "arrangement"),
    "doubtful": _MOVES,
    "critical": _MOVES,
    "expected_by": _MOVES,
    "waits_for": _MOVES,
}
"""For each field of a stage view, the fields of stage events that it tells something of."""


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Disclosure:
    """What one caller is shown on the terms it stated."""

    case_mask: ReadMask
    event_mask: ReadMask
    result_mask: ReadMask
    task_mask: ReadMask
    params: Mapping[str, Column]

    @staticmethod
    def decide(
        engine: PolicyEngine, catalogue: Catalogue, caller: Caller, context: exchange_pb2.RequestContext
    ) -> "Disclosure":
        """Ask the policy; raises `InvalidArgument` where the context does not stand. Decide anew for every answer."""
        engine.check_context(context)
        case, event, result, task = (
            engine.mask(caller, context, catalogue.get(name)) for name in (CASE, EVENT, RESULT, TASK)
        )
        return Disclosure(case, event, result, task, engine.params(caller, context))

    def require_case(self) -> None:
        """Raise `PermissionDenied` where no case may be shown at all, whether or not there is one."""
        reader.require_any(self.case_mask)

    def require_event(self) -> None:
        """Raise `PermissionDenied` where no event may be shown at all."""
        reader.require_any(self.event_mask)

    def require_result(self) -> None:
        """Raise `PermissionDenied` where no result may be shown at all."""
        reader.require_any(self.result_mask)

    def require_task(self) -> None:
        """Raise `PermissionDenied` where no task may be shown at all."""
        reader.require_any(self.task_mask)

    def case(
        self, snapshot: Snapshot, reached: Reached = ALL, *, events: Callable[[Event], bool] | None = None
    ) -> case_service_pb2.CaseView:
        """Make a case as the caller may see it; `events` says which of its events to add, None adds none."""
        procedure, reckoning = snapshot.procedure, snapshot.reckoning
        view = case_service_pb2.CaseView(stages=self.stages(snapshot, reached))
        record = messages.case(snapshot.head, snapshot.state.submission)
        given = self._given(self.case_mask, record)
        if self._cut(self.case_mask, record) is None:
            return view
        view.case.CopyFrom(record)
        if "procedure_code" in given:
            view.title, view.local_title = procedure.title, procedure.local_title
        if "case_status" in given:
            view.version = snapshot.version
            messages.fill_reckoning(view, reckoning)
        if events is not None:
            found = (
                self.event(snapshot.head, number, event, reached)
                for number, event in enumerate(snapshot.events, 1)
                if events(event)
            )
            view.events.extend(event for event in found if event is not None)
        return view

    def event(self, head: Head, sequence: int, event: Event, reached: Reached = ALL) -> case_pb2.StageEvent | None:
        """Make an event as the caller may see it; None where it may see nothing of it."""
        if not shows(reached, event):
            return None
        return self._cut(self.event_mask, messages.event(head, sequence, event, self.params[CALLER]))

    def stages(self, snapshot: Snapshot, reached: Reached = ALL) -> list[case_service_pb2.StageView]:
        """Make the stages of a case as the caller may see them."""
        found: list[case_service_pb2.StageView] = []
        for code, stage in snapshot.procedure.stages.items():
            if code not in reached:
                continue
            view = messages.stage(snapshot, stage)
            # What conditions may look at: whose the stage is, and whose result stands in it.
            likeness = messages.event_like(snapshot, stage)
            given = self._given(self.event_mask, likeness)
            for field, needs in _NEEDS.items():
                if not given.issuperset(needs):
                    view.ClearField(cast("Any", field))
            if view.code:
                found.append(view)
        return found

    def result(self, result: Result, depth: Depth = Depth.FULL) -> stage_result_pb2.StageResult | None:
        """Make a result as the caller may see it; None where it may see nothing of it."""
        if depth is Depth.NOTHING:
            return None
        record = self._cut(self.result_mask, messages.result(result))
        if record is not None and depth is Depth.OUTLINE:
            record.ClearField(CREDENTIAL)
        return record

    def task(self, task: Task) -> stage_result_pb2.Task | None:
        """Make a task as the caller may see it; None where it may see nothing of it."""
        return self._cut(self.task_mask, messages.task(task))

    def holders(self, snapshot: Snapshot, view: case_service_pb2.CaseView) -> list[str]:
        """Say who holds a case, as far as the caller is told whose its stages are."""
        shown = {APPLICANT, *(stage.agency for stage in view.stages)}
        return [holder for holder in snapshot.state.held_by if holder in shown]

    def _given(self, mask: ReadMask, record: Message) -> frozenset[str]:
        """List the fields that are given as they stand of this record."""
        holding = dict(zip(mask.conditions, mask.truth(record, self.params), strict=True))
        return frozenset(p for p, g in mask.grants.items() if g.transform is None and holding[g.conditions])

    def _cut(self, mask: ReadMask, record: M) -> M | None:
        truth = mask.truth(record, self.params)
        if not any(truth):
            return None
        mask.cutter(truth)(record)
        return record
