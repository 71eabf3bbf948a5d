"""What a decision rests on, looked at again in the moment in which it is made.

It rests on the results of all stages before it, and on those from outside the case that prove what it demands. None of
them may have been revoked, suspended, replaced by one that says something else, or signed with a key that is no longer
believed. Time alone ends only what the decision builds on directly: the stages it waits for, and the facts it demands.
A name that was reserved for a month has done its work once the enterprise is registered.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from services.kit.errors import FailedPrecondition, HutongError, Reason
from services.recognition import recognising, registry, stage_results, tasks
from services.recognition.clocks import WITHOUT
from services.recognition.dossier import Dossier
from services.recognition.procedure import Demand, Stage
from services.recognition.recognising import Match
from services.recognition.stages import StageState
from services.recognition.standing import Standing


@dataclass(frozen=True, slots=True)
class Bases:
    """What a decision rests on, or why it cannot be made."""

    refs: tuple[str, ...] = ()
    refused: HutongError | None = None
    """Something does not stand; a task has been raised, which has to be kept."""


def look(dossier: Dossier, of: Stage) -> Bases:
    """Find what the decision of a stage rests on, and see that it stands.

    Raises `FailedPrecondition` with FACT_NOT_PROVEN where what it demands is not proven, or was proven too long ago.
    """
    before = _before(dossier, of)
    refs = [stage.ref for stage in before.values() if stage.ref and stage.satisfied]
    fallen = _fallen(dossier, of, before, refs)
    if fallen:
        return Bases(refused=_questioned(dossier, of, fallen))
    _check_ages(dossier, of)
    return Bases((*refs, *_demanded(dossier, of)))


def _before(dossier: Dossier, of: Stage) -> Mapping[str, StageState]:
    ancestors = dossier.procedure.ancestors(of.code)
    return {code: dossier.state.stages[code] for code in dossier.procedure.order if code in ancestors}


def _fallen(dossier: Dossier, of: Stage, before: Mapping[str, StageState], refs: list[str]) -> Mapping[str, Standing]:
    rules = dossier.rules
    standings = registry.standing(dossier.connection, rules.published, refs, dossier.now, case_id=dossier.case_id)
    direct = _direct(dossier, of)
    spent = {stage.ref for code, stage in before.items() if code not in direct}
    return {
        ref: found
        for ref, found in standings.items()
        if not found.ok and not (found.reason is Reason.RESULT_EXPIRED and ref in spent)
    }


def _direct(dossier: Dossier, of: Stage) -> set[str]:
    """Name the stages that a stage builds on directly: through those left out, what they would have built on."""
    procedure, stages = dossier.procedure, dossier.state.stages
    provers = (procedure.provers.get(demand.fact) for demand in of.requires)
    found: set[str] = set()
    waiting = [*of.after, *(prover.code for prover in provers if prover is not None)]
    while waiting:
        code = waiting.pop()
        if stages[code].status in WITHOUT:
            waiting += procedure.stages[code].after
        else:
            found.add(code)
    return found


def _questioned(dossier: Dossier, of: Stage, fallen: Mapping[str, Standing]) -> HutongError:
    recognising.question(
        dossier.connection,
        dossier.rules.desk,
        case_id=dossier.case_id,
        standings=fallen,
        now=dossier.now,
        agency=of.agency,
        stage=of.code,
        post=dossier.post,
    )
    ref, found = next(iter(fallen.items()))
    return FailedPrecondition(
        Reason.RECOGNISED_RESULT_INVALID,
        "a result that this decision rests on does not stand any more; a task was raised",
        result_ref=ref,
        cause=str(found.reason or ""),
    )


def _check_ages(dossier: Dossier, of: Stage) -> None:
    """See that what stages of the case have proven is still as recent as this one demands."""
    for demand in of.requires:
        prover = dossier.procedure.provers.get(demand.fact)
        if demand.max_age is None or prover is None or not (ref := dossier.state.stages[prover.code].ref):
            continue
        issued_at = stage_results.get(dossier.connection, ref).issued_at
        if not demand.fresh(issued_at, dossier.now):
            raise _not_proven(of, demand, f"no longer ago than {demand.max_age}, and {prover.code}'s result is older")


def _demanded(dossier: Dossier, of: Stage) -> list[str]:
    """Find the results from outside the case that prove what the stage demands and no stage of the case proves."""
    rules, said = dossier.rules, dossier.state.submission
    found = recognising.demanded(
        dossier.connection,
        rules.arrangements,
        rules.published,
        scheme=said.scheme,
        subject=said.subject,
        stage=of,
        procedure=dossier.procedure,
        proven=_proven(dossier),
        now=dossier.now,
    )
    for demand, match in found.items():
        if match is None:
            raise _not_proven(of, demand, f"and no result that {of.agency} accepts stands")
        _rely(dossier, of, match)
    return [match.ref for match in found.values() if match is not None]


def _not_proven(of: Stage, demand: Demand, why: str) -> FailedPrecondition:
    message = f"{of.code} needs {demand.fact} to be proven, {why}"
    return FailedPrecondition(Reason.FACT_NOT_PROVEN, message, fact=demand.fact, stage=of.code)


def _rely(dossier: Dossier, of: Stage, match: Match) -> None:
    """Note that a decision builds on a result, so that a revocation finds it."""
    if tasks.recognised(dossier.connection, dossier.case_id, of.code, match.ref):
        return  # decided once more
    recognising.note(
        dossier.connection,
        case_id=dossier.case_id,
        stage=of.code,
        match=match,
        recogniser=of.agency,
        now=dossier.now,
    )


def _proven(dossier: Dossier) -> set[str]:
    """Name the facts that stages of the case have proven, or would prove if they applied."""
    stages = dossier.state.stages
    return {
        fact
        for fact, of in dossier.procedure.provers.items()
        if stages[of.code].satisfied or stages[of.code].status in WITHOUT
    }
