"""Short ways to ask a mesh, through every door, and to see how one is refused."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from hutong.api.customs.v1 import declaration_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.errors import HutongError
from tests.exchange.mesh import QUERY, Mesh, question, records
from tests.exchange.records import CLEARED, EXPORTER, declaration

SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
PUBLIC = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
MONITOR = {"purpose": "P-MONITOR", "legal_basis": "CN-OPERATION-MONITORING"}
STAT = {"purpose": "P-STAT", "legal_basis": "CN-VAT-REBATE"}

CUSTOMS = "/hutong.api.customs.v1.CustomsService"
SOURCE = "/hutong.api.exchange.v1.RecordSourceService"
TAX = "taxation/refund"
DECLARATION = f"declarations/{CLEARED}"

DENIED = exchange_pb2.SECTION_STATUS_DENIED
NO_RECORD = exchange_pb2.SECTION_STATUS_NO_RECORD
UNAVAILABLE = exchange_pb2.SECTION_STATUS_UNAVAILABLE

R = TypeVar("R", bound=Message)


@contextlib.asynccontextmanager
async def opened(folder: Path, **policies: str) -> AsyncGenerator[Mesh]:
    """Run the named departments and a gateway, each agency's own policies with some more beside them."""
    mesh = Mesh(folder)
    try:
        for agency, text in policies.items():
            mesh.add_policy(agency, text)
            await mesh.start(agency)
        await mesh.start_gateway()
        yield mesh
    finally:
        await mesh.stop()


def why(**context: str) -> exchange_pb2.RequestContext:
    return exchange_pb2.RequestContext(**context)


async def ask(
    mesh: Mesh, who: str, request: federation_pb2.QueryRequest, timeout: float = 10
) -> list[exchange_pb2.Section]:
    answer = await mesh.client(who).unary(QUERY, request, federation_pb2.QueryResponse, timeout=timeout)
    return list(answer.sections)


async def one(mesh: Mesh, who: str, *selections: str, subject: str = SUBJECT, **context: str) -> exchange_pb2.Section:
    """Ask the gateway for one record type."""
    (section,) = await ask(mesh, who, question(subject, *selections, **context))
    return section


async def found(mesh: Mesh, who: str, *selections: str, subject: str = SUBJECT, **context: str) -> list[Any]:
    return records(await one(mesh, who, *selections, subject=subject, **context))


async def call(mesh: Mesh, who: str, method: str, request: Message, response: type[R], agency: str = "customs") -> R:
    """Call a department directly."""
    return await mesh.client(who, agency).unary(method, request, response, timeout=10)


async def get(mesh: Mesh, who: str, name: str, **how: Any) -> declaration_pb2.Declaration:
    request = service_pb2.GetDeclarationRequest(name=name, **how)
    response = service_pb2.GetDeclarationResponse
    return (await call(mesh, who, f"{CUSTOMS}/GetDeclaration", request, response)).declaration


async def listed(mesh: Mesh, who: str, **how: Any) -> list[declaration_pb2.Declaration]:
    request = service_pb2.ListDeclarationsRequest(**how)
    response = service_pb2.ListDeclarationsResponse
    return list((await call(mesh, who, f"{CUSTOMS}/ListDeclarations", request, response)).declarations)


def watch(mesh: Mesh, who: str, kind: str, **how: Any) -> AsyncIterator[record_source_pb2.WatchResponse]:
    """Watch a record type at the department that owns it; `filter` and `fields` go into the selection."""
    selected = {name: how.pop(name) for name in ("filter", "fields") if name in how}
    selection = exchange_pb2.Selection(record_type=kind, **selected)
    request = record_source_pb2.WatchRequest(selection=selection, **how)
    client = mesh.client(who, kind.partition(".")[0])
    return client.stream(f"{SOURCE}/Watch", request, record_source_pb2.WatchResponse, timeout=30)


def declared(
    number: str,
    status: declaration_pb2.DeclarationStatus.ValueType = declaration_pb2.DECLARATION_STATUS_CLEARED,
    value: str = "125000.50",
    trader: str = EXPORTER,
) -> declaration_pb2.Declaration:
    made = declaration(number, trader, status, value)
    assert isinstance(made, declaration_pb2.Declaration)
    return made


async def refused(asking: Any) -> HutongError:
    """Await what must be refused, and give the refusal."""
    with pytest.raises(HutongError) as caught:
        await asking
    return caught.value
