"""`hutong db upgrade`: bring the databases of a node up to date, and tell what is done before it is."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.text import Text

from services.cli.dbs.places import LOG, STORE, Config, Node, Place
from services.cli.dbs.roles import grants
from services.cli.output import AsJson, console, print_json
from services.kit.config import DatabaseSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import migrations
from services.kit.records.database import engine, translated
from services.kit.records.migrations import Standing, State

_AS = "File with the URL of the role that owns the {}'s tables, where the node's own may not change them."


def upgrade(
    config: Config,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    store_url: Annotated[Path | None, typer.Option("--store-url", metavar="FILE", help=_AS.format(STORE))] = None,
    log_url: Annotated[Path | None, typer.Option("--log-url", metavar="FILE", help=_AS.format(LOG))] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="store=ROLE|log=ROLE", help="Give this role what the running node needs."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Upgrade a node's databases to the tables this version needs; the node may run, but for what is told.

    Everything is looked at before anything is changed: a database that is newer than this program, or is not this
    node's, refuses all. Each database is one transaction under a lock: of several who upgrade at once one does it, and
    the others find it done.

    \b
    Examples:
      hutong db upgrade --config customs.toml --dry-run
      hutong db upgrade --config customs.toml --store-url owner-url --for store=hutong_customs_store
    """
    node = Node.of(config)
    files = {STORE: store_url, LOG: log_url}
    roles = _roles(runtime or [])
    places = [_as(place, files[place.name], node) for place in node.places]
    states = [migrations.look(place.url, place.folder) for place in places]
    for place, state in zip(places, states, strict=True):
        _check(node, place, state)
    if not as_json:
        _tell(places, states)
    done: dict[str, bool] = {}
    if not dry_run:
        for place in places:
            done[place.name] = migrations.upgrade(place.url, place.folder)
            if place.name in roles:
                _grant(place, roles[place.name])
    if as_json:
        print_json(
            {place.name: _as_dict(s, done.get(place.name, False)) for place, s in zip(places, states, strict=True)}
        )
    elif not dry_run:
        changed = [name for name, new in done.items() if new]
        console().print(f"done: {' and '.join(changed)} upgraded" if changed else "done: there was nothing to upgrade")


def _roles(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, equals, role = text.partition("=")
        if not equals or not role or name not in {STORE, LOG}:
            raise typer.BadParameter(f"{text!r}: write --for store=ROLE or --for log=ROLE")
        found[name] = role
    return found


def _as(place: Place, file: Path | None, node: Node) -> Place:
    if file is None:
        return place
    section = node.config.log if place.name == LOG else getattr(node.config, STORE)
    insecure = bool(section and section.insecure)
    return replace(place, url=DatabaseSection(url_file=file, insecure=insecure).read_url(file.parent.absolute()))


def _check(node: Node, place: Place, state: State) -> None:
    at = node.config.at(place.name)
    if state.standing is Standing.FOREIGN:
        message = f"{at}: the {place.name}'s database is not this node's: {state.why}"
        raise FailedPrecondition(Reason.STORE_FOREIGN, message)
    if state.standing is Standing.NEWER:
        message = (
            f"{at}: the {place.name}'s database is at revision {state.revision}, and this program knows none after "
            f"{state.wanted}: a newer one migrated it"
        )
        raise FailedPrecondition(Reason.STORE_NEWER, message)


def _tell(places: list[Place], states: list[State]) -> None:
    out = console()
    for place, state in zip(places, states, strict=True):
        out.print(Text(f"{place.name}: {state.standing}, revision {state.revision or 'none'} of {state.wanted}"))
        for step in state.steps:
            also = f" [every replica stopped: {step.stop}]" if step.stop and state.revision else ""
            also += f" [fills in what {step.fill} and later write themselves]" if step.fill else ""
            also += f" [drops what {step.contract} was the last to use]" if step.contract else ""
            out.print(Text(f"  {step.revision} {step.summary}{also}"))


def _grant(place: Place, role: str) -> None:
    made = engine(place.url, writer=True, application="hutong-migrations")
    try:
        if made.dialect.name != "postgresql":
            raise FailedPrecondition(Reason.CONFIG_INVALID, f"the {place.name} is a SQLite file, which knows no roles")
        with translated(), made.begin() as connection:
            for statement in grants(place.metadata, role):
                connection.execute(sa.text(statement))
    finally:
        made.dispose()


def _as_dict(state: State, done: bool) -> dict[str, object]:
    return {
        "standing": state.standing,
        "revision": state.revision,
        "wanted": state.wanted,
        "steps": [{"revision": s.revision, "summary": s.summary, "stop": s.stop} for s in state.steps],
        "upgraded": done,
    }
