"""Reads procedure files: what does not pass every check never runs a case.

A file is named `CODE@version.yaml`, in lower case: `ftz-est@1.0.0.yaml`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from services.kit.errors import FailedPrecondition, Reason
from services.recognition.agencies import Agencies, AgencyEntry, Party, agency_of
from services.recognition.calendars import Calendars
from services.recognition.procedure import Escalation, Lights, Procedure, Question
from services.recognition.procedure_checks import Checks
from services.recognition.procedure_draft import MAX_TEXT, Draft, Head, Problem, read_draft


class ProcedureRefused(FailedPrecondition):
    """Procedures do not pass the checks. PROCEDURE_CYCLE where stages wait for each other, else PROCEDURE_INVALID."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        cyclic = any(problem.reason is Reason.PROCEDURE_CYCLE for problem in self.problems)
        reason = Reason.PROCEDURE_CYCLE if cyclic else self.problems[0].reason
        super().__init__(reason, "\n".join(str(problem) for problem in self.problems))


def read(path: Path, agencies: Agencies | None = None, calendars: Iterable[str] | None = None) -> Procedure:
    """Read a procedure file; raises `ProcedureRefused` with every mistake in it.

    `calendars` are the ids of those there are, without it of those that come with the product.
    """
    name = str(path)
    try:
        content = path.read_bytes()
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ProcedureRefused([Problem(Reason.PROCEDURE_INVALID, name, "", f"cannot be read: {why}")]) from None
    procedure = parse(text, agencies, calendars, name=name)
    if path.name != (wanted := procedure.file):
        raise ProcedureRefused([Problem(Reason.PROCEDURE_INVALID, name, "", f"the file must be named {wanted}")])
    return procedure


def parse(
    text: str, agencies: Agencies | None = None, calendars: Iterable[str] | None = None, *, name: str = ""
) -> Procedure:
    """Read a procedure from its text; raises `ProcedureRefused` with every mistake in it, under the name of a file."""
    if len(text.encode()) > MAX_TEXT:
        raise ProcedureRefused([Problem(Reason.PROCEDURE_INVALID, name, "", f"it is larger than {MAX_TEXT} bytes")])
    draft = read_draft(text)
    problems = [Problem(Reason.PROCEDURE_INVALID, name, stage, message) for stage, message in draft.problems]
    known = _known(agencies or Agencies.load(), draft.head, problems, name)
    ids = _shipped_calendars() if calendars is None else tuple(calendars)
    problems += (Problem(reason, name, stage, message) for reason, stage, message in Checks(draft, known, ids).run())
    if problems or draft.head is None:
        raise ProcedureRefused(problems)
    return _procedure(draft.head, draft, text)


def restore(text: str, agencies: Agencies) -> Procedure:
    """Read a text that passed every check when the first case began on it, whatever checks have come since.

    An agency that there is no more stays this procedure's own, as one office: its stages still have to be done. Raises
    `ProcedureRefused` where the text itself cannot be read.
    """
    draft = read_draft(text)
    if draft.head is None or draft.unreadable_words or draft.unreadable or not draft.stages:
        raise ProcedureRefused(Problem(Reason.PROCEDURE_INVALID, "stored", code, said) for code, said in draft.problems)
    procedure = _procedure(draft.head, draft, text)
    gone = sorted(procedure.takes_part - agencies.agencies.keys() - procedure.agencies.keys())
    own = {code: agency_of(code, AgencyEntry(title=code, local_title=code)) for code in gone}
    return replace(procedure, agencies=MappingProxyType({**procedure.agencies, **own}))


@cache
def _shipped_calendars() -> tuple[str, ...]:
    return tuple(Calendars.load())


def _known(agencies: Agencies, head: Head | None, problems: list[Problem], name: str) -> Agencies:
    """Add the agencies and parties that the file declares for itself."""
    if head is None:
        return agencies
    own = (*head.agencies, *head.parties)
    twice = [code for code in dict.fromkeys(own) if agencies.knows(code) or own.count(code) > 1]
    problems += (Problem(Reason.PROCEDURE_INVALID, name, "", f"agencies: {c!r} is known already") for c in twice)
    return agencies.plus(
        (agency_of(code, entry) for code, entry in head.agencies.items()),
        (Party(code, entry.title, entry.local_title) for code, entry in head.parties.items()),
    )


def _procedure(head: Head, draft: Draft, text: str) -> Procedure:
    questions = {n: Question(q.title, q.local_title, q.values, q.default) for n, q in head.questions.items()}
    return Procedure(
        code=head.code,
        version=head.version,
        title=head.title,
        local_title=head.local_title,
        lead=head.lead,
        calendar=head.calendar,
        roll=head.roll,
        subject_schemes=head.subjects,
        questions=MappingProxyType(questions),
        stages=draft.stages,
        agencies=MappingProxyType({code: agency_of(code, entry) for code, entry in head.agencies.items()}),
        deemed=head.deemed,
        matters=head.matters,
        lights=Lights(head.lights.share),
        escalation=tuple(Escalation(step.after, step.to) for step in head.escalation),
        case_limit=head.case_limit,
        effective_from=head.effective_from,
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
