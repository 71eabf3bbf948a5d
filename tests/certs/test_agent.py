"""What keeps a zone's certificates fresh: what it does, what it survives, and that there is one of it."""

import datetime as dt
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from certs.agent import Turn, held, tend
from certs.authority import Authority
from certs.errors import AgentRunning, ZoneMissing
from certs.register import RevocationReason
from certs.revocation import LIST_LIFE, RevocationList
from certs.rotation import due
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from tests.certs.bogus import CLIENT, ZONE
from tests.certs.conftest import Clock
from tests.certs.mesh import wall_clock

REPOSITORY = Path(__file__).parents[2]
_COMMAND = (sys.executable, "-c", "from certs.commands import app; app()", "agent", "--json", "--every", "1s")


def test_what_is_due_is_renewed(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    before = client.load().leaf.serial_number
    assert tend(authority, clock()) == Turn()
    clock.advance(hours=13)
    assert tend(authority, clock()) == Turn(renewed=(CLIENT,))
    assert client.load().leaf.serial_number != before
    assert tend(authority, clock()) == Turn()


def test_the_list_is_signed_again_at_half_its_life(authority: Authority, clock: Clock) -> None:
    clock.advance(seconds=LIST_LIFE.total_seconds() / 2 - 2)
    assert tend(authority, clock()) == Turn()
    clock.advance(seconds=4)
    assert tend(authority, clock()) == Turn(published=True)
    lists = RevocationList(authority.layout.revoked, authority.layout.bundle)
    assert lists.seconds_left(clock()) > LIST_LIFE.total_seconds() - 2


def test_a_lost_list_is_signed_again(authority: Authority, clock: Clock) -> None:
    authority.layout.revoked.unlink()
    assert tend(authority, clock()) == Turn(published=True)


def test_who_was_revoked_is_not_renewed(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    authority.revoke((client.load().leaf.serial_number,), RevocationReason.KEY_COMPROMISE, clock())
    clock.advance(hours=13)
    assert tend(authority, clock()) == Turn()


def test_one_that_cannot_be_written_does_not_keep_the_others(
    authority: Authority, client: SvidFiles, clock: Clock
) -> None:
    other = SpiffeId.of(ZONE, "customs", "node")
    authority.issue(other, clock())
    blocked = authority.layout.svid(other).certificate
    blocked.unlink()
    blocked.mkdir()
    (blocked / "in the way").touch()
    assert not authority.delivered(authority.current()[other])
    clock.advance(hours=13)
    turn = tend(authority, clock())
    assert turn.renewed == (CLIENT,)
    assert str(other) in turn.problem


def test_one_at_a_time(authority: Authority) -> None:
    folder = authority.layout.folder
    with held(folder), pytest.raises(AgentRunning, match=str(os.getpid())), held(folder):
        raise AssertionError("two agents")
    with held(folder):
        pass


def test_no_zone_no_agent(tmp_path: Path) -> None:
    with pytest.raises(ZoneMissing), held(tmp_path):
        raise AssertionError("an agent of nothing")


def _start(folder: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HUTONG_CERTS": str(folder)}
    return subprocess.Popen(_COMMAND, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment, text=True)


def _overdue(authority: Authority, count: int) -> None:
    for number in range(count):
        authority.issue(SpiffeId.of(ZONE, "customs", f"system-{number}"), wall_clock() - dt.timedelta(hours=13))


@pytest.mark.parametrize("written", [0, 1, 5])
def test_killed_while_it_renews(authority: Authority, written: int) -> None:
    """Killed after its nth renewal began, a second agent does what is left; every identity loads at every moment."""
    _overdue(authority, 12)
    layout = authority.layout
    with _start(layout.folder) as agent:
        while len(authority.register.entries()) < 12 + written:
            assert agent.poll() is None
        agent.kill()
    reopened = Authority.open(layout.folder)
    for spiffe_id in reopened.current():
        layout.svid(spiffe_id).load()
    tend(reopened, wall_clock())
    assert due(reopened, wall_clock()) == ()
    for entry in reopened.current().values():
        assert layout.svid(entry.spiffe_id).load().leaf.serial_number == entry.serial


def test_a_process_of_its_own(authority: Authority) -> None:
    """It renews at once, goes on with the next that is due, is alone, and ends when it is asked to."""
    _overdue(authority, 1)
    with _start(authority.layout.folder) as agent:
        assert agent.stdout is not None
        assert "system-0" in agent.stdout.readline()
        with pytest.raises(AgentRunning, match=str(agent.pid)), held(authority.layout.folder):
            raise AssertionError("two agents")
        authority.issue(SpiffeId.of(ZONE, "customs", "later"), wall_clock() - dt.timedelta(hours=13))
        assert "later" in agent.stdout.readline()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(10) == 0
