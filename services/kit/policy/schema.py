"""What policies talk about: the Cedar schema, and the entities derived from the catalogue.

    Hutong::System::"taxation/refund"                 a caller, in its agency; .agency and .system are texts
    Hutong::Agency::"taxation"
    Hutong::System::"taxation.inland.example/refund"  a caller of another zone, in its agency there,
    Hutong::Agency::"taxation.inland.example"         which is in its zone;
    Hutong::Zone::"inland.example"                    a permit counts for it only where its scope names one of the three
    Hutong::Field::"customs.Declaration.lines.hs10"   a field: in its part, its groups, its share class, its record type
    Hutong::FieldGroup::"customs.Declaration.party"
    Hutong::RecordType::"customs.Declaration"
    Hutong::ShareClass::"open"                        also "conditional" and "withheld"
    Hutong::Action::"read"

The context holds `purpose`, `basis`, and where the request states them `case_ref` and `on_behalf_of`. Where a
supervisor's authorization was verified, and only then, it holds `authorization`, with `id`, `emergency` and `case_ref`:

    when { context.purpose == "P-AML" && context has authorization && !context.authorization.emergency }

Time is not in it: permits begin and end by `@from` and `@until`, so that every moment at which an
answer may change is known beforehand.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import cedarpy

from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.schema.v1 import options_pb2
from services.kit.caller import Caller
from services.kit.records.catalogue import Field, RecordType

NAMESPACE = "Hutong::"

SCHEMA = """
namespace Hutong {
    entity Zone;
    entity Agency in [Zone];
    entity System in [Agency] = { agency: String, system: String };
    entity ShareClass;
    entity RecordType = { owner: String };
    entity FieldGroup in [RecordType];
    entity Field in [Field, FieldGroup, RecordType, ShareClass] = {
        record_type: String,
        path: String,
        name: String,
        share: String,
        grade: Long,
        owner: String,
    };
    action read appliesTo {
        principal: [System],
        resource: [Field],
        context: {
            purpose: String,
            basis: String,
            case_ref?: String,
            authorization?: { id: String, emergency: Bool, case_ref: String },
            on_behalf_of?: String,
        },
    };
}
"""

AUTHORIZATION = "authorization"
"""What the context holds a verified authorization as."""

CONTEXT = ("purpose", "basis", "case_ref", AUTHORIZATION, "on_behalf_of")
"""What the context may hold."""

SHARES: Mapping[int, str] = {
    options_pb2.SHARE_CLASS_OPEN: "open",
    options_pb2.SHARE_CLASS_CONDITIONAL: "conditional",
    options_pb2.SHARE_CLASS_WITHHELD: "withheld",
}
"""Share classes as policies name them."""


@dataclass(frozen=True, slots=True)
class Authorized:
    """A supervisor's authorization as policies see it; made only of one that was verified."""

    id: str
    emergency: bool
    """One approver, in an emergency, instead of two."""
    case_ref: str


@cache
def schema() -> cedarpy.Schema:
    """Give the parsed schema."""
    return cedarpy.Schema.from_str(SCHEMA)


def uid(kind: str, name: str) -> dict[str, str]:
    """Write an entity's id in Cedar's JSON form."""
    return {"type": f"{NAMESPACE}{kind}", "id": name}


def field_id(record_type: RecordType, path: str) -> str:
    """Name a field, or a field group, as policies do."""
    return f"{record_type.name}.{path}"


def groups(record_type: RecordType) -> frozenset[str]:
    """List the names of a record type's field groups."""
    return frozenset(group for field in record_type.fields.values() for group in field.groups)


def attributes(record_type: RecordType, field: Field) -> dict[str, str | int]:
    """Give a field's attributes as policies see them."""
    return {
        "record_type": record_type.name,
        "path": field.path,
        "name": field.name,
        "share": SHARES[field.share],
        "grade": field.grade,
        "owner": record_type.owner,
    }


def parents(record_type: RecordType, field: Field) -> Iterator[tuple[str, str]]:
    """List what a field is directly in, as (kind, name)."""
    yield "RecordType", record_type.name
    yield "ShareClass", SHARES[field.share]
    for group in field.groups:
        yield "FieldGroup", field_id(record_type, group)
    part = field.path.rpartition(".")[0]
    if part:
        yield "Field", field_id(record_type, part)


def ancestors(record_type: RecordType, field: Field) -> frozenset[tuple[str, str]]:
    """List everything a field is in, itself included, as Cedar's `in` sees it: a part's groups hold its fields too."""
    found = {("Field", field_id(record_type, field.path)), *parents(record_type, field)}
    part = field.path.rpartition(".")[0]
    while part:
        # A part in the share class "open" must not open a field of its own that is in another class.
        found |= {p for p in parents(record_type, record_type.field(part)) if p[0] != "ShareClass"}
        part = part.rpartition(".")[0]
    return frozenset(found)


def entities(record_type: RecordType) -> cedarpy.Entities:
    """Make the entities of one record type: itself, its groups and its leaf fields."""
    found: list[dict[str, Any]] = [{"uid": uid("RecordType", record_type.name), "attrs": {"owner": record_type.owner}}]
    found += [
        {"uid": uid("FieldGroup", field_id(record_type, g)), "parents": [uid("RecordType", record_type.name)]}
        for g in sorted(groups(record_type))
    ]
    for leaf in record_type.leaves:
        above = ancestors(record_type, leaf) - {("Field", field_id(record_type, leaf.path))}
        found.append(
            {
                "uid": uid("Field", field_id(record_type, leaf.path)),
                "attrs": attributes(record_type, leaf),
                "parents": [uid(kind, name) for kind, name in sorted(above)],
            }
        )
    for entity in found:
        entity.setdefault("attrs", {})
        entity.setdefault("parents", [])
    return cedarpy.Entities.from_json_str(json.dumps(found))  # pyright: ignore[reportUnknownMemberType]


def with_caller(base: cedarpy.Entities, caller: Caller) -> cedarpy.Entities:
    """Add a caller to a record type's entities."""
    entities = [
        {
            "uid": uid("System", caller.path),
            "attrs": {"agency": caller.agency, "system": caller.system},
            "parents": [uid("Agency", caller.agency)],
        }
    ]
    if caller.zone:
        agency = {"uid": uid("Agency", caller.agency), "attrs": {}, "parents": [uid("Zone", caller.zone)]}
        entities.append(agency)
    return base.with_added_json_str(json.dumps(entities))  # pyright: ignore[reportUnknownMemberType]


def context(
    request: exchange_pb2.RequestContext, authorized: Authorized | None = None
) -> Mapping[str, str | Mapping[str, str | bool]]:
    """Turn a request's context into Cedar's; the number of an authorization that it merely states is not in it."""
    found: dict[str, str | Mapping[str, str | bool]] = {"purpose": request.purpose, "basis": request.legal_basis}
    if request.case_ref:
        found["case_ref"] = request.case_ref
    if request.on_behalf_of:
        found["on_behalf_of"] = request.on_behalf_of
    if authorized is not None:
        found[AUTHORIZATION] = asdict(authorized)
    return found
