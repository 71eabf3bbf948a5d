"""The first tables of customs: one per record type, and those that every department has."""

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
        "cbec_listing",
        sa.Column("invt_no", first.TEXT),
        sa.Column("order_no", first.TEXT),
        sa.Column("logistics_no", first.TEXT),
        sa.Column("payment_no", first.TEXT),
        sa.Column("platform_code", first.TEXT),
        sa.Column("merchant_code", first.TEXT),
        sa.Column("trade_mode", first.TEXT),
        sa.Column("buyer_token", first.TEXT),
        sa.Column("consignee_addr_token", first.TEXT),
        sa.Column("hs10", first.TEXT),
        sa.Column("listed_at", first.MOMENT),
        sa.Column("list_status", first.TEXT),
        whole=("merchant_code",),
        current=(
            "order_no",
            "logistics_no",
            "payment_no",
            "platform_code",
            "trade_mode",
            "buyer_token",
            "consignee_addr_token",
            "hs10",
            "listed_at",
            "list_status",
        ),
    )
    first.create_record_table(
        "clearance_event",
        sa.Column("event_id", first.TEXT),
        sa.Column("declaration_no", first.TEXT),
        sa.Column("event_code", sa.Integer()),
        sa.Column("event_time", first.MOMENT),
        sa.Column("office", first.TEXT),
        sa.Column("note_code", first.TEXT),
        whole=("declaration_no",),
        current=("event_time", "office", "note_code"),
    )
    first.create_record_table(
        "declaration",
        sa.Column("declaration_no", first.TEXT),
        sa.Column("ie_flag", sa.Integer()),
        sa.Column("trader_uscc", first.TEXT),
        sa.Column("owner_uscc", first.TEXT),
        sa.Column("agent_uscc", first.TEXT),
        sa.Column("customs_office", first.TEXT),
        sa.Column("port_code", first.TEXT),
        sa.Column("declared_at", first.MOMENT),
        sa.Column("ie_date", first.TEXT),
        sa.Column("trade_mode", first.TEXT),
        sa.Column("transport_mode", first.TEXT),
        sa.Column("bill_no", first.TEXT),
        sa.Column("trade_country", first.TEXT),
        sa.Column("dispatch_dest_country", first.TEXT),
        sa.Column("transaction_term", first.TEXT),
        sa.Column("special_relation", sa.Boolean()),
        sa.Column("royalty", sa.Boolean()),
        sa.Column("decl_status", sa.Integer()),
        sa.Column("functional_reference", first.TEXT),
        sa.Column("type_code", first.TEXT),
        sa.Column("importer_id", first.TEXT),
        sa.Column("exporter_id", first.TEXT),
        whole=("declaration_no", "trader_uscc", "importer_id", "exporter_id"),
        current=(
            "owner_uscc",
            "agent_uscc",
            "customs_office",
            "port_code",
            "declared_at",
            "ie_date",
            "trade_mode",
            "transport_mode",
            "bill_no",
            "trade_country",
            "dispatch_dest_country",
            "transaction_term",
            "functional_reference",
            "type_code",
        ),
    )
    first.create_record_table(
        "inspection",
        sa.Column("insp_id", first.TEXT),
        sa.Column("declaration_no", first.TEXT),
        sa.Column("selected_at", first.MOMENT),
        sa.Column("inspected_at", first.MOMENT),
        sa.Column("insp_result", sa.Integer()),
        sa.Column("action", sa.Integer()),
        whole=("declaration_no",),
        current=("selected_at", "inspected_at"),
    )
    first.create_record_table(
        "manifest",
        sa.Column("manifest_no", first.TEXT),
        sa.Column("bill_no", first.TEXT),
        sa.Column("carrier_code", first.TEXT),
        sa.Column("arrival_at", first.MOMENT),
        sa.Column("discharge_done_at", first.MOMENT),
        sa.Column("loaded_at", first.MOMENT),
        sa.Column("dg_flag", sa.Boolean()),
        current=("manifest_no", "bill_no", "carrier_code", "arrival_at", "discharge_done_at", "loaded_at"),
    )
    first.create_record_table(
        "operator",
        sa.Column("customs_code", first.TEXT),
        sa.Column("uscc", first.TEXT),
        sa.Column("recorded_on", first.TEXT),
        sa.Column("record_status", sa.Integer()),
        sa.Column("credit_level", sa.Integer()),
        sa.Column("credit_from", first.TEXT),
        sa.Column("aeo_code", first.TEXT),
        sa.Column("next_review", first.TEXT),
        whole=("customs_code", "uscc"),
        current=("recorded_on", "credit_from", "aeo_code", "next_review"),
    )
    first.create_record_table(
        "penalty",
        sa.Column("penalty_no", first.TEXT),
        sa.Column("uscc", first.TEXT),
        sa.Column("violation_type", first.TEXT),
        sa.Column("severity", sa.Integer()),
        sa.Column("decided_on", first.TEXT),
        sa.Column("publish_until", first.TEXT),
        whole=("uscc",),
        current=("violation_type", "decided_on", "publish_until"),
    )


def downgrade() -> None:
    """Drop every table, with all that it holds."""
    first.drop_tables(
        "cbec_listing",
        "clearance_event",
        "declaration",
        "inspection",
        "manifest",
        "operator",
        "penalty",
    )
