"""Proofs as text (C2SP tlog-proof): written in one way, and read in that way only."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import HutongError, InvalidArgument, Reason
from services.kit.log.proof_text import FIRST, ProofText

NOTE = "zone.example/customs/node\n9\nAAAA\n\n— zone.example/customs/node AAAA\n"
HASHES = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)
PROOFS = st.builds(
    ProofText,
    index=st.integers(0, (1 << 63) - 1),
    hashes=HASHES,
    checkpoint=st.just(NOTE),
    extra=st.binary(max_size=99),
)


@given(PROOFS)
def test_what_is_written_is_read_again(proof: ProofText) -> None:
    assert ProofText.parse(str(proof)) == proof


@given(PROOFS, st.data())
def test_no_other_text_is_the_same_proof(proof: ProofText, data: st.DataObject) -> None:
    text = str(proof)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters()) + text[at + data.draw(st.sampled_from([0, 1])) :]
    read = None
    with contextlib.suppress(InvalidArgument):
        read = ProofText.parse(changed)
    assert (read == proof) == (changed == text)


def test_the_form_is_that_of_the_specification() -> None:
    text = str(ProofText(73894, (b"\1" * 32,), NOTE, b"extra"))
    assert text.split("\n")[:5] == [
        FIRST,
        "extra ZXh0cmE=",
        "index 73894",
        "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
        "",
    ]
    assert text.endswith(f"\n\n{NOTE}")


HASH = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="


@pytest.mark.parametrize(
    "text",
    [
        "",
        FIRST,
        f"{FIRST}\n\n{NOTE}",
        f"{FIRST}\nindex 01\n\n{NOTE}",
        f"{FIRST}\nindex -1\n\n{NOTE}",
        f"{FIRST}\nindex 9223372036854775808\n\n{NOTE}",
        f"{FIRST}\nindex 1\n\n",
        f"{FIRST}\nindex 1\nshort\n\n{NOTE}",
        f"{FIRST}\nindex 1\n{HASH[:-2]}F=\n\n{NOTE}",
        f"{FIRST}\nextra \nindex 1\n\n{NOTE}",
        f"{FIRST}\nindex 1\nextra AAAA\n\n{NOTE}",
        f"{FIRST}\nindex 1\n" + f"{HASH}\n" * 64 + f"\n{NOTE}",
        f"{FIRST} \nindex 1\n\n{NOTE}",
        f"{FIRST}\nindex 1\n\n{NOTE}" + "x" * 600_000,
    ],
)
def test_what_is_no_proof(text: str) -> None:
    with pytest.raises(HutongError) as refused:
        ProofText.parse(text)
    assert refused.value.reason is Reason.MALFORMED_REQUEST
