"""The contracts against the domain tables they were made from: names, order, share class, grade, key, values.

The tables stand in a file beside the repository; without it these tests say so and are skipped.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from hutong.api.schema.v1 import options_pb2
from tests.contracts import descriptors as d

PACKAGES = {"MR": "commerce", "TAX": "taxation", "CUS": "customs", "QI": "quality", "PS": "publicsecurity"}
RENAMED = {"EnterpriseRegistration": "Enterprise", "DeclarationLine": "GoodsLine"}
PARTS = {"GoodsLine": "declaration_no", "Container": "declaration_no", "LabResult": "lot_id"}
"""Types that became parts of a record, with the field that named the record and is dropped with it."""
LEFT_OUT = {"TAX.CaseFlag"}
"""Nothing of it may ever leave its node in clear but an outcome nobody asks for: not exchanged."""
SHARES = {"U": "OPEN", "C": "CONDITIONAL", "N": "WITHHELD"}
GRADES = {"L1": "PUBLIC", "L2": "INTERNAL", "L3": "CONFIDENTIAL", "L4": "RESTRICTED"}
DIGITS = {
    "1,2,3,4": ["ONE", "TWO", "THREE", "FOUR"],
    "0,1-9,10-49,50-249,250+": ["NONE", "ONE_TO_NINE", "TEN_TO_49", "FIFTY_TO_249", "OVER_249"],
}
"""Enum values that begin with a digit have names in words."""


@dataclass
class Row:
    name: str
    type: str
    note: str
    grade: str
    share: str


@dataclass
class Table:
    name: str
    key: list[str]
    rows: list[Row] = field(default_factory=list)


def _path() -> Path:
    data = os.environ.get("HUTONG_SHARED_DATA")
    return (Path(data).parent if data else d.REPOSITORY.parent / "shared") / "DOMAIN.md"


def read_tables(text: str) -> list[Table]:
    """Read the message tables of the five agencies out of the domain file."""
    found: list[Table] = []
    for block in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        head = re.match(r"(\w+)\.(\w+) - ", block)
        key = re.search(r"^Key: `([^`]+)`", block, flags=re.MULTILINE)
        if not head or not key or head[1] not in PACKAGES:
            continue
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines() if line.startswith("|")]
        rows = [Row(*c) for c in cells if len(c) == 5 and c[3].startswith("L")]
        found.append(Table(f"{head[1]}.{head[2]}", key[1].split("+"), rows))
    return found


def message_for(table: Table) -> Descriptor:
    agency, _, name = table.name.partition(".")
    name = RENAMED.get(name, name)
    (found,) = (
        f.message_types_by_name[name]
        for f in d.contract_files()
        if f.package == f"hutong.api.{PACKAGES[agency]}.v1" and name in f.message_types_by_name
    )
    return found


def kept(table: Table, message: Descriptor) -> list[Row]:
    return [row for row in table.rows if row.name != PARTS.get(message.name)]


@pytest.fixture(scope="module")
def tables() -> list[Table]:
    path = _path()
    if not path.is_file():
        pytest.skip(f"no domain tables beside the repository ({path.name})")
    found = [t for t in read_tables(path.read_text(encoding="utf-8")) if t.name not in LEFT_OUT]
    assert len(found) == 30
    return found


def test_reading_a_table() -> None:
    text = (
        "### MR.Thing - A thing\nKey: `a+b`\n\n"
        "| field | type | note / code list | sens | share |\n|---|---|---|---|---|\n"
        "| a | str18 |  | L1 | U |\n| b | enum | X,Y | L4 | N |\n\n### XX.Other - no\nKey: `c`\n"
    )
    (table,) = read_tables(text)
    assert (table.name, table.key) == ("MR.Thing", ["a", "b"])
    assert table.rows == [Row("a", "str18", "", "L1", "U"), Row("b", "enum", "X,Y", "L4", "N")]


def test_every_field_stands_under_its_name_in_its_order(tables: list[Table]) -> None:
    for table in tables:
        message = message_for(table)
        wanted = [row.name for row in kept(table, message)]
        assert [f.name for f in d.business_fields(message)][: len(wanted)] == wanted, table.name


def test_share_class_and_grade_are_as_tabled(tables: list[Table]) -> None:
    for table in tables:
        message = message_for(table)
        for row in kept(table, message):
            rule = d.rule(message.fields_by_name[row.name])
            stated = options_pb2.ShareClass.Name(rule.share), options_pb2.Grade.Name(rule.grade)
            assert stated == (f"SHARE_CLASS_{SHARES[row.share]}", f"GRADE_{GRADES[row.grade]}"), (table.name, row.name)


def test_keys_are_as_tabled(tables: list[Table]) -> None:
    for table in tables:
        message = message_for(table)
        if message.name not in PARTS:
            assert d.key_names(message) == table.key, table.name


def test_enum_values_are_as_tabled(tables: list[Table]) -> None:
    compared = 0
    for table in tables:
        message = message_for(table)
        for row in kept(table, message):
            wanted = _values(row)
            if wanted:
                assert _names(message.fields_by_name[row.name]) == wanted, (table.name, row.name)
                compared += 1
    assert compared > 30


def test_types_are_as_tabled(tables: list[Table]) -> None:
    for table in tables:
        message = message_for(table)
        for row in kept(table, message):
            found = message.fields_by_name[row.name]
            assert d.type_name(found) in _types(row), (table.name, row.name)
            assert found.is_repeated == (row.type in {"set", "list"}), (table.name, row.name)


def _values(row: Row) -> list[str]:
    if row.type not in {"enum", "set", "enum?"}:
        return []
    if row.note in DIGITS:
        return DIGITS[row.note]
    listed = row.note.split(" ")[0].split(",")
    return listed if len(listed) > 1 and all(re.fullmatch("[A-Z][A-Z_]*", v) for v in listed) else []


def _names(found: FieldDescriptor) -> list[str]:
    assert found.enum_type is not None, found.full_name
    values = [v.name for v in found.enum_type.values]
    prefix = values[0].removesuffix("UNSPECIFIED")
    return [v.removeprefix(prefix) for v in values[1:]]


def _types(row: Row) -> set[str]:
    common = "hutong.api.common.v1."
    kind = re.sub(r"[0-9(].*|[?+].*", "", row.type)
    return {
        "date": {f"{common}Date"},
        "datetime": {"google.protobuf.Timestamp"},
        "dec": {f"{common}{name}" for name in ("Decimal", "Money", "Quantity")},
        "yyyy-mm": {f"{common}Period"},
        "yyyy-mm".partition("-")[0]: {f"{common}Period"},
        "int": {"int32", "int64"},
        "bool": {"bool"},
        "enum": {"enum"},
        "set": {"enum", "string"},
        "list": {"int32", "string"},
    }.get(kind, {"string"})
