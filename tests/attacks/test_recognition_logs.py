"""What a running recognition service writes down, at the most talkative log level: nobody's name, number or result."""

import asyncio
import contextlib
import datetime as dt
import json
import sqlite3
import urllib.request
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from certs.authority import Authority
from hutong.api.recognition.v1 import case_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.cli.fleet import Fleet
from services.cli.zone import Zone
from services.kit.client import Client
from services.kit.credentials.keys import SigningKeys
from services.kit.errors import HutongError
from tests.attacks.handing_in import (
    dispose,
    get_result,
    keys,
    list_results,
    list_tasks,
    register,
    remind,
    reserve,
    resigned,
    revoke,
    status_list,
    watched,
)
from tests.attacks.test_logs import exposed
from tests.recognition.mesh import CASES, CUSTOMS, PASS, POLICE, REGISTRY, SIGNERS, TAX, Mesh, enterprise, firm, fresh
from tests.zone import now

OFFICER = "OFFICER-SECRET"
SECRETS = (OFFICER, "VALUE-SECRET", "REASON-SECRET", "FREE-SECRET", "MADE-UP-SECRET", "APPROVAL-SECRET")


class Service(Mesh):
    """A recognition service as a process of its own, with those who call it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.keys = {agency: SigningKeys.open(fleet.zone.signing(agency)) for agency in SIGNERS}
        self.known: dict[str, Client] = {}
        self.subjects: list[str] = []

    def client(self, who: str, node: str = "recognition") -> Client:
        if who not in self.known:
            if not self.fleet.zone.credentials(who).certificate.exists():
                authority = Authority.open(self.fleet.zone.certificates.folder)
                authority.issue(self.fleet.zone.identity(who), now())
            self.known[who] = self.fleet.client(who, node)
        return self.known[who]

    def subject(self) -> str:
        self.subjects.append(firm())
        return self.subjects[-1]

    @property
    def store(self) -> Path:
        return self.fleet.zone.config_file("recognition").with_name("cases.db")


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Service]:
    """The service, after all that a day may bring."""
    zone = Zone.prepare(tmp_path_factory.mktemp("logs") / "zone")
    path = zone.config_file("recognition")
    text = path.read_text().replace('gateways = ["gateway/main"]', 'gateways = ["gateway/main"]\nbackdating = "60d"')
    path.write_text(f'{text}\n[telemetry]\nlog_level = "debug"\nsample = 1.0\n')
    async with Fleet(zone, nodes=["recognition"]) as fleet:
        service = Service(fleet)
        await everything_that_goes_well(service)
        await everything_that_goes_wrong(service)
        await asyncio.to_thread(break_cases, service)
        await everything_that_goes_wrong(service)
        await what_is_due(service)
        await asyncio.to_thread(break_store, service)
        await everything_that_goes_wrong(service)
        yield service


async def everything_that_goes_well(service: Service) -> None:
    subject = service.subject()
    result = await service.register(POLICE, "person_verified", subject=subject, value={"name": "VALUE-SECRET"})
    case_id = await service.accepted(subject)
    await service.closed(case_id, subject, recognised=("E2",))
    await service.get(enterprise(subject), case_id)
    await revoke(service, POLICE, result.result_ref, officer=OFFICER)
    for task in (await list_tasks(service, POLICE)).tasks:
        await dispose(service, POLICE, task.task_id, officer=OFFICER)
    other = service.subject()
    case_id = await service.accepted(other)
    await service.event(POLICE, case_id, "E2", "START", officer=OFFICER)
    await service.event(POLICE, case_id, "E2", "SUPPLEMENT_REQUEST", officer=OFFICER, reason_code="MATERIAL_MISSING")
    await service.event(enterprise(other), case_id, "E2", "SUPPLEMENT_RECEIVED", officer="MADE-UP-SECRET")
    await remind(service, enterprise(other), case_id)
    await watched(service, TAX, case_id)
    await service.list(CUSTOMS)


async def attempt(asking: Awaitable[Any]) -> None:
    with contextlib.suppress(HutongError):
        await asking


async def everything_that_goes_wrong(service: Service) -> None:
    subject = service.subject()
    who, free = enterprise(subject), "FREE-SECRET"
    await attempt(service.submit(subject=subject))
    for case_id in (free, "' OR 1=1 --", *(await a_case(service))):
        of_a_case: tuple[Awaitable[Any], ...] = (
            service.get(who, case_id),
            service.get(REGISTRY, case_id),
            service.event(POLICE, case_id, "E2", "START", officer=OFFICER, reason_code="REASON-SECRET"),
            service.event(POLICE, case_id, free, "EXTEND", officer=OFFICER, approval_ref="APPROVAL-SECRET"),
            service.event(POLICE, case_id, "E2", "RESULT", result_code=PASS, credential=free, officer=OFFICER),
            service.event(who, case_id, "", "WITHDRAW", reason_code="REASON-SECRET", officer="MADE-UP-SECRET"),
            service.event(POLICE, case_id, "E2", "START", stage_event_id=free),
            remind(service, who, case_id, free),
            watched(service, POLICE, case_id),
        )
        for asking in of_a_case:
            await attempt(asking)
    others: tuple[Awaitable[Any], ...] = (
        service.submit(subject=subject[:-1] + "0"),
        service.submit(subject=subject[:5]),
        service.submit(subject=subject, procedure=free),
        service.submit(subject=subject, answers={free: free}),
        service.submit(who=who, subject=service.subject()),
        service.submit(subject=subject, request_id=free),
        get_result(service, who, free),
        list_results(service, POLICE, subject + "x"),
        register(service, POLICE, free),
        reserve(service, POLICE, f"{free} "),
        dispose(service, POLICE, free, officer=OFFICER, reason_code="REASON-SECRET"),
        keys(service, who, free),
        status_list(service, who, free),
        service.list(REGISTRY, page_token=free),
        service.get(REGISTRY, free, purpose=free, legal_basis=free),
        service.client(REGISTRY).unary(f"{CASES}GetCase", free.encode() + b"\xff", pb.GetCaseResponse, timeout=5),
    )
    for asking in others:
        await attempt(asking)
    with contextlib.suppress(HutongError):
        signed = await service.credential(POLICE, "person_verified", subject=subject, value={"name": "VALUE-SECRET"})
        mine = service.keys["publicsecurity"]
        for forged in (signed[:-9], signed + signed, resigned(signed, mine, sub=f"cn.uscc:{subject}{free}", iat=free)):
            await attempt(register(service, POLICE, forged))
        await attempt(register(service, CUSTOMS, signed))


async def a_case(service: Service) -> list[str]:
    """Name some case there is, where the store still tells."""
    with contextlib.suppress(HutongError):
        return [view.case.case_id for view in (await service.list(REGISTRY, page_size=3)).cases]
    return []


def break_cases(service: Service) -> None:
    """Somebody edits the database by hand: events that are no events, with what they held still in them."""
    with sqlite3.connect(service.store) as connection:
        connection.execute("UPDATE stage_event SET body = substr(body, 1, length(body) - 7) WHERE sequence = 3")
        connection.execute("UPDATE stage_result SET credential = 'VALUE-SECRET' || credential")
    connection.close()


async def what_is_due(service: Service) -> None:
    """The scheduler comes to a case that cannot be read."""
    long_ago = now() - dt.timedelta(days=50)
    view = await service.submit(who=CUSTOMS, subject=service.subject(), procedure="AEO-CERT", applied_at=long_ago)
    seen = case_pb2.STAGE_EVENT_KIND_UNSPECIFIED
    async with asyncio.timeout(20):
        async for response in service.watch(CUSTOMS, view.case.case_id):
            seen = response.event.stage_event
            if seen == case_pb2.STAGE_EVENT_KIND_DEEMED:
                break
    await asyncio.to_thread(spoil_due, service)
    # Whoever begins a case wakes the scheduler, which finds the other one due.
    async with asyncio.timeout(20):
        while "A case could not be attended to" not in told(service):
            await service.submit(who=CUSTOMS, subject=service.subject(), procedure="AEO-CERT")


def spoil_due(service: Service) -> None:
    with sqlite3.connect(service.store) as connection:
        connection.execute("UPDATE stage_event SET body = '[\"' || substr(body, 1, 60) WHERE sequence = 1")
        connection.execute("UPDATE case_head SET next_at = '2026-01-01 00:00:00.000000' WHERE closed_at IS NULL")
    connection.close()


def break_store(service: Service) -> None:
    with sqlite3.connect(service.store) as connection:
        connection.execute("ALTER TABLE case_head RENAME TO lost")
        connection.execute("ALTER TABLE task RENAME TO lost_too")
    connection.close()


def told(service: Service) -> str:
    return (service.fleet.zone.logs / "recognition.log").read_text()


async def test_the_log_tells_much_and_names_nobody(service: Service) -> None:
    log = told(service)
    assert "Node serves" in log
    assert "Call failed unexpectedly" in log
    assert "Record store has other tables" in log
    assert "A case could not be attended to" in log
    assert {secret for secret in SECRETS if secret in log} == set()
    assert {subject for subject in service.subjects if subject in log or subject.lower() in log} == set()
    # Nor of any credential: none begins otherwise, and a signature has no other form.
    assert "eyJ" not in log


async def test_every_line_is_one_event(service: Service) -> None:
    for line in told(service).splitlines():
        assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


async def test_the_metrics_name_nobody(service: Service) -> None:
    address = service.fleet.zone.node("recognition").node.metrics
    scraped = await asyncio.to_thread(urllib.request.urlopen, f"http://{address}/metrics", timeout=5)
    text = scraped.read().decode()
    scraped.close()
    assert 'reason="CASE_NOT_FOUND"' in text
    assert {secret for secret in (*SECRETS, *service.subjects) if secret in text or secret.lower() in text} == set()


async def test_other_users_of_the_machine_read_nothing_of_it(service: Service) -> None:
    """Signing keys, published ones too, the store and its journal: all in folders that nobody else enters."""
    assert not exposed(service.fleet.zone.folder)


async def test_what_went_wrong_is_told_to_the_caller_by_a_number(service: Service) -> None:
    """A stranger learns that something failed, and under which number it stands in the log; nothing else."""
    with pytest.raises(HutongError) as caught:
        await service.get(enterprise(service.subjects[0]), fresh())
    assert caught.value.reason in {"INTERNAL", "STORE_NOT_MIGRATED"}
    for secret in (*SECRETS, *service.subjects, "case_head", "sqlite", str(service.fleet.zone.folder)):
        assert secret not in caught.value.message
