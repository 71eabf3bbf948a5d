"""Serving sessions: every question of a stream is run as a call of its own, and answered by its id when it is done.

A session reads no further while too many of its questions are unanswered, so that one who asks and never reads costs no
more than those. Before each message's questions are run, and before answers leave, the peer's certificate is checked
again (`Call.check`); access, policy and authorization are checked for each question, as for a unary call.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from google.protobuf.message import Message

from services.kit import wire
from services.kit.errors import (
    DeadlineExceeded,
    HutongError,
    Internal,
    InvalidArgument,
    Reason,
    ResourceExhausted,
)
from services.kit.rpc import Call, Reply, Rpc
from services.kit.sessions.deadlines import Deadlines

MOST_PREPARED: Final = 256
"""Numbers that a session may prepare questions under."""

LARGEST_PREPARED: Final = 16 * 1024
"""Bytes of a prepared question: a session keeps it, and all its questions share its messages."""

MOST_KEPT: Final = 16 * 1024 * 1024
"""Bytes of prepared questions that all sessions of one caller may keep."""

MOST_UNANSWERED: Final = 1024
"""Questions of one session that may be unanswered; it is not read further until there are fewer."""

MOST_UNSENT: Final = 4 * 1024 * 1024
"""Bytes of answers that may wait to be sent, with whatever runs at that moment; as above."""

ANSWERS_BYTES: Final = 256 * 1024
"""A message of answers is sent once it has this many bytes; a single answer may have more."""

MESSAGE_UNSAID: Final = 4 * 1024 * 1024
"""Bytes of the largest message that an asker takes who does not say."""

ROOM: Final = 4 * 1024
"""Bytes of a message beside the one answer in it: its receipt, its id."""

_ANSWERS: Final = 1
_ID: Final = 1
_RESPONSE: Final = 2
_STATUS: Final = 3
_LONGEST_WAIT: Final = 365 * 86_400.0
_log = logging.getLogger(__name__)

P = TypeVar("P")


@dataclass(slots=True)
class Prepared(Generic[P]):
    """What several questions have in common, as it was sent."""

    question: Any
    """The message: `QueryRequest` or `FetchRequest`."""
    size: int
    """Its bytes."""
    made: P | None = None
    """What the service makes of it, and keeps for as long as that stands."""


Answerer = Callable[[Prepared[Any], Any, Call], Awaitable[Reply]]
"""Answers one question, from what was prepared, the ask and its call; raises `HutongError`, as a unary handler does."""


class Sessions:
    """The sessions of one rpc."""

    def __init__(self, inner: Rpc, answerer: Answerer) -> None:
        """Every question is run as a call of `inner`: under its access list, and by its name in traces and logs."""
        self._inner = inner
        self._answerer = answerer
        self._open: set[_Session] = set()
        self._kept: Counter[str] = Counter()
        """Bytes that each caller has prepared, in all its sessions."""

    async def serve(self, requests: AsyncIterator[Message], call: Call) -> AsyncIterator[Reply]:
        """Serve one session, until its questions end and all are answered."""
        session = _Session(self._inner, self._answerer, call, self._kept)
        self._open.add(session)
        reading = asyncio.ensure_future(session.read(requests))
        try:
            while (message := await session.next_message()) is not None:
                yield message
            # A session that was stopped reads no more; one whose questions have ended is done.
            if reading.done():
                reading.result()
        finally:
            self._open.discard(session)
            reading.cancel()
            await session.close()
            await asyncio.gather(reading, return_exceptions=True)

    @property
    def unanswered(self) -> int:
        """How many questions of all sessions run, or were answered and not sent yet."""
        return sum(session.unanswered for session in list(self._open))

    def stop(self) -> None:
        """Read no further question, answer what was read, and end: so a drain need not wait for peers."""
        for session in self._open:
            session.stop()


class _Session:
    """One session."""

    def __init__(self, inner: Rpc, answerer: Answerer, call: Call, kept: Counter[str]) -> None:
        """`kept` counts the bytes that each caller has prepared, in all its sessions."""
        if call.run is None:
            raise AssertionError("sessions are run by a dispatcher")
        self._most = min(MESSAGE_UNSAID, call.answer_bytes)
        """Bytes of the largest message that may leave."""
        self._kept = kept
        self._inner = inner
        self._answerer = answerer
        self._call = call
        self._run = call.run
        self._loop = asyncio.get_running_loop()
        self._prepared: dict[int, Prepared[Any]] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._deadlines: Deadlines[int] = Deadlines(self._expire)
        self._expired: set[int] = set()
        self._answers: deque[bytes] = deque()
        self._unsent = 0
        """Bytes of the answers that wait."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        """No more questions will come."""
        self._failure: BaseException | None = None

    async def read(self, requests: AsyncIterator[Any]) -> None:
        """Begin the questions of each message as it comes."""
        try:
            async for request in requests:
                if self._call.check is not None:
                    self._call.check()
                if request.max_message_bytes:
                    self._most = min(request.max_message_bytes, self._call.answer_bytes)
                for prepare in request.prepare:
                    self._prepare(prepare)
                for ask in request.asks:
                    self._begin(ask)
                    while self._full():
                        self._room.clear()
                        await self._room.wait()
                # Messages may lie ready, one behind the other: what was begun must run, or nobody knows its size.
                await asyncio.sleep(0)
                for number in request.cancels:
                    self._cancel(number)
        except Exception as error:
            self._failure = error
        finally:
            self._ended = True
            self._news.set()

    @property
    def unanswered(self) -> int:
        """How many questions run, or were answered and not sent yet."""
        return len(self._running) + len(self._answers)

    def _full(self) -> bool:
        return self.unanswered >= MOST_UNANSWERED or self._unsent >= MOST_UNSENT

    def stop(self) -> None:
        """Begin no further question."""
        self._ended = True
        self._news.set()

    async def next_message(self) -> bytes | None:
        """Give all the answers there are, at least one; None once there will be no more.

        Raises what ended the session, without waiting for what still runs.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            if self._answers:
                return self._take()
            if self._ended and not self._running:
                return None
            self._news.clear()
            await self._news.wait()

    async def close(self) -> None:
        """Cut what still runs, and keep nothing more."""
        self._deadlines.close()
        for prepared in self._prepared.values():
            self._forget(prepared)
        self._prepared.clear()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take(self) -> bytes:
        taken: list[bytes] = []
        size, most = 0, min(ANSWERS_BYTES, self._most)
        while self._answers and (not taken or size + len(self._answers[0]) <= most):
            answer = self._answers.popleft()
            taken.append(answer)
            size += len(answer)
        self._unsent -= size
        self._room.set()
        return b"".join(taken)

    def _prepare(self, prepare: Any) -> None:
        if prepare.id >= MOST_PREPARED:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, f"prepared questions have numbers below {MOST_PREPARED}")
        question = prepare.query if prepare.DESCRIPTOR.fields_by_name.get("query") else prepare.fetch
        prepared: Prepared[Any] = Prepared(question, question.ByteSize())
        if prepared.size > LARGEST_PREPARED:
            raise ResourceExhausted(
                Reason.REQUEST_TOO_LARGE, f"what is prepared has at most {LARGEST_PREPARED} bytes: ask it by itself"
            )
        caller = self._call.caller.spiffe_id
        former = self._prepared.get(prepare.id)
        if former is not None:
            self._forget(former)
        self._prepared[prepare.id] = prepared
        self._kept[caller] += prepared.size
        if self._kept[caller] > MOST_KEPT:
            raise ResourceExhausted(
                Reason.REQUEST_TOO_LARGE, f"all that one caller prepares has at most {MOST_KEPT} bytes"
            )

    def _forget(self, prepared: Prepared[Any]) -> None:
        caller = self._call.caller.spiffe_id
        self._kept[caller] -= prepared.size
        if not self._kept[caller]:
            del self._kept[caller]

    def _begin(self, ask: Any) -> None:
        number = ask.id
        if self._ended:
            return
        if number in self._running:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, "an ask has the id of one that is not yet answered")
        outer = self._call
        call = Call(
            method=self._inner.method,
            caller=outer.caller,
            certificate=outer.certificate,
            deadline=self._deadline(ask),
            metadata={"traceparent": ask.traceparent} if ask.traceparent else {},
            answer_bytes=max(0, self._most - ROOM),
        )
        tick = 0 if call.deadline is None else self._deadlines.add(number, call.deadline)
        # What is prepared under its number now: the next message may say something else.
        prepared = self._prepared.get(ask.prepared)
        self._running[number] = self._loop.create_task(self._answer(number, tick, prepared, ask, call))

    def _deadline(self, ask: Any) -> float | None:
        if not ask.HasField("timeout"):
            return None
        wait: float = ask.timeout.seconds + ask.timeout.nanos / 1e9
        return time.monotonic() + min(max(wait, 0.0), _LONGEST_WAIT)

    def _expire(self, number: int) -> None:
        task = self._running.get(number)
        if task is not None:
            self._expired.add(number)
            # A task that is cancelled before it has begun never comes to the end that tells of it.
            self._loop.call_soon(task.cancel)

    def _cancel(self, number: int) -> None:
        task = self._running.get(number)
        if task is not None:
            task.cancel()

    async def _answer(self, number: int, tick: int, prepared: Prepared[Any] | None, ask: Any, call: Call) -> None:
        try:
            reply = await self._run(self._inner, call, lambda: self._asked(prepared, ask, call))
            self._put(number, wire.embedded(_RESPONSE, reply))
        except HutongError as error:
            self._refuse(number, error)
        except asyncio.CancelledError:
            if number not in self._expired:
                raise
            self._refuse(number, DeadlineExceeded(Reason.DEADLINE_TOO_SHORT, "no answer before the deadline"))
        except Exception:
            # The dispatcher leaves none; should it, this question has failed, and no other.
            _log.exception("Question of a session failed")
            self._refuse(number, Internal(Reason.INTERNAL, "the question failed"))
        finally:
            self._deadlines.discard(number, tick)
            self._expired.discard(number)
            self._running.pop(number, None)
            self._news.set()

    def _asked(self, prepared: Prepared[Any] | None, ask: Any, call: Call) -> Awaitable[Reply]:
        if prepared is None:
            raise InvalidArgument(Reason.MALFORMED_REQUEST, f"nothing was prepared under {ask.prepared}")
        return self._answerer(prepared, ask, call)

    def _refuse(self, number: int, error: HutongError) -> None:
        self._put(number, wire.embedded(_STATUS, wire.to_status(error).SerializeToString()))

    def _put(self, number: int, outcome: bytes) -> None:
        answer = wire.embedded(_ANSWERS, wire.whole(_ID, number) + outcome)
        self._answers.append(answer)
        self._unsent += len(answer)
