"""Who read an enterprise's records, at every agency: the lists of all nodes, merged with the newest first.

A page token holds, for every agency that has more, the page it is on there and the last read that was told: pages of
departments move on as new reads are logged, but a read keeps its index. An agency that gave no answer is named, and
asked again for the next page; what it tells then may be newer than what was told before.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hutong.api.exchange.v1 import reads_pb2
from services.kit.client import Client
from services.kit.context import ContextSigner, request_digest
from services.kit.errors import HutongError, InvalidArgument, Reason, Unavailable
from services.kit.identity import Identity
from services.kit.log.reads import subject_of
from services.kit.policy.engine import PolicyEngine
from services.kit.records.pages import MAX_SIZE, PageTokens
from services.kit.rpc import Call
from services.kit.telemetry import ids

FETCH_READS: Final = "/hutong.api.exchange.v1.ReadsService/FetchReads"
_MOST_PAGES: Final = 50
"""Most pages of one department that are gone through for one page of ours."""
_PAGE_TOKENS: Final = (Reason.PAGE_TOKEN_INVALID, Reason.PAGE_TOKEN_MISMATCH)
_log = logging.getLogger(__name__)

Fetch = Callable[[str], Awaitable[reads_pb2.FetchReadsResponse]]
"""Gets a page of one department's reads, by its token."""


@dataclass(frozen=True, slots=True)
class _Place:
    """How far one agency's reads have been told."""

    token: str = ""
    """Of the page there."""
    after: int | None = None
    """Index of the last read told."""


@dataclass(frozen=True, slots=True)
class _Told:
    """A read, and where to go on after it."""

    read: reads_pb2.Read
    place: _Place

    @property
    def order(self) -> tuple[int, int, str, int]:
        """The newest first; what is of one moment stands in one order, whoever asks."""
        time = self.read.time
        return -time.seconds, -time.nanos, self.read.owner, -self.read.index


@dataclass(frozen=True, slots=True)
class _Lot:
    """What one agency has to tell next."""

    told: Sequence[_Told]
    more: bool
    """There is more after these."""


class AllReads:
    """Asks every department for the reads of an enterprise's records."""

    def __init__(
        self,
        clients: Mapping[str, Client],
        identity: Identity,
        signer: ContextSigner,
        engine: PolicyEngine,
        pages: PageTokens,
    ) -> None:
        """`clients` are the departments', by agency."""
        self._clients = clients
        self._identity = identity
        self._signer = signer
        self._engine = engine
        self._pages = pages

    async def list(self, request: reads_pb2.ListReadsRequest, call: Call, wait: float) -> reads_pb2.ListReadsResponse:
        """Give a page; departments have `wait` seconds for it.

        Raises as `services.kit.log.reads.subject_of` and `PolicyEngine.check_context` do, and `InvalidArgument` for a
        token of another list.
        """
        self._engine.check_context(request.context)
        subject = subject_of(call.caller, request.subject, request.context)
        call.facts.about(subject)
        size, binding = self._pages.size(request.page_size), ("all reads", call.caller.spiffe_id, *subject)
        places = self._places(request.page_token, binding)
        lots = await self._lots(places, size, request, call, wait)
        answered = {agency: lot for agency, lot in lots.items() if lot is not None}
        told = sorted((told for lot in answered.values() for told in lot.told), key=lambda told: told.order)[:size]
        left = _left(answered, told, places)
        token = ""
        if left.keys() & answered.keys():
            written = {agency: [place.token, place.after] for agency, place in sorted(left.items())}
            token = self._pages.seal(json.dumps(written, separators=(",", ":")), None, binding)
        missing = sorted(places.keys() - answered.keys())
        return reads_pb2.ListReadsResponse(reads=[each.read for each in told], next_page_token=token, missing=missing)

    def _places(self, token: str, binding: tuple[str, ...]) -> dict[str, _Place]:
        """Read how far each agency was told; raises `InvalidArgument`."""
        if not token:
            return {agency: _Place() for agency in self._clients}
        written = json.loads(self._pages.open(token, binding).key)
        # A department that is gone from the config since has nothing to tell.
        return {agency: _Place(*place) for agency, place in written.items() if agency in self._clients}

    async def _lots(
        self,
        places: Mapping[str, _Place],
        size: int,
        request: reads_pb2.ListReadsRequest,
        call: Call,
        wait: float,
    ) -> dict[str, _Lot | None]:
        """Ask every agency at once; where one of them refuses the whole list, the others are asked no further."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    agency: group.create_task(self._lot(agency, place, size, request, call, wait))
                    for agency, place in places.items()
                }
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        return {agency: task.result() for agency, task in tasks.items()}

    async def _lot(
        self,
        agency: str,
        place: _Place,
        size: int,
        request: reads_pb2.ListReadsRequest,
        call: Call,
        wait: float,
    ) -> _Lot | None:
        """Ask one agency; None where it gives no answer."""
        try:
            async with asyncio.timeout(wait):
                return await _gather(agency, place, size, self._fetch(agency, size, request, call, wait))
        except (HutongError, TimeoutError) as error:
            reason = error.reason if isinstance(error, HutongError) else Reason.DEPARTMENT_TIMEOUT
            if reason in _PAGE_TOKENS:
                # It has another secret by now: the list can only be begun anew.
                raise InvalidArgument(reason, "the page token stands no longer; begin anew") from None
            fields = {"department": agency, "reason": reason, **ids(call.traceparent)}
            _log.warning("Department told of no reads", extra={"fields": fields})
            return None

    def _fetch(self, agency: str, size: int, request: reads_pb2.ListReadsRequest, call: Call, wait: float) -> Fetch:
        async def fetch(token: str) -> reads_pb2.FetchReadsResponse:
            asked = reads_pb2.FetchReadsRequest(subject=request.subject, page_size=size, page_token=token)
            svid = self._identity.svid()
            signed = self._signer.sign(svid, call.caller, request.context, [request_digest(asked)])
            asked.delegated.CopyFrom(signed)
            return await self._clients[agency].unary(
                FETCH_READS,
                asked,
                reads_pb2.FetchReadsResponse,
                timeout=wait,
                traceparent=call.traceparent,
                svid=svid,
            )

        return fetch


async def _gather(agency: str, place: _Place, size: int, fetch: Fetch) -> _Lot:
    """Get what an agency has after a place, a page of ours at least, where there is as much.

    Raises `Unavailable` DEPARTMENT_FAILED where what it sends is no such list.
    """
    told: list[_Told] = []
    token, after = place.token, place.after
    for _ in range(_MOST_PAGES):
        page = await fetch(token)
        if len(page.reads) > MAX_SIZE:
            raise Unavailable(Reason.DEPARTMENT_FAILED, "the department sent more than a page")
        page.DiscardUnknownFields()
        for read in page.reads:
            if after is None or read.index < after:
                after = read.index
                read.owner = agency
                told.append(_Told(read, _Place(token, after)))
        if told and page.next_page_token:
            told[-1] = replace(told[-1], place=_Place(page.next_page_token, after))
        if not page.next_page_token or len(told) >= size:
            return _Lot(told, bool(page.next_page_token))
        token = page.next_page_token
    raise Unavailable(Reason.DEPARTMENT_FAILED, "the department's list has no end")


def _left(answered: Mapping[str, _Lot], told: Sequence[_Told], places: Mapping[str, _Place]) -> dict[str, _Place]:
    """Say where to go on at each agency that has more, and at those that gave no answer."""
    reached = {each.read.owner: each.place for each in told}
    count = dict.fromkeys(answered, 0)
    for each in told:
        count[each.read.owner] += 1
    return {
        agency: reached.get(agency, place)
        for agency, place in places.items()
        if agency not in answered or answered[agency].more or count[agency] < len(answered[agency].told)
    }
