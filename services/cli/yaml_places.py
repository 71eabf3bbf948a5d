"""YAML files with the place of everything in them, so that what is wrong can be told by line and column."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import yaml

Keys = tuple[str | int, ...]
"""What leads to a value: names of keys, and positions in lists."""

_MOST: Final = 100_000
"""Values in a file, those counted again that stand in several places; nobody writes as many by hand."""
_DEEPEST: Final = 100
_STAMP: Final = "tag:yaml.org,2002:timestamp"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file, counted from 1 on."""

    file: Path
    line: int = 1
    column: int = 1

    @classmethod
    def of(cls, file: Path, mark: yaml.Mark) -> "Place":
        """Take a place from the reader, who counts from 0 on."""
        return cls(file, mark.line + 1, mark.column + 1)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Unreadable(Exception):
    """A file is no YAML, or says a key twice."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(slots=True)
class Placed:
    """What one or more files say, and where: as of values files, the later one counts."""

    value: Any = None
    places: dict[Keys, Place] = field(default_factory=dict[Keys, Place])
    """Where a value begins."""
    keys: dict[Keys, Place] = field(default_factory=dict[Keys, Place])
    """Where the key to it stands; of what is in no mapping, nothing."""
    blocks: dict[Keys, Place] = field(default_factory=dict[Keys, Place])
    """Where a text of several lines, written as it is (`|`), begins."""

    def key(self, keys: Keys) -> Place:
        """Say where something stands: its key, or what it would stand in."""
        return self.keys.get(keys) or self.place(keys)

    def place(self, keys: Keys) -> Place:
        """Say where a value stands, or what it would stand in."""
        while keys not in self.places:
            keys = keys[:-1]
        return self.places[keys]

    def laid_over(self, below: "Placed") -> "Placed":
        """Lay this over another one, as Helm does with values files: mappings are merged, anything else is replaced."""
        made = Placed(below.value, dict(below.places), dict(below.keys), dict(below.blocks))
        made.value = self._merge((), below.value, self.value, made)
        return made

    def _merge(self, at: Keys, old: Any, new: Any, made: "Placed") -> Any:
        if isinstance(old, dict) and isinstance(new, dict):
            made.places.setdefault(at, self.places[at])
            merged = dict(cast("dict[str, Any]", old))
            for key, value in cast("dict[str, Any]", new).items():
                below: Keys = (*at, key)
                if below in self.keys:
                    made.keys[below] = self.keys[below]
                merged[key] = self._merge(below, merged.get(key), value, made) if key in merged else value
                if key not in old:
                    self._take(below, made)
            return merged
        self._take(at, made)
        return new

    def _take(self, at: Keys, made: "Placed") -> None:
        for mine, theirs in ((self.places, made.places), (self.keys, made.keys), (self.blocks, made.blocks)):
            for keys in [keys for keys in theirs if keys[: len(at)] == at]:
                del theirs[keys]
            theirs.update({keys: place for keys, place in mine.items() if keys[: len(at)] == at})


def read(file: Path) -> Placed:
    """Read a file; raises `Unreadable`, and `OSError`."""
    try:
        text = file.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place.of(file, mark) if mark else Place(file)
        raise Unreadable(place, f"no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Unreadable(Place(file), f"no YAML: {error}") from None
    made = Placed({}, {(): Place(file)})
    if node is not None:
        made.value = _Reader(file, text.split("\n"), loader, made).value(node, ())
    return made


class _Reader:
    def __init__(self, file: Path, lines: list[str], loader: yaml.SafeLoader, made: Placed) -> None:
        self._file = file
        self._lines = lines
        self._loader = loader
        self._made = made
        self._count = 0

    def value(self, node: yaml.Node, at: Keys) -> Any:
        """Make the value of a node, and note where it and all below it stands."""
        place = Place.of(self._file, node.start_mark)
        self._count += 1
        if self._count > _MOST or len(at) > _DEEPEST:
            raise Unreadable(place, "too much of it, or too deep: does an alias hold itself?")
        self._made.places[at] = place
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*at, number)) for number, item in enumerate(node.value)]
        if node.tag == _STAMP:
            return str(node.value)  # what Helm takes it for
        if isinstance(node, yaml.ScalarNode) and node.style == "|":
            self._block(node, at)
        try:
            return self._loader.construct_object(node)  # pyright: ignore[reportUnknownMemberType]
        except yaml.MarkedYAMLError as error:
            raise Unreadable(place, f"no YAML: {error.problem}") from None

    def _mapping(self, node: yaml.MappingNode, at: Keys) -> dict[str, Any]:
        seen: dict[str, Place] = {}
        for key, _ in node.value:
            name, place = str(key.value), Place.of(self._file, key.start_mark)
            if name in seen:
                raise Unreadable(place, f"{name!r} stands twice here: on line {seen[name].line} as well")
            seen[name] = place
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        pairs: Mapping[str, tuple[yaml.Node, yaml.Node]] = {str(key.value): (key, item) for key, item in node.value}
        for name, (key, item) in pairs.items():
            self._made.keys[(*at, name)] = Place.of(self._file, key.start_mark)
            found[name] = self.value(item, (*at, name))
        return found

    def _block(self, node: yaml.ScalarNode, at: Keys) -> None:
        line = node.start_mark.line + 1
        first = next((text for text in self._lines[line : node.end_mark.line] if text.strip()), "")
        self._made.blocks[at] = Place(self._file, line + 1, len(first) - len(first.lstrip(" ")) + 1)
