"""Signed notes against published ones, and against everything that is nearly one."""

import base64
import datetime as dt
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, HutongError, InvalidArgument, PermissionDenied, Reason
from services.kit.log.notes import KeyType, Note, Signature, Signer, VerifierKey, parse, parse_signature, verify

# Keys, text and signatures as they stand in sumdb/note/note_test.go of github.com/golang/mod (commit 02c9913).
PETER: Final = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_PRIVATE: Final = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH: Final = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT: Final = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE: Final = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE: Final = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)

# A checkpoint of Go's checksum database. The signature is the one in the example of C2SP tlog-checkpoint, which gives
# it another name; the key is the one that the go command has built in.
GO_KEY: Final = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
GO_NOTE: Final = """go.sum database tree
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— sum.golang.org Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
"""

# A checkpoint of a Certificate Transparency log, signed in two ways by the log and co-signed by four witnesses of the
# public witness network, one of which (remora.n621.de) has its key in note/note_cosigv1_test.go of
# github.com/transparency-dev/formats (commit 091ce41).
ARCHE: Final = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REMORA: Final = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
COSIGNED: Final = """arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""  # noqa: E501 - as they stand

NOW: Final = dt.datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=dt.UTC)
SIGNER: Final = Signer("zone.example/customs/node", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def peter() -> Signer:
    seed = base64.b64decode(PETER_PRIVATE)[1:]
    return Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))


def names(text: str, *keys: str) -> list[str]:
    return [one.key.name for one in verify(parse(text), [VerifierKey.parse(key) for key in keys])]


def test_published_signatures_verify() -> None:
    both = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"
    assert names(both, PETER) == ["PeterNeumann"]
    assert names(both, PETER, ENOCH) == ["PeterNeumann", "EnochRoot"]
    assert parse(both).text == TEXT
    assert str(parse(both)) == both
    assert names(GO_NOTE, GO_KEY) == ["sum.golang.org"]
    with pytest.raises(PermissionDenied) as caught:
        names(both, GO_KEY)
    assert caught.value.reason is Reason.LOG_KEY_UNKNOWN


def test_the_published_signature_is_made() -> None:
    assert str(peter().verifier) == PETER
    assert str(Note(TEXT, (peter().sign(TEXT),))) == f"{TEXT}\n{PETER_LINE}"


def test_a_real_cosignature_verifies() -> None:
    keys = [VerifierKey.parse(ARCHE), VerifierKey.parse(REMORA)]
    log, witness = verify(parse(COSIGNED), keys)
    assert (log.key, log.time) == (keys[0], None)
    assert (witness.key, witness.time) == (keys[1], dt.datetime(2026, 5, 23, 21, 50, 24, tzinfo=dt.UTC))
    assert len(parse(COSIGNED).signatures) == 6
    with pytest.raises(PermissionDenied):
        verify(parse(COSIGNED.replace("1432088532", "1432088533")), keys[1:])


def test_the_time_of_a_cosignature_is_signed_too() -> None:
    key = SIGNER.verifier.cosigning()
    made = SIGNER.cosign(TEXT, NOW)
    assert verify(Note(TEXT, (made,)), [key])[0].time == NOW.replace(microsecond=0)
    later = Signature(made.name, made.id, (int.from_bytes(made.data[:8], "big") + 1).to_bytes(8, "big") + made.data[8:])
    for wrong in (later, Signature(made.name, made.id, b"\xff" * 8 + made.data[8:])):
        with pytest.raises(PermissionDenied) as caught:
            verify(Note(TEXT, (wrong,)), [key])
        assert caught.value.reason is Reason.LOG_TAMPERED


def test_a_cosignature_is_no_signature_and_the_other_way_round() -> None:
    plain, cosigning = SIGNER.verifier, SIGNER.verifier.cosigning()
    assert plain.id != cosigning.id
    signed, cosigned = SIGNER.sign(TEXT), SIGNER.cosign(TEXT, NOW)
    for one, key in ((signed, cosigning), (cosigned, plain)):
        with pytest.raises(PermissionDenied):
            verify(Note(TEXT, (one,)), [key])
        with pytest.raises(PermissionDenied):
            verify(Note(TEXT, (Signature(one.name, key.id, one.data),)), [key])
    assert len(verify(Note(TEXT, (signed, cosigned)), [plain, cosigning])) == 2


@pytest.mark.parametrize("text", [PETER, ENOCH, GO_KEY, ARCHE, REMORA])
def test_published_keys_are_written_as_they_are_read(text: str) -> None:
    assert str(VerifierKey.parse(text)) == text
    assert VerifierKey.parse(text).type is (KeyType.COSIGNATURE if text == REMORA else KeyType.ED25519)


def test_no_part_of_a_key_is_a_key() -> None:
    """Every piece, and every next character: as note_test.go does it."""
    wrong = {PETER[start:end] for start in range(len(PETER) + 1) for end in range(start, len(PETER) + 1)} - {PETER}
    wrong |= {f"{PETER[:at]}{chr(ord(PETER[at]) + 1)}{PETER[at + 1 :]}" for at in range(len(PETER))}
    wrong |= {
        # Of another length, and of an unknown kind, with the ids they would have.
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        PETER.replace("c74f20a3", "C74F20A3"),
        f"{PETER}\n",
        f" {PETER}",
    }
    for text in wrong:
        with pytest.raises(FailedPrecondition) as caught:
            VerifierKey.parse(text)
        assert caught.value.reason is Reason.KEY_INVALID


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x00b", "a" * 256])
def test_names_that_no_key_has(name: str) -> None:
    with pytest.raises(FailedPrecondition):
        Signer(name, SIGNER.key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n\n",
        f"{TEXT}\n{PETER_LINE[:-1]}",
        f"\x01{TEXT}\n{PETER_LINE}",
        f"{TEXT}\r\n\n{PETER_LINE}",
        f"{TEXT}\t\n\n{PETER_LINE}",
        f"\ud800{TEXT}\n{PETER_LINE}",
        f"{TEXT}\n{PETER_LINE.replace('PeterNeumann', 'Bad Name')}",
        f"{TEXT}\n{PETER_LINE}Unexpected line.\n",
        f"{TEXT}\n{PETER_LINE.replace('— ', '- ')}",
        f"{TEXT}\n{PETER_LINE.replace('— ', '—')}",
        f"{TEXT}\n{PETER_LINE.replace(' x08', '  x08')}",
        f"{TEXT}\n{PETER_LINE.replace('M=', 'M')}",
        f"{TEXT}\n{PETER_LINE.replace('M=', 'N=')}",
        f"{TEXT}\n{PETER_LINE.replace('x08go', 'x08-o')}",
        f"{TEXT}\n— PeterNeumann\n",
        f"{TEXT}\n— PeterNeumann \n",
        f"{TEXT}\n— PeterNeumann x08gow==\n",
        f"{TEXT}\n— Peter+Neumann x08go/ZJ\n",
        f"{TEXT}\n{PETER_LINE * 101}",
        f"{'x' * 300_000}\n\n{PETER_LINE}",
        f"{'あ' * 100_000}\n\n{PETER_LINE}",
    ],
)
def test_what_is_no_note(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(text)
    assert caught.value.reason is Reason.MALFORMED_REQUEST


@given(st.text(max_size=60) | st.text(alphabet="a\n— +=", max_size=30))
def test_what_is_read_is_written_the_same(text: str) -> None:
    try:
        note = parse(text)
    except HutongError:
        return
    assert str(note) == text


def test_a_text_may_have_empty_lines() -> None:
    text = "one\n\n\ntwo\n"
    note = Note(text, (SIGNER.sign(text),))
    assert parse(str(note)) == note
    assert verify(parse(str(note)), [SIGNER.verifier])


@pytest.mark.parametrize("text", ["", "abc", "a\x00\n", "x" * 300_000 + "\n"])
def test_no_text_is_signed_that_no_note_has(text: str) -> None:
    with pytest.raises(InvalidArgument):
        SIGNER.sign(text)
    with pytest.raises(InvalidArgument):
        SIGNER.cosign(text, NOW)


def test_up_to_a_hundred_signatures_are_taken() -> None:
    assert names(f"{TEXT}\n{PETER_LINE * 100}", PETER) == ["PeterNeumann"], "a key counts once"


def test_unknown_keys_mean_nothing() -> None:
    """Neither one of a known name with another id, nor one of a known id with another name."""
    key = VerifierKey.parse(PETER)
    wrong_id = PETER_LINE.replace("x08g", "xxxx")
    wrong_name = PETER_LINE.replace("PeterNeumann", "CarmenSandiego")
    note = parse(f"{TEXT}\n{wrong_id}{wrong_name}{PETER_LINE}")
    assert [one.signature for one in verify(note, [key])] == [note.signatures[2]]
    with pytest.raises(PermissionDenied) as caught:
        verify(parse(f"{TEXT}\n{wrong_id}{wrong_name}"), [key])
    assert caught.value.reason is Reason.LOG_KEY_UNKNOWN


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("data", [b"\x00" * 64, b"\x00" * 63, b"\x00" * 65, b"\x00"])
def test_a_wrong_signature_of_a_known_key_refuses_the_note(first: bool, data: bytes) -> None:
    key = VerifierKey.parse(PETER)
    right, wrong = parse_signature(PETER_LINE), Signature(key.name, key.id, data)
    note = Note(TEXT, (right, wrong) if first else (wrong, right))
    with pytest.raises(PermissionDenied) as caught:
        verify(note, [key])
    assert caught.value.reason is Reason.LOG_TAMPERED


@given(st.integers(0, 8 * 72 - 1), st.booleans())
def test_no_bit_of_a_signature_can_be_altered(bit: int, cosigned: bool) -> None:
    key = SIGNER.verifier.cosigning() if cosigned else SIGNER.verifier
    made = SIGNER.cosign(TEXT, NOW) if cosigned else SIGNER.sign(TEXT)
    bit %= 8 * len(made.data)
    data = bytearray(made.data)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PermissionDenied):
        verify(Note(TEXT, (Signature(made.name, made.id, bytes(data)),)), [key])


def test_a_newer_signature_of_a_key_takes_the_place_of_the_older() -> None:
    note = Note(TEXT, (SIGNER.sign(TEXT),))
    once = note.signed(SIGNER.cosign(TEXT, NOW))
    twice = once.signed(SIGNER.cosign(TEXT, NOW + dt.timedelta(minutes=1)))
    assert [len(one.signatures) for one in (note, once, twice)] == [1, 2, 2]
    assert verify(twice, [SIGNER.verifier.cosigning()])[0].time == NOW.replace(microsecond=0) + dt.timedelta(minutes=1)


@pytest.mark.parametrize("line", ["", PETER_LINE[:-1], PETER_LINE * 2, f"\n{PETER_LINE}", "— a YQ==\n", "x" * 300_000])
def test_one_line_is_one_signature(line: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_signature(line)


def test_a_private_key_shows_in_no_text() -> None:
    assert "Private" not in repr(SIGNER)
