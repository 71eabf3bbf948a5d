"""Steps about supervision: a suspicious transaction, looked into under an authorization and no further."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli import sample
from services.cli.demo import proofs
from services.cli.demo.desk import refusal
from services.cli.demo.officers import AML, CASE, Looking, Officer, scope, state, subject_id
from services.cli.demo.stage import Sections, Stage, given, refused, status, until
from services.cli.query import SERVICE
from services.kit.authorizations.scope import scope_digest
from services.kit.errors import HutongError, Reason

_OPENED: Final = (
    "customs.Declaration:declaration_no,trader_uscc,overseas_party_name,total_value_cny,declared_at,gross_wt_kg",
    "taxation.InvoiceSummary:period,direction,invoiced_amt,voided_amt",
    "commerce.Shareholding:beneficial_owner,share_pct",
)
"""What is asked for. The weight is not the supervision's to have, whatever is approved."""

_ASKED: Final = (f"{_OPENED[0]},lines.hs10", *_OPENED[1:])
"""What is then asked: the goods, which nobody has approved, besides."""

_DECLARATIONS: Final = "customs.Declaration:declaration_no,declared_at"
_EVERYBODY: Final = "declared_at >= '2020-01-01T00:00:00Z'"
"""A condition that every declaration of the zone meets."""

_NOTHING: Final = (
    "customs.Declaration:declaration_no = 'NONE'",
    "taxation.InvoiceSummary:period = '1900-01'",
    "commerce.Shareholding:beneficial_owner = true AND beneficial_owner = false",
)
"""Conditions that no record meets."""

_ROWS: Final = 300
_FEW: Final = 7
_AT_ONCE: Final = 20
_MANY: Final = 10_000
_ENOUGH: Final = 5
"""Records that are waited for before the revocation."""
_PROMISED: Final = 1.0
"""Seconds in which a revocation must have cut what runs."""


@dataclass(slots=True)
class _Tale:
    """Who takes part."""

    stage: Stage
    analyst: Officer
    """Supervision's, who asks."""
    colleague: Officer
    """Another of the same agency."""
    customs: Officer
    tax: Officer
    barred: str
    """The other enterprise of the case: listed for serious unlawfulness, and still declaring."""
    stranger: str
    """An enterprise that is no part of the case."""


async def suspicion(stage: Stage) -> None:
    """Tell how a suspicious transaction is looked into, and how all of it can be looked at afterwards."""
    others = sample.story(stage.zone.sample)
    tale = _Tale(
        stage,
        analyst=Officer(stage, AML.caller, "S-7731"),
        colleague=Officer(stage, AML.caller, "S-0042"),
        customs=Officer(stage, "customs/release", "C-1190"),
        tax=Officer(stage, "taxation/refund", "T-0386"),
        barred=others.barred.text,
        stranger=others.food_importer.text,
    )
    requested = await _requested(tale)
    await _approved(tale, requested)
    looking, answer = await _looked(tale, requested)
    await _others(tale, looking)
    await _counted(tale)
    await _revoked(tale)
    await proofs.proven(stage, answer.receipt)


async def _requested(tale: _Tale) -> pb.Authorization:
    """Ask without one, then ask for one."""
    narrator, exporter = tale.stage.narrator, tale.stage.exporter
    narrator.step("A suspicious transaction: first of all, an authorization")
    narrator.say(f"Report {CASE} says that {exporter.name} is paid for goods that nobody sees.")
    bare = await refusal(Looking(tale.stage, "", "").ask(_ASKED, exporter.text))
    narrator.check(
        _reason(bare) == Reason.AUTHORIZATION_MISSING, f"{AML}, without an authorization: refused as a whole", bare
    )
    found = await tale.analyst.request(scope(_OPENED, (exporter.text, tale.barred), _ROWS))
    fields = sum(len(each.fields) for each in found.scope.types)
    narrator.check(
        state(found) == "REQUESTED",
        f"an officer asks for one: {fields} fields of three agencies, two enterprises, {_ROWS} records, a fortnight",
        state(found),
    )
    told = await tale.customs.explain(found)
    narrator.show(
        ("Record type", "Would be opened", "Would stay refused"), [_explained(each) for each in told.sections]
    )
    weight = {d.reason for each in told.sections for d in each.decisions if d.field == "gross_wt_kg"}
    narrator.check(
        weight == {"NO_PERMIT"} and told.scope_digest == found.scope_digest,
        "an approver sees what it would open, as the owners' policies stand: not the weight",
        weight,
    )
    return found


async def _approved(tale: _Tale, found: pb.Authorization) -> None:
    """Try to do without four eyes, and then do it properly."""
    narrator, customs = tale.stage.narrator, tale.customs
    narrator.step("Two others approve it, and nothing else")
    own = await refusal(tale.analyst.approve(found))
    narrator.check(_reason(own) == Reason.APPROVER_NOT_ALLOWED, "who has asked for it cannot approve it", own)
    wider = pb.Scope()
    wider.CopyFrom(found.scope)
    wider.row_quota *= 10
    other = await refusal(customs.approve(found, scope_digest(wider)))
    narrator.check(
        _reason(other) == Reason.AUTHORIZATION_CHANGED, "an approval of ten times the records approves nothing", other
    )
    signed = customs.approval(found)
    once = await customs.hand_in(signed)
    early = await refusal(tale.analyst.use(found))
    narrator.check(
        (state(once), _reason(early)) == ("APPROVED_ONCE", Reason.AUTHORIZATION_NOT_ACTIVE),
        "an officer of customs, which owns declarations, approves: one is not enough",
        (state(once), early),
    )
    again, replayed = await refusal(customs.approve(found)), await refusal(customs.hand_in(signed))
    narrator.check(_reason(again) == Reason.APPROVER_NOT_ALLOWED, "the same officer cannot approve twice", again)
    narrator.check(
        _reason(replayed) == Reason.OFFICER_TOKEN_REPLAYED, "nor anybody with the token that was used already", replayed
    )
    active = await tale.tax.approve(found)
    narrator.check(state(active) == "ACTIVE", "an officer of taxation approves: now it is in force", state(active))
    columns = ("", "What", "Agency", "Officer")
    narrator.show(columns, ((str(e.sequence), e.kind, e.agency, e.officer) for e in active.events))
    people = {tale.analyst.reference, customs.reference, tale.tax.reference}
    narrator.check(
        not people & {event.officer for event in active.events} and all(event.signature for event in active.events),
        "its history is signed, each event chained to the one before; officers go by pseudonyms",
    )


async def _looked(tale: _Tale, found: pb.Authorization) -> tuple[Looking, federation_pb2.QueryResponse]:
    """Ask under it, about one enterprise and then about both."""
    stage, narrator = tale.stage, tale.stage.narrator
    narrator.step("One question across three agencies, and no more than was approved")
    looking = await _heard(tale, found, _OPENED, _NOTHING)
    answer = await looking.ask(_ASKED, stage.exporter.text)
    sections = {section.record_type: section for section in answer.sections}
    narrator.show(("Record type", "Came out as", "Records", "Given", "Refused"), _told(sections))
    narrator.check(
        all(section.records for section in sections.values()), "customs, taxation and commerce give records", sections
    )
    reasons = refused(sections["customs.Declaration"])
    narrator.check(
        reasons == {"gross_wt_kg": "NO_PERMIT", "lines.hs10": "AUTHORIZATION_SCOPE"},
        "what stays closed is named: the weight by the owner's policy, the goods because nobody approved them",
        reasons,
    )
    asked = federation_pb2.StreamQueryRequest(
        query=looking.question(_OPENED[:1], stage.exporter.text, page_size=5),
        subjects=[subject_id(tale.barred)],
        all_pages=True,
    )
    told = [each async for each in _stream(stage, asked)]
    about = dict.fromkeys(each.subject.value for each in told)
    rows = {one: _rows(each.section for each in told if each.subject.value == one) for one in about}
    narrator.check(
        len(rows) == 2 and all(rows.values()) and len(told) > len(rows),
        f"both enterprises in one stream, page after page: {' and '.join(map(str, rows.values()))} declarations",
        rows,
    )
    used = (await tale.customs.get(found)).rows_used
    disclosed = _rows(answer.sections) + sum(rows.values())
    narrator.check(used == disclosed, f"{used} of {_ROWS} records are used: as many as were given", disclosed)
    return looking, answer


async def _others(tale: _Tale, looking: Looking) -> None:
    """Ask about somebody else, and as somebody else."""
    stage, narrator = tale.stage, tale.stage.narrator
    beyond = await _why(looking.ask(_OPENED, tale.stranger))
    narrator.check(
        beyond == {Reason.AUTHORIZATION_SCOPE}, "about an enterprise that is no part of the case: nothing", beyond
    )
    borrowed = Looking(stage, looking.authorization_id, looking.ticket, "publicsecurity/investigation")
    stolen = await _why(borrowed.ask(_OPENED, stage.exporter.text))
    narrator.check(
        stolen == {Reason.AUTHORIZATION_NOT_YOURS}, "another system with the very same ticket: nothing", stolen
    )


async def _counted(tale: _Tale) -> None:
    """Ask for more than there is, all at once."""
    narrator = tale.stage.narrator
    narrator.step("The quota, to the record")
    looking, found = await _granted(tale, scope([_DECLARATIONS], [tale.stage.exporter.text], _FEW))
    asking = [looking.ask([_DECLARATIONS], tale.stage.exporter.text, page_size=1) for _ in range(_AT_ONCE)]
    narrator.say(f"An authorization for {_FEW} records. {_AT_ONCE} questions come at once, each for one.")
    answers = await asyncio.gather(*(_why(each) for each in asking))
    given_ones = sum(not reasons for reasons in answers)
    reasons = {reason for each in answers for reason in each}
    narrator.check(
        (given_ones, reasons) == (_FEW, {Reason.AUTHORIZATION_EXHAUSTED}),
        f"exactly {_FEW} are answered; the others are told that the quota is used up",
        (given_ones, reasons),
    )
    over = await tale.customs.get(found)
    narrator.check((state(over), over.rows_used) == ("EXHAUSTED", _FEW), "and that ends it", state(over))


async def _revoked(tale: _Tale) -> None:
    """Revoke one while an answer runs."""
    stage, narrator = tale.stage, tale.stage.narrator
    narrator.step("It is revoked while an answer runs")
    looking, found = await _granted(tale, scope([_DECLARATIONS], (), _MANY, condition=_EVERYBODY))
    narrator.say("Where an authorization has a condition, no enterprise need be named: every declaration of the zone.")
    asked = federation_pb2.StreamQueryRequest(query=looking.question([_DECLARATIONS], page_size=1), all_pages=True)
    rows, revoking, started, reason = 0, None, 0.0, ""
    try:
        async for each in _stream(stage, asked):
            rows += len(each.section.records)
            # Where customs hears of it before the gateway does, it is a section that says so.
            reason = each.section.reason
            if rows >= _ENOUGH and revoking is None:
                started = time.monotonic()
                revoking = asyncio.create_task(tale.customs.revoke(found, "CASE_CLOSED"))
    except HutongError as error:
        reason = error.reason
    took = time.monotonic() - started
    narrator.check(
        reason == Reason.AUTHORIZATION_REVOKED and took < _PROMISED,
        f"customs revokes it: the stream is cut {took:.2f} s later, after {rows} records",
        (reason, took, rows),
    )
    if revoking is not None:
        await revoking
    afterwards = await _why(looking.ask([_DECLARATIONS], page_size=1))
    narrator.check(
        afterwards == {Reason.AUTHORIZATION_REVOKED}, "the ticket has minutes left, and opens nothing", afterwards
    )


async def _granted(tale: _Tale, wanted: pb.Scope) -> tuple[Looking, pb.Authorization]:
    """Bring one into force, and get a ticket."""
    found = await tale.analyst.request(wanted)
    await tale.colleague.approve(found)
    active = await tale.customs.approve(found)
    return await _heard(tale, found, [_DECLARATIONS], _NOTHING[:1]), active


async def _heard(tale: _Tale, found: pb.Authorization, selects: Sequence[str], nothing: Sequence[str]) -> Looking:
    """Get a ticket, and wait until every node asked has heard of the authorization.

    What they are asked meanwhile no record answers, so that nothing is used up.
    """
    stage = tale.stage
    looking = Looking(stage, found.authorization_id, await tale.analyst.use(found))

    async def heard() -> bool:
        try:
            answer = await looking.ask(selects, stage.exporter.text, nothing)
        except HutongError:
            return False
        return all(status(section) == "NO_RECORD" for section in answer.sections)

    await until(heard)
    return looking


async def _stream(
    stage: Stage, request: federation_pb2.StreamQueryRequest
) -> AsyncIterator[federation_pb2.StreamQueryResponse]:
    client = stage.client(AML.caller)
    response = federation_pb2.StreamQueryResponse
    async for each in client.stream(f"{SERVICE}/StreamQuery", request, response, timeout=60):
        yield each


async def _why(asking: Awaitable[federation_pb2.QueryResponse]) -> set[str]:
    """Ask; gives the reasons why nothing was given, none where something was."""
    try:
        answer = await asking
    except HutongError as error:
        return {error.reason}
    return set() if _rows(answer.sections) else {section.reason for section in answer.sections}


def _explained(section: exchange_pb2.Section) -> tuple[str, str, str]:
    closed = ", ".join(f"{field} ({reason})" for field, reason in refused(section).items())
    return section.record_type, ", ".join(sorted(given(section))), closed


def _told(sections: Sections) -> list[tuple[str, str, str, str, str]]:
    return [
        (name, status(section), str(len(section.records)), *_explained(section)[1:])
        for name, section in sections.items()
    ]


def _rows(sections: Iterable[exchange_pb2.Section]) -> int:
    return sum(len(section.records) for section in sections)


def _reason(error: HutongError | None) -> str:
    return error.reason if error is not None else ""
