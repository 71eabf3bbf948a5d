"""WCO Data Model messages as a source: one XML file is one row, a folder is read file by file in the order of names.

Every message is recognised first. A declaration becomes a row; everything else (amendments, cancellations,
notifications of the administration, messages of other models) comes out as `Unreadable` NOT_A_DECLARATION whose
detail begins with the message's name, because it must be counted and kept, but is no declaration: an amendment holds
only what changed. Entities, document types, the network and huge trees are off.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lxml import etree

from adapters.delimited import unreadable
from adapters.document import WcoSpec
from adapters.elements import Element, Elements, local_name
from adapters.rows import Cause, Row, Unreadable
from services.kit.errors import InvalidArgument, Reason

_KEPT = 1 << 20
"""Of a file over the limit, this much is kept with the refusal; the file itself stays where it is."""

_DOCTYPE = re.compile(b"|".join(re.escape("<!DOCTYPE".encode(e)) for e in ("ascii", "utf-16-le", "utf-16-be")))

_ORIGINAL = "9"
_AMENDING: Mapping[str, str] = {
    "COR": "amendment",
    "INV": "cancellation",
    "GPR": "goods presentation",
}
"""Type codes of messages with function 13, which change a declaration that exists."""

_NOTIFICATIONS: Mapping[str, str] = {
    "01": "DMSACC",
    "02": "DMSRCV",
    "03": "DMSREJ",
    "05": "DMSCTL",
    "06": "DMSDOC",
    "07": "DMSRES",
    "08": "DMSROG",
    "09": "DMSCLE",
    "10": "DMSINV",
    "11": "DMSREQ",
    "13": "DMSTAX",
    "14": "DMSCPI",
    "15": "DMSCPR",
    "16": "DMSEOG",
    "18": "DMSGER",
}
"""Function codes of the UK Customs Declaration Service's notifications, by the names it gives them."""


@dataclass(frozen=True, slots=True)
class Message:
    """A recognised message: its name, the declaration in it if it is one, and what else is worth saying."""

    kind: str
    declaration: Element | None = None
    detail: str = ""


def recognise(root: Element) -> Message:
    """Tell what a message is, whether its `MetaData` envelope is the root, is wrapped, has a namespace or none."""
    envelope = _envelope(root)
    if envelope is None:
        return Message(local_name(root), detail="not a message of the WCO Data Model")
    for body in envelope:
        values = Elements(body)
        if local_name(body) == "Response":
            name = _NOTIFICATIONS.get(function := values.get("FunctionCode") or "", f"function {function or 'missing'}")
            number = values.get("Declaration/ID") or values.get("Declaration/FunctionalReferenceID") or "no declaration"
            return Message(f"notification {name}", detail=f"of {number}")
        if local_name(body) == "Declaration":
            return _declaration(body, values)
    return Message("empty MetaData", detail="an envelope with nothing known in it")


def _declaration(body: Element, values: Elements) -> Message:
    function, kind = values.get("FunctionCode"), values.get("TypeCode") or ""
    # A message without function is taken for what its name says; what it lacks shows when it is mapped.
    if function in (None, _ORIGINAL):
        return Message("declaration", body)
    name = _AMENDING.get(kind, f"declaration of function {function}")
    return Message(name, detail=f"of {values.get('ID') or 'no declaration'} ({kind or 'no type'}, function {function})")


def _envelope(root: Element) -> Element | None:
    # A prefix that some exporter lost its colon of leaves "_2MetaData": the end of the name is what counts.
    if local_name(root).endswith("MetaData"):
        return root
    return next((found for inner in root if (found := _envelope(inner)) is not None), None)


class Wco:
    """A file or a folder of messages, opened."""

    layout: tuple[str, ...] = ()

    def __init__(self, path: Path, spec: WcoSpec) -> None:
        """List the files; raises `InvalidArgument` where there is nothing to read at `path`."""
        self._root = path
        self._spec = spec
        self._files = sorted(_files(path, spec.files), key=lambda p: p.as_posix())
        if not self._files:
            message = f"{path.name}: no file in it matches {spec.files!r}"
            raise InvalidArgument(Reason.MALFORMED_REQUEST, message, source=path.name)
        self._total = sum(p.stat().st_size for p in self._files)
        self._done = 0

    @property
    def done(self) -> int:
        """Bytes read."""
        return self._done

    @property
    def total(self) -> int | None:
        """Bytes there are."""
        return self._total

    def __iter__(self) -> Iterator[Row | Unreadable]:
        """Read on."""
        for path in self._files:
            position = path.relative_to(self._root).as_posix() if path != self._root else path.name
            yield self._file(path, position)

    def _file(self, path: Path, position: str) -> Row | Unreadable:
        try:
            with path.open("rb") as stream:
                data = stream.read(self._spec.max_bytes + 1)
                size = stream.seek(0, 2)
        except OSError as error:
            return Unreadable(position, b"", Cause.FILE_UNREADABLE, str(error.strerror))
        self._done += size
        if len(data) > self._spec.max_bytes:
            kept = data[:_KEPT]
            detail = f"{size} bytes where {self._spec.max_bytes} are allowed; the first {len(kept)} are kept here"
            return Unreadable(position, kept, Cause.FILE_TOO_LARGE, detail)
        return again(self._spec, position, data)


def _files(path: Path, pattern: str) -> Iterator[Path]:
    if not path.is_dir():
        try:
            path.stat()
        except OSError as error:
            raise unreadable(path, error) from None
        yield path
        return
    for found in path.rglob("*"):
        if found.is_file() and not found.is_symlink() and fnmatch.fnmatch(found.name.lower(), pattern.lower()):
            yield found


def again(spec: WcoSpec, position: str, original: bytes) -> Row | Unreadable:
    """Read one message's bytes, from its file or out of quarantine."""
    if _DOCTYPE.search(original):
        return Unreadable(position, original, Cause.FORBIDDEN_XML, "document types and entities are not read")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False, remove_comments=True, remove_pis=True
    )
    try:
        root: Any = etree.fromstring(original, parser)
    except etree.XMLSyntaxError as error:
        told = str(error.msg).partition(", line ")[0]
        return Unreadable(position, original, Cause.MALFORMED_XML, f"line {error.lineno}: {told}")
    if root.getroottree().docinfo.doctype:
        return Unreadable(position, original, Cause.FORBIDDEN_XML, "document types and entities are not read")
    message = recognise(cast("Element", root))
    if message.declaration is None:
        return Unreadable(position, original, Cause.NOT_A_DECLARATION, f"{message.kind}: {message.detail}")
    return Row(position, original, Elements(message.declaration, frozenset(spec.null_words)))
