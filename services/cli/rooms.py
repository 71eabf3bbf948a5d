"""The rooms there are: every package under `services` that has a `service.py` with a `ROOM`.

Nothing here knows an agency by name; a new one is found because it is there. The recognition service, the
supervision service and the gateway belong to no agency: they are nodes of their own kind, asked for by name.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import services
from services.kit.errors import InvalidArgument, Reason
from services.kit.records.catalogue import nearest

if TYPE_CHECKING:
    from services.kit.department import Room

GATEWAY = "gateway"
"""What the gateway is called where a room is asked for."""

RECOGNITION = "recognition"
"""What the recognition service is called: as a package, as a node, and as the owner of its records."""

SUPERVISION = "supervision"
"""What the supervision service is called: as a package, as a node, and as the agency of supervisors' systems."""


@cache
def packages() -> tuple[str, ...]:
    """List the packages under `services` that may be rooms, without importing any."""
    found = {file.parent for base in services.__path__ for file in Path(base).glob("*/service.py")}
    # Who brings a node of its own is none of the departments, which all have the kit's.
    return tuple(sorted(folder.name for folder in found if not (folder / "node.py").exists()))


@cache
def rooms() -> Mapping[str, "Room"]:
    """Import every room, by agency."""
    found = (_load(package) for package in packages())
    return {room.agency: room for room in found if room is not None}


def room(name: str) -> "Room":
    """Import one room; raises `InvalidArgument` ROOM_UNKNOWN naming the nearest."""
    found = _load(name) if name in packages() else None
    if found is None:
        names = (*packages(), RECOGNITION, SUPERVISION, GATEWAY)
        raise InvalidArgument(Reason.ROOM_UNKNOWN, f"there is no room {name!r}{nearest(name, names)}", room=name)
    return found


def policies() -> Mapping[str, Path]:
    """Say where the policy of each owner of records lies, as it was delivered: every room's, and recognition's."""
    found = {agency: room.policy for agency, room in rooms().items()}
    return found | {RECOGNITION: _recognition() / "policy" / f"{RECOGNITION}.cedar"}


def _recognition() -> Path:
    return next(folder for base in services.__path__ if (folder := Path(base) / RECOGNITION).is_dir())


def _load(package: str) -> "Room | None":
    # Whoever only names a node need not wait for all that a node is made of.
    from services.kit.department import Room  # noqa: PLC0415

    found = getattr(importlib.import_module(f"services.{package}.service"), "ROOM", None)
    return found if isinstance(found, Room) else None
