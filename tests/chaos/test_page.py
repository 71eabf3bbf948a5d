"""The table of docs/reliability.md has a row for every case there is, and a run of some writes no others."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos import page
from tests.chaos.asking import WHOLE
from tests.chaos.cases import CASES, WIRE_CASES
from tests.chaos.clocks import CLOCK_CASES
from tests.chaos.proving import Proof
from tests.chaos.running import Case, Found

EVERY: tuple[Case[Any], ...] = (*CASES, *WIRE_CASES, *CLOCK_CASES)
TITLES = [case.title for case in EVERY]


def found(title: str) -> Found:
    proof = Proof(answers=7, sections=35, logs=8, problems=())
    return Found("some", title, 7, Counter({WHOLE: 7}), Counter(), (), None, 0.0, 0.1, proof, ())


def test_the_table_has_a_row_for_each_case() -> None:
    assert list(page.rows()) == TITLES


def test_a_run_of_some_leaves_the_rows_of_others(tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    shutil.copy(page.PAGE, copy)
    before, titles = page.rows(copy), [*TITLES[:-1], "a new one"]
    page.write([found("a new one"), found(TITLES[3])], titles, copy)
    after = page.rows(copy)
    assert list(after) == titles
    assert {title for title in TITLES[:-1] if after[title] != before[title]} == {TITLES[3]}
    assert after["a new one"] == "| a new one | 7 questions: whole (7) | never | — | 0.10 | " + (
        "nothing: 7 answers and 35 sections in 8 logs |\n"
    )
    text, original = copy.read_text(), page.PAGE.read_text()
    assert text.partition("<!-- chaos -->")[0] == original.partition("<!-- chaos -->")[0]
    assert text.partition("<!-- /chaos -->")[2] == original.partition("<!-- /chaos -->")[2]
