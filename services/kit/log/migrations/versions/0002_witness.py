"""What a witness remembers of other logs, and what witnesses have said of this one."""

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import MOMENT, TEXT

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None

_TABLES = ("log_witnessed", "log_evidence", "log_cosigned")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "log_witnessed",
        sa.Column("origin", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoint", TEXT, nullable=False),
        sa.Column("time", MOMENT, nullable=False),
    )
    op.create_table(
        "log_evidence",
        sa.Column("origin", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("root", sa.LargeBinary(), primary_key=True),
        sa.Column("proven", sa.Boolean(), nullable=False),
        sa.Column("witnessed", TEXT, nullable=False),
        sa.Column("shown", TEXT, nullable=False),
        sa.Column("proof", sa.LargeBinary(), nullable=False),
        sa.Column("caller", TEXT, nullable=False),
        sa.Column("time", MOMENT, nullable=False),
    )
    op.create_table(
        "log_cosigned",
        sa.Column("witness", TEXT, primary_key=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint", TEXT, nullable=False),
        sa.Column("cosignature", TEXT, nullable=False),
    )


def downgrade() -> None:
    """Drop every table, with all that was witnessed."""
    for name in _TABLES:
        op.drop_table(name)
