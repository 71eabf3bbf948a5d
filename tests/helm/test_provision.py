"""`hutong provision` makes, keeps and renews what nodes hold in private; `hutong health` asks with it."""

import datetime as dt
import json
import stat
from pathlib import Path

import pytest

from certs.authority import Authority
from certs.register import RevocationReason
from certs.spiffe import SpiffeId
from tests.cli.conftest import Ran, run

ZONE = "port.example"
NODES = ("--node", "customs", "--node", "recognition", "--node", "gateway")


def provision(folder: Path, *more: str | Path) -> Ran:
    return run("provision", folder, "--zone", ZONE, *NODES, *more)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_everything_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "claim"
    first = provision(folder, "--system", "taxation/refund", "--json")
    assert first.exit_code == 0, first.stderr
    made = json.loads(first.stdout)
    assert sorted(made["issued"]) == [
        f"spiffe://{ZONE}/{name}" for name in ("customs/node", "gateway/main", "recognition/node", "taxation/refund")
    ]
    before = content(folder)
    assert {"nodes/customs/secret", "nodes/customs/log.key", "keys/customs.node.vkey", "trust/bundle.crt"} <= {*before}
    assert {"keys/recognition.jwks.json", "nodes/recognition/signing/published.jwks.json"} <= {*before}
    assert "nodes/customs/signing/published.jwks.json" not in before
    again = provision(folder, "--json")
    assert json.loads(again.stdout) == made | {"issued": [], "renewed": []}
    assert content(folder) == before


def test_what_is_private_is_nobody_elses(tmp_path: Path) -> None:
    provision(tmp_path)
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        public = path.is_file() and path.parent.name in {"trust", "keys"}
        if path.is_dir():
            assert mode == 0o700, path
        elif not public and path.suffix not in {".crt", ".crl", ".vkey"} and path.name != "published.jwks.json":
            assert mode == 0o600, path


def test_what_is_due_is_renewed(tmp_path: Path) -> None:
    provision(tmp_path)
    authority = Authority.open(tmp_path / "authority")
    identity = SpiffeId.of(ZONE, "customs", "node")
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(hours=13)
    authority.renew(identity, yesterday)
    renewed = json.loads(provision(tmp_path, "--json").stdout)["renewed"]
    assert renewed == [str(identity)]


def test_one_that_cannot_be_renewed_keeps_no_other_from_it(tmp_path: Path) -> None:
    provision(tmp_path)
    authority = Authority.open(tmp_path / "authority")
    for agency, system in (("customs", "node"), ("gateway", "main")):
        authority.renew(SpiffeId.of(ZONE, agency, system), dt.datetime.now(dt.UTC) - dt.timedelta(hours=13))
    broken = authority.layout.svid(SpiffeId.of(ZONE, "customs", "node")).certificate
    broken.unlink()
    (broken / "in the way").mkdir(parents=True)
    again = provision(tmp_path, "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout)["renewed"] == [f"spiffe://{ZONE}/gateway/main"]
    assert f"not renewed: spiffe://{ZONE}/customs/node" in again.stderr


def test_what_was_revoked_stays_so(tmp_path: Path) -> None:
    provision(tmp_path)
    authority = Authority.open(tmp_path / "authority")
    (entry,) = [each for each in authority.register.entries() if each.spiffe_id.agency == "customs"]
    authority.revoke((entry.serial,), RevocationReason.KEY_COMPROMISE, dt.datetime.now(dt.UTC))
    assert json.loads(provision(tmp_path, "--json").stdout)["issued"] == []
    # And it is published where nodes look.
    assert (tmp_path / "trust" / "revoked.crl").read_bytes() == (tmp_path / "authority" / "revoked.crl").read_bytes()


def test_published_keys_of_others_are_taken_along(tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "quality.jwks.json").write_text("{}")
    (tmp_path / "others" / "notes.txt").write_text("no key")
    assert provision(tmp_path / "claim", "--publish", tmp_path / "others").exit_code == 0
    assert (tmp_path / "claim" / "keys" / "quality.jwks.json").read_text() == "{}"
    assert not (tmp_path / "claim" / "keys" / "notes.txt").exists()


def test_another_zones_folder_is_refused_before_anything_changes(tmp_path: Path) -> None:
    provision(tmp_path)
    before = content(tmp_path)
    refused = run("provision", tmp_path, "--zone", "other.example", "--node", "quality")
    assert refused.exit_code == 1
    assert f"is the authority of {ZONE}, not of other.example" in refused.stderr
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["customs", "customs/", "Customs/x"])
def test_a_system_that_is_no_identity(tmp_path: Path, name: str) -> None:
    refused = provision(tmp_path / "claim", "--system", name)
    assert refused.exit_code == 1
    assert "error" in refused.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "CONFIG_INVALID"), ("[node", "CONFIG_INVALID"), ('node = "x"\ntls = 1', "CONFIG_INVALID")],
    ids=["empty", "no-toml", "no-tables"],
)
def test_health_of_a_config_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    refused = run("health", "--config", file, "--json")
    assert refused.exit_code == 1
    assert json.loads(refused.stderr or refused.stdout)["error"]["reason"] == reason


def test_health_without_a_config(tmp_path: Path) -> None:
    refused = run("health", "--config", tmp_path / "none.toml")
    assert refused.exit_code == 1
    assert "CONFIG_FILE_MISSING" in refused.stderr


def test_health_where_nobody_listens(tmp_path: Path) -> None:
    provision(tmp_path)
    identity = tmp_path / "authority/svid/customs/node/credential-bundle.private-key.pem"
    file = tmp_path / "node.toml"
    file.write_text(
        f'[node]\nzone = "{ZONE}"\nagency = "customs"\nlisten = "0.0.0.0:1"\n'
        f'[tls]\ncertificate = "{identity}"\nkey = "{identity}"\nbundle = "trust/bundle.crt"\n'
    )
    for more in ((), ("--alive",)):
        refused = run("health", "--config", file, *more)
        assert refused.exit_code == 1
        assert "customs/node does not answer at 127.0.0.1:1" in refused.stderr
