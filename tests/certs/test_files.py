"""Files that are never half there, whatever kills their writer."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.files import PRIVATE, PUBLIC, make_folder, write_atomically
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from tests.certs.conftest import Clock

REPOSITORY = Path(__file__).parents[2]

# A limit on file size makes the kernel kill the writer in the middle of its write, at a known byte.
_KILLED_WRITING = """
import resource, signal, sys
from pathlib import Path
from certs.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
write_atomically(Path(sys.argv[1]), b"new" * 100_000)
"""
_KILLED_RENEWING = """
import datetime, resource, signal, sys
from pathlib import Path
from certs.authority import Authority
from certs.spiffe import SpiffeId
authority = Authority.open(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
authority.renew(SpiffeId.parse(sys.argv[2]), datetime.datetime.now(datetime.UTC))
"""
_WRITES_ON = """
import sys
from pathlib import Path
from certs.files import write_atomically
while True:
    for letter in (b"a", b"b"):
        write_atomically(Path(sys.argv[1]), letter * 1_000_000)
        print("written", flush=True)
"""


def test_it_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two", PUBLIC)
    assert (path.read_bytes(), _mode(path)) == (b"two", PUBLIC)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_process_mask_has_no_say(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "open", b"")
        os.umask(0o777)
        write_atomically(tmp_path / "closed", b"")
        make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert {_mode(tmp_path / "open"), _mode(tmp_path / "closed")} == {PRIVATE}
    assert {_mode(tmp_path / "a"), _mode(tmp_path / "a" / "b")} == {0o700}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    folder.mkdir()
    (folder / "inside").touch()
    with pytest.raises(OSError, match="target"):
        write_atomically(folder, b"cannot replace a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


def test_killed_in_the_middle_of_a_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    assert _python(_KILLED_WRITING, path) == -signal.SIGXFSZ
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("writes", range(1, 6))
def test_killed_at_any_moment(tmp_path: Path, writes: int) -> None:
    path = tmp_path / "file"
    with _start(_WRITES_ON, path) as writer:
        assert writer.stdout is not None
        for _ in range(writes):
            writer.stdout.readline()
        writer.kill()
    data = path.read_bytes()
    assert data in {b"a" * 1_000_000, b"b" * 1_000_000}


@pytest.mark.parametrize("limit", [0, 100, 400, 900])
def test_killed_while_renewing(
    authority: Authority, client: SvidFiles, client_id: SpiffeId, clock: Clock, limit: int
) -> None:
    """At whichever of its files the authority dies, the zone opens, the old identity loads and renewal works."""
    before = client.load()
    assert _python(_KILLED_RENEWING, authority.layout.folder, str(client_id), str(limit)) == -signal.SIGXFSZ
    after = Authority.open(authority.layout.folder)
    assert client.load().leaf == before.leaf
    assert before.leaf.serial_number in {entry.serial for entry in after.register.entries()}
    renewed = after.renew(client_id, clock())
    assert client.load().leaf.serial_number == renewed.serial


def test_keys_and_folders_of_a_zone_are_private(authority: Authority, client: SvidFiles) -> None:
    layout = authority.layout
    for key in (layout.root_key, layout.intermediate_key, client.key, layout.register):
        assert _mode(key) == 0o600, key
    folders = [layout.folder, *(path for path in layout.folder.rglob("*") if path.is_dir())]
    assert {_mode(folder) for folder in folders} == {0o700}
    readable = {path.name for path in layout.folder.rglob("*") if path.is_file() and _mode(path) & 0o077}
    assert readable == {"bundle.crt", "revoked.crl", "root.crt", "intermediate.crt"}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _start(script: str, *arguments: Path | str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, env=environment)


def _python(script: str, *arguments: Path | str) -> int:
    with _start(script, *arguments) as process:
        process.communicate(timeout=60)
        return process.returncode
