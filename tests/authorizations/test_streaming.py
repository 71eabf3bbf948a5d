"""How a streamed question goes on: subject after subject, page after page, and never for ever."""

import pytest

from gateway import streaming
from gateway.streaming import Turn, turns
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from tests.exchange.mesh import question
from tests.exchange.records import EXPORTER, OTHER

QUERY = question(f"cn.uscc:{EXPORTER}", "customs.Declaration:declaration_no", "customs.Penalty", purpose="P-AML")


def page(name: str, token: str) -> bytes:
    return exchange_pb2.Section(record_type=name, next_page_token=token).SerializeToString()


def test_only_what_has_more_is_asked_again() -> None:
    (turn,) = turns(federation_pb2.StreamQueryRequest(query=QUERY))
    following = turn.next_page([page("customs.Penalty", ""), page("customs.Declaration", "more")])
    assert following is not None
    (selection,) = following.question.selections
    assert (selection.record_type, selection.page_token) == ("customs.Declaration", "more")
    assert list(selection.fields) == ["declaration_no"]
    assert following.question.context == QUERY.context
    assert following.question.subject == QUERY.subject
    assert not QUERY.selections[0].page_token
    assert following.next_page([page("customs.Declaration", "")]) is None


def test_a_department_that_gives_the_same_page_for_ever_is_asked_no_more() -> None:
    (turn,) = turns(federation_pb2.StreamQueryRequest(query=QUERY))
    following = turn.next_page([page("customs.Declaration", "more")])
    assert following is not None
    assert following.next_page([page("customs.Declaration", "more")]) is None


def test_nor_one_that_always_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MAX_PAGES", 3)
    turn: Turn | None = turns(federation_pb2.StreamQueryRequest(query=QUERY))[0]
    pages = 0
    while turn is not None:
        pages += 1
        turn = turn.next_page([page("customs.Declaration", str(pages))])
    assert pages == 3


def test_subjects_come_in_the_order_they_are_named() -> None:
    more = [common_pb2.SubjectId(scheme="cn.uscc", value=OTHER)]
    found = turns(federation_pb2.StreamQueryRequest(query=QUERY, subjects=more))
    assert [turn.question.subject.value for turn in found] == [EXPORTER, OTHER]
    named = [federation_pb2.StreamQueryResponse.FromString(turn.about).subject.value for turn in found]
    assert named == [EXPORTER, OTHER]
    assert turns(federation_pb2.StreamQueryRequest(query=QUERY)) == [Turn(QUERY, b"")]
