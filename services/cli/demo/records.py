"""Steps about records: how they come in, and what becomes of rows that cannot."""

from pathlib import Path

from services.cli import filling, sample
from services.cli.demo.narrator import Narrator
from services.cli.demo.stage import REGISTER, Stage, status, values
from services.cli.department import Department
from services.cli.filling import Source
from services.cli.loading import Loaded, load
from services.cli.quarantine import decoded, drive
from services.cli.zone import Zone
from services.kit.records.quarantine import Quarantine, Standing

_EXPECTED = {
    "cn_enterprise_2019_fujian.csv": (6099, 1),
    "cn_enterprise_2018_jiangsu.csv": (2000, 0),
    "wco_dms_xml_hmrc_cds": (389, None),
    "mx_sat_69b_2021-05-18.csv": (4505, None),
    "eu_rasff_2023_2024.csv": (1807, None),
    "ofac_sdn.csv": (7379, None),
    "nz_stolen_vehicles_2013.csv": (3635, None),
}
"""Rows of the real sources, and how many of them belong in quarantine where that was counted by hand."""

LATE_FIRM = "91999901MA07HYX927"
"""Code of an enterprise that no source knew in time."""

_MAPPING = """\
mapping: commerce.late_registry
version: {version}
record: commerce.Enterprise
title: Three rows that came late
source_system: demo-late-registry
source: {{kind: delimited, columns: [code, name, founded]}}
duplicates: quarantine
fields:
  uscc: {{column: code, required: true}}
  name: {{column: name, required: true}}
  establish_date: {{column: founded, parse: {{date: "{form}"}}}}
"""


async def come_in(narrator: Narrator, zone: Zone, data: Path | None) -> None:
    """Load the synthetic zone, and real sources where there are any, through the adapters."""
    narrator.step("Records come in through mappings")
    sample.write(zone.sample, sample.Setting())
    sources = filling.sample_sources(zone.sample)
    if data is None:
        narrator.say("A synthetic zone is made, marked as such in every name, and loaded agency by agency.")
    else:
        narrator.say("Real sources are loaded. They share no key, so a synthetic zone is loaded beside them.")
        sources += filling.real_sources(data)
    loaded = await filling.load_all(zone, sources)
    lines = filling.totals(loaded)
    narrator.show(
        ("Agency", "Source", "Read", "Loaded", "Unchanged", "Quarantined", "Why"),
        (
            (
                line.agency,
                line.source,
                *(str(n) for n in (line.report.read, line.report.loaded, line.report.unchanged)),
                str(line.report.quarantined),
                ", ".join(f"{reason} {count}" for reason, count in line.report.reasons.items()),
            )
            for line in lines
        ),
    )
    _check_counts(narrator, loaded)
    if data is not None:
        _check_real(narrator, loaded)


def _check_counts(narrator: Narrator, loaded: list[Loaded]) -> None:
    reports = [each.report for each in loaded]
    narrator.check(
        all(r.read == r.loaded + r.unchanged + r.quarantined for r in reports),
        "no row is lost: read = loaded + unchanged + quarantined, for every source",
    )
    miscoded = sum(each.report.reasons.get("CHECK_DIGIT", 0) for each in loaded)
    narrator.check(miscoded == 2, "the firm whose code fails its check digit is in quarantine, not lost", miscoded)


def _check_real(narrator: Narrator, loaded: list[Loaded]) -> None:
    for each in loaded:
        if each.source in _EXPECTED:
            rows, bad = _EXPECTED[each.source]
            found = each.report.read, each.report.quarantined
            narrator.check(
                found[0] == rows and (bad is None or found[1] == bad),
                f"{each.source}: {rows:,} rows read" + ("" if bad is None else f", {bad} in quarantine"),
                found,
            )


async def quarantine(stage: Stage) -> None:
    """Load a row that the mapping cannot read, look at it, correct the mapping, and drive it again."""
    narrator, zone = stage.narrator, stage.zone
    narrator.step("A row that could not be loaded is kept, looked at, and driven again")
    folder = zone.folder / "late"
    folder.mkdir()
    uscc = LATE_FIRM
    source = folder / "late.csv"
    source.write_text(f"code,name,founded\n{uscc},示例迟到有限公司,01/02/2026\n", encoding="utf-8")
    wrong, right = folder / "wrong.yaml", folder / "right.yaml"
    wrong.write_text(_MAPPING.format(version=1, form="%Y-%m-%d"), encoding="utf-8")
    right.write_text(_MAPPING.format(version=2, form="%d/%m/%Y"), encoding="utf-8")
    department = Department.of("commerce", zone.folder)
    async with department.store() as store:
        first = await load(department, store, department.mapping(str(wrong)), str(source))
        narrator.say("A register writes its dates as day/month/year; the mapping expects year-month-day.")
        narrator.check(first.report.quarantined == 1, "the row goes to quarantine", first.report)
        (entry,) = await Quarantine(store).entries(mapping=first.mapping)
        encoding, text = decoded(entry.original)
        narrator.show(
            ("Reason", "Detail", "At", "Original"), [(entry.reason, entry.detail, f"line {entry.position}", text)]
        )
        narrator.check(
            uscc in text and encoding == "utf-8", "it keeps its reason, its place and its original bytes", text
        )
        again = await drive(department, store, department.mapping(str(right)), entry.source, [entry])
        narrator.say("The mapping is corrected, and the very same bytes are driven through it.")
        narrator.check(again.report.loaded == 1, "the row becomes a record", again.report)
        resolved = await Quarantine(store).get(entry.id)
        narrator.check(resolved.state is Standing.RESOLVED, "its entry stays, resolved", resolved.state)
    section = (await stage.ask(REGISTER, ["commerce.Enterprise:name,establish_date"], subject=f"cn.uscc:{uscc}"))[
        "commerce.Enterprise"
    ]
    narrator.check(
        values(section, "establish_date") == ["2026-02-01"],
        "the running node answers with it at once, the date the right way round",
        (status(section), values(section, "establish_date")),
    )


async def real_question(stage: Stage) -> None:
    """Ask across agencies about an enterprise of the real register."""
    if stage.data is None:
        return
    narrator = stage.narrator
    narrator.step("One question about an enterprise of the real register")
    source = next(s for s in filling.real_sources(stage.data) if s.mapping == "cn_registry_2019")
    uscc = _first_code(source)
    selects = ["commerce.Enterprise:uscc,name,reg_capital_amt,contact_phone", "taxation.TaxpayerStatus"]
    sections = await stage.ask(REGISTER, [*selects, "customs.Penalty", "quality.FoodFiling"], subject=f"cn.uscc:{uscc}")
    narrator.show(("Record type", "Came out as"), ((name, status(each)) for name, each in sections.items()))
    enterprise = sections["commerce.Enterprise"]
    narrator.check(values(enterprise, "uscc") == [uscc], "the register answers", status(enterprise))
    narrator.check(not values(enterprise, "contact_phone"), "the telephone number stays where it is")
    others = [status(each) for name, each in sections.items() if name != "commerce.Enterprise"]
    narrator.check(set(others) == {"NO_RECORD"}, "the others say that they know nothing of it", others)


def _first_code(source: Source) -> str:
    with source.path.open(encoding="utf-8-sig") as file:
        next(file)
        return next(file).split(",")[1]
