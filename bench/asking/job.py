"""What a load generator is told to do, and what it tells back: JSON, one object a line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

from bench import corpus
from certs.spiffe import SpiffeId
from certs.svid import SvidFiles
from services.kit.config import Transport

Kind = Literal["session", "unary", "plain", "graphql", "postgres"]

_PUBLIC: Final[Mapping[str, tuple[str, ...]]] = {
    "commerce.Enterprise": (
        *("uscc", "name", "entity_type", "reg_status", "legal_rep_name", "reg_capital_amt", "reg_capital_ccy"),
        *("establish_date", "business_scope", "address", "region_code"),
    ),
    "taxation.TaxpayerStatus": ("uscc", "taxpayer_type", "tax_status", "registered_on", "tax_office"),
    "customs.Operator": (
        *("customs_code", "uscc", "operator_types", "recorded_on", "record_status", "credit_level", "credit_from"),
        *("aeo_code", "mra_partners"),
    ),
    "quality.TraceEvent": ("expiry_date",),
    "publicsecurity.SealRegistration": ("uscc",),
}

GIVEN: Final = _PUBLIC
"""The fields that the policies of the five give to an agency for the purpose of the public register."""


@dataclass(frozen=True)
class Job:
    """Whom to ask, as whom, and about what."""

    kind: Kind
    target: str
    """`host:port`."""
    server: str
    """SPIFFE id that the other side must prove."""
    certificate: str
    """File of the caller's key and chain."""
    bundle: str
    """File of the roots."""
    subjects: int = corpus.SUBJECTS
    """About how many enterprises questions are."""
    stride: int = 1
    """From the number of one to that of the next."""
    given: Mapping[str, Sequence[str]] = field(default_factory=lambda: dict(GIVEN))
    """What must come of each record type, field by field."""
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """What is asked for of each; everything where a type is not named."""
    connections: int = 1
    """How many connections to spread questions over, each with a session of its own; several callers, as it were."""
    transport: Transport | Literal[""] = ""
    """What carries calls; the leanest there is where it is empty."""
    purpose: str = "P-PUBLIC-REG"
    basis: str = "CN-PUBLIC-REGISTER"

    @property
    def types(self) -> tuple[str, ...]:
        """The record types asked for."""
        return tuple(self.given)

    @property
    def numbers(self) -> range:
        """The numbers of the enterprises."""
        return range(0, self.subjects * self.stride, self.stride)

    @property
    def identity(self) -> SpiffeId:
        """Whom to reach."""
        return SpiffeId.parse(self.server)

    @property
    def files(self) -> SvidFiles:
        """Whom to be."""
        return SvidFiles(Path(self.certificate), Path(self.certificate), Path(self.bundle))

    def to_json(self) -> str:
        """Write it on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read it."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Told:
    """What came of one round."""

    queries: int
    seconds: float
    client_us: float
    """CPU of the generator per query."""
    quantiles: Sequence[float]
    """Waits in milliseconds at `QUANTILES`."""
    errors: Mapping[str, int] = field(default_factory=dict[str, int])
    late_ms: float = 0.0
    """Of a paced round: how late the generator itself was at worst in 99 of 100 questions."""
    waits_ms: Sequence[float] = ()
    """Of a paced round: every wait."""

    @property
    def per_second(self) -> float:
        """Queries a second."""
        return self.queries / self.seconds

    def wait_ms(self, percent: float) -> float:
        """Give a percentile of the waits."""
        return self.quantiles[QUANTILES.index(percent)]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """Read it."""
        return cls(**found)


QUANTILES: Final = (*(float(n) for n in range(100)), 99.5, 99.9, 100.0)
"""Percentiles of waits that a round tells."""


def quantiles(waits: Iterable[float]) -> list[float]:
    """Give the percentiles of `QUANTILES` (nearest rank)."""
    found = sorted(waits)
    last = len(found) - 1
    return [found[round(last * percent / 100)] for percent in QUANTILES]
