"""Commerce in the sample zone: who is registered, who owns whom, what changed, who is listed."""

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from random import Random

from services.cli.sample import words
from services.cli.sample.cast import LISTED_FOR, Role
from services.cli.sample.cells import Money, Row, cents
from services.cli.sample.firms import Firm, uscc
from services.cli.sample.planted import VANISHED_BACK
from services.cli.sample.zone import Zone

_REGISTRAR = "SAMPLE-REG-{}"
_OLD = 430
"""Days before the reference date: earlier than any business in the zone."""
_CONTROL_CHANGED = 58
_ITEMS = ("NAME", "LEGAL_REP", "CAPITAL", "SCOPE", "ADDRESS", "HOLDER")
_TRADING = frozenset({Role.EXPORTER, Role.IMPORTER, Role.FOOD_IMPORTER, Role.DG_TRADER})


def enterprises(zone: Zone) -> Iterator[Row]:
    """Write the register."""
    rng = zone.setting.rng("commerce.Enterprise")
    for firm in zone.firms:
        limited = rng.random() < 0.4
        yield {
            "uscc": firm.uscc,
            "name": firm.name,
            "entity_type": "1130",
            "reg_status": firm.traits.reg_status,
            "legal_rep_name": firm.rep_name,
            "legal_rep_id_no": firm.rep_id,
            "reg_capital_amt": cents(firm.capital),
            "reg_capital_ccy": firm.currency,
            "paid_in_capital_amt": Money(cents(firm.paid_in), firm.currency),
            "establish_date": firm.established,
            "business_scope": firm.scope,
            "address": firm.address,
            "address_norm_key": firm.address_key,
            "industry_code": firm.industry,
            "region_code": firm.region,
            "registrar": _REGISTRAR.format(firm.region),
            "term_from": firm.established,
            "term_to": firm.established + dt.timedelta(days=30 * 365) if limited else None,
            "approved_date": _approved(zone, firm),
            # No number like it can be dialled; its last four digits are the firm's.
            "contact_phone": f"000-0000-{firm.index:04d}",
        }
    zone.ledger.plant(
        "cluster",
        "I22",
        "six firms at one address, founded within two months",
        [zone.firms.part(f"cluster-{n}") for n in range(1, 7)],
        {"commerce.Enterprise": [zone.firms.part(f"cluster-{n}").uscc for n in range(1, 7)]},
    )


def _approved(zone: Zone, firm: Firm) -> dt.date:
    if firm.part == "control-change":
        return zone.setting.before(_CONTROL_CHANGED)
    if firm.part == "vanished-supplier":
        return zone.setting.before(VANISHED_BACK)
    return firm.established


def changes(zone: Zone) -> Iterator[Row]:
    """Write what changed: old news for most, fresh news for those with a part."""
    rng = zone.setting.rng("commerce.RegistrationChange")
    for firm in zone.firms.sound:
        age = (zone.setting.today - firm.established).days
        if firm.part == "control-change":
            yield _change(firm, 1, "LEGAL_REP", words.person(rng), zone.setting.before(_CONTROL_CHANGED), firm.rep_name)
        elif firm.part == "vanished-supplier":
            yield _change(firm, 1, "STATUS", "ACTIVE", zone.setting.before(VANISHED_BACK), "REVOKED")
        elif firm.traits.reg_status != "ACTIVE":
            yield _change(
                firm, 1, "STATUS", "ACTIVE", zone.setting.before(rng.randint(80, 400)), firm.traits.reg_status
            )
        elif age > _OLD + 200 and (firm.part == "exporter" or rng.random() < 0.25):
            # Each item changes once, so that what it became is what the register says.
            found = rng.sample(_ITEMS, rng.randint(1, 3))
            back = sorted((rng.randint(_OLD, age - 30) for _ in found), reverse=True)
            for at, (item, days) in enumerate(zip(found, back, strict=True), 1):
                before, after = _values(rng, firm, item)
                yield _change(firm, at, item, before, zone.setting.before(days), after)


def _values(rng: Random, firm: Firm, item: str) -> tuple[str, str]:
    return {
        "NAME": (f"{words.CITY}示例旧名{firm.index:04d}有限公司", firm.name),
        "LEGAL_REP": (words.person(rng), firm.rep_name),
        "CAPITAL": (f"{firm.capital / 2:f} {firm.currency}", f"{firm.capital:f} {firm.currency}"),
        "SCOPE": ("日用百货销售。", firm.scope),
        "ADDRESS": (words.address(rng, firm.region, 5000 + firm.index), firm.address),
        "HOLDER": (words.person(rng), firm.rep_name),
    }[item]


def _change(firm: Firm, seq: int, item: str, before: str, day: dt.date, after: str) -> Row:
    return {
        "uscc": firm.uscc,
        "change_seq": seq,
        "item_code": item,
        "before_value": before,
        "after_value": after,
        "approved_date": day,
        "registrar": _REGISTRAR.format(firm.region),
    }


def shareholdings(zone: Zone) -> Iterator[Row]:
    """Write who holds each firm: people, other firms of the zone, the state, parties abroad."""
    rng = zone.setting.rng("commerce.Shareholding")
    companies = [f for f in zone.firms if f.in_order and not f.part and f.role is Role.SUPPLIER]
    for firm in zone.firms.sound:
        shares = rng.choice(((100,), (60, 40), (51, 49), (70, 20, 10)))
        for seq, share in enumerate(shares, 1):
            draw = rng.random()
            holder = rng.choice(companies)
            kind = "PERSON" if draw < 0.8 or holder is firm else "COMPANY" if draw < 0.92 else "FOREIGN"
            kind = "GOV" if firm.role is Role.WAREHOUSE and seq == 1 else kind
            yield {
                "uscc": firm.uscc,
                "holder_seq": seq,
                "holder_type": kind,
                "holder_name": {
                    "PERSON": firm.rep_name if seq == 1 else words.person(rng),
                    "COMPANY": holder.name,
                    "GOV": f"{words.CITY}市示例国有资本中心",
                    "FOREIGN": words.abroad(rng, "US", "Holding"),
                }[kind],
                "holder_id_no": f"SAMPLE-ID-H{firm.index:05d}{seq}" if kind == "PERSON" else None,
                "holder_uscc": holder.uscc if kind == "COMPANY" else None,
                "subscribed_amt": Money(cents(firm.capital * share / 100), firm.currency),
                "paid_amt": Money(cents(firm.paid_in * share / 100), firm.currency),
                "share_pct": cents(Decimal(share)),
                # From a quarter of the capital on, a person counts as a beneficial owner.
                "beneficial_owner": kind == "PERSON" and share > 25,
            }


def listings(zone: Zone) -> Iterator[Row]:
    """Write the lists of abnormal operation and of serious unlawfulness."""
    rng = zone.setting.rng("commerce.Listing")
    today = zone.setting.today
    for firm in zone.firms.sound:
        if firm.part == "barred-listed":
            yield _listing(firm, "SERIOUS_ILLEGAL", today - LISTED_FOR, "FALSE_REGISTRATION", None)
            yield _listing(firm, "ABNORMAL", zone.setting.before(900), "NO_ANNUAL_REPORT", zone.setting.before(860))
        elif firm.part or firm.traits.reg_status == "DEREGISTERED":
            continue
        elif firm.role in _TRADING and rng.random() < 0.08:
            # Entered and removed before anything was traded.
            entry = zone.setting.before(rng.randint(500, 700))
            if entry > firm.established:
                yield _listing(firm, "ABNORMAL", entry, "NO_ANNUAL_REPORT", entry + dt.timedelta(days=40))
        elif firm.role is Role.SERVICES and rng.random() < 0.3:
            yield _listing(firm, "ABNORMAL", zone.setting.before(rng.randint(40, 380)), "NOT_AT_ADDRESS", None)


def _listing(firm: Firm, kind: str, entry: dt.date, reason: str, exited: dt.date | None) -> Row:
    authority = _REGISTRAR.format(firm.region)
    return {
        "uscc": firm.uscc,
        "list_type": kind,
        "entry_date": entry,
        "entry_reason": reason,
        "entry_authority": authority,
        "exit_date": exited,
        "exit_reason": "REMEDIED" if exited else None,
        "exit_authority": authority if exited else None,
    }


def branches(zone: Zone) -> Iterator[Row]:
    """Write the branches of some firms; the exporter of the story has two."""
    rng = zone.setting.rng("commerce.Branch")
    for firm in zone.firms.sound:
        count = 2 if firm.part == "exporter" else int(not firm.part and firm.in_order and rng.random() < 0.12)
        for at in range(count):
            region = rng.choice(tuple(words.DISTRICTS))
            age = (zone.setting.today - firm.established).days
            yield {
                "uscc": firm.uscc,
                "branch_uscc": uscc(region, 9_000_000 + firm.index * 10 + at),
                "branch_name": f"{firm.name}示例{'东西'[at]}分公司",
                "branch_address": words.address(rng, region, 3000 + firm.index),
                "branch_status": "ACTIVE" if rng.random() < 0.9 else "DEREGISTERED",
                "opened_on": zone.setting.before(rng.randint(1, age)),
            }
