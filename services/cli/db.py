"""`hutong db`: a node's databases. Each command lies in a module of `services.cli.dbs`."""

import typer

from services.cli.dbs import backing_up, checking, roles, upgrading

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="A node's databases: its [bold]store[/bold], where it has one, and its [bold]log[/bold].\n\n"
    "Both are found through the node's config. A database of a newer version of the program, or one that is not the "
    "node's, is refused before anything is changed. A backup is proven, and so is what was restored from it.\n\n"
    "\b\nExamples:\n"
    "  hutong db check --config customs.toml\n"
    "  hutong db upgrade --config customs.toml --dry-run\n"
    "  hutong db backup --config customs.toml --to /backup/customs\n"
    "  hutong db verify --config customs.toml --from /backup/customs\n",
)

app.command("check")(checking.check)
app.command("upgrade")(upgrading.upgrade)
app.command("roles")(roles.roles)
app.command("backup")(backing_up.backup)
app.command("verify")(backing_up.verify)
app.command("restore")(backing_up.restore)
