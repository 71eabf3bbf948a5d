"""The first tables of publicsecurity: one per record type, and those that every department has."""

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
        "hazchem_permit",
        sa.Column("permit_no", first.TEXT),
        sa.Column("uscc", first.TEXT),
        sa.Column("permit_type", sa.Integer()),
        sa.Column("un_no", first.TEXT),
        sa.Column("valid_from", first.TEXT),
        sa.Column("valid_to", first.TEXT),
        sa.Column("permit_status", sa.Integer()),
        whole=("uscc",),
        current=("un_no", "valid_from", "valid_to"),
    )
    first.create_record_table(
        "identity_answer",
        sa.Column("request_id", first.TEXT),
        sa.Column("subject_token", first.TEXT),
        sa.Column("name_id_match", sa.Boolean()),
        sa.Column("document_valid", sa.Boolean()),
        sa.Column("alive", sa.Boolean()),
        sa.Column("answer_code", sa.Integer()),
        sa.Column("checked_at", first.MOMENT),
        whole=("subject_token",),
        current=("checked_at",),
    )
    first.create_record_table(
        "restriction_answer",
        sa.Column("request_id", first.TEXT),
        sa.Column("subject_token", first.TEXT),
        sa.Column("question_code", sa.Integer()),
        sa.Column("answer_code", sa.Integer()),
        sa.Column("as_of", first.MOMENT),
        whole=("subject_token",),
        current=("as_of",),
    )
    first.create_record_table(
        "seal_registration",
        sa.Column("seal_no", first.TEXT),
        sa.Column("uscc", first.TEXT),
        sa.Column("seal_type", sa.Integer()),
        sa.Column("registered_on", first.TEXT),
        sa.Column("seal_status", sa.Integer()),
        whole=("uscc",),
        current=("registered_on",),
    )
    first.create_record_table(
        "security_event",
        sa.Column("sec_event_id", first.TEXT),
        sa.Column("site_id", first.TEXT),
        sa.Column("sec_type", sa.Integer()),
        sa.Column("risk_band", sa.Integer()),
        sa.Column("observed_at", first.MOMENT),
        sa.Column("sec_state", sa.Integer()),
        current=("site_id", "observed_at"),
    )
    first.create_record_table(
        "vehicle",
        sa.Column("plate_token", first.TEXT),
        sa.Column("vehicle_type", first.TEXT),
        sa.Column("owner_uscc", first.TEXT),
        sa.Column("inspection_valid_to", first.TEXT),
        sa.Column("vehicle_status", sa.Integer()),
        sa.Column("dg_transport_permit_to", first.TEXT),
        sa.Column("reported_on", first.TEXT),
        sa.Column("region", first.TEXT),
        whole=("plate_token", "owner_uscc"),
        current=("vehicle_type", "inspection_valid_to", "dg_transport_permit_to", "reported_on", "region"),
    )
    first.create_record_table(
        "watchlist_entry",
        sa.Column("list_code", first.TEXT),
        sa.Column("entry_no", first.TEXT),
        sa.Column("name", first.TEXT),
        sa.Column("entry_type", sa.Integer()),
        sa.Column("vessel_call_sign", first.TEXT),
        sa.Column("vessel_flag", first.TEXT),
        current=("list_code", "entry_no", "name", "vessel_call_sign", "vessel_flag"),
    )


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
        "hazchem_permit",
        "identity_answer",
        "restriction_answer",
        "seal_registration",
        "security_event",
        "vehicle",
        "watchlist_entry",
    )
