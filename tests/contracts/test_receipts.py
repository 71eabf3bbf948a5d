"""Whatever gives anything of anybody carries a receipt, and is logged for it; what does not is on a closed list."""

import importlib

import pytest
from google.protobuf.descriptor import MethodDescriptor

from services.kit.log import receipts
from tests.contracts.descriptors import PROTO

UNRECORDED = {
    # What records look like, and what the log itself proves: public in the zone.
    "exchange.v1.FederationService.ListRecordTypes",
    "exchange.v1.RecordSourceService.Describe",
    "log.v1.LogService.GetCheckpoint",
    "log.v1.LogService.GetInclusionProof",
    "log.v1.LogService.GetConsistencyProof",
    "log.v1.LogService.GetTile",
    "log.v1.WitnessService.AddCheckpoint",
    # What it takes to verify a result, for everybody, and an entry nobody knows the use of yet.
    "recognition.v1.ResultService.GetKeys",
    "recognition.v1.ResultService.GetStatusList",
    "recognition.v1.ResultService.ReserveStatus",
    # What it takes to verify a zone's certificates, for other zones.
    "exchange.v1.ZoneService.GetTrust",
    # Between nodes and the service of authorizations: what is in force, and how many rows are left of it.
    "authorization.v1.AuthorizationService.FollowAuthorizations",
    "authorization.v1.AuthorizationService.ReserveRows",
    # How a node does, and which certificates are revoked: no record, no caller.
    "node.v1.NodeService.GetStatus",
    "node.v1.NodeService.WatchRevocations",
}

SESSIONS = {"exchange.v1.FederationService.Session", "exchange.v1.RecordSourceService.FetchSession"}
"""Their messages carry the answers of other rpcs, each with its own receipt."""


def methods() -> list[MethodDescriptor]:
    names = sorted(".".join(p.relative_to(PROTO).with_suffix("").parts) for p in PROTO.rglob("hutong/**/*_pb2.py"))
    files = [importlib.import_module(name).DESCRIPTOR for name in names]
    return [method for file in files for service in file.services_by_name.values() for method in service.methods]


def name_of(method: MethodDescriptor) -> str:
    return method.full_name.removeprefix("hutong.api.")


@pytest.mark.parametrize("method", methods(), ids=name_of)
def test_every_answer_has_its_receipt_in_field_15_but_for_a_closed_list(method: MethodDescriptor) -> None:
    answer = method.output_type
    if name_of(method) in SESSIONS:
        carried = answer.nested_types_by_name["Answer"].fields_by_name["response"].message_type
        assert carried is not None
        answer = carried
    assert receipts.number_of(answer) == (0 if name_of(method) in UNRECORDED else 15)


def test_the_list_names_what_there_is() -> None:
    assert {name_of(method) for method in methods()} >= UNRECORDED | SESSIONS
