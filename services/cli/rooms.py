"""The rooms there are: every package under `services` that has a `service.py` with a `ROOM`.

Nothing here knows an agency by name; a new one is found because it is there.
"""

import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import services
from services.kit.department import Room
from services.kit.errors import InvalidArgument, Reason
from services.kit.records.catalogue import nearest

GATEWAY = "gateway"
"""What the gateway is called where a room is asked for."""


@cache
def packages() -> tuple[str, ...]:
    """List the packages under `services` that may be rooms, without importing any."""
    found = {file.parent.name for base in services.__path__ for file in Path(base).glob("*/service.py")}
    return tuple(sorted(found))


@cache
def rooms() -> Mapping[str, Room]:
    """Import every room, by agency."""
    found = (_load(package) for package in packages())
    return {room.agency: room for room in found if room is not None}


def room(name: str) -> Room:
    """Import one room; raises `InvalidArgument` ROOM_UNKNOWN naming the nearest."""
    found = _load(name) if name in packages() else None
    if found is None:
        names = (*packages(), GATEWAY)
        raise InvalidArgument(Reason.ROOM_UNKNOWN, f"there is no room {name!r}{nearest(name, names)}", room=name)
    return found


def _load(package: str) -> Room | None:
    found = getattr(importlib.import_module(f"services.{package}.service"), "ROOM", None)
    return found if isinstance(found, Room) else None
