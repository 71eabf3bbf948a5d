"""What the services of this node share: who reaches what, and on what terms it is shown."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from hutong.api.exchange.v1 import exchange_pb2
from services.kit.caller import ENTERPRISE, Caller
from services.kit.policy.engine import PolicyEngine
from services.kit.records.catalogue import Catalogue
from services.kit.records.database import Database
from services.recognition import asked, reach
from services.recognition.config import ContextSection
from services.recognition.disclosure import Disclosure
from services.recognition.ledger import Head, Selection
from services.recognition.reach import Reached


@dataclass(frozen=True, slots=True)
class Terms:
    """Why callers ask, where their requests have no room to say."""

    agency: ContextSection
    enterprise: ContextSection

    def of(self, caller: Caller) -> exchange_pb2.RequestContext:
        """Give what is taken for a caller's word."""
        found = self.enterprise if caller.agency == ENTERPRISE else self.agency
        return exchange_pb2.RequestContext(purpose=found.purpose, legal_basis=found.legal_basis)


@dataclass(frozen=True, slots=True)
class ReachedCase:
    """A case, and what of it a caller reaches."""

    head: Head
    part: Reached


class Door:
    """Stands between callers and what there is."""

    def __init__(
        self, database: Database, engine: PolicyEngine, catalogue: Catalogue, terms: Terms, results: reach.Results
    ) -> None:
        """`catalogue` holds this service's record types; `results` says who reaches which of them."""
        self.database = database
        self.results = results
        self._engine = engine
        self._catalogue = catalogue
        self.terms = terms
        """Why callers ask, where their requests have no room to say."""

    def decide(self, caller: Caller, context: exchange_pb2.RequestContext) -> Disclosure:
        """Decide what a caller is shown on the terms it states; raises `InvalidArgument` where those do not stand."""
        return Disclosure.decide(self._engine, self._catalogue, caller, context)

    def usual(self, caller: Caller) -> Disclosure:
        """Decide what a caller is shown of what it has just done."""
        return self.decide(caller, self.terms.of(caller))

    async def reached(self, caller: Caller, case_id: str) -> ReachedCase:
        """Find a case that a caller reaches; raises `NotFound`, also where it is there and not this caller's."""

        def work(connection: sa.Connection) -> ReachedCase | None:
            found = reach.find(connection, caller, asked.case_id(case_id))
            return None if found is None else ReachedCase(*found)

        found = await self.database.read(work, short=True)
        if found is None:
            raise asked.no_case()
        return found

    async def selection(self, caller: Caller) -> Selection:
        """Select the cases a caller reaches."""
        return await self.database.read(lambda connection: reach.selection(connection, caller), short=True)

    async def parts(self, caller: Caller, heads: Collection[Head]) -> Mapping[str, Reached]:
        """Say of each of some cases what of it a caller reaches; those it does not reach are left out."""

        def work(connection: sa.Connection) -> Mapping[str, Reached]:
            found = ((head.case_id, reach.case(connection, caller, head)) for head in heads)
            return {case_id: part for case_id, part in found if part is not None}

        return await self.database.read(work)
