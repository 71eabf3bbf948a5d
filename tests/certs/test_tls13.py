"""TLS 1.3 and nothing older, on both sides, proved with a second TLS implementation."""

import asyncio
import datetime as dt
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from certs.authority import Authority
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import channel_credentials, server_name
from tests.certs.bogus import GOOD, sign
from tests.certs.mesh import Node, refused

REPOSITORY = Path(__file__).parents[2]


async def test_a_server_accepts_a_client_of_tls_1_3(node: Node, client: SvidFiles) -> None:
    version, heard = await asyncio.to_thread(node.shake_hands, client, ssl.TLSVersion.TLSv1_3)
    assert version == "TLSv1.3"
    assert heard > 0, "the server's first frame, after it has judged the client"


async def test_a_server_refuses_a_client_of_tls_1_2(node: Node, client: SvidFiles) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.to_thread(node.shake_hands, client, ssl.TLSVersion.TLSv1_2)


async def test_a_client_accepts_a_server_of_tls_1_3(authority: Authority, client: SvidFiles, tmp_path: Path) -> None:
    with _listening(sign(GOOD, authority, tmp_path / "server"), ssl.TLSVersion.TLSv1_3) as listener:
        await _refused_by(listener, client)
    assert (listener.agreed[:1], listener.failed) == (["TLSv1.3"], 0)


async def test_a_client_refuses_a_server_of_tls_1_2(authority: Authority, client: SvidFiles, tmp_path: Path) -> None:
    with _listening(sign(GOOD, authority, tmp_path / "server"), ssl.TLSVersion.TLSv1_2) as listener:
        await _refused_by(listener, client)
    assert listener.agreed == []
    assert listener.failed > 0


def test_without_the_floor_tls_1_2_would_be_spoken() -> None:
    """Shows that the tests above pass because of the floor: the same server without it agrees on TLS 1.2."""
    assert _python(_WITHOUT_FLOOR).stdout.split() == ["TLSv1.2"]


def test_too_late_is_said_and_not_ignored() -> None:
    done = _python("import grpc; from certs.tls import require_tls13; require_tls13()", check=False)
    assert done.returncode == 1
    assert "TlsFloorTooLate" in done.stderr


def test_credentials_are_not_made_without_the_floor() -> None:
    script = "import grpc; from certs.tls import *; from pathlib import Path; p = Path('absent')\n"
    for make in ("server_credentials", "channel_credentials"):
        done = _python(f"{script}{make}(SvidFiles(p, p, p))", check=False)
        assert "TlsFloorTooLate" in done.stderr


def test_importing_the_package_does_not_load_grpc() -> None:
    script = "import sys, certs.tls, certs.authority, certs.commands, certs.verify, certs.rotation\n"
    assert _python(f"{script}print('grpc' in sys.modules)").stdout.split() == ["False"]


class _Listener(socketserver.ThreadingTCPServer):
    """Listens with Python's own TLS, hangs up after the handshake, and notes what was agreed."""

    def __init__(self, files: SvidFiles, version: ssl.TLSVersion) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.certificate, files.key)
        self.context.set_alpn_protocols(["h2"])
        self.context.minimum_version = self.context.maximum_version = version
        self.agreed: list[str | None] = []
        self.failed = 0
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        listener, raw = self.server, self.request
        assert isinstance(listener, _Listener)
        assert isinstance(raw, socket.socket)
        try:
            with listener.context.wrap_socket(raw, server_side=True) as tls:
                if tls.recv(16):  # the client's preface: it has accepted the server
                    listener.agreed.append(tls.version())
        except OSError:
            listener.failed += 1


@contextmanager
def _listening(files: SvidFiles, version: ssl.TLSVersion) -> Generator[_Listener]:
    with _Listener(files, version) as listener:
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield listener
        finally:
            listener.shutdown()
            thread.join()


async def _refused_by(listener: _Listener, client: SvidFiles) -> None:
    """Call until the listener hangs up or the handshake fails."""
    options = [("grpc.ssl_target_name_override", server_name(SpiffeId.parse(GOOD.uris[0])))]
    target = f"127.0.0.1:{listener.server_address[1]}"
    async with grpc.aio.secure_channel(target, channel_credentials(client), options=options) as channel:
        code, _ = await refused(channel)
    assert code is grpc.StatusCode.UNAVAILABLE


_WITHOUT_FLOOR = """
import asyncio, datetime as dt, ssl, tempfile, pathlib
import grpc, grpc.aio
from certs.authority import Authority
from certs.spiffe import SpiffeId
import tests.certs.mesh as mesh

async def main():
    now = dt.datetime.now(dt.UTC)
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.create(pathlib.Path(folder) / "zone", "north.example", now)
        name = SpiffeId.of("north.example", "customs", "node")
        authority.issue(name, now)
        files = authority.layout.svid(name)
        svid = files.load()
        server = grpc.aio.server()
        credentials = grpc.ssl_server_credentials([(svid.key, svid.chain)], svid.bundle, True)
        node = mesh.Node(server.add_secure_port("127.0.0.1:0", credentials), name, None)
        await server.start()
        version, _ = await asyncio.to_thread(node.shake_hands, files, ssl.TLSVersion.TLSv1_2)
        print(version)
        await server.stop(0)

asyncio.run(main())
"""


def _python(script: str, *, check: bool = True) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    environment["PYTHONPATH"] = str(REPOSITORY)
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=check,
        cwd=REPOSITORY,
        env=environment,
        text=True,
        timeout=dt.timedelta(minutes=1).total_seconds(),
    )
