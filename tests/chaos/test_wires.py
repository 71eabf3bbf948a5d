"""A wire is taken away whatever happens, and where none can be laid that is said."""

import os
import subprocess

import pytest

from tests.chaos import wires
from tests.chaos.wires import NoWire, laid


def links() -> str:
    return subprocess.run(
        ["ip", "-oneline", "link"], capture_output=True, check=True, env=wires.ENVIRONMENT, text=True
    ).stdout


def test_nothing_is_left_of_a_wire_whatever_happens() -> None:
    devices: list[str] = []
    try:
        with pytest.raises(KeyError), laid() as wire:
            devices.append(wire.name)
            assert wire.name in links()
            raise KeyError
    except NoWire as why:
        pytest.skip(str(why))
    assert devices
    assert devices[0] not in links()


def test_where_a_program_is_missing_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wires.ENVIRONMENT, "PATH", os.devnull)
    with pytest.raises(NoWire, match=r"^unshare: "), laid():
        pass
