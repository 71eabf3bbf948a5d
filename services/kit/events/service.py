"""The embedded transport of events and the door to an inbox, as gRPC services.

Events say no more than that there is something to look up, and no policy is asked; but they do tell somebody of
somebody, and are logged as answers are: for those whom they are about, where the node that serves them knows who it is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Final

from hutong.api.exchange.v1 import event_pb2, exchange_pb2
from services.kit.caller import Caller
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.events.inbox import Inbox
from services.kit.events.seam import MAX_NAME, Event, EventSource
from services.kit.log.facts import NOBODY, Named
from services.kit.rpc import Call
from services.kit.streams import Streams

EVENT: Final = "exchange.Event"
"""As what events stand in the log."""

About = Callable[[Sequence[Event]], Awaitable[Named]]
"""Tells which enterprises events are about, and how many of them are about each."""

Why = Callable[[Caller], exchange_pb2.RequestContext]
"""Tells for what purpose, and on what basis, events are sent to a caller."""

STREAMS = 16
"""Most streams of one caller at a time: one for each replica of its node, and some that have just been cut off."""

Heard = Callable[[str, int], Awaitable[None]]
"""Is told of a node, `agency/system`, that it has everything up to a sequence."""

_PAGE = 20
_MAX_PAGE = 200


def to_proto(event: Event, source: str = "") -> event_pb2.Event:
    """Write an event as a message; `source` names the node where the event itself does not."""
    message = event_pb2.Event(
        event_id=event.event_id,
        sequence=event.sequence,
        source=event.source or source,
        audience=event.audience,
        kind=event.kind,
        key=event.key,
        payload=event.payload,
        traceparent=event.traceparent,
    )
    message.recorded_at.FromDatetime(event.recorded_at)
    return message


class EventService:
    """`EventService`: gives every caller what is for its own agency, and nothing else."""

    def __init__(
        self,
        source: EventSource,
        node: str,
        *,
        about: About | None = None,
        why: Why | None = None,
        heard: Heard | None = None,
        streams: int = STREAMS,
    ) -> None:
        """`node` is `agency/system` of the node that serves; `about` and `why` are for the log; `heard` is told how far
        callers are; `streams` are each caller's.
        """
        self._source = source
        self._node = node
        self._about = about
        self._why = why
        self._heard = heard
        self._streams = Streams(streams)

    async def follow(self, request: event_pb2.FollowRequest, call: Call) -> AsyncIterator[event_pb2.FollowResponse]:
        """Send events for the caller's agency until the source stops.

        Raises `ResourceExhausted` STREAMS_TOO_MANY, and what `EventSource.follow` raises.
        """
        if request.after < 0:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "sequences are not negative")
        if self._why is not None:
            call.facts.stated(self._why(call.caller))
        with self._streams.counted(call.caller.spiffe_id):
            if self._heard is not None:
                await self._heard(f"{call.caller.agency}/{call.caller.system}", request.after)
            # Whose events these are is for the certificate to say, not for the request.
            async with aclosing(self._source.follow(call.caller.agency, request.after)) as batches:
                async for batch in batches:
                    events = [to_proto(event, self._node) for event in batch.events]
                    if events:
                        named = await self._about(batch.events) if self._about else NOBODY
                        call.facts.told(EVENT, len(events), named)
                    yield event_pb2.FollowResponse(events=events, until=batch.until)


class InboxService:
    """`InboxService`: what an agency's node has received, for the agency's own systems.

    Whom an event is about stands in no inbox; who was told of whom stands in the log of the node that sent it.
    """

    def __init__(self, inbox: Inbox, agency: str) -> None:
        self._inbox = inbox
        self._agency = agency

    async def list_inbox_events(
        self, request: event_pb2.ListInboxEventsRequest, call: Call
    ) -> event_pb2.ListInboxEventsResponse:
        """List received events; raises `PermissionDenied` for other agencies, whatever the access list says."""
        if call.caller.agency != self._agency:
            raise PermissionDenied(Reason.CALLER_NOT_LISTED, "an inbox is its own agency's")
        if request.after < 0:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "positions are not negative")
        if request.page_size < 0:
            raise InvalidArgument(Reason.PAGE_SIZE_INVALID, "a page size is not negative")
        for text in (request.kind, request.key):
            if len(text) > MAX_NAME or not text.isprintable():
                raise InvalidArgument(Reason.EVENT_INVALID, f"kind and key are text of at most {MAX_NAME} characters")
        size = min(request.page_size or _PAGE, _MAX_PAGE)
        received = await self._inbox.list(request.after, size, kind=request.kind, key=request.key)
        call.facts.told(EVENT, len(received.events))
        return event_pb2.ListInboxEventsResponse(events=map(to_proto, received.events), next_after=received.next_after)
