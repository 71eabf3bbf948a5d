"""The first tables of taxation: one per record type, and those that every department has."""

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
        "export_rebate_claim",
        sa.Column("claim_id", first.TEXT),
        sa.Column("claim_line", sa.BigInteger()),
        sa.Column("uscc", first.TEXT),
        sa.Column("period", first.TEXT),
        sa.Column("declaration_no", first.TEXT),
        sa.Column("hs10", first.TEXT),
        sa.Column("purchase_invoice_no", first.TEXT),
        sa.Column("submitted_at", first.MOMENT),
        sa.Column("decision", sa.Integer()),
        sa.Column("decided_at", first.MOMENT),
        sa.Column("paid_at", first.MOMENT),
        whole=("uscc", "declaration_no"),
        current=(
            "claim_id",
            "claim_line",
            "period",
            "hs10",
            "purchase_invoice_no",
            "submitted_at",
            "decided_at",
            "paid_at",
        ),
    )
    first.create_record_table(
        "invoice_line",
        sa.Column("invoice_no", first.TEXT),
        sa.Column("line_no", sa.BigInteger()),
        sa.Column("seller_uscc", first.TEXT),
        sa.Column("buyer_uscc", first.TEXT),
        sa.Column("issued_on", first.TEXT),
        sa.Column("goods_code", first.TEXT),
        sa.Column("state", sa.Integer()),
        whole=("seller_uscc",),
        current=("invoice_no", "line_no", "buyer_uscc", "issued_on", "goods_code"),
    )
    first.create_record_table(
        "invoice_summary",
        sa.Column("uscc", first.TEXT),
        sa.Column("period", first.TEXT),
        sa.Column("direction", sa.Integer()),
        whole=("uscc",),
        current=("period",),
    )
    first.create_record_table(
        "status_notice",
        sa.Column("notice_no", first.TEXT),
        sa.Column("taxpayer_id", first.TEXT),
        sa.Column("identity_suppressed", sa.Boolean()),
        sa.Column("situation", sa.Integer()),
        sa.Column("presumed_on", first.TEXT),
        whole=("taxpayer_id",),
        current=("presumed_on",),
    )
    first.create_record_table(
        "taxpayer_status",
        sa.Column("uscc", first.TEXT),
        sa.Column("taxpayer_type", sa.Integer()),
        sa.Column("tax_status", sa.Integer()),
        sa.Column("registered_on", first.TEXT),
        sa.Column("credit_grade", sa.Integer()),
        sa.Column("credit_year", sa.BigInteger()),
        sa.Column("export_class", sa.Integer()),
        sa.Column("tax_office", first.TEXT),
        sa.Column("arrears_flag", sa.Boolean()),
        sa.Column("employee_band", sa.Integer()),
        whole=("uscc",),
        current=("registered_on", "credit_year", "tax_office"),
    )
    first.create_record_table(
        "vat_filing",
        sa.Column("uscc", first.TEXT),
        sa.Column("period", first.TEXT),
        sa.Column("due_date", first.TEXT),
        sa.Column("filed_at", first.MOMENT),
        sa.Column("zero_filing", sa.Boolean()),
        whole=("uscc",),
        current=("period", "due_date", "filed_at"),
    )


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
        "export_rebate_claim",
        "invoice_line",
        "invoice_summary",
        "status_notice",
        "taxpayer_status",
        "vat_filing",
    )
