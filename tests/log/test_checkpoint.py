"""Checkpoints as C2SP tlog-checkpoint writes them."""

import datetime as dt
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import HutongError, InvalidArgument, PermissionDenied, Reason
from services.kit.log.checkpoint import Checkpoint, open_checkpoint, origin_of
from services.kit.log.merkle import EMPTY_ROOT
from services.kit.log.notes import Note, Signer

# The example of C2SP tlog-checkpoint.
EXAMPLE: Final = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT: Final = bytes.fromhex("0ac5186a91863e8e1d90c808014aa89bf5da8e3ee1d9f07630f0378f68f1ab62")
NOW: Final = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)


def signer(name: str, seed: int) -> Signer:
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


LOG: Final = signer("zone.example/customs/node", 1)
WITNESS: Final = signer("zone.example/taxation/node", 2)
CHECKPOINT: Final = Checkpoint(LOG.name, 5, ROOT)


def test_the_example() -> None:
    assert Checkpoint.parse(EXAMPLE) == Checkpoint("example.com/behind-the-sofa", 20852163, ROOT)
    assert Checkpoint.parse(EXAMPLE).text == EXAMPLE
    extended = Checkpoint.parse(f"{EXAMPLE}one\ntwo\n")
    assert extended.extensions == ("one", "two")
    assert extended.text == f"{EXAMPLE}one\ntwo\n"


def test_the_origin_of_a_node() -> None:
    assert origin_of("zone.example", "customs", "node") == "zone.example/customs/node"


@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n"), min_size=1), st.integers(1, (1 << 63) - 1)
)
def test_checkpoints_are_read_back(origin: str, size: int) -> None:
    made = Checkpoint(origin, size, ROOT)
    assert Checkpoint.parse(made.text) == made


@pytest.mark.parametrize(
    "size", ["", "-1", "+1", "01", "00", " 1", "1 ", "1.0", "1e3", "0x10", "1_000", "٣", str(1 << 63), "9" * 5000]
)
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Checkpoint.parse(EXAMPLE.replace("20852163", size))
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n\n",
        EXAMPLE[:-1],
        f"\n{EXAMPLE}",
        f"{EXAMPLE}\n",
        f"{EXAMPLE}\none\n",
        EXAMPLE.replace("\nCsUY", "\n\nCsUY"),
        "example.com/behind-the-sofa\n20852163\n",
        EXAMPLE.replace("q2I=", "q2J="),
        EXAMPLE.replace("q2I=", "q2I"),
        EXAMPLE.replace("q2I=", "q2I=="),
        EXAMPLE.replace("q2I=", "q2I= "),
        EXAMPLE.replace("CsUY", ""),
        EXAMPLE.replace("CsUY", "CsUYCsUY"),
        EXAMPLE.replace("/Xajj7", "_Xajj7"),
        EXAMPLE.replace("20852163", "0"),
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Checkpoint.parse(text)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


def test_the_empty_tree_has_one_root() -> None:
    assert Checkpoint.parse(Checkpoint("a", 0, EMPTY_ROOT).text).size == 0


@given(st.text(max_size=80) | st.text(alphabet="a0123456789=\n", max_size=60))
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        made = Checkpoint.parse(text)
    except HutongError:
        return
    assert made.text == text


def test_a_log_signs_its_checkpoints() -> None:
    note = CHECKPOINT.sign(LOG)
    opened = open_checkpoint(str(note), [LOG.verifier])
    assert opened.checkpoint == CHECKPOINT
    assert [one.key for one in opened.verified] == [LOG.verifier]


def test_cosignatures_are_told_where_their_keys_are_known() -> None:
    note = CHECKPOINT.sign(LOG).signed(WITNESS.cosign(CHECKPOINT.text, NOW))
    witness = WITNESS.verifier.cosigning()
    assert len(open_checkpoint(str(note), [LOG.verifier]).verified) == 1
    opened = open_checkpoint(str(note), [LOG.verifier], [witness])
    assert [(one.key, one.time) for one in opened.verified] == [(LOG.verifier, None), (witness, NOW)]


def test_only_the_log_signs_for_itself() -> None:
    """A key of another log, a key of its own name that nobody published, a cosignature of the log's own key."""
    text = CHECKPOINT.text
    stranger, other = signer(LOG.name, 9), WITNESS
    notes = [
        (Note(text, (other.sign(text),)), [LOG.verifier, other.verifier]),
        (Note(text, (stranger.sign(text),)), [LOG.verifier]),
        (Note(text, (LOG.cosign(text, NOW),)), [LOG.verifier, LOG.verifier.cosigning()]),
        (Note(text, (WITNESS.cosign(text, NOW),)), [LOG.verifier, WITNESS.verifier.cosigning()]),
    ]
    for note, keys in notes:
        with pytest.raises(PermissionDenied) as caught:
            open_checkpoint(str(note), keys, [WITNESS.verifier.cosigning()])
        assert caught.value.reason is Reason.LOG_KEY_UNKNOWN


def test_a_wrong_signature_beside_a_right_one() -> None:
    text = CHECKPOINT.text
    elsewhere = Checkpoint(LOG.name, 6, ROOT).text
    wrong = str(Note(text, (LOG.sign(text), WITNESS.cosign(elsewhere, NOW))))
    assert open_checkpoint(wrong, [LOG.verifier]), "of a key that is not known here"
    with pytest.raises(PermissionDenied) as caught:
        open_checkpoint(wrong, [LOG.verifier], [WITNESS.verifier.cosigning()])
    assert caught.value.reason is Reason.LOG_TAMPERED
