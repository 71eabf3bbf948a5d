"""A sample zone as files: everything is made first, then written, the manifest last."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from adapters import writing as own_files
from services.cli.sample import (
    cbec,
    commerce,
    customs,
    legacy,
    notices,
    publicsecurity,
    quality,
    taxation,
    zone,
)
from services.cli.sample.cells import Row, text
from services.cli.sample.setting import SOURCE_SYSTEM, Setting
from services.cli.sample.story import MANIFEST, document, manifest
from services.cli.sample.taxation import Taxes
from services.cli.sample.zone import Zone
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import catalogue

README = "README.txt"
_NOTICE = (
    "SYNTHETIC DATA. Every firm, person, number and event in this folder is invented by a program. "
    "Nothing here is about anybody or anything real."
)


def _sections(made: Zone) -> Mapping[str, Callable[[], Iterable[Row]]]:
    taxes = Taxes(made)
    return {
        "commerce.Enterprise": partial(commerce.enterprises, made),
        "commerce.RegistrationChange": partial(commerce.changes, made),
        "commerce.Shareholding": partial(commerce.shareholdings, made),
        "commerce.Listing": partial(commerce.listings, made),
        "commerce.Branch": partial(commerce.branches, made),
        "taxation.TaxpayerStatus": partial(taxation.statuses, taxes),
        "taxation.VatFiling": partial(taxation.filings, taxes),
        "taxation.InvoiceSummary": partial(taxation.summaries, taxes),
        "taxation.InvoiceLine": partial(taxation.invoice_lines, taxes),
        "taxation.ExportRebateClaim": partial(taxation.claims, taxes),
        "taxation.StatusNotice": partial(notices.status_notices, made),
        "customs.Operator": partial(customs.operators, made),
        "customs.Declaration": partial(customs.declarations, made),
        "customs.ClearanceEvent": partial(customs.events, made),
        "customs.Inspection": partial(customs.inspections, made),
        "customs.Manifest": partial(customs.manifests, made),
        "customs.CbecListing": partial(cbec.listings, made),
        "customs.Penalty": partial(customs.penalties, made),
        "quality.InspectionLot": partial(quality.lots, made),
        "quality.Certificate": partial(quality.certificates, made),
        "quality.TraceEvent": partial(quality.trace_events, made),
        "quality.FoodFiling": partial(quality.food_filings, made),
        "quality.Notification": partial(notices.notifications, made),
        "publicsecurity.IdentityAnswer": partial(publicsecurity.identity_answers, made),
        "publicsecurity.RestrictionAnswer": partial(publicsecurity.restriction_answers, made),
        "publicsecurity.SealRegistration": partial(publicsecurity.seals, made),
        "publicsecurity.Vehicle": partial(publicsecurity.vehicles, made),
        "publicsecurity.HazchemPermit": partial(publicsecurity.permits, made),
        "publicsecurity.SecurityEvent": partial(publicsecurity.security_events, made),
        "publicsecurity.WatchlistEntry": partial(notices.watchlist, made),
    }


def path_of(record_type: str) -> str:
    """Tell where in the folder the records of a type are: `customs/clearance_event.csv`."""
    agency, _, name = record_type.partition(".")
    return f"{agency}/{re.sub(r'(?<!^)(?=[A-Z])', '_', name).lower()}.csv"


def render(setting: Setting) -> dict[str, bytes]:
    """Make a zone's files, by path; the same setting gives the same bytes."""
    made = zone.build(setting)
    files, counts = dict[str, bytes](), dict[str, int]()
    for name, section in _sections(made).items():
        files[path_of(name)], counts[name] = _table(name, section())
    files |= legacy.files(made)
    _plant_miscoded(made)
    files[README] = _readme(made, counts).encode()
    files[MANIFEST] = _manifest(made, counts, sorted(files)).encode()
    return files


def _table(name: str, rows: Iterable[Row]) -> tuple[bytes, int]:
    stream, count = io.StringIO(newline=""), 0
    columns = own_files.columns(catalogue.load().get(name))
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is the count
        writer.writerow({path: text(value) for path, value in row.items()})
    return stream.getvalue().encode(), count


def _plant_miscoded(made: Zone) -> None:
    firm = made.firms.part("miscoded")
    keys = {name: [firm.uscc] for name in ("commerce.Enterprise", "taxation.TaxpayerStatus")}
    title = "a social credit code whose check digit is wrong: its rows belong in quarantine"
    made.ledger.plant("miscoded", "DATA", title, [firm], keys)


def _manifest(made: Zone, counts: Mapping[str, int], paths: Iterable[str]) -> str:
    setting = made.setting
    content: dict[str, object] = {
        "synthetic": True,
        "notice": _NOTICE,
        "source_system": SOURCE_SYSTEM,
        "seed": setting.seed,
        "enterprises": setting.enterprises,
        "reference_date": setting.today.isoformat(),
        "tables": {name: {"path": path_of(name), "rows": rows} for name, rows in counts.items()},
        "legacy": {
            "register": {"path": legacy.REGISTER, "rows": setting.enterprises, "quarantine": 2},
            "declarations": [path for path in paths if path.startswith("legacy/customs/")],
        },
        "quarantine": {"commerce.Enterprise": 1, "taxation.TaxpayerStatus": 1},
        "files": [*paths, MANIFEST],
        "story": document(made),
        "oddities": [oddity.document() for oddity in made.ledger],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _readme(made: Zone, counts: Mapping[str, int]) -> str:
    setting = made.setting
    lines = [
        "SAMPLE ZONE / 示例数据",
        "",
        _NOTICE,
        "本目录中的企业、人员、编号和事件均由程序虚构，仅供演示和测试。",
        "",
        f"seed {setting.seed}, {setting.enterprises} enterprises, seen on {setting.today}; system {SOURCE_SYSTEM}.",
        "The same seed, number and day give the same bytes.",
        "",
        "A file for each record type, a column for each field: values in canonical text, what repeats as JSON.",
        f"The folder legacy/ holds some of it once more in older shapes. {MANIFEST} says all this for machines.",
        "",
        "Records",
        *(f"  {path_of(name):46}{rows:>6}  {name}" for name, rows in counts.items()),
        "",
        "Planted: all that is odd here is meant to be found. I.. is the indicator it answers to, DATA is bad data.",
    ]
    for oddity in made.ledger:
        lines.append(f"  {oddity.indicator:5}{oddity.name}: {oddity.title}")
        lines += [f"         {record}  {key}" for record, keys in oddity.records.items() for key in keys]
    return "\n".join(lines) + "\n"


def write(out: Path, setting: Setting) -> dict[str, object]:
    """Write a sample zone into a folder, and give its manifest.

    The folder is made, or is empty, or holds an earlier sample, which is replaced. Raises `FailedPrecondition`
    FOLDER_NOT_EMPTY for any other, before anything is written, and `OSError` where the folder cannot be written.
    """
    old = _old_files(out)
    files = render(setting)
    for path in old - set(files):
        (out / path).unlink(missing_ok=True)
    # Without a manifest a half-written zone is not taken for one.
    (out / MANIFEST).unlink(missing_ok=True)
    for path, content in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return manifest(out)


def _old_files(out: Path) -> set[str]:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return set()
    try:
        listed: list[str] = manifest(out)["files"]
    except FailedPrecondition:
        message = f"{out} is not empty and holds no sample zone: give a new or an empty folder"
        raise FailedPrecondition(Reason.FOLDER_NOT_EMPTY, message) from None
    # Only what lies inside: a manifest can be edited.
    root = out.resolve()
    return {path for path in listed if (out / path).resolve().is_relative_to(root)}
