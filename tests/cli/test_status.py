"""What operators are told of how nodes do, and by which light."""

import asyncio
import json
import math
import re
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hutong.api.exchange.v1 import record_source_pb2
from hutong.api.node.v1 import node_pb2
from services.cli.main import app
from services.cli.status import watched
from services.cli.statuses import GET, Asked, Light, Standing, ask, lights
from services.kit.errors import Reason, Unavailable
from services.kit.host import Host
from services.kit.rpc import Call, bind
from tests.conftest import REPOSITORY
from tests.exchange.standin import ACCESS, SOURCE, Standin
from tests.transport.served import until
from tests.zone import ZONE, Zone

DAY = 86_400
ALERTS = REPOSITORY / "helm" / "hutong" / "files" / "alerts.yaml"
WELL = {"hutong_revocations_seconds_left": 7.0 * DAY, "hutong_events_customs_followed": 1.0}


@pytest.fixture
def zone(tmp_path: Path) -> Zone:
    return Zone(tmp_path)


async def answer(_: record_source_pb2.FetchRequest, __: Call) -> record_source_pb2.FetchResponse:
    return record_source_pb2.FetchResponse()


def asked(host: Host, zone: Zone, who: str) -> Asked:
    return Asked(host.address, host.identity, zone.files(who))


def cells(text: str, has: str) -> list[str]:
    """Read the cells of a table's line that has some word."""
    (line,) = (line for line in text.splitlines() if f" {has} " in line)
    return [cell.strip() for cell in re.split("[│┃]", line)[1:-1]]


async def test_a_node_tells_operators_how_it_does_and_nobody_else(zone: Zone) -> None:
    async with zone.serving(bind(SOURCE, Standin(answer)), ACCESS) as host:
        async with zone.client(host, "gateway/main") as client:
            await client.raw(f"/{SOURCE.full_name}/Fetch", b"", timeout=5)
        for _ in range(3):
            (refused,) = await ask([asked(host, zone, "taxation/refund")])
            assert refused.error is not None
            assert refused.error.reason is Reason.CALLER_NOT_LISTED
        (standing,) = await ask([asked(host, zone, "operator/admin")])
        status = standing.status
        assert status is not None
        assert status.identity == f"spiffe://{ZONE}/customs/node"
        assert 0 <= standing.up < 60
        assert 0 < standing.certified <= DAY
        assert standing.value("hutong_log_entries") == 1
        assert abs(standing.clock) < 5
        (refusals,) = status.refusals
        assert (refusals.reason, refusals.count) == (Reason.CALLER_NOT_LISTED, 3)
        assert refusals.rpc.endswith("NodeService/GetStatus")
        assert lights(standing) == (Light.GREEN, [])
        address = host.address
    (gone,) = await ask([Asked(address, host.identity, zone.files("operator/admin"))])
    assert lights(gone)[0] is Light.RED


def standing(zone: Zone, certified: float = 0.7 * DAY, clock: float = 0.0, **values: float) -> Standing:
    status = node_pb2.GetStatusResponse()
    status.now.FromSeconds(1_000_000)
    status.started_at.FromSeconds(990_000)
    status.certified_until.FromSeconds(1_000_000 + int(certified))
    for name, value in (WELL | values).items():
        status.readings.add(name=name, value=value, labels={"source": "customs/node", "zone": "other.example"})
    asked = Asked("localhost:1", zone.identity("customs/node"), zone.files("operator/admin"))
    return Standing(asked, status, None, clock)


def test_a_light_says_what_to_look_at(zone: Zone) -> None:
    assert lights(standing(zone)) == (Light.GREEN, [])
    red = [
        {"certified": -5.0},
        {"hutong_revocations_seconds_left": 0.0},
        {"hutong_log_failing": 1.0},
        {"hutong_overloaded": 1.0},
        {"hutong_policy_refused": 1.0},
        {"hutong_logs_forked": 2.0},
        {"hutong_log_witnesses_forked": 1.0},
        {"hutong_authorizations_broken": 1.0},
    ]
    yellow = [
        {"certified": 3600.0},
        {"hutong_revocations_seconds_left": 3600.0},
        {"hutong_authority_seconds_left": 100.0 * DAY},
        {"hutong_root_seconds_left": 100.0 * DAY},
        {"hutong_revocations_followed": 0.0},
        {"clock": -30.0},
        {"hutong_late_seconds": 0.3},
        {"hutong_log_witnesses_away": 1.0},
        {"hutong_events_customs_followed": 0.0},
        {"hutong_events_behind_seconds": 121.0},
        {"hutong_events_unpublished_seconds": 121.0},
        {"hutong_zone_unheard_seconds": 901.0},
        {"hutong_log_waiting": 1001.0},
        {"hutong_quotas_used_up": 1.0},
    ]
    for light, cases in ((Light.RED, red), (Light.YELLOW, yellow)):
        for case in cases:
            found, remarks = lights(standing(zone, **case))
            assert found is light, case
            assert len(remarks) == 1, case
    (remark,) = lights(standing(zone, hutong_events_behind_seconds=130.0))[1]
    assert remark == "what it knows of events of customs/node is 130 s old"
    (remark,) = lights(standing(zone, hutong_zone_unheard_seconds=1000.0))[1]
    assert remark == "it has not heard from the zone other.example for 1000 s"
    # Whatever else there is to say, the worst of it counts.
    found, remarks = lights(standing(zone, clock=9.0, hutong_log_failing=1.0))
    assert (found, len(remarks)) == (Light.RED, 2)
    broken = Standing(standing(zone).asked, None, Unavailable(Reason.DEPARTMENT_UNREACHABLE, "cannot connect"), 0.0)
    assert lights(broken) == (Light.RED, ["DEPARTMENT_UNREACHABLE: cannot connect"])


@pytest.mark.parametrize(
    ("alert", "reading"),
    [
        ("HutongCertificateNotRenewed", "certified"),
        ("HutongRevocationsLapse", "hutong_revocations_seconds_left"),
        ("HutongAuthorityEnds", "hutong_authority_seconds_left"),
        ("HutongAuthorityEnds", "hutong_root_seconds_left"),
        ("HutongClockOff", "clock"),
        ("HutongLogQueue", "hutong_log_waiting"),
        ("HutongEventsBehind", "hutong_events_behind_seconds"),
        ("HutongEventsUnpublished", "hutong_events_unpublished_seconds"),
        ("HutongZoneUnheard", "hutong_zone_unheard_seconds"),
    ],
)
def test_lights_have_the_thresholds_of_the_alerts(zone: Zone, alert: str, reading: str) -> None:
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    (text,) = (rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == alert)
    (found,) = {(way, number) for way, number in re.findall(r"([<>]) ([\d* ]*\d)", text)}
    limit = math.prod(map(float, found[1].split("*")))
    beyond = limit - 1 if found[0] == "<" else limit + 1
    assert lights(standing(zone, **{reading: limit}))[0] is Light.GREEN
    assert lights(standing(zone, **{reading: beyond}))[0] is Light.YELLOW


def test_lag_is_of_the_one_that_is_furthest_behind(zone: Zone) -> None:
    assert standing(zone).lag is None
    lags = {"hutong_events_behind_seconds": 3.0, "hutong_zone_unheard_seconds": 40.0}
    assert standing(zone, **lags).lag == 40
    assert standing(zone, **lags, hutong_events_unpublished_seconds=41.0).lag == 41
    assert standing(zone, hutong_events_behind_seconds=0.0).lag == 0


def times(host: Host) -> float:
    """Count how often a node was asked how it does."""
    counted = host.telemetry.calls.counted()
    return sum(each.value for each in counted if each.attributes and each.attributes["rpc"] == GET)


async def test_who_watches_sees_what_changes(zone: Zone, capsys: pytest.CaptureFixture[str]) -> None:
    async with zone.serving(bind(SOURCE, Standin(answer)), ACCESS) as host:
        watching = asyncio.create_task(watched([asked(host, zone, "operator/admin")], 0.01))
        async with asyncio.timeout(20), zone.client(host, "gateway/main") as client:
            await until(lambda: times(host) > 0)
            await client.raw(f"/{SOURCE.full_name}/Fetch", b"", timeout=5)
            # The first of these may have been asked before, and the second is on the screen once the third was asked.
            enough = times(host) + 3
            await until(lambda: times(host) >= enough)
        watching.cancel()
        await asyncio.wait((watching,))
        assert watching.cancelled()
    text = capsys.readouterr().out
    assert dict(zip(*(cells(text, line) for line in ("Node", "customs/node")), strict=True))["Log"] == "1"


async def test_the_command_shows_every_node_and_fails_where_one_is_red(zone: Zone) -> None:
    async with zone.serving(bind(SOURCE, Standin(answer)), ACCESS) as host:
        files = zone.files("operator/admin")
        where = ["--cert", str(files.certificate), "--key", str(files.key), "--bundle", str(files.bundle)]
        here = ["--node", f"customs/node={host.address}"]

        async def run(*arguments: str) -> tuple[int, str]:
            done = await asyncio.to_thread(CliRunner().invoke, app, ["status", *arguments])
            return done.exit_code, done.output

        code, text = await run(*here, *where)
        assert code == 0, text
        assert "customs/node" in text
        assert "1 node\n" in text
        read = dict(zip(*(cells(text, line) for line in ("Node", "customs/node")), strict=True))
        assert list(read) == ["", "Node", "Version", "Up", "Certificate", "Lag", "Calls", "Log", "What to look at"]
        assert (read[""], read["Node"], read["Version"]) == ("●", "customs/node", metadata.version("hutong"))
        assert re.fullmatch(r"\d+s", read["Up"])
        assert re.fullmatch(r"(1d 0|23)h( \d+m)?|1d 0h|23h \d+m", read["Certificate"])
        assert read["Lag"] == "–"
        assert (read["Calls"], read["Log"], read["What to look at"]) == ("1", "0", "–")
        code, text = await run(*here, "--node", "taxation/node=127.0.0.1:1", *where, "--json")
        assert code == 1
        both = json.loads(text)
        assert [node["light"] for node in both] == ["green", "red"]
        assert both[0]["status"]["identity"] == f"spiffe://{ZONE}/customs/node"
        code, text = await run("--node", "customs=1", *where)
        assert code != 0
        assert "agency/system=host:port" in text
