"""Connections to PostgreSQL: under TLS, over a restart, beside deadlocks, and beside a replica that froze."""

import asyncio
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import exc

from services.cli.dbs.checking import AWAY
from services.kit.config import StoreSection
from services.kit.errors import Aborted, HutongError, Reason, Unavailable
from services.kit.records.database import Database, engine
from tests.log.bed import draft, opened, whole
from tests.state.bed import Bed, execute, value
from tests.state.secured import ROLE, Secured, made, secured, who
from tests.zone import ZONE, Zone, now


@pytest.fixture(scope="module")
def zone(tmp_path_factory: pytest.TempPathFactory) -> Zone:
    return Zone(tmp_path_factory.mktemp("zone"))


@pytest.fixture(scope="module")
def server(zone: Zone) -> Generator[Secured]:
    # Not below pytest's own folder, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="hutong-pg-", ignore_cleanup_errors=True) as folder:
        roots = zone.files("customs/node").bundle
        with secured(Path(folder), roots, f"CN=node,OU=customs,O={ZONE}") as started:
            started.execute(f"CREATE ROLE {ROLE} LOGIN")
            yield started


def test_a_server_that_proves_who_it_is(server: Secured, tmp_path: Path) -> None:
    url = server.url()
    assert who(url) == ("postgres", True)
    bed = Bed(tmp_path / "node", url, f"sqlite:///{tmp_path}/log.db")
    assert bed.run("upgrade").exit_code == 0
    assert [one["tls"] for one in bed.told("check")["databases"]] == ["on", "local"]


@pytest.mark.parametrize("case", ["other roots", "other name"])
def test_a_server_that_does_not(case: str, server: Secured, tmp_path: Path) -> None:
    roots = made(tmp_path, "elsewhere").certificate
    # The other name leads to the same address; the certificate does not have it.
    url = server.url(roots=roots) if case == "other roots" else f"{server.url(host='db.internal')}&hostaddr=127.0.0.1"
    StoreSection(url=url).read_url(tmp_path)
    with pytest.raises(exc.OperationalError, match="certificate"):
        who(url)
    bed = Bed(tmp_path / "node", url, f"sqlite:///{tmp_path}/log.db")
    assert bed.told("check")["databases"][0]["standing"] == AWAY
    assert bed.reason("upgrade") == Reason.STORE_UNAVAILABLE


def test_no_connection_goes_without(server: Secured) -> None:
    with pytest.raises(exc.OperationalError, match="no encryption"):
        who(server.url(mode="disable"))


def test_a_node_logs_in_with_its_certificate(server: Secured, zone: Zone) -> None:
    """Its own, the one that it shows to other nodes: nobody has a password to keep."""
    own, other = zone.files("customs/node"), zone.files("taxation/node")
    assert who(server.url(role=ROLE, files=own)) == (ROLE, True)
    for wrong, why in ((None, "requires a valid client certificate"), (other, "certificate authentication failed")):
        with pytest.raises(exc.OperationalError, match=why):
            who(server.url(role=ROLE, files=wrong))
    own_before = own.version()
    zone.authority.renew(zone.identity("customs/node"), now())
    assert own.version() != own_before
    assert who(server.url(role=ROLE, files=own)) == (ROLE, True)


async def test_a_restart_costs_no_call_after_it(server: Secured) -> None:
    """Idle connections that were cut are replaced before anything is asked over them."""
    server.execute("CREATE TABLE t (id BIGINT)")
    database = Database(server.url())
    insert, count = sa.text("INSERT INTO t VALUES (1)"), sa.text("SELECT count(*) FROM t")
    try:
        for number in range(1, 4):
            await database.write(lambda c: c.execute(insert))
            assert await database.read(lambda c: c.execute(count).scalar()) == number
            server.cut()
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
