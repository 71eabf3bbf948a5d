"""`hutong policy`, for the policies of the rooms there are.

The commands are the kit's, which knows no room; here they learn where each room's policy lies.
"""

from collections.abc import Mapping
from pathlib import Path

from services.cli.rooms import rooms
from services.kit.policy import commands

app = commands.app


def of_rooms() -> Mapping[str, Path]:
    """Say where each room's policy lies, by agency."""
    return {agency: room.policy for agency, room in rooms().items()}


commands.default_policies = of_rooms
