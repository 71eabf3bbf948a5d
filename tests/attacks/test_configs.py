"""Wrong, missing and half-written files: a node that is not sure refuses, and never opens what was closed."""

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest

from certs.register import RevocationReason
from hutong.api.customs.v1 import service_pb2
from services.kit import access
from services.kit.access import AccessList
from services.kit.caller import Caller
from services.kit.department import read_secret
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason, Unavailable
from services.kit.policy.loader import PolicyRefused
from tests.attacks.asking import (
    CUSTOMS,
    DECLARATION,
    DENIED,
    PUBLIC,
    REBATE,
    SUBJECT,
    TAX,
    ask,
    call,
    get,
    refused,
    why,
)
from tests.attacks.clocked import Clock, department
from tests.exchange.mesh import Mesh, question
from tests.zone import ZONE, now

SERVED = {"test.Door": ["Open", "Close"]}
VISITOR = Caller(f"spiffe://{ZONE}/visitor/app", "visitor", "app")


@pytest.mark.parametrize(
    "text",
    [
        "test.Door: {Open: [customs/node], Open: ['*/*']}",
        "test.Door: {Open: [customs/node]}\ntest.Door: {Open: ['*/*']}",
        "test.Door:",
        "test.Door: {Open: }",
        "test.Door: {Open: '*/*'}",
        "test.Door: {Open: ['*']}",
        "test.Door: {Open: ['*/node']}",
        "test.Door: {Open: ['customs/node/*']}",
        "test.Door: {Open: ['']}",
        "test.Door: {Opne: ['customs/node']}",
        "- test.Door",
        "",
        "test.Door: {Open: !!python/object/apply:os.getcwd []}",
    ],
)
def test_an_access_list_that_is_not_plain_stops_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(text)
    with pytest.raises(FailedPrecondition) as caught:
        AccessList(access.read(file), SERVED)
    assert caught.value.reason is Reason.ACCESS_LIST_INVALID


@pytest.mark.parametrize("text", ["{}", "test.Door: {}", "test.Door: {Open: []}", "test.Door: {Close: ['*/*']}"])
def test_an_empty_access_list_lets_nobody_in(tmp_path: Path, text: str) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(text)
    lists = AccessList(access.read(file), SERVED)
    for method in ("/test.Door/Open", "/test.Door/open", "/test.Door/", "/other.Door/Close", "test.Door/Close", ""):
        with pytest.raises(PermissionDenied):
            lists.check(method, VISITOR)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_secret_that_everybody_may_read_or_change_is_none(tmp_path: Path, mode: int) -> None:
    """Who has it can make page tokens, and tell whose pseudonym is whose."""
    file = tmp_path / "secret"
    file.write_bytes(b"0" * 32)
    file.chmod(mode)
    with pytest.raises(FailedPrecondition) as caught:
        read_secret(file)
    assert "chmod 600" in caught.value.message
    file.chmod(0o640)
    assert len(read_secret(file)) == 32


@pytest.mark.parametrize("content", [b"", b"0" * 31])
def test_a_short_secret_is_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(FailedPrecondition):
        read_secret(file)
    with pytest.raises(FailedPrecondition):
        read_secret(tmp_path / "none")


async def test_an_agency_whose_policy_the_gateway_lacks_gives_nothing(own: Mesh) -> None:
    own.gateway_policies = "apart"
    (own.folder / "apart").mkdir()
    (own.folder / "apart" / "customs.cedar").write_text("")
    await own.replace_gateway()
    selections = ("customs.Declaration", "taxation.TaxpayerStatus:uscc")
    (customs, _) = await ask(own, TAX, question(SUBJECT, *selections, **REBATE))
    assert (customs.status, customs.reason, len(customs.records)) == (DENIED, Reason.NO_PERMIT, 0)
    (_, taxation) = await ask(own, TAX, question(SUBJECT, *selections, **PUBLIC))
    assert taxation.records


@pytest.mark.parametrize("agency", ["taxation", "commerce"])
async def test_a_department_does_not_start_with_the_policy_of_another(tmp_path: Path, agency: str) -> None:
    mesh = Mesh(tmp_path)
    theirs = mesh.policy(agency)
    mesh.policy("customs").write_text(theirs.read_text())
    with pytest.raises(PolicyRefused):
        await mesh.start("customs")
    await mesh.stop()


async def given(mesh: Mesh) -> bool:
    try:
        return bool((await get(mesh, TAX, DECLARATION, context=why(**REBATE))).declaration_no)
    except PermissionDenied:
        return False


async def test_an_emptied_policy_closes_everything(own: Mesh) -> None:
    assert await given(own)
    own.policy("customs").write_text("")
    async with asyncio.timeout(10):
        while await given(own):
            pass
    assert (await refused(get(own, TAX, DECLARATION, context=why(**REBATE)))).reason is Reason.NO_PERMIT


def cut_short(path: Path) -> None:
    text = path.read_text()
    path.write_text(text[: text.rindex("permit (") + 4])


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def not_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")


def wide_open(path: Path) -> None:
    path.write_text(
        '@id("all") @basis("CN-PUBLIC-REGISTER") @until("2099-01-01T00:00:00Z") permit (principal, action, resource);'
    )


def another_permit_for_withheld(path: Path) -> None:
    more = """
    @id("x") @basis("CN-PUBLIC-REGISTER") @until("2099-01-01T00:00:00Z")
    permit (principal, action, resource in Hutong::RecordType::"customs.CbecListing")
    when { context.purpose == "P-STAT" };
    """
    path.write_text(path.read_text() + more)


@pytest.mark.parametrize("spoil", [cut_short, gone, a_folder, not_text, wide_open, another_permit_for_withheld])
async def test_a_spoiled_policy_changes_nothing(own: Mesh, spoil: Callable[[Path], None]) -> None:
    """The old one stays, with all that it forbids; the mistake is there to be seen."""
    spoil(own.policy("customs"))
    files = own.departments["customs"].policy_files
    async with asyncio.timeout(10):
        while files.last_error is None:
            assert await given(own)
    assert await given(own)
    listing = service_pb2.ListCbecListingsRequest(context=why(purpose="P-STAT", legal_basis="CN-PUBLIC-REGISTER"))
    response = service_pb2.ListCbecListingsResponse
    assert (await refused(call(own, TAX, f"{CUSTOMS}/ListCbecListings", listing, response))).reason is Reason.NO_PERMIT


async def test_without_a_revocation_list_nobody_gets_in(tmp_path: Path) -> None:
    clock = Clock()
    async with department(tmp_path, clock) as mesh:
        assert await given(mesh)
        path = mesh.zone.authority.layout.revoked
        good = path.read_bytes()
        for content in (None, b"", b"nonsense", good[:200], good.replace(b"X509 CRL", b"X509 LRC")):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            clock.ahead += dt.timedelta(seconds=2)
            error = await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE)))
            assert (type(error), error.reason) == (Unavailable, Reason.REVOCATION_UNKNOWN)
            path.write_bytes(good)
            clock.ahead += dt.timedelta(seconds=2)
            assert await given(mesh)


async def test_an_older_revocation_list_does_not_bring_anybody_back(tmp_path: Path) -> None:
    clock = Clock()
    async with department(tmp_path, clock) as mesh:
        path = mesh.zone.authority.layout.revoked
        assert await given(mesh)
        before = path.read_bytes()
        serial = mesh.zone.files(TAX).load().leaf.serial_number
        mesh.zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
        clock.ahead += dt.timedelta(seconds=2)
        error = await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE)))
        assert error.reason is Reason.CERTIFICATE_REVOKED
        path.write_bytes(before)
        clock.ahead += dt.timedelta(seconds=2)
        error = await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE)))
        assert error.reason is Reason.REVOCATION_UNKNOWN
        # Nor does a restart, which forgets whatever is not on disk.
        address = mesh.departments["customs"].host.address
        await mesh.departments["customs"].stop()
        await mesh.start("customs", address)
        error = await refused(get(mesh, TAX, DECLARATION, context=why(**REBATE)))
        assert error.reason is Reason.CERTIFICATE_REVOKED


async def test_a_permit_ends_on_time_whichever_way_the_clock_went(tmp_path: Path) -> None:
    """What was decided before the end is not used after it, nor what was decided in a future that was none."""
    clock = Clock()
    async with department(tmp_path, clock, ENDING.format((clock() + dt.timedelta(hours=2)).isoformat())) as mesh:

        async def weighed() -> bool:
            return (await get(mesh, TAX, DECLARATION, context=why(**REBATE))).HasField("gross_wt_kg")

        assert await weighed()
        for hours, expected in ((3, False), (1, True), (3, False), (0, True), (2.1, False)):
            clock.ahead = dt.timedelta(hours=hours)
            assert await weighed() is expected


ENDING = """
@id("ending") @basis("CN-VAT-REBATE") @until("{}")
permit (
    principal in Hutong::Agency::"taxation", action, resource == Hutong::Field::"customs.Declaration.gross_wt_kg"
) when {{ context.purpose == "P-REBATE" }};
"""
