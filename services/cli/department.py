"""A department's store from outside its node: what `load`, `quarantine` and `up` work on.

Opened through the node's own config, so that records and keys are the very ones the node uses. It may be done while
the node runs: writers of all processes take turns, and the node sees what was recorded at once.
"""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from adapters import mapping
from services.cli.rooms import room
from services.cli.zone import Zone
from services.kit import config
from services.kit.config import DepartmentConfig
from services.kit.department import Room, read_secret
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.records import catalogue, migrations
from services.kit.records.catalogue import nearest
from services.kit.records.store import RecordStore

AUTO = "auto:"
"""Begins the name of the mapping of our own files: `auto:customs.Declaration`."""


class MappingKeys(Mapping[str, bytes]):
    """The keys that mappings name: each derived from the node's secret, so that there is one secret to keep."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def __getitem__(self, name: str) -> bytes:
        return hmac.new(self._secret, b"hutong mapping key\x00" + name.encode(), hashlib.sha256).digest()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        # There is a key for whatever name is asked, though none can be listed.
        return True


@dataclass(frozen=True, slots=True)
class Department:
    """A department, through its config."""

    room: Room
    file: Path
    config: DepartmentConfig

    @classmethod
    def of(cls, agency: str, folder: Path, file: Path | None = None) -> Self:
        """Find a department by its config file, or in a zone folder; raises where room or config do not stand."""
        found = room(agency)
        path = file or Zone.open(folder).config_file(agency)
        settings = config.read(path, DepartmentConfig)
        if settings.node.agency != agency:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path} is {settings.node.agency}'s, not {agency}'s")
        return cls(found, path.absolute(), settings)

    @property
    def url(self) -> str:
        """URL of its store."""
        return self.config.store.read_url(self.file.parent)

    def keys(self) -> MappingKeys:
        """The keys for its mappings; raises `FailedPrecondition` where the secret cannot be read."""
        return MappingKeys(read_secret(self.config.secret))

    @asynccontextmanager
    async def store(self) -> AsyncGenerator[RecordStore]:
        """Open the store; brings its schema up to date where the config lets the node do so."""
        if self.config.store.migrate:
            await asyncio.to_thread(migrations.upgrade, self.url, self.room.migrations)
        async with RecordStore(self.url, self.room.catalogue()) as store:
            await store.check_migrated(self.room.migrations)
            yield store

    def mappings(self) -> list[str]:
        """List the names of the mappings beside the room."""
        return sorted(file.stem for file in self.room.mappings.glob("*.yaml"))

    def mapping(self, name: str) -> mapping.Mapping:
        """Load a mapping: a path, the name of one beside the room, or `auto:TYPE`.

        Raises `InvalidArgument`: MAPPING_INVALID naming the nearest, RECORD_TYPE_NOT_OWNED where it makes records of
        another agency; `FailedPrecondition` SOURCE_READ_ONLY where the record type is read live.
        """
        if name.startswith(AUTO):
            found = mapping.auto(catalogue.load().get(name.removeprefix(AUTO)))
        else:
            found = mapping.load(self._mapping_file(name))
        if found.record.owner != self.room.agency:
            raise InvalidArgument(
                Reason.RECORD_TYPE_NOT_OWNED,
                f"mapping {name} makes {found.record.name}, which is not {self.room.agency}'s",
                record_type=found.record.name,
            )
        if found.record.name in self.config.live:
            raise FailedPrecondition(
                Reason.SOURCE_READ_ONLY,
                f"{found.record.name} is read live from its source: none of it is kept here, nothing can be loaded",
                record_type=found.record.name,
            )
        return found

    def _mapping_file(self, name: str) -> Path:
        path = Path(name)
        if path.is_file():
            return path
        known = self.mappings()
        stem = name.removeprefix(f"{self.room.agency}.").removesuffix(".yaml")
        if stem not in known:
            hint = nearest(stem, known)
            listed = f" (there are: {', '.join(known) or 'none'}, or auto:TYPE)"
            raise InvalidArgument(Reason.MAPPING_INVALID, f"there is no mapping {name!r}{hint}{listed}", mapping=name)
        return self.room.mappings / f"{stem}.yaml"
