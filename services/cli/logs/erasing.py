"""`hutong log erase`: what a log knows of somebody, gone for good, and every proof as valid as before."""

import asyncio
from typing import Annotated, Final

import typer

from services.cli.logs.decisions import log_of
from services.cli.logs.where import Config, Local, Node, Where
from services.cli.output import AsJson, console, print_json
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.kit import reader
from services.kit.log.nodelog import Erased

_HELD: Final = (
    "nobody finds it by the database any more, but its bytes lie in the files until a reader ends, or PostgreSQL's "
    "autovacuum has come by"
)


def erase(
    subject: Annotated[str, typer.Argument(metavar="SCHEME:VALUE", help="Whom the log shall no longer know.")],
    node: Node = "",
    config: Config = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    as_written: Annotated[bool, typer.Option("--as-written", help="Take a doubtful identifier as it is.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Erase a subject from a log: drop the salts of every entry about it, and the scopes that name it.

    Entries hold no personal data, only salted commitments; without the salt nobody can tell any more whom an entry was
    about, not even by trying every identifier there is. No entry, hash or proof changes, and that something was erased
    is an entry itself. Scopes of authorizations that name the subject go too: what was decided under one cannot be
    recomputed any more. It cannot be undone: what else these entries committed to, a case say, can be opened no more
    either, and the subject's own list of reads ends.

    \b
    Examples:
      hutong log erase cn.uscc:91350211M0000XUF47 customs
      hutong log erase cn.uscc:91350211M0000XUF47 --config /etc/hutong/node.toml --yes
    """
    local = Where(node=node, config=config, folder=folder).required
    scheme, _, value = subject.partition(":")
    checked = reader.subject_of(scheme, value, as_written)
    if not yes and not typer.confirm(f"Erase {subject} from {local.origin}, for good?", err=True):
        raise typer.Abort
    erased = asyncio.run(_erase(local, *checked))
    if as_json:
        found = {"log": local.origin, "entries": erased.entries, "scopes": erased.scopes, "freed": erased.freed}
        print_json(found)
    else:
        named = f"; scopes of authorizations gone that named it: {erased.scopes}" if erased.scopes else ""
        told = f"{local.origin}: entries that can be opened no more: {erased.entries}{named}; every proof stands"
        console().print(told if erased.freed else f"{told}; {_HELD}", markup=False, soft_wrap=True)


async def _erase(local: Local, scheme: str, value: str) -> Erased:
    async with log_of(local) as log:
        return await log.erase(scheme, value)
