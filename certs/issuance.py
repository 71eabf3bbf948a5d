"""The forms of the zone's certificates: which extensions a root, an intermediate and a leaf carry.

RFC 5280 §4.2 and X509-SVID §3-4 decide; nothing here reads or writes a file.
"""

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from certs.spiffe import SpiffeId, server_name

ROOT_LIFE = dt.timedelta(days=3650)
INTERMEDIATE_LIFE = dt.timedelta(days=1825)
BACKDATE = dt.timedelta(minutes=5)
"""Every certificate begins a little early: clocks of agencies are not all right."""


def root_certificate(
    zone: str, key: ec.EllipticCurvePrivateKey, now: dt.datetime, known_as: str = ""
) -> x509.Certificate:
    """Make the self-signed root of a zone; `known_as` tells it from the zone's other roots."""
    name = _name(zone, f"root authority {known_as}".strip())
    builder = _authority(_begin(name, key.public_key(), now, ROOT_LIFE), zone, path_length=1)
    return builder.issuer_name(name).sign(key, hashes.SHA256())


def intermediate_certificate(
    zone: str,
    key: ec.EllipticCurvePublicKey,
    root: x509.Certificate,
    root_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    known_as: str = "",
) -> x509.Certificate:
    """Make an intermediate of a zone, which signs leaves and revocation lists and no further authority."""
    name = _name(zone, f"issuing authority {known_as}".strip())
    builder = _authority(_begin(name, key, now, INTERMEDIATE_LIFE), zone, path_length=0)
    return _under(builder, root).sign(root_key, hashes.SHA256())


def leaf_certificate(
    spiffe_id: SpiffeId,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: dt.datetime,
    ttl: dt.timedelta,
) -> x509.Certificate:
    """Make the X.509 SVID of one system: one URI name, and the DNS name clients check a server by."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, spiffe_id.trust_domain),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, spiffe_id.agency),
            x509.NameAttribute(NameOID.COMMON_NAME, spiffe_id.system),
        ]
    )
    names = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(str(spiffe_id)), x509.DNSName(server_name(spiffe_id))]
    )
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        _begin(subject, key, now, ttl)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(digital_signature=True), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(names, critical=False)
    )
    return _under(builder, issuer).sign(issuer_key, hashes.SHA256())


def key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    """Make a keyUsage extension that allows only what is named."""
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def key_id(certificate: x509.Certificate) -> bytes:
    """Give the identifier of an authority's key, which every certificate that it issues names (RFC 5280 §4.2.1.2)."""
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether the key of `issuer` has signed a certificate, and the names say so too."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def whole_second(moment: dt.datetime) -> dt.datetime:
    """Cut to the second, all that a certificate can hold, and say it in UTC."""
    return moment.astimezone(dt.UTC).replace(microsecond=0)


def _begin(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, life: dt.timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(whole_second(now) - BACKDATE)
        .not_valid_after(whole_second(now) + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder, zone: str, path_length: int) -> x509.CertificateBuilder:
    # X509-SVID §3.2: the name of a signing certificate is its trust domain, without a path.
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(SpiffeId(zone)))])
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(names, critical=False)
    )


def _under(builder: x509.CertificateBuilder, issuer: x509.Certificate) -> x509.CertificateBuilder:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return builder.issuer_name(issuer.subject).add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
    )


def _name(zone: str, role: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, zone), x509.NameAttribute(NameOID.COMMON_NAME, role)]
    )
