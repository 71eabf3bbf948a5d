"""Charts as SVG, written by hand: few shapes, no script, readable on any background and by screen readers."""

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

COLOURS: Final = ("#1f5fa8", "#d9822b", "#3a8a5b", "#8b4fa0", "#b83a4b", "#5c6b7a", "#9a7b1f", "#2a9aa8", "#6b4a2b")
_INK, _FAINT, _PAPER = "#1c2733", "#d5dbe1", "#ffffff"
_FONT = "font-family='system-ui, sans-serif'"
_WIDTH = 820
_LEFT, _RIGHT, _TOP = 230, 90, 84
_CHAR = 6.6
"""Width of a character of 12 px, about."""

Point = tuple[float, float]


def number(value: float) -> str:
    """Write a number with about three digits: `1,234`, `12.3`, `0.123`."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2g}" if value < 1 else f"{value:.2f}"


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, float]], note: str = "") -> str:
    """Draw horizontal bars: a group for each key, in it a bar for each series."""
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    most = max(value for group in groups.values() for value in group.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts: list[str] = []
    y = _TOP
    for label, group in groups.items():
        parts.append(_text(_LEFT - 10, y + 8 * len(group) + 3, label, anchor="end"))
        for name, value in group.items():
            colour = COLOURS[series.index(name) % len(COLOURS)]
            parts.append(_rect(_LEFT, y, max(1.0, value * scale), 13, colour))
            parts.append(_text(_LEFT + value * scale + 6, y + 11, number(value), size=11))
            y += 16
        y += 12
    return _whole(title, unit, note, series, parts, y)


def stacks(title: str, unit: str, groups: Mapping[str, Mapping[str, float]], note: str = "") -> str:
    """Draw one horizontal bar for each key, of pieces laid end to end."""
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    most = max(sum(group.values()) for group in groups.values())
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts: list[str] = []
    y = _TOP
    for label, group in groups.items():
        parts.append(_text(_LEFT - 10, y + 15, label, anchor="end"))
        x = float(_LEFT)
        for name, value in group.items():
            parts.append(_rect(x, y, value * scale, 22, COLOURS[series.index(name) % len(COLOURS)]))
            x += value * scale
        parts.append(_text(x + 6, y + 15, number(sum(group.values())), size=11))
        y += 32
    return _whole(title, unit, note, series, parts, y)


def lines(
    title: str,
    x_label: str,
    y_label: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_ticks: Mapping[float, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    note: str = "",
) -> str:
    """Draw lines; `x_ticks` names the places on the x axis, all that occur by default."""
    left, right, top, height = 80, 40, _TOP + 22 * ((len(series) - 1) // 3), 320
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    ticks = x_ticks or {x: number(x) if x % 1 else f"{x:,.0f}" for x in sorted(set(xs))}
    y_ticks = _decades(min(ys), max(ys)) if log_y else _steps(max(ys))
    across = _Axis([*xs, *ticks], left, _WIDTH - right, log=log_x)
    up = _Axis(y_ticks, top + height, top, log=log_y)
    parts = [_rule(left, up(y), _WIDTH - right, up(y)) for y in y_ticks]
    parts += [_text(left - 8, up(y) + 4, f"{y:,g}", anchor="end", size=11) for y in y_ticks]
    parts += [_text(across(x), top + height + 18, name, anchor="middle", size=11) for x, name in ticks.items()]
    parts.append(_text((left + _WIDTH - right) / 2, top + height + 40, x_label, anchor="middle"))
    for place, points in enumerate(series.values()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2.2'/>")
        if len(points) <= 20:
            parts += [f"<circle cx='{across(x):.1f}' cy='{up(y):.1f}' r='3.2' fill='{colour}'/>" for x, y in points]
    return _whole(title, y_label, note, list(series), parts, top + height + 52)


class _Axis:
    """From values to places."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, log: bool) -> None:
        self._log = log
        self._low, self._high = self._at(min(values)), self._at(max(values))
        self._begin, self._end = begin, end

    def _at(self, value: float) -> float:
        return math.log10(max(value, 1e-9)) if self._log else value

    def __call__(self, value: float) -> float:
        span = self._high - self._low or 1.0
        return self._begin + (self._at(value) - self._low) / span * (self._end - self._begin)


def _steps(most: float) -> list[float]:
    if most <= 0:
        return [0.0, 1.0]
    size = 10 ** math.floor(math.log10(most))
    step = next(s * size for s in (0.2, 0.5, 1.0, 2.0) if most / (s * size) <= 6)
    return [step * n for n in range(math.ceil(most / step - 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [m * 10.0**n for n in range(first, last + 1) for m in (1, 2, 5)]
    begin = max(v for v in found if v <= low)
    end = min((v for v in found if v >= high), default=found[-1])
    return [v for v in found if begin <= v <= end]


def _whole(title: str, unit: str, note: str, series: Sequence[str], parts: Sequence[str], bottom: float) -> str:
    height = bottom + (26 if note else 10)
    body = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {_WIDTH} {height:.0f}' role='img' {_FONT}>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{_WIDTH}' height='{height:.0f}' rx='8' fill='{_PAPER}'/>",
        _text(20, 30, title, size=17, weight="600"),
        _text(_WIDTH - 20, 30, unit, anchor="end", size=12),
        *_legend(series),
        *parts,
    ]
    if note:
        body.append(_text(20, height - 10, note, size=11))
    return "\n".join([*body, "</svg>", ""])


def _legend(series: Sequence[str]) -> list[str]:
    if len(series) < 2:
        return []
    parts: list[str] = []
    column = (_WIDTH - 40) / 3
    x, y = 20.0, 58.0
    wide = len(series) > 3
    for place, name in enumerate(series):
        if wide:
            x, y = 20 + place % 3 * column, 52 + place // 3 * 22
        parts += [_rect(x, y - 10, 12, 12, COLOURS[place % len(COLOURS)]), _text(x + 18, y, name)]
        x += 18 + len(name) * _CHAR + 24
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "400") -> str:
    how = f"text-anchor='{anchor}' font-size='{size}' font-weight='{weight}' fill='{_INK}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {how}>{escape(text)}</text>"


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{width:.1f}' height='{height}' rx='2' fill='{colour}'/>"


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{_FAINT}'/>"
