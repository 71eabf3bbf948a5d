"""The indicators of trade supervision, in plain Python over the records of a sample zone: what must be found there.

Each gives the keys of the records it finds. They are written from the formulas, not from the generator, so that a zone
which hides something else than it says is caught.
"""

import datetime as dt
import math
import statistics
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tests.sample.facts import Facts, amount, day, time

_DAY = dt.timedelta(days=1)


def _key(claim: Any) -> str:
    return f"{claim.claim_id}~{claim.claim_line}"


def i04(facts: Facts) -> set[str]:
    return {
        d.declaration_no
        for d in facts.standing()
        if facts.word("customs.Declaration", "ie_flag", d) == "I"
        and (time(d.declared_at).date() - time(facts.manifests[d.bill_no][0].arrival_at).date()).days > 14
    }


def i05(facts: Facts) -> set[str]:
    declared = {d.bill_no for d in facts.declarations.values()}
    return {
        f"{m.manifest_no}~{m.bill_no}"
        for m in facts.of("customs.Manifest")
        if m.bill_no not in declared and (facts.today - time(m.arrival_at).date()).days >= 60
    }


def i06(facts: Facts) -> set[str]:
    found: set[str] = set()
    for lot in facts.lots.values():
        events = facts.events[lot.declaration_no]
        out = [events[c] for c in ("RELEASED", "GUARANTEE_RELEASED", "CLEARED") if c in events]
        if lot.inspection_required and out:
            early = not lot.HasField("concluded_at") or any(time(lot.concluded_at) > at for at in out)
            found |= {lot.declaration_no} if early else set()
    return found


def i08(facts: Facts) -> set[str]:
    cells: defaultdict[tuple[str, ...], list[tuple[float, str]]] = defaultdict(list)
    for d in facts.declarations.values():
        at = time(d.declared_at)
        for line in d.lines:
            price = math.log(Decimal(line.total_price.value) / Decimal(line.qty1.value))
            quarter = f"{at.year}Q{(at.month + 2) // 3}"
            cells[line.hs10, line.origin_country, line.unit1, str(d.ie_flag), quarter].append((price, d.declaration_no))
    found: set[str] = set()
    for cell in cells.values():
        if len(cell) >= 30:
            median = statistics.median(p for p, _ in cell)
            spread = statistics.median(abs(p - median) for p, _ in cell)
            found |= {number for p, number in cell if abs(p - median) / (1.4826 * spread) > 3.5}
    return found


def i10_invoices(facts: Facts) -> set[str]:
    by_invoice: defaultdict[str, list[Any]] = defaultdict(list)
    for claim in facts.claims:
        by_invoice[claim.purchase_invoice_no].append(claim)
    return {
        _key(claim)
        for invoice, claims in by_invoice.items()
        if len({c.declaration_no for c in claims}) > 1
        and sum(Decimal(c.claim_qty.value) for c in claims)
        > Decimal("1.02") * Decimal(facts.invoices[invoice].qty.value)
        for claim in claims
    }


def i10_bills(facts: Facts) -> set[str]:
    seen: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    for d in facts.standing():
        for container in d.containers:
            for line in d.lines:
                seen[d.bill_no, container.container_no, line.hs10].add(d.declaration_no)
    return {number for numbers in seen.values() if len(numbers) > 1 for number in numbers}


def i11(facts: Facts) -> set[str]:
    return {
        d.declaration_no
        for d, _ in facts.exports()
        if not any(m.HasField("loaded_at") for m in facts.manifests[d.bill_no])
    }


def i12(facts: Facts) -> set[str]:
    found: set[str] = set()
    for d in facts.standing():
        declared = Decimal(d.gross_wt_kg.value)
        # A bill may stand on two manifests: the one that is nearest speaks for the declaration.
        reported = min(
            (Decimal(m.gross_wt_kg.value) for m in facts.manifests[d.bill_no]), key=lambda w: abs(w - declared)
        )
        gap = abs(declared - reported)
        if gap > 500 and gap / max(declared, reported) > Decimal("0.05"):
            found.add(d.declaration_no)
    return found


def i13(facts: Facts) -> set[str]:
    rates = {claim.hs10: Decimal(claim.rebate_rate.value) for claim in facts.claims}
    seen: defaultdict[tuple[str, str, str], list[tuple[dt.datetime, str, str]]] = defaultdict(list)
    for d, _ in facts.exports():
        for line in d.lines:
            seen[d.trader_uscc, line.goods_name, line.spec_model].append(
                (time(d.declared_at), line.hs10, d.declaration_no)
            )
    found: set[str] = set()
    for lines in seen.values():
        ordered = sorted(lines)
        for (t1, code1, n1), (t2, code2, n2) in pairwise(ordered):
            if code1 != code2 and t2 - t1 <= 180 * _DAY and rates.get(code2, 0) > rates.get(code1, 1):
                found |= {n1, n2}
    return found


def i14(facts: Facts) -> set[str]:
    cleared: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for d, at in facts.exports():
        cleared[d.trader_uscc, at.year * 12 + at.month] += amount(d.total_value_cny)
    filed: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for f in facts.of("taxation.VatFiling"):
        if f.HasField("filed_at"):
            filed[f.uscc, f.period.year * 12 + f.period.month] = amount(f.export_sales_amt)
    found: set[str] = set()
    for uscc, month in filed:
        e = sum((cleared[uscc, m] for m in range(month - 2, month + 1)), Decimal(0))
        v = sum((filed.get((uscc, m), Decimal(0)) for m in range(month - 2, month + 1)), Decimal(0))
        if min(e, v) > 100_000 and abs(e - v) / max(e, v) > Decimal("0.15"):
            found.add(uscc)
    return found


def i15(facts: Facts) -> set[str]:
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for d, _ in facts.exports():
        total[d.trader_uscc] += amount(d.total_value_cny)
    found: set[str] = set()
    for uscc, exported in total.items():
        firm = facts.enterprises[uscc]
        young = (facts.today - day(firm.establish_date)).days < 365
        band = facts.word("taxation.TaxpayerStatus", "employee_band", facts.taxpayers[uscc])
        if exported / max(amount(firm.paid_in_capital_amt), Decimal(1)) > 50 and (
            young or band in {"NONE", "ONE_TO_NINE"}
        ):
            found.add(uscc)
    return found


def i16(facts: Facts) -> set[str]:
    edges: defaultdict[str, set[str]] = defaultdict(set)
    for line in facts.invoices.values():
        if amount(line.amount) > 200_000 and facts.word("taxation.InvoiceLine", "state", line) == "VALID":
            edges[line.seller_uscc].add(line.buyer_uscc)

    def reaches(start: str, at: str, left: int) -> bool:
        return any(n == start or (left > 1 and reaches(start, n, left - 1)) for n in edges.get(at, ()))

    return {uscc for uscc in list(edges) if reaches(uscc, uscc, 6)}


def i17(facts: Facts) -> set[str]:
    gone = {"NON_NORMAL_HOUSEHOLD", "DEREGISTERED"}
    found: set[str] = set()
    for claim in facts.claims:
        seller = facts.invoices[claim.purchase_invoice_no].seller_uscc
        status = facts.word("taxation.TaxpayerStatus", "tax_status", facts.taxpayers[seller])
        revoked = facts.word("commerce.Enterprise", "reg_status", facts.enterprises[seller]) == "REVOKED"
        found |= {_key(claim)} if status in gone or revoked else set()
    return found


def i18(facts: Facts) -> set[str]:
    found: set[str] = set()
    for claim in facts.claims:
        line = facts.declarations[claim.declaration_no].lines[claim.decl_line_no - 1]
        wrong = (
            "CLEARED" not in facts.events[claim.declaration_no]
            or claim.hs10 != line.hs10
            or Decimal(claim.claim_qty.value) > Decimal(line.qty1.value)
            or amount(claim.fob_amt_cny) > Decimal(line.total_price.value) * Decimal("7.1") * Decimal("1.02")
        )
        found |= {_key(claim)} if wrong else set()
    return found


def i19(facts: Facts) -> set[str]:
    months: defaultdict[str, dict[int, Any]] = defaultdict(dict)
    for s in facts.of("taxation.InvoiceSummary"):
        if facts.word("taxation.InvoiceSummary", "direction", s) == "ISSUED":
            months[s.uscc][s.period.year * 12 + s.period.month] = s
    found: set[str] = set()
    for claim in facts.claims:
        if not claim.HasField("paid_at"):
            continue
        paid, known = time(claim.paid_at), months[claim.uscc]
        month = paid.year * 12 + paid.month
        before = sum((amount(known[m].invoiced_amt) for m in range(month - 3, month) if m in known), Decimal(0))
        later = [known[m] for m in range(month + 1, month + 3) if m in known]
        after = sum((amount(s.voided_amt) + amount(s.credit_note_amt) for s in later), Decimal(0))
        found |= {claim.uscc} if before and after / before > Decimal("0.2") else set()
    return found


def i22(facts: Facts) -> set[str]:
    by_address: defaultdict[str, list[Any]] = defaultdict(list)
    for firm in facts.enterprises.values():
        if facts.word("commerce.Enterprise", "reg_status", firm) == "ACTIVE":
            by_address[firm.address_norm_key].append(firm)
    return {
        firm.uscc
        for firms in by_address.values()
        for firm in firms
        if sum(abs((day(f.establish_date) - day(firm.establish_date)).days) <= 90 for f in firms) >= 5
    }


def i23(facts: Facts) -> set[str]:
    found: set[str] = set()
    exports: defaultdict[str, list[tuple[dt.date, Decimal]]] = defaultdict(list)
    for d in facts.standing():
        if facts.word("customs.Declaration", "ie_flag", d) == "E":
            exports[d.trader_uscc].append((time(d.declared_at).date(), amount(d.total_value_cny)))
    for change in facts.of("commerce.RegistrationChange"):
        if facts.word("commerce.RegistrationChange", "item_code", change) not in {"LEGAL_REP", "HOLDER"}:
            continue
        changed, known = day(change.approved_date), exports[change.uscc]
        for start in (changed + n * _DAY for n in range(61)):
            soon = sum((v for at, v in known if start <= at <= start + 30 * _DAY), Decimal(0))
            past = sum((v for at, v in known if start - 365 * _DAY <= at < start), Decimal(0))
            if past and soon * 12 > past * 5:
                found.add(f"{change.uscc}~{change.change_seq}")
                break
    return found


def i24(facts: Facts) -> set[str]:
    listed: defaultdict[str, list[Any]] = defaultdict(list)
    for entry in facts.of("commerce.Listing"):
        listed[entry.uscc].append(entry)
    cancelled = {
        o.uscc for o in facts.of("customs.Operator") if facts.word("customs.Operator", "record_status", o) != "VALID"
    }
    found: set[str] = set()
    for d in facts.declarations.values():
        at = time(d.declared_at).date()
        open_entry = any(
            day(e.entry_date) <= at and not (e.HasField("exit_date") and day(e.exit_date) <= at)
            for e in listed[d.trader_uscc]
        )
        inactive = facts.word("commerce.Enterprise", "reg_status", facts.enterprises[d.trader_uscc]) != "ACTIVE"
        abnormal = facts.word("taxation.TaxpayerStatus", "tax_status", facts.taxpayers[d.trader_uscc]) != "NORMAL"
        if open_entry or inactive or abnormal or d.trader_uscc in cancelled:
            found.add(d.declaration_no)
    return found


def i25(facts: Facts) -> set[str]:
    return {
        c.invt_no
        for c in facts.of("customs.CbecListing")
        if not (c.order_no and c.logistics_no)
        or abs(
            amount(c.actual_paid)
            - (amount(c.goods_value) + amount(c.freight) + amount(c.tax_total) - amount(c.discount))
        )
        > Decimal("0.01")
    }


def i26(facts: Facts) -> set[str]:
    lists = facts.of("customs.CbecListing")
    yearly: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
    for c in lists:
        yearly[c.buyer_token, time(c.listed_at).year] += amount(c.goods_value)
    found: set[str] = set()
    for c in lists:
        at = time(c.listed_at)
        together = {
            o.buyer_token
            for o in lists
            if (o.consignee_addr_token, o.hs10) == (c.consignee_addr_token, c.hs10)
            and abs(time(o.listed_at) - at) <= 7 * _DAY
        }
        if yearly[c.buyer_token, at.year] > 26_000 or amount(c.goods_value) > 5_000 or len(together) >= 5:
            found.add(c.invt_no)
    return found


def i28(facts: Facts) -> set[str]:
    failed: defaultdict[str, list[Any]] = defaultdict(list)
    for lot in facts.lots.values():
        if facts.word("quality.InspectionLot", "conclusion", lot) == "FAIL":
            failed[lot.overseas_mfr_reg_no].append(lot)
    return {lot.lot_id for lots in failed.values() if len(lots) >= 2 for lot in lots}


def i29(facts: Facts) -> set[str]:
    found: set[str] = set()
    for c in facts.of("quality.Certificate"):
        lot, arrived = facts.lots[c.lot_id], day(facts.declarations[c.declaration_no].ie_date)
        misused = (
            c.cert_status == "40"
            or day(c.valid_until) < arrived
            or Decimal(lot.lot_qty.value) > Decimal("1.02") * Decimal(c.certified_qty.value)
        )
        found |= {c.cert_no} if misused else set()
    return found


def i30(facts: Facts) -> set[str]:
    events = facts.of("quality.TraceEvent")
    parents = {e.trace_code: e.parent_code for e in events if e.parent_code}
    lots = {e.trace_code: e.lot_id for e in events if e.lot_id}
    roots = {e.trace_code for e in events if facts.word("quality.TraceEvent", "step", e) == "IMPORT"}
    passed = {
        lot.lot_id for lot in facts.lots.values() if facts.word("quality.InspectionLot", "conclusion", lot) == "PASS"
    }
    found: set[str] = set()
    for e in events:
        if facts.word("quality.TraceEvent", "step", e) != "SELL":
            continue
        code = e.trace_code
        while code in parents:
            code = parents[code]
        good = code in roots and lots[code] in passed
        if not good or time(e.event_time).date() > day(e.expiry_date):
            found.add(e.trace_event_id)
    return found


def i31(facts: Facts) -> set[str]:
    permits: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for p in facts.of("publicsecurity.HazchemPermit"):
        if facts.word("publicsecurity.HazchemPermit", "permit_status", p) == "VALID":
            permits[p.uscc, p.un_no].append(p)
    found: set[str] = set()
    for d in facts.declarations.values():
        for line in d.lines:
            if line.dangerous_flag and not any(
                day(p.valid_from) <= day(d.ie_date) <= day(p.valid_to)
                and Decimal(line.net_wt_kg.value) <= Decimal(p.qty_max_kg.value)
                for p in permits[d.trader_uscc, line.un_no]
            ):
                found.add(d.declaration_no)
    return found


def i32(facts: Facts) -> set[str]:
    return {
        v.plate_token
        for v in facts.of("publicsecurity.Vehicle")
        if facts.word("publicsecurity.Vehicle", "vehicle_status", v) != "NORMAL"
        or day(v.inspection_valid_to) < facts.today
        or day(v.dg_transport_permit_to) < facts.today
    }
