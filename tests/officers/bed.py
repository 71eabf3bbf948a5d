"""Officers of two agencies, the systems they act through, and tokens as good or as bad as a test wants them."""

import datetime as dt
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from joserfc.jwk import ECKey, OKPKey, RSAKey

from certs.spiffe import SpiffeId
from hutong.api.authorization.v1 import authorization_pb2
from services.kit.caller import Caller
from services.kit.config import IssuerSection
from services.kit.credentials import signed, strict
from services.kit.credentials.published import seconds
from services.kit.credentials.signed import Key
from services.kit.errors import HutongError, Reason
from services.kit.officers.acts import act_nonce, thumbprint
from services.kit.officers.issuer import Issuer, officers_uri
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.officers.seen import MemorySeen
from services.kit.officers.tokens import Role
from services.kit.officers.verifier import Officers
from services.kit.rpc import Call
from tests.zone import ZONE, Zone

NOW: Final = dt.datetime(2026, 11, 22, 9, tzinfo=dt.UTC)
SECOND: Final = dt.timedelta(seconds=1)
MINUTE: Final = dt.timedelta(minutes=1)
METHOD: Final = "/hutong.api.authorization.v1.AuthorizationService/ApproveAuthorization"
REQUEST: Final = authorization_pb2.ApproveAuthorizationRequest(authorization_id="a-1", scope_digest=b"\x01" * 32)
AUDIENCE: Final = f"spiffe://{ZONE}/supervision/node"
CUSTOMS: Final = "customs/release"
TAXATION: Final = "taxation/refund"
SUBJECT: Final = "o-17"
PSEUDONYMS: Final = Pseudonyms(b"0123456789abcdef0123456789abcdef")


class Hand:
    """A clock that a test sets."""

    def __init__(self, now: dt.datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        return self.now


@dataclass
class Bed:
    """A node that knows the officers of customs and of taxation."""

    folder: Path
    zone: Zone
    clock: Hand = field(default_factory=Hand)
    issuers: dict[str, Issuer] = field(default_factory=dict[str, Issuer])

    @classmethod
    def make(cls, folder: Path) -> "Bed":
        made = cls(folder, Zone(folder))
        for agency in ("customs", "taxation"):
            made.issuers[agency] = Issuer.create(folder / agency, officers_uri(ZONE, agency), NOW)
            made.issuers[agency].publish(made.jwks(agency))
        return made

    def jwks(self, agency: str) -> Path:
        return self.folder / "officers" / f"{agency}.jwks.json"

    def section(self, agency: str, **changes: Any) -> IssuerSection:
        section = IssuerSection(issuer=officers_uri(ZONE, agency), jwks=self.jwks(agency))
        return section.model_copy(update=changes)

    def officers(self, **sections: IssuerSection) -> Officers:
        """A node that has just been started."""
        known = {agency: self.section(agency) for agency in self.issuers} | sections
        return Officers(known, AUDIENCE, self.clock, MemorySeen(self.clock), PSEUDONYMS)

    def certificate(self, path: str) -> bytes:
        return self.zone.files(path).load().chain

    def call(self, path: str = CUSTOMS) -> Call:
        identity = SpiffeId.parse(f"spiffe://{ZONE}/{path}")
        return Call(METHOD, Caller.of(identity), self.certificate(path), None)

    def token(self, agency: str = "customs", path: str = CUSTOMS, *roles: Role) -> str:
        """A good token."""
        nonce = act_nonce(METHOD, REQUEST)
        wanted = roles or (Role.APPROVER,)
        return self.issuers[agency].token(SUBJECT, wanted, AUDIENCE, nonce, self.certificate(path), self.clock())

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token with some changed, or taken away where they are None."""
        claims = {
            "iss": officers_uri(ZONE, "customs"),
            "sub": SUBJECT,
            "aud": AUDIENCE,
            "iat": seconds(self.clock()),
            "nbf": seconds(self.clock()),
            "exp": seconds(self.clock() + 5 * MINUTE),
            "jti": "t-1",
            "nonce": act_nonce(METHOD, REQUEST),
            "roles": ["approver"],
            "cnf": {"x5t#S256": thumbprint(self.certificate(CUSTOMS))},
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def signing(self, agency: str = "customs") -> "Signing":
        """The key an agency's issuer signs with."""
        jwk = strict.loads((self.folder / agency / "private.jwks.json").read_bytes())["keys"][-1]
        return Signing(OKPKey.import_key({name: jwk[name] for name in ("kty", "crv", "x", "d")}), jwk["kid"])

    def forged(self, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed by the issuer of customs whose claims or header are not as they should be."""
        return self.signing().token(self.claims(**changes), header)

    async def refusal(
        self, token: str, officers: Officers | None = None, *, path: str = CUSTOMS, role: Role = Role.APPROVER
    ) -> Reason | None:
        """Verify; gives the reason it was refused for, None where it was not."""
        told = ""
        try:
            await (officers or self.officers()).verify(token, METHOD, REQUEST, self.call(path), role)
            reason = None
        except HutongError as error:
            reason, told = error.reason, error.message
        assert SUBJECT not in told
        assert len(token) < 50 or token not in told
        return reason


@dataclass(frozen=True)
class Signing:
    """A key, and the name it goes by."""

    key: Key
    kid: str
    algorithm: str = "Ed25519"

    @classmethod
    def generate(cls, algorithm: str, kid: str = "k-1") -> "Signing":
        if algorithm == "ES256":
            return cls(ECKey.generate_key("P-256"), kid, algorithm)
        if algorithm == "PS256":
            return cls(RSAKey.generate_key(2048), kid, algorithm)
        return cls(OKPKey.generate_key("Ed25519"), kid, algorithm)

    def named(self, kid: str) -> "Signing":
        return replace(self, kid=kid)

    def token(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        head = {"typ": "JWT", "kid": self.kid, **(header or {})}
        wanted = {name: value for name, value in head.items() if value is not None}
        return signed.sign(wanted, claims, self.key, self.algorithm)

    def public(self, **changes: Any) -> dict[str, Any]:
        """Its public half, as it is published."""
        jwk = {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": self.algorithm, **changes}
        return {name: value for name, value in jwk.items() if value is not None}


def jwks(*keys: Signing | dict[str, Any]) -> bytes:
    """Publish keys."""
    return strict.dumps({"keys": [key.public() if isinstance(key, Signing) else key for key in keys]})
