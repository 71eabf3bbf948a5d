"""The verifier: what it remembers and what it asks every time. Its refusals are in test_refusals."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs import verify
from certs.authority import Authority
from certs.errors import (
    CertificateError,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateRevoked,
    CertificateUnreadable,
)
from certs.register import RevocationReason
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from certs.verify import PeerVerifier, read_peer
from tests.certs.bogus import CLIENT, GOOD, ZONE, leaf_pem, sign
from tests.certs.conftest import Clock
from tests.certs.mesh import wall_clock


@pytest.fixture
def verifier(revocations: RevocationList, clock: Clock) -> PeerVerifier:
    return PeerVerifier(ZONE, revocations, clock)


def test_it_names_the_peer(verifier: PeerVerifier, client: SvidFiles) -> None:
    assert verifier.verify(leaf_pem(client)) == SpiffeId.parse(CLIENT)
    assert verifier.verify(bytes(bytearray(leaf_pem(client)))) == SpiffeId.parse(CLIENT)


def test_a_remembered_certificate_is_asked_about_its_time(
    verifier: PeerVerifier, client: SvidFiles, clock: Clock
) -> None:
    svid = client.load()
    pem = leaf_pem(client)
    verifier.verify(pem)
    for moment in (svid.not_before, svid.not_after):
        clock.moment = moment
        verifier.verify(pem)
    clock.advance(microseconds=1)
    with pytest.raises(CertificateExpired):
        verifier.verify(pem)
    clock.moment = svid.not_before
    clock.advance(microseconds=-1)
    with pytest.raises(CertificateNotYetValid):
        verifier.verify(pem)


def test_a_remembered_certificate_is_asked_about_its_revocation(
    verifier: PeerVerifier, client: SvidFiles, authority: Authority, clock: Clock
) -> None:
    verifier.verify(leaf_pem(client))
    authority.revoke((client.load().leaf.serial_number,), RevocationReason.UNSPECIFIED, clock())
    clock.advance(seconds=1)
    with pytest.raises(CertificateRevoked):
        verifier.verify(leaf_pem(client))


def test_it_forgets_the_oldest_first(
    verifier: PeerVerifier, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "REMEMBERED", 2)
    pems = [leaf_pem(sign(GOOD, authority, tmp_path / str(number))) for number in range(4)]
    for pem in [*pems, *pems]:
        assert str(verifier.verify(pem)) == CLIENT
        assert len(verifier._peers) <= 2  # pyright: ignore[reportPrivateUsage]


@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CertificateUnreadable):
        read_peer(data, ZONE)


@given(at=st.integers(0), flip=st.integers(1, 255))
def test_a_damaged_certificate_is_refused_or_names_the_same_peer(at: int, flip: int, damaged: bytearray) -> None:
    """Whatever is changed, the verifier answers or refuses by name; it never fails otherwise."""
    pem = bytearray(damaged)
    pem[at % len(pem)] ^= flip
    try:
        read_peer(bytes(pem), ZONE)
    except CertificateError:
        return


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> bytearray:
    authority = Authority.create(tmp_path_factory.mktemp("damaged") / "zone", ZONE, wall_clock())
    return bytearray(leaf_pem(sign(GOOD, authority, tmp_path_factory.mktemp("leaf"))))
