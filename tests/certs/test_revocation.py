"""The revocation list: what it says, and that without a good one the answer is no."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from certs.authority import Authority
from certs.errors import AuthorityUnknown, CertificateRevoked, RevocationRefused, RevocationUnknown, SvidUnknown
from certs.files import write_atomically
from certs.peer import Peer
from certs.register import Issued, RevocationReason
from certs.revocation import LIST_LIFE, Brought, RevocationList
from certs.rollover import SETTLES, Rollover
from certs.spiffe import SpiffeId
from certs.svid import pem_of
from tests.certs.bogus import GOOD, ZONE, sign
from tests.certs.conftest import Clock


@pytest.fixture
def issued(authority: Authority, client_id: SpiffeId, clock: Clock) -> Issued:
    return authority.issue(client_id, clock())


def test_only_the_revoked_serial_is_refused(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    other = authority.issue(SpiffeId.of(ZONE, "quality", "node"), clock())
    (revoked,) = authority.revoke((issued.serial,), RevocationReason.KEY_COMPROMISE, clock())
    assert revoked.revocation_reason is RevocationReason.KEY_COMPROMISE
    revocations.check(peer_of(authority, other), clock())
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())


@pytest.mark.parametrize("reason", RevocationReason)
def test_other_tools_read_the_list(
    authority: Authority, issued: Issued, clock: Clock, reason: RevocationReason
) -> None:
    authority.revoke((issued.serial,), reason, clock())
    crl = x509.load_pem_x509_crl(authority.layout.revoked.read_bytes())
    entry = crl.get_revoked_certificate_by_serial_number(issued.serial)
    assert entry is not None
    said = [extension.value.reason for extension in entry.extensions if isinstance(extension.value, x509.CRLReason)]
    assert said == ([] if reason is RevocationReason.UNSPECIFIED else [x509.ReasonFlags[reason.name.lower()]])


def test_a_change_is_noticed_after_a_second_and_not_looked_for_before(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    revocations.check(peer_of(authority, issued), clock())
    authority.revoke((issued.serial,), RevocationReason.UNSPECIFIED, clock())
    clock.advance(seconds=0.9)
    revocations.check(peer_of(authority, issued), clock())
    clock.advance(seconds=0.1)
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())


def test_a_clock_set_back_does_not_stop_the_looking(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    revocations.check(peer_of(authority, issued), clock())
    authority.revoke((issued.serial,), RevocationReason.UNSPECIFIED, clock())
    clock.advance(seconds=-100)
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())


def test_a_lapsed_list_refuses_everyone_until_it_is_signed_anew(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    published = x509.load_pem_x509_crl(authority.layout.revoked.read_bytes()).last_update_utc
    clock.moment = published + LIST_LIFE
    revocations.check(peer_of(authority, issued), clock())
    clock.advance(seconds=1)
    with pytest.raises(RevocationUnknown, match="lapsed"):
        revocations.check(peer_of(authority, issued), clock())
    assert "lapsed" in revocations.problem(clock())
    authority.publish_revocations(clock())
    clock.advance(seconds=1)
    revocations.check(peer_of(authority, issued), clock())
    assert revocations.problem(clock()) == ""


def test_a_lost_list_refuses_everyone_until_it_is_back(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    revocations.check(peer_of(authority, issued), clock())
    kept = authority.layout.revoked.read_bytes()
    authority.layout.revoked.unlink()
    clock.advance(seconds=1)
    with pytest.raises(RevocationUnknown):
        revocations.check(peer_of(authority, issued), clock())
    write_atomically(authority.layout.revoked, kept)
    clock.advance(seconds=1)
    revocations.check(peer_of(authority, issued), clock())


def test_an_older_list_is_not_believed(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    """Putting yesterday's list back must not bring a revoked system back."""
    before = authority.layout.revoked.read_bytes()
    authority.revoke((issued.serial,), RevocationReason.KEY_COMPROMISE, clock())
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())
    write_atomically(authority.layout.revoked, before)
    clock.advance(seconds=1)
    with pytest.raises(RevocationUnknown, match="older"):
        revocations.check(peer_of(authority, issued), clock())


def test_a_lost_list_is_made_again_from_the_register(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    authority.revoke((issued.serial,), RevocationReason.KEY_COMPROMISE, clock())
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())
    authority.layout.revoked.unlink()
    clock.advance(seconds=-3600)
    authority.publish_revocations(clock())
    clock.advance(seconds=7200)
    authority.publish_revocations(clock())
    with pytest.raises(CertificateRevoked):
        revocations.check(peer_of(authority, issued), clock())


def test_a_list_that_makes_no_sense(authority: Authority, issued: Issued, clock: Clock) -> None:
    path = authority.layout.revoked
    good = path.read_bytes()
    crl, issuer = good[: good.index(b"-----BEGIN CERT")], good[good.index(b"-----BEGIN CERT") :]
    for bad in (b"", b"nonsense", crl, issuer, good[: len(crl) // 2] + issuer, crl + b"nonsense"):
        write_atomically(path, bad)
        with pytest.raises(RevocationUnknown):
            RevocationList(path, authority.layout.bundle).check(peer_of(authority, issued), clock())


def test_a_list_of_another_zone(authority: Authority, issued: Issued, clock: Clock, tmp_path: Path) -> None:
    other = Authority.create(tmp_path / "other", ZONE, clock())
    with pytest.raises(RevocationUnknown, match="not under the trusted roots"):
        RevocationList(other.layout.revoked, authority.layout.bundle).check(peer_of(authority, issued), clock())


def test_a_list_whose_issuer_is_outside_its_time(
    authority: Authority, issued: Issued, revocations: RevocationList, clock: Clock
) -> None:
    clock.advance(days=5 * 366)
    with pytest.raises(RevocationUnknown, match="outside its time"):
        revocations.check(peer_of(authority, issued), clock())


def test_a_list_signed_by_a_system(authority: Authority, issued: Issued, clock: Clock, tmp_path: Path) -> None:
    """A system of the zone cannot write one: nothing but an authority directly under the roots may."""
    files = authority.layout.svid(issued.spiffe_id)
    svid = files.load()
    key = load_pem_private_key(svid.key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path = tmp_path / "forged.crl"
    write_atomically(path, _list(svid.leaf, key, clock()) + svid.chain)
    with pytest.raises(RevocationUnknown, match="not under the trusted roots"):
        RevocationList(path, authority.layout.bundle).check(peer_of(authority, issued), clock())


def test_a_list_with_a_false_signature(authority: Authority, issued: Issued, clock: Clock, tmp_path: Path) -> None:
    issuer = x509.load_pem_x509_certificate(authority.layout.intermediate_certificate.read_bytes())
    path = tmp_path / "forged.crl"
    write_atomically(path, _list(issuer, ec.generate_private_key(ec.SECP256R1()), clock()) + pem_of(issuer))
    with pytest.raises(RevocationUnknown, match="signature"):
        RevocationList(path, authority.layout.bundle).check(peer_of(authority, issued), clock())


def test_a_partial_list(authority: Authority, issued: Issued, clock: Clock, tmp_path: Path) -> None:
    """A delta list, properly signed, is not the whole list."""
    layout = authority.layout
    issuer = x509.load_pem_x509_certificate(layout.intermediate_certificate.read_bytes())
    key = load_pem_private_key(layout.intermediate_key.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    path = tmp_path / "delta.crl"
    write_atomically(path, _list(issuer, key, clock(), x509.DeltaCRLIndicator(1)) + pem_of(issuer))
    with pytest.raises(RevocationUnknown, match="critical"):
        RevocationList(path, layout.bundle).check(peer_of(authority, issued), clock())


def test_the_newer_list_counts_whoever_brought_it(
    authority: Authority, issued: Issued, clock: Clock, tmp_path: Path
) -> None:
    path, before = tmp_path / "copy.crl", authority.layout.revoked.read_bytes()
    write_atomically(path, before)
    lists = RevocationList(path, authority.layout.bundle)
    lists.check(peer_of(authority, issued), clock())
    assert lists.take(before, clock()) == {Brought.KNOWN: 1}
    authority.revoke((issued.serial,), RevocationReason.KEY_COMPROMISE, clock())
    after = authority.layout.revoked.read_bytes()
    assert lists.take(after, clock()) == {Brought.TAKEN: 1}
    assert lists.published(clock()) == lists.newest(clock()) == after
    assert lists.take(before, clock()) == {Brought.OLDER: 1}
    with pytest.raises(CertificateRevoked):
        lists.check(peer_of(authority, issued), clock())
    # The file catches up, and overtakes.
    clock.advance(seconds=1)
    authority.publish_revocations(clock())
    write_atomically(path, authority.layout.revoked.read_bytes())
    clock.advance(seconds=1)
    assert lists.published(clock()) == path.read_bytes()
    assert lists.take(after, clock()) == {Brought.OLDER: 1}


def test_what_was_heard_brings_no_authority_in_and_keeps_none(
    authority: Authority, issued: Issued, clock: Clock, tmp_path: Path
) -> None:
    """Which authorities there are, the file says: a list of one that was pruned changes nothing, whoever signs it."""
    first, path, published = authority.signer.key_id, tmp_path / "copy.crl", authority.layout.revoked
    peer = peer_of(authority, issued)
    lists = RevocationList(path, authority.layout.bundle)
    write_atomically(path, published.read_bytes())
    rollover = Rollover(authority)
    for make in (rollover.prepare, rollover.activate):
        clock.advance(seconds=SETTLES.total_seconds())
        make(clock())
    both = published.read_bytes()
    assert lists.take(both, clock()) == {Brought.TAKEN: 2}
    assert lists.authorities(clock()) == {first}
    write_atomically(path, both)
    clock.advance(seconds=1)
    assert len(lists.authorities(clock())) == 2
    lists.check(peer, clock())
    clock.advance(seconds=SETTLES.total_seconds())
    rollover.rotate(clock())
    clock.advance(seconds=SETTLES.total_seconds())
    rollover.prune(clock(), cut=True)
    write_atomically(path, published.read_bytes())
    clock.advance(seconds=1)
    assert lists.take(both, clock())[Brought.TAKEN] == 0
    assert len(lists.newest(clock())) > len(published.read_bytes())
    with pytest.raises(AuthorityUnknown):
        lists.check(peer, clock())
    assert lists.published(clock()) == published.read_bytes()


def test_a_lapsed_list_is_mended_by_one_that_is_brought(authority: Authority, issued: Issued, clock: Clock) -> None:
    lists = RevocationList(authority.layout.revoked, authority.layout.bundle)
    kept = authority.layout.revoked.read_bytes()
    clock.advance(days=8)
    authority.publish_revocations(clock())
    newer = authority.layout.revoked.read_bytes()
    write_atomically(authority.layout.revoked, kept)
    assert lists.seconds_left(clock()) == 0
    assert lists.take(newer, clock()) == {Brought.TAKEN: 1}
    assert lists.seconds_left(clock()) > 0
    authority.layout.revoked.unlink()
    clock.advance(seconds=1)
    with pytest.raises(RevocationUnknown):
        lists.check(peer_of(authority, issued), clock())


def test_what_was_not_issued_here_is_not_revoked(authority: Authority, clock: Clock, tmp_path: Path) -> None:
    unknown = sign(GOOD, authority, tmp_path / "bogus").load().leaf.serial_number
    with pytest.raises(SvidUnknown):
        authority.revoke((unknown,), RevocationReason.UNSPECIFIED, clock())


def test_revoking_again_is_refused_and_publishes(authority: Authority, issued: Issued, clock: Clock) -> None:
    authority.revoke((issued.serial,), RevocationReason.UNSPECIFIED, clock())
    authority.layout.revoked.unlink()
    with pytest.raises(RevocationRefused):
        authority.revoke((issued.serial,), RevocationReason.KEY_COMPROMISE, clock())
    assert authority.layout.revoked.exists()


def peer_of(authority: Authority, issued: Issued) -> Peer:
    """Say what a server reads in the certificate."""
    return Peer(issued.spiffe_id, issued.serial, authority.signer.key_id, issued.not_before, issued.not_after)


def _list(
    issuer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    critical: x509.ExtensionType | None = None,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(now + dt.timedelta(days=1))
        .add_extension(x509.CRLNumber(2), critical=False)
    )
    if critical is not None:
        builder = builder.add_extension(critical, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
