"""A change of shape over the releases it takes, as docs/operations/upgrade.md has it, under two versions at once.

`reshaping/` has the revisions: a column is made into two. At each step the version that ran before it and the one that
came with it write in turn, and each reads all that either has written.
"""

from pathlib import Path
from typing import Final

import pytest
from sqlalchemy.exc import OperationalError

from services.kit.records import migrations
from tests.state.bed import execute, rows
from tests.state.test_revisions import heard, keeps_the_rule

FOLDER: Final = Path(__file__).parent / "reshaping"

WRITES: Final = {
    1: "INSERT INTO parcel (id, place) VALUES ({id}, 'XM/{id}')",
    2: "INSERT INTO parcel (id, place, port, berth) VALUES ({id}, 'XM/{id}', 'XM', '{id}')",
    3: "INSERT INTO parcel (id, place, port, berth) VALUES ({id}, 'XM/{id}', 'XM', '{id}')",
    4: "INSERT INTO parcel (id, port, berth) VALUES ({id}, 'XM', '{id}')",
    5: "INSERT INTO parcel (id, port, berth) VALUES ({id}, 'XM', '{id}')",
}
"""What each release of the program does: the second and the third write both shapes."""
_OLD, _NEW = "SELECT place FROM parcel ORDER BY id", "SELECT port || '/' || berth FROM parcel ORDER BY id"
READS: Final = {1: _OLD, 2: _OLD, 3: _NEW, 4: _NEW, 5: _NEW}

COMES_WITH: Final = {2: "0002", 3: "0003", 5: "0004"}
"""The revision that a release brings; the fourth brings none."""


class Parcels:
    """The table, as releases of the program use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.count = 0

    def write(self, release: int) -> None:
        """Write one more."""
        execute(self.url, WRITES[release].format(id=self.count + 1))
        self.count += 1

    def whole(self, release: int) -> bool:
        """Tell whether a release reads all that was written, by whomever."""
        return rows(self.url, READS[release]) == [(f"XM/{number}",) for number in range(1, self.count + 1)]

    def together(self, *releases: int) -> None:
        """Have them write in turn, and read what all have written."""
        for release in (*releases, *releases):
            self.write(release)
        assert all(self.whole(release) for release in releases), releases


@pytest.fixture
def parcels(sqlite_url: str) -> Parcels:
    migrations.upgrade(sqlite_url, FOLDER, "0001")
    made = Parcels(sqlite_url)
    made.together(1)
    return made


def test_two_versions_run_at_each_step(parcels: Parcels) -> None:
    for release in (2, 3, 4, 5):
        if release in COMES_WITH:
            assert migrations.upgrade(parcels.url, FOLDER, COMES_WITH[release])
            # The version before runs alone, for as long as its replicas are not replaced.
            parcels.together(release - 1)
        parcels.together(release - 1, release)
    assert parcels.count == 24


def test_a_fill_under_a_version_that_does_not_write_both_loses_rows(parcels: Parcels) -> None:
    """Which is why it comes a release later than the columns."""
    migrations.upgrade(parcels.url, FOLDER, "0003")
    parcels.write(1)
    assert not parcels.whole(3)


def test_dropping_what_the_version_before_still_uses_stops_it(parcels: Parcels) -> None:
    """Which is why there is a release between the last use and the end."""
    migrations.upgrade(parcels.url, FOLDER, "0004")
    with pytest.raises(OperationalError, match="place"):
        parcels.write(3)
    parcels.together(4, 5)


def test_they_keep_to_the_rule(postgres_url: str) -> None:
    """As the revisions of the product have to, on PostgreSQL."""
    migrations.upgrade(postgres_url, FOLDER, "0001")
    for said in migrations.look(postgres_url, FOLDER).steps:
        with heard() as statements:
            migrations.upgrade(postgres_url, FOLDER, said.revision)
        keeps_the_rule(said, statements)
