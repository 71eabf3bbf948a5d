"""The first tables of the supervision service."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import MOMENT, TEXT

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = (
    "authorization_head",
    "authorization_event",
    "authorization_agency",
    "reservation",
    "officer_token",
    "authorization_clock",
)


def upgrade() -> None:
    """Create every table."""
    _authorizations()
    _uses()
    op.create_table(
        "authorization_clock",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        _number("change"),
        *_moment("latest"),
        sa.CheckConstraint("id = 1", name="authorization_clock_one_row"),
    )
    op.execute("INSERT INTO authorization_clock (id, change, latest) VALUES (1, 0, '1970-01-01 00:00:00.000000')")


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    for name in _TABLES:
        op.drop_table(name)


def _authorizations() -> None:
    op.create_table(
        "authorization_head",
        *_key("authorization_id"),
        *_text("system", "request_id", "requester"),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        _bytes("scope"),
        *_moment("requested_at", "not_after", "touched_at"),
        _number("sequence"),
        _bytes("tip"),
        _number("rows_used"),
        _bytes("seal"),
        sa.Column("over", sa.Boolean(), nullable=False),
        _number("change"),
    )
    op.create_index("authorization_head_request_uq", "authorization_head", ["system", "request_id"], unique=True)
    op.create_index("authorization_head_requested_ix", "authorization_head", ["requested_at", "authorization_id"])
    op.create_index("authorization_head_change_ix", "authorization_head", ["change"])
    op.create_index("authorization_head_over_ix", "authorization_head", ["over", "not_after"])
    op.create_index("authorization_head_requester_ix", "authorization_head", ["requester", "emergency"])
    op.create_table(
        "authorization_event",
        *_key("authorization_id"),
        sa.Column("sequence", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_text("kind"),
        *_moment("at"),
        *_text("agency", "officer", "reason_code", "signature"),
    )
    op.create_table("authorization_agency", *_key("agency", "authorization_id"))


def _uses() -> None:
    op.create_table(
        "reservation",
        *_key("node", "reservation_id"),
        *_text("authorization_id", "record_type"),
        _number("rows"),
        *_moment("at"),
    )
    op.create_index("reservation_rate_ix", "reservation", ["authorization_id", "at"])
    op.create_index("reservation_at_ix", "reservation", ["at"])
    op.create_table("officer_token", *_key("issuer", "jti"), *_moment("expires_at"))
    op.create_index("officer_token_expires_ix", "officer_token", ["expires_at"])


def _key(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, TEXT, primary_key=True) for name in names]


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, TEXT, nullable=False) for name in names]


def _moment(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, MOMENT, nullable=False) for name in names]


def _bytes(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary(), nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False)
