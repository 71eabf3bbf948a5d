"""What the doctor finds, and what it says to do about it."""

import asyncio
import datetime as dt
import json
import shutil
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from certs.authority import Authority
from certs.issuance import ROOT_LIFE, root_certificate
from certs.svid import pem_of
from services.cli import checks
from services.cli.fleet import Fleet
from services.cli.rooms import room
from services.cli.zone import Zone
from services.kit.log.nodelog import MIGRATIONS
from services.kit.records import migrations
from tests.cli.conftest import run
from tests.zone import now

NODE = "customs"


def findings(zone: Zone, *more: str) -> dict[str, list[dict[str, str]]]:
    """Have a node looked at; gives what is not well, by what was looked at."""
    done = run("doctor", NODE, "--dir", zone.folder, "--json", *more)
    looked = json.loads(done.stdout)[NODE]
    assert (done.exit_code != 0) == any(finding["light"] == "red" for finding in looked)
    found: dict[str, list[dict[str, str]]] = {}
    for finding in looked:
        assert finding["said"]
        if finding["light"] != "green":
            assert finding["advice"], finding
            found.setdefault(finding["what"], []).append(finding)
    return found


@pytest.fixture
def made(zone: Zone) -> Zone:
    """A zone whose customs node has its databases."""
    base = zone.config_file(NODE).parent
    config = zone.department(NODE)
    migrations.upgrade(config.store.read_url(base), room(NODE).migrations)
    assert config.log is not None
    migrations.upgrade(config.log.read_url(base), MIGRATIONS)
    return zone


def replace(zone: Zone, old: str, new: str) -> None:
    file = zone.config_file(NODE)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def open_secret(zone: Zone) -> None:
    zone.department(NODE).secret.chmod(0o644)


def lose_secret(zone: Zone) -> None:
    zone.department(NODE).secret.unlink()


def end_certificate(zone: Zone) -> None:
    authority = Authority.open(zone.folder / "certs")
    authority.renew(zone.identity(f"{NODE}/node"), now() - dt.timedelta(hours=23))


def end_root(zone: Zone) -> None:
    """Trust one more root, which ends in a hundred days."""
    key = ec.generate_private_key(ec.SECP256R1())
    root = root_certificate(zone.name, key, now() - ROOT_LIFE + dt.timedelta(days=100), "former")
    with zone.certificates.bundle.open("ab") as file:
        file.write(pem_of(root))


def another_identity(zone: Zone) -> None:
    replace(zone, 'agency = "customs"', 'agency = "taxation"')


def lose_revocations(zone: Zone) -> None:
    zone.certificates.revoked.write_bytes(b"nothing")


def another_log_key(zone: Zone) -> None:
    shutil.copy(zone.log_key("taxation"), zone.log_key(NODE))


def unpublish(zone: Zone) -> None:
    for file in zone.keys.glob("customs.*.vkey"):
        file.unlink()


def break_policy(zone: Zone) -> None:
    with zone.policy(NODE).open("a") as file:
        file.write("permit (principal, action, resource);")


def old_tables(zone: Zone) -> None:
    replace(zone, "migrate = true", "migrate = false")
    (zone.config_file(NODE).parent / "records.db").unlink()


def unknown_key(zone: Zone) -> None:
    replace(zone, "[store]", "[store]\nmigrat = true")


@pytest.mark.parametrize(
    ("wreck", "what", "light", "said"),
    [
        (open_secret, "secrets", "yellow", "everybody"),
        (lose_secret, "secrets", "red", "No such file"),
        (end_certificate, "certificate", "yellow", "was not renewed"),
        (end_root, "authority", "yellow", "a root that it trusts ends"),
        (another_identity, "certificate", "red", "the config says"),
        (lose_revocations, "revocations", "red", "revoked"),
        (another_log_key, "log key", "red", "another key"),
        (unpublish, "log key", "yellow", "nobody can check"),
        (break_policy, "policy", "red", "POLICY"),
        (old_tables, "store", "red", "STORE_NOT_MIGRATED"),
        (unknown_key, "config", "red", "migrat: unknown key"),
    ],
)
def test_what_is_wrong_is_found_and_what_to_do_is_said(
    made: Zone, wreck: Callable[[Zone], None], what: str, light: str, said: str
) -> None:
    before = findings(made)
    # Nothing runs: that is all.
    assert set(before) == {"serves", "calls"}
    wreck(made)
    after = findings(made)
    assert any(said in finding["said"] and finding["light"] == light for finding in after[what]), after
    assert set(after) - set(before) <= {what, "calls", "serves", "log key"}


def test_a_disk_that_is_nearly_full_is_seen(made: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(made.folder).free
    monkeypatch.setattr(checks, "_LITTLE", free * 2)
    assert [each["light"] for each in findings(made)["store"]] == ["yellow"]
    monkeypatch.setattr(checks, "_NONE", free * 2)
    assert [each["light"] for each in findings(made)["log database"]] == ["red"]


async def test_nothing_is_wrong_with_a_mesh_that_runs(mesh: Fleet) -> None:
    zone = mesh.zone
    done = await asyncio.to_thread(run, "doctor", "--dir", zone.folder)
    assert done.exit_code == 0, done.stdout
    assert "nothing to do" in done.stdout
    done = await asyncio.to_thread(run, "doctor", NODE, "--all", "--dir", zone.folder)
    assert "spiffe://ftz.example/customs/node at" in " ".join(done.stdout.split())
    gateway = zone.config_file("gateway")
    done = await asyncio.to_thread(run, "doctor", "gateway", "--config", gateway, "--json")
    assert done.exit_code == 0, done.stdout
    departments = [finding["said"] for finding in json.loads(done.stdout)["gateway"] if finding["what"] == "calls"]
    assert len(departments) >= 6


def test_a_room_that_is_none_is_named(made: Zone) -> None:
    done = run("doctor", "costums", "--dir", made.folder)
    assert done.exit_code == 1
    assert "ROOM_UNKNOWN" in done.stdout + done.stderr
    assert run("doctor", "--config", made.config_file(NODE)).exit_code == 2
