"""Three zones, each a mesh of its own with an authority of its own: port asks, inland answers and carries on, far is
beyond it.
"""

import contextlib
import datetime as dt
import shutil
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.config import DoorSection, ZoneSection
from hutong.api.exchange.v1 import federation_pb2
from services.kit.config import LimitsSection
from tests.exchange.mesh import QUERY, Mesh, question
from tests.exchange.records import EXPORTER, RECORDS
from tests.zone import free_address

PORT, INLAND, FAR = "port.example", "inland.example", "far.example"
REFUND = "taxation/refund"
SUBJECT = f"cn.uscc:{EXPORTER}"
WHY = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
GIVEN = "declaration_no,total_value_cny"

FOR_PORT = """
@id("Z-port")
@title("Export refund in the port: the cleared export declaration")
@basis("CN-VAT-REBATE")
@until("2027-12-31T23:59:59+08:00")
@retain("P1Y")
@rows("ie_flag = 'E' AND decl_status = 'CLEARED'")
permit (
    principal in Hutong::Agency::"taxation.port.example",
    action == Hutong::Action::"read",
    resource in Hutong::RecordType::"customs.Declaration"
)
when {
    context.purpose == "P-REBATE" &&
    resource in [
        Hutong::Field::"customs.Declaration.declaration_no",
        Hutong::Field::"customs.Declaration.trader_uscc",
        Hutong::Field::"customs.Declaration.total_value_cny"
    ]
};

@id("Z-anybody")
@basis("CN-VAT-REBATE")
@until("2027-12-31T23:59:59+08:00")
@rows("ie_flag = 'E' AND decl_status = 'CLEARED'")
permit (
    principal,
    action == Hutong::Action::"read",
    resource in Hutong::RecordType::"customs.Declaration"
)
when { context.purpose == "P-REBATE" && ["gross_wt_kg", "trader_uscc"].contains(resource.name) };
"""


@dataclass
class World:
    """The zones, running."""

    port: Mesh
    inland: Mesh
    far: Mesh

    async def ask(self, *selections: str, who: str = REFUND, **context: str) -> Any:
        """Ask port's gateway; selections begin with a zone and `/` where another one is meant."""
        asked = zoned(question(SUBJECT, *selections, **(WHY | context)))
        return await self.port.client(who).unary(QUERY, asked, federation_pb2.QueryResponse, timeout=5)


def zoned(asked: federation_pb2.QueryRequest) -> federation_pb2.QueryRequest:
    """Read the zones before selections."""
    for selection in asked.selections:
        zone, slash, name = selection.record_type.rpartition("/")
        if slash:
            selection.zone, selection.record_type = zone, name
    return asked


def known(mesh: Mesh, other: Mesh, **more: Any) -> ZoneSection:
    """Bring another zone's trust to a mesh, as an operator does once."""
    folder = mesh.folder / "trust" / other.zone.name
    folder.mkdir(parents=True, exist_ok=True)
    layout = other.zone.authority.layout
    for path in (layout.bundle, layout.revoked):
        shutil.copy(path, folder / path.name)
    every = dt.timedelta(milliseconds=200)
    return ZoneSection(bundle=folder / "bundle.crt", revoked=folder / "revoked.crl", follow=every, **more)


def door(mesh: Mesh) -> str:
    """Where a mesh's gateway listens for others."""
    assert mesh.door is not None
    return mesh.door.listen


@contextlib.asynccontextmanager
async def world(folder: Path, limits: LimitsSection | None = None) -> AsyncGenerator[World]:
    """Run the three zones; `limits` are those of inland, where they are not the usual ones."""
    meshes: list[Mesh] = []
    for name in (PORT, INLAND, FAR):
        (folder / name).mkdir()
        meshes.append(Mesh(folder / name, name))
    port, inland, far = meshes
    inland.limits = limits or inland.limits
    for mesh in meshes:
        mesh.door = DoorSection(listen=free_address())
    async with contextlib.AsyncExitStack() as stack:
        for mesh in meshes:
            stack.push_async_callback(mesh.stop)
        for mesh in (far, inland):
            mesh.add_policy("customs", FOR_PORT)
            mesh.lets_in = [PORT]
            await mesh.start("customs")
            await mesh.load("customs", RECORDS["customs"])
        far.zones = {
            PORT: known(far, port, may_ask=["taxation/*"]),
            INLAND: known(far, inland, target=door(inland)),
        }
        await far.start_gateway()
        inland.zones = {
            PORT: known(inland, port, target=door(port), may_ask=["taxation/*"]),
            FAR: known(inland, far, target=door(far), carried_for=[PORT]),
        }
        await inland.start_gateway()
        allowed = ["taxation/*", "customs/*"]
        port.zones = {
            INLAND: known(port, inland, target=door(inland), asked_by=allowed),
            FAR: known(port, far, via=INLAND, asked_by=allowed),
        }
        await port.start("taxation")
        await port.load("taxation", RECORDS["taxation"])
        await port.start_gateway()
        yield World(port, inland, far)
