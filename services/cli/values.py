"""`hutong values check`: the values of a release, before Helm sees them.

Helm checks values against the chart's schema, and refuses by path; here the same schema refuses by file, line and
column, with what was meant, together with what no schema can say: a key or an agency that stands twice, a policy that
does not pass its checks.
"""

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, cast

import jsonschema
import typer
from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]

from services.cli import door, rooms
from services.cli.output import AsJson, print_json
from services.cli.yaml_places import Keys, Place, Placed, Unreadable, read
from services.kit import jurisdiction
from services.kit.errors import HutongError
from services.kit.policy import loader
from services.kit.policy.loader import PolicyRefused
from services.kit.records import catalogue
from services.kit.records.catalogue import nearest

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="The values of a release on Kubernetes.\n\n"
    "\b\nExample:\n  hutong values check port.yaml --chart helm/hutong\n",
)

SCHEMA: Final = "values.schema.json"
CHART: Final = Path("helm/hutong")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake in a values file."""

    place: Place
    path: str
    """What it is about, for example `agencies[2].name`."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.place), self.path, self.message) if part)


@app.callback()
def values() -> None:
    """Take what holds for every command: nothing."""


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Values files, in the order in which Helm is given them.")
    ],
    chart: Annotated[
        Path, typer.Option("--chart", metavar="DIR|TGZ", envvar="HUTONG_CHART", help="The chart, as it is or packed.")
    ] = CHART,
    as_json: AsJson = False,
) -> None:
    """Check the values of a release, and say on which line of which file they are wrong. Needs no cluster and no Helm.

    \b
    Examples:
      hutong values check port.yaml
      hutong values check port.yaml secrets.yaml --chart hutong-0.1.0.tgz --json
    """
    rules = schema(chart)
    mistakes = find(files, rules)
    if as_json:
        found = [
            {"file": str(m.place.file), "line": m.place.line, "column": m.place.column}
            | {"path": m.path, "message": m.message}
            for m in mistakes
        ]
        print_json({"ok": not mistakes, "problems": found})
    elif mistakes:
        for mistake in mistakes:
            typer.echo(str(mistake), err=True)
        typer.echo(f"refused: {len(mistakes)} mistakes", err=True)
    else:
        typer.echo(f"ok: {', '.join(map(str, files))}")
    if mistakes:
        raise typer.Exit(door.FAILED)


def schema(chart: Path) -> dict[str, Any]:
    """Read a chart's schema of values; raises `typer.BadParameter` where there is none."""
    try:
        if chart.is_dir():
            return cast("dict[str, Any]", json.loads((chart / SCHEMA).read_text(encoding="utf-8")))
        with tarfile.open(chart) as packed:
            member = next(each for each in packed if each.name.count("/") == 1 and each.name.endswith(f"/{SCHEMA}"))
            held = packed.extractfile(member)
            return cast("dict[str, Any]", json.loads(held.read() if held else b""))
    except (OSError, tarfile.TarError, StopIteration, ValueError):
        raise typer.BadParameter(f"{chart} is no chart with a {SCHEMA}, as it is or packed: say --chart") from None


def find(files: Iterable[Path], rules: Mapping[str, Any]) -> list[Mistake]:
    """Find every mistake of values files, which are laid over each other as Helm does it.

    Raises `typer.BadParameter` where a file cannot be read.
    """
    whole = Placed({}, {})
    for file in files:
        try:
            whole = read(file).laid_over(whole)
        except Unreadable as wrong:
            return [Mistake(wrong.place, "", str(wrong))]
        except OSError as error:
            raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from None
    if not isinstance(whole.value, dict):
        return [Mistake(whole.place(()), "", "values are a mapping: write `zone: …`")]
    found = [*_by_schema(whole, rules), *_twice(whole), *_policies(whole)]
    return sorted(set(found), key=lambda each: (str(each.place.file), each.place.line, each.place.column))


def _by_schema(whole: Placed, rules: Mapping[str, Any]) -> Iterator[Mistake]:
    errors = jsonschema.Draft202012Validator(rules).iter_errors(whole.value)  # pyright: ignore[reportUnknownMemberType]
    for error in errors:
        yield from _worded(whole, error)


def _worded(whole: Placed, error: ValidationError) -> Iterator[Mistake]:
    at: Keys = tuple(error.absolute_path)
    said, found, rules = cast("tuple[Any, Any, dict[str, Any]]", (error.validator_value, error.instance, error.schema))
    match error.validator:
        case "additionalProperties":
            known, patterns = rules.get("properties", {}), rules.get("patternProperties", ())
            for key in cast("dict[str, Any]", found):
                if key not in known and not any(re.search(pattern, key) for pattern in patterns):
                    below = (*at, key)
                    yield Mistake(whole.key(below), _path(below), f"unknown key{nearest(key, known)}")
        case "required":
            missing = next(key for key in said if key not in found and repr(key) in error.message)
            yield Mistake(whole.key(at), _path((*at, missing)), "it is missing")
        case "enum":
            message = f"{found!r} is none of {', '.join(map(str, said))}{nearest(str(found), said)}"
            yield Mistake(whole.place(at), _path(at), message)
        case "oneOf" if all([*each] == ["required"] for each in said):
            names = " or ".join(name for each in said for name in each["required"])
            yield Mistake(whole.key(at), _path(at), f"give either {names}")
        case "anyOf" if all("type" in each for each in said) and all(
            e.validator == "type" for e in error.context or ()
        ):
            types = " or ".join(repr(each["type"]) for each in said if each["type"] != "null")
            yield Mistake(whole.place(at), _path(at), f"{found!r} is not of type {types}")
        case "anyOf" | "oneOf" if (closer := _closer(error)) is not None:
            yield from _worded(whole, closer)
        case "pattern":
            yield Mistake(whole.place(at), _path(at), f"{found!r} does not fit: {rules.get('description', said)}")
        case _:
            yield Mistake(whole.place(at), _path(at), error.message)


def _closer(error: ValidationError) -> ValidationError | None:
    """Of several forms that are allowed, say what is wrong by the one that is meant most likely."""
    found = cast("ValidationError | None", best_match([error]))
    return None if found is error else found


def _path(keys: Keys) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _twice(whole: Placed) -> Iterator[Mistake]:
    """Find agencies of one name: an agency has one node."""
    seen: dict[str, Place] = {}
    for number, name in _agencies(whole):
        keys: Keys = ("agencies", number, "name")
        if name in seen:
            place = seen[name]
            message = f"two agencies are called {name!r}, and an agency has one node: see line {place.line} as well"
            yield Mistake(whole.place(keys), _path(keys), message)
        seen.setdefault(name, whole.place(keys))


def _agencies(whole: Placed) -> Iterator[tuple[int, str]]:
    listed = whole.value.get("agencies")
    for number, agency in enumerate(cast("list[object]", listed) if isinstance(listed, list) else ()):
        if isinstance(name := _mapping(agency).get("name"), str):
            yield number, name


def _policies(whole: Placed) -> Iterator[Mistake]:
    """Check the policies among the values as nodes do, beside those that come with the product."""
    section = _mapping(whole.value.get("policy"))
    given = {name: text for name, text in _mapping(section.get("files")).items() if isinstance(text, str)}
    if not given:
        return
    owners = {name for _, name in _agencies(whole)} | {rooms.RECOGNITION}
    for name in [*given]:
        if name not in owners:
            keys: Keys = ("policy", "files", name)
            yield Mistake(whole.key(keys), _path(keys), f"there is no such agency in agencies{nearest(name, owners)}")
            del given[name]
    try:
        pack = jurisdiction.load(section.get("jurisdiction", "cn"))
    except HutongError as error:
        yield Mistake(whole.place(("policy", "jurisdiction")), "policy.jurisdiction", error.message)
        return
    delivered = {f"{name}.cedar": path.read_text(encoding="utf-8") for name, path in rooms.policies().items()}
    try:
        loader.parse(delivered | {f"{name}.cedar": text for name, text in given.items()}, catalogue.load(), pack)
    except PolicyRefused as refused:
        yield from (_of_policy(whole, problem) for problem in refused.problems)


def _mapping(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _of_policy(whole: Placed, problem: loader.Problem) -> Mistake:
    """Find the place of a policy's mistake in the values file, where the text stands there line by line."""
    keys: Keys = ("policy", "files", problem.file.removesuffix(".cedar"))
    message = ": ".join(part for part in (problem.policy, problem.message) if part)
    begin = whole.blocks.get(keys)
    if begin is None or not problem.place.line:
        where = f"{problem.file}:{problem.place}: " if problem.place.line else ""
        return Mistake(whole.place(keys), _path(keys), f"{where}{message}")
    place = Place(begin.file, begin.line + problem.place.line - 1, begin.column + max(problem.place.column, 1) - 1)
    return Mistake(place, _path(keys), message)
