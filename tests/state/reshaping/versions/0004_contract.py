"""The place is gone: nobody reads or writes it any more."""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

contract = "3.0.0"


def upgrade() -> None:
    """Drop the column."""
    op.drop_column("parcel", "place")


def downgrade() -> None:
    """Have the column again, and in it what the others say."""
    op.add_column("parcel", sa.Column("place", sa.Text()))
    op.execute("UPDATE parcel SET place = port || '/' || berth")
