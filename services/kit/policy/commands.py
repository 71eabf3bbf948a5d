"""`hutong policy`: check, test and show policies, before they are put in force.

The command line tells where the agencies' policies lie through `default_policies`; without it, files are named.
"""

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hutong.api.exchange.v1 import exchange_pb2
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.clock import Clock, system_clock
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.policy import loader, scenarios
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.loader import PolicyRefused
from services.kit.policy.policies import Policy, PolicySet
from services.kit.policy.reach import FieldReader, names_principal
from services.kit.policy.scenarios import Outcome
from services.kit.policy.schema import SHARES, Authorized
from services.kit.policy.transforms import MIN_SECRET
from services.kit.records import catalogue
from services.kit.records.catalogue import Field, RecordType, nearest

default_policies: Callable[[], Mapping[str, Path]] = dict
"""Where each agency's policy file lies; set by the command line, which knows the rooms."""

clock: Clock = system_clock
"""What "now" is when policies are shown."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Check, test and show policies.\n\n"
    "\b\nExamples:\n"
    "  hutong policy check customs.cedar\n"
    "  hutong policy test customs\n"
    "  hutong policy show customs.Declaration\n"
    "  hutong policy show customs.Declaration --as taxation/refund --purpose P-REBATE --basis CN-VAT-REBATE\n",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Pack = Annotated[str, typer.Option("--jurisdiction", metavar="ID", help="Jurisdiction pack with purposes and bases.")]
Room = Annotated[
    Path | None,
    typer.Option("--room", metavar="DIR", help="Folder of a room: its policy/*.cedar instead of the known ones."),
]

_WIDTH = 160


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Policy files; all known ones where none is given.")
    ] = None,
    room: Room = None,
    pack: Pack = "cn",
    as_json: AsJson = False,
) -> None:
    """Check that policy files would load, and say every mistake in them."""
    paths = _files(files, room)
    try:
        found = loader.load(paths, catalogue.load(), jurisdiction.load(pack))
    except PolicyRefused as refused:
        _refused(refused, as_json=as_json)
    now = clock()
    counts = {
        agency: {"policies": len(own.policies), "in_force": len(own.active(now)), "version": own.version}
        for agency, own in found.agencies.items()
    }
    if as_json:
        _print_json({"ok": True, "agencies": counts, "version": found.version})
        return
    for agency, count in counts.items():
        typer.echo(f"{agency}: {count['policies']} policies, {count['in_force']} in force, version {count['version']}")
    typer.echo(f"ok: {len(paths)} files")


@app.command("test")
def run_scenarios(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="ROOM|FILE", help="Rooms, or files of scenarios; all rooms where none is given."),
    ] = None,
    pack: Pack = "cn",
    as_json: AsJson = False,
) -> None:
    """Run scenarios: files that say who asks what and why, and what must come out.

    A file of scenarios is run against the policies (*.cedar) in its own folder.
    """
    results: list[tuple[Path, tuple[Outcome, ...], frozenset[str]]] = []
    for file in _scenario_files(targets or []):
        try:
            policies = loader.load(_beside(file), catalogue.load(), jurisdiction.load(pack))
        except PolicyRefused as refused:
            _refused(refused, as_json=as_json)
        results.append((file, *scenarios.check(file, policies, catalogue.load(), jurisdiction.load(pack))))
    failed = sum(1 for _, outcomes, _ in results for outcome in outcomes if outcome.problems)
    if as_json:
        _print_json({"ok": not failed, "files": [_result(*result) for result in results]})
    else:
        for result in results:
            _tell(*result)
        total = sum(len(outcomes) for _, outcomes, _ in results)
        typer.echo(f"{'ok' if not failed else 'failed'}: {total - failed} of {total} scenarios came out as expected")
    if failed:
        raise typer.Exit(1)


@app.command()
def show(
    record_type: Annotated[
        str | None, typer.Argument(metavar="RECORD_TYPE", help="For example customs.Declaration.")
    ] = None,
    who: Annotated[str, typer.Option("--as", metavar="AGENCY/SYSTEM", help="Decide for this caller.")] = "",
    purpose: Annotated[str, typer.Option("--purpose", help="Only what holds for this purpose.")] = "",
    basis: Annotated[str, typer.Option("--basis", help="Legal basis the caller states (with --as).")] = "",
    case_ref: Annotated[str, typer.Option("--case", help="Case the caller states (with --as).")] = "",
    room: Room = None,
    pack: Pack = "cn",
    as_json: AsJson = False,
) -> None:
    """Show policies: all of them, those that reach a record type's fields, or what one caller would be given."""
    if who and not (record_type and purpose and basis and who.count("/") == 1):
        raise typer.BadParameter("say --as AGENCY/SYSTEM with RECORD_TYPE, --purpose and --basis")
    law = jurisdiction.load(pack)
    if purpose and purpose not in law.purposes:
        raise InvalidArgument(
            Reason.PURPOSE_UNKNOWN, f"there is no purpose {purpose!r}{nearest(purpose, law.purposes)}"
        )
    policies = loader.load(_files(None, room), catalogue.load(), law)
    if record_type is None:
        _show_all(policies, as_json=as_json)
        return
    kind = catalogue.load().get(record_type)
    if not who:
        _show_type(kind, policies, law.purposes, purpose, as_json=as_json)
        return
    agency, _, system = who.partition("/")
    engine = PolicyEngine(policies, catalogue.load(), law, bytes(MIN_SECRET), clock)
    context = exchange_pb2.RequestContext(purpose=purpose, legal_basis=basis, case_ref=case_ref)
    needs = law.purposes[purpose].needs_authorization
    authorized = Authorized("SHOWN", emergency=False, case_ref=case_ref) if needs else None
    mask = engine.mask(Caller(f"spiffe://show/{who}", agency, system), context, kind, authorized)
    under = ", under an authorization that opens everything" if needs else ""
    _show_decisions(f"{kind.name} for {who}, {purpose} on {basis}{under}", mask.decisions, as_json=as_json)


def _files(files: list[Path] | None, room: Path | None) -> list[Path]:
    if files:
        return files
    if room is not None:
        found = sorted((room / "policy").glob("*.cedar")) or sorted(room.glob("*.cedar"))
        if not found:
            raise FailedPrecondition(Reason.POLICY_INVALID, f"there is no policy file (*.cedar) under {room}")
        return found
    known = list(default_policies().values())
    if not known:
        raise typer.BadParameter("name policy files, or a room's folder with --room DIR")
    return known


def _beside(file: Path) -> list[Path]:
    found = sorted(file.parent.glob("*.cedar"))
    if not found:
        raise FailedPrecondition(Reason.POLICY_INVALID, f"no policy file (*.cedar) lies beside {file}")
    return found


def _scenario_files(targets: Iterable[str]) -> list[Path]:
    rooms = {agency: path.parent / "scenarios.yaml" for agency, path in default_policies().items()}
    found: list[Path] = []
    for target in targets:
        path = Path(target)
        if target in rooms:
            found.append(rooms[target])
        elif path.is_dir():
            inside = [p for p in (path / "scenarios.yaml", path / "policy" / "scenarios.yaml") if p.is_file()]
            found.append(inside[0] if inside else path / "scenarios.yaml")
        elif path.is_file():
            found.append(path)
        else:
            raise typer.BadParameter(f"{target!r} is neither a room nor a file{nearest(target, rooms)}")
    if not found and not rooms:
        raise typer.BadParameter("name files of scenarios, or rooms")
    return found or [path for path in rooms.values() if path.is_file()]


def _refused(refused: PolicyRefused, *, as_json: bool) -> NoReturn:
    """Tell every mistake and end."""
    if as_json:
        problems = [
            {"reason": p.reason, "file": p.file, "line": p.place.line, "column": p.place.column}
            | {"policy": p.policy, "message": p.message}
            for p in refused.problems
        ]
        _print_json({"ok": False, "problems": problems})
    else:
        for problem in refused.problems:
            typer.echo(f"{problem.reason}: {problem}", err=True)
        typer.echo(f"refused: {len(refused.problems)} mistakes; policies in force would stay as they are", err=True)
    raise typer.Exit(1)


def _result(file: Path, outcomes: Iterable[Outcome], untouched: Iterable[str]) -> dict[str, Any]:
    return {
        "file": str(file),
        "scenarios": [{"name": o.scenario.name, "ok": not o.problems, "problems": o.problems} for o in outcomes],
        "policies_without_scenario": sorted(untouched),
    }


def _tell(file: Path, outcomes: Iterable[Outcome], untouched: frozenset[str]) -> None:
    typer.echo(f"{file}")
    for outcome in outcomes:
        typer.echo(f"  {'FAIL' if outcome.problems else 'ok  '} {outcome.scenario.name}")
        for problem in outcome.problems:
            typer.echo(f"         {problem}")
    if untouched:
        typer.echo(f"  note: no scenario touches {', '.join(sorted(untouched))}; write one for each")


@dataclass(frozen=True, slots=True)
class _Rule:
    """One policy's word on one field."""

    field: Field
    policy: Policy
    purposes: tuple[str, ...]
    """Purposes for which the policy may reach the field; none where the purpose does not matter."""

    def row(self) -> dict[str, str]:
        policy, scope = self.policy, self.policy.ast["principal"]
        anybody = "by condition" if names_principal(policy.ast) else "any"
        return {
            "field": self.field.path,
            "share": SHARES[self.field.share],
            "policy": policy.id,
            "effect": (policy.transform.text if policy.transform else "clear") if policy.permit else "FORBID",
            "who": scope["entity"]["id"] if "entity" in scope else anybody,
            "purpose": ", ".join(self.purposes) or "any",
            "rows": "; ".join(dict.fromkeys(condition.text for condition in policy.rows.values())),
            "basis": policy.basis,
            "until": _day(policy.until),
        }


def _day(moment: dt.datetime | None) -> str:
    return moment.isoformat().replace("+00:00", "Z") if moment else ""


def _rules(kind: RecordType, policies: PolicySet, known: Iterable[str], purpose: str) -> Iterable[_Rule]:
    known = tuple(known)
    for leaf in kind.leaves:
        reader = FieldReader(kind, leaf)
        for policy in policies.of(kind.owner).policies.values():
            if reader.reach(policy.ast, purpose or None).true:
                reached = tuple(p for p in known if reader.reach(policy.ast, p).true)
                yield _Rule(leaf, policy, () if len(reached) == len(known) else reached)


def _show_type(kind: RecordType, policies: PolicySet, known: Iterable[str], purpose: str, *, as_json: bool) -> None:
    rows = [rule.row() for rule in _rules(kind, policies, known, purpose)]
    reached = {row["field"] for row in rows}
    closed = (leaf for leaf in kind.leaves if leaf.path not in reached)
    rows += [{"field": leaf.path, "share": SHARES[leaf.share], "effect": "closed"} for leaf in closed]
    order = {leaf.path: number for number, leaf in enumerate(kind.leaves)}
    rows.sort(key=lambda row: order[row["field"]])
    _show(f"{kind.name} ({kind.title})", rows, as_json=as_json)


def _show_all(policies: PolicySet, *, as_json: bool) -> None:
    now = clock()
    rows = [
        {
            "policy": policy.id,
            "agency": policy.agency,
            "effect": "permit" if policy.permit else "FORBID",
            "title": policy.title,
            "basis": policy.basis,
            "until": _day(policy.until),
            "in force": "yes" if policy.active(now) else "no",
        }
        for policy in policies
    ]
    _show(f"{len(rows)} policies, version {policies.version}", rows, as_json=as_json)


def _show_decisions(title: str, decisions: Iterable[exchange_pb2.FieldDecision], *, as_json: bool) -> None:
    rows = [
        {
            "field": d.field,
            "decision": {1: "clear", 2: d.transform, 3: "refused"}.get(d.verdict, ""),
            "reason": d.reason,
            "policies": ", ".join(d.policy_ids),
            "rows": "; ".join(d.conditions),
            "retain": d.retention,
            "until": _day(d.until.ToDatetime(dt.UTC)) if d.HasField("until") else "",
        }
        for d in decisions
    ]
    _show(title, rows, as_json=as_json)


def _show(title: str, rows: list[dict[str, str]], *, as_json: bool) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if as_json:
        _print_json([{name: row.get(name, "") for name in columns} for row in rows])
        return
    table = Table(title=Text(title), title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row.get(name, "")) for name in columns))
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=_WIDTH)).print(table)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
