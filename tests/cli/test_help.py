"""Every command explains itself, and `hutong --help` needs to import none of them."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import typer.core
from typer.testing import CliRunner

from services.cli.lazy import command
from services.cli.main import Hutong, app

COMMANDS = [entry.name for entry in Hutong.entries]

runner = CliRunner()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0, result.output
    assert f"hutong {command}" in result.output


def sub_commands(made: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = typer.Context(made)
    for name in made.list_commands(context) if isinstance(made, typer.core.TyperGroup) else ():
        yield (*path, name)
        yield from sub_commands(made.get_command(context, name), (*path, name))


def test_every_sub_command_has_help_and_json() -> None:
    found = [path for entry in Hutong.entries for path in sub_commands(command(entry), (entry.name,))]
    assert {("result", "keys", "rotate"), ("case", "import")} <= {*found}
    for path in found:
        result = runner.invoke(app, [*path, "--help"], terminal_width=120)
        assert result.exit_code == 0, result.output
        assert f"hutong {' '.join(path)}" in result.output
        assert "--json" in result.output or "COMMAND" in result.output, path


def test_the_help_teaches_concepts_and_first_commands() -> None:
    result = runner.invoke(app, ["--help"], terminal_width=120)
    assert result.exit_code == 0
    for word in (*COMMANDS, "agency", "purpose", "policy", "hutong demo", "Exit codes"):
        assert word in result.output


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from services.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'grpc', 'sqlalchemy', 'cedarpy', 'lxml', 'sqlglot', 'alembic'} & set(sys.modules)\n"
        "print('loaded:', heavy, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: set()" in done.stderr


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("hutong ")


def test_no_command_shows_the_help() -> None:
    result = runner.invoke(app, [])
    assert result.exit_code == 2
    assert "Usage" in result.output


def test_a_mistyped_command_is_guessed_and_exits_2() -> None:
    result = runner.invoke(app, ["querry"])
    assert result.exit_code == 2
    assert "'query'" in result.output


def test_explain_takes_the_arguments_of_query() -> None:
    options = {
        name: {option for parameter in command(entry).params for option in parameter.opts}
        for name, entry in ((e.name, e) for e in Hutong.entries if e.name in {"query", "explain"})
    }
    assert options["query"] - options["explain"] == {"--stream", "--all-pages", "--save"}
    assert options["explain"] <= options["query"]


def test_up_names_every_kind_of_node_it_runs() -> None:
    result = runner.invoke(app, ["up", "--help"], terminal_width=120)
    said = " ".join(result.output.split())
    for kind in ("department", "recognition service", "supervision service", "gateway"):
        assert kind in said
