"""Quality inspection in the sample zone: lots of imported food, certificates, traces, filings."""

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from services.cli.sample.cast import Role
from services.cli.sample.cells import Row, cents
from services.cli.sample.firms import Firm
from services.cli.sample.planted import lot_id
from services.cli.sample.setting import any_moment, any_uuid
from services.cli.sample.shipments import Line, Shipment
from services.cli.sample.zone import Zone

_ANALYTES = {
    # analyte, method, unit (NA is milligrams, J33 micrograms per kilogram, M1 milligrams per litre), limit
    "MEAT": ("RACTOPAMINE", "SAMPLE-GB-31658", "NA", "0.010"),
    "DAIRY": ("MELAMINE", "SAMPLE-GB-22388", "NA", "2.5"),
    "WINE": ("SULFITE", "SAMPLE-GB-5009.34", "M1", "250"),
    "FRUIT": ("CARBENDAZIM", "SAMPLE-GB-23200", "NA", "0.5"),
    "OIL": ("BENZO_A_PYRENE", "SAMPLE-GB-5009.27", "J33", "10"),
    "SEAFOOD": ("CHLORAMPHENICOL", "SAMPLE-GB-22338", "J33", "0.3"),
}
_PLANT, _HEALTH = "851", "852"
"""Kinds of certificate: phytosanitary, sanitary."""
_ISSUED, _WITHDRAWN = "70", "40"


@dataclass(frozen=True, slots=True)
class Lot:
    """A goods line of imported food."""

    shipment: Shipment
    line: Line

    @property
    def id(self) -> str:
        """Its number."""
        return lot_id(self.shipment, self.line.number)

    @property
    def verdict(self) -> str:
        """What was concluded."""
        return self.shipment.times.verdict

    @property
    def firm(self) -> Firm:
        """Whose it is."""
        return self.shipment.firm


def _lots(zone: Zone) -> Iterator[Lot]:
    for shipment in zone.shipments:
        if shipment.food and shipment.times.stands:
            for line in shipment.lines:
                yield Lot(shipment, line)


def lots(zone: Zone) -> Iterator[Row]:
    """Write the inspection lots with their laboratory results."""
    rng = zone.setting.rng("quality.InspectionLot")
    failed: list[str] = []
    for lot in _lots(zone):
        shipment, line, times = lot.shipment, lot.line, lot.shipment.times
        disposition = {"PASS": "RELEASE", "CONDITIONAL": "TREAT", "FAIL": rng.choice(("RETURN", "DESTROY"))}
        risk = "HIGH" if lot.firm.part == "failed-lots" else rng.choice(("LOW", "MEDIUM", "MEDIUM", "HIGH"))
        if lot.firm.part == "failed-lots" and lot.verdict == "FAIL":
            failed.append(lot.id)
        yield {
            "lot_id": lot.id,
            "declaration_no": shipment.number,
            "line_no": line.number,
            "hs10": line.good.hs10,
            "product_name": line.good.name,
            "origin_country": line.origin,
            "overseas_mfr_reg_no": line.manufacturer,
            "risk_grade": risk,
            "sampling_rate": Decimal({"LOW": "0.05", "MEDIUM": "0.10", "HIGH": "0.30"}[risk]),
            "lot_qty": line.qty,
            "lot_unit": line.good.unit,
            "sampled_at": times.sampled,
            "concluded_at": times.concluded,
            "conclusion": lot.verdict,
            "disposition": disposition.get(lot.verdict),
            "inspection_required": True,
            "lab_results": [_result(rng, lot)] if times.concluded and times.sampled else [],
        }
    firm = zone.firms.part("failed-lots")
    title = "two lots of one manufacturer failed within a year"
    zone.ledger.plant("failed-lots", "I28", title, [firm], {"quality.InspectionLot": failed})


def _result(rng: Random, lot: Lot) -> Row:
    analyte, method, unit, limit = _ANALYTES[lot.line.good.category]
    share = {"FAIL": rng.randint(130, 400), "CONDITIONAL": rng.randint(90, 100)}.get(lot.verdict, rng.randint(1, 60))
    concluded = lot.shipment.times.concluded
    return {
        "result_id": f"{lot.id}-R1",
        "analyte": analyte,
        "method": method,
        "value": (Decimal(limit) * share / 100).quantize(Decimal("0.0001")),
        "value_unit": unit,
        "limit": Decimal(limit),
        "verdict": "ABOVE" if lot.verdict == "FAIL" else "BELOW",
        "lab_id": f"SAMPLE-LAB-{lot.firm.index % 3 + 1}",
        "reported_at": concluded - dt.timedelta(hours=rng.randint(1, 3)) if concluded else None,
    }


def certificates(zone: Zone) -> Iterator[Row]:
    """Write the certificates that came with the food; three of one importer are misused."""
    rng = zone.setting.rng("quality.Certificate")
    odd: list[str] = []
    misuse = iter(("withdrawn", "expired", "overdrawn"))
    for lot in _lots(zone):
        crossed = lot.shipment.times.crossed
        issued = crossed - dt.timedelta(days=rng.randint(12, 40))
        number = f"SC-{lot.line.origin}-{lot.firm.index:05d}-{lot.shipment.serial:03d}{lot.line.number}"
        how = next(misuse, "") if lot.firm.part == "bad-certificates" else ""
        if how:
            odd.append(number)
        yield {
            "cert_no": number,
            "cert_type": _PLANT if lot.line.good.plant else _HEALTH,
            "cert_status": _WITHDRAWN if how == "withdrawn" else _ISSUED,
            "issued_on": issued,
            "issuer_country": lot.line.origin,
            "issuer_org": f"SAMPLE Competent Authority {lot.line.origin}",
            "lot_id": lot.id,
            "declaration_no": lot.shipment.number,
            "certified_qty": cents(lot.line.qty / 2) if how == "overdrawn" else lot.line.qty,
            "certified_unit": lot.line.good.unit,
            "valid_until": crossed - dt.timedelta(days=6) if how == "expired" else issued + dt.timedelta(days=180),
            "doc_sha256": hashlib.sha256(f"{zone.setting.seed}:{number}".encode()).hexdigest(),
        }
    firm = zone.firms.part("bad-certificates")
    title = "a withdrawn certificate, an expired one, and one for half the quantity"
    zone.ledger.plant("bad-certificates", "I29", title, [firm], {"quality.Certificate": odd})


class _Tracer:
    """Follows a lot from the border to the shop."""

    def __init__(self, rng: Random, lot: Lot, zone: Zone) -> None:
        self.rng, self.lot, self.zone = rng, lot, zone
        self.expiry = lot.shipment.times.crossed + dt.timedelta(days=rng.choice((180, 360, 720)))

    def step(self, code: str, parent: str, holder: Firm, step: str, day: dt.date, **rest: object) -> Row:
        return {
            "trace_event_id": any_uuid(self.rng),
            "trace_code": code,
            "parent_code": parent or None,
            "lot_id": self.lot.id,
            "batch_no": self.lot.line.batch,
            "expiry_date": self.expiry,
            "holder_uscc": holder.uscc,
            "step": step,
            "event_time": any_moment(self.rng, day),
        } | rest

    def steps(self) -> Iterator[Row]:
        """Write the steps of the lot that had been taken by the reference date."""
        day, stem = self.lot.shipment.times.crossed, f"ST{self.lot.id[5:].replace('-', '')}"
        cleared, firm = self.lot.shipment.times.at("CLEARED"), self.lot.firm
        yield self.step(stem, "", firm, "IMPORT", day)
        stored = self.rng.choice(self.zone.firms.of(Role.WAREHOUSE))
        retailer = self.rng.choice(self.zone.firms.of(Role.SERVICES))
        days = [1, *(self.rng.randint(5, 30) for _ in range(3))]
        if cleared is None:
            return
        day = cleared.date()
        chain = (
            (stem, "", stored, "STORE"),
            (f"{stem}A", stem, firm, "SHIP"),
            (f"{stem}A", stem, retailer, "RECEIVE"),
            (f"{stem}A1", f"{stem}A", retailer, "SELL"),
        )
        for wait, (code, parent, holder, step) in zip(days, chain, strict=True):
            day += dt.timedelta(days=wait if step != "RECEIVE" else 1)
            if step == "SELL" and self.lot.verdict != "PASS":
                return
            if day <= self.zone.setting.today:
                yield self.step(code, parent, holder, step, day)


def trace_events(zone: Zone) -> Iterator[Row]:
    """Write where the food went; one importer's traces do not hold."""
    odd: list[Row] = []
    for lot in _lots(zone):
        tracer = _Tracer(zone.setting.rng(f"quality.TraceEvent.{lot.id}"), lot, zone)
        yield from tracer.steps()
        if lot.firm.part == "trace-gap":
            odd.append(_gap(tracer, lot, zone, len(odd)))
            yield odd[-1]
        elif lot.firm.part == "failed-lots" and lot.shipment.serial == 3:
            # Passed, sold, and called back when the next lot of its maker failed.
            yield tracer.step(f"ST-RECALL-{lot.id[5:]}", "", lot.firm, "RECALL", zone.setting.before(36))
    keys = {"quality.TraceEvent": [str(row["trace_event_id"]) for row in odd]}
    title = "sold with no origin, and sold after its last day of use"
    zone.ledger.plant("trace-gap", "I30", title, [zone.firms.part("trace-gap")], keys)


def _gap(tracer: _Tracer, lot: Lot, zone: Zone, at: int) -> Row:
    retailer, day = zone.firms.part("retailer-1"), zone.setting.before(20)
    if at == 0:
        return tracer.step("ST-NOWHERE-1", "ST-NOWHERE", retailer, "SELL", day, lot_id=None)
    code = f"ST{lot.id[5:].replace('-', '')}"
    return tracer.step(f"{code}A9", f"{code}A", retailer, "SELL", day, expiry_date=day - dt.timedelta(days=11))


def food_filings(zone: Zone) -> Iterator[Row]:
    """Write who has filed: the importers, and the manufacturers they buy from."""
    rng = zone.setting.rng("quality.FoodFiling")
    importers = {lot.firm.index: lot for lot in _lots(zone)}
    for index, lot in sorted(importers.items()):
        yield {
            "filing_no": f"SFI-{index:05d}",
            "filing_type": "DOMESTIC_IMPORTER",
            "importer_uscc": lot.firm.uscc,
            "product_category": lot.line.good.category,
            "filed_at": any_moment(rng, max(lot.firm.established, zone.setting.before(rng.randint(400, 1500)))),
            "filing_status": "VALID",
        }
    makers = {lot.line.manufacturer: lot for lot in _lots(zone)}
    for number, lot in sorted(makers.items()):
        filed = zone.setting.before(rng.randint(400, 1500))
        yield {
            "filing_no": f"SFM-{number}",
            "filing_type": "OVERSEAS_MFR",
            "overseas_mfr_reg_no": number,
            "product_category": lot.line.good.category,
            "filed_at": any_moment(rng, filed),
            "valid_until": filed + dt.timedelta(days=5 * 365),
            "filing_status": "SUSPENDED" if lot.firm.part == "failed-lots" else "VALID",
        }
