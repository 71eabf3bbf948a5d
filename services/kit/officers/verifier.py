"""Who acts: an officer's token, checked against everything that it has to be made for."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from services.kit.clock import Clock, Forward
from services.kit.config import IssuerSection
from services.kit.credentials import signed
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason, Unauthenticated
from services.kit.officers import tokens
from services.kit.officers.acts import act_nonce, thumbprint
from services.kit.officers.fetching import trust
from services.kit.officers.keys import FileKeys, IssuerKeys, UrlKeys
from services.kit.officers.pseudonyms import Pseudonyms
from services.kit.officers.seen import SeenTokens
from services.kit.officers.tokens import Expected, Officer, Role, invalid
from services.kit.rpc import Call


@dataclass(frozen=True, slots=True)
class _Issuer:
    uri: str
    algorithms: frozenset[str]
    keys: IssuerKeys


class Officers:
    """The officers that a node knows: those of the agencies whose identity providers are in its config.

    A clock that was set back brings no token back to life: it is judged by the latest moment that was seen.
    """

    def __init__(
        self,
        issuers: Mapping[str, IssuerSection],
        audience: str,
        clock: Clock,
        seen: SeenTokens,
        pseudonyms: Pseudonyms,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`audience` is the SPIFFE ID of the node; `monotonic` gives the seconds between fetches of keys.

        `pseudonyms` are how the node's log calls officers.

        Raises `FailedPrecondition`: KEY_INVALID or CONFIG_FILE_MISSING where a file of keys cannot be used,
        CONFIG_INVALID where two agencies name one issuer, since a person of it would be two officers.
        """
        if len({section.issuer for section in issuers.values()}) != len(issuers):
            raise FailedPrecondition(Reason.CONFIG_INVALID, "officers: two agencies name the same issuer")
        self._issuers = {agency: _issuer(agency, section, monotonic) for agency, section in issuers.items()}
        self._audience = audience
        self._clock = Forward(clock)
        self._seen = seen
        self._pseudonyms = pseudonyms
        self._begun = self._clock().replace(microsecond=0)

    async def verify(
        self, token: str, method: str, request: Message, call: Call, role: Role | Collection[Role]
    ) -> Officer:
        """Tell who does an act, and have the token used up: `read`, and then `SeenTokens.take`.

        Raises what `read` raises, and `Unauthenticated` OFFICER_TOKEN_REPLAYED.
        """
        officer = await self.read(token, method, request, call, role)
        if officer.issued_at < self._begun:
            # Whoever remembers in memory does not know what was used before the start.
            raise tokens.expired("it is from before this node was started; get a new one")
        if not await self._seen.take(officer.agency, officer.jti, officer.remembered_until):
            raise replayed()
        return officer

    async def read(
        self, token: str, method: str, request: Message, call: Call, role: Role | Collection[Role]
    ) -> Officer:
        """Tell who does an act, and the call's facts as well; the token is not used up, which is the caller's to see to
        before anything is done.

        `method` is `/package.Service/Rpc`; `request` may hold the token. Of several roles one is enough. Raises
        `Unauthenticated` OFFICER_MISSING, OFFICER_TOKEN_INVALID or OFFICER_TOKEN_EXPIRED, `PermissionDenied`
        ISSUER_UNKNOWN or OFFICER_ROLE_MISSING, and `Unavailable` ISSUER_KEYS_UNAVAILABLE, after these
        checks:

        1. the agency of the calling system has an identity provider here, and the token is of that one;
        2. the algorithm is one of those pinned for it, the header asks for nothing else;
        3. the signature is by one of its published keys, which is for that algorithm;
        4. the claims are there, and are what they should be;
        5. it is for this node, for this act, and bound to the certificate of the call;
        6. it is its time;
        7. the officer has the role.
        """
        if not token:
            raise Unauthenticated(Reason.OFFICER_MISSING, "this needs the token of an officer")
        agency = call.caller.agency
        # 1 to 3
        payload = await self._signed(token, agency)
        # 4 to 6
        expected = Expected(self._audience, act_nonce(method, request), thumbprint(call.certificate))
        officer = tokens.read_claims(agency, payload, expected, self._clock())
        # It is who it says: what comes now may be refused, and the log is to tell whom.
        call.facts.acted(self._pseudonyms.of(officer.agency, officer.subject))
        # 7
        wanted = {role} if isinstance(role, Role) else set(role)
        if officer.roles.isdisjoint(wanted):
            names = ",".join(sorted(wanted))
            raise PermissionDenied(Reason.OFFICER_ROLE_MISSING, "the officer has not the role for this", role=names)
        return officer

    async def _signed(self, token: str, agency: str) -> Mapping[str, object]:
        issuer = self._issuers.get(agency)
        if issuer is None:
            raise _unknown()
        read = signed.read(token, typ=tokens.TYPE, algorithms=issuer.algorithms, limit=tokens.LIMIT, refusal=invalid)
        if read.payload.get("iss") != issuer.uri:
            raise _unknown()
        key = await issuer.keys.find(read.key_id)
        if key is None:
            raise invalid("its issuer has published no such key")
        if key.algorithm != read.algorithm:
            raise invalid("its key is for another algorithm")
        signed.check(read, key.key, invalid)
        return read.payload

    async def close(self) -> None:
        """Stop fetching keys."""
        for issuer in self._issuers.values():
            await issuer.keys.close()


def replayed() -> Unauthenticated:
    """Make the error for a token that was used before."""
    return Unauthenticated(Reason.OFFICER_TOKEN_REPLAYED, "the officer token was used before; each is for one act")


def _unknown() -> PermissionDenied:
    # The same for every cause: which identity providers a node knows is nothing for others to try out.
    return PermissionDenied(Reason.ISSUER_UNKNOWN, "the token is not of an identity provider of the caller's agency")


def _issuer(agency: str, section: IssuerSection, monotonic: Callable[[], float]) -> _Issuer:
    algorithms = frozenset[str](section.algorithms)
    file = section.jwks_ca or section.jwks
    try:
        return _Issuer(section.issuer, algorithms, _keys(section, algorithms, monotonic))
    except FileNotFoundError:
        raise FailedPrecondition(Reason.CONFIG_FILE_MISSING, f"officers.{agency}: there is no file {file}") from None
    except (OSError, ValueError) as error:
        raise FailedPrecondition(Reason.KEY_INVALID, f"officers.{agency}: {file} cannot be used: {error}") from None


def _keys(section: IssuerSection, algorithms: frozenset[str], monotonic: Callable[[], float]) -> IssuerKeys:
    """Find where keys come from; raises `OSError` or `ValueError` where a file cannot be used."""
    if section.jwks is None:
        if section.jwks_ca is not None:
            trust(section.jwks_ca)
        return UrlKeys(section.jwks_url or "", section.jwks_ca, algorithms, monotonic=monotonic)
    keys = FileKeys(section.jwks, algorithms)
    keys.read()
    return keys
