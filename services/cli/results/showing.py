"""`hutong result present`: a result with only as much of it as somebody needs to see."""

from typing import Annotated

import typer

from services.cli.output import AsJson, print_json
from services.cli.results import texts
from services.kit.credentials import results


def present(
    file: texts.Credential,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", metavar="NAME", help="What to disclose; repeat it for more.")
    ] = None,
    out: texts.Out = None,
    as_json: AsJson = False,
) -> None:
    """Write a result that discloses only what --keep names: entries of its value, and case_id.

    Whom it is about, what it proves, how thoroughly and until when stays open. Without --keep nothing else is
    disclosed. The signature covers what is left out too: what is kept verifies as before.

    \b
    Examples:
      hutong result present result.sdjwt --keep method
      hutong result present result.sdjwt --keep method --keep case_id --out shown.sdjwt
    """
    credential = results.present(texts.read(file), keep or ())
    if as_json:
        print_json({"credential": credential, "disclosed": sorted(results.disclosable(credential))})
    else:
        texts.write(credential, out)
