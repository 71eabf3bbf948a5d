"""`ResultService` and `TaskService`: stage results and what follows from them, over the wire."""

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Final

import sqlalchemy as sa

from hutong.api.recognition.v1 import result_service_pb2 as pb
from hutong.api.recognition.v1 import stage_result_pb2
from services.kit import reader
from services.kit.caller import Caller, own_subject
from services.kit.clock import Clock
from services.kit.errors import InvalidArgument, NotFound, Reason
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call
from services.recognition import asked, noting, stage_results
from services.recognition.codec import timestamp
from services.recognition.disclosure import Disclosure
from services.recognition.door import Door
from services.recognition.events import Assurance
from services.recognition.reach import Depth
from services.recognition.registry import Change
from services.recognition.results import Results
from services.recognition.stage_results import Result, State
from services.recognition.tasks import Disposition, Task

_BATCH: Final = 100

_SCAN: Final = 1000
"""Most results looked at for one page: which of them a caller reaches is not in their rows."""

_DISPOSITIONS: Final = {d.value: d for d in Disposition}


class ResultService:
    """`ResultService`."""

    def __init__(self, results: Results, door: Door, pages: PageTokens, clock: Clock) -> None:
        self._results = results
        self._door = door
        self._pages = pages
        self._clock = clock

    async def reserve_status(self, request: pb.ReserveStatusRequest, call: Call) -> pb.ReserveStatusResponse:
        """Reserve the entry of a result that the caller's agency will sign."""
        found = await self._results.reserve(call.caller.agency, request.result_ref)
        return pb.ReserveStatusResponse(uri=found.uri, index=found.index)

    async def register_result(self, request: pb.RegisterResultRequest, call: Call) -> pb.RegisterResultResponse:
        """Register a result of the caller's agency."""
        call.facts.stated(self._door.terms.of(call.caller))
        entered = await self._results.register(call.caller.agency, request.credential)
        call.facts.about((entered.result.scheme, entered.result.subject))
        shown = self._door.usual(call.caller)
        record = shown.result(entered.result)
        noting.results(call.facts, shown, [] if record is None else [entered.result])
        return pb.RegisterResultResponse(result=record)

    async def get_result(self, request: pb.GetResultRequest, call: Call) -> pb.GetResultResponse:
        """Get a result that the caller reaches."""
        shown = self._door.decide(call.caller, request.context)
        shown.require_result()
        result = await self._reached(call.caller, _ref(request.result_ref))
        record = None if result is None else shown.result(*result)
        if result is None or record is None:
            raise _no_result()
        call.facts.about((result[0].scheme, result[0].subject))
        noting.results(call.facts, shown, [result[0]])
        return pb.GetResultResponse(result=record)

    async def _reached(self, caller: Caller, ref: str) -> tuple[Result, Depth] | None:
        """Find a result, and how much of it a caller reaches."""
        now = self._clock()

        def work(connection: sa.Connection) -> tuple[Result, Depth] | None:
            result = stage_results.find(connection, ref)
            # As much is looked at where there is none: how long an answer takes must not tell either.
            looked = result or _none(ref, now)
            depth = self._door.results.depths(connection, caller, [looked], now)[ref]
            return None if result is None else (result, depth)

        return await self._door.database.read(work, short=True)

    async def list_results(self, request: pb.ListResultsRequest, call: Call) -> pb.ListResultsResponse:
        """List the results about a subject that the caller reaches, the newest first."""
        shown = self._door.decide(call.caller, request.context)
        shown.require_result()
        subject = reader.subject_of(request.subject.scheme, request.subject.value, request.subject.as_written)
        fact = asked.text(request.fact_code, "fact_code")
        stated = request.context.SerializeToString(deterministic=True).hex()
        binding = (call.caller.spiffe_id, stated, *subject, fact)
        size, response, looked = self._pages.size(request.page_size), pb.ListResultsResponse(), 0
        after = self._after(request.page_token, binding)
        call.facts.about(subject)
        if (own := own_subject(call.caller)) is not None and own != subject:
            noting.results(call.facts, shown, ())
            return response
        given: list[Result] = []
        while len(response.results) < size and looked < _SCAN:
            found = await self._results.of_subject(*subject, fact=fact, after=after, limit=_BATCH)
            looked += len(found)
            last = await self._add(response, given, found, size, shown, call.caller)
            after = (last.issued_at, last.result_ref) if last else after
            if len(found) < _BATCH and (not found or last is found[-1]):
                after = None
                break
        noting.results(call.facts, shown, given)
        if after is not None:
            response.next_page_token = self._pages.seal(after[1], after[0], binding)
        return response

    async def _add(
        self,
        response: pb.ListResultsResponse,
        given: list[Result],
        found: list[Result],
        size: int,
        shown: Disclosure,
        caller: Caller,
    ) -> Result | None:
        """Fill a page with what is shown of some results; gives the last that was looked at."""
        depths, last = await self._depths(caller, found), None
        for result in found:
            if len(response.results) == size:
                break
            last = result
            record = shown.result(result, depths[result.result_ref])
            if record is not None:
                response.results.append(record)
                given.append(result)
        return last

    def _after(self, token: str, binding: tuple[str, ...]) -> tuple[dt.datetime, str] | None:
        if not token:
            return None
        cursor = self._pages.open(token, binding)
        return None if cursor.as_of is None else (cursor.as_of, cursor.key)

    async def _depths(self, caller: Caller, results: Collection[Result]) -> Mapping[str, Depth]:
        now = self._clock()
        return await self._door.database.read(lambda c: self._door.results.depths(c, caller, results, now))

    async def revoke_result(self, request: pb.RevokeResultRequest, call: Call) -> pb.RevokeResultResponse:
        """Revoke, suspend or reinstate a result of the caller's own agency; raises `NotFound` for others'."""
        if request.suspend and request.reinstate:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "suspend or reinstate, not both")
        call.facts.stated(self._door.terms.of(call.caller))
        changed = await self._results.change(
            call.caller.agency,
            _ref(request.result_ref),
            asked.text(request.reason_code, "reason_code"),
            Change.SUSPEND if request.suspend else Change.REINSTATE if request.reinstate else Change.REVOKE,
            request_id=request.request_id,
            officer=asked.text(request.officer, "officer"),
        )
        call.facts.about((changed.result.scheme, changed.result.subject))
        shown = self._door.usual(call.caller)
        record = shown.result(changed.result)
        noting.results(call.facts, shown, [] if record is None else [changed.result])
        return pb.RevokeResultResponse(result=record, tasks=len(changed.tasks))

    async def get_keys(self, request: pb.GetKeysRequest, call: Call) -> pb.GetKeysResponse:
        """Get an agency's published keys."""
        return pb.GetKeysResponse(jwks=self._results.keys(asked.text(request.agency, "agency")))

    async def get_status_list(self, request: pb.GetStatusListRequest, call: Call) -> pb.GetStatusListResponse:
        """Get a status list, signed now."""
        return pb.GetStatusListResponse(token=await self._results.status_list(asked.text(request.uri, "uri")))


class TaskService:
    """`TaskService`: every agency's own tasks, and nobody else's."""

    def __init__(self, results: Results, door: Door, pages: PageTokens, clock: Clock) -> None:
        self._results = results
        self._door = door
        self._pages = pages
        self._clock = clock

    async def list_tasks(self, request: pb.ListTasksRequest, call: Call) -> pb.ListTasksResponse:
        """List tasks of the caller's agency, the soonest due first."""
        call.facts.stated(self._door.terms.of(call.caller))
        shown = self._door.usual(call.caller)
        shown.require_task()
        case_id = asked.text(request.case_id, "case_id")
        binding = (call.caller.spiffe_id, "tasks", str(request.disposed), case_id)
        size = self._pages.size(request.page_size)
        after = self._pages.open(request.page_token, binding).key if request.page_token else ""
        found = await self._results.tasks(
            call.caller.agency, disposed=request.disposed, case_id=case_id, after=after, limit=size + 1
        )
        response = pb.ListTasksResponse(as_of=timestamp(self._clock()))
        response.tasks.extend(_shown(shown, found[:size]))
        noting.tasks(call.facts, shown, response.tasks)
        if len(found) > size:
            response.next_page_token = self._pages.seal(found[size - 1].key, None, binding)
        return response

    async def dispose_task(self, request: pb.DisposeTaskRequest, call: Call) -> pb.DisposeTaskResponse:
        """Dispose of a task of the caller's agency; raises `NotFound` for others'."""
        call.facts.stated(self._door.terms.of(call.caller))
        shown = self._door.usual(call.caller)
        shown.require_task()
        named = asked.named(stage_result_pb2.Disposition.DESCRIPTOR, request.disposition, _DISPOSITIONS)
        if named is None:
            raise InvalidArgument(Reason.DISPOSITION_INVALID, "say what was done: disposition")
        task = await self._results.dispose(
            call.caller.agency,
            _task(request.task_id),
            named,
            reason=asked.text(request.reason_code, "reason_code"),
            officer=asked.text(request.officer, "officer"),
        )
        record = shown.task(task)
        noting.tasks(call.facts, shown, [record])
        return pb.DisposeTaskResponse(task=record)


def _shown(shown: Disclosure, tasks: Collection[Task]) -> list[stage_result_pb2.Task]:
    return [record for record in map(shown.task, tasks) if record is not None]


def _ref(value: str) -> str:
    if not value or len(value) > asked.MOST_TEXT or not value.isprintable():
        raise _no_result()
    return value


def _no_result() -> NotFound:
    return NotFound(Reason.RESULT_NOT_FOUND, "there is no such result")


def _none(ref: str, now: dt.datetime) -> Result:
    """Make a result that nobody reaches, to stand for one that is not there."""
    return Result(
        ref, ref, "", "", "", "", "", Assurance.AUTO, now, now, None, State.VALID, "", now, credential="", key_id=""
    )


def _task(value: str) -> str:
    if not value or len(value) > asked.MOST_TEXT or not value.isprintable():
        raise NotFound(Reason.TASK_NOT_FOUND, "there is no such task of this agency")
    return value
