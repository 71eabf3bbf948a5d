"""Short ways to ask a recognition node what its own programs would never ask, and to see how one is refused."""

import datetime as dt
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar, cast

import pytest
from google.protobuf.message import Message

from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import event_pb2
from hutong.api.recognition.v1 import case_service_pb2, result_service_pb2, stage_result_pb2
from services.kit.credentials import signed, strict
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError, Reason
from tests.recognition.mesh import CASES, RESULTS, TASKS, Mesh, context_of, fresh
from tests.zone import now

FOLLOW = "/hutong.api.exchange.v1.EventService/Follow"

R = TypeVar("R", bound=Message)

Told = tuple[str, str, str, dict[str, str]]
"""All that a refusal says: its kind, its reason, its message, its metadata."""


async def told(asking: Any) -> Told:
    """Await what must be refused, and give all that the refusal says."""
    with pytest.raises(HutongError) as caught:
        await asking
    error = caught.value
    return type(error).__name__, str(error.reason), error.message, dict(error.metadata)


async def why(asking: Any) -> Reason:
    """Await what must be refused, and give the reason."""
    return Reason((await told(asking))[1])


async def call(mesh: Mesh, who: str, method: str, request: Message, response: type[R]) -> R:
    return await mesh.client(who).unary(method, request, response, timeout=10)


async def get_result(mesh: Mesh, who: str, ref: str) -> stage_result_pb2.StageResult:
    request = result_service_pb2.GetResultRequest(result_ref=ref, context=context_of(who))
    return (await call(mesh, who, f"{RESULTS}GetResult", request, result_service_pb2.GetResultResponse)).result


async def list_results(mesh: Mesh, who: str, subject: str, **more: Any) -> result_service_pb2.ListResultsResponse:
    about = common_pb2.SubjectId(scheme="cn.uscc", value=subject)
    request = result_service_pb2.ListResultsRequest(subject=about, context=context_of(who), **more)
    answer = await call(mesh, who, f"{RESULTS}ListResults", request, result_service_pb2.ListResultsResponse)
    # Each answer was logged by itself; what it says is what is compared.
    answer.ClearField("receipt")
    return answer


async def revoke(mesh: Mesh, who: str, ref: str, **more: Any) -> result_service_pb2.RevokeResultResponse:
    said: dict[str, Any] = {"request_id": fresh(), "reason_code": "ISSUED_IN_ERROR"} | more
    request = result_service_pb2.RevokeResultRequest(result_ref=ref, **said)
    return await call(mesh, who, f"{RESULTS}RevokeResult", request, result_service_pb2.RevokeResultResponse)


async def reserve(mesh: Mesh, who: str, ref: str) -> result_service_pb2.ReserveStatusResponse:
    request = result_service_pb2.ReserveStatusRequest(result_ref=ref)
    return await call(mesh, who, f"{RESULTS}ReserveStatus", request, result_service_pb2.ReserveStatusResponse)


async def register(mesh: Mesh, who: str, credential: str) -> stage_result_pb2.StageResult:
    request = result_service_pb2.RegisterResultRequest(credential=credential)
    return (
        await call(mesh, who, f"{RESULTS}RegisterResult", request, result_service_pb2.RegisterResultResponse)
    ).result


async def status_list(mesh: Mesh, who: str, uri: str) -> str:
    request = result_service_pb2.GetStatusListRequest(uri=uri)
    return (await call(mesh, who, f"{RESULTS}GetStatusList", request, result_service_pb2.GetStatusListResponse)).token


async def keys(mesh: Mesh, who: str, agency: str) -> str:
    request = result_service_pb2.GetKeysRequest(agency=agency)
    return (await call(mesh, who, f"{RESULTS}GetKeys", request, result_service_pb2.GetKeysResponse)).jwks


async def list_tasks(mesh: Mesh, who: str, **more: Any) -> result_service_pb2.ListTasksResponse:
    request = result_service_pb2.ListTasksRequest(**more)
    return await call(mesh, who, f"{TASKS}ListTasks", request, result_service_pb2.ListTasksResponse)


async def dispose(mesh: Mesh, who: str, task_id: str, **more: Any) -> stage_result_pb2.Task:
    said: dict[str, Any] = {"disposition": stage_result_pb2.DISPOSITION_UPHELD, "reason_code": "DECISION_STANDS"}
    request = result_service_pb2.DisposeTaskRequest(task_id=task_id, **(said | more))
    return (await call(mesh, who, f"{TASKS}DisposeTask", request, result_service_pb2.DisposeTaskResponse)).task


async def remind(
    mesh: Mesh, who: str, case_id: str, stage: str = "", **more: Any
) -> case_service_pb2.RemindStageResponse:
    said: dict[str, Any] = {"request_id": fresh()} | more
    request = case_service_pb2.RemindStageRequest(case_id=case_id, stage_code=stage, **said)
    return await call(mesh, who, f"{CASES}RemindStage", request, case_service_pb2.RemindStageResponse)


async def followed(mesh: Mesh, who: str, after: int = 0) -> event_pb2.FollowResponse:
    """Give the first batch of events that a caller is sent."""
    request, response = event_pb2.FollowRequest(after=after), event_pb2.FollowResponse
    stream = mesh.client(who).stream(FOLLOW, request, response, timeout=10)
    async with aclosing(cast("AsyncGenerator[event_pb2.FollowResponse]", stream)) as batches:
        return await anext(batches)


async def watched(mesh: Mesh, who: str, case_id: str, after: int = 0) -> case_service_pb2.WatchCaseResponse:
    """Give the first word of a watch."""
    async with aclosing(mesh.watch(who, case_id, after)) as watch:
        return await anext(watch)


def resigned(
    credential: str,
    keys: SigningKeys,
    header: dict[str, Any] | None = None,
    at: dt.datetime | None = None,
    **claims: Any,
) -> str:
    """Sign a credential anew with an agency's key of now, with other header parameters or claims; None takes away."""
    token, *disclosures = credential.split("~")
    old_header, old_payload = (strict.loads(strict.decode(part)) for part in token.split(".")[:2])
    signing = keys.active(at or now())
    payload = {name: value for name, value in {**old_payload, **claims}.items() if value is not None}
    head = {name: value for name, value in {**old_header, "kid": signing.kid, **(header or {})}.items() if value}
    head.pop("alg", None)
    return "~".join((signed.sign(head, payload, signing.key), *disclosures))
