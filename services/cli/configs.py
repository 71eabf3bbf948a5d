"""The config of a node by its name: each kind of node has sections of its own."""

from pathlib import Path

from gateway.config import GatewayConfig
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION, room
from services.kit import config
from services.kit.config import DepartmentConfig, NodeConfig


def read(name: str, file: Path) -> NodeConfig:
    """Read the config of a department, of recognition, of supervision or of the gateway.

    Raises as `config.read` does, and `InvalidArgument` ROOM_UNKNOWN.
    """
    if name == GATEWAY:
        return config.read(file, GatewayConfig)
    if name == RECOGNITION:
        # Most of what reads configs has nothing to do with either.
        from services.recognition.config import RecognitionConfig  # noqa: PLC0415

        return config.read(file, RecognitionConfig)
    if name == SUPERVISION:
        from services.supervision.config import SupervisionConfig  # noqa: PLC0415

        return config.read(file, SupervisionConfig)
    room(name)
    return config.read(file, DepartmentConfig)


def migrations_of(name: str) -> Path | None:
    """Say where the migrations of a node's store lie; None where it has no store."""
    if name == GATEWAY:
        return None
    if name == RECOGNITION:
        from services.recognition import node as recognition  # noqa: PLC0415

        return recognition.MIGRATIONS
    if name == SUPERVISION:
        from services.supervision import node as supervision  # noqa: PLC0415

        return supervision.MIGRATIONS
    return room(name).migrations
