"""Recognition: the best result that stands, and everything that keeps one from being recognised."""

import datetime as dt
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from services.recognition import recognising, tasks
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.events import Assurance
from services.recognition.recognising import Match
from services.recognition.registry import Change
from services.recognition.tables import RECOGNITION
from services.recognition.tasks import Disposition, TaskKind
from tests.recognition.desk import SUBJECT
from tests.recognition.register import Register, procedures_of, register

HEAD = """\
title: Test
local_title: 测试
lead: commerce
calendar: CN
subjects: [cn.uscc]
effective_from: 2024-01-01T00:00:00+08:00
matters: [establishment]
deemed: forbidden
"""

WANTED = f"""\
code: WANTED
version: 1.0.0
{HEAD}
stages:
  P:
    title: Identity
    local_title: 身份
    agency: customs
    limit: 3 working days
    proves: {{fact: checked, assurance: FORM_REVIEW}}
    recognised_by: [commerce]
  Q:
    title: Decision
    local_title: 决定
    agency: commerce
    after: [P]
    limit: 3 working days
    requires:
      - {{fact: checked, assurance: FORM_REVIEW}}
      - {{fact: proven, assurance: SUBSTANTIVE, max_age: P60D}}
    reaches: DELIVERED
"""
"""A stage that another agency's result may take the place of, and one that demands a fact from outside."""

GIVEN = f"""\
code: GIVEN
version: 1.0.0
{HEAD}
stages:
  A:
    title: Check
    local_title: 核查
    agency: publicsecurity
    limit: 3 working days
    proves: {{fact: checked, assurance: AUTO}}
    recognised_by: [customs, taxation]
  B:
    title: Check by somebody else
    local_title: 另行核查
    agency: quality
    after: [A]
    limit: 3 working days
    proves: {{fact: proven, assurance: SUBSTANTIVE}}
    recognised_by: [commerce]
    reaches: DELIVERED
"""

RULE: dict[str, Any] = {
    "code": "CHECKED",
    "version": "1.0.0",
    "title": "Checked",
    "local_title": "核查",
    "recognisers": ["customs"],
    "fact": "checked",
    "issuers": ["publicsecurity", "bank"],
    "assurance": "FORM_REVIEW",
    "effective_from": "2024-01-01T00:00:00+08:00",
    "outside": True,
    "basis": "CN-ADMIN-LICENSING",
    "mark": "design",
}


class Table:
    """A register, with procedures and arrangements to recognise by."""

    def __init__(self, held: Register, folder: Path) -> None:
        self.held = held
        self._folder = folder / "arrangements"
        self._folder.mkdir()
        self.procedures = procedures_of(WANTED, GIVEN)
        self.procedure = self.procedures.get("WANTED@1.0.0")
        self.load()

    def load(self) -> None:
        self.arrangements = Arrangements.load(self._folder, agencies=Agencies.load(), procedures=self.procedures)

    def rule(self, **changed: Any) -> None:
        """Have an explicit arrangement."""
        text = yaml.safe_dump(RULE | changed, allow_unicode=True)
        (self._folder / "checked@1.0.0.yaml").write_text(text, encoding="utf-8")
        self.load()

    def enter(self, issuer: str = "publicsecurity", **said: Any) -> str:
        return self.held.enter(issuer, **{"fact": "checked"} | said)

    def match(self, *, excluded: Collection[str] = (), subject: str = SUBJECT, case_id: str = "CASE-1") -> Match | None:
        with self.held.write() as (connection, post):
            return recognising.matching(
                connection,
                self.arrangements,
                self.held.published,
                self.held.desk,
                scheme="cn.uscc",
                subject=subject,
                stage=self.procedure.stage("P"),
                procedure=self.procedure,
                case_id=case_id,
                now=self.held.now,
                excluded=excluded,
                post=post,
            )

    def matched(self) -> str:
        found = self.match()
        return found.ref if found else ""

    def demanded(self, proven: Collection[str] = ("checked",)) -> dict[str, str]:
        with self.held.write() as (connection, _):
            found = recognising.demanded(
                connection,
                self.arrangements,
                self.held.published,
                scheme="cn.uscc",
                subject=SUBJECT,
                stage=self.procedure.stage("Q"),
                procedure=self.procedure,
                proven=proven,
                now=self.held.now,
            )
        return {demand.fact: match.ref if match else "" for demand, match in found.items()}


@pytest.fixture
def table(sqlite_url: str, tmp_path: Path) -> Iterator[Table]:
    with register(sqlite_url, tmp_path) as held:
        yield Table(held, tmp_path)


@pytest.fixture
def both(any_url: str, tmp_path: Path) -> Iterator[Table]:
    with register(any_url, tmp_path) as held:
        yield Table(held, tmp_path)


def test_a_result_takes_the_stages_place(both: Table) -> None:
    entered = both.held.now
    until = entered + dt.timedelta(days=90)
    ref = both.enter(valid_until=until)
    both.held.move(hours=1)
    found = both.match()
    assert found is not None
    assert found == Match(ref, "publicsecurity", "GIVEN@1.0.0", Assurance.SUBSTANTIVE, until, entered)
    with both.held.write() as (connection, _):
        for _ in range(2):
            recognising.note(
                connection, case_id="CASE-1", stage="P", match=found, recogniser="customs", now=both.held.now
            )
        rows = connection.execute(sa.select(RECOGNITION)).mappings().all()
    assert [(r["result_ref"], r["recogniser"], r["arrangement"]) for r in rows] == [(ref, "customs", "GIVEN@1.0.0")]


def test_nothing_takes_the_place_of_a_stage_that_does_not_allow_it(table: Table) -> None:
    table.held.enter("quality", "proven")
    with table.held.write() as (connection, post):
        found = recognising.matching(
            connection,
            table.arrangements,
            table.held.published,
            table.held.desk,
            scheme="cn.uscc",
            subject=SUBJECT,
            stage=table.procedure.stage("Q"),
            procedure=table.procedure,
            case_id="CASE-1",
            now=table.held.now,
            post=post,
        )
    assert found is None


# What keeps a result from being recognised.


@pytest.mark.parametrize(
    "said",
    [
        {"assurance": "AUTO"},  # less than the stage itself would give
        {"fact": "proven"},
        {"subject": "91350211M000100Y43"},
        {"scheme": "hutong.token"},
        {"value": {"holds": False}},
        {"value": {"about": "D-1"}},
        {"issuer": "taxation"},  # nobody whose word customs accepts on this
        {"issuer": "customs"},  # its own, and no arrangement names it on both sides
    ],
)
def test_what_is_not_accepted(table: Table, said: dict[str, Any]) -> None:
    table.enter(**said)
    assert table.matched() == ""


def test_time_ends_it(table: Table) -> None:
    ref = table.enter(valid_until=table.held.now + dt.timedelta(days=1))
    table.held.move(hours=23.9)
    assert table.matched() == ref
    table.held.move(hours=0.1)
    assert table.matched() == ""


def test_what_does_not_stand_is_not_recognised(table: Table) -> None:
    ref = table.enter()
    table.held.change(ref, Change.SUSPEND)
    assert table.matched() == ""
    table.held.change(ref, Change.REINSTATE)
    assert table.matched() == ref
    table.held.change(ref)
    assert table.matched() == ""


def test_what_was_replaced_does_not_satisfy_a_new_stage(table: Table) -> None:
    table.enter()
    new = table.enter(assurance="FORM_REVIEW")
    assert table.matched() == new


def test_a_revoked_key_does_not_silently_pass(table: Table) -> None:
    ref = table.enter()
    keys, folder = table.held.keys("publicsecurity"), table.held.folder / "keys"
    old = keys.active(table.held.now).kid
    table.held.move(hours=1)
    keys.rotate(table.held.now)
    keys.publish(folder)
    assert table.matched() == ref
    keys.revoke(old, table.held.now, "compromised")
    keys.publish(folder)
    assert table.matched() == ""


def test_what_was_tampered_with_in_the_store_is_not_recognised(table: Table) -> None:
    table.enter(value={"level": 1})
    with table.held.write() as (connection, _):
        connection.execute(sa.text("UPDATE stage_result SET subject = :other"), {"other": "91350211M000100Y43"})
    assert table.match(subject="91350211M000100Y43") is None


def test_refused_ones_and_its_own_are_left_out(table: Table) -> None:
    ref = table.enter(case_id="CASE-1", stage="P")
    assert table.matched() == ""
    found = table.match(case_id="CASE-2")
    assert found is not None
    assert found.ref == ref
    assert table.match(case_id="CASE-2", excluded=[ref]) is None


# Arrangements.


def test_an_arrangement_asks_for_more(table: Table) -> None:
    table.rule(assurance="SUBSTANTIVE", issuers=["publicsecurity"])
    table.enter(assurance="FORM_REVIEW")
    assert table.matched() == ""
    table.enter(assurance="ON_SITE")
    found = table.match()
    assert found is not None
    assert (found.arrangement, found.assurance) == ("CHECKED@1.0.0", Assurance.ON_SITE)


def test_an_arrangement_asks_for_something_recent(table: Table) -> None:
    table.rule(max_age="P90D")
    ref = table.enter()
    table.held.move(days=90)
    assert table.matched() == ref
    table.held.move(seconds=1)
    assert table.matched() == ""


def test_an_arrangement_sets_a_condition_on_what_was_found(table: Table) -> None:
    table.rule(condition="level >= 2 AND photo = true")
    table.enter(value={"level": 1, "photo": True})
    assert table.matched() == ""
    ref = table.enter(value={"level": 2, "photo": True})
    assert table.matched() == ref


def test_an_agency_takes_its_own_where_an_arrangement_says_so(table: Table) -> None:
    table.rule(recognisers=["customs"], issuers=["customs"])
    ref = table.enter("customs")
    assert table.matched() == ref


def test_the_most_thorough_is_taken_then_the_newest(table: Table) -> None:
    table.rule()
    table.enter("bank", assurance="FORM_REVIEW")
    thorough = table.enter("publicsecurity")
    table.held.move(days=1)
    table.enter("bank", assurance="FORM_REVIEW", stage="X")
    assert table.matched() == thorough
    newer = table.enter("bank", stage="Y")
    assert table.matched() == newer


# Facts that disagree.


def disagreements(table: Table) -> list[tasks.Task]:
    with table.held.write() as (connection, _):
        return [t for t in tasks.list_(connection, "commerce") if t.kind is TaskKind.FACTS_DISAGREE]


def test_agencies_that_disagree_are_not_recognised_and_the_lead_is_told(both: Table) -> None:
    both.rule()
    ours = both.enter("publicsecurity", value={"person": "p-1", "level": 2})
    theirs = both.enter("bank", value={"person": "p-2", "note": "x"})
    assert both.matched() == ""
    assert both.matched() == ""
    (task,) = disagreements(both)
    assert {task.result_ref, task.origin_ref} == {ours, theirs}
    assert (task.owner_agency, task.case_id, task.stage) == ("commerce", "CASE-1", "P")
    assert [e.audience for e in both.held.post if e.kind == "task.raised"] == ["commerce"]
    both.held.move(hours=1)
    both.held.change(theirs, issuer="bank")
    settled = both.held.now
    both.held.move(hours=1)
    found = both.match()
    assert found is not None
    assert (found.ref, found.since) == (ours, settled)


@pytest.mark.parametrize("issuer", ["bank", "taxation"])
def test_whoever_denies_it_is_heard_also_without_an_arrangement(table: Table, issuer: str) -> None:
    table.enter("publicsecurity", value={"person": "p-1"})
    table.enter(issuer, assurance="AUTO", value={"holds": False})
    assert table.matched() == ""
    assert len(disagreements(table)) == 1


def test_what_may_differ_is_data(table: Table) -> None:
    table.rule(compare=["person"])
    table.enter("bank", value={"person": "p-1", "day": "2026-09-01"}, assurance="FORM_REVIEW")
    ref = table.enter("publicsecurity", value={"person": "p-1", "day": "2026-09-20"})
    assert table.matched() == ref
    assert disagreements(table) == []


def test_only_what_an_agency_says_last_counts_against_another(table: Table) -> None:
    table.rule()
    table.enter("bank", value={"person": "p-2"}, stage="X")
    table.held.move(days=1)
    table.enter("bank", value={"person": "p-1"}, stage="Y", assurance="FORM_REVIEW")
    ref = table.enter("publicsecurity", value={"person": "p-1"})
    assert table.matched() == ref


def since(table: Table) -> dt.timedelta:
    """Since when the result that is matched could have been: how long before now."""
    found = table.match()
    assert found is not None
    assert found.since is not None
    return table.held.now - found.since


def test_a_result_counts_since_nobody_has_been_against_it(table: Table) -> None:
    table.rule()
    table.enter("publicsecurity", value={"person": "p-1"})
    table.enter("bank", value={"person": "p-1"})
    table.held.move(days=1)
    assert since(table) == dt.timedelta(days=1)  # they have agreed from the beginning


def test_who_has_said_something_else_before_may_have_been_against_it(table: Table) -> None:
    table.rule()
    table.enter("bank", value={"person": "p-2"}, stage="X")
    table.held.move(days=1)
    table.enter("publicsecurity", value={"person": "p-1"})
    table.held.move(days=1)
    table.enter("bank", value={"person": "p-1"}, stage="Y", assurance="FORM_REVIEW")
    table.held.move(days=2)
    assert since(table) == dt.timedelta(days=2)


def test_what_has_lapsed_was_against_it_until_then(table: Table) -> None:
    table.rule()
    table.enter("publicsecurity", value={"person": "p-1"})
    table.enter("bank", value={"person": "p-2"}, valid_until=table.held.now + dt.timedelta(days=1))
    table.held.move(days=3)
    assert since(table) == dt.timedelta(days=2)


def test_it_counts_since_there_is_an_arrangement(table: Table) -> None:
    table.rule(effective_from=(table.held.now + dt.timedelta(days=1)).isoformat())
    table.enter("bank")
    table.held.move(days=3)
    assert since(table) == dt.timedelta(days=2)


def test_they_are_told_apart_by_stage_and_pair(table: Table) -> None:
    table.rule()
    table.enter("publicsecurity", value={"person": "p-1"})
    table.enter("bank", value={"person": "p-2"})
    assert table.match(case_id="CASE-1") is None
    assert table.match(case_id="CASE-2") is None
    assert {t.case_id for t in disagreements(table)} == {"CASE-1", "CASE-2"}
    with table.held.write() as (connection, _):
        for task in tasks.list_(connection, "commerce"):
            tasks.dispose(
                connection,
                table.held.desk,
                task.task_id,
                owner="commerce",
                disposition=Disposition.DONE,
                reason="FACT_SETTLED",
                officer="",
                now=table.held.now,
                reopen=lambda _connection, _task: None,
            )
    assert table.match(case_id="CASE-1") is None
    assert disagreements(table) == []
    table.held.move(days=1)
    table.enter("bank", value={"person": "p-3"})
    assert table.match(case_id="CASE-1") is None
    assert len(disagreements(table)) == 1


# What a stage demands from outside its case.


def test_a_demand_is_met_by_a_result_from_outside(both: Table) -> None:
    assert both.demanded() == {"proven": ""}
    ref = both.held.enter("quality", "proven")
    assert both.demanded() == {"proven": ref}
    assert both.demanded(proven=["checked", "proven"]) == {}
    assert both.demanded(proven=[]) == {"checked": "", "proven": ref}
    both.held.move(days=61)
    assert both.demanded() == {"proven": ""}


def test_a_demand_is_not_met_by_less_or_by_what_others_deny(table: Table) -> None:
    table.held.enter("quality", "proven", assurance="FORM_REVIEW")
    assert table.demanded() == {"proven": ""}
    ref = table.held.enter("quality", "proven")
    assert table.demanded() == {"proven": ref}
    table.held.enter("customs", "proven", value={"holds": False})
    assert table.demanded() == {"proven": ""}
