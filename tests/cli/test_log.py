"""`hutong log`: verified, proven, compared, witnessed, exported and erased, from every place a log can be read."""

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from hutong.api.log.v1 import log_pb2
from services.cli.logs import decisions
from services.cli.zone import Zone
from services.kit.log import keys
from services.kit.log.checkpoint import open_checkpoint
from services.kit.log.proof_text import ProofText
from tests.cli.logged import SUBJECT, as_answer, fill, log_of, reason, run, serving, told

COUNT = 300


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Zone, list[log_pb2.Receipt]]:
    zone = Zone.prepare(tmp_path_factory.mktemp("logs") / "zone")
    return zone, asyncio.run(fill(zone, COUNT))


@pytest.fixture(scope="module")
def zone(filled: tuple[Zone, list[log_pb2.Receipt]]) -> Zone:
    return filled[0]


@pytest.fixture(scope="module")
def receipts(filled: tuple[Zone, list[log_pb2.Receipt]]) -> list[log_pb2.Receipt]:
    return filled[1]


@pytest.fixture
def own(zone: Zone, tmp_path: Path) -> Zone:
    """A copy of the zone, to be spoiled."""
    shutil.copytree(zone.folder, tmp_path / "zone")
    return Zone.open(tmp_path / "zone")


def database(zone: Zone) -> sqlite3.Connection:
    return sqlite3.connect(zone.config_file("customs").with_name("log.db"))


def size_of(zone: Zone) -> int:
    with database(zone) as connection:
        (size,) = connection.execute("SELECT size FROM log_head").fetchone()
    return int(size)


def test_a_whole_log_from_its_database(zone: Zone) -> None:
    found = told("log", "verify", "customs", "--dir", zone.folder)
    assert (found["ok"], found["log"], found["entries"]) == (True, "ftz.example/customs/node", size_of(zone))
    shown = run("log", "verify", "--config", zone.config_file("customs"))
    assert shown.exit_code == 0
    assert f"whole: each of {size_of(zone)} entries" in shown.stdout


def test_a_whole_log_from_a_folder_that_anybody_has(zone: Zone, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    assert told("log", "export", "customs", "--to", folder, "--dir", zone.folder)["entries"] == size_of(zone)
    assert (folder / "tile" / "0" / "000").stat().st_size == 256 * 32
    arguments = ("log", "verify", "--tiles", folder, "--keys", zone.keys)
    assert told(*arguments)["entries"] == size_of(zone)
    assert told(*arguments, "--log", "ftz.example/customs/node")["ok"]
    assert reason(*arguments, "--log", "ftz.example/taxation/node") == "LOG_KEY_UNKNOWN"
    entries = next((folder / "tile" / "entries").iterdir())
    entries.write_bytes(entries.read_bytes().replace(b"P-REBATE", b"P-REBATF", 1))
    assert reason(*arguments) == "LOG_TAMPERED"


def test_a_log_that_others_may_see_has_no_entries(zone: Zone, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    told("log", "export", "customs", "--to", folder, "--hashes-only", "--dir", zone.folder)
    assert not (folder / "tile" / "entries").exists()
    assert told("log", "prove", "--index", "3", "--tiles", folder, "--keys", zone.keys)["ok"]
    assert reason("log", "verify", "--tiles", folder, "--keys", zone.keys) == "LOG_ENTRY_UNKNOWN"


def test_a_log_at_its_node(zone: Zone) -> None:
    config = zone.node("customs")
    assert config.log is not None
    https = ("--tiles", f"https://{config.log.tiles}")
    where = ("log", "verify", "customs", "--dir", zone.folder)
    with serving(zone, "customs"):
        assert told(*where, *https, "--as", "audit/desk")["entries"] == size_of(zone)
        assert told(*where, "--as", "audit/desk")["entries"] == size_of(zone)
        # Hashes are for every member, entries for readers.
        for way in (https, ()):
            assert reason(*where, *way, "--as", "taxation/refund") == "CALLER_NOT_LISTED"
            proven = ("log", "prove", "--node", "customs", "--index", "0", "--dir", zone.folder)
            assert told(*proven, *way, "--as", "taxation/refund")["ok"]
        assert run(*where, *https).exit_code == 2
        # Another node's certificate is not this one's.
        other = ("log", "verify", "taxation", "--dir", zone.folder, *https, "--as", "audit/desk")
        assert reason(*other) == "LOG_UNAVAILABLE"
    assert reason(*where, *https, "--as", "audit/desk") == "LOG_UNAVAILABLE"


@pytest.mark.parametrize("url", ["https://nowhere", "https://a:b", "https://u@h:1", "https://h:99999"])
def test_what_is_no_address_of_tiles(zone: Zone, url: str) -> None:
    where = ("log", "verify", "customs", "--dir", zone.folder, "--tiles", url, "--as", "audit/desk")
    assert reason(*where) == "MALFORMED_REQUEST"


SPOILS = {
    "an entry": "UPDATE log_entry SET entry = CAST(entry || x'00' AS BLOB) WHERE \"index\" = 7",
    "a leaf": 'UPDATE log_entry SET leaf_hash = randomblob(32) WHERE "index" = 7',
    "a stored root": 'UPDATE log_hash SET hash = randomblob(32) WHERE level = 1 AND "index" = 0',
    "an entry left out": 'DELETE FROM log_entry WHERE "index" = 7',
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_whatever_was_changed_is_found(own: Zone, spoil: str) -> None:
    with database(own) as connection:
        connection.execute(SPOILS[spoil])
    shown = run("log", "verify", "customs", "--dir", own.folder)
    assert shown.exit_code == 1
    assert "LOG_TAMPERED" in shown.stderr


def test_a_receipt_becomes_a_proof_that_anybody_checks(
    zone: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path
) -> None:
    answer, proof = as_answer(receipts[41], tmp_path / "answer.json"), tmp_path / "answer.tlog-proof"
    proven = told("log", "prove", answer, "--dir", zone.folder, "--out", proof)
    assert (proven["index"], proven["tree_size"]) == (receipts[41].index, size_of(zone))
    assert proven["receipt"]
    # With nothing but the published keys.
    elsewhere = tmp_path / "keys"
    shutil.copytree(zone.keys, elsewhere)
    shown = run("log", "prove", "--check", proof, "--keys", elsewhere)
    assert shown.exit_code == 0, shown.stderr
    assert "proven: the entry that the receipt promises" in shown.stdout
    text = proof.read_text(encoding="utf-8")
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")
    found = ProofText.parse(text)
    assert str(found) == text
    for spoiled, why in (
        (text.replace(f"index {found.index}", f"index {found.index + 1}"), "LOG_PROOF_INVALID"),
        (text.replace("ftz.example/customs/node\n", "ftz.example/taxation/node\n", 1), "LOG_KEY_UNKNOWN"),
        (text[: text.index("\n\n")], "MALFORMED_REQUEST"),
        ("", "MALFORMED_REQUEST"),
    ):
        proof.write_text(spoiled, encoding="utf-8")
        assert reason("log", "prove", "--check", proof, "--keys", elsewhere) == why


def test_receipts_as_people_have_them(zone: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path) -> None:
    alone, raw = tmp_path / "receipt.json", tmp_path / "receipt.bin"
    answer = json.loads(as_answer(receipts[3], tmp_path / "answer.json").read_text(encoding="utf-8"))
    alone.write_text(json.dumps(answer["receipt"]), encoding="utf-8")
    raw.write_bytes(receipts[3].SerializeToString())
    for file in (alone, raw):
        assert told("log", "prove", file, "--dir", zone.folder)["index"] == receipts[3].index
    for wrong in ("{}", '{"receipt": 3}', '{"receipt": {"index": "x"}}', "[]", "", "\x00"):
        alone.write_text(wrong, encoding="utf-8")
        assert reason("log", "prove", alone, "--dir", zone.folder) == "RECEIPT_INVALID"


@pytest.mark.parametrize("change", ["index", "leaf_hash", "signature", "origin"])
def test_a_receipt_that_was_changed_proves_nothing(
    zone: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path, change: str
) -> None:
    spoiled = log_pb2.Receipt()
    spoiled.CopyFrom(receipts[5])
    value = getattr(spoiled, change)
    news = {"origin": "ftz.example/taxation/node", "index": spoiled.index + 1}
    setattr(spoiled, change, news.get(change) or bytes([value[0] ^ 1]) + value[1:])
    answer = as_answer(spoiled, tmp_path / "answer.json")
    assert reason("log", "prove", answer, "--dir", zone.folder) == "RECEIPT_INVALID"


def test_a_promise_that_the_log_did_not_keep(own: Zone, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(own.folder, other)
    (promised, *_) = asyncio.run(fill(Zone.open(other), 20))
    answer = as_answer(promised, tmp_path / "answer.json")
    assert reason("log", "prove", answer, "--dir", own.folder) == "LOG_ENTRY_UNKNOWN"
    asyncio.run(fill(own, 20))
    assert reason("log", "prove", answer, "--dir", own.folder) == "LOG_PROOF_INVALID"
    assert told("log", "prove", answer, "--dir", other)["ok"]


def test_a_log_that_is_not_there(zone: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path) -> None:
    answer = as_answer(receipts[41], tmp_path / "answer.json")
    empty = Zone.prepare(tmp_path / "empty")
    shutil.rmtree(empty.keys)
    shutil.copytree(zone.keys, empty.keys)
    assert reason("log", "prove", answer, "--dir", empty.folder) == "STORE_NOT_MIGRATED"


def test_a_log_has_only_grown(own: Zone, tmp_path: Path) -> None:
    told("log", "export", "customs", "--to", tmp_path / "then", "--dir", own.folder)
    then = tmp_path / "then" / "checkpoint"
    before = size_of(own)
    asyncio.run(fill(own, 20))
    grown = told("log", "consistency", then, "--dir", own.folder)
    assert (grown["old_size"], grown["size"], grown["kept"]) == (before, size_of(own), True)
    assert told("log", "consistency", then, then, "--dir", own.folder)["size"] == before
    sizes = told("log", "consistency", "100", "200", "--node", "customs", "--dir", own.folder)
    assert (sizes["old_size"], sizes["size"], sizes["kept"]) == (100, 200, False)
    assert reason("log", "consistency", "1", "99999", "--node", "customs", "--dir", own.folder) == "LOG_ENTRY_UNKNOWN"
    told("log", "export", "customs", "--to", tmp_path / "now", "--dir", own.folder)
    now = tmp_path / "now" / "checkpoint"
    assert reason("log", "consistency", now, then, "--dir", own.folder) == "LOG_FORKED"
    files = ("log", "consistency", then, "--tiles", tmp_path / "now", "--keys", own.keys)
    assert told(*files)["size"] == size_of(own)


def test_a_log_with_two_histories_is_caught(own: Zone, zone: Zone, tmp_path: Path) -> None:
    # The same key, twenty other answers each: what a node would have to do that shows members different logs.
    other = tmp_path / "other"
    shutil.copytree(own.folder, other)
    for each in (own, Zone.open(other)):
        asyncio.run(fill(each, 20))
    told("log", "export", "customs", "--to", tmp_path / "one", "--dir", own.folder)
    kept = tmp_path / "one" / "checkpoint"
    assert reason("log", "consistency", kept, "--dir", other) == "LOG_FORKED"
    asyncio.run(fill(Zone.open(other), 5))
    assert reason("log", "consistency", kept, "--dir", other) == "LOG_FORKED"
    told("log", "export", "customs", "--to", tmp_path / "back", "--dir", zone.folder)
    assert reason("log", "consistency", kept, tmp_path / "back" / "checkpoint", "--dir", zone.folder) == "LOG_FORKED"


def test_two_heads_of_one_size_convict_without_the_log(own: Zone, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(own.folder, other)
    for folder, to in ((own.folder, "one"), (other, "two")):
        asyncio.run(fill(Zone.open(folder), 20))
        told("log", "export", "customs", "--to", tmp_path / to, "--dir", folder)
    heads = (tmp_path / "one" / "checkpoint", tmp_path / "two" / "checkpoint")
    assert reason("log", "consistency", *heads, "--keys", own.keys, "--tiles", tmp_path / "gone") == "LOG_FORKED"


def test_witnesses_cosign_and_say_where_they_are(own: Zone) -> None:
    before = told("log", "witness", "customs", "--dir", own.folder)
    (witness,) = before["witnesses"]
    assert (witness["size"], witness["behind"]) == (0, size_of(own))
    node = witness["witness"].split("/")[1]
    with serving(own, node):
        after = told("log", "witness", "customs", "--now", "--dir", own.folder)
        assert after["answers"] == {witness["witness"]: "co-signs"}
    assert after["witnesses"][0]["behind"] == 0
    seen = told("log", "witness", node, "--dir", own.folder)
    assert [each["log"] for each in seen["cosigned"]] == ["ftz.example/customs/node"]
    verified = told("log", "verify", "customs", "--dir", own.folder)
    assert verified["cosigned_by"] == [witness["witness"]]
    # Nobody is there to ask.
    away = told("log", "witness", "customs", "--now", "--dir", own.folder)
    assert away["answers"] == {witness["witness"]: "away"}
    shown = run("log", "witness", node, "--dir", own.folder)
    assert "What this node has co-signed" in shown.stdout


def test_proofs_are_made_in_what_witnesses_have_cosigned(
    own: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path
) -> None:
    (witness,) = told("log", "witness", "customs", "--dir", own.folder)["witnesses"]
    node = witness["witness"].split("/")[1]
    with serving(own, node):
        told("log", "witness", "customs", "--now", "--dir", own.folder)
    cosigned = size_of(own)
    (late, *_) = asyncio.run(fill(own, 20))
    answer = as_answer(receipts[0], tmp_path / "answer.json")
    for way in ((), ("--as", "taxation/refund")):
        with serving(own, "customs"):
            proven = told("log", "prove", answer, "--dir", own.folder, *way)
        assert (proven["tree_size"], proven["cosigned_by"]) == (cosigned, [witness["witness"]])
    # What came after that nobody has co-signed yet.
    newest = told("log", "prove", as_answer(late, tmp_path / "late.json"), "--dir", own.folder)
    assert (newest["tree_size"], newest["cosigned_by"]) == (size_of(own), [])


def test_a_log_that_lost_entries_is_told_so_by_its_witness(own: Zone, tmp_path: Path) -> None:
    (witness,) = told("log", "witness", "customs", "--dir", own.folder)["witnesses"]
    node = witness["witness"].split("/")[1]
    file = own.config_file("customs").with_name("log.db")
    shutil.copy(file, tmp_path / "backup.db")
    asyncio.run(fill(own, 20))
    with serving(own, node):
        told("log", "witness", "customs", "--now", "--dir", own.folder)
        for leftover in file.parent.glob("log.db*"):
            leftover.unlink()
        shutil.copy(tmp_path / "backup.db", file)
        lost = told("log", "witness", "customs", "--now", "--dir", own.folder, code=1)
        assert lost["answers"] == {witness["witness"]: "ahead"}
        asyncio.run(fill(own, 30))
        forked = told("log", "witness", "customs", "--now", "--dir", own.folder, code=1)
        assert forked["answers"] == {witness["witness"]: "forked"}
    (evidence,) = told("log", "witness", node, "--dir", own.folder, code=1)["evidence"]
    assert (evidence["log"], evidence["proven"]) == ("ftz.example/customs/node", True)
    shown = run("log", "witness", node, "--dir", own.folder)
    assert "Evidence of two histories" in shown.stdout
    for part in ("ftz.example/customs/node", evidence["time"], evidence["root"], evidence["witnessed_root"]):
        assert part in shown.stdout
    # Whoever has the log's key finds it guilty with nothing but the files.
    files = told("log", "witness", node, "--out", tmp_path / "evidence", "--dir", own.folder, code=1)["files"]
    key = keys.find(own.keys, "ftz.example/customs/node")
    heads = [open_checkpoint(Path(file).read_text(), [key]).checkpoint for file in files if file.endswith("checkpoint")]
    sizes = {(head.size, head.root.hex()) for head in heads}
    said = {(evidence["size"], evidence["root"]), (evidence["witnessed_size"], evidence["witnessed_root"])}
    assert (len(heads), sizes) == (2, said)
    none = run("log", "witness", "customs", "--out", tmp_path / "none", "--dir", own.folder)
    assert ("nothing written" in none.stdout, (tmp_path / "none").exists()) == (True, False)


def test_decisions_go_into_a_file_that_is_for_nobody_else(zone: Zone, tmp_path: Path) -> None:
    file = tmp_path / "customs.decisions"
    found = told("log", "export", "customs", "--decisions", file, "--dir", zone.folder)
    assert found["entries"] == size_of(zone)
    assert file.stat().st_mode & 0o077 == 0
    pages = list(decisions.from_file(file))
    assert [each.index for page in pages for each in page.decisions] == list(range(size_of(zone)))
    none = told("log", "export", "customs", "--decisions", file, "--since", "2099-01-01", "--dir", zone.folder)
    assert none["entries"] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "customs"),
        ("export", "customs", "--to", "a", "--decisions", "b"),
        ("export", "customs", "--to", "a", "--since", "2026-01-01"),
        ("export", "customs", "--decisions", "b", "--hashes-only"),
        ("export", "--to", "a"),
        ("verify",),
        ("prove",),
        ("prove", "answer.json", "--index", "3"),
        ("prove", "--index", "3"),
        ("witness",),
        ("erase", "cn.uscc:91350211M000100Y46"),
        ("consistency", "3"),
    ],
)
def test_wrong_calls(zone: Zone, arguments: tuple[str, ...]) -> None:
    assert run("log", *arguments, "--dir", zone.folder).exit_code == 2


def test_a_node_without_a_log(zone: Zone, tmp_path: Path) -> None:
    text = zone.config_file("customs").read_text(encoding="utf-8")
    bare = tmp_path / "node.toml"
    bare.write_text(text.partition("\n[log]")[0], encoding="utf-8")
    assert reason("log", "verify", "--config", bare) == "CONFIG_INVALID"
    assert reason("log", "verify", "--config", tmp_path / "none.toml") == "CONFIG_FILE_MISSING"


def test_erasing_leaves_every_proof(own: Zone, receipts: list[log_pb2.Receipt], tmp_path: Path) -> None:
    subject = ":".join(SUBJECT)
    arguments = ("log", "erase", subject, "customs", "--dir", own.folder)
    assert run(*arguments).exit_code == 1  # nobody said yes
    assert told(*arguments, "--yes")["entries"] == COUNT
    with database(own) as connection:
        assert connection.execute("SELECT count(*) FROM log_opening").fetchone() == (0,)
    assert told("log", "verify", "customs", "--dir", own.folder)["ok"]
    assert told("log", "prove", as_answer(receipts[9], tmp_path / "answer.json"), "--dir", own.folder)["ok"]
    assert reason("log", "erase", "cn.uscc:nonsense", "customs", "--dir", own.folder, "--yes") == "SUBJECT_INVALID"


def test_erasing_beside_a_running_node(own: Zone) -> None:
    with serving(own, "customs"):
        assert told("log", "erase", ":".join(SUBJECT), "customs", "--dir", own.folder, "--yes")["entries"] == COUNT
        size = size_of(own)
        assert told("log", "verify", "customs", "--dir", own.folder, "--as", "audit/desk")["entries"] == size


def test_every_log_of_a_zone_is_of_its_own(zone: Zone) -> None:
    assert log_of(zone).origin != log_of(zone, "taxation").origin
