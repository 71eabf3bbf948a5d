"""Files of a log from its node: over HTTPS, or over the node's gRPC door; either way the node proves who it is."""

import asyncio
import http.client
import re
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final, TypeVar

from google.protobuf.message import Message

from certs.spiffe import SpiffeId, server_name
from certs.svid import SvidFiles
from hutong.api.log.v1 import log_service_pb2
from services.cli.question import Door
from services.kit.client import Client
from services.kit.errors import InvalidArgument, NotFound, PermissionDenied, Reason, Unavailable
from services.kit.log.tiles import CHECKPOINT
from services.kit.log.verifying import MAX_FILE, Fetch

R = TypeVar("R", bound=Message)

SERVICE: Final = f"/{log_service_pb2.DESCRIPTOR.services_by_name['LogService'].full_name}"

WAIT: Final = 30.0
"""Seconds that one file may take."""

_URL: Final = re.compile(r"https://([^/?#@]+):([0-9]{1,5})/?", re.ASCII)


@contextmanager
def over_https(url: str, node: SpiffeId, credentials: SvidFiles) -> Generator[Fetch]:
    """Fetch from where a node serves its log as static files, over one connection.

    Raises `InvalidArgument` for what is no such address; fetching raises `Unavailable`, `NotFound` and
    `PermissionDenied`.
    """
    found = _URL.fullmatch(url)
    if found is None or int(found[2]) > 65535:
        raise InvalidArgument(Reason.MALFORMED_REQUEST, f"{url!r} is no address of tiles: write https://HOST:PORT")
    connection = _Connection(found[1].strip("[]"), int(found[2]), server_name(node), _context(credentials))
    try:
        yield connection.fetch
    finally:
        connection.close()


def _context(credentials: SvidFiles) -> ssl.SSLContext:
    svid = credentials.load()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=svid.bundle.decode())
    context.load_cert_chain(credentials.certificate, credentials.key)
    return context


class _Connection(http.client.HTTPConnection):
    """A connection on which the server must have the name of one node."""

    def __init__(self, host: str, port: int, name: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=WAIT)
        self._name = name
        self._context = context

    def connect(self) -> None:
        """Connect; `http.client` calls this when it needs to, also after the server has closed."""
        plain = socket.create_connection((self.host, self.port), WAIT)
        try:
            self.sock = self._context.wrap_socket(plain, server_hostname=self._name)
        except BaseException:
            plain.close()
            raise

    def fetch(self, path: str) -> bytes:
        """Get one file."""
        try:
            self.request("GET", f"/{path}")
            response = self.getresponse()
            body = response.read(MAX_FILE + 1)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            why = "its certificate does not stand" if isinstance(error, ssl.SSLError) else "no answer"
            raise Unavailable(Reason.LOG_UNAVAILABLE, f"{self.host}:{self.port}: {why}") from None
        if len(body) > MAX_FILE:
            self.close()
            raise Unavailable(Reason.LOG_UNAVAILABLE, f"{path} is larger than a file of a log can be")
        match response.status:
            case HTTPStatus.OK:
                return body
            case HTTPStatus.NOT_FOUND:
                raise NotFound(Reason.LOG_ENTRY_UNKNOWN, f"the node has no {path}")
            case HTTPStatus.FORBIDDEN:
                raise PermissionDenied(Reason.CALLER_NOT_LISTED, f"this caller may not read {path}")
            case status:
                raise Unavailable(Reason.LOG_UNAVAILABLE, f"{path}: the node answers {status}")


class Asking:
    """The files of a log as its node's gRPC door gives them."""

    def __init__(self, runner: asyncio.Runner, client: Client) -> None:
        self._runner = runner
        self._client = client

    def fetch(self, path: str) -> bytes:
        """Get one file; raises what the node answers."""
        if path == CHECKPOINT:
            return self.checkpoints().checkpoint.encode()
        request = log_service_pb2.GetTileRequest(path=path)
        return self._call("GetTile", request, log_service_pb2.GetTileResponse).tile

    def checkpoints(self) -> log_service_pb2.GetCheckpointResponse:
        """Get the newest checkpoint, and the newest that witnesses have co-signed; raises what the node answers."""
        request = log_service_pb2.GetCheckpointRequest()
        return self._call("GetCheckpoint", request, log_service_pb2.GetCheckpointResponse)

    def _call(self, rpc: str, request: Message, response: type[R]) -> R:
        return self._runner.run(self._client.unary(f"{SERVICE}/{rpc}", request, response, timeout=WAIT))


@contextmanager
def over_grpc(door: Door) -> Generator[Asking]:
    """Ask a node, over one connection."""
    with asyncio.Runner() as runner:
        client = door.client()
        try:
            yield Asking(runner, client)
        finally:
            runner.run(client.close())
