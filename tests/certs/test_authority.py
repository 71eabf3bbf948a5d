"""The authority: what it issues, what it keeps, and what it does not do."""

import datetime as dt
import multiprocessing
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store

from certs.authority import DEFAULT_TTL, MAX_TTL, Authority
from certs.errors import (
    NameRefused,
    RevocationRefused,
    SpiffeIdMalformed,
    SvidExists,
    SvidUnknown,
    TtlRefused,
    ZoneDamaged,
    ZoneExists,
    ZoneMissing,
)
from certs.files import write_atomically
from certs.issuance import BACKDATE
from certs.register import Register, RevocationReason, State, serial_text
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from tests.certs.bogus import ZONE
from tests.certs.conftest import Clock


def test_a_zone_is_created_and_opened(authority: Authority) -> None:
    again = Authority.open(authority.layout.folder)
    assert (again.zone, again.register.entries()) == (ZONE, ())


def test_a_zone_is_created_in_an_empty_folder_and_below_missing_ones(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "a" / "b" / "zone"):
        Authority.create(folder, ZONE, clock())
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "a"}


def test_nothing_is_overwritten(authority: Authority, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter").touch()
    (tmp_path / "file").touch()
    for folder in (authority.layout.folder, tmp_path / "other", tmp_path / "file"):
        with pytest.raises(ZoneExists):
            Authority.create(folder, ZONE, clock())
    Authority.open(authority.layout.folder)


@pytest.mark.parametrize(
    "zone", ["", "North.example", "north_example", "a..b", ".a", "a.", "-a", "海关", "a/b", "z" * 65]
)
def test_bad_zone_names(zone: str, tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(NameRefused):
        Authority.create(tmp_path / "zone", zone, clock())
    assert not (tmp_path / "zone").exists()


def test_a_leaf_is_an_svid(authority: Authority, client: SvidFiles, client_id: SpiffeId, clock: Clock) -> None:
    svid = client.load()
    leaf, extensions = svid.leaf, svid.leaf.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(client_id)]
    assert names.get_values_for_type(x509.DNSName) == [f"node.taxation.{ZONE}"]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not any((usage.value.key_cert_sign, usage.value.crl_sign, usage.value.key_encipherment))
    extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(extended) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = leaf.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    now = clock().replace(microsecond=0)
    assert (svid.not_before, svid.not_after) == (now - BACKDATE, now + DEFAULT_TTL)
    assert leaf.serial_number.bit_length() > 64


def test_the_chain_stands_before_another_verifier(authority: Authority, client: SvidFiles, clock: Clock) -> None:
    svid = client.load()
    roots = x509.load_pem_x509_certificates(svid.bundle)
    leaf, *intermediates = x509.load_pem_x509_certificates(svid.chain)
    assert len(intermediates) == 1
    policy = PolicyBuilder().store(Store(roots)).time(clock())
    chain = policy.build_server_verifier(x509.DNSName(f"node.taxation.{ZONE}")).verify(leaf, intermediates)
    assert chain[-1] == roots[0]
    assert policy.build_client_verifier().verify(leaf, intermediates).chain[-1] == roots[0]


def test_it_works_without_the_root_key(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    shutil.rmtree(authority.layout.root_key.parent)
    again = Authority.open(authority.layout.folder)
    issued = again.issue(client_id, clock())
    again.renew(client_id, clock())
    again.revoke((issued.serial,), RevocationReason.SUPERSEDED, clock())


def test_what_is_issued_is_in_the_register(authority: Authority, client: SvidFiles, client_id: SpiffeId) -> None:
    svid = client.load()
    (entry,) = Register(authority.layout.register).entries()
    assert entry.serial == svid.leaf.serial_number
    assert (entry.spiffe_id, entry.not_before, entry.not_after) == (client_id, svid.not_before, svid.not_after)
    assert entry.ttl == DEFAULT_TTL


def test_a_system_has_one_valid_certificate(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    first = authority.issue(client_id, clock())
    with pytest.raises(SvidExists):
        authority.issue(client_id, clock())
    authority.revoke((first.serial,), RevocationReason.KEY_COMPROMISE, clock())
    second = authority.issue(client_id, clock())
    clock.advance(hours=24, seconds=1)
    authority.issue(client_id, clock())
    states = [entry.state(clock()) for entry in authority.register.entries()]
    assert states == [State.REVOKED, State.EXPIRED, State.VALID]
    assert second.serial != first.serial


@pytest.mark.parametrize(
    "ttl", [dt.timedelta(), dt.timedelta(seconds=-1), dt.timedelta(milliseconds=999), MAX_TTL + dt.timedelta(seconds=1)]
)
def test_lifetimes_out_of_bounds(authority: Authority, client_id: SpiffeId, clock: Clock, ttl: dt.timedelta) -> None:
    with pytest.raises(TtlRefused) as refusal:
        authority.issue(client_id, clock(), ttl)
    assert "--ttl" in refusal.value.hint
    assert authority.register.entries() == ()


def test_no_certificate_outlives_the_authority(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    clock.advance(days=1825, hours=-23)
    with pytest.raises(TtlRefused):
        authority.issue(client_id, clock())
    authority.issue(client_id, clock(), dt.timedelta(hours=22))


def test_only_names_of_the_zone(authority: Authority, clock: Clock) -> None:
    with pytest.raises(NameRefused):
        authority.issue(SpiffeId.of("south.example", "customs", "node"), clock())
    with pytest.raises(SpiffeIdMalformed):
        authority.issue(SpiffeId(ZONE), clock())
    with pytest.raises(SpiffeIdMalformed):
        authority.issue(SpiffeId(ZONE, "/customs"), clock())


def test_no_zone_to_open(tmp_path: Path) -> None:
    with pytest.raises(ZoneMissing) as refusal:
        Authority.open(tmp_path)
    assert "hutong certs init" in refusal.value.hint


def test_a_damaged_zone(authority: Authority, clock: Clock, tmp_path: Path) -> None:
    layout = authority.layout
    other = Authority.create(tmp_path / "other", ZONE, clock())
    for path, content in (
        (layout.intermediate_key, other.layout.intermediate_key.read_bytes()),
        (layout.intermediate_key, b"nonsense"),
        (layout.intermediate_certificate, b"nonsense"),
    ):
        kept = path.read_bytes()
        write_atomically(path, content)
        with pytest.raises(ZoneDamaged):
            Authority.open(layout.folder)
        write_atomically(path, kept)
    Authority.open(layout.folder)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"{}",
        b'{"event":"forgiven","serial":"aa"}',
        b'{"event":"revoked","serial":"aa","at":"2026-01-01T00:00:00Z","reason":"unspecified"}',
        b'{"event":"revoked","serial":"aa","at":"2026-01-01T00:00:00","reason":"unspecified"}',
        b'{"event":"issued","serial":"aa","spiffe_id":"https://x","not_before":"2026-01-01T00:00:00Z",'
        b'"not_after":"2026-01-01T00:00:00Z","issued_at":"2026-01-01T00:00:00Z"}',
    ],
)
def test_a_damaged_register_is_named_and_nothing_is_forgotten(
    authority: Authority, client: SvidFiles, clock: Clock, line: bytes
) -> None:
    register = authority.layout.register
    kept = register.read_bytes()
    write_atomically(register, kept + line + b"\n")
    published = authority.layout.revoked.read_bytes()
    with pytest.raises(ZoneDamaged, match="line 2"):
        authority.publish_revocations(clock())
    assert authority.layout.revoked.read_bytes() == published
    register.unlink()
    with pytest.raises(ZoneDamaged):
        authority.issue(SpiffeId.of(ZONE, "customs", "node"), clock())


def test_finding_what_a_person_means(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    first, second = authority.issue(client_id, clock()), authority.renew(client_id, clock())
    register, serial = authority.register, first.serial_text
    colons = ":".join(serial[at : at + 2] for at in range(0, len(serial), 2)).upper()
    for wanted in (serial, serial.upper(), colons, serial[:8]):
        assert [entry.serial for entry in register.find(wanted)] == [first.serial]
    assert [entry.serial for entry in register.find(str(client_id))] == [first.serial, second.serial]
    for wanted in (serial[:7], "", "nonsense", "spiffe://north.example/customs/node"):
        with pytest.raises(SvidUnknown):
            register.find(wanted)


def test_a_short_serial_that_fits_two_is_refused(authority: Authority, client_id: SpiffeId, clock: Clock) -> None:
    entry = authority.issue(client_id, clock())
    line = authority.layout.register.read_bytes()
    twin = entry.serial_text[:-1] + ("0" if entry.serial_text[-1] != "0" else "1")
    write_atomically(authority.layout.register, line + line.replace(entry.serial_text.encode(), twin.encode()))
    with pytest.raises(RevocationRefused, match="begin with"):
        authority.register.find(entry.serial_text[:10])
    assert authority.register.find(twin)[0].serial_text == twin


def test_a_serial_is_written_in_whole_octets() -> None:
    assert [serial_text(number) for number in (0xA, 0xAB, 0xABC)] == ["0a", "ab", "0abc"]


def test_two_processes_take_turns(authority: Authority) -> None:
    """Every issue of either is in the register: none was lost to the other's write."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        pool.starmap(_issue, [(authority.layout.folder, f"system-{number}") for number in range(8)], chunksize=1)
    assert {entry.spiffe_id.system for entry in authority.register.entries()} == {f"system-{n}" for n in range(8)}


def _issue(folder: Path, system: str) -> None:
    Authority.open(folder).issue(SpiffeId.of(ZONE, "customs", system), dt.datetime.now(dt.UTC))
