"""Whoever would get more out of an authorization than two others have signed off: by asking, by writing, by editing."""

import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.errors import HutongError, Reason
from tests.attacks.asking import DENIED, ask, refused
from tests.authorizations.mesh import AML, DECLARATIONS, INVOICES, SERVICE, Leave, Supervised, asked, registry, under
from tests.exchange.mesh import EXPLAIN, STREAM, records
from tests.exchange.records import EXPORTER, OTHER

KIND = DECLARATIONS.record_type
GIVEN = {"declaration_no", "total_value_cny", "trader_uscc"}
"""What policy and scope both open."""
REVOKED = pb.AUTHORIZATION_STATE_REVOKED


def paths(record: Any) -> set[str]:
    """What of a record was given, its envelope apart."""
    return {field.name for field, _ in record.ListFields()} - {"envelope"}


async def given(mesh: Supervised, request: federation_pb2.QueryRequest) -> set[str]:
    found: set[str] = set()
    for section in await ask(mesh, AML, request):
        for record in records(section):
            assert record.trader_uscc in {"", EXPORTER}
            found |= paths(record)
    return found


def with_changes(scope: pb.Scope, changes: dict[str, Any]) -> pb.Scope:
    made: Any = pb.Scope()
    made.CopyFrom(scope)
    for name in changes:
        made.ClearField(name)
    made.MergeFrom(pb.Scope(**changes))
    return pb.Scope.FromString(made.SerializeToString())


async def asked_for(mesh: Supervised) -> pb.Scope:
    """A scope as it is asked for: what the service has added is gone."""
    scope = (await mesh.give(DECLARATIONS)).scope
    scope.ClearField("nonce")
    return scope


async def reason_of(mesh: Supervised, request: federation_pb2.QueryRequest) -> str:
    """Ask about one type; gives why that gave nothing, or nothing where it gave something."""
    try:
        (section,) = await ask(mesh, AML, request)
    except HutongError as error:
        return error.reason
    assert bool(section.records) == (section.status != DENIED)
    return section.reason


# widening what was signed off


async def test_nobody_signs_off_a_scope_that_was_not_requested(supervised: Supervised) -> None:
    """Nor is it swapped under an approver: a request that comes again under one id is the one there was, or none."""
    wanted, request_id = await asked_for(supervised), str(uuid.uuid4())
    request = pb.RequestAuthorizationRequest(request_id=request_id, scope=wanted)
    first = await supervised.act("RequestAuthorization", request, pb.RequestAuthorizationResponse, AML, "req")
    found = first.authorization
    changes: list[dict[str, Any]] = [
        {"row_quota": 10**6},
        {"no_bulk": True},
        {"case_ref": "STR-2026-8"},
        {"rows_per_minute": 1},
        {"types": [DECLARATIONS, INVOICES]},
        {"subjects": [common_pb2.SubjectId(scheme="cn.uscc", value=OTHER)]},
    ]
    for change in changes:
        again = pb.RequestAuthorizationRequest(request_id=request_id, scope=with_changes(wanted, change))
        error = await refused(
            supervised.act("RequestAuthorization", again, pb.RequestAuthorizationResponse, AML, "req")
        )
        assert error.reason is Reason.REQUEST_ID_REUSED
    for digest in (b"", bytes(32), found.scope_digest[:31], found.scope_digest + b"\0"):
        approve = pb.ApproveAuthorizationRequest(authorization_id=found.authorization_id, scope_digest=digest)
        approving = supervised.act(
            "ApproveAuthorization", approve, pb.ApproveAuthorizationResponse, "customs/release", "owner"
        )
        assert (await refused(approving)).reason is Reason.AUTHORIZATION_CHANGED
    get = pb.GetAuthorizationRequest(authorization_id=found.authorization_id)
    client = supervised.client("customs/release", "supervision")
    now = await client.unary(f"{SERVICE}/GetAuthorization", get, pb.GetAuthorizationResponse, timeout=10)
    assert now.authorization.scope == found.scope
    assert [event.kind for event in now.authorization.events] == ["requested"]


def edited(mesh: Supervised, leave: Leave, change: Callable[[sqlite3.Connection, str], object]) -> None:
    """Change the service's own database behind its back."""
    with sqlite3.connect(mesh.folder / "supervision.db") as connection:
        change(connection, leave.authorization_id)
    connection.close()


def with_scope(**changes: Any) -> Callable[[sqlite3.Connection, str], None]:
    def change(connection: sqlite3.Connection, name: str) -> None:
        where = "WHERE authorization_id = ?"
        (raw,) = connection.execute(f"SELECT scope FROM authorization_head {where}", (name,)).fetchone()
        wider = with_changes(pb.Scope.FromString(raw), changes).SerializeToString(deterministic=True)
        # And have every node told.
        connection.execute("UPDATE authorization_clock SET change = change + 1")
        connection.execute(
            f"UPDATE authorization_head SET scope = ?, change = (SELECT change FROM authorization_clock) {where}",
            (wider, name),
        )

    return change


def unused(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("UPDATE authorization_head SET rows_used = 0 WHERE authorization_id = ?", (name,))


def unrevoked(connection: sqlite3.Connection, name: str) -> None:
    """Take the last event away, and everything that says that there was one."""
    connection.execute("UPDATE authorization_clock SET change = change + 1")
    connection.execute(
        "DELETE FROM authorization_event WHERE authorization_id = ? AND kind = 'revoked'",
        (name,),
    )
    connection.execute(
        "UPDATE authorization_head SET over = 0, sequence = sequence - 1,"
        " change = (SELECT change FROM authorization_clock) WHERE authorization_id = ?",
        (name,),
    )


WIDER = pb.ScopedType(record_type=KIND, fields=[*DECLARATIONS.fields, "overseas_party_name"])


@pytest.mark.parametrize(
    "changes",
    [
        {"types": [WIDER]},
        {"types": [DECLARATIONS, INVOICES]},
        {"subjects": [common_pb2.SubjectId(scheme="cn.uscc", value=OTHER)]},
        {"row_quota": 10**9},
    ],
    ids=["fields", "types", "subjects", "quota"],
)
async def test_a_row_that_is_edited_ends_what_it_would_widen(own_supervised: Supervised, changes: Any) -> None:
    mesh = own_supervised
    leave = await mesh.give(DECLARATIONS)
    assert await given(mesh, asked(leave, KIND)) == GIVEN
    edited(mesh, leave, with_scope(**changes))
    # As soon as the service looks it knows nothing of it any more, and says so to every node.
    error = await refused(mesh.use(leave.authorization_id))
    assert error.reason is Reason.AUTHORIZATION_UNKNOWN
    for enforcer in mesh.enforcers("customs").values():
        while (standing := registry(enforcer).find(leave.authorization_id)) is not None and standing.state == 3:
            await registry(enforcer).change(30)
    error = await refused(ask(mesh, AML, asked(leave, KIND, "taxation.InvoiceSummary")))
    assert error.reason in {Reason.AUTHORIZATION_UNKNOWN, Reason.AUTHORIZATION_NOT_ACTIVE}
    # What was approved as it stands goes on beside it.
    other = await mesh.give(DECLARATIONS)
    assert await given(mesh, asked(other, KIND)) == GIVEN


async def test_a_counter_or_an_end_that_is_edited_opens_nothing(own_supervised: Supervised) -> None:
    mesh = own_supervised
    small = await mesh.give(DECLARATIONS, row_quota=2)
    (section,) = await ask(mesh, AML, asked(small, KIND, page_size=1))
    assert len(section.records) == 1
    edited(mesh, small, unused)
    (section,) = await ask(mesh, AML, asked(small, KIND, page_size=1))
    assert (section.reason, len(section.records)) == (Reason.AUTHORIZATION_UNKNOWN, 0)
    over = await mesh.give(DECLARATIONS)
    await mesh.revoke(over)
    await mesh.heard(over.authorization_id, REVOKED, over.scope.types)
    edited(mesh, over, unrevoked)
    assert (await refused(mesh.use(over.authorization_id))).reason is Reason.AUTHORIZATION_UNKNOWN
    # Heard of again, were it told once more: nothing of it is.
    other = await mesh.give(DECLARATIONS)
    assert await given(mesh, asked(other, KIND)) == GIVEN
    assert (await refused(ask(mesh, AML, asked(over, KIND)))).reason is Reason.AUTHORIZATION_REVOKED


async def rolled_back(mesh: Supervised, *databases: str) -> Leave:
    """Revoke an authorization; then put the service's databases back to where it was in force, and start anew."""
    assert mesh.supervision is not None
    leave, address = await mesh.give(DECLARATIONS), mesh.supervision.host.address
    there = {mesh.folder / name: mesh.folder / f"before-{number}.db" for number, name in enumerate(databases)}
    for path, kept in there.items():
        copy(path, kept)
    await mesh.revoke(leave)
    await mesh.heard(leave.authorization_id, REVOKED, leave.scope.types)
    await mesh.supervision.stop()
    for path, kept in there.items():
        copy(kept, path)
    await mesh.start_supervision("customs", "taxation", listen=address)
    return leave


def copy(source: Path, target: Path) -> None:
    with sqlite3.connect(source) as one, sqlite3.connect(target) as other:
        one.backup(other)
    one.close()
    other.close()


async def test_an_older_database_revives_nothing_where_its_end_was_heard(own_supervised: Supervised) -> None:
    """With its log as old, so that the service does not notice: every node that has heard of the end remembers it."""
    mesh = own_supervised
    leave = await rolled_back(mesh, "supervision.db", "logs/supervision.node.db")
    # Both nodes follow the service as it is now: what they hear of it anew is in force.
    other = await mesh.give(DECLARATIONS)
    assert await given(mesh, asked(other, KIND)) == GIVEN
    assert (await refused(ask(mesh, AML, asked(leave, KIND)))).reason is Reason.AUTHORIZATION_REVOKED


async def test_an_older_database_is_noticed_by_the_service(own_supervised: Supervised) -> None:
    """Its own log has the revocation that the store has lost: the authorization is known no more."""
    leave = await rolled_back(own_supervised, "supervision.db")
    assert (await refused(own_supervised.use(leave.authorization_id))).reason is Reason.AUTHORIZATION_UNKNOWN


# asking for more than is open


LOOK_ALIKES = {
    "another type": "taxation.VatFiling",
    "in capitals": "CUSTOMS.DECLARATION",
    "with a blank": "customs.Declaration ",
    "with nothing": "customs.Declaration\u200b",
    "cyrillic": "customs.Decl\u0430ration",
    "full width": "customs\uff0eDeclaration",
    "another field": f"{KIND}:overseas_party_name",
    "all of a part": f"{KIND}:lines",
    "a part of a part": f"{KIND}:lines.goods_name",
    "a field in capitals": f"{KIND}:OVERSEAS_PARTY_NAME",
    "a field with a blank": f"{KIND}:overseas_party_name ",
    "a field of the envelope": f"{KIND}:envelope.source_system",
    "everything": f"{KIND}:*",
}


@pytest.mark.parametrize("selection", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
async def test_nothing_that_looks_like_the_scope_is_in_it(supervised: Supervised, selection: str) -> None:
    leave = await supervised.give(DECLARATIONS)
    reason = await reason_of(supervised, asked(leave, selection))
    assert reason in {
        Reason.RECORD_TYPE_UNKNOWN,
        Reason.FIELD_UNKNOWN,
        Reason.AUTHORIZATION_SCOPE,
        Reason.NO_PERMIT,
    }
    assert await supervised.used(leave) == 0


def full_width(text: str) -> str:
    return "".join(chr(ord(sign) + 0xFEE0) for sign in text)


SUBJECTS: dict[str, tuple[str, str, bool]] = {
    "another": ("cn.uscc", OTHER, False),
    "another, meant so": ("cn.uscc", OTHER, True),
    "another scheme": ("cn.declaration_no", "999920260000000500", False),
    "a scheme in capitals": ("CN.USCC", EXPORTER, False),
    "a scheme with a blank": ("cn.uscc ", EXPORTER, False),
    "two at once": ("cn.uscc", f"{EXPORTER},{OTHER}", True),
    "a pattern": ("cn.uscc", "%", True),
    "a beginning": ("cn.uscc", EXPORTER[:17], True),
    "a longer one": ("cn.uscc", f"{EXPORTER}X", True),
    "another behind nothing": ("cn.uscc", f"{EXPORTER}\x00{OTHER}", True),
    "nobody": ("", "", False),
}


@pytest.mark.parametrize(("scheme", "value", "as_written"), SUBJECTS.values(), ids=SUBJECTS)
async def test_nobody_else_is_asked_about(supervised: Supervised, scheme: str, value: str, as_written: bool) -> None:
    leave = await supervised.give(DECLARATIONS)
    request = asked(leave, KIND)
    request.subject.CopyFrom(common_pb2.SubjectId(scheme=scheme, value=value, as_written=as_written))
    explaining = supervised.client(AML).unary(
        EXPLAIN, federation_pb2.ExplainRequest(query=request), federation_pb2.ExplainResponse, timeout=10
    )
    for asking in (ask(supervised, AML, request), explaining):
        assert (await refused(asking)).reason in {
            Reason.AUTHORIZATION_SCOPE,
            Reason.SUBJECT_SCHEME_UNKNOWN,
            Reason.SUBJECT_INVALID,
            Reason.SUBJECT_MISSING,
        }
    # Hidden among others that are in it: nothing at all is answered.
    among = federation_pb2.StreamQueryRequest(query=asked(leave, KIND), subjects=[request.subject])
    stream = supervised.client(AML).stream(STREAM, among, federation_pb2.StreamQueryResponse, timeout=10)
    with pytest.raises(HutongError):
        await anext(stream)
    assert await supervised.used(leave) == 0


@pytest.mark.parametrize("write", [str.lower, full_width, " ".join], ids=["small", "full width", "spaced"])
async def test_the_same_subject_in_another_spelling_is_the_same(supervised: Supervised, write: Any) -> None:
    """Read as the one that is in the scope, or as none: never as somebody else."""
    leave = await supervised.give(DECLARATIONS)
    request = asked(leave, KIND, subject=f"cn.uscc:{write(EXPORTER)}")
    reason = await reason_of(supervised, request)
    assert reason in {"", Reason.SUBJECT_INVALID, Reason.AUTHORIZATION_SCOPE}
    assert reason or await given(supervised, request) == GIVEN


CONTEXTS: dict[str, dict[str, str]] = {
    "another case": {"case_ref": "STR-2026-8"},
    "a case with a blank": {"case_ref": "STR-2026-7 "},
    "a case in small letters": {"case_ref": "str-2026-7"},
    "a case in full width": {"case_ref": full_width("STR-2026-7")},
    "no case": {"case_ref": ""},
    "another purpose": {"purpose": "P-MONITOR"},
    "another purpose that needs one": {"purpose": "P-CRIMINAL"},
    "another basis": {"legal_basis": "CN-CRIMINAL-PROCEDURE"},
    "another authorization": {"authorization_id": str(uuid.uuid4())},
    "its id in capitals": {"authorization_id": "UPPER"},
    "no ticket": {"authorization_ticket": ""},
    "no id": {"authorization_id": ""},
}


@pytest.mark.parametrize("changes", CONTEXTS.values(), ids=CONTEXTS)
async def test_for_no_other_reason_than_it_was_given(supervised: Supervised, changes: dict[str, str]) -> None:
    leave = await supervised.give(DECLARATIONS)
    stated = leave.why | changes
    if stated["authorization_id"] == "UPPER":
        stated["authorization_id"] = leave.authorization_id.upper()
    request = asked(leave, KIND)
    request.context.CopyFrom(exchange_pb2.RequestContext(**stated))
    error = await refused(ask(supervised, AML, request))
    assert error.reason in {
        Reason.AUTHORIZATION_SCOPE,
        Reason.TICKET_INVALID,
        Reason.AUTHORIZATION_MISSING,
        Reason.CASE_MISSING,
    }
    assert await supervised.used(leave) == 0


# finding out by conditions what is not shown


PROBES = {
    "a field outside the scope": 'overseas_party_name = "Example Trading GmbH"',
    "a field that the policy keeps back": "decl_status = CLEARED",
    "either of them": f'trader_uscc = "{EXPORTER}" OR trade_mode = "0110"',
    "behind a denial": 'NOT ie_flag = "E"',
    "in a part": 'lines.hs10 = "8471300000"',
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
async def test_filters_tell_nothing_of_what_is_not_open(supervised: Supervised, probe: str) -> None:
    """True or false: the answer is the same refusal, and costs nobody a row."""
    leave = await supervised.give(DECLARATIONS)
    told = [await refused(ask(supervised, AML, asked(leave, KIND, filter=text))) for text in (probe, f"NOT ({probe})")]
    for error in told:
        assert error.reason in {
            Reason.FILTER_FIELD_NOT_READABLE,
            Reason.FILTER_FIELD_NOT_INDEXED,
            Reason.FILTER_INVALID,
        }
    assert await supervised.used(leave) == 0


@pytest.mark.parametrize("probe", ["decl_status = CLEARED", "decl_status = ACCEPTED", 'trade_mode = "0110"'])
async def test_nor_do_conditions_that_two_others_have_signed_off(supervised: Supervised, probe: str) -> None:
    """A supervisor may well ask for one: the owner's policy decides what of it may be looked at."""
    leave = await supervised.give(under(DECLARATIONS, probe), subjects=())
    (section,) = await ask(supervised, AML, asked(leave, KIND, subject=""))
    assert (section.status, section.reason) == (DENIED, Reason.FILTER_FIELD_NOT_READABLE)
    assert not section.records
    assert not section.next_page_token
    assert await supervised.used(leave) == 0


async def test_about_nobody_in_particular_only_under_a_condition(supervised: Supervised) -> None:
    named = await supervised.give(DECLARATIONS)
    bounded = await supervised.give(under(DECLARATIONS, f'trader_uscc = "{EXPORTER}"'), subjects=(), no_bulk=True)
    plain = asked(named, KIND)
    for name in ("authorization_id", "authorization_ticket"):
        plain.context.ClearField(name)
    plain.ClearField("subject")
    for request in (asked(named, KIND, subject=""), asked(bounded, KIND, subject=""), plain):
        error = await refused(ask(supervised, AML, request))
        assert error.reason in {Reason.AUTHORIZATION_SCOPE, Reason.AUTHORIZATION_MISSING}
    # A type without a condition is not let in on the back of one that has one.
    both = asked(bounded, KIND, "taxation.InvoiceSummary", subject="")
    assert (await refused(ask(supervised, AML, both))).reason is Reason.AUTHORIZATION_SCOPE


async def test_a_scope_is_not_more_than_can_be_shown(supervised: Supervised) -> None:
    """Fields of a later version, a type twice, conditions by the megabyte: nobody is asked to sign that."""
    wanted = await asked_for(supervised)
    late = pb.Scope.FromString(wanted.SerializeToString() + b"\xfa\x07\x01x")
    twice = pb.Scope()
    twice.CopyFrom(wanted)
    twice.types.append(WIDER)
    long = pb.Scope()
    long.CopyFrom(wanted)
    long.types[0].condition = " OR ".join(['trade_mode = "0110"'] * 5000)
    many = pb.Scope()
    many.CopyFrom(wanted)
    many.subjects.extend([common_pb2.SubjectId(scheme="cn.uscc", value=OTHER, as_written=True)] * 1001)
    for scope in (late, twice, long, many):
        request = pb.RequestAuthorizationRequest(request_id=str(uuid.uuid4()), scope=scope)
        asking = supervised.act("RequestAuthorization", request, pb.RequestAuthorizationResponse, AML, "req")
        assert (await refused(asking)).reason in {Reason.SCOPE_INVALID, Reason.RECORD_TYPE_REPEATED}
