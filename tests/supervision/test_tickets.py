"""Tickets: what the service signs, and nothing else, for as long as it says and no longer."""

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.kit.authorizations import tickets
from services.kit.authorizations.tickets import LIFETIME, Ticket
from services.kit.credentials import signed, strict
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.credentials.published import SKEW, seconds
from services.kit.errors import FailedPrecondition, HutongError, Reason
from tests.supervision.desk import DAY, SECOND, START
from tests.zone import ZONE

TICKET = Ticket(
    ticket_id="t-1",
    issuer=f"spiffe://{ZONE}/supervision",
    authorization_id="a-1",
    scope_digest=b"\1" * 32,
    caller=f"spiffe://{ZONE}/supervision/aml",
    officer="officer-0123456789abcdef",
    issued_at=START,
    expires_at=START + LIFETIME,
)
CLAIMS = {
    "iss": TICKET.issuer,
    "aut": "a-1",
    "sco": strict.encode(TICKET.scope_digest),
    "cal": TICKET.caller,
    "off": TICKET.officer,
    "iat": seconds(START),
    "exp": seconds(START + LIFETIME),
    "jti": "t-1",
}


class Keys:
    """The service's keys, and another agency's, both published."""

    def __init__(self, folder: Path) -> None:
        self.own = SigningKeys.create(folder / "own", f"spiffe://{ZONE}/supervision", START - DAY)
        self.other = SigningKeys.create(folder / "other", f"spiffe://{ZONE}/customs", START - DAY)
        for keys in (self.own, self.other):
            keys.publish(folder / "keys")
        self.folder = folder / "keys"
        self.published = PublishedKeys.load(self.folder)

    def read(self, text: str, now: dt.datetime = START) -> Ticket:
        return tickets.read(text, self.published, now)

    def refused(self, text: str, now: dt.datetime = START) -> Reason:
        with pytest.raises(HutongError) as caught:
            self.read(text, now)
        return caught.value.reason

    def forged(self, keys: SigningKeys | None = None, typ: str = tickets.TYPE, **changes: Any) -> str:
        key = (keys or self.own).active(START)
        claims = {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}
        return signed.sign({"typ": typ, "kid": key.kid}, claims, key.key)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def test_what_is_signed_is_read(keys: Keys) -> None:
    text = tickets.sign(keys.own, TICKET)
    assert len(text) < tickets.LIMIT
    assert keys.read(text) == TICKET == keys.read(keys.forged())
    assert keys.read(text, START + LIFETIME - SECOND) == TICKET


def test_time(keys: Keys) -> None:
    text = tickets.sign(keys.own, TICKET)
    assert keys.refused(text, START + LIFETIME) is Reason.TICKET_EXPIRED
    assert keys.read(text, START - SKEW) == TICKET
    assert keys.refused(text, START - SKEW - SECOND) is Reason.TICKET_INVALID
    longer = tickets.sign(keys.own, replace(TICKET, expires_at=START + LIFETIME + SECOND))
    assert keys.refused(longer) is Reason.TICKET_INVALID
    assert keys.refused(keys.forged(exp=CLAIMS["iat"])) is Reason.TICKET_INVALID


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": f"spiffe://{ZONE}/customs"},
        {"iss": "spiffe://other.example/supervision"},
        {"sco": "AAAA"},
        {"sco": "*" * 43},
        {"aut": ""},
        {"aut": None},
        {"cal": None},
        {"off": 7},
        {"iat": "1"},
        {"exp": -1},
        {"exp": 10**15},
        {"more": "1"},
        {"jti": "j" * 301},
        {"typ": "JWT"},
        {"typ": "hutong-authorization-event+jwt"},
    ],
)
def test_what_is_no_ticket(keys: Keys, changes: dict[str, Any]) -> None:
    assert keys.refused(keys.forged(**changes)) is Reason.TICKET_INVALID


def test_another_agency_signs_none(keys: Keys) -> None:
    for issuer in (TICKET.issuer, f"spiffe://{ZONE}/customs"):
        assert keys.refused(keys.forged(keys.other, iss=issuer)) is Reason.TICKET_INVALID


def test_texts_that_are_none(keys: Keys) -> None:
    good = tickets.sign(keys.own, TICKET)
    head, body, end = good.split(".")
    none = strict.encode(b'{"alg":"none","typ":"hutong-ticket+jwt"}')
    for text in ("", ".", "a.b.c", good[:-4], f"{none}.{body}.", f"{head}.{body}.{end[:-4]}AAAA", "ü" * 20, "x" * 5000):
        assert keys.refused(text) is Reason.TICKET_INVALID


def test_keys_that_stand_no_more(keys: Keys) -> None:
    text = tickets.sign(keys.own, TICKET)
    keys.own.revoke(keys.own.active(START).kid, START, "KEY_COMPROMISED")
    keys.own.publish(keys.folder)
    assert keys.refused(text) is Reason.TICKET_INVALID
    (keys.folder / "supervision.jwks.json").write_text("nonsense", encoding="utf-8")
    with pytest.raises(FailedPrecondition) as caught:
        keys.read(text)
    assert caught.value.reason is Reason.KEY_INVALID
