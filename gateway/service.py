"""`FederationService`: one question across agencies, answered field by field under policy.

A handler plans (`gateway.plan`), asks every department at once under one deadline (`gateway.departments`), has what
comes back cut and gathered (`gateway.gathering`), and assembles. A department that is slow, dead or refuses costs its
own sections only.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Final

from gateway import streaming
from gateway.abroad import Errand, ForeignPart, errands
from gateway.departments import Department
from gateway.gathering import Asked, Gathering, Outcome
from gateway.plan import AnyPart, Inquiry, Plan, Planner, new_query_id
from gateway.reads import AllReads
from gateway.zones import Errands
from hutong.api.exchange.v1 import federation_pb2, reads_pb2, record_source_pb2
from services.kit import wire
from services.kit.errors import DeadlineExceeded, InvalidArgument, Reason, Unavailable
from services.kit.identity import Identity
from services.kit.records.catalogue import Catalogue
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call, Reply, bind_method
from services.kit.sessions.serving import Prepared, Sessions

_QUERY_ID: Final = federation_pb2.QueryResponse.QUERY_ID_FIELD_NUMBER
_SECTIONS: Final = federation_pb2.QueryResponse.SECTIONS_FIELD_NUMBER
_PROVENANCE: Final = federation_pb2.QueryResponse.PROVENANCE_FIELD_NUMBER
_STREAMED_PROVENANCE: Final = federation_pb2.StreamQueryResponse.PROVENANCE_FIELD_NUMBER
_EXPLAINED: Final = federation_pb2.ExplainResponse.SECTIONS_FIELD_NUMBER
_EXPLAINED_PROVENANCE: Final = federation_pb2.ExplainResponse.PROVENANCE_FIELD_NUMBER
_SECTION: Final = federation_pb2.StreamQueryResponse.SECTION_FIELD_NUMBER
_TRACEPARENT: Final = record_source_pb2.FetchSessionRequest.Ask.TRACEPARENT_FIELD_NUMBER
_ROOM: Final = 64 * 1024
"""Bytes of an answer beside its sections."""
_SHORTEST: Final = 0.02
"""Seconds: a question with less time than this left is refused, since no department could answer it."""


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
        errands: Errands,
    ) -> None:
        """`response_bytes` is the largest answer that the transport sends."""
        self._catalogue = catalogue
        self._planner = planner
        self._identity = identity
        self._departments = departments
        self._pages = pages
        self._most = response_bytes - _ROOM
        self._reads = reads
        self._errands = errands
        query = federation_pb2.DESCRIPTOR.services_by_name["FederationService"].methods_by_name["Query"]
        self._sessions = Sessions(bind_method(query, self), self._asked)

    @property
    def unanswered(self) -> int:
        """How many questions of sessions are not answered yet."""
        return self._sessions.unanswered

    def stop(self) -> None:
        """End sessions, so that a drain need not wait for them."""
        self._sessions.stop()

    async def query(self, request: federation_pb2.QueryRequest, call: Call) -> Reply:
        """Answer in one message, a `QueryResponse`."""
        return await self._answer(self._planner.plan(request, call.caller, self._identity.svid()), call)

    def session(self, requests: AsyncIterator[federation_pb2.SessionRequest], call: Call) -> AsyncIterator[Reply]:
        """Answer many questions on one stream, each as `query` does."""
        return self._sessions.serve(requests, call)

    async def _asked(self, prepared: Prepared[Inquiry], ask: federation_pb2.SessionRequest.Ask, call: Call) -> Reply:
        inquiry = prepared.made
        if inquiry is None:
            inquiry = prepared.made = self._inquiry(prepared.question, call)
        call.facts.stated(inquiry.context)
        return await self._answer(self._planner.plan_for(inquiry, ask, self._identity.svid()), call)

    def _inquiry(self, question: federation_pb2.QueryRequest, call: Call) -> Inquiry:
        if question.HasField("subject") or question.HasField("as_of"):
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "what is prepared says neither about whom nor as of when")
        return self._planner.inquiry(question, call.caller)

    async def _answer(self, plan: Plan, call: Call) -> bytes:
        """Ask every department, and assemble a `QueryResponse` when all have answered."""
        gathered = await self.gather(plan, call)
        written = [wire.embedded(_SECTIONS, section) for section in gathered.sections]
        if gathered.provenance:
            written += gathered.proven(_PROVENANCE)
        return wire.embedded(_QUERY_ID, plan.query_id.encode()) + b"".join(written)

    async def gather(self, plan: Plan, call: Call) -> Gathering:
        """Ask every department and zone; gives what came of it when all have answered, noted for the log."""
        _note(call, plan)
        gathered = Gathering(plan, call, asyncio.get_running_loop().create_future())
        asked = self._ask(plan, call, gathered.told)
        try:
            if plan.grant is None:
                await gathered.done
            else:
                await plan.wait(gathered.done)
        except BaseException:
            _forget(asked)
            raise
        sections, rows = gathered.sections, gathered.rows
        if sum(map(len, sections)) > self._most:
            gathered.fit(self._most)
        facts = call.facts
        for part in plan.parts:
            part.note(facts, rows[part.index])
        return gathered

    def _ask(self, plan: Plan, call: Call, told: Callable[[Asked, Outcome], None]) -> list[Callable[[], object]]:
        """Ask departments and zones what is planned; `told` is given each ask with what came of it, as each answers.

        Gives what is to be called where nobody waits for that any more.
        """
        asked: list[Callable[[], object]] = []
        wait, rest = inner_deadline(call), plan.rest
        if call.trace is not None and call.trace.told:
            rest += wire.embedded(_TRACEPARENT, call.trace.parent.encode())
        for ask in plan.asks:
            department = self._departments.get(ask.agency)
            if department is None:
                told(ask, Unavailable(Reason.DEPARTMENT_UNREACHABLE, "this gateway knows no such department"))
            else:
                asked.append(department.ask(plan.svid, ask.question, rest, wait, partial(told, ask)))
        for errand in plan.errands:
            parent = call.trace.parent if call.trace is not None and call.trace.told else ""
            asked.append(self._errands.run(errand, plan.rest, wait, parent, partial(told, errand)))
        return asked

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
                _note(call, plan)
                sections: list[bytes] = []
                async with aclosing(self._sections(plan, call)) as answered:
                    async for part, section, rows, proven in answered:
                        if request.all_pages:
                            sections.append(section)
                        part.note(call.facts, rows)
                        yield head + turn.about + wire.embedded(_SECTION, section) + proven
                        if plan.grant is not None and not rows:
                            streaming.check_ended(section)
                turn = turn.next_page(sections) if request.all_pages else None

    async def _sections(self, plan: Plan, call: Call) -> AsyncGenerator[tuple[AnyPart, bytes, int, bytes]]:
        """Give the parts of one plan, each with its section and how many rows it has, as departments answer.

        With them goes who answered, as it stands in a streamed answer, where that is another zone.
        """
        told: asyncio.Queue[tuple[Asked, Outcome]] = asyncio.Queue()

        def note(ask: Asked, outcome: Outcome) -> None:
            told.put_nowait((ask, outcome))

        asked = self._ask(plan, call, note)
        try:
            for part in plan.parts:
                if part.denied:
                    yield part, part.refused, 0, b""
            gathered = Gathering(plan, call, asyncio.get_running_loop().create_future())
            for _ in (*plan.asks, *plan.errands):
                ask, outcome = await plan.wait(told.get())
                gathered.put(ask, outcome)
                proven = b"".join(gathered.proven(_STREAMED_PROVENANCE, ask.zone)) if isinstance(ask, Errand) else b""
                for part in ask.parts:
                    # The one before may have waited long to be taken.
                    plan.still()
                    yield part, gathered.sections[part.index], gathered.rows[part.index], proven
        finally:
            _forget(asked)

    async def explain(self, request: federation_pb2.ExplainRequest, call: Call) -> Reply:
        """Tell the decisions; no department is asked and no record read. Other zones are asked for theirs."""
        query = request.query
        call.facts.stated(query.context)
        parts = self._planner.decide(query, call.caller)
        if any(isinstance(part, ForeignPart) and not part.denied for part in parts):
            return await self._explain_abroad(query, call)
        for part in parts:
            part.note(call.facts, 0)
        return federation_pb2.ExplainResponse(sections=[part.section() for part in parts])

    async def _explain_abroad(self, query: federation_pb2.QueryRequest, call: Call) -> bytes:
        plan = self._planner.plan(query, call.caller, self._identity.svid())
        decided = [b"" if isinstance(part, ForeignPart) else part.section().SerializeToString() for part in plan.parts]
        abroad = errands(plan.parts, call.caller, query.context, explain=True)
        refused = [section or part.refused for part, section in zip(plan.parts, decided, strict=True)]
        gathered = await self.gather(dataclasses.replace(plan, asks=(), errands=abroad, refused=refused), call)
        sections = [wire.embedded(_EXPLAINED, section) for section in gathered.sections]
        return b"".join((*sections, *gathered.proven(_EXPLAINED_PROVENANCE)))

    async def list_reads(self, request: reads_pb2.ListReadsRequest, call: Call) -> reads_pb2.ListReadsResponse:
        """Tell an enterprise who read its records."""
        return await self._reads.list(request, call, inner_deadline(call))

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


def _note(call: Call, plan: Plan) -> None:
    """Note what is asked, for the log."""
    call.facts.asked(plan.caller, plan.context, plan.subject, plan.query_id)
    call.facts.granted(plan.grant)


def _forget(asked: list[Callable[[], object]]) -> None:
    """Wait for departments no longer: those that have not answered need not go on."""
    for forget in asked:
        forget()


def inner_deadline(call: Call) -> float:
    """How long departments may take: the caller's time less a tenth, so that the answer still gets home in it."""
    remaining = call.remaining()
    if remaining is None:
        remaining = 60.0
    if remaining < _SHORTEST:
        raise DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "too little time is left to ask any department")
    return remaining - min(0.1 * remaining, 0.2)
