"""PostgreSQL with postgres_fdw: one server asks five others, each of which has a department's records.

Six servers of their own, mutual TLS 1.3 between all of them, certificates of the zone. The five are asked at once
(`async_capable`); the statement is prepared and its plan kept.
"""

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import psycopg
from psycopg import sql

from bench import corpus
from bench.peers import contract
from bench.peers.running import HOST, PeerMissingError, free_port, running
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import server_name
from services.cli.zone import Zone

_START_LIMIT = 30.0
_AGAIN = 0.1
_USER = "postgres"
_DATABASE = "postgres"
_SETTINGS: Final = {
    "ssl": "on",
    "ssl_cert_file": "server.pem",
    "ssl_key_file": "server.pem",
    "ssl_ca_file": "roots.crt",
    "ssl_min_protocol_version": "TLSv1.3",
    "max_connections": "200",
    "autovacuum": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "max_parallel_workers_per_gather": "0",
}
_ACCESS = "local all all trust\nhostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n"

QUERY: Final = " UNION ALL ".join(
    f"SELECT '{name}'::text, body FROM {field} WHERE uscc = %(uscc)s" for name, field in contract.FIELDS.items()
)
"""Asks all five for their record about one enterprise."""


@dataclass(frozen=True)
class Server:
    """One PostgreSQL server."""

    folder: Path
    port: int
    identity: SpiffeId

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """Connect as its owner, beside the network."""
        return psycopg.connect(host=str(self.folder), port=self.port, user=_USER, dbname=_DATABASE, autocommit=True)


def client_url(host: str, port: int, identity: SpiffeId, files: SvidFiles) -> str:
    """Say how to reach a server that must prove an identity, and whom to be."""
    options = urlencode(
        {
            "hostaddr": host,
            "sslmode": "verify-full",
            "sslrootcert": str(files.bundle),
            "sslcert": str(files.certificate),
            "sslkey": str(files.key),
        }
    )
    return f"postgresql://{_USER}@{server_name(identity)}:{port}/{_DATABASE}?{options}"


def _programs() -> Path:
    """Find the newest PostgreSQL that has postgres_fdw; raises `PeerMissingError`."""
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True):
        if (found.parents[1] / "lib" / "postgres_fdw.so").exists():
            return found.parent
    raise PeerMissingError(
        "there is no PostgreSQL with postgres_fdw: apt-get install --no-install-recommends postgresql"
    )


def _as_owner() -> Sequence[str]:
    """Begin a command that runs a server: PostgreSQL refuses root, who runs it as the user that Debian made for it."""
    if os.geteuid() != 0:
        return ()
    return "setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"


def _own(path: Path) -> None:
    if os.geteuid() == 0:
        found = pwd.getpwnam(_USER)
        os.chown(path, found.pw_uid, found.pw_gid)


def _make(programs: Path, folder: Path, template: Path, files: SvidFiles) -> None:
    """Make a server's data folder, from a template made once."""
    if not template.exists():
        how = ("-U", _USER, "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8")
        command = [*_as_owner(), str(programs / "initdb"), "-D", str(template), *how]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")
    subprocess.run(["cp", "-a", template, folder], check=True)
    for name, source in (("server.pem", files.certificate), ("roots.crt", files.bundle)):
        shutil.copy(source, folder / name)
        (folder / name).chmod(0o600)
        _own(folder / name)
    (folder / "pg_hba.conf").write_text(_ACCESS)


@contextlib.asynccontextmanager
async def _server(
    programs: Path, base: Path, identity: SpiffeId, files: SvidFiles
) -> AsyncGenerator[tuple[Server, int]]:
    server = Server(base / f"{identity.agency}-{identity.system}", free_port(), identity)
    await asyncio.to_thread(_make, programs, server.folder, base / "template", files)
    settings = _SETTINGS | {"port": str(server.port), "unix_socket_directories": str(server.folder)}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    command = (*_as_owner(), str(programs / "postgres"), "-D", str(server.folder), "-h", HOST, *options)
    log = base / f"{server.folder.name}.log"
    async with running(*command, port=server.port, log=log, folder=Path("/")) as pid:
        await _ready(server)
        yield server, pid


async def _ready(server: Server) -> None:
    """Wait until a server that listens already also answers."""
    async with asyncio.timeout(_START_LIMIT):
        while True:
            try:
                server.connect().close()
            except psycopg.OperationalError:
                await asyncio.sleep(_AGAIN)
            else:
                return


def _fill_department(server: Server, record_type: str, subjects: int) -> None:
    with server.connect() as connection:
        connection.execute("CREATE TABLE record (uscc text PRIMARY KEY, body bytea NOT NULL)")
        with connection.cursor().copy("COPY record FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "bytea"])
            for number in range(subjects):
                body = corpus.record(record_type, number).SerializeToString(deterministic=True)
                copy.write_row((corpus.code(number), body))
        connection.execute("ANALYZE record")


def _fill_front(server: Server, departments: Sequence[tuple[str, Server]], own: Path, roots: Path) -> None:
    with server.connect() as connection:
        connection.execute("CREATE EXTENSION postgres_fdw")
        for record_type, behind in departments:
            _attach(connection, contract.FIELDS[record_type], behind, own, roots)


def _attach(
    connection: "psycopg.Connection[tuple[object, ...]]", table: str, behind: Server, own: Path, roots: Path
) -> None:
    name = sql.Identifier(table)
    reach = {
        "host": server_name(behind.identity),
        "hostaddr": HOST,
        "port": str(behind.port),
        "dbname": _DATABASE,
        "sslmode": "verify-full",
        "sslrootcert": str(roots),
        "async_capable": "true",
    }
    user = {"user": _USER, "password_required": "false", "sslcert": str(own), "sslkey": str(own)}

    def options(values: dict[str, str]) -> sql.Composed:
        return sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(v)) for k, v in values.items())

    make = sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({})")
    connection.execute(make.format(name, options(reach)))
    connection.execute(
        sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER {} OPTIONS ({})").format(name, options(user))
    )
    table_of = sql.SQL("CREATE FOREIGN TABLE {} (uscc text, body bytea) SERVER {} OPTIONS (table_name 'record')")
    connection.execute(table_of.format(name, name))


@dataclass(frozen=True)
class Fanout:
    """Six servers that run."""

    target: str
    gateway: Sequence[int]
    departments: Sequence[int]


@contextlib.asynccontextmanager
async def fanout(zone: Zone, subjects: int) -> AsyncGenerator[Fanout]:
    """Run six servers over the corpus; raises `PeerMissingError` where there is no PostgreSQL."""
    programs = _programs()
    async with contextlib.AsyncExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-fdw-")))
        _own(base)
        departments: list[tuple[str, Server]] = []
        pids: list[int] = []
        for name in corpus.TYPES:
            identity = zone.identity(f"{contract.agency_of(name)}/node")
            files = zone.credentials(f"{identity.agency}/{identity.system}")
            server, pid = await stack.enter_async_context(_server(programs, base, identity, files))
            await asyncio.to_thread(_fill_department, server, name, subjects)
            departments.append((name, server))
            pids.append(pid)
        own = zone.credentials("gateway/main")
        front, pid = await stack.enter_async_context(_server(programs, base, zone.identity("gateway/main"), own))
        pem, roots = front.folder / "server.pem", front.folder / "roots.crt"
        await asyncio.to_thread(_fill_front, front, departments, pem, roots)
        yield Fanout(f"{HOST}:{front.port}", (pid,), pids)
