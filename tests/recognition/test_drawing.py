"""Drawings: every stage and edge is there, nothing lies over anything else, and an SVG says what it is."""

import re
from collections.abc import Mapping
from itertools import combinations, pairwise
from xml.etree import ElementTree as ET
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from services.recognition import drawing
from services.recognition.layering import layered
from services.recognition.procedure import Procedure
from services.recognition.procedures import Procedures
from tests.recognition.files import changed, read_words, small

KNOWN = list(Procedures.load(demands=False))
SVG = "{http://www.w3.org/2000/svg}"
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


def parsed(procedure: Procedure, marks: Mapping[str, str] | None = None) -> Element:
    return ET.fromstring(drawing.svg(procedure, marks or {}).encode())


def boxes(root: Element) -> dict[str, Box]:
    """Where each stage's box is."""
    found: dict[str, Box] = {}
    for group in root.iter(f"{SVG}g"):
        rect, title = group.find(f"{SVG}rect"), group.find(f"{SVG}title")
        assert rect is not None
        assert title is not None
        assert title.text
        x, y, width, height = (float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
        found[title.text.split()[0]] = (x, y, x + width, y + height)
    return found


def edges(root: Element) -> list[list[tuple[float, float]]]:
    """The points of each edge: where it begins, and each end of a straight piece or a curve."""
    found: list[list[tuple[float, float]]] = []
    for path in root.iter(f"{SVG}path"):
        if path.get("class") != "edge":
            continue
        points: list[tuple[float, float]] = []
        for command, arguments in re.findall(r"([MVC])([^MVC]+)", path.get("d", "")):
            numbers = [float(number) for number in arguments.split()]
            points.append((points[-1][0], numbers[0]) if command == "V" else (numbers[-2], numbers[-1]))
        found.append(points)
    return found


@pytest.mark.parametrize("procedure", KNOWN, ids=lambda p: p.label)
def test_no_box_lies_over_another_or_over_the_edge_of_the_paper(procedure: Procedure) -> None:
    root = parsed(procedure, dict.fromkeys(procedure.stages, "YELLOW 2 working days left"))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    found = boxes(root)
    assert found.keys() == procedure.stages.keys()
    for left, top, right, bottom in found.values():
        assert left >= 0
        assert top >= 40
        assert right <= width
        assert bottom <= height - 24
    for one, other in combinations(found.values(), 2):
        assert one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]


@pytest.mark.parametrize("procedure", KNOWN, ids=lambda p: p.label)
def test_every_edge_leads_from_box_to_box_and_through_none(procedure: Procedure) -> None:
    root = parsed(procedure)
    found = boxes(root)
    joined: list[tuple[str, str]] = []
    for points in edges(root):
        (start,) = [c for c, b in found.items() if b[3] == points[0][1] and b[0] < points[0][0] < b[2]]
        (end,) = [c for c, b in found.items() if b[1] == points[-1][1] and b[0] < points[-1][0] < b[2]]
        joined.append((start, end))
        for (x1, y1), (x2, y2) in pairwise(points):
            # A piece keeps within the rectangle of its ends: both kinds of pieces are monotone.
            for left, top, right, bottom in found.values():
                assert max(x1, x2) <= left or min(x1, x2) >= right or y2 <= top or y1 >= bottom
    assert sorted(joined) == sorted((before, s.code) for s in procedure.stages.values() for before in s.after)


@pytest.mark.parametrize("procedure", KNOWN, ids=lambda p: p.label)
def test_text_stays_in_its_box_line_by_line(procedure: Procedure) -> None:
    for group in parsed(procedure).iter(f"{SVG}g"):
        (rect,) = group.findall(f"{SVG}rect")
        left, top = float(rect.get("x", "")), float(rect.get("y", ""))
        bottom = top + float(rect.get("height", ""))
        lines = [
            (float(text.get("x", "")), float(text.get("y", "")), text.text or "") for text in group.iter(f"{SVG}text")
        ]
        assert all(left < x and top < y - 9 and y + 3 < bottom for x, y, _ in lines)
        assert all(below[1] - above[1] >= 15 for above, below in pairwise(lines))
        # A character of 12 px is at most some 7 px wide for each of its cells.
        assert all(cell_len(words) * 7 <= float(rect.get("width", "")) - 20 for _, _, words in lines)
        assert all(words == words.strip() != "" for _, _, words in lines)


@pytest.mark.parametrize("procedure", KNOWN, ids=lambda p: p.label)
def test_all_titles_stand_in_the_drawings(procedure: Procedure) -> None:
    root = parsed(procedure)
    by_stage = {
        group.findtext(f"{SVG}title", "").split()[0]: "".join(text.text or "" for text in group.iter(f"{SVG}text"))
        for group in root.iter(f"{SVG}g")
    }
    lines = drawing.text(procedure)
    for stage in procedure.stages.values():
        for words in (stage.title, stage.local_title, stage.agency):
            assert words.replace(" ", "") in by_stage[stage.code].replace(" ", "")
            assert words in lines
    assert procedure.local_title in root.findtext(f"{SVG}title", "")


def test_an_svg_says_what_it_is_to_those_who_cannot_see_it_and_runs_nothing() -> None:
    root = parsed(KNOWN[0])
    assert root.get("role") == "img"
    named = {element.get("id") for element in root.iter() if element.get("id")}
    assert set(root.get("aria-labelledby", "").split()) <= named
    assert root.findtext(f"{SVG}title")
    assert "A5 Decision after A4" in root.findtext(f"{SVG}desc", "")
    assert not [*root.iter(f"{SVG}script"), *root.iter(f"{SVG}a"), *root.iter(f"{SVG}image")]
    assert not [
        name for element in root.iter() for name in element.attrib if str(name).startswith("on") or "href" in str(name)
    ]


def test_titles_and_marks_are_text_and_never_markup() -> None:
    hostile = "</title><script>alert('x')</script>&\"<"
    procedure = read_words(changed("B", title=hostile, local_title="<b>&amp;"))
    root = parsed(procedure, {"B": '"><script>1</script>'})
    assert not [*root.iter(f"{SVG}script")]
    assert hostile in "".join(root.itertext())
    assert "<b>&amp;" in "".join(root.itertext())


def test_marks_say_where_a_case_stands() -> None:
    procedure = read_words(small())
    marks = {"A": "PASSED", "B": "RED overdue"}
    lines = drawing.text(procedure, marks).splitlines()
    assert next(line for line in lines if " A  " in line).endswith("PASSED")
    assert next(line for line in lines if " B  " in line).endswith("RED overdue")
    root = parsed(procedure, marks)
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"PASSED", "RED overdue"} <= words


def test_the_text_draws_the_graph_in_lanes() -> None:
    lanes = [line.split("  ")[0] for line in drawing.text(read_words(small())).splitlines()[2:-2]]
    assert lanes == ["●", "├─╮", "● │", "│ │", "│ ○", "│ │", "●─╯", ""]


def test_columns_stand_under_each_other_however_wide_characters_are() -> None:
    words = changed("A", title="受理与自我评估")
    lines = drawing.text(read_words(words)).splitlines()[2::2]
    starts = {
        cell_len(line[: line.index(agency)]) for line, agency in zip(lines, ("commerce", "taxation"), strict=False)
    }
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"when": None, "optional": True}, "may be dropped"),
        ({"optional": True}, "only if foreign = true, may be dropped"),
        ({}, "only if foreign = true"),
        ({"when_result": {"A": ["PASS", "CONDITIONAL"]}}, "only if foreign = true and A ends CONDITIONAL or PASS"),
    ],
)
def test_conditions_are_told(words: dict[str, object], told: str) -> None:
    made = changed("C", **words)
    if "when" in words:
        del made["questions"]["foreign"]
    procedure = read_words(made)
    assert drawing.condition_words(procedure.stage("C")) == told
    assert told in drawing.text(procedure)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Graphs without a cycle, of any shape."""
    codes = [f"S{number}" for number in range(draw(st.integers(1, 12)))]
    return {
        code: draw(st.lists(st.sampled_from(codes[:index]), unique=True, max_size=4)) if index else []
        for index, code in enumerate(codes)
    }


@given(graphs())
def test_any_graph_is_laid_out_without_overlaps(after: dict[str, list[str]]) -> None:
    layout = layered(after, 220, 16, 24)
    assert sorted(place.code for layer in layout.layers for place in layer if place.code) == sorted(after)
    for layer in layout.layers:
        for one, other in pairwise(layer):
            assert other.x - one.x >= (one.width + other.width) / 2 + 24 - 1e-6
    assert sorted((run[0].code, run[-1].code) for run in layout.edges) == sorted(
        (before, code) for code in after for before in after[code]
    )
    for run in layout.edges:
        assert [place.layer for place in run] == list(range(run[0].layer, run[-1].layer + 1))
        assert not any(place.code for place in run[1:-1])


@given(graphs())
def test_any_graph_is_drawn_as_text_with_every_edge(after: dict[str, list[str]]) -> None:
    words = small()
    stage = {"title": "Stage", "local_title": "环节", "agency": "commerce"}
    words["questions"] = {}
    words["stages"] = {code: {**stage, "after": before} for code, before in after.items()}
    words["stages"]["END"] = {**stage, "after": list(after), "reaches": "DELIVERED"}
    drawn = drawing.text(read_words(words)).splitlines()
    assert followed(drawn[2:], len(after) + 1) == sorted(
        [*((before, code) for code in after for before in after[code]), *((code, "END") for code in after)]
    )


def followed(lines: list[str], stages: int) -> list[tuple[str, str]]:
    """Read the edges back from the lanes, as an eye follows them."""
    lanes: dict[int, str] = {}
    found: list[tuple[str, str]] = []
    for number in range(stages):
        upper, lower = lines[2 * number], lines[2 * number + 1] if 2 * number + 1 < len(lines) else ""
        at = upper.index("●")
        code = upper[at:].split("commerce")[0].split("Stage")[0].split()[-1]
        arriving = [at, *(index for index, sign in enumerate(upper) if index > at and sign in "┴╯")]
        found += ((lanes.pop(index), code) for index in arriving if index in lanes)
        lower = lower.split("环节")[0]
        lanes |= {index: code for index, sign in enumerate(lower) if sign in "├┬╮" or (index == at and sign == "│")}
    assert not lanes
    return sorted(found)
