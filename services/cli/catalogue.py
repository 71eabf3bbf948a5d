"""`hutong catalogue`: which records there are, whose they are, and what their fields say. Needs no network."""

from typing import Annotated

import typer
from google.protobuf import json_format
from rich.text import Text

from hutong.api.schema.v1 import options_pb2
from services.cli.output import AsJson, console, print_json, table
from services.kit.records import catalogue
from services.kit.records.catalogue import Field, RecordType

app = typer.Typer(rich_markup_mode="rich")

_SHARES: dict[int, Text] = {
    options_pb2.SHARE_CLASS_OPEN: Text("open", style="green"),
    options_pb2.SHARE_CLASS_CONDITIONAL: Text("conditional", style="yellow"),
    options_pb2.SHARE_CLASS_WITHHELD: Text("withheld", style="red"),
}
_GRADES: dict[int, str] = {number: name.removeprefix("GRADE_").lower() for name, number in options_pb2.Grade.items()}


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="[TYPE]", help="A record type, `customs.Declaration`, or an agency, `customs`.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """List the record types by agency, or the fields of one.

    The catalogue is read from the contracts installed here: share class and grade, key, subjects, which fields
    filters may use, and the element names of standards.

    \b
    Examples:
      hutong catalogue
      hutong catalogue customs
      hutong catalogue customs.Declaration --json
    """
    known = catalogue.load()
    if not name or name in known.owners():
        _list(list(known.owned_by(name) if name else known), as_json)
    else:
        _describe(known.get(name), as_json)


def _list(kinds: list[RecordType], as_json: bool) -> None:
    if as_json:
        print_json({"record_types": [_as_json(kind) for kind in kinds]})
        return
    rows = [
        (
            kind.owner,
            kind.name,
            kind.title,
            kind.local_title,
            str(len(kind.leaves)),
            ", ".join(kind.subjects),
        )
        for kind in kinds
    ]
    console().print(table("Record types", ("Agency", "Type", "Title", "名称", "Fields", "Asked for by"), rows))


def _describe(kind: RecordType, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(kind))
        return
    rows = [
        (field.path, field.type_text, _SHARES[field.share], _GRADES[field.grade], _marks(field), _elements(field))
        for field in kind.leaves
    ]
    out = console()
    out.print(Text.assemble((kind.name, "bold"), f"  {kind.title}  {kind.local_title}"))
    out.print(Text(f"owner {kind.owner}, name {kind.pattern}, message {kind.full_name}", style="dim"))
    out.print(table("", ("Field", "Type", "Share", "Grade", "Use", "Standards"), rows))
    out.print(Text("key: part of the record's name · subject: questions may be about it · filter: filters may use it"))


def _marks(field: Field) -> str:
    marks = ["key"] if field.key else []
    if field.subject:
        marks.append(f"subject {field.subject}")
    if field.indexed:
        marks.append("filter")
    return ", ".join(marks)


def _elements(field: Field) -> str:
    return ", ".join(f"{standard} {element}" for standard, element in field.elements)


def _as_json(kind: RecordType) -> object:
    return json_format.MessageToDict(kind.info(), preserving_proto_field_name=True)
