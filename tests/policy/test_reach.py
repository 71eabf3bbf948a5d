"""Reading a policy without a request: what it says is never reached is never permitted by Cedar."""

import json

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.kit.policy import schema
from services.kit.policy.reach import FieldReader, context_read, mentioned, names_principal, purposes
from tests.policy.support import PURPOSES, TAX, TYPE, Rule, callers, context, engine, permit, rules

READERS = [FieldReader(TYPE, leaf) for leaf in TYPE.leaves]


def ast(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    return found


_tests = st.sampled_from(
    [
        "true",
        "false",
        'context.purpose == "P-REBATE"',
        '["P-RISK"].contains(context.purpose)',
        'principal.agency == "taxation"',
        "context has case_ref",
        'resource.share == "open"',
        'resource.share != "open"',
        "resource.grade < 3",
        "2 <= resource.grade",
        'resource.path like "l*"',
        '["code", "phone", "goods"].contains(resource.name)',
        'resource in Hutong::FieldGroup::"museum.Specimen.money"',
        'resource in [Hutong::Field::"museum.Specimen.lines", Hutong::ShareClass::"withheld"]',
        'resource == Hutong::Field::"museum.Specimen.code"',
        "resource is Hutong::Field",
        'resource is Hutong::Field in Hutong::RecordType::"museum.Specimen"',
        "resource has grade",
        "1 + 1 == 2",
    ]
)
_conditions = st.recursive(
    _tests,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("(if {} then {} else {})".format, inner, inner, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=200)
@given(condition=_conditions, caller=callers, purpose=st.sampled_from(PURPOSES))
def test_what_is_not_reached_is_never_permitted(condition: str, caller: object, purpose: str) -> None:
    body = f'context.purpose == "{purpose}" && {condition}'
    text = f'@id("p") permit (principal, action, resource in Hutong::RecordType::"museum.Specimen") when {{ {body} }};'
    read = ast(text)
    unreached = {r.field.path for r in READERS if not r.reach(read).true}
    unreached_for = {r.field.path for r in READERS if not r.reach(read, purpose).true}
    assert unreached <= unreached_for
    asked = context(purpose=purpose)
    entities = schema.with_caller(schema.entities(TYPE), TAX)
    requests = [
        {
            "principal": schema.uid("System", TAX.path),
            "action": schema.uid("Action", "read"),
            "resource": schema.uid("Field", schema.field_id(TYPE, leaf.path)),
            "context": json.dumps(schema.context(asked)),
        }
        for leaf in TYPE.leaves
    ]
    results = cedarpy.is_authorized_batch(  # pyright: ignore[reportUnknownMemberType]
        requests, text, entities, schema.schema()
    )
    allowed = {leaf.path for leaf, result in zip(TYPE.leaves, results, strict=True) if result.allowed}
    assert not allowed & unreached_for


@settings(max_examples=60)
@given(rule=rules(permits=True))
def test_random_rules_reach_what_they_give(rule: Rule) -> None:
    policies = engine(rule.text)
    read = next(iter(policies.policies)).ast
    for purpose in PURPOSES:
        mask = policies.mask(TAX, context(purpose=purpose, basis=rule.basis), TYPE)
        reached = {r.field.path for r in READERS if r.reach(read, purpose).true}
        assert set(mask.grants) <= reached


@pytest.mark.parametrize(
    ("when", "exact"),
    [
        ('context.purpose == "P-REBATE"', True),
        ('context.purpose == "P-REBATE" && resource.path like "p*"', False),
        ('context.purpose == "P-REBATE" && context.case_ref like "p*"', True),
    ],
)
def test_reach_is_exact_but_for_tests_on_the_field_it_cannot_work_out(when: str, exact: bool) -> None:
    found = FieldReader(TYPE, TYPE.field("phone")).reach(ast(permit("p", [], when=when)))
    assert found.true
    assert found.exact is exact


def test_what_a_policy_names() -> None:
    read = ast(permit("p", ["code"], when='["P-RISK", "P-REBATE"].contains(context.purpose) && context has case_ref'))
    assert ("Hutong::Field", "museum.Specimen.code") in set(mentioned(read))
    assert set(purposes(read)) == {"P-RISK", "P-REBATE"}
    assert context_read(read) == {"purpose", "case_ref"}
    assert not names_principal(read)
    assert names_principal(ast(permit("p", when='principal.agency == "x"')))
    assert len(context_read(ast(permit("p", when="[context].contains(context)")))) == 5
