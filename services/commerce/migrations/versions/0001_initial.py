"""The first tables of commerce: one per record type, and those that every department has."""

import sqlalchemy as sa

from services.kit.records import first_revision as first

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Create every table."""
    first.create_own_tables()
    first.create_record_table(
        "branch",
        sa.Column("uscc", first.TEXT),
        sa.Column("branch_uscc", first.TEXT),
        sa.Column("branch_status", sa.Integer()),
        sa.Column("opened_on", first.TEXT),
        whole=("uscc",),
        current=("opened_on",),
    )
    first.create_record_table(
        "enterprise",
        sa.Column("uscc", first.TEXT),
        sa.Column("name", first.TEXT),
        sa.Column("entity_type", first.TEXT),
        sa.Column("reg_status", sa.Integer()),
        sa.Column("establish_date", first.TEXT),
        sa.Column("address_norm_key", first.TEXT),
        sa.Column("industry_code", first.TEXT),
        sa.Column("region_code", first.TEXT),
        sa.Column("registrar", first.TEXT),
        sa.Column("term_from", first.TEXT),
        sa.Column("term_to", first.TEXT),
        sa.Column("approved_date", first.TEXT),
        whole=("uscc",),
        current=(
            "name",
            "entity_type",
            "establish_date",
            "address_norm_key",
            "industry_code",
            "region_code",
            "registrar",
            "term_from",
            "term_to",
            "approved_date",
        ),
    )
    first.create_record_table(
        "listing",
        sa.Column("uscc", first.TEXT),
        sa.Column("list_type", sa.Integer()),
        sa.Column("entry_date", first.TEXT),
        sa.Column("entry_reason", first.TEXT),
        sa.Column("entry_authority", first.TEXT),
        sa.Column("exit_date", first.TEXT),
        whole=("uscc",),
        current=("entry_date", "entry_reason", "entry_authority", "exit_date"),
    )
    first.create_record_table(
        "registration_change",
        sa.Column("uscc", first.TEXT),
        sa.Column("change_seq", sa.BigInteger()),
        sa.Column("item_code", sa.Integer()),
        sa.Column("approved_date", first.TEXT),
        sa.Column("registrar", first.TEXT),
        whole=("uscc",),
        current=("change_seq", "approved_date", "registrar"),
    )
    first.create_record_table(
        "shareholding",
        sa.Column("uscc", first.TEXT),
        sa.Column("holder_seq", sa.BigInteger()),
        sa.Column("holder_type", sa.Integer()),
        sa.Column("holder_uscc", first.TEXT),
        sa.Column("beneficial_owner", sa.Boolean()),
        whole=("uscc",),
        current=("holder_seq", "holder_uscc"),
    )


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
        "branch",
        "enterprise",
        "listing",
        "registration_change",
        "shareholding",
    )
