"""What the jurisdiction says of purposes that need an authorization, and until when reads for them are not told."""

import datetime as dt
from typing import Any

import pytest
from pydantic import ValidationError

from services.kit import jurisdiction
from services.kit.jurisdiction import Jurisdiction
from services.kit.jurisdiction.pack import Purpose
from tests.authorizations.bed import NOW

CN: Jurisdiction = jurisdiction.load("cn")
YEAR = dt.timedelta(days=365)


def test_which_purposes_need_one() -> None:
    assert CN.needing_authorization == {"P-AML", "P-CRIMINAL"}


def test_an_embargo_ends_by_itself() -> None:
    assert CN.told_from("P-AML", NOW) == CN.told_from("P-CRIMINAL", NOW) == NOW + YEAR
    assert CN.told_from("P-REBATE", NOW) == CN.told_from("P-NO-MORE", NOW) == NOW


@pytest.mark.parametrize("text", ["365", "365d", "P", "forever"])
def test_an_embargo_is_a_duration(text: str) -> None:
    given: dict[str, Any] = {"title": "t", "local_title": "t", "embargo": text}
    with pytest.raises(ValidationError):
        Purpose(**given)
