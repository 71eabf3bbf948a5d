"""What of a procedure's graph a case needs at every event, worked out once per procedure and answers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from services.recognition.procedure import CLOSING, Procedure, Stage

_KEPT: Final = 512
"""Layouts kept at most: a few per procedure in force, and far more than a node has."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The graph as one case sees it."""

    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    left_out: frozenset[str] = frozenset()
    """Stages that the answers leave out."""
    free: tuple[str, ...] = ()
    """Stages that are ready when the case begins, whatever else happens: they wait for nothing, and no answer or result
    leaves them out."""
    at_once: tuple[str, ...] = ()
    """Other stages to look at when the case begins, each after those it waits for."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """For each stage, those that have to be out of the way for it: those it waits for, and those before them that its
    clock runs from or that it hangs on whether it applies, which may be open again."""
    behind: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """For each stage, those that wait for it, directly or not, each after those it waits for."""
    acceptance: frozenset[str] = frozenset()
    """Stages that belong to acceptance: what happens in them is no review yet."""
    accepts: bool = False
    """Whether a stage brings acceptance about, so that the case has to wait for it."""
    closing: frozenset[str] = frozenset()
    """Stages that have to be out of the way for the case to end."""


_layouts: dict[tuple[int, tuple[tuple[str, str], ...]], tuple[Procedure, Layout]] = {}


def layout_of(procedure: Procedure, answers: tuple[tuple[str, str], ...]) -> Layout:
    """Give the layout of a procedure with these answers; what is not answered takes its default."""
    key = (id(procedure), answers)
    found = _layouts.get(key)
    # A procedure is no key itself: it has mappings. The entry holds it, so that its id cannot become another's.
    if found is not None and found[0] is procedure:
        return found[1]
    layout = _lay_out(procedure, answers)
    if len(_layouts) >= _KEPT:
        _layouts.clear()
    _layouts[key] = (procedure, layout)
    return layout


def _lay_out(procedure: Procedure, given: tuple[tuple[str, str], ...]) -> Layout:
    defaults = {name: q.default for name, q in procedure.questions.items() if q.default is not None}
    answers = defaults | dict(given)
    applying = {stage.code for stage in procedure.applicable(answers)}
    left_out = frozenset(procedure.stages) - applying
    free = tuple(code for code in procedure.order if code in applying and _is_free(procedure.stages[code]))
    acceptors = [code for code in applying if procedure.stages[code].reaches == "ACCEPTED"]
    return Layout(
        answers=answers,
        left_out=left_out,
        free=free,
        at_once=tuple(code for code in _at_once(procedure, left_out) if code not in free),
        needs={stage.code: _needs(stage) for stage in procedure.stages.values()},
        behind={code: tuple(c for c in procedure.order if code in procedure.ancestors(c)) for code in procedure.stages},
        acceptance=frozenset(acceptors).union(*(procedure.ancestors(code) for code in acceptors)),
        accepts=bool(acceptors),
        closing=_closing(procedure, applying),
    )


def _is_free(stage: Stage) -> bool:
    return not (stage.after or stage.clock_from or stage.when_result)


def _needs(stage: Stage) -> tuple[str, ...]:
    named = (*stage.after, stage.clock_from, *stage.when_result)
    return tuple(dict.fromkeys(code for code in named if code))


def _at_once(procedure: Procedure, left_out: frozenset[str]) -> Iterator[str]:
    """Choose the stages that may begin with the case: which wait for nothing, or for what is left out."""
    for code in procedure.order:
        if not procedure.stages[code].after or code in left_out or not left_out.isdisjoint(procedure.ancestors(code)):
            yield code


def _closing(procedure: Procedure, applying: set[str]) -> frozenset[str]:
    """Choose the stages whose end is the case's end.

    Where a stage delivers, the case ends with it and with all that may not be left out; otherwise with every stage.
    Repeatable stages never have to happen.
    """
    stages = [procedure.stages[code] for code in applying]
    delivering = {stage.code for stage in stages if stage.reaches == CLOSING}
    if delivering:
        return frozenset(delivering | {s.code for s in stages if not s.optional and not s.repeatable})
    return frozenset(s.code for s in stages if not s.repeatable)
