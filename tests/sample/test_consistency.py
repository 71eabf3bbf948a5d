"""The agencies of a sample zone agree: every reference resolves, every sum comes out, every identifier checks."""

import datetime as dt
from collections import defaultdict
from decimal import Decimal
from typing import Any

import pytest

from services.kit import identifiers
from services.kit.identifiers import Verdict
from services.kit.records import catalogue, values
from services.kit.records.values import Kind
from tests.sample.conftest import Sample

NOW = dt.datetime(2026, 6, 30, 10, tzinfo=dt.UTC)


def _amount(money: Any) -> Decimal:
    return Decimal(money.amount.value)


def test_every_identifier_is_right(zone: Sample) -> None:
    for name, records in zone.records.items():
        for field in catalogue.load().get(name).leaves:
            if not field.scheme or "." in field.path or field.repeated:
                continue
            for record in records:
                value = getattr(record, field.name)
                if value:
                    found = identifiers.check(field.scheme, value)
                    assert found.verdict is Verdict.OK, (name, field.path, found)
                    assert found.value == value


def test_the_planted_codes_fail_only_their_check_digits(zone: Sample) -> None:
    (code,) = zone.planted("DATA", "commerce.Enterprise")
    found = identifiers.check("cn.uscc", code)
    assert (found.verdict, found.reason.startswith("check digit")) == (Verdict.SUSPECT, True)


@pytest.mark.parametrize(
    ("record_type", "field", "target", "target_field"),
    [
        *(
            (name, field, "commerce.Enterprise", "uscc")
            for name, field in (
                ("commerce.RegistrationChange", "uscc"),
                ("commerce.Shareholding", "uscc"),
                ("commerce.Shareholding", "holder_uscc"),
                ("commerce.Listing", "uscc"),
                ("commerce.Branch", "uscc"),
                ("taxation.TaxpayerStatus", "uscc"),
                ("taxation.VatFiling", "uscc"),
                ("taxation.InvoiceSummary", "uscc"),
                ("taxation.InvoiceLine", "seller_uscc"),
                ("taxation.InvoiceLine", "buyer_uscc"),
                ("taxation.ExportRebateClaim", "uscc"),
                ("customs.Operator", "uscc"),
                ("customs.Declaration", "trader_uscc"),
                ("customs.Declaration", "owner_uscc"),
                ("customs.Declaration", "agent_uscc"),
                ("customs.Penalty", "uscc"),
                ("quality.FoodFiling", "importer_uscc"),
                ("quality.TraceEvent", "holder_uscc"),
                ("publicsecurity.SealRegistration", "uscc"),
                ("publicsecurity.Vehicle", "owner_uscc"),
                ("publicsecurity.HazchemPermit", "uscc"),
            )
        ),
        ("customs.Declaration", "trader_uscc", "customs.Operator", "uscc"),
        ("customs.CbecListing", "platform_code", "customs.Operator", "customs_code"),
        ("customs.CbecListing", "merchant_code", "customs.Operator", "customs_code"),
        ("customs.Manifest", "carrier_code", "customs.Operator", "customs_code"),
        ("customs.ClearanceEvent", "declaration_no", "customs.Declaration", "declaration_no"),
        ("customs.Inspection", "declaration_no", "customs.Declaration", "declaration_no"),
        ("customs.Declaration", "bill_no", "customs.Manifest", "bill_no"),
        ("taxation.ExportRebateClaim", "declaration_no", "customs.Declaration", "declaration_no"),
        ("taxation.ExportRebateClaim", "purchase_invoice_no", "taxation.InvoiceLine", "invoice_no"),
        ("quality.InspectionLot", "declaration_no", "customs.Declaration", "declaration_no"),
        ("quality.InspectionLot", "overseas_mfr_reg_no", "quality.FoodFiling", "overseas_mfr_reg_no"),
        ("quality.Certificate", "lot_id", "quality.InspectionLot", "lot_id"),
        ("quality.Certificate", "declaration_no", "customs.Declaration", "declaration_no"),
        ("quality.TraceEvent", "lot_id", "quality.InspectionLot", "lot_id"),
    ],
)
def test_references_resolve(zone: Sample, record_type: str, field: str, target: str, target_field: str) -> None:
    known = {getattr(record, target_field) for record in zone.of(target)}
    asked = {getattr(record, field) for record in zone.of(record_type)} - {""}
    assert asked
    assert not asked - known


def test_declarations_add_up(zone: Sample) -> None:
    rate = None
    for declaration in zone.of("customs.Declaration"):
        total = sum((Decimal(line.total_price.value) for line in declaration.lines), Decimal(0))
        assert total == _amount(declaration.invoice_amount)
        for line in declaration.lines:
            exact = Decimal(line.qty.value) * Decimal(line.unit_price.value)
            assert abs(exact - Decimal(line.total_price.value)) <= Decimal("0.005")
        rate = rate or _amount(declaration.total_value_cny) / total
        assert abs(_amount(declaration.total_value_cny) - total * rate) < Decimal("0.05")
        assert [line.line_no for line in declaration.lines] == list(range(1, len(declaration.lines) + 1))
        assert sum(Decimal(line.gross_wt_kg.value) for line in declaration.lines) == Decimal(
            declaration.gross_wt_kg.value
        )
        office, year, direction = (declaration.declaration_no[a:b] for a, b in ((0, 4), (4, 8), (8, 9)))
        assert (office, direction) == ("9999", "1" if declaration.ie_flag == 1 else "0")
        assert int(year) == declaration.declared_at.ToDatetime().year


def test_status_is_the_last_event(zone: Sample) -> None:
    kind = catalogue.load().get("customs.ClearanceEvent").field("event_code").descriptor
    status = catalogue.load().get("customs.Declaration").field("decl_status").descriptor
    events: defaultdict[str, list[tuple[dt.datetime, str]]] = defaultdict(list)
    for event in zone.of("customs.ClearanceEvent"):
        code = values.enum_name(kind, event.event_code)
        events[event.declaration_no].append((event.event_time.ToDatetime(dt.UTC), code))
    for declaration in zone.of("customs.Declaration"):
        found = events[declaration.declaration_no]
        assert found == sorted(found)
        assert found[0] == (declaration.declared_at.ToDatetime(dt.UTC), "SUBMITTED")
        assert found[-1][1] == values.enum_name(status, declaration.decl_status)
        codes = [code for _, code in found]
        assert len(codes) == len(set(codes))
        if "CLEARED" in codes:
            assert {"RELEASED", "GUARANTEE_RELEASED"} & set(codes)


def test_the_year_ends_in_work_under_way(zone: Sample) -> None:
    status = catalogue.load().get("customs.Declaration").field("decl_status").descriptor
    found = {values.enum_name(status, d.decl_status) for d in zone.of("customs.Declaration")}
    assert found >= {"CLEARED", "REJECTED", "DELETED"}
    assert len(found & {"SUBMITTED", "ACCEPTED", "SELECTED", "INSPECTED", "TAX_DUE", "TAX_PAID", "RELEASED"}) > 2
    conclusion = catalogue.load().get("quality.InspectionLot").field("conclusion").descriptor
    lots = {values.enum_name(conclusion, lot.conclusion) for lot in zone.of("quality.InspectionLot")}
    assert lots >= {"PASS", "FAIL", "PENDING"}


def test_nothing_recorded_happens_after_the_reference_date(zone: Sample) -> None:
    for name, records in zone.records.items():
        for field in catalogue.load().get(name).leaves:
            if field.kind is not Kind.TIMESTAMP or "." in field.path:
                continue
            for record in records:
                if record.HasField(field.name):
                    assert getattr(record, field.name).ToDatetime(dt.UTC) <= NOW, (name, field.path)


def test_nobody_acts_before_being_founded(zone: Sample) -> None:
    founded = {
        e.uscc: dt.date(e.establish_date.year, e.establish_date.month, e.establish_date.day)
        for e in zone.of("commerce.Enterprise")
    }
    for declaration in zone.of("customs.Declaration"):
        assert founded[declaration.trader_uscc] <= declaration.declared_at.ToDatetime().date()
    for line in zone.of("taxation.InvoiceLine"):
        assert founded[line.seller_uscc] <= dt.date(line.issued_on.year, line.issued_on.month, line.issued_on.day)


def test_claims_point_at_the_very_goods_lines(zone: Sample) -> None:
    declarations = {d.declaration_no: d for d in zone.of("customs.Declaration")}
    odd = zone.planted("I18", "taxation.ExportRebateClaim")
    for claim in zone.of("taxation.ExportRebateClaim"):
        declaration = declarations[claim.declaration_no]
        line = declaration.lines[claim.decl_line_no - 1]
        assert declaration.trader_uscc == claim.uscc
        if f"{claim.claim_id}~{claim.claim_line}" not in odd:
            assert (line.hs10, line.qty1.value, line.unit1) == (claim.hs10, claim.claim_qty.value, claim.claim_unit)


def test_shares_add_up_to_the_whole(zone: Sample) -> None:
    found: defaultdict[str, Decimal] = defaultdict(Decimal)
    for holding in zone.of("commerce.Shareholding"):
        found[holding.uscc] += Decimal(holding.share_pct.value)
        assert holding.holder_uscc != holding.uscc
    assert set(found) == {e.uscc for e in zone.of("commerce.Enterprise")}
    assert set(found.values()) == {Decimal(100)}


def test_input_tax_covers_the_purchase_invoices(zone: Sample) -> None:
    bought: defaultdict[tuple[str, int, int], Decimal] = defaultdict(Decimal)
    for line in zone.of("taxation.InvoiceLine"):
        bought[line.buyer_uscc, line.issued_on.year, line.issued_on.month] += _amount(line.tax_amount)
    filed = {(f.uscc, f.period.year, f.period.month): f for f in zone.of("taxation.VatFiling")}
    matched = 0
    for key, tax in bought.items():
        if key in filed:
            matched += 1
            assert _amount(filed[key].input_tax_amt) >= tax - 1
    assert matched > 50


def test_namibia_is_a_country_here(zone: Sample) -> None:
    assert "NA" in {d.trade_country for d in zone.of("customs.Declaration")}
