"""SPIFFE IDs: the names by which systems know each other.

Parsed as strictly as the standard allows (https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md): what is
accepted is exactly what is written back, so two names are equal when their texts are. This mesh uses one form,
`spiffe://<zone>/<agency>/<system>`, whose parts are DNS labels because the server name is made of them.
"""

import re
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from certs.errors import CertificateUnreadable, NameRefused, SpiffeIdMalformed, SpiffeIdMissing, SpiffeIdSeveral

SCHEME = "spiffe://"
MAX_LENGTH = 2048
"""SPIFFE-ID §2.3, in bytes; every character allowed is ASCII."""
MAX_TRUST_DOMAIN = 255
"""SPIFFE-ID §2.3: the longest host of a URI."""
MAX_ZONE = 64
"""A zone of ours also stands in certificate subjects, where X.520 ends an organization's name."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """A SPIFFE ID that is well-formed by construction: a trust domain, and a path that is empty or begins with "/".

    Raises `SpiffeIdMalformed` for anything the standard does not allow.
    """

    trust_domain: str
    path: str = ""

    def __post_init__(self) -> None:
        """Refuse what the standard refuses."""
        if not _TRUST_DOMAIN.fullmatch(self.trust_domain) or len(self.trust_domain) > MAX_TRUST_DOMAIN:
            raise SpiffeIdMalformed(
                f"trust domain {_shown(self.trust_domain)} is not 1-{MAX_TRUST_DOMAIN} of a-z 0-9 . - _"
            )
        if self.path:
            start, *segments = self.path.split("/")
            if start or not all(map(_is_segment, segments)):
                raise SpiffeIdMalformed(
                    f"path {_shown(self.path)} is not segments of A-Z a-z 0-9 . - _ each after one /, none . or .."
                )
        if len(str(self)) > MAX_LENGTH:
            raise SpiffeIdMalformed(f"SPIFFE ID of {len(str(self))} characters is longer than {MAX_LENGTH}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `text`; what comes out prints as exactly `text`. Raises `SpiffeIdMalformed`."""
        if not text.startswith(SCHEME):
            raise SpiffeIdMalformed(f"{_shown(text)} does not begin with {SCHEME}")
        trust_domain, slash, path = text.removeprefix(SCHEME).partition("/")
        return cls(trust_domain, slash + path)

    @classmethod
    def of(cls, zone: str, agency: str, system: str) -> Self:
        """Make the name of `system` of `agency` in `zone`.

        Raises `NameRefused` when a part cannot stand in a certificate of this mesh: zone names are DNS names of at
        most 64 characters, agency and system are one DNS label each.
        """
        check_zone(zone)
        for role, label in (("agency", agency), ("system", system)):
            if not _LABEL.fullmatch(label):
                raise NameRefused(
                    f"{role} name {_shown(label)} is not a DNS label",
                    "use 1-63 of a-z 0-9 and -, not beginning or ending with -",
                )
        return cls(zone, f"/{agency}/{system}")

    @classmethod
    def from_certificate(cls, certificate: x509.Certificate) -> Self:
        """Read the one SPIFFE ID of a certificate.

        Raises `SpiffeIdMissing` or `SpiffeIdSeveral` unless there is exactly one URI name, `SpiffeIdMalformed` when
        that is not a SPIFFE ID, `CertificateUnreadable` when the names cannot be parsed.
        """
        try:
            extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            raise SpiffeIdMissing("certificate has no subject alternative name") from None
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise CertificateUnreadable(f"certificate extensions cannot be read: {error}") from error
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        if not uris:
            raise SpiffeIdMissing("certificate has no URI name")
        if len(uris) > 1:
            raise SpiffeIdSeveral(f"certificate has {len(uris)} URI names, one is allowed")
        return cls.parse(uris[0])

    @property
    def agency(self) -> str:
        """The agency part. Raises `SpiffeIdMalformed` when the path is not `/<agency>/<system>`."""
        return self._parts()[0]

    @property
    def system(self) -> str:
        """The system part. Raises `SpiffeIdMalformed` when the path is not `/<agency>/<system>`."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        parts = self.path.split("/")[1:]
        if len(parts) != 2 or not all(_LABEL.fullmatch(part) for part in parts):
            raise SpiffeIdMalformed(f"{self} is not of the form {SCHEME}<zone>/<agency>/<system>")
        return parts[0], parts[1]

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def server_name(spiffe_id: SpiffeId) -> str:
    """Give the DNS name by which a client checks that it reached `spiffe_id`: `<system>.<agency>.<zone>`.

    It is a function of the SPIFFE ID and back, because agency and system hold no dot; so a server whose certificate
    carries it is that system and no other. Raises `SpiffeIdMalformed` when the path has another form.
    """
    return f"{spiffe_id.system}.{spiffe_id.agency}.{spiffe_id.trust_domain}"


def check_zone(zone: str) -> None:
    """Raise `NameRefused` unless `zone` is a lower-case DNS name of at most 64 characters."""
    if len(zone) > MAX_ZONE or not all(_LABEL.fullmatch(label) for label in zone.split(".")):
        raise NameRefused(
            f"zone name {_shown(zone)} is not a DNS name of at most {MAX_ZONE} characters",
            "use lower-case labels of a-z 0-9 and - joined by dots, for example north.example",
        )


def _is_segment(segment: str) -> bool:
    return segment not in {".", ".."} and _SEGMENT.fullmatch(segment) is not None


def _shown(text: str) -> str:
    """Quote for a message: hostile text stays short and on one line."""
    return ascii(text if len(text) <= 100 else f"{text[:100]}...")
