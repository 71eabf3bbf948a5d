"""An identity provider's web server: real TLS on a real socket, and whatever manners a test gives it."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HOST = "127.0.0.1"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Provider:
    """The server, and what it was asked."""

    port: int
    ca: Path
    body: bytes = b""
    """What it answers with, as a whole, unless `raw` is given."""
    raw: bytes | None = None
    silent: bool = False
    """It takes requests and says nothing more."""
    asked: list[str] = field(default_factory=list[str])
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """It answers once this is set."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.port}/realms/customs/keys?kind=officers"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head.decode().splitlines()[0])
            self.reached.set()
            await self.gate.wait()
            if self.silent:
                await reader.read()
            else:
                writer.write(self.raw if self.raw is not None else answer(self.body))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return  # whoever asked has gone
        finally:
            writer.transport.abort()


@asynccontextmanager
async def provider(
    folder: Path, *, name: str = HOST, version: ssl.TLSVersion | None = None
) -> AsyncGenerator[Provider]:
    """Serve with a certificate for `name`, under roots of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca, own = certificate(folder, name)
    context.load_cert_chain(own)
    if version is not None:
        context.maximum_version = version
    made = Provider(0, ca)
    made.gate.set()
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(made.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, HOST, 0, ssl=context)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make roots, and under them a certificate with its key; gives both files."""
    folder.mkdir(parents=True, exist_ok=True)
    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "roots of a provider")])
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    signed = _builder(issuer, issuer, root).add_extension(x509.BasicConstraints(True, 0), True).sign(root, _SHA256)
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        alternative = x509.DNSName(name)
    leaf = (
        _builder(subject, issuer, own)
        .add_extension(x509.SubjectAlternativeName([alternative]), False)
        .add_extension(x509.BasicConstraints(False, None), True)
        .sign(root, _SHA256)
    )
    ca, files = folder / "ca.pem", folder / "provider.pem"
    ca.write_bytes(signed.public_bytes(Encoding.PEM))
    key = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files.write_bytes(leaf.public_bytes(Encoding.PEM) + key)
    return ca, files


_SHA256 = hashes.SHA256()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    return x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day)


@dataclass
class Seconds:
    """A monotonic clock that a test moves on."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at
