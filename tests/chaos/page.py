"""From what was found to docs/reliability.md: one table, between marks, and everything around it left alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos.asking import WHOLE
from tests.chaos.running import Found

PAGE: Final = Path(__file__).parents[2] / "docs" / "reliability.md"
_REGION: Final = re.compile(r"(<!-- chaos -->\n).*?(<!-- /chaos -->)", re.DOTALL)
_HEADS: Final = ("", "what the caller sees", "first seen after, s", "healed after, s", "longest wait, s", "lost")


def write(found: Sequence[Found], titles: Sequence[str], page: Path = PAGE) -> None:
    """Write the rows of what was found into the page's table, and leave those of other cases as they are.

    `titles` are of all cases, in the order of the table: a row of none of them goes.
    """
    has = rows(page) | {each.title: _line(_row(each)) for each in found}
    lines = [_line(_HEADS), _line(("---", "---", "---:", "---:", "---:", "---")), *(has[t] for t in titles if t in has)]
    text = page.read_text(encoding="utf-8")
    page.write_text(_REGION.sub(lambda region: region[1] + "".join(lines) + region[2], text), encoding="utf-8")


def rows(page: Path = PAGE) -> dict[str, str]:
    """Read the rows of the page's table, each a line, by what is in the first column."""
    region = _REGION.search(page.read_text(encoding="utf-8"))
    lines = region[0].splitlines(keepends=True)[3:-1] if region else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def line(found: Found) -> str:
    """Write what was found in one case, for a terminal."""
    return f"{found.name}: {'; '.join(_row(found)[1:])}" + "".join(f"\n  WRONG: {one}" for one in found.problems)


def _row(found: Found) -> tuple[str, ...]:
    first = "never" if found.first is None else f"{found.first:.2f}"
    healed = "—" if found.first is None else f"{found.healed:.1f}"
    return found.title, _seen(found), first, healed, f"{found.longest:.2f}", _lost(found)


def _seen(found: Found) -> str:
    whole = found.outcomes[WHOLE]
    others = [f"{_quoted(what)} ({count})" for what, count in found.outcomes.most_common() if what != WHOLE]
    seen = [f"{found.questions} questions: " + ", ".join([f"whole ({whole})", *others])]
    seen += [f"{_quoted(what)}" for what in found.also]
    return "; ".join([*seen, *found.notes])


def _quoted(what: str) -> str:
    return re.sub(r"\b[A-Z]+_[A-Z_]+\b", lambda word: f"`{word[0]}`", what)


def _lost(found: Found) -> str:
    if found.problems:
        return "**" + "; ".join(found.problems) + "**"
    return f"nothing: {found.proof.answers} answers and {found.proof.sections} sections in {found.proof.logs} logs"
