"""`hutong result verify`: what a result says and whether that can be believed, without asking anyone."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli.output import AsJson, console, pairs, print_json
from services.cli.question import Folder, moment
from services.cli.results import texts
from services.cli.zone import DEFAULT_FOLDER
from services.kit.clock import system_clock
from services.kit.credentials import results, status
from services.kit.credentials.published import LIMIT, PublishedKeys
from services.kit.credentials.results import Statement
from services.kit.errors import FailedPrecondition, Reason

Keys = Annotated[
    Path | None,
    typer.Option("--keys", metavar="FOLDER|FILE", help="Published keys: AGENCY.jwks.json, or a folder of such."),
]


def verify(
    file: texts.Credential,
    keys: Keys = None,
    status_file: Annotated[
        Path | None, typer.Option("--status", metavar="FILE", help="The status list it names, as a token.")
    ] = None,
    status_issuer: Annotated[str, typer.Option(metavar="AGENCY", help="Who signs status lists.")] = "recognition",
    at: Annotated[str, typer.Option(metavar="TIME", help="As of then; without it, now.")] = "",
    issuer: Annotated[str, typer.Option(metavar="AGENCY", help="Whom it has to be from.")] = "",
    subject: Annotated[str, typer.Option(metavar="SCHEME:VALUE", help="Whom it has to be about.")] = "",
    fact: Annotated[str, typer.Option(metavar="FACT", help="What it has to prove.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Verify a result with nothing but its issuer's published keys, and show what it says.

    Without --keys they are those of the zone folder. Without --status nobody has looked whether it was revoked.

    \b
    Examples:
      hutong result verify result.sdjwt --keys publicsecurity.jwks.json
      hutong result verify result.sdjwt --issuer publicsecurity --fact person_verified --subject cn.uscc:…
      hutong result verify result.sdjwt --keys keys/ --status list.jwt --at 2026-10-01
    """
    published = published_keys(keys, folder)
    now = moment(at) if at else system_clock()
    lists = None
    if status_file is not None:
        lists = status.verify(texts.read(status_file, status.LIMIT), published, at=now, issuer=status_issuer)
    statement = results.verify(
        texts.read(file),
        published,
        at=now,
        issuer=issuer or None,
        subject=subject or None,
        fact=fact or None,
        status=lists,
    )
    described = as_dict(statement) | {"status": "VALID" if lists else "NOT_LOOKED_UP"}
    if as_json:
        print_json(described)
        return
    out = console()
    out.print(f"[green]verified[/green] as of {now:%Y-%m-%d %H:%M:%S}Z", highlight=False)
    out.print(pairs((name, str(value)) for name, value in described.items() if value not in (None, "", {})))


def published_keys(path: Path | None, folder: Path) -> PublishedKeys:
    """Read published keys: a file, a folder, or those of the zone folder.

    Raises `FailedPrecondition` KEY_UNKNOWN where there are none, KEY_INVALID where they are none.
    """
    place = path or folder / "keys"
    if place.is_dir():
        return PublishedKeys.load(place)
    if not place.is_file():
        raise FailedPrecondition(Reason.KEY_UNKNOWN, f"there are no published keys {place}")
    with place.open("rb") as file:
        return PublishedKeys.of(file.read(LIMIT + 1))


def as_dict(statement: Statement) -> dict[str, object]:
    """Write a statement as machines get it."""
    return {
        "ref": statement.ref,
        "issuer": statement.issuer,
        "subject": statement.subject_id,
        "fact": statement.fact,
        "value": dict(statement.value),
        "assurance": statement.assurance,
        "issued_at": statement.issued_at.isoformat(),
        "valid_from": statement.valid_from.isoformat(),
        "valid_until": statement.valid_until.isoformat() if statement.valid_until else None,
        "case_id": statement.case_id,
        "stage": statement.stage,
        "withheld": statement.withheld,
        "key_id": statement.key_id,
        "status_uri": statement.status_uri,
        "status_index": statement.status_index if statement.status_uri else None,
    }
