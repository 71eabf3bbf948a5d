"""How a node calls officers in what it keeps of them: by a pseudonym, the same for the same officer at the same node.

Nobody without the node's secret can tell whose it is, not even by trying every officer there is; and what two nodes
keep of one officer goes by two names.
"""

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.kit.credentials import strict

_HEX: Final = 16


class Pseudonyms:
    """The pseudonyms of one node, or of several that share its secret."""

    def __init__(self, secret: bytes) -> None:
        """Make them with the node's secret; under another one every officer is somebody else."""
        self._key = HKDF(hashes.SHA256(), 32, None, b"hutong officer pseudonym 1").derive(secret)

    def of(self, agency: str, subject: str) -> str:
        """Give an officer's pseudonym: `officer-` and 64 bits in hexadecimal."""
        mac = hmac.digest(self._key, strict.dumps([agency, subject]), hashlib.sha256)
        return f"officer-{mac.hex()[:_HEX]}"
