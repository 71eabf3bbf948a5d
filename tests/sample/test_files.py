"""The files of a sample zone: the same bytes every time, marked as synthetic, readable by our own adapters."""

import csv
import datetime as dt
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adapters import mapping, writing
from adapters.reading import read
from adapters.rows import Cause, Mapped, Unmapped
from services.cli import sample
from services.cli.main import app
from services.cli.rooms import RECOGNITION
from services.cli.sample import Setting, render
from services.cli.sample.cast import CAST, MIN_ENTERPRISES
from services.cli.sample.cells import text
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import catalogue
from tests.conftest import REPOSITORY
from tests.sample.conftest import Sample

_DIGEST = (
    "import hashlib\n"
    "from services.cli.sample import Setting, render\n"
    "made = hashlib.sha256()\n"
    "for path, content in sorted(render(Setting()).items()):\n"
    "    made.update(path.encode() + content)\n"
    "print(made.hexdigest())\n"
)


def _digest(files: dict[str, bytes]) -> str:
    made = hashlib.sha256()
    for path, content in sorted(files.items()):
        made.update(path.encode() + content)
    return made.hexdigest()


@pytest.mark.parametrize(("hash_seed", "zone"), [("0", "UTC"), ("4711", "America/Lima")])
def test_same_bytes_in_any_process(hash_seed: str, zone: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "TZ": zone}
    done = subprocess.run(
        [sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True, env=environment, cwd=REPOSITORY
    )
    assert done.stdout.strip() == _digest(render(Setting()))


def test_another_seed_is_another_zone_of_the_same_shape() -> None:
    one, other = render(Setting()), render(Setting(seed=8))
    assert one["commerce/enterprise.csv"] != other["commerce/enterprise.csv"]
    assert {p for p in one if not p.startswith("legacy/customs")} == {
        p for p in other if not p.startswith("legacy/customs")
    }


def test_more_firms_leave_the_first_ones_alone() -> None:
    few, more = render(Setting(enterprises=MIN_ENTERPRISES)), render(Setting(enterprises=MIN_ENTERPRISES + 40))
    first = few["customs/operator.csv"].decode().splitlines()[1 : len(CAST) // 2]
    assert [line[:28] for line in first] == [
        line[:28] for line in more["customs/operator.csv"].decode().splitlines()[1 : len(CAST) // 2]
    ]


@pytest.mark.parametrize(
    "setting",
    [
        Setting(enterprises=MIN_ENTERPRISES),
        Setting(seed=0, today=dt.date(2025, 1, 1)),
        Setting(seed=99, today=dt.date(2028, 2, 29)),
        Setting(seed=3, enterprises=900, today=dt.date(2026, 3, 31)),
    ],
    ids=lambda s: f"{s.seed}-{s.enterprises}-{s.today}",
)
def test_every_oddity_is_planted_in_every_zone(setting: Setting) -> None:
    found = json.loads(render(setting)["manifest.json"])
    expected = json.loads(render(Setting())["manifest.json"])
    assert {o["name"] for o in found["oddities"]} == {o["name"] for o in expected["oddities"]}
    assert all(keys for oddity in found["oddities"] for keys in oddity["records"].values())


def test_values_that_records_do_not_hold_are_refused() -> None:
    with pytest.raises(TypeError, match="float"):
        text(1.5)


def test_files_are_of_a_handy_size(zone: Sample) -> None:
    sizes = {path: (zone.folder / path).stat().st_size for path in zone.manifest["files"]}
    assert sum(sizes.values()) < 5_000_000
    assert max(sizes.values()) < 1_000_000


def test_there_is_a_file_for_every_record_type(zone: Sample) -> None:
    # Cases come about by being worked on: the recognition service loads no files.
    loaded = {kind.name for kind in catalogue.load() if kind.owner != RECOGNITION}
    assert set(zone.manifest["tables"]) == loaded
    assert {str(p.relative_to(zone.folder)) for p in zone.folder.rglob("*") if p.is_file()} == set(
        zone.manifest["files"]
    )


def test_every_row_is_read_but_those_planted_for_quarantine(zone: Sample) -> None:
    for name, outcomes in zone.outcomes.items():
        refused = [o for o in outcomes if isinstance(o, Unmapped)]
        assert len(outcomes) == zone.manifest["tables"][name]["rows"], name
        assert len(refused) == zone.manifest["quarantine"].get(name, 0), [(o.reason, o.detail) for o in refused[:3]]
        assert {o.reason for o in refused} <= {Cause.CHECK_DIGIT}


def test_records_are_written_back_as_they_were_read(zone: Sample) -> None:
    for name, outcomes in zone.outcomes.items():
        record = catalogue.load().get(name)
        header, *lines = (zone.folder / zone.manifest["tables"][name]["path"]).read_text("utf-8").splitlines()
        assert header.split(",") == list(writing.columns(record))
        stream = io.StringIO(newline="")
        writing.write(stream, record, [o.message for o in outcomes if isinstance(o, Mapped)])
        good = [line for line, o in zip(lines, outcomes, strict=True) if isinstance(o, Mapped)]
        assert stream.getvalue().splitlines()[1:] == good, name


def test_keys_are_unique(zone: Sample) -> None:
    for name, records in zone.records.items():
        count = Counter(map(catalogue.load().get(name).key_of, records))
        assert not [key for key, times in count.items() if times > 1], name


def test_every_planted_key_is_a_record(zone: Sample) -> None:
    quarantined = zone.planted("DATA", "commerce.Enterprise") | zone.planted("DATA", "taxation.TaxpayerStatus")
    for oddity in zone.manifest["oddities"]:
        for name, keys in oddity["records"].items():
            known = set(map(catalogue.load().get(name).key_of, zone.of(name)))
            assert set(keys) - known <= quarantined, (oddity["name"], name)


def test_everything_says_that_it_is_synthetic(zone: Sample) -> None:
    assert zone.manifest["synthetic"] is True
    readme = (zone.folder / "README.txt").read_text("utf-8")
    assert "SYNTHETIC" in readme
    assert "seed 7" in readme
    for oddity in zone.manifest["oddities"]:
        assert oddity["title"] in readme
    assert all("示例" in e.name and e.uscc[2:6] == "9999" for e in zone.of("commerce.Enterprise"))
    assert all(e.legal_rep_name.endswith("某") for e in zone.of("commerce.Enterprise"))
    assert all("SAMPLE" in d.overseas_party_name for d in zone.of("customs.Declaration"))


def test_no_person_has_a_number_that_could_be_real(zone: Sample) -> None:
    for name, field in (
        ("commerce.Enterprise", "legal_rep_id_no"),
        ("commerce.Shareholding", "holder_id_no"),
        ("customs.CbecListing", "buyer_id_no"),
        ("publicsecurity.Vehicle", "plate_no"),
    ):
        values = {getattr(r, field) for r in zone.of(name)} - {""}
        assert values
        assert all(v.startswith("SAMPLE-") for v in values), name
    for path in zone.manifest["files"]:
        content = (zone.folder / path).read_bytes().decode("gb18030" if path.endswith("register.csv") else "utf-8")
        # 17 digits and a digit or X, in a birth date's shape, is what a resident id looks like.
        assert not re.search(r"(?<![0-9A-F])[1-9]\d{5}(19|20)\d{2}[01]\d[0-3]\d{4}[\dXx](?!\d)", content), path


def test_the_legacy_register_loads_through_the_mapping_of_the_real_one(zone: Sample) -> None:
    rules = mapping.load(REPOSITORY / "services/commerce/mappings/cn_registry_2019.yaml")
    told = zone.manifest["legacy"]["register"]
    outcomes = list(read(rules, zone.folder / told["path"]))
    assert len(outcomes) == told["rows"]
    refused = [o for o in outcomes if isinstance(o, Unmapped)]
    assert {o.reason for o in refused} == {Cause.CHECK_DIGIT, Cause.KEY_INVALID}
    assert len(refused) == told["quarantine"]
    plain = {e.uscc: e for e in zone.of("commerce.Enterprise")}
    found: list[Any] = [o.message for o in outcomes if isinstance(o, Mapped)]
    for theirs in found:
        ours = plain[theirs.uscc]
        for field in ("name", "establish_date", "legal_rep_name", "address", "region_code", "business_scope"):
            assert getattr(theirs, field) == getattr(ours, field)
    capital = [t for t in found if t.HasField("reg_capital_amt")]
    assert len(capital) > len(outcomes) / 2
    assert {t.reg_capital_ccy for t in capital} == {"CNY", "USD"}
    for theirs in capital:
        ours = plain[theirs.uscc]
        assert (f"{theirs.reg_capital_amt.value}.00", theirs.reg_capital_ccy) == (
            ours.reg_capital_amt.value,
            ours.reg_capital_ccy,
        )


def test_the_legacy_declarations_load_as_wco_messages(zone: Sample) -> None:
    rules = mapping.load(REPOSITORY / "services/customs/mappings/wco_dms.yaml")
    outcomes = list(read(rules, zone.folder / "legacy" / "customs"))
    assert len(outcomes) == len(zone.manifest["legacy"]["declarations"])
    plain = {d.declaration_no: d for d in zone.of("customs.Declaration")}
    for outcome in outcomes:
        assert isinstance(outcome, Mapped), outcome
        found: Any = outcome.message
        ours = plain[found.declaration_no]
        for field in ("ie_flag", "declared_at", "gross_wt_kg", "packages", "overseas_party_name", "invoice_amount"):
            assert getattr(found, field) == getattr(ours, field), field
        assert [(x.hs10, x.goods_name, x.qty1, x.un_no) for x in found.lines] == [
            (x.hs10, x.goods_name, x.qty1, x.un_no) for x in ours.lines
        ]
        assert [(c.container_no, c.seal_no) for c in found.containers] == [
            (c.container_no, c.seal_no) for c in ours.containers
        ]


def test_story_names_firms_that_are_what_it_says(zone: Sample) -> None:
    told = sample.story(zone.folder)
    names = {e.uscc: e.name for e in zone.of("commerce.Enterprise")}
    for subject in (told.exporter, told.barred, told.food_importer, told.dg_trader):
        assert names[subject.uscc] == subject.name
        for name, keys in subject.keys.items():
            known = set(map(catalogue.load().get(name).key_of, zone.of(name)))
            assert set(keys) <= known, name
    assert told.exporter.text == f"cn.uscc:{told.exporter.uscc}"
    assert "publicsecurity.HazchemPermit" in told.dg_trader.keys
    assert told.food_importer.key("quality.InspectionLot").startswith("SLOT-")
    answers = {a.subject_token: a.answer_code for a in zone.of("publicsecurity.RestrictionAnswer")}
    assert answers[told.barred.person_token] != answers[told.exporter.person_token]


def test_every_agency_knows_the_exporter(zone: Sample) -> None:
    subject = sample.story(zone.folder).exporter.uscc
    agencies: set[str] = set()
    for name, records in zone.records.items():
        kind = catalogue.load().get(name)
        for field in kind.subjects.get("cn.uscc", ()):
            if any(getattr(r, field.name) == subject for r in records):
                agencies.add(kind.owner)
    assert agencies == {"commerce", "taxation", "customs", "quality", "publicsecurity"}


# ------------------------------------------------------------------------------------------------ the command


runner = CliRunner()


def test_command_writes_and_says_what(tmp_path: Path) -> None:
    out = tmp_path / "zone"
    result = runner.invoke(app, ["sample", str(out), "--enterprises", "260", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == json.loads((out / "manifest.json").read_text("utf-8"))
    with (out / "commerce" / "enterprise.csv").open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 260


def test_command_replaces_an_earlier_sample_only(tmp_path: Path) -> None:
    out = tmp_path / "zone"
    assert runner.invoke(app, ["sample", str(out), "--enterprises", "250"]).exit_code == 0
    kept = out / "notes.txt"
    kept.write_text("mine")
    result = runner.invoke(app, ["sample", str(out), "--enterprises", "250", "--today", "2025-12-31"])
    assert result.exit_code == 0, result.output
    assert kept.read_text() == "mine"
    manifest = sample.manifest(out)
    assert manifest["reference_date"] == "2025-12-31"
    on_disk = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert on_disk == {*manifest["files"], "notes.txt"}


@pytest.mark.parametrize("content", [None, "", '{"synthetic": false}', "[]"])
def test_command_never_writes_among_other_files(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "valuable.txt").write_text("mine")
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    result = runner.invoke(app, ["sample", str(tmp_path), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.output)["error"]["reason"] == "FOLDER_NOT_EMPTY"
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "wrong", [["--enterprises", "249"], ["--seed", "-1"], ["--today", "2026-02-30"], ["--today", "1999-12-31"]]
)
def test_command_called_wrongly_exits_2(tmp_path: Path, wrong: list[str]) -> None:
    result = runner.invoke(app, ["sample", str(tmp_path / "zone"), *wrong])
    assert result.exit_code == 2
    assert not (tmp_path / "zone").exists()


def test_command_says_so_where_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text("")
    result = runner.invoke(app, ["sample", str(tmp_path / "zone")])
    assert result.exit_code == 1


def test_story_of_no_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        sample.story(tmp_path)
    assert refused.value.reason is Reason.SAMPLE_MISSING
