"""Recomputing: what was decided follows from the policy in force, and whatever was changed afterwards is found."""

import datetime as dt
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.authorization.v1 import authorization_pb2
from hutong.api.exchange.v1 import exchange_pb2
from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit.findings import Finding, Verdict
from services.kit.authorizations.scope import Scope
from services.kit.caller import Caller
from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason
from services.kit.log import masks, openings
from services.kit.log.openings import Draft, seal
from tests.audit.bed import Desk, after, audit
from tests.policy.support import (
    NOW,
    TAX,
    TYPE,
    Rule,
    SetClock,
    callers,
    context,
    engine,
    permit,
    questions,
    rule_sets,
)

SUBJECT = "cn.uscc", "91350211M0000XUF47"
ANSWERED = log_pb2.OUTCOME_ANSWERED
PATHS = st.lists(st.sampled_from(sorted(TYPE.fields)), max_size=4)


def desk(*texts: str, now: dt.datetime = NOW) -> tuple[Desk, SetClock]:
    clock = SetClock(now)
    return Desk(engine(*texts, clock=clock), clock), clock


def decisions(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if not finding.entry.HasField("mask")]


def only(found: list[Finding]) -> Finding:
    (finding,) = decisions(found)
    return finding


@settings(max_examples=60)
@given(found=rule_sets, asked=st.lists(st.tuples(callers, questions, PATHS), min_size=1, max_size=4))
def test_what_the_engine_decided_is_recomputed_the_same(
    found: list[Rule], asked: list[tuple[Caller, RequestContext, list[str]]]
) -> None:
    office, _ = desk(*(rule.text for rule in found))
    for caller, why, fields in asked:
        office.ask(why, fields, caller, SUBJECT)
    findings = office.audit()
    assert {finding.verdict for finding in findings} == {Verdict.SAME}, findings
    assert len(decisions(findings)) == len(asked)


@settings(max_examples=60)
@given(found=rule_sets, other=rule_sets, caller=callers, asked=questions)
def test_what_another_policy_would_decide_differs_where_it_does(
    found: list[Rule], other: list[Rule], caller: Caller, asked: RequestContext
) -> None:
    office, clock = desk(*(rule.text for rule in found))
    stranger = Desk(engine(*(rule.text for rule in other), clock=clock), clock)
    # A node that decides by one policy and says it was another.
    claimed = masks.text_of(stranger.decide(asked, (), caller))
    claimed.policy_version = office.engine.policies.of("museum").version
    claimed.digest = masks.digest_of(claimed.record_type, claimed.policy_version, claimed.decisions)
    log_claim(office, claimed, caller, asked)
    fair = office.decide(asked, (), caller).decided == claimed.decisions
    finding = only(office.audit())
    assert finding.verdict is (Verdict.SAME if fair else Verdict.DIFFERS)
    assert bool(finding.differences) != fair


def log_claim(office: Desk, claimed: log_pb2.MaskText, caller: Caller, asked: RequestContext) -> None:
    office.log.text("mask", claimed.digest.hex(), claimed.SerializeToString())
    entry = log_pb2.LogEntry(
        caller=caller.spiffe_id, purpose=asked.purpose, legal_basis=asked.legal_basis, outcome=ANSWERED
    )
    entry.disclosures.add(record_type=claimed.record_type, mask_digest=claimed.digest, rows=1)
    append(office, Draft(entry))


def append(office: Desk, draft: Draft) -> None:
    with pytest.raises(StopIteration):
        office.log.record(seal(draft)).send(None)


POLICY = (
    permit("party", ("holder", "phone"), 'context.purpose == "P-REBATE" && context has case_ref'),
    permit("code", ("code",), retain="P30D", rows="colour = 'RED'"),
)


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass(frozen=True)
class Evidence:
    """Something of a page that may be changed."""

    page: log_service_pb2.SampleDecisionsResponse
    index: int


@pytest.fixture(scope="module")
def page() -> log_service_pb2.SampleDecisionsResponse:
    office, _ = desk(*POLICY)
    office.ask(context(case_ref="C-1", on_behalf_of="o-9"), subject=SUBJECT)
    office.ask(context("P-RISK", "CN-CUSTOMS-RISK"), ("code", "holder"))
    assert {finding.verdict for finding in office.audit()} == {Verdict.SAME}
    return office.log.page()


def copy(page: log_service_pb2.SampleDecisionsResponse) -> log_service_pb2.SampleDecisionsResponse:
    made = log_service_pb2.SampleDecisionsResponse()
    made.CopyFrom(page)
    return made


def noticed(page: log_service_pb2.SampleDecisionsResponse) -> bool:
    try:
        return any(not finding.verdict.good for finding in audit(page))
    except HutongError:
        return True


@settings(max_examples=150)
@given(data=st.data())
def test_one_changed_byte_of_an_entry_or_its_proof_is_found(
    page: log_service_pb2.SampleDecisionsResponse, data: st.DataObject
) -> None:
    changed = copy(page)
    decision = data.draw(st.sampled_from(list(changed.decisions)))
    if data.draw(st.booleans()):
        decision.entry = flip(decision.entry, data.draw(st.integers(0, len(decision.entry) - 1)))
    else:
        number = data.draw(st.integers(0, len(decision.proof) - 1))
        decision.proof[number] = flip(decision.proof[number], data.draw(st.integers(0, 31)))
    found = [finding for finding in audit(changed) if finding.verdict is Verdict.BROKEN]
    assert [finding.index for finding in found] == [decision.index]


@settings(max_examples=150)
@given(data=st.data())
def test_one_changed_byte_of_a_text_is_found(
    page: log_service_pb2.SampleDecisionsResponse, data: st.DataObject
) -> None:
    changed = copy(page)
    text = data.draw(st.sampled_from([t for t in changed.texts if t.kind in {"mask", "policy", "jurisdiction"}]))
    text.text = flip(text.text, data.draw(st.integers(0, len(text.text) - 1)))
    assert noticed(changed)


@settings(max_examples=100)
@given(data=st.data())
def test_one_changed_byte_of_an_opening_is_found(
    page: log_service_pb2.SampleDecisionsResponse, data: st.DataObject
) -> None:
    changed = copy(page)
    decision = data.draw(st.sampled_from([d for d in changed.decisions if d.HasField("opening")]))
    raw = decision.opening.SerializeToString()
    try:
        opening = log_pb2.Opening.FromString(flip(raw, data.draw(st.integers(0, len(raw) - 1))))
    except Exception:
        return
    decision.opening.CopyFrom(opening)
    assert noticed(changed)


@settings(max_examples=60)
@given(data=st.data())
def test_one_changed_character_of_a_checkpoint_is_found(
    page: log_service_pb2.SampleDecisionsResponse, data: st.DataObject
) -> None:
    changed = copy(page)
    at = data.draw(st.integers(0, len(page.checkpoint) - 1))
    changed.checkpoint = page.checkpoint[:at] + chr(ord(page.checkpoint[at]) ^ 1) + page.checkpoint[at + 1 :]
    assert noticed(changed)


def test_entries_that_changed_places_are_found(page: log_service_pb2.SampleDecisionsResponse) -> None:
    changed = copy(page)
    first, last = changed.decisions[0], changed.decisions[-1]
    first.index, last.index = last.index, first.index
    broken = [finding.index for finding in audit(changed) if finding.verdict is Verdict.BROKEN]
    assert sorted(broken) == sorted([first.index, last.index])


def test_a_text_that_is_not_there_leaves_the_decision_open(page: log_service_pb2.SampleDecisionsResponse) -> None:
    for kind in ("mask", "policy", "jurisdiction"):
        changed = copy(page)
        kept = [text for text in page.texts if text.kind != kind]
        del changed.texts[:]
        changed.texts.extend(kept)
        verdicts = {finding.verdict for finding in decisions(audit(changed))}
        assert verdicts == {Verdict.NOT_RECOMPUTABLE}


def test_an_erased_case_matters_only_where_the_policy_looks_at_it() -> None:
    office, _ = desk(*POLICY)
    office.ask(context(case_ref="C-1"), subject=SUBJECT)
    blind, _ = desk(permit("code", ("code",)))
    blind.ask(context(case_ref="C-1", on_behalf_of="o-9"), subject=SUBJECT)
    # A purpose that needs a case: that one was stated is all that counts.
    needing, _ = desk(permit("valuation", ("code",), 'context.purpose == "P-VALUATION"', basis="CN-CUSTOMS-CREDIT"))
    needing.ask(context("P-VALUATION", "CN-CUSTOMS-CREDIT", case_ref="C-1"))
    for each, verdict in ((office, Verdict.ERASED), (blind, Verdict.SAME), (needing, Verdict.SAME)):
        assert only(each.audit()).verdict is Verdict.SAME
        each.log.openings.clear()
        finding = only(each.audit())
        assert finding.verdict is verdict
    assert "case_ref" in only(office.audit()).why


def test_what_was_never_stated_cannot_have_been_erased() -> None:
    office, _ = desk(*POLICY)
    office.ask(context(), subject=SUBJECT)
    office.log.openings.clear()
    assert only(office.audit()).verdict is Verdict.SAME


@pytest.mark.parametrize("delay", [0.0, 1.0, 29.0])
def test_a_decision_made_just_before_a_policy_ended_stands(delay: float) -> None:
    office, clock = desk(permit("code", ("code",), until=after(0.5).isoformat()))
    mask = office.decide(context())
    clock.now = after(delay)
    log_claim(office, masks.text_of(mask), TAX, context())
    assert only(office.audit()).verdict is Verdict.SAME


def test_a_decision_by_a_policy_that_had_long_ended_differs() -> None:
    office, clock = desk(permit("code", ("code",), until=after(0.5).isoformat()))
    mask = office.decide(context())
    clock.now = after(31)
    log_claim(office, masks.text_of(mask), TAX, context())
    finding = only(office.audit())
    assert finding.verdict is Verdict.DIFFERS
    (difference,) = finding.differences
    assert (difference.field, difference.logged, difference.follows) == ("code", "clear", "refused: NO_PERMIT")


def scope(**more: object) -> authorization_pb2.Scope:
    made = authorization_pb2.Scope(
        caller="taxation/refund", purpose="P-REBATE", legal_basis="CN-VAT-REBATE", case_ref="STR-7", row_quota=9
    )
    made.types.add(record_type=TYPE.name, fields=["code", "holder"])
    made.subjects.add(scheme=SUBJECT[0], value=SUBJECT[1])
    made.not_before.FromDatetime(NOW)
    made.not_after.FromDatetime(after(3600))
    for name, value in more.items():
        setattr(made, name, value)
    return made


@dataclass(frozen=True)
class Grant:
    """An authorization as it is once it was verified."""

    scope: Scope
    authorization_id: str = "0f2d"
    officer: str = "officer-1"
    emergency: bool = False

    @property
    def scope_digest(self) -> bytes:
        return self.scope.digest


AUTHORIZED = permit(
    "authorized",
    ("code", "phone"),
    'context.purpose == "P-REBATE" && context has authorization && context.authorization.case_ref == "STR-7"',
)


def test_an_authorization_is_recomputed_from_its_scope() -> None:
    office, _ = desk(AUTHORIZED)
    opened = Scope.of(scope())
    asked = context(case_ref="STR-7", authorization_id="0f2d")
    office.ask(asked, (), subject=SUBJECT, grant=Grant(opened), opened=opened)
    finding = only(office.audit())
    assert (finding.verdict, finding.why) == (Verdict.SAME, "")
    # Erased: the scope still says which case it was.
    office.log.openings.clear()
    assert only(office.audit()).verdict is Verdict.SAME


def test_under_a_scope_that_was_erased_nobody_can_tell() -> None:
    office, _ = desk(AUTHORIZED)
    opened = Scope.of(scope(nonce=bytes(16)))
    asked = context(case_ref="STR-7", authorization_id="0f2d")
    office.ask(asked, (), subject=SUBJECT, grant=Grant(opened), opened=opened)
    assert only(office.audit()).verdict is Verdict.SAME
    office.log.texts["scope", opened.digest.hex()] = b""
    finding = only(office.audit())
    assert (finding.verdict, "erased" in finding.why) == (Verdict.ERASED, True)


def test_what_lies_outside_the_scope_must_not_have_been_given() -> None:
    office, _ = desk(AUTHORIZED)
    opened = Scope.of(scope())
    asked = context(case_ref="STR-7", authorization_id="0f2d")
    mask = office.engine.mask(TAX, asked, TYPE, opened.authorized("0f2d"))
    given = masks.text_of(mask)
    office.log.text("mask", given.digest.hex(), given.SerializeToString())
    office.log.text("scope", opened.digest.hex(), opened.text)
    entry = log_pb2.LogEntry(
        caller=TAX.spiffe_id, purpose="P-REBATE", legal_basis="CN-VAT-REBATE", outcome=ANSWERED,
        authorization_id="0f2d", scope_digest=opened.digest,
    )  # fmt: skip
    entry.disclosures.add(record_type=TYPE.name, mask_digest=given.digest, rows=1)
    append(office, Draft(entry, (SUBJECT,), "STR-7"))
    finding = only(office.audit())
    assert finding.verdict is Verdict.DIFFERS
    assert ("phone", "clear", "refused: AUTHORIZATION_SCOPE") in {
        (d.field, d.logged, d.follows) for d in finding.differences
    }


def test_another_case_than_the_authorizations_differs() -> None:
    office, _ = desk(AUTHORIZED)
    opened = Scope.of(scope())
    office.ask(context(case_ref="STR-8", authorization_id="0f2d"), grant=Grant(opened), opened=opened)
    finding = only(office.audit())
    assert (finding.verdict, "AUTHORIZATION_SCOPE" in finding.why) == (Verdict.DIFFERS, True)


def test_a_scope_that_was_changed_is_found() -> None:
    office, _ = desk(AUTHORIZED)
    opened = Scope.of(scope())
    office.ask(context(case_ref="STR-7", authorization_id="0f2d"), grant=Grant(opened), opened=opened)
    wider = scope(row_quota=900).SerializeToString(deterministic=True)
    office.log.texts["scope", opened.digest.hex()] = wider
    assert only(office.audit()).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("why", "reason", "verdict"),
    [
        (context("P-NOTHING"), Reason.PURPOSE_UNKNOWN, Verdict.SAME),
        (context("P-REBATE, P-RISK"), Reason.PURPOSE_SEVERAL, Verdict.SAME),
        (context(""), Reason.PURPOSE_MISSING, Verdict.SAME),
        (context("P-REBATE"), Reason.PURPOSE_UNKNOWN, Verdict.DIFFERS),
        (context(basis="CN-NOTHING"), Reason.BASIS_UNKNOWN, Verdict.SAME),
        (context(), Reason.BASIS_UNKNOWN, Verdict.DIFFERS),
        (context("P-VALUATION", "CN-CUSTOMS-CREDIT"), Reason.CASE_MISSING, Verdict.SAME),
        (context("P-VALUATION", "CN-CUSTOMS-CREDIT", case_ref="C-1"), Reason.CASE_MISSING, Verdict.DIFFERS),
        (context("P-AML", "CN-AML"), Reason.AUTHORIZATION_MISSING, Verdict.SAME),
        (context(), Reason.AUTHORIZATION_MISSING, Verdict.DIFFERS),
        (context(), Reason.CALLER_NOT_LISTED, Verdict.NOT_RECOMPUTABLE),
    ],
)
def test_refusals_before_any_decision(why: RequestContext, reason: Reason, verdict: Verdict) -> None:
    office, _ = desk(permit("code"))
    made = PermissionDenied if reason.startswith("AUTHORIZATION") else InvalidArgument
    office.refuse(why, made(reason, "no"))
    assert only(office.audit()).verdict is verdict


def test_an_answer_in_which_nothing_was_decided_says_so() -> None:
    office, _ = desk(permit("code"))
    append(office, Draft(log_pb2.LogEntry(rpc="/x/Y", caller=TAX.spiffe_id, outcome=ANSWERED)))
    assert only(office.audit()).verdict is Verdict.NOT_RECOMPUTABLE


def test_what_no_policy_decides_is_no_missing_text() -> None:
    """Events that were sent: there are no decisions to be found, and none that could differ."""
    office, _ = desk(permit("code"))
    entry = log_pb2.LogEntry(rpc="/x/Follow", caller=TAX.spiffe_id, outcome=ANSWERED)
    entry.disclosures.add(record_type="exchange.Event", rows=2)
    append(office, Draft(entry))
    finding = only(office.audit())
    assert (finding.verdict, finding.why) == (
        Verdict.NOT_RECOMPUTABLE,
        "exchange.Event is given without asking a policy",
    )


def test_a_question_that_had_to_be_refused_differs() -> None:
    office, _ = desk(permit("code"))
    given = masks.text_of(office.decide(context()))
    log_claim(office, given, TAX, context("P-VALUATION", "CN-CUSTOMS-CREDIT"))
    finding = only(office.audit())
    assert (finding.verdict, "CASE_MISSING" in finding.why) == (Verdict.DIFFERS, True)


def test_the_worst_of_several_record_types_counts() -> None:
    office, _ = desk(permit("code"))
    good = masks.text_of(office.decide(context()))
    office.log.text("mask", good.digest.hex(), good.SerializeToString())
    entry = log_pb2.LogEntry(caller=TAX.spiffe_id, purpose="P-REBATE", legal_basis="CN-VAT-REBATE", outcome=ANSWERED)
    entry.disclosures.add(record_type=TYPE.name, mask_digest=good.digest, rows=1)
    entry.disclosures.add(record_type=TYPE.name, mask_digest=bytes(32), rows=1)
    append(office, Draft(entry))
    finding = only(office.audit())
    assert finding.verdict is Verdict.NOT_RECOMPUTABLE
    assert finding.fields == len(TYPE.leaves)


def test_what_is_no_decision_or_no_caller_is_told() -> None:
    office, _ = desk(permit("code"))
    good = masks.text_of(office.decide(context()))
    office.log.text("mask", good.digest.hex(), good.SerializeToString())
    entry = log_pb2.LogEntry(caller="nobody", purpose="P-REBATE", legal_basis="CN-VAT-REBATE", outcome=ANSWERED)
    entry.disclosures.add(record_type=TYPE.name, mask_digest=good.digest)
    append(office, Draft(entry))
    other = log_pb2.LogEntry(caller=TAX.spiffe_id, purpose="P-REBATE", legal_basis="CN-VAT-REBATE", outcome=ANSWERED)
    other.disclosures.add(record_type="museum.Visit", mask_digest=good.digest)
    append(office, Draft(other))
    assert [finding.verdict for finding in decisions(office.audit())] == [Verdict.NOT_RECOMPUTABLE, Verdict.BROKEN]


def test_openings_are_those_of_recording() -> None:
    office, _ = desk(permit("code"))
    office.ask(context(case_ref="C-1", on_behalf_of="o-9"), subject=SUBJECT)
    (index,) = office.log.openings
    opening = office.log.openings[index]
    openings.check_opening(log_pb2.LogEntry.FromString(office.log.entries[index]), opening)
    assert (opening.case_ref, opening.on_behalf_of, list(opening.subjects)) == ("C-1", "o-9", [":".join(SUBJECT)])


def test_grounds_that_were_not_the_policys_differ() -> None:
    office, _ = desk(permit("code"))
    mask = office.decide(context())
    claimed = masks.text_of(mask)
    section = exchange_pb2.Section.FromString(claimed.decisions)
    for decision in section.decisions:
        if decision.policy_ids:
            decision.policy_ids[0] = "somebody-else"
    claimed.decisions = section.SerializeToString()
    claimed.digest = masks.digest_of(claimed.record_type, claimed.policy_version, claimed.decisions)
    log_claim(office, claimed, TAX, context())
    finding = only(office.audit())
    assert finding.verdict is Verdict.DIFFERS
    assert "by somebody-else" in finding.differences[0].logged
