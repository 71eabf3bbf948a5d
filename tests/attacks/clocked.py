"""A department by a clock that the test moves."""

import contextlib
import datetime as dt
from collections.abc import AsyncGenerator
from pathlib import Path

from services.kit.department import DepartmentNode
from services.kit.host import Host
from tests.exchange.mesh import ROOMS, Mesh
from tests.exchange.records import RECORDS
from tests.zone import now


class Clock:
    """The wall clock, moved on by hand."""

    def __init__(self) -> None:
        self.ahead = dt.timedelta()

    def __call__(self) -> dt.datetime:
        return now() + self.ahead


@contextlib.asynccontextmanager
async def department(folder: Path, clock: Clock, policy: str = "") -> AsyncGenerator[Mesh]:
    """Customs alone, by a clock of the test's, its own policies with some more beside them."""
    mesh = Mesh(folder)
    mesh.add_policy("customs", policy)
    config = mesh.config("customs", "127.0.0.1:0")
    node = DepartmentNode(ROOMS["customs"], config, mesh.url("customs"), Host(config, clock=clock))
    mesh.departments["customs"] = node
    try:
        await node.start()
        await mesh.load("customs", RECORDS["customs"])
        yield mesh
    finally:
        await mesh.stop()
