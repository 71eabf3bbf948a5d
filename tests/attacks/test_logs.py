"""What a running mesh writes down, at the most talkative log level: no identifier of anybody, no value of any field."""

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import urllib.request
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from hutong.api.customs.v1 import service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.cli.fleet import Fleet
from services.cli.rooms import rooms
from services.cli.zone import Zone
from services.kit.errors import HutongError
from services.kit.records import catalogue
from services.kit.records.store import Draft, RecordStore
from tests.attacks.asking import CUSTOMS, DECLARATION, REBATE, SUBJECT, TAX, why
from tests.exchange.mesh import QUERY, question
from tests.exchange.records import RECORDS
from tests.zone import now

SECRETS = (
    "91990000",  # the codes of all enterprises
    "9999202600",  # the numbers of all declarations
    "Example Trading",
    "125000.50",
    "officer-secret",
    "CASE-SECRET",
    "BEHALF-SECRET",
    "FILTER-SECRET",
    "METADATA-SECRET",
)


@pytest.fixture(scope="module")
async def fleet(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Fleet]:
    """Customs and the gateway, as processes, at log level debug, after all that a day may bring."""
    zone = Zone.prepare(tmp_path_factory.mktemp("logs") / "zone")
    for name in ("customs", "gateway"):
        path = zone.config_file(name)
        path.write_text(f'{path.read_text()}\n[telemetry]\nlog_level = "debug"\nsample = 1.0\n')
    async with Fleet(zone, nodes=["customs", "gateway"]) as fleet:
        await load(zone)
        await everything_that_goes_well(fleet)
        await everything_that_goes_wrong(fleet)
        await asyncio.to_thread(break_store, zone)
        await everything_that_goes_well(fleet)
        await fleet.kill("customs")
        await everything_that_goes_well(fleet)
        yield fleet


async def load(zone: Zone) -> None:
    kinds = {kind.message.DESCRIPTOR.full_name: kind for kind in catalogue.load()}
    async with RecordStore(zone.store_url("customs"), rooms()["customs"].catalogue(), now) as store:
        await store.append([Draft(kinds[m.DESCRIPTOR.full_name], m, "test") for m in RECORDS["customs"]])


def break_store(zone: Zone) -> None:
    """Somebody edits the database by hand: a body that is no record, and a table that is gone."""
    with sqlite3.connect(zone.config_file("customs").with_name("records.db")) as connection:
        connection.execute("UPDATE declaration SET _body = x'ffffff'")
        connection.execute("ALTER TABLE operator RENAME TO lost")
    connection.close()


async def attempt(fleet: Fleet, request: federation_pb2.QueryRequest) -> None:
    with contextlib.suppress(HutongError):
        await fleet.client(TAX).unary(QUERY, request, federation_pb2.QueryResponse, timeout=5)


async def everything_that_goes_well(fleet: Fleet) -> None:
    for kind in ("customs.Declaration", "customs.Operator", "customs.ClearanceEvent"):
        stated = {"case_ref": "CASE-SECRET", "on_behalf_of": "BEHALF-SECRET"}
        await attempt(fleet, question(SUBJECT, kind, **REBATE, **stated))
    public = {"purpose": "P-PUBLIC-REG", "legal_basis": "CN-PUBLIC-REGISTER"}
    await attempt(fleet, question(SUBJECT, "customs.Operator", **public))
    filtered = question(SUBJECT, "customs.Declaration", **REBATE)
    filtered.selections[0].filter = "trade_mode = 'FILTER-SECRET' OR declaration_no = '999920260000000001'"
    await attempt(fleet, filtered)


async def everything_that_goes_wrong(fleet: Fleet) -> None:
    for subject, kind, context in (
        ("cn.uscc:91990000MA0000001X", "customs.Declaration", REBATE),
        ("cn.uscc:91990000", "customs.Declaration", REBATE),
        ("91990000MA0000001X:1", "customs.Declaration", REBATE),
        (SUBJECT, "customs.91990000MA0000001X", REBATE),
        (SUBJECT, "customs.Declaration:91990000MA0000001X", REBATE),
        (SUBJECT, "customs.Declaration", REBATE | {"purpose": "91990000MA0000001X"}),
        (SUBJECT, "customs.Declaration", REBATE | {"legal_basis": "91990000MA0000001X"}),
    ):
        await attempt(fleet, question(subject, kind, **context))
    for text in (
        "91990000 = 1",
        "trader_uscc = '91990000'' --",
        "SELECT '91990000'",
        "overseas_party_name = '91990000'",
    ):
        request = question(SUBJECT, "customs.Declaration", **REBATE)
        request.selections[0].filter = text
        await attempt(fleet, request)
    paged = question(SUBJECT, "customs.Declaration", **REBATE)
    paged.selections[0].page_token = "91990000MA0000001X"
    await attempt(fleet, paged)
    client = fleet.client(TAX, "customs")
    for name in ("declarations/999920260000000002", "999920260000000002", DECLARATION):
        get = service_pb2.GetDeclarationRequest(name=name, context=why(**REBATE), fields=["91990000"])
        with pytest.raises(HutongError):
            await client.unary(f"{CUSTOMS}/GetDeclaration", get, service_pb2.GetDeclarationResponse, timeout=5)
    garbage = exchange_pb2.SignedContext(payload=b"91990000MA0000001X\xff", signature=b"91990000MA0000001X\xff")
    with pytest.raises(HutongError):
        await fleet.client(TAX).unary(QUERY, garbage, federation_pb2.QueryResponse, timeout=5)


def told(fleet: Fleet) -> dict[str, str]:
    return {path.name: path.read_text() for path in fleet.zone.logs.iterdir()}


async def test_the_logs_tell_much_and_name_nobody(fleet: Fleet) -> None:
    logs = told(fleet)
    assert set(logs) == {"customs.log", "gateway.log"}
    assert "Record store has other tables" in logs["customs.log"]
    assert "Call failed unexpectedly" in logs["customs.log"]
    assert "Department gave no answer" in logs["gateway.log"]
    for name, text in logs.items():
        assert {secret for secret in SECRETS if secret in text} == set(), name


async def test_every_line_is_one_event(fleet: Fleet) -> None:
    """Nothing that a caller wrote can begin a line of its own."""
    for text in told(fleet).values():
        for line in text.splitlines():
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


async def test_the_metrics_name_nobody(fleet: Fleet) -> None:
    address = fleet.zone.node("gateway").node.metrics
    scraped = await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/metrics", timeout=5)
    text = scraped.read().decode()
    scraped.close()
    assert 'reason="RECORD_TYPE_UNKNOWN"' in text
    assert {secret for secret in SECRETS if secret in text} == set()


async def test_other_users_of_the_machine_read_nothing_of_a_zone(fleet: Fleet) -> None:
    """Keys, secrets, records, policies and logs: whatever the umask was when the mesh was made."""
    assert not exposed(fleet.zone.folder)


def exposed(folder: Path) -> list[str]:
    """List what others may read, whose folder they may enter."""
    found: list[str] = []
    if folder.stat().st_mode & (stat.S_IXOTH | stat.S_IROTH):
        found.append(str(folder))
        for path in folder.iterdir():
            if path.is_dir():
                found += exposed(path)
            elif path.stat().st_mode & stat.S_IRWXO:
                found.append(str(path))
    return found


@pytest.mark.parametrize("made_before", [False, True])
def test_what_a_zone_holds_is_closed_under_any_umask(tmp_path: Path, made_before: bool) -> None:
    """Also in a folder that was there before and is open to everybody: what stands in it directly is not."""
    before = os.umask(0)
    try:
        if made_before:
            (tmp_path / "zone").mkdir(0o777)
        zone = Zone.prepare(tmp_path / "zone")
    finally:
        os.umask(before)
    assert exposed(zone.folder) == ([str(zone.folder)] if made_before else [])
    secrets = [*zone.folder.rglob("secret"), *zone.folder.rglob("*private-key*")]
    assert len(secrets) > 10
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
