"""The mapping file as it is written: YAML, checked for form here and for sense in `adapters.mapping`.

YAML is read strictly: no key twice, and a plain word is what it looks like. `NO` is Norway, `NA` is Namibia, `0110`
is a trade mode with a leading zero and `2021-05-18` a text; only `true`, `false`, `null` and plain integers are more
than text.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from services.kit.errors import InvalidArgument, Reason

Name = Annotated[str, StringConstraints(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Unit(_Strict):
    """Where the unit of a quantity, or the currency of an amount, stands."""

    column: Name
    default: str = ""


class FieldSpec(_Strict):
    """Where one field's value comes from, and how it is read."""

    column: Name | None = None
    """Column, or path of an element or attribute."""
    columns: list[Name] = []
    """Several: the first that has a value, or all of them where `join` is given."""
    join: str | None = None
    constant: str | None = None
    """The same for every row."""
    each: Name | None = None
    """Path, or column of JSON, of a part that repeats; `fields` says what is in it."""
    part: Literal[True] | None = None
    """The field is a part that stands once, its columns beside the row's own; `fields` says what is in it."""
    fields: "dict[str, FieldSpec | str | list[FieldSpec]]" = {}
    nulls: list[str] = []
    """Words that mean "no value" in this column, beside those of the source."""
    when: dict[str, str] = {}
    """Only where these columns match these regular expressions."""
    split: str | None = None
    """Regular expression between the values of a repeated field."""
    parse: object = None
    """Parser, or parsers in order: a name, or a name with arguments."""
    words: dict[str, str] = {}
    """What words mean; applied after `parse`."""
    other: Literal["refuse", "keep", "drop"] = "refuse"
    """What becomes of a word that `words` does not know."""
    unit: str | Unit | None = None
    """Unit of a quantity, currency of money."""
    required: bool = False
    check: Literal["required", "off"] = "required"
    """`off` takes an identifier as it stands, unchecked."""

    @model_validator(mode="after")
    def _one_origin(self) -> "FieldSpec":
        origins = [o for o in (self.column, self.columns, self.constant, self.each, self.part) if o not in (None, [])]
        if len(origins) != 1:
            raise ValueError("needs exactly one of column, columns, constant, each, part")
        if bool(self.fields) != (self.each is not None or self.part is not None):
            raise ValueError("each and part go with fields, and nothing else does")
        if self.fields and (more := self.model_fields_set - {"each", "part", "fields"}):
            raise ValueError(f"{min(more)} goes with the fields of a part, not with the part")
        if self.join is not None and not self.columns:
            raise ValueError("join goes with columns")
        return self


Specs = dict[str, FieldSpec | str | list[FieldSpec]]
"""Fields by name. A bare text stands for `{column: …}`, a list for alternatives: the first that has a value counts."""


class DelimitedSpec(_Strict):
    """A delimited text file."""

    kind: Literal["delimited"]
    encoding: Annotated[list[Name], Field(min_length=1)] = ["utf-8-sig"]
    """Tried in order: the first in which the header is right and everything decodes."""
    delimiter: Name = ","
    quote: Annotated[str, StringConstraints(max_length=1)] = '"'
    """Empty where quotes mean nothing."""
    header: bool = True
    columns: list[Name] = []
    """Column names: those of a file without header; beside a header, what it is expected to be."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Title lines before the header."""
    null_words: list[str] = []

    @model_validator(mode="after")
    def _named(self) -> "DelimitedSpec":
        if not self.header and not self.columns:
            raise ValueError("a file without header needs columns")
        return self


class WcoSpec(_Strict):
    """WCO Data Model messages: an XML file, or a folder of them."""

    kind: Literal["wco"]
    files: Name = "*.xml"
    """Which files of a folder are read, whatever the case of their names."""
    max_bytes: Annotated[int, Field(gt=0)] = 8 << 20
    null_words: list[str] = []


class SqlSpec(_Strict):
    """A table or view of a database."""

    kind: Literal["sql"]
    table: Name
    db_schema: Annotated[str | None, Field(alias="schema")] = None
    key: Annotated[list[Name], Field(min_length=1)]
    """Columns that tell rows apart; the order of rows with equal watermarks."""
    watermark: Name | None = None
    """Column that only grows when a row changes; without one every load reads the whole table."""
    batch: Annotated[int, Field(gt=0, le=100_000)] = 1000
    null_words: list[str] = []


class Document(_Strict):
    """A mapping file."""

    mapping: Annotated[str, StringConstraints(pattern=r"^[a-z]+\.[a-z0-9_]+$")]
    """Its name: the agency, and the source."""
    version: Annotated[int, Field(ge=1)]
    record: Name
    """Record type it fills, `commerce.Enterprise`."""
    title: str = ""
    source_system: Name
    """Goes into the envelope of every record."""
    source: Annotated[DelimitedSpec | WcoSpec | SqlSpec, Field(discriminator="kind")]
    duplicates: Literal["quarantine", "keep_last_version"] = "quarantine"
    """A key that occurs again in one source: quarantine the later row, or keep it as the newer version."""
    suspect: Literal["quarantine", "accept"] = "quarantine"
    """Identifiers that fail only their check digit."""
    fields: Annotated[Specs, Field(min_length=1)]


class _Loader(yaml.SafeLoader):
    """YAML without surprises; see the module's text."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("int", r"-?(?:0|[1-9][0-9]*)", "-0123456789"),
    ("null", r"null|~|", ("n", "~", "")),
    # A merge key copies what it names: mappings repeat themselves enough.
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _unique_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [key.value for key, _ in node.value if key.value != "<<"]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{sorted(twice)[0]!r} stands twice", node.start_mark)
    loader.flatten_mapping(node)
    return {
        str(key.value): loader.construct_object(value, deep=True)  # pyright: ignore[reportUnknownMemberType]
        for key, value in node.value
    }


_Loader.add_constructor("tag:yaml.org,2002:map", _unique_mapping)


def invalid(name: str, message: str) -> InvalidArgument:
    """Word an error of a mapping file."""
    return InvalidArgument(Reason.MAPPING_INVALID, f"mapping {name}: {message}", mapping=name)


def parse(text: str, name: str) -> Document:
    """Read a mapping file's text; `name` says in errors which file it was.

    Raises `InvalidArgument` MAPPING_INVALID where it is not a mapping file.
    """
    try:
        content: object = yaml.load(text, _Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise invalid(name, " ".join(str(error).split())) from None
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        raise invalid(name, "; ".join(_told(e["loc"], e["msg"]) for e in error.errors()[:5])) from None


def _told(where: tuple[int | str, ...], what: str) -> str:
    # The names of union members in the path are ours, not the file's.
    ours = {"FieldSpec", "str", "delimited", "wco", "sql", "Unit"}
    path = ".".join(str(p) for p in where if p not in ours and not str(p).startswith("list["))
    return f"{path}: {what}" if path else what


def read(path: Path) -> Document:
    """Read a mapping file; raises `InvalidArgument` MAPPING_INVALID where it is not one, or not there."""
    try:
        return parse(path.read_text("utf-8"), path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(path.name, str(error)) from None
