"""Certificates that are wrong in exactly one way, signed by a zone's own issuing authority.

`GOOD` is right in every way (a test holds it to that); each entry of `BOGUS` changes one thing in it. Everything is
made in a temporary folder when a test asks.
"""

import dataclasses
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.authority import Authority
from certs.files import write_atomically
from certs.issuance import key_usage
from certs.svid import SvidFiles

ZONE = "north.example"
CLIENT = f"spiffe://{ZONE}/taxation/node"
_SIGNING_ONLY = key_usage(digital_signature=True)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What to put into a certificate."""

    uris: tuple[str, ...] = (CLIENT,)
    dns: tuple[str, ...] = (f"node.taxation.{ZONE}",)
    starts: dt.timedelta = dt.timedelta(minutes=-5)
    ends: dt.timedelta = dt.timedelta(hours=24)
    authority: bool = False
    usage: x509.KeyUsage | None = _SIGNING_ONLY
    usage_critical: bool = True
    extended_usage: tuple[x509.ObjectIdentifier, ...] = (
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    )


@dataclass(frozen=True, slots=True)
class Bogus:
    """One way of being wrong: the change, the verifier's reason, and whether the handshake already refuses it."""

    leaf: Leaf
    reason: str
    in_handshake: bool


GOOD = Leaf()


def _bogus(reason: str, *, in_handshake: bool = False, **change: object) -> Bogus:
    return Bogus(dataclasses.replace(GOOD, **change), reason, in_handshake)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


BOGUS: dict[str, Bogus] = {
    "expired": _bogus(
        "CERTIFICATE_EXPIRED", in_handshake=True, starts=dt.timedelta(days=-2), ends=dt.timedelta(hours=-1)
    ),
    "not-yet-valid": _bogus("CERTIFICATE_NOT_YET_VALID", in_handshake=True, starts=dt.timedelta(hours=1)),
    "key-usage-absent": _bogus("KEY_USAGE_WRONG", usage=None),
    "key-usage-not-critical": _bogus("KEY_USAGE_WRONG", usage_critical=False),
    "key-usage-no-digital-signature": _bogus("KEY_USAGE_WRONG", in_handshake=True, usage=key_usage(crl_sign=False)),
    "key-usage-signs-certificates": _bogus(
        "KEY_USAGE_WRONG", usage=key_usage(digital_signature=True, key_cert_sign=True)
    ),
    "key-usage-signs-revocation-lists": _bogus(
        "KEY_USAGE_WRONG", usage=key_usage(digital_signature=True, crl_sign=True)
    ),
    "extended-usage-absent": _bogus("EXTENDED_KEY_USAGE_WRONG", extended_usage=()),
    "extended-usage-server-only": _bogus(
        "EXTENDED_KEY_USAGE_WRONG", in_handshake=True, extended_usage=(ExtendedKeyUsageOID.SERVER_AUTH,)
    ),
    "extended-usage-code-signing": _bogus(
        "EXTENDED_KEY_USAGE_WRONG", in_handshake=True, extended_usage=(ExtendedKeyUsageOID.CODE_SIGNING,)
    ),
    "no-names": _bogus("SPIFFE_ID_MISSING", uris=(), dns=()),
    "no-spiffe-id": _bogus("SPIFFE_ID_MISSING", uris=()),
    "not-a-spiffe-id": _bogus("SPIFFE_ID_MALFORMED", uris=(f"https://{ZONE}/taxation/node",)),
    "spiffe-id-without-system": _bogus("SPIFFE_ID_MALFORMED", uris=(f"spiffe://{ZONE}/taxation",)),
    "spiffe-id-of-the-zone": _bogus("SPIFFE_ID_MALFORMED", uris=(f"spiffe://{ZONE}",)),
    "two-spiffe-ids": _bogus("SPIFFE_ID_SEVERAL", uris=(CLIENT, f"spiffe://{ZONE}/customs/node")),
    "wrong-trust-domain": _bogus("TRUST_DOMAIN_WRONG", uris=("spiffe://south.example/taxation/node",)),
    "authority-as-leaf": _bogus("AUTHORITY_AS_LEAF", authority=True),
}


def sign(leaf: Leaf, authority: Authority, folder: Path) -> SvidFiles:
    """Sign `leaf` with the zone's intermediate and write its files into `folder`."""
    layout = authority.layout
    issuer = x509.load_pem_x509_certificate(layout.intermediate_certificate.read_bytes())
    issuer_key = load_pem_private_key(layout.intermediate_key.read_bytes(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _builder(leaf, issuer, key.public_key()).sign(issuer_key, hashes.SHA256())
    chain = certificate.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM)
    pem_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return write_pair(folder, chain, pem_key, layout.bundle)


def write_pair(folder: Path, chain: bytes, key: bytes, bundle: Path) -> SvidFiles:
    """Write a chain and its key as two files."""
    folder.mkdir(exist_ok=True)
    files = SvidFiles(certificate=folder / "svid.crt", key=folder / "svid.key", bundle=bundle)
    write_atomically(files.certificate, chain)
    write_atomically(files.key, key)
    return files


def leaf_pem(files: SvidFiles) -> bytes:
    """Give the leaf alone, as gRPC hands it to a server."""
    return x509.load_pem_x509_certificates(files.certificate.read_bytes())[0].public_bytes(Encoding.PEM)


def _builder(leaf: Leaf, issuer: x509.Certificate, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")]))
        .issuer_name(issuer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + leaf.starts)
        .not_valid_after(now + leaf.ends)
        .add_extension(
            x509.BasicConstraints(ca=leaf.authority, path_length=0 if leaf.authority else None), critical=True
        )
    )
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )
    if leaf.usage is not None:
        builder = builder.add_extension(leaf.usage, critical=leaf.usage_critical)
    if leaf.extended_usage:
        builder = builder.add_extension(x509.ExtendedKeyUsage(leaf.extended_usage), critical=False)
    names = [*map(x509.UniformResourceIdentifier, leaf.uris), *map(x509.DNSName, leaf.dns)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder
