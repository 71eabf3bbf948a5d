"""Identifiers and their checks: one registry of validators by scheme, for the whole mesh.

Three outcomes, because real registers hold real codes that fail their own check digit (a Xiamen firm's licence reads
91350211M0000XUF46): `OK`; `SUSPECT`, well-formed but the check digit or a code list says otherwise, to be kept and
corrected, never lost; `INVALID`, not of this scheme's form at all. The value that comes back is always the normalised
one: full-width characters made narrow, upper case, without the separators people write.

    check("cn.uscc", "91350211m0000xuf46")   -> Checked(SUSPECT, "91350211M0000XUF46", reason="check digit ...")
    parse("lei:5493001KJTIIGC8Y1R12")        -> Checked(OK, ...)
"""

import datetime as dt
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType

from services.kit import check_digits
from services.kit.errors import InvalidArgument, Reason

SEPARATOR = ":"
"""Between scheme and value in an identifier's text form."""


class Verdict(StrEnum):
    """How an identifier came out of its check."""

    OK = "OK"
    SUSPECT = "SUSPECT"
    INVALID = "INVALID"


@dataclass(frozen=True, slots=True)
class Checked:
    """An identifier after its check; `value` is normalised, `reason` says what is wrong, empty where nothing is."""

    scheme: str
    value: str
    verdict: Verdict
    reason: str = ""

    @property
    def ok(self) -> bool:
        """Nothing speaks against it."""
        return self.verdict is Verdict.OK

    @property
    def text(self) -> str:
        """The text form, `scheme:value`."""
        return text_of(self.scheme, self.value)


USCC_ALPHABET = check_digits.USCC_ALPHABET
uscc_check_digit = check_digits.uscc
org_code_check_digit = check_digits.org_code
iso6346_check_digit = check_digits.iso6346

Finding = tuple[Verdict, str]
_OK: Finding = (Verdict.OK, "")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One identifier scheme: how its values are written, and how they are judged."""

    name: str
    title: str
    judge: Callable[[str], Finding]
    """Judges a normalised value."""
    drop: str = " "
    """Separators people write that are not part of the value."""
    fold: bool = True
    """Letters are upper case; False where case means something."""
    prefix: str = ""
    """Written before the value by some, and no part of it."""

    def normalise(self, value: str) -> str:
        """Write a value the scheme's way, whether or not it is valid."""
        text = value
        if not (value.isascii() and value.isalnum()):
            # Separators are neither letters nor digits, and ASCII has one form.
            text = unicodedata.normalize("NFKC", value).strip().strip("\ufeff")
            text = text.translate(str.maketrans("", "", self.drop))
        return (text.upper() if self.fold else text).removeprefix(self.prefix)


def _invalid(reason: str) -> Finding:
    return Verdict.INVALID, reason


def _suspect(reason: str) -> Finding:
    return Verdict.SUSPECT, reason


def _digit_check(expected: str, found: str) -> Finding:
    return _OK if expected == found else _suspect(f"check digit is {found!r}, should be {expected!r}")


def _form(pattern: str, words: str, then: Callable[[str], Finding] = lambda _: _OK) -> Callable[[str], Finding]:
    """Judge by a regular expression first, by `then` where that holds; `words` tells people what the form is."""
    compiled = re.compile(pattern)

    def judge(value: str) -> Finding:
        return then(value) if compiled.fullmatch(value) else _invalid(f"is not {words}")

    return judge


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ------------------------------------------------------------------------------------------------ China

_USCC_BODIES = _words(
    "11 12 13 19 21 29 31 32 33 34 35 39 41 49 51 52 53 59 61 62 69 71 72 79 81 89 91 92 93 A1 A9 N1 N2 N3 N9 Y1"
)
"""Registering department and kind of body in use (GB 32100-2015 with amendment 1)."""


def _judge_uscc(value: str) -> Finding:
    if (expected := check_digits.uscc(value[:17])) != value[17]:
        return _digit_check(expected, value[17])
    if check_digits.org_code(value[8:16]) != value[16]:
        return _suspect("its organisation code (characters 9 to 17) fails its own check digit")
    if value[:2] not in _USCC_BODIES:
        return _suspect(f"{value[:2]!r} is no registering department and kind of body in use")
    return _OK


def _judge_org_code(value: str) -> Finding:
    return _digit_check(check_digits.org_code(value[:8]), value[8])


def _judge_declaration_no(value: str) -> Finding:
    if value[8] not in "01":
        return _invalid("has a direction (9th digit) other than 1 import or 0 export")
    if not 1990 <= int(value[4:8]) <= 2100:
        return _invalid(f"has no year in digits 5 to 8 but {value[4:8]}")
    return _OK


# ------------------------------------------------------------------------------------------------ world

ISO_3166 = _words(
    """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ
    CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR
    GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO
    JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR
    MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO
    RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV
    TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"""
)
"""Officially assigned alpha-2 codes of ISO 3166-1. "NA" is Namibia."""
_USER_ASSIGNED = re.compile(r"AA|Q[M-Z]|X[A-Z]|ZZ")


def _judge_declaration_id(value: str) -> Finding:
    # As many digits as a Chinese number has, and other administrations could have: doubted, not refused.
    verdict, reason = _judge_declaration_no(value) if re.fullmatch("[0-9]{18}", value) else _OK
    return _OK if verdict is Verdict.OK else _suspect(reason)


def _judge_country(value: str) -> Finding:
    if value in ISO_3166:
        return _OK
    if _USER_ASSIGNED.fullmatch(value):
        return _suspect("is a user-assigned country code: agreed between some parties only")
    return _invalid("is no ISO 3166-1 country code")


def _judge_locode(value: str) -> Finding:
    # The manual says 2 to 9 only; the published list has some 500 places with 0 and 1.
    verdict, reason = _judge_country(value[:2])
    return (verdict, f"country part {reason}") if reason else _OK


def _judge_lei(value: str) -> Finding:
    return _digit_check(check_digits.lei(value[:18]), value[18:])


def _judge_iso6346(value: str) -> Finding:
    if value[3] not in "UJZR":
        return _suspect(f"{value[3]!r} (4th letter) is no equipment category of ISO 6346")
    return _digit_check(check_digits.iso6346(value[:10]), value[10])


def _judge_hs(value: str) -> Finding:
    if value[:2] == "00":
        return _invalid("has no chapter 00")
    return _suspect("chapter 77 is reserved") if value[:2] == "77" else _OK


_RFC_GENERIC = frozenset({"XAXX010101000", "XEXX010101000"})
"""Stand for "the public" and "foreigners": in order, though their check digits are not."""


def _judge_rfc(value: str) -> Finding:
    if value in _RFC_GENERIC:
        return _OK
    date = value[-9:-3]
    try:
        # Two-digit years: 29 February needs a leap year, and 2000 is one.
        dt.date(2000 + int(date[:2]), int(date[2:4]), int(date[4:]))
    except ValueError:
        return _invalid(f"has no date in {date!r}")
    return _digit_check(check_digits.rfc(value[:-1]), value[-1])


def _judge_imo(value: str) -> Finding:
    return _digit_check(check_digits.imo(value[:6]), value[6])


def _judge_gtin(value: str) -> Finding:
    return _digit_check(check_digits.gtin(value[:-1]), value[-1])


def _judge_eori(value: str) -> Finding:
    # XI (Northern Ireland) is user-assigned and lawful here; what is no country at all is only doubted.
    return _OK if value[:2] in ISO_3166 or value[:2] == "XI" else _suspect(f"{value[:2]!r} is no country")


def _schemes() -> Mapping[str, Scheme]:
    found = (
        Scheme(
            "cn.uscc",
            "Unified social credit code (GB 32100-2015)",
            _form(
                r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}",
                "18 characters of 0-9 and A-Y without I O S V Z, with a region of six digits",
                _judge_uscc,
            ),
            drop=" -",
        ),
        Scheme(
            "cn.org_code",
            "Organisation code (GB 11714)",
            _form(r"[0-9A-Z]{8}[0-9X]", "8 characters and a check digit", _judge_org_code),
            drop=" -",
        ),
        Scheme("cn.customs_code", "Customs registration code", _form(r"[0-9]{4}[0-9A-Z]{6}", "10 characters")),
        Scheme(
            "cn.declaration_no",
            "Customs declaration number: office, year, direction, serial",
            _form(r"[0-9]{18}", "18 digits", _judge_declaration_no),
        ),
        Scheme("cn.seal_no", "Official seal number", _form(r"[0-9]{13}", "13 digits")),
        Scheme(
            "lei", "Legal entity identifier (ISO 17442)", _form(r"[0-9A-Z]{18}[0-9]{2}", "20 characters", _judge_lei)
        ),
        Scheme(
            "iso6346",
            "Freight container number (ISO 6346)",
            _form(r"[A-Z]{4}[0-9]{7}", "four letters and seven digits", _judge_iso6346),
            drop=" -/",
        ),
        Scheme("iso3166", "Country (ISO 3166-1 alpha-2)", _form(r"[A-Z]{2}", "two letters", _judge_country)),
        Scheme("iso4217", "Currency (ISO 4217)", _form(r"[A-Z]{3}", "three letters")),
        Scheme(
            "un.locode",
            "Place (UN/LOCODE)",
            _form(r"[A-Z]{2}[A-Z0-9]{3}", "a country and three letters or digits", _judge_locode),
        ),
        Scheme("un.undg", "UN number of dangerous goods", _form(r"[0-9]{4}", "four digits")),
        Scheme(
            "hs",
            "Harmonized System code, with national digits",
            _form(r"[0-9]{2}(?:[0-9]{2}){0,4}|[0-9]{13}", "2, 4, 6, 8, 10 or 13 digits", _judge_hs),
            drop=" .",
        ),
        Scheme(
            "mx.rfc",
            "Mexican taxpayer code",
            _form(
                r"[A-ZÑ&]{3,4}[0-9]{6}[A-Z0-9]{2}[0-9A]",
                "three or four letters, a date and three characters",
                _judge_rfc,
            ),
            drop=" -",
        ),
        Scheme(
            "eori",
            "Economic operator (EU, UK)",
            _form(r"[A-Z]{2}[0-9A-Z]{1,15}", "a country and up to 15 characters", _judge_eori),
        ),
        Scheme("imo", "Ship (IMO number)", _form(r"[0-9]{7}", "seven digits", _judge_imo), prefix="IMO"),
        Scheme(
            "gtin",
            "Trade item (GTIN)",
            _form(r"[0-9]{8}|[0-9]{12,14}", "8, 12, 13 or 14 digits", _judge_gtin),
            drop=" -",
        ),
        Scheme(
            "hutong.token",
            "Keyed token in place of an identifier",
            _form(r"[0-9A-Za-z_-]{16,128}", "16 to 128 characters of A-Z a-z 0-9 _ -"),
            fold=False,
        ),
        Scheme(
            "wco.declaration_id",
            "Declaration in any administration's numbering (WCO D014)",
            _form(r"[!-~](?:[ -~]{0,68}[!-~])?", "1 to 70 printable characters", _judge_declaration_id),
            drop="",
            fold=False,
        ),
        Scheme("hutong.lot", "Inspection lot", _form(r"[!-}]{1,64}", "1 to 64 characters without spaces"), fold=False),
    )
    return MappingProxyType({s.name: s for s in found})


SCHEMES: Mapping[str, Scheme] = _schemes()
"""Every scheme the mesh knows, by name."""


def scheme(name: str) -> Scheme:
    """Get a scheme; raises `InvalidArgument` SUBJECT_SCHEME_UNKNOWN naming the nearest where there is none."""
    try:
        return SCHEMES[name]
    except KeyError:
        close = get_close_matches(name.casefold(), SCHEMES, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(SCHEMES))}"
        raise InvalidArgument(
            Reason.SUBJECT_SCHEME_UNKNOWN, f"there is no identifier scheme {name!r}{hint}", scheme=name
        ) from None


def check(scheme_name: str, value: str) -> Checked:
    """Check a value against its scheme; raises `InvalidArgument` only where the scheme itself is unknown."""
    rules = scheme(scheme_name)
    normal = rules.normalise(value)
    if not normal:
        return Checked(scheme_name, normal, Verdict.INVALID, "is empty")
    verdict, reason = rules.judge(normal)
    return Checked(scheme_name, normal, verdict, reason)


def require(scheme_name: str, value: str, *, accept_suspect: bool = False) -> str:
    """Get the normalised value of a good identifier.

    Raises `InvalidArgument` SUBJECT_INVALID where it is not valid, or is suspect and that is not accepted.
    """
    found = check(scheme_name, value)
    if found.verdict is Verdict.INVALID or not (found.ok or accept_suspect):
        raise InvalidArgument(
            Reason.SUBJECT_INVALID,
            f"{found.text} {found.reason}" if found.verdict is Verdict.INVALID else f"{found.text}: {found.reason}",
            scheme=scheme_name,
        )
    return found.value


def parse(text: str) -> Checked:
    """Read `scheme:value` and check it, whatever the verdict.

    Raises `InvalidArgument` where the text has no scheme (SUBJECT_INVALID) or an unknown one (SUBJECT_SCHEME_UNKNOWN).
    """
    name, separator, value = text.partition(SEPARATOR)
    if not separator:
        raise InvalidArgument(Reason.SUBJECT_INVALID, f"{text!r} is not of the form scheme:value")
    return check(name.strip(), value)


def text_of(scheme_name: str, value: str) -> str:
    """Write an identifier's text form, `scheme:value`."""
    return f"{scheme_name}{SEPARATOR}{value}"
