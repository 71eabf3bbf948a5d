"""`hutong result sign`: a result from a file, signed where the agency's keys lie, with no service running."""

import datetime as dt
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.cli.output import AsJson, print_json
from services.cli.question import Folder
from services.cli.results import texts
from services.cli.results.checking import as_dict
from services.cli.results.keys import Agency, Signing
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.clock import system_clock
from services.kit.credentials import results
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.results import Statement
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.jurisdiction.pack import describe, load_yaml


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    uri: str
    index: int = Field(ge=0)


class Draft(BaseModel):
    """A statement as it is written in a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ref: str = ""
    subject: str = Field(pattern=r"^[a-z][a-z0-9.-]*:.")
    fact: str
    value: dict[str, Any] = Field(default_factory=dict)
    disclosable: tuple[str, ...] | None = None
    assurance: str
    issued_at: AwareDatetime | None = None
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None
    case_id: str = ""
    stage: str = ""
    status: _Entry | None = None

    def statement(self, issuer: str, now: dt.datetime) -> Statement:
        """Make the statement; what the file leaves out is as of now."""
        scheme, _, subject = self.subject.partition(":")
        issued_at = self.issued_at or now
        return Statement(
            ref=self.ref or str(uuid.uuid4()),
            issuer=issuer,
            scheme=scheme,
            subject=subject,
            fact=self.fact,
            value=self.value,
            assurance=self.assurance,
            issued_at=issued_at,
            valid_from=self.valid_from or issued_at,
            valid_until=self.valid_until,
            case_id=self.case_id,
            stage=self.stage,
            status_uri=self.status.uri if self.status else "",
            status_index=self.status.index if self.status else 0,
        )


def sign(
    agency: Agency,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The statement, YAML or JSON.")],
    folder: Folder = DEFAULT_FOLDER,
    signing: Signing = None,
    out: texts.Out = None,
    as_json: AsJson = False,
) -> None:
    """Sign a statement with an agency's own key. Nothing is registered: `hutong result issue` does both.

    \b
    The file:
      subject: cn.uscc:…
      fact: person_verified
      assurance: ON_SITE
      value: {method: chip}
      valid_until: 2027-05-21T00:00:00Z

    \b
    Example:
      hutong result sign publicsecurity statement.yaml --out result.sdjwt
    """
    keys = SigningKeys.open(signing or Zone.open(folder).signing(agency))
    if keys.agency != agency:
        raise FailedPrecondition(Reason.KEY_INVALID, f"these are the keys of {keys.agency}")
    draft = read(file)
    statement = draft.statement(agency, system_clock())
    credential = results.issue(statement, keys, draft.disclosable)
    if as_json:
        print_json({"credential": credential} | as_dict(results.read(credential)))
    else:
        texts.write(credential, out)


def read(path: Path) -> Draft:
    """Read a statement from a file; raises `InvalidArgument` RESULT_MALFORMED."""
    try:
        return Draft.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise InvalidArgument(Reason.RESULT_MALFORMED, f"{path}:\n  {describe(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise InvalidArgument(Reason.RESULT_MALFORMED, f"{path} is neither YAML nor JSON") from None
