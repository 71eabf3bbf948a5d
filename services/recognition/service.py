"""`CaseService`: cases, over the wire.

Of every call, in this order: what it says of itself must stand; the policy must give this caller anything of the kind;
the case must be one that the caller reaches; and what is answered is cut.
"""

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final

from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.caller import Caller, own_subject
from services.kit.clock import Clock
from services.kit.errors import PermissionDenied, Reason
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call
from services.recognition import asked, noting
from services.recognition.cases import Cases
from services.recognition.casework import APPLICANT, Snapshot
from services.recognition.disclosure import Disclosure
from services.recognition.door import Door
from services.recognition.events import Event, Kind
from services.recognition.ledger import Head, Selection
from services.recognition.procedures import Procedures
from services.recognition.reach import Reached
from services.recognition.watching import Watching

_SCAN: Final = 1000
"""Most cases looked at for one page: lights are computed, and cannot be asked of the store."""

_BATCH: Final = 100

_INWARD: Final = frozenset({Kind.REMIND, Kind.RECOMPUTE})
"""Events that are the agencies' business; progress tells how many reminders there were."""


class CaseService:
    """`CaseService`."""

    def __init__(
        self, cases: Cases, procedures: Procedures, door: Door, watching: Watching, pages: PageTokens, clock: Clock
    ) -> None:
        self._cases = cases
        self._procedures = procedures
        self._door = door
        self._watching = watching
        self._pages = pages
        self._clock = clock

    async def submit_case(self, request: pb.SubmitCaseRequest, call: Call) -> pb.SubmitCaseResponse:
        """Begin a case.

        Raises `PermissionDenied` SUBJECT_NOT_OWN where an enterprise applies for another one, EVENT_WRONG_AGENCY where
        an agency takes no part in the procedure.
        """
        application = asked.application(request, call.caller.path)
        call.facts.asked(call.caller, self._door.terms.of(call.caller), (application.scheme, application.subject))
        subject = own_subject(call.caller)
        if subject is None:
            self._take_part(application.procedure, call.caller)
        elif subject != (application.scheme, application.subject):
            raise PermissionDenied(Reason.SUBJECT_NOT_OWN, "an enterprise applies for itself")
        snapshot = await self._cases.submit(application)
        shown = self._door.usual(call.caller)
        view = shown.case(snapshot, events=_every)
        noting.cases(call.facts, shown, [(snapshot.head, view)])
        return pb.SubmitCaseResponse(view=view)

    def _take_part(self, code: str, caller: Caller) -> None:
        """Raise `PermissionDenied` where an agency has no stage of a procedure."""
        procedure = self._procedures.in_force(code, self._clock())
        if caller.agency not in procedure.takes_part:
            raise PermissionDenied(Reason.EVENT_WRONG_AGENCY, "this agency takes no part in the procedure")

    async def append_stage_event(self, request: pb.AppendStageEventRequest, call: Call) -> pb.AppendStageEventResponse:
        """Append an event to a case that the caller reaches; the rest is for the rules to say."""
        call.facts.stated(self._door.terms.of(call.caller))
        reached = await self._door.reached(call.caller, asked.case_id(request.case_id))
        call.facts.about((reached.head.scheme, reached.head.subject))
        applicant = own_subject(call.caller) is not None
        appended = await self._cases.append(
            request.case_id,
            asked.act(request, applicant=applicant),
            agency=APPLICANT if applicant else call.caller.agency,
            expected_version=request.expected_version if request.HasField("expected_version") else None,
            enterprise=applicant,
        )
        shown = self._door.usual(call.caller)
        event = shown.event(reached.head, appended.sequence, appended.event)
        noting.events(call.facts, shown, reached.head, int(event is not None))
        return pb.AppendStageEventResponse(event=event, version=appended.version, duplicate=appended.duplicate)

    async def get_case(self, request: pb.GetCaseRequest, call: Call) -> pb.GetCaseResponse:
        """Get a case with its stages and events."""
        shown = self._door.decide(call.caller, request.context)
        shown.require_case()
        snapshot, reached = await self._snapshot(call, request.case_id)
        view = shown.case(snapshot, reached, events=_every)
        noting.cases(call.facts, shown, [(snapshot.head, view)])
        return pb.GetCaseResponse(view=view)

    async def get_progress(self, request: pb.GetProgressRequest, call: Call) -> pb.GetProgressResponse:
        """Get a case as its applicant follows it."""
        shown = self._door.decide(call.caller, request.context)
        shown.require_case()
        snapshot, reached = await self._snapshot(call, request.case_id)
        view = shown.case(snapshot, reached, events=lambda event: event.kind not in _INWARD)
        noting.cases(call.facts, shown, [(snapshot.head, view)])
        return pb.GetProgressResponse(
            view=view, held_by=shown.holders(snapshot, view), reminders=snapshot.state.reminded
        )

    async def _snapshot(self, call: Call, case_id: str) -> tuple[Snapshot, Reached]:
        reached = await self._door.reached(call.caller, asked.case_id(case_id))
        call.facts.about((reached.head.scheme, reached.head.subject))
        return await self._cases.get(case_id), reached.part

    async def list_cases(self, request: pb.ListCasesRequest, call: Call) -> pb.ListCasesResponse:
        """List the cases a caller reaches, the newest application first, without their events.

        Where lights are asked for, a page may hold fewer than there is room for, and others may follow.
        """
        shown = self._door.decide(call.caller, request.context)
        shown.require_case()
        wanted = asked.listing(request)
        call.facts.about(wanted.subject)
        binding = (call.caller.spiffe_id, request.context.SerializeToString(deterministic=True).hex(), *wanted.binding)
        selection = await self._selection(call.caller, wanted)
        response, heads = pb.ListCasesResponse(), list[Head]()
        if selection is not None:
            after = self._after(request.page_token, binding)
            after = await self._fill(response, heads, shown, call.caller, selection, wanted, request.page_size, after)
            if after is not None:
                response.next_page_token = self._pages.seal(after[1], after[0], binding)
        noting.cases(call.facts, shown, zip(heads, response.cases, strict=True))
        return response

    async def _fill(
        self,
        response: pb.ListCasesResponse,
        heads: list[Head],
        shown: Disclosure,
        caller: Caller,
        selection: Selection,
        wanted: asked.Listing,
        asked_size: int,
        after: tuple[dt.datetime, str] | None,
    ) -> tuple[dt.datetime, str] | None:
        """Fill a page with cases, and `heads` with theirs; gives where to go on, None where there is no more."""
        size, looked = self._pages.size(asked_size), 0
        while len(response.cases) < size and looked < _SCAN:
            found = await self._cases.list(selection, limit=_BATCH, after=after)
            parts = await self._door.parts(caller, [snapshot.head for snapshot in found])
            for snapshot in found:
                looked += 1
                after = (snapshot.head.applied_at, snapshot.case_id)
                part = parts.get(snapshot.case_id)
                if part is not None and wanted.light in {None, snapshot.reckoning.light}:
                    response.cases.append(shown.case(snapshot, part))
                    heads.append(snapshot.head)
                if len(response.cases) == size:
                    break
            else:
                if len(found) < _BATCH:
                    return None
        return after

    async def _selection(self, caller: Caller, wanted: asked.Listing) -> Selection | None:
        """Select the cases a caller reaches and asks for; none where it asks about somebody else than it may."""
        reached = await self._door.selection(caller)
        if wanted.subject is not None:
            if reached.subject and wanted.subject != (reached.scheme, reached.subject):
                return None
            reached = replace(reached, scheme=wanted.subject[0], subject=wanted.subject[1])
        return replace(reached, procedure_code=wanted.procedure_code, status=wanted.status)

    def _after(self, token: str, binding: tuple[str, ...]) -> tuple[dt.datetime, str] | None:
        if not token:
            return None
        cursor = self._pages.open(token, binding)
        return None if cursor.as_of is None else (cursor.as_of, cursor.key)

    def watch_case(self, request: pb.WatchCaseRequest, call: Call) -> AsyncIterator[pb.WatchCaseResponse]:
        """Stream a case's events; see `Watching`."""
        return self._watching.watch_case(request, call)

    async def remind_stage(self, request: pb.RemindStageRequest, call: Call) -> pb.RemindStageResponse:
        """Remind whoever holds a stage of a case that the caller reaches."""
        call.facts.stated(self._door.terms.of(call.caller))
        reached = await self._door.reached(call.caller, request.case_id)
        call.facts.about((reached.head.scheme, reached.head.subject))
        stage = asked.text(request.stage_code, "stage_code")
        if reached.part.stages is not None and stage not in reached.part:
            raise asked.no_case()
        reminded = await self._cases.remind(
            request.case_id, stage, request_id=request.request_id, caller=call.caller.path
        )
        shown = self._door.usual(call.caller)
        events = [shown.event(reached.head, number, event) for number, event in reminded]
        given = [event for event in events if event is not None]
        noting.events(call.facts, shown, reached.head, len(given))
        return pb.RemindStageResponse(events=given)


def _every(_event: Event) -> bool:
    return True
