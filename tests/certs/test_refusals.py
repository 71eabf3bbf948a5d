"""Who is refused, on real handshakes: one test per way of being wrong, each wrong in that way alone."""

import datetime as dt
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from certs.authority import Authority
from certs.errors import CertificateError
from certs.issuance import leaf_certificate
from certs.register import RevocationReason
from certs.revocation import RevocationList
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles, pem_of
from certs.verify import PeerVerifier, verify_peer
from tests.certs.bogus import BOGUS, CLIENT, GOOD, ZONE, Bogus, leaf_pem, sign, write_pair
from tests.certs.conftest import Clock
from tests.certs.mesh import Node, bare_credentials, refused, serving, who


async def test_the_good_certificate_is_accepted(node: Node, authority: Authority, tmp_path: Path) -> None:
    assert await node.ask(sign(GOOD, authority, tmp_path / "good")) == CLIENT


async def test_an_issued_certificate_is_accepted(node: Node, client: SvidFiles) -> None:
    assert await node.ask(client) == CLIENT


@pytest.mark.parametrize("bogus", BOGUS.values(), ids=BOGUS.keys())
async def test_a_bogus_certificate_is_refused(bogus: Bogus, node: Node, authority: Authority, tmp_path: Path) -> None:
    files = sign(bogus.leaf, authority, tmp_path / "bogus")
    async with node.open(bare_credentials(files)) as channel:
        code, details = await refused(channel)
    if bogus.in_handshake:
        assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)
    else:
        assert (code, details) == (grpc.StatusCode.UNAUTHENTICATED, bogus.reason)


@pytest.mark.parametrize("bogus", BOGUS.values(), ids=BOGUS.keys())
def test_the_verifier_refuses_it_by_itself(
    bogus: Bogus, authority: Authority, revocations: RevocationList, clock: Clock, tmp_path: Path
) -> None:
    files = sign(bogus.leaf, authority, tmp_path / "bogus")
    with pytest.raises(CertificateError) as refusal:
        verify_peer(leaf_pem(files), ZONE, revocations, clock())
    assert refusal.value.reason == bogus.reason


async def test_no_client_certificate(node: Node, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(root_certificates=authority.layout.bundle.read_bytes())
    async with node.open(credentials) as channel:
        code, _ = await refused(channel)
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_no_tls_at_all(node: Node) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{node.port}") as channel:
        code, _ = await refused(channel)
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_another_authority_of_the_same_name(
    node: Node, authority: Authority, client_id: SpiffeId, clock: Clock, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", ZONE, clock())
    other.issue(client_id, clock())
    theirs = other.layout.svid(client_id)
    files = SvidFiles(theirs.certificate, theirs.key, authority.layout.bundle)
    code, _ = await node.refusal(files)
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_a_certificate_signed_by_a_system(
    node: Node, client: SvidFiles, authority: Authority, clock: Clock, tmp_path: Path
) -> None:
    """Holding a certificate of the zone does not let its holder make others."""
    svid = client.load()
    signer = load_pem_private_key(svid.key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = leaf_certificate(svid.spiffe_id, key.public_key(), svid.leaf, signer, clock(), dt.timedelta(hours=1))
    pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = write_pair(tmp_path / "forged", pem_of(forged) + svid.chain, pem_key, authority.layout.bundle)
    code, _ = await node.refusal(files)
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_the_authority_itself_as_caller(node: Node, authority: Authority, tmp_path: Path) -> None:
    layout = authority.layout
    files = write_pair(
        tmp_path / "ca",
        layout.intermediate_certificate.read_bytes(),
        layout.intermediate_key.read_bytes(),
        layout.bundle,
    )
    code, _ = await node.refusal(files)
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED}


async def test_revoked(node: Node, client: SvidFiles, authority: Authority, clock: Clock) -> None:
    authority.revoke((client.load().leaf.serial_number,), RevocationReason.KEY_COMPROMISE, clock())
    assert await node.refusal(client) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")


async def test_revoked_while_connected(node: Node, client: SvidFiles, authority: Authority, clock: Clock) -> None:
    async with node.channel(client) as channel:
        assert await who(channel) == CLIENT
        authority.revoke((client.load().leaf.serial_number,), RevocationReason.KEY_COMPROMISE, clock())
        clock.advance(seconds=1)
        assert await refused(channel) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")


async def test_expired_while_connected(node: Node, client: SvidFiles, authority: Authority, clock: Clock) -> None:
    async with node.channel(client) as channel:
        assert await who(channel) == CLIENT
        clock.advance(hours=24, seconds=1)
        assert await refused(channel) == (grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")


async def test_without_a_revocation_list_nobody_is_accepted(
    node: Node, client: SvidFiles, authority: Authority
) -> None:
    authority.layout.revoked.unlink()
    assert await node.refusal(client) == (grpc.StatusCode.UNAUTHENTICATED, "REVOCATION_UNKNOWN")


async def test_a_client_refuses_a_server_of_another_name(node: Node, client: SvidFiles) -> None:
    code, _ = await node.refusal(client, SpiffeId.of(ZONE, "quality", "node"))
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_a_client_refuses_a_server_of_another_authority(
    node: Node, client: SvidFiles, clock: Clock, tmp_path: Path
) -> None:
    other = Authority.create(tmp_path / "other", ZONE, clock())
    code, _ = await node.refusal(SvidFiles(client.certificate, client.key, other.layout.bundle))
    assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)


async def test_a_client_refuses_a_server_whose_certificate_is_for_something_else(
    client: SvidFiles, authority: Authority, revocations: RevocationList, clock: Clock, tmp_path: Path
) -> None:
    bogus = BOGUS["extended-usage-code-signing"]
    files = sign(bogus.leaf, authority, tmp_path / "bogus")
    async with serving(files, SpiffeId.parse(CLIENT), PeerVerifier(ZONE, revocations, clock)) as node:
        code, _ = await node.refusal(client)
        assert (code, node.mirror.calls) == (grpc.StatusCode.UNAVAILABLE, 0)
