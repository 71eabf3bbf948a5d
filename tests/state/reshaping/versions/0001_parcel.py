"""The place of a parcel is one text: `port/berth`."""

import sqlalchemy as sa
from alembic import op

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "parcel", sa.Column("id", sa.Integer(), primary_key=True), sa.Column("place", sa.Text(), nullable=False)
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("parcel")
