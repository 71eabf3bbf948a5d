"""What the node's secret is good for here: pseudonyms of officers, and the seal on the row of an authorization.

Events are signed and chained, so that none can be changed or left out between two others; the seal says which is the
last, and how many rows were used, so that none can be cut off the end either. Both are made with the secret: under
another one nobody is recognised and nothing is sealed.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kit.credentials import strict
from services.supervision.events import Person

_HEX: Final = 16


class Seals:
    """Pseudonyms and seals of one node, or of several that share its secret."""

    def __init__(self, secret: bytes) -> None:
        self._officers = _derive(secret, "officer pseudonym")
        self._heads = _derive(secret, "authorization seal")

    def person(self, agency: str, subject: str) -> Person:
        """Give an officer's pseudonym: the same for the same officer, and nobody else can tell whose it is."""
        return Person(agency, f"officer-{_mac(self._officers, [agency, subject]).hex()[:_HEX]}")

    def seal(self, authorization_id: str, sequence: int, tip: bytes, rows_used: int) -> bytes:
        """Seal which event is the last one, and how many rows were used."""
        return _mac(self._heads, [authorization_id, sequence, tip.hex(), rows_used])

    def holds(self, seal: bytes, authorization_id: str, sequence: int, tip: bytes, rows_used: int) -> bool:
        """Tell whether a seal is on these."""
        return hmac.compare_digest(seal, self.seal(authorization_id, sequence, tip, rows_used))


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, None, f"hutong {purpose} 1".encode()).derive(secret)


def _mac(key: bytes, parts: list[str | int]) -> bytes:
    return hmac.digest(key, strict.dumps(parts), hashlib.sha256)
