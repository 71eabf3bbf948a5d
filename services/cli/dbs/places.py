"""The databases of a node, found through its config: the store where it has one, and the log."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import sqlalchemy as sa
import typer
from pydantic import ConfigDict

from services.cli import configs
from services.cli.rooms import room
from services.kit import config
from services.kit.config import DepartmentConfig, NodeConfig, OwnDatabaseSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.events import outbox
from services.kit.log import nodelog, reading
from services.kit.log import tables as log_tables
from services.kit.log.checkpoint import origin_of
from services.kit.records.database import engine, translated
from services.kit.records.tables import Tables, derive
from services.recognition import tables as recognition_tables
from services.recognition.config import RecognitionConfig
from services.supervision import tables as supervision_tables
from services.supervision.config import SupervisionConfig

STORE: Final = "store"
LOG: Final = "log"

Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="The node's config, a TOML file.", show_default=False)
]
"""Which node's databases."""


class _Any(NodeConfig):
    """Of any node's config what says whose it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, slots=True)
class Place:
    """A database of a node."""

    name: str
    """`store` or `log`."""
    url: str
    folder: Path
    """Its migrations."""
    metadata: sa.MetaData
    """Its tables, as this version of the program has them."""

    @contextmanager
    def snapshot(self) -> Generator[sa.Connection]:
        """See the database as it is at one moment, for as long as this lasts; raises `Unavailable`."""
        made = engine(self.url, writer=False)
        try:
            with translated(), made.connect() as connection, reading.snapshot(connection):
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
                yield connection
        finally:
            made.dispose()


@dataclass(frozen=True, slots=True)
class Node:
    """A node, through its config."""

    file: Path
    config: NodeConfig
    places: tuple[Place, ...]
    tables: Tables | None
    """Of a department those of its records."""
    live: frozenset[str]
    """Record types of which nothing is kept here."""

    @classmethod
    def of(cls, file: Path) -> Self:
        """Read a node's config; raises `FailedPrecondition` where it does not stand, whatever is wrong with it."""
        agency = config.read(file, _Any).node.agency
        found, base = configs.read(agency, file), file.parent.absolute()
        tables, live, places = None, frozenset[str](), list[Place]()
        if isinstance(found, RecognitionConfig):
            places.append(_place(found.store, base, _beside(recognition_tables), recognition_metadata()))
        elif isinstance(found, SupervisionConfig):
            places.append(_place(found.store, base, _beside(supervision_tables), supervision_tables.METADATA))
        elif isinstance(found, DepartmentConfig):
            of = room(agency)
            tables, live = derive(of.catalogue()), frozenset(found.live)
            places.append(_place(found.store, base, of.migrations, tables.metadata))
        if found.log is not None:
            places.append(Place(LOG, found.log.read_url(base), nodelog.MIGRATIONS, log_tables.METADATA))
        return cls(file.absolute(), found, tuple(places), tables, live)

    @property
    def name(self) -> str:
        """Who it is, `agency/system`."""
        return f"{self.config.node.agency}/{self.config.node.system}"

    @property
    def origin(self) -> str:
        """What its log is called."""
        return origin_of(self.config.node.zone, self.config.node.agency, self.config.node.system)

    def place(self, name: str) -> Place | None:
        """Get one of its databases; none where it has no such."""
        return next((place for place in self.places if place.name == name), None)

    @property
    def log(self) -> Place:
        """Get the log's; raises `FailedPrecondition` CONFIG_INVALID where the node keeps none."""
        found = self.place(LOG)
        if found is None:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{self.file}: this node keeps no log: there is no [log]")
        return found

    @property
    def keys(self) -> Path:
        """Say where the zone's log keys are published; raises as `log` does."""
        if self.config.log is None:
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"{self.file}: this node keeps no log: there is no [log]")
        return self.config.log.keys


def _place(section: OwnDatabaseSection, base: Path, folder: Path, metadata: sa.MetaData) -> Place:
    return Place(STORE, section.read_url(base), folder, metadata)


def _beside(module: object) -> Path:
    return Path(str(getattr(module, "__file__", ""))).with_name("migrations")


def recognition_metadata() -> sa.MetaData:
    """Put together the tables of the recognition service and of its outbox."""
    whole = sa.MetaData()
    for part in (recognition_tables.METADATA, outbox.METADATA):
        for table in part.sorted_tables:
            if table.name not in whole.tables:
                table.to_metadata(whole)
    return whole
