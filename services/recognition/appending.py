"""Appending what agencies and applicants say has happened, with everything that follows from it."""

import datetime as dt
import re
import uuid
from dataclasses import dataclass, replace
from typing import Final

import sqlalchemy as sa

from services.kit.credentials import results
from services.kit.credentials.results import Statement
from services.kit.errors import Aborted, FailedPrecondition, HutongError, InvalidArgument, Reason
from services.recognition import examinations, locks, recognising, registry, rules, tasks
from services.recognition.casework import APPLICANT, Act, Appended
from services.recognition.dossier import Dossier
from services.recognition.events import WHOLE_CASE, Assurance, Event, Kind, ResultCode
from services.recognition.examinations import Examination
from services.recognition.procedure import Stage
from services.recognition.reasons import Ground
from services.recognition.recognising import Match
from services.recognition.registry import Change
from services.recognition.rulebook import Rulebook
from services.recognition.stages import StageStatus
from services.recognition.tasks import NewTask, TaskKind

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTENT: Final = ("kind", "stage", "reason", "result", "pause", "extension", "approval_ref", "officer")
"""What an act and the event made of it have in common, beside the moment and the result."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Who appends."""

    agency: str
    enterprise: bool = False

    @property
    def name(self) -> str:
        """What stands in the event."""
        return APPLICANT if self.enterprise else self.agency


@dataclass(slots=True)
class Outcome:
    """What came of an act: what was appended, or why it was refused after something else had to be kept."""

    appended: Appended | None = None
    refused: HutongError | None = None
    fresh: Statement | None = None
    """The result that it entered, which other cases may be waiting for."""
    revoked: str = ""
    """The result that it revoked, which other cases may rest on."""


def check_id(text: str, reason: Reason) -> None:
    """Check an id that a sender chose: a UUID in lower case, so that one id has one form."""
    if not _UUID.fullmatch(text):
        raise InvalidArgument(reason, "an id is a UUID in lower case, with its dashes")


def append(
    connection: sa.Connection,
    rulebook: Rulebook,
    case_id: str,
    act: Act,
    sender: Sender,
    now: dt.datetime,
    expected_version: int | None = None,
) -> Outcome:
    """Append an act to a case.

    Raises `HutongError` where it is refused: then nothing of this transaction is to be kept. Where it is refused but
    something has come to light that has to be kept, the outcome has the refusal.
    """
    check_id(act.id, Reason.EVENT_ID_INVALID)
    dossier = Dossier.load(connection, rulebook, case_id, now)
    if act.kind is Kind.REVOKE:
        locks.revoking(connection)  # before the weaker lock that anything else here may take
    if (known := _known(dossier, act)) is not None:
        return Outcome(_again(dossier, known, act, sender))
    if expected_version is not None and expected_version != dossier.version:
        raise Aborted(
            Reason.VERSION_CONFLICT,
            f"the case is at version {dossier.version}; read it again",
            version=str(dossier.version),
        )
    dossier.settle(spare=(act.stage, act.at) if act.at is not None and act.kind is Kind.RESULT else None)
    _tell(dossier, act)
    return _Appending(dossier, act, sender).run()


def _known(dossier: Dossier, act: Act) -> int | None:
    return next((number for number, e in enumerate(dossier.stored.events, 1) if e.id == act.id), None)


def _again(dossier: Dossier, sequence: int, act: Act, sender: Sender) -> Appended:
    event = dossier.stored.events[sequence - 1]
    same = event.agency == sender.name and all(getattr(event, n) == getattr(act, n) for n in _CONTENT)
    same = same and (act.at is None or act.at == event.at) and (not act.ref or act.ref == event.ref)
    if act.kind is Kind.RESULT and bool(act.credential) != bool(event.ref):
        same = False
    elif act.credential and event.ref:
        same = same and registry.get(dossier.connection, event.ref).credential == act.credential
    if not same:
        raise InvalidArgument(Reason.EVENT_ID_REUSED, "this event id stands for another event of the case already")
    return Appended(event, sequence, dossier.version, duplicate=True)


def _tell(dossier: Dossier, act: Act) -> None:
    """Tell an agency that is about to examine what a result has just been found for."""
    taken = next((e for e in dossier.added if e.kind is Kind.RECOGNISE and e.stage == act.stage), None)
    if act.kind is Kind.START and taken is not None:
        raise FailedPrecondition(
            Reason.EXAMINATION_VALID,
            f"a result of {taken.source_agency} stands, and takes the place of {act.stage}",
            agency=taken.source_agency,
            case_id=dossier.case_id,
            stage=act.stage,
            result_ref=taken.ref,
        )


class _Appending:
    """One act on one case."""

    def __init__(self, dossier: Dossier, act: Act, sender: Sender) -> None:
        self.dossier = dossier
        self.act = act
        self.sender = sender
        self.statement: Statement | None = None
        self.event = self._word()

    def run(self) -> Outcome:
        dossier, rulebook = self.dossier, self.dossier.rules
        rules.check(
            dossier.state,
            self.event,
            now=dossier.now,
            caller_agency=self.sender.name,
            skew=rulebook.skew,
            backdating=rulebook.backdating,
            enterprise=self.sender.enterprise,
            reasons=rulebook.reasons,
        )
        self._verify()
        if (refused := self._before()) is not None:
            dossier.save()
            return Outcome(refused=refused)
        sequence = dossier.add(self.event)
        self._after()
        dossier.settle()
        if dossier.state.closed_at is not None:
            examinations.close(dossier.connection, dossier.case_id, None, dossier.now)
        version = dossier.save()
        revoked = self.event.ref if self.act.kind is Kind.REVOKE else ""
        return Outcome(Appended(self.event, sequence, version), fresh=self.statement, revoked=revoked)

    def _word(self) -> Event:
        act, now = self.act, self.dossier.now
        stage = self.dossier.state.stages.get(act.stage)
        ref = act.ref or (stage.ref if stage and act.kind in {Kind.REFUSE_RECOGNITION, Kind.REVOKE} else "")
        return Event(
            act.id,
            act.kind,
            act.stage,
            self.sender.name,
            act.at or now,
            now,
            reason=act.reason,
            result=act.result,
            # What the credential says is looked at when all else is in order.
            ref=ref or ("unread" if act.credential else ""),
            pause=act.pause,
            extension=act.extension,
            approval_ref=act.approval_ref,
            officer=act.officer,
        )

    # Before the event: what may still refuse it.

    def _verify(self) -> None:
        """Verify the result that comes with the event, and see that it is the one this stage has to give."""
        act, dossier = self.act, self.dossier
        if not act.credential:
            return
        of = dossier.procedure.stage(act.stage)
        if act.kind is not Kind.RESULT or of.proves is None or act.result is ResultCode.FAIL:
            raise InvalidArgument(Reason.RESULT_FACT, "there is nothing here that a result could prove")
        said = dossier.state.submission
        statement = results.verify(
            act.credential,
            dossier.rules.published,
            at=dossier.now,
            issuer=self.sender.agency,
            subject=f"{said.scheme}:{said.subject}",
            fact=of.proves.code,
        )
        if statement.assurance not in set(Assurance) or Assurance(statement.assurance).rank < of.proves.assurance.rank:
            raise InvalidArgument(
                Reason.RESULT_FACT, f"{of.code} proves its fact at {of.proves.assurance}, and the result says less"
            )
        self.statement = statement
        self.event = replace(self.event, ref=statement.ref)

    def _before(self) -> HutongError | None:
        if self.act.kind is Kind.START:
            self._open()
        elif self.act.kind is Kind.RESULT:
            return self._decide()
        return None

    def _open(self) -> None:
        act, dossier = self.act, self.dossier
        of = dossier.procedure.stage(act.stage)
        if of.proves is None or not of.accepts:
            return  # what is about this one application only is examined for every one
        if act.despite:
            dossier.rules.reasons.check(Ground.DESPITE, act.reason)
        said = dossier.state.submission
        wanted = Examination(
            id=str(uuid.uuid4()),
            scheme=said.scheme,
            subject=said.subject,
            fact=of.proves.code,
            agency=of.agency,
            case_id=dossier.case_id,
            stage=of.code,
            at=dossier.now,
            despite=act.despite,
            reason=act.reason,
        )
        refused = dossier.state.stages[of.code].refused_refs
        examinations.open_(dossier.connection, dossier.rules.published, wanted, refused)

    def _decide(self) -> HutongError | None:
        """See that what the decision rests on still stands, and enter its result."""
        dossier, act = self.dossier, self.act
        of = dossier.procedure.stage(act.stage)
        locks.building(dossier.connection)
        rests_on: list[str] = []
        if act.result is not ResultCode.FAIL and dossier.state.stages[of.code].status is not StageStatus.DEEMED:
            refused = self._check_bases(of, rests_on)
            if refused is not None:
                return refused
        if self.statement is not None and of.proves is not None:
            recognisers = dossier.rules.arrangements.recognisers(of.agency, of.proves.code, dossier.now)
            registry.enter(
                dossier.connection,
                self.statement,
                act.credential,
                case_id=dossier.case_id,
                stage=of.code,
                rests_on=rests_on,
                now=dossier.now,
                recognisers=[r for r in recognisers if r != of.agency],
                post=dossier.post,
            )
        return None

    def _check_bases(self, of: Stage, rests_on: list[str]) -> HutongError | None:
        dossier, rulebook = self.dossier, self.dossier.rules
        stages = dossier.state.stages
        before = [stages[code] for code in dossier.procedure.order if code in dossier.procedure.ancestors(of.code)]
        refs = [stage.ref for stage in before if stage.ref and stage.satisfied]
        standings = registry.standing(
            dossier.connection, rulebook.published, refs, dossier.now, case_id=dossier.case_id
        )
        fallen = {ref: found for ref, found in standings.items() if not found.ok}
        if fallen:
            recognising.question(
                dossier.connection,
                rulebook.desk,
                case_id=dossier.case_id,
                standings=fallen,
                now=dossier.now,
                post=dossier.post,
            )
            ref, found = next(iter(fallen.items()))
            return FailedPrecondition(
                Reason.RECOGNISED_RESULT_INVALID,
                "a result that this decision rests on does not stand any more; a task was raised",
                result_ref=ref,
                cause=str(found.reason or ""),
            )
        rests_on += refs
        rests_on += self._demanded(of)
        return None

    def _demanded(self, of: Stage) -> list[str]:
        """Find the results from outside the case that prove what the stage demands and no stage of the case proves."""
        dossier, rulebook = self.dossier, self.dossier.rules
        said = dossier.state.submission
        found = recognising.demanded(
            dossier.connection,
            rulebook.arrangements,
            rulebook.published,
            scheme=said.scheme,
            subject=said.subject,
            stage=of,
            procedure=dossier.procedure,
            proven=_proven(dossier),
            now=dossier.now,
        )
        for demand, match in found.items():
            if match is not None:
                self._rely(of, match)
            else:
                raise FailedPrecondition(
                    Reason.FACT_NOT_PROVEN,
                    f"{of.code} needs {demand.fact} to be proven, and no result that {of.agency} accepts stands",
                    fact=demand.fact,
                    stage=of.code,
                )
        return [match.ref for match in found.values() if match is not None]

    def _rely(self, of: Stage, match: Match) -> None:
        """Note that a decision builds on a result, so that a revocation finds it."""
        dossier = self.dossier
        if tasks.recognised(dossier.connection, dossier.case_id, of.code, match.ref):
            return  # decided once more
        recognising.note(
            dossier.connection,
            case_id=dossier.case_id,
            stage=of.code,
            match=match,
            recogniser=of.agency,
            now=dossier.now,
        )

    # After the event: what it brings about in the store.

    def _after(self) -> None:
        act, dossier = self.act, self.dossier
        match act.kind:
            case Kind.RESULT:
                examinations.close(dossier.connection, dossier.case_id, act.stage, dossier.now)
                self._late_opinion()
            case Kind.WITHDRAW:
                stage = None if act.stage == WHOLE_CASE else act.stage
                examinations.close(dossier.connection, dossier.case_id, stage, dossier.now)
            case Kind.REFUSE_RECOGNITION:
                recognising.refuse(
                    dossier.connection,
                    dossier.rules.desk,
                    case_id=dossier.case_id,
                    stage=act.stage,
                    ref=self.event.ref,
                    recogniser=self.sender.agency,
                    reason=act.reason,
                    lead=dossier.procedure.lead,
                    now=dossier.now,
                    post=dossier.post,
                )
            case Kind.REVOKE:
                self._revoke()
            case _:
                pass

    def _late_opinion(self) -> None:
        stage = self.dossier.state.stages[self.act.stage]
        if stage.status is StageStatus.DEEMED and self.act.result is not ResultCode.PASS:
            task = NewTask(
                TaskKind.LATE_OPINION,
                self.dossier.procedure.lead,
                self.dossier.case_id,
                self.act.stage,
                reason=self.act.reason,
            )
            self.dossier.raise_tasks(task)

    def _revoke(self) -> None:
        if self.event.ref:
            registry.revoke(
                self.dossier.connection,
                self.dossier.rules.desk,
                self.event.ref,
                self.act.reason,
                self.dossier.now,
                issuer=self.sender.agency,
                change=Change.REVOKE,
                post=self.dossier.post,
            )


def _proven(dossier: Dossier) -> set[str]:
    """Name the facts that stages of the case have proven, or would prove if they applied."""
    settled = {StageStatus.NOT_APPLICABLE, StageStatus.WITHDRAWN}
    provers = dossier.procedure.provers.items()
    stages = dossier.state.stages
    return {fact for fact, of in provers if stages[of.code].satisfied or stages[of.code].status in settled}
