"""Asking over sessions: questions go out together with whatever else is asked meanwhile, answers come back by id.

A session is opened by the first question, and again after it has ended. Questions that were not answered when a session
ended for want of a connection are asked once more on the next one, within their deadlines: reading twice does no harm.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from services.kit import wire
from services.kit.errors import DeadlineExceeded, HutongError, Reason, ResourceExhausted, Unavailable
from services.kit.rpc import MESSAGE_BYTES
from services.kit.sessions.deadlines import Deadlines
from services.kit.sessions.serving import LARGEST_PREPARED, MOST_PREPARED
from services.kit.transport.seam import Channel

_PREPARE: Final = 1
_ASKS: Final = 2
_CANCELS: Final = 3
_MAX_MESSAGE_BYTES: Final = 4
_ID: Final = 1
_QUESTION: Final = 2
_PREPARED: Final = 2

_log = logging.getLogger(__name__)

Told = Callable[[Any], None]
"""Is given the answer's message, or the `HutongError` there is in its place; called in the loop, and must not raise."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A question that is not yet answered."""

    question: bytes
    """What is prepared for it."""
    rest: bytes
    told: Told
    tick: int
    again: bool = False
    """It was on a session that broke."""


class AskingSession:
    """Questions to one node, over one channel. To be used in one event loop."""

    def __init__(self, channel: Channel, method: str, response: type[Message]) -> None:
        """`method` is the session's rpc, and `response` the message that its answers come in."""
        self._channel = channel
        self._method = method
        self._response = response
        self._numbers: OrderedDict[bytes, int] = OrderedDict()
        """What is prepared on the session that is open, by its question; the one used least lately first."""
        self._waiting: dict[int, _Asked] = {}
        self._next = 0
        self._head = wire.whole(_MAX_MESSAGE_BYTES, channel.response_bytes)
        """What every session begins with."""
        self._out = [self._head]
        self._fresh: set[int] = set()
        """Numbers that questions not yet sent rely on: not to be prepared anew in the same message."""
        self._news = asyncio.Event()
        self._deadlines: Deadlines[int] = Deadlines(self._expire)
        self._running: asyncio.Task[None] | None = None
        self._opened = 0
        """How many sessions there were: what feeds a former one must not take what is meant for this one."""
        self._heard = False
        """The other side has answered something on the session that is open."""
        self._closing = False

    @property
    def waiting(self) -> int:
        """How many questions are not yet answered."""
        return len(self._waiting)

    def ask(self, question: bytes, rest: bytes, wait: float, told: Told) -> int:
        """Ask, and have `told` called once: with the answer's message, or with the `HutongError` in its place.

        `question` is what several questions have in common, serialized as `Prepare` wants it; `rest` is the ask's own
        fields beside its id and number, serialized; `wait` is in seconds. Gives the number that `forget` wants.
        """
        self._next += 1
        number = self._next
        if self._closing:
            told(_closed())
        elif len(question) > LARGEST_PREPARED or len(rest) > LARGEST_PREPARED:
            # All that is asked over the session would be refused with it.
            message = f"over a session a question has at most {LARGEST_PREPARED} bytes: ask it by itself"
            told(ResourceExhausted(Reason.REQUEST_TOO_LARGE, message))
        else:
            tick = self._deadlines.add(number, time.monotonic() + wait)
            asked = self._waiting[number] = _Asked(question, rest, told, tick)
            self._send(number, asked)
        return number

    def forget(self, number: int) -> None:
        """Wait no longer for an answer: `told` is not called, and the other side need not go on."""
        asked = self._waiting.pop(number, None)
        if asked is None:
            return
        self._deadlines.discard(number, asked.tick)
        self._out.append(wire.whole(_CANCELS, number))
        self._news.set()
        self._answered_all()

    async def close(self) -> None:
        """End the session once its questions are answered, or have expired."""
        self._closing = True
        self._answered_all()
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)
        self._deadlines.close()

    def _answered_all(self) -> None:
        """Have a session that is to be closed end, if nothing waits any more."""
        if not self._closing or self._waiting:
            return
        self._news.set()
        if not self._heard and self._running is not None:
            # Perhaps there is nobody who could be told that it ends.
            self._running.cancel()

    def cut(self) -> None:
        """End the session now: whatever waits is told that there is no answer."""
        self._closing = True
        self._news.set()
        if self._running is not None:
            self._running.cancel()
        self._fail(_closed())
        self._deadlines.close()

    def _send(self, number: int, asked: _Asked) -> None:
        prepared = self._prepare(asked.question)
        self._fresh.add(prepared)
        head = wire.whole(_ID, number) + wire.whole(_PREPARED, prepared)
        self._out.append(wire.embedded(_ASKS, head + asked.rest))
        self._news.set()
        if self._running is None:
            self._running = asyncio.ensure_future(self._run())

    def _prepare(self, question: bytes) -> int:
        number = self._numbers.get(question)
        if number is not None:
            self._numbers.move_to_end(question)
            return number
        if len(self._numbers) < MOST_PREPARED:
            number = len(self._numbers)
        else:
            number = self._numbers.popitem(last=False)[1]
            if number in self._fresh:
                # In one message, what is prepared holds for all its questions: this begins the next one.
                self._out.append(b"")
                self._fresh.clear()
        self._numbers[question] = number
        self._out.append(wire.embedded(_PREPARE, wire.whole(_ID, number) + wire.embedded(_QUESTION, question)))
        return number

    async def _run(self) -> None:
        """Keep a session for as long as there is something to ask, and a moment longer."""
        while True:
            error: HutongError | None = None
            try:
                await self._session()
            except HutongError as raised:
                error = raised
            except Exception:
                # Whatever it is, somebody waits, and the next question needs a session as well.
                _log.exception("Session failed")
                error = Unavailable(Reason.DEPARTMENT_FAILED, "the session failed")
            if self._closing:
                self._fail(error or _closed())
                self._deadlines.close()
                return
            self._again(error or Unavailable(Reason.SHUTTING_DOWN, "the session was ended"))
            if not self._waiting:
                self._running = None
                return

    async def _session(self) -> None:
        self._opened += 1
        self._heard = False
        raws = self._channel.stream(self._method, self._messages(self._opened), None)
        async with aclosing(raws):  # type: ignore[type-var]  # pyright: ignore
            async for raw in raws:
                self._heard = True
                try:
                    answers = self._response.FromString(raw)
                except DecodeError:
                    raise Unavailable(Reason.DEPARTMENT_FAILED, "what came is no answer") from None
                for answer in answers.answers:  # type: ignore[attr-defined]
                    self._answered(answer)

    async def _messages(self, session: int) -> AsyncIterator[bytes]:
        while session == self._opened:
            if self._out:
                yield self._take()
                continue
            if self._closing and not self._waiting:
                return
            self._news.clear()
            await self._news.wait()

    def _take(self) -> bytes:
        """Take what waits to be sent, up to a break, or until it is much."""
        size = taken = 0
        for part in self._out:
            if taken and (not part or size + len(part) > MESSAGE_BYTES):
                break
            size += len(part)
            taken += 1
        message = b"".join(self._out[:taken])
        del self._out[:taken]
        if not self._out:
            self._fresh.clear()
        return message

    def _answered(self, answer: Any) -> None:
        asked = self._waiting.pop(answer.id, None)
        if asked is None:
            return
        self._deadlines.discard(answer.id, asked.tick)
        self._answered_all()
        asked.told(answer.response if answer.HasField("response") else wire.read_status(answer.status))

    def _expire(self, number: int) -> None:
        asked = self._waiting.pop(number, None)
        if asked is not None:
            self._answered_all()
            asked.told(DeadlineExceeded(Reason.DEPARTMENT_TIMEOUT, "there was no answer in time"))

    def _again(self, error: HutongError) -> None:
        """Ask what is unanswered once more on the next session, where that may help; tell the others why not."""
        self._opened += 1
        self._numbers.clear()
        self._out = [self._head]
        self._fresh.clear()
        retried = isinstance(error, Unavailable)
        for number, asked in list(self._waiting.items()):
            if retried and not asked.again:
                asked.again = True
                self._resend(number, asked)
            else:
                del self._waiting[number]
                self._deadlines.discard(number, asked.tick)
                asked.told(error)

    def _resend(self, number: int, asked: _Asked) -> None:
        head = wire.whole(_ID, number) + wire.whole(_PREPARED, self._prepare(asked.question))
        self._out.append(wire.embedded(_ASKS, head + asked.rest))
        self._news.set()

    def _fail(self, error: HutongError) -> None:
        waiting, self._waiting = self._waiting, {}
        for number, asked in waiting.items():
            self._deadlines.discard(number, asked.tick)
            asked.told(error)


def _closed() -> Unavailable:
    return Unavailable(Reason.SHUTTING_DOWN, "the session is closed")
