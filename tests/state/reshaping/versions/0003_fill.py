"""Port and berth of the parcels that were written before both were."""

from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

fill = "2.0.0"


def upgrade() -> None:
    """Fill the new from the old, where it is empty."""
    cut = "substr(place, 1, 2), berth = substr(place, 4)"
    op.execute(f"UPDATE parcel SET port = {cut} WHERE port IS NULL")


def downgrade() -> None:
    """Leave it: it is what the place says."""
