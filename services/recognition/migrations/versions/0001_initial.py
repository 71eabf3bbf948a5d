"""The first tables of the recognition service."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from services.kit.events.revisions import create_outbox_tables, drop_outbox_tables
from services.kit.records.first_revision import MOMENT, TEXT

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = (
    "procedure",
    "case_head",
    "case_agency",
    "stage_event",
    "examination",
    "stage_result",
    "status_entry",
    "recognition",
    "rests_on",
    "task",
    "reminder",
)


def upgrade() -> None:
    """Create every table."""
    _cases()
    _events()
    _results()
    _tasks()
    create_outbox_tables()


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    drop_outbox_tables()
    for name in _TABLES:
        op.drop_table(name)


def _key(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, TEXT, primary_key=True) for name in names]


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, TEXT, nullable=False) for name in names]


def _moment(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, MOMENT, nullable=False) for name in names]


def _maybe(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, MOMENT) for name in names]


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _cases() -> None:
    op.create_table("procedure", *_key("code", "version"), *_text("digest", "text"), *_moment("first_used"))
    op.create_table(
        "case_head",
        *_key("case_id"),
        _number("version"),
        *_text("request_id", "submitter", "procedure_code", "procedure_version"),
        *_text("scheme", "subject", "lead_agency", "status"),
        *_moment("applied_at"),
        *_maybe("closed_at", "next_at"),
        *_text("calendar", "dues"),
    )
    op.create_index("case_head_request_uq", "case_head", ["submitter", "request_id"], unique=True)
    op.create_index("case_head_subject_ix", "case_head", ["scheme", "subject"])
    op.create_index("case_head_next_ix", "case_head", ["next_at"], sqlite_where=sa.text("next_at IS NOT NULL"))
    op.create_index("case_head_applied_ix", "case_head", ["applied_at", "case_id"])
    still_open = sa.text("closed_at IS NULL")
    op.create_index(
        "case_head_open_ix", "case_head", ["submitter"], sqlite_where=still_open, postgresql_where=still_open
    )
    op.create_table("case_agency", *_key("agency", "case_id"))


def _events() -> None:
    op.create_table(
        "stage_event",
        *_key("case_id"),
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_text("event_id"),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("stage_event_id_uq", "stage_event", ["case_id", "event_id"], unique=True)
    op.create_table(
        "examination",
        *_key("id"),
        *_text("scheme", "subject", "fact", "agency", "case_id", "stage"),
        *_moment("opened_at"),
        *_maybe("closed_at"),
        *_text("despite", "reason"),
        sa.Column("slot", sa.Integer(), nullable=False),
    )
    still_open = sa.text("closed_at IS NULL")
    op.create_index(
        "examination_open_uq",
        "examination",
        ["scheme", "subject", "fact", "slot"],
        unique=True,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )


def _results() -> None:
    op.create_table(
        "stage_result",
        *_key("result_ref"),
        *_text("case_id", "stage", "issuer", "scheme", "subject", "fact", "assurance"),
        *_moment("issued_at", "valid_from"),
        *_maybe("valid_until"),
        *_text("state", "state_reason"),
        *_moment("state_changed_at"),
        *_text("credential", "key_id"),
    )
    op.create_index("stage_result_fact_ix", "stage_result", ["scheme", "subject", "fact"])
    op.create_table(
        "status_entry",
        *_key("issuer"),
        sa.Column("list", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("index", sa.Integer(), primary_key=True, autoincrement=False),
        *_text("result_ref"),
        sa.Column("value", sa.SmallInteger(), nullable=False),
        *_moment("reserved_at"),
        *_maybe("entered_at"),
    )
    op.create_index("status_entry_result_uq", "status_entry", ["result_ref"], unique=True)
    still_reserved = sa.text("entered_at IS NULL")
    op.create_index(
        "status_entry_open_ix",
        "status_entry",
        ["issuer", "reserved_at"],
        sqlite_where=still_reserved,
        postgresql_where=still_reserved,
    )
    op.create_table(
        "recognition",
        *_key("case_id", "stage", "result_ref"),
        *_text("recogniser", "arrangement"),
        *_moment("recognised_at"),
        *_maybe("refused_at"),
        *_text("refused_reason"),
    )
    op.create_index("recognition_result_ix", "recognition", ["result_ref"])
    op.create_table("rests_on", *_key("result_ref", "rests_on"))
    op.create_index("rests_on_back_ix", "rests_on", ["rests_on"])


def _tasks() -> None:
    op.create_table(
        "task",
        *_key("task_id"),
        *_text("cause", "owner_agency", "kind", "case_id", "stage", "result_ref", "origin_ref", "reason"),
        *_moment("raised_at", "due_at"),
        *_maybe("disposed_at"),
        *_text("disposition", "disposition_reason", "officer"),
    )
    op.create_index("task_cause_uq", "task", ["cause"], unique=True)
    op.create_index("task_owner_ix", "task", ["owner_agency", "due_at"])
    op.create_index("task_case_ix", "task", ["case_id", "stage"])
    op.create_table("reminder", *_key("case_id", "stage", "threshold"), *_text("addressee"), *_moment("sent_at"))
