"""Decisions for whoever audits: entries of the log with their proofs, what they commit to, and the texts they rest on.

Either all of them, one after the other, or as many as asked for, drawn with a seed that the node could not know
(`services.kit.audit.sampling`). Whoever asked can follow both: of all, no index is left out; of a draw, the seed says
which. All pages of one question are proven in one tree, that of the moment of the first.
"""

import base64
import binascii
import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import sqlalchemy as sa
from google.protobuf.message import DecodeError

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit import sampling
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from services.kit.log import merkle, reading, texts
from services.kit.log.nodelog import NodeLog
from services.kit.log.reading import Logged
from services.kit.log.tables import TEXT
from services.kit.officers.tokens import Role
from services.kit.officers.verifier import Officers
from services.kit.records.pages import DEFAULT_SIZE, MAX_SIZE, MAX_TOKEN
from services.kit.rpc import Call

Request = log_service_pb2.SampleDecisionsRequest
Response = log_service_pb2.SampleDecisionsResponse

PAGE_BYTES: Final = 4 * 1024 * 1024
"""A page ends with the entry that makes it this large."""

MAX_DRAWN: Final = 500_000
"""Most indexes that one draw goes through, masks included."""

_ROLES: Final = (Role.AUDITOR, Role.DATA_OFFICER)
_BINDING: Final = 16


class Decisions:
    """What auditors and data officers may ask of a node's log."""

    def __init__(self, log: NodeLog, officers: Officers, agency: str) -> None:
        """`agency` is the node's own: its data officers may ask too."""
        self._log = log
        self._officers = officers
        self._agency = agency

    async def sample_decisions(self, request: Request, call: Call) -> Response:
        """Give a page of decisions.

        Raises what `Officers.verify` raises, `PermissionDenied` OFFICER_ROLE_MISSING for another agency's data
        officer, and what `page` raises.
        """
        officer = await self._officers.verify(request.officer_token, call.method, request, call, _ROLES)
        if Role.AUDITOR not in officer.roles and officer.agency != self._agency:
            raise PermissionDenied(Reason.OFFICER_ROLE_MISSING, "the officer has not the role for this", role="auditor")
        return await page(self._log, request)


async def page(log: NodeLog, request: Request) -> Response:
    """Give a page, whoever asks: of the node's own operator.

    Raises `InvalidArgument` MALFORMED_REQUEST for a draw or a seed out of bounds, PAGE_SIZE_INVALID,
    PAGE_TOKEN_INVALID or PAGE_TOKEN_MISMATCH; `Unavailable` LOG_UNAVAILABLE.
    """
    _check(request)
    place = await _place(log, request)
    if not place.size:
        return Response()
    # Of that very tree, which may have grown meanwhile.
    checkpoint = (await log.consistency(place.size, place.size)).checkpoint

    def work(connection: sa.Connection) -> Response:
        return _Page(connection, request, place).fill(Response(checkpoint=checkpoint))

    return await log.database.read(work)


def _check(request: Request) -> None:
    if request.page_size < 0:
        raise InvalidArgument(Reason.PAGE_SIZE_INVALID, "page_size is negative")
    if not 0 <= request.draw <= sampling.MAX_DRAW:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"draw is from 0 to {sampling.MAX_DRAW}", field="draw")
    least = sampling.MIN_SEED if request.draw else 0
    if not least <= len(request.seed) <= sampling.MAX_SEED:
        message = f"a draw needs a seed of {sampling.MIN_SEED} to {sampling.MAX_SEED} bytes"
        raise InvalidArgument(Reason.MALFORMED_REQUEST, message, field="seed")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a page begins."""

    size: int
    """Of the tree that everything is proven in."""
    start: int
    end: int
    at: int = 0
    """How many indexes came before: of the range, or of the draw."""
    found: int = 0
    """How many of those drawn were of decisions."""

    def write(self, request: Request) -> str:
        content = json.dumps([self.size, self.start, self.end, self.at, self.found]).encode()
        return base64.urlsafe_b64encode(_binding(request) + content).rstrip(b"=").decode()

    @classmethod
    def read(cls, request: Request, size: int) -> "_Place":
        """Read a token; raises `InvalidArgument`. It hides nothing, and opens nothing that was not open without it."""
        try:
            if len(request.page_token) > MAX_TOKEN:
                raise ValueError
            token = request.page_token + "=" * (-len(request.page_token) % 4)
            data = base64.b64decode(token, altchars=b"-_", validate=True)
            first, start, end, at, found = map(_number, json.loads(data[_BINDING:]))
            place = cls(first, start, end, at, found)
            in_order = 0 <= place.start <= place.end <= place.size <= size and place.size > 0
            if not in_order or not 0 <= place.at <= min(place.end - place.start, size) or place.found < 0:
                raise ValueError
        except (ValueError, TypeError, RecursionError, binascii.Error):
            raise InvalidArgument(Reason.PAGE_TOKEN_INVALID, "this is no page token of this log") from None
        if data[:_BINDING] != _binding(request) or (request.draw and place.at > MAX_DRAWN):
            raise InvalidArgument(
                Reason.PAGE_TOKEN_MISMATCH,
                "the page token belongs to another question; repeat everything but page_size",
            )
        return place


def _number(value: object) -> int:
    if type(value) is not int:
        raise ValueError
    return value


def _binding(request: Request) -> bytes:
    asked = Request()
    asked.CopyFrom(request)
    for name in ("officer_token", "page_size", "page_token"):
        asked.ClearField(name)
    return hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()[:_BINDING]


async def _place(log: NodeLog, request: Request) -> _Place:
    size = (await log.head()).size
    if request.page_token:
        return _Place.read(request, size)
    start = await log.first_since(_moment(request.since)) if request.HasField("since") else 0
    end = await log.first_since(_moment(request.until)) if request.HasField("until") else size
    return _Place(size, min(start, size), min(max(start, end), size))


def _moment(stamp: Any) -> dt.datetime:
    try:
        moment: dt.datetime = stamp.ToDatetime(dt.UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument(Reason.MALFORMED_REQUEST, "since or until is no moment that any clock shows") from None
    return moment


class _Page:
    """One page being filled, in one read of the database."""

    def __init__(self, connection: sa.Connection, request: Request, place: _Place) -> None:
        self._connection = connection
        self._request = request
        self._place = place
        # The proofs of one page go through the same few tiles.
        self._hashes = lru_cache(maxsize=64)(reading.stored_hashes(connection))
        self._texts: dict[tuple[str, str], log_service_pb2.ArchivedText] = {}

    def fill(self, response: Response) -> Response:
        request, place = self._request, self._place
        response.start, response.end = place.start, place.end
        most, size, at, found = min(request.page_size or DEFAULT_SIZE, MAX_SIZE), 0, place.at, place.found
        for entry in self._entries():
            at, found = at + 1, found + (not entry.entry.HasField("mask"))
            size += self._add(response, entry)
            if len(response.decisions) >= most or size >= PAGE_BYTES:
                break
        self._add_texts(response)
        more = at < place.end - place.start and not (request.draw and (found >= request.draw or at >= MAX_DRAWN))
        response.next_page_token = replace(place, at=at, found=found).write(request) if more else ""
        return response

    def _entries(self) -> Iterator[Logged]:
        """Read what comes next: of the draw, or of the range."""
        place, request = self._place, self._request
        if not request.draw:
            start = place.start + place.at
            count = min(request.page_size or DEFAULT_SIZE, MAX_SIZE, place.end - start)
            yield from reading.entries(self._connection, start, count)
            return
        found = place.found
        for index in islice(sampling.draw(request.seed, place.start, place.end), place.at, MAX_DRAWN):
            if found >= request.draw:
                return
            entry = reading.entry(self._connection, index)
            found += not entry.entry.HasField("mask")
            yield entry

    def _add(self, response: Response, logged: Logged) -> int:
        """Add an entry, and the texts it names; gives how many bytes that is."""
        proof = merkle.inclusion_proof(logged.index, self._place.size, self._hashes)
        decision = response.decisions.add(index=logged.index, entry=logged.data, proof=proof)
        opening = reading.opening(self._connection, logged.index)
        if opening is not None:
            decision.opening.CopyFrom(opening)
        return decision.ByteSize() + self._name(logged.entry)

    def _name(self, entry: log_pb2.LogEntry) -> int:
        masks = [each.mask_digest.hex() for each in entry.disclosures if each.mask_digest]
        added = self._find([*masks, *([entry.scope_digest.hex()] if entry.scope_digest else [])])
        versions = {_version(self._texts["mask", name].text) for name in masks if ("mask", name) in self._texts}
        return added + self._find(versions - {""})

    def _find(self, names: Iterable[str]) -> int:
        known = {name for _, name in self._texts}
        new = texts.find(self._connection, set(names) - known)
        self._texts.update({(text.kind, text.name): text for text in new})
        return sum(text.ByteSize() for text in new)

    def _add_texts(self, response: Response) -> None:
        # No entry says by which pack it was judged; there are few, and whoever recomputes needs one that fits.
        packs = self._connection.execute(sa.select(TEXT).where(TEXT.c.kind == "jurisdiction")).mappings()
        for row in packs:
            text = log_service_pb2.ArchivedText(**row)
            self._texts[text.kind, text.name] = text
        response.texts.extend(text for _, text in sorted(self._texts.items(), key=lambda item: item[0]))


def _version(mask: bytes) -> str:
    try:
        return log_pb2.MaskText.FromString(mask).policy_version
    except DecodeError:
        return ""
