"""Rooms are found because they are there."""

import pytest

from services.cli import rooms
from services.kit.errors import InvalidArgument, Reason
from services.kit.records import catalogue


def test_every_owner_of_records_has_a_room_but_recognition_which_has_a_node_of_its_own() -> None:
    assert {*rooms.rooms(), rooms.RECOGNITION} == set(catalogue.load().owners())


@pytest.mark.parametrize("agency", rooms.packages())
def test_a_room_brings_its_files(agency: str) -> None:
    room = rooms.room(agency)
    assert room.access.is_file()
    assert room.policy.is_file()
    assert room.mappings.is_dir()
    assert room.migrations.is_dir()


def test_every_owner_of_records_brings_a_policy() -> None:
    assert set(rooms.policies()) == set(catalogue.load().owners())
    assert all(path.is_file() for path in rooms.policies().values())


@pytest.mark.parametrize("name", [rooms.RECOGNITION, rooms.GATEWAY])
def test_what_belongs_to_no_agency_is_no_room(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        rooms.room(name)
    assert caught.value.reason is Reason.ROOM_UNKNOWN


def test_an_unknown_room_names_the_nearest() -> None:
    with pytest.raises(InvalidArgument, match="'customs'") as caught:
        rooms.room("custums")
    assert caught.value.reason is Reason.ROOM_UNKNOWN
