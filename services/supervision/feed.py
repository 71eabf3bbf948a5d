"""The feed: tells nodes what is in force and what no longer is, within a heartbeat, and that it still looks.

A heartbeat says that the store was looked at since the one before, and that there was nothing new. Where it cannot be
looked at there are none: whoever follows must not take silence for good news.
"""

import time
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.caller import Caller
from services.kit.streams import Streams
from services.supervision import messages
from services.supervision.board import Board, Change

STREAMS: Final = 16
"""Most streams of one caller at a time: one for each replica of its node, and some that have just been cut off."""

_BYTES: Final = 1024 * 1024
"""About as many bytes in one message; a snapshot goes on in the messages after it."""


class Feed:
    """Tells who follows."""

    def __init__(self, board: Board, gateways: Collection[str], heartbeat: float) -> None:
        """`gateways` (`agency/system`) hear of every authorization; `heartbeat` is in seconds."""
        self._board = board
        self._gateways = frozenset(gateways)
        self._heartbeat = heartbeat
        self._streams = Streams(STREAMS)
        self._stopping = False

    def stop(self) -> None:
        """End what is being followed, so that a drain need not wait for it."""
        self._stopping = True

    async def follow(self, caller: Caller) -> AsyncGenerator[pb.FollowAuthorizationsResponse]:
        """Give what is in force and concerns the caller's agency, then every change, with heartbeats.

        Raises `ResourceExhausted` STREAMS_TOO_MANY.
        """
        with self._streams.counted(caller.spiffe_id):
            number: int | None = None
            told = 0.0
            while not self._stopping:
                board = self._board
                changes = None if number is None else board.since(number)
                snapshot = changes is None
                mine = [c for c in (board.active if changes is None else changes) if self._concerns(c, caller)]
                number = board.number
                if mine or snapshot or (board.looked > told and time.monotonic() - told >= self._heartbeat):
                    told = time.monotonic()
                    for response in _responses(mine, snapshot=snapshot):
                        response.as_of.FromDatetime(board.as_of)
                        yield response
                if board.number == number:
                    await board.news(self._heartbeat)

    def _concerns(self, change: Change, caller: Caller) -> bool:
        return caller.path in self._gateways or caller.agency in change.owners


def _responses(changes: Iterable[Change], *, snapshot: bool) -> Iterator[pb.FollowAuthorizationsResponse]:
    """Put changes into messages, the first of which may be empty; a snapshot counts from its last one on."""
    response, size = pb.FollowAuthorizationsResponse(snapshot=snapshot), 0
    for change in changes:
        if change.found is None or change.state is None:
            told = pb.Authorization(authorization_id=change.authorization_id)
        else:
            told = messages.authorization(change.found, change.state)
        if size and size + told.ByteSize() > _BYTES:
            response.more = snapshot
            yield response
            response, size = pb.FollowAuthorizationsResponse(), 0
        response.authorizations.append(told)
        size += told.ByteSize()
    yield response
