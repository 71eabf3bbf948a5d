"""Results of approval stages as credentials: SD-JWT VC with fact, assurance, validity and an entry of a status list.

Whoever has the published keys of the issuing agency can verify one offline. The holder may keep the case, and any
entry of the fact's value, to itself; whom it is about, what is proven, how thoroughly, until when and where its status
can be looked up is always open.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from services.kit.credentials import sdjwt
from services.kit.credentials.keys import SigningKeys
from services.kit.credentials.published import SKEW, NumericDate, PublishedKeys, agency_of, moment, seconds
from services.kit.credentials.sdjwt import Hidden, Opened, SdJwt
from services.kit.credentials.signed import malformed
from services.kit.credentials.status import Status, StatusList
from services.kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Reason
from services.kit.records.catalogue import nearest

TYPE: Final = "dc+sd-jwt"
"""Media type of SD-JWT VC, as the header's `typ`."""

VCT: Final = "urn:hutong:stage-result:1"
"""The kind of credential."""

CASE: Final = "case_id"
"""The one claim beside the value's entries that can be withheld."""


def _printable(text: str) -> str:
    if not text.isprintable():
        # What it says ends up on somebody's screen, where some characters do more than stand there.
        raise ValueError("text that cannot be printed")
    return text


_Printed = Annotated[str, Field(strict=True), AfterValidator(_printable)]
_Text = Annotated[_Printed, Field(min_length=1, max_length=200)]


class _Place(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    idx: Annotated[int, Field(strict=True, ge=0, lt=2**31)]
    uri: Annotated[_Printed, Field(min_length=1, max_length=1000)]


class _Status(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    status_list: _Place


class _Claims(BaseModel):
    """The profile: what a result says, in the names of the registered claims where there is one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    iss: _Text
    iat: NumericDate
    nbf: NumericDate
    exp: NumericDate | None = None
    jti: _Text
    sub: Annotated[_Printed, Field(pattern=r"^[a-z][a-z0-9.-]*:.", max_length=300)]
    vct: Literal["urn:hutong:stage-result:1"]
    fact: _Text
    assurance: _Text
    stage: Annotated[_Printed, Field(max_length=100)] = ""
    value: dict[str, Any] = Field(default_factory=dict)
    case_id: Annotated[_Printed, Field(max_length=200)] = ""
    status: _Status | None = None


_UNNAMED: Final = frozenset({"", CASE})
"""Names of entries that a holder could not choose, or not apart from another."""

_OPEN: Final = frozenset(_Claims.model_fields) - {CASE} | {"cnf"}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a result says. Moments are kept in whole seconds."""

    ref: str
    """Id of the result (`jti`)."""
    issuer: str
    """The agency that signed it, by its code."""
    scheme: str
    """Scheme of the subject: "cn.uscc", or "hutong.token"."""
    subject: str = field(repr=False)
    fact: str
    assurance: str
    issued_at: dt.datetime
    valid_from: dt.datetime
    valid_until: dt.datetime | None = None
    """Until when it holds, this moment not included; None where it does not end by itself."""
    value: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """What was found; of a result that was verified, only the entries that were disclosed."""
    case_id: str = ""
    """The case it was issued in; empty where it was issued outside one, or is withheld."""
    stage: str = ""
    status_uri: str = ""
    """The status list that tells what has become of it; empty where none does."""
    status_index: int = 0
    key_id: str = field(default="", compare=False)
    """The key it was signed with; not set on a statement to sign."""
    withheld: int = field(default=0, compare=False)
    """How much was not disclosed; not set on a statement to sign."""

    @property
    def subject_id(self) -> str:
        """The subject as `scheme:value`."""
        return f"{self.scheme}:{self.subject}"


def issue(statement: Statement, keys: SigningKeys, disclosable: Collection[str] | None = None) -> str:
    """Sign a statement with the key of its moment of issue; gives the credential with every disclosure.

    `disclosable` names the entries of its value that a holder can withhold: all, where it is not given. Raises
    `InvalidArgument` RESULT_ISSUER where the keys are another agency's, RESULT_MALFORMED where the statement is none,
    `FailedPrecondition` KEY_EXPIRED or KEY_INVALID where there is no key to sign with.
    """
    if statement.issuer != keys.agency:
        raise InvalidArgument(Reason.RESULT_ISSUER, f"{keys.agency} cannot sign for another agency")
    if not _UNNAMED.isdisjoint(statement.value):
        raise malformed("an entry of its value has a name that is none, or means the case")
    unknown = sorted(set(disclosable or ()) - set(statement.value))
    if unknown:
        raise InvalidArgument(Reason.RESULT_DISCLOSURE, f"the value has no entry {unknown[0]!r}")
    claims = _claims(statement, keys.issuer)
    hidden = set(statement.value) if disclosable is None else set(disclosable)
    value = {name: Hidden(one) if name in hidden else one for name, one in statement.value.items()}
    signing = keys.active(statement.issued_at)
    raw: dict[str, Any] = {**claims.model_dump(exclude_none=True, exclude={CASE, "value"}), "value": value}
    if statement.case_id:
        raw[CASE] = Hidden(statement.case_id)
    try:
        text = sdjwt.issue(raw, signing.key, header={"typ": TYPE, "kid": signing.kid})
        # What nobody could verify must not be issued: sizes and depths are checked where they are read.
        sdjwt.unpack(sdjwt.read(text, typ=TYPE))
    except (ValueError, TypeError):
        raise malformed("its value cannot be written") from None
    return text


def _claims(statement: Statement, issuer: str) -> _Claims:
    status = None
    try:
        if statement.status_uri:
            status = _Status(status_list=_Place(idx=statement.status_index, uri=statement.status_uri))
        return _Claims(
            iss=issuer,
            iat=seconds(statement.issued_at),
            nbf=seconds(statement.valid_from),
            exp=None if statement.valid_until is None else seconds(statement.valid_until),
            jti=statement.ref,
            sub=statement.subject_id,
            vct=VCT,
            fact=statement.fact,
            assurance=str(statement.assurance),
            stage=statement.stage,
            case_id=statement.case_id,
            status=status,
        )
    except ValidationError:
        raise malformed("a claim is missing, or not what it should be") from None


def verify(
    text: str,
    published: PublishedKeys,
    *,
    at: dt.datetime,
    issuer: str | None = None,
    subject: str | None = None,
    fact: str | None = None,
    status: StatusList | None = None,
) -> Statement:
    """Verify a credential as of a moment, with nothing but published keys; gives what it says and discloses.

    `issuer` is the agency it has to be from, `subject` (`scheme:value`) whom it has to be about, `fact` what it has to
    prove, `status` the verified status list it names. Each thing wrong has a reason of its own:

    1. RESULT_MALFORMED, RESULT_ALGORITHM: its form, its size, its header.
    2. RESULT_ISSUER: nobody who publishes keys here, or another than it has to be from.
    3. KEY_UNKNOWN, KEY_REVOKED, KEY_NOT_YET_VALID, KEY_EXPIRED: the key, as of when it says it was signed.
    4. RESULT_SIGNATURE, RESULT_DISCLOSURE: what was signed, and what was disclosed of it.
    5. RESULT_MALFORMED: the profile.
    6. RESULT_NOT_YET_VALID, RESULT_EXPIRED: its time; clocks may differ by a minute before, but the end is the end.
    7. RESULT_SUBJECT, RESULT_FACT: another than it has to be.
    8. RESULT_STATE_UNKNOWN, RESULT_REVOKED, RESULT_SUSPENDED, RESULT_SUPERSEDED: its entry in the status list.
    """
    sd_jwt = _read(text)  # 1
    agency, issued_at = _origin(sd_jwt, published, issuer)  # 2
    key = published.find(agency, sd_jwt.token.key_id, issued_at)  # 3
    opened = sdjwt.verify(sd_jwt, key, always_open=_OPEN)  # 4
    statement = _statement(opened, agency, sd_jwt.token.key_id)  # 5
    _check_time(statement, at)  # 6
    if subject is not None and statement.subject_id != subject:  # 7
        raise InvalidArgument(Reason.RESULT_SUBJECT, "it is about another subject")
    if fact is not None and statement.fact != fact:
        raise InvalidArgument(Reason.RESULT_FACT, "it proves another fact")
    if status is not None:  # 8
        check_status(statement, status)
    return statement


def read(text: str) -> Statement:
    """Read what a credential says and discloses, and believe it: only for one that was verified before.

    Raises `InvalidArgument` RESULT_MALFORMED, RESULT_ALGORITHM or RESULT_DISCLOSURE.
    """
    sd_jwt = _read(text)
    opened = sdjwt.unpack(sd_jwt, always_open=_OPEN)
    return _statement(opened, agency_of(str(opened.claims.get("iss"))), sd_jwt.token.key_id)


def _read(text: str) -> SdJwt:
    sd_jwt = sdjwt.read(text, typ=TYPE)
    if sd_jwt.binding:
        raise malformed("key binding is no part of stage results")
    return sd_jwt


def _origin(sd_jwt: SdJwt, published: PublishedKeys, expected: str | None) -> tuple[str, dt.datetime]:
    """Read who signed it and when, by its own word: what is looked up by it is what the signature is checked with."""
    try:
        claims = _Claims.model_validate(sd_jwt.token.payload)
    except ValidationError:
        raise malformed("a claim is missing, or not what it should be") from None
    agency = agency_of(claims.iss)
    if not agency or published.issuer(agency) != claims.iss:
        raise PermissionDenied(Reason.RESULT_ISSUER, "its issuer has published no keys here")
    if expected is not None and agency != expected:
        raise PermissionDenied(Reason.RESULT_ISSUER, "it is from another issuer")
    return agency, moment(claims.iat)


def _statement(opened: Opened, agency: str, kid: str) -> Statement:
    try:
        claims = _Claims.model_validate(opened.claims)
    except ValidationError:
        raise malformed("a claim is missing, or not what it should be") from None
    scheme, _, subject = claims.sub.partition(":")
    place = claims.status.status_list if claims.status else None
    return Statement(
        ref=claims.jti,
        issuer=agency,
        scheme=scheme,
        subject=subject,
        fact=claims.fact,
        assurance=claims.assurance,
        issued_at=moment(claims.iat),
        valid_from=moment(claims.nbf),
        valid_until=None if claims.exp is None else moment(claims.exp),
        value=claims.value,
        case_id=claims.case_id,
        stage=claims.stage,
        status_uri=place.uri if place else "",
        status_index=place.idx if place else 0,
        key_id=kid,
        withheld=opened.withheld,
    )


def _check_time(statement: Statement, at: dt.datetime) -> None:
    if max(statement.issued_at, statement.valid_from) > at + SKEW:
        raise FailedPrecondition(Reason.RESULT_NOT_YET_VALID, "it is not valid yet")
    if statement.valid_until is not None and statement.valid_until <= at:
        raise FailedPrecondition(Reason.RESULT_EXPIRED, "it is not valid any more")


_REFUSED: Final[Mapping[int, tuple[Reason, str]]] = {
    Status.INVALID: (Reason.RESULT_REVOKED, "it was revoked"),
    Status.SUSPENDED: (Reason.RESULT_SUSPENDED, "it does not count for the time being"),
    Status.SUPERSEDED: (Reason.RESULT_SUPERSEDED, "a newer one has taken its place"),
}


def check_status(statement: Statement, status: StatusList) -> None:
    """Check a statement's entry in a verified status list.

    Raises `FailedPrecondition` RESULT_REVOKED, RESULT_SUSPENDED or RESULT_SUPERSEDED; RESULT_STATE_UNKNOWN where it
    is not the list that the statement names, or has no such entry.
    """
    if not statement.status_uri or status.uri != statement.status_uri or statement.status_index >= len(status):
        raise FailedPrecondition(Reason.RESULT_STATE_UNKNOWN, "this status list does not know it")
    value = status[statement.status_index]
    if value != Status.VALID:
        raise FailedPrecondition(*_REFUSED.get(value, (Reason.RESULT_STATE_UNKNOWN, "its status has no meaning here")))


def present(text: str, keep: Collection[str]) -> str:
    """Give the credential with only some of what it can disclose: entries of the value by name, and `case_id`.

    Raises `InvalidArgument` RESULT_DISCLOSURE for a name it does not know, or what is wrong with the form; signature
    and time are for those to check who are shown it.
    """
    sd_jwt = _read(text)
    opened = sdjwt.unpack(sd_jwt, always_open=_OPEN)
    names = disclosable(text)
    unknown = sorted(set(keep) - names - set(opened.claims.get("value", ())))
    if unknown:
        hint = nearest(unknown[0], sorted(names)) or f"; it can disclose {', '.join(sorted(names)) or 'nothing'}"
        raise InvalidArgument(Reason.RESULT_DISCLOSURE, f"it cannot disclose {unknown[0]!r}{hint}")
    kept = set(keep)
    return sdjwt.present(sd_jwt, lambda path: _name(path) in kept)


def disclosable(text: str) -> frozenset[str]:
    """Name what a credential, as it is at hand, can disclose or withhold; raises as `present` does."""
    opened = sdjwt.unpack(_read(text), always_open=_OPEN)
    return frozenset(filter(None, map(_name, opened.disclosed)))


def _name(path: sdjwt.Path) -> str:
    if path == (CASE,):
        return CASE
    return str(path[1]) if len(path) > 1 and path[0] == "value" else ""
