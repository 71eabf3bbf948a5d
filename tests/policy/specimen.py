"""The specimen record types, compiled when first asked for, and random records of them."""

import datetime as dt
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message
from grpc_tools import protoc  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from hypothesis import strategies as st

from hutong.api.common.v1 import common_pb2
from hutong.api.schema.v1 import options_pb2
from services.kit.records.catalogue import Catalogue, RecordType
from services.kit.records.values import Kind

_HERE = Path(__file__).parent
_PACKAGE = "hutong.test.specimen.v1"
IMPORTED = (common_pb2.DESCRIPTOR, options_pb2.DESCRIPTOR)
"""What the specimen's file imports: must be in the pool before it."""


@cache
def message_class(name: str) -> type[Message]:
    pool = _pool()
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "specimen.binpb"
        includes = [f"-I{_HERE}", f"-I{_HERE.parents[1] / 'proto'}", f"-I{files('grpc_tools') / '_proto'}"]
        compiler: Any = protoc
        assert compiler.main(["protoc", *includes, f"--descriptor_set_out={out}", "specimen.proto"]) == 0
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    pool = descriptor_pool.Default()
    for file in found.file:
        pool.Add(file)  # pyright: ignore[reportUnknownMemberType]
    return pool


@cache
def catalogue() -> Catalogue:
    return Catalogue.of(message_class("Specimen"), message_class("Visit"))


def specimen_type() -> RecordType:
    return catalogue().get("museum.Specimen")


_texts = st.text(
    st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("abc'\"\\%_ "), min_size=1, max_size=6
) | st.sampled_from(["a", "b", "x y", "91350211M0000XUF47", "13905912345", "王小明", "John Smith"])
_decimals = st.decimals(-(10**9), 10**9, places=2).map(lambda d: {"value": f"{d:f}"}) | st.sampled_from(
    [{"value": "0"}, {"value": "99.5"}, {"value": "100"}, {"value": "1000"}]
)
_years = st.integers(2020, 2026)
_days = st.dates(dt.date(2020, 1, 1)).map(lambda d: {"year": d.year, "month": d.month, "day": d.day})
_months = st.fixed_dictionaries({"year": _years, "month": st.integers(0, 12)})
_dates = _days | _months
_stamps = st.fixed_dictionaries(
    {"seconds": st.integers(1_500_000_000, 1_800_000_000), "nanos": st.integers(0, 999_999_999)}
)
_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.STRING: _texts,
    Kind.INT: st.integers(0, 2**31 - 1) | st.integers(0, 5),
    Kind.BOOL: st.booleans(),
    Kind.ENUM: st.sampled_from([0, 1, 2, 5]),
    Kind.BYTES: st.binary(min_size=1, max_size=4),
    Kind.DATE: _dates,
    Kind.TIMESTAMP: _stamps,
    Kind.DECIMAL: _decimals,
    Kind.MONEY: st.fixed_dictionaries({"currency_code": st.sampled_from(["CNY", "USD"]), "amount": _decimals}),
    Kind.QUANTITY: st.fixed_dictionaries({"unit_code": st.sampled_from(["KGM", "TNE"]), "value": _decimals}),
    Kind.PERIOD: _months,
}


def _message(record_type: RecordType, prefix: str) -> st.SearchStrategy[dict[str, Any]]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in record_type.fields.values():
        if field.path.rpartition(".")[0] == prefix:
            value = _message(record_type, field.path) if field.kind is Kind.PART else _VALUES[field.kind]
            fields[field.name] = st.lists(value, max_size=3) if field.descriptor.is_repeated else value
    return st.fixed_dictionaries({}, optional=fields)


def records(record_type: RecordType) -> st.SearchStrategy[Message]:
    """Random records: any subset of the fields, at any depth."""
    return _message(record_type, "").map(lambda fields: record_type.message(**fields))
