"""What an officer token is made for: one act, through one system.

A token names the digest of the act as its `nonce` (OpenID Connect Core section 2) and the certificate of the system
that brings it in `cnf` (RFC 8705 section 3.1): nobody can do anything else with it, or bring it from elsewhere.
"""

import hashlib
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from google.protobuf.message import Message

from services.kit.credentials import strict

TOKEN_FIELD: Final = "officer_token"  # noqa: S105 - the name of a field
"""The field of a request that brings the token, and so is no part of the act."""

_PREFIX: Final = b"hutong act\n"


def act_digest(method: str, request: Message) -> bytes:
    """Digest an act: SHA-256 over the rpc (`/package.Service/Rpc`) and all of its request but the token."""
    asked = type(request).FromString(request.SerializeToString())
    if TOKEN_FIELD in asked.DESCRIPTOR.fields_by_name:
        asked.ClearField(TOKEN_FIELD)
    content = hashlib.sha256(asked.SerializeToString(deterministic=True)).digest()
    return hashlib.sha256(_PREFIX + method.encode() + b"\n" + content).digest()


def act_nonce(method: str, request: Message) -> str:
    """Write the digest of an act as the `nonce` that its token has to have: base64url without padding."""
    return strict.encode(act_digest(method, request))


@lru_cache(maxsize=1024)
def thumbprint(certificate: bytes) -> str:
    """Write `x5t#S256` of a certificate given as PEM, the first where it is a chain; raises `ValueError`."""
    return strict.encode(x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()))
