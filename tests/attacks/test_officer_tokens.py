"""Whoever would act as an officer without being one, twice, or as two: over the wire, at both replicas of the service.

After every refusal the authorization stands where it stood, and its history is as long as it was.
"""

import asyncio
import base64
import datetime as dt
import hmac
import json
import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.log.v1 import log_service_pb2
from services.kit.credentials import signed, strict
from services.kit.errors import HutongError, Reason
from services.kit.officers.acts import act_nonce, thumbprint
from services.kit.officers.issuer import officers_uri
from services.kit.officers.tokens import Role
from tests.attacks.asking import refused
from tests.supervision.desk import scope
from tests.supervision.mesh import AML, CUSTOMS, SERVICE, TAX, Mesh, running
from tests.zone import ZONE

SAMPLE = "/hutong.api.log.v1.LogService/SampleDecisions"
NODE = f"spiffe://{ZONE}/supervision/node"
State = pb.AuthorizationState


@pytest.fixture(scope="module")
async def desks(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    """Two replicas of the service."""
    async with running(tmp_path_factory.mktemp("desks")) as made:
        await made.start()
        yield made


async def stands(desks: Mesh, found: pb.Authorization) -> tuple[int, int]:
    """Where it stands, and how much has happened to it."""
    now = await desks.get(found)
    return now.state, len(now.events)


def approval(found: pb.Authorization) -> pb.ApproveAuthorizationRequest:
    return pb.ApproveAuthorizationRequest(authorization_id=found.authorization_id, scope_digest=found.scope_digest)


async def outcomes(*doing: Any) -> list[str]:
    """Do all of it at once; gives a reason for each that was refused, nothing for each that was not."""
    done = await asyncio.gather(*doing, return_exceptions=True)
    for each in done:
        if isinstance(each, BaseException) and not isinstance(each, HutongError):
            raise each
    return [each.reason if isinstance(each, HutongError) else "" for each in done]


# four eyes


@pytest.mark.parametrize("through", [AML, "supervision/desk"])
async def test_nobody_approves_what_they_have_asked_for(desks: Mesh, through: str) -> None:
    """With whichever role the identity provider gives, through whichever system of the agency."""
    found = await desks.request(officer="double")
    for roles in ((Role.APPROVER,), (Role.APPROVER, Role.REQUESTER), tuple(Role)):
        for replica in (0, 1):
            asking = desks.act(through, "double", "ApproveAuthorization", approval(found), *roles, replica=replica)
            assert (await refused(asking)).reason is Reason.APPROVER_NOT_ALLOWED
    assert await stands(desks, found) == (State.AUTHORIZATION_STATE_REQUESTED, 1)


async def test_one_person_is_one_approver(desks: Mesh) -> None:
    """Through two systems, at two replicas, at the same moment, with a token of its own each time."""
    found = await desks.request()
    systems = (CUSTOMS, "customs/node", CUSTOMS, "customs/declarations")
    told = await outcomes(
        *(
            desks.act(system, "owner", "ApproveAuthorization", approval(found), replica=n % 2)
            for n, system in enumerate(systems)
        )
    )
    assert sorted(told) == ["", *[Reason.APPROVER_NOT_ALLOWED] * 3]
    again = desks.act(CUSTOMS, "owner", "ApproveAuthorization", approval(found), Role.APPROVER, Role.AUDITOR)
    assert (await refused(again)).reason is Reason.APPROVER_NOT_ALLOWED
    assert await stands(desks, found) == (State.AUTHORIZATION_STATE_APPROVED_ONCE, 2)


async def test_who_has_no_part_in_it_learns_what_one_learns_of_none(desks: Mesh) -> None:
    found = await desks.request()
    none = pb.Authorization(authorization_id=str(uuid.uuid4()), scope_digest=found.scope_digest)
    for who, officer in (("audit/desk", "chief"), (TAX, "owner"), (TAX, "req")):
        absent = await refused(desks.approve(none, who, officer))
        error = await refused(desks.approve(found, who, officer))
        assert (error.reason, error.message) == (absent.reason, absent.message)
        assert error.reason is Reason.AUTHORIZATION_UNKNOWN
    assert await stands(desks, found) == (State.AUTHORIZATION_STATE_REQUESTED, 1)


# the same token again


async def test_a_token_is_good_once_at_both_replicas_and_after_a_restart(tmp_path: Path) -> None:
    """Also one whose act can be done many times: of ten at once one gives a ticket, and none ever after."""
    async with running(tmp_path) as desks:
        await desks.start()
        found = await desks.active()
        use = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
        use.officer_token = desks.token(AML, "req", "UseAuthorization", use)
        told = await outcomes(*(desks.call(AML, "UseAuthorization", use, n % 2) for n in range(10)))
        assert sorted(told) == ["", *[Reason.OFFICER_TOKEN_REPLAYED] * 9]
        other = await desks.request()
        approve = approval(other)
        approve.officer_token = desks.token(CUSTOMS, "owner", "ApproveAuthorization", approve)
        await desks.call(CUSTOMS, "ApproveAuthorization", approve)
        await desks.stop()
        await desks.start()
        for who, rpc, request in ((AML, "UseAuthorization", use), (CUSTOMS, "ApproveAuthorization", approve)):
            assert (await refused(desks.call(who, rpc, request))).reason is Reason.OFFICER_TOKEN_REPLAYED
        assert (await desks.get(other)).state == State.AUTHORIZATION_STATE_APPROVED_ONCE
        assert [event.kind for event in (await desks.get(found)).events].count("used") == 1


async def test_a_clock_set_back_makes_no_used_token_good_again(tmp_path: Path) -> None:
    """Nor one that had expired: not while the service runs, and not after a restart."""
    async with running(tmp_path) as desks:
        found, present = await desks.active(), desks.clock
        ahead = dt.timedelta()
        desks.clock = lambda: present() + ahead
        await desks.stop()
        await desks.start()
        used = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
        used.officer_token = desks.token(AML, "req", "UseAuthorization", used)
        await desks.call(AML, "UseAuthorization", used)
        late = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
        late.officer_token = desks.token(AML, "req", "UseAuthorization", late)
        ahead = dt.timedelta(hours=1)
        # Something happens meanwhile: so much later it has been.
        await desks.request()
        for back in (dt.timedelta(), dt.timedelta(minutes=-5)):
            ahead = back
            for request in (used, late):
                for restarted in (False, True):
                    if restarted:
                        await desks.stop()
                        await desks.start()
                    error = await refused(desks.call(AML, "UseAuthorization", request))
                    assert error.reason in {
                        Reason.OFFICER_TOKEN_EXPIRED,
                        Reason.OFFICER_TOKEN_INVALID,
                        Reason.CLOCK_SET_BACK,
                    }
        # Nothing new is opened either, by however good a token.
        fresh = await refused(desks.use(found))
        assert fresh.reason in {Reason.OFFICER_TOKEN_EXPIRED, Reason.CLOCK_SET_BACK}


# a token made for something else


async def test_a_token_for_another_act_content_node_or_system(desks: Mesh) -> None:
    found, other = await desks.request(), await desks.request()
    asked = approval(found)
    wider = pb.ApproveAuthorizationRequest(authorization_id=found.authorization_id, scope_digest=bytes(32))
    reject = pb.RejectAuthorizationRequest(authorization_id=found.authorization_id, reason_code="TOO_WIDE")
    make = desks.token
    tokens = {
        "another authorization": make(CUSTOMS, "owner", "ApproveAuthorization", approval(other)),
        "another scope": make(CUSTOMS, "owner", "ApproveAuthorization", wider),
        "another act": make(CUSTOMS, "owner", "RejectAuthorization", reject),
        "the same content, another act": make(CUSTOMS, "owner", "RejectAuthorization", asked),
        "another node": make(CUSTOMS, "owner", "ApproveAuthorization", asked, audience=f"spiffe://{ZONE}/customs/node"),
        "another system": make(CUSTOMS, "owner", "ApproveAuthorization", asked, through="customs/other"),
        "another agency's system": make(CUSTOMS, "owner", "ApproveAuthorization", asked, through=AML),
    }
    for name, token in tokens.items():
        asked.officer_token = token
        error = await refused(desks.call(CUSTOMS, "ApproveAuthorization", asked))
        assert error.reason is Reason.OFFICER_TOKEN_INVALID, name
        assert token not in error.message
    asked.officer_token = make(CUSTOMS, "owner", "ApproveAuthorization", asked, agency="taxation")
    assert (await refused(desks.call(CUSTOMS, "ApproveAuthorization", asked))).reason is Reason.ISSUER_UNKNOWN
    # What was stolen on its way is of no use elsewhere: not even to another system of the same agency.
    asked.officer_token = make(CUSTOMS, "owner", "ApproveAuthorization", asked)
    for thief in ("customs/node", AML, "audit/desk"):
        error = await refused(desks.call(thief, "ApproveAuthorization", asked))
        assert error.reason in {Reason.OFFICER_TOKEN_INVALID, Reason.ISSUER_UNKNOWN}
    for victim in (found, other):
        assert await stands(desks, victim) == (State.AUTHORIZATION_STATE_REQUESTED, 1)
    await desks.call(CUSTOMS, "ApproveAuthorization", asked)


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


class Forger:
    """Makes tokens by hand: with an agency's own key, with others, with none."""

    def __init__(self, desks: Mesh, request: pb.ApproveAuthorizationRequest) -> None:
        self.folder = desks.folder
        self.raw = strict.loads((desks.folder / "issuers" / "customs" / "private.jwks.json").read_bytes())["keys"][-1]
        self.key = OKPKey.import_key({name: self.raw[name] for name in ("kty", "crv", "x", "d")})
        self.kid = str(self.raw["kid"])
        now = int(desks.clock().timestamp())
        self.claims: dict[str, Any] = {
            "iss": officers_uri(ZONE, "customs"),
            "sub": "owner",
            "aud": NODE,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid.uuid4()),
            "nonce": act_nonce(f"{SERVICE}ApproveAuthorization", request),
            "roles": ["approver"],
            "cnf": {"x5t#S256": thumbprint(desks.zone.files(CUSTOMS).load().chain)},
        }

    def good(self, key: Any = None, alg: str = "Ed25519", header: dict[str, Any] | None = None, **claims: Any) -> str:
        head = {"typ": "JWT", "kid": self.kid} | (header or {})
        return signed.sign(head, self.claims | claims, key or self.key, alg)

    def unsigned(self, alg: str) -> str:
        return f"{encoded({'alg': alg, 'typ': 'JWT', 'kid': self.kid})}.{encoded(self.claims)}."

    def shared(self, secret: bytes) -> str:
        text = self.unsigned("HS256")[:-1]
        mac = hmac.digest(secret, text.encode(), "sha256")
        return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"

    def elliptic(self, header: dict[str, Any]) -> str:
        made = ECKey.generate_key("P-256")
        header = {name: made.as_dict(private=False) if value is None else value for name, value in header.items()}
        return self.good(made, "ES256", header)

    def stranger(self) -> OKPKey:
        return OKPKey.generate_key("Ed25519")

    @property
    def published(self) -> bytes:
        return (self.folder / "officers" / "customs.jwks.json").read_bytes()


FORGED: dict[str, Callable[[Forger], str]] = {
    "nothing": lambda forger: "",
    "no algorithm": lambda forger: forger.unsigned("none"),
    "no algorithm, in capitals": lambda forger: forger.unsigned("NONE"),
    "the published keys as a secret": lambda forger: forger.shared(forger.published),
    "the public key as a secret": lambda forger: forger.shared(strict.decode(forger.raw["x"])),
    "an algorithm that is not pinned": lambda forger: forger.elliptic({}),
    "a key of its own in the header": lambda forger: forger.elliptic({"jwk": None}),
    "keys from elsewhere": lambda forger: forger.good(header={"jku": "https://evil.example/keys"}),
    "an extension": lambda forger: forger.good(header={"crit": ["kid"]}),
    "another name of the algorithm": lambda forger: forger.unsigned("EdDSA") + "AAAA",
    "another type": lambda forger: forger.good(header={"typ": "hutong-ticket+jwt"}),
    "a stranger's key under the right name": lambda forger: forger.good(forger.stranger()),
    "a key that nobody published": lambda forger: forger.good(forger.stranger(), header={"kid": "other"}),
    "a ladder out of the keys' folder": lambda forger: forger.good(header={"kid": "../../issuers/customs"}),
    "two audiences": lambda forger: forger.good(aud=[NODE, f"spiffe://{ZONE}/customs/node"]),
    "an hour": lambda forger: forger.good(exp=forger.claims["exp"] + 3600),
    "over already": lambda forger: forger.good(iat=forger.claims["iat"] - 600, exp=forger.claims["iat"] - 61),
    "not yet": lambda forger: forger.good(iat=forger.claims["iat"] + 90, exp=forger.claims["iat"] + 390),
    "no certificate": lambda forger: forger.good(cnf={}),
    "a certificate by another name": lambda forger: forger.good(cnf={"x5t": forger.claims["cnf"]["x5t#S256"]}),
    "no id": lambda forger: forger.good(jti=""),
    "no act": lambda forger: forger.good(nonce=""),
    "a role nobody knows": lambda forger: forger.good(roles=["approver", "root"]),
    "a role in capitals": lambda forger: forger.good(roles=["APPROVER"]),
    "roles as a text": lambda forger: forger.good(roles="approver"),
    "a person with a blank": lambda forger: forger.good(sub="owner "),
    "a person that looks the same": lambda forger: forger.good(sub="\u043ewner"),
    "a person and nothing": lambda forger: forger.good(sub="owner\u200b"),
    "another agency as its issuer": lambda forger: forger.good(iss=officers_uri(ZONE, "taxation")),
    "a time that is none": lambda forger: forger.good(exp=2**63),
    "a longer text": lambda forger: forger.good(padding="x" * 9000),
}


async def test_what_is_made_by_hand_is_good_where_nothing_is_wrong(desks: Mesh) -> None:
    asked = approval(await desks.request())
    asked.officer_token = Forger(desks, asked).good()
    await desks.call(CUSTOMS, "ApproveAuthorization", asked)


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_forged_tokens(desks: Mesh, forge: Callable[[Forger], str]) -> None:
    found = await desks.request()
    asked = approval(found)
    asked.officer_token = forge(Forger(desks, asked))
    error = await refused(desks.call(CUSTOMS, "ApproveAuthorization", asked))
    assert error.reason in {
        Reason.OFFICER_MISSING,
        Reason.OFFICER_TOKEN_INVALID,
        Reason.OFFICER_TOKEN_EXPIRED,
        Reason.ISSUER_UNKNOWN,
    }
    assert await stands(desks, found) == (State.AUTHORIZATION_STATE_REQUESTED, 1)


# somebody else's


async def test_another_agencys_authorization_is_used_by_nobody(desks: Mesh) -> None:
    found = await desks.active()
    for who in (CUSTOMS, "supervision/other", "supervision/node", TAX, "audit/desk"):
        error = await refused(desks.use(found, who, "req"))
        assert error.reason in {Reason.AUTHORIZATION_NOT_YOURS, Reason.AUTHORIZATION_UNKNOWN}
    # Nor by an officer whose role it is not, through the right system.
    for roles in ((Role.APPROVER,), (Role.AUDITOR, Role.DATA_OFFICER)):
        use = pb.UseAuthorizationRequest(authorization_id=found.authorization_id)
        error = await refused(desks.act(AML, "chief", "UseAuthorization", use, *roles))
        assert error.reason is Reason.OFFICER_ROLE_MISSING
    assert [event.kind for event in (await desks.get(found)).events] == ["requested", "approved", "approved"]


async def test_nobody_asks_for_another_system(desks: Mesh) -> None:
    """What one system has requested only that one may use: so nobody is made to ask for somebody else."""
    for caller in (CUSTOMS, "supervision/other", "Supervision/aml", "supervision/aml ", "supervision/*", ""):
        asked = scope(AML, desks.clock().replace(microsecond=0))
        asked.caller = caller
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=asked)
        error = await refused(desks.act(AML, "req", "RequestAuthorization", request))
        assert error.reason is Reason.SCOPE_INVALID


# auditors' tokens


async def sampled(
    desks: Mesh, request: log_service_pb2.SampleDecisionsRequest, replica: int = 0, who: str = "audit/desk"
) -> log_service_pb2.SampleDecisionsResponse:
    response = log_service_pb2.SampleDecisionsResponse
    return await desks.client(who, replica).unary(SAMPLE, request, response, timeout=10)


def sample(desks: Mesh, who: str = "audit/desk", *roles: Role, **changes: Any) -> Any:
    asked: dict[str, Any] = {"draw": 3, "seed": b"sixteen bytes !!"} | changes
    request = log_service_pb2.SampleDecisionsRequest(**asked)
    certificate = desks.zone.files(who).load().chain
    issuer, wanted = desks.issuers[who.partition("/")[0]], roles or (Role.AUDITOR,)
    request.officer_token = issuer.token("a-1", wanted, NODE, act_nonce(SAMPLE, request), certificate, desks.clock())
    return request


async def test_decisions_are_for_auditors_and_for_one_question(desks: Mesh) -> None:
    await desks.request()
    for who, roles, reason in (
        ("audit/desk", (Role.REQUESTER, Role.APPROVER), Reason.OFFICER_ROLE_MISSING),
        (CUSTOMS, (Role.DATA_OFFICER,), Reason.OFFICER_ROLE_MISSING),
        ("audit/desk", (Role.DATA_OFFICER,), Reason.OFFICER_ROLE_MISSING),
    ):
        assert (await refused(sampled(desks, sample(desks, who, *roles), who=who))).reason is reason
    assert (await refused(sampled(desks, sample(desks), who="audit/other"))).reason is Reason.OFFICER_TOKEN_INVALID
    assert (await refused(sampled(desks, sample(desks), who=CUSTOMS))).reason is Reason.ISSUER_UNKNOWN
    # A draw that was asked for is the draw that is given: no other seed, number, page or time with the same token.
    for name, value in (("seed", b"another sixteen!"), ("draw", 4), ("page_token", "x"), ("page_size", 1)):
        request = sample(desks)
        setattr(request, name, value)
        assert (await refused(sampled(desks, request))).reason is Reason.OFFICER_TOKEN_INVALID
    # Nor does a node know beforehand which it will be asked for.
    for seed in (b"", b"fifteen bytes !"):
        assert (await refused(sampled(desks, sample(desks, seed=seed)))).reason is Reason.MALFORMED_REQUEST
    request = sample(desks)
    assert (await sampled(desks, request)).decisions
    assert (await refused(sampled(desks, request))).reason is Reason.OFFICER_TOKEN_REPLAYED


async def test_an_auditors_token_is_good_at_one_replica_only(desks: Mesh) -> None:
    request = sample(desks)
    assert (await sampled(desks, request)).decisions
    assert (await refused(sampled(desks, request, replica=1))).reason is Reason.OFFICER_TOKEN_REPLAYED
