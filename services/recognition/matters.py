"""What procedures are about, and what the law lets silence mean there. Data: `matters.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, RootModel

from services.kit.jurisdiction import pack
from services.recognition.procedure import DeemedRule

_SHIPPED: Final = Path(__file__).with_name("matters.yaml")


class Matter(BaseModel):
    """One matter."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1)
    local_title: str = Field(min_length=1)
    deemed: DeemedRule
    """The laxest rule that a procedure about it may have."""


class _File(RootModel[Mapping[str, Matter]]):
    pass


@cache
def load() -> Mapping[str, Matter]:
    """Load the matters that come with the product."""
    return _File.model_validate(pack.load_yaml(_SHIPPED.read_text(encoding="utf-8"))).root
