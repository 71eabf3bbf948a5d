"""How much is measured, and where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from bench import corpus
from services.kit.config import Transport

PACE: Final = 200.0
"""Queries a second of what is asked at a steady pace."""


@dataclass(frozen=True)
class Setup:
    """What all parts need to know."""

    folder: Path
    """An empty folder for whatever is made."""
    data: Path
    """Folder of real data, for loads and replays."""
    quick: bool = False
    """Just enough to see that it runs; figures are worth little."""
    big: bool = False
    """Also what takes many minutes."""
    transport: Transport | Literal[""] = ""
    """What the nodes' configs say; what nodes do by themselves where it is empty."""

    @property
    def subjects(self) -> int:
        """How many enterprises there are."""
        return 200 if self.quick else corpus.SUBJECTS

    @property
    def rounds(self) -> int:
        """How many rounds a figure is the median of."""
        return 1 if self.quick else 3

    @property
    def seconds(self) -> float:
        """How long one is."""
        return 0.5 if self.quick else 3.0

    @property
    def brief(self) -> float:
        """How long one of a sweep is, each point of which is one of many."""
        return 0.5 if self.quick else 1.5

    @property
    def paced(self) -> int:
        """Questions of each side that are asked at a steady pace."""
        return 100 if self.quick else 5_000
