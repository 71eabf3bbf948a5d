"""`hutong tasks`: what an agency has to look at and dispose of."""

import datetime as dt
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from hutong.api.recognition.v1 import case_service_pb2, result_service_pb2, stage_result_pb2
from services.cli import approval
from services.cli.answer import as_dict
from services.cli.approval import CASES, TASKS, Address, As, Officer, PageSize, PageToken, Reason, Way
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(
    rich_markup_mode="rich",
    help="Tasks: what an agency has to look at and dispose of, the soonest due first.\n\n"
    "A revoked result undoes nothing by itself: whoever recognised it, or built on it, gets a task with a due time.\n\n"
    "\b\nExamples:\n"
    "  hutong tasks --as customs/release\n"
    "  hutong tasks --as customs/release --all --case CASE\n"
    "  hutong tasks dispose TASK upheld --reason DECISION_STANDS --as customs/release\n",
)

CaseOption = Annotated[str, typer.Option("--case", metavar="CASE", help="Only of this case.")]
Disposed = Annotated[bool, typer.Option("--all", help="Those disposed of too.")]


@app.callback(invoke_without_command=True)
def tasks(
    context: typer.Context,
    caller: As = "",
    case_id: CaseOption = "",
    disposed: Disposed = False,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List tasks, unless something is to be done about one."""
    if context.invoked_subcommand is None:
        list_(caller, case_id, disposed, page_size, page_token, folder, address, cert, key, bundle, as_json)


@app.command("list")
def list_(
    caller: As = "",
    case_id: CaseOption = "",
    disposed: Disposed = False,
    page_size: PageSize = 0,
    page_token: PageToken = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List one's agency's tasks, the soonest due first: what `hutong tasks` does by itself."""
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.ListTasksRequest(
        disposed=disposed, case_id=case_id, page_size=page_size, page_token=page_token
    )
    response = way.call(f"{TASKS}/ListTasks", request, result_service_pb2.ListTasksResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    if response.tasks:
        out.print(_table(response.tasks, response.as_of.ToDatetime(dt.UTC)))
    else:
        out.print(Text(f"{way.caller.partition('/')[0]} has no {'' if disposed else 'open '}tasks."))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def _table(tasks: Iterable[stage_result_pb2.Task], now: dt.datetime) -> Table:
    columns = ("Task", "What for", "Stage", "Case", "Due", "Done")
    made = table("", columns, (_row(task, now) for task in tasks))
    made.columns[0].no_wrap = True  # to be copied
    return made


def _row(task: stage_result_pb2.Task, now: dt.datetime) -> list[str | Text]:
    due = task.due_at.ToDatetime(dt.UTC)
    late = due <= now and not task.disposed_at.ByteSize()
    kind = stage_result_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_")
    return [
        task.task_id,
        ": ".join(word for word in (kind, task.reason_code) if word),
        task.stage_code,
        task.case_id,
        Text(f"{due:%Y-%m-%d %H:%M}Z", style="red" if late else ""),
        _word(task.disposition) if task.disposition else "",
    ]


@app.command()
def dispose(
    task_id: Annotated[str, typer.Argument(metavar="TASK", help="Id of the task.")],
    disposition: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="upheld, reexamined, taken-back, not-affected or done."),
    ],
    caller: As = "",
    reason: Reason = "",
    officer: Officer = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """Say what was done about a task. It is disposed of once.

    After `reexamined` a stage that stands recognised is its agency's to examine again, unless its case is closed.

    \b
    Example:
      hutong tasks dispose TASK upheld --reason DECISION_STANDS --officer 7731 --as customs/release
    """
    way = approval.way(folder, caller, address, cert, key, bundle)
    number = approval.named(stage_result_pb2.Disposition, "DISPOSITION_", disposition, "disposition")
    request = result_service_pb2.DisposeTaskRequest(
        task_id=task_id,
        disposition=number,
        reason_code=reason,
        officer=officer,
    )
    task = way.call(f"{TASKS}/DisposeTask", request, result_service_pb2.DisposeTaskResponse).task
    if as_json:
        print_json(as_dict(task))
        return
    typer.echo(f"{task.task_id}: {_word(task.disposition)}")
    if task.disposition == stage_result_pb2.DISPOSITION_REEXAMINED and task.case_id and _is_closed(way, task.case_id):
        typer.echo(
            "its case is closed, and stays as it is: what you find is for a new case, or for `hutong result issue`"
        )


def _is_closed(way: Way, case_id: str) -> bool:
    asked = case_service_pb2.GetCaseRequest(case_id=case_id, context=way.context())
    view = way.call(f"{CASES}/GetCase", asked, case_service_pb2.GetCaseResponse).view
    return view.case.HasField("closed_at")


def _word(disposition: "stage_result_pb2.Disposition.ValueType") -> str:
    return stage_result_pb2.Disposition.Name(disposition).removeprefix("DISPOSITION_")
