"""The index of subjects in parts: what is added to it is written in its order, and sorted part by part."""

import sqlalchemy as sa
from alembic import op

from services.kit.records.first_revision import TEXT

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None
stop: str = "the version before writes an index that this one replaces"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create both tables, and put what there is where it belongs."""
    op.create_table(
        "log_part",
        sa.Column("part", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("scheme", TEXT, primary_key=True),
        sa.Column("value", TEXT, primary_key=True),
        sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "log_recent",
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("scheme", TEXT, nullable=False),
        sa.Column("value", TEXT, nullable=False),
    )
    op.execute(
        'INSERT INTO log_part (part, scheme, value, "index")'
        ' SELECT "index" / 4096, scheme, value, "index" FROM log_subject'
        ' WHERE "index" / 4096 < (SELECT size / 4096 FROM log_head)'
    )
    op.execute(
        'INSERT INTO log_recent ("index", scheme, value) SELECT "index", scheme, value FROM log_subject'
        ' WHERE "index" / 4096 >= (SELECT size / 4096 FROM log_head)'
    )
    _drop("log_subject")


def downgrade() -> None:
    """Make one index of them again."""
    op.create_table(
        "log_subject",
        sa.Column("scheme", TEXT, primary_key=True),
        sa.Column("value", TEXT, primary_key=True),
        sa.Column("index", sa.BigInteger(), primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    for name in ("log_part", "log_recent"):
        op.execute(f'INSERT INTO log_subject SELECT scheme, value, "index" FROM {name}')  # noqa: S608 - names of ours
        _drop(name)


def _drop(name: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        # Who is erased later must not be found in pages that nobody uses any more.
        op.execute("PRAGMA secure_delete = ON")
    op.drop_table(name)
