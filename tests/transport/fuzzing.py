"""atheris, with the types of what is used of it: it has none, and is not there on every machine."""

import importlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

T = TypeVar("T")
_atheris: Any = importlib.import_module("atheris")


class Data(Protocol):
    """Makes values out of what the fuzzer has drawn."""

    def ConsumeBytes(self, count: int) -> bytes: ...  # noqa: N802

    def ConsumeUnicodeNoSurrogates(self, count: int) -> str: ...  # noqa: N802

    def ConsumeIntInRange(self, least: int, most: int) -> int: ...  # noqa: N802

    def ConsumeFloatInRange(self, least: float, most: float) -> float: ...  # noqa: N802

    def ConsumeBool(self) -> bool: ...  # noqa: N802

    def PickValueInList(self, values: list[T]) -> T: ...  # noqa: N802


def instrumented(*packages: str) -> AbstractContextManager[None]:
    """Have the coverage of these packages, imported meanwhile, lead the fuzzer."""
    return cast("AbstractContextManager[None]", _atheris.instrument_imports(include=list(packages)))


def fuzz(one: Callable[[int, Data], None]) -> None:
    """Run for as long as the command line says; `one` is given a first byte, and the rest."""

    def run(raw: bytes) -> None:
        if raw:
            one(raw[0], cast("Data", _atheris.FuzzedDataProvider(raw[1:])))

    _atheris.Setup(sys.argv, run)
    _atheris.Fuzz()
