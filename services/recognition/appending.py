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
from services.recognition import bases, deadlines, examinations, locks, recognising, registry, rules
from services.recognition.casework import APPLICANT, Act, Appended
from services.recognition.dossier import Dossier
from services.recognition.events import WHOLE_CASE, Assurance, Event, Kind, ResultCode
from services.recognition.examinations import Examination
from services.recognition.reasons import Ground
from services.recognition.registry import Change
from services.recognition.rulebook import Rulebook
from services.recognition.stages import StageStatus
from services.recognition.tasks import NewTask, TaskKind

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTENT: Final = ("kind", "stage", "reason", "result", "pause", "extension", "approval_ref", "officer")
"""What an act and the event made of it have in common, beside the moment and the result."""

_BREAKS_SILENCE: Final = frozenset({Kind.RESULT, Kind.SUSPEND, Kind.SUPPLEMENT_REQUEST})
"""What an agency says in time although it is heard late: its stage does not count as passed meanwhile."""


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
    version: int = 0
    """The case's version now."""
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
    dossier.settle(spare=(act.stage, act.at) if act.at is not None and act.kind in _BREAKS_SILENCE else None)
    _tell(dossier, act, sender)
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


def _tell(dossier: Dossier, act: Act, sender: Sender) -> None:
    """Tell an agency that is about to examine what a result has just been found for."""
    taken = next((e for e in dossier.added if e.kind is Kind.RECOGNISE and e.stage == act.stage), None)
    if act.kind is Kind.START and taken is not None and sender.name == dossier.procedure.stage(act.stage).agency:
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
        deadlines.check(dossier.state, self.event, rulebook.calendars.get(dossier.procedure.calendar), dossier.now)
        self._verify()
        if (refused := self._before()) is not None:
            return Outcome(refused=refused, version=dossier.save())
        sequence = dossier.add(self.event)
        self._after()
        dossier.settle()
        version = dossier.save()
        revoked = self.event.ref if self.act.kind is Kind.REVOKE else ""
        return Outcome(Appended(self.event, sequence, version), fresh=self.statement, revoked=revoked, version=version)

    def _word(self) -> Event:
        act = self.act
        stage = self.dossier.state.stages.get(act.stage)
        ref = act.ref or (stage.ref if stage and act.kind in {Kind.REFUSE_RECOGNITION, Kind.REVOKE} else "")
        return Event(
            act.id,
            act.kind,
            act.stage,
            self.sender.name,
            act.at or self._moment(),
            self.dossier.now,
            reason=act.reason,
            result=act.result,
            # What the credential says is looked at when all else is in order.
            ref=ref or ("unread" if act.credential else ""),
            pause=act.pause,
            extension=act.extension,
            approval_ref=act.approval_ref,
            officer=act.officer,
        )

    def _moment(self) -> dt.datetime:
        """Say when it happened, where its sender does not: now, or at once after what a clock that is ahead dated."""
        state, now, stage = self.dossier.state, self.dossier.now, self.act.stage
        if stage != WHOLE_CASE and stage not in state.stages:
            return now  # and refused for that
        earliest = rules.not_before(state, self.act.kind, stage)
        return earliest if now < earliest <= now + self.dossier.rules.skew else now

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
        longest = of.proves.until(statement.valid_from)
        if longest is not None and (statement.valid_until is None or statement.valid_until > longest):
            raise InvalidArgument(
                Reason.RESULT_FACT, f"{of.code} proves its fact for {of.proves.valid_for}, and the result says longer"
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
        rests_on: tuple[str, ...] = ()
        if act.result is not ResultCode.FAIL and dossier.state.stages[of.code].status is not StageStatus.DEEMED:
            found = bases.look(dossier, of)
            if found.refused is not None:
                return found.refused
            rests_on = found.refs
        if self.statement is not None and of.proves is not None:
            recognisers = dossier.rules.arrangements.recognisers(
                of.agency, of.proves.code, dossier.now, dossier.procedure.takes_part
            )
            entered = registry.enter(
                dossier.connection,
                self.statement,
                act.credential,
                case_id=dossier.case_id,
                stage=of.code,
                rests_on=rests_on,
                now=dossier.now,
                recognisers=recognisers,
                post=dossier.post,
            )
            if not entered.fresh:
                raise InvalidArgument(
                    Reason.RESULT_ID_REUSED,
                    "this result was handed in already: an examination gives a result of its own",
                    result_ref=self.statement.ref,
                )
        return None

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
