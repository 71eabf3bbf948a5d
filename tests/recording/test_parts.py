"""The small parts: keys of logs, texts of masks, and whom a record names."""

from pathlib import Path

import pytest

from hutong.api.customs.v1 import declaration_pb2
from hutong.api.log.v1 import log_pb2
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.log import keys, masks, named
from services.kit.log.checkpoint import origin_of
from services.kit.records import catalogue
from tests.exchange.records import EXPORTER, declaration

ORIGIN = origin_of("zone.example", "customs", "node")


def test_a_log_s_key_is_made_once_and_published(tmp_path: Path) -> None:
    signer = keys.create(tmp_path / "log.key", tmp_path / "keys", ORIGIN)
    assert (tmp_path / "log.key").stat().st_mode & 0o777 == 0o600
    again = keys.create(tmp_path / "log.key", tmp_path / "keys", ORIGIN)
    assert again.verifier == signer.verifier == keys.find(tmp_path / "keys", ORIGIN)
    assert (tmp_path / "keys" / "customs.node.vkey").read_text() == f"{signer.verifier}\n"


def test_another_key_is_not_published_over_the_first(tmp_path: Path) -> None:
    keys.create(tmp_path / "log.key", tmp_path / "keys", ORIGIN)
    with pytest.raises(FailedPrecondition) as refused:
        keys.create(tmp_path / "other.key", tmp_path / "keys", ORIGIN)
    assert refused.value.reason is Reason.KEY_INVALID


def test_keys_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    keys.create(tmp_path / "log.key", tmp_path / "keys", ORIGIN)
    with pytest.raises(FailedPrecondition) as refused:
        keys.read(tmp_path / "none.key", ORIGIN)
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING
    (tmp_path / "log.key").chmod(0o644)
    with pytest.raises(FailedPrecondition) as refused:
        keys.read(tmp_path / "log.key", ORIGIN)
    assert refused.value.reason is Reason.KEY_INVALID
    (tmp_path / "bad.key").write_text("nothing")
    with pytest.raises(FailedPrecondition) as refused:
        keys.read(tmp_path / "bad.key", ORIGIN)
    assert refused.value.reason is Reason.KEY_INVALID
    (tmp_path / "keys" / "taxation.node.vkey").write_bytes((tmp_path / "keys" / "customs.node.vkey").read_bytes())
    with pytest.raises(FailedPrecondition) as refused:
        keys.find(tmp_path / "keys", origin_of("zone.example", "taxation", "node"))
    assert refused.value.reason is Reason.KEY_INVALID


@pytest.mark.parametrize("origin", ["", "a/b", "z/../x", "z/a/b/c", "z/../../log", "z/a/b\0", "zone.example/none/node"])
def test_an_origin_leads_to_no_other_file(tmp_path: Path, origin: str) -> None:
    keys.create(tmp_path / "log.key", tmp_path / "keys", ORIGIN)
    with pytest.raises(HutongError) as refused:
        keys.find(tmp_path / "keys", origin)
    assert refused.value.reason is Reason.LOG_KEY_UNKNOWN


def test_an_enterprise_counts_once_for_each_record_that_names_it() -> None:
    kind = catalogue.load().get("customs.Declaration")
    found: dict[tuple[str, str], int] = {}
    cleared = declaration_pb2.DECLARATION_STATUS_CLEARED
    for number in ("1", "2"):
        named.count(kind, declaration(number, EXPORTER, cleared), found)
    named.count(kind, declaration_pb2.Declaration(declaration_no="3"), found)
    assert found == {("cn.uscc", EXPORTER): 2}


def test_every_field_that_names_an_enterprise_is_found_wherever_it_stands() -> None:
    for kind in catalogue.load():
        for field in kind.subjects.get("cn.uscc", ()):
            record = kind.message()
            _set(record, field.path, EXPORTER)
            found: dict[tuple[str, str], int] = {}
            named.count(kind, record, found)
            assert found == {("cn.uscc", EXPORTER): 1}, f"{kind.name}.{field.path}"


def _set(message: object, path: str, value: str) -> None:
    name, _, below = path.partition(".")
    if below:
        part = getattr(message, name)
        _set(part.add() if hasattr(part, "add") else part, below, value)
    elif hasattr(part := getattr(message, name), "append"):
        part.append(value)
    else:
        setattr(message, name, value)


def test_a_mask_s_text_is_what_its_digest_says() -> None:
    text = log_pb2.MaskText(
        digest=masks.digest_of("customs.Declaration", "v1", b""), record_type="customs.Declaration", policy_version="v1"
    )
    assert masks.read(text.SerializeToString()) == text
    text.policy_version = "v2"
    for broken in (text.SerializeToString(), b"\xff"):
        with pytest.raises(FailedPrecondition) as refused:
            masks.read(broken)
        assert refused.value.reason is Reason.LOG_TAMPERED
