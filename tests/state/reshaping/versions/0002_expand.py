"""Room for a port and a berth, each by itself; the place may be empty from now on."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the columns."""
    with op.batch_alter_table("parcel") as parcel:
        parcel.alter_column("place", existing_type=sa.Text(), nullable=True)
    op.add_column("parcel", sa.Column("port", sa.Text()))
    op.add_column("parcel", sa.Column("berth", sa.Text()))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("parcel") as parcel:
        parcel.drop_column("port")
        parcel.drop_column("berth")
