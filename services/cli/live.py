"""Record types that a department reads from a legacy table at the moment of the question: what `[live]` names."""

from collections.abc import Mapping
from pathlib import Path

from adapters import mapping
from adapters.reading import LiveTable
from services.cli.department import MappingKeys
from services.kit.clock import Clock
from services.kit.config import DepartmentConfig
from services.kit.department import OpenLive, read_secret
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.live import LiveSource
from services.kit.records.source import RecordSource


def opener(config: DepartmentConfig, base: Path) -> OpenLive:
    """Make what a node opens its live sources with; paths in URLs are relative to `base`."""

    def open_live(clock: Clock) -> Mapping[str, RecordSource]:
        """Check mappings and tables; raises where one does not fit, or a database does not answer."""
        return {name: _source(config, base, name, clock) for name in config.live}

    return open_live


def _source(config: DepartmentConfig, base: Path, name: str, clock: Clock) -> LiveSource:
    section = config.live[name]
    made = mapping.load(section.mapping)
    if made.record.name != name:
        raise FailedPrecondition(
            Reason.CONFIG_INVALID, f"live: the mapping {made.name} makes {made.record.name}, not {name}"
        )
    table = LiveTable(made, section.read_url(base), MappingKeys(read_secret(config.secret)))
    return LiveSource({name: table.read}, made.source_system, clock)
