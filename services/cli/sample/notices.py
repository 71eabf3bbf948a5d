"""Public lists in the sample zone: tax notices, food notifications, a watch list. Nobody in them exists."""

import datetime as dt
from collections.abc import Iterator

from services.cli.sample import words
from services.cli.sample.cells import Row
from services.cli.sample.planted import WATCHED
from services.cli.sample.setting import any_moment
from services.cli.sample.zone import Zone
from services.kit import check_digits

WATCH_LIST = "SAMPLE-WATCH"

_SITUATIONS = ("PRESUMED", "REBUTTED", "DEFINITIVE", "FAVOURABLE_RULING")
_FOUND = (
    # product, category, hazard, kind of hazard
    ("olive oil", "fats and oils", "mineral oil hydrocarbons", "composition"),
    ("frozen shrimps", "crustaceans and products thereof", "Vibrio parahaemolyticus", "pathogenic micro-organisms"),
    ("milk powder", "milk and milk products", "Salmonella", "pathogenic micro-organisms"),
    ("frozen beef", "meat and meat products", "ractopamine", "residues of veterinary medicinal products"),
    ("dried apricots", "fruits and vegetables", "sulphite", "food additives and flavourings"),
    ("groundnut kernels", "nuts and seeds", "aflatoxin", "mycotoxins"),
)


def status_notices(zone: Zone) -> Iterator[Row]:
    """Write public notices on foreign taxpayers; one name is suppressed by a court."""
    rng = zone.setting.rng("taxation.StatusNotice")
    for number in range(1, 13):
        suppressed = number == 9
        day = zone.setting.before(rng.randint(200, 1500))
        situation = _SITUATIONS[(number - 1) % len(_SITUATIONS)]
        row: Row = {
            "notice_no": f"SAMPLE-{number}",
            "taxpayer_id": None if suppressed else _rfc(day, number),
            "taxpayer_name": None if suppressed else f"{words.abroad(rng, 'MX', 'Comercial')} SA de CV",
            "identity_suppressed": suppressed,
            "suppression_ground": "SAMPLE court order 12/2025" if suppressed else None,
            "situation": situation,
            "presumed_on": day,
            "presumption.sat_document": f"SAMPLE-500-05-{number:04d}",
            "presumption.sat_published_on": [day],
            "presumption.dof_published_on": [day + dt.timedelta(days=14)],
        }
        stage = {"REBUTTED": "rebuttal", "DEFINITIVE": "definitive_finding"}.get(situation, "favourable_ruling")
        if situation != "PRESUMED":
            row[f"{stage}.sat_document"] = f"SAMPLE-500-06-{number:04d}"
            row[f"{stage}.sat_published_on"] = [day + dt.timedelta(days=90)]
        yield row


def _rfc(day: dt.date, number: int) -> str:
    # Three letters that no taxpayer chooses, a date, two characters, the check digit.
    first = f"ÑÑÑ{day:%y%m%d}{number:02d}"
    return first + check_digits.rfc(first)


def notifications(zone: Zone) -> Iterator[Row]:
    """Write food safety notifications; a reference that ends in zero has lost it, as published ones have."""
    rng = zone.setting.rng("quality.Notification")
    for number in range(1, 31):
        product, category, hazard, kind = _FOUND[number % len(_FOUND)]
        reference = f"SAMPLE-{zone.setting.today.year}.{number:04d}"
        origin = rng.choice(("Brazil", "Chile", "Ecuador", "Namibia", "New Zealand", "Spain"))
        yield {
            "reference": reference.rstrip("0"),
            "search_term": hazard.partition(" ")[0].lower(),
            "reference_ambiguous": reference.endswith("0"),
            "notified_at": any_moment(rng, zone.setting.before(rng.randint(2, 360))),
            "notifying_country": rng.choice(("Germany", "Netherlands", "Italy", "France")),
            "classification": rng.choice(("ALERT", "BORDER_REJECTION", "INFORMATION_FOR_ATTENTION")),
            "risk_decision": rng.choice(("SERIOUS", "POTENTIALLY_SERIOUS", "NOT_SERIOUS")),
            "product_category": category,
            "product_type": "FOOD",
            "subject_text": f"SAMPLE: {hazard} in {product} from {origin}",
            "hazards": [hazard],
            "hazard_category": kind,
            "origin": [origin],
            "distribution": sorted(rng.sample(("Austria", "Belgium", "Czechia", "Denmark", "Poland"), 2)),
        }


def watchlist(zone: Zone) -> Iterator[Row]:
    """Write a watch list; a party that one exporter deals with stands on it."""
    rng = zone.setting.rng("publicsecurity.WatchlistEntry")
    yield _entry(1001, WATCHED.name, "ENTITY")
    for number in range(1002, 1022):
        name = words.abroad(rng, rng.choice(("AE", "DE", "US")), "Holding")
        yield _entry(number, f"{name} {number}", "ENTITY")
    for number in range(1022, 1027):
        vessel = _entry(number, f"SAMPLE MV {number}", "VESSEL")
        vessel |= {"vessel_call_sign": f"SMP{number}", "vessel_type": "General Cargo", "vessel_tonnage": 9000 + number}
        yield vessel | {"vessel_flag": "Sampleland", "vessel_owner": WATCHED.name}


def _entry(number: int, name: str, kind: str) -> Row:
    return {
        "list_code": WATCH_LIST,
        "entry_no": str(number),
        "name": name,
        "entry_type": kind,
        "programs": ["SAMPLE-PROGRAM"],
        "remarks": "Synthetic entry of a sample zone.",
    }
