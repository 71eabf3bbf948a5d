"""The typed doors have one uniform shape: the kit implements them by reflection and relies on it."""

import re

import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from tests.contracts import descriptors as d

CONTEXT = "hutong.api.exchange.v1.RequestContext"
TIMESTAMP = "google.protobuf.Timestamp"
DECISION = "repeated hutong.api.exchange.v1.FieldDecision"
RECEIPT = "hutong.api.log.v1.Receipt"
GET_REQUEST = {
    "name": (1, "string"),
    "context": (2, CONTEXT),
    "as_of": (3, TIMESTAMP),
    "fields": (4, "repeated string"),
}
LIST_REQUEST = {
    "subject": (1, "hutong.api.common.v1.SubjectId"),
    "filter": (2, "string"),
    "page_size": (3, "int32"),
    "page_token": (4, "string"),
    "context": (5, CONTEXT),
    "as_of": (6, TIMESTAMP),
    "fields": (7, "repeated string"),
}


def shape(message: Descriptor) -> dict[str, tuple[int, str]]:
    return {f.name: (f.number, f"{'repeated ' if f.is_repeated else ''}{d.type_name(f)}") for f in message.fields}


def snake(name: str) -> str:
    return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def method(record: Descriptor, name: str) -> MethodDescriptor:
    found = service_of(record).methods_by_name[name]
    assert found.input_type.name == f"{name}Request"
    assert found.output_type.name == f"{name}Response"
    assert not found.client_streaming
    assert not found.server_streaming
    return found


def service_of(record: Descriptor) -> ServiceDescriptor:
    (service,) = (s for s in d.services() if s.file.package == record.file.package)
    return service


def plural(record: Descriptor) -> str:
    collection = d.record_rule(record).pattern.partition("/")[0]
    return collection[0].upper() + collection[1:]


def test_every_agency_has_one_service() -> None:
    names = {s.full_name.removeprefix("hutong.api.") for s in d.services()}
    assert names == {
        "commerce.v1.CommerceService",
        "customs.v1.CustomsService",
        "publicsecurity.v1.PublicSecurityService",
        "quality.v1.QualityService",
        "taxation.v1.TaxationService",
    }


@pytest.mark.parametrize("record", d.records(), ids=lambda r: r.name)
def test_every_record_type_can_be_got_and_listed(record: Descriptor) -> None:
    get, listing = method(record, f"Get{record.name}"), method(record, f"List{plural(record)}")
    assert shape(get.input_type) == GET_REQUEST
    assert shape(get.output_type) == {
        snake(record.name): (1, record.full_name),
        "decisions": (2, DECISION),
        "receipt": (15, RECEIPT),
    }
    assert shape(listing.input_type) == LIST_REQUEST
    assert shape(listing.output_type) == {
        snake(plural(record)): (1, f"repeated {record.full_name}"),
        "next_page_token": (2, "string"),
        "decisions": (3, DECISION),
        "receipt": (15, RECEIPT),
    }


def test_services_offer_nothing_else() -> None:
    wanted = {(r.file.package, name) for r in d.records() for name in (f"Get{r.name}", f"List{plural(r)}")}
    assert {(s.file.package, m.name) for s in d.services() for m in s.methods} == wanted
