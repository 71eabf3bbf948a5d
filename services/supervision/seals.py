"""What the node's secret is good for here: pseudonyms of officers, and the seal on the row of an authorization.

Events are signed and chained, so that none can be changed or left out between two others; the seal says which is the
last, and how many rows were used, so that none can be cut off the end either. Both are made with the secret: under
another one nobody is recognised and nothing is sealed.
"""

import hashlib
import hmac

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kit.credentials import strict
from services.kit.officers.pseudonyms import Pseudonyms
from services.supervision.events import Person


class Seals:
    """Pseudonyms and seals of one node, or of several that share its secret."""

    def __init__(self, secret: bytes) -> None:
        self.pseudonyms = Pseudonyms(secret)
        self._heads = HKDF(hashes.SHA256(), 32, None, b"hutong authorization seal 1").derive(secret)

    def person(self, agency: str, subject: str) -> Person:
        """Give an officer's pseudonym: the same for the same officer, and nobody else can tell whose it is."""
        return Person(agency, self.pseudonyms.of(agency, subject))

    def seal(self, authorization_id: str, sequence: int, tip: bytes, rows_used: int) -> bytes:
        """Seal which event is the last one, and how many rows were used."""
        sealed = strict.dumps([authorization_id, sequence, tip.hex(), rows_used])
        return hmac.digest(self._heads, sealed, hashlib.sha256)

    def holds(self, seal: bytes, authorization_id: str, sequence: int, tip: bytes, rows_used: int) -> bool:
        """Tell whether a seal is on these."""
        return hmac.compare_digest(seal, self.seal(authorization_id, sequence, tip, rows_used))
