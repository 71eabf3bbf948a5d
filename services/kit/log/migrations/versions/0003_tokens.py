"""Which officer tokens were used for a look into the log."""

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import MOMENT, TEXT

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "log_token",
        sa.Column("agency", TEXT, primary_key=True),
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("until", MOMENT, nullable=False),
    )
    op.create_index("log_token_until_ix", "log_token", ["until"])


def downgrade() -> None:
    """Drop it: tokens that were used count as unused."""
    op.drop_index("log_token_until_ix", "log_token")
    op.drop_table("log_token")
