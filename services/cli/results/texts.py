"""Credentials as they come and go on the command line: files, or standard input and output."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from certs.files import PRIVATE, write_atomically
from services.kit.credentials import signed
from services.kit.credentials.signed import malformed

Credential = Annotated[Path, typer.Argument(metavar="FILE", help="The credential; - for standard input.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write it there, for you alone to read.")]

STANDARD_INPUT = Path("-")


def read(path: Path, limit: int = signed.LIMIT) -> str:
    """Read a credential or another token, without the white space around it.

    Raises `InvalidArgument` RESULT_MALFORMED for what cannot be one, `OSError` for a file that cannot be read.
    """
    if path == STANDARD_INPUT:
        data = sys.stdin.buffer.read(limit + 1)
    else:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    if len(data) > limit or not data.isascii():
        raise malformed("too long, or not ASCII")
    return data.decode("ascii").strip()


def write(text: str, out: Path | None) -> None:
    """Write a credential to a file, or to standard output."""
    if out is None:
        typer.echo(text)
    else:
        write_atomically(out, text.encode() + b"\n", PRIVATE)
