"""The command line of identity, mounted as `hutong certs`: init, issue, list, rotate, revoke, agent, ca.

Exit codes: 0 done, 1 refused or failed, 2 called wrongly. With `--json`, results are JSON on standard output and
refusals JSON on standard error: `{"error": {"reason", "message", "hint"}}`.
"""

import contextlib
import datetime as dt
import json
import re
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives import hashes
from rich.console import Console
from rich.table import Table
from rich.text import Text

from certs.agent import Turn, held, keep
from certs.authority import DEFAULT_TTL, MAX_TTL, Authority
from certs.errors import CertificateError, NameRefused, RevocationRefused
from certs.register import Issued, RevocationReason, State
from certs.rollover import SETTLES, Rollover
from certs.rotation import due, due_at, is_due, rotate
from certs.spiffe import SpiffeId
from certs.svid import certificates_of

app = typer.Typer(
    name="certs",
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Identity of a zone: create its authority; issue, list, renew and revoke the certificates of its systems.\n\n"
    "Every system is [bold]spiffe://ZONE/AGENCY/SYSTEM[/bold] and holds an X.509 certificate for at most a few days. "
    "Renewal needs no restart: running nodes follow their files. A revocation is noticed within a second or two of "
    "the list reaching a node.\n\n"
    "\b\nExamples:\n"
    "  hutong certs init --zone north.example\n"
    "  hutong certs issue customs/node\n"
    "  hutong certs list\n"
    "  hutong certs rotate\n"
    "  hutong certs revoke customs/node --reason key-compromise\n"
    "  hutong certs agent\n",
)

ca = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Rotate the zone's own authority, without a restart and without a call that fails.\n\n"
    "[bold]prepare[/bold] makes the next one, which nodes learn to trust; [bold]activate[/bold] lets it issue; "
    "[bold]rotate[/bold] renews every certificate under it; [bold]prune[/bold] ends the former one. "
    "Each may be repeated, after a crash too.\n\n"
    "\b\nExamples:\n"
    "  hutong certs ca show\n"
    "  hutong certs ca prepare --root\n"
    "  hutong certs ca activate --trust /srv/hutong/trust\n"
    "  hutong certs ca rotate\n"
    "  hutong certs ca prune\n",
)
app.add_typer(ca, name="ca")

_DEFAULT_FOLDER = Path(".hutong/certs")
_FOLDER_VARIABLE = "HUTONG_CERTS"
_DURATION = re.compile(r"(\d{1,6})(s|m|h|d)")
_HOUR = dt.timedelta(hours=1)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PLAIN_WIDTH = 160
"""Columns when nobody looks: a pipe must not cut names."""

_COLOURS = {
    State.VALID: "green",
    State.EXPIRED: "dim",
    State.REPLACED: "dim",
    State.REVOKED: "red",
}


def _duration(text: str) -> dt.timedelta:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a duration: write a number and s, m, h or d, like 90m, 24h or 7d")
    return dt.timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


Folder = Annotated[
    Path,
    typer.Option("--dir", "-d", envvar=_FOLDER_VARIABLE, help="The zone's folder.", show_default=True),
]
NewFolder = Annotated[
    Path, typer.Argument(metavar="[DIR]", envvar=_FOLDER_VARIABLE, help="Folder to create; absent or empty.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Ttl = Annotated[
    str, typer.Option(metavar="DURATION", help=f"Lifetime, at most {MAX_TTL.days}d. A number and s, m, h or d.")
]


@app.command("init")
def init(
    zone: Annotated[str, typer.Option(help="The zone's name, a DNS name; it becomes the SPIFFE trust domain.")],
    folder: NewFolder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Create a zone: a root, an issuing authority, and an empty revocation list. Never overwrites one.

    The root key in DIR/root is not needed again until the issuing authority ends, in five years: move the folder
    to a safe place.

    \b
    Examples:
      hutong certs init --zone north.example
      hutong certs init /var/lib/hutong/certs --zone port.gov.example
    """
    with _refusals(as_json):
        authority = Authority.create(folder, zone, _now())
        root = certificates_of(authority.layout.root_certificate.read_bytes(), folder)[0]
        fingerprint = root.fingerprint(hashes.SHA256()).hex()
        if as_json:
            _print_json(
                {
                    "zone": zone,
                    "dir": str(folder),
                    "bundle": str(authority.layout.bundle),
                    "revocation_list": str(authority.layout.revoked),
                    "root_sha256": fingerprint,
                    "root_not_after": _stamp(root.not_valid_after_utc),
                }
            )
            return
        console = _console()
        console.print(f"Created zone [bold]{zone}[/bold] in {folder}")
        console.print(f"  root SHA-256  {fingerprint}", highlight=False)
        console.print(f"  root key      {authority.layout.root_key}  (move DIR/root to a safe place)", highlight=False)
        console.print(f"  next          hutong certs issue AGENCY/SYSTEM --dir {folder}", highlight=False)


@app.command("issue")
def issue(
    name: Annotated[str, typer.Argument(metavar="AGENCY/SYSTEM", help="Who it is for, like customs/node.")],
    ttl: Ttl = f"{DEFAULT_TTL // _HOUR}h",
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Issue a system's first certificate, or one after expiry or revocation.

    Key and certificate chain go into one file, DIR/svid/AGENCY/SYSTEM/credential-bundle.private-key.pem (0600).
    A system that has a valid certificate is refused: use rotate.

    \b
    Examples:
      hutong certs issue customs/node
      hutong certs issue taxation/audit-desk --ttl 8h
      hutong certs issue gateway/main --json
    """
    lifetime = _duration(ttl)
    with _refusals(as_json):
        authority = Authority.open(folder)
        issued = authority.issue(_named(authority, name), _now(), lifetime)
        _report(authority, "issued", [issued], as_json)


@app.command("list")
def show(
    everything: Annotated[bool, typer.Option("--all", help="Also those that expired, and are archived.")] = False,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """List the certificates of the zone and what has become of them.

    A state is valid, due (for renewal: past half its life), replaced (renewed, still valid), revoked or expired.

    \b
    Examples:
      hutong certs list
      hutong certs list --all --json
    """
    with _refusals(as_json):
        authority, now = Authority.open(folder), _now()
        register = authority.register
        entries = register.everything() if everything else [e for e in register.entries() if now <= e.not_after]
        if as_json:
            _print_json([_as_json(authority, entry, now) for entry in entries])
            return
        if not entries:
            _console().print("No certificates. Issue one with `hutong certs issue AGENCY/SYSTEM`.")
            return
        _console().print(_table(authority.zone, entries, now))


@app.command("rotate")
def renew(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[AGENCY/SYSTEM]...", help="Whom to renew; without it, those due.")
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Renew every system, due or not.")] = False,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Renew certificates that are due, and sign the revocation list anew. Run it every few hours.

    Each gets a new key and a certificate of the same lifetime in the same file, replaced in one step. Running nodes
    use it from the next connection on. Revoked systems are not renewed.

    \b
    Examples:
      hutong certs rotate
      hutong certs rotate customs/node taxation/node
      hutong certs rotate --all
    """
    if names and everyone:
        raise typer.BadParameter("give names or --all, not both")
    with _refusals(as_json):
        authority, now = Authority.open(folder), _now()
        if names:
            renewed = [authority.renew(*_renewal(authority, name, now)) for name in names]
        else:
            chosen = due(authority, now)
            if everyone:
                chosen = tuple(entry for entry in authority.current().values() if entry.state(now) is not State.REVOKED)
            renewed = [rotate(authority, entry, now) for entry in chosen]
        authority.publish_revocations(now)
        authority.archive(now)
        _report(authority, "renewed", renewed, as_json)


@app.command("revoke")
def revoke(
    wanted: Annotated[
        str, typer.Argument(metavar="SERIAL|SPIFFE-ID|AGENCY/SYSTEM", help="One certificate, or all of a system.")
    ],
    reason: Annotated[RevocationReason, typer.Option(help="Why; it is published.")] = RevocationReason.UNSPECIFIED,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Revoke one certificate by serial, or every certificate of a system that has not expired.

    The signed list DIR/revoked.crl is published at once; servers that read it refuse the next call, on connections
    that are already open too. A serial may be shortened to its first eight digits or more.

    \b
    Examples:
      hutong certs revoke customs/node --reason key-compromise
      hutong certs revoke spiffe://north.example/taxation/audit-desk --reason cessation-of-operation
      hutong certs revoke 3f9a04c1d2
    """
    with _refusals(as_json):
        authority, now = Authority.open(folder), _now()
        query = str(_named(authority, wanted)) if "/" in wanted and not wanted.startswith("spiffe:") else wanted
        found = authority.register.find(query)
        standing = tuple(e.serial for e in found if e.state(now) in {State.VALID, State.REPLACED})
        if not standing and len(found) > 1:
            raise RevocationRefused(f"{query} has no certificate that still stands", "see `hutong certs list --all`")
        revoked = authority.revoke(standing or tuple(e.serial for e in found), reason, now)
        _report(authority, "revoked", revoked, as_json)


@ca.command("show")
def show_authorities(folder: Folder = _DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Show which authorities are trusted, and how many certificates of each could be used still.

    \b
    Example:
      hutong certs ca show --json
    """
    with _refusals(as_json):
        authority = Authority.open(folder)
        _show_authorities(authority, as_json)


@ca.command("prepare")
def prepare(
    root: Annotated[bool, typer.Option("--root", help="Make a new root too; without it the root's key is needed.")] = (
        False
    ),
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Make the next authority. Its root is in the bundle and its list is published; it issues nothing yet.

    Bring bundle.crt and revoked.crl to every node that does not read the zone's folder itself.

    \b
    Examples:
      hutong certs ca prepare
      hutong certs ca prepare --root
    """
    with _refusals(as_json):
        authority = Authority.open(folder)
        Rollover(authority).prepare(_now(), new_root=root)
        _show_authorities(authority, as_json)


@ca.command("activate")
def activate(
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Also look at the bundle.crt and revoked.crl there; repeat it."),
    ] = None,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Let the prepared authority issue, once every file that nodes read knows it.

    \b
    Examples:
      hutong certs ca activate
      hutong certs ca activate --trust /srv/hutong/trust --trust /mnt/other/trust
    """
    with _refusals(as_json):
        authority = Authority.open(folder)
        rollover = _settled(authority)
        rollover.activate(_now(), trust or ())
        _show_authorities(authority, as_json)


@ca.command("rotate")
def rotate_all(folder: Folder = _DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Renew every certificate that the former authority issued. Revoked systems are not renewed.

    \b
    Example:
      hutong certs ca rotate
    """
    with _refusals(as_json):
        authority = Authority.open(folder)
        _report(authority, "renewed", _settled(authority).rotate(_now()), as_json, none="Nothing is left to renew.")


@ca.command("prune")
def prune(
    cut: Annotated[
        bool, typer.Option("--cut", help="Do not wait until replaced certificates end: refuse them at once.")
    ] = False,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """End the former authority: what it issued is refused, its root leaves the bundle, its key is deleted.

    The key of a root that left the bundle is deleted in root/ as well; copies kept elsewhere are yours to destroy.
    Refused while a certificate of it could be used still, with the list.

    \b
    Examples:
      hutong certs ca prune
      hutong certs ca prune --cut
    """
    with _refusals(as_json):
        authority = Authority.open(folder)
        _settled(authority).prune(_now(), cut=cut)
        _show_authorities(authority, as_json)


@app.command("agent")
def agent(
    every: Annotated[str, typer.Option(metavar="DURATION", help="How often to look.")] = "60s",
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    folder: Folder = _DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Keep a zone's certificates and revocation list fresh, until it is stopped. One runs at a time in a folder.

    Renews what is past half its life, and signs the list again at half its own. Where something fails it says so and
    tries again.

    \b
    Examples:
      hutong certs agent --dir /var/lib/hutong/certs
      hutong certs agent --once
    """
    pause = _duration(every)
    with _refusals(as_json), held(folder):
        keep(folder, pause, once=once, said=lambda turn: _said(turn, as_json))


def _said(turn: Turn, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"renewed": list(turn.renewed), "published": turn.published, "problem": turn.problem}))
        return
    for name in turn.renewed:
        typer.echo(f"renewed {name}")
    if turn.published:
        typer.echo("revocation list signed anew")
    if turn.problem:
        typer.echo(f"failed, to be tried again: {turn.problem}", err=True)


def _settled(authority: Authority) -> Rollover:
    """Wait until nodes have seen the last step, a few seconds at most."""
    rollover = Rollover(authority)
    settles = rollover.settles_at()
    if settles is not None:
        left = (settles - _now()).total_seconds()
        time.sleep(min(max(0.0, left), SETTLES.total_seconds()))
    return rollover


def _show_authorities(authority: Authority, as_json: bool) -> None:
    found = Rollover(authority).known(_now())
    if as_json:
        _print_json(
            [
                {
                    "name": each.name,
                    "role": each.role,
                    "not_after": _stamp(each.certificate.not_valid_after_utc),
                    "root_sha256": each.root.fingerprint(hashes.SHA256()).hex(),
                    "usable": [str(entry.spiffe_id) for entry in each.standing],
                }
                for each in found
            ]
        )
        return
    table = Table(title=f"Authorities of {authority.zone}", title_justify="left")
    for column in ("Name", "Role", "Until", "Root SHA-256", "Usable certificates"):
        table.add_column(column, no_wrap=True)
    for each in found:
        table.add_row(
            each.name,
            each.role,
            f"{each.certificate.not_valid_after_utc:%Y-%m-%d %H:%M}Z",
            each.root.fingerprint(hashes.SHA256()).hex()[:16],
            str(len(each.standing)),
        )
    _console().print(table)
    roles = {each.role for each in found}
    step = "prune" if "former" in roles else "activate" if "prepared" in roles else ""
    if step == "prune" and any(
        not entry.replaced for each in found if each.role == "former" for entry in each.standing
    ):
        step = "rotate"
    if step:
        _console().print(f"next: hutong certs ca {step}", highlight=False)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _named(authority: Authority, name: str) -> SpiffeId:
    agency, slash, system = name.partition("/")
    if not slash:
        raise NameRefused(f"{name[:100]!a} is not AGENCY/SYSTEM", "write both with a slash, like customs/node")
    return SpiffeId.of(authority.zone, agency, system)


def _renewal(authority: Authority, name: str, now: dt.datetime) -> tuple[SpiffeId, dt.datetime, dt.timedelta]:
    spiffe_id = _named(authority, name)
    last = authority.current().get(spiffe_id)
    return spiffe_id, now, last.ttl if last else DEFAULT_TTL


@contextlib.contextmanager
def _refusals(as_json: bool) -> Generator[None]:
    """Print what was refused, why, and what to do next; exit with 1."""
    try:
        yield
    except (CertificateError, OSError) as error:
        reason = error.reason if isinstance(error, CertificateError) else "FILE_ERROR"
        hint = error.hint if isinstance(error, CertificateError) else ""
        if as_json:
            body = {"error": {"reason": reason, "message": str(error), "hint": hint}}
            typer.echo(json.dumps(body, ensure_ascii=False), err=True)
        else:
            console = _console(stderr=True)
            console.print(Text.assemble(("refused: ", "bold red"), f"{error} ", (f"({reason})", "dim")))
            if hint:
                console.print(Text(f"   next: {hint}"))
        raise typer.Exit(1) from error


def _report(
    authority: Authority,
    verb: str,
    entries: Iterable[Issued],
    as_json: bool,
    none: str = "Nothing is due; the revocation list was signed anew.",
) -> None:
    entries, now = list(entries), _now()
    if as_json:
        _print_json({verb: [_as_json(authority, entry, now) for entry in entries]})
        return
    console = _console()
    if not entries:
        console.print(none)
    for entry in entries:
        console.print(
            f"{verb} [bold]{entry.spiffe_id}[/bold]  serial {entry.serial_text}  "
            f"until {_stamp(entry.not_after)}  {authority.layout.svid(entry.spiffe_id).certificate}",
            highlight=False,
            soft_wrap=True,
        )


def _as_json(authority: Authority, entry: Issued, now: dt.datetime) -> dict[str, object]:
    files = authority.layout.svid(entry.spiffe_id)
    return {
        "spiffe_id": str(entry.spiffe_id),
        "serial": entry.serial_text,
        "not_before": _stamp(entry.not_before),
        "not_after": _stamp(entry.not_after),
        "due_at": _stamp(due_at(entry.not_before, entry.not_after)),
        "seconds_left": max(0, int((entry.not_after - now).total_seconds())),
        "state": _state(entry, now),
        "revoked_at": _stamp(entry.revoked_at) if entry.revoked_at else None,
        "revocation_reason": entry.revocation_reason,
        "certificate": str(files.certificate),
        "key": str(files.key),
        "bundle": str(files.bundle),
    }


def _state(entry: Issued, now: dt.datetime) -> str:
    state = entry.state(now)
    return "due" if state is State.VALID and is_due(entry.not_before, entry.not_after, now) else state


def _table(zone: str, entries: Iterable[Issued], now: dt.datetime) -> Table:
    table = Table(title=f"Certificates of {zone}", title_justify="left")
    for column in ("SPIFFE ID", "Serial", "Not before", "Not after", "Left", "State"):
        table.add_column(column, no_wrap=column != "SPIFFE ID", overflow="fold")
    for entry in entries:
        state = _state(entry, now)
        colour = "yellow" if state == "due" else _COLOURS[State(state)]
        table.add_row(
            str(entry.spiffe_id),
            entry.serial_text[:16],
            f"{entry.not_before:%Y-%m-%d %H:%M}Z",
            f"{entry.not_after:%Y-%m-%d %H:%M}Z",
            _left(entry.not_after - now),
            Text(f"{state}: {entry.revocation_reason}" if entry.revocation_reason else state, style=colour),
        )
    return table


def _left(left: dt.timedelta) -> str:
    minutes = int(left.total_seconds() // 60)
    if left.total_seconds() <= 0:
        return "-"
    if minutes >= 2 * 1440:
        return f"{minutes // 1440} d {minutes % 1440 // 60} h"
    return f"{minutes // 60} h {minutes % 60:02} m"


def _stamp(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=_PLAIN_WIDTH)
