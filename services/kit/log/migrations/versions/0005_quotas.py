"""What each caller was given on a day, for all replicas of the node."""

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import TEXT

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "log_quota",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("caller", TEXT, primary_key=True),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Drop it: nobody has had anything."""
    op.drop_table("log_quota")
