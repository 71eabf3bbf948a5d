"""A node shows its log to its witnesses, whatever becomes of them, and says loudly what they say against it."""

import asyncio
import datetime as dt
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from prometheus_client import generate_latest

from hutong.api.log.v1 import log_service_pb2
from services.kit.client import Client
from services.kit.config import LogSection, NodeConfig, PeerSection
from services.kit.host import Host
from services.kit.log import keys, notes
from services.kit.log.checkpoint import SignedCheckpoint, open_checkpoint
from services.kit.log.cosigned import Cosigned, keep, sizes
from services.kit.log.nodelog import NodeLog
from services.kit.log.notes import Signer
from services.kit.log.showing import FRESH, Showing, Standing
from services.kit.log.tables import METADATA
from services.kit.log.witness import ACCESS, Witness
from services.kit.records.database import Database
from tests.events.bed import create
from tests.log.bed import draft, fill, opened
from tests.log.witnesses import OWNER, Keys, Serving, add, serving
from tests.officers.provider import Seconds
from tests.zone import ZONE, Zone, free_address, now

ORIGIN = f"{ZONE}/{OWNER}"
TAXATION = f"{ZONE}/taxation/node"
AUDIT = f"{ZONE}/audit/node"
GET = "/hutong.api.log.v1.LogService/GetCheckpoint"


class Field:
    """A zone with the log of `customs/node`, which shows itself to witnesses."""

    def __init__(self, folder: Path, stack: AsyncExitStack) -> None:
        self.zone = Zone(folder)
        self.keys = Keys(folder / "keys")
        self.folder = folder
        self.stack = stack
        self.signer = self.keys.signer(OWNER)

    def url(self, name: str) -> str:
        return f"sqlite+aiosqlite:///{self.folder / name}.db"

    async def log(self, name: str = "log") -> NodeLog:
        return await self.stack.enter_async_context(opened(self.url(name), now, signer=self.signer))

    async def witness(self, agency: str, listen: str = "127.0.0.1:0") -> Serving:
        made = serving(self.zone, self.keys, self.url(agency), f"{agency}/node", listen)
        return await self.stack.enter_async_context(made)

    def showing(self, log: NodeLog, *witnesses: Serving, interval: float = 3600) -> Showing:
        clients = {str(at.host.identity).removeprefix("spiffe://"): self.to(at.host.address, at) for at in witnesses}
        return self.of(log, clients, interval)

    def to(self, address: str, at: Serving) -> Client:
        return Client(address, at.host.identity, self.zone.files(OWNER))

    def of(self, log: NodeLog, clients: dict[str, Client], interval: float = 3600) -> Showing:
        made = Showing(log, clients, self.keys.folder, interval)
        self.stack.push_async_callback(made.stop)
        return made

    def opened(self, text: str) -> SignedCheckpoint:
        """Read a checkpoint with all that is known of its signers."""
        witnesses = [keys.find(self.keys.folder, origin).cosigning() for origin in (TAXATION, AUDIT)]
        return open_checkpoint(text, [self.signer.verifier], witnesses)

    def signed_by(self, text: str) -> list[str]:
        return sorted(one.key.name for one in self.opened(text).verified)


@pytest.fixture
async def field(tmp_path: Path) -> AsyncGenerator[Field]:
    async with AsyncExitStack() as stack:
        made = Field(tmp_path, stack)
        for agency in ("taxation", "audit"):
            made.keys.signer(f"{agency}/node")
        yield made


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def test_checkpoints_are_cosigned(field: Field) -> None:
    log, one, other = await field.log(), await field.witness("taxation"), await field.witness("audit")
    showing = field.showing(log, one, other)
    await showing.show()
    assert set(showing.standings.values()) == {Standing.UNKNOWN}, "an empty log has nothing to show"
    assert (await log.checkpoint(), await log.cosigned()) == ("", "")
    await fill(log, 3)
    await showing.show()
    assert showing.standings == {AUDIT: Standing.COSIGNS, TAXATION: Standing.COSIGNS}
    checkpoint = await log.checkpoint()
    assert field.signed_by(checkpoint) == [AUDIT, ORIGIN, TAXATION]
    assert await log.cosigned() == checkpoint
    await fill(log, 300)
    assert field.signed_by(await log.checkpoint()) == [ORIGIN], "nobody has seen it yet"
    assert await log.cosigned() == checkpoint
    await showing.show()
    assert field.opened(await log.cosigned()).checkpoint.size == 303
    assert field.signed_by(await log.checkpoint()) == [AUDIT, ORIGIN, TAXATION]
    assert one.witnessed(ORIGIN)[0] == other.witnessed(ORIGIN)[0] == 303


async def test_nodes_watch_each_other(tmp_path: Path) -> None:
    """Two nodes as their configs describe them: each is the other's witness, and whoever asks gets the cosignatures."""
    zone, paths = Zone(tmp_path), ("customs/node", "taxation/node")
    listen = {path: free_address() for path in paths}
    hosts: list[Host] = []
    async with AsyncExitStack() as stack:
        for path, other in zip(paths, reversed(paths), strict=True):
            peer = {other.partition("/")[0]: PeerSection(target=listen[other])}
            log = zone.log(path).model_copy(update={"witnesses": peer, "interval": dt.timedelta(milliseconds=20)})
            node = zone.node(path).model_copy(update={"listen": listen[path]})
            hosts.append(host := zone.frame(NodeConfig(node=node, tls=zone.tls(path), log=log)))
            stack.push_async_callback(host.stop)
            await host.start((), ())
            assert host.log
            await fill(host.log, 3)
        host = hosts[-1]
        client = await stack.enter_async_context(zone.client(host, "enterprise/91350200ma2xxxxx0x"))
        request, kind = log_service_pb2.GetCheckpointRequest(), log_service_pb2.GetCheckpointResponse
        answer = await client.unary(GET, request, kind, timeout=30)
        while not answer.cosigned:
            answer = await client.unary(GET, request, kind, timeout=30)
        assert host.config.log
        log_key, witness = (keys.find(host.config.log.keys, f"{ZONE}/{path}") for path in reversed(paths))
        opened = open_checkpoint(answer.cosigned, [log_key], [witness.cosigning()])
        assert len(opened.verified) == 2


async def test_it_goes_on_by_itself(field: Field) -> None:
    log, at = await field.log(), await field.witness("taxation")
    await fill(log, 2)
    showing = field.showing(log, at, interval=0.001)
    await showing.start()
    for size in (2, 4):
        checkpoint = await log.checkpoint()
        while field.signed_by(checkpoint) != [ORIGIN, TAXATION]:
            checkpoint = await log.checkpoint()
        assert at.witnessed(ORIGIN)[0] == size
        await fill(log, 2)
    await showing.stop()


async def test_an_idle_log_is_shown_once_a_minute(field: Field) -> None:
    """Nothing new is nothing to say: neither node writes anything for it."""
    log, at = await field.log(), await field.witness("taxation")
    seconds = Seconds()
    showing = Showing(log, {TAXATION: field.to(at.host.address, at)}, field.keys.folder, 3600, monotonic=seconds)
    field.stack.push_async_callback(showing.stop)
    await fill(log, 2)
    for _ in range(3):
        await showing.show_news()
    assert at.witness.asked == 1
    first = await log.cosigned()
    seconds.at += FRESH - 1
    await showing.show_news()
    assert (at.witness.asked, await log.cosigned()) == (1, first)
    await fill(log, 1)
    await showing.show_news()
    assert at.witness.asked == 2
    seconds.at += FRESH
    await showing.show_news()
    assert at.witness.asked == 3
    assert at.witnessed(ORIGIN)[0] == 3
    # Who asks for it by hand gets it.
    await showing.show()
    assert at.witness.asked == 4


async def test_by_itself_it_asks_no_more_than_that(field: Field) -> None:
    log, at = await field.log(), await field.witness("taxation")
    await fill(log, 2)
    looked, looks = asyncio.Event(), 0

    def seconds() -> float:
        # Asked for at every look, and once when it was co-signed.
        nonlocal looks
        looks += 1
        if looks == 20:
            looked.set()
        return 1000.0

    showing = Showing(log, {TAXATION: field.to(at.host.address, at)}, field.keys.folder, 0.001, monotonic=seconds)
    await showing.start()
    await looked.wait()
    assert at.witness.asked == 1
    await showing.stop()


async def test_a_witness_that_did_not_cosign_is_asked_each_time(field: Field) -> None:
    log, address = await field.log(), free_address()
    await fill(log, 1)
    away = Client(address, field.zone.identity("audit/node"), field.zone.files(OWNER))
    showing = Showing(log, {AUDIT: away}, field.keys.folder, 3600, monotonic=Seconds())
    field.stack.push_async_callback(showing.stop)
    await showing.show_news()
    assert showing.standings == {AUDIT: Standing.AWAY}
    async with serving(field.zone, field.keys, field.url("audit"), "audit/node", address):
        while showing.standings[AUDIT] is Standing.AWAY:
            await showing.show_news()
    assert field.signed_by(await log.checkpoint()) == [AUDIT, ORIGIN]


async def test_a_witness_that_is_away_holds_up_nobody(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    log, at = await field.log(), await field.witness("taxation")
    address = free_address()
    clients = {
        TAXATION: field.to(at.host.address, at),
        AUDIT: Client(address, field.zone.identity("audit/node"), field.zone.files(OWNER)),
    }
    showing = field.of(log, clients)
    await fill(log, 3)
    for _ in range(3):
        await showing.show()
    assert showing.standings == {AUDIT: Standing.AWAY, TAXATION: Standing.COSIGNS}
    assert field.signed_by(await log.checkpoint()) == [ORIGIN, TAXATION]
    warned = [record for record in caplog.records if record.message == "The log is not co-signed now"]
    assert len(warned) == 1, "said once"
    async with serving(field.zone, field.keys, field.url("audit"), "audit/node", address):
        # However long the line's own pause after a failure is, the call itself waits for nothing else.
        while showing.standings[AUDIT] is Standing.AWAY:
            await showing.show()
    assert field.signed_by(await log.checkpoint()) == [AUDIT, ORIGIN, TAXATION]
    assert not errors(caplog)


async def test_an_impostor_of_a_witness_is_none(field: Field) -> None:
    """Another member of the zone at the witness's address."""
    log, at = await field.log(), await field.witness("taxation")
    await fill(log, 1)
    impostor = Client(at.host.address, field.zone.identity("audit/node"), field.zone.files(OWNER))
    showing = field.of(log, {AUDIT: impostor})
    await showing.show()
    assert showing.standings == {AUDIT: Standing.AWAY}
    assert at.witness.asked == 0


async def test_a_witness_that_signs_with_another_key_is_not_believed(field: Field) -> None:
    log = await field.log()
    await fill(log, 2)
    await field.witness("audit")
    database = Database(field.url("audit"))
    field.stack.callback(database.close)
    name = f"{ZONE}/audit/node"
    wrong = Witness(database, Signer(name, Ed25519PrivateKey.generate()), field.keys.folder, now)
    host = field.zone.host("audit/node")
    await host.start(wrong.rpcs(), [ACCESS])
    field.stack.push_async_callback(host.stop)
    showing = field.of(log, {AUDIT: Client(host.address, host.identity, field.zone.files(OWNER))})
    await showing.show()
    assert showing.standings == {AUDIT: Standing.REFUSES}
    assert await log.cosigned() == ""


async def test_a_witness_that_lost_its_memory_begins_anew(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    log, address = await field.log(), free_address()
    identity, files = field.zone.identity("taxation/node"), field.zone.files(OWNER)
    await fill(log, 5)
    for name in ("before", "after"):
        await log.append(draft())
        async with serving(field.zone, field.keys, field.url(name), listen=address) as at:
            showing = field.of(log, {TAXATION: Client(address, identity, files)})
            await showing.start()
            await showing.show()
            assert showing.standings == {TAXATION: Standing.COSIGNS}
            assert at.witnessed(ORIGIN)[0] == log.size
            await showing.stop()
    assert not errors(caplog)


async def test_a_rewritten_log_is_told_so(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    """Another history in the log's place, with the log's own key."""
    at = await field.witness("taxation")
    async with opened(field.url("log"), now, signer=field.signer) as log:
        await fill(log, 5)
        await field.showing(log, at).show()
        witnessed = field.opened(await log.cosigned()).note.text
    log = await field.log("rewritten")
    await fill(log, 9)
    showing = field.showing(log, at)
    for _ in range(2):
        await showing.show()
    assert showing.standings == {TAXATION: Standing.FORKED}
    said = "A witness has co-signed another history than this log's: one of the two was made up"
    assert errors(caplog) == ["A log was forked: it has signed two histories", said]
    (kept,) = at.evidence()
    assert notes.parse(kept["witnessed"]).text == witnessed
    assert kept["proven"]
    assert await log.cosigned() == ""


async def test_a_log_put_back_to_an_older_state_is_told_so(field: Field, caplog: pytest.LogCaptureFixture) -> None:
    at = await field.witness("taxation")
    async with opened(field.url("log"), now, signer=field.signer) as log:
        await fill(log, 3)
        await field.showing(log, at).show()
    shutil.copy(field.folder / "log.db", field.folder / "backup.db")
    async with opened(field.url("log"), now, signer=field.signer) as log:
        await fill(log, 3)
        await field.showing(log, at).show()
    assert at.witnessed(ORIGIN)[0] == 6
    log = await field.log("backup")
    showing = field.showing(log, at)
    await showing.start()
    for _ in range(2):
        await showing.show()
    assert showing.standings == {TAXATION: Standing.AHEAD}
    said = "A witness has co-signed more than this log has: entries were lost"
    assert errors(caplog) == [said]
    await fill(log, 5)
    await showing.show()
    assert showing.standings == {TAXATION: Standing.FORKED}
    assert len(at.evidence()) == 1


async def test_replicas_show_the_same_log(field: Field) -> None:
    """Both write it, both show it, and neither is taken for a fork."""
    at, one, other = await field.witness("taxation"), await field.log(), await field.log()
    shows = [field.showing(log, at) for log in (one, other)]
    for log in (one, other, other, one):
        await fill(log, 3)
        for showing in (*shows, *shows[::-1]):
            await showing.show()
        assert [showing.standings[TAXATION] for showing in shows] == [Standing.COSIGNS] * 2
    assert at.witnessed(ORIGIN)[0] == 12
    assert not at.evidence()
    assert field.signed_by(await one.checkpoint()) == [ORIGIN, TAXATION]


async def test_what_was_cosigned_is_remembered(field: Field) -> None:
    """After a restart the first question is right: no witness is asked where it is."""
    at = await field.witness("taxation")
    for times in (1, 2, 3):
        async with opened(field.url("log"), now, signer=field.signer) as log:
            await fill(log, 2)
            showing = field.showing(log, at)
            await showing.recall()
            await showing.show()
            assert at.witness.asked == times
    assert at.witnessed(ORIGIN)[0] == 6


async def test_what_the_config_says(field: Field) -> None:
    log, at = await field.log(), await field.witness("taxation")
    await fill(log, 2)
    key = field.keys.private / "customs.node.pem"
    section = LogSection(key=key, keys=field.keys.folder, witnesses={"taxation": PeerSection(target=at.host.address)})
    host = field.zone.host(OWNER)
    showing = Showing.of(log, section, host.config.node, field.zone.files(OWNER), host.telemetry)
    field.stack.push_async_callback(showing.stop)
    await showing.show()
    assert showing.standings == {TAXATION: Standing.COSIGNS}
    shown = generate_latest(host.telemetry.registry).decode()
    assert "hutong_log_witnesses_cosigns 1.0" in shown
    assert "hutong_log_witnesses_forked 0.0" in shown
    witness = Witness.of(log, section, now)
    own = field.zone.host(OWNER)
    await own.start(witness.rpcs(), [ACCESS])
    field.stack.push_async_callback(own.stop)
    host.telemetry.close()
    async with field.zone.client(own, "taxation/node") as client:
        request = log_service_pb2.AddCheckpointRequest(checkpoint=await log.checkpoint())
        assert (await add(client, request)).cosignature.startswith(f"— {ORIGIN} ")


async def test_replicas_that_are_answered_at_once(any_url: str) -> None:
    """Each keeps what came to it: none fails by the other, and the newest stays, whichever comes last."""
    create(any_url, METADATA)
    replicas = [Database(any_url) for _ in range(2)]
    answers = [Cosigned("zone.example/taxation/node", size, f"note {size}", "line") for size in range(1, 41)]
    try:
        async with asyncio.TaskGroup() as work:
            for number, one in enumerate(reversed(answers)):
                work.create_task(replicas[number % 2].write(partial(keep, one=one)))
        assert await replicas[0].read(sizes) == {"zone.example/taxation/node": 40}
    finally:
        for replica in replicas:
            replica.close()
