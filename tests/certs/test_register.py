"""The register: lines that are appended, a last line that is torn, and the archives of what ended long ago."""

import datetime as dt
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from certs.agent import Turn, tend
from certs.authority import Authority
from certs.commands import app
from certs.errors import RevocationRefused, SvidUnknown, ZoneDamaged
from certs.files import write_atomically
from certs.register import KEPT, Issued, Register, RevocationReason, State
from certs.revocation import LISTED_BEYOND
from certs.rotation import due
from certs.spiffe import SpiffeId
from tests.certs.bogus import ZONE
from tests.certs.conftest import Clock

REPOSITORY = Path(__file__).parents[2]
DAY = dt.timedelta(days=1)
HALF = dt.timedelta(hours=12)
LAB = SpiffeId.of(ZONE, "quality", "lab")
GONE = SpiffeId.of(ZONE, "quality", "gone")
NEW_YEAR = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

# What the versions before the archives have written, the first of them without the name of the authority.
OLD = b"""\
{"event":"issued","serial":"0a01","spiffe_id":"spiffe://north.example/customs/node","not_before":"2025-11-01T00:00:00Z",\
"not_after":"2025-11-02T00:00:00Z","issued_at":"2025-11-01T00:00:00Z"}
{"event":"issued","serial":"0a02","spiffe_id":"spiffe://north.example/customs/node","not_before":"2025-11-01T12:00:00Z",\
"not_after":"2025-11-02T12:00:00Z","issued_at":"2025-11-01T12:00:00Z","authority":"first"}
{"event":"revoked","serial":"0a01","at":"2025-11-01T13:00:00Z","reason":"key-compromise"}
{"event":"issued","serial":"0a03","spiffe_id":"spiffe://north.example/customs/node","not_before":"2025-11-05T00:00:00Z",\
"not_after":"2025-11-06T00:00:00Z","issued_at":"2025-11-05T00:00:00Z","authority":"first"}
{"event":"issued","serial":"0b01","spiffe_id":"spiffe://north.example/quality/lab","not_before":"2025-11-01T00:00:00Z",\
"not_after":"2025-11-02T00:00:00Z","issued_at":"2025-11-01T00:00:00Z","authority":"first"}
{"event":"revoked","serial":"0b01","at":"2025-11-01T01:00:00Z","reason":"unspecified"}
"""


def issue(register: Register, serial: int, spiffe_id: SpiffeId, at: dt.datetime, life: dt.timedelta = DAY) -> None:
    register.add_issued(Issued(serial, spiffe_id, at, at + life, at))


def history(register: Register, since: dt.datetime, until: dt.datetime, systems: Sequence[SpiffeId] = (LAB,)) -> None:
    """Each system twice a day, as an agent does; every seventh certificate is revoked."""
    at, serial = since, 1 << 40
    while at < until:
        for spiffe_id in systems:
            serial += 1
            issue(register, serial, spiffe_id, at)
            if serial % 7 == 0:
                register.add_revoked((serial,), at, RevocationReason.SUPERSEDED)
        at += HALF


def lines(register: Register) -> Counter[bytes]:
    return Counter(b"".join(path.read_bytes() for path in (*register.archives, register.path)).splitlines())


@pytest.fixture
def register(tmp_path: Path) -> Register:
    write_atomically(tmp_path / "issued.jsonl", b"")
    return Register(tmp_path / "issued.jsonl")


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A register from November to March, of three systems of which one was revoked for good in November."""
    path = tmp_path_factory.mktemp("year") / "issued.jsonl"
    write_atomically(path, b"")
    register = Register(path)
    issue(register, 1, GONE, NEW_YEAR - 60 * DAY)
    register.add_revoked((1,), NEW_YEAR - 60 * DAY, RevocationReason.CESSATION_OF_OPERATION)
    history(register, NEW_YEAR - 60 * DAY, NEW_YEAR + 60 * DAY, (LAB, SpiffeId.of(ZONE, "customs", "node")))
    return path.read_bytes()


def test_a_line_more_leaves_the_file_where_it_is(register: Register) -> None:
    inode = register.path.stat().st_ino
    for serial in range(1, 4):
        before = register.path.read_bytes()
        issue(register, serial, LAB, NEW_YEAR)
        assert register.path.read_bytes().startswith(before)
    register.add_revoked((1, 2), NEW_YEAR, RevocationReason.SUPERSEDED)
    assert register.path.stat().st_ino == inode
    states = [entry.state(NEW_YEAR) for entry in register.entries()]
    assert states == [State.REVOKED, State.REVOKED, State.VALID]
    assert Register(register.path).entries() == register.entries()


def test_what_others_write_is_read(register: Register, year: bytes) -> None:
    other = Register(register.path)
    assert other.entries() == ()
    issue(register, 1, LAB, NEW_YEAR)
    assert [entry.serial for entry in other.entries()] == [1]
    issue(other, 2, LAB, NEW_YEAR)
    assert [entry.serial for entry in register.entries()] == [1, 2]
    write_atomically(register.path, year)
    assert len(other.entries()) == len(register.entries()) > 400
    register.archive(NEW_YEAR + 60 * DAY)
    assert other.entries() == register.entries() == Register(register.path).entries()


@pytest.mark.parametrize("zeros", [0, 5], ids=["cut", "zeros"])
def test_a_torn_last_line_is_passed_over_and_cut(register: Register, zeros: int) -> None:
    """Wherever in it its writer was stopped."""
    issue(register, 1, LAB, NEW_YEAR)
    first = register.path.read_bytes()
    issue(register, 2, LAB, NEW_YEAR)
    whole = register.path.read_bytes()
    for length in range(len(first) + 1, len(whole) - 1, 23):
        write_atomically(register.path, whole[:length] + bytes(zeros))
        assert [entry.serial for entry in Register(register.path).entries()] == [1]
        issue(register, 2, LAB, NEW_YEAR)
        assert register.path.read_bytes() == whole


def test_a_last_line_that_lacks_only_its_end_counts(register: Register) -> None:
    issue(register, 1, LAB, NEW_YEAR)
    register.add_revoked((1,), NEW_YEAR, RevocationReason.KEY_COMPROMISE)
    whole = register.path.read_bytes()
    write_atomically(register.path, whole[:-1])
    assert register.entries()[0].state(NEW_YEAR) is State.REVOKED
    issue(register, 2, LAB, NEW_YEAR)
    assert register.path.read_bytes().startswith(whole)
    assert len(Register(register.path).entries()) == 2


@pytest.mark.parametrize("end", [b"nonsense", b"{}", b"\0\0{", b'{"event":"issued"}\0\0\n'])
def test_an_end_that_is_none_of_ours_is_not_cut(register: Register, end: bytes) -> None:
    issue(register, 1, LAB, NEW_YEAR)
    damaged = register.path.read_bytes() + end
    write_atomically(register.path, damaged)
    with pytest.raises(ZoneDamaged, match=r"issued\.jsonl"):
        issue(register, 2, LAB, NEW_YEAR)
    assert register.path.read_bytes() == damaged


def test_what_ended_long_ago_is_moved(register: Register, year: bytes) -> None:
    write_atomically(register.path, year)
    before, now = register.entries(), NEW_YEAR + 60 * DAY
    register.archive(now)
    assert [path.name for path in register.archives] == ["issued-2025.jsonl", "issued-2026.jsonl"]
    assert lines(register) == Counter(year.splitlines())
    left = register.entries()
    assert left == Register(register.path).entries()
    assert left[0].spiffe_id == GONE, "who was revoked is remembered in the register itself"
    # Thirty days, a day's life, and at most a day until the next batch, of two systems twice a day.
    assert 30 * 4 < len(left) <= 33 * 4 + 1
    assert all(entry.not_after >= now - KEPT - 2 * DAY for entry in left[1:])
    assert {entry.serial: entry for entry in register.everything()} == {entry.serial: entry for entry in before}
    for path, number in zip(register.archives, (2025, 2026), strict=True):
        assert {entry.issued_at.year for entry in Register(path).entries()} == {number}
        assert path.stat().st_mode & 0o777 == 0o600


def test_day_by_day_nothing_is_lost_and_the_register_stays_short(register: Register) -> None:
    """It is rewritten once a day, not at every look."""
    at, written, rewritten = NEW_YEAR, 0, 0
    for _ in range(100):
        inode = register.path.stat().st_ino
        written += 1
        issue(register, written, LAB, at)
        register.archive(at)
        rewritten += register.path.stat().st_ino != inode
        at += HALF
    assert [entry.serial for entry in register.everything()] == list(range(1, written + 1))
    assert len(register.entries()) <= 34 * 2
    assert 10 < rewritten <= 20, rewritten
    assert sum(lines(register).values()) == written


def test_killed_while_it_archives(register: Register, year: bytes) -> None:
    write_atomically(register.path, year)
    arguments = (str(register.path), (NEW_YEAR + 60 * DAY).isoformat(), str(len(year) // 12))
    command = (sys.executable, "-m", "tests.certs.archiving", *arguments)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    killed = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, check=True, timeout=60)
    assert 4 < int(killed.stdout) < 12


def test_a_batch_of_which_a_part_was_moved_before(register: Register, year: bytes) -> None:
    """The archive ends in a torn line, or in one that lacks its end: neither is lost or doubled."""
    now = NEW_YEAR + 60 * DAY
    write_atomically(register.path, year)
    register.archive(now)
    archive, kept = register.archives[0], [path.read_bytes() for path in (register.path, *register.archives)]
    last = len(kept[1].splitlines(keepends=True)[-1])
    for length in (0, 1, last, last - 1, len(kept[1]) - last - 1, len(kept[1]) - 1, len(kept[1])):
        write_atomically(register.path, year)
        write_atomically(archive, kept[1][:length])
        register.archive(now)
        assert [path.read_bytes() for path in (register.path, *register.archives)] == kept


def test_a_clock_that_is_wrong_moves_nothing_that_could_be_used(register: Register) -> None:
    """A year ahead for an hour: what is valid when the clock is right again can still be found, and revoked."""
    history(register, NEW_YEAR, NEW_YEAR + 50 * DAY)
    right = NEW_YEAR + 50 * DAY
    wrong = right + 365 * DAY
    for serial in (1, 2, 3):
        issue(register, serial, LAB, wrong)
        register.archive(wrong + dt.timedelta(hours=serial))
    usable = [entry for entry in register.everything() if entry.not_after > right]
    assert len(usable) == 1 + 3
    assert set(usable) <= set(register.entries())


def test_a_register_of_an_earlier_version(authority: Authority, clock: Clock) -> None:
    """It is read, archived and written on, and who was revoked in it stays so."""
    layout = authority.layout
    write_atomically(layout.register, OLD)
    clock.moment = dt.datetime(2026, 1, 10, tzinfo=dt.UTC)
    clock.moment = max(clock.moment, authority.signer.certificate.not_valid_before_utc + DAY)
    assert tend(authority, clock()).renewed == (f"spiffe://{ZONE}/customs/node",)
    assert layout.register.read_bytes().count(b"\n") == 3 + 1
    assert [path.name for path in authority.register.archives] == ["issued-2025.jsonl"]
    assert authority.register.archives[0].read_bytes() == b"".join(OLD.splitlines(keepends=True)[:3])
    assert authority.current()[LAB].state(clock()) is State.REVOKED
    assert due(authority, clock()) == ()
    with pytest.raises(RevocationRefused):
        authority.renew(LAB, clock())
    assert [entry.serial for entry in authority.register.everything()][:4] == [0xA01, 0xA02, 0xA03, 0xB01]


def listed(authority: Authority) -> tuple[int, set[int]]:
    crl = x509.load_pem_x509_crl(authority.layout.revoked.read_bytes())
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return number, {entry.serial_number for entry in crl}


def test_a_serial_leaves_the_list_after_one_list_beyond_its_end(authority: Authority, clock: Clock) -> None:
    """RFC 5280 §3.3; and a day more, for servers whose clocks are late."""
    serial = authority.issue(LAB, clock()).serial
    (entry,) = authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, clock())
    numbers = [listed(authority)[0]]

    def publish(at: dt.datetime) -> set[int]:
        clock.moment = at
        authority.publish_revocations(clock())
        number, serials = listed(authority)
        numbers.append(number)
        return serials

    beyond = entry.not_after + LISTED_BEYOND
    assert publish(entry.not_after + dt.timedelta(seconds=1)) == {serial}
    assert publish(beyond) == {serial}
    assert publish(beyond + 40 * DAY) == {serial}, "the first that is beyond its end"
    assert publish(beyond + 41 * DAY) == set()
    assert publish(entry.not_after - HALF) == {serial}, "a clock that was set back brings it back"
    assert publish(beyond + 41 * DAY) == {serial}
    assert publish(beyond + 41 * DAY + HALF) == set()
    authority.layout.revoked.unlink()
    assert publish(beyond + 42 * DAY) == {serial}, "nobody knows what the lost list said"
    assert numbers == sorted(set(numbers))


def test_what_is_revoked_after_its_end_is_listed_for_a_while(authority: Authority, clock: Clock) -> None:
    serial = authority.issue(LAB, clock()).serial
    clock.advance(days=5)
    authority.publish_revocations(clock())
    authority.revoke((serial,), RevocationReason.UNSPECIFIED, clock())
    assert listed(authority)[1] == {serial}
    authority.publish_revocations(clock())
    assert listed(authority)[1] == {serial}


@pytest.fixture
def aged(authority: Authority, clock: Clock) -> Authority:
    """An authority with seventy days behind it, and one system whose certificate is due."""
    history(authority.register, clock() - 70 * DAY, clock() - HALF)
    return authority


def test_the_agent_archives_and_says_what_it_could_not(aged: Authority, clock: Clock) -> None:
    archive = aged.layout.register.with_name(f"issued-{(clock() - 70 * DAY).year}.jsonl")
    write_atomically(archive, b"nonsense")
    turn = tend(aged, clock())
    assert turn.renewed == (str(LAB),)
    assert "issued" in turn.problem
    assert archive.read_bytes() == b"nonsense"
    archive.unlink()
    assert tend(aged, clock()) == Turn()
    assert archive.exists()
    assert len(aged.register.entries()) < 70


def test_commands_and_the_archive(aged: Authority, clock: Clock) -> None:
    """`rotate` moves what is old, `list --all` shows it, `revoke` says why there is nothing to revoke."""

    def run(*arguments: str) -> str:
        result = CliRunner(env={"HUTONG_CERTS": str(aged.layout.folder)}).invoke(app, arguments)
        return f"{result.exit_code} {result.output}"

    first, count = aged.register.entries()[0], len(aged.register.entries())
    assert run("rotate").startswith("0")
    assert aged.register.archives
    assert run("list", "--all", "--json").count('"serial"') == count + 1
    assert "RevocationRefused" not in run("list")
    refused = run("revoke", first.serial_text)
    assert refused.startswith("1")
    assert "ended more than 30 days ago" in " ".join(refused.split())
    with pytest.raises(SvidUnknown):
        aged.register.find("0123456789")


def test_a_command_reads_the_register_once(aged: Authority, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    read, real = list[Path](), Path.read_bytes

    def counted(path: Path) -> bytes:
        if path.name.startswith("issued"):
            read.append(path)
        return real(path)

    for number in range(5):
        aged.issue(SpiffeId.of(ZONE, "customs", f"system-{number}"), clock() - HALF)
    monkeypatch.setattr(Path, "read_bytes", counted)
    Authority.open(aged.layout.folder).archive(clock())
    for command in (("rotate",), ("revoke", "customs/system-1"), ("list",), ("ca", "show")):
        read.clear()
        result = CliRunner(env={"HUTONG_CERTS": str(aged.layout.folder)}).invoke(app, command)
        assert (result.exit_code, read) == (0, [aged.layout.register]), result.output
