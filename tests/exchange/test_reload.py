"""Policy changed live: at once, under load, without a failed call; and what happens where two nodes disagree."""

import asyncio

import pytest

from gateway.cut import Cut
from hutong.api.common.v1 import common_pb2
from hutong.api.customs.v1 import declaration_pb2
from hutong.api.exchange.v1 import exchange_pb2, federation_pb2
from services.kit.caller import Caller
from services.kit.errors import Reason, Unavailable
from services.kit.records import catalogue
from tests.exchange.mesh import QUERY, Mesh, question, records
from tests.exchange.records import EXPORTER
from tests.zone import ZONE

SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
ASKED = question(SUBJECT, "customs.Declaration:declaration_no,ie_flag,total_value_cny", **REBATE)
BAND = """
@id("band") @basis("CN-VAT-REBATE") @until("2099-01-01T00:00:00Z") @transform("bucket:0,1000000")
@rows("ie_flag = 'E' AND decl_status = 'CLEARED'")
permit (
    principal in Hutong::Agency::"taxation",
    action,
    resource == Hutong::Field::"customs.Declaration.total_value_cny"
) when { context.purpose == "P-REBATE" };
"""
TAX = Caller(f"spiffe://{ZONE}/taxation/refund", "taxation", "refund")
STOP = '@id("stop-value") forbid (principal, action, resource == Hutong::Field::"customs.Declaration.total_value_cny");'


async def ask(mesh: Mesh) -> exchange_pb2.Section:
    answer = await mesh.client("taxation/refund").unary(QUERY, ASKED, federation_pb2.QueryResponse, timeout=5)
    return answer.sections[0]


async def test_a_forbid_takes_effect_under_load_without_a_failed_call(own: Mesh) -> None:
    stop = asyncio.Event()
    seen: list[bool] = []

    async def keep_asking() -> None:
        while not stop.is_set():
            section = await ask(own)
            assert section.status in {exchange_pb2.SECTION_STATUS_OK, exchange_pb2.SECTION_STATUS_PARTIAL}
            (found,) = records(section)
            assert found.declaration_no
            seen.append(found.HasField("total_value_cny"))

    async def change() -> None:
        while len(seen) < 50:
            await ask(own)
        own.add_policy("customs", STOP)
        while seen[-1] or len(seen) < 100:
            await ask(own)
        settled = len(seen)
        while len(seen) < settled + 50:
            await ask(own)
        stop.set()
        assert not any(seen[settled:])

    async with asyncio.timeout(30):
        await asyncio.gather(change(), *(keep_asking() for _ in range(4)))
    assert seen[0]
    assert not seen[-1]


async def test_a_broken_file_keeps_the_old_policies(own: Mesh) -> None:
    before = await ask(own)
    own.add_policy("customs", 'permit (principal, action, resource in Hutong::RecordType::"taxation.VatFiling");')
    last = len(next(own.folder.glob("policy/customs.cedar")).read_text().splitlines())
    failures = own.departments["customs"].policy_files
    assert own.gateway is not None
    async with asyncio.timeout(10):
        while not (failures.last_error and own.gateway.policy_files.last_error):
            await ask(own)
    # Somebody is told, in time to mend it.
    status = own.departments["customs"].host.status()
    assert {reading.name: reading.value for reading in status.readings}["hutong_policy_refused"] == 1
    assert failures.last_error.reason in {Reason.POLICY_INVALID, Reason.POLICY_FOREIGN_RECORD}
    assert {problem.place.line for problem in failures.last_error.problems} == {last}
    after = await ask(own)
    assert after.policy_version == before.policy_version
    assert list(after.decisions) == list(before.decisions)


@pytest.mark.parametrize("folder", ["policy", "apart"])
async def test_the_stricter_word_stands_where_gateway_and_department_differ(own: Mesh, folder: str) -> None:
    """Only the department's policy forbids, or only the gateway's."""
    own.gateway_policies = "apart"
    await own.replace_gateway()
    assert records(await ask(own))[0].HasField("total_value_cny")
    own.add_policy("customs", STOP, folder)
    async with asyncio.timeout(10):
        while records(found := await ask(own))[0].HasField("total_value_cny"):
            pass
    verdicts = {d.field: (d.verdict, d.reason) for d in found.decisions}
    assert verdicts["total_value_cny"] == (exchange_pb2.VERDICT_REFUSED, Reason.FORBIDDEN)
    assert verdicts["ie_flag"][0] == exchange_pb2.VERDICT_CLEAR
    assert found.status == exchange_pb2.SECTION_STATUS_PARTIAL


@pytest.mark.parametrize("folder", ["policy", "apart"])
async def test_a_form_that_only_one_of_them_gives_is_not_given(own: Mesh, folder: str) -> None:
    """One side would band the value, the other give it as it is: the gateway cannot make the one out of the other."""
    own.gateway_policies = "apart"
    await own.replace_gateway()
    own.add_policy("customs", BAND, folder)
    async with asyncio.timeout(10):
        while records(found := await ask(own))[0].HasField("total_value_cny"):
            pass
    verdicts = {d.field: (d.verdict, d.reason) for d in found.decisions}
    assert verdicts["total_value_cny"] == (exchange_pb2.VERDICT_REFUSED, Reason.POLICY_VERSIONS_DIFFER)


async def test_what_only_the_department_would_give_is_cut_by_the_gateway(own: Mesh) -> None:
    """A department that sends more than it was asked for, for whatever reason, is cut again."""
    own.gateway_policies = "apart"
    await own.replace_gateway()
    assert own.gateway is not None
    (answer,) = (await ask(own),)
    whole = declaration_pb2.Declaration()
    whole.CopyFrom(records(answer)[0])
    whole.gross_wt_kg.value = "1200"
    whole.containers.add(container_no="MSKU0000006")
    whole.MergeFromString(b"\xfa\xff\x03\x06secret")  # a field that this version does not know
    del answer.records[:]
    answer.records.add().Pack(whole)
    mask = own.gateway.engine.mask(TAX, ASKED.context, catalogue.load().get("customs.Declaration"))
    cut = exchange_pb2.Section.FromString(Cut(mask.restrict(["declaration_no", "ie_flag"]))(answer)[0])
    (found,) = records(cut)
    assert found.declaration_no == whole.declaration_no
    assert {f.name for f, _ in found.ListFields()} == {"envelope", "declaration_no", "ie_flag"}
    assert b"secret" not in cut.SerializeToString()


async def test_a_record_of_another_type_is_no_answer(own: Mesh) -> None:
    answer = await ask(own)
    del answer.records[:]
    answer.records.add().Pack(common_pb2.SubjectId(scheme="secret", value="secret"))
    assert own.gateway is not None
    mask = own.gateway.engine.mask(TAX, ASKED.context, catalogue.load().get("customs.Declaration"))
    with pytest.raises(Unavailable) as refused:
        Cut(mask)(answer)
    assert refused.value.reason is Reason.DEPARTMENT_FAILED
