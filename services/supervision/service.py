"""`AuthorizationService`: authorizations, over the wire.

Of every act, in this order: who acts must stand; the authorization must be one that the officer's agency may see; the
rules must allow it; and it is kept before it is answered. Each tells the log what it was about.
"""

import datetime as dt
import logging
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from google.protobuf.message import Message

from hutong.api.authorization.v1 import authorization_pb2 as pb
from hutong.api.exchange.v1 import exchange_pb2
from services.kit.authorizations import tickets
from services.kit.authorizations.scope import Scope
from services.kit.authorizations.tickets import Ticket, Tickets
from services.kit.errors import HutongError, NotFound
from services.kit.officers.tokens import Officer, Role
from services.kit.officers.verifier import Officers
from services.kit.records.pages import PageTokens
from services.kit.rpc import Call
from services.supervision import asked, messages, store
from services.supervision.authorizations import Act, Authorizations
from services.supervision.books import Authorization
from services.supervision.events import HistoryBroken, Person, Signatures
from services.supervision.explaining import Explainer, context
from services.supervision.feed import Feed
from services.supervision.quota import Quota

_SCAN: Final = 1000
"""Most authorizations looked at for one page: where they stand is computed, and cannot be asked of the store."""

_BATCH: Final = 50

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Noted:
    """An authorization that a call is about, as the log wants it told."""

    authorization_id: str
    scope: Scope
    scope_digest: bytes
    officer: str
    emergency: bool


class AuthorizationService:
    """`AuthorizationService`."""

    def __init__(
        self,
        authorizations: Authorizations,
        officers: Officers,
        signatures: Signatures,
        quota: Quota,
        feed: Feed,
        explainer: Explainer,
        pages: PageTokens,
        auditors: Collection[str],
    ) -> None:
        """`auditors` (`agency/system`) may see every authorization."""
        self._authorizations = authorizations
        self._officers = officers
        self._signatures = signatures
        self._tickets = Tickets(signatures.published, signatures.keys.agency)
        self._quota = quota
        self._feed = feed
        self._explainer = explainer
        self._pages = pages
        self._auditors = frozenset(auditors)

    async def request_authorization(
        self, request: pb.RequestAuthorizationRequest, call: Call
    ) -> pb.RequestAuthorizationResponse:
        """Ask for one; see `Authorizations.request`."""
        request_id = asked.request_id(request.request_id)
        officer = await self._officer(request, call, Role.REQUESTER)
        found = await self._authorizations.request(request_id, call.caller.path, request.scope, officer)
        self._acted(found, found.standing.requester, call, "requested")
        return pb.RequestAuthorizationResponse(authorization=self._whole(found))

    async def approve_authorization(
        self, request: pb.ApproveAuthorizationRequest, call: Call
    ) -> pb.ApproveAuthorizationResponse:
        """Approve one; see `Authorizations.approve`."""
        act = await self._begin(request, call, Role.APPROVER)
        found = await self._authorizations.approve(act, request.scope_digest)
        self._acted(found, act.by, call, "approved")
        return pb.ApproveAuthorizationResponse(authorization=self._whole(found))

    async def reject_authorization(
        self, request: pb.RejectAuthorizationRequest, call: Call
    ) -> pb.RejectAuthorizationResponse:
        """Reject one; see `Authorizations.reject`."""
        act = await self._begin(request, call, Role.APPROVER, asked.reason(request.reason_code))
        found = await self._authorizations.reject(act)
        self._acted(found, act.by, call, "rejected")
        return pb.RejectAuthorizationResponse(authorization=self._whole(found))

    async def revoke_authorization(
        self, request: pb.RevokeAuthorizationRequest, call: Call
    ) -> pb.RevokeAuthorizationResponse:
        """Revoke one; see `Authorizations.revoke`."""
        either = (Role.APPROVER, Role.REQUESTER)
        act = await self._begin(request, call, either, asked.reason(request.reason_code))
        found = await self._authorizations.revoke(act)
        self._acted(found, act.by, call, "revoked")
        return pb.RevokeAuthorizationResponse(authorization=self._whole(found))

    async def review_authorization(
        self, request: pb.ReviewAuthorizationRequest, call: Call
    ) -> pb.ReviewAuthorizationResponse:
        """Review an emergency; see `Authorizations.review`."""
        either = (Role.APPROVER, Role.AUDITOR)
        act = await self._begin(request, call, either, asked.reason(request.reason_code))
        found = await self._authorizations.review(act)
        self._acted(found, act.by, call, "reviewed")
        return pb.ReviewAuthorizationResponse(authorization=self._whole(found))

    async def use_authorization(self, request: pb.UseAuthorizationRequest, call: Call) -> pb.UseAuthorizationResponse:
        """Give an officer a ticket; see `Authorizations.use`."""
        act = await self._begin(request, call, Role.REQUESTER)
        found = await self._authorizations.use(act, call.caller.path)
        self._acted(found, act.by, call, "used")
        issued_at = found.events[-1].at.replace(microsecond=0)
        ends = min(issued_at + tickets.LIFETIME, found.standing.not_after.replace(microsecond=0))
        ticket = Ticket(
            ticket_id=str(uuid.uuid4()),
            issuer=self._signatures.keys.issuer,
            authorization_id=found.id,
            scope_digest=found.digest,
            caller=call.caller.spiffe_id,
            officer=act.by.pseudonym,
            issued_at=issued_at,
            expires_at=ends,
        )
        response = pb.UseAuthorizationResponse(ticket=tickets.sign(self._signatures.keys, ticket))
        response.expires_at.FromDatetime(ends)
        return response

    async def reserve_rows(self, request: pb.ReserveRowsRequest, call: Call) -> pb.ReserveRowsResponse:
        """Take rows off a quota; see `Quota.reserve`."""
        wanted = asked.wanted(request)
        now = self._authorizations.moments.now()
        ticket = self._tickets.read(request.ticket, now)
        left = await self._quota.reserve(ticket, wanted, call.caller)
        return pb.ReserveRowsResponse(left=left)

    async def explain_authorization(
        self, request: pb.ExplainAuthorizationRequest, call: Call
    ) -> pb.ExplainAuthorizationResponse:
        """Tell what one would open, field by field, without reading any record."""
        found = await self._visible(request.authorization_id, call)
        sections = [mask.section() for mask in self._explainer.masks(found)]
        return pb.ExplainAuthorizationResponse(scope_digest=found.digest, sections=sections)

    async def get_authorization(self, request: pb.GetAuthorizationRequest, call: Call) -> pb.GetAuthorizationResponse:
        """Get one with its history."""
        found = await self._visible(request.authorization_id, call)
        return pb.GetAuthorizationResponse(authorization=self._whole(found))

    async def list_authorizations(
        self, request: pb.ListAuthorizationsRequest, call: Call
    ) -> pb.ListAuthorizationsResponse:
        """List those the caller may see, the newest request first.

        Where a state is asked for, a page may hold fewer than there is room for, and others may follow.
        """
        state = asked.state(request.state)
        size = self._pages.size(request.page_size)
        binding = (call.caller.spiffe_id, "authorizations", state or "")
        after = self._after(request.page_token, binding)
        agency = self._agency(call)
        response, looked = pb.ListAuthorizationsResponse(), 0
        while len(response.authorizations) < size and looked < _SCAN:
            page = partial(self._page, agency=agency, after=after)
            found = await self._authorizations.database.read(page)
            now = self._authorizations.moments.now()
            for head, authorization in found:
                looked += 1
                after = (head.requested_at, head.authorization_id)
                stands_at = authorization.state(now) if authorization else None
                if authorization and stands_at and state in {None, stands_at}:
                    response.authorizations.append(messages.authorization(authorization, stands_at))
                if len(response.authorizations) == size:
                    break
            else:
                if len(found) < _BATCH:
                    return response
        if after is not None:
            response.next_page_token = self._pages.seal(after[1], after[0], binding)
        return response

    async def follow_authorizations(
        self, request: pb.FollowAuthorizationsRequest, call: Call
    ) -> AsyncIterator[pb.FollowAuthorizationsResponse]:
        """Stream what is in force and every change; see `Feed`."""
        async with aclosing(self._feed.follow(call.caller)) as responses:
            async for response in responses:
                yield response

    async def _officer(self, request: Message, call: Call, role: Role | Collection[Role]) -> Officer:
        """Tell who acts. The token is used up in the act's own transaction, and not before."""
        token: str = getattr(request, "officer_token")  # noqa: B009 - every act has one, and messages share no type
        return await self._officers.read(token, call.method, request, call, role)

    async def _begin(self, request: Any, call: Call, role: Role | Collection[Role], reason: str = "") -> Act:
        authorization_id = self._named(request.authorization_id, call)
        officer = await self._officer(request, call, role)
        act = self._authorizations.act(authorization_id, officer, reason)
        # For the log of a refusal; whatever it says, the act asks again under the lock.
        with suppress(NotFound):
            self._note(await self._authorizations.get(authorization_id, officer.agency), act.by, call)
        return act

    def _named(self, authorization_id: str, call: Call) -> str:
        """Check the id of an authorization, and tell the log of it, whatever comes of the call."""
        checked = asked.authorization_id(authorization_id)
        call.facts.stated(exchange_pb2.RequestContext(authorization_id=checked))
        return checked

    def _agency(self, call: Call) -> str | None:
        return None if call.caller.path in self._auditors else call.caller.agency

    async def _visible(self, authorization_id: str, call: Call) -> Authorization:
        wanted = self._named(authorization_id, call)
        found = await self._authorizations.get(wanted, self._agency(call))
        self._note(found, Person(call.caller.agency, ""), call)
        return found

    def _whole(self, found: Authorization) -> pb.Authorization:
        return messages.authorization(found, found.state(self._authorizations.moments.now()), history=True)

    def _note(self, found: Authorization, by: Person, call: Call) -> None:
        """Tell the log what the call is about: the authorization with its purpose, basis and case, and who acts."""
        call.facts.stated(context(found))
        call.facts.granted(Noted(found.id, Scope.of(found.scope), found.digest, by.pseudonym, found.scope.emergency))

    def _acted(self, found: Authorization, by: Person, call: Call, what: str) -> None:
        self._note(found, by, call)
        fields = {"authorization_id": found.id, "act": what, "agency": by.agency, "officer": by.pseudonym}
        # Emergencies are louder: whoever watches the log must not miss one.
        level = logging.WARNING if found.scope.emergency else logging.INFO
        said = "An emergency authorization" if found.scope.emergency else "An authorization"
        _log.log(level, "%s was %s", said, what, extra={"fields": fields | {"emergency": found.scope.emergency}})

    def _page(
        self, connection: sa.Connection, agency: str | None, after: tuple[dt.datetime, str] | None
    ) -> list[tuple[store.Head, Authorization | None]]:
        heads = store.page(connection, agency, after, _BATCH)
        return [(head, self._listed(connection, head, agency)) for head in heads]

    def _listed(self, connection: sa.Connection, head: store.Head, agency: str | None) -> Authorization | None:
        try:
            return self._authorizations.seen_by(agency, self._authorizations.books.read(connection, head))
        except (HistoryBroken, HutongError):
            return None

    def _after(self, token: str, binding: tuple[str, ...]) -> tuple[dt.datetime, str] | None:
        if not token:
            return None
        cursor = self._pages.open(token, binding)
        return None if cursor.as_of is None else (cursor.as_of, cursor.key)
