"""The threat model names tests; a name that means nothing would be a threat of its own."""

import re

from tests.conftest import REPOSITORY

MODEL = REPOSITORY / "docs" / "operations" / "threat-model.md"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_ROW = re.compile(r"^\| ([STRIDE]) \|(.*)$", re.MULTILINE)


def test_every_test_that_the_threat_model_names_exists() -> None:
    named = _NAMED.findall(MODEL.read_text(encoding="utf-8"))
    assert len(named) > 50
    for file, name in named:
        path = REPOSITORY / file
        assert path.is_file(), file
        assert re.search(rf"^(async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE), f"{file}::{name}"


def test_every_threat_has_a_test() -> None:
    rows = _ROW.findall(MODEL.read_text(encoding="utf-8"))
    assert {kind for kind, _ in rows} == set("STRIDE")
    assert all(_NAMED.search(row) for _, row in rows)
