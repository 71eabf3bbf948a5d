"""Who asks is checked for every question of a session: certificate, access, policy, authorization."""

import datetime as dt
from pathlib import Path

import pytest

from certs.register import RevocationReason
from gateway import node
from hutong.api.authorization.v1 import authorization_pb2 as pb
from services.kit.errors import HutongError, Reason
from tests.authorizations.mesh import AML, DECLARATIONS, asked, loaded
from tests.exchange.mesh import Mesh, question, records
from tests.exchange.records import EXPORTER
from tests.exchange.standin import stuck
from tests.recording.bed import everything
from tests.sessions.talking import Talk, ask, prepare
from tests.zone import now

SUBJECT = f"cn.uscc:{EXPORTER}"
REBATE = {"purpose": "P-REBATE", "legal_basis": "CN-VAT-REBATE"}
ASKED = question(SUBJECT, "customs.Declaration:declaration_no,ie_flag,total_value_cny", **REBATE)
WHO = "taxation/refund"
STOP = '@id("stop-value") forbid (principal, action, resource == Hutong::Field::"customs.Declaration.total_value_cny");'


async def until_refused(talk: Talk) -> HutongError:
    """Ask one question after another until there is no answer; gives why."""
    number = 0
    talk.say(prepare(0, ASKED))
    while True:
        number += 1
        talk.say(ask(number, 0, SUBJECT))
        try:
            assert (await talk.answer(number)).sections[0].records
        except HutongError as error:
            assert number > 1, "the first question was refused already"
            return error


async def test_a_session_does_not_outlive_its_certificate(own: Mesh) -> None:
    brief = own.zone.identity("taxation/brief")
    own.zone.authority.issue(brief, now(), dt.timedelta(seconds=4))
    async with Talk(own.client("taxation/brief")) as talk:
        error = await until_refused(talk)
    assert error.reason is Reason.IDENTITY_INVALID


async def test_a_revoked_certificate_asks_nothing_more_in_a_session_that_is_open(own: Mesh) -> None:
    serial = own.zone.files(WHO).load().leaf.serial_number
    async with Talk(own.client(WHO)) as talk:
        talk.say(prepare(0, ASKED), ask(0, 0, SUBJECT))
        await talk.answer(0)
        own.zone.authority.revoke((serial,), RevocationReason.KEY_COMPROMISE, now())
        error = await until_refused(talk)
    assert error.reason is Reason.CERTIFICATE_REVOKED


async def test_a_policy_holds_for_the_next_question_of_a_session_that_is_open(own: Mesh) -> None:
    async with Talk(own.client(WHO)) as talk:
        talk.say(prepare(0, ASKED), ask(0, 0, SUBJECT))
        (found,) = records((await talk.answer(0)).sections[0])
        assert found.HasField("total_value_cny")
        own.add_policy("customs", STOP)
        number = without = 0
        while without < 20:
            number += 1
            talk.say(ask(number, 0, SUBJECT))
            (found,) = records((await talk.answer(number)).sections[0])
            given = found.HasField("total_value_cny")
            assert not (given and without), "what policy forbids came back"
            without += not given
            assert found.declaration_no


async def test_an_authorization_that_ends_refuses_the_next_question_of_a_session(tmp_path: Path) -> None:
    async with loaded(tmp_path) as mesh:
        leave, other = await mesh.give(DECLARATIONS), await mesh.give(DECLARATIONS)
        first, second = (prepare(n, asked(each, "customs.Declaration")) for n, each in enumerate((leave, other)))
        async with Talk(mesh.client(AML)) as talk:
            talk.say(first, second, ask(1, 0, SUBJECT), ask(2, 1, SUBJECT))
            assert records((await talk.answer(1)).sections[0])
            assert records((await talk.answer(2)).sections[0])
            await mesh.revoke(leave)
            await mesh.heard(leave.authorization_id, pb.AUTHORIZATION_STATE_REVOKED, leave.scope.types)
            talk.say(ask(3, 0, SUBJECT), ask(4, 1, SUBJECT))
            with pytest.raises(HutongError) as refused:
                await talk.answer(3)
            assert refused.value.reason is Reason.AUTHORIZATION_REVOKED
            # The other one stands.
            assert records((await talk.answer(4)).sections[0])
        # A question that waits for a department ends while it waits.
        async with stuck(mesh, "customs") as reached, Talk(mesh.client(AML)) as talk:
            await mesh.heard(other.authorization_id, pb.AUTHORIZATION_STATE_ACTIVE, other.scope.types)
            talk.say(second, ask(1, 1, SUBJECT, 30))
            await reached.wait()
            await mesh.revoke(other)
            with pytest.raises(HutongError) as refused:
                await talk.answer(1)
            assert refused.value.reason is Reason.AUTHORIZATION_REVOKED


async def test_who_is_not_listed_gets_no_session(mesh: Mesh) -> None:
    for who in ("operator/admin", "enterprise/91110000600037341l", "visitor/app"):
        async with Talk(mesh.client(who)) as talk:
            talk.say(prepare(0, ASKED), ask(1, 0, SUBJECT))
            error = await talk.ended()
        assert error is not None
        assert error.reason is Reason.CALLER_NOT_LISTED
        assert not talk.answered


async def test_who_may_open_a_session_and_not_query_is_refused_every_question(
    own: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = own.folder / "withdrawn.yaml"
    lists.write_text("hutong.api.exchange.v1.FederationService: {Session: [taxation/*, customs/*], Query: [customs/*]}")
    monkeypatch.setattr(node, "ACCESS", lists)
    await own.replace_gateway()
    async with Talk(own.client(WHO)) as talk, Talk(own.client("customs/release")) as other:
        for each in (talk, other):
            each.say(prepare(0, ASKED), ask(1, 0, SUBJECT), ask(2, 0, SUBJECT))
        for number in (1, 2):
            with pytest.raises(HutongError) as refused:
                await talk.answer(number)
            assert refused.value.reason is Reason.CALLER_NOT_LISTED
            assert (await other.answer(number)).sections
    assert own.gateway is not None
    logged = [(entry.caller.rpartition("/")[2], entry.reason) for entry in await everything(own.gateway.host)]
    assert logged.count(("refund", Reason.CALLER_NOT_LISTED)) == 2
