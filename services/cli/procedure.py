"""`hutong procedure`: check procedure files before they are put in force, and show what they say. Needs no network."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from services.cli.output import AsJson, console, print_json, table
from services.kit.clock import system_clock
from services.recognition import drawing
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.procedure import DeemedRule, Procedure, Stage
from services.recognition.procedure_draft import Problem
from services.recognition.procedure_file import ProcedureRefused, read
from services.recognition.procedures import SHIPPED, Procedures

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Check and show procedures: which agency does what, after what, in how long.\n\n"
    "\b\nExamples:\n"
    "  hutong procedure check ftz-est@1.1.0.yaml\n"
    "  hutong procedure show\n"
    "  hutong procedure show FTZ-EST\n"
    "  hutong procedure show FTZ-EST@1.0.0 --svg ftz-est.svg\n",
)

_Procedures = Annotated[
    Path | None,
    typer.Option("--procedures", metavar="DIR", help="Procedures beside those that come with the product."),
]
_Arrangements = Annotated[
    Path | None,
    typer.Option("--arrangements", metavar="DIR", help="Arrangements beside those that come with the product."),
]
_Calendars = Annotated[
    Path | None, typer.Option("--calendars", metavar="DIR", help="Calendars beside those that come with the product.")
]


@app.command()
def check(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE", help="Procedure files; all known ones where none is given.")
    ] = None,
    procedures: _Procedures = None,
    arrangements: _Arrangements = None,
    calendars: _Calendars = None,
    as_json: AsJson = False,
) -> None:
    """Check that procedure files would load, and say every mistake in them.

    Facts that a stage demands from outside its procedure must be proven by another procedure or be arranged for: by
    those that come with the product, by those in the folders given, or by the other files.
    """
    try:
        checked = _check(files or [], procedures, arrangements, calendars)
    except ProcedureRefused as refused:
        _refused(refused.problems, as_json=as_json)
    if as_json:
        print_json({"ok": True, "procedures": [_head(procedure) for procedure in checked]})
        return
    for procedure in checked:
        typer.echo(f"{procedure.label}: {len(procedure.stages)} stages, {len(procedure.takes_part)} agencies")
    typer.echo(f"ok: {len(checked)} procedures")


def _check(
    files: list[Path], folder: Path | None, arrangements: Path | None, calendars: Path | None
) -> list[Procedure]:
    agencies, ids = Agencies.load(), [*Calendars.load(calendars)]
    given = Procedures.of(files, agencies, ids)
    places = (SHIPPED, folder) if folder else (SHIPPED,)
    others = {path.name: path for place in places for path in sorted(place.glob("*.yaml"))}
    beside = [path for name, path in others.items() if name not in {procedure.file for procedure in given}]
    everything = Procedures([*given, *Procedures.of(beside, agencies, ids)])
    arranged = Arrangements.load(arrangements, agencies=agencies, procedures=everything)
    everything.check_demands(arranged)
    return [*(given if files else everything)]


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="[CODE[@VERSION]|FILE]", help="Which one; nothing lists those there are.")
    ] = "",
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Write the graph as SVG; `-` for standard output.")
    ] = None,
    procedures: _Procedures = None,
    calendars: _Calendars = None,
    as_json: AsJson = False,
) -> None:
    """Show a procedure: its stages as a graph, who does them, in how long, and what they prove.

    Without a version it is the one in force. A name that ends in .yaml is a file.
    """
    if not name:
        if svg:
            raise typer.BadParameter("say which procedure to draw", param_hint="--svg")
        _list(_load(procedures, calendars), as_json)
        return
    procedure = _find(name, procedures, calendars)
    if svg:
        _write(drawing.svg(procedure), svg)
    elif as_json:
        print_json(_as_json(procedure))
    else:
        _describe(procedure)


def _load(folder: Path | None, calendars: Path | None) -> Procedures:
    # Whether every demand is met is for `check` to say: what is to be shown may be why it is not.
    return Procedures.load(folder, calendars=[*Calendars.load(calendars)], demands=False)


def _find(name: str, folder: Path | None, calendars: Path | None) -> Procedure:
    if name.endswith(".yaml"):
        return read(Path(name), calendars=[*Calendars.load(calendars)])
    known = _load(folder, calendars)
    code, _, version = name.partition("@")
    return known.get(f"{code.upper()}@{version}") if version else known.in_force(code.upper(), system_clock())


def _write(text: str, file: Path) -> None:
    if str(file) == "-":
        typer.echo(text, nl=False)
    else:
        file.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {file}", err=True)


def _refused(problems: Iterable[Problem], *, as_json: bool) -> NoReturn:
    """Tell every mistake and end."""
    told = [*problems]
    if as_json:
        words = [{"reason": p.reason, "file": p.file, "stage": p.stage, "message": p.message} for p in told]
        print_json({"ok": False, "problems": words})
    else:
        for problem in told:
            typer.echo(f"{problem.reason}: {problem}", err=True)
        typer.echo(f"refused: {len(told)} mistake{'' if len(told) == 1 else 's'}", err=True)
    raise typer.Exit(1)


def _list(known: Procedures, as_json: bool) -> None:
    if as_json:
        print_json({"procedures": [_head(procedure) for procedure in known]})
        return
    rows = [
        (p.label, p.title, p.local_title, p.lead, str(len(p.stages)), f"{p.effective_from:%Y-%m-%d}") for p in known
    ]
    console().print(table("Procedures", ("Procedure", "Title", "名称", "Lead", "Stages", "In force from"), rows))


_DEEMED: Final = {
    DeemedRule.FORBIDDEN: "never",
    DeemedRule.ACCEPTANCE: "in the acceptance only",
    DeemedRule.ALLOWED: "where a stage says so",
}


def _describe(procedure: Procedure) -> None:
    typer.echo(drawing.text(procedure))
    for line in _head_lines(procedure):
        typer.echo(line)
    proofs = [
        (s.code, s.proves.code, str(s.proves.assurance), s.proves.valid_for or "", ", ".join(s.recognised_by))
        for s in procedure.stages.values()
        if s.proves
    ]
    columns = ("Stage", "Proves", "Assurance", "Valid for", "Recognised by")
    console().print(table("", columns, proofs))


def _head_lines(procedure: Procedure) -> Iterable[str]:
    moment = procedure.effective_from
    yield f"lead {procedure.lead}, calendar {procedure.calendar}, in force from {moment:%Y-%m-%d}"
    yield f"silence counts as a pass: {_DEEMED[procedure.deemed]}"
    for name, question in procedure.questions.items():
        default = f", {question.default} unless answered" if question.default is not None else ""
        yield f"asks {name}: {question.title} {question.local_title} ({' | '.join(question.values)}{default})"
    for step in procedure.escalation:
        yield f"overdue by {drawing.limit_words(step.after)}: to {step.to}"
    if procedure.case_limit:
        yield f"the whole case: {drawing.limit_words(procedure.case_limit)}"


def _head(procedure: Procedure) -> dict[str, Any]:
    return {
        "procedure": procedure.label,
        "code": procedure.code,
        "version": procedure.version,
        "title": procedure.title,
        "local_title": procedure.local_title,
        "lead": procedure.lead,
        "calendar": procedure.calendar,
        "matters": procedure.matters,
        "deemed": procedure.deemed,
        "effective_from": procedure.effective_from.isoformat(),
        "digest": procedure.digest,
        "agencies": sorted(procedure.takes_part),
    }


def _as_json(procedure: Procedure) -> dict[str, Any]:
    questions = {
        name: {"title": q.title, "local_title": q.local_title, "values": q.values, "default": q.default}
        for name, q in procedure.questions.items()
    }
    return _head(procedure) | {
        "subject_schemes": procedure.subject_schemes,
        "questions": questions,
        "stages": [_stage(stage) for stage in procedure.stages.values()],
    }


def _stage(stage: Stage) -> dict[str, Any]:
    fact, by = stage.proves, stage.limits_by
    return {
        "code": stage.code,
        "title": stage.title,
        "local_title": stage.local_title,
        "agency": stage.agency,
        "after": stage.after,
        "when": dict(stage.when),
        "when_result": {before: sorted(codes) for before, codes in stage.when_result.items()},
        "limit": drawing.limit_words(stage.limit) if stage.limit else None,
        "limits_by": {by.question: {v: drawing.limit_words(x) for v, x in by.limits.items()}} if by else None,
        "clock": stage.clock,
        "overdue": stage.overdue,
        "pauses": sorted(stage.pauses),
        "proves": {"fact": fact.code, "assurance": fact.assurance, "valid_for": fact.valid_for} if fact else None,
        "recognised_by": stage.recognised_by,
        "requires": [{"fact": d.fact, "assurance": d.assurance, "max_age": d.max_age} for d in stage.requires],
        "accepts": stage.accepts,
        "reaches": stage.reaches,
        "optional": stage.optional,
        "instant": stage.instant,
    }
