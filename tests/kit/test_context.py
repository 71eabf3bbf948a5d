"""A gateway's word on a caller: what makes it stand, and one test for each way in which it does not."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from certs.svid import SvidFiles
from hutong.api.common.v1 import common_pb2
from hutong.api.exchange.v1 import exchange_pb2, record_source_pb2
from services.kit.caller import Caller
from services.kit.context import LIFETIME, SKEW, ContextSigner, ContextVerifier, request_digest
from services.kit.errors import HutongError, PermissionDenied, Reason, Unauthenticated
from services.kit.rpc import Call
from tests.zone import ZONE, Zone, now

WHY = exchange_pb2.RequestContext(purpose="P-REBATE", legal_basis="CN-VAT-REBATE")


@dataclass
class Clock:
    moment: dt.datetime

    def __call__(self) -> dt.datetime:
        return self.moment


def caller(path: str) -> Caller:
    agency, _, system = path.partition("/")
    return Caller(f"spiffe://{ZONE}/{path}", agency, system)


TAX = caller("taxation/refund")


class Stage:
    """A gateway that signs and a department that checks."""

    def __init__(self, folder: Path) -> None:
        self.zone = Zone(folder)
        self.clock = Clock(now())
        self.verifier = ContextVerifier(["gateway/main"], ZONE, self.clock)

    def call(self, path: str) -> Call:
        chain = self.zone.files(path).load().chain
        return Call("/x/Fetch", caller(path), chain, None)

    def request(self) -> record_source_pb2.FetchRequest:
        subject = common_pb2.SubjectId(scheme="cn.uscc", value="91350211M0000XUF46")
        return record_source_pb2.FetchRequest(
            subject=subject, selections=[exchange_pb2.Selection(record_type="customs.Declaration")]
        )

    def signed(self, who: Caller = TAX, by: str = "gateway/main") -> record_source_pb2.FetchRequest:
        request = self.request()
        signer = ContextSigner(self.zone.identity(by), self.clock)
        digests = [b"other", request_digest(request)]
        request.delegated.CopyFrom(signer.sign(self.files(by).load(), who, WHY, digests))
        return request

    def files(self, path: str) -> SvidFiles:
        return self.zone.files(path)

    def resigned(self, change: Callable[[exchange_pb2.ExchangeContext], None]) -> record_source_pb2.FetchRequest:
        """A context changed in one way and signed again by the gateway's true key."""
        request = self.signed()
        context = exchange_pb2.ExchangeContext.FromString(request.delegated.payload)
        change(context)
        signer = ContextSigner(self.zone.identity("gateway/main"), self.clock)
        request.delegated.CopyFrom(signer.seal(self.files("gateway/main").load(), context))
        return request

    def refused(self, request: record_source_pb2.FetchRequest, by: str = "gateway/main") -> HutongError:
        with pytest.raises(HutongError) as refused:
            self.verifier.origin(request, self.call(by))
        return refused.value


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_a_gateways_word_stands(stage: Stage) -> None:
    origin = stage.verifier.origin(stage.signed(), stage.call("gateway/main"))
    assert origin.caller == TAX
    assert origin.request == WHY


def test_who_speaks_for_itself_is_the_origin(stage: Stage) -> None:
    request = stage.request()
    request.context.CopyFrom(WHY)
    origin = stage.verifier.origin(request, stage.call("quality/lab"))
    assert origin.caller == caller("quality/lab")


def test_a_gateway_cannot_ask_for_itself(stage: Stage) -> None:
    request = stage.request()
    request.context.CopyFrom(WHY)
    assert stage.refused(request).reason is Reason.CONTEXT_MISSING


def test_others_may_not_speak_for_anyone(stage: Stage) -> None:
    """A department that got hold of a good context, or made one itself, is no gateway."""
    for request in (stage.signed(), stage.signed(by="quality/lab")):
        refused = stage.refused(request, by="quality/lab")
        assert isinstance(refused, PermissionDenied)
        assert refused.reason is Reason.CALLER_NOT_LISTED


def test_another_keys_signature_does_not_stand(stage: Stage) -> None:
    assert stage.refused(stage.signed(by="quality/lab")).reason is Reason.CONTEXT_INVALID


def test_a_changed_payload_does_not_stand(stage: Stage) -> None:
    request = stage.signed()
    request.delegated.payload = request.delegated.payload.replace(b"taxation", b"customss")
    assert stage.refused(request).reason is Reason.CONTEXT_INVALID


def test_bytes_that_are_no_context_do_not_stand(stage: Stage) -> None:
    request = stage.request()
    request.delegated.payload = b"\xff\xff"
    request.delegated.signature = b"\x00"
    assert stage.refused(request).reason is Reason.CONTEXT_INVALID


def test_another_request_is_not_covered(stage: Stage) -> None:
    request = stage.signed()
    request.selections[0].fields.append("lines.hs10")
    refused = stage.refused(request)
    assert isinstance(refused, Unauthenticated)
    assert "another request" in refused.message


CHANGES: list[Callable[[Any], object]] = [
    lambda r: r.selections[0].fields.append("lines.hs10"),
    lambda r: setattr(r.selections[0], "filter", "ie_flag = 'E'"),
    lambda r: setattr(r.selections[0], "page_token", "t"),
    lambda r: r.selections.add(record_type="customs.Operator"),
    lambda r: setattr(r, "known_policy_version", "v"),
    lambda r: setattr(r.context, "purpose", "P-AML"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_more_can_be_asked_under_it(stage: Stage, change: Callable[[Any], object]) -> None:
    request = stage.signed()
    change(request)
    assert stage.refused(request).reason is Reason.CONTEXT_INVALID


def test_it_serves_one_subject_after_another(stage: Stage) -> None:
    request = stage.signed()
    request.subject.value = "91350211M0000XUF55"
    request.query_id = "another"
    assert stage.verifier.origin(request, stage.call("gateway/main")).caller == TAX


def test_another_gateways_name_does_not_stand(stage: Stage) -> None:
    def rename(context: exchange_pb2.ExchangeContext) -> None:
        context.gateway = str(stage.zone.identity("gateway/other"))

    assert "another gateway" in stage.refused(stage.resigned(rename)).message


def test_it_ends(stage: Stage) -> None:
    request = stage.signed()
    stage.clock.moment += LIFETIME + SKEW - dt.timedelta(milliseconds=1)
    stage.verifier.origin(request, stage.call("gateway/main"))
    stage.clock.moment += dt.timedelta(milliseconds=1)
    assert stage.refused(request).reason is Reason.CONTEXT_EXPIRED


def test_it_does_not_come_from_the_future(stage: Stage) -> None:
    request = stage.signed()
    stage.clock.moment -= SKEW + dt.timedelta(seconds=1)
    assert stage.refused(request).reason is Reason.CONTEXT_INVALID


def test_it_does_not_live_longer_than_allowed(stage: Stage) -> None:
    def stretch(context: exchange_pb2.ExchangeContext) -> None:
        context.expires_at.FromDatetime(stage.clock() + LIFETIME + dt.timedelta(seconds=1))

    assert stage.refused(stage.resigned(stretch)).reason is Reason.CONTEXT_INVALID


def test_it_must_say_when_it_was_made(stage: Stage) -> None:
    assert stage.refused(stage.resigned(lambda c: c.ClearField("issued_at"))).reason is Reason.CONTEXT_INVALID


@pytest.mark.parametrize(
    "who",
    ["", "taxation/refund", "spiffe://elsewhere.example/taxation/refund", f"spiffe://{ZONE}/gateway/main"],
)
def test_the_caller_must_be_a_system_of_the_zone(stage: Stage, who: str) -> None:
    def rename(context: exchange_pb2.ExchangeContext) -> None:
        context.caller = who

    assert stage.refused(stage.resigned(rename)).reason is Reason.CONTEXT_INVALID


def test_each_identity_signs_with_its_own_key(stage: Stage) -> None:
    files = stage.files("gateway/main")
    signer = ContextSigner(stage.zone.identity("gateway/main"), stage.clock)
    before = files.load()
    stage.zone.authority.renew(stage.zone.identity("gateway/main"), now())
    for svid in (files.load(), before, files.load()):
        request = stage.request()
        request.delegated.CopyFrom(signer.sign(svid, TAX, WHY, [request_digest(request)]))
        call = Call("/x/Fetch", caller("gateway/main"), svid.chain, None)
        assert stage.verifier.origin(request, call).caller == TAX
