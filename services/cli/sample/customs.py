"""Customs in the sample zone: operators, declarations and what happened to them, manifests, penalties."""

import datetime as dt
from collections.abc import Iterator, Mapping
from decimal import Decimal

from services.cli.sample.cast import Role
from services.cli.sample.cells import Money, Row, cents
from services.cli.sample.firms import Firm
from services.cli.sample.setting import REGION, any_uuid, moment
from services.cli.sample.shipments import Line, Shipment
from services.cli.sample.zone import Zone

OFFICE = REGION
"""The customs office of the zone; no such office exists. Declaration numbers begin with it."""
_PORT = "9998"
_DUTY = Decimal("0.05")
_MINUTE = dt.timedelta(minutes=1)
_OPERATOR_TYPES: Mapping[Role, list[str]] = {
    Role.BROKER: ["BROKER"],
    Role.CARRIER: ["CARRIER"],
    Role.WAREHOUSE: ["WAREHOUSE"],
    Role.PLATFORM: ["CBEC_PLATFORM"],
    Role.MERCHANT: ["CBEC_MERCHANT", "IMPORTER_EXPORTER"],
}


def operators(zone: Zone) -> Iterator[Row]:
    """Write who is on record with customs, and at which credit level."""
    rng = zone.setting.rng("customs.Operator")
    for firm in zone.firms:
        chance, recorded, partners = rng.random(), rng.randint(20, 200), rng.sample(("SG", "KR", "NZ", "AU", "BR"), 3)
        if not firm.customs_code:
            continue
        level = firm.traits.credit_level or (
            "ADVANCED_CERTIFIED" if chance < 0.03 else "CERTIFIED" if chance < 0.1 else "REGULAR"
        )
        certified = level.endswith("CERTIFIED")
        start = min(firm.established + dt.timedelta(days=recorded), zone.setting.before(30))
        yield {
            "customs_code": firm.customs_code,
            "uscc": firm.uscc,
            "operator_types": _OPERATOR_TYPES.get(firm.role, ["IMPORTER_EXPORTER"]),
            "recorded_on": start,
            "record_status": firm.traits.record_status,
            "credit_level": level,
            "credit_from": max(start, zone.setting.before(300 + recorded)),
            "aeo_code": f"AEOCN{firm.customs_code}" if certified else None,
            "mra_partners": sorted(partners) if level == "ADVANCED_CERTIFIED" else [],
            "next_review": zone.setting.today + dt.timedelta(days=30 + recorded) if certified else None,
        }


def declarations(zone: Zone) -> Iterator[Row]:
    """Write the declarations with their goods lines and containers."""
    rng = zone.setting.rng("customs.Declaration")
    for shipment in zone.shipments:
        yield _declaration(shipment, rng.random() < 0.04, rng.random() < 0.03)


def _declaration(shipment: Shipment, related: bool, royalty: bool) -> Row:
    firm, times = shipment.firm, shipment.times
    return {
        "declaration_no": shipment.number,
        "ie_flag": shipment.order.direction,
        "trader_uscc": firm.uscc,
        "owner_uscc": firm.uscc,
        "agent_uscc": shipment.agent.uscc,
        "customs_office": OFFICE,
        "port_code": _PORT,
        "declared_at": times.declared,
        "ie_date": times.crossed,
        "trade_mode": "0110",
        "transport_mode": shipment.mode,
        "transport_id": shipment.transport,
        "bill_no": shipment.bill,
        "contract_no": f"SC-{firm.index:05d}-{shipment.serial:03d}",
        "overseas_party_name": shipment.party.name,
        "trade_country": shipment.party.country,
        "dispatch_dest_country": shipment.party.country,
        # 3 is FOB, 1 is CIF.
        "transaction_term": "3" if shipment.export else "1",
        "total_value_cny": Money(shipment.value),
        "gross_wt_kg": shipment.gross,
        "net_wt_kg": shipment.net,
        "packages": shipment.packages,
        "licence_nos": [f"SL-{line.good.un_no}-{firm.index:05d}" for line in shipment.lines if line.good.un_no],
        "special_relation": related,
        "royalty": royalty,
        "decl_status": times.status,
        "invoice_amount": shipment.invoice,
        "goods_location": f"SAMPLE-SITE-{firm.index % 4 + 1}",
        "lines": [_line(shipment, line) for line in shipment.lines],
        "containers": [
            {
                "container_no": box.number,
                "iso_size_type": box.size_type,
                "line_nos": [line.number for line in shipment.lines],
                "lcl_flag": False,
                "tare_kg": Decimal(box.tare),
                "seal_no": box.seal,
            }
            for box in shipment.boxes
        ],
    }


def _line(shipment: Shipment, line: Line) -> Row:
    good = line.good
    return {
        "line_no": line.number,
        "hs10": good.hs10,
        "ciq3": good.ciq3,
        "goods_name": good.name,
        "spec_model": good.spec,
        "qty": line.qty,
        "unit": good.unit,
        "qty1": line.qty,
        "unit1": good.unit,
        "unit_price": line.price,
        "total_price": line.total,
        "ccy": "USD",
        "origin_country": line.origin,
        "duty_mode": "1",
        "duty_amt": None if shipment.export else Money(cents(line.cny * _DUTY)),
        "dangerous_flag": bool(good.un_no),
        "un_no": good.un_no or None,
        "batch_no": line.batch,
        "overseas_mfr_reg_no": line.manufacturer or None,
        "destination_country": shipment.party.country if shipment.export else "CN",
        "gross_wt_kg": line.gross,
        "net_wt_kg": line.net,
    }


def events(zone: Zone) -> Iterator[Row]:
    """Write what happened to every declaration, in the order it happened."""
    rng = zone.setting.rng("customs.ClearanceEvent")
    for shipment in zone.shipments:
        for code, time in shipment.times.events:
            yield {
                "event_id": any_uuid(rng),
                "declaration_no": shipment.number,
                "event_code": code,
                "event_time": time,
                "office": OFFICE,
                "officer_pseud": f"SAMPLE-OFFICER-{rng.randint(1, 24):02d}",
                "note_code": {"SELECTED": "C", "RELEASED": "P", "CLEARED": "R", "REJECTED": "E"}.get(code),
            }


def inspections(zone: Zone) -> Iterator[Row]:
    """Write the physical inspections."""
    rng = zone.setting.rng("customs.Inspection")
    for shipment in zone.shipments:
        selected, inspected = shipment.times.at("SELECTED"), shipment.times.at("INSPECTED")
        officer, chance = f"SAMPLE-OFFICER-{rng.randint(1, 24):02d}", rng.random()
        if selected is None:
            continue
        findings = ["QUARANTINE"] if shipment.times.verdict == "FAIL" else [rng.choice(("QTY", "VALUE", "ORIGIN"))]
        wrong = inspected is not None and (shipment.times.verdict == "FAIL" or chance < 0.08)
        action = "DETAIN" if shipment.times.verdict == "FAIL" else "AMEND" if wrong else "RELEASE"
        yield {
            "insp_id": f"SI-{shipment.number}",
            "declaration_no": shipment.number,
            "selected_at": selected,
            "selection_source": rng.choice(("RISK_RULE", "RANDOM", "MANUAL", "INTEL")),
            "inspected_at": inspected,
            "insp_result": None if inspected is None else "DISCREPANCY" if wrong else "CONFORM",
            "finding_codes": findings if wrong else [],
            "action": action if inspected else None,
            "officer_pseud": officer,
        }


def manifests(zone: Zone) -> Iterator[Row]:
    """Write what the carriers reported, goods that nobody declared yet included."""
    rng = zone.setting.rng("customs.Manifest")
    carriers = zone.firms.of(Role.CARRIER)
    for shipment in zone.shipments:
        carrier, weighed = rng.choice(carriers), Decimal(rng.randint(99, 101)) / 100
        times = shipment.times
        yield {
            "manifest_no": shipment.manifest,
            "bill_no": shipment.bill,
            "carrier_code": carrier.customs_code,
            "transport_id": shipment.transport,
            "arrival_at": times.arrived,
            "discharge_done_at": times.discharged,
            "loaded_at": times.loaded,
            "packages": shipment.packages,
            "gross_wt_kg": cents(shipment.gross * weighed * shipment.order.manifest_weight),
            "goods_desc": "、".join(line.good.name for line in shipment.lines),
            "dg_flag": any(line.good.un_no for line in shipment.lines),
            "consignee_name": shipment.party.name if shipment.export else shipment.firm.name,
        }
    for at, firm in enumerate(rng.sample(zone.firms.of(Role.IMPORTER), 3)):
        yield _undeclared(firm, moment(zone.setting.before(at + 1), 11), at)
    waiting = zone.firms.part("never-declared")
    odd = [_undeclared(waiting, moment(zone.setting.before(back), 10), back) for back in (97, 74)]
    yield from odd
    keys = [f"{row['manifest_no']}~{row['bill_no']}" for row in odd]
    title = "arrived more than sixty days ago, and never declared"
    zone.ledger.plant("never-declared", "I05", title, [waiting], {"customs.Manifest": keys})


def _undeclared(firm: Firm, arrived: dt.datetime, serial: int) -> Row:
    return {
        "manifest_no": f"SM{arrived:%y%m%d}{firm.index:05d}9{serial:02d}",
        "bill_no": f"SB{arrived:%y%m}{firm.index:05d}9{serial:02d}",
        "carrier_code": None,
        "transport_id": f"SAMPLE-3{arrived:%y%m%d}00",
        "arrival_at": arrived,
        "discharge_done_at": arrived + 240 * _MINUTE,
        "packages": 120,
        "gross_wt_kg": Decimal("21400.00"),
        "goods_desc": "聚乙烯",
        "dg_flag": False,
        "consignee_name": firm.name,
    }


def penalties(zone: Zone) -> Iterator[Row]:
    """Write the penalties of the last years."""
    rng = zone.setting.rng("customs.Penalty")
    for firm in zone.firms:
        chance, back = rng.random(), rng.randint(30, 1400)
        if firm.part == "barred-listed":
            found = [("FALSE_DECLARATION", "SERIOUS", 480_000, 66), ("WRONG_VALUE", "GENERAL", 36_000, 420)]
        elif firm.part or not firm.customs_code or chance > 0.06:
            continue
        else:
            found = [(rng.choice(("WRONG_CODE", "WRONG_QUANTITY", "LATE_REPORT")), "MINOR", 3000, back)]
        for at, (violation, severity, amount, days) in enumerate(found, 1):
            day = max(zone.setting.before(days), firm.established)
            yield {
                "penalty_no": f"示例关罚字[{day.year}]{firm.index:05d}-{at}号",
                "uscc": firm.uscc,
                "violation_type": violation,
                "severity": severity,
                "amount": Money(cents(amount)),
                "decided_on": day,
                "publish_until": day + dt.timedelta(days=5 * 365),
            }
