"""How a question gets the ticket of the authorization it is asked under."""

import sys
from pathlib import Path

import typer

from services.cli.authorizations import acting, desk


def ticket_text(
    authorization: str, file: Path | None, officer: str, folder: Path, caller: str, cert: Path | None,
    key: Path | None, bundle: Path | None,
) -> str:  # fmt: skip
    """Read a ticket, or get one for the officer who asks; empty where neither is given.

    Raises `typer.BadParameter` where there is no authorization to use.
    """
    if (file is not None or officer) and not authorization:
        raise typer.BadParameter("--ticket and --officer go with --authorization ID")
    if file is not None:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="ascii")
        return text.strip()
    if not officer:
        return ""
    sitting = desk.at(folder, caller, officer, None, False, "", cert, key, bundle)
    return acting.ticket(sitting, authorization).ticket
