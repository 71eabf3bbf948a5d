"""The JSON form is taken apart strictly, and comes to the same as the compact one."""

from typing import Any

import pytest

from services.kit.credentials import jsonform
from services.kit.errors import InvalidArgument, Reason

SIGNATURE: dict[str, Any] = {"protected": "p", "signature": "s"}
FLAT: dict[str, Any] = {"payload": "x", **SIGNATURE}


def test_it_comes_to_the_compact_form() -> None:
    assert jsonform.compact(FLAT) == ("p.x.s~",)
    header = {"disclosures": ["d", "e"], "kb_jwt": "k.b.t"}
    assert jsonform.compact({**FLAT, "header": header}) == ("p.x.s~d~e~k.b.t",)
    general = {"payload": "x", "signatures": [{**SIGNATURE, "header": header}, {"protected": "q", "signature": "t"}]}
    assert jsonform.compact(general) == ("p.x.s~d~e~k.b.t", "q.x.t~d~e~")


_BAD: list[dict[str, Any]] = [
    {},
    {"payload": "x"},
    {**FLAT, "payload": 7},
    {**FLAT, "payload": "x.y"},
    {**FLAT, "payload": ""},
    {**FLAT, "header": []},
    {**FLAT, "header": {"disclosures": "d"}},
    {**FLAT, "header": {"disclosures": ["d~e"]}},
    {**FLAT, "header": {"disclosures": [7]}},
    {**FLAT, "header": {"disclosures": ["d"] * 257}},
    {**FLAT, "header": {"kb_jwt": 7}},
    {**FLAT, "header": {"kb_jwt": "a~b"}},
    {**FLAT, "signatures": []},
    {"payload": "x", "signatures": {}},
    {"payload": "x", "signatures": []},
    {"payload": "x", "signatures": ["s"]},
    {"payload": "x", "signatures": [SIGNATURE] * 9},
    {"payload": "x", "signatures": [SIGNATURE, {**SIGNATURE, "header": {"disclosures": []}}]},
    {"payload": "x", "signatures": [SIGNATURE, {**SIGNATURE, "header": {"kb_jwt": "k"}}]},
]


@pytest.mark.parametrize("form", _BAD)
def test_other_forms_are_malformed(form: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        jsonform.compact(form)
    assert refused.value.reason is Reason.RESULT_MALFORMED
