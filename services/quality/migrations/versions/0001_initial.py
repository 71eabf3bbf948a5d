"""The first tables of quality: one per record type, and those that every department has."""

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
        "certificate",
        sa.Column("cert_no", first.TEXT),
        sa.Column("cert_type", first.TEXT),
        sa.Column("cert_status", first.TEXT),
        sa.Column("issued_on", first.TEXT),
        sa.Column("issuer_country", first.TEXT),
        sa.Column("lot_id", first.TEXT),
        sa.Column("declaration_no", first.TEXT),
        sa.Column("valid_until", first.TEXT),
        whole=("lot_id", "declaration_no"),
        current=("cert_type", "cert_status", "issued_on", "issuer_country", "valid_until"),
    )
    first.create_record_table(
        "food_filing",
        sa.Column("filing_no", first.TEXT),
        sa.Column("filing_type", sa.Integer()),
        sa.Column("importer_uscc", first.TEXT),
        sa.Column("overseas_mfr_reg_no", first.TEXT),
        sa.Column("product_category", first.TEXT),
        sa.Column("filed_at", first.MOMENT),
        sa.Column("valid_until", first.TEXT),
        sa.Column("filing_status", sa.Integer()),
        whole=("importer_uscc",),
        current=("overseas_mfr_reg_no", "product_category", "filed_at", "valid_until"),
    )
    first.create_record_table(
        "inspection_lot",
        sa.Column("lot_id", first.TEXT),
        sa.Column("declaration_no", first.TEXT),
        sa.Column("hs10", first.TEXT),
        sa.Column("origin_country", first.TEXT),
        sa.Column("overseas_mfr_reg_no", first.TEXT),
        sa.Column("risk_grade", sa.Integer()),
        sa.Column("sampled_at", first.MOMENT),
        sa.Column("concluded_at", first.MOMENT),
        sa.Column("conclusion", sa.Integer()),
        sa.Column("disposition", sa.Integer()),
        sa.Column("inspection_required", sa.Boolean()),
        whole=("lot_id", "declaration_no"),
        current=("hs10", "origin_country", "overseas_mfr_reg_no", "sampled_at", "concluded_at"),
    )
    first.create_record_table(
        "notification",
        sa.Column("reference", first.TEXT),
        sa.Column("search_term", first.TEXT),
        sa.Column("reference_ambiguous", sa.Boolean()),
        sa.Column("notified_at", first.MOMENT),
        sa.Column("notifying_country", first.TEXT),
        sa.Column("classification", sa.Integer()),
        sa.Column("risk_decision", sa.Integer()),
        sa.Column("product_category", first.TEXT),
        sa.Column("product_type", sa.Integer()),
        sa.Column("hazard_category", first.TEXT),
        sa.Column("parameter_category", first.TEXT),
        sa.Column("parameter", first.TEXT),
        sa.Column("foodex2_code", first.TEXT),
        current=(
            "reference",
            "search_term",
            "notified_at",
            "notifying_country",
            "product_category",
            "hazard_category",
            "parameter_category",
            "parameter",
            "foodex2_code",
        ),
    )
    first.create_record_table(
        "trace_event",
        sa.Column("trace_event_id", first.TEXT),
        sa.Column("trace_code", first.TEXT),
        sa.Column("parent_code", first.TEXT),
        sa.Column("lot_id", first.TEXT),
        sa.Column("gtin", first.TEXT),
        sa.Column("batch_no", first.TEXT),
        sa.Column("expiry_date", first.TEXT),
        sa.Column("holder_uscc", first.TEXT),
        sa.Column("step", sa.Integer()),
        sa.Column("event_time", first.MOMENT),
        whole=("lot_id", "holder_uscc"),
        current=("trace_code", "parent_code", "gtin", "batch_no", "expiry_date", "event_time"),
    )


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
        "certificate",
        "food_filing",
        "inspection_lot",
        "notification",
        "trace_event",
    )
