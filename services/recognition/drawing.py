"""Draws the stage graph of a procedure, as text for terminals and as SVG. Marks tell where the stages of a case stand.

The text has one line of lanes from top to bottom, as version control draws histories: a stage is a dot, what waits for
it hangs below. The SVG is self-contained, holds no script, and says its content in its title and description.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from rich.cells import cell_len, set_cell_size

from services.recognition.layering import Layered, Place, layered
from services.recognition.procedure import Overdue, Procedure, Stage
from services.recognition.statutory import Limit, Unit

_UNITS: Final = {Unit.WORKING_DAY: "working day", Unit.CALENDAR_DAY: "calendar day", Unit.HOUR: "hour"}
_NO_MARKS: Final[Mapping[str, str]] = {}


def limit_words(limit: Limit) -> str:
    """Word a limit: 5 working days."""
    return f"{limit.amount} {_UNITS[limit.unit]}{'' if limit.amount == 1 else 's'}"


def time_words(stage: Stage) -> str:
    """Word how long a stage may take, from when, and what silence means."""
    if stage.instant:
        return "on the spot"
    if stage.limits_by:
        limits = [*stage.limits_by.limits.values()]
        words = f"{limits[0].amount} to {limit_words(limits[-1])}, by {stage.limits_by.question}"
    elif stage.limit:
        words = limit_words(stage.limit)
    else:
        return "no limit"
    words += f", from {stage.clock_from} on" if stage.clock_from else ""
    return words + (", then deemed passed" if stage.overdue is Overdue.DEEMED else "")


def condition_words(stage: Stage) -> str:
    """Word when a stage applies; nothing where it always does."""
    answers = [f"{question} = {value}" for question, value in stage.when.items()]
    results = [f"{before} ends {' or '.join(sorted(codes))}" for before, codes in stage.when_result.items()]
    words = [f"only if {' and '.join([*answers, *results])}"] if answers or results else []
    return ", ".join([*words, "may be dropped"] if stage.optional else words)


# Text

_LEGEND: Final = "○ only in some cases   ◌ may be dropped"


def text(procedure: Procedure, marks: Mapping[str, str] = _NO_MARKS) -> str:
    """Draw a procedure for a terminal: for each stage its place in the graph, title, agency, limit and mark."""
    stages = [procedure.stages[code] for code in procedure.order]
    lanes = _Lanes(procedure)
    drawn = [(stage, *lanes.take(stage)) for stage in stages]
    graph = max(cell_len(part) for _, *parts in drawn for part in parts)
    columns = [
        (stage.code, stage.title, stage.agency, time_words(stage), marks.get(stage.code, "")) for stage in stages
    ]
    widths = [max(cell_len(row[index]) for row in columns) for index in range(4)]
    lines = [f"{procedure.label}  {procedure.title}  {procedure.local_title}", ""]
    for (stage, upper, lower), cells in zip(drawn, columns, strict=True):
        fitted = (set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=False))
        lines.append("  ".join((set_cell_size(upper, graph), *fitted, cells[4])).rstrip())
        words = ", ".join(part for part in (stage.local_title, condition_words(stage)) if part)
        lines.append("  ".join((set_cell_size(lower, graph), " " * widths[0], words)).rstrip())
    lines += ["", _LEGEND] if any(map(condition_words, stages)) else []
    return "\n".join(lines) + "\n"


class _Lanes:
    """The lanes at the left, one for each edge under way; each is two columns wide."""

    def __init__(self, procedure: Procedure) -> None:
        self._procedure = procedure
        self._lanes: list[str] = []
        """For each lane the stage it leads to; empty where it is free."""

    def take(self, stage: Stage) -> tuple[str, str]:
        """Draw one stage: the line with its dot, where lanes come together, and the line below, where they part."""
        arriving = [index for index, target in enumerate(self._lanes) if target == stage.code]
        at = arriving[0] if arriving else self._free()
        upper = self._line(at, arriving, _dot(stage), "╯", "┴")
        for index in arriving:
            self._lanes[index] = ""
        followers = self._procedure.followers[stage.code]
        leaving: list[int] = []
        for number, follower in enumerate(followers):
            leaving.append(at if number == 0 else self._free(after=at))
            self._lanes[leaving[-1]] = follower
        corner = ("├" if len(leaving) > 1 else "│") if leaving else " "
        return upper, self._line(at, leaving, corner, "╮", "┬")

    def _free(self, after: int = -1) -> int:
        for index in range(after + 1, len(self._lanes)):
            if not self._lanes[index]:
                return index
        self._lanes.append("")
        return len(self._lanes) - 1

    def _line(self, at: int, joined: Sequence[int], dot: str, last: str, middle: str) -> str:
        end = max(joined, default=at)
        line = ""
        for index, target in enumerate(self._lanes):
            if index == at:
                line += dot
            elif index in joined:
                line += last if index == end else middle
            else:
                line += "│" if target else "─" if at < index < end else " "
            line += "─" if at <= index < end else " "
        return line.rstrip()


def _dot(stage: Stage) -> str:
    return "◌" if stage.optional else "○" if stage.when or stage.when_result else "●"


# SVG

_WIDTH: Final = 220
_CELLS: Final = 28
"""What fits into a box: half-width characters."""
_LINE: Final = 17
_PADDING: Final = 10
_LANE: Final = 16
_GAP: Final = 24
_DROP: Final = 48
_MARGIN: Final = 24
_HEAD: Final = 64
_FOOT: Final = 40

_COLOURS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("GREEN", "PASSED", "CONDITIONAL"), "#1a7f37"),
    **dict.fromkeys(("RECOGNISED",), "#0a6ebd"),
    **dict.fromkeys(("YELLOW", "SUSPENDED", "DEEMED"), "#9a6700"),
    **dict.fromkeys(("RED", "FAILED"), "#b42318"),
    **dict.fromkeys(("READY", "OPEN"), "#6639a6"),
}
_GREY: Final = "#57606a"
_STYLE: Final = (
    ".procedure text{font:12px system-ui,'Noto Sans CJK SC','PingFang SC','Microsoft YaHei',sans-serif;fill:#1f2328}"
    ".procedure .head{font-size:16px;font-weight:600}.procedure .code{font-weight:600}.procedure .quiet{fill:#57606a}"
    ".procedure .stage{fill:#f6f8fa;stroke:#57606a}.procedure .edge{fill:none;stroke:#8c959f}"
    ".procedure .sometimes{stroke-dasharray:6 4}.procedure .optional{stroke-dasharray:2 3}"
)


def svg(procedure: Procedure, marks: Mapping[str, str] = _NO_MARKS) -> str:
    """Draw a procedure as SVG."""
    layout = layered({s.code: s.after for s in procedure.stages.values()}, _WIDTH, _LANE, _GAP)
    lines = {stage.code: _box_lines(stage, marks.get(stage.code, "")) for stage in procedure.stages.values()}
    tops = [_HEAD]
    heights = [max(_height(lines[place.code]) for place in layer if place.code) for layer in layout.layers]
    for height in heights:
        tops.append(tops[-1] + height + _DROP)
    left, right = layout.spread()
    head = f"{procedure.label}  {procedure.title}  {procedure.local_title}"
    size = (max(right - left, cell_len(head) * 9) + 2 * _MARGIN, tops[-1] - _DROP + _FOOT + _MARGIN)
    shift = (size[0] - right - left) / 2
    parts = [*_opening(procedure, head, size)]
    parts += (_edge(run, shift, tops, heights, lines) for run in layout.edges)
    for place in _boxes(layout):
        stage = procedure.stages[place.code]
        x, y = place.x + shift - _WIDTH / 2, tops[place.layer]
        parts += _box(stage, lines[place.code], x, y, marks.get(place.code, ""))
    footer = "dashed: only in some cases · dotted: may be dropped"
    parts.append(_words(footer, _MARGIN, size[1] - _MARGIN, "quiet"))
    return "\n".join((*parts, "</svg>", ""))


def _boxes(layout: Layered) -> Iterable[Place]:
    return (place for layer in layout.layers for place in layer if place.code)


def _opening(procedure: Procedure, head: str, size: tuple[float, float]) -> Iterable[str]:
    width, height = size
    stages = (f"{s.code} {s.title} after {', '.join(s.after) or 'nothing'}" for s in procedure.stages.values())
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="procedure" role="img" aria-labelledby="title desc" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    yield f'<title id="title">{escape(head)}</title>'
    yield f'<desc id="desc">{escape("; ".join(stages))}</desc>'
    yield f"<style>{_STYLE}</style>"
    yield (
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#8c959f"/></marker></defs>'
    )
    yield f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>'
    yield _words(head, _MARGIN, _MARGIN + 12, "head")


def _box_lines(stage: Stage, mark: str) -> list[tuple[str, str]]:
    """Say what stands in a box, line by line: style and words."""
    lines = [("code", line) for line in _wrap(f"{stage.code} · {stage.agency}")]
    lines += (("", line) for line in _wrap(stage.title))
    lines += (("", line) for line in _wrap(stage.local_title))
    lines += (("quiet", line) for words in (time_words(stage), condition_words(stage)) for line in _wrap(words))
    if mark:
        lines += (("mark", line) for line in _wrap(mark))
    return lines


def _height(lines: Sequence[object]) -> int:
    return len(lines) * _LINE + 2 * _PADDING


def _wrap(words: str) -> list[str]:
    """Break words into lines that fit: at spaces, and where a word itself is too long, anywhere, as Chinese is."""
    lines: list[str] = []
    line = ""
    for piece in _pieces(words):
        joined = f"{line}{piece}"
        if line and cell_len(joined.rstrip()) > _CELLS:
            lines.append(line.rstrip())
            joined = piece.lstrip()
        line = joined
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(words: str) -> Iterable[str]:
    """Split at every place where a line may end."""
    for word in words.split():
        if cell_len(word) <= _CELLS and word.isascii():
            yield f"{word} "
        else:
            yield from word[:-1]
            yield f"{word[-1]} "


def _box(stage: Stage, lines: Sequence[tuple[str, str]], x: float, y: float, mark: str) -> Iterable[str]:
    kind = "stage optional" if stage.optional else "stage sometimes" if condition_words(stage) else "stage"
    colour = _COLOURS.get(mark.partition(" ")[0], _GREY)
    height = _height(lines)
    yield f"<g><title>{escape(f'{stage.code} {stage.title} {stage.local_title} {mark}'.strip())}</title>"
    yield f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{_WIDTH}" height="{height}" rx="6"/>'
    if mark:
        yield f'<rect x="{x:.1f}" y="{y}" width="5" height="{height}" fill="{colour}"/>'
    for number, (style, line) in enumerate(lines):
        fill = colour if style == "mark" else ""
        yield _words(line, x + _PADDING, y + _PADDING + number * _LINE + 12, style, fill)
    yield "</g>"


def _words(words: str, x: float, y: float, style: str, fill: str = "") -> str:
    kind = f" class={quoteattr(style)}" if style and style != "mark" else ""
    colour = f' style="fill:{fill};font-weight:600"' if fill else ""
    return f'<text{kind}{colour} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _edge(
    run: Sequence[Place],
    shift: float,
    tops: Sequence[float],
    heights: Sequence[float],
    lines: Mapping[str, Sequence[object]],
) -> str:
    """Draw an edge: a curve in the space between two layers, and straight down through every layer between."""
    start = run[0]
    path = f"M{start.x + shift:.1f} {tops[start.layer] + _height(lines[start.code])}"
    for upper, lower in pairwise(run):
        floor, ceiling = tops[upper.layer] + heights[upper.layer], tops[lower.layer]
        x1, x2, middle = upper.x + shift, lower.x + shift, (floor + ceiling) / 2
        path += f"V{floor}C{x1:.1f} {middle} {x2:.1f} {middle} {x2:.1f} {ceiling}"
    return f'<path class="edge" d="{path}" marker-end="url(#arrow)"/>'
