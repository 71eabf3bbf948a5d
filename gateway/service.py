"""`FederationService`: one question across agencies, answered field by field under policy.

A handler plans (`gateway.plan`), asks every department at once under one deadline, cuts what comes back
(`gateway.cut`) and assembles. A department that is slow, dead or refuses costs its own sections only.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from gateway import streaming
from gateway.cut import recut
from gateway.plan import Ask, Part, Plan, Planner, new_query_id
from gateway.reads import AllReads
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, reads_pb2, record_source_pb2
from services.kit import wire
from services.kit.authorizations.registry import REASONS
from services.kit.client import Client
from services.kit.errors import DeadlineExceeded, HutongError, Reason, ResourceExhausted, Unavailable
from services.kit.identity import Identity
from services.kit.records.catalogue import Catalogue
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call, Reply, bind_method
from services.kit.sessions.serving import Prepared, Sessions
from services.kit.telemetry import trace_id

_log = logging.getLogger(__name__)

FETCH = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
_PAGE_TOKENS = (Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_MISMATCH)
_SECTIONS = federation_pb2.QueryResponse.SECTIONS_FIELD_NUMBER
_SECTION = federation_pb2.StreamQueryResponse.SECTION_FIELD_NUMBER
_ROOM = 64 * 1024
"""Bytes of an answer beside its sections."""
_SHORTEST = 0.02
"""Seconds: a question with less time than this left is refused, since no department could answer it."""


@dataclass(frozen=True, slots=True)
class Department:
    """A department as the gateway knows it."""

    client: Client
    timeout: float
    """Longest wait, in seconds."""


class Answer(NamedTuple):
    """What came of one part of a question."""

    section: bytes
    """Its section, serialized."""
    rows: int = 0
    """How many records are in it."""


class FederationService:
    """The gateway's door."""

    def __init__(
        self,
        catalogue: Catalogue,
        planner: Planner,
        identity: Identity,
        departments: Mapping[str, Department],
        pages: PageTokens,
        response_bytes: int,
        reads: AllReads,
    ) -> None:
        """`response_bytes` is the largest answer that the transport sends."""
        self._catalogue = catalogue
        self._planner = planner
        self._identity = identity
        self._departments = departments
        self._pages = pages
        self._most = response_bytes - _ROOM
        self._reads = reads
        query = federation_pb2.DESCRIPTOR.services_by_name["FederationService"].methods_by_name["Query"]
        self._sessions = Sessions(bind_method(query, self), self._asked)

    def stop(self) -> None:
        """End sessions, so that a drain need not wait for them."""
        self._sessions.stop()

    async def query(self, request: federation_pb2.QueryRequest, call: Call) -> Reply:
        """Answer in one message, a `QueryResponse`."""
        plan = self._planner.plan(request, call.caller, self._identity.svid())
        _note(call, plan, request.context)
        wait = _inner_deadline(call)
        answered = {part.index: Answer(part.section().SerializeToString()) for part in plan.denied}
        for answers in await plan.wait(asyncio.gather(*(self._ask(ask, plan, call, wait) for ask in plan.asks))):
            answered.update(answers)
        self._fit(answered, plan)
        head = federation_pb2.QueryResponse(query_id=plan.query_id).SerializeToString()
        for part in plan.parts:
            call.facts.disclosed(part.mask, answered[part.index].rows)
        return head + b"".join(wire.embedded(_SECTIONS, answered[part.index].section) for part in plan.parts)

    def session(self, requests: AsyncIterator[federation_pb2.SessionRequest], call: Call) -> AsyncIterator[Reply]:
        """Answer many questions on one stream, each as `query` does."""
        return self._sessions.serve(requests, call)

    async def _asked(self, prepared: Prepared[None], ask: federation_pb2.SessionRequest.Ask, call: Call) -> Reply:
        request = federation_pb2.QueryRequest()
        request.CopyFrom(prepared.question)
        if ask.HasField("subject"):
            request.subject.CopyFrom(ask.subject)
        if ask.HasField("as_of"):
            request.as_of.CopyFrom(ask.as_of)
        return await self.query(request, call)

    async def stream_query(self, request: federation_pb2.StreamQueryRequest, call: Call) -> AsyncIterator[Reply]:
        """Answer section by section, as departments answer; the next section waits until this one is taken.

        Every subject in turn, every page of it in turn where all are wanted. An authorization is checked before each.
        """
        call.facts.stated(request.query.context)
        turns = streaming.turns(request)
        self._planner.check_subjects([turn.question for turn in turns], call.caller)
        query_id = new_query_id()
        head = federation_pb2.StreamQueryResponse(query_id=query_id).SerializeToString()
        for first in turns:
            turn: streaming.Turn | None = first
            while turn is not None:
                plan = self._planner.plan(turn.question, call.caller, self._identity.svid(), query_id)
                _note(call, plan, turn.question.context)
                sections: list[bytes] = []
                async with aclosing(self._sections(plan, call)) as answered:
                    async for part, answer in answered:
                        if request.all_pages:
                            sections.append(answer.section)
                        call.facts.disclosed(part.mask, answer.rows)
                        yield head + turn.about + wire.embedded(_SECTION, answer.section)
                        if plan.grant is not None and not answer.rows:
                            streaming.check_ended(answer.section)
                turn = turn.next_page(sections) if request.all_pages else None

    async def _sections(self, plan: Plan, call: Call) -> AsyncGenerator[tuple[Part, Answer]]:
        """Give the answers to the parts of one plan, as departments answer."""
        wait = _inner_deadline(call)
        for part in plan.denied:
            yield part, Answer(part.section().SerializeToString())
        tasks = [asyncio.ensure_future(self._ask(ask, plan, call, wait)) for ask in plan.asks]
        try:
            for next_done in asyncio.as_completed(tasks):
                for index, answer in (await plan.wait(next_done)).items():
                    # The one before may have waited long to be taken.
                    plan.still()
                    yield plan.parts[index], answer
        finally:
            for task in tasks:
                task.cancel()

    async def explain(self, request: federation_pb2.ExplainRequest, call: Call) -> federation_pb2.ExplainResponse:
        """Tell the decisions; no department is asked and no record read."""
        call.facts.stated(request.query.context)
        parts = self._planner.decide(request.query, call.caller)
        for part in parts:
            call.facts.disclosed(part.mask, 0)
        return federation_pb2.ExplainResponse(sections=[part.section() for part in parts])

    async def list_reads(self, request: reads_pb2.ListReadsRequest, call: Call) -> reads_pb2.ListReadsResponse:
        """Tell an enterprise who read its records."""
        return await self._reads.list(request, call, _inner_deadline(call))

    async def list_record_types(
        self, request: federation_pb2.ListRecordTypesRequest, call: Call
    ) -> federation_pb2.ListRecordTypesResponse:
        """List the catalogue, a page at a time."""
        size = self._pages.size(request.page_size)
        binding = ("record_types", request.owner)
        after = self._pages.open(request.page_token, binding).key if request.page_token else ""
        kinds = [k for k in self._catalogue if k.name > after and (not request.owner or k.owner == request.owner)]
        token = self._pages.seal(kinds[size - 1].name, None, binding) if len(kinds) > size else ""
        return federation_pb2.ListRecordTypesResponse(
            record_types=[kind.info() for kind in kinds[:size]], next_page_token=token
        )

    async def _ask(self, ask: Ask, plan: Plan, call: Call, wait: float) -> dict[int, Answer]:
        """Ask one department; gives its sections by the index of the part.

        Whatever goes wrong there becomes the status of its own sections.
        """
        department = self._departments.get(ask.agency)
        try:
            if department is None:
                raise Unavailable(Reason.DEPARTMENT_UNREACHABLE, "this gateway knows no such department")
            response = await department.client.unary(
                FETCH,
                ask.request,
                record_source_pb2.FetchResponse,
                timeout=min(wait, department.timeout),
                traceparent=call.traceparent,
                svid=plan.svid,
            )
            if len(response.sections) != len(ask.parts):
                raise Unavailable(Reason.DEPARTMENT_FAILED, "the department answered another question")
            return {
                part.index: self._cut(part, section, call)
                for part, section in zip(ask.parts, response.sections, strict=True)
            }
        except HutongError as error:
            if error.reason in _PAGE_TOKENS and any(part.selection.page_token for part in ask.parts):
                # Only the department that sealed a token can tell that it is wrong; the mistake is the caller's.
                raise
            self._log_failure(ask.agency, call, error)
            return {part.index: Answer(_failed(part, error).SerializeToString()) for part in ask.parts}

    def _cut(self, part: Part, section: exchange_pb2.Section, call: Call) -> Answer:
        try:
            return Answer(recut(section, part.mask), len(section.records))
        except HutongError as error:
            self._log_failure(part.mask.record_type.owner, call, error)
            return Answer(_failed(part, error).SerializeToString())

    def _fit(self, answered: dict[int, Answer], plan: Plan) -> None:
        """Answers that fit one by one need not fit into one message: leave out the largest until they do."""
        while sum(len(answer.section) for answer in answered.values()) > self._most:
            part = max(plan.parts, key=lambda part: len(answered[part.index].section))
            error = ResourceExhausted(Reason.ANSWER_TOO_LARGE, "ask for fewer types, fields or records at once")
            answered[part.index] = Answer(_failed(part, error).SerializeToString())

    def _log_failure(self, agency: str, call: Call, error: HutongError) -> None:
        fields = {"department": agency, "reason": error.reason, "trace_id": trace_id(call.traceparent)}
        _log.warning("Department gave no answer", extra={"fields": fields})


def _note(call: Call, plan: Plan, context: exchange_pb2.RequestContext) -> None:
    """Note what is asked, for the log."""
    call.facts.asked(call.caller, context, plan.subject, plan.query_id)
    call.facts.granted(plan.grant)


def _inner_deadline(call: Call) -> float:
    """How long departments may take: the caller's time less a tenth, so that the answer still gets home in it."""
    remaining = call.remaining()
    if remaining is None:
        remaining = 60.0
    if remaining < _SHORTEST:
        raise DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "too little time is left to ask any department")
    return remaining - min(0.1 * remaining, 0.2)


def _failed(part: Part, error: HutongError) -> exchange_pb2.Section:
    section = part.section()
    if isinstance(error, DeadlineExceeded):
        section.status = exchange_pb2.SECTION_STATUS_TIMEOUT
        section.reason = Reason.DEPARTMENT_TIMEOUT
    elif error.reason in REASONS:
        # The department checks for itself, and may have heard what this gateway has not.
        unknown = isinstance(error, Unavailable)
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE if unknown else exchange_pb2.SECTION_STATUS_DENIED
        section.reason = error.reason
    else:
        section.status = exchange_pb2.SECTION_STATUS_UNAVAILABLE
        known = (Reason.DEPARTMENT_UNREACHABLE, Reason.SHUTTING_DOWN, Reason.ANSWER_TOO_LARGE)
        section.reason = error.reason if error.reason in known else Reason.DEPARTMENT_FAILED
    return section
