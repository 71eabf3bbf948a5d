"""Signs the result of a stage where the agency's keys lie: the entry of the status list first, then the credential."""

import datetime as dt
import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from hutong.api.recognition.v1 import case_pb2, case_service_pb2, result_service_pb2
from services.cli.approval import CASES, RESULTS, WAIT, Way
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.clock import system_clock
from services.kit.credentials import results
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.results import Statement
from services.kit.errors import InvalidArgument, Reason
from services.recognition.calendars import Calendars
from services.recognition.procedure import Fact
from services.recognition.procedures import Procedures

_REFS: Final = uuid.UUID("5f2b8d0e-6a1c-4f57-9d3e-0c8e7a94b1d2")
"""Namespace of the references that are made here."""


async def certify(
    client: Client,
    way: Way,
    zone: Zone,
    request: case_service_pb2.AppendStageEventRequest,
    values: Mapping[str, object],
) -> str:
    """Sign the result that a request is about; empty where its stage proves no fact.

    Raises the `HutongError` of the service, or of the keys.
    """
    asked = case_service_pb2.GetCaseRequest(case_id=request.case_id, context=way.context())
    view = (await client.unary(f"{CASES}/GetCase", asked, case_service_pb2.GetCaseResponse, timeout=WAIT)).view
    case, issuer = view.case, way.caller.partition("/")[0]
    fact = _fact(zone, case, request.stage_code)
    if fact is None:
        return ""
    now = request.event_time.ToDatetime(dt.UTC) if request.HasField("event_time") else system_clock()
    statement = Statement(
        ref=reference(issuer, case.case_id, request.stage_code, _last(view, request.stage_code)),
        issuer=issuer,
        scheme="cn.uscc" if case.subject_uscc else "hutong.token",
        subject=case.subject_uscc or case.subject_token,
        fact=fact.code,
        assurance=fact.assurance,
        issued_at=system_clock(),
        valid_from=now,
        valid_until=fact.until(now),
        value=dict(values),
        case_id=case.case_id,
        stage=request.stage_code,
    )
    try:
        return await sign(client, zone, statement)
    except InvalidArgument as error:
        if error.reason != Reason.RESULT_ID_REUSED:
            raise
        # Somebody else has reserved what could be worked out: any other reference does as well.
        return await sign(client, zone, replace(statement, ref=str(uuid.uuid4())))


def reference(issuer: str, case_id: str, stage: str, last: int) -> str:
    """Give a result its reference: the same until something happens in its stage; `last` is the stage's last event.

    An entry is reserved before anybody can tell whether the event will be taken. Tried again, it is there already.
    """
    return str(uuid.uuid5(_REFS, f"{issuer} {case_id} {stage} {last}"))


def _last(view: case_service_pb2.CaseView, stage: str) -> int:
    return max((event.sequence for event in view.events if event.stage_code == stage), default=0)


async def sign(client: Client, zone: Zone, statement: Statement, disclosable: Collection[str] | None = None) -> str:
    """Reserve the entry of a statement's status and sign it with its issuer's key."""
    keys = SigningKeys.open(zone.signing(statement.issuer))
    asked = result_service_pb2.ReserveStatusRequest(result_ref=statement.ref)
    entry = await client.unary(
        f"{RESULTS}/ReserveStatus", asked, result_service_pb2.ReserveStatusResponse, timeout=WAIT
    )
    return results.issue(replace(statement, status_uri=entry.uri, status_index=entry.index), keys, disclosable)


def _fact(zone: Zone, case: case_pb2.Case, stage: str) -> Fact | None:
    settings = zone.recognition()
    calendars = Calendars.load(settings.calendars)
    known = Procedures.load(settings.procedures, calendars=[*calendars], demands=False)
    return known.get(f"{case.procedure_code}@{case.procedure_version}").stage(stage).proves
