"""From a question to what is asked of each department: decide first, then ask only for what may be given."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from certs.svid import Svid
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit import reader
from services.kit.caller import Caller
from services.kit.context import ContextSigner, request_digest
from services.kit.doors import check_selections
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.mask import ReadMask
from services.kit.records.catalogue import Catalogue
from services.kit.records.source import subject_fields


@dataclass(frozen=True, slots=True)
class Part:
    """One selection of the question, decided."""

    index: int
    selection: exchange_pb2.Selection
    mask: ReadMask


@dataclass(slots=True)
class Ask:
    """What one department is asked: its request, and the parts its sections answer, in order."""

    agency: str
    request: record_source_pb2.FetchRequest
    parts: list[Part] = field(default_factory=list[Part])


@dataclass(frozen=True, slots=True)
class Plan:
    """A question, decided and divided."""

    query_id: str
    svid: Svid
    """The identity that signed, and that the departments must be called with."""
    parts: tuple[Part, ...]
    asks: tuple[Ask, ...]

    @property
    def denied(self) -> list[Part]:
        """The parts of which nothing may be given; no department is asked for them."""
        return [part for part in self.parts if not part.mask.grants]


def decide(
    question: federation_pb2.QueryRequest, caller: Caller, catalogue: Catalogue, engine: PolicyEngine
) -> tuple[Part, ...]:
    """Check a question and decide every selection; raises `InvalidArgument` for what is wrong with it."""
    engine.check_context(question.context)
    check_selections(question.selections)
    scheme, _ = reader.subject_of(question.subject.scheme, question.subject.value)
    parts: list[Part] = []
    for index, selection in enumerate(question.selections):
        kind = catalogue.get(selection.record_type)
        subject_fields(kind, scheme)
        mask = engine.mask(caller, question.context, kind).restrict(selection.fields)
        reader.readable(mask, selection.filter)
        parts.append(Part(index, selection, mask))
    return tuple(parts)


def divide(
    question: federation_pb2.QueryRequest, parts: Sequence[Part], caller: Caller, signer: ContextSigner, svid: Svid
) -> Plan:
    """Make one request per department, with only the fields that may be given, under one signed context."""
    query_id = uuid.uuid4().hex
    asks: dict[str, Ask] = {}
    for part in parts:
        if part.mask.grants:
            agency = part.mask.record_type.owner
            ask = asks.get(agency) or asks.setdefault(agency, _ask(agency, question, part.mask.version))
            ask.parts.append(part)
            selection = ask.request.selections.add()
            selection.CopyFrom(part.selection)
            del selection.fields[:]
            selection.fields.extend(part.mask.grants)
    if asks:
        digests = [request_digest(ask.request) for ask in asks.values()]
        signed = signer.sign(svid, caller, question.context, query_id, digests)
        for ask in asks.values():
            ask.request.delegated.CopyFrom(signed)
    return Plan(query_id, svid, tuple(parts), tuple(asks.values()))


def _ask(agency: str, question: federation_pb2.QueryRequest, version: str) -> Ask:
    request = record_source_pb2.FetchRequest(subject=question.subject, known_policy_version=version)
    if question.HasField("as_of"):
        request.as_of.CopyFrom(question.as_of)
    return Ask(agency, request)
