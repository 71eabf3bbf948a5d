"""What was planted: every oddity of the sample zone, with the keys it is found by.

The numbers are those of the indicators an oddity answers to (I10, I24 …); DATA stands for bad data that a load or a
consistency check must notice. Tests, demo and indicators read them from the manifest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from services.cli.sample.firms import Firm


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something planted, and where."""

    name: str
    indicator: str
    title: str
    subjects: tuple[str, ...]
    """Whom it is about, as `scheme:value`."""
    records: Mapping[str, tuple[str, ...]]
    """Keys of the records concerned, by record type."""

    def document(self) -> dict[str, object]:
        """Describe it for the manifest."""
        return {
            "name": self.name,
            "indicator": self.indicator,
            "title": self.title,
            "subjects": list(self.subjects),
            "records": {name: list(keys) for name, keys in self.records.items()},
        }


class Ledger:
    """The oddities of a zone, by name."""

    def __init__(self) -> None:
        self._found: dict[str, Oddity] = {}

    def plant(
        self, name: str, indicator: str, title: str, firms: Iterable[Firm], records: Mapping[str, Iterable[str]]
    ) -> None:
        """Write down what was planted; a name may be used once."""
        if name in self._found:
            raise ValueError(f"{name!r} is planted twice")
        subjects = tuple(f"cn.uscc:{firm.uscc}" for firm in firms)
        self._found[name] = Oddity(name, indicator, title, subjects, {k: tuple(v) for k, v in records.items()})

    def __iter__(self) -> Iterator[Oddity]:
        return iter(sorted(self._found.values(), key=lambda o: (o.indicator, o.name)))

    def __len__(self) -> int:
        return len(self._found)
