"""How a log becomes cases of a procedure: which name says what. Data: `logs/`, one file for each procedure.

Without a file, a log is read by the names of the XES standard. Activities are matched with stages, and groups with
agencies, by the profile or else by code or title.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adapters.eventlog import LogColumns
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.identifiers import SCHEMES
from services.kit.jurisdiction import pack
from services.kit.records.catalogue import nearest
from services.recognition.procedure import Procedure

_SHIPPED: Final = Path(__file__).with_name("logs")

TOKEN: Final = "hutong.token"  # noqa: S105 - a scheme of identifiers

Meaning = Literal["RESULT", "START", "IGNORE"]
"""What a transition of the XES lifecycle is in a case; IGNORE is for steps that a case does not know."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SubjectSource(_Section):
    """Where a log says whom a case is about."""

    scheme: str
    attribute: str


class EndSource(_Section):
    """Where a log says when a case ended, and the stage that ends with it."""

    attribute: str
    stage: str


class LogProfile(_Section):
    """How a log becomes cases of a procedure. Names are those of what a case says of itself."""

    procedure: str
    columns: LogColumns = LogColumns()
    applied: str = ""
    """When the application was made; without it, when the first thing happened."""
    deadline: str = ""
    planned_end: str = ""
    end: EndSource | None = None
    subject: SubjectSource | None = None
    """Without it, a case is about a token made of its number."""
    activities: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Stage codes, by activity."""
    groups: Mapping[str, str] = Field(default_factory=dict[str, str])
    """Agencies, by group."""
    transitions: Mapping[str, Meaning] = Field(default={"": "RESULT", "complete": "RESULT", "start": "START"})

    @property
    def layout(self) -> LogColumns:
        """The columns, with every moment that is named here among them."""
        named = {self.applied, self.deadline, self.planned_end, self.end.attribute if self.end else ""} - {""}
        return self.columns.model_copy(update={"moments": self.columns.moments | named})

    def check(self, procedure: Procedure) -> None:
        """Check that it fits a procedure; raises `FailedPrecondition` CONFIG_INVALID, naming what does not."""
        if self.procedure != procedure.code:
            raise _invalid(f"the profile is for {self.procedure}, not for {procedure.code}")
        if self.end is not None:
            _known("stage", self.end.stage, procedure.stages)
        for stage in self.activities.values():
            _known("stage", stage, procedure.stages)
        for agency in self.groups.values():
            _known("agency", agency, {*procedure.agencies, *procedure.takes_part})
        if self.subject is not None and self.subject.scheme not in procedure.subject_schemes:
            raise _invalid(f"{procedure.label} is about subjects by {', '.join(procedure.subject_schemes)}")
        if self.subject is None and TOKEN not in procedure.subject_schemes:
            raise _invalid(f"{procedure.label} is about no tokens: the profile must say where the subject stands")
        if self.subject is not None and self.subject.scheme not in SCHEMES:
            raise _invalid(f"there is no scheme {self.subject.scheme!r}")


def _known(what: str, name: str, known: "Mapping[str, object] | set[str]") -> None:
    if name not in known:
        raise _invalid(f"the profile names a {what} {name!r}{nearest(name, known)}")


def _invalid(why: str) -> FailedPrecondition:
    return FailedPrecondition(Reason.CONFIG_INVALID, why)


def load(procedure: Procedure, path: Path | None = None) -> LogProfile:
    """Load the profile in a file, or the one that comes with the product for a procedure, or the usual names.

    Raises `FailedPrecondition` CONFIG_INVALID where it cannot be read, or does not fit the procedure.
    """
    file = path or _SHIPPED / f"{procedure.code.lower()}.yaml"
    profile = LogProfile(procedure=procedure.code) if path is None and not file.exists() else _read(file)
    profile.check(procedure)
    return profile


def _read(path: Path) -> LogProfile:
    try:
        return LogProfile.model_validate(pack.load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise _invalid(f"{path.name}:\n  {pack.describe(error)}") from None
    except UnicodeDecodeError:
        raise _invalid(f"{path.name}: it is not UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _invalid(f"{path.name}: it is no YAML: {error}") from None
    except OSError as error:
        raise InvalidArgument(Reason.CONFIG_FILE_MISSING, f"{path.name} cannot be read: {error.strerror}") from None
