"""One source made of several: most record types lie in the department's store, some are read live from elsewhere."""

from collections.abc import Mapping
from types import MappingProxyType

from services.kit.records.catalogue import RecordType
from services.kit.records.conditions import Condition
from services.kit.records.source import ALWAYS, Changes, Groups, Page, PreparedFetch, RecordQuery, RecordSource
from services.kit.records.values import Column


class RoutedSource:
    """Sends every question to where the records of its type lie."""

    history = True
    watch = True

    def __init__(self, store: RecordSource, elsewhere: Mapping[str, RecordSource]) -> None:
        """`elsewhere` holds the sources of the types, by name, that do not lie in the store."""
        self._store = store
        self._elsewhere = elsewhere

    def of(self, record_type: RecordType) -> RecordSource:
        """Say where records of a type lie."""
        return self._elsewhere.get(record_type.name, self._store)

    async def fetch(self, query: RecordQuery) -> Page:
        """Get one page of records; see `RecordSource`."""
        return await self.of(query.record_type).fetch(query)

    def prepare(self, query: RecordQuery) -> PreparedFetch:
        """Prepare a query; see `RecordSource`."""
        return self.of(query.record_type).prepare(query)

    async def changes(
        self,
        record_type: RecordType,
        after: int,
        limit: int = 200,
        filters: tuple[Condition, ...] = (),
        groups: Groups = ALWAYS,
        params: Mapping[str, Column] = MappingProxyType({}),
    ) -> Changes:
        """Get what changed after a point of the store's change sequence; see `RecordSource`."""
        return await self.of(record_type).changes(record_type, after, limit, filters, groups, params)

    async def last_seq(self) -> int:
        """Get the present end of the store's change sequence."""
        return await self._store.last_seq()
