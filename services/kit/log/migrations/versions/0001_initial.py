"""The first tables of a node's log."""

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import MOMENT, TEXT

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TABLES = ("log_entry", "log_hash", "log_head", "log_opening", "log_subject", "log_text")


def upgrade() -> None:
    """Create every table, and the head of an empty log."""
    op.create_table(
        "log_entry",
        sa.Column("index", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_hash",
        sa.Column("level", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sqlite_with_rowid=False,
    )
    head = op.create_table(
        "log_head",
        sa.Column("id", sa.SmallInteger(), primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoint", TEXT, nullable=False),
        sa.Column("time", MOMENT),
        sa.CheckConstraint("id = 1", name="log_head_one_row"),
    )
    op.create_table(
        "log_opening",
        sa.Column("index", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("opening", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "log_subject",
        sa.Column("scheme", TEXT, primary_key=True),
        sa.Column("value", TEXT, primary_key=True),
        sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_text",
        sa.Column("kind", TEXT, primary_key=True),
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("text", sa.LargeBinary(), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "size": 0, "frontier": bytes(8), "checkpoint": "", "time": None}])


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    for name in _TABLES:
        op.drop_table(name)
