"""The departments as the gateway has them: where each is, how long it is waited for, and the session it is asked over.

A signed context is good only over connections of the certificate whose key signed it, so a session belongs to one
identity: when that is renewed another session takes over, and the former one ends once its questions are answered.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from certs.svid import Svid
from gateway.asked import Asked
from hutong.api.exchange.v1 import record_source_pb2
from services.kit import wire
from services.kit.client import Client
from services.kit.errors import HutongError, Reason, Unavailable
from services.kit.sessions.asking import AskingSession
from services.kit.sessions.serving import LARGEST_PREPARED

FETCH: Final = "/hutong.api.exchange.v1.RecordSourceService/Fetch"
SESSION: Final = "/hutong.api.exchange.v1.RecordSourceService/FetchSession"

_TIMEOUT: Final = record_source_pb2.FetchSessionRequest.Ask.TIMEOUT_FIELD_NUMBER
_SECONDS: Final = 1
_NANOS: Final = 2

Outcome = record_source_pb2.FetchResponse | HutongError
"""What came of an ask: the response, or the error in its place."""

Told = Callable[[Outcome], None]


class Department:
    """One department."""

    def __init__(self, agency: str, client: Client, timeout: float) -> None:
        """`timeout` is the longest wait for it, in seconds."""
        self.client = client
        self._timeout = timeout
        self._longest = _timeout(timeout)
        self._svid: Svid | None = None
        self._session: AskingSession | None = None
        self._former: dict[asyncio.Task[None], AskingSession] = {}
        self._alone = Asked[record_source_pb2.FetchResponse](
            agency, Unavailable(Reason.DEPARTMENT_FAILED, "the department cannot be asked now")
        )

    def ask(self, svid: Svid, question: bytes, rest: bytes, wait: float, told: Told) -> Callable[[], object]:
        """Ask as `svid`, which signed the question, and have `told` called once, within `wait` seconds.

        `question` and `rest` are those of `gateway.plan.Ask` and `gateway.plan.Plan`. Gives what is to be called where
        nobody waits any more: then `told` is not.
        """
        if wait < self._timeout:
            rest += _timeout(wait)
        else:
            wait, rest = self._timeout, rest + self._longest
        if len(question) > LARGEST_PREPARED:
            return self._ask_alone(svid, question, rest, wait, told)
        session = (self._session if svid is self._svid else None) or self._session_of(svid)
        return partial(session.forget, session.ask(question, rest, wait, told))

    @property
    def waiting(self) -> int:
        """How many questions it has not answered yet."""
        sessions = [*self._former.values(), *([self._session] if self._session else [])]
        return len(self._alone) + sum(session.waiting for session in sessions)

    async def close(self) -> None:
        """End everything that is asked: whoever waits is told that there is no answer."""
        sessions = list(self._former.values())
        if self._session is not None:
            sessions.append(self._session)
        for session in sessions:
            session.cut()
        await asyncio.gather(self._alone.close(), *(session.close() for session in sessions), return_exceptions=True)

    def _session_of(self, svid: Svid) -> AskingSession:
        session = self._session
        if session is None or self._svid is None or self._svid.version != svid.version:
            if session is not None:
                task = asyncio.ensure_future(session.close())
                self._former[task] = session
                task.add_done_callback(self._former.pop)
            channel = self.client.channel(svid)
            session = self._session = AskingSession(channel, SESSION, record_source_pb2.FetchSessionResponse)
        self._svid = svid
        return session

    def _ask_alone(self, svid: Svid, question: bytes, rest: bytes, wait: float, told: Told) -> Callable[[], object]:
        ask = record_source_pb2.FetchSessionRequest.Ask.FromString(rest)
        request = record_source_pb2.FetchRequest.FromString(question)
        request.query_id = ask.query_id
        if ask.HasField("subject"):
            request.subject.CopyFrom(ask.subject)
        if ask.HasField("as_of"):
            request.as_of.CopyFrom(ask.as_of)

        response, parent = record_source_pb2.FetchResponse, ask.traceparent
        fetch = partial(self.client.unary, FETCH, request, response, timeout=wait, traceparent=parent, svid=svid)
        return self._alone.ask(fetch, told)


def _timeout(seconds: float) -> bytes:
    """Write how long the answer is waited for, as it stands in an ask."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return wire.embedded(_TIMEOUT, wire.whole(_SECONDS, whole) + wire.whole(_NANOS, milliseconds * 1_000_000))
