"""Scenarios: what a policy must do, as data that a lawyer can read and a machine runs.

    at: 2026-06-01T00:00:00+08:00        # when the questions are asked
    scenarios:
      - name: Tax sees a cleared export for a refund
        who: taxation/refund
        purpose: P-REBATE
        basis: CN-VAT-REBATE
        select: ["customs.Declaration:declaration_no,overseas_party_name,agent_uscc"]
        expect:
          clear: [declaration_no]
          transformed: {overseas_party_name: initials}
          refused: {agent_uscc: NO_PERMIT}
          rows: ["ie_flag = 'E' AND decl_status = 'CLEARED'"]

`clear` and `transformed` are complete: a field that is given and not listed fails the scenario. `refused` lists the
fields whose reason matters; `rows`, where it is stated, every row condition that applies. A question that is refused
before any field is decided expects `error: REASON`. A question under a supervisor's authorization that was found good
says `authorization: {emergency: false}`; what its scope leaves is not the policy's, and no part of a scenario. With
several record types, fields are written with the type: `customs.Declaration.declaration_no`.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.caller import Caller
from services.kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Reason
from services.kit.jurisdiction import Jurisdiction
from services.kit.jurisdiction.pack import describe, load_yaml
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import PolicySet
from services.kit.policy.schema import Authorized
from services.kit.policy.transforms import MIN_SECRET
from services.kit.records.catalogue import Catalogue, RecordType

_GIVEN = (exchange_pb2.VERDICT_CLEAR, exchange_pb2.VERDICT_TRANSFORMED)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expectation(_Model):
    """What must come out."""

    clear: frozenset[str] = frozenset()
    transformed: Mapping[str, str] = {}
    refused: Mapping[str, Reason] = {}
    rows: frozenset[str] | None = None
    error: Reason | None = None


class Authorization(_Model):
    """A supervisor's authorization, of which policies see this and its case."""

    emergency: bool = False
    id: str = "SCENARIO"


class Scenario(_Model):
    """One question and what must come out."""

    name: str = Field(min_length=1)
    who: str = Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    purpose: str = ""
    basis: str = ""
    case_ref: str = ""
    authorization: Authorization | None = None
    on_behalf_of: str = ""
    select: tuple[str, ...] = Field(min_length=1)
    at: AwareDatetime | None = None
    expect: Expectation

    @property
    def caller(self) -> Caller:
        """Who asks."""
        agency, _, system = self.who.partition("/")
        return Caller(f"spiffe://scenario/{self.who}", agency, system)

    @property
    def context(self) -> exchange_pb2.RequestContext:
        """Why."""
        return exchange_pb2.RequestContext(
            purpose=self.purpose,
            legal_basis=self.basis,
            case_ref=self.case_ref,
            authorization_id=self.authorization.id if self.authorization else "",
            on_behalf_of=self.on_behalf_of,
        )

    @property
    def authorized(self) -> Authorized | None:
        """Under which authorization."""
        found = self.authorization
        return Authorized(found.id, found.emergency, self.case_ref) if found else None


class Scenarios(_Model):
    """A file of scenarios."""

    at: AwareDatetime
    """When questions are asked that do not say it themselves."""
    scenarios: tuple[Scenario, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a scenario came out."""

    scenario: Scenario
    problems: tuple[str, ...]
    """What did not come out as expected; empty where all did."""
    policies: frozenset[str]
    """Ids of the policies that had a part in it."""


def read(path: Path) -> Scenarios:
    """Read a file of scenarios; raises `FailedPrecondition` naming every mistake in it."""
    try:
        return Scenarios.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}:\n  {describe(error)}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None


def run(found: Scenarios, policies: PolicySet, catalogue: Catalogue, jurisdiction: Jurisdiction) -> Iterator[Outcome]:
    """Ask every question of a file and compare."""
    now = found.at

    def clock() -> dt.datetime:
        return now

    engine = PolicyEngine(policies, catalogue, jurisdiction, bytes(MIN_SECRET), clock)
    for scenario in found.scenarios:
        now = scenario.at or found.at
        yield _run(scenario, engine, catalogue)


def _run(scenario: Scenario, engine: PolicyEngine, catalogue: Catalogue) -> Outcome:
    try:
        decisions = dict(_decisions(scenario, engine, catalogue))
        problems = list(_compare(_full(scenario.expect, decisions), decisions))
    except (InvalidArgument, PermissionDenied) as error:
        expected = error.reason is scenario.expect.error
        return Outcome(scenario, () if expected else (f"{error.reason}: {error.message}",), frozenset())
    if scenario.expect.error:
        problems.append(f"expected {scenario.expect.error}, and the question was answered")
    used = frozenset(name for decision in decisions.values() for name in decision.policy_ids)
    return Outcome(scenario, tuple(problems), used)


_Decisions = Mapping[str, exchange_pb2.FieldDecision]


def _decisions(
    scenario: Scenario, engine: PolicyEngine, catalogue: Catalogue
) -> Iterator[tuple[str, exchange_pb2.FieldDecision]]:
    for selection in scenario.select:
        name, _, fields = selection.partition(":")
        record_type: RecordType = catalogue.get(name.strip())
        paths = [path.strip() for path in fields.split(",") if path.strip()]
        mask = engine.mask(scenario.caller, scenario.context, record_type, scenario.authorized).restrict(paths)
        for decision in mask.decisions:
            yield f"{record_type.name}.{decision.field}", decision


def _full(expect: Expectation, decisions: _Decisions) -> Expectation:
    """Write every field with its record type; raises `InvalidArgument` for one that no selection holds."""

    def full(name: str) -> str:
        found = [path for path in decisions if path == name or path.split(".", 2)[2] == name]
        if len(found) != 1:
            why = "stands in several of the selected types: write TYPE.field" if found else "is not selected"
            raise InvalidArgument(Reason.FIELD_UNKNOWN, f"the expected field {name!r} {why}")
        return found[0]

    return Expectation(
        clear=frozenset(full(name) for name in expect.clear),
        transformed={full(name): text for name, text in expect.transformed.items()},
        refused={full(name): reason for name, reason in expect.refused.items()},
        rows=expect.rows,
    )


def _compare(expect: Expectation, decisions: _Decisions) -> Iterator[str]:
    for name, decision in decisions.items():
        expected, came = _expected(expect, name), _came(decision)
        if came != expected and not (expected == "refused" and came.startswith("refused")):
            grounds = f" (by {', '.join(decision.policy_ids)})" if decision.policy_ids else ""
            yield f"{name}: expected {expected}, came out {came}{grounds}"
    given = {condition for d in decisions.values() if d.verdict in _GIVEN for condition in d.conditions}
    if expect.rows is not None and given != set(expect.rows):
        yield f"rows: expected {_listed(expect.rows)}, came out {_listed(given)}"


def _expected(expect: Expectation, name: str) -> str:
    if name in expect.clear:
        return "clear"
    if name in expect.transformed:
        return f"transformed by {expect.transformed[name]}"
    return f"refused: {expect.refused[name]}" if name in expect.refused else "refused"


def _came(decision: exchange_pb2.FieldDecision) -> str:
    match decision.verdict:
        case exchange_pb2.VERDICT_CLEAR:
            return "clear"
        case exchange_pb2.VERDICT_TRANSFORMED:
            return f"transformed by {decision.transform}"
        case _:
            return f"refused: {decision.reason}"


def _listed(conditions: Iterable[str]) -> str:
    return "; ".join(sorted(conditions)) or "none"


def check(
    path: Path, policies: PolicySet, catalogue: Catalogue, jurisdiction: Jurisdiction
) -> tuple[tuple[Outcome, ...], frozenset[str]]:
    """Run a file of scenarios; gives the outcomes and the ids of policies that no scenario touches."""
    outcomes = tuple(run(read(path), policies, catalogue, jurisdiction))
    used = frozenset(name for outcome in outcomes for name in outcome.policies)
    return outcomes, frozenset(policy.id for policy in policies) - used
