"""Public security in the sample zone: answers by token, seals, vehicles, permits, events. No person is in it."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal

from services.cli.sample.cast import Role
from services.cli.sample.cells import Row
from services.cli.sample.firms import Firm
from services.cli.sample.setting import REGION, any_moment, any_uuid
from services.cli.sample.zone import Zone

_QUESTIONS = ("DISQUALIFIED_AS_OFFICER", "DG_PERMIT_BARRED", "CASE_LINKED")


def person_token(zone: Zone, firm: Firm) -> str:
    """Make the token that an agency asks by about a firm's legal representative."""
    return zone.setting.token("person", firm.rep_id)


def identity_answers(zone: Zone) -> Iterator[Row]:
    """Write answers given on legal representatives at registration."""
    rng = zone.setting.rng("publicsecurity.IdentityAnswer")
    for firm in zone.firms:
        chance = rng.random()
        match = chance < 0.6 or firm.part != ""
        if chance > 0.66 and not firm.part:
            continue
        checked = any_moment(rng, min(firm.established + dt.timedelta(days=1), zone.setting.before(2)))
        yield {
            "request_id": any_uuid(rng),
            "subject_token": person_token(zone, firm),
            "name_id_match": match,
            "document_valid": match or chance < 0.63,
            "alive": True,
            "answer_code": "YES" if match else "NO" if chance < 0.63 else "UNDETERMINED",
            "checked_at": checked,
            "valid_for_days": 180,
        }


def restriction_answers(zone: Zone) -> Iterator[Row]:
    """Write answers on restrictions: no, or a person must look."""
    rng = zone.setting.rng("publicsecurity.RestrictionAnswer")
    for firm in zone.firms:
        asked = firm.role is Role.DG_TRADER or firm.part in {"exporter", "barred-listed"} or rng.random() < 0.1
        refer = firm.part == "barred-listed"
        if not asked:
            continue
        yield {
            "request_id": any_uuid(rng),
            "subject_token": person_token(zone, firm),
            "question_code": _QUESTIONS[1] if firm.role is Role.DG_TRADER else _QUESTIONS[0],
            "answer_code": "REFER_TO_HUMAN" if refer else "NO",
            "as_of": any_moment(rng, zone.setting.before(rng.randint(3, 200))),
            "wanted_raw": False,
            "criminal_record_raw": "SAMPLE: synthetic text, must never leave this node" if refer else None,
        }


def seals(zone: Zone) -> Iterator[Row]:
    """Write the official seals: every firm has one, many have more."""
    rng = zone.setting.rng("publicsecurity.SealRegistration")
    kinds = ("COMPANY", "FINANCE", "INVOICE", "CONTRACT", "LEGAL_REP")
    for firm in zone.firms.sound:
        count = 3 if firm.part == "exporter" else rng.choice((1, 1, 2, 3))
        for at, kind in enumerate(kinds[:count]):
            gone = firm.traits.reg_status == "DEREGISTERED"
            status = "DESTROYED" if gone else "LOST" if at and rng.random() < 0.04 else "VALID"
            yield {
                "seal_no": f"{REGION}{firm.region[4:]}{firm.index:05d}{at:02d}",
                "uscc": firm.uscc,
                "seal_type": kind,
                "registered_on": min(firm.established + dt.timedelta(days=7 + at), zone.setting.before(1)),
                "seal_status": status,
                "e_seal_cert_id": f"SAMPLE-ESEAL-{firm.index:05d}" if at == 0 and rng.random() < 0.5 else None,
            }


def vehicles(zone: Zone) -> Iterator[Row]:
    """Write the vehicles of carriers and of the exporter; those of one carrier are not fit to enter."""
    rng, count, unfit = zone.setting.rng("publicsecurity.Vehicle"), 0, list[str]()
    bad = zone.firms.part("unfit-vehicles")
    for firm in zone.firms:
        carries = firm.role is Role.CARRIER
        for at in range(3 if carries else 1 if firm.part in {"exporter", "dg-permitted"} else 0):
            count += 1
            plate = f"SAMPLE-{count:05d}"
            token = zone.setting.token("plate", plate)
            row: Row = {
                "plate_no": plate,
                "plate_token": token,
                "vehicle_type": "Truck",
                "owner_uscc": firm.uscc,
                "inspection_valid_to": zone.setting.today + dt.timedelta(days=rng.randint(20, 360)),
                "vehicle_status": "NORMAL",
                "dg_transport_permit_to": zone.setting.today + dt.timedelta(days=rng.randint(60, 700)),
                "colour": rng.choice(("White", "Blue", "Red")),
                "make": "SAMPLE Motors",
                "model": f"Hauler {rng.randint(3, 9)}",
                "model_year": zone.setting.today.year - rng.randint(1, 9),
            }
            if firm is bad:
                unfit.append(token)
                row |= _unfit(zone, at)
            yield row
    title = "technical inspection overdue, reported stolen, permit for dangerous goods expired"
    zone.ledger.plant("unfit-vehicles", "I32", title, [bad], {"publicsecurity.Vehicle": unfit})


def _unfit(zone: Zone, at: int) -> Row:
    if at == 0:
        return {"vehicle_status": "OVERDUE", "inspection_valid_to": zone.setting.before(40)}
    if at == 1:
        return {"vehicle_status": "STOLEN_REPORTED", "region": "SAMPLE-EAST", "reported_on": zone.setting.before(12)}
    return {"dg_transport_permit_to": zone.setting.before(9)}


def permits(zone: Zone) -> Iterator[Row]:
    """Write the permits for hazardous chemicals: enough for what is declared, but for two traders."""
    rng = zone.setting.rng("publicsecurity.HazchemPermit")
    needed = sorted({(s.firm.index, line.good.un_no) for s in zone.shipments for line in s.lines if line.good.un_no})
    for index, un_no in needed:
        firm = zone.firms.all[index]
        valid_from = max(firm.established, zone.setting.before(rng.randint(500, 900)))
        valid_to, limit, status = zone.setting.today + dt.timedelta(days=rng.randint(60, 500)), 60_000, "VALID"
        if firm.part == "dg-no-permit":
            valid_to = zone.setting.before(60)
        elif firm.part == "dg-too-much":
            limit = 5_000
        number = f"SHP-{index:05d}-{un_no}"
        yield {
            "permit_no": number,
            "uscc": firm.uscc,
            "permit_type": "OPERATE",
            "un_no": un_no,
            "qty_max_kg": Decimal(limit),
            "valid_from": valid_from,
            "valid_to": valid_to,
            "permit_status": status,
        }
        if firm.part in _DANGEROUS:
            keys = {"publicsecurity.HazchemPermit": [number]}
            keys["customs.Declaration"] = [s.number for s in zone.of(firm.part)]
            zone.ledger.plant(firm.part, "I31", _DANGEROUS[firm.part], [firm], keys)


_DANGEROUS = {
    "dg-no-permit": "dangerous goods declared after the permit ran out",
    "dg-too-much": "more dangerous goods than the permit allows",
}


def security_events(zone: Zone) -> Iterator[Row]:
    """Write what was observed at the sites of the zone."""
    rng = zone.setting.rng("publicsecurity.SecurityEvent")
    for number in range(1, 41):
        yield {
            "sec_event_id": any_uuid(rng),
            "site_id": f"SAMPLE-SITE-{rng.randint(1, 4)}",
            "sec_type": rng.choice(("CROWD", "LOITER", "INTRUSION", "VEHICLE_HIT", "FIRE")),
            "risk_band": rng.choice(("LOW", "LOW", "MEDIUM", "HIGH")),
            "observed_at": any_moment(rng, zone.setting.before(rng.randint(1, 300))),
            "sec_state": rng.choice(("OPEN", "TRACKING", "REJECTED", "CLOSED", "CLOSED")),
            "evidence_ref": f"sample://evidence/{number:05d}",
        }
