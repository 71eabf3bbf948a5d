"""`hutong log`: what a node keeps of every answer and refusal. Each command lies in a module of `services.cli.logs`."""

import typer

from services.cli.logs import elsewhere, erasing, exporting, proving, verifying, witnessing

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The log of a node: every answer and every refusal, which nobody can change without its being seen.\n\n"
    "An answer leaves only when the log has it, and carries a [bold]receipt[/bold]. The log is a Merkle tree; its head "
    "is signed as a [bold]checkpoint[/bold], and nodes of other agencies, its [bold]witnesses[/bold], co-sign what "
    "continues the last one. Whoever has a receipt can prove that its entry is in the tree; whoever has an old "
    "checkpoint, that the tree has only grown. Whom an entry is about is a salted commitment, which can be erased.\n\n"
    "\b\nExamples:\n"
    "  hutong log verify customs\n"
    "  hutong log prove answer.json --as taxation/refund --out answer.tlog-proof\n"
    "  hutong log consistency ./last-month/checkpoint --node customs --as audit/desk\n"
    "  hutong log witness customs --now\n"
    "  hutong log export customs --to ./customs-log\n"
    "  hutong log zones answer --out ./answers\n",
)

app.command("verify")(verifying.verify)
app.command("prove")(proving.prove)
app.command("consistency")(proving.consistency)
app.command("witness")(witnessing.witness)
app.command("export")(exporting.export)
app.command("zones")(elsewhere.zones)
app.command("erase")(erasing.erase)
