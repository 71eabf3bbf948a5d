"""Values of an XML element by path, whatever namespaces and prefixes the sender chose.

A path is element names from the row's element down, each with a condition if need be, and an attribute at the end:

    GoodsShipment/Importer/ID
    Commodity/Classification[IdentificationTypeCode='TSP']/ID
    InvoiceAmount/@currencyID
    GovernmentProcedure[1]/CurrentCode
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

_STEP = re.compile(
    r"(?P<name>[A-Za-z_][\w.-]*)(?:\[(?:(?P<nth>[1-9]\d*)|(?P<child>[A-Za-z_][\w.-]*)='(?P<is>[^']*)')\])?"
)
_ATTRIBUTE = re.compile(r"@([A-Za-z_][\w.-]*)")


class Element(Protocol):
    """What is used of an `lxml` element (its stubs know less than it does)."""

    tag: Any
    text: str | None

    def __iter__(self) -> Iterator["Element"]: ...
    def itertext(self) -> Iterator[str]:
        """Give every piece of text inside."""
        ...

    @property
    def attrib(self) -> Mapping[str, str]:
        """The attributes."""
        ...


def local_name(element: Element) -> str:
    """Get an element's name without namespace; comments and the like have none."""
    tag: object = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    nth: int = 0
    child: str = ""
    value: str = ""

    def select(self, element: Element) -> Iterator[Element]:
        seen = 0
        for inner in element:
            if local_name(inner) != self.name:
                continue
            seen += 1
            if self.nth and seen != self.nth:
                continue
            if self.child and not any(local_name(c) == self.child and text_of(c) == self.value for c in inner):
                continue
            yield inner


@dataclass(frozen=True, slots=True)
class _Path:
    steps: tuple[_Step, ...]
    attribute: str = ""


@lru_cache(maxsize=4096)
def compiled(path: str) -> _Path:
    """Compile a path; raises `ValueError` where it is none."""
    parts = path.split("/")
    attribute = ""
    if found := _ATTRIBUTE.fullmatch(parts[-1]):
        attribute = found[1]
        parts.pop()
    steps: list[_Step] = []
    for part in parts:
        step = _STEP.fullmatch(part)
        if not step:
            raise ValueError("is no path of elements")
        steps.append(_Step(step["name"], int(step["nth"] or 0), step["child"] or "", step["is"] or ""))
    return _Path(tuple(steps), attribute)


def text_of(element: Element) -> str:
    """Get an element's text, comments inside it left out."""
    return "".join(element.itertext()).strip()


@dataclass(frozen=True, slots=True)
class Elements:
    """Values of one element."""

    element: Element
    nulls: frozenset[str] = frozenset()

    def get(self, name: str, /) -> str | None:
        """Get the first value at a path."""
        return next(iter(self.texts(name)), None)

    def each(self, name: str, /) -> Iterator["Elements"]:
        """Get every element at a path."""
        for found in _select(self.element, compiled(name).steps):
            yield Elements(found, self.nulls)

    def texts(self, name: str, split: re.Pattern[str] | None = None, /) -> Iterator[str]:
        """Get every value at a path."""
        path = compiled(name)
        for found in _select(self.element, path.steps):
            text = found.attrib.get(path.attribute, "").strip() if path.attribute else text_of(found)
            if text and text not in self.nulls:
                yield from split.split(text) if split else (text,)


def _select(element: Element, steps: tuple[_Step, ...]) -> Iterator[Element]:
    if not steps:
        yield element
        return
    for inner in steps[0].select(element):
        yield from _select(inner, steps[1:])
