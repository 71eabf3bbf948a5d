"""`hutong result keys`: the keys an agency signs results with, and how everyone else learns of them."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Folder, seconds
from services.cli.zone import DEFAULT_FOLDER, Zone
from services.kit.clock import system_clock
from services.kit.credentials.keys import KeyState, PublishedKey, SigningKeys
from services.kit.credentials.published import issuer_uri
from services.kit.errors import FailedPrecondition, InvalidArgument, NotFound, Reason

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The keys an agency signs stage results with: private in AGENCY/signing, published in keys/.\n\n"
    "What a key signed stays verifiable after its successor took over. What a revoked key signed is believed by "
    "nobody any more: results that should stand have to be issued anew.\n\n"
    "\b\nExamples:\n"
    "  hutong result keys list publicsecurity\n"
    "  hutong result keys rotate publicsecurity --lead 24h\n"
    "  hutong result keys revoke publicsecurity 3f9a04c1 --reason key-compromise\n",
)

Agency = Annotated[str, typer.Argument(metavar="AGENCY", help="Whose keys.")]
Signing = Annotated[
    Path | None, typer.Option("--signing", metavar="FOLDER", help="The private keys, where they lie elsewhere.")
]
Published = Annotated[
    Path | None, typer.Option("--published", metavar="FOLDER", help="The published keys, where they lie elsewhere.")
]
ZoneName = Annotated[str, typer.Option("--zone", metavar="NAME", help="Name of the zone; with --signing.")]

_SHORTEST = 8
_COLOURS = {
    KeyState.PLANNED: "cyan",
    KeyState.ACTIVE: "green",
    KeyState.RETIRED: "dim",
    KeyState.REVOKED: "red",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agency's keys lie."""

    signing: Path
    published: Path
    issuer: str

    @classmethod
    def of(cls, agency: str, folder: Path, signing: Path | None, published: Path | None, zone: str) -> "Place":
        """Find it: in the zone folder, or where the options say."""
        if signing is not None and published is not None:
            return cls(signing, published, issuer_uri(zone, agency) if zone else "")
        here = Zone.open(folder)
        return cls(signing or here.signing(agency), published or here.keys, issuer_uri(zone or here.name, agency))

    def open(self, agency: str) -> SigningKeys:
        """Open the keys; raises `FailedPrecondition` where they are another agency's."""
        keys = SigningKeys.open(self.signing)
        if keys.agency != agency:
            raise FailedPrecondition(Reason.KEY_INVALID, f"{self.signing} holds the keys of {keys.agency}")
        return keys


@app.command("init")
def init(
    agency: Agency,
    folder: Folder = DEFAULT_FOLDER,
    signing: Signing = None,
    published: Published = None,
    zone: ZoneName = "",
    as_json: AsJson = False,
) -> None:
    """Make an agency's first key and publish it. Never overwrites keys.

    \b
    Examples:
      hutong result keys init laboratory
      hutong result keys init customs --zone north.example --signing signing --published keys
    """
    place = Place.of(agency, folder, signing, published, zone)
    if not place.issuer:
        raise typer.BadParameter("--signing and --published need --zone: the issuer's URI names it")
    _report(SigningKeys.create(place.signing, place.issuer, system_clock()), place, as_json)


@app.command("list")
def list_(
    agency: Agency,
    folder: Folder = DEFAULT_FOLDER,
    signing: Signing = None,
    published: Published = None,
    as_json: AsJson = False,
) -> None:
    """List an agency's keys: planned, active, retired (what they signed stands) or revoked (nothing stands)."""
    place = Place.of(agency, folder, signing, published, "")
    _show(place.open(agency), as_json)


@app.command("rotate")
def rotate(
    agency: Agency,
    lead: Annotated[str, typer.Option(metavar="DURATION", help="Publish now, sign with it from then on: 24h.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    signing: Signing = None,
    published: Published = None,
    as_json: AsJson = False,
) -> None:
    """Make a successor of the active key and publish it. What was signed before stays verifiable.

    With --lead everyone can learn of the new key before it is used. Private keys that sign no more are destroyed.
    """
    place = Place.of(agency, folder, signing, published, "")
    keys = place.open(agency)
    keys.rotate(system_clock(), dt.timedelta(seconds=seconds(lead)) if lead else dt.timedelta())
    _report(keys, place, as_json)


@app.command("revoke")
def revoke(
    agency: Agency,
    kid: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, or enough of its beginning.")],
    reason: Annotated[str, typer.Option(metavar="CODE", help="Why: a code, which is published.")] = "key-compromise",
    folder: Folder = DEFAULT_FOLDER,
    signing: Signing = None,
    published: Published = None,
    as_json: AsJson = False,
) -> None:
    """Let nothing that a key signed be believed any more, and publish that. An active key gets a successor.

    It cannot be undone. Issue anew what should stand.
    """
    place = Place.of(agency, folder, signing, published, "")
    keys, now = place.open(agency), system_clock()
    keys.revoke(_named(keys, kid).kid, now, reason)
    if not any(key.state(now) is KeyState.ACTIVE for key in keys.listed()):
        keys.rotate(now)
    _report(keys, place, as_json)


def _named(keys: SigningKeys, start: str) -> PublishedKey:
    found = [key for key in keys.listed() if key.kid.startswith(start)]
    if len(start) < _SHORTEST and not any(key.kid == start for key in found):
        raise InvalidArgument(Reason.KEY_UNKNOWN, f"give at least {_SHORTEST} characters of the key's id")
    if len(found) != 1:
        raise NotFound(Reason.KEY_UNKNOWN, f"{keys.agency} has {'several keys' if found else 'no key'} of that id")
    return found[0]


def _report(keys: SigningKeys, place: Place, as_json: bool) -> None:
    path = keys.publish(place.published)
    _show(keys, as_json)
    if not as_json:
        console().print(f"published in {path}", highlight=False, soft_wrap=True)


def _show(keys: SigningKeys, as_json: bool) -> None:
    now = system_clock()
    if as_json:
        print_json({"issuer": keys.issuer, "keys": [_as_dict(key, now) for key in keys.listed()]})
        return
    rows = [
        (
            key.kid,
            f"{key.active_from:%Y-%m-%d %H:%M}Z",
            f"{key.active_until:%Y-%m-%d %H:%M}Z" if key.active_until else "-",
            Text(
                f"{key.state(now)}: {key.revoked_reason}" if key.revoked_reason else str(key.state(now)),
                style=_COLOURS[key.state(now)],
            ),
        )
        for key in keys.listed()
    ]
    console().print(table(f"Signing keys of {keys.issuer}", ("Key", "From", "Until", "State"), rows))


def _as_dict(key: PublishedKey, now: dt.datetime) -> dict[str, object]:
    return {
        "kid": key.kid,
        "state": key.state(now),
        "active_from": key.active_from.isoformat(),
        "active_until": key.active_until.isoformat() if key.active_until else None,
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        "revoked_reason": key.revoked_reason,
    }
