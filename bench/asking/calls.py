"""Asking over gRPC: ours by session and by unary call, peers by unary call."""

import asyncio
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from bench import corpus
from bench.asking import checking
from bench.asking.job import Job
from bench.asking.way import Told
from bench.peers import contract
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.client import Client
from services.kit.config import Transport
from services.kit.sessions.asking import AskingSession
from services.kit.transport import choice

SERVICE: Final = "/hutong.api.exchange.v1.FederationService"
WAIT: Final = 10.0
"""Seconds."""


def leanest() -> Transport:
    """Name the transport that costs the generator least."""
    try:
        choice.channel("nghttp2")
    except KeyError:
        return "grpcio"
    return "nghttp2"


def question(job: Job) -> federation_pb2.QueryRequest:
    """Make the question without its subject."""
    return federation_pb2.QueryRequest(
        selections=[exchange_pb2.Selection(record_type=t, fields=job.fields.get(t, ())) for t in job.types],
        context=exchange_pb2.RequestContext(purpose=job.purpose, legal_basis=job.basis),
    )


def _subject(number: int) -> common_pb2.SubjectId:
    return common_pb2.SubjectId(scheme=corpus.SCHEME, value=corpus.code(number))


def _clients(job: Job) -> list[Client]:
    transport = job.transport or leanest()
    return [Client(job.target, job.identity, job.files, transport=transport) for _ in range(job.connections)]


class BySession:
    """Asks our gateway over sessions, one on each connection."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._clients = _clients(job)
        self._sessions: list[AskingSession] = []
        self._question = question(job).SerializeToString()
        wait = Duration(seconds=round(WAIT))
        self._rests = {
            n: federation_pb2.SessionRequest.Ask(subject=_subject(n), timeout=wait).SerializeToString()
            for n in job.numbers
        }

    async def open(self) -> None:
        """Connect."""
        self._sessions = [
            AskingSession(client.channel(), f"{SERVICE}/Session", federation_pb2.SessionResponse)
            for client in self._clients
        ]
        self._next = cycle(self._sessions)

    def ask(self, number: int, told: Told) -> None:
        """Ask on the next session."""
        next(self._next).ask(self._question, self._rests[number], WAIT, told)

    def check(self, number: int, answer: Any) -> None:
        """Check an answer."""
        checking.federated(answer, number, self._job.given)

    async def close(self) -> None:
        """Disconnect."""
        for session in self._sessions:
            session.cut()
        for client in self._clients:
            await client.close()


class ByCall:
    """Makes a unary call for each question."""

    def __init__(
        self,
        job: Job,
        method: str,
        requests: Mapping[int, bytes],
        parse: Callable[[bytes], Any],
        check: Callable[[Any, int], None],
    ) -> None:
        self._clients = _clients(job)
        self._method = method
        self._requests = requests
        self._parse = parse
        self._check = check
        self._next = cycle(self._clients)
        self._running: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect; the first call does."""

    def ask(self, number: int, told: Told) -> None:
        """Call."""
        task = asyncio.ensure_future(self._call(number, told))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _call(self, number: int, told: Told) -> None:
        try:
            raw = await next(self._next).channel().unary(self._method, self._requests[number], WAIT)
            answer = self._parse(raw)
        except Exception as error:
            answer = error
        told(answer)

    def check(self, number: int, answer: Any) -> None:
        """Check an answer."""
        self._check(answer, number)

    async def close(self) -> None:
        """Disconnect."""
        for client in self._clients:
            await client.close()


def by_unary(job: Job) -> ByCall:
    """Ask our gateway by unary calls."""
    asked = question(job)
    requests: dict[int, bytes] = {}
    for number in job.numbers:
        asked.subject.CopyFrom(_subject(number))
        requests[number] = asked.SerializeToString()

    def check(answer: Any, number: int) -> None:
        checking.federated(answer, number, job.given)

    return ByCall(job, f"{SERVICE}/Query", requests, federation_pb2.QueryResponse.FromString, check)


def by_plain(job: Job) -> ByCall:
    """Ask a peer that speaks `bench.proto`."""
    requests = {number: contract.subject(corpus.code(number)) for number in job.numbers}
    return ByCall(job, contract.QUERY, requests, contract.Answer.FromString, checking.whole)
