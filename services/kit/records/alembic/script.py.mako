"""${message}.

Written by comparing the tables derived from the contracts (`services.kit.records.tables`) with those of the migrations
before this one; a test holds the result to them.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | None = ${repr(branch_labels)}
depends_on: str | None = ${repr(depends_on)}


def upgrade() -> None:
    """Bring the schema here from the revision before."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Take the schema back to the revision before; what the newer tables held is lost."""
    ${downgrades if downgrades else "pass"}
