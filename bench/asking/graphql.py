"""Asking a GraphQL gateway over HTTP/1.1: one question at a time on a connection, as many connections as it takes."""

import asyncio
import json
from collections import deque
from typing import Any, Final

from bench import corpus
from bench.asking import checking
from bench.asking.checking import Given
from bench.asking.job import Job
from bench.asking.way import Told
from bench.peers import contract
from bench.peers.tls import client_context
from certs.tls import server_name
from services.kit.records import catalogue

PATH: Final = "/graphql"


class FailedError(Exception):
    """An answer that is none."""


def _selected(message: Any, names: tuple[str, ...] = ()) -> str:
    found: list[str] = []
    for field in message.fields:
        if not names or field.name in names:
            below = _selected(field.message_type) if field.message_type else ""
            found.append(f"{field.name}{below}")
    return f" {{ {' '.join(found)} }}"


def document(given: Given) -> str:
    """Write the query: of every department exactly the fields that our policies give."""
    parts: list[str] = []
    for name, fields in given.items():
        service = contract.service_of(contract.agency_of(name)).replace(".", "_")
        selected = _selected(catalogue.load().get(name).message.DESCRIPTOR, tuple(fields))
        parts.append(f"{contract.FIELDS[name]}: {service}_Get(input: {{ uscc: $uscc }}){selected}")
    return f"query Ask($uscc: String!) {{ {' '.join(parts)} }}"


class ByGraphql:
    """Posts a query for each question."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._context = client_context(job.files)
        self._host, _, port = job.target.rpartition(":")
        self._port = int(port)
        self._idle: deque[_Connection] = deque()
        self._all: list[_Connection] = []
        query = document(job.given)
        self._requests = {
            n: _post(json.dumps({"query": query, "variables": {"uscc": corpus.code(n)}}), job.target)
            for n in job.numbers
        }
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect once."""
        self._idle.append(await self._connect())

    async def _connect(self) -> "_Connection":
        name = server_name(self._job.identity)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._idle), self._host, self._port, ssl=self._context, server_hostname=name
        )
        self._all.append(connection)
        return connection

    def ask(self, number: int, told: Told) -> None:
        """Ask on an idle connection, or on a new one."""
        if self._idle:
            self._idle.pop().send(self._requests[number], told)
            return
        task = asyncio.ensure_future(self._ask_anew(number, told))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _ask_anew(self, number: int, told: Told) -> None:
        try:
            connection = await self._connect()
        except OSError as error:
            told(error)
            return
        connection.send(self._requests[number], told)

    def check(self, number: int, answer: Any) -> None:
        """Check an answer."""
        checking.json(answer, number, self._job.given)

    async def close(self) -> None:
        """Disconnect."""
        for connection in self._all:
            connection.close()


def _post(body: str, host: str) -> bytes:
    raw = body.encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


class _Connection(asyncio.Protocol):
    """One connection: one request, one response, again."""

    def __init__(self, idle: "deque[_Connection]") -> None:
        self._idle = idle
        self._transport: asyncio.Transport | None = None
        self._told: Told | None = None
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def send(self, request: bytes, told: Told) -> None:
        """Send a request whose answer `told` gets."""
        self._told = told
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take what came; a whole answer goes to who waits."""
        self._received = self._received + data if self._received else data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        body = _body(head.lower(), rest) if found else None
        if body is None:
            return
        self._received = b""
        self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        told, self._told = self._told, None
        self._idle.append(self)
        if told is None:
            return
        answer: Any = FailedError(head.partition(b"\r\n")[0].decode())
        if head.split(b" ", 2)[1] == b"200":
            parsed = json.loads(body)
            answer = FailedError(str(parsed["errors"])[:200]) if parsed.get("errors") else parsed["data"]
        told(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; who waits hears of it."""
        if self in self._idle:
            self._idle.remove(self)
        if self._told is not None:
            told, self._told = self._told, None
            told(exc or ConnectionResetError("the connection ended"))

    def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.close()


def _body(head: bytes, rest: bytes) -> bytes | None:
    """Take the body of a response with these lower-case headers; None while it is not whole."""
    if b"transfer-encoding: chunked" not in head:
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        return rest if len(rest) >= length else None
    body = b""
    while True:
        size, found, after = rest.partition(b"\r\n")
        if not found:
            return None
        length = int(size, 16)
        if len(after) < length + 2:
            return None
        if not length:
            return body
        body, rest = body + after[:length], after[length + 2 :]
