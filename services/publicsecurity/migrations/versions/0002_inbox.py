"""The inbox of publicsecurity: what other nodes sent, and how far each has been followed."""

from services.kit.events import revisions

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the inbox."""
    revisions.create_inbox_tables()


def downgrade() -> None:
    """Drop the inbox, with all that it received."""
    revisions.drop_inbox_tables()
