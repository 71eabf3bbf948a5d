"""Reads arrangement files: what does not pass every check is not recognised by.

A file is named `CODE@version.yaml`, in lower case: `person-verified@1.0.0.yaml`. Every mistake of every file is told
at once.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import yaml
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.kit.errors import FailedPrecondition, Reason
from services.kit.jurisdiction import pack
from services.kit.jurisdiction.pack import Jurisdiction, Mark
from services.kit.records.catalogue import nearest
from services.recognition import claims
from services.recognition.agencies import ALL, Agencies, Code
from services.recognition.arrangements import Arrangement
from services.recognition.events import Assurance
from services.recognition.procedure import Stage
from services.recognition.procedure_draft import Duration, FactCode, StageCode, Title
from services.recognition.procedures import Procedures

SHIPPED: Final = Path(__file__).with_name("arrangements")

MAX_TEXT: Final = 64 * 1024
"""An arrangement file has at most this many bytes."""


def _condition(text: str) -> str:
    claims.read(text)
    return text


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    code: pack.Code
    version: str = Field(pattern=r"^(0|[1-9]\d{0,5})(\.(0|[1-9]\d{0,5})){2}$")
    title: Title
    local_title: Title
    recognisers: tuple[Code, ...] = Field(min_length=1)
    fact: FactCode
    issuers: tuple[Code, ...] = Field(min_length=1)
    assurance: Assurance
    max_age: Duration | None = None
    condition: Annotated[str, AfterValidator(_condition)] | None = None
    compare: tuple[str, ...] | None = None
    stages: Mapping[pack.Code, tuple[StageCode, ...]] = Field(default_factory=dict[str, tuple[str, ...]])
    outside: bool = False
    """Its results are issued outside cases: no stage of a procedure has to prove the fact."""
    effective_from: AwareDatetime
    valid_until: AwareDatetime | None = None
    basis: pack.Code
    mark: Mark


@dataclass(frozen=True, slots=True)
class _Known:
    """What arrangements may speak of."""

    agencies: Agencies
    procedures: Procedures
    jurisdiction: Jurisdiction | None


def read_all(
    folder: Path | None, *, agencies: Agencies, procedures: Procedures, jurisdiction: Jurisdiction | None = None
) -> list[Arrangement]:
    """Read the arrangements that come with the product and those of a folder, which win where names are the same.

    Raises `FailedPrecondition` with ARRANGEMENT_INVALID, naming every mistake.
    """
    extra = [agency for procedure in procedures for agency in procedure.agencies.values()]
    known = _Known(agencies.plus(extra), procedures, jurisdiction)
    problems: list[str] = []
    found: list[Arrangement] = []
    for path, file in _files(folder, problems):
        problems += (f"{path}: {mistake}" for mistake in _mistakes(file, known))
        found.append(_arrangement(file))
    if problems:
        raise FailedPrecondition(Reason.ARRANGEMENT_INVALID, "\n".join(problems))
    return found


def _files(folder: Path | None, problems: list[str]) -> Iterator[tuple[Path, _File]]:
    paths = {path.name: path for place in (SHIPPED, folder) if place for path in sorted(place.glob("*.yaml"))}
    for path in paths.values():
        try:
            content = path.read_bytes()
            if len(content) > MAX_TEXT:
                raise ValueError(f"it is larger than {MAX_TEXT} bytes")
            file = _File.model_validate(pack.load_yaml(content.decode()))
        except ValidationError as error:
            problems.append(f"{path}:\n  {pack.describe(error)}")
        except (OSError, yaml.YAMLError, ValueError) as error:
            problems.append(f"{path}: {error}")
        else:
            if path.name != (wanted := f"{file.code}@{file.version}.yaml".lower()):
                problems.append(f"{path}: the file must be named {wanted}")
            yield path, file


def _mistakes(file: _File, known: _Known) -> Iterator[str]:
    for code in (*file.recognisers, *file.issuers):
        if code not in known.agencies.agencies and not (code == ALL and code in file.recognisers):
            yield f"there is no agency {code!r}{nearest(code, known.agencies.agencies)}"
    if file.valid_until is not None and file.valid_until <= file.effective_from:
        yield "it ends before it begins"
    if known.jurisdiction is not None and file.basis not in known.jurisdiction.bases:
        yield f"there is no legal basis {file.basis!r}{nearest(file.basis, known.jurisdiction.bases)}"
    yield from _fact_mistakes(file, known)
    for procedure, stages in file.stages.items():
        yield from _stage_mistakes(file, procedure, stages, known)


def _fact_mistakes(file: _File, known: _Known) -> Iterator[str]:
    """A fact that nobody proves is most likely mistyped, and an arrangement on it would silently never match."""
    if file.outside:
        return
    provers: dict[str, set[str]] = {}
    for procedure in known.procedures:
        for fact, stage in procedure.provers.items():
            provers.setdefault(fact, set()).add(stage.agency)
    if file.fact not in provers:
        hint = nearest(file.fact, provers)
        yield f"no stage of a procedure proves {file.fact!r}{hint}; write `outside: true` where that is meant"
        return
    for issuer in sorted(set(file.issuers) - provers[file.fact]):
        yield f"{issuer} proves {file.fact} in no stage of a procedure; write `outside: true` where that is meant"


def _stage_mistakes(file: _File, procedure: str, stages: Iterable[str], known: _Known) -> Iterator[str]:
    versions = known.procedures.versions(procedure)
    if not versions:
        yield f"stages: there is no procedure {procedure!r}{nearest(procedure, known.procedures.codes)}"
        return
    every = {code: stage for version in versions for code, stage in version.stages.items()}
    for code in stages:
        stage = every.get(code)
        if stage is None:
            yield f"stages: {procedure} has no stage {code!r}{nearest(code, every)}"
        elif ALL not in file.recognisers and stage.agency not in file.recognisers:
            yield f"stages: {procedure} {code} is {stage.agency}'s, which is no recogniser here"
        elif file.fact not in _facts(stage):
            yield f"stages: {procedure} {code} neither proves nor requires {file.fact}"


def _facts(stage: Stage) -> set[str]:
    proven = {stage.proves.code} if stage.proves and stage.accepts else set[str]()
    return proven | {demand.fact for demand in stage.requires}


def _arrangement(file: _File) -> Arrangement:
    return Arrangement(
        code=file.code,
        version=file.version,
        title=file.title,
        local_title=file.local_title,
        recognisers=file.recognisers,
        fact=file.fact,
        issuers=file.issuers,
        assurance=file.assurance,
        effective_from=file.effective_from,
        max_age=file.max_age,
        condition=None if file.condition is None else claims.read(file.condition),
        compare=file.compare,
        stages=MappingProxyType({code: frozenset(stages) for code, stages in file.stages.items()}),
        valid_until=file.valid_until,
        basis=file.basis,
    )
