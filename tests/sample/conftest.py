"""One sample zone for all tests here, written once and read back through the adapter of our own files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from adapters.mapping import auto
from adapters.reading import read
from adapters.rows import Mapped, Unmapped
from services.cli.sample import Setting, write
from services.kit.records import catalogue


@dataclass(frozen=True)
class Sample:
    """A sample zone in a folder."""

    folder: Path
    manifest: Mapping[str, Any]

    @cached_property
    def outcomes(self) -> Mapping[str, list[Mapped | Unmapped]]:
        """What became of every row, by record type."""
        return {
            name: list(read(auto(catalogue.load().get(name)), self.folder / entry["path"]))
            for name, entry in self.manifest["tables"].items()
        }

    @cached_property
    def records(self) -> Mapping[str, list[Any]]:
        """Every record that could be read, by record type."""
        return {
            name: [found.message for found in outcomes if isinstance(found, Mapped)]
            for name, outcomes in self.outcomes.items()
        }

    def of(self, record_type: str) -> list[Any]:
        """The records of a type."""
        return self.records[record_type]

    def planted(self, indicator: str, record_type: str) -> set[str]:
        """Keys of a type's records that an indicator must find."""
        return {
            key
            for oddity in self.manifest["oddities"]
            if oddity["indicator"] == indicator
            for key in oddity["records"].get(record_type, ())
        }


@pytest.fixture(scope="session")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """The zone that `hutong sample` writes when nothing else is said."""
    folder = tmp_path_factory.mktemp("sample") / "zone"
    return Sample(folder, write(folder, Setting()))
