"""The one door through which errors leave the command line: reason, message, and what to do next.

People read `error: REASON: message` and a hint on standard error. With `--json`, standard output carries
`{"error": {"reason", "message", "metadata", "hint"}}` instead. Exit codes: 0 done, 1 refused or failed, 2 called
wrongly, and 3 from `query` where an answer came but no section of it holds anything.
"""

from typing import Final, cast

import typer

from certs.errors import CertificateError
from services.cli.hints import HINTS
from services.cli.output import as_json_text
from services.kit.errors import HutongError

FAILED: Final = 1
"""Exit code of what was refused or failed."""

EMPTY: Final = 3
"""Exit code of a question that was answered, but of which every section was denied or missing."""

AS_JSON: Final = "hutong.as_json"
"""Key in the context's `meta`: a machine reads the output."""

_INTERNAL_HINT = "this should not happen: `hutong --debug …` shows where it comes from"


def describe(error: BaseException) -> dict[str, object]:
    """Write an error as machines get it."""
    if isinstance(error, BaseExceptionGroup):
        # Of errors that came together, the first says enough.
        return describe(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if isinstance(error, HutongError):
        return _described(error.reason, error.message, HINTS.get(error.reason, ""), error.metadata)
    if isinstance(error, CertificateError):
        return _described(error.reason, str(error), error.hint or HINTS.get(error.reason, ""), {})
    if isinstance(error, OSError):
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _described("FILE_ERROR", message, HINTS["FILE_ERROR"], {})
    return _described("INTERNAL", f"{type(error).__name__}: {error}", _INTERNAL_HINT, {})


def _described(reason: str, message: str, hint: str, metadata: dict[str, str]) -> dict[str, object]:
    return {"reason": str(reason), "message": message, "metadata": metadata, "hint": hint}


def tell(error: BaseException, *, as_json: bool) -> None:
    """Tell of an error, to a machine or to a person."""
    described = describe(error)
    if as_json:
        # On one line: commands that print JSON line by line may end with it.
        typer.echo(as_json_text({"error": described}))
        return
    head = typer.style("error:", fg=typer.colors.RED, bold=True)
    typer.echo(f"{head} {described['reason']}: {described['message']}", err=True)
    if described["hint"]:
        typer.echo(f" next: {described['hint']}", err=True)
