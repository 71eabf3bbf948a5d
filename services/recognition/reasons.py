"""Machine codes of why: closed lists, one for each kind of event that needs a reason. Data: `reasons.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.jurisdiction import pack
from services.kit.records.catalogue import nearest
from services.recognition.events import Event, Kind, ResultCode

_SHIPPED: Final = Path(__file__).with_name("reasons.yaml")


class Ground(StrEnum):
    """What a reason is given for."""

    SUPPLEMENT = "supplement"
    SUSPEND = "suspend"
    EXTEND = "extend"
    FAIL = "fail"
    CONDITIONAL = "conditional"
    REFUSE_RECOGNITION = "refuse_recognition"
    WITHDRAW = "withdraw"
    REVOKE = "revoke"
    DESPITE = "despite"
    """Examining once more what is open or valid elsewhere."""
    DISPOSE = "dispose"
    """Disposing of a task."""


_BY_KIND: Final[Mapping[Kind, Ground]] = MappingProxyType(
    {
        Kind.SUPPLEMENT_REQUEST: Ground.SUPPLEMENT,
        Kind.SUSPEND: Ground.SUSPEND,
        Kind.EXTEND: Ground.EXTEND,
        Kind.REFUSE_RECOGNITION: Ground.REFUSE_RECOGNITION,
        Kind.WITHDRAW: Ground.WITHDRAW,
        Kind.REVOKE: Ground.REVOKE,
    }
)
_BY_RESULT: Final[Mapping[ResultCode, Ground]] = MappingProxyType(
    {ResultCode.FAIL: Ground.FAIL, ResultCode.CONDITIONAL: Ground.CONDITIONAL}
)


@dataclass(frozen=True, slots=True)
class Why:
    """One reason."""

    code: str
    title: str
    local_title: str


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    local_title: str = Field(min_length=1)


_Code = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]*(_[A-Z0-9]+)*$", max_length=64)]


class _File(RootModel[Mapping[Ground, Mapping[_Code, _Entry]]]):
    pass


@dataclass(frozen=True, slots=True)
class Reasons:
    """The closed lists."""

    lists: Mapping[Ground, Mapping[str, Why]]

    @staticmethod
    def load(path: Path | None = None) -> "Reasons":
        """Load the lists of a file, or those that come with the product; raises `FailedPrecondition`."""
        return _load(path or _SHIPPED)

    def of(self, ground: Ground) -> Mapping[str, Why]:
        """Give the list for one kind."""
        return self.lists[ground]

    def check(self, ground: Ground, code: str) -> None:
        """Check a reason; raises `InvalidArgument` with REASON_MISSING, or REASON_UNKNOWN naming the nearest."""
        known = self.lists[ground]
        if not code:
            raise InvalidArgument(Reason.REASON_MISSING, f"a reason is needed: one of {', '.join(known)}")
        if code not in known:
            hint = nearest(code, known) or f"; there are {', '.join(known)}"
            raise InvalidArgument(Reason.REASON_UNKNOWN, f"{code[:64]!r} is no reason here{hint}")

    def check_event(self, event: Event) -> None:
        """Check an event's reason; raises `InvalidArgument` as `check` does, and for one where none is needed.

        Reasons are read by everyone who sees the event, and what is free text ends up as whatever people write.
        """
        if ground := ground_of(event):
            self.check(ground, event.reason)
        elif event.reason and event.kind is Kind.START:
            self.check(Ground.DESPITE, event.reason)
        elif event.reason:
            raise InvalidArgument(Reason.REASON_UNKNOWN, f"{event.kind} needs no reason, and takes none")


def ground_of(event: Event) -> Ground | None:
    """Say which list an event's reason is of; None where it needs none."""
    if event.kind is Kind.RESULT:
        return _BY_RESULT.get(event.result) if event.result else None
    return _BY_KIND.get(event.kind)


@cache
def _load(path: Path) -> Reasons:
    try:
        file = _File.model_validate(pack.load_yaml(path.read_text(encoding="utf-8"))).root
    except ValidationError as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}:\n  {pack.describe(error)}") from None
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: {error}") from None
    if missing := [ground for ground in Ground if not file.get(ground)]:
        raise FailedPrecondition(Reason.CONFIG_INVALID, f"{path}: no reasons for {', '.join(missing)}")
    return Reasons(
        MappingProxyType(
            {
                ground: MappingProxyType({code: Why(code, e.title, e.local_title) for code, e in entries.items()})
                for ground, entries in file.items()
            }
        )
    )
