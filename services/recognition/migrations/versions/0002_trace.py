"""The trace that an event came of, beside it in the outbox."""

from services.kit.events import revisions

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column; events of before came of none."""
    revisions.add_outbox_trace()


def downgrade() -> None:
    """Drop it."""
    revisions.drop_outbox_trace()
