"""Tax in the sample zone: standing, returns, invoices, export refunds, public notices.

Sums agree with the rest of the zone: export sales of a month are the exports cleared in it, purchases hold the invoices
that claims rest on.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property

from services.cli.sample.cast import Role
from services.cli.sample.cells import Money, Period, Row, cents
from services.cli.sample.firms import Firm
from services.cli.sample.purchases import VAT, Purchases
from services.cli.sample.setting import any_moment
from services.cli.sample.zone import Zone

_SUMMED_MONTHS = 8
_UNFILED = 4
"""Last months in which a taxpayer who cannot be found filed nothing."""
_ZERO = Decimal("0.00")
_TURNOVER: Mapping[Role, int] = {
    # usual sales at home in a month, in thousands of yuan
    Role.EXPORTER: 300,
    Role.IMPORTER: 900,
    Role.FOOD_IMPORTER: 800,
    Role.DG_TRADER: 700,
    Role.SUPPLIER: 1200,
    Role.PLATFORM: 2000,
}
_GAP = "vat-gap"
_SURGE = "void-surge"


@dataclass(frozen=True, slots=True)
class Month:
    """One taxpayer's month."""

    firm: Firm
    period: Period
    filed: bool
    sales: Decimal
    export: Decimal
    purchases: Decimal
    zero: bool


class Taxes:
    """The tax authority's view of a zone."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.purchases = Purchases(zone)

    @cached_property
    def exports(self) -> Mapping[tuple[int, Period], Decimal]:
        """Add up the exports cleared, by firm and month."""
        found: defaultdict[tuple[int, Period], Decimal] = defaultdict(lambda: _ZERO)
        for shipment in self.zone.shipments:
            cleared = shipment.times.at("CLEARED")
            if shipment.export and cleared is not None:
                found[shipment.firm.index, Period.of(cleared.date())] += shipment.value
        return found

    @cached_property
    def months(self) -> tuple[Month, ...]:
        """Work out every taxpayer's months."""
        sold: defaultdict[tuple[int, Period], Decimal] = defaultdict(lambda: _ZERO)
        bought: defaultdict[tuple[int, Period], Decimal] = defaultdict(lambda: _ZERO)
        for invoice in self.purchases.invoices:
            period = Period.of(invoice.day)
            sold[invoice.seller.index, period] += invoice.amount
            bought[invoice.buyer.index, period] += invoice.amount
        return tuple(month for firm in self.zone.firms for month in self._months(firm, sold, bought))

    def _months(
        self,
        firm: Firm,
        sold: Mapping[tuple[int, Period], Decimal],
        bought: Mapping[tuple[int, Period], Decimal],
    ) -> Iterator[Month]:
        traits, rng = firm.traits, self.zone.setting.rng(f"taxation.months.{firm.index}")
        periods = self.zone.setting.periods
        idle = firm.role is Role.SERVICES and rng.random() < 0.3
        if traits.bad_check_digit or traits.tax_status == "DEREGISTERED":
            return
        for at, period in enumerate(periods):
            size = _TURNOVER.get(firm.role, 200)
            draw, spent = rng.randint(60, 140), rng.randint(50, 90)
            if period < Period.of(firm.established):
                continue
            filed = traits.tax_status == "NORMAL" or at < len(periods) - _UNFILED
            key = (firm.index, period)
            made, spent_on = sold.get(key, _ZERO), bought.get(key, _ZERO)
            base = _ZERO if idle else cents(Decimal(size * 10 * draw))
            export = self.exports.get(key, _ZERO)
            if firm.part == _GAP:
                export = cents(export / 4)
            sales, purchases = base + made, cents(base * spent / 100) + spent_on
            yield Month(firm, period, filed, sales, export, purchases, not (sales or purchases or export))


def statuses(taxes: Taxes) -> Iterator[Row]:
    """Write how every taxpayer stands."""
    zone, rng = taxes.zone, taxes.zone.setting.rng("taxation.TaxpayerStatus")
    for firm in zone.firms:
        traits, year = firm.traits, zone.setting.today.year - 1
        young = (zone.setting.today - firm.established).days < 540
        grade, classed = rng.choice("AABBBBBC"), rng.choice(("ONE", "TWO", "TWO", "THREE"))
        band = rng.choice(("ONE_TO_NINE", "TEN_TO_49", "TEN_TO_49", "FIFTY_TO_249", "OVER_249"))
        small, owes, sum_owed = rng.random() < 0.5, rng.random() < 0.04, rng.randint(20, 900) * 1000
        arrears = (owes and not firm.part) or firm.part in {"barred-listed", "barred-tax", "vanished-supplier"}
        yield {
            "uscc": firm.uscc,
            "taxpayer_type": "SMALL_SCALE" if small and firm.role is Role.SERVICES else "GENERAL",
            "tax_status": traits.tax_status,
            "registered_on": min(firm.established + dt.timedelta(days=9), zone.setting.before(1)),
            "credit_grade": traits.credit_grade or ("M" if young else grade),
            "credit_year": year,
            "export_class": (traits.export_class or classed) if firm.role is Role.EXPORTER else None,
            "tax_office": f"SAMPLE-TAX-{firm.region}",
            "arrears_flag": arrears,
            "arrears_amt": Money(cents(sum_owed if arrears else 0)),
            "employee_band": traits.employee_band or band,
        }


def filings(taxes: Taxes) -> Iterator[Row]:
    """Write the returns; what was not filed has no sums."""
    rng = taxes.zone.setting.rng("taxation.VatFiling")
    for month in taxes.months:
        following = month.period.plus(1)
        output, paid_before = cents(month.sales * VAT), cents(month.purchases * VAT)
        payable = max(output - paid_before, _ZERO)
        filed = any_moment(rng, following.day(rng.randint(2, 14)))
        row: Row = {
            "uscc": month.firm.uscc,
            "period": month.period,
            "filing_id": f"SF{month.period.year}{month.period.month:02d}{month.firm.index:05d}",
            "due_date": following.day(15),
        }
        if month.filed:
            row |= {
                "filed_at": filed,
                "output_sales_amt": Money(month.sales),
                "export_sales_amt": Money(month.export),
                "output_tax_amt": Money(output),
                "input_tax_amt": Money(paid_before),
                "tax_payable_amt": Money(payable),
                "tax_paid_amt": Money(payable),
                "zero_filing": month.zero,
            }
        yield row
    _plant_gap(taxes)


def _plant_gap(taxes: Taxes) -> None:
    firm = taxes.zone.firms.part(_GAP)
    months = [m for m in taxes.months if m.firm is firm and m.export]
    cleared = [s.number for s in taxes.zone.of(_GAP) if s.export and s.times.status == "CLEARED"]
    keys = {"taxation.VatFiling": [f"{firm.uscc}~{m.period}" for m in months], "customs.Declaration": cleared}
    taxes.zone.ledger.plant(_GAP, "I14", "files a quarter of the export sales that customs cleared", [firm], keys)


def summaries(taxes: Taxes) -> Iterator[Row]:
    """Write invoices added up by month and direction."""
    rng = taxes.zone.setting.rng("taxation.InvoiceSummary")
    shown = frozenset(taxes.zone.setting.periods[-_SUMMED_MONTHS:])
    surge = _surge(taxes)
    for month in taxes.months:
        if not month.filed or month.zero or month.period not in shown:
            continue
        for direction, amount in (("ISSUED", month.sales), ("RECEIVED", month.purchases)):
            voided, top = rng.randint(0, 2), rng.randint(800, 4500)
            share = Decimal(voided * rng.randint(2, 9)) / 1000
            if direction == "ISSUED" and (month.firm.part, month.period) == (_SURGE, surge):
                voided, share = 41, Decimal("1.2")
            yield {
                "uscc": month.firm.uscc,
                "period": month.period,
                "direction": direction,
                "invoice_count": max(1, int(amount // 8000)) + voided,
                "invoiced_amt": Money(amount),
                "invoiced_tax_amt": Money(cents(amount * VAT)),
                "voided_count": voided,
                "voided_amt": Money(cents(amount * share)),
                "credit_note_amt": Money(cents(amount * share / 10)),
                "top_counterparty_share": Decimal(top) / 10_000,
            }
    firm = taxes.zone.firms.part(_SURGE)
    keys = {
        "taxation.InvoiceSummary": [f"{firm.uscc}~{surge}~ISSUED"],
        "taxation.ExportRebateClaim": [c.key for c in taxes.purchases.of(firm)],
    }
    taxes.zone.ledger.plant(_SURGE, "I19", "voids its invoices right after the refund", [firm], keys)


def _surge(taxes: Taxes) -> Period:
    """Name the month after the refund."""
    paid = [c.paid for c in taxes.purchases.of(taxes.zone.firms.part(_SURGE)) if c.paid]
    return Period.of(paid[0].date()).plus(1)


def invoice_lines(taxes: Taxes) -> Iterator[Row]:
    """Write the invoices between firms of the zone."""
    for invoice in sorted(taxes.purchases.invoices, key=lambda i: i.number):
        yield {
            "invoice_no": invoice.number,
            "line_no": 1,
            "seller_uscc": invoice.seller.uscc,
            "buyer_uscc": invoice.buyer.uscc,
            "issued_on": invoice.day,
            "goods_code": f"1{invoice.good.hs10:0<18}",
            "goods_name": invoice.good.name,
            "qty": invoice.qty,
            "unit": invoice.good.unit,
            "amount": Money(invoice.amount),
            "tax_amount": Money(cents(invoice.amount * VAT)),
            "state": invoice.state,
        }


def claims(taxes: Taxes) -> Iterator[Row]:
    """Write the claims for refund of tax on exports."""
    for claim in sorted(taxes.purchases.claims, key=lambda c: c.key):
        yield {
            "claim_id": claim.number,
            "claim_line": claim.line_no,
            "uscc": claim.shipment.firm.uscc,
            "period": claim.period,
            "declaration_no": claim.shipment.number,
            "decl_line_no": claim.line.number,
            "hs10": claim.hs10,
            "claim_qty": claim.qty,
            "claim_unit": claim.line.good.unit,
            "fob_amt_cny": Money(claim.line.cny),
            "purchase_invoice_no": claim.invoice.number,
            "purchase_amt": Money(claim.invoice.amount),
            "rebate_rate": claim.line.good.rebate,
            "rebate_amt": Money(cents(claim.invoice.amount * claim.line.good.rebate)),
            "submitted_at": claim.submitted,
            "decision": claim.decision,
            "decided_at": claim.decided,
            "paid_at": claim.paid,
        }
