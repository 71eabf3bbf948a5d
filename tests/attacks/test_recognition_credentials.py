"""Credentials over the wire: another's, for another, half shown, swollen, and lists that lie about them."""

import datetime as dt
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit.credentials import results, sdjwt, signed, status, strict
from services.kit.credentials.published import PublishedKeys
from services.kit.errors import HutongError, Reason
from services.recognition.events import Assurance
from tests.attacks.handing_in import (
    get_result,
    keys,
    list_results,
    register,
    reserve,
    resigned,
    revoke,
    status_list,
    told,
    why,
)
from tests.recognition.mesh import CUSTOMS, PASS, POLICE, QUALITY, REGISTRY, TAX, Mesh, enterprise, firm, fresh
from tests.zone import now

FACT = "person_verified"
OF_POLICE = "urn:hutong:status:publicsecurity:1"

BAD = {
    Reason.RESULT_MALFORMED,
    Reason.RESULT_ALGORITHM,
    Reason.RESULT_SIGNATURE,
    Reason.RESULT_ISSUER,
    Reason.RESULT_DISCLOSURE,
    Reason.KEY_UNKNOWN,
}


async def examined(mesh: Mesh) -> tuple[str, str]:
    """Bring an establishment to where the police are at work; gives subject and case."""
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(POLICE, case_id, "E2", "START")
    return subject, case_id


async def hand_in(mesh: Mesh, case_id: str, credential: str, who: str = POLICE, stage: str = "E2") -> Any:
    return await mesh.event(who, case_id, stage, "RESULT", result_code=PASS, credential=credential)


async def state_of(mesh: Mesh, case_id: str, stage: str = "E2") -> int:
    return {s.code: s.status for s in (await mesh.get(REGISTRY, case_id)).stages}[stage]


# Signed by somebody else.


async def test_signed_with_another_agencys_key(approvals: Mesh) -> None:
    """Under the police's name and key id, under the police's name and its own key id, and under its own name."""
    subject, case_id = await examined(approvals)
    good = await approvals.credential(POLICE, FACT, subject=subject, case_id=case_id, stage="E2")
    theirs = approvals.keys["customs"]
    kid = signed.read(good.split("~")[0], typ=results.TYPE).key_id
    iss = theirs.issuer
    for forged in (resigned(good, theirs, {"kid": kid}), resigned(good, theirs), resigned(good, theirs, iss=iss)):
        for who in (POLICE, CUSTOMS, TAX):
            assert await why(register(approvals, who, forged)) in BAD | {Reason.RESULT_SUBJECT}
        assert await why(hand_in(approvals, case_id, forged)) in BAD
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_OPEN


async def test_a_good_one_that_another_agency_hands_in(approvals: Mesh) -> None:
    subject = firm()
    good = await approvals.credential(POLICE, FACT, subject=subject)
    for who in (CUSTOMS, TAX, REGISTRY):
        assert await why(register(approvals, who, good)) is Reason.RESULT_ISSUER
    assert not (await list_results(approvals, POLICE, subject)).results


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"typ": "JWT"},
        {"kid": ""},
        {"kid": "../../etc/passwd"},
        {"kid": "x" * 10_000},
        {"jwk": {"kty": "OKP"}},
        {"jku": "https://example.invalid/keys"},
        {"x5u": "https://example.invalid/keys"},
        {"crit": ["exp"]},
    ],
    ids=lambda header: next(iter(header)) + str(next(iter(header.values())))[:8],
)
async def test_headers_that_choose_their_own_judge(approvals: Mesh, header: dict[str, Any]) -> None:
    good = await approvals.credential(POLICE, FACT, subject=firm())
    token, *rest = good.split("~")
    head, payload, signature = token.split(".")
    changed = {**strict.loads(strict.decode(head)), **header}
    forged = "~".join((f"{strict.encode(strict.dumps(changed))}.{payload}.{signature}", *rest))
    assert await why(register(approvals, POLICE, forged)) in BAD
    if not header.keys() & {"alg", "crit"}:
        assert await why(register(approvals, POLICE, resigned(good, approvals.keys["publicsecurity"], header))) in BAD


# For somebody else, for elsewhere, once more.


async def test_replayed_into_another_case(approvals: Mesh) -> None:
    subject, case_id = await examined(approvals)
    other = (await approvals.submit(subject=subject)).case.case_id
    used = await approvals.credential(POLICE, FACT, subject=subject, case_id=case_id, stage="E2")
    await hand_in(approvals, case_id, used)
    assert await why(hand_in(approvals, other, used)) in {Reason.STAGE_NOT_READY, Reason.RESULT_SUBJECT}
    third, there = await examined(approvals)
    assert third != subject
    assert await why(hand_in(approvals, there, used)) is Reason.RESULT_SUBJECT
    assert await why(register(approvals, POLICE, used)) is Reason.RESULT_SUBJECT


async def test_one_signed_for_any_case_is_used_in_one(approvals: Mesh) -> None:
    """It names neither case nor stage. The first place it is used in is its place."""
    subject, case_id = await examined(approvals)
    loose = await approvals.credential(POLICE, FACT, subject=subject)
    await hand_in(approvals, case_id, loose)
    assert await why(register(approvals, POLICE, loose)) is Reason.RESULT_ID_REUSED
    found = await get_result(approvals, POLICE, results.read(loose).ref)
    assert (found.case_id, found.stage_code) == (case_id, "E2")


async def test_about_another_subject_fact_or_stage(approvals: Mesh) -> None:
    subject, case_id = await examined(approvals)
    place = {"case_id": case_id, "stage": "E2"}
    for said, reason in (
        ({"fact": FACT, "subject": firm(), **place}, Reason.RESULT_SUBJECT),
        ({"fact": "seal_registered", "subject": subject, **place}, Reason.RESULT_FACT),
        ({"fact": FACT, "subject": subject, "case_id": case_id, "stage": "E5a"}, Reason.RESULT_SUBJECT),
        ({"fact": FACT, "subject": subject, "case_id": "FTZ-EST-20200101-00000000"}, Reason.RESULT_SUBJECT),
        ({"fact": FACT, "subject": subject, "assurance": "AUTO", **place}, Reason.RESULT_FACT),
        ({"fact": FACT, "subject": subject, "assurance": "ABSOLUTE", **place}, Reason.RESULT_FACT),
    ):
        signed_ = await approvals.credential(POLICE, **said)
        assert await why(hand_in(approvals, case_id, signed_)) is reason, said
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_OPEN


@pytest.mark.parametrize(
    "sub", ["", "cn.uscc", "cn.uscc:", ":91110000600037341L", "hutong.token:", "x" * 301, "CN.USCC:1"]
)
async def test_subjects_that_are_none(approvals: Mesh, sub: str) -> None:
    good = await approvals.credential(POLICE, FACT, subject=firm())
    forged = resigned(good, approvals.keys["publicsecurity"], sub=sub)
    assert await why(register(approvals, POLICE, forged)) in {Reason.RESULT_MALFORMED, Reason.SUBJECT_SCHEME_UNKNOWN}


async def test_a_look_alike_of_a_subject_is_not_that_subject(approvals: Mesh) -> None:
    """What is signed is compared as it is signed: no lower case, no full width, no blank makes it another's."""
    subject, case_id = await examined(approvals)
    good = await approvals.credential(POLICE, FACT, subject=subject, case_id=case_id, stage="E2")
    for alike in (subject.lower(), " " + subject, subject + "\u200b", chr(0xFF19) + subject[1:]):
        forged = resigned(good, approvals.keys["publicsecurity"], sub=f"cn.uscc:{alike}")
        assert await why(hand_in(approvals, case_id, forged)) in {Reason.RESULT_SUBJECT, Reason.RESULT_MALFORMED}


# Half shown.


async def test_a_denial_that_is_kept_back(approvals: Mesh) -> None:
    """`holds: false` says that the fact does not hold. Without that disclosure the rest would read as if it did."""
    subject = firm()
    whole = await approvals.credential(POLICE, FACT, subject=subject, value={"holds": False, "method": "chip"})
    for shown in (results.present(whole, []), results.present(whole, ["method"])):
        assert await why(register(approvals, POLICE, shown)) is Reason.RESULT_DISCLOSURE
    case_id = await approvals.accepted(subject)
    await approvals.event(POLICE, case_id, "E2", "START")
    for shown in (results.present(whole, []), results.present(whole, ["method"])):
        assert await why(hand_in(approvals, case_id, shown)) is Reason.RESULT_DISCLOSURE
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_OPEN


async def test_a_denial_that_was_shown_once_is_not_kept_back_afterwards(approvals: Mesh) -> None:
    """Sent again without it, the register keeps what it has; and what it has is recognised nowhere."""
    subject = firm()
    whole = await approvals.credential(POLICE, FACT, subject=subject, value={"holds": False})
    first = await register(approvals, POLICE, whole)
    again = await register(approvals, POLICE, results.present(whole, []))
    assert again.credential == first.credential == whole
    case_id = await approvals.accepted(subject)
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_READY


async def test_a_case_that_is_kept_back(approvals: Mesh) -> None:
    subject, case_id = await examined(approvals)
    bound = await approvals.credential(POLICE, FACT, subject=subject, case_id="FTZ-EST-20200101-00000000", stage="E2")
    assert await why(hand_in(approvals, case_id, results.present(bound, ["answer"]))) is Reason.RESULT_DISCLOSURE
    assert await why(register(approvals, POLICE, results.present(bound, ["answer"]))) is Reason.RESULT_DISCLOSURE


# Swollen.

TOO_MUCH = {
    "empty": "",
    "tildes": "~" * 60_000,
    "dots": "." * 60_000,
    "a megabyte's start": "e" * 200_000,
    "disclosures": "e30.e30.AA~" + "WyJhIiwxXQ~" * 5000,
    "not ascii": "\u0416.\u0416.\u0416~",
    "nul": "e30.\x00.e30~",
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
async def test_texts_that_are_no_credential(approvals: Mesh, text: str) -> None:
    kind, reason, message, metadata = await told(register(approvals, POLICE, text))
    assert (kind, reason) == ("InvalidArgument", Reason.RESULT_MALFORMED)
    assert len(message) < 200
    assert metadata == {}


def deep(depth: int) -> Any:
    made: Any = 1
    for _ in range(depth):
        made = [made]
    return made


SWOLLEN: dict[str, Any] = {
    "deep": {"value": deep(40)},
    "deeper": {"value": {"a": deep(900)}},
    "wide": {"value": {f"n{number}": number for number in range(20_000)}},
    "long": {"fact": "x" * 201},
    "far": {"exp": 10**18},
    "before time": {"iat": -1},
    "number": {"iat": 1.5},
    "text": {"iat": "1795346758"},
    "true": {"iat": True},
    "list": {"sub": ["cn.uscc:91110000600037341L"]},
    "reference": {"jti": "../../x"},
    "long reference": {"jti": "x" * 201},
    "another kind": {"vct": "urn:hutong:stage-result:2"},
    "no kind": {"vct": None},
    "place": {"status": {"status_list": {"idx": 2**31, "uri": OF_POLICE}}},
    "no place": {"status": None},
    "own list": {"status": {"status_list": {"idx": 0, "uri": "https://example.invalid/mine"}}},
    "digests": {"_sd": ["x"] * 2},
    "digest": {"_sd": "x"},
    "algorithm": {"_sd_alg": "md5"},
    "element": {"...": "x"},
    "holder": {"cnf": deep(40)},
    "escapes in the stage": {"stage": "E2\x1b[2J"},
    "escapes in the fact": {"fact": "person\x1b]0;verified\x07"},
    "escapes in the subject": {"sub": "cn.uscc:91110000600037341L\u202e"},
    "a line more": {"case_id": "FTZ-EST\nE2 passed"},
}


@pytest.mark.parametrize("claims", SWOLLEN.values(), ids=SWOLLEN)
async def test_claims_that_no_result_has(approvals: Mesh, claims: dict[str, Any]) -> None:
    good = await approvals.credential(POLICE, FACT, subject=firm())
    forged = resigned(good, approvals.keys["publicsecurity"], **claims)
    kind, reason, message, metadata = await told(register(approvals, POLICE, forged))
    assert kind in {"InvalidArgument", "PermissionDenied", "FailedPrecondition", "ResourceExhausted"}
    assert reason in BAD | {Reason.STATUS_LIST_INVALID, Reason.KEY_NOT_YET_VALID, Reason.REQUEST_TOO_LARGE}
    assert len(message) + len(json.dumps(metadata)) < 400
    # And whoever follows is served as before.
    assert (await register(approvals, POLICE, good)).result_ref


async def test_values_of_every_size_come_back_whole_or_not_at_all(approvals: Mesh) -> None:
    subject = firm()
    for size in (10, 1000, 40_000):
        signed_ = await approvals.credential(POLICE, FACT, subject=subject, value={"answer": "x" * size})
        if len(signed_) <= signed.LIMIT:
            assert (await register(approvals, POLICE, signed_)).credential == signed_
        else:
            assert await why(register(approvals, POLICE, signed_)) is Reason.RESULT_MALFORMED


# Lists that tell what became of them.


async def test_entries_that_are_swapped(approvals: Mesh) -> None:
    """Each of two results names the other's entry: revoking the one would leave it valid and take the other away."""
    subject = firm()
    one, two = [await approvals.credential(POLICE, FACT, subject=subject) for _ in range(2)]
    mine = approvals.keys["publicsecurity"]
    places = [strict.loads(strict.decode(c.split(".")[1]))["status"] for c in (one, two)]
    for credential, place in ((one, places[1]), (two, places[0])):
        forged = resigned(credential, mine, status=place)
        assert await why(register(approvals, POLICE, forged)) is Reason.STATUS_LIST_INVALID
    unreserved = resigned(one, mine, jti=fresh())
    assert await why(register(approvals, POLICE, unreserved)) is Reason.STATUS_LIST_INVALID


async def test_an_entry_in_another_agencys_list(approvals: Mesh) -> None:
    theirs = await reserve(approvals, CUSTOMS, fresh())
    good = await approvals.credential(POLICE, FACT, subject=firm())
    place = {"status_list": {"idx": theirs.index, "uri": theirs.uri}}
    forged = resigned(good, approvals.keys["publicsecurity"], status=place)
    assert await why(register(approvals, POLICE, forged)) is Reason.STATUS_LIST_INVALID


async def test_a_reference_is_his_who_reserved_it(approvals: Mesh) -> None:
    ref = fresh()
    first = await reserve(approvals, POLICE, ref)
    for who in (CUSTOMS, TAX, QUALITY):
        assert await why(reserve(approvals, who, ref)) is Reason.RESULT_ID_REUSED
    assert await reserve(approvals, POLICE, ref) == first


@pytest.mark.parametrize(
    "ref", ["", "x", "a" * 129, "x" * 200_000, "' OR 1=1 --", "\x00" * 36, "caf\u00e9-caf\u00e9", "-" * 36]
)
async def test_references_that_are_none(approvals: Mesh, ref: str) -> None:
    assert await why(reserve(approvals, POLICE, ref)) is Reason.RESULT_MALFORMED


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "urn:hutong:status:",
        "urn:hutong:status:nobody:1",
        "urn:hutong:status:publicsecurity:0",
        "urn:hutong:status:publicsecurity:01",
        "urn:hutong:status:publicsecurity:2",
        "urn:hutong:status:publicsecurity:999999999",
        "urn:hutong:status:publicsecurity:1\u0661",
        "urn:hutong:status:PUBLICSECURITY:1",
        "urn:hutong:status:%:1",
        "https://example.invalid/1",
    ],
)
async def test_lists_that_are_none(approvals: Mesh, uri: str) -> None:
    await reserve(approvals, POLICE, fresh())
    absent = await told(status_list(approvals, enterprise(), "urn:hutong:status:nobody:7"))
    assert await told(status_list(approvals, enterprise(), uri)) == absent
    assert absent[1] == Reason.STATUS_LIST_INVALID


async def test_a_list_tells_nothing_of_who_or_when(approvals: Mesh) -> None:
    """Places are random, and one that is reserved reads as one that is not: nobody counts another's results."""
    places = [(await reserve(approvals, TAX, fresh())).index for _ in range(40)]
    assert places != sorted(places)
    assert max(places) - min(places) > 10_000
    uri = "urn:hutong:status:taxation:1"
    published = PublishedKeys.load(approvals.folder / "keys")
    token = await status_list(approvals, enterprise(), uri)
    found = status.verify(token, published, at=now(), issuer="recognition", uri=uri)
    assert not any(found.packed)
    assert set(strict.loads(strict.decode(token.split(".")[1]))) == {"sub", "iss", "iat", "exp", "ttl", "status_list"}


async def test_an_agency_signs_no_list_of_its_own(approvals: Mesh, tmp_path: Path) -> None:
    """Nor does one say, in another's name, that all is well with what was revoked."""
    result = await approvals.register(POLICE, FACT, subject=firm())
    await revoke(approvals, POLICE, result.result_ref)
    statement = results.read(result.credential)
    published = PublishedKeys.load(approvals.folder / "keys")
    mine = approvals.keys["publicsecurity"]
    clean = status.StatusList(statement.status_uri, 2, bytes(2**14))
    forged = status.issue(clean, mine, now(), dt.timedelta(hours=1), dt.timedelta(minutes=5))
    signing = mine.active(now())
    ours = approvals.keys["recognition"].issuer
    claims = strict.loads(strict.decode(forged.split(".")[1])) | {"iss": ours}
    renamed = signed.sign({"typ": status.TYPE, "kid": signing.kid}, claims, signing.key)
    for text in (forged, renamed):
        with pytest.raises(HutongError) as caught:
            status.verify(text, published, at=now(), issuer="recognition", uri=statement.status_uri)
        assert caught.value.reason in {Reason.STATUS_LIST_INVALID, Reason.KEY_UNKNOWN}
    true = await status_list(approvals, enterprise(), statement.status_uri)
    found = status.verify(true, published, at=now(), issuer="recognition", uri=statement.status_uri)
    with pytest.raises(HutongError) as caught:
        results.check_status(statement, found)
    assert caught.value.reason is Reason.RESULT_REVOKED


BOMBS = {
    "a gigabyte": zlib.compress(bytes(2**26), 9),
    "a bomb in a bomb": zlib.compress(zlib.compress(bytes(2**26), 9), 9) + b"x",
    "cut off": zlib.compress(bytes(2**14), 9)[:-3],
    "something behind": zlib.compress(bytes(2**14), 9) + b"more",
    "gzip": b"\x1f\x8b" + bytes(40),
    "nothing": b"",
}


@pytest.mark.parametrize("packed", BOMBS.values(), ids=BOMBS)
def test_lists_that_swell(approvals: Mesh, packed: bytes) -> None:
    """Signed by the service's own key, which an attacker would have to have; even so they stay small."""
    keys_ = approvals.keys["recognition"]
    published = PublishedKeys.load(approvals.folder / "keys")
    signing = keys_.active(now())
    claims = {
        "sub": OF_POLICE,
        "iss": keys_.issuer,
        "iat": int(now().timestamp()),
        "status_list": {"bits": 2, "lst": strict.encode(packed)},
    }
    text = signed.sign({"typ": status.TYPE, "kid": signing.kid}, claims, signing.key)
    with pytest.raises(HutongError) as caught:
        status.verify(text, published, at=now(), issuer="recognition", uri=OF_POLICE)
    assert caught.value.reason is Reason.STATUS_LIST_INVALID


@pytest.mark.parametrize("bits", [0, -1, 3, 16, 2**31, "2", None, 2.0, True])
def test_lists_of_odd_entries(approvals: Mesh, bits: Any) -> None:
    keys_ = approvals.keys["recognition"]
    published = PublishedKeys.load(approvals.folder / "keys")
    signing = keys_.active(now())
    lst = {"bits": bits, "lst": status.compress(bytes(64))}
    claims = {"sub": OF_POLICE, "iss": keys_.issuer, "iat": int(now().timestamp()), "status_list": lst}
    text = signed.sign({"typ": status.TYPE, "kid": signing.kid}, claims, signing.key)
    with pytest.raises(HutongError):
        status.verify(text, published, at=now(), issuer="recognition", uri=OF_POLICE)


# Keys.


@pytest.mark.parametrize(
    "agency", ["", ".", "..", "../recognition/signing/published", "nobody", "x" * 64, "CUSTOMS", "*", "%"]
)
async def test_keys_of_nobody(approvals: Mesh, agency: str) -> None:
    refused = await told(keys(approvals, enterprise(), agency))
    assert refused == await told(keys(approvals, enterprise(), "courts"))
    assert refused[1] == Reason.KEY_UNKNOWN


async def test_what_is_published_of_keys_is_public(approvals: Mesh) -> None:
    for agency in ("customs", "recognition"):
        found = json.loads(await keys(approvals, enterprise(), agency))
        assert {name for jwk in found["keys"] for name in jwk} <= {"kty", "crv", "x", "kid", "alg", "use", "nbf", "exp"}


# Recognised only for what they are.


async def test_no_result_is_made_stronger_than_it_was_signed(approvals: Mesh) -> None:
    """A result of form review satisfies no stage that wants an examination of substance."""
    subject = firm()
    for assurance in (Assurance.AUTO, Assurance.FORM_REVIEW):
        await approvals.register(POLICE, FACT, subject=subject, assurance=str(assurance))
    case_id = await approvals.accepted(subject)
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_READY


async def test_an_agency_proves_no_fact_that_is_anothers(approvals: Mesh) -> None:
    """Customs says who a person is, on its own signature: nobody takes its word for that, nor keeps it."""
    subject = firm()
    for fact in (FACT, "registered", "tax_registered", "no_such_fact"):
        alleged = await approvals.credential(CUSTOMS, fact, subject=subject, assurance="ON_SITE")
        assert await why(register(approvals, CUSTOMS, alleged)) is Reason.RESULT_FACT
    case_id = await approvals.accepted(subject)
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_READY


async def test_nor_does_it_keep_others_from_theirs(approvals: Mesh) -> None:
    """Its denial of a fact that is not its own to examine stops no case, and raises no task anywhere."""
    subject = firm()
    await approvals.register(POLICE, FACT, subject=subject)
    denial = await approvals.credential(CUSTOMS, FACT, subject=subject, value={"holds": False, "answer": "no"})
    assert await why(register(approvals, CUSTOMS, denial)) is Reason.RESULT_FACT
    case_id = await approvals.accepted(subject)
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_RECOGNISED


async def test_nor_does_it_hold_up_an_examination(approvals: Mesh) -> None:
    subject = firm()
    case_id = await approvals.accepted(subject)
    alleged = await approvals.credential(CUSTOMS, FACT, subject=subject, assurance="ON_SITE")
    assert await why(register(approvals, CUSTOMS, alleged)) is Reason.RESULT_FACT
    await approvals.event(POLICE, case_id, "E2", "START")
    assert await state_of(approvals, case_id) == pb.STAGE_STATUS_OPEN


async def test_nothing_a_holder_writes_is_taken_for_signed(approvals: Mesh) -> None:
    """A disclosure of its own, one of another credential, and one twice."""
    subject = firm()
    good = await approvals.credential(POLICE, FACT, subject=subject)
    other = await approvals.credential(POLICE, FACT, subject=subject, value={"holds": True})
    own = strict.encode(strict.dumps(["c2FsdA", "holds", True]))
    for extra in (own, other.split("~")[1], good.split("~")[1]):
        assert await why(register(approvals, POLICE, f"{good}{extra}~")) is Reason.RESULT_DISCLOSURE
    assert sdjwt.MAX_DISCLOSURES < 1000
