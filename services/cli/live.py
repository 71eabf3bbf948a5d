"""Record types that a department reads from a legacy table at the moment of the question: what `[live]` names.

The mapping is followed: a changed one that passes every check, its table's included, counts for the next question. One
that does not is logged, and the former stays; it is not looked at again until the file changes or the database is back.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from adapters import document, mapping
from adapters.reading import LiveTable
from services.cli.department import MappingKeys
from services.kit.clock import Clock
from services.kit.config import DepartmentConfig
from services.kit.department import OpenLive, read_secret
from services.kit.errors import FailedPrecondition, HutongError, Reason, Unavailable
from services.kit.followed import Followed
from services.kit.records.live import LiveSource, Present
from services.kit.records.source import (
    Page,
    RecordQuery,
    RecordSource,
)

LIMIT: Final = 1 << 20
"""Most bytes a mapping may have; a ConfigMap holds no more either."""

_log = logging.getLogger(__name__)


def opener(config: DepartmentConfig, base: Path) -> OpenLive:
    """Make what a node opens its live sources with; paths in URLs are relative to `base`."""

    def open_live(clock: Clock) -> Mapping[str, RecordSource]:
        """Check mappings and tables; raises where one does not fit, or a database does not answer."""
        return {name: _followed(config, base, name, clock) for name in config.live}

    return open_live


def _followed(config: DepartmentConfig, base: Path, name: str, clock: Clock) -> "FollowedSource":
    section = config.live[name]
    url, keys = section.read_url(base), MappingKeys(read_secret(config.secret))

    def make(data: bytes) -> LiveSource:
        made = mapping.loads(data.decode(), section.mapping.name)
        if made.record.name != name:
            raise FailedPrecondition(
                Reason.CONFIG_INVALID, f"live: the mapping {made.name} makes {made.record.name}, not {name}"
            )
        return LiveSource({name: LiveTable(made, url, keys).read}, made.source_system, clock)

    return FollowedSource(section.mapping, make)


class FollowedSource(Present):
    """A live source through the mapping as its file stands now. Each question is answered through one version of it."""

    def __init__(self, path: Path, make: Callable[[bytes], LiveSource]) -> None:
        """`make` checks a mapping and its table, and may block; raises what it raises, or where there is no file."""
        self._path = path
        self._make = make
        self._file = Followed(path, LIMIT, self._judged)
        self._turn = threading.Lock()
        self._refused = ""
        found = self._look()
        if isinstance(found, HutongError):
            raise found
        self._source = found

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records, through the mapping as it is now; see `LiveSource`."""
        source = await asyncio.to_thread(self._current)
        return await source.fetch(query)

    def _current(self) -> LiveSource:
        """Look at the file, and give the last source whose mapping passed."""
        with self._turn:
            found = self._look()
            told = ""
            if isinstance(found, HutongError):
                told = str(found)
            elif found is not self._source:
                self._source = found
                _log.info("A mapping changed", extra={"fields": {"mapping": self._path.name}})
            if told and told != self._refused:
                fields = {"mapping": self._path.name, "mistake": told}
                _log.error("A changed mapping does not pass, the old one stays in force", extra={"fields": fields})
            self._refused = told
            return self._source

    def _look(self) -> LiveSource | HutongError:
        try:
            return self._file.read()
        except Unavailable as error:
            return error
        except (OSError, ValueError) as error:
            return document.invalid(self._path.name, str(error))

    def _judged(self, data: bytes) -> LiveSource | HutongError:
        """Check a mapping. A mistake is remembered with its file; that no database answered is not, and raised."""
        try:
            return self._make(data)
        except Unavailable:
            raise
        except HutongError as error:
            return error
