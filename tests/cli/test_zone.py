"""A zone folder: made whole, completed where half made, never overwritten."""

import datetime as dt
import shutil
import stat
import tomllib
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.register import RevocationReason, State
from services.cli import node_files
from services.cli.node_files import AUDIT
from services.cli.rooms import GATEWAY, RECOGNITION, SUPERVISION, rooms
from services.cli.zone import CALLERS, OPERATOR, Zone, held
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.log import keys as log_keys
from services.kit.log.checkpoint import origin_of
from services.kit.officers.issuer import Issuer


def test_a_new_zone_is_whole(zone: Zone) -> None:
    assert set(zone.nodes) == {*rooms(), "recognition", "supervision", "gateway"}
    nodes = (f"{agency}/node" for agency in (*rooms(), RECOGNITION, SUPERVISION))
    for path in (*CALLERS, OPERATOR, "gateway/main", *nodes):
        assert zone.credentials(path).load().spiffe_id == zone.identity(path)
    configs = [zone.node(name) for name in zone.nodes]
    listening = {each.node.listen for each in configs} | {each.node.metrics for each in configs}
    listening |= {each.log.tiles for each in configs if each.log}
    assert len(listening) == 3 * len(zone.nodes)
    assert all(address and int(address.rpartition(":")[2]) < 32_768 for address in listening)


def test_keys_and_secrets_are_their_owners_only(zone: Zone) -> None:
    secret = [*zone.folder.rglob("secret"), *zone.folder.rglob("*.key"), *zone.folder.rglob("*.private-key.pem")]
    assert len(secret) > 2 * len(rooms())
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE(zone.folder.stat().st_mode) == 0o700


def test_every_agency_can_sign_and_everybody_can_verify(zone: Zone) -> None:
    now = dt.datetime.now(dt.UTC)
    published = PublishedKeys.load(zone.recognition().keys)
    assert set(published.agencies()) == {*rooms(), RECOGNITION, SUPERVISION}
    for agency in published.agencies():
        key = SigningKeys.open(zone.signing(agency)).active(now)
        assert key.issuer == published.issuer(agency) == f"spiffe://{zone.name}/{agency}"
        assert published.find(agency, key.kid, now)
        assert stat.S_IMODE(zone.signing(agency).stat().st_mode) == 0o700
    private = [*zone.folder.rglob("*.private.jwk.json")]
    assert len(private) == len(published.agencies())
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


def test_every_node_keeps_a_log_that_another_agency_co_signs(zone: Zone) -> None:
    listening = {zone.node(name).node.listen: zone.node(name).node.agency for name in zone.nodes}
    co_signing: set[str] = set()
    for name in zone.nodes:
        config = zone.node(name)
        assert config.log is not None
        origin = origin_of(zone.name, config.node.agency, config.node.system)
        signer = log_keys.read(config.log.key, origin)
        assert log_keys.find(config.log.keys, origin) == signer.verifier
        ((witness, peer),) = config.log.witnesses.items()
        assert witness == listening[peer.target] != config.node.agency
        co_signing.add(witness)
    assert co_signing == {*listening.values()}


def test_officers_are_known_where_they_act(zone: Zone) -> None:
    supervision = zone.supervision()
    # Whoever owns records approves authorizations for them.
    assert set(supervision.officers) == {*rooms(), RECOGNITION, SUPERVISION, AUDIT}
    assert not supervision.break_glass
    assert supervision.owner_approval
    for agency, section in supervision.officers.items():
        issuer = Issuer.open(zone.officers(agency))
        assert issuer.uri == section.issuer
        assert section.jwks is not None
        assert section.jwks.resolve() == zone.published_officers(agency).resolve()
        assert stat.S_IMODE(zone.officers(agency).stat().st_mode) == 0o700
    # An agency's data officers and the auditors look at its log; others have no business there.
    assert set(zone.department("customs").officers) == {"customs", AUDIT}
    assert set(zone.recognition().officers) == {RECOGNITION, AUDIT}
    assert set(zone.node(GATEWAY).officers) == {AUDIT}


def test_a_zone_of_an_older_version_gets_what_is_new(zone: Zone) -> None:
    """Tables that configs have nothing of come at the end; what was there stays, to the byte."""
    for made in (*zone.folder.glob("*/officers"), zone.folder / "officers", zone.folder / SUPERVISION):
        shutil.rmtree(made)
    for public in (*zone.keys.glob("*.vkey"), zone.keys / f"{SUPERVISION}.jwks.json"):
        public.unlink()
    older: dict[str, str] = {}
    for name in zone.nodes:
        path = zone.config_file(name)
        older[name] = _without(path.read_text(), ("log", "officers", "authorizations")) + "\n# mine\n"
        path.write_text(older[name])
        zone.log_key(name).unlink()
    published = {path.name: path.read_bytes() for path in zone.keys.glob("*.jwks.json")}
    Zone.prepare(zone.folder)
    assert zone.supervision().node.agency == SUPERVISION
    for name, text in older.items():
        assert zone.config_file(name).read_text().startswith(text)
        config = zone.node(name)
        assert config.log is not None
        assert config.log.witnesses
        assert config.log.key.exists()
        assert AUDIT in config.officers
        assert config.authorizations is not None
        assert config.authorizations.target == zone.supervision().node.listen
    assert published.items() <= {path.name: path.read_bytes() for path in zone.keys.glob("*.jwks.json")}.items()


def _without(text: str, names: tuple[str, ...]) -> str:
    """Take tables out of a config, as though it had been written before there were any."""
    head, *tables = text.split("\n[")
    kept = [table for table in tables if table.partition("]")[0].partition(".")[0] not in names]
    return "\n[".join([head, *kept])


@pytest.mark.parametrize("gone", ["officers.audit", "log.witnesses.publicsecurity"])
def test_what_was_taken_out_stays_out(zone: Zone, gone: str) -> None:
    path = zone.config_file("customs")
    head, *tables = path.read_text().split("\n[")
    kept = "\n[".join([head, *(table for table in tables if not table.startswith(f"{gone}]"))])
    assert kept != path.read_text()
    path.write_text(kept)
    Zone.prepare(zone.folder)
    assert path.read_text() == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a = 1",
        "a = 1\n[log]\nurl = 'x'\n",
        "log = {url = 'x'}\n",
        "officers = {}\n# [authorizations]\n",
        "[officers.customs]\nissuer = 'x'",
    ],
)
def test_a_config_is_completed_once(text: str) -> None:
    tables = {"log": "url = 'mine'\n", "log.witnesses.x": "target = 'y'\n", "officers.audit": "issuer = 'z'\n"}
    whole = node_files.complete(text, tables)
    assert whole.startswith(text)
    assert node_files.complete(whole, tables) == whole
    before, after = tomllib.loads(text), tomllib.loads(whole)
    assert {name: after[name] for name in before} == before
    assert {"log", "officers"} <= after.keys()
    assert ("witnesses" in after["log"]) == ("log" not in before)


def test_preparing_again_changes_nothing(zone: Zone) -> None:
    policy = zone.policy("customs")
    policy.write_text("// mine now\n")
    before = {path: path.read_bytes() for path in zone.folder.rglob("*") if path.is_file() and path.name != "lock"}
    assert Zone.prepare(zone.folder) == zone
    assert before == {path: path.read_bytes() for path in before}


def test_what_is_missing_is_made_again(zone: Zone) -> None:
    zone.policy("customs").unlink()
    zone.config_file("quality").unlink()
    Zone.prepare(zone.folder)
    assert zone.policy("customs").read_bytes() == rooms()["customs"].policy.read_bytes()
    assert zone.department("quality").node.agency == "quality"


def test_what_was_revoked_stays_so(zone: Zone) -> None:
    authority = Authority.open(zone.certificates.folder)
    now = dt.datetime.now(dt.UTC)
    identity = zone.identity(CALLERS[0])
    authority.revoke((authority.current()[identity].serial,), RevocationReason.KEY_COMPROMISE, now)
    Zone.prepare(zone.folder)
    assert Authority.open(zone.certificates.folder).current()[identity].state(now) is State.REVOKED


def test_a_base_port_moves_every_node_and_the_gateway_follows(zone: Zone) -> None:
    config = zone.config_file("customs")
    config.write_text(config.read_text() + "\n[limits]\ndrain = '3s'\n")
    Zone.prepare(zone.folder, base_port=21000)
    ports = sorted(int(zone.node(name).node.listen.rpartition(":")[2]) for name in zone.nodes)
    assert ports == list(range(21000, 21000 + len(zone.nodes)))
    gateway = zone.config_file("gateway").read_text()
    for agency in (*rooms(), RECOGNITION):
        assert f'target = "{zone.node(agency).node.listen}"' in gateway
    for agency in rooms():
        assert zone.department(agency).events[RECOGNITION].target == zone.recognition().node.listen
    for name in {*zone.nodes} - {SUPERVISION}:
        there = zone.node(name).authorizations
        assert there is not None
        assert there.target == zone.supervision().node.listen
    tiles = sorted(int(log.tiles.rpartition(":")[2]) for n in zone.nodes if (log := zone.node(n).log) and log.tiles)
    assert tiles == list(range(21200, 21200 + len(zone.nodes)))
    assert zone.department("customs").limits.drain == dt.timedelta(seconds=3)


def test_one_mesh_at_a_time(zone: Zone) -> None:
    with held(zone):
        with pytest.raises(FailedPrecondition) as caught, held(zone):
            pass
        assert caught.value.reason is Reason.ZONE_IN_USE
        with pytest.raises(FailedPrecondition):
            Zone.prepare(zone.folder)
    with held(zone):
        pass


def test_an_identity_is_agency_and_system(zone: Zone) -> None:
    with pytest.raises(InvalidArgument) as caught:
        zone.identity("taxation")
    assert caught.value.reason is Reason.NAME_INVALID


def test_another_folder_keeps_its_name(tmp_path: Path) -> None:
    assert Zone.prepare(tmp_path / "z", "port.example").name == "port.example"
    assert Zone.open(tmp_path / "z").name == "port.example"
