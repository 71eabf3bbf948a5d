"""The form of a procedure file: what its words are, and what each alone must be like.

A draft is what could be read. A stage that cannot be read does not keep the others from being checked, so that every
mistake of a file is told at once. Limits are written as people say them: `5 working days`, `30 calendar days`,
`1 hour`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeGuard

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from services.kit.durations import duration_seconds
from services.kit.errors import Reason
from services.kit.jurisdiction import pack
from services.recognition.agencies import AgencyEntry, PartyEntry
from services.recognition.agencies import Code as AgencyCode
from services.recognition.events import Assurance, Pause, ResultCode
from services.recognition.procedure import (
    PREREQUISITES,
    DeemedRule,
    Demand,
    Extension,
    Fact,
    LimitsBy,
    OnFail,
    Overdue,
    Reached,
    Stage,
)
from services.recognition.statutory import Limit, Unit

MAX_TEXT: Final = 256 * 1024
"""A procedure file has at most this many bytes."""
MAX_STAGES: Final = 200

_LIMIT: Final = re.compile(r"([1-9]\d{0,3}) (working days?|calendar days?|hours?)")
_UNITS: Final = {"working day": Unit.WORKING_DAY, "calendar day": Unit.CALENDAR_DAY, "hour": Unit.HOUR}
_STAGE_CODE: Final = re.compile(r"[A-Z][A-Za-z0-9]*(-[A-Za-z0-9]+)*")


def parse_limit(text: object) -> Limit:
    """Read a limit as files write it; raises `ValueError`."""
    found = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if not found:
        raise ValueError("write a limit as '5 working days', '30 calendar days' or '1 hour'")
    return Limit(int(found[1]), _UNITS[found[2].removesuffix("s")])


def _duration(text: str) -> str:
    if not duration_seconds(text):
        raise ValueError("a duration must be longer than nothing")
    return text


def _answer(value: object) -> object:
    # YAML reads `true` and `4` as something else than text; as answers they are text like any other
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


LimitText = Annotated[Limit, BeforeValidator(parse_limit)]
Duration = Annotated[str, AfterValidator(_duration)]
Answer = Annotated[str, BeforeValidator(_answer), Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
QuestionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=64)]
FactCode = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$", max_length=64)]
StageCode = Annotated[str, Field(pattern=f"^{_STAGE_CODE.pattern}$", max_length=32)]
Title = Annotated[str, Field(min_length=1, max_length=200)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class QuestionEntry(_Entry):
    """A question."""

    title: Title
    local_title: Title
    values: tuple[Answer, ...] = Field(default=("true", "false"), min_length=2)
    default: Answer | None = None


class LightsEntry(_Entry):
    """When stages turn yellow."""

    share: int = Field(default=25, ge=1, le=99)


class EscalationEntry(_Entry):
    """One step of escalation."""

    after: LimitText
    to: str


class Head(_Entry):
    """A procedure without its stages."""

    code: str = Field(pattern=r"^[A-Z][A-Z0-9]*(-[A-Z0-9]+)*$", max_length=32)
    version: str = Field(pattern=r"^(0|[1-9]\d{0,5})(\.(0|[1-9]\d{0,5})){2}$")
    title: Title
    local_title: Title
    lead: str
    calendar: str = Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,8})?$")
    roll: bool = True
    subjects: tuple[Literal["cn.uscc", "hutong.token"], ...] = Field(min_length=1)
    effective_from: AwareDatetime
    matters: tuple[str, ...] = Field(min_length=1)
    deemed: DeemedRule
    questions: Mapping[QuestionName, QuestionEntry] = Field(default_factory=dict)
    agencies: Mapping[AgencyCode, AgencyEntry] = Field(default_factory=dict)
    parties: Mapping[AgencyCode, PartyEntry] = Field(default_factory=dict)
    lights: LightsEntry = LightsEntry()
    escalation: tuple[EscalationEntry, ...] = ()
    case_limit: LimitText | None = None


_MADE_UP: Final[Mapping[str, object]] = {
    "code": "X",
    "version": "0.0.0",
    "title": "?",
    "local_title": "?",
    "lead": "",
    "calendar": "XX",
    "subjects": ["cn.uscc"],
    "effective_from": "2000-01-01T00:00:00Z",
    "matters": ["?"],
    "deemed": DeemedRule.ALLOWED,
}
"""What stands for a word of the head that cannot be read, while the others are checked."""


class _ProvesEntry(_Entry):
    fact: FactCode
    assurance: Assurance
    valid_for: Duration | None = None


class _DemandEntry(_Entry):
    fact: FactCode
    assurance: Assurance = Assurance.AUTO
    max_age: Duration | None = None


class _ExtensionEntry(_Entry):
    amount: int = Field(ge=1, le=9999)
    times: int = Field(default=1, ge=1, le=10)
    approver: str


class _LimitsByEntry(_Entry):
    question: str
    limits: Mapping[Annotated[str, BeforeValidator(_answer)], LimitText]


class _StageEntry(_Entry):
    title: Title
    local_title: Title
    agency: str
    after: tuple[str, ...] = ()
    when: Mapping[str, Annotated[str, BeforeValidator(_answer)]] = Field(default_factory=dict)
    when_result: Mapping[str, frozenset[ResultCode]] = Field(default_factory=dict)
    limit: LimitText | None = None
    limits_by: _LimitsByEntry | None = None
    clock: str = Field(default=PREREQUISITES, pattern=rf"^({PREREQUISITES}|started:{_STAGE_CODE.pattern})$")
    overdue: Overdue | None = None
    yellow: int | None = Field(default=None, ge=0, le=9999)
    extension: _ExtensionEntry | None = None
    supplement: bool = False
    pauses: Mapping[Pause, LimitText | None] = Field(default_factory=dict[Pause, "Limit | None"])
    stops_clocks: bool = False
    proves: _ProvesEntry | None = None
    recognised_by: tuple[str, ...] = ()
    requires: tuple[_DemandEntry, ...] = ()
    accepts: bool | None = None
    reaches: Reached | None = None
    optional: bool = False
    on_fail: OnFail = OnFail.REFUSE
    repeatable: bool = False
    instant: bool = False

    def stage(self, code: str) -> Stage:
        by, proves, more = self.limits_by, self.proves, self.extension
        pauses: dict[Pause, Limit | None] = {Pause.SUPPLEMENT: None} if self.supplement else {}
        return Stage(
            code=code,
            title=self.title,
            local_title=self.local_title,
            agency=self.agency,
            after=self.after,
            when=MappingProxyType(dict(self.when)),
            when_result=MappingProxyType(dict(self.when_result)),
            limit=self.limit,
            limits_by=LimitsBy(by.question, MappingProxyType(dict(by.limits))) if by else None,
            clock=self.clock,
            overdue=self.overdue or (Overdue.ESCALATE if self.limit or by else Overdue.NONE),
            yellow=self.yellow,
            extension=Extension(more.amount, more.times, more.approver) if more else None,
            supplement=self.supplement,
            pauses=MappingProxyType(pauses | dict(self.pauses)),
            stops_clocks=self.stops_clocks,
            proves=Fact(proves.fact, proves.assurance, proves.valid_for) if proves else None,
            recognised_by=self.recognised_by,
            requires=tuple(Demand(d.fact, d.assurance, d.max_age) for d in self.requires),
            accepts=proves is not None if self.accepts is None else self.accepts,
            reaches=self.reaches,
            optional=self.optional,
            on_fail=self.on_fail,
            repeatable=self.repeatable,
            instant=self.instant,
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a procedure file."""

    reason: Reason
    file: str
    stage: str
    """Code of the stage, or empty where the mistake is not one stage's."""
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.stage, self.message) if part)


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a file."""

    head: Head | None
    """Made up where it stands in `unreadable_words`."""
    unreadable_words: frozenset[str]
    """Words of the head that could not be read."""
    stages: Mapping[str, Stage]
    unreadable: frozenset[str]
    """Codes of stages that stand in the file and could not be read."""
    problems: tuple[tuple[str, str], ...]
    """Stage code or nothing, and what is wrong."""


def read_draft(text: str) -> Draft:
    """Read what can be read of a procedure file."""
    try:
        said: Any = pack.load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day 2026-02-30 is a ValueError
        return _nothing(f"it is no YAML: {error}")
    if not _is_mapping(said):
        return _nothing("it must be a mapping, with code, version, stages …")
    stated: Any = said.get("stages")
    entries = stated if _is_mapping(stated) else {}
    problems: list[tuple[str, str]] = []
    head, words = _read_head({word: value for word, value in said.items() if word != "stages"}, problems)
    if not 1 <= len(entries) <= MAX_STAGES:
        problems.append(("", f"stages: there must be between 1 and {MAX_STAGES}, by their codes"))
        entries = {}
    stages = _read_stages(entries, problems)
    unreadable = frozenset(str(code) for code in entries) - stages.keys()
    return Draft(head, words, stages, unreadable, tuple(problems))


def _nothing(message: str) -> Draft:
    return Draft(None, frozenset(), {}, frozenset(), (("", message),))


def _read_head(words: Mapping[Any, Any], problems: list[tuple[str, str]]) -> tuple[Head | None, frozenset[str]]:
    """Read the head; words that cannot be read are made up, so that the others can be checked."""
    try:
        return Head.model_validate(words), frozenset()
    except ValidationError as error:
        problems += (("", line.strip()) for line in pack.describe(error).splitlines())
        wrong = frozenset(str(item["loc"][0]) for item in error.errors() if item["loc"])
    mended = {word: value for word, value in words.items() if str(word) not in wrong}
    try:
        return Head.model_validate(mended | {word: _MADE_UP[word] for word in wrong & _MADE_UP.keys()}), wrong
    except ValidationError:
        return None, wrong


def _is_mapping(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _read_stages(raw: Mapping[Any, Any], problems: list[tuple[str, str]]) -> Mapping[str, Stage]:
    stages: dict[str, Stage] = {}
    for key, entry in raw.items():
        code = str(key)
        if not _STAGE_CODE.fullmatch(code) or len(code) > 32:
            problems.append((code[:32], "a stage code is letters and digits, and begins with a capital: E5a"))
        try:
            stages[code] = _StageEntry.model_validate(entry).stage(code)
        except ValidationError as error:
            problems += ((code, line.strip()) for line in pack.describe(error).splitlines())
    return MappingProxyType(stages)
