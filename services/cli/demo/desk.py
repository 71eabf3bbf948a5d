"""Whoever works on a case in the story, or follows it: a system with its certificate, at the recognition service."""

import datetime as dt
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from certs.authority import Authority
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_pb2, case_service_pb2, result_service_pb2, stage_result_pb2
from services.cli.approval import CASES, RESULTS, TASKS, Way
from services.cli.cases import certifying
from services.cli.demo.stage import Stage
from services.cli.question import Door
from services.cli.rooms import RECOGNITION
from services.kit.client import Client
from services.kit.errors import HutongError

R = TypeVar("R", bound=Message)

INBOX = f"/{event_pb2.DESCRIPTOR.services_by_name['InboxService'].full_name}"
PASS = case_pb2.RESULT_CODE_PASS

_WAIT = 10.0


@dataclass(frozen=True, slots=True)
class Desk:
    """A system that calls the recognition service."""

    stage: Stage
    caller: str
    way: Way
    client: Client

    @classmethod
    def of(cls, stage: Stage, caller: str) -> "Desk":
        """Open a desk; a system that has no certificate yet gets one."""
        zone, fleet = stage.zone, stage.fleet
        if not zone.credentials(caller).certificate.exists():
            Authority.open(zone.certificates.folder).issue(zone.identity(caller), dt.datetime.now(dt.UTC))
        node = zone.identity(fleet.nodes[RECOGNITION].identity)
        way = Way(Door(fleet.address(RECOGNITION), node, zone.credentials(caller)), caller)
        return cls(stage, caller, way, fleet.client(caller, RECOGNITION))

    async def call(self, method: str, request: Message, response: type[R]) -> R:
        """Make one call; raises the `HutongError` that it is answered with."""
        return await self.client.unary(method, request, response, timeout=_WAIT)

    async def submit(
        self, procedure: str, uscc: str, applied_at: dt.datetime | None = None
    ) -> case_service_pb2.CaseView:
        """Hand an application in."""
        request = case_service_pb2.SubmitCaseRequest(
            request_id=_fresh(),
            procedure_code=procedure,
            subject=common_pb2.SubjectId(scheme="cn.uscc", value=uscc),
        )
        if applied_at is not None:
            request.applied_at.FromDatetime(applied_at)
        return (await self.call(f"{CASES}/SubmitCase", request, case_service_pb2.SubmitCaseResponse)).view

    async def event(
        self, case_id: str, stage: str, kind: str, *, at: dt.datetime | None = None, **said: Any
    ) -> case_service_pb2.AppendStageEventResponse:
        """Say what has happened: `event(case, "E4", "START")`."""
        request = case_service_pb2.AppendStageEventRequest(
            case_id=case_id,
            stage_event_id=_fresh(),
            stage_code=stage,
            stage_event=case_pb2.StageEventKind.Value(f"STAGE_EVENT_KIND_{kind}"),
            **said,
        )
        if at is not None:
            request.event_time.FromDatetime(at)
        return await self._append(request)

    async def passes(
        self, case_id: str, stage: str, *, at: dt.datetime | None = None, officer: str = "", **value: object
    ) -> str:
        """Pass a stage, with a result signed by the agency's own key where it proves a fact; gives the credential."""
        request = case_service_pb2.AppendStageEventRequest(
            case_id=case_id,
            stage_event_id=_fresh(),
            stage_code=stage,
            stage_event=case_pb2.STAGE_EVENT_KIND_RESULT,
            result_code=PASS,
            officer=officer,
        )
        if at is not None:
            request.event_time.FromDatetime(at)
        request.credential = await certifying.certify(self.client, self.way, self.stage.zone, request, value)
        await self._append(request)
        return request.credential

    async def _append(
        self, request: case_service_pb2.AppendStageEventRequest
    ) -> case_service_pb2.AppendStageEventResponse:
        return await self.call(f"{CASES}/AppendStageEvent", request, case_service_pb2.AppendStageEventResponse)

    async def case(self, case_id: str) -> case_service_pb2.CaseView:
        """Look at a case."""
        request = case_service_pb2.GetCaseRequest(case_id=case_id, context=self.way.context())
        return (await self.call(f"{CASES}/GetCase", request, case_service_pb2.GetCaseResponse)).view

    async def progress(self, case_id: str) -> case_service_pb2.GetProgressResponse:
        """Follow a case."""
        request = case_service_pb2.GetProgressRequest(case_id=case_id, context=self.way.context())
        return await self.call(f"{CASES}/GetProgress", request, case_service_pb2.GetProgressResponse)

    async def remind(self, case_id: str, stage: str) -> case_service_pb2.RemindStageResponse:
        """Remind whoever holds a stage."""
        request = case_service_pb2.RemindStageRequest(request_id=_fresh(), case_id=case_id, stage_code=stage)
        return await self.call(f"{CASES}/RemindStage", request, case_service_pb2.RemindStageResponse)

    async def tasks(self, case_id: str) -> list[stage_result_pb2.Task]:
        """List the open tasks of a case."""
        request = result_service_pb2.ListTasksRequest(case_id=case_id)
        return [*(await self.call(f"{TASKS}/ListTasks", request, result_service_pb2.ListTasksResponse)).tasks]

    async def dispose(self, task: stage_result_pb2.Task, disposition: str, reason: str) -> stage_result_pb2.Task:
        """Say what was done about a task."""
        request = result_service_pb2.DisposeTaskRequest(
            task_id=task.task_id,
            disposition=stage_result_pb2.Disposition.Value(f"DISPOSITION_{disposition}"),
            reason_code=reason,
        )
        return (await self.call(f"{TASKS}/DisposeTask", request, result_service_pb2.DisposeTaskResponse)).task

    async def revoke(self, ref: str, reason: str) -> int:
        """Revoke a result; gives how many tasks that raises."""
        request = result_service_pb2.RevokeResultRequest(request_id=_fresh(), result_ref=ref, reason_code=reason)
        return (await self.call(f"{RESULTS}/RevokeResult", request, result_service_pb2.RevokeResultResponse)).tasks

    async def status_list(self, uri: str) -> str:
        """Fetch a status list, as anybody may."""
        request = result_service_pb2.GetStatusListRequest(uri=uri)
        return (await self.call(f"{RESULTS}/GetStatusList", request, result_service_pb2.GetStatusListResponse)).token

    async def inbox(self, case_id: str) -> list[event_pb2.Event]:
        """List what the agency's own node has received about a case."""
        agency = self.caller.partition("/")[0]
        client = self.stage.client(self.caller, agency)
        request = event_pb2.ListInboxEventsRequest(key=case_id, page_size=200)
        method = f"{INBOX}/ListInboxEvents"
        return [*(await client.unary(method, request, event_pb2.ListInboxEventsResponse, timeout=_WAIT)).events]


async def refusal(doing: Awaitable[object]) -> HutongError | None:
    """Do what must be refused; gives the refusal, None where it was done."""
    try:
        await doing
    except HutongError as error:
        return error
    return None


def stage_of(view: case_service_pb2.CaseView, code: str) -> case_service_pb2.StageView:
    """Find a stage of a case."""
    return next(stage for stage in view.stages if stage.code == code)


def _fresh() -> str:
    return str(uuid.uuid4())
