"""Draws: the same for both sides, every index once, and none that the log could choose."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.log.v1 import log_pb2, log_service_pb2
from services.kit.audit import sampling
from services.kit.audit.following import follow
from services.kit.errors import HutongError, Reason
from services.kit.log.checkpoint import Checkpoint

SEEDS = st.binary(min_size=16, max_size=64)
RANGES = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda both: (both[0], both[0] + both[1]))
ROOT = bytes(32)


@given(seed=SEEDS, range_=RANGES)
def test_every_index_is_drawn_once(seed: bytes, range_: tuple[int, int]) -> None:
    drawn = list(sampling.draw(seed, *range_))
    assert sorted(drawn) == list(range(*range_))
    assert drawn == list(sampling.draw(seed, *range_))


def test_draws_of_large_logs_cost_what_is_drawn() -> None:
    drawn = sampling.draw(b"a seed of sixteen bytes", 0, 2**62)
    first = [next(drawn) for _ in range(1000)]
    assert len(set(first)) == 1000
    assert max(first) > 2**61


def test_no_place_of_the_log_is_drawn_more_often_than_others() -> None:
    counts = Counter(next(sampling.draw(number.to_bytes(16, "big"), 0, 10)) for number in range(5000))
    assert set(counts) == set(range(10))
    assert all(400 < count < 600 for count in counts.values())


@given(seed=SEEDS, range_=RANGES, count=st.integers(1, 50), masks=st.frozensets(st.integers(0, 80)))
def test_texts_of_masks_are_drawn_and_not_counted(
    seed: bytes, range_: tuple[int, int], count: int, masks: frozenset[int]
) -> None:
    drawn = list(sampling.sample(seed, *range_, count, lambda index: index not in masks))
    decisions = [index for index in drawn if index not in masks]
    assert drawn == list(sampling.draw(seed, *range_))[: len(drawn)]
    assert len(decisions) == min(count, len(set(range(*range_)) - masks))
    assert not drawn or len(decisions) < count or drawn[-1] == decisions[-1]


def pages_of(
    indexes: list[int], start: int, end: int, masks: frozenset[int] = frozenset(), sizes: int = 7
) -> list[log_service_pb2.SampleDecisionsResponse]:
    found: list[log_service_pb2.SampleDecisionsResponse] = []
    for at in range(0, len(indexes) or 1, sizes):
        page = log_service_pb2.SampleDecisionsResponse(start=start, end=end, checkpoint="c", next_page_token="more")
        for index in indexes[at : at + sizes]:
            entry = log_pb2.LogEntry(rpc="/x/Y")
            if index in masks:
                entry = log_pb2.LogEntry(mask=log_pb2.MaskText(record_type="museum.Specimen"))
            page.decisions.add(index=index, entry=entry.SerializeToString())
        found.append(page)
    found[-1].next_page_token = ""
    return found


def request(draw: int = 0, seed: bytes = b"") -> log_service_pb2.SampleDecisionsRequest:
    return log_service_pb2.SampleDecisionsRequest(draw=draw, seed=seed)


@settings(max_examples=60)
@given(data=st.data(), seed=SEEDS, size=st.integers(1, 60), count=st.integers(1, 30))
def test_a_draw_is_followed_and_any_other_is_noticed(data: st.DataObject, seed: bytes, size: int, count: int) -> None:
    masks = data.draw(st.frozensets(st.integers(0, size - 1)))
    drawn = list(sampling.sample(seed, 0, size, count, lambda index: index not in masks))
    checkpoint = Checkpoint("z/a/s", size, ROOT)
    follow(request(count, seed), pages_of(drawn, 0, size, masks), checkpoint)
    other = data.draw(st.permutations(drawn)) if data.draw(st.booleans()) else drawn[:-1]
    if other != drawn:
        with pytest.raises(HutongError) as refused:
            follow(request(count, seed), pages_of(other, 0, size, masks), checkpoint)
        assert refused.value.reason is Reason.LOG_TAMPERED


def test_all_of_them_are_all() -> None:
    checkpoint = Checkpoint("z/a/s", 20, ROOT)
    follow(request(), pages_of(list(range(20)), 0, 20), checkpoint)
    for wrong in (list(range(19)), [*range(5), *range(6, 20)], [*range(21)], [1, 0, *range(2, 20)]):
        with pytest.raises(HutongError):
            follow(request(), pages_of(wrong, 0, 20), checkpoint)


def test_pages_that_end_early_are_no_complaint_while_there_are_more() -> None:
    checkpoint = Checkpoint("z/a/s", 20, ROOT)
    first = pages_of(list(range(20)), 0, 20)[:1]
    follow(request(), first, checkpoint)
    first[0].next_page_token = ""
    with pytest.raises(HutongError):
        follow(request(), first, checkpoint)


def test_another_range_than_was_asked_for_is_noticed() -> None:
    checkpoint = Checkpoint("z/a/s", 20, ROOT)
    with pytest.raises(HutongError):
        follow(request(), pages_of(list(range(19)), 0, 19), checkpoint)
    since = request()
    since.since.GetCurrentTime()
    follow(since, pages_of(list(range(7, 19)), 7, 19), checkpoint)
    with pytest.raises(HutongError):
        follow(since, pages_of(list(range(7, 30)), 7, 30), checkpoint)


def test_pages_of_different_trees_are_noticed() -> None:
    found = pages_of(list(range(20)), 0, 20)
    found[1].checkpoint = "another"
    with pytest.raises(HutongError):
        follow(request(), found, Checkpoint("z/a/s", 20, ROOT))
