"""Results that are handed in with events: only what the stage has to give, signed by whom it is from, is taken."""

import datetime as dt
from typing import Any

import pytest

from services.kit.errors import Reason
from services.recognition.events import Kind, ResultCode
from tests.recognition.desk import START, Bed
from tests.recognition.test_cases import OTHER, accepted, refused


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"subject": OTHER}, Reason.RESULT_SUBJECT),
        ({"fact": "tax_clear"}, Reason.RESULT_FACT),
        ({"assurance": "FORM_REVIEW"}, Reason.RESULT_FACT),
        ({"case_id": "DEMO-20260921-00000000"}, Reason.RESULT_SUBJECT),
        ({"stage": "C"}, Reason.RESULT_SUBJECT),
        ({"valid_until": START - dt.timedelta(seconds=1), "valid_from": START - dt.timedelta(days=2)}, None),
        ({"valid_from": START + dt.timedelta(hours=1)}, Reason.RESULT_NOT_YET_VALID),
        ({"status_index": 1, "status_uri": "urn:hutong:status:customs:1"}, Reason.STATUS_LIST_INVALID),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(v) if v else "expired",
)
async def test_a_result_that_is_not_this_stages(bed: Bed, changed: dict[str, Any], reason: Reason | None) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    credential = await bed.sign(case, case.procedure.stage("B"), **changed)
    said: dict[str, Any] = {"result": ResultCode.PASS, "credential": credential}
    error = await refused(bed, case.case_id, Kind.RESULT, "B", "publicsecurity", **said)
    assert error.reason is (reason or Reason.RESULT_EXPIRED)


async def test_a_result_that_was_altered(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    credential = await bed.sign(case, case.procedure.stage("B"))
    head, _, tail = credential.partition(".")
    altered = f"{head}.{'f' if tail[20] != 'f' else 'g'}{tail[1:]}"
    said: dict[str, Any] = {"result": ResultCode.PASS, "credential": altered}
    error = await refused(bed, case.case_id, Kind.RESULT, "B", "publicsecurity", **said)
    assert error.reason in {Reason.RESULT_SIGNATURE, Reason.RESULT_MALFORMED, Reason.RESULT_ISSUER}


async def test_a_result_of_another_agency(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "C", "taxation")
    theirs = await bed.sign(case, case.procedure.stage("B"))
    said: dict[str, Any] = {"result": ResultCode.PASS, "credential": theirs}
    error = await refused(bed, case.case_id, Kind.RESULT, "C", "taxation", **said)
    assert error.reason is Reason.RESULT_ISSUER


async def test_what_proves_nothing_takes_no_result(bed: Bed) -> None:
    case = await accepted(bed)
    await bed.act(case.case_id, Kind.START, "B", "publicsecurity")
    credential = await bed.sign(case, case.procedure.stage("B"))
    said: dict[str, Any] = {"result": ResultCode.FAIL, "reason": "CONDITIONS_NOT_MET", "credential": credential}
    error = await refused(bed, case.case_id, Kind.RESULT, "B", "publicsecurity", **said)
    assert error.reason is Reason.RESULT_FACT
    error = await refused(bed, case.case_id, Kind.RESULT, "B", "publicsecurity", result=ResultCode.PASS)
    assert error.reason is Reason.RESULT_MISSING
