"""`hutong audit`: whether what a node decided follows from the policy that was in force."""

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import MofNCompleteColumn
from rich.text import Text

from services.cli.authorizations.desk import Nonce, Officer, Token
from services.cli.logs import decisions, exporting
from services.cli.logs.decisions import Request, Response
from services.cli.logs.exporting import Since, Until
from services.cli.logs.where import As, Config, Keys, Origin, Where, cosigners
from services.cli.output import AsJson, Bar, console, pairs, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER
from services.kit.audit.archive import Archive
from services.kit.audit.findings import Finding, Verdict
from services.kit.audit.following import follow
from services.kit.audit.recompute import Recomputer
from services.kit.audit.sampling import MAX_DRAW, MIN_SEED
from services.kit.errors import FailedPrecondition, NotFound, Reason
from services.kit.log.checkpoint import SignedCheckpoint
from services.kit.records import catalogue

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Audit a node: take decisions from its log and decide once more.\n\n"
    "An auditor chooses a [bold]seed[/bold] that the node cannot know, and gets the entries it draws: proven to be in "
    "the log, with the policy, the jurisdiction and the authorization that each decision rests on. What follows from "
    "these is computed anew and compared, field by field.\n\n"
    "\b\nExamples:\n"
    "  hutong audit recompute --node customs --draw 50 --as audit/desk --officer a-3\n"
    "  hutong audit recompute --file customs.decisions\n",
)

_SHOWN: Final = 20
"""Findings that are shown to people; machines get all."""
_STYLES: Final = {Verdict.SAME: "green", Verdict.DIFFERS: "red", Verdict.BROKEN: "red"}


@app.callback()
def audit() -> None:
    """Keep `recompute` a command of its own, however few there are."""


@dataclass(slots=True)
class _Audited:
    """What came of it."""

    signed: SignedCheckpoint
    seed: bytes
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def good(self) -> bool:
        return all(finding.verdict.good for finding in self.findings)

    @property
    def decisions(self) -> list[Finding]:
        """Without the texts of masks, which are proven and decide nothing."""
        return [finding for finding in self.findings if not finding.entry.HasField("mask") or not finding.verdict.good]


@app.command("recompute")
def recompute(
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="The node whose decisions are audited.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Decisions that were saved: by --save, or an export.")
    ] = None,
    draw: Annotated[
        int, typer.Option("--draw", min=0, max=MAX_DRAW, metavar="N", help="Draw this many at random; 0 takes all.")
    ] = 0,
    seed: Annotated[
        str, typer.Option("--seed", metavar="HEX", help="What to draw with, to draw the same again; else a new one.")
    ] = "",
    since: Since = "",
    until: Until = "",
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep what the node gave, to recompute it offline.")
    ] = None,
    caller: As = "",
    officer: Officer = "",
    token: Token = None,
    nonce: Nonce = False,
    published: Keys = None,
    log: Origin = "",
    config: Config = None,
    folder: Folder = DEFAULT_FOLDER,
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Recompute decisions: does what was given and refused follow from the policy of that moment?

    Each is proven to be in the log, then decided again by the policy, for the caller, the purpose and the moment that
    were logged. SAME: it follows. DIFFERS: something else does. BROKEN: entry, proof or text is not what it says.
    ERASED: the policy looks at something that was erased since. NOT_RECOMPUTABLE: no field was decided, or a text is
    missing. That the entries are those the seed draws, and none was left out, is checked too.

    Asks the node as an officer with the role auditor, or data-officer of the node's own agency; without --as, reads the
    node's database. Exit code 1 where anything DIFFERS or is BROKEN.

    \b
    Examples:
      hutong audit recompute --node customs --draw 50 --as audit/desk --officer a-3
      hutong audit recompute --node customs --since 2026-03-01 --until 2026-04-01 --config node.toml
      hutong audit recompute --file customs.decisions --keys ./keys --json
    """
    where = Where(node, config, "", published, log, folder, caller, cert, key, bundle)
    request = exporting.request(since, until, draw, _seed(seed, draw))
    if file is not None:
        pages, request = decisions.from_file(file), Request()
    elif caller or cert:
        if (token is not None or nonce) and draw and not seed:
            raise typer.BadParameter("a token is for one act: say --seed, so that it is the same one")
        pages = decisions.from_node(where, request, officer, token, nonce)
    else:
        pages = decisions.from_database(where.required, request)
    audited = _audit(where, request, pages, save, follows=file is None, quiet=as_json)
    if audited is None:
        _tell_nothing(where.origin, as_json)
        return
    if as_json:
        print_json(_as_dict(audited))
    else:
        _show(audited)
    if not audited.good:
        raise typer.Exit(1)


def _seed(text: str, draw: int) -> bytes:
    if not draw:
        return b""
    try:
        seed = bytes.fromhex(text) if text else secrets.token_bytes(2 * MIN_SEED)
    except ValueError:
        raise typer.BadParameter(f"--seed takes hexadecimal digits, not {text!r}") from None
    if len(seed) < MIN_SEED:
        raise typer.BadParameter(f"--seed has at least {2 * MIN_SEED} hexadecimal digits")
    return seed


def _audit(
    where: Where, request: Request, pages: Iterator[Response], save: Path | None, *, follows: bool, quiet: bool
) -> _Audited | None:
    """Audit what was given; None where the log has no entry yet."""
    given = list(_counted(pages, quiet=quiet))
    if not given:
        raise NotFound(Reason.LOG_ENTRY_UNKNOWN, "there is nothing to audit: the file is empty")
    if save is not None:
        decisions.to_file(save, iter(given))
    if not given[0].checkpoint:
        return None
    signed = where.signed(given[0].checkpoint)
    if follows:
        follow(request, given, signed.checkpoint)
    elif any(page.checkpoint != given[0].checkpoint for page in given):
        raise FailedPrecondition(Reason.LOG_TAMPERED, "the file has decisions of different trees")
    archive = Archive(catalogue.load())
    for page in given:
        archive.add(page.texts)
    recomputer = Recomputer(archive)
    audited = _Audited(signed, request.seed)
    with Bar(MofNCompleteColumn(), quiet=quiet) as bar:
        entries = [decision for page in given for decision in page.decisions]
        for decision in bar.progress.track(entries, description="recomputing"):
            audited.findings.append(recomputer.recompute(decision, signed.checkpoint))
    return audited


def _counted(pages: Iterator[Response], *, quiet: bool) -> Iterator[Response]:
    with Bar(MofNCompleteColumn(), quiet=quiet) as bar:
        task = bar.progress.add_task("decisions", total=None)
        for page in pages:
            bar.progress.update(task, advance=len(page.decisions))
            yield page


def _show(audited: _Audited) -> None:
    out = console()
    head = audited.signed.checkpoint
    rows = [
        ("Log", f"{head.origin}, {head.size} entries, root {head.root.hex()}"),
        ("Co-signed by", ", ".join(cosigners(audited.signed)) or "nobody yet, at this size"),
        ("Proven", f"{len(audited.findings)} entries, {sum(f.fields for f in audited.findings)} decisions on fields"),
    ]
    if audited.seed:
        rows.append(("Seed", audited.seed.hex()))
    out.print(pairs(rows))
    found = audited.decisions
    counts = Counter(finding.verdict for finding in found)
    shares = ((Text(verdict, style=_STYLES.get(verdict, "")), str(counts[verdict])) for verdict in Verdict)
    out.print(table("", ("Verdict", "Entries"), shares))
    told = [finding for finding in found if finding.verdict is not Verdict.SAME]
    _show_findings(sorted(told, key=lambda finding: finding.verdict.good))
    if audited.good:
        out.print("nothing contradicts the policies that were in force", style="green")
    else:
        bad = sum(not finding.verdict.good for finding in found)
        out.print(f"{bad} of {len(found)} entries do not stand", style="red")


def _show_findings(told: Sequence[Finding]) -> None:
    out = console()
    rows: list[Sequence[str | Text]] = []
    for finding in told[:_SHOWN]:
        verdict = Text(finding.verdict, style=_STYLES.get(finding.verdict, ""))
        what = [f"{d.field}: logged {d.logged}; follows {d.follows}" for d in finding.differences[:_SHOWN]]
        caller = finding.entry.caller.partition("://")[2].partition("/")[2]
        why = "\n".join(part for part in (finding.why, *what) if part)
        rows.append((str(finding.index), verdict, caller, finding.entry.purpose, why))
    if rows:
        out.print(table("Not the same", ("Entry", "Verdict", "Caller", "Purpose", "Why"), rows))
    if len(told) > _SHOWN:
        out.print(Text(f"… and {len(told) - _SHOWN} more; --json lists all", style="dim"))


def _tell_nothing(origin: str, as_json: bool) -> None:
    if as_json:
        verdicts = {verdict.value: 0 for verdict in Verdict}
        none: dict[str, Any] = {"root": "", "cosigned_by": [], "seed": "", "verdicts": verdicts, "findings": []}
        print_json({"ok": True, "log": origin, "size": 0, **none})
    else:
        console().print(f"nothing was decided yet: {origin or 'the log'} has no entry", markup=False, soft_wrap=True)


def _as_dict(audited: _Audited) -> dict[str, Any]:
    head = audited.signed.checkpoint
    found = audited.decisions
    return {
        "ok": audited.good,
        "log": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "cosigned_by": cosigners(audited.signed),
        "seed": audited.seed.hex(),
        "verdicts": {verdict.value: sum(f.verdict is verdict for f in found) for verdict in Verdict},
        "findings": [
            {
                "index": finding.index,
                "verdict": finding.verdict.value,
                "why": finding.why,
                "time": finding.entry.time.ToJsonString(),
                "rpc": finding.entry.rpc,
                "caller": finding.entry.caller,
                "purpose": finding.entry.purpose,
                "fields": finding.fields,
                "differences": [
                    {"record_type": d.record_type, "field": d.field, "logged": d.logged, "follows": d.follows}
                    for d in finding.differences
                ],
            }
            for finding in found
        ],
    }
