"""The rooms' own policies: they load, do what their scenarios say, and no policy goes without one."""

from pathlib import Path

import pytest

from hutong.api.exchange.v1.exchange_pb2 import RequestContext
from hutong.api.schema.v1 import options_pb2
from services.kit import jurisdiction
from services.kit.caller import Caller
from services.kit.policy import loader, scenarios
from services.kit.policy.engine import PolicyEngine
from services.kit.policy.policies import PolicySet
from services.kit.policy.schema import Authorized
from services.kit.records import catalogue
from tests.policy.support import SECRET, SetClock

SERVICES = Path(__file__).parents[2] / "services"
ROOMS = sorted(path.parent.parent.name for path in SERVICES.glob("*/policy/*.cedar"))
LAW = jurisdiction.load("cn")


def policies(*rooms: str) -> PolicySet:
    return loader.load([SERVICES / room / "policy" / f"{room}.cedar" for room in rooms], catalogue.load(), LAW)


def test_every_room_has_policies_and_scenarios() -> None:
    assert ROOMS == ["commerce", "customs", "publicsecurity", "quality", "recognition", "taxation"]
    assert set(catalogue.load().owners()) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_scenarios_come_out_and_touch_every_policy(room: str) -> None:
    file = SERVICES / room / "policy" / "scenarios.yaml"
    outcomes, untouched = scenarios.check(file, policies(room), catalogue.load(), LAW)
    assert {outcome.scenario.name: outcome.problems for outcome in outcomes if outcome.problems} == {}
    assert not untouched


def test_all_rooms_load_together_as_at_the_gateway() -> None:
    together = policies(*ROOMS)
    assert {room: together.of(room).version for room in ROOMS} == {
        room: policies(room).of(room).version for room in ROOMS
    }


def test_the_rules_that_were_asked_for_are_there() -> None:
    ids = {policy.id for policy in policies(*ROOMS)}
    assert {f"R{n:02}" for n in range(1, 16)} - {"R16"} <= ids
    assert {"R17", "R18", "R19", "R23"} <= ids
    assert {"R27-case", "R27-events", "R29-case", "R29-events", "R29-results", "R29-tasks"} <= ids


def test_nothing_withheld_is_ever_given_in_clear_whoever_asks_for_whatever() -> None:
    engine = PolicyEngine(policies(*ROOMS), catalogue.load(), LAW, SECRET, SetClock())
    agencies = [*ROOMS, "logistics", "supervision", "partner-customs", "partner-authority", "enterprise", "nobody"]
    agencies += ["audit", "border", "postal"]
    under = Authorized("A-1", emergency=False, case_ref="C-1")
    bases = {rule: code for code, basis in LAW.bases.items() for rule in basis.rules}
    seen = 0
    for policy in engine.policies:
        if not policy.permit:
            continue
        for purpose in (p for p in LAW.purposes if p in str(policy.ast)):
            asked = RequestContext(purpose=purpose, legal_basis=policy.basis, case_ref="C-1")
            for agency in agencies:
                for kind in catalogue.load().owned_by(policy.agency):
                    mask = engine.mask(Caller(f"spiffe://z/{agency}/x", agency, "x"), asked, kind, under)
                    for path, grant in mask.grants.items():
                        seen += 1
                        if kind.field(path).share == options_pb2.SHARE_CLASS_WITHHELD:
                            assert grant.transform is not None
                            assert grant.transform.name == "pseudonym"
    assert seen > 100
    assert bases


@pytest.mark.parametrize("room", ROOMS)
def test_permits_rest_on_the_basis_of_their_rule(room: str) -> None:
    for policy in policies(room):
        if policy.permit:
            assert policy.id.partition("-")[0] in LAW.bases[policy.basis].rules, policy.id
            assert policy.title, policy.id
