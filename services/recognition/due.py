"""What becomes due: stages deemed passed, reminders and escalations, and deadlines that a new calendar moves.

A reminder is sent exactly once for each stage and threshold: its event, its row and its message to the agency are one
transaction, and the row's primary key turns away whoever else tries, now or after a crash.
"""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from services.kit.errors import FailedPrecondition, Reason
from services.kit.events.outbox import NewEvent
from services.kit.records.inserts import insert_or_ignore
from services.recognition import ledger, reminding
from services.recognition.appending import check_id
from services.recognition.dossier import Dossier, dues, dues_of
from services.recognition.events import WHOLE_CASE, Event, Kind
from services.recognition.reminding import Reminder
from services.recognition.rulebook import Rulebook
from services.recognition.stage_results import State
from services.recognition.stages import StageStatus
from services.recognition.tables import RECOGNITION, REMINDER, RESULT

REMINDED: Final = "reminder"
"""Kind of the event that an agency is told by."""

MANUAL: Final = "manual"
"""Threshold of reminders that somebody asked for."""

_HELD: Final = frozenset({StageStatus.READY, StageStatus.OPEN})


@dataclass(frozen=True, slots=True)
class Attended:
    """What came of looking at a case."""

    added: int
    version: int


def attend(connection: sa.Connection, rulebook: Rulebook, case_id: str, now: dt.datetime) -> Attended:
    """Do everything that is due in a case, and nothing where somebody else has."""
    dossier = Dossier.load(connection, rulebook, case_id, now)
    dossier.settle()
    agencies = rulebook.agencies_of(dossier.procedure)
    for reminder in reminding.due_now(dossier.state, rulebook.calendars, agencies, now):
        _remind(dossier, reminder, reminder.threshold, str(uuid.uuid4()))
    return Attended(len(dossier.added), dossier.save(attended=True))


def _remind(dossier: Dossier, reminder: Reminder, unique: str, event_id: str) -> Event | None:
    """Send a reminder, unless it was sent: `unique` is what makes it one, beside its stage."""
    done = dossier.connection.execute(
        insert_or_ignore(dossier.connection, REMINDER).values(
            case_id=dossier.case_id,
            stage=reminder.stage,
            threshold=unique,
            addressee=reminder.addressee,
            sent_at=dossier.now,
        )
    )
    if not done.rowcount:
        return None
    event = dossier.own(
        Kind.REMIND,
        reminder.stage,
        dossier.now,
        event_id=event_id,
        threshold=reminder.threshold,
        addressee=reminder.addressee,
    )
    dossier.post.extend(_messages(dossier, event))
    return event


def _messages(dossier: Dossier, event: Event) -> list[NewEvent]:
    """Tell the agency that is reminded; and where the reminder goes to an office that is not its own, that one's.

    An office of no agency, as supervision is, hears of it through the lead agency.
    """
    lead, of = dossier.procedure.lead, dossier.procedure.stages.get(event.stage)
    payload = {
        "case_id": dossier.case_id,
        "stage_code": event.stage,
        "threshold": event.threshold,
        "addressee": event.addressee,
        "procedure": dossier.procedure.label,
        "stage_event_id": event.id,
    }
    reminded = lead if of is None else of.agency
    home = dossier.rules.agencies_of(dossier.procedure).home(event.addressee) or lead
    return [
        NewEvent(agency, REMINDED, dossier.case_id, payload, f"{REMINDED}:{event.id}:{agency}")
        for agency in dict.fromkeys((reminded, home))
    ]


def remind(
    connection: sa.Connection,
    rulebook: Rulebook,
    case_id: str,
    stage: str,
    request_id: str,
    caller: str,
    now: dt.datetime,
) -> list[tuple[int, Event]]:
    """Remind who holds a stage, or every stage that is held (`stage` empty), because somebody asks for it.

    At most once a day, in the calendar's zone, for each stage and caller. Sent again with the same request id, it gives
    the same. Raises `FailedPrecondition` with REMINDED_ALREADY, or STAGE_NOT_READY where nobody holds the stage.
    """
    check_id(request_id, Reason.REQUEST_ID_INVALID)
    dossier = Dossier.load(connection, rulebook, case_id, now)
    ids = {code: str(uuid.uuid5(uuid.UUID(request_id), code)) for code in dossier.procedure.stages}
    events = dossier.stored.events
    if again := [(n, e) for n, e in enumerate(events, 1) if e.kind is Kind.REMIND and e.id in ids.values()]:
        return again
    wanted = _held(dossier, stage)
    today = now.astimezone(rulebook.calendars.get(dossier.procedure.calendar).zone).date().isoformat()
    agencies = rulebook.agencies_of(dossier.procedure)
    sent: list[tuple[int, Event]] = []
    for code in wanted:
        addressee = agencies.addressee(dossier.procedure.stages[code].agency)
        event = _remind(dossier, Reminder(code, MANUAL, addressee, now), f"{MANUAL} {today} {caller}", ids[code])
        if event is not None:
            sent.append((dossier.version, event))
    if not sent:
        raise FailedPrecondition(Reason.REMINDED_ALREADY, "a reminder was sent today; there is one a day at most")
    dossier.save()
    return sent


def _held(dossier: Dossier, stage: str) -> list[str]:
    if stage != WHOLE_CASE:
        dossier.procedure.stage(stage)
    if dossier.state.closed_at is not None:
        raise FailedPrecondition(Reason.CASE_CLOSED, "the case is closed")
    wanted = [
        code
        for code, found in dossier.state.stages.items()
        if found.status in _HELD and stage in {WHOLE_CASE, code} and not dossier.procedure.stages[code].repeatable
    ]
    if not wanted:
        raise FailedPrecondition(Reason.STAGE_NOT_READY, "nobody holds it now: there is nobody to remind", stage=stage)
    return wanted


def recompute(connection: sa.Connection, rulebook: Rulebook, case_id: str, now: dt.datetime) -> Attended:
    """Compare a case's due moments with those of the calendars as they are now.

    Each that has moved becomes an event, so that everyone sees when and by which calendar.
    """
    dossier = Dossier.load(connection, rulebook, case_id, now)
    before: Mapping[str, dt.datetime] = dues_of(dossier.stored.head.dues)
    after = dues(rulebook, dossier.state, now)
    label = rulebook.calendars.get(dossier.procedure.calendar).label
    for code, due in after.items():
        if code in before and before[code] != due:
            dossier.own(Kind.RECOMPUTE, code, now, calendar=label, due_before=before[code], due_after=due)
    return Attended(len(dossier.added), dossier.save())


def on_old_calendars(connection: sa.Connection, rulebook: Rulebook, limit: int, after: str) -> list[str]:
    """List open cases that were computed with calendars that are others now, going on after a case id."""
    used = ledger.calendars(connection)
    current = {rulebook.calendars.get(name.partition("@")[0]).label for name in used}
    return ledger.on_other_calendars(connection, current, limit, after) if used - current else []


def waiting_for(
    connection: sa.Connection, rulebook: Rulebook, scheme: str, subject: str, fact: str, *, besides: str
) -> list[str]:
    """List open cases with a stage that waits for a fact about a subject, and may take another's result for it."""
    wanted = ledger.Selection(scheme=scheme, subject=subject, open_only=True)
    found: list[str] = []
    for head in ledger.list_heads(connection, wanted, limit=_OTHERS):
        of = rulebook.procedure(connection, head.procedure).provers.get(fact)
        if head.case_id != besides and of is not None and of.accepts:
            found.append(head.case_id)
    return found


def resting_on_revoked(connection: sa.Connection, ref: str = "") -> list[str]:
    """List cases that have recognised a result that is revoked now, and not refused it; `ref` names one result."""
    both = RECOGNITION.join(RESULT, RECOGNITION.c.result_ref == RESULT.c.result_ref)
    select = sa.select(RECOGNITION.c.case_id).select_from(both).distinct()
    select = select.where(RESULT.c.state == str(State.REVOKED), RECOGNITION.c.refused_at.is_(None))
    if ref:
        select = select.where(RECOGNITION.c.result_ref == ref)
    return list(connection.execute(select.order_by(RECOGNITION.c.case_id)).scalars())


_OTHERS: Final = 100
"""Most open cases of one subject that a new result is offered to."""
