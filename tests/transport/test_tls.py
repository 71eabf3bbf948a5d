"""Handshakes by our contexts: who is let in is the same as over gRPC's own TLS, and nothing of a key is left about."""

import datetime as dt
import logging
import os
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from certs.authority import Authority
from certs.errors import CertificateError
from certs.renewed import Renewed
from certs.spiffe import SpiffeId, server_name
from certs.svid import Svid, SvidFiles
from services.kit.transport.nghttp2 import tls
from tests.certs.bogus import BOGUS, CLIENT, GOOD, ZONE, Bogus, leaf_pem, sign

SERVER = SpiffeId.of(ZONE, "customs", "node")
OTHER = SpiffeId.parse(CLIENT)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority.create(tmp_path_factory.mktemp("zone") / "zone", ZONE, now())
    for name in (SERVER, OTHER):
        authority.issue(name, now())
    return authority


@pytest.fixture
def server(authority: Authority) -> SvidFiles:
    return authority.layout.svid(SERVER)


@pytest.fixture
def client(authority: Authority) -> SvidFiles:
    return authority.layout.svid(OTHER)


def read(files: SvidFiles) -> Svid:
    """Read an identity as an attacker would, whatever is wrong with its names."""
    pem = files.certificate.read_bytes()
    leaf = x509.load_pem_x509_certificates(pem)[0]
    bundle = files.bundle.read_bytes()
    return Svid(pem, files.key.read_bytes(), bundle, leaf, SERVER, files.version())


Ends = tuple[ssl.SSLObject, ssl.SSLObject]


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: SpiffeId = SERVER) -> Ends:
    """Shake hands over memory; raises the `SSLError` of whoever refuses. Gives the server's end and the client's."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(down, up, server_hostname=server_name(name))
    answers = server.wrap_bio(up, down, server_side=True)
    waiting = [asks, answers]
    # In TLS 1.3 that is: hello, the server's flight, the client's, and the server's look at it.
    for _ in range(4):
        for end in tuple(waiting):
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return answers, asks


def shaken(server: SvidFiles, client: SvidFiles, name: SpiffeId = SERVER) -> Ends:
    return shake(Renewed(server, tls.server_context).present(), tls.client_context(client.load()), name)


def test_both_ends_know_each_other_and_speak_http2_over_tls_1_3(server: SvidFiles, client: SvidFiles) -> None:
    answers, asks = shaken(server, client)
    assert answers.version() == asks.version() == "TLSv1.3"
    assert answers.selected_alpn_protocol() == asks.selected_alpn_protocol() == "h2"
    seen = answers.getpeercert(binary_form=True)
    assert seen is not None
    assert ssl.DER_cert_to_PEM_cert(seen).encode() == leaf_pem(client)


@pytest.mark.parametrize("bogus", BOGUS.values(), ids=BOGUS.keys())
def test_a_bogus_client_is_refused_in_the_handshake_where_grpc_refuses_it(
    bogus: Bogus, server: SvidFiles, authority: Authority, tmp_path: Path
) -> None:
    files = sign(bogus.leaf, authority, tmp_path / "bogus")
    context = Renewed(server, tls.server_context).present()
    if bogus.in_handshake:
        with pytest.raises(ssl.SSLError):
            shake(context, tls.client_context(read(files)))
    else:
        shake(context, tls.client_context(read(files)))


@pytest.mark.parametrize("wrong", ["expired", "not-yet-valid", "extended-usage-code-signing", "no-names"])
def test_a_bogus_server_is_refused(wrong: str, client: SvidFiles, authority: Authority, tmp_path: Path) -> None:
    files = sign(BOGUS[wrong].leaf, authority, tmp_path / "bogus")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context, tls.client_context(client.load()), OTHER)


def test_a_certificate_signed_rightly_by_another_root_is_refused_at_either_end(
    server: SvidFiles, client: SvidFiles, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", ZONE, now())
    other.issue(SERVER, now())
    other.issue(OTHER, now())
    theirs = other.layout.svid(OTHER)
    # Each trusts our zone, and is of the other.
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(server, SvidFiles(theirs.certificate, theirs.key, server.bundle))
    theirs = other.layout.svid(SERVER)
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(SvidFiles(theirs.certificate, theirs.key, server.bundle), client)


def test_a_server_of_another_name_is_refused(server: SvidFiles, client: SvidFiles) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shaken(server, client, OTHER)


def test_a_name_as_common_name_is_no_name(client: SvidFiles, authority: Authority, tmp_path: Path) -> None:
    """The bogus certificates have the common name `node`."""
    files = sign(BOGUS["no-names"].leaf, authority, tmp_path / "bogus")
    context = tls.client_context(client.load())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = context.wrap_bio(down, up, server_hostname="node")
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    plain.load_cert_chain(files.certificate, files.key)
    answers = plain.wrap_bio(up, down, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        asks.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        answers.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        asks.do_handshake()


def test_a_client_without_a_certificate_is_refused(server: SvidFiles) -> None:
    context = ssl.create_default_context(cafile=str(server.bundle))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake(Renewed(server, tls.server_context).present(), context)


@pytest.mark.parametrize("end", ["server", "client"])
def test_tls_1_2_is_refused_at_either_end(end: str, server: SvidFiles, client: SvidFiles) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if end == "client" else ssl.PROTOCOL_TLS_SERVER)
    old.load_verify_locations(server.bundle)
    files = server if end == "server" else client
    old.load_cert_chain(files.certificate, files.key)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    ours = tls.client_context(client.load()), Renewed(server, tls.server_context).present()
    with pytest.raises(ssl.SSLError, match=r"(?i)version|unsupported protocol"):
        shake(old, ours[0]) if end == "server" else shake(ours[1], old)


def test_an_intermediate_may_be_what_is_trusted(authority: Authority, tmp_path: Path, server: SvidFiles) -> None:
    """As gRPC has it: a bundle need not hold the root."""
    files = sign(GOOD, authority, tmp_path / "good")
    shaken(server, SvidFiles(files.certificate, files.key, authority.layout.intermediate_certificate))


def test_no_session_can_be_resumed(server: SvidFiles, client: SvidFiles) -> None:
    """A resumed session would skip the check of the certificate."""
    answers, asks = shaken(server, client)
    for end in (answers, asks):
        with pytest.raises(ssl.SSLWantReadError):
            end.read()
    assert asks.session is None or not asks.session.has_ticket


def test_a_server_follows_its_files_and_serves_with_the_last_good_ones(
    authority: Authority, client: SvidFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = SpiffeId.of(ZONE, "customs", "other")
    authority.issue(name, now())
    files = authority.layout.svid(name)
    contexts = Renewed(files, tls.server_context)
    assert contexts.present() is contexts.present()

    def shown() -> int:
        _, asks = shake(contexts.present(), tls.client_context(client.load()), name)
        der = asks.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number

    first = shown()
    authority.renew(name, now())
    second = shown()
    assert first != second == files.load().leaf.serial_number
    whole = files.certificate.read_bytes()
    caplog.clear()
    files.certificate.write_bytes(b"nonsense")
    assert [shown(), shown()] == [second, second]
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said once"
    files.certificate.write_bytes(whole)
    assert shown() == second
    files.certificate.write_bytes(b"nonsense")
    caplog.clear()
    assert shown() == second
    assert [record.levelname for record in caplog.records] == ["ERROR"], "said again, being new"


def test_roots_are_followed_too(authority: Authority, client: SvidFiles, tmp_path: Path, server: SvidFiles) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(server.bundle.read_bytes())
    contexts = Renewed(SvidFiles(server.certificate, server.key, bundle), tls.server_context)
    context = tls.client_context(client.load())
    shake(contexts.present(), context)
    other = Authority.create(tmp_path / "other", ZONE, now())
    bundle.write_bytes(other.layout.bundle.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(contexts.present(), context)


def test_a_server_without_an_identity_does_not_begin(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(CertificateError):
        Renewed(SvidFiles(absent, absent, absent), tls.server_context)


@pytest.mark.parametrize("memory", [True, False])
def test_nothing_of_the_key_is_left_about(
    memory: bool, client: SvidFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    if not memory:
        monkeypatch.delattr(os, "memfd_create")
    before = len(list(Path("/proc/self/fd").iterdir()))
    context = tls.client_context(client.load())
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    monkeypatch.undo()
    shake(Renewed(client, tls.server_context).present(), context, OTHER)


def test_a_key_in_a_file_is_for_us_alone(client: SvidFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def look(self: ssl.SSLContext, certfile: str) -> None:
        seen.extend(path.stat().st_mode & 0o777 for path in (Path(certfile), Path(certfile).parent))
        load(self, certfile)

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", look)
    tls.client_context(client.load())
    assert seen == [0o600, 0o700]
