"""The agencies that procedures speak of, their lines of offices, and parties outside government. Data: `agencies.yaml`.

An agency's `line` goes upwards: its first office does the work and gets the ordinary reminders, the second is its
superior. `supervision` is the office that watches over time limits for the whole zone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.jurisdiction import pack
from services.kit.records.catalogue import nearest

_SHIPPED: Final = Path(__file__).with_name("agencies.yaml")

ALL: Final = "all"
"""Stands for every agency and party, where a procedure says who recognises a fact."""

DESK: Final = "desk"
"""The office that does the work: first of the agency's line."""
SUPERIOR: Final = "superior"
"""The office above the one that does the work; the same one where there is none above."""
SUPERVISION: Final = "supervision"
"""The office that watches over time limits for all agencies."""

Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=64)]


@dataclass(frozen=True, slots=True)
class Office:
    """An office that reminders go to. Its code is the addressee."""

    code: str
    title: str
    local_title: str


@dataclass(frozen=True, slots=True)
class Agency:
    """An agency that stages belong to."""

    code: str
    title: str
    local_title: str
    line: tuple[Office, ...]
    """Its offices, upwards; never empty."""


@dataclass(frozen=True, slots=True)
class Party:
    """Somebody outside government who relies on facts, and has no stages: the applicant, a partner's customs."""

    code: str
    title: str
    local_title: str


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PartyEntry(_Entry):
    """A party, as files say it."""

    title: str = Field(min_length=1)
    local_title: str = Field(min_length=1)


class OfficeEntry(PartyEntry):
    """An office, as files say it."""

    code: Code


class AgencyEntry(PartyEntry):
    """An agency, as files say it."""

    line: tuple[OfficeEntry, ...] = ()
    """Empty: one office, of the agency's own name."""


class _File(_Entry):
    supervision: OfficeEntry
    agencies: Mapping[Code, AgencyEntry] = Field(min_length=1)
    parties: Mapping[Code, PartyEntry]


@dataclass(frozen=True)
class Agencies:
    """Every agency and party there is, by code."""

    agencies: Mapping[str, Agency]
    parties: Mapping[str, Party]
    supervision: Office

    @staticmethod
    def load(path: Path | None = None) -> "Agencies":
        """Load the agencies of a file, or those that come with the product; raises `FailedPrecondition`."""
        return _load(path or _SHIPPED)

    def get(self, code: str) -> Agency:
        """Give an agency; raises `InvalidArgument` with AGENCY_UNKNOWN, naming the nearest."""
        if found := self.agencies.get(code):
            return found
        hint = nearest(code, self.agencies)
        raise InvalidArgument(Reason.AGENCY_UNKNOWN, f"there is no agency {code!r}{hint}", agency=code[:64])

    def title(self, code: str) -> str:
        """Title of an agency or party; its code, where nothing is known of it."""
        found = self.agencies.get(code) or self.parties.get(code)
        return found.title if found else code

    def knows(self, code: str) -> bool:
        """Tell whether it may stand among those who recognise a fact: an agency, a party, or "all"."""
        return code == ALL or code in self.agencies or code in self.parties

    def office(self, code: str) -> Office | None:
        """Find an office by its code, in any line."""
        if code == self.supervision.code:
            return self.supervision
        return next((o for agency in self.agencies.values() for o in agency.line if o.code == code), None)

    def addressee(self, agency: str, to: str = DESK) -> str:
        """Say which office a reminder goes to: "desk", "superior", "supervision", or an office by its code.

        Raises `InvalidArgument` where the agency is unknown.
        """
        line = self.get(agency).line
        if to == DESK:
            return line[0].code
        if to == SUPERIOR:
            return line[min(1, len(line) - 1)].code
        return self.supervision.code if to == SUPERVISION else to

    def home(self, office: str) -> str:
        """Say whose line an office stands in, by its code; empty for one that is nobody's, as supervision is."""
        return next((agency.code for agency in self.agencies.values() for o in agency.line if o.code == office), "")

    def knows_office(self, to: str) -> bool:
        """Tell whether `addressee` can make something of it."""
        return to in {DESK, SUPERIOR, SUPERVISION} or self.office(to) is not None

    def plus(self, extra: Iterable[Agency], parties: Iterable[Party] = ()) -> "Agencies":
        """Add agencies and parties that a procedure declares for itself; those known already stay as they are."""
        agencies = {agency.code: agency for agency in extra} | dict(self.agencies)
        named = {party.code: party for party in parties} | dict(self.parties)
        return Agencies(MappingProxyType(agencies), MappingProxyType(named), self.supervision)


def agency_of(code: str, entry: AgencyEntry) -> Agency:
    """Make an agency of what a file says."""
    line = tuple(Office(o.code, o.title, o.local_title) for o in entry.line)
    return Agency(code, entry.title, entry.local_title, line or (Office(code, entry.title, entry.local_title),))


@cache
def _load(path: Path) -> Agencies:
    try:
        file = _File.model_validate(pack.load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}:\n  {pack.describe(error)}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None
    if both := sorted(file.agencies.keys() & file.parties.keys()):
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {', '.join(both)}: both an agency and a party")
    agencies = {code: agency_of(code, entry) for code, entry in file.agencies.items()}
    _unique_offices(path, agencies.values(), file.supervision.code)
    return Agencies(
        MappingProxyType(agencies),
        MappingProxyType({code: Party(code, p.title, p.local_title) for code, p in file.parties.items()}),
        Office(file.supervision.code, file.supervision.title, file.supervision.local_title),
    )


def _unique_offices(path: Path, agencies: Iterable[Agency], supervision: str) -> None:
    seen = {supervision, DESK, SUPERIOR, SUPERVISION}
    for agency in agencies:
        for office in agency.line:
            if office.code in seen:
                raise FailedPrecondition(
                    Reason.CONFIG_INVALID, f"{path}: {agency.code}: the office {office.code!r} stands twice"
                )
            seen.add(office.code)
