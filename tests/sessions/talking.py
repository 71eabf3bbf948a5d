"""A session by hand: every message as the test wants it, and answers as they came."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message

from hutong.api.exchange.v1 import federation_pb2
from services.kit import wire
from services.kit.client import Client
from services.kit.errors import HutongError
from services.kit.sessions.queries import SESSION

Request = federation_pb2.SessionRequest


@cache
def _raw() -> type[Message]:
    """`SessionResponse` with the bytes of each answer as they came: a log has the digest of those."""
    file = FileDescriptorProto(name="tests/raw_session.proto", package="tests", syntax="proto3")
    answer = file.message_type.add(name="Answer")
    for name, kind in (("id", "UINT64"), ("response", "BYTES"), ("status", "BYTES")):
        added = answer.field.add(name=name, number=len(answer.field) + 1)
        added.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind}")
        added.label = FieldDescriptorProto.LABEL_OPTIONAL
        added.oneof_index, added.proto3_optional = len(answer.oneof_decl), True
        answer.oneof_decl.add(name=f"_{name}")
    answers = file.message_type.add(name="Answers").field.add(name="answers", number=1, type_name=".tests.Answer")
    answers.type, answers.label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tests.Answers"))


@dataclass
class Talk:
    """One session, open for as long as the context is."""

    client: Client
    method: str = SESSION
    answered: dict[int, bytes | HutongError] = field(default_factory=dict[int, bytes | HutongError])
    """What has come so far, by id, in the order it came."""
    _out: asyncio.Queue[Message | None] = field(default_factory=asyncio.Queue)
    _reading: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> "Talk":
        self.read()
        return self

    async def __aexit__(self, *_: object) -> None:
        # What feeds a call is not cancelled with it.
        self.end()
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError, HutongError):
                await self._reading

    def read(self) -> None:
        self._reading = asyncio.ensure_future(self._read())

    def say(self, *parts: Message) -> None:
        """Send one message, the merge of these."""
        merged = type(parts[0])()
        for part in parts:
            merged.MergeFrom(part)
        self._out.put_nowait(merged)

    def end(self) -> None:
        self._out.put_nowait(None)

    async def ended(self) -> HutongError | None:
        """Wait for the end of the session; gives what ended it, None where it was done."""
        assert self._reading is not None
        try:
            await self._reading
        except HutongError as error:
            return error
        return None

    async def answer(self, number: int) -> federation_pb2.QueryResponse:
        """Wait for an answer; raises the error that came in its place, or that ended the session before."""
        found = await self.raw(number)
        if isinstance(found, HutongError):
            raise found
        return federation_pb2.QueryResponse.FromString(found)

    async def raw(self, number: int) -> bytes | HutongError:
        assert self._reading is not None
        while number not in self.answered:
            if self._reading.done():
                await self._reading
                raise AssertionError(f"the session ended without an answer to {number}")
            self._news.clear()
            await self._news.wait()
        return self.answered[number]

    async def _read(self) -> None:
        raws: Any = self.client.channel().stream(self.method, self.messages(), None)
        try:
            async with aclosing(raws):
                async for raw in raws:
                    message: Any = _raw().FromString(raw)
                    for each in message.answers:
                        assert each.id not in self.answered, "two answers to one question"
                        got = each.response if each.HasField("response") else wire.read_status(each.status)
                        self.answered[each.id] = got
                    self._news.set()
        finally:
            self._news.set()

    async def messages(self) -> AsyncIterator[bytes]:
        """Give what is said, message by message."""
        while (message := await self._out.get()) is not None:
            yield message.SerializeToString()


def prepare(number: int, question: federation_pb2.QueryRequest) -> Request:
    """Prepare what a question has beside its subject and moment."""
    made = Request()
    prepared = made.prepare.add(id=number, query=question)
    prepared.query.ClearField("subject")
    prepared.query.ClearField("as_of")
    return made


def ask(number: int, prepared: int, subject: str, timeout: float = 10) -> Request:
    """Ask about a subject, written `scheme:value`."""
    made = Request()
    scheme, _, value = subject.partition(":")
    asked = made.asks.add(id=number, prepared=prepared)
    asked.subject.scheme, asked.subject.value = scheme, value
    asked.timeout.FromMilliseconds(round(timeout * 1000))
    return made
