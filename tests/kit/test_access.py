"""Access lists: exact, as data, refusing by default."""

from pathlib import Path

import pytest

from services.kit import access
from services.kit.access import AccessList
from services.kit.caller import Caller
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason

SERVED = {"a.v1.Letters": ["Read", "Write"], "a.v1.Other": ["Do"]}


def caller(path: str) -> Caller:
    agency, _, system = path.partition("/")
    return Caller(f"spiffe://zone.example/{path}", agency, system)


def lists(**rpcs: list[str]) -> AccessList:
    return AccessList({"a.v1.Letters": rpcs}, SERVED)


@pytest.mark.parametrize("identity", ["customs/release", "customs/*", "*/*"])
def test_listed_callers_pass(identity: str) -> None:
    lists(Read=[identity]).check("/a.v1.Letters/Read", caller("customs/release"))


@pytest.mark.parametrize("identity", ["customs/other", "taxation/*", "taxation/release"])
def test_everyone_else_is_refused(identity: str) -> None:
    with pytest.raises(PermissionDenied) as refused:
        lists(Read=[identity]).check("/a.v1.Letters/Read", caller("customs/release"))
    assert refused.value.reason is Reason.CALLER_NOT_LISTED


@pytest.mark.parametrize("method", ["/a.v1.Letters/Write", "/a.v1.Other/Do", "/a.v1.Unknown/Do"])
def test_an_unlisted_rpc_refuses_everyone(method: str) -> None:
    with pytest.raises(PermissionDenied):
        lists(Read=["*/*"]).check(method, caller("customs/release"))


def test_an_empty_list_refuses_everyone() -> None:
    with pytest.raises(PermissionDenied):
        lists(Read=[]).check("/a.v1.Letters/Read", caller("customs/release"))


def test_a_service_that_is_not_served_stops_the_start() -> None:
    with pytest.raises(FailedPrecondition, match=r"a\.v1\.Leters.*did you mean 'a\.v1\.Letters'") as refused:
        AccessList({"a.v1.Leters": {"Read": ["*/*"]}}, SERVED)
    assert refused.value.reason is Reason.ACCESS_LIST_INVALID


def test_an_rpc_that_does_not_exist_stops_the_start() -> None:
    with pytest.raises(FailedPrecondition, match="did you mean 'Read'"):
        lists(Raed=["*/*"])


@pytest.mark.parametrize("identity", ["", "customs", "customs/", "/release", "a/b/c", "*/release", "customs/*/x"])
def test_an_identity_that_is_none_stops_the_start(identity: str) -> None:
    with pytest.raises(FailedPrecondition, match="no identity"):
        lists(Read=[identity])


def test_lists_do_not_add_up_silently(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("a.v1.Letters: {Read: ['*/*']}")
    two.write_text("a.v1.Letters: {Write: ['*/*']}")
    with pytest.raises(FailedPrecondition, match="has a list already"):
        access.read(one, two)


@pytest.mark.parametrize("text", ["- a list", "a.v1.Letters: {Read: all}", "a: {b: [1]}", "]["])
def test_a_malformed_file_stops_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "access.yaml"
    path.write_text(text)
    with pytest.raises(FailedPrecondition) as refused:
        access.read(path)
    assert refused.value.reason is Reason.ACCESS_LIST_INVALID
