"""The tables of the recognition service. Events are the truth; what else stands here can be computed from them again.

Rows of `stage_event` are only ever added. Moments are aware and in UTC.
"""

from typing import Final

import sqlalchemy as sa

from services.kit.records.tables import UtcDateTime, text_type

METADATA: Final = sa.MetaData()


def _text(name: str, *, primary_key: bool = False) -> "sa.Column[str]":
    return sa.Column(name, text_type(), primary_key=primary_key, nullable=False)


PROCEDURE: Final = sa.Table(
    "procedure",
    METADATA,
    _text("code", primary_key=True),
    _text("version", primary_key=True),
    _text("digest"),
    _text("text"),
    sa.Column("first_used", UtcDateTime(), nullable=False),
)
"""Procedures that cases run on, as their files said when the first case began: a case never loses its version."""

CASE: Final = sa.Table(
    "case_head",
    METADATA,
    _text("case_id", primary_key=True),
    sa.Column("version", sa.BigInteger(), nullable=False),
    _text("request_id"),
    _text("submitter"),
    _text("procedure_code"),
    _text("procedure_version"),
    _text("scheme"),
    _text("subject"),
    _text("lead_agency"),
    _text("status"),
    sa.Column("applied_at", UtcDateTime(), nullable=False),
    sa.Column("closed_at", UtcDateTime()),
    sa.Column("next_at", UtcDateTime()),
    _text("calendar"),
    _text("dues"),
)
"""One row per case: its version is the number of its last event; `next_at` is when the scheduler looks next, `dues` the
due moments of the clocks that run, as JSON: a calendar published later is compared with them."""
sa.Index("case_head_request_uq", CASE.c.submitter, CASE.c.request_id, unique=True)
sa.Index("case_head_subject_ix", CASE.c.scheme, CASE.c.subject)
sa.Index("case_head_next_ix", CASE.c.next_at, sqlite_where=CASE.c.next_at.isnot(None))
sa.Index("case_head_applied_ix", CASE.c.applied_at, CASE.c.case_id)
sa.Index(
    "case_head_open_ix",
    CASE.c.submitter,
    sqlite_where=CASE.c.closed_at.is_(None),
    postgresql_where=CASE.c.closed_at.is_(None),
)

CASE_AGENCY: Final = sa.Table(
    "case_agency", METADATA, _text("agency", primary_key=True), _text("case_id", primary_key=True)
)
"""Which agencies take part in a case: as lead, or with a stage of their own."""

EVENT: Final = sa.Table(
    "stage_event",
    METADATA,
    _text("case_id", primary_key=True),
    sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
    _text("event_id"),
    sa.Column("body", sa.LargeBinary(), nullable=False),
)
"""The events, `body` as `services.recognition.codec` writes them."""
sa.Index("stage_event_id_uq", EVENT.c.case_id, EVENT.c.event_id, unique=True)

EXAMINATION: Final = sa.Table(
    "examination",
    METADATA,
    _text("id", primary_key=True),
    _text("scheme"),
    _text("subject"),
    _text("fact"),
    _text("agency"),
    _text("case_id"),
    _text("stage"),
    sa.Column("opened_at", UtcDateTime(), nullable=False),
    sa.Column("closed_at", UtcDateTime()),
    _text("despite"),
    _text("reason"),
    sa.Column("slot", sa.Integer(), nullable=False),
)
"""Examinations of a fact about a subject. `slot` is 0 for the one that others are told of; who goes on despite that
takes the next number."""
sa.Index(
    "examination_open_uq",
    EXAMINATION.c.scheme,
    EXAMINATION.c.subject,
    EXAMINATION.c.fact,
    EXAMINATION.c.slot,
    unique=True,
    sqlite_where=EXAMINATION.c.closed_at.is_(None),
    postgresql_where=EXAMINATION.c.closed_at.is_(None),
)

RESULT: Final = sa.Table(
    "stage_result",
    METADATA,
    _text("result_ref", primary_key=True),
    _text("case_id"),
    _text("stage"),
    _text("issuer"),
    _text("scheme"),
    _text("subject"),
    _text("fact"),
    _text("assurance"),
    sa.Column("issued_at", UtcDateTime(), nullable=False),
    sa.Column("valid_from", UtcDateTime(), nullable=False),
    sa.Column("valid_until", UtcDateTime()),
    _text("state"),
    _text("state_reason"),
    sa.Column("state_changed_at", UtcDateTime(), nullable=False),
    _text("credential"),
    _text("key_id"),
)
sa.Index("stage_result_fact_ix", RESULT.c.scheme, RESULT.c.subject, RESULT.c.fact)

STATUS: Final = sa.Table(
    "status_entry",
    METADATA,
    _text("issuer", primary_key=True),
    sa.Column("list", sa.Integer(), primary_key=True, autoincrement=False),
    sa.Column("index", sa.Integer(), primary_key=True, autoincrement=False),
    _text("result_ref"),
    sa.Column("value", sa.SmallInteger(), nullable=False),
    sa.Column("reserved_at", UtcDateTime(), nullable=False),
    sa.Column("entered_at", UtcDateTime()),
)
"""Entries of the status lists, reserved before their credential is signed; `entered_at` is when that was entered."""
sa.Index("status_entry_result_uq", STATUS.c.result_ref, unique=True)
sa.Index(
    "status_entry_open_ix",
    STATUS.c.issuer,
    STATUS.c.reserved_at,
    sqlite_where=STATUS.c.entered_at.is_(None),
    postgresql_where=STATUS.c.entered_at.is_(None),
)

RECOGNITION: Final = sa.Table(
    "recognition",
    METADATA,
    _text("case_id", primary_key=True),
    _text("stage", primary_key=True),
    _text("result_ref", primary_key=True),
    _text("recogniser"),
    _text("arrangement"),
    sa.Column("recognised_at", UtcDateTime(), nullable=False),
    sa.Column("refused_at", UtcDateTime()),
    _text("refused_reason"),
)
sa.Index("recognition_result_ix", RECOGNITION.c.result_ref)

RESTS_ON: Final = sa.Table(
    "rests_on", METADATA, _text("result_ref", primary_key=True), _text("rests_on", primary_key=True)
)
"""Which results a result was decided on: the ways a revocation spreads."""
sa.Index("rests_on_back_ix", RESTS_ON.c.rests_on)

TASK: Final = sa.Table(
    "task",
    METADATA,
    _text("task_id", primary_key=True),
    _text("cause"),
    _text("owner_agency"),
    _text("kind"),
    _text("case_id"),
    _text("stage"),
    _text("result_ref"),
    _text("origin_ref"),
    _text("reason"),
    sa.Column("raised_at", UtcDateTime(), nullable=False),
    sa.Column("due_at", UtcDateTime(), nullable=False),
    sa.Column("disposed_at", UtcDateTime()),
    _text("disposition"),
    _text("disposition_reason"),
    _text("officer"),
)
"""Tasks. `cause` is what may raise a task once only."""
sa.Index("task_cause_uq", TASK.c.cause, unique=True)
sa.Index("task_owner_ix", TASK.c.owner_agency, TASK.c.due_at)
sa.Index("task_case_ix", TASK.c.case_id, TASK.c.stage)

REMINDER: Final = sa.Table(
    "reminder",
    METADATA,
    _text("case_id", primary_key=True),
    _text("stage", primary_key=True),
    _text("threshold", primary_key=True),
    _text("addressee"),
    sa.Column("sent_at", UtcDateTime(), nullable=False),
)
"""Reminders sent. The primary key is what makes each happen exactly once, whoever else tries."""

TOLD: Final = sa.Table(
    "result_told",
    METADATA,
    _text("result_ref", primary_key=True),
    _text("agency", primary_key=True),
)
"""Who was told that a result is there, where the outbox no longer says so."""
