"""Who may do what at the broker, and what whoever runs it cannot do: make up an event, alter one, or hide one."""

import asyncio
import base64
import datetime as dt
from collections.abc import AsyncIterator
from contextlib import aclosing
from email.header import Header
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hutong.api.exchange.v1 import event_pb2
from services.kit.errors import PermissionDenied, Reason, Unavailable
from services.kit.events.jetstream.broker import Broker, Connection
from services.kit.events.jetstream.statement import AFTER, AT, SIGNATURE, Sealed, seal, unseal
from services.kit.events.jetstream.way import Way, inbox_prefix
from services.kit.identity import Identity
from services.kit.log.notes import Signer
from tests.events.bed import SOURCE, event, numbers, signer, take
from tests.events.jetfield import CUSTOMS, Field, field, until
from tests.events.natsd import BROKER, way
from tests.zone import Zone, now

TAXATION = way(SOURCE, "taxation")
HOUR = dt.timedelta(hours=1)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Field]:
    async with field(tmp_path) as made:
        yield made


def another(way: Way) -> Signer:
    """Sign in the name of a source, with a key of one's own."""
    return Signer(way.origin, Ed25519PrivateKey.generate())


async def refused(broker: Broker) -> None:
    with pytest.raises(Unavailable) as caught:
        async with broker.connect():
            pass
    assert caught.value.reason is Reason.BROKER_UNAVAILABLE


async def test_who_is_not_named_cannot_connect(made: Field) -> None:
    """The zone's own systems too: a certificate says who somebody is, and not what they may do."""
    for path in ("courts/node", "customs/release", "enterprise/customs", "gateway/main"):
        await refused(made.server.broker(path))


async def test_a_stranger_cannot_connect(made: Field, tmp_path: Path) -> None:
    """Another authority's certificate for the same name."""
    other = Zone(tmp_path / "other").files("customs/node")
    files = made.zone.files("customs/node")
    mixed = type(files)(other.certificate, other.key, files.bundle)
    await refused(Broker((f"127.0.0.1:{made.server.port}",), made.zone.identity(BROKER), Identity(mixed)))


async def test_without_a_certificate_nobody_connects(made: Field) -> None:
    """Nor is anything said to them before that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.server.port)
    writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
    async with asyncio.timeout(10):
        assert b"INFO" not in await reader.read()
    writer.close()


async def test_a_broker_that_is_another_is_not_spoken_to(made: Field) -> None:
    broker = made.server.broker("customs/node")
    await refused(Broker(broker.servers, made.zone.identity("broker/other"), broker.own))


async def denied(made: Field, connection: Connection, subject: str, data: bytes = b"") -> bool:
    """Ask for something; tells whether the broker said that it is not allowed, and did nothing."""
    count = made.server.violations()
    await connection.say(subject, data)
    try:
        await until(lambda: made.server.violations() > count, 5)
    except TimeoutError:
        return False
    return True


async def test_an_agency_reads_only_what_is_its_own(made: Field) -> None:
    await made.publish()
    await made.publish(agency="taxation")
    await made.tell(event(1), event(2, "taxation"))
    async with made.server.broker("taxation/node").connect() as connection:
        calls = [
            f"$JS.API.STREAM.MSG.GET.{CUSTOMS.stream}",
            f"$JS.API.DIRECT.GET.{CUSTOMS.stream}",
            f"$JS.API.STREAM.INFO.{CUSTOMS.stream}",
            f"$JS.API.CONSUMER.CREATE.{CUSTOMS.stream}",
            f"$JS.API.CONSUMER.CREATE.{TAXATION.stream}",
            f"$JS.API.STREAM.PURGE.{TAXATION.stream}",
            f"$JS.API.STREAM.DELETE.{TAXATION.stream}",
            "$JS.API.STREAM.CREATE.mirror",
            "$JS.API.STREAM.NAMES",
            "$JS.API.INFO",
            CUSTOMS.asks,
            CUSTOMS.events,
            TAXATION.events,
            TAXATION.beats,
            f"{inbox_prefix(made.zone.identity('customs/node'))}.x",
        ]
        for call in calls:
            assert await denied(made, connection, call), call
        # What it may, it can.
        assert await connection.extent(TAXATION.stream) is not None
        for subject in (CUSTOMS.beats, CUSTOMS.events, TAXATION.events, "_INBOX.>", "$JS.>", "hutong.>", ">"):
            count = made.server.violations()
            await connection.listen(subject, nothing)
            await until(lambda count=count: made.server.violations() > count)
    source = made.carried("taxation", away=True)
    async with aclosing(source.follow("customs", 0)) as batches:
        assert numbers(await take(batches, 1)) == [2]


async def nothing(_data: bytes, _headers: Any) -> None:
    """Hear something."""


async def test_the_source_has_no_more_rights_than_it_needs(made: Field) -> None:
    await made.publish()
    async with made.server.broker(SOURCE).connect() as connection:
        for call in (f"$JS.API.STREAM.DELETE.{CUSTOMS.stream}", "$JS.API.STREAM.CREATE.other", "$JS.API.INFO", "other"):
            assert await denied(made, connection, call), call


def said(number: int, until: int, *, audience: str = "customs") -> bytes:
    message = event_pb2.Event(
        event_id=f"e{number}", sequence=until, audience=audience, kind="k", payload=f'{{"number":{number}}}'
    )
    message.recorded_at.FromDatetime(now())
    return event_pb2.FollowResponse(events=[message], until=until).SerializeToString()


FALSE = ["altered", "made up", "for another", "joined wrongly", "unsigned", "no event", "other times", "other key"]


def falsified(kind: str, true: Sealed, way: Way, made: Field) -> Sealed:
    """Do to a statement what whoever runs a broker could."""
    headers, data = dict(true.headers), true.data
    match kind:
        case "altered":
            data = data.replace(b'{"number":1}', b'{"number":7}')
            assert data != true.data
        case "made up":
            data = said(7, 99)
        case "for another":
            return seal(TAXATION, int(headers[AFTER]), data, now(), signer(made.zone))
        case "joined wrongly":
            headers[AFTER] = str(int(headers[AFTER]) - 1 if int(headers[AFTER]) else 1)
        case "unsigned":
            del headers[SIGNATURE]
        case "no event":
            headers, data = {}, b"\xff\xff"
        case "other times":
            headers[AT] = str(int(headers[AT]) + 1)
        case _:
            other = another(way)
            return seal(way, int(headers[AFTER]), data, now(), other)
    return Sealed(headers, data)


@pytest.mark.parametrize("kind", FALSE)
async def test_what_the_source_did_not_say_is_refused(made: Field, kind: str) -> None:
    """It is missed then, and fetched: whoever falsifies an event hides not even that one."""
    publisher = await made.publish()
    await made.tell(event(0))
    await until(lambda: publisher.published == 1)
    await made.tell(event(1))
    await until(lambda: publisher.published == 2)
    await publisher.stop()
    async with made.operator() as operator:
        statements = [await operator.statement(place) for place in (1, 2, 3)]
        statements[2] = falsified(kind, statements[2], CUSTOMS, made)
        await operator.purge()
        for one in statements:
            await operator.put(one)
    source, receiver = made.carried(), made.receiver()
    receiver.follow(source)
    # Who publishes does not take it for its own either.
    await made.publish()
    await made.tell(event(2))
    assert await receiver.until(3) == [0, 1, 2]
    assert await receiver.held() == [0, 1, 2]
    assert source.refused
    assert source.fetched


@pytest.mark.parametrize("kind", ["forged", "unsigned", "old"])
async def test_a_beat_that_the_source_did_not_send(made: Field, kind: str) -> None:
    """It moves nothing on, and is no sign of life."""
    publisher = await made.publish()
    source, receiver = made.carried(quiet=0.5), made.receiver()
    receiver.follow(source)
    await made.tell(event(0))
    await receiver.until(1)
    await publisher.stop()
    answer = event_pb2.FollowResponse(until=1000).SerializeToString()
    match kind:
        case "forged":
            false = seal(CUSTOMS, 0, answer, now(), another(CUSTOMS))
        case "unsigned":
            false = Sealed({AFTER: "0", AT: "1"}, answer)
        case _:
            answer = event_pb2.FollowResponse(until=1).SerializeToString()
            false = seal(CUSTOMS, 1, answer, now() - HOUR, signer(made.zone))
    await made.tell(event(1))
    fetched = source.fetched
    async with made.operator() as operator, asyncio.timeout(20):
        # Often enough that they would pass for those of a source that lives.
        while source.fetched == fetched:
            await operator.beat(false)
            await asyncio.to_thread(int)
    assert await receiver.until(2) == [0, 1]
    assert await receiver.inbox.position(SOURCE) == 2


def test_a_statement_is_for_one_agency_of_one_zone_from_one_source() -> None:
    key = another(CUSTOMS)
    sealed = seal(CUSTOMS, 3, said(1, 4), now(), key)
    read = unseal(CUSTOMS, sealed.headers, sealed.data, key.verifier)
    assert (read.after, read.until, read.events[0].event_id) == (3, 4, "e1")
    assert abs(now() - read.at) < dt.timedelta(minutes=1)
    for other in (TAXATION, Way("other.example", SOURCE, "customs"), Way(CUSTOMS.zone, "recognition/x", "customs")):
        with pytest.raises(PermissionDenied) as caught:
            unseal(other, sealed.headers, sealed.data, key.verifier)
        assert caught.value.reason is Reason.EVENT_INVALID


VALUES = ["", "-1", "٣", "1e3", "9" * 40, "\x00", base64.b64encode(bytes(64)).decode(), None, Header("海")]
"""The last is what the client library makes of a header that is not ASCII."""


@pytest.mark.parametrize("header", [AFTER, AT, SIGNATURE])
@pytest.mark.parametrize("value", VALUES, ids=map(str, range(len(VALUES))))
def test_headers_that_are_none(header: str, value: object) -> None:
    key = another(CUSTOMS)
    sealed = seal(CUSTOMS, 3, said(1, 4), now(), key)
    headers: dict[str, Any] = {**sealed.headers, header: value}
    with pytest.raises(PermissionDenied):
        unseal(CUSTOMS, headers, sealed.data, key.verifier)


def test_ways_are_kept_apart() -> None:
    ways = [
        Way(zone, source, audience)
        for zone in ("a.b", "a-b", "ab")
        for source in ("c/d", "c-d/e", "c/d-e")
        for audience in ("f", "d-f")
    ]
    for names in ([one.stream for one in ways], [one.events for one in ways], [one.beats for one in ways]):
        assert len(set(names)) == len(ways)
    assert len({name for one in ways for name in (one.events, one.beats, one.asks)}) == 3 * len(ways)
