"""The key of a node's log: made once, kept in private, and published for whoever verifies.

A log has one key for its whole life. Its private half signs checkpoints and receipts and lies beside the node's config
(PKCS #8, PEM); its public half lies with those of all logs of the zone in one folder, as C2SP signed-note verifier
keys named by the log's origin.
"""

from pathlib import Path
from stat import S_IRWXO
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from certs.files import PUBLIC, make_folder, write_atomically
from services.kit.errors import FailedPrecondition, NotFound, Reason
from services.kit.log.notes import KeyType, Signer, VerifierKey

SUFFIX: Final = ".vkey"
"""How the files of published keys end: `AGENCY.SYSTEM.vkey`."""

_MOST_BYTES: Final = 4096


def published_file(folder: Path, origin: str) -> Path:
    """Say where the key of a log is published; its origin is `services.kit.log.checkpoint.origin_of`."""
    return folder / f"{'.'.join(origin.split('/')[1:])}{SUFFIX}"


def create(file: Path, folder: Path, origin: str) -> Signer:
    """Make a log's key where there is none, and publish it in `folder`; gives what signs with it.

    A key that is there is kept: a log that changes its key is another log. Raises `FailedPrecondition` KEY_INVALID
    where it cannot be used, or where another key is published for this log.
    """
    if not file.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        make_folder(file.parent)
        write_atomically(file, pem)
    signer = read(file, origin)
    public = published_file(folder, origin)
    if not public.exists():
        make_folder(folder)
        write_atomically(public, f"{signer.verifier}\n".encode(), PUBLIC)
    elif read_published(public) != signer.verifier:
        raise FailedPrecondition(Reason.KEY_INVALID, f"another key is published for the log {origin}")
    return signer


def read(file: Path, origin: str) -> Signer:
    """Read a log's private key.

    Raises `FailedPrecondition`: CONFIG_FILE_MISSING, or KEY_INVALID where it is no Ed25519 key or open to everybody.
    """
    try:
        exposed = file.stat().st_mode & S_IRWXO
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except OSError:
        raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"there is no key of the log at {file}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file} is no private key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file} is no Ed25519 key")
    if exposed:
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file} is open to every user of this machine; chmod 600 it")
    return Signer(origin, key)


def read_published(file: Path) -> VerifierKey:
    """Read a published key of a log.

    Raises `FailedPrecondition`: CONFIG_FILE_MISSING, or KEY_INVALID where it is none, or of another kind.
    """
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(_MOST_BYTES)
    except OSError:
        raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"there is no published key at {file}") from None
    except UnicodeDecodeError:
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file} is no verifier key") from None
    key = VerifierKey.parse(text.strip())
    if key.type is not KeyType.ED25519:
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file} is no key of a log")
    return key


def find(folder: Path, origin: str) -> VerifierKey:
    """Find the published key of a log.

    Raises `NotFound` LOG_KEY_UNKNOWN where the folder has none, `FailedPrecondition` KEY_INVALID where the file named
    after it holds another log's.
    """
    parts = origin.split("/")
    file = published_file(folder, origin)
    # An origin comes from whoever shows a receipt: it must name a file of this folder.
    if len(parts) != 3 or not all(parts) or "\0" in origin or file.parent != folder or not file.is_file():
        raise NotFound(Reason.LOG_KEY_UNKNOWN, "no key is published for this log")
    key = read_published(file)
    if key.name != origin:
        raise FailedPrecondition(Reason.KEY_INVALID, f"{file.name} holds the key of another log")
    return key
