"""A zone folder: made whole, completed where half made, never overwritten."""

import datetime as dt
import stat
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.register import RevocationReason, State
from services.cli.rooms import RECOGNITION, rooms
from services.cli.zone import CALLERS, OPERATOR, Zone, held
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason


def test_a_new_zone_is_whole(zone: Zone) -> None:
    assert set(zone.nodes) == {*rooms(), "recognition", "gateway"}
    for path in (*CALLERS, OPERATOR, "gateway/main", *(f"{agency}/node" for agency in (*rooms(), RECOGNITION))):
        assert zone.credentials(path).load().spiffe_id == zone.identity(path)
    listening = {zone.node(name).node.listen for name in zone.nodes} | {zone.node(n).node.metrics for n in zone.nodes}
    assert len(listening) == 2 * len(zone.nodes)


def test_keys_and_secrets_are_their_owners_only(zone: Zone) -> None:
    secret = [*zone.folder.rglob("secret"), *zone.folder.rglob("*.key"), *zone.folder.rglob("*.private-key.pem")]
    assert len(secret) > 2 * len(rooms())
    assert {stat.S_IMODE(path.stat().st_mode) for path in secret} == {0o600}
    assert stat.S_IMODE(zone.folder.stat().st_mode) == 0o700


def test_every_agency_can_sign_and_everybody_can_verify(zone: Zone) -> None:
    now = dt.datetime.now(dt.UTC)
    published = PublishedKeys.load(zone.recognition().keys)
    assert set(published.agencies()) == {*rooms(), RECOGNITION}
    for agency in published.agencies():
        key = SigningKeys.open(zone.signing(agency)).active(now)
        assert key.issuer == published.issuer(agency) == f"spiffe://{zone.name}/{agency}"
        assert published.find(agency, key.kid, now)
        assert stat.S_IMODE(zone.signing(agency).stat().st_mode) == 0o700
    private = [*zone.folder.rglob("*.private.jwk.json")]
    assert len(private) == len(published.agencies())
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}


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
