"""The published examples of RFC 9901: read, verified, opened, shown in part, bound to a holder."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc.jwk import ECKey

from services.kit.credentials import binding, jsonform, sdjwt, signed, strict
from services.kit.credentials.sdjwt import SdJwt
from services.kit.errors import InvalidArgument, PermissionDenied, Reason
from tests.credentials import rfc9901, rfc9901_appendix
from tests.credentials.rfc9901 import Example

ES256 = frozenset({"ES256"})
ISSUER = ECKey.import_key(rfc9901.ISSUER_KEY)
HOLDER = ECKey.import_key(rfc9901.HOLDER_KEY)
BOUND_AT = dt.datetime.fromtimestamp(rfc9901.BOUND_AT, dt.UTC)

EXAMPLES = {
    "5.1": rfc9901.S51_ISSUED,
    "5.2": rfc9901.S52_PRESENTED,
    "A.1": rfc9901_appendix.A1_PRESENTED,
    "A.1 all": rfc9901_appendix.A1_ALL,
    "A.2": rfc9901_appendix.A2_PRESENTED,
    "A.3 issued": rfc9901_appendix.A3_ISSUED,
    "A.3": rfc9901_appendix.A3_PRESENTED,
    "A.4": rfc9901_appendix.A4_PRESENTED,
}
EVERY = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
BOUND = pytest.mark.parametrize(
    "example", [e for e in EXAMPLES.values() if e.binding], ids=[n for n, e in EXAMPLES.items() if e.binding]
)


def read(example: Example) -> SdJwt:
    return sdjwt.read(example.text, typ=example.typ, algorithms=ES256)


@EVERY
def test_an_example_verifies_and_says_what_the_rfc_prints(example: Example) -> None:
    assert sdjwt.verify(read(example), ISSUER).claims == example.processed


@EVERY
def test_the_product_takes_no_es256(example: Example) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sdjwt.read(example.text, typ=example.typ)
    assert refused.value.reason is Reason.RESULT_ALGORITHM


@EVERY
def test_every_disclosure_is_needed_by_its_own_digest_only(example: Example) -> None:
    for left_out in example.disclosures:
        rest = tuple(one for one in example.disclosures if one != left_out)
        try:
            opened = sdjwt.unpack(SdJwt(read(example).token, rest))
        except InvalidArgument as error:
            # What stood inside of it was left without a place.
            assert error.reason is Reason.RESULT_DISCLOSURE  # noqa: PT017 - not every one is refused
        else:
            assert opened.claims != example.processed


@BOUND
def test_an_examples_key_binding_holds(example: Example) -> None:
    binding.check(read(example), audience=rfc9901.AUDIENCE, nonce=rfc9901.NONCE, at=BOUND_AT, algorithms=ES256)


@BOUND
@pytest.mark.parametrize(
    "changed",
    [
        {"audience": "https://other.example.org"},
        {"nonce": "1234567891"},
        {"at": BOUND_AT + dt.timedelta(hours=1)},
        {"at": BOUND_AT - dt.timedelta(hours=1)},
        {"algorithms": signed.PRODUCT},
    ],
)
def test_an_examples_key_binding_is_for_one_occasion(example: Example, changed: dict[str, Any]) -> None:
    wanted: dict[str, Any] = {
        "audience": rfc9901.AUDIENCE,
        "nonce": rfc9901.NONCE,
        "at": BOUND_AT,
        "algorithms": ES256,
        **changed,
    }
    with pytest.raises(PermissionDenied) as refused:
        binding.check(read(example), **wanted)
    assert refused.value.reason is Reason.KEY_BINDING_INVALID


def test_the_digests_of_section_5_1() -> None:
    assert {text: sdjwt.digest(text) for text in rfc9901.S5_DIGESTS} == rfc9901.S5_DIGESTS


def test_the_disclosures_of_section_4_2() -> None:
    # Section 4.2.1 and 4.2.3: several ways of writing the same make different disclosures, and all of them are read.
    written = "WyJfMjZiYzRMVC1hYzZxMktJNmNCVzVlcyIsICJmYW1pbHlfbmFtZSIsICJNw7ZiaXVzIl0"
    assert sdjwt.digest(written) == "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
    assert strict.loads(strict.decode(written)) == ["_26bc4LT-ac6q2KI6cBW5es", "family_name", "Möbius"]
    element = "WyJsa2x4RjVqTVlsR1RQVW92TU5JdkNBIiwgIkZSIl0"
    assert sdjwt.digest(element) == "w0I8EKcdCtUPkGCNUrfwVp2xEgNjtoIDlOxc9-PlOhs"


@pytest.mark.parametrize(
    ("payload", "disclosures"),
    [
        (rfc9901.S61_PAYLOAD, [rfc9901.S61_ADDRESS]),
        (
            rfc9901.S62_PAYLOAD,
            [rfc9901.S62_STREET, rfc9901.S62_LOCALITY, rfc9901.S62_REGION, rfc9901.S62_COUNTRY],
        ),
        (rfc9901.S62_PAYLOAD_COUNTRY_OPEN, [rfc9901.S62_STREET, rfc9901.S62_LOCALITY, rfc9901.S62_REGION]),
        (
            rfc9901.S63_PAYLOAD,
            [
                rfc9901.S62_STREET,
                rfc9901.S62_LOCALITY,
                rfc9901.S62_REGION,
                rfc9901.S62_COUNTRY,
                rfc9901.S63_ADDRESS,
            ],
        ),
    ],
    ids=["6.1 flat", "6.2 structured", "6.2 one open", "6.3 recursive"],
)
def test_the_forms_of_section_6_say_the_same(payload: dict[str, Any], disclosures: list[str]) -> None:
    key = ECKey.generate_key("P-256")
    token = signed.sign({"typ": "example+sd-jwt"}, payload, key, "ES256")
    text = "~".join((token, *disclosures, ""))
    opened = sdjwt.verify(sdjwt.read(text, typ="example+sd-jwt", algorithms=ES256), key)
    assert opened.claims == rfc9901.S6_CLAIMS
    assert opened.withheld == 0


def test_the_json_forms_of_section_8() -> None:
    opened: list[Mapping[str, Any]] = []
    for form in (rfc9901.S82_ISSUED, rfc9901.S82_PRESENTED, rfc9901.S83_PRESENTED):
        read_form = strict.loads(json.dumps(form).encode())
        first, *others = (
            sdjwt.read(text, typ="example+sd-jwt", algorithms=ES256) for text in jsonform.compact(read_form)
        )
        opened.append(sdjwt.verify(first, ISSUER).claims)
        if first.binding:
            binding.check(first, audience=rfc9901.AUDIENCE, nonce=rfc9901.NONCE, at=BOUND_AT, algorithms=ES256)
        # The second issuer's key is not published; its token says the same, and carries no key binding.
        assert [sdjwt.unpack(other).claims for other in others] == [opened[-1]] * len(others)
        assert not any(other.binding for other in others)
    assert {"sub", "given_name", "family_name", "birthdate"} <= opened[0].keys()
    assert opened[1] == opened[2]
    assert (opened[1]["given_name"], opened[1]["family_name"]) == ("John", "Doe")
    assert opened[1].keys() < opened[0].keys()


def test_a_holder_shows_what_section_5_2_shows() -> None:
    issued = read(rfc9901.S51_ISSUED)
    kept = {("family_name",), ("address",), ("given_name",), ("nationalities", 0)}
    shown = sdjwt.read(sdjwt.present(issued, kept.__contains__), typ="example+sd-jwt", algorithms=ES256)
    assert sdjwt.verify(shown, ISSUER).claims == rfc9901.S52_PRESENTED.processed
    assert set(shown.disclosures) == set(rfc9901.S52_PRESENTED.disclosures)


def test_a_holder_shows_what_appendix_a_3_shows() -> None:
    issued = read(rfc9901_appendix.A3_ISSUED)
    # The age stands inside of what is hidden itself: that is shown with it.
    kept = {("age_equal_or_over", "18"), ("nationalities",)}
    shown = sdjwt.read(sdjwt.present(issued, kept.__contains__), typ="dc+sd-jwt", algorithms=ES256)
    assert sdjwt.verify(shown, ISSUER).claims == rfc9901_appendix.A3_PRESENTED.processed


@BOUND
def test_what_is_bound_cannot_be_shown_further(example: Example) -> None:
    with pytest.raises(InvalidArgument) as refused:
        sdjwt.present(read(example), lambda _: True)
    assert refused.value.reason is Reason.RESULT_MALFORMED


def test_another_issuers_key_does_not_fit() -> None:
    with pytest.raises(InvalidArgument) as refused:
        sdjwt.verify(read(rfc9901.S51_ISSUED), HOLDER)
    assert refused.value.reason is Reason.RESULT_SIGNATURE
