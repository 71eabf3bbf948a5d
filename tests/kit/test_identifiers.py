"""Identifiers: good ones pass, doubtful ones are kept and told, wrong ones are refused with a reason."""

import csv
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit import check_digits, identifiers
from services.kit.errors import InvalidArgument, Reason
from services.kit.identifiers import SCHEMES, Verdict
from services.kit.records import catalogue

SAMPLE = "91350100M000100Y43"
"""The code that GB 32100 itself gives as its example."""


def complete(first8: str, subject: str) -> str:
    """Put check digits behind a code's region and subject."""
    first17 = f"{first8}{subject}{check_digits.org_code(subject)}"
    return first17 + check_digits.uscc(first17)


GOOD = [
    ("cn.uscc", SAMPLE),
    ("cn.uscc", "91510100569680768F"),
    ("cn.org_code", "569680768"),
    ("cn.customs_code", "5101644060"),
    ("cn.declaration_no", "223320231000000762"),
    ("cn.seal_no", "3502000012345"),
    ("lei", "5493001KJTIIGC8Y1R12"),
    ("iso6346", "CSQU3054383"),
    ("iso3166", "NA"),
    ("iso4217", "CNY"),
    ("un.locode", "CNXMN"),
    ("un.locode", "NAWDH"),
    ("un.locode", "CZ101"),
    ("un.undg", "1203"),
    ("hs", "01"),
    ("hs", "850440"),
    ("hs", "8504401300"),
    ("mx.rfc", "AAA120730823"),
    ("mx.rfc", "XAXX010101000"),
    ("mx.rfc", "XEXX010101000"),
    ("eori", "GB553202734852"),
    ("eori", "XI553202734852"),
    ("imo", "9074729"),
    ("gtin", "4006381333931"),
    ("gtin", "96385074"),
    ("hutong.token", "3f9a0c11d2e4b5a69788c0d1e2f30415"),
    ("hutong.lot", "LOT-2026-0001"),
    ("wco.declaration_id", "NEW-TT-SAMPLE-CUS 9"),
    ("wco.declaration_id", "23GB6W3GLSX9Z5JAR4"),
]

DOUBTFUL = [
    ("cn.uscc", "91350211M0000XUF46", "check digit"),  # a real firm's, as printed on its licence
    ("cn.uscc", complete("F9350200", "MA000000"), "kind of body"),
    ("cn.org_code", "569680767", "check digit"),
    ("lei", "5493001KJTIIGC8Y1R13", "check digit"),
    ("iso6346", "CSQU3054384", "check digit"),
    ("iso6346", "CSQX3054383", "equipment category"),
    ("iso3166", "XI", "user-assigned"),
    ("un.locode", "XZABC", "user-assigned"),
    ("hs", "7701", "reserved"),
    ("mx.rfc", "AAA120730824", "check digit"),
    ("eori", "QQ123", "no country"),
    ("imo", "9074728", "check digit"),
    ("gtin", "4006381333932", "check digit"),
    ("wco.declaration_id", "223320239000000762", "direction"),
]

WRONG = [
    ("cn.uscc", "9135010OM000100Y43", "18 characters"),  # a letter O where a region has a digit
    ("cn.uscc", "91350100M000100Y4", "18 characters"),
    ("cn.uscc", "", "empty"),
    ("cn.uscc", " \u3000", "empty"),
    ("cn.customs_code", "51016440", "10 characters"),
    ("cn.declaration_no", "223320232000000762", "direction"),
    ("cn.declaration_no", "223302020000000762", "year"),
    ("cn.declaration_no", "123456789", "18 digits"),
    ("lei", "5493001KJTIIGC8Y1R1", "20 characters"),
    ("iso6346", "AD12345", "four letters"),
    ("iso3166", "EN", "no ISO 3166-1"),
    ("un.locode", "CNXM", "a country and three"),
    ("hs", "850", "digits"),
    ("hs", "0001", "chapter"),
    ("mx.rfc", "XXXXXXXXXXXX", "a date"),
    ("mx.rfc", "AAA121399823", "no date"),
    ("hutong.token", "short", "16 to 128"),
    ("hutong.lot", "批次一", "without spaces"),
    ("wco.declaration_id", "报关单一号", "printable"),
]


@pytest.mark.parametrize(("scheme", "value"), GOOD)
def test_good_values_pass(scheme: str, value: str) -> None:
    found = identifiers.check(scheme, value)
    assert (found.verdict, found.value, found.reason) == (Verdict.OK, value, "")
    assert found.ok
    assert identifiers.require(scheme, value) == value


@pytest.mark.parametrize(("scheme", "value", "reason"), DOUBTFUL)
def test_doubtful_values_are_kept_and_told(scheme: str, value: str, reason: str) -> None:
    found = identifiers.check(scheme, value)
    assert found.verdict is Verdict.SUSPECT
    assert found.value == value
    assert reason in found.reason
    assert identifiers.require(scheme, value, accept_suspect=True) == value
    with pytest.raises(InvalidArgument) as caught:
        identifiers.require(scheme, value)
    assert caught.value.reason is Reason.SUBJECT_INVALID


@pytest.mark.parametrize(("scheme", "value", "reason"), WRONG)
def test_wrong_values_are_refused(scheme: str, value: str, reason: str) -> None:
    found = identifiers.check(scheme, value)
    assert found.verdict is Verdict.INVALID
    assert reason in found.reason
    with pytest.raises(InvalidArgument) as caught:
        identifiers.require(scheme, value, accept_suspect=True)
    assert caught.value.reason is Reason.SUBJECT_INVALID


def test_every_scheme_has_a_good_value_here() -> None:
    assert {scheme for scheme, _ in GOOD} == set(SCHEMES)


def test_every_scheme_of_the_contracts_is_registered() -> None:
    used = {f.scheme for t in catalogue.load() for f in t.leaves if f.scheme}
    used |= {scheme for t in catalogue.load() for scheme in t.subjects}
    assert used - set(SCHEMES) == set()


def test_the_firm_whose_licence_fails_its_check_has_a_sound_organisation_code() -> None:
    # What makes it a real code with a wrong check digit, and not a mistyped one.
    assert identifiers.check("cn.org_code", "91350211M0000XUF46"[8:17]).ok
    assert not identifiers.check("cn.uscc", "91350211M0000XUF46").ok


@pytest.mark.parametrize("body", ["A1", "N1", "Y1"])
def test_codes_may_start_with_a_letter(body: str) -> None:
    assert identifiers.check("cn.uscc", complete(f"{body}350200", "MA000000")).ok


def test_every_single_substitution_of_a_code_is_noticed() -> None:
    changed = [
        SAMPLE[:at] + c + SAMPLE[at + 1 :] for at in range(18) for c in check_digits.USCC_ALPHABET if c != SAMPLE[at]
    ]
    assert len(changed) == 540
    assert [c for c in changed if identifiers.check("cn.uscc", c).ok] == []


@pytest.mark.parametrize(
    ("scheme", "written", "value"),
    [
        ("cn.uscc", "91350100m000100y43", SAMPLE),
        ("cn.uscc", "９１３５０１００Ｍ０００１００Ｙ４３", SAMPLE),
        ("cn.uscc", "\ufeff 91350100 M000100Y-43\u3000", SAMPLE),
        ("iso6346", "CSQU 305438-3", "CSQU3054383"),
        ("hs", "8504.40", "850440"),
        ("imo", "IMO 9074729", "9074729"),
        ("mx.rfc", "aaa-120730-823", "AAA120730823"),
        ("un.locode", "cn xmn", "CNXMN"),
        ("hutong.token", "AbCd_1234567890-xyz", "AbCd_1234567890-xyz"),
        ("wco.declaration_id", " New_Consgn 1 ", "New_Consgn 1"),
    ],
)
def test_values_are_normalised(scheme: str, written: str, value: str) -> None:
    assert identifiers.check(scheme, written) == identifiers.check(scheme, value)
    assert identifiers.check(scheme, written).value == value


BODIES = st.text(check_digits.USCC_ALPHABET, min_size=8, max_size=8)
REGIONS = st.integers(110000, 659999).map(str)


@given(region=REGIONS, subject=BODIES, at=st.integers(0, 17), other=st.sampled_from(check_digits.USCC_ALPHABET))
def test_codes_with_their_check_digits_pass_and_with_one_character_changed_do_not(
    region: str, subject: str, at: int, other: str
) -> None:
    code = complete(f"91{region}", subject)
    assert identifiers.check("cn.uscc", code).ok
    if code[at] != other:
        assert not identifiers.check("cn.uscc", code[:at] + other + code[at + 1 :]).ok


@given(first=st.text("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=18, max_size=18), data=st.data())
def test_a_lei_does_not_survive_one_letter_or_digit_exchanged_for_another(first: str, data: st.DataObject) -> None:
    lei = first + check_digits.lei(first)
    assert identifiers.check("lei", lei).ok
    at = data.draw(st.integers(0, 19))
    alike = "0123456789" if lei[at].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    other = data.draw(st.sampled_from(alike.replace(lei[at], "")))
    assert not identifiers.check("lei", lei[:at] + other + lei[at + 1 :]).ok


@given(scheme=st.sampled_from(sorted(SCHEMES)), value=st.text(max_size=40))
def test_any_text_gets_a_verdict_and_its_normal_form_is_stable(scheme: str, value: str) -> None:
    found = identifiers.check(scheme, value)
    assert bool(found.reason) is (found.verdict is not Verdict.OK)
    if found.verdict is not Verdict.INVALID:
        assert identifiers.check(scheme, found.value) == found
        assert found.value == unicodedata.normalize("NFKC", found.value)


@given(st.sampled_from(GOOD))
def test_the_text_form_round_trips(known: tuple[str, str]) -> None:
    found = identifiers.parse(identifiers.text_of(*known))
    assert (found.scheme, found.value) == known
    assert found.text == f"{known[0]}:{known[1]}"


def test_parse_tells_a_missing_scheme_from_an_unknown_one() -> None:
    with pytest.raises(InvalidArgument) as missing:
        identifiers.parse(SAMPLE)
    assert missing.value.reason is Reason.SUBJECT_INVALID
    with pytest.raises(InvalidArgument, match=r"did you mean 'cn\.uscc'") as unknown:
        identifiers.parse(f"cn.ucss:{SAMPLE}")
    assert unknown.value.reason is Reason.SUBJECT_SCHEME_UNKNOWN
    with pytest.raises(InvalidArgument, match=r"known are .*iso6346"):
        identifiers.check("zzz", "1")


@pytest.mark.parametrize(
    ("file", "count"), [("cn_enterprise_2019_fujian.csv", 6099), ("cn_enterprise_2018_jiangsu.csv", 2000)]
)
def test_every_code_of_the_real_registers_is_valid(shared_data: Path, file: str, count: int) -> None:
    with (shared_data / "commerce" / file).open(encoding="utf-8-sig", newline="") as stream:
        found = [identifiers.check("cn.uscc", row["统一社会信用代码"]) for row in csv.DictReader(stream)]
    assert len(found) == count
    assert [f for f in found if not f.ok] == []


def test_every_real_place_and_commodity_code_is_valid(shared_data: Path) -> None:
    reference = shared_data / "reference"
    with (reference / "unlocode_names.csv").open(encoding="utf-8", newline="") as stream:
        places = [identifiers.check("un.locode", row["locode"]) for row in csv.DictReader(stream)]
    with (reference / "cn_hs10_code_list_2018.csv").open(encoding="utf-8-sig", newline="") as stream:
        codes = [identifiers.check("hs", row["ten_digit_serial_number"]) for row in csv.DictReader(stream)]
    assert len(places) == 82_276
    assert len(codes) == 11_827
    assert [f for f in places if f.verdict is Verdict.INVALID] == []
    assert [f for f in codes if not f.ok] == []
