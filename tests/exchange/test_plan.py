"""What the gateway prepares once must not outlive the policies, the moment or the identity it rests on."""

import datetime as dt
from pathlib import Path

import pytest

from gateway import plan as planning
from gateway.plan import Plan, Planner
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.caller import Caller
from services.kit.context import ContextSigner
from services.kit.policy import loader
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import PolicySet
from services.kit.records import catalogue
from tests.exchange.mesh import question
from tests.policy.support import LAW, NOW, SECRET, SetClock
from tests.zone import ZONE, Zone

TAX = Caller(f"spiffe://{ZONE}/taxation/refund", "taxation", "refund")
PERMIT = """
@id("p") @basis("CN-VAT-REBATE") @from("{since}") @until("{until}")
permit (principal, action, resource == Hutong::Field::"customs.Declaration.declaration_no")
when {{ context.purpose == "P-REBATE" }};
"""
SINCE, UNTIL = NOW + dt.timedelta(days=1), NOW + dt.timedelta(days=2)
SUBJECTS = ("91999901MA07HYX927", "91999901MA07HY2E6F")


def asked(subject: str = SUBJECTS[0]) -> federation_pb2.QueryRequest:
    why = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
    return question(f"cn.uscc:{subject}", "customs.Declaration:declaration_no", **why)


def policies(text: str = "") -> PolicySet:
    file = PERMIT.format(since=SINCE.isoformat(), until=UNTIL.isoformat()) + text
    return loader.parse({"customs.cedar": file}, catalogue.load(), LAW)


class Desk:
    """A planner, its clock, and the zone its gateway belongs to."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        self.zone = Zone(folder)
        self.engine = PolicyEngine(policies(), catalogue.load(), LAW, SECRET, self.clock)
        gateway = self.zone.identity("gateway/main")
        self.planner = Planner(catalogue.load(), self.engine, ContextSigner(gateway, self.clock), self.clock)

    def plan(self, subject: str = SUBJECTS[0]) -> Plan:
        return self.planner.plan(asked(subject), TAX, self.zone.files("gateway/main").load())

    def gives(self) -> bool:
        (part,) = self.planner.decide(asked(), TAX)
        return not part.denied


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def sent(plan: Plan) -> record_source_pb2.FetchRequest:
    (ask,) = plan.asks
    return record_source_pb2.FetchRequest.FromString(ask.question)


def about(plan: Plan) -> record_source_pb2.FetchSessionRequest.Ask:
    return record_source_pb2.FetchSessionRequest.Ask.FromString(plan.rest)


def word(plan: Plan) -> exchange_pb2.ExchangeContext:
    return exchange_pb2.ExchangeContext.FromString(sent(plan).delegated.payload)


def test_a_plan_begins_and_ends_with_the_permit_it_rests_on(desk: Desk) -> None:
    second = dt.timedelta(seconds=1)
    for moment, given in (
        (NOW, False),
        (SINCE - second, False),
        (SINCE, True),
        (UNTIL - second, True),
        (UNTIL, False),
        # A clock that is set back makes what was prepared stale as well.
        (SINCE, True),
        (NOW, False),
    ):
        desk.clock.now = moment
        assert desk.gives() == given, moment
        assert bool(desk.plan().asks) == given, moment


def test_a_plan_ends_with_the_policies_it_rests_on(desk: Desk) -> None:
    desk.clock.now = SINCE
    assert desk.plan().asks
    desk.engine.replace(policies('@id("stop") forbid (principal, action, resource);'))
    assert not desk.plan().asks
    desk.engine.replace(policies())
    assert desk.plan().asks


def test_every_question_has_an_id_of_its_own_and_names_its_own_subject(desk: Desk) -> None:
    desk.clock.now = SINCE
    plans = [desk.plan(subject) for subject in (*SUBJECTS, SUBJECTS[0])]
    assert len({plan.query_id for plan in plans}) == 3
    assert [about(plan).query_id for plan in plans] == [plan.query_id for plan in plans]
    assert [about(plan).subject.value for plan in plans] == [*SUBJECTS, SUBJECTS[0]]


def test_the_gateways_word_is_good_at_every_moment_it_is_used(desk: Desk) -> None:
    """It may be used for more than one question; never past its end, and never after the identity that signed it."""
    desk.clock.now = SINCE
    for _ in range(40):
        plan = desk.plan()
        context = word(plan)
        assert context.issued_at.ToDatetime(dt.UTC) <= desk.clock.now < context.expires_at.ToDatetime(dt.UTC)
        desk.clock.now += dt.timedelta(seconds=1)
    # Set back, what was signed before is signed in the future.
    desk.clock.now -= dt.timedelta(seconds=20)
    assert word(desk.plan()).issued_at.ToDatetime(dt.UTC) == desk.clock.now
    before = desk.plan()
    desk.zone.authority.renew(desk.zone.identity("gateway/main"), dt.datetime.now(dt.UTC))
    after = desk.plan()
    assert before.svid.version != after.svid.version
    assert sent(before).delegated.signature != sent(after).delegated.signature


def test_questions_of_one_inquiry_differ_in_nothing_that_departments_are_prepared_for(desk: Desk) -> None:
    """Asked alone or in a session, about one subject or another: the very same bytes, signed and digested once."""
    desk.clock.now = SINCE
    svid = desk.zone.files("gateway/main").load()
    inquiry = desk.planner.inquiry(asked(), TAX)
    first = desk.planner.plan_for(inquiry, asked(), svid)
    ask = federation_pb2.SessionRequest.Ask(subject=asked(SUBJECTS[1]).subject)
    ask.as_of.FromDatetime(NOW)
    second = desk.planner.plan_for(inquiry, ask, svid)
    third = desk.planner.plan(asked(SUBJECTS[1]), TAX, svid)
    assert first.asks[0].question is second.asks[0].question is third.asks[0].question
    assert desk.planner.inquiry(asked(SUBJECTS[1]), TAX) is inquiry
    assert (about(second).subject.value, about(second).as_of) == (SUBJECTS[1], ask.as_of)
    assert not about(third).HasField("as_of")
    other = Caller(f"spiffe://{ZONE}/taxation/audit", "taxation", "audit")
    assert desk.planner.inquiry(asked(), other) is not inquiry
    assert desk.planner.plan(asked(), other, svid).asks[0].question != first.asks[0].question


def test_an_inquiry_that_a_session_keeps_is_decided_anew_when_policies_change(desk: Desk) -> None:
    desk.clock.now = SINCE
    svid = desk.zone.files("gateway/main").load()
    inquiry = desk.planner.inquiry(asked(), TAX)
    assert desk.planner.plan_for(inquiry, asked(), svid).asks
    desk.engine.replace(policies('@id("stop") forbid (principal, action, resource);'))
    assert not desk.planner.plan_for(inquiry, asked(), svid).asks
    desk.engine.replace(policies())
    assert desk.planner.plan_for(inquiry, asked(), svid).asks
    desk.clock.now = UNTIL
    assert not desk.planner.plan_for(inquiry, asked(), svid).asks


def test_who_asks_very_many_different_questions_puts_out_none_that_is_asked_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_MOST_KEPT", 4)
    desk.clock.now = SINCE
    svid = desk.zone.files("gateway/main").load()
    first = desk.planner.plan(asked(), TAX, svid)
    for number in range(20):
        other = asked()
        other.context.on_behalf_of = f"desk-{number}"
        desk.planner.plan(other, TAX, svid)
        again = desk.planner.plan(asked(), TAX, svid)
        assert again.asks[0].question is first.asks[0].question
    assert desk.planner.questions.made == 21
