"""Beginning cases: an application is checked, given an id nobody can guess, and becomes the first event of a case."""

import datetime as dt
import secrets
import uuid
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from services.kit import identifiers
from services.kit.errors import Aborted, FailedPrecondition, InvalidArgument, Reason, ResourceExhausted
from services.recognition import ledger
from services.recognition.appending import check_id
from services.recognition.case import CaseState, Status
from services.recognition.casework import SERVICE, Application
from services.recognition.dossier import Dossier, head_of
from services.recognition.events import WHOLE_CASE, Event, Kind, Mode, Submission
from services.recognition.ledger import Head, NewCase, Stored
from services.recognition.procedure import Procedure
from services.recognition.rulebook import Rulebook

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no letter that is read as another sign."""
_RANDOM: Final = 8
"""Random signs in a case id: 40 bits, of which nobody can try many, since every try is a call of somebody known."""
_TRIES: Final = 5
MOST_OPEN: Final = 1000
"""Most cases that an enterprise may have open of its own submission: each is looked at whenever something is found out
about it, and whenever somebody asks."""
_APPLICANTS: Final = "enterprise/"
"""How submitters begin that apply for themselves."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A case that was submitted, now or before."""

    case_id: str
    fresh: bool


def new_case_id(procedure: Procedure, day: dt.date) -> str:
    """Make up a case id: `FTZ-EST-20261122-7K3M9Q2X`."""
    signs = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{procedure.code}-{day:%Y%m%d}-{signs}"


def submit(connection: sa.Connection, rulebook: Rulebook, application: Application, now: dt.datetime) -> Begun:
    """Begin a case; the same request of the same submitter gives the same case.

    Raises `InvalidArgument` where the application is not one the procedure takes: REQUEST_ID_INVALID,
    PROCEDURE_UNKNOWN, SUBJECT_SCHEME_UNSUPPORTED, SUBJECT_INVALID, ANSWER_UNKNOWN, ANSWER_MISSING, COMMITMENT_MISSING,
    EVENT_IN_FUTURE, EVENT_TOO_OLD; REQUEST_ID_REUSED for a request id that stands for another application. Raises
    `ResourceExhausted` CASES_TOO_MANY where an enterprise applies and applies.
    """
    check_id(application.request_id, Reason.REQUEST_ID_INVALID)
    known = ledger.find_request(connection, application.submitter, application.request_id)
    if known is not None:
        return _again(connection, known, application)
    if (
        application.submitter.startswith(_APPLICANTS)
        and ledger.still_open(connection, application.submitter, MOST_OPEN) >= MOST_OPEN
    ):
        raise ResourceExhausted(Reason.CASES_TOO_MANY, f"{MOST_OPEN} cases of this enterprise are open already")
    # What was handed in yesterday is judged by what was in force yesterday.
    procedure = rulebook.procedures.in_force(application.procedure, application.applied_at or now)
    event = _first(rulebook, procedure, application, now)
    rulebook.keep(connection, procedure, now)
    zone = rulebook.calendars.get(procedure.calendar).zone
    for _ in range(_TRIES):
        case_id = new_case_id(procedure, now.astimezone(zone).date())
        stored = _store(connection, rulebook, procedure, application, event, case_id, now)
        if stored is not None:
            dossier = Dossier(connection, rulebook, stored, now)
            dossier.settle()
            dossier.save()
            return Begun(case_id, fresh=True)
        known = ledger.find_request(connection, application.submitter, application.request_id)
        if known is not None:
            return _again(connection, known, application)
    raise Aborted(Reason.VERSION_CONFLICT, "no free case id was found; try again")


def _store(
    connection: sa.Connection,
    rulebook: Rulebook,
    procedure: Procedure,
    application: Application,
    event: Event,
    case_id: str,
    now: dt.datetime,
) -> Stored | None:
    state = CaseState.begin(procedure, event)
    blank = blank_head(procedure, event, case_id, application.request_id, application.submitter)
    return ledger.create(connection, NewCase(head_of(rulebook, state, blank, now), procedure.takes_part, (event,)))


def blank_head(
    procedure: Procedure, event: Event, case_id: str, request_id: str, submitter: str, version: int = 1
) -> Head:
    """Make the row of a case whose first event this is, before anything is computed from it."""
    said = event.submission
    assert said is not None  # noqa: S101 - first events have one
    return Head(
        case_id=case_id,
        version=version,
        request_id=request_id,
        submitter=submitter,
        procedure_code=procedure.code,
        procedure_version=procedure.version,
        scheme=said.scheme,
        subject=said.subject,
        lead_agency=procedure.lead,
        status=Status.APPLIED.value,
        applied_at=event.at,
        closed_at=None,
        next_at=None,
        calendar=procedure.calendar,
    )


def _first(rulebook: Rulebook, procedure: Procedure, application: Application, now: dt.datetime) -> Event:
    at = application.applied_at or now
    if at > now + rulebook.skew:
        raise InvalidArgument(Reason.EVENT_IN_FUTURE, "the application was made in the future")
    # Who applies for itself applies now: dated back, it would take days from those who have to answer.
    itself = application.submitter.startswith(_APPLICANTS)
    if at < now - (min(rulebook.skew, rulebook.backdating) if itself else rulebook.backdating):
        raise InvalidArgument(Reason.EVENT_TOO_OLD, "the application was made too long ago to be handed in now")
    if application.mode is Mode.COMMITMENT and not application.commitment_id:
        raise InvalidArgument(Reason.COMMITMENT_MISSING, "to be decided on a commitment, a case needs its id")
    submission = Submission(
        procedure.label,
        application.scheme,
        _subject(procedure, application),
        application.mode,
        tuple(procedure.complete(application.answers).items()),
        application.commitment_id,
        application.explicit_request_id,
    )
    # The request is the event: sent again, it is the same.
    return Event(
        str(uuid.uuid5(uuid.UUID(application.request_id), application.submitter)),
        Kind.SUBMIT,
        WHOLE_CASE,
        SERVICE,
        at,
        now,
        submission=submission,
    )


def _subject(procedure: Procedure, application: Application) -> str:
    """Check whom it is about, and give the normalised form."""
    scheme = application.scheme
    if scheme not in procedure.subject_schemes:
        raise InvalidArgument(
            Reason.SUBJECT_SCHEME_UNSUPPORTED,
            f"{procedure.label} is about {' or '.join(procedure.subject_schemes)}",
            scheme=scheme[:64],
        )
    checked = identifiers.check(scheme, application.subject)
    if checked.verdict is identifiers.Verdict.INVALID:
        raise InvalidArgument(Reason.SUBJECT_INVALID, "the subject is no identifier of this scheme", scheme=scheme)
    return checked.value


def _again(connection: sa.Connection, case_id: str, application: Application) -> Begun:
    """Give the case that the request began; raises `InvalidArgument` where it was another application."""
    stored = ledger.load(connection, case_id)
    if stored is None or (said := stored.events[0].submission) is None:
        raise FailedPrecondition(Reason.CASE_NOT_FOUND, "the case of this request is gone")
    answers = dict(said.answers)
    subject = (
        identifiers.check(application.scheme, application.subject).value if application.scheme == said.scheme else ""
    )
    same = (
        said.procedure.partition("@")[0] == application.procedure
        and (said.scheme, said.subject, said.mode) == (application.scheme, subject, application.mode)
        and all(answers.get(name) == value for name, value in application.answers.items())
        and said.commitment_id == application.commitment_id
        and said.explicit_request_id == application.explicit_request_id
        and application.applied_at in {None, stored.events[0].at}
    )
    if not same:
        raise InvalidArgument(Reason.REQUEST_ID_REUSED, "this request id stands for another application already")
    return Begun(case_id, fresh=False)
