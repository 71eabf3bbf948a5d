"""`hutong tasks`: what an agency has to look at and dispose of."""

import datetime as dt
from typing import Annotated

import typer
from rich.text import Text

from hutong.api.recognition.v1 import result_service_pb2, stage_result_pb2
from services.cli import approval, question
from services.cli.answer import as_dict
from services.cli.approval import TASKS, Address, As, Officer, Reason
from services.cli.output import AsJson, console, print_json, table
from services.cli.question import Bundle, Cert, Folder, Key
from services.cli.zone import DEFAULT_FOLDER

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Tasks: what an agency has to look at and dispose of.\n\n"
    "A revoked result undoes nothing by itself: whoever recognised it, or built on it, gets a task with a due time.\n\n"
    "\b\nExamples:\n"
    "  hutong tasks list --as customs/release\n"
    "  hutong tasks dispose TASK upheld --reason DECISION_STANDS --as customs/release\n",
)


@app.command("list")
def list_(
    caller: As = "",
    case_id: Annotated[str, typer.Option("--case", metavar="CASE", help="Only of this case.")] = "",
    disposed: Annotated[bool, typer.Option("--all", help="Those disposed of too.")] = False,
    page_size: question.PageSize = 0,
    page_token: Annotated[str, typer.Option(metavar="TOKEN", help="Go on where an earlier list ended.")] = "",
    folder: Folder = DEFAULT_FOLDER,
    address: Address = "",
    cert: Cert = None,
    key: Key = None,
    bundle: Bundle = None,
    as_json: AsJson = False,
) -> None:
    """List one's agency's tasks, the soonest due first."""
    way = approval.way(folder, caller, address, cert, key, bundle)
    request = result_service_pb2.ListTasksRequest(
        disposed=disposed, case_id=case_id, page_size=page_size, page_token=page_token
    )
    response = way.call(f"{TASKS}/ListTasks", request, result_service_pb2.ListTasksResponse)
    if as_json:
        print_json(as_dict(response))
        return
    out = console()
    now = response.as_of.ToDatetime(dt.UTC)
    columns = ("Task", "What for", "Case", "Stage", "Result", "Reason", "Due", "Done")
    out.print(table("", columns, (_row(task, now) for task in response.tasks)))
    if response.next_page_token:
        out.print(Text(f"more: --page-token {response.next_page_token}", style="dim"))


def _row(task: stage_result_pb2.Task, now: dt.datetime) -> list[str | Text]:
    due = task.due_at.ToDatetime(dt.UTC)
    late = due <= now and not task.disposed_at.ByteSize()
    return [
        task.task_id,
        stage_result_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_"),
        task.case_id,
        task.stage_code,
        task.result_ref,
        task.reason_code,
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
    """Say what was done about a task. It is disposed of once."""
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
    else:
        typer.echo(
            f"{task.task_id}: {stage_result_pb2.Disposition.Name(task.disposition).removeprefix('DISPOSITION_')}"
        )


def _word(disposition: "stage_result_pb2.Disposition.ValueType") -> str:
    return stage_result_pb2.Disposition.Name(disposition).removeprefix("DISPOSITION_")
