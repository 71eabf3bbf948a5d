"""Jurisdiction packs: what the law of a place says, kept as versioned data beside this file.

A pack holds the closed list of purposes a request may state and of the legal bases it may rely on. `load("cn")` reads
the pack that comes with the product; `read` takes any file.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Hashable, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.kit.durations import add_duration, duration_seconds
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records.catalogue import nearest

_FOLDER = Path(__file__).parent
_CODE = re.compile(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*")
_OFFSET = re.compile(r"([+-])(\d\d):(\d\d)")
_MAX_ENTRIES = 10_000
"""Most entries of one mapping, with what it merges."""


class Mark(StrEnum):
    """What stands behind an entry."""

    SOURCED = "sourced"
    MEMORY = "memory"
    DESIGN = "design"


def _code(text: str) -> str:
    if not _CODE.fullmatch(text):
        raise ValueError("codes are written in capitals, digits and hyphens: P-REBATE")
    return text


Code = Annotated[str, AfterValidator(_code)]


def _embargo(text: str) -> str:
    if text:
        duration_seconds(text)
    return text


Embargo = Annotated[str, AfterValidator(_embargo)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Purpose(_Entry):
    """Why a caller may ask."""

    title: str
    local_title: str
    needs_case: bool = False
    """A request with this purpose must name its case."""
    needs_authorization: bool = False
    """A request with this purpose is answered only under a supervisor's authorization."""
    embargo: Embargo = ""
    """For how long the one the records are about is not told of reads for this purpose (ISO 8601 duration)."""
    dpv: str = ""
    """Term of the W3C Data Privacy Vocabulary, where one is known."""


class Basis(_Entry):
    """A legal basis that a caller may rely on and a permit may name."""

    title: str
    local_title: str
    instrument: str
    """The law, regulation or arrangement."""
    article: str = ""
    """The article, once a lawyer has verified it."""
    mark: Mark
    rules: tuple[str, ...] = ()
    """Sharing rules that rest on it."""


class Jurisdiction(_Entry):
    """One pack."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    version: str = Field(min_length=1)
    title: str
    utc_offset: str = Field(pattern=_OFFSET.pattern)
    purposes: Mapping[Code, Purpose] = Field(min_length=1)
    bases: Mapping[Code, Basis] = Field(min_length=1)

    @property
    def needing_authorization(self) -> frozenset[str]:
        """Codes of the purposes for which nothing is answered without a supervisor's authorization."""
        return frozenset(code for code, purpose in self.purposes.items() if purpose.needs_authorization)

    def told_from(self, purpose: str, read_at: dt.datetime) -> dt.datetime:
        """Say from when on the one concerned is told of a read for a purpose: at once, or when its embargo has ended.

        Of a read for a purpose that this pack no longer knows, one is told at once.
        """
        found = self.purposes.get(purpose)
        return add_duration(read_at, found.embargo) if found and found.embargo else read_at

    def today(self, now: dt.datetime) -> dt.date:
        """Give the date it is in this jurisdiction."""
        return now.astimezone(self.zone).date()

    def tomorrow(self, now: dt.datetime) -> dt.datetime:
        """Give the moment when the next date begins in this jurisdiction."""
        return dt.datetime.combine(self.today(now) + dt.timedelta(days=1), dt.time(), self.zone)

    @property
    def zone(self) -> dt.timezone:
        """The time zone that its days begin and end by."""
        sign, hours, minutes = re.findall(_OFFSET, self.utc_offset)[0]
        offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
        return dt.timezone(-offset if sign == "-" else offset)


@cache
def load(name: str) -> Jurisdiction:
    """Load a pack that comes with the product; raises `FailedPrecondition` where there is none such."""
    known = sorted(path.stem for path in _FOLDER.glob("*.yaml"))
    if name not in known:
        hint = nearest(name, known) or f"; there are {', '.join(known)}"
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"there is no jurisdiction pack {name!r}{hint}")
    return read(_FOLDER / f"{name}.yaml")


def read(path: Path) -> Jurisdiction:
    """Read a pack from a file; raises `FailedPrecondition` naming every mistake in it."""
    try:
        return Jurisdiction.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}:\n  {describe(error)}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None


def describe(error: ValidationError) -> str:
    """Word a validation error, one line for each mistake."""
    items = error.errors(include_url=False, include_input=False)
    return "\n  ".join(f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in items)


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys, of which the second would silently win, and without merges that grow and grow."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [str(key.value) for key, _ in node.value]
        if repeated := _first_repeated(keys):
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        # Of mappings that each merge several of the ones before, the last has more entries than any machine has room.
        if len(node.value) > _MAX_ENTRIES:
            raise yaml.constructor.ConstructorError(
                None, None, f"a mapping has more than {_MAX_ENTRIES} entries", node.start_mark
            )


def _first_repeated(keys: list[str]) -> str:
    return next((key for key, times in Counter(keys).items() if times > 1), "")


def load_yaml(text: str) -> Any:
    """Read YAML, refusing duplicate keys; raises `yaml.YAMLError`."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader, stricter
    except (ValueError, RecursionError) as error:
        # A date that is none, a number without end, brackets in brackets in brackets.
        raise yaml.YAMLError(str(error)) from None
