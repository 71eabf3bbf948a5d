"""A mistake in a policy file is told with its line and column."""

import pytest

from services.kit.policy import loader
from services.kit.policy.loader import PolicyRefused
from tests.policy.specimen import catalogue
from tests.policy.support import LAW, permit

GOOD = permit("good")

# What stands between two good policies, the line and column of what is wrong in it, and the words.
_WRONG = {
    "a comma is missing": ("permit (\n  principal\n  action, resource);", 3, 3, "unexpected token `action`"),
    "a text that does not end": ('permit (principal, action, resource)\nwhen { "a };', 2, 8, "invalid token"),
    "no end": ("permit (principal, action,\n  resource)", 3, 1, "unexpected token"),
    "a word that Cedar does not know": ("allow (principal, action, resource);", 1, 1, ""),
    "a comment and a mark in a text": ('// one;\n@id("a;b") permit (principal action);', 2, 30, "`action`"),
    "no such context": (permit("p", when='context.purpos == "P-REBATE"'), None, "purpos", "attribute `purpos`"),
    "no such entity": (permit("p", [], scope='resource in Hutong::RecordTyp::"x"'), None, "Hutong::RecordTyp", ""),
    "no such purpose": (permit("p", when='context.purpose == "P-REBAT"'), None, "P-REBAT", "no purpose"),
    "no such basis": (permit("p", basis="CN-VAT-REBAT"), None, "CN-VAT-REBAT", "no legal basis"),
    "no such field": (permit("p", ["phon"]), None, "phon", "phon"),
    "an end before the beginning": (permit("p", from_="2099-01-01T00:00:00Z"), None, "@from", "@from is not before"),
    "no end date": (permit("p", until=""), None, "@id", "add @until"),
}


@pytest.mark.parametrize("case", _WRONG)
def test_the_place_of_a_mistake(case: str) -> None:
    text, line, column, words = _WRONG[case]
    if isinstance(column, str):  # where this stands
        at = text.index(column)
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    assert line is not None
    before = GOOD.count("\n") + 1
    with pytest.raises(PolicyRefused) as refused:
        loader.parse({"museum.cedar": f"{GOOD}\n{text}\n{permit('last')}"}, catalogue(), LAW)
    (problem,) = refused.value.problems[:1]
    assert (problem.place.line - before, problem.place.column) == (line, column), problem
    assert words in problem.message
    assert str(problem).startswith(f"museum.cedar:{before + line}:{column}: ")


def test_of_two_with_one_id_the_second_is_named() -> None:
    with pytest.raises(PolicyRefused) as refused:
        loader.parse({"museum.cedar": f"{GOOD}\n{GOOD}"}, catalogue(), LAW)
    assert f"museum.cedar:{GOOD.count(chr(10)) + 2}:1: good: the id stands" in str(refused.value)


def test_templates_are_found_among_policies() -> None:
    template = '@id("t") permit (principal == ?principal, action, resource);'
    with pytest.raises(PolicyRefused) as refused:
        loader.parse({"museum.cedar": f"{template}\n{permit('p', basis='')}"}, catalogue(), LAW)
    first, second = refused.value.problems
    assert (first.place.line, second.place.line) == (1, 2)
    assert second.policy == "p"


def test_a_text_that_is_too_deep_is_not_shown_to_cedar_to_find_the_place() -> None:
    text = f"{GOOD}\n{permit('p', when='(' * 20_000 + ')' * 20_000)}"
    with pytest.raises(PolicyRefused) as refused:
        loader.parse({"museum.cedar": text}, catalogue(), LAW)
    assert refused.value.problems[0].place.line > GOOD.count("\n")
