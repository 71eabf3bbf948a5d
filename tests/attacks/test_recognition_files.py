"""Files that somebody else got at: policies that open too much, keys in the open, half-written sets, swelling YAML."""

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hutong.api.exchange.v1 import federation_pb2
from hutong.api.recognition.v1 import case_service_pb2 as pb
from services.kit import access
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import LIMIT, PublishedKeys
from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.kit.jurisdiction import pack
from services.recognition import procedure_file
from services.recognition.agencies import Agencies
from services.recognition.arrangements import Arrangements
from services.recognition.calendars import Calendars
from services.recognition.procedures import Procedures
from services.recognition.reasons import Reasons
from services.recognition.tasks import Desk
from tests.attacks.handing_in import keys, register, status_list, told, why
from tests.exchange.mesh import QUERY, question, records
from tests.recognition.mesh import CUSTOMS, POLICE, REGISTRY, TAX, Mesh, enterprise, firm
from tests.zone import ZONE, now

FACT = "person_verified"

# Policies.

OPENED = """
@id("open-{field}")
@title("Opened by whoever got at the file")
@basis("CN-ADMIN-LICENSING")
@until("2099-12-31T23:59:59+08:00")
permit (
    principal,
    action == Hutong::Action::"read",
    resource == Hutong::Field::"recognition.StageEvent.{field}"
)
when {{ context.purpose == "{purpose}" }};
"""

WIDE = """
@id("open-everything")
@title("Opened by whoever got at the file")
@basis("CN-ADMIN-LICENSING")
@until("2099-12-31T23:59:59+08:00")
permit (principal, action == Hutong::Action::"read", resource)
when { context.purpose == "P-RISK" };
"""


def refused_start(mesh: Mesh) -> FailedPrecondition:
    async def start() -> None:
        try:
            await mesh.start()
        finally:
            await mesh.stop()
            mesh.node = None

    with pytest.raises(FailedPrecondition) as caught:
        asyncio.run(start())
    return caught.value


@pytest.mark.parametrize("text", [OPENED.format(field="officer_pseud", purpose="P-APPROVAL"), WIDE])
def test_a_policy_that_opens_what_leaves_as_a_pseudonym_only_stops_the_start(tmp_path: Path, text: str) -> None:
    mesh = Mesh(tmp_path)
    mesh.policy.write_text(mesh.policy.read_text() + text)
    assert refused_start(mesh).reason in {Reason.POLICY_OPENS_WITHHELD, Reason.POLICY_INVALID}


@pytest.mark.parametrize("purpose", ["P-APPROVAL", "P-RISK"])
async def test_a_policy_that_opens_officers_to_others_opens_none(tmp_path: Path, purpose: str) -> None:
    """The permit is taken, since an agency may read its own; those of others it does not reach, at any door."""
    mesh = Mesh(tmp_path)
    mesh.policy.write_text(mesh.policy.read_text() + OPENED.format(field="officer", purpose=purpose))
    context = {"purpose": purpose, "legal_basis": "CN-ADMIN-LICENSING"}
    try:
        await mesh.start()
        await mesh.start_gateway()
        subject = firm()
        case_id = await mesh.accepted(subject)
        for who in (TAX, CUSTOMS, POLICE, "bank/core", enterprise(subject)):
            try:
                view = await mesh.get(who, case_id, **context)
            except HutongError as error:
                assert error.reason in {Reason.NO_PERMIT, Reason.BASIS_MISMATCH}  # noqa: PT017
                continue
            assert not {event.officer for event in view.events} - {""}
        (section,) = await ask(mesh, TAX, subject, "recognition.StageEvent:agency,officer", **context)
        assert not {event.officer for event in records(section)} - {""}
        own = await mesh.get(REGISTRY, case_id, purpose="P-APPROVAL", legal_basis="CN-ADMIN-LICENSING")
        assert {event.officer for event in own.events} - {""} == {"W-7"}
    finally:
        await mesh.stop()


async def ask(mesh: Mesh, who: str, subject: str, *selections: str, **context: str) -> list[Any]:
    request = question(f"cn.uscc:{subject}", *selections, **context)
    answer = await mesh.client(who, "gateway").unary(QUERY, request, federation_pb2.QueryResponse, timeout=10)
    return list(answer.sections)


async def test_a_policy_that_opens_tasks_to_everybody_shows_none_through_the_gateway(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    opened = WIDE.replace("resource)", 'resource in Hutong::RecordType::"recognition.Task")')
    mesh.policy.write_text(mesh.policy.read_text() + opened)
    context = {"purpose": "P-RISK", "legal_basis": "CN-ADMIN-LICENSING"}
    try:
        await mesh.start()
        await mesh.start_gateway()
        subject = firm()
        await mesh.accepted(subject)
        with pytest.raises(HutongError) as caught:
            await ask(mesh, CUSTOMS, subject, "recognition.Task", **context)
        assert caught.value.reason in {Reason.LOOKUP_FIELD_NOT_READABLE, Reason.SUBJECT_SCHEME_UNSUPPORTED}
    finally:
        await mesh.stop()


async def test_a_policy_that_is_broken_while_the_node_runs_changes_nothing(own_approvals: Mesh) -> None:
    case_id = await own_approvals.accepted(firm())
    before = (await own_approvals.get(TAX, case_id)).SerializeToString()
    good = own_approvals.policy.read_text()
    for text in ("permit(principal, action, resource);", good[: len(good) // 2], "\x00" * 100, good + WIDE):
        # At once: of a file that is just being written nothing is there at first, and nothing would be open.
        fresh_ = own_approvals.policy.with_suffix(".new")
        fresh_.write_text(text)
        fresh_.replace(own_approvals.policy)
        node = own_approvals.node
        assert node is not None
        await node.policy_files.poll(node.engine)
        assert (await own_approvals.get(TAX, case_id)).SerializeToString() == before


# Private keys.


@pytest.fixture
def careless() -> Any:
    """A umask that closes nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.usefixtures("careless")
def test_private_keys_are_closed_to_others_from_the_first_byte_on(tmp_path: Path) -> None:
    folder = tmp_path / "signing"
    made = SigningKeys.create(folder, f"spiffe://{ZONE}/customs", now())
    made.rotate(now())
    made.publish(tmp_path / "keys")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    private = {name: mode for name, mode in modes(folder).items() if "private" in name}
    assert private
    assert set(private.values()) == {0o600}
    assert not [name for name, mode in modes(folder).items() if mode & stat.S_IWOTH]
    published = (tmp_path / "keys" / "customs.jwks.json").read_text()
    assert '"d"' not in published
    assert all(json.loads((folder / name).read_text())["d"] not in published for name in private)


@pytest.mark.parametrize("mode", [0o604, 0o606, 0o644, 0o666])
def test_a_private_key_that_others_may_read_signs_nothing(tmp_path: Path, mode: int) -> None:
    made = SigningKeys.create(tmp_path / "signing", f"spiffe://{ZONE}/customs", now())
    (file,) = (tmp_path / "signing").glob("*.private.jwk.json")
    file.chmod(mode)
    with pytest.raises(FailedPrecondition) as caught:
        made.active(now())
    assert caught.value.reason is Reason.KEY_INVALID
    assert str(tmp_path) not in str(caught.value)


def test_a_node_does_not_start_on_a_key_that_others_may_read(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    for file in (tmp_path / "recognition" / "signing").glob("*.private.jwk.json"):
        file.chmod(0o644)
    assert refused_start(mesh).reason is Reason.KEY_INVALID


async def test_a_node_whose_key_is_open_says_so_and_not_where_it_lies(own_approvals: Mesh) -> None:
    uri = (
        await own_approvals.register(POLICE, FACT, subject=firm())
    ).credential and "urn:hutong:status:publicsecurity:1"
    for file in (own_approvals.folder / "recognition" / "signing").glob("*.private.jwk.json"):
        file.chmod(0o666)
    _, reason, message, metadata = await told(status_list(own_approvals, enterprise(), uri))
    assert reason == Reason.KEY_INVALID
    assert str(own_approvals.folder) not in message + json.dumps(metadata)


# Published keys.


def empty(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def private(path: Path) -> None:
    found = json.loads(path.read_text())
    found["keys"][0]["d"] = "SECRET-OF-SOMEBODY" * 3
    path.write_text(json.dumps(found))


def elses(path: Path) -> None:
    path.write_bytes(path.with_name("customs.jwks.json").read_bytes())


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(LIMIT * 1000)


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def twice(path: Path) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found)[:-1] + ', "issuer": "spiffe://zone.example/customs"}')


@pytest.mark.parametrize(
    "spoil", [empty, half, private, elses, endless, pipe, circle, folder, huge, deep, twice], ids=lambda f: f.__name__
)
async def test_a_set_of_keys_that_cannot_be_read_lets_nothing_be_believed(
    own_approvals: Mesh, spoil: Callable[[Path], None]
) -> None:
    """Not what stood there before either: it may be what has been revoked since. Others' results stand as they did."""
    mesh = own_approvals
    subject = firm()
    good = await mesh.credential(POLICE, FACT, subject=subject)
    path = mesh.folder / "keys" / "publicsecurity.jwks.json"
    before = path.read_bytes()
    spoil(path)
    refused = await told(register(mesh, POLICE, good))
    assert refused[1] == Reason.KEY_INVALID
    listed = await told(keys(mesh, enterprise(), "publicsecurity"))
    for _, _, message, metadata in (refused, listed):
        assert "SECRET" not in message
        assert str(mesh.folder) not in message + json.dumps(metadata)
    assert (await mesh.register(CUSTOMS, "customs_code", subject=subject)).result_ref
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    path.write_bytes(before)
    assert (await register(mesh, POLICE, good)).result_ref


async def test_keys_that_are_gone_are_gone_at_once(own_approvals: Mesh) -> None:
    mesh = own_approvals
    good = await mesh.credential(POLICE, FACT, subject=firm())
    (mesh.folder / "keys" / "publicsecurity.jwks.json").unlink()
    assert await why(register(mesh, POLICE, good)) in {Reason.RESULT_ISSUER, Reason.KEY_UNKNOWN}
    assert await why(keys(mesh, enterprise(), "publicsecurity")) is Reason.KEY_UNKNOWN


async def test_a_folder_of_keys_that_is_exchanged_is_read_anew(own_approvals: Mesh, tmp_path: Path) -> None:
    """By a symlink to another one, as deployments switch versions: what counts is what lies there now."""
    mesh = own_approvals
    subject = firm()
    case_id = await mesh.accepted(subject)
    await mesh.event(POLICE, case_id, "E2", "START")
    good = await mesh.credential(POLICE, FACT, subject=subject, case_id=case_id, stage="E2")
    here, aside, other = mesh.folder / "keys", mesh.folder / "aside", mesh.folder / "other"
    stranger = SigningKeys.create(tmp_path / "stranger", f"spiffe://{ZONE}/publicsecurity", now())
    stranger.publish(other)
    here.rename(aside)
    here.symlink_to(other)
    handing_in = mesh.event(POLICE, case_id, "E2", "RESULT", result_code=1, credential=good)
    assert await why(handing_in) is Reason.KEY_UNKNOWN
    here.unlink()
    assert await why(register(mesh, POLICE, good)) in {Reason.RESULT_ISSUER, Reason.KEY_UNKNOWN, Reason.KEY_INVALID}
    here.symlink_to(aside)
    await mesh.event(POLICE, case_id, "E2", "RESULT", result_code=1, credential=good)
    stages = {s.code: s.status for s in (await mesh.get(REGISTRY, case_id)).stages}
    assert stages["E2"] == pb.STAGE_STATUS_PASSED


def test_names_of_files_that_are_no_agencies_are_none(tmp_path: Path) -> None:
    SigningKeys.create(tmp_path / "signing", f"spiffe://{ZONE}/customs", now()).publish(tmp_path / "keys")
    for name in ("..jwks.json", "CUSTOMS.jwks.json", "a b.jwks.json", ".hidden.jwks.json", "customs.jwks.json.new"):
        (tmp_path / "keys" / name).write_text("no keys")
    assert PublishedKeys.load(tmp_path / "keys").agencies() == ("customs",)


# YAML.

Read = Callable[[Path], object]


def nested(sign: str, depth: int = 9, width: int = 9) -> str:
    """Each name holds nine of the one before: nine lines that mean four hundred million things."""
    lines = [f"x0: &x0 [{', '.join([sign] * width)}]"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines) + "\n"


def merged(depth: int = 9, width: int = 9) -> str:
    """The same by merging, which is done as the file is read and not when somebody looks."""
    lines = ["x0: &x0 {a: b}"]
    lines += [f"x{n}: &x{n} {{<<: [{', '.join([f'*x{n - 1}'] * width)}]}}" for n in range(1, depth)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "nested": nested("x"),
    "merged": merged(),
    "itself": "x: &x [*x]\n",
    "itself merged": "x: &x {<<: [*x, *x], a: 1}\n",
    "deep": "x: " + "[" * 300 + "]" * 300 + "\n",
    "deep map": "x: " + "{a: " * 300 + "1" + "}" * 300 + "\n",
    "python": "x: !!python/object/apply:os.system ['true']\n",
    "no date": "x: 2026-99-99\n",
    "digits": "x: " + "9" * 5000 + "\n",
    "bytes": "x: !!binary '####'\n",
    "keys of keys": "? {a: [b]}\n: c\n",
    "nul": "x: \x00\n",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_files_that_swell_are_refused_wherever_they_are_read(tmp_path: Path, bomb: str) -> None:
    """Alone, in front of what is right, and inside it; at once, and as a mistake of the file."""
    agencies, shipped = Agencies.load(), Procedures.load()
    good = next(iter(shipped)).text
    for text in (bomb, bomb + good, good + bomb, bomb.replace("x0:", "stages:").replace("x:", "stages:")):
        with pytest.raises(FailedPrecondition) as caught:
            procedure_file.parse(text)
        assert len(str(caught.value)) < 200_000
    folders: tuple[Read, ...] = (
        lambda path: Procedures.load(path, agencies=agencies),
        lambda path: Arrangements.load(path, agencies=agencies, procedures=shipped),
        Calendars.load,
    )
    for number, read in enumerate(folders):
        place = tmp_path / str(number)
        place.mkdir()
        (place / ("CN-2027.yaml" if number == 2 else "bomb@1.0.0.yaml")).write_text(bomb)
        with pytest.raises(FailedPrecondition):
            read(place)
    file = tmp_path / "bomb.yaml"
    file.write_text(bomb)
    files: tuple[Read, ...] = (
        access.read,
        Reasons.load,
        pack.read,
        lambda path: Desk.load(Calendars.load(), path),
    )
    for read in files:
        with pytest.raises(FailedPrecondition):
            read(file)


@pytest.mark.parametrize("signs", ["[]", "{}"])
def test_brackets_in_brackets_in_brackets(tmp_path: Path, signs: str) -> None:
    """More of them than any program follows."""
    bomb = f"x: {signs[0] * 20_000}{signs[1] * 20_000}\n"
    with pytest.raises(FailedPrecondition):
        procedure_file.parse(bomb)
    file = tmp_path / "bomb.yaml"
    file.write_text(bomb)
    with pytest.raises(FailedPrecondition):
        access.read(file)


def test_a_procedure_of_a_megabyte_is_refused_unread() -> None:
    good = next(iter(Procedures.load())).text
    with pytest.raises(FailedPrecondition) as caught:
        procedure_file.parse(good + "#" * 1024 * 1024)
    assert caught.value.reason is Reason.PROCEDURE_INVALID


@pytest.mark.parametrize("name", ["ftz-est@1.0.0.yaml", "FTZ-EST@1.0.0.yaml", "x.yaml"])
def test_a_procedure_does_not_slip_in_under_anothers_name(tmp_path: Path, name: str) -> None:
    good = next(p for p in Procedures.load() if p.code == "AEO-CERT").text
    (tmp_path / name).write_text(good)
    with pytest.raises(FailedPrecondition) as caught:
        Procedures.load(tmp_path)
    assert caught.value.reason is Reason.PROCEDURE_INVALID
