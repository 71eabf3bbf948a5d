"""`hutong stats`: how long stages take, and where the bottleneck is."""

import asyncio
import datetime as dt
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from services.cli.casebook import Casebook, Store
from services.cli.output import AsJson, console, pairs, print_json, table
from services.cli.question import Folder
from services.cli.zone import DEFAULT_FOLDER
from services.recognition import stats
from services.recognition.stats import Spread, Stats, Times

app = typer.Typer(rich_markup_mode="rich")

_DAY: Final = 86_400


@app.command("stats")
def command(
    procedure: Annotated[
        str, typer.Option("--procedure", metavar="CODE", help="Only of this procedure, in all its versions.")
    ] = "",
    folder: Folder = DEFAULT_FOLDER,
    store: Store = "",
    as_json: AsJson = False,
) -> None:
    """Show how long stages take, who holds cases up, and how many ended in time.

    Counted from what happened in the cases of a store; times are those of the calendar, weekends too. A stage's time
    runs from when it was ready to its result; a repeatable stage's from what happened last before. Where agencies say
    when they began, it is split into waiting, standing still and working. Median and P90 are over all times that cases
    went through. The bottleneck is the stage in which cases spent the most time in all.

    \b
    Examples:
      hutong stats
      hutong stats --procedure WABO-RECEIPT --store sqlite:///cases.db
    """
    book = Casebook.of(folder, store)
    code = procedure.partition("@")[0].upper()
    if code and code not in book.rulebook.procedures.codes:
        code = procedure.partition("@")[0]
    found = asyncio.run(_measure(book, code, quiet=as_json))
    if as_json:
        print_json({"procedures": [as_dict(each) for each in found]})
        return
    if not found:
        console().print(f"There is no case{f' of {code}' if code else ''} in this store.")
    for each in found:
        _show(each)


async def _measure(book: Casebook, code: str, *, quiet: bool) -> tuple[Stats, ...]:
    out = console(stderr=True)
    async with book.open() as database:
        if quiet or not out.is_terminal:
            return await stats.measure(database, book.rulebook, code)
        with out.status("counting") as status:
            return await stats.measure(database, book.rulebook, code, lambda n: status.update(f"{n} cases counted"))


def _show(found: Stats) -> None:
    out = console()
    out.print(Text(f"{found.procedure}  {found.title}", style="bold"))
    out.print(pairs(_head(found)))
    measured = any(times.worked for times in found.stages)
    out.print(_table("By stage", found.stages, measured, agency=True))
    out.print(_table("By agency", found.agencies, measured, agency=False))
    if (narrow := found.bottleneck) is not None:
        out.print(
            Text(
                f"Bottleneck: {narrow.code} {narrow.title}, most of it at {narrow.agency}: {narrow.share:.0%} of all "
                f"time in stages, median {span(narrow.took.median)}, P90 {span(narrow.took.p90)}"
            )
        )


def _head(found: Stats) -> list[tuple[str, str]]:
    late = found.deadlines
    rows = [("cases", f"{found.cases}, with {found.events} events"), ("ended", str(found.ended))]
    if found.without_end:
        rows.append(("without an end", str(found.without_end)))
    if found.throughput:
        rows.append(("application to end", _spread(found.throughput)))
    if found.rest:
        rows.append(("last event to end", _spread(found.rest)))
    if found.recognised:
        rows.append(("recognised", ", ".join(f"{stage} {count}" for stage, count in found.recognised.items())))
    if late.stated:
        rows.append(("ended after the deadline", str(late.ended_after_deadline)))
        rows.append(("ended after the planned end", str(late.ended_after_planned_end)))
        rows.append(("last event after the deadline", str(late.last_event_after_deadline)))
    return rows


def _spread(spread: Spread) -> str:
    return f"median {span(spread.median)}, P90 {span(spread.p90)}"


def _table(title: str, found: tuple[Times, ...], measured: bool, *, agency: bool) -> Any:
    columns = ["Stage" if agency else "Agency", "Title", "Cases", "Times", "Median", "P90", "Of all time"]
    columns += ["Waiting", "Still", "Working"] if measured else []
    columns += ["Most at"] if agency else []
    rows: list[list[str]] = []
    for times in found:
        row = [times.code, times.title, str(times.cases), str(times.took.count)]
        row += [span(times.took.median), span(times.took.p90), f"{times.share:.1%}"]
        if measured:
            row += [span(part.median) if part else "" for part in (times.waited, times.stood, times.worked)]
        row += [times.agency] if agency else []
        rows.append(row)
    return table(title, columns, rows)


def span(length: dt.timedelta) -> str:
    """Write a span in the unit that fits it: 18.6 d, 3.4 h, 12 min, 41 s."""
    seconds = length.total_seconds()
    if seconds >= _DAY:
        return f"{seconds / _DAY:.1f} d"
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def as_dict(found: Stats) -> dict[str, Any]:
    """Write the figures of a procedure for machines; spans in seconds."""
    late, narrow = found.deadlines, found.bottleneck
    return {
        "procedure": found.procedure,
        "cases": found.cases,
        "events": found.events,
        "ended": found.ended,
        "without_end": found.without_end,
        "throughput": _seconds(found.throughput),
        "rest": _seconds(found.rest),
        "with_deadline": late.stated,
        "ended_after_deadline": late.ended_after_deadline,
        "ended_after_planned_end": late.ended_after_planned_end,
        "last_event_after_deadline": late.last_event_after_deadline,
        "bottleneck": None if narrow is None else {"stage": narrow.code, "agency": narrow.agency},
        "stages": [_times(times) | {"agency": times.agency} for times in found.stages],
        "agencies": [_times(times) for times in found.agencies],
        "recognised": dict(found.recognised),
    }


def _times(times: Times) -> dict[str, Any]:
    return {
        "code": times.code,
        "title": times.title,
        "cases": times.cases,
        "share": round(times.share, 4),
        "took": _seconds(times.took),
        "waited": _seconds(times.waited),
        "stood": _seconds(times.stood),
        "worked": _seconds(times.worked),
    }


def _seconds(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {
        "count": spread.count,
        "median": round(spread.median.total_seconds(), 3),
        "p90": round(spread.p90.total_seconds(), 3),
        "total": round(spread.total.total_seconds(), 3),
    }
