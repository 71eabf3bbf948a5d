"""What peers speak, `bench.proto`, for Python, without a generated file: the few messages built here by hand."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from bench import corpus
from services.kit.records import catalogue

FIELDS: Final[Mapping[str, str]] = {
    "commerce.Enterprise": "enterprise",
    "taxation.TaxpayerStatus": "taxpayer_status",
    "customs.Operator": "operator",
    "quality.TraceEvent": "trace_event",
    "publicsecurity.SealRegistration": "seal_registration",
}
"""Where each record type stands in an answer, in order of field numbers from 1."""

QUERY: Final = "/bench.v1.Gateway/Query"
PACKAGE: Final = "bench.v1"


def service_of(agency: str) -> str:
    """Name a department's service."""
    return f"{PACKAGE}.{agency.capitalize()}Department"


def get(agency: str) -> str:
    """Name a department's rpc."""
    return f"/{service_of(agency)}/Get"


def agency_of(record_type: str) -> str:
    """Say whose a record type is."""
    return record_type.partition(".")[0]


def subject(uscc: str) -> bytes:
    """Serialize a `Subject`."""
    return b"\x0a" + bytes((len(uscc),)) + uscc.encode()


def uscc_of(raw: bytes) -> str:
    """Read a `Subject` that has a short code and nothing else."""
    return raw[2:].decode()


def _answer() -> Any:
    types = {name: catalogue.load().get(name).message.DESCRIPTOR for name in corpus.TYPES}
    file = descriptor_pb2.FileDescriptorProto(name="bench/peers/contract.proto", package=PACKAGE, syntax="proto3")
    answer = file.message_type.add(name="Answer")
    for number, (name, field) in enumerate(FIELDS.items(), 1):
        file.dependency.append(types[name].file.name)
        answer.field.add(
            name=field,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
            type_name=f".{types[name].full_name}",
        )
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Answer"))


Answer: Final[type[Message]] = _answer()
"""What all five know."""
