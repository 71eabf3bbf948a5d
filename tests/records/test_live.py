"""What is particular to sources that are read live."""

import pytest

from services.kit.errors import FailedPrecondition, Internal, Reason, ResourceExhausted
from services.kit.records import catalogue
from services.kit.records.ingest import Item
from services.kit.records.live import LiveSource
from services.kit.records.source import RecordQuery, RecordSource
from tests.records.bed import ENTERPRISE, Hand, Legacy, condition, enterprise, keys


async def test_only_what_is_asked_for_is_read(clock: Hand) -> None:
    legacy = Legacy()
    source: RecordSource = legacy.source(clock)
    legacy.put(enterprise("k1"), enterprise("k2"))
    await source.fetch(RecordQuery(ENTERPRISE, subject=("cn.uscc", "k1")))
    await source.fetch(RecordQuery(ENTERPRISE, key="k2"))
    assert legacy.asked == [{"uscc": "k1"}, {"uscc": "k2"}]


async def test_every_field_that_may_name_the_subject(clock: Hand) -> None:
    declaration = catalogue.load().get("customs.Declaration")
    sent = declaration.message(declaration_no="1", importer_id="GB1", exporter_id="GB1")  # pyright: ignore[reportCallIssue]
    asked: list[dict[str, str]] = []

    def read(limit: int, /, **fields: str) -> list[Item]:
        asked.append(fields)
        from tests.records.bed import Good  # noqa: PLC0415

        return [Good("1", b"", sent)]

    source = LiveSource({"customs.Declaration": read}, "legacy", clock)
    page = await source.fetch(RecordQuery(declaration, subject=("eori", "GB1")))
    assert asked == [{"importer_id": "GB1"}, {"exporter_id": "GB1"}]
    assert keys(page) == ["1"]


async def test_rows_that_cannot_be_mapped_are_counted(clock: Hand, caplog: pytest.LogCaptureFixture) -> None:
    legacy = Legacy()
    legacy.put(enterprise("k1"))
    legacy.broken = 2
    page = await legacy.source(clock).fetch(RecordQuery(ENTERPRISE, filters=(condition("reg_status = ACTIVE"),)))
    assert (keys(page), page.unreadable) == (["k1"], 2)
    # Why, and of what type; not where, which is a row's key.
    assert [set(vars(line)["fields"]) for line in caplog.records] == [{"record_type", "reason"}] * 2


async def test_a_question_that_would_read_too_much(clock: Hand) -> None:
    legacy = Legacy()
    legacy.put(*(enterprise(f"k{n}") for n in range(11)))
    with pytest.raises(ResourceExhausted) as caught:
        await legacy.source(clock, scan_limit=10).fetch(RecordQuery(ENTERPRISE))
    assert caught.value.reason is Reason.SCAN_TOO_LARGE


async def test_a_legacy_system_that_fails(clock: Hand) -> None:
    def read(limit: int, /, **fields: str) -> list[Item]:
        raise OSError("secret table name")

    with pytest.raises(Internal) as caught:
        await LiveSource({"commerce.Enterprise": read}, "legacy", clock).fetch(RecordQuery(ENTERPRISE))
    assert "secret" not in caught.value.message


async def test_no_changes(clock: Hand) -> None:
    source = Legacy().source(clock)
    for ask in (source.last_seq(), source.changes(ENTERPRISE, 0)):
        with pytest.raises(FailedPrecondition) as caught:
            await ask
        assert caught.value.reason is Reason.HISTORY_UNAVAILABLE
