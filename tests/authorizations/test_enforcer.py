"""Whether a question may use an authorization: every reason why not, and that nothing of it is kept."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from services.kit import jurisdiction
from services.kit.authorizations.enforcer import Enforcer
from services.kit.authorizations.tickets import LIFETIME
from services.kit.context import SKEW
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError, PermissionDenied, Reason
from tests.authorizations.bed import AML, MINUTE, NAME, NOW, OTHER, SECOND, SILENCE, WHY, Bed, bed, scope
from tests.zone import ZONE

REVOKED, EXHAUSTED = pb.AUTHORIZATION_STATE_REVOKED, pb.AUTHORIZATION_STATE_EXHAUSTED


@pytest.fixture(name="node")
def a_node(tmp_path: Path) -> Bed:
    return bed(tmp_path)


def test_a_good_one_is_granted(node: Bed) -> None:
    grant = node.check()
    assert (grant.authorization_id, grant.case_ref, grant.emergency) == (NAME, WHY["case_ref"], False)
    assert grant.officer == "officer-0123456789abcdef"
    assert grant.scope.text == node.scope.SerializeToString(deterministic=True)
    assert grant.authorized.id == NAME
    grant.still()
    # Neither the ticket nor whom it is about may get into a log.
    assert grant.ticket not in repr(grant)
    assert node.scope.subjects[0].value not in repr(grant)


def test_what_neither_states_nor_needs_one_is_not_concerned(node: Bed) -> None:
    plain = RequestContext(purpose="P-REBATE", legal_basis="CN-VAT-REBATE")
    assert node.enforcer.check(AML, plain, NOW) is None
    assert not node.enforcer.concerns(plain)


def test_a_purpose_that_needs_one_gets_nothing_without(node: Bed) -> None:
    for purpose in ("P-AML", "P-CRIMINAL"):
        asked = RequestContext(purpose=purpose, legal_basis="CN-AML", case_ref="C-1")
        assert node.refusal(asked) is Reason.AUTHORIZATION_MISSING


def test_a_node_without_the_service_refuses_them_all() -> None:
    alone = Enforcer.without_service(jurisdiction.load("cn"), lambda: NOW)
    for context, reason in (
        (RequestContext(**WHY), Reason.AUTHORIZATION_MISSING),
        (RequestContext(**WHY, authorization_id=NAME), Reason.AUTHORIZATION_UNSUPPORTED),
        (RequestContext(purpose="P-REBATE", authorization_id=NAME), Reason.AUTHORIZATION_UNSUPPORTED),
    ):
        with pytest.raises(PermissionDenied) as refused:
            alone.check(AML, context, NOW)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"authorization_id": "a-2"}, Reason.TICKET_INVALID),
        ({"caller": OTHER.spiffe_id}, Reason.AUTHORIZATION_NOT_YOURS),
        ({"issuer": f"spiffe://{ZONE}/customs"}, Reason.TICKET_INVALID),
        ({"issuer": "spiffe://elsewhere.example/supervision"}, Reason.TICKET_INVALID),
        ({"scope_digest": bytes(32)}, Reason.AUTHORIZATION_CHANGED),
        ({"scope_digest": b"short"}, Reason.TICKET_INVALID),
        ({"expires_at": NOW}, Reason.TICKET_INVALID),
        ({"expires_at": NOW + LIFETIME + SECOND}, Reason.TICKET_INVALID),
        ({"issued_at": NOW - LIFETIME, "expires_at": NOW - SECOND}, Reason.TICKET_EXPIRED),
        ({"issued_at": NOW + 2 * MINUTE}, Reason.TICKET_INVALID),
    ],
)
def test_tickets_that_are_refused(node: Bed, changes: dict[str, Any], reason: Reason) -> None:
    try:
        ticket = node.ticket(**changes)
    except ValueError:
        ticket = "no-ticket"
    assert node.refusal(node.context(authorization_ticket=ticket)) is reason


def test_tickets_that_nobody_signed(node: Bed, tmp_path: Path) -> None:
    good = node.ticket()
    head, claims, signature = good.split(".")
    mine = SigningKeys.create(tmp_path / "mine", f"spiffe://{ZONE}/supervision", NOW - MINUTE)
    forged = Bed(mine).ticket()
    for ticket in ("", "x", "a.b.c", f"{head}.{claims}.", f"{head}.{claims}.{signature[::-1]}", forged, good + "A"):
        assert node.refusal(node.context(authorization_ticket=ticket)) is Reason.TICKET_INVALID


def test_a_ticket_is_good_for_one_system_only(node: Bed) -> None:
    """A gateway's word on somebody else opens nothing: nor another system of the same agency."""
    assert node.refusal(caller=OTHER) is Reason.AUTHORIZATION_NOT_YOURS
    # Not even where the service itself made a ticket for the wrong system: the scope names the one.
    theirs = node.context(authorization_ticket=node.ticket(caller=OTHER.spiffe_id))
    assert node.refusal(theirs, OTHER) is Reason.AUTHORIZATION_NOT_YOURS


@pytest.mark.parametrize("part", ["purpose", "legal_basis", "case_ref"])
def test_another_reason_than_it_was_given_for(node: Bed, part: str) -> None:
    assert node.refusal(node.context(**{part: "P-MONITOR"})) is Reason.AUTHORIZATION_SCOPE


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (REVOKED, Reason.AUTHORIZATION_REVOKED),
        (EXHAUSTED, Reason.AUTHORIZATION_EXHAUSTED),
        (pb.AUTHORIZATION_STATE_EXPIRED, Reason.AUTHORIZATION_EXPIRED),
        (pb.AUTHORIZATION_STATE_REQUESTED, Reason.AUTHORIZATION_NOT_ACTIVE),
        (pb.AUTHORIZATION_STATE_APPROVED_ONCE, Reason.AUTHORIZATION_NOT_ACTIVE),
        (pb.AUTHORIZATION_STATE_REJECTED, Reason.AUTHORIZATION_NOT_ACTIVE),
        (pb.AUTHORIZATION_STATE_LAPSED, Reason.AUTHORIZATION_NOT_ACTIVE),
        (pb.AUTHORIZATION_STATE_UNSPECIFIED, Reason.AUTHORIZATION_NOT_ACTIVE),
    ],
)
def test_what_is_not_in_force(node: Bed, state: Any, reason: Reason) -> None:
    grant = node.check()
    node.tell(state)
    assert node.refusal() is reason
    if state != EXHAUSTED:
        with pytest.raises(PermissionDenied) as ended:
            grant.still()
        assert ended.value.reason is reason


def test_rows_at_hand_may_leave_where_they_were_the_last(node: Bed) -> None:
    grant = node.check()
    node.tell(EXHAUSTED)
    grant.still()
    node.clock += 61 * MINUTE
    node.hear()
    with pytest.raises(PermissionDenied) as ended:
        grant.still()
    assert ended.value.reason is Reason.TICKET_EXPIRED


def test_its_time(tmp_path: Path) -> None:
    node = bed(tmp_path, scope=scope(begin=NOW + MINUTE, lasts=2 * MINUTE))
    for minutes, reason in ((0, Reason.AUTHORIZATION_NOT_YET), (1, None), (2, None), (3, Reason.AUTHORIZATION_EXPIRED)):
        node.clock = NOW + minutes * MINUTE
        node.hear()
        assert node.refusal() is reason
    node.clock = NOW + 5 * MINUTE
    node.hear()
    assert node.refusal() is Reason.TICKET_EXPIRED


def test_what_this_node_has_not_heard_of(node: Bed) -> None:
    unknown = node.context(authorization_id="a-9", authorization_ticket=node.ticket(authorization_id="a-9"))
    assert node.refusal(unknown) is Reason.AUTHORIZATION_UNKNOWN


def test_a_scope_that_was_changed_afterwards(node: Bed) -> None:
    wider = scope(row_quota=10**6)
    node.tell(pb.AUTHORIZATION_STATE_ACTIVE, wider)
    assert node.refusal() is Reason.AUTHORIZATION_CHANGED


def test_silence_ends_everything_after_a_while(node: Bed) -> None:
    grant = node.check()
    node.steady.seconds += SILENCE.total_seconds()
    assert node.refusal() is None
    node.steady.seconds += 0.001
    assert node.refusal() is Reason.AUTHORIZATION_STATE_UNKNOWN
    with pytest.raises(HutongError) as ended:
        grant.still()
    assert ended.value.reason is Reason.AUTHORIZATION_STATE_UNKNOWN
    node.hear()
    assert node.refusal() is None


def test_what_was_said_long_ago_is_silence_too(node: Bed) -> None:
    """Heartbeats that are held up somewhere, and come in one after the other with their delay."""
    node.clock += SILENCE + SKEW + SECOND
    node.hear(NOW)
    assert node.refusal() is Reason.AUTHORIZATION_STATE_UNKNOWN
    node.hear()
    assert node.refusal() is None


def test_a_clock_that_was_set_back(node: Bed) -> None:
    node.clock = NOW + 4 * MINUTE
    node.hear()
    node.clock -= SKEW
    assert node.refusal() is None
    node.clock -= SECOND
    assert node.refusal() is Reason.CLOCK_SET_BACK
    # Within what clocks may differ by, the later one counts.
    node.hear(NOW + 5 * MINUTE)
    node.clock = NOW + 5 * MINUTE - SECOND
    assert node.refusal() is Reason.TICKET_EXPIRED


def test_a_revoked_key_ends_its_tickets(tmp_path: Path) -> None:
    node = bed(tmp_path)
    asked = node.context()
    node.signing.rotate(NOW)
    old = next(key.kid for key in node.signing.listed())
    node.signing.revoke(old, NOW, "LOST")
    again = Bed(node.signing)
    assert again.refusal(asked) is Reason.TICKET_INVALID


async def test_waiting_ends_with_the_authorization(node: Bed) -> None:
    grant, forever = node.check(), asyncio.Event()
    waiting = asyncio.ensure_future(grant.while_it_stands(forever.wait()))
    for _ in range(3):
        await asyncio.sleep(0)
    node.tell(REVOKED)
    with pytest.raises(PermissionDenied) as ended:
        await waiting
    assert ended.value.reason is Reason.AUTHORIZATION_REVOKED


async def test_waiting_ends_with_what_was_waited_for(node: Bed) -> None:
    async def answer() -> int:
        return 7

    async def failing() -> int:
        raise ValueError

    grant = node.check()
    assert await grant.while_it_stands(answer()) == 7
    with pytest.raises(ValueError, match=r"^$"):
        await grant.while_it_stands(failing())
    node.tell(REVOKED)
    with pytest.raises(PermissionDenied):
        # What came back may not be used any more.
        await grant.while_it_stands(answer())


async def test_waiting_that_is_cut_leaves_nothing_behind(node: Bed) -> None:
    grant, forever, cut = node.check(), asyncio.Event(), asyncio.Event()
    # Nodes of other tests may run in the same loop.
    others = asyncio.all_tasks()

    async def work() -> None:
        try:
            await forever.wait()
        finally:
            cut.set()

    waiting = asyncio.ensure_future(grant.while_it_stands(work()))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cut.is_set()
    assert asyncio.all_tasks() <= others


async def test_a_node_that_discloses_nothing_reserves_nothing(node: Bed) -> None:
    with pytest.raises(PermissionDenied) as refused:
        await node.check().disclose("customs.Declaration", 1)
    assert refused.value.reason is Reason.AUTHORIZATION_UNSUPPORTED


def test_the_ends_of_a_ticket_are_moments(node: Bed) -> None:
    last = NOW + LIFETIME
    node.clock = last - dt.timedelta(microseconds=1)
    node.hear()
    assert node.refusal() is None
    node.clock = last
    assert node.refusal() is Reason.TICKET_EXPIRED
