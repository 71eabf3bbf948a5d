"""Federated questions over a session: `QueryRequest` in, `QueryResponse` out; what they have in common is said once."""

import asyncio

from hutong.api.exchange.v1 import federation_pb2
from services.kit.errors import HutongError
from services.kit.sessions.asking import AskingSession
from services.kit.transport.seam import Channel

SESSION = "/hutong.api.exchange.v1.FederationService/Session"

_Outcome = federation_pb2.QueryResponse | HutongError


class QuerySession:
    """Questions to one gateway, over one channel. To be used in one event loop."""

    def __init__(self, channel: Channel) -> None:
        """Nothing is opened before the first question."""
        self._session = AskingSession(channel, SESSION, federation_pb2.SessionResponse)

    async def query(
        self, question: federation_pb2.QueryRequest, wait: float, traceparent: str = ""
    ) -> federation_pb2.QueryResponse:
        """Ask, and wait so many seconds; raises the `HutongError` the gateway answered with.

        Questions that differ only in whom they are about, and as of when, cost each other least.
        """
        common = federation_pb2.QueryRequest()
        common.CopyFrom(question)
        common.ClearField("subject")
        common.ClearField("as_of")
        ask = federation_pb2.SessionRequest.Ask(traceparent=traceparent)
        if question.HasField("subject"):
            ask.subject.CopyFrom(question.subject)
        if question.HasField("as_of"):
            ask.as_of.CopyFrom(question.as_of)
        ask.timeout.FromMilliseconds(round(wait * 1000))
        answered: asyncio.Future[federation_pb2.QueryResponse] = asyncio.get_running_loop().create_future()

        def told(outcome: _Outcome) -> None:
            if answered.done():
                return
            if isinstance(outcome, HutongError):
                answered.set_exception(outcome)
            else:
                answered.set_result(outcome)

        self._session.ask(common.SerializeToString(), ask.SerializeToString(), wait, told)
        return await answered

    async def close(self) -> None:
        """End the session once its questions are answered, or have expired."""
        await self._session.close()
