"""`hutong policy diff`: what another policy would have changed for those who really asked."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn
from rich.text import Text

from services.cli import question
from services.cli.authorizations.desk import Nonce, Officer, Token
from services.cli.logs import decisions, exporting
from services.cli.logs.decisions import Response
from services.cli.logs.exporting import Since, Until
from services.cli.logs.where import As, Config, Where
from services.cli.output import AsJson, Bar, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit import jurisdiction
from services.kit.audit import asking
from services.kit.audit.archive import Archive
from services.kit.clock import system_clock
from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.policy import diffing, loader
from services.kit.policy.commands import Pack
from services.kit.policy.diffing import Answers, Asked, Change, Diff, Kind
from services.kit.policy.policies import PolicySet
from services.kit.records import catalogue

_COLOURS = {Kind.OPENED: "yellow", Kind.CLOSED: "red"}


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file, or a folder of them.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="What it is to become.")],
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Decisions that were exported from a log.")
    ] = None,
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Read them from this node's log.")] = "",
    since: Since = "",
    until: Until = "",
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="As though asked then: policies begin and end. Else now.")
    ] = "",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 where any answer changes.")] = False,
    pack: Pack = "cn",
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    config: Config = None,
    folder: Folder = DEFAULT_FOLDER,
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Compare two policies by what they would answer to those who really asked.

    Every question in a node's log is asked of both, and what would come out differently is listed: which caller, for
    which purpose, which fields, and how many answers it would have touched. What the new policy opens to somebody who
    has never asked, a log cannot tell; `hutong policy show` does.

    \b
    Examples:
      hutong policy diff customs.cedar proposed/customs.cedar --node customs
      hutong policy diff policy/ proposed/ --log customs.decisions --exit-code
      hutong policy diff customs.cedar proposed/customs.cedar --node customs --as customs/release --officer d-1
    """
    if (log is None) == (not node and config is None):
        raise typer.BadParameter("say whose questions: --log FILE, or --node NODE")
    law = jurisdiction.load(pack)
    policies = _load(old, law), _load(new, law)
    if log is not None:
        pages = decisions.from_file(log)
    else:
        where = Where(node, config, folder=folder, caller=caller, cert=cert, key=key, bundle=bundle)
        request = exporting.request(since, until)
        if caller or cert:
            pages = decisions.from_node(where, request, officer, token, nonce)
        else:
            pages = decisions.from_database(where.required, request)
    questions, lost = _questions(pages, quiet=as_json)
    moment = question.moment(at) if at else system_clock()
    asked = (Answers(each, count) for each, count in questions.items())
    found = diffing.diff(*policies, asked, catalogue.load(), law, moment)
    if as_json:
        print_json(_as_dict(found, lost))
    else:
        _show(found, lost)
    if exit_code and found.changes:
        raise typer.Exit(1)


def _load(path: Path, law: Jurisdiction) -> PolicySet:
    files = sorted(path.glob("*.cedar")) if path.is_dir() else [path]
    if not files:
        raise FailedPrecondition(Reason.POLICY_INVALID, f"there is no policy file (*.cedar) in {path}")
    return loader.load(files, catalogue.load(), law)


def _questions(pages: Iterator[Response], *, quiet: bool) -> tuple[Mapping[Asked, int], Mapping[str, int]]:
    archive = Archive(catalogue.load())
    found: Counter[Asked] = Counter()
    lost: Counter[str] = Counter()
    with Bar(MofNCompleteColumn(), quiet=quiet) as bar:
        task = bar.progress.add_task("decisions", total=None)
        for page in pages:
            archive.add(page.texts)
            asked, without = asking.questions(page.decisions, archive)
            found.update(asked)
            lost.update(without)
            bar.progress.update(task, advance=len(page.decisions))
    return found, lost


def _show(found: Diff, lost: Mapping[str, int]) -> None:
    out = console()
    if found.changes:
        columns = ("Record type", "Caller", "Purpose", "Basis", "Fields", "Change", "Before", "After", "Answers")
        out.print(table("", columns, _rows(found.changes)))
    callers = len({change.asked.caller for change in found.changes})
    asked = f"{found.questions} different questions, {found.answers} answers"
    if found.changes:
        out.print(f"{len(found.changes)} changes for {callers} callers, of {asked}")
    else:
        out.print(f"nothing changes for anybody who has asked: {asked}", style="green")
    for why, count in {**found.left_out, **lost}.items():
        out.print(Text(f"left out: {count} answers, {why}", style="dim"))


def _rows(changes: tuple[Change, ...]) -> Iterator[list[str | Text]]:
    """Put fields that change in the same way for the same caller on one line."""
    lines: dict[tuple[Any, ...], tuple[dict[str, None], dict[Asked, int]]] = {}
    for change in changes:
        asked = change.asked
        who = asked.record_type, asked.caller.path, asked.purpose, asked.legal_basis
        fields, answers = lines.setdefault((*who, change.kinds, change.before, change.after), ({}, {}))
        fields[change.field] = None
        answers[asked] = change.count
    for (kind, caller, purpose, basis, kinds, before, after), (fields, answers) in lines.items():
        style = next((colour for each, colour in _COLOURS.items() if each in kinds), "")
        what = Text(", ".join(kinds), style=style)
        yield [kind, caller, purpose, basis, ", ".join(fields), what, before, after, str(sum(answers.values()))]


def _as_dict(found: Diff, lost: Mapping[str, int]) -> dict[str, Any]:
    return {
        "changed": bool(found.changes),
        "questions": found.questions,
        "answers": found.answers,
        "left_out": {**found.left_out, **lost},
        "changes": [
            {
                "record_type": change.asked.record_type,
                "caller": change.asked.caller.path,
                "purpose": change.asked.purpose,
                "legal_basis": change.asked.legal_basis,
                "authorization": change.asked.authorization.id if change.asked.authorization else "",
                "field": change.field,
                "changes": list(change.kinds),
                "before": change.before,
                "after": change.after,
                "answers": change.count,
            }
            for change in found.changes
        ],
    }
