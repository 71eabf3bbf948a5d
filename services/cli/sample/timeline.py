"""When things happen to a shipment: arrival, declaration, inspection, taxes, release, clearance.

A timeline is planned to its end and then cut at the reference date: what is still under way looks under way.
"""

import datetime as dt
from dataclasses import dataclass
from random import Random

from services.cli.sample.setting import Setting, any_moment, moment

Event = tuple[str, dt.datetime]
"""A clearance event's code and time."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a timeline must look like; the rest is ordinary."""

    verdict: str = ""
    """Food is inspected before release and concluded so: PASS, FAIL, CONDITIONAL."""
    stop_after: str = ""
    """Nothing happens after the first event of this code."""
    arrived_days_before: int | None = None
    """Days between arrival and declaration."""
    loaded: bool = True
    """Exports are loaded; the carrier says so."""
    inspected: bool | None = None
    """Whether it is selected for inspection; None leaves it to chance."""
    released_early: bool = False
    """Released before the conclusion that it needed."""
    uneventful: bool = False
    """Nothing unusual by chance: no rejection, deletion, guarantee or amendment."""


ORDINARY = Wish()
"""Nothing in particular."""


@dataclass(frozen=True, slots=True)
class Times:
    """What happened to a shipment, as far as it had happened by the reference date."""

    events: tuple[Event, ...]
    arrived: dt.datetime
    discharged: dt.datetime | None
    loaded: dt.datetime | None
    crossed: dt.date
    """Day of arrival or departure, planned or real."""
    sampled: dt.datetime | None
    concluded: dt.datetime | None
    verdict: str
    """Conclusion on the lot, PENDING while there is none; empty where none is needed."""

    @property
    def declared(self) -> dt.datetime:
        """When it was declared."""
        return self.events[0][1]

    @property
    def status(self) -> str:
        """Where the declaration stands: its last event."""
        return self.events[-1][0]

    def at(self, code: str) -> dt.datetime | None:
        """Tell when an event happened first; None where it did not."""
        return next((time for found, time in self.events if found == code), None)

    @property
    def stands(self) -> bool:
        """The declaration was neither rejected nor deleted."""
        return self.status not in {"REJECTED", "DELETED"}


def plan(rng: Random, setting: Setting, direction: str, day: dt.date, wish: Wish) -> Times:
    """Plan a shipment declared on `day`, and cut the plan at the reference date."""
    submitted = moment(day, rng.randint(8, 14), rng.randint(0, 59))
    events: list[Event] = [("SUBMITTED", submitted)]
    chance = 1.0 if wish.uneventful or wish.verdict else rng.random()
    if chance < 0.02:
        events.append(("REJECTED", submitted + dt.timedelta(minutes=25)))
    else:
        events.append(("ACCEPTED", submitted + dt.timedelta(minutes=rng.randint(3, 40))))
    if 0.02 <= chance < 0.03:
        events.append(("DELETED", submitted + dt.timedelta(hours=2)))
    goes_on = events[-1][0] == "ACCEPTED"
    if goes_on and chance < 0.05:
        events.append(("AMENDED", events[-1][1] + dt.timedelta(minutes=30)))
    chosen = rng.random() < 0.15 if wish.inspected is None else wish.inspected
    inspected = any_moment(rng, _after(day, 1)) if goes_on and (chosen or wish.verdict) else None
    if inspected:
        events += [("SELECTED", submitted + dt.timedelta(hours=2)), ("INSPECTED", inspected)]
    finish = _export if direction == "E" else _import
    return finish(rng, setting.now, day, wish, events, inspected, goes_on)


def _export(
    rng: Random,
    now: dt.datetime,
    day: dt.date,
    wish: Wish,
    events: list[Event],
    inspected: dt.datetime | None,
    on: bool,
) -> Times:
    released = _after(day, 2 if inspected else rng.randint(0, 1))
    left = _after(released, rng.randint(1, 2))
    loaded = any_moment(rng, left)
    if on:
        # 17 o'clock: after everything else that happens on the day of declaration.
        events += [("RELEASED", moment(released, 17, rng.randint(0, 40)))]
        events += [("CLEARED", any_moment(rng, _after(left, rng.randint(1, 5))))]
    kept = _cut(events, now, wish.stop_after)
    arrived = min(any_moment(rng, _after(day, -rng.randint(1, 4))), now)
    is_loaded = on and wish.loaded and loaded <= now and kept[-1][0] not in {"SUBMITTED", "ACCEPTED"}
    return Times(kept, arrived, None, loaded if is_loaded else None, left, None, None, "")


def _import(
    rng: Random,
    now: dt.datetime,
    day: dt.date,
    wish: Wish,
    events: list[Event],
    inspected: dt.datetime | None,
    on: bool,
) -> Times:
    waited = rng.randint(1, 9) if wish.arrived_days_before is None else wish.arrived_days_before
    crossed = _after(day, -waited)
    arrived = moment(crossed, rng.randint(8, 12), rng.randint(0, 59))
    discharged = arrived + dt.timedelta(hours=rng.randint(3, 8))
    sampled = concluded = None
    ready = _after(day, 2)
    if wish.verdict:
        sampled, concluded = inspected, any_moment(rng, _after(day, rng.randint(4, 8)))
        ready = _after(concluded.date(), 1)
    if on:
        events += [("TAX_DUE", moment(day, 17, rng.randint(0, 50)))]
        events += [("TAX_PAID", any_moment(rng, _after(day, rng.randint(1, 2))))]
        if wish.verdict != "FAIL":
            events += _releases(rng, day if wish.released_early else ready, wish)
    kept = _cut(events, now, wish.stop_after)
    verdict = wish.verdict
    if concluded is not None and concluded > now:
        concluded, verdict = None, "PENDING"
    sampled = None if sampled is not None and sampled > now else sampled
    return Times(kept, arrived, discharged, None, crossed, sampled, concluded, verdict)


def _releases(rng: Random, ready: dt.date, wish: Wish) -> list[Event]:
    released = moment(_after(ready, 2 if wish.released_early else 0), 17, rng.randint(0, 40))
    # The goods leave on a guarantee where duty is still disputed.
    by_guarantee = not (wish.uneventful or wish.verdict) and rng.random() < 0.05
    cleared = any_moment(rng, _after(released.date(), rng.randint(1, 4)))
    return [("GUARANTEE_RELEASED" if by_guarantee else "RELEASED", released), ("CLEARED", cleared)]


def _cut(events: list[Event], now: dt.datetime, stop_after: str) -> tuple[Event, ...]:
    ordered = sorted(events, key=lambda e: e[1])
    kept = [e for e in ordered if e[1] <= now]
    codes = [code for code, _ in kept]
    return tuple(kept[: codes.index(stop_after) + 1] if stop_after in codes else kept)


def _after(day: dt.date, days: int) -> dt.date:
    return day + dt.timedelta(days=days)
