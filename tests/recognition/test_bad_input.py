"""Bad input, over the wire: each is refused with a reason that says what is wrong with it, and leaves no trace."""

import datetime as dt
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hutong.api.recognition.v1 import case_pb2, result_service_pb2
from services.kit.credentials import strict
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError, Reason
from tests.credentials.making import forged
from tests.recognition.desk import DEMO
from tests.recognition.mesh import CUSTOMS, PASS, POLICE, REGISTRY, RESULTS, TAX, Mesh, firm, fresh, running
from tests.zone import ZONE, now

LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


async def reason_of(call: Awaitable[object]) -> Reason:
    with pytest.raises(HutongError) as caught:
        await call
    return Reason(caught.value.reason)


async def version_of(mesh: Mesh, case_id: str) -> int:
    return (await mesh.get(REGISTRY, case_id)).version


# Events.


def ahead(**delta: float) -> Any:
    """A moment that lies ahead, or behind with less than nothing."""
    made = case_pb2.StageEvent().event_time
    made.FromDatetime(now() + dt.timedelta(**delta))
    return made


async def test_events_that_no_case_takes(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    before = await version_of(mesh, case_id)
    wrong: dict[str, tuple[Awaitable[object], Reason]] = {
        "an unknown stage": (mesh.event(POLICE, case_id, "E22", "START"), Reason.STAGE_UNKNOWN),
        "no stage at all": (mesh.event(POLICE, case_id, "", "START"), Reason.STAGE_UNKNOWN),
        "a stage left out": (
            mesh.event("foreign-investment/desk", case_id, "E3", "START"),
            Reason.STAGE_NOT_APPLICABLE,
        ),
        "the wrong agency": (mesh.event(TAX, case_id, "E2", "START"), Reason.EVENT_WRONG_AGENCY),
        "before the case exists": (
            mesh.event(POLICE, "FTZ-EST-20260101-00000000", "E2", "START"),
            Reason.CASE_NOT_FOUND,
        ),
        "in the future": (
            mesh.event(POLICE, case_id, "E2", "START", event_time=ahead(minutes=5)),
            Reason.EVENT_IN_FUTURE,
        ),
        "too old": (mesh.event(POLICE, case_id, "E2", "START", event_time=ahead(days=-4)), Reason.EVENT_TOO_OLD),
        "before what it follows on": (
            mesh.event(POLICE, case_id, "E2", "START", event_time=ahead(hours=-1)),
            Reason.EVENT_OUT_OF_ORDER,
        ),
        "before its turn": (mesh.event(CUSTOMS, case_id, "E5c", "START"), Reason.STAGE_NOT_READY),
        "a step left out": (mesh.event(POLICE, case_id, "E2", "RESULT", result_code=PASS), Reason.EVENT_NOT_ALLOWED),
        "nothing happened": (mesh.event(POLICE, case_id, "E2", "UNSPECIFIED"), Reason.MALFORMED_REQUEST),
        "no id": (mesh.event(POLICE, case_id, "E2", "START", stage_event_id="7"), Reason.EVENT_ID_INVALID),
    }
    found = {name: await reason_of(call) for name, (call, _) in wrong.items()}
    assert found == {name: reason for name, (_, reason) in wrong.items()}
    assert await version_of(mesh, case_id) == before


async def test_a_clock_that_is_a_little_ahead_is_forgiven(mesh: Mesh) -> None:
    case_id = await mesh.accepted(firm())
    assert (await mesh.event(POLICE, case_id, "E2", "START", event_time=ahead(seconds=30))).version


async def test_an_event_that_comes_twice(mesh: Mesh) -> None:
    case_id, event_id = await mesh.accepted(firm()), fresh()
    first = await mesh.event(POLICE, case_id, "E2", "START", stage_event_id=event_id)
    again = await mesh.event(POLICE, case_id, "E2", "START", stage_event_id=event_id)
    assert (again.duplicate, again.version) == (True, first.version)
    other = mesh.event(POLICE, case_id, "E2", "START", stage_event_id=event_id, reason_code="LEGAL_DUTY")
    assert await reason_of(other) is Reason.EVENT_ID_REUSED
    assert await reason_of(mesh.event(POLICE, case_id, "E2", "START")) is Reason.EVENT_NOT_ALLOWED
    assert await version_of(mesh, case_id) == first.version


async def test_events_after_the_end(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(REGISTRY, case_id, "", "WITHDRAW", reason_code="APPLICANT_WITHDREW")
    assert await reason_of(mesh.event(POLICE, case_id, "E2", "START")) is Reason.CASE_CLOSED


# Results.

Forger = Callable[[Mesh, str, Path], str]


def stranger(_mesh: Mesh, credential: str, folder: Path) -> str:
    """Keys of an agency that nobody here knows."""
    return resigned(credential, folder, "harbour")


def stolen_name(_mesh: Mesh, credential: str, folder: Path) -> str:
    """Keys of one's own, under an agency's name."""
    return resigned(credential, folder, "publicsecurity")


def resigned(credential: str, folder: Path, agency: str) -> str:
    issuer = f"spiffe://{ZONE}/{agency}"
    return forged(credential, SigningKeys.create(folder / "own", issuer, LONG_AGO), iss=issuer)


def one_byte_of_what_it_says(_mesh: Mesh, credential: str, _folder: Path) -> str:
    token, *rest = credential.split("~")
    head, payload, signature = token.split(".")
    said = strict.decode(payload)
    assert said.count(b'"SUBSTANTIVE"') == 1
    return "~".join((f"{head}.{strict.encode(said.replace(b'SUBSTANTIVE', b'SUBSTANTIVF'))}.{signature}", *rest))


def one_byte_of_the_signature(_mesh: Mesh, credential: str, _folder: Path) -> str:
    token, *rest = credential.split("~")
    rest_of_it, _, signature = token.rpartition(".")
    raw = strict.decode(signature)
    return "~".join((f"{rest_of_it}.{strict.encode(bytes([raw[0] ^ 1]) + raw[1:])}", *rest))


def unsigned(_mesh: Mesh, credential: str, _folder: Path) -> str:
    token, *rest = credential.split("~")
    return "~".join((f"{reheaded(token, 'none')}.", *rest))


def signed_with_the_public_key(mesh: Mesh, credential: str, _folder: Path) -> str:
    token, *rest = credential.split("~")
    said = reheaded(token, "HS256")
    public = strict.decode(json.loads(mesh.keys["publicsecurity"].published())["keys"][0]["x"])
    return "~".join((f"{said}.{strict.encode(hmac.new(public, said.encode(), hashlib.sha256).digest())}", *rest))


def reheaded(token: str, algorithm: str) -> str:
    head, payload, _ = token.split(".")
    return f"{strict.encode(strict.dumps(strict.loads(strict.decode(head)) | {'alg': algorithm}))}.{payload}"


def a_disclosure_more(_mesh: Mesh, credential: str, _folder: Path) -> str:
    return f"{credential}{strict.encode(strict.dumps(['c2FsdHNhbHRzYWx0c2FsdA', 'answer', 'no']))}~"


def no_credential(_mesh: Mesh, _credential: str, _folder: Path) -> str:
    return "not-a-credential"


@pytest.mark.parametrize(
    ("forger", "reason"),
    [
        (stranger, Reason.RESULT_ISSUER),
        (stolen_name, Reason.KEY_UNKNOWN),
        (one_byte_of_what_it_says, Reason.RESULT_SIGNATURE),
        (one_byte_of_the_signature, Reason.RESULT_SIGNATURE),
        (unsigned, Reason.RESULT_ALGORITHM),
        (signed_with_the_public_key, Reason.RESULT_ALGORITHM),
        (a_disclosure_more, Reason.RESULT_DISCLOSURE),
        (no_credential, Reason.RESULT_MALFORMED),
    ],
)
async def test_results_that_are_forged(mesh: Mesh, tmp_path: Path, forger: Forger, reason: Reason) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(POLICE, case_id, "E2", "START")
    before = await version_of(mesh, case_id)
    signed = await mesh.credential(POLICE, "person_verified", subject=subject, case_id=case_id, stage="E2")
    forgery = forger(mesh, signed, tmp_path)
    handed_in = mesh.event(POLICE, case_id, "E2", "RESULT", result_code=PASS, credential=forgery)
    assert await reason_of(handed_in) is reason
    assert await reason_of(registered(mesh, POLICE, forgery)) is reason
    assert await version_of(mesh, case_id) == before
    # What was signed in truth is taken.
    await mesh.event(POLICE, case_id, "E2", "RESULT", result_code=PASS, credential=signed)


async def registered(mesh: Mesh, who: str, credential: str) -> Any:
    request = result_service_pb2.RegisterResultRequest(credential=credential)
    return await mesh.client(who).unary(
        f"{RESULTS}RegisterResult", request, result_service_pb2.RegisterResultResponse, timeout=10
    )


async def test_results_that_are_genuine_and_do_not_count_here(mesh: Mesh) -> None:
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(POLICE, case_id, "E2", "START")
    before = await version_of(mesh, case_id)

    async def handed_in(who: str = POLICE, fact: str = "person_verified", **said: Any) -> Reason:
        whole: dict[str, Any] = {"subject": subject, "case_id": case_id, "stage": "E2"}
        credential = await mesh.credential(who, fact, **whole | said)
        return await reason_of(mesh.event(POLICE, case_id, "E2", "RESULT", result_code=PASS, credential=credential))

    assert await handed_in(subject=firm()) is Reason.RESULT_SUBJECT
    assert await handed_in(case_id="FTZ-EST-20260101-00000000") is Reason.RESULT_SUBJECT
    assert await handed_in(TAX) is Reason.RESULT_ISSUER
    assert await handed_in(fact="seal_registered") is Reason.RESULT_FACT
    assert await handed_in(assurance="AUTO") is Reason.RESULT_FACT
    assert await handed_in(valid_until=now()) is Reason.RESULT_EXPIRED
    # It holds for half a year, and no agency makes a whole one of that.
    assert await handed_in(valid_until=now() + dt.timedelta(days=365)) is Reason.RESULT_FACT
    assert await handed_in(valid_until=None) is Reason.RESULT_FACT
    missing = mesh.event(POLICE, case_id, "E2", "RESULT", result_code=PASS)
    assert await reason_of(missing) is Reason.RESULT_MISSING
    assert await version_of(mesh, case_id) == before


async def again(mesh: Mesh, subject: str) -> str:
    """Begin a second establishment of the same enterprise: its name is reserved already."""
    case_id = (await mesh.submit(subject=subject)).case.case_id
    await mesh.passed(REGISTRY, case_id, "E1", "case_accepted", subject=subject)
    return case_id


async def test_a_revoked_result_counts_nowhere(mesh: Mesh) -> None:
    """Not where it was recognised, at the moment of decision; not for a new case; not when it is handed in again."""
    subject = firm()
    credential = await mesh.credential(POLICE, "person_verified", subject=subject)
    ref = (await registered(mesh, POLICE, credential)).result.result_ref
    case_id = await mesh.accepted(subject)
    await mesh.event(REGISTRY, case_id, "E4", "START")
    revoke = result_service_pb2.RevokeResultRequest(request_id=fresh(), result_ref=ref, reason_code="ISSUED_IN_ERROR")
    await mesh.client(POLICE).unary(
        f"{RESULTS}RevokeResult", revoke, result_service_pb2.RevokeResultResponse, timeout=10
    )
    signed = await mesh.credential(REGISTRY, "registered", subject=subject, case_id=case_id, stage="E4")
    with pytest.raises(HutongError) as caught:
        await mesh.event(REGISTRY, case_id, "E4", "RESULT", result_code=PASS, credential=signed)
    assert caught.value.reason is Reason.RECOGNISED_RESULT_INVALID
    assert (caught.value.metadata["result_ref"], caught.value.metadata["cause"]) == (ref, "RESULT_REVOKED")
    assert await reason_of(registered(mesh, POLICE, credential)) is Reason.RESULT_REVOKED
    other = await again(mesh, subject)
    (stage,) = [s for s in (await mesh.get(POLICE, other)).stages if s.code == "E2"]
    assert not stage.result_ref


async def test_what_a_revoked_key_signed_counts_nowhere(tmp_path: Path) -> None:
    """Nothing is revoked but the key: what it signed is not recognised, not decided on, and not taken."""
    subject = firm()
    async with running(tmp_path) as mesh:
        await mesh.register(POLICE, "person_verified", subject=subject)
        case_id = await mesh.accepted(subject)
        await mesh.event(REGISTRY, case_id, "E4", "START")
        keys = mesh.keys["publicsecurity"]
        old = await mesh.credential(POLICE, "seal_registered", subject=subject)
        (kid,) = [key.kid for key in keys.listed()]
        keys.rotate(now())
        keys.revoke(kid, now(), "KEY_COMPROMISED")
        keys.publish(tmp_path / "keys")
        signed = await mesh.credential(REGISTRY, "registered", subject=subject, case_id=case_id, stage="E4")
        with pytest.raises(HutongError) as caught:
            await mesh.event(REGISTRY, case_id, "E4", "RESULT", result_code=PASS, credential=signed)
        assert caught.value.reason is Reason.RECOGNISED_RESULT_INVALID
        assert caught.value.metadata["cause"] == "KEY_REVOKED"
        assert await reason_of(registered(mesh, POLICE, old)) is Reason.KEY_REVOKED
        other = await again(mesh, subject)
        (stage,) = [s for s in (await mesh.get(POLICE, other)).stages if s.code == "E2"]
        assert not stage.result_ref
        # With the new key it goes on.
        await mesh.register(POLICE, "person_verified", subject=subject)
        (stage,) = [s for s in (await mesh.get(POLICE, other)).stages if s.code == "E2"]
        assert stage.result_ref


async def test_what_was_signed_before_a_rotation_still_counts(tmp_path: Path) -> None:
    subject = firm()
    async with running(tmp_path) as mesh:
        ref = (await mesh.register(POLICE, "person_verified", subject=subject)).result_ref
        keys = mesh.keys["publicsecurity"]
        keys.rotate(now())
        keys.publish(tmp_path / "keys")
        case_id = await mesh.accepted(subject)
        (stage,) = [s for s in (await mesh.get(POLICE, case_id)).stages if s.code == "E2"]
        assert stage.result_ref == ref
        await mesh.passed(REGISTRY, case_id, "E4", "registered", subject=subject)


# Procedures.


async def test_a_procedure_with_a_cycle_stops_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "procedures"
    folder.mkdir()
    cyclic = DEMO.replace("agency: taxation\n    after: [A]", "agency: taxation\n    after: [D]")
    (folder / "demo@1.0.0.yaml").write_text(cyclic, encoding="utf-8")
    mesh = Mesh(tmp_path)
    mesh.changes = {"procedures": folder}
    try:
        with pytest.raises(HutongError, match=r"C -> D -> C|D -> C -> D") as caught:
            await mesh.start()
        assert caught.value.reason is Reason.PROCEDURE_CYCLE
    finally:
        await mesh.stop()
