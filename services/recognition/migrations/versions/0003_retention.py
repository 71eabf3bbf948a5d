"""What is known of those who read the outbox, and what stays of events that are no longer in it."""

import sqlalchemy as sa
from alembic import op

from services.kit.events import revisions
from services.kit.records.first_revision import TEXT

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the tables; who reads is known as soon as they ask again."""
    revisions.create_outbox_readers()
    op.create_table(
        "result_told", sa.Column("result_ref", TEXT, primary_key=True), sa.Column("agency", TEXT, primary_key=True)
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("result_told")
    revisions.drop_outbox_readers()
