"""Stage results: what is issued is verified, what is shown is part of it, and every condition has its reason."""

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.credentials import results, sdjwt, signed, status, strict
from services.kit.credentials.keys import PublishedKeys, SigningKeys
from services.kit.credentials.results import Statement
from services.kit.credentials.status import Status, StatusList
from services.kit.errors import HutongError, InvalidArgument, Reason
from tests.credentials.making import DAY, LIST, NOW, SUBJECT, Agencies, forged, refusal, statement
from tests.credentials.test_strict import JSON

SECOND = dt.timedelta(seconds=1)


def test_what_was_stated_is_what_is_verified(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    verified = results.verify(credential, published, at=NOW, issuer="publicsecurity", subject=SUBJECT)
    assert verified == statement()
    assert (verified.withheld, verified.subject_id) == (0, SUBJECT)
    assert verified.key_id == agencies.signing["publicsecurity"].active(NOW).kid
    assert results.read(credential) == statement()


def test_the_form_is_sd_jwt_vc(credential: str) -> None:
    token = signed.read(credential.partition("~")[0], typ="dc+sd-jwt")
    assert token.header["alg"] == "Ed25519"
    assert token.payload["vct"] == "urn:hutong:stage-result:1"
    assert token.payload["iss"] == "spiffe://north.example/publicsecurity"
    assert token.payload["status"] == {"status_list": {"idx": 5, "uri": LIST}}
    assert "case_id" not in token.payload
    assert token.payload["value"].keys() == {"_sd"}


def strict_names(value: Any) -> bool:
    """Whether no name at any depth is one that SD-JWT keeps for itself (RFC 9901 §4.1)."""
    if strict.is_object(value):
        return {"_sd", "_sd_alg", "..."}.isdisjoint(value) and all(map(strict_names, value.values()))
    return all(map(strict_names, value)) if strict.is_array(value) else True


@pytest.mark.parametrize("name", ["_sd", "_sd_alg", "..."])
def test_names_that_sd_jwt_keeps_are_refused_at_any_depth(agencies: Agencies, name: str) -> None:
    for value in ({name: None}, {"a": {name: None}}, {"a": [{name: None}]}):
        with pytest.raises(InvalidArgument):
            results.issue(statement(value=value), agencies.signing["publicsecurity"])


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), JSON, max_size=4), st.data())
def test_any_value_travels(one: Agencies, value: dict[str, Any], data: st.DataObject) -> None:
    keys, published = one.signing["publicsecurity"], one.published
    if {"", "case_id"} & value.keys() or not strict_names(value):
        return
    hidden: list[str] = data.draw(st.lists(st.sampled_from(sorted(value)), unique=True)) if value else []
    stated = statement(value=value)
    text = results.issue(stated, keys, hidden)
    assert results.verify(text, published, at=NOW) == stated
    assert results.disclosable(text) == {*hidden, "case_id"}
    shown = results.verify(results.present(text, ()), published, at=NOW)
    assert shown == replace(stated, case_id="", value={n: v for n, v in value.items() if n not in hidden})
    assert shown.withheld == len(hidden) + 1


@pytest.mark.parametrize(
    "changes",
    [
        {"valid_until": None},
        {"case_id": "", "stage": ""},
        {"status_uri": "", "status_index": 0},
        {"value": {}},
        {"scheme": "hutong.token", "subject": "a:b:c"},
        {"valid_from": NOW - 30 * DAY},
    ],
)
def test_what_may_be_left_out(agencies: Agencies, published: PublishedKeys, changes: dict[str, Any]) -> None:
    text = results.issue(statement(**changes), agencies.signing["publicsecurity"])
    assert results.verify(text, published, at=NOW) == statement(**changes)


def test_moments_are_whole_seconds(agencies: Agencies, published: PublishedKeys) -> None:
    stated = statement(issued_at=NOW + dt.timedelta(microseconds=999_999))
    assert results.verify(results.issue(stated, agencies.signing["publicsecurity"]), published, at=NOW) == statement()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": "customs"}, Reason.RESULT_ISSUER),
        ({"ref": ""}, Reason.RESULT_MALFORMED),
        ({"ref": "x" * 201}, Reason.RESULT_MALFORMED),
        ({"fact": ""}, Reason.RESULT_MALFORMED),
        ({"assurance": ""}, Reason.RESULT_MALFORMED),
        ({"scheme": "", "subject": ""}, Reason.RESULT_MALFORMED),
        ({"subject": ""}, Reason.RESULT_MALFORMED),
        ({"scheme": "cn:uscc "}, None),
        ({"status_index": -1}, Reason.RESULT_MALFORMED),
        ({"status_index": 2**31}, Reason.RESULT_MALFORMED),
        ({"value": {"_sd": ["x"]}}, Reason.RESULT_MALFORMED),
        ({"value": {"": 1}}, Reason.RESULT_MALFORMED),
        ({"value": {"case_id": 1}}, Reason.RESULT_MALFORMED),
        ({"value": {"a": float("nan")}}, Reason.RESULT_MALFORMED),
        ({"value": {"a": object()}}, Reason.RESULT_MALFORMED),
        ({"value": {"a": "\ud800"}}, Reason.RESULT_MALFORMED),
        ({"value": {"a": "x" * signed.LIMIT}}, Reason.RESULT_MALFORMED),
        ({"value": {str(i): i for i in range(300)}}, Reason.RESULT_MALFORMED),
        ({"issued_at": NOW - 60 * DAY}, Reason.KEY_EXPIRED),
    ],
)
def test_what_nobody_could_verify_is_not_issued(
    agencies: Agencies, changes: dict[str, Any], reason: Reason | None
) -> None:
    try:
        results.issue(statement(**changes), agencies.signing["publicsecurity"])
    except HutongError as error:
        assert error.reason is reason  # noqa: PT017 - one is issued
    else:
        assert reason is None


def test_only_entries_there_are_can_be_hidden(agencies: Agencies) -> None:
    with pytest.raises(InvalidArgument) as refused:
        results.issue(statement(), agencies.signing["publicsecurity"], ["colour"])
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


def test_a_holder_shows_a_subset(published: PublishedKeys, credential: str) -> None:
    shown = results.present(credential, ["method"])
    verified = results.verify(shown, published, at=NOW, subject=SUBJECT, fact="person_verified")
    assert verified == statement(value={"method": "chip"}, case_id="")
    assert verified.withheld == 3
    for secret in ("face", "case-1"):
        assert secret not in str([verified.value, verified.case_id])
    assert results.present(shown, ["method"]) == shown
    assert results.present(credential, ["case_id", "method", "checks", "名"]) == credential
    with pytest.raises(InvalidArgument) as refused:
        results.present(shown, ["case_id"])
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


def test_an_unknown_name_is_not_shown_and_the_nearest_is_named(credential: str) -> None:
    with pytest.raises(InvalidArgument, match="method") as refused:
        results.present(credential, ["methud"])
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"issuer": "customs"}, Reason.RESULT_ISSUER),
        ({"issuer": ""}, Reason.RESULT_ISSUER),
        ({"subject": "cn.uscc:91110108551385082Q"}, Reason.RESULT_SUBJECT),
        ({"subject": SUBJECT.lower()}, Reason.RESULT_SUBJECT),
        ({"subject": ""}, Reason.RESULT_SUBJECT),
        ({"fact": "seal_registered"}, Reason.RESULT_FACT),
        ({"fact": ""}, Reason.RESULT_FACT),
        ({"at": NOW - 61 * SECOND}, Reason.RESULT_NOT_YET_VALID),
        ({"at": NOW - 60 * SECOND}, None),
        ({"at": NOW + 180 * DAY - SECOND}, None),
        ({"at": NOW + 180 * DAY}, Reason.RESULT_EXPIRED),
    ],
)
def test_each_condition_has_its_reason(
    published: PublishedKeys, credential: str, wanted: dict[str, Any], reason: Reason | None
) -> None:
    assert refusal(credential, published, **wanted) is reason


def test_what_is_valid_later_is_not_valid_yet(agencies: Agencies, published: PublishedKeys) -> None:
    text = results.issue(statement(valid_from=NOW + DAY), agencies.signing["publicsecurity"])
    assert refusal(text, published) is Reason.RESULT_NOT_YET_VALID
    assert refusal(text, published, NOW + DAY) is None


def test_a_result_outlives_its_key_but_not_the_keys_good_name(agencies: Agencies, credential: str) -> None:
    keys = agencies.signing["publicsecurity"]
    old = keys.active(NOW).kid
    keys.rotate(NOW + DAY)
    keys.publish(agencies.keys)
    published, later = agencies.published, NOW + 30 * DAY
    assert refusal(credential, published, later) is None
    newer = results.issue(statement(issued_at=NOW + 2 * DAY, valid_from=NOW + 2 * DAY), keys)
    keys.revoke(old, later, "key-compromise")
    keys.publish(agencies.keys)
    assert refusal(credential, published, later) is Reason.KEY_REVOKED
    assert refusal(newer, published, later) is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Status.VALID, None),
        (Status.INVALID, Reason.RESULT_REVOKED),
        (Status.SUSPENDED, Reason.RESULT_SUSPENDED),
        (Status.SUPERSEDED, Reason.RESULT_SUPERSEDED),
    ],
)
def test_the_status_list_has_the_last_word(
    published: PublishedKeys, credential: str, value: Status, reason: Reason | None
) -> None:
    assert refusal(credential, published, status=StatusList.of(LIST, [0, 0, 0, 0, 0, value])) is reason


def test_another_list_does_not_know_it(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    for unknown in (StatusList.of(LIST + "0", [0] * 9), StatusList.of(LIST, [0] * 4), StatusList.of(LIST, [])):
        assert refusal(credential, published, status=unknown) is Reason.RESULT_STATE_UNKNOWN
    without = results.issue(statement(status_uri=""), agencies.signing["publicsecurity"])
    assert refusal(without, published, status=StatusList.of("", [0] * 9)) is Reason.RESULT_STATE_UNKNOWN
    # A list of more bits may say what this profile has no word for.
    odd = StatusList.of(LIST, [9] * 9, bits=8)
    assert refusal(credential, published, status=odd) is Reason.RESULT_STATE_UNKNOWN


def test_a_list_that_was_signed_counts(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    text = status.issue(
        StatusList.of(LIST, [0, 0, 0, 0, 0, 1]), agencies.signing["recognition"], NOW, DAY, dt.timedelta(minutes=5)
    )
    lists = status.verify(text, published, at=NOW, issuer="recognition", uri=LIST)
    assert refusal(credential, published, status=lists) is Reason.RESULT_REVOKED


@pytest.mark.parametrize(
    "claims",
    [
        {"vct": "urn:other"},
        {"vct": None},
        {"jti": None},
        {"jti": 7},
        {"sub": None},
        {"sub": "nobody"},
        {"sub": ["cn.uscc:x"]},
        {"fact": None},
        {"fact": ["person_verified"]},
        {"assurance": None},
        {"iat": None},
        {"iat": "2026"},
        {"iat": 1.5},
        {"iat": True},
        {"nbf": None},
        {"nbf": 10**15},
        {"exp": "never"},
        {"exp": -1},
        {"status": "valid"},
        {"status": {}},
        {"status": {"status_list": {"idx": -1, "uri": LIST}}},
        {"status": {"status_list": {"idx": "5", "uri": LIST}}},
        {"status": {"status_list": {"idx": 5}}},
        {"status": {"_sd": ["withheld"]}},
        {"value": [1]},
        {"value": "chip"},
        {"stage": 7},
        {"iss": None},
        {"iss": 7},
    ],
)
def test_what_does_not_follow_the_profile_is_malformed(
    agencies: Agencies, published: PublishedKeys, credential: str, claims: dict[str, Any]
) -> None:
    bare = credential.partition("~")[0] + "~"
    assert refusal(forged(bare, agencies.signing["publicsecurity"], **claims), published) is Reason.RESULT_MALFORMED


@pytest.mark.parametrize(
    "name", ["iss", "iat", "nbf", "exp", "sub", "jti", "vct", "fact", "assurance", "status", "cnf"]
)
def test_what_is_always_open_cannot_be_withheld(
    agencies: Agencies, published: PublishedKeys, credential: str, name: str
) -> None:
    # The issuer itself tried to hide it; the claim that stands open, if any, is not replaced.
    hidden = strict.encode(strict.dumps(["salt", name, 1]))
    bare = credential.partition("~")[0] + "~" + hidden + "~"
    text = forged(bare, agencies.signing["publicsecurity"], _sd=[sdjwt.digest(hidden)])
    assert refusal(text, published) is Reason.RESULT_DISCLOSURE


def test_claims_of_others_are_passed_over(agencies: Agencies, published: PublishedKeys, credential: str) -> None:
    text = forged(credential, agencies.signing["publicsecurity"], colour="red", cnf={"jwk": {}})
    assert results.verify(text, published, at=NOW) == statement()


def test_nothing_personal_is_printed(credential: str, published: PublishedKeys) -> None:
    verified: Statement = results.verify(credential, published, at=NOW)
    for secret in (SUBJECT.partition(":")[2], "chip", "face"):
        assert secret not in repr(verified)
    sd_jwt = sdjwt.read(credential, typ=results.TYPE)
    assert credential.partition("~")[0] not in repr(sd_jwt)
    assert "chip" not in repr(sdjwt.unpack(sd_jwt).disclosed and sd_jwt)


def test_a_statement_is_signed_by_its_own_agency_only(agencies: Agencies) -> None:
    keys: SigningKeys = agencies.signing["customs"]
    with pytest.raises(InvalidArgument) as refused:
        results.issue(statement(), keys)
    assert refused.value.reason is Reason.RESULT_ISSUER
