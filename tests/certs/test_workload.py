"""Identities from a Workload API: a real socket and the real protocol, with an agent that is told what to hand out."""

import asyncio
import datetime as dt
import queue
import threading
import time
from collections.abc import Generator, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certs.authority import Authority
from certs.errors import CertificateError, LifeTooLong, WorkloadApiFailed
from certs.peer import Peer
from certs.revocation import ShortLives
from certs.rollover import Rollover
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.workload import HEADER, METHOD, RESPONSE, WorkloadFiles, read
from hutong.api.exchange.v1.exchange_pb2 import SignedContext
from services.kit.client import Client
from services.kit.config import NodeConfig, TlsSection
from services.kit.errors import HutongError
from tests.certs.bogus import CLIENT
from tests.certs.conftest import Clock
from tests.transport import echo
from tests.zone import Zone

WANTED = SpiffeId.parse(CLIENT)


def handed(*identities: SvidFiles) -> bytes:
    """Write a response that hands out identities, as an agent does."""
    response = cast("Any", RESPONSE())
    for files in identities:
        svid = files.load()
        key = load_pem_private_key(svid.key, password=None)
        response.svids.add(
            spiffe_id=str(svid.spiffe_id),
            x509_svid=_der(svid.chain),
            x509_svid_key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
            bundle=_der(svid.bundle),
        )
    return cast("bytes", response.SerializeToString())


def _der(pem: bytes) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem))


VERSION = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x06"
"""That of a certificate (RFC 5280 §4.1), and one that there is not."""
CURVE = b"\x2a\x86\x48\xce\x3d\x03\x01\x07", b"\x2a\x86\x48\xce\x3d\x03\x01\x7f"
"""P-256 (RFC 5480 §2.1.1.1), and none that is known."""


def odd(der: bytes, change: tuple[bytes, bytes]) -> bytes:
    """Spoil what holds certificates or keys such that its form still stands."""
    assert change[0] in der
    return der.replace(*change)


class Agent:
    """An agent on a socket: every caller is told the last word, and each new one as it comes."""

    def __init__(self, socket: Path, first: bytes | grpc.StatusCode) -> None:
        self.address = f"unix://{socket}"
        self.headers: list[tuple[str, str | bytes]] = []
        self._last = first
        self._callers: list[queue.SimpleQueue[bytes | grpc.StatusCode]] = []
        self._lock = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(self._fetch)
        service, _, method = METHOD[1:].partition("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        self._server.add_insecure_port(self.address)
        self._server.start()

    def say(self, word: bytes | grpc.StatusCode) -> None:
        with self._lock:
            self._last = word
            for caller in self._callers:
                caller.put(word)

    def stop(self) -> None:
        self.say(grpc.StatusCode.UNAVAILABLE)
        self._server.stop(0).wait()

    def _fetch(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.headers += [(key, value) for key, value in context.invocation_metadata()]
        words: queue.SimpleQueue[bytes | grpc.StatusCode] = queue.SimpleQueue()
        with self._lock:
            words.put(self._last)
            self._callers.append(words)
        context.add_callback(lambda: words.put(grpc.StatusCode.CANCELLED))
        while True:
            word = words.get()
            if isinstance(word, grpc.StatusCode):
                context.abort(word, "no identity issued")
            yield word


@contextmanager
def serving(socket: Path, first: bytes | grpc.StatusCode) -> Generator[Agent]:
    agent = Agent(socket, first)
    try:
        yield agent
    finally:
        agent.stop()


def until(files: SvidFiles, serial: int) -> None:
    """Wait until the files hold a certificate, for a time."""
    deadline = time.monotonic() + 20
    while files.load().leaf.serial_number != serial:
        assert time.monotonic() < deadline


def test_the_identity_is_written_as_our_own_authority_would(
    authority: Authority, client: SvidFiles, tmp_path: Path, clock: Clock
) -> None:
    other = authority.layout.svid(SpiffeId.parse(CLIENT.replace("node", "desk")))
    authority.issue(SpiffeId.parse(CLIENT.replace("node", "desk")), clock())
    with serving(tmp_path / "agent.sock", handed(other, client)) as agent:
        workload = WorkloadFiles(agent.address, tmp_path / "kept", WANTED)
        workload.fetch()
    kept, own = workload.files.load(), client.load()
    assert (kept.chain, kept.bundle, kept.leaf) == (own.chain, own.bundle, own.leaf)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert workload.files.key.stat().st_mode & 0o777 == 0o600
    assert HEADER in agent.headers


def test_what_changes_is_followed_and_an_agent_that_is_gone_waited_for(
    authority: Authority, client: SvidFiles, tmp_path: Path, clock: Clock
) -> None:
    socket = tmp_path / "agent.sock"
    with serving(socket, handed(client)) as agent:
        workload = WorkloadFiles(agent.address, tmp_path / "kept", WANTED)
        workload.fetch()
        workload.follow()
        until(workload.files, authority.current()[WANTED].serial)
        Rollover(authority).prepare(clock(), new_root=True)
        second = authority.renew(WANTED, clock())
        agent.say(handed(client))
        until(workload.files, second.serial)
        assert workload.files.load().bundle == client.load().bundle
        agent.say(odd(handed(client), VERSION))
        agent.say(handed())
    assert workload.files.load().leaf.serial_number == second.serial, "the agent is gone: the last identity serves"
    third = authority.renew(WANTED, clock())
    with serving(socket, handed(client)):
        until(workload.files, third.serial)
        workload.stop()


def test_stopped_while_the_agent_is_away(tmp_path: Path) -> None:
    workload = WorkloadFiles(f"unix://{tmp_path}/nobody.sock", tmp_path / "kept", WANTED)
    workload.follow()
    workload.stop()
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("word", [grpc.StatusCode.PERMISSION_DENIED, b"", b"\xff"], ids=["denied", "empty", "nonsense"])
def test_an_agent_that_gives_nothing(tmp_path: Path, word: bytes | grpc.StatusCode) -> None:
    with serving(tmp_path / "agent.sock", word) as agent, pytest.raises(WorkloadApiFailed):
        WorkloadFiles(agent.address, tmp_path / "kept", WANTED).fetch()
    assert not (tmp_path / "kept").exists()


def test_what_does_not_fit_is_not_written(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    good = cast("Any", RESPONSE.FromString(handed(client))).svids[0]
    authority.renew(WANTED, clock())
    after = cast("Any", RESPONSE.FromString(handed(client))).svids[0]
    assert read(handed(client), WANTED).spiffe_id == WANTED
    for change in (
        {"x509_svid_key": good.x509_svid_key},
        {"x509_svid_key": b"\x30"},
        {"x509_svid": b""},
        {"x509_svid": after.x509_svid[:-1]},
        {"x509_svid": b"\x30"},
        {"x509_svid": odd(after.x509_svid, VERSION)},
        {"x509_svid": odd(after.x509_svid, CURVE)},
        {"x509_svid_key": odd(after.x509_svid_key, CURVE)},
        {"bundle": b""},
        {"bundle": b"nonsense"},
    ):
        response = cast("Any", RESPONSE())
        entry = response.svids.add()
        entry.CopyFrom(after)
        for name, value in change.items():
            setattr(entry, name, value)
        with pytest.raises(WorkloadApiFailed):
            read(response.SerializeToString(), WANTED)
    with pytest.raises(WorkloadApiFailed, match="and not spiffe://"):
        read(handed(client), SpiffeId.parse(CLIENT.replace("node", "desk")))


def test_without_a_list_only_short_lives_stand(clock: Clock) -> None:
    lives, now = ShortLives(dt.timedelta(hours=1)), clock()
    lives.check(Peer(WANTED, 1, b"", now, now + dt.timedelta(hours=1)), now)
    with pytest.raises(LifeTooLong, match="1:00:01"):
        lives.check(Peer(WANTED, 1, b"", now, now + dt.timedelta(hours=1, seconds=1)), now)


async def test_a_node_serves_under_it(tmp_path: Path) -> None:
    """Started with the agent, restarted without it; callers whose certificates live too long are refused."""
    zone = Zone(tmp_path)
    now, short = dt.datetime.now(dt.UTC), dt.timedelta(minutes=30)
    for name in (echo.NODE, echo.WHO):
        zone.authority.issue(zone.identity(name), now, short)
    lasting = zone.files("taxation/lasting")
    socket = tmp_path / "agent.sock"
    tls = TlsSection.model_validate(
        {"workload_api": f"unix://{socket}", "folder": tmp_path / "kept", "longest_life": "1h"}
    )
    config = NodeConfig(node=zone.node(echo.NODE), tls=tls, limits=echo.LIMITS)

    async def ask(host: Any, files: SvidFiles) -> None:
        client = Client(host.address, host.identity, files)
        try:
            await client.unary(echo.UNARY, SignedContext(payload=b"echo"), SignedContext, timeout=10)
        finally:
            await client.close()

    listed = tmp_path / "echo.yaml"
    listed.write_text(echo.ACCESS)
    for there in (True, False):
        agent = await asyncio.to_thread(Agent, socket, handed(zone.files(echo.NODE))) if there else None
        host = await asyncio.to_thread(zone.frame, config)
        await host.start(echo.rpcs(echo.Echo()), [listed])
        await ask(host, zone.files(echo.WHO))
        with pytest.raises((HutongError, CertificateError)):
            await ask(host, lasting)
        await host.stop()
        if agent:
            await asyncio.to_thread(agent.stop)


def test_a_node_does_not_start_without_any(tmp_path: Path) -> None:
    zone = Zone(tmp_path)
    tls = TlsSection.model_validate(
        {"workload_api": f"unix://{tmp_path}/nobody.sock", "folder": tmp_path / "kept", "longest_life": "1h"}
    )
    with pytest.raises(WorkloadApiFailed, match="UNAVAILABLE"):
        zone.frame(NodeConfig(node=zone.node(echo.NODE), tls=tls))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"workload_api": "unix:///a", "longest_life": "1h"}, "needs a folder"),
        ({"workload_api": "tcp://a:1", "folder": "f", "longest_life": "1h"}, "workload_api"),
        ({"workload_api": "unix:///a", "folder": "f"}, "longest_life = '1h'"),
        ({"workload_api": "unix:///a", "folder": "f", "longest_life": "1h", "key": "k"}, "stands for key"),
        ({"workload_api": "unix:///a", "folder": "f", "longest_life": "1h", "revocations_from": {}}, "for revocations"),
        ({"certificate": "c", "key": "c", "bundle": "b", "revoked": "r", "longest_life": "1h"}, "one or the other"),
        ({"certificate": "c", "key": "c", "bundle": "b", "revoked": "r", "folder": "f"}, "folder is for"),
        ({"certificate": "c", "key": "c", "bundle": "b"}, "revoked is missing"),
    ],
)
def test_configs_that_do_not_stand(keys: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TlsSection.model_validate(keys)


def test_paths_of_what_is_handed_out_are_relative_to_the_config(tmp_path: Path) -> None:
    keys = {"workload_api": "unix:///a", "folder": "kept", "longest_life": "1h"}
    tls = TlsSection.model_validate(keys, context={"base": tmp_path})
    assert tls.bundle == tmp_path / "kept" / "bundle.crt"
    assert tls.certificate.parent == tls.folder == tmp_path / "kept"
