"""The store of cases from outside its node: what `case import` and `stats` work on.

Opened through the node's config in a zone folder, or by its URL alone. It may be done while the node runs: writers of
all processes take turns, and the node sees what was written at once.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import typer

from services.cli.rooms import RECOGNITION
from services.cli.zone import Zone
from services.kit.credentials.keys import PublishedKeys
from services.kit.records import migrations
from services.kit.records.database import Database
from services.recognition import tables
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.procedures import Procedures
from services.recognition.reasons import Reasons
from services.recognition.rulebook import Rulebook
from services.recognition.tasks import Desk

_MIGRATIONS = Path(tables.__file__).with_name("migrations")

Store = Annotated[
    str,
    typer.Option(
        "--store", metavar="URL", help="A store of cases by its URL, instead of a zone folder's.", show_default=False
    ),
]


@dataclass(frozen=True, slots=True)
class Casebook:
    """A store of cases, and what they are judged by."""

    url: str
    rulebook: Rulebook
    migrate: bool
    """Whether its schema may be brought up to date, or made."""

    @classmethod
    def of(cls, folder: Path, store: str = "", *, make: bool = False) -> Self:
        """Find the store by its URL, or in a zone folder; raises where folder, config or rules do not stand.

        `make` makes one that is named by its URL and is not there.
        """
        if store:
            return cls(store, _rulebook(), migrate=make)
        zone = Zone.open(folder)
        config = zone.recognition()
        rulebook = _rulebook(config.procedures, config.arrangements, config.calendars)
        return cls(zone.store_url(RECOGNITION), rulebook, config.store.migrate)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Database]:
        """Open the store; raises `FailedPrecondition` STORE_NOT_MIGRATED where it is of another version."""
        if self.migrate:
            await asyncio.to_thread(migrations.upgrade, self.url, _MIGRATIONS)
        else:
            await asyncio.to_thread(migrations.check, self.url, _MIGRATIONS)
        database = Database(self.url)
        try:
            yield database
        finally:
            database.close()


def _rulebook(
    procedures: Path | None = None, arrangements: Path | None = None, calendars: Path | None = None
) -> Rulebook:
    agencies, known = Agencies.load(), Calendars.load(calendars)
    found = Procedures.load(procedures, agencies=agencies, calendars=[*known], demands=False)
    return Rulebook(
        found,
        known,
        agencies,
        Arrangements.load(arrangements, agencies=agencies, procedures=found),
        PublishedKeys.of(),  # nothing is verified here
        Desk.load(known),
        Reasons.load(),
    )
