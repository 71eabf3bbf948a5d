"""A small identity provider for development and the demo: an agency's officers by its own keys in a folder.

In earnest an agency has one already. This one knows no officers: whoever may read its keys says who they are.
"""

import datetime as dt
import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from stat import S_IRWXO
from typing import Any, Final, Self

from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from certs.files import PUBLIC, locked, make_folder, write_atomically
from services.kit.credentials import signed, strict
from services.kit.credentials.published import seconds
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.officers import tokens
from services.kit.officers.acts import thumbprint
from services.kit.officers.keys import LIMIT
from services.kit.officers.tokens import MAX_LIFE, Role, is_reference

LIFE: Final = dt.timedelta(minutes=5)
"""How long tokens live unless it is said otherwise."""

_FILE: Final = "private.jwks.json"
_LOCK: Final = ".lock"
_PUBLIC: Final = ("kty", "crv", "x", "kid", "alg", "use", "iat")


def officers_uri(zone: str, agency: str) -> str:
    """Write the URI of the embedded issuer of an agency, `iss` of its tokens."""
    return f"https://officers.{agency}.{zone}"


class Issuer:
    """An agency's embedded identity provider, in a folder of its own. The newest key signs."""

    def __init__(self, folder: Path, uri: str) -> None:
        """See `create` and `open`."""
        self._folder = folder
        self.uri = uri
        """What its tokens have as `iss`."""

    @classmethod
    def create(cls, folder: Path, uri: str, now: dt.datetime) -> Self:
        """Make the folder with a first key; raises `FailedPrecondition` where it holds keys already."""
        make_folder(folder)
        folder.chmod(0o700)
        made = cls(folder, uri)
        with locked(folder / _LOCK):
            if made._file.exists():
                raise FailedPrecondition(Reason.FOLDER_NOT_EMPTY, f"{folder} holds the keys of an issuer already")
            made._write([_generated(now)])
        return made

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Use the keys of a folder; raises `FailedPrecondition` CONFIG_FILE_MISSING or KEY_INVALID."""
        if not (folder / _FILE).is_file():
            raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"{folder} holds no issuer of officer tokens")
        opened = cls(folder, "")
        opened.uri = str(opened._read()["issuer"])
        return opened

    def rotate(self, now: dt.datetime) -> str:
        """Make a new key, with which tokens are signed from now on; gives its id.

        The one before stays published for the tokens that are under way; older ones are gone.
        """
        with locked(self._folder / _LOCK):
            key = _generated(now)
            self._write([*self._read()["keys"][-1:], key])
        return str(key["kid"])

    def token(
        self,
        subject: str,
        roles: Collection[Role],
        audience: str,
        nonce: str,
        certificate: bytes,
        now: dt.datetime,
        life: dt.timedelta = LIFE,
    ) -> str:
        """Sign a token for one act of an officer.

        `subject` is the officer's reference, never a name; `audience` the SPIFFE ID of the node that serves the act,
        `nonce` its `act_nonce`, `certificate` the PEM of the system that will call. Raises `InvalidArgument`
        OFFICER_TOKEN_INVALID for what nobody would take, `FailedPrecondition` KEY_INVALID.
        """
        if not roles or not dt.timedelta(seconds=1) <= life <= MAX_LIFE or not is_reference(subject):
            message = f"a token has a reference of an officer, a role, and lives at most {MAX_LIFE}"
            raise InvalidArgument(Reason.OFFICER_TOKEN_INVALID, message)
        jwk = self._read()["keys"][-1]
        issued = seconds(now)
        payload = {
            "iss": self.uri,
            "sub": subject,
            "aud": audience,
            "iat": issued,
            "nbf": issued,
            "exp": seconds(now + life),
            "jti": str(uuid.uuid4()),
            "nonce": nonce,
            "roles": sorted(set(roles)),
            "cnf": {"x5t#S256": thumbprint(certificate)},
        }
        key = OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "d")})
        return signed.sign({"typ": tokens.TYPE, "kid": jwk["kid"]}, payload, key)

    def key_ids(self) -> list[str]:
        """List its keys, the one that signs last; raises `FailedPrecondition` KEY_INVALID."""
        return [str(jwk["kid"]) for jwk in self._read()["keys"]]

    def published(self) -> bytes:
        """Write the public keys as a JWK set; raises `FailedPrecondition` KEY_INVALID."""
        raw = self._read()
        public = [{name: jwk[name] for name in _PUBLIC} for jwk in raw["keys"]]
        return strict.dumps({"issuer": self.uri, "keys": public}) + b"\n"

    def publish(self, path: Path) -> Path:
        """Put the public keys into a file, `AGENCY.jwks.json` in a zone's `officers/`; gives it."""
        make_folder(path.parent)
        with locked(self._folder / _LOCK):
            write_atomically(path, self.published(), PUBLIC)
        return path

    @property
    def _file(self) -> Path:
        return self._folder / _FILE

    def _read(self) -> dict[str, Any]:
        try:
            if self._file.stat().st_size > LIMIT:
                raise ValueError
            exposed = self._file.stat().st_mode & S_IRWXO
            raw = strict.loads(self._file.read_bytes())
            for jwk in raw["keys"]:
                OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "d")})
            if not raw["keys"] or not isinstance(raw["issuer"], str):
                raise ValueError
        except (OSError, JoseError, ValueError, KeyError, TypeError, AttributeError):
            raise FailedPrecondition(Reason.KEY_INVALID, f"the keys in {self._folder} cannot be used") from None
        if exposed:
            message = f"{self._file} is open to every user of this machine; chmod 600 it"
            raise FailedPrecondition(Reason.KEY_INVALID, message)
        return dict(raw)

    def _write(self, keys: Collection[Mapping[str, Any]]) -> None:
        write_atomically(self._file, strict.dumps({"issuer": self.uri, "keys": list(keys)}))


def _generated(now: dt.datetime) -> dict[str, Any]:
    key = OKPKey.generate_key("Ed25519")
    raw = key.as_dict(private=True)
    return {**raw, "kid": key.thumbprint(), "alg": "Ed25519", "use": "sig", "iat": seconds(now)}
