"""Pages that name tests: the threat model and the standards. A name that means nothing would be a threat of its own."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

MODEL = REPOSITORY / "docs" / "operations" / "threat-model.md"
STANDARDS = REPOSITORY / "docs" / "standards.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_ROW = re.compile(r"^\| ([STRIDE]) \|(.*)$", re.MULTILINE)


@pytest.mark.parametrize("page", [MODEL, STANDARDS], ids=lambda page: page.stem)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = _NAMED.findall(page.read_text(encoding="utf-8"))
    assert len(named) > 50
    for file, name in named:
        path = REPOSITORY / file
        assert path.is_file(), file
        assert re.search(rf"^(async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_every_arrow_has_all_six_kinds_of_threat_and_every_threat_a_test() -> None:
    """Or a reason why nothing could be tested."""
    arrows = [text.split("\n", 1) for text in MODEL.read_text(encoding="utf-8").split("\n## ")[1:]]
    assert arrows.pop()[0] == "What is not defended against"
    assert len(arrows) == 14
    for arrow, text in arrows:
        rows = _ROW.findall(text)
        assert {kind for kind, _ in rows} == set("STRIDE"), arrow
        for _, row in rows:
            shown = row.removesuffix(" |").rpartition(" | ")[2]
            assert row.count(" | ") == 2, row
            assert _NAMED.search(shown) or re.match(r"nothing to test: \w.{20}", shown), row


def test_every_standard_has_a_test() -> None:
    lines = STANDARDS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| standard |")]
    assert len(rows) > 40
    for row in rows:
        assert row.count(" | ") == 3, row
        assert _NAMED.search(row.rpartition(" | ")[2]), row
