"""Every record type and every field says what it must, and says it consistently."""

import re

import pytest
from google.protobuf.descriptor import Descriptor

from hutong.api.schema.v1 import options_pb2
from services.kit.identifiers import SCHEMES
from tests.contracts import descriptors as d

RECORDS = pytest.mark.parametrize("record", d.records(), ids=lambda r: r.full_name.removeprefix("hutong.api."))

DIMENSIONLESS = {"share_pct", "rebate_rate", "top_counterparty_share", "sampling_rate"}
"""Decimals that are plain ratios: they need no unit beside them."""

UNITS = {
    "amt": "ccy",
    "qty": "unit",
    "qty1": "unit1",
    "qty2": "unit2",
    "price": "ccy",
    "value": "value_unit",
    "limit": "value_unit",
}
"""What must stand beside a decimal whose name ends so: a field of that name, or one that ends with it."""

STANDARDS = {"WCO", "CNSW", "CEB", "GB", "GB/T", "ISO", "UNECE", "FATF", "GS1", "EFSA"}


def with_parts(record: Descriptor) -> list[Descriptor]:
    return [record, *d.parts_of(record)]


def test_every_record_type_of_the_brief_is_there() -> None:
    found = {r.full_name.removeprefix("hutong.api.").replace(".v1", "") for r in d.records()}
    wanted = {
        "commerce": "Enterprise RegistrationChange Shareholding Listing Branch",
        "taxation": "TaxpayerStatus VatFiling InvoiceSummary InvoiceLine ExportRebateClaim StatusNotice",
        "customs": "Operator Declaration ClearanceEvent Inspection Manifest CbecListing Penalty",
        "quality": "InspectionLot Certificate TraceEvent FoodFiling Notification",
        "publicsecurity": "IdentityAnswer RestrictionAnswer SealRegistration Vehicle HazchemPermit SecurityEvent "
        "WatchlistEntry",
    }
    assert found == {f"{agency}.{name}" for agency, names in wanted.items() for name in names.split()}


@RECORDS
def test_envelope_comes_first_and_carries_no_options(record: Descriptor) -> None:
    first = record.fields[0]
    assert (first.name, first.number) == ("envelope", 1)
    assert d.type_name(first) == "hutong.api.common.v1.Envelope"
    assert not first.GetOptions().HasExtension(options_pb2.field)
    assert [f.number for f in record.fields] == list(range(1, len(record.fields) + 1))


@RECORDS
def test_record_option_is_complete(record: Descriptor) -> None:
    rule = d.record_rule(record)
    assert rule.owner == record.file.package.split(".")[-2]
    assert rule.title
    assert re.search("[一-鿿]", rule.local_title)
    collection, _, keys = rule.pattern.partition("/")
    assert re.fullmatch("[a-z][A-Za-z]+", collection)
    assert keys == "~".join(f"{{{name}}}" for name in d.key_names(record))
    assert d.key_names(record)


@RECORDS
def test_fact_time_is_a_moment_of_the_record_itself(record: Descriptor) -> None:
    if name := d.record_rule(record).fact_time:
        field = record.fields_by_name[name]
        assert d.type_name(field) in {"hutong.api.common.v1.Date", "google.protobuf.Timestamp"}
        assert not field.is_repeated


@RECORDS
def test_every_field_states_share_class_and_grade(record: Descriptor) -> None:
    for message in with_parts(record):
        for field in d.business_fields(message):
            rule = d.rule(field)
            assert rule.share, field.full_name
            assert rule.grade, field.full_name


@RECORDS
def test_parts_have_neither_record_option_nor_keys_nor_indexes(record: Descriptor) -> None:
    for part in d.parts_of(record):
        assert not d.is_record(part)
        for field in d.business_fields(part):
            rule = d.rule(field)
            assert [rule.key, rule.subject, rule.indexed] == [False, "", False], field.full_name


@RECORDS
def test_only_single_values_are_indexed_and_keys_and_subjects_always_are(record: Descriptor) -> None:
    for field in d.business_fields(record):
        rule = d.rule(field)
        if rule.indexed:
            assert not field.is_repeated, field.full_name
            assert field not in {f for f in record.fields if f.message_type in list(d.parts_of(record))}
        assert rule.indexed or not (rule.key or rule.subject), field.full_name


@RECORDS
def test_what_is_withheld_is_restricted_and_cannot_be_filtered_on(record: Descriptor) -> None:
    for message in with_parts(record):
        for field in d.business_fields(message):
            rule = d.rule(field)
            if rule.share == options_pb2.SHARE_CLASS_WITHHELD:
                assert rule.grade == options_pb2.GRADE_RESTRICTED, field.full_name
                assert not rule.indexed, field.full_name
                assert not rule.key, field.full_name


@RECORDS
def test_every_scheme_is_registered(record: Descriptor) -> None:
    for message in with_parts(record):
        for field in d.business_fields(message):
            rule = d.rule(field)
            assert {rule.scheme, rule.subject} - {""} <= set(SCHEMES), field.full_name


@RECORDS
def test_every_element_names_a_known_standard(record: Descriptor) -> None:
    for message in with_parts(record):
        for field in d.business_fields(message):
            for element in d.rule(field).elements:
                assert element.standard in STANDARDS, field.full_name
                assert element.id, field.full_name


@RECORDS
def test_truth_values_can_be_absent(record: Descriptor) -> None:
    for message in with_parts(record):
        for field in d.business_fields(message):
            if d.type_name(field) == "bool":
                assert field.has_presence, field.full_name


@RECORDS
def test_a_decimal_has_its_unit_beside_it_or_in_its_name(record: Descriptor) -> None:
    for message in with_parts(record):
        names = {f.name for f in message.fields}
        for field in d.business_fields(message):
            if d.type_name(field) != "hutong.api.common.v1.Decimal":
                continue
            if field.name in DIMENSIONLESS or field.name.endswith("_kg"):
                continue
            stem, _, last = field.name.rpartition("_")
            unit = UNITS[last]
            assert unit in names or f"{stem}_{unit}" in names, field.full_name


def test_one_file_per_record_type_named_like_it() -> None:
    for record in d.records():
        snake = re.sub("(?<!^)(?=[A-Z])", "_", record.name).lower()
        package = record.file.package.replace(".", "/")
        assert record.file.name == f"{package}/{snake}.proto"
