"""Renewal: when it is due, that it loses no call, and that a half-done one hurts nobody."""

import asyncio
import datetime as dt
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs import rotation
from certs.authority import Authority
from certs.errors import RevocationRefused, SvidUnknown, SvidUnreadable
from certs.files import write_atomically
from certs.register import RevocationReason, State
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.tls import server_credentials
from certs.verify import PeerVerifier
from tests.certs.bogus import CLIENT, ZONE, write_pair
from tests.certs.conftest import Clock
from tests.certs.mesh import Node, serving, who

ROTATIONS = 5
CALLS_BETWEEN = 24
"""Answered calls the rotator waits for before the next renewal."""

_moments = st.timedeltas(dt.timedelta(), dt.timedelta(days=7300)).map(
    lambda since: dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + since
)
_lives = st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=30))


@given(start=_moments, life=_lives)
def test_due_at_half_life(start: dt.datetime, life: dt.timedelta) -> None:
    end = start + life
    moment = rotation.due_at(start, end)
    assert abs((moment - start) - (end - moment)) <= dt.timedelta(microseconds=1)
    assert rotation.is_due(start, end, moment)
    assert rotation.is_due(start, end, end + life)
    assert not rotation.is_due(start, end, moment - dt.timedelta(microseconds=1))


def test_those_due_are_renewed_and_the_others_left(authority: Authority, clock: Clock) -> None:
    early, late = (SpiffeId.of(ZONE, "customs", system) for system in ("early", "late"))
    first = authority.issue(early, clock(), dt.timedelta(hours=8))
    clock.advance(hours=5)
    authority.issue(late, clock())
    (entry,) = rotation.due(authority, clock())
    assert entry == first
    renewed = rotation.rotate(authority, entry, clock())
    assert (renewed.spiffe_id, renewed.ttl) == (early, dt.timedelta(hours=8))
    assert authority.layout.svid(early).load().leaf.serial_number == renewed.serial
    assert rotation.due(authority, clock()) == ()


def test_the_key_is_new_and_the_old_certificate_not_revoked(
    authority: Authority, client: SvidFiles, client_id: SpiffeId, clock: Clock
) -> None:
    before = client.load()
    authority.renew(client_id, clock())
    after = client.load()
    assert before.key != after.key
    states = {entry.serial: entry.state(clock()) for entry in authority.register.entries()}
    assert states == {before.leaf.serial_number: State.REPLACED, after.leaf.serial_number: State.VALID}


def test_a_revoked_identity_is_not_renewed(
    authority: Authority, client: SvidFiles, client_id: SpiffeId, clock: Clock
) -> None:
    authority.revoke((client.load().leaf.serial_number,), RevocationReason.CESSATION_OF_OPERATION, clock())
    clock.advance(hours=20)
    assert rotation.due(authority, clock()) == ()
    with pytest.raises(RevocationRefused):
        authority.renew(client_id, clock())


def test_one_never_issued_is_not_renewed(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    with pytest.raises(SvidUnknown):
        authority.renew(client_id, clock())


def test_one_that_never_reached_its_file_is_due(
    authority: Authority, client: SvidFiles, client_id: SpiffeId, clock: Clock
) -> None:
    """The authority stopped between register and file: the old file is all the system has."""
    old = client.certificate.read_bytes()
    lost = authority.renew(client_id, clock())
    write_atomically(client.certificate, old)
    assert rotation.due(authority, clock()) == (lost,)


async def test_no_call_fails_while_certificates_change(
    node: Node, authority: Authority, client: SvidFiles, server_id: SpiffeId, client_id: SpiffeId, clock: Clock
) -> None:
    answered = asyncio.Semaphore(0)
    done = asyncio.Event()
    serials = [await node.serial(client)]

    async def keep_calling_over_one_connection() -> int:
        async with node.channel(client) as channel:
            return await _call_until(done, answered, lambda: who(channel))

    async def keep_calling_over_new_connections() -> int:
        return await _call_until(done, answered, lambda: node.ask(client))

    async def rotate() -> None:
        try:
            for _ in range(ROTATIONS):
                for _ in range(CALLS_BETWEEN):
                    await answered.acquire()
                await asyncio.to_thread(authority.renew, server_id, clock())
                await asyncio.to_thread(authority.renew, client_id, clock())
                serials.append(await node.serial(client))
        finally:
            done.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        workers = [group.create_task(keep_calling_over_one_connection()) for _ in range(2)]
        workers += [group.create_task(keep_calling_over_new_connections()) for _ in range(2)]
        group.create_task(rotate())
    assert sum(worker.result() for worker in workers) >= ROTATIONS * CALLS_BETWEEN
    issued = [entry.serial for entry in authority.register.entries() if entry.spiffe_id == server_id]
    assert serials == issued, "each new connection saw the newest certificate"


async def test_a_half_done_renewal_of_two_files_serves_the_old_pair(
    authority: Authority,
    client: SvidFiles,
    server_id: SpiffeId,
    revocations: RevocationList,
    clock: Clock,
    tmp_path: Path,
) -> None:
    authority.issue(server_id, clock())
    one = authority.layout.svid(server_id).load()
    files = write_pair(tmp_path / "pair", one.chain, one.key, authority.layout.bundle)
    async with serving(files, server_id, PeerVerifier(ZONE, revocations, clock)) as node:
        authority.renew(server_id, clock())
        two = authority.layout.svid(server_id).load()
        write_atomically(files.certificate, two.chain)
        assert await node.ask(client) == CLIENT
        assert await node.serial(client) == one.leaf.serial_number
        write_atomically(files.key, two.key)
        assert await node.serial(client) == two.leaf.serial_number
        shutil.rmtree(files.certificate.parent)
        assert await node.serial(client) == two.leaf.serial_number, "files gone: the last good ones serve"


async def test_a_changed_bundle_is_followed(
    authority: Authority,
    client: SvidFiles,
    server_id: SpiffeId,
    revocations: RevocationList,
    clock: Clock,
    tmp_path: Path,
) -> None:
    other = Authority.create(tmp_path / "other", ZONE, clock())
    authority.issue(server_id, clock())
    bundle = tmp_path / "bundle.crt"
    write_atomically(bundle, authority.layout.bundle.read_bytes())
    own = authority.layout.svid(server_id)
    files = SvidFiles(own.certificate, own.key, bundle)
    async with serving(files, server_id, PeerVerifier(ZONE, revocations, clock)) as node:
        assert await node.ask(client) == CLIENT
        write_atomically(bundle, other.layout.bundle.read_bytes())
        await node.refusal(client)
        write_atomically(bundle, other.layout.bundle.read_bytes() + authority.layout.bundle.read_bytes())
        assert await node.ask(client) == CLIENT


def test_a_server_does_not_start_without_an_identity(authority: Authority, server_id: SpiffeId) -> None:
    with pytest.raises(SvidUnreadable, match="cannot be read"):
        server_credentials(authority.layout.svid(server_id))


async def _call_until(done: asyncio.Event, answered: asyncio.Semaphore, call: Callable[[], Awaitable[str]]) -> int:
    count = 0
    while not done.is_set():
        assert await call() == CLIENT
        count += 1
        answered.release()
    return count
