"""Asking by what one may not see: subjects, keys and filters must not tell the content of hidden fields."""

from collections.abc import AsyncGenerator

import pytest

from hutong.api.customs.v1 import declaration_pb2, operator_pb2, service_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2, record_source_pb2
from services.kit.errors import InvalidArgument, NotFound, PermissionDenied, Reason
from tests.attacks.asking import (
    CUSTOMS,
    DECLARATION,
    DENIED,
    MONITOR,
    PUBLIC,
    REBATE,
    STAT,
    SUBJECT,
    TAX,
    call,
    declared,
    found,
    get,
    listed,
    one,
    opened,
    refused,
    watch,
    why,
)
from tests.exchange.mesh import EXPLAIN, Mesh, question
from tests.exchange.records import CLEARED, EXPORTER, OTHER, PENDING, RECORDS, code

LOOKUP = Reason.LOOKUP_FIELD_NOT_READABLE
WATCHER = "supervision/monitoring"
DELETED = "999920260000000009"
POLICY = """
@id("own-agency-monitoring") @basis("CN-OPERATION-MONITORING") @until("2099-01-01T00:00:00Z")
permit (
    principal in Hutong::Agency::"quality", action, resource in Hutong::RecordType::"customs.Declaration"
) when {
    context.purpose == "P-MONITOR" && resource in [
        Hutong::Field::"customs.Declaration.trade_mode", Hutong::Field::"customs.Declaration.ie_flag"
    ]
};
@id("own-agency-trader") @basis("CN-OPERATION-MONITORING") @until("2099-01-01T00:00:00Z") @transform("pseudonym")
permit (
    principal in Hutong::Agency::"quality", action, resource == Hutong::Field::"customs.Declaration.trader_uscc"
) when { context.purpose == "P-MONITOR" };
@id("own-agency-number") @basis("CN-OPERATION-MONITORING") @until("2099-01-01T00:00:00Z") @transform("last4")
permit (
    principal in Hutong::Agency::"quality", action, resource == Hutong::Field::"customs.Declaration.declaration_no"
) when { context.purpose == "P-MONITOR" };

// The number of every declaration, the trader of cleared ones only.
@id("stat-number") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z")
permit (
    principal in Hutong::Agency::"taxation", action, resource in Hutong::RecordType::"customs.Declaration"
) when {
    context.purpose == "P-STAT" && resource in [
        Hutong::Field::"customs.Declaration.declaration_no", Hutong::Field::"customs.Declaration.trade_mode",
        Hutong::Field::"customs.Declaration.importer_id"
    ]
};
@id("stat-trader") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z") @rows("decl_status = 'CLEARED'")
permit (
    principal in Hutong::Agency::"taxation", action, resource in Hutong::RecordType::"customs.Declaration"
) when {
    context.purpose == "P-STAT" && resource in [
        Hutong::Field::"customs.Declaration.trader_uscc", Hutong::Field::"customs.Declaration.port_code"
    ]
};

// Each case its own declarations; each agency its own.
@id("audit") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z") @rows("functional_reference = :case_ref")
permit (principal, action, resource in Hutong::RecordType::"customs.Declaration") when {
    context.purpose == "P-AUDIT" && resource == Hutong::Field::"customs.Declaration.declaration_no"
};
@id("self") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z") @rows("type_code = :caller_agency")
permit (principal, action, resource in Hutong::RecordType::"customs.Declaration") when {
    context.purpose == "P-SELF" && resource == Hutong::Field::"customs.Declaration.declaration_no"
};
"""


@pytest.fixture(scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Mesh]:
    async with opened(tmp_path_factory.mktemp("lookups"), customs=POLICY) as mesh:
        await mesh.load("customs", RECORDS["customs"])
        secret = declared("999920260000000077", trader=OTHER)
        await mesh.load("customs", [traded(secret, importer="GB111111111111", exporter="GB222222222222")])
        yield mesh


def traded(message: declaration_pb2.Declaration, importer: str, exporter: str) -> declaration_pb2.Declaration:
    message.importer_id, message.exporter_id, message.port_code = importer, exporter, "2218"
    return message


async def test_a_pseudonym_is_not_undone_by_asking_for_the_code_it_stands_for(mesh: Mesh) -> None:
    """Whoever could name a code and get its pseudonym back would need a list of codes, and has one."""
    section = await one(mesh, WATCHER, "customs.Declaration", **MONITOR)
    assert (section.status, section.reason) == (DENIED, LOOKUP)
    assert not section.records
    assert not section.next_page_token


async def test_nor_at_the_typed_door(mesh: Mesh) -> None:
    subject = question(SUBJECT).subject
    error = await refused(listed(mesh, "quality/lab", context=why(**MONITOR), subject=subject))
    assert isinstance(error, PermissionDenied)
    assert error.reason is LOOKUP
    everyone = await listed(mesh, "quality/lab", context=why(**MONITOR))
    assert {d.trader_uscc[:3] for d in everyone} == {"pn_"}
    assert not {d.envelope.key for d in everyone} - {""}


@pytest.mark.parametrize("number", [CLEARED, "999920260999999999"])
async def test_a_key_that_is_given_in_part_finds_no_record(mesh: Mesh, number: str) -> None:
    """The same refusal whether or not the record is there."""
    error = await refused(get(mesh, "quality/lab", f"declarations/{number}", context=why(**MONITOR)))
    assert (error.reason, error.metadata) == (LOOKUP, {"record_type": "customs.Declaration"})


async def test_a_forbidden_identifier_is_not_tied_to_another(mesh: Mesh) -> None:
    """R15 shows who is certified and never the national identifier: asking by it would tie the two together."""
    await mesh.load(
        "customs",
        [
            operator_pb2.Operator(
                customs_code="9999999999",
                uscc=OTHER,
                aeo_code="CN0000000001",
                credit_level=operator_pb2.CREDIT_LEVEL_ADVANCED_CERTIFIED,
                record_status=operator_pb2.RECORD_STATUS_VALID,
            )
        ],
    )
    partner = {"purpose": "P-MRA", "legal_basis": "CN-AEO-MRA"}
    section = await one(mesh, "partner-customs/aeo", "customs.Operator", subject=f"cn.uscc:{OTHER}", **partner)
    assert (section.status, section.reason, list(section.records)) == (DENIED, LOOKUP, [])
    by_code = await found(
        mesh, "partner-customs/aeo", "customs.Operator", subject="cn.customs_code:9999999999", **partner
    )
    assert [o.aeo_code for o in by_code] == ["CN0000000001"]


async def test_what_is_merely_not_repeated_can_be_asked_by(mesh: Mesh) -> None:
    """Facts about a subject that the caller names: R07 opens events of a declaration without its number."""
    events = await found(mesh, TAX, "customs.ClearanceEvent", subject=f"cn.declaration_no:{CLEARED}", **REBATE)
    assert [e.declaration_no for e in events] == [""]


async def test_an_identifier_in_a_field_that_is_not_given_finds_nothing(mesh: Mesh) -> None:
    """The importer is given and the exporter is not: asking by the exporter's number would tell who that is."""
    (by_importer,) = await found(mesh, TAX, "customs.Declaration", subject="eori:GB111111111111", **STAT)
    assert by_importer.importer_id == "GB111111111111"
    assert not by_importer.exporter_id
    hidden = await one(mesh, TAX, "customs.Declaration", subject="eori:GB222222222222", **STAT)
    absent = await one(mesh, TAX, "customs.Declaration", subject="eori:GB333333333333", **STAT)
    hidden.ClearField("as_of")
    absent.ClearField("as_of")
    assert hidden == absent


async def test_a_subject_is_found_only_in_rows_where_it_is_given(mesh: Mesh) -> None:
    """The number of every declaration is given, its trader only once it is cleared."""
    everyone = {d.declaration_no: d.trader_uscc for d in await listed(mesh, TAX, context=why(**STAT))}
    assert everyone[PENDING] == ""
    about = await found(mesh, TAX, "customs.Declaration", **STAT)
    assert [d.declaration_no for d in about] == [CLEARED]


@pytest.mark.parametrize(
    ("who", "context", "text", "reason"),
    [
        ("quality/lab", MONITOR, f"trader_uscc = '{EXPORTER}'", Reason.FILTER_FIELD_NOT_READABLE),
        ("quality/lab", MONITOR, f"NOT (trader_uscc != '{EXPORTER}')", Reason.FILTER_FIELD_NOT_READABLE),
        ("quality/lab", MONITOR, "trader_uscc IS NOT NULL", Reason.FILTER_FIELD_NOT_READABLE),
        ("quality/lab", MONITOR, f"ie_flag = 'E' OR declaration_no = '{CLEARED}'", Reason.FILTER_FIELD_NOT_READABLE),
        (TAX, STAT, "decl_status = 'CLEARED'", Reason.FILTER_FIELD_NOT_READABLE),
        (TAX, STAT, "envelope.key = '1'", Reason.FIELD_UNKNOWN),
        (TAX, STAT, "_key = '1'", Reason.FIELD_UNKNOWN),
        (TAX, STAT, "trade_mode = (SELECT 1)", Reason.FILTER_INVALID),
        (TAX, STAT, "trade_mode = :case_ref", Reason.FILTER_INVALID),
        (TAX, STAT, "trade_mode = '0110' -- '", Reason.FILTER_INVALID),
        (TAX, STAT, "trade_mode = trader_uscc", Reason.FILTER_INVALID),
    ],
)
async def test_a_filter_on_what_is_hidden_is_refused_at_every_door(
    mesh: Mesh, who: str, context: dict[str, str], text: str, reason: Reason
) -> None:
    error = await refused(listed(mesh, who, context=why(**context), filter=text))
    assert isinstance(error, InvalidArgument)
    assert error.reason is reason
    error = await refused(anext(watch(mesh, who, "customs.Declaration", context=why(**context), filter=text)))
    assert error.reason is reason


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("port_code = '2218'", {"999920260000000077"}),
        ("port_code IS NULL", {CLEARED}),
        ("NOT (port_code = '2218')", set[str]()),
        (f"trader_uscc = '{EXPORTER}'", {CLEARED}),
        (f"trader_uscc != '{EXPORTER}'", {"999920260000000077"}),
        (f"trader_uscc = '{EXPORTER}' OR trade_mode = '0110'", {CLEARED, "999920260000000077"}),
    ],
)
async def test_a_field_under_a_condition_filters_only_rows_where_it_is_given(
    mesh: Mesh, text: str, numbers: set[str]
) -> None:
    """The declaration that is pending never matches: whether it does would tell its trader or its port."""
    assert {d.declaration_no for d in await listed(mesh, TAX, context=why(**STAT), filter=text)} == numbers
    stream = watch(mesh, TAX, "customs.Declaration", context=why(**STAT), filter=text, from_start=True)
    seen = declaration_pb2.Declaration()
    first = await anext(stream)
    numbers_seen = {seen.declaration_no for record in first.records if record.Unpack(seen)}
    assert numbers_seen == numbers


async def test_what_one_case_or_agency_is_shown_is_not_kept_for_another(mesh: Mesh) -> None:
    """Masks, plans and statements are kept; the values that row conditions are asked with are each question's own."""
    for number, (case, agency) in enumerate((("CASE-1", "taxation"), ("CASE-2", "quality"))):
        made = declared(f"99992026000000080{number}", declaration_pb2.DECLARATION_STATUS_ACCEPTED, trader=OTHER)
        made.functional_reference, made.type_code = case, agency
        await mesh.load("customs", [made])
    subject, asked = f"cn.uscc:{OTHER}", "customs.Declaration:declaration_no"
    basis = {"legal_basis": "CN-VAT-REBATE"}
    for _ in range(3):
        for number, (case, who) in enumerate((("CASE-1", TAX), ("CASE-2", "quality/lab"))):
            told = await found(mesh, who, asked, subject=subject, purpose="P-AUDIT", case_ref=case, **basis)
            direct = await listed(mesh, who, context=why(purpose="P-AUDIT", case_ref=case, **basis))
            itself = await found(mesh, who, asked, subject=subject, purpose="P-SELF", **basis)
            numbers = [[d.declaration_no for d in several] for several in (told, direct, itself)]
            assert numbers == [[f"99992026000000080{number}"]] * 3
        nobody = await found(mesh, TAX, asked, subject=subject, purpose="P-AUDIT", case_ref="CASE-3", **basis)
        assert not nobody


async def test_a_row_that_a_condition_hides_is_not_there_at_any_door(mesh: Mesh) -> None:
    hidden = await refused(get(mesh, TAX, f"declarations/{PENDING}", context=why(**REBATE)))
    absent = await refused(get(mesh, TAX, "declarations/999920260999999999", context=why(**REBATE)))
    assert isinstance(hidden, NotFound)
    assert (hidden.reason, hidden.message, hidden.metadata) == (absent.reason, absent.message, absent.metadata)
    assert PENDING not in {d.declaration_no for d in await listed(mesh, TAX, context=why(**REBATE))}
    first = await anext(watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), from_start=True))
    assert PENDING.encode() not in first.SerializeToString()


async def test_asking_for_fewer_fields_shows_no_more_rows(mesh: Mesh) -> None:
    """A row shows where a condition of a field asked for holds, not of any field."""
    rows = await listed(mesh, TAX, context=why(**STAT), fields=["port_code"])
    assert len(rows) == 2
    assert {d.declaration_no for d in rows} == {""}


async def test_a_key_never_comes_back_where_its_field_does_not(mesh: Mesh) -> None:
    told = await get(mesh, TAX, DECLARATION, context=why(**REBATE), fields=["trade_mode"])
    assert told.trade_mode == "0110"
    assert not told.envelope.key
    assert CLEARED.encode() not in told.SerializeToString()


async def test_a_hidden_field_does_not_move_the_digest(own: Mesh) -> None:
    """Equal digests before and after: else one could try out values of a field that one does not see."""
    request = service_pb2.GetDeclarationRequest(name=DECLARATION, context=why(**REBATE), fields=["trade_mode"])
    before = await call(own, TAX, f"{CUSTOMS}/GetDeclaration", request, service_pb2.GetDeclarationResponse)
    changed = declared(CLEARED)
    changed.gross_wt_kg.value = "987654"
    await own.load("customs", [changed])
    after = await call(own, TAX, f"{CUSTOMS}/GetDeclaration", request, service_pb2.GetDeclarationResponse)
    assert after.declaration.envelope.version == 2
    assert after.declaration.envelope.digest == before.declaration.envelope.digest


async def test_stating_more_about_oneself_opens_nothing(mesh: Mesh) -> None:
    """A case or a principal that a caller merely states are no permits, and an authorization's number ends it."""
    stated = {"on_behalf_of": "customs/node", "case_ref": "CASE-1"}
    for context in (REBATE, STAT, PUBLIC):
        for selection in ("customs.Declaration", "customs.Penalty", "customs.Operator"):
            plain = await one(mesh, TAX, selection, **context)
            dressed = await one(mesh, TAX, selection, **context, **stated)
            plain.ClearField("as_of")
            dressed.ClearField("as_of")
            assert plain == dressed
            error = await refused(one(mesh, TAX, selection, **context, **stated, authorization_id="AUTH-1"))
            assert error.reason is Reason.AUTHORIZATION_UNSUPPORTED


async def test_explain_reads_nothing(mesh: Mesh) -> None:
    """Its answer is the same for a subject that is there and for one that is not."""
    answers = [
        await mesh.client(TAX).unary(
            EXPLAIN,
            federation_pb2.ExplainRequest(query=question(f"cn.uscc:{uscc}", "customs.Declaration", **REBATE)),
            federation_pb2.ExplainResponse,
            timeout=5,
        )
        for uscc in (EXPORTER, OTHER, code("MA000009"))
    ]
    for answer in answers:
        # Each was logged by itself; what it says is the same.
        answer.ClearField("receipt")
    assert answers[0] == answers[1] == answers[2]


async def test_a_resume_token_is_good_for_its_caller_and_type_only(mesh: Mesh) -> None:
    first = await anext(watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), from_start=True))
    token = first.resume_token
    for who, kind, context in (
        ("taxation/other", "customs.Declaration", REBATE),
        (TAX, "customs.ClearanceEvent", REBATE),
    ):
        error = await refused(anext(watch(mesh, who, kind, context=why(**context), resume_token=token)))
        assert error.reason is Reason.RESUME_TOKEN_INVALID
    token_of_a_page = await refused(
        anext(watch(mesh, TAX, "customs.Declaration", context=why(**REBATE), resume_token="A" * 5000))
    )
    assert token_of_a_page.reason is Reason.RESUME_TOKEN_INVALID


def test_the_requests_have_no_field_that_this_file_forgot() -> None:
    """Whoever adds a way to select records adds an attack on it."""
    assert [f.name for f in exchange_pb2.Selection.DESCRIPTOR.fields] == [
        "record_type",
        "fields",
        "filter",
        "page_size",
        "page_token",
        "zone",
    ]
    assert [f.name for f in service_pb2.ListDeclarationsRequest.DESCRIPTOR.fields]
    assert [f.name for f in record_source_pb2.WatchRequest.DESCRIPTOR.fields] == [
        "delegated",
        "context",
        "selection",
        "resume_token",
        "from_start",
    ]
