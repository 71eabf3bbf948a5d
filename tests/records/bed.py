"""What the tests of the store work with: a clock that is moved by hand, and enterprises that do not exist."""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import Message

from hutong.api.commerce.v1 import enterprise_pb2
from hutong.api.common.v1 import common_pb2
from services.kit.records import catalogue, conditions, migrations, values
from services.kit.records.conditions import Condition
from services.kit.records.ingest import Item
from services.kit.records.live import LiveSource
from services.kit.records.source import Page, RecordQuery, RecordSource, StoredRecord
from services.kit.records.store import Draft, Outcome, RecordStore

REPOSITORY = Path(__file__).resolve().parents[2]
COMMERCE = catalogue.load().owned_by("commerce")
ENTERPRISE = COMMERCE.get("commerce.Enterprise")
MIGRATIONS = REPOSITORY / "services" / "commerce" / "migrations"
START = dt.datetime(2026, 3, 1, 9, tzinfo=dt.UTC)

Enterprise = enterprise_pb2.Enterprise


class Hand:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, seconds: float = 1) -> dt.datetime:
        self.now += dt.timedelta(seconds=seconds)
        return self.now


def enterprise(
    uscc: str, name: str = "", *, region: str = "350203", status: str = "ACTIVE", approved: str = "2019-01-02"
) -> enterprise_pb2.Enterprise:
    date = dt.date.fromisoformat(approved)
    return Enterprise(
        uscc=uscc,
        name=name or f"Company {uscc}",
        region_code=region,
        reg_status=enterprise_pb2.RegStatus.Value(f"REG_STATUS_{status}"),
        approved_date=common_pb2.Date(year=date.year, month=date.month, day=date.day),
    )


def drafts(*messages: Message, source: str = "registry") -> list[Draft]:
    return [Draft(ENTERPRISE, m, source) for m in messages]


def condition(text: str, *params: str) -> Condition:
    return conditions.parse(text, ENTERPRISE, frozenset(params))


def read(record: StoredRecord) -> enterprise_pb2.Enterprise:
    return Enterprise.FromString(record.body)


def names(records: Iterable[StoredRecord]) -> list[str]:
    return [read(r).name for r in records]


def keys(page: Page) -> list[str]:
    return [r.key for r in page.records]


async def whole(source: RecordSource, **asked: object) -> list[str]:
    """Get the keys of every page of a query."""
    return [r.key for r in await everything(source, RecordQuery(ENTERPRISE, **asked))]  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def everything(source: RecordSource, query: RecordQuery) -> list[StoredRecord]:
    page = await source.fetch(query)
    found = list(page.records)
    while page.next_key is not None:
        further = RecordQuery(
            query.record_type,
            query.subject,
            query.key,
            query.filters,
            page.as_of if source.history else None,
            query.limit,
            page.next_key,
            query.groups,
            query.params,
            query.revoked,
        )
        page = await source.fetch(further)
        found += page.records
    return found


async def open_store(url: str, clock: Hand) -> RecordStore:
    migrations.upgrade(url, MIGRATIONS)
    store = RecordStore(url, COMMERCE, clock)
    await store.open()
    return store


async def put(store: RecordStore, *messages: Message) -> list[Outcome]:
    return await store.append(drafts(*messages))


@dataclass(frozen=True, slots=True)
class Good:
    """A row that became a record, as adapters give it."""

    position: str
    original: bytes
    message: Message


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that did not."""

    position: str
    original: bytes
    reason: str
    detail: str


class Legacy:
    """A legacy system that is asked at the moment of the question."""

    def __init__(self) -> None:
        self.rows: dict[str, Message] = {}
        self.broken = 0
        self.asked: list[dict[str, str]] = []

    def put(self, *messages: Message) -> None:
        self.rows |= {ENTERPRISE.key_of(m): m for m in messages}

    def read(self, limit: int, /, **fields: str) -> Iterator[Item]:
        self.asked.append(fields)
        for n in range(self.broken):
            yield Bad(str(n), b"?", "VALUE_INVALID", "no such date")
        for key, message in self.rows.items():
            texts = {p: values.text_of(ENTERPRISE.field(p).descriptor, getattr(message, p)) for p in fields}
            if texts == fields:
                yield Good(key, b"", message)

    def source(self, clock: Hand, scan_limit: int = 1000) -> LiveSource:
        return LiveSource({"commerce.Enterprise": self.read}, "legacy", clock, scan_limit=scan_limit)
