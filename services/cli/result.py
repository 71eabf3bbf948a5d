"""`hutong result`: stage results that travel. Each command lies in a module of `services.cli.results`."""

import typer

from services.cli.results import checking, fetching, issuing, keys, showing, signing

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Stage results: what an agency has examined, signed so that others can rely on it without asking.\n\n"
    "A result is one text. It says who proved which [bold]fact[/bold] about whom, how thoroughly and until when; the "
    "holder shows as much of the rest as is needed. Anyone with the issuer's [bold]published keys[/bold] can verify "
    "it, and look up in a [bold]status list[/bold] whether it still stands.\n\n"
    "\b\nExamples:\n"
    "  hutong result get RESULT --as enterprise/91999901ma07hy2e6f --out result.sdjwt\n"
    "  hutong result verify result.sdjwt\n"
    "  hutong result present result.sdjwt --keep method\n"
    "  hutong result keys list publicsecurity\n",
)

app.command("verify")(checking.verify)
app.command("present")(showing.present)
app.command("sign")(signing.sign)
app.command("issue")(issuing.issue)
app.command("revoke")(issuing.revoke)
app.command("get")(fetching.get)
app.command("list")(fetching.list_)
app.command("status")(fetching.status)
keys.app.command("fetch")(fetching.fetch)
app.add_typer(keys.app, name="keys")
