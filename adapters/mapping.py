"""A mapping: how rows of one source become records of one type; checked as a whole before any row is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from google.protobuf.message import Message

from adapters import document
from adapters.compiling import Options, Unfit, compile_fields, needs
from adapters.document import DelimitedSpec, Document, FieldSpec, Specs, WcoSpec
from adapters.elements import compiled
from adapters.fields import Choice, Part, Refused
from adapters.lines import Codec
from adapters.parsers import Secrets
from adapters.rows import Cause, Mapped, Row, Unmapped, Unreadable
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import catalogue
from services.kit.records.catalogue import Catalogue, RecordType
from services.kit.records.values import Kind


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping that makes sense: its record type exists, its fields and parsers fit."""

    document: Document
    record: RecordType
    needs: tuple[str, ...]
    """Columns a flat source must have; empty for sources whose rows need not be alike."""
    allows: frozenset[str] | None = None
    """Columns it may have; None for any."""

    @property
    def name(self) -> str:
        """Its name, `commerce.cn_registry`."""
        return self.document.mapping

    @property
    def version(self) -> int:
        """Its version."""
        return self.document.version

    @property
    def source_system(self) -> str:
        """What goes into every record's envelope."""
        return self.document.source_system

    @property
    def keeps_last_version(self) -> bool:
        """A key that occurs again in one source is a newer version, not a mistake."""
        return self.document.duplicates == "keep_last_version"


def load(path: Path, known: Catalogue | None = None) -> Mapping:
    """Load a mapping file.

    Raises `InvalidArgument`: RECORD_TYPE_UNKNOWN naming the nearest, MAPPING_INVALID for everything else that is wrong.
    """
    return make(document.read(path), known)


def loads(text: str, name: str = "mapping", known: Catalogue | None = None) -> Mapping:
    """Load a mapping from its text; raises like `load`."""
    return make(document.parse(text, name), known)


def make(written: Document, known: Catalogue | None = None) -> Mapping:
    """Check a mapping against the catalogue; raises like `load`."""
    record = (known if known is not None else catalogue.load()).get(written.record)
    wanted = tuple(needs(written.fields))
    if isinstance(written.source, DelimitedSpec):
        _check_delimited(written.mapping, written.source, wanted)
    made = Mapping(written, record, () if isinstance(written.source, WcoSpec) else wanted)
    _compile(made, None)
    unmapped = [f.name for f in record.key_fields if f.name not in written.fields]
    if unmapped:
        raise document.invalid(written.mapping, f"the key field {unmapped[0]!r} of {record.name} is not mapped")
    return made


def _check_delimited(name: str, source: DelimitedSpec, wanted: tuple[str, ...]) -> None:
    for encoding in source.encoding:
        try:
            Codec.of(encoding, b"")
        except LookupError as error:
            raise document.invalid(name, str(error)) from None
    for column in wanted if source.columns else ():
        if column not in source.columns:
            hint = catalogue.nearest(column, source.columns)
            raise document.invalid(name, f"its columns have no {column!r}{hint}")


def _compile(mapping: Mapping, secrets: Secrets | None) -> tuple[Choice | Part, ...]:
    written = mapping.document
    form: Callable[[str], object] = compiled if isinstance(written.source, WcoSpec) else str
    options = Options(secrets, written.suspect == "accept", form)
    try:
        return compile_fields(mapping.record, written.fields, options)
    except Unfit as error:
        raise document.invalid(written.mapping, str(error)) from None


class Mapper:
    """Turns rows into records."""

    def __init__(self, mapping: Mapping, secrets: Secrets | None = None) -> None:
        """Bind the mapping to its secrets; raises `FailedPrecondition` CONFIG_INVALID where one is not given."""
        self.mapping = mapping
        try:
            self._fields = _compile(mapping, secrets or {})
        except KeyError as error:
            message = f"mapping {mapping.name} needs the secret {error.args[0]!r}"
            raise FailedPrecondition(Reason.CONFIG_INVALID, message, secret=str(error.args[0])) from None

    def map(self, row: Row | Unreadable) -> Mapped | Unmapped:
        """Turn a row into a record, or say why not."""
        if isinstance(row, Unreadable):
            return Unmapped(row.position, row.original, row.reason, row.detail)
        message: Message = self.mapping.record.message()
        try:
            for field in self._fields:
                field.apply(row.values, message)
        except Refused as refused:
            return Unmapped(row.position, row.original, refused.cause, refused.detail)
        try:
            self.mapping.record.key_of(message)
        except ValueError as error:
            return Unmapped(row.position, row.original, Cause.KEY_MISSING, str(error))
        return Mapped(row.position, row.original, message)

    def lookup_column(self, path: str) -> str:
        """Get the column that holds a field just as it is: the one a live reading can search.

        Raises `InvalidArgument` MAPPING_INVALID where the field is computed, chosen or not mapped.
        """
        self.mapping.record.field(path)
        written = self.mapping.document.fields.get(path)
        spec = FieldSpec(column=written) if isinstance(written, str) else written
        plain = {"column", "required", "check", "nulls"}
        if not isinstance(spec, FieldSpec) or spec.column is None or spec.model_fields_set - plain:
            message = f"{path} is no plain column: it cannot be searched live"
            raise document.invalid(self.mapping.name, message)
        return spec.column


def auto(record: RecordType) -> Mapping:
    """Make the mapping of our own files: columns named like field paths, values in canonical text.

    Parts that repeat stand in one column as a JSON list of objects; fields that repeat as a JSON list, or joined by
    `|`; parts that stand once have columns `part.field`. Every column but the key's may be missing; a column that
    names no field is refused.
    """
    specs = _auto(record)
    written = Document(
        mapping=f"{record.owner}.auto",
        version=1,
        record=record.name,
        source_system="auto",
        source=DelimitedSpec(kind="delimited"),
        fields=specs,
    )
    made = make(written, Catalogue([record]))
    keys = tuple(f.name for f in record.key_fields)
    return replace(made, needs=keys, allows=frozenset(needs(specs)))


def with_source_system(mapping: Mapping, name: str) -> Mapping:
    """Name the system that the rows of an `auto` mapping come from."""
    return replace(mapping, document=mapping.document.model_copy(update={"source_system": name}))


def _auto(record: RecordType, prefix: str = "", column: str = "") -> Specs:
    specs: Specs = {}
    for field in record.fields.values():
        if field.path != f"{prefix}{field.name}":
            continue
        if field.kind is not Kind.PART:
            split = r"\|" if field.descriptor.is_repeated else None
            specs[field.name] = FieldSpec(column=f"{column}{field.name}", split=split, required=field.key)
        elif field.descriptor.is_repeated:
            inner = _auto(record, f"{field.path}.")
            specs[field.name] = FieldSpec(each=f"{column}{field.name}", fields=inner)
        else:
            inner = _auto(record, f"{field.path}.", f"{column}{field.name}.")
            specs[field.name] = FieldSpec(part=True, fields=inner)
    return specs
