"""Connections to PostgreSQL: under TLS, over a restart, beside deadlocks, and beside a replica that froze."""

import asyncio
import datetime as dt
import ipaddress
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import exc

from services.kit.config import StoreSection
from services.kit.errors import Aborted, HutongError, Reason, Unavailable
from services.kit.records.database import Database, engine
from tests.databases import Postgres
from tests.log.bed import draft, opened, whole
from tests.state.bed import Bed, execute, value
from tests.state.front import Front, fronted


@dataclass
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


def made(folder: Path, name: str) -> Pair:
    """Make a self-signed certificate for localhost and 127.0.0.1."""
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
    return pair


@pytest.fixture
def server(tmp_path: Path) -> Pair:
    return made(tmp_path, "localhost")


@pytest.fixture
def front(postgres_server: Postgres, server: Pair) -> Generator[Front]:
    with fronted(f"{postgres_server.url.query['host']}/.s.PGSQL.5432", server.certificate, server.key) as started:
        yield started


def through(front: Front, url: str, roots: Path, host: str = "localhost", mode: str = "verify-full") -> str:
    """Write the URL of a database behind the front."""
    parsed = sa.make_url(url)
    changed = sa.URL.create("postgresql+psycopg", parsed.username, None, host, front.port, parsed.database)
    return changed.update_query_dict({"sslmode": mode, "sslrootcert": str(roots)}).render_as_string(False)


def test_a_server_that_proves_who_it_is(front: Front, server: Pair, postgres_url: str, tmp_path: Path) -> None:
    url = through(front, postgres_url, server.certificate)
    assert value(url, "SELECT 1") == 1
    bed = Bed(tmp_path / "node", url, f"sqlite:///{tmp_path}/log.db")
    assert bed.run("upgrade").exit_code == 0
    assert [one["tls"] for one in bed.told("check")["databases"]] == ["on", "local"]


@pytest.mark.parametrize("case", ["other roots", "other name"])
def test_a_server_that_does_not(case: str, front: Front, server: Pair, postgres_url: str, tmp_path: Path) -> None:
    roots = made(tmp_path, "elsewhere").certificate if case == "other roots" else server.certificate
    url = through(front, postgres_url, roots)
    if case == "other name":
        # It leads to the same address by a name that the certificate does not have.
        url = url.replace("@localhost:", "@db.internal:") + "&hostaddr=127.0.0.1"
    StoreSection(url=url).read_url(tmp_path)
    with pytest.raises(exc.OperationalError, match="certificate"):
        value(url, "SELECT 1")


def test_no_connection_goes_without(front: Front, server: Pair, postgres_url: str) -> None:
    with pytest.raises(exc.OperationalError):
        value(through(front, postgres_url, server.certificate, mode="disable"), "SELECT 1")
    assert front.plain == 1


async def test_a_restart_costs_no_call_after_it(front: Front, server: Pair, postgres_url: str) -> None:
    """Idle connections that were cut are replaced before anything is asked over them."""
    execute(postgres_url, "CREATE TABLE t (id BIGINT)")
    database = Database(through(front, postgres_url, server.certificate))
    insert, count = sa.text("INSERT INTO t VALUES (1)"), sa.text("SELECT count(*) FROM t")
    try:
        for number in range(1, 4):
            await database.write(lambda c: c.execute(insert))
            assert await database.read(lambda c: c.execute(count).scalar()) == number
            front.cut()
    finally:
        await asyncio.to_thread(database.close)


async def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    """Two writers take two rows in either order: the one that is given up for the other runs again."""
    execute(postgres_url, "CREATE TABLE t (id BIGINT, n BIGINT)", "INSERT INTO t VALUES (1, 0), (2, 0)")
    both, runs = threading.Barrier(2, timeout=20), [0, 0]
    update = sa.text("UPDATE t SET n = n + 1 WHERE id = :id")

    def work(number: int, connection: sa.Connection) -> None:
        runs[number] += 1
        connection.execute(update, {"id": number + 1})
        if runs[number] == 1:
            both.wait()
        connection.execute(update, {"id": 2 - number})

    one, other = Database(postgres_url), Database(postgres_url)
    try:
        await asyncio.gather(one.write(lambda c: work(0, c)), other.write(lambda c: work(1, c)))
    finally:
        one.close()
        other.close()
    assert sorted(runs) == [1, 2]
    assert value(postgres_url, "SELECT sum(n) FROM t") == 4


async def test_what_is_given_up_twice_is_told(postgres_url: str) -> None:
    raised = sa.text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$")
    database, runs = Database(postgres_url), 0

    def work(connection: sa.Connection) -> None:
        nonlocal runs
        runs += 1
        connection.execute(raised)

    with pytest.raises(Aborted) as caught:
        await database.write(work)
    database.close()
    assert (caught.value.reason, runs) == (Reason.VERSION_CONFLICT, 2)


async def test_a_replica_that_froze_does_not_hold_the_log(postgres_url: str) -> None:
    """It has the head's lock, and says nothing more: the server ends its transaction, and the others go on."""
    async with opened(postgres_url) as log:
        await log.append(draft(1))
        frozen = engine(f"{postgres_url}&statement_timeout=1000", writer=True)
        with frozen.connect() as connection:
            connection.execute(sa.text("SELECT size FROM log_head FOR UPDATE"))
            async with asyncio.timeout(20):
                assert (await log.append(draft(2))).index == 1
            with pytest.raises(exc.DBAPIError):
                connection.execute(sa.text("UPDATE log_head SET size = 0"))
            connection.invalidate()
        frozen.dispose()
    assert whole(postgres_url).size == 2


async def test_a_statement_that_takes_too_long(postgres_url: str) -> None:
    database = Database(f"{postgres_url}&statement_timeout=200")
    with pytest.raises(HutongError) as caught:
        await database.read(lambda c: c.execute(sa.text("SELECT pg_sleep(30)")))
    await asyncio.to_thread(database.close)
    assert isinstance(caught.value, Unavailable)


async def test_a_pool_has_the_size_that_was_said(postgres_url: str) -> None:
    database = Database(f"{postgres_url}&pool=2")
    both = threading.Barrier(2, timeout=20)
    ask = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hutong'")

    def work(connection: sa.Connection) -> int:
        both.wait()
        return int(connection.execute(ask).scalar_one())

    counts = await asyncio.gather(*(database.read(work) for _ in range(6)))
    await asyncio.to_thread(database.close)
    assert max(counts) == 2
