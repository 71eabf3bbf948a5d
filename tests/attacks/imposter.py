"""A department whose certificate is right and whose program is not: it answers whatever the test wants."""

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from google.protobuf.message import Message

from hutong.api.exchange.v1 import record_source_pb2
from services.kit.config import LimitsSection
from services.kit.rpc import Call, bind
from tests.exchange.mesh import Mesh
from tests.exchange.standin import ACCESS, SOURCE, Standin

Answer = Callable[[record_source_pb2.FetchRequest], record_source_pb2.FetchResponse]


class Imposter(Standin):
    """Stands in the place of an agency's department, for the gateway of a mesh."""

    def __init__(self) -> None:
        super().__init__(self._answered)
        self.answer: Answer = lambda _: record_source_pb2.FetchResponse()
        self.heard: list[record_source_pb2.FetchRequest] = []
        self.address = ""

    async def _answered(self, request: record_source_pb2.FetchRequest, _: Call) -> Message:
        self.heard.append(request)
        return self.answer(request)


@contextlib.asynccontextmanager
async def instead_of(mesh: Mesh, agency: str, folder: Path) -> AsyncGenerator[Imposter]:
    """Put an imposter in the place of a department; the gateway asks it from now on."""
    imposter = Imposter()
    host = mesh.zone.host(
        f"{agency}/node", LimitsSection(response_bytes=64 * 1024 * 1024, drain=dt.timedelta()), log=True
    )
    lists = folder / f"{agency}-imposter.yaml"
    lists.write_text(ACCESS)
    await host.start(bind(SOURCE, imposter), [lists])
    imposter.address = host.address
    try:
        await mesh.replace_gateway(**{agency: host.address})
        yield imposter
    finally:
        await host.stop()
