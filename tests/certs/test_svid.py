"""Reading an identity from its files: whole, consistent, and not while others can read the key."""

import threading
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.errors import KeyExposed, SpiffeIdMissing, SvidMismatch, SvidUnreadable
from certs.files import write_atomically
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from tests.certs.bogus import BOGUS, GOOD, sign
from tests.certs.conftest import Clock


@pytest.fixture
def pair(authority: Authority, tmp_path: Path) -> SvidFiles:
    """An identity in two files, as other tools write it."""
    return sign(GOOD, authority, tmp_path / "pair")


def test_one_file_or_two(client: SvidFiles, pair: SvidFiles) -> None:
    assert client.certificate == client.key
    for files in (client, pair):
        svid = files.load()
        assert svid.chain.count(b"BEGIN CERTIFICATE") == 2
        assert svid.bundle.count(b"BEGIN CERTIFICATE") == 1
        assert svid.key.startswith(b"-----BEGIN PRIVATE KEY")
        assert b"PRIVATE KEY" not in svid.chain + svid.bundle
        assert str(svid.spiffe_id) == GOOD.uris[0]


def test_the_version_tells_of_every_file(
    authority: Authority, client: SvidFiles, client_id: SpiffeId, pair: SvidFiles, clock: Clock
) -> None:
    assert client.version() == client.version() == client.load().version
    before = client.version()
    authority.renew(client_id, clock())
    assert client.version() != before
    for path in (pair.certificate, pair.key, pair.bundle):
        before = pair.version()
        write_atomically(path, path.read_bytes())
        assert pair.version() != before


def test_a_pair_that_does_not_match(authority: Authority, pair: SvidFiles, tmp_path: Path) -> None:
    other = sign(GOOD, authority, tmp_path / "other")
    with pytest.raises(SvidMismatch):
        SvidFiles(pair.certificate, other.key, pair.bundle).load()


def test_a_reader_never_sees_a_mixed_pair(authority: Authority, pair: SvidFiles, tmp_path: Path) -> None:
    """A writer replaces key, then certificate, over and over; each load is one of the two identities."""
    sides = [sign(GOOD, authority, tmp_path / name).load() for name in ("left", "right")]
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for side in sides:
                write_atomically(pair.key, side.key)
                write_atomically(pair.certificate, side.chain)

    write_atomically(pair.key, sides[1].key)
    write_atomically(pair.certificate, sides[1].chain)
    writer = threading.Thread(target=swap)
    writer.start()
    try:
        seen = [pair.load(attempts=1000) for _ in range(5)]
    finally:
        stop.set()
        writer.join()
    known = {(side.key, side.chain) for side in sides}
    assert {(svid.key, svid.chain) for svid in seen} <= known


@pytest.mark.parametrize("file", ["certificate", "key", "bundle"])
@pytest.mark.parametrize(
    "content", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_absent_or_damaged_files(pair: SvidFiles, file: str, content: bytes | None) -> None:
    path: Path = getattr(pair, file)
    if content is None:
        path.unlink()
    else:
        write_atomically(path, content)
    with pytest.raises(SvidUnreadable):
        pair.load(attempts=1)


def test_a_damaged_key(pair: SvidFiles) -> None:
    write_atomically(pair.key, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    with pytest.raises(SvidUnreadable):
        pair.load(attempts=1)


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o644])
def test_a_key_open_to_everyone(pair: SvidFiles, mode: int) -> None:
    pair.key.chmod(mode)
    with pytest.raises(KeyExposed) as refusal:
        pair.load()
    assert refusal.value.hint == f"chmod 600 {pair.key}"


def test_a_key_shared_with_its_group_is_read(pair: SvidFiles) -> None:
    pair.key.chmod(0o640)
    pair.load()


def test_a_certificate_that_names_nobody(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(SpiffeIdMissing):
        sign(BOGUS["no-spiffe-id"].leaf, authority, tmp_path / "nobody").load()
