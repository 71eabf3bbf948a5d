"""An answer on the screen: one section after another, each with its records, and what was refused and why."""

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import json_format, wrappers_pb2
from google.protobuf.message import Message
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hutong.api.exchange.v1 import exchange_pb2
from services.cli.hints import HINTS
from services.cli.output import table
from services.kit.errors import InvalidArgument
from services.kit.records import catalogue, values
from services.kit.records.catalogue import RecordType

_STYLES = {
    exchange_pb2.SECTION_STATUS_OK: "green",
    exchange_pb2.SECTION_STATUS_PARTIAL: "yellow",
    exchange_pb2.SECTION_STATUS_NO_RECORD: "cyan",
}
_VERDICTS = {
    exchange_pb2.VERDICT_CLEAR: Text("clear", style="green"),
    exchange_pb2.VERDICT_TRANSFORMED: Text("transformed", style="yellow"),
    exchange_pb2.VERDICT_REFUSED: Text("refused", style="red"),
}
_COLUMNS = 8
"""More fields than this are easier to read one below the other."""


def given(section: exchange_pb2.Section) -> bool:
    """Whether a section answers at all: with records, or that there are none."""
    return section.status in _STYLES


def status_name(section: exchange_pb2.Section) -> str:
    """Write a section's status without its prefix."""
    return exchange_pb2.SectionStatus.Name(section.status).removeprefix("SECTION_STATUS_")


def as_dict(message: Message) -> object:
    """Write an answer as canonical protobuf JSON, with the names of the contract.

    A record of a type that the contracts installed here do not know stands as its bytes.
    """
    catalogue.load()  # for the descriptors of all record types
    try:
        return json_format.MessageToDict(message, preserving_proto_field_name=True)
    except TypeError:
        return json_format.MessageToDict(_opaque(message), preserving_proto_field_name=True)


def _opaque(message: Any) -> Any:
    """Copy an answer with the records of unknown types put into a wrapper that any reader knows."""
    copy = type(message)()
    copy.CopyFrom(message)
    sections = [copy.section] if "section" in copy.DESCRIPTOR.fields_by_name else copy.sections
    for section in sections:
        if _kind(section.record_type) is None:
            for record in section.records:
                record.Pack(wrappers_pb2.BytesValue(value=record.value))
    return copy


def show_section(out: Console, section: exchange_pb2.Section) -> None:
    """Print a section of an answer."""
    out.print(_header(section))
    parts: list[RenderableType] = []
    kind = _kind(section.record_type)
    if section.records and kind is not None:
        parts.append(_records(section, kind))
    if section.next_page_token:
        which = f"{section.zone}/{section.record_type}" if section.zone else section.record_type
        parts.append(Text(f"more: --page-token {which}:{section.next_page_token}", style="dim"))
    parts.extend(_refused(section))
    if parts:
        out.print(Padding(Group(*parts), (0, 0, 1, 2), expand=False))


def show_decisions(out: Console, section: exchange_pb2.Section) -> None:
    """Print the decisions of a section, without data."""
    out.print(_header(section))
    rows = [
        (
            decision.field,
            _VERDICTS.get(decision.verdict, Text("?")),
            decision.transform,
            decision.reason,
            " AND ".join(decision.conditions),
            decision.legal_basis,
            decision.retention,
            decision.until.ToDatetime().date().isoformat() if decision.HasField("until") else "",
            ", ".join(decision.policy_ids),
        )
        for decision in section.decisions
    ]
    columns = ("Field", "Verdict", "Transform", "Reason", "Where", "Basis", "Keep", "Until", "Policies")
    out.print(Padding(table("", columns, rows), (0, 0, 1, 2), expand=False))


def _header(section: exchange_pb2.Section) -> Text:
    name = status_name(section)
    line = Text.assemble(
        (section.record_type, "bold"), f"  {_whose(section)}  ", (name, _STYLES.get(section.status, "red"))
    )
    if section.reason:
        line.append(f"  {section.reason}", "red")
    if section.HasField("as_of"):
        line.append(f"  as of {section.as_of.ToDatetime():%Y-%m-%d %H:%M:%S}Z", "dim")
    if not given(section) and section.reason in HINTS:
        line.append(f"\n  {HINTS[section.reason]}", "dim")
    return line


def _whose(section: exchange_pb2.Section) -> str:
    return f"{section.agency} of {section.zone}" if section.zone else section.agency


def _kind(name: str) -> RecordType | None:
    try:
        return catalogue.load().get(name)
    except InvalidArgument:
        return None  # The mesh knows a type that the contracts installed here do not.


def _records(section: exchange_pb2.Section, kind: RecordType) -> Table:
    decided = [d for d in section.decisions if d.verdict != exchange_pb2.VERDICT_REFUSED]
    titles = [f"{d.field} ~{d.transform}" if d.transform else d.field for d in decided]
    rows: list[list[str]] = []
    for record in section.records:
        message = kind.message()
        record.Unpack(message)
        rows.append(["\n".join(values_at(message, d.field)) for d in decided])
    if len(titles) <= _COLUMNS:
        return table("", titles, rows)
    flat = [
        (title if value else Text(title, style="dim"), value)
        for row in rows
        for title, value in (*zip(titles, row, strict=True), ("", ""))
        if value or not title
    ]
    return table("", ("Field", "Value"), flat[:-1])


def values_at(message: Message, path: str) -> list[str]:
    """Write the values a path leads to in a record, one text each; empty where nothing is set."""
    return list(_walk(message, path.split(".")))


def _walk(message: Any, names: Sequence[str]) -> Iterator[str]:
    descriptor = message.DESCRIPTOR.fields_by_name[names[0]]
    if not descriptor.is_repeated and not values.is_set(descriptor, message):
        return
    value = getattr(message, names[0])
    for each in value if descriptor.is_repeated else (value,):
        if len(names) > 1:
            # One line per part at least, so that the columns of a part's fields stay level.
            yield from list(_walk(each, names[1:])) or [""]
        else:
            yield values.text_of(descriptor, each)


def _refused(section: exchange_pb2.Section) -> Iterator[Text]:
    by_reason: dict[str, list[str]] = {}
    for decision in section.decisions:
        if decision.verdict == exchange_pb2.VERDICT_REFUSED:
            by_reason.setdefault(decision.reason, []).append(decision.field)
    for reason, fields in by_reason.items():
        yield Text.assemble(("refused ", "red"), f"{reason}: ", (", ".join(fields), "dim"))
        if reason in HINTS and given(section):
            yield Text(f"  {HINTS[reason]}", style="dim")
