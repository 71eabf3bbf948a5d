"""The two doors of a department: the uniform record source and the typed service of its agency.

Both are implemented here once, from the descriptors, on the same `Reader`; a room adds no code of its own.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit import lookup, reader, wire
from services.kit.context import ContextVerifier, Origin, Word
from services.kit.errors import (
    FailedPrecondition,
    HutongError,
    InvalidArgument,
    PermissionDenied,
    Reason,
)
from services.kit.log.facts import Facts, Subject
from services.kit.policy.mask import ReadMask
from services.kit.reader import Asking, Cutting, Question, Reader
from services.kit.records.catalogue import Catalogue, RecordType
from services.kit.records.conditions import Condition
from services.kit.records.pages import ResumeTokens
from services.kit.records.source import Changes
from services.kit.records.tables import TEXT_LIMIT
from services.kit.rpc import Call, Reply, bind_method, snake
from services.kit.sessions.serving import Prepared, Sessions
from services.kit.streams import Streams
from services.kit.uses import Uses
from services.kit.waiting import within

MAX_SELECTIONS = 32
"""Most selections in one request."""

MAX_FIELDS = 256
"""Most field paths in one selection."""

MAX_SELECTION = 32 * 1024
"""Most bytes of one selection, or of a request of a typed service: names, a filter, a token and some room."""

MAX_FILTERS = 8 * 1024
"""Most characters of all filters of one request together: parsing one of the longest takes ten milliseconds."""

WATCHES = 16
"""Most watches of one caller at a time: each asks the store several times a second for as long as it lasts."""

_CHANGES_AT_ONCE = 100
_SECTIONS: Final = 1
_NOT_PREPARED: Final = ("subject", "as_of", "query_id")
_MOST_KEPT: Final = 1024
_LARGEST_KEPT: Final = 8192
"""Bytes: a request of more holds a page token or a list of its own, and is not asked again."""

_OF_ONE_TYPE = frozenset(
    (
        Reason.HISTORY_UNAVAILABLE,
        Reason.SCAN_TOO_LARGE,
        Reason.STORE_UNAVAILABLE,
        Reason.INTERNAL,
        Reason.LOOKUP_FIELD_NOT_READABLE,
        Reason.AUTHORIZATION_EXHAUSTED,
        Reason.AUTHORIZATION_RATE,
        Reason.AUTHORIZATION_STATE_UNKNOWN,
    )
)
"""What stands in the way of one record type, where others of the same department may do."""

_QUOTAS = frozenset((Reason.AUTHORIZATION_EXHAUSTED, Reason.AUTHORIZATION_RATE))


def check_selections(selections: Iterable[exchange_pb2.Selection]) -> None:
    """Check how many selections there are and that no type is asked for twice; raises `InvalidArgument`."""
    names = [(s.zone, s.record_type) for s in selections]
    if not names:
        raise InvalidArgument(Reason.SELECTION_MISSING, "select at least one record type")
    if len(names) > MAX_SELECTIONS:
        raise InvalidArgument(
            Reason.SELECTIONS_TOO_MANY, f"at most {MAX_SELECTIONS} selections; there are {len(names)}"
        )
    for selection in selections:
        _check_size(selection)
    if sum(len(s.filter) for s in selections) > MAX_FILTERS:
        raise InvalidArgument(Reason.FILTER_INVALID, f"at most {MAX_FILTERS} characters of filters in a request")
    if len(set(names)) != len(names):
        raise InvalidArgument(Reason.RECORD_TYPE_REPEATED, "select every record type once, with all its fields")


def _check_size(asked: Any) -> None:
    """Check the size of a selection, or of a typed request, which is one; raises `InvalidArgument`."""
    if len(asked.fields) > MAX_FIELDS:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"at most {MAX_FIELDS} fields in a selection")
    if asked.ByteSize() > MAX_SELECTION:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"at most {MAX_SELECTION} bytes in a selection")


def _note_grant(reader: Reader, origin: Origin, facts: Facts) -> None:
    """Check the authorization that a question states, and note it for the log; raises as `Enforcer.check` does."""
    if origin.request.authorization_id:
        facts.granted(reader.grant(origin))


@dataclass(slots=True)
class _Request:
    """What requests have in common that differ in whom they are about, as of when, and the query's id: verified.

    Nothing in here was read of any record. What is decided is kept by each `Asking`, for as long as that stands; the
    times of the word and the authorization are checked for every request.
    """

    certificate: bytes
    """Whose it is."""
    word: Word
    authorized: bool
    """It states an authorization."""
    selections: tuple[exchange_pb2.Selection, ...]
    known_policy: str
    askings: dict[int, Asking] = field(default_factory=dict[int, Asking])
    """By the selection's number, once that was reached."""


_Said = record_source_pb2.FetchRequest | record_source_pb2.FetchSessionRequest.Ask
"""What says the rest."""


def _common(question: record_source_pb2.FetchRequest) -> record_source_pb2.FetchRequest:
    """Check that what was prepared leaves to each ask what is for it to say; raises `InvalidArgument`."""
    if question.HasField("subject") or question.HasField("as_of") or question.query_id:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "subject, as_of and query_id are for each ask to say")
    return question


class RecordSourceService:
    """`RecordSourceService`: what gateways use."""

    def __init__(
        self,
        agency: str,
        catalogue: Catalogue,
        reader: Reader,
        contexts: ContextVerifier,
        resume: ResumeTokens,
        *,
        poll: float = 0.2,
        heartbeat: float = 10.0,
        watches: int = WATCHES,
    ) -> None:
        """`catalogue` holds what the agency owns; `poll` and `heartbeat` are seconds; `watches` are each caller's."""
        self._agency = agency
        self._catalogue = catalogue
        self._reader = reader
        self._contexts = contexts
        self._resume = resume
        self._poll = poll
        self._heartbeat = heartbeat
        self._watches = Streams(watches, "watches")
        fetch = record_source_pb2.DESCRIPTOR.services_by_name["RecordSourceService"].methods_by_name["Fetch"]
        self.requests = Uses()
        """How requests are kept that were verified and prepared."""
        self._requests: OrderedDict[tuple[bytes, bytes], _Request] = OrderedDict()
        """By the peer's certificate and the request without whom it is about; the one used least lately first."""
        self._sessions = Sessions(bind_method(fetch, self), self._asked)
        self._stopping = asyncio.Event()

    @property
    def unanswered(self) -> int:
        """How many questions of sessions are not answered yet."""
        return self._sessions.unanswered

    def stop(self) -> None:
        """End running watches and sessions, so that a drain need not wait for them."""
        self._stopping.set()
        self._sessions.stop()

    async def fetch(self, request: record_source_pb2.FetchRequest, call: Call) -> Reply:
        """Answer every selection, in the order asked."""
        common = record_source_pb2.FetchRequest()
        common.CopyFrom(request)
        for name in _NOT_PREPARED:
            common.ClearField(name)
        return await self._answer(self._request(common, call), request, call)

    def fetch_session(
        self, requests: AsyncIterator[record_source_pb2.FetchSessionRequest], call: Call
    ) -> AsyncIterator[Reply]:
        """Answer many requests on one stream, each as `fetch` does."""
        return self._sessions.serve(requests, call)

    def _asked(
        self, prepared: Prepared[_Request], ask: record_source_pb2.FetchSessionRequest.Ask, call: Call
    ) -> Awaitable[Reply]:
        made = prepared.made
        if made is None or made.certificate != call.certificate:
            made = prepared.made = self._request(_common(prepared.question), call)
        return self._answer(made, ask, call)

    def _request(self, common: record_source_pb2.FetchRequest, call: Call) -> _Request:
        """Verify and prepare what many requests have in common, or take it from those kept; raises as `word` does."""
        key = call.certificate, common.SerializeToString()
        made = self._requests.get(key)
        if made is None:
            self.requests.made += 1
            word = self._contexts.word(common, call)
            # Before anything of the question is refused: whose it is, is known now.
            call.facts.asked(word.origin.caller, word.origin.request)
            check_selections(common.selections)
            stated = bool(word.origin.request.authorization_id)
            made = _Request(call.certificate, word, stated, tuple(common.selections), common.known_policy_version)
            if len(key[1]) <= _LARGEST_KEPT:
                self._requests[key] = made
                if len(self._requests) > _MOST_KEPT:
                    self._requests.popitem(last=False)
        else:
            self._requests.move_to_end(key)
        return made

    async def _answer(self, made: _Request, said: _Said, call: Call) -> bytes:
        """Answer what was prepared, about a subject and as of a moment."""
        self.requests.wanted += 1
        now = self._reader.clock()
        self._contexts.check(made.word, now)
        origin, facts = made.word.origin, call.facts
        facts.asked(origin.caller, origin.request, None, said.query_id)
        # Without a subject only what an authorization opens by a condition: the reader checks that it does.
        about, named = said.subject, not made.authorized or said.HasField("subject")
        subject = reader.subject_of(about.scheme, about.value, about.as_written) if named else None
        as_of = reader.moment_of(said, now) if said.HasField("as_of") else None
        facts.about(subject)
        if made.authorized:
            facts.granted(self._reader.grant(origin))
        sections: list[bytes] = []
        for number, selection in enumerate(made.selections):
            asking = made.askings.get(number)
            if asking is None:
                asking = made.askings[number] = self._asking(origin, selection)
            try:
                # Whatever was waited for in between: each selection is decided by the time that it is then.
                moment = self._reader.clock() if number else now
                reading = await self._reader.answer(asking, moment, subject, None, as_of)
                facts.disclosed(reading.mask, len(reading.records), reading.withheld, reading.named)
                section = reader.section_of(reading, made.known_policy)
            except HutongError as error:
                section = self._without(asking, error, facts)
            sections.append(wire.embedded(_SECTIONS, section))
        return b"".join(sections)

    def _asking(self, origin: Origin, selection: exchange_pb2.Selection) -> Asking:
        question = Question(
            record_type=self._owned(selection.record_type),
            fields=tuple(selection.fields),
            filter=selection.filter,
            page_size=selection.page_size,
            page_token=selection.page_token,
        )
        return self._reader.asking(origin, question)

    def _without(self, asking: Asking, error: HutongError, facts: Facts) -> bytes:
        """Answer one selection whose records cannot be had: that costs its own section and no other.

        Raises the error where it is of another kind.
        """
        if error.reason not in _OF_ONE_TYPE:
            raise error
        mask = self._reader.decide(asking.origin, asking.record_type, asking.fields)
        facts.disclosed(mask, 0)
        denied = isinstance(error, PermissionDenied) or error.reason in _QUOTAS
        status = exchange_pb2.SECTION_STATUS_DENIED if denied else exchange_pb2.SECTION_STATUS_UNAVAILABLE
        return mask.head(status, error.reason)

    async def watch(
        self, request: record_source_pb2.WatchRequest, call: Call
    ) -> AsyncIterator[record_source_pb2.WatchResponse]:
        """Send changes as they are recorded, deciding anew for every batch: a policy change counts at once.

        Raises `ResourceExhausted` where the caller watches too much already.
        """
        origin = self._contexts.origin(request, call)
        call.facts.asked(origin.caller, origin.request)
        _check_size(request.selection)
        kind = self._owned(request.selection.record_type)
        with self._watches.counted(origin.caller.spiffe_id):
            async for response in self._watched(request, origin, kind, call.facts):
                yield response

    async def _watched(
        self, request: record_source_pb2.WatchRequest, origin: Origin, kind: RecordType, facts: Facts
    ) -> AsyncIterator[record_source_pb2.WatchResponse]:
        binding = (origin.caller.spiffe_id, kind.name)
        after = await self._start(request, binding)
        selection, idle = request.selection, self._heartbeat
        cutting: Cutting | None = None
        filters: tuple[Condition, ...] = ()
        while not self._stopping.is_set():
            grant = self._reader.grant(origin)
            if grant is not None:
                grant.scope.check_changes(kind)
                facts.granted(grant)
            mask = self._reader.mask(origin, kind, selection.fields, grant)
            if cutting is None or mask is not cutting.mask:
                # Once for each decision, not for each look: a long filter takes longer to parse than the look itself.
                reader.require_any(mask)
                cutting, filters = Cutting(mask), (*lookup.by_filter(mask, selection.filter), *mask.scope)
            changes = await self._changes(origin, mask, filters, after)
            records = self._reader.concerned(origin, mask, changes.records, grant)
            after = max(after, changes.last_seq)
            # What changed out of this caller's sight must not show, not even as an empty message at that moment.
            if records or idle >= self._heartbeat:
                idle = 0.0
                if grant is not None:
                    await grant.disclose(kind.name, len(records))
                response = record_source_pb2.WatchResponse(resume_token=self._resume.seal(after, binding))
                response.as_of.FromDatetime(changes.as_of)
                named: dict[Subject, int] = {}
                url = reader.type_url(kind)
                for record in cutting(records, named):
                    response.records.add(type_url=url, value=record)
                if records:
                    withheld = any(not all(record.truth) for record in records)
                    facts.disclosed(mask, len(records), withheld, named)
                yield response
            else:
                idle += self._poll
                await within(self._stopping, self._poll)

    async def _changes(self, origin: Origin, mask: ReadMask, filters: tuple[Condition, ...], after: int) -> Changes:
        params, source = self._reader.params(origin), self._reader.source
        return await source.changes(mask.record_type, after, _CHANGES_AT_ONCE, filters, mask.conditions, params)

    async def _start(self, request: record_source_pb2.WatchRequest, binding: tuple[str, ...]) -> int:
        if request.resume_token:
            return self._resume.open(request.resume_token, binding)
        return 0 if request.from_start else await self._reader.source.last_seq()

    async def describe(
        self, request: record_source_pb2.DescribeRequest, call: Call
    ) -> record_source_pb2.DescribeResponse:
        """Tell which record types the agency owns, and the policy version in force."""
        return record_source_pb2.DescribeResponse(
            agency=self._agency,
            record_types=[kind.info() for kind in self._catalogue],
            policy_version=self._reader.engine.version,
        )

    def _owned(self, name: str) -> RecordType:
        kind = self._catalogue.get(name)
        if kind.owner != self._agency:
            raise InvalidArgument(Reason.RECORD_TYPE_NOT_OWNED, f"{name} is not this department's", record_type=name)
        return kind


class TypedService:
    """An agency's typed service: `GetX` and `ListXs` for every record type, from the descriptors."""

    def __init__(self, descriptor: ServiceDescriptor, catalogue: Catalogue, reader: Reader) -> None:
        """Raises `FailedPrecondition` SCHEMA_INVALID where a method follows no convention."""
        by_name = {kind.message.DESCRIPTOR.full_name: kind for kind in catalogue}
        self._reader = reader
        for method in descriptor.methods:
            setattr(self, snake(method.name), self._handler(method, by_name))

    def _handler(self, method: MethodDescriptor, kinds: dict[str, RecordType]) -> Callable[..., Any]:
        response = message_factory.GetMessageClass(method.output_type)
        for each in method.output_type.fields:
            kind = kinds.get(each.message_type.full_name) if each.message_type else None
            if kind is not None:
                make = self._list if each.is_repeated else self._get
                return make(kind, response, each.name)
        raise FailedPrecondition(Reason.SCHEMA_INVALID, f"{method.full_name}: the response holds no record")

    def _get(self, kind: RecordType, response: type[Message], field: str) -> Callable[..., Any]:
        number = response.DESCRIPTOR.fields_by_name[field].number

        async def get(request: Any, call: Call) -> Reply:
            collection, slash, key = request.name.partition("/")
            _check_size(request)
            if collection != kind.collection or not slash or not key or len(key) > TEXT_LIMIT or "\x00" in key:
                raise InvalidArgument(Reason.NAME_INVALID, f"write the name as {kind.pattern}")
            question = Question(
                kind,
                key=key,
                fields=tuple(request.fields),
                page_size=1,
                as_of=reader.moment_of(request, self._reader.clock()),
            )
            origin = Origin(call.caller, request.context)
            _note_grant(self._reader, origin, call.facts)
            reading = await self._reader.read(origin, question)
            call.facts.disclosed(reading.mask, len(reading.records), reading.withheld, reading.named)
            answer = response(decisions=reading.mask.decisions).SerializeToString()
            return answer + wire.embedded(number, reader.the_one(reading))

        return get

    def _list(self, kind: RecordType, response: type[Message], field: str) -> Callable[..., Any]:
        number = response.DESCRIPTOR.fields_by_name[field].number

        async def list_(request: Any, call: Call) -> Reply:
            _check_size(request)
            subject = request.subject
            question = Question(
                kind,
                subject=reader.subject_of(subject.scheme, subject.value, subject.as_written)
                if request.HasField("subject")
                else None,
                fields=tuple(request.fields),
                filter=request.filter,
                page_size=request.page_size,
                page_token=request.page_token,
                as_of=reader.moment_of(request, self._reader.clock()),
            )
            call.facts.about(question.subject)
            origin = Origin(call.caller, request.context)
            _note_grant(self._reader, origin, call.facts)
            reading = await self._reader.read(origin, question)
            call.facts.disclosed(reading.mask, len(reading.records), reading.withheld, reading.named)
            reader.require_any(reading.mask)
            answer = response(decisions=reading.mask.decisions, next_page_token=reading.next_page_token)
            records = (wire.embedded(number, record) for record in reading.records)
            return b"".join((answer.SerializeToString(), *records))

        return list_
