"""`hutong log zones`: what other zones answered, taken out of an answer for their auditors to compare."""

from pathlib import Path
from typing import Annotated

import typer

from certs.files import PRIVATE, make_folder, write_atomically
from services.cli.logs import receipt_files
from services.cli.output import AsJson, console, print_json, table
from services.kit.errors import NotFound, Reason
from services.kit.log import elsewhere


def zones(
    saved: Annotated[Path, typer.Argument(metavar="ANSWER", help="An answer that `hutong query --save` kept.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write each one there, as ZONE-for-ZONE.answer.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which other zones answered, and take their answers out, byte for byte, with the receipts of their logs.

    What is written is what that zone's gateway sent. An auditor there compares it with the log: `hutong log prove`.

    \b
    Examples:
      hutong query … --select inland.example/customs.Declaration --save answer
      hutong log zones answer --out ./answers
    """
    found = list(elsewhere.answers(receipt_files.load(saved)))
    if not found:
        raise NotFound(Reason.RECORD_NOT_FOUND, f"no other zone answered anything in {saved}")
    rows: list[tuple[str, str, str, str]] = []
    for each in found:
        told = each.provenance
        file = f"{told.zone}-for-{told.answered_by}.answer"
        if out is not None:
            make_folder(out)
            write_atomically(out / file, each.answer, PRIVATE)
        rows.append((told.zone, "answered" if told.zone == told.answered_by else f"carried on to {told.answered_by}",
                     f"{told.receipt.origin} {told.receipt.index}", file if out else ""))  # fmt: skip
    if as_json:
        print_json([dict(zip(("zone", "part", "entry", "file"), row, strict=True)) for row in rows])
    else:
        console().print(table("", ("Zone", "Its part", "Entry of its log", "File"), rows))
