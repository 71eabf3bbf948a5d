"""Texts out of a log's archive: read as what they are called, and never trusted to be anything."""

import contextlib
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hutong.api.log.v1 import log_service_pb2
from services.cli.rooms import policies
from services.kit import jurisdiction
from services.kit.audit.archive import Archive, Missing
from services.kit.errors import HutongError, Reason
from services.kit.log.recording import jurisdiction_text
from services.kit.policy import loader
from services.kit.policy.loader import PolicyRefused
from services.kit.policy.policies import AgencyPolicies, version_of
from services.kit.records import catalogue

LAW = jurisdiction.load("cn")
OTHERS = ("null", "3", '"x"', "[]", "{}", "[{}]", '{"x": 1}', "true")


def loaded(agency: str, file: Path) -> AgencyPolicies:
    return loader.load([file], catalogue.load(), LAW).of(agency)


def archive(kind: str, name: str, text: bytes) -> Archive:
    made = Archive(catalogue.load())
    made.add([log_service_pb2.ArchivedText(kind=kind, name=name, text=text)])
    return made


@pytest.mark.parametrize("agency", sorted(policies()))
def test_policies_come_back_as_they_were(agency: str) -> None:
    own = loaded(agency, policies()[agency])
    again = loader.restore(agency, own.text, catalogue.load(), LAW)
    assert (again.version, again.text) == (own.version, own.text)
    assert again.context == own.context
    for name, policy in own.policies.items():
        restored = again.policies[name]
        for what in ("permit", "since", "until", "basis", "transform", "retain", "title"):
            assert getattr(restored, what) == getattr(policy, what)
        assert {kind: rows.text for kind, rows in restored.rows.items()} == {
            kind: rows.text for kind, rows in policy.rows.items()
        }


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'{"p": null}',
        b'{"p": {}}',
        b'{"p": {"effect": "permit"}}',
        b'{"p": {"effect": "permit", "annotations": [], "principal": {}, "resource": {}, "conditions": []}}',
        b"[" * 100_000,
        b'{"p":' * 20_000 + b"0" + b"}" * 20_000,
        b"\xff",
    ],
)
def test_what_is_no_policy_is_refused(text: bytes) -> None:
    with pytest.raises(PolicyRefused):
        loader.restore("customs", text, catalogue.load(), LAW)


def places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON text where something else could stand: what holds it, and its key."""
    keys: list[Any] = list(tree) if isinstance(tree, dict) else [*range(len(tree))] if isinstance(tree, list) else []  # pyright: ignore
    for key in keys:
        yield tree, key
        yield from places(tree[key])


@settings(max_examples=100)
@given(data=st.data())
def test_a_policy_that_was_changed_loads_or_is_refused_and_nothing_else(data: st.DataObject) -> None:
    tree: Any = json.loads(loaded("customs", policies()["customs"]).text)
    holder, key = data.draw(st.sampled_from(list(places(tree))))
    holder[key] = json.loads(data.draw(st.sampled_from(OTHERS)))
    with contextlib.suppress(PolicyRefused):
        loader.restore("customs", json.dumps(tree).encode(), catalogue.load(), LAW)


def test_a_text_under_a_name_that_is_not_its_own() -> None:
    own = loaded("customs", policies()["customs"])
    found = archive("policy", own.version, own.text + b" ")
    with pytest.raises(HutongError) as refused:
        found.policies("customs", own.version, LAW)
    assert refused.value.reason is Reason.LOG_TAMPERED
    other = own.text + b" "
    assert archive("policy", version_of(other), other).policies("customs", version_of(other), LAW).policies
    pack = jurisdiction_text(LAW)
    with pytest.raises(HutongError):
        archive("jurisdiction", "0" * 64, pack).packs()
    assert archive("jurisdiction", sha256(pack).hexdigest(), pack).packs() == [LAW]
    for kind in ("mask", "scope"):
        with pytest.raises(HutongError):
            getattr(archive(kind, bytes(32).hex(), b"x"), kind)(bytes(32))


def test_one_name_has_one_text() -> None:
    found = archive("policy", "v", b"one")
    found.add([log_service_pb2.ArchivedText(kind="policy", name="v", text=b"one")])
    with pytest.raises(HutongError) as refused:
        found.add([log_service_pb2.ArchivedText(kind="policy", name="v", text=b"two")])
    assert refused.value.reason is Reason.LOG_TAMPERED


def test_what_is_missing_is_told_as_missing() -> None:
    empty = Archive(catalogue.load())
    for get in (lambda: empty.mask(bytes(32)), lambda: empty.scope(bytes(32)), empty.packs):
        with pytest.raises(Missing):
            get()
    with pytest.raises(Missing):
        empty.policies("customs", "0" * 32, LAW)
    assert not empty.policies("customs", AgencyPolicies("customs", {}).version, LAW).policies
