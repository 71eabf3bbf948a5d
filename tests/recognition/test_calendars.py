"""Calendars: what is official, what is provisional, and what publishing a year changes."""

import datetime as dt
from pathlib import Path

import chinese_calendar  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import holidays
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import FailedPrecondition, Reason
from services.recognition.calendars import SHIPPED, Calendar, Calendars, Day

NOTICE_OFF: dict[dt.date, str] = chinese_calendar.holidays
NOTICE_WORKED: dict[dt.date, str] = chinese_calendar.workdays
LAST = max(NOTICE_OFF).year
"""The library's last year, by the library's word: these tests stand when it learns another."""
CALENDARS = Calendars.load()
CN = CALENDARS.get("CN")

# No notice: invented for these tests, for a year that the library does not know.
RANGES = [
    f"{LAST + 1}-{first}/{LAST + 1}-{last}"
    for first, last in [
        ("01-01", "01-03"),
        ("01-20", "02-19"),
        ("02-20", "02-24"),
        ("04-03", "04-06"),
        ("05-01", "05-05"),
        ("05-25", "06-24"),
        ("09-07", "10-07"),
    ]
]
SATURDAY = next(day for n in range(1, 8) if (day := dt.date(LAST + 1, 8, n)).weekday() == 5)
INVENTED: dict[str, object] = {
    "id": "CN",
    "year": LAST + 1,
    "source": "invented",
    "published": f"{LAST}-11-12",
    "holidays": RANGES,
    "workdays": [SATURDAY],
}


def days(year: int) -> list[dt.date]:
    return [dt.date.fromordinal(n) for n in range(dt.date(year, 1, 1).toordinal(), dt.date(year + 1, 1, 1).toordinal())]


def write(folder: Path, content: object, name: str = "") -> Path:
    """Write a file under the name that fits its content."""
    if not name:
        assert isinstance(content, dict)
        name = f"{content['id']}-{content['year']}.yaml" if "year" in content else f"{content['id']}.yaml"
    (folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(FailedPrecondition) as refused:
        Calendars.load(folder)
    assert refused.value.reason is Reason.CALENDAR_INVALID
    return refused.value.message


# What is known.


@pytest.mark.parametrize("year", range(min(NOTICE_OFF).year, LAST + 1))
def test_published_years_of_china_are_official_and_as_the_library_says(year: int) -> None:
    for day in days(year):
        assert CN.kind(day) == Day(chinese_calendar.is_workday(day), official=True)  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("year", [2025, 2026])
def test_both_libraries_agree_on_every_day(year: int) -> None:
    other = holidays.country_holidays("CN", years=year)
    assert [day for day in days(year) if CN.working(day)] == [day for day in days(year) if other.is_working_day(day)]


def test_a_year_that_the_library_refuses_is_provisional() -> None:
    with pytest.raises(NotImplementedError):
        chinese_calendar.is_workday(dt.date(LAST + 1, 1, 4))  # pyright: ignore[reportUnknownMemberType]
    assert CN.official(dt.date(LAST, 12, 31))
    for year in (LAST + 1, LAST + 2, min(NOTICE_OFF).year - 1):
        assert not any(CN.official(day) for day in days(year))
    for year in (LAST + 1, LAST + 2):
        assert not CN.working(dt.date(year, 1, 1))
        assert not CN.working(dt.date(year, 10, 1))
        weekend = [day for day in days(year) if day.weekday() >= 5]
        assert not any(CN.working(day) for day in weekend)
        assert 240 < sum(CN.working(day) for day in days(year)) < 256


def test_made_up_days_are_worked_and_bridges_are_not() -> None:
    assert CN.working(dt.date(2026, 10, 10))  # a Saturday
    assert CN.working(dt.date(2026, 2, 14))  # a Saturday
    assert not CN.working(dt.date(2026, 10, 7))  # a Wednesday
    assert not CN.working(dt.date(2026, 2, 23))  # a Monday


@pytest.mark.parametrize(
    ("name", "worked", "off"),
    [
        ("SA", ["2026-05-03", "2026-05-07"], ["2026-05-01", "2026-05-02"]),  # Friday and Saturday
        ("SA", ["2013-06-22", "2013-06-26"], ["2013-06-20", "2013-06-21"]),  # Thursday and Friday, then
        ("AE", ["2026-05-01"], ["2026-05-02", "2026-05-03"]),
        ("EG", ["2026-05-03"], ["2026-05-08", "2026-05-09"]),
        ("US", ["2026-07-06"], ["2026-07-03", "2026-11-26"]),  # the Fourth is a Saturday
        ("GB", ["2026-12-29"], ["2026-08-31", "2026-12-28"]),
        ("DE", ["2026-01-06"], ["2026-05-14", "2026-05-25"]),
        ("NL", ["2026-06-02"], ["2026-04-27", "2026-05-05"]),  # 5 May in every year, not in every fifth only
        ("JP", ["2026-05-07"], ["2026-05-06", "2026-09-22"]),
        ("SG", ["2026-02-19"], ["2026-02-17", "2026-06-01"]),
    ],
)
def test_other_countries_have_their_own_weekends_and_days(name: str, worked: list[str], off: list[str]) -> None:
    calendar = CALENDARS.get(name)
    assert all(calendar.working(dt.date.fromisoformat(day)) for day in worked)
    assert not any(calendar.working(dt.date.fromisoformat(day)) for day in off)


def test_a_country_is_official_as_far_as_its_data_says() -> None:
    japan = CALENDARS.get("JP")
    through = int(japan.version.split("-")[0])
    assert (japan.official(dt.date(through, 12, 31)), japan.official(dt.date(through + 1, 1, 1))) == (True, False)
    assert not CALENDARS.get("EG").official(dt.date(2025, 1, 2))
    assert CALENDARS.get("EG").label.startswith("EG@provisional-")


def test_every_shipped_calendar_can_be_used() -> None:
    assert list(CALENDARS) == sorted(path.stem for path in SHIPPED.glob("*.yaml"))
    assert len(CALENDARS) == 10
    for name in CALENDARS:
        calendar = CALENDARS.get(name)
        assert calendar is CALENDARS.get(name)
        assert calendar.label.startswith(f"{name}@")
        assert calendar.title
        assert calendar.sources
        assert 230 < len(calendar.year(2026).working) < 262


def test_an_unknown_calendar_is_told_with_the_nearest() -> None:
    with pytest.raises(FailedPrecondition, match="'CHN'; did you mean") as refused:
        CALENDARS.get("CHN")
    assert refused.value.reason is Reason.CALENDAR_UNKNOWN
    assert "CHN" not in CALENDARS
    assert "CN" in CALENDARS
    with pytest.raises(FailedPrecondition, match="there are AE, CN"):
        CALENDARS.get("moon-base")


# Counting.


@given(
    name=st.sampled_from(["CN", "SA", "US"]),
    after=st.dates(dt.date(2012, 1, 1), dt.date(LAST + 2, 1, 1)),
    length=st.integers(0, 900),
    number=st.integers(1, 400),
)
def test_counting_is_looking_at_every_day(name: str, after: dt.date, length: int, number: int) -> None:
    calendar, start = CALENDARS.get(name), after.toordinal()
    one_by_one = [calendar.working(dt.date.fromordinal(start + n)) for n in range(1, length + 1)]
    assert calendar.count(start, start + length) == sum(one_by_one)
    assert calendar.count(start, start - length) == 0
    found = calendar.nth(start, number)
    assert calendar.working(dt.date.fromordinal(found))
    assert calendar.count(start, found) == number
    official = [calendar.official(dt.date.fromordinal(start + n)) for n in range(1, length + 1)]
    assert calendar.official_between(start, start + length) == all(official)


# Publishing a year.


@pytest.fixture
def published(tmp_path: Path) -> Calendar:
    return Calendars.load(write(tmp_path, INVENTED)).get("CN")


def test_publishing_a_year_makes_it_official_and_the_calendar_another_one(published: Calendar) -> None:
    assert published.label != CN.label
    assert published != CN
    assert published.version.startswith(f"{LAST + 1}-")
    assert f"{LAST + 1}: invented" in published.sources
    for day in days(LAST + 1):
        assert published.official(day)
    assert not published.official(dt.date(LAST + 2, 1, 1))
    assert (CN.working(SATURDAY), published.working(SATURDAY)) == (False, True)
    bridge = next(day for day in days(LAST + 1) if day.month == 6 and CN.working(day))
    assert not published.working(bridge)


def test_publishing_a_year_changes_no_official_day(published: Calendar) -> None:
    for year in range(min(NOTICE_OFF).year, LAST + 1):
        assert published.year(year) == CN.year(year)


def test_the_same_files_make_the_same_calendar(tmp_path: Path) -> None:
    assert Calendars.load().get("CN") == CN
    first = Calendars.load(write(tmp_path, INVENTED)).get("CN")
    assert Calendars.load(tmp_path).get("CN") == first
    corrected = Calendars.load(write(tmp_path, INVENTED | {"source": "corrected"})).get("CN")
    assert corrected.label not in {first.label, CN.label}


@pytest.mark.parametrize("year", range(min(NOTICE_OFF).year + 1, LAST + 1))
def test_a_published_file_says_the_same_as_the_notice_it_was_written_from(year: int, tmp_path: Path) -> None:
    """What the library took out of every notice there was, given as a file over a calendar that knows no notice."""
    bare = {
        "id": "CN",
        "title": "without notices",
        "zone": "Asia/Shanghai",
        "country": "CN",
        "source": "none",
        "statutory_days_off": False,
    }
    content = {
        "id": "CN",
        "year": year,
        "source": "as it was",
        "published": f"{year - 1}-12-01",
        "holidays": [day for day in NOTICE_OFF if day.year == year],
        "workdays": [day for day in NOTICE_WORKED if day.year == year],
    }
    write(tmp_path, bare)
    calendar = Calendars.load(write(tmp_path, content)).get("CN")
    assert [day for day in days(year) if calendar.working(day)] == [day for day in days(year) if CN.working(day)]
    assert calendar.official(dt.date(year, 6, 1))
    assert not calendar.official(dt.date(year - 1, 6, 1))


def test_a_notice_may_move_days_of_the_december_before(tmp_path: Path) -> None:
    """It has: for New Year of 2019, Saturday 29 December 2018 was worked and Monday the 31st was not."""
    year = LAST + 1
    december = [dt.date(LAST, 12, day) for day in range(20, 32)]
    saturday = next(day for day in december if day.weekday() == 5)
    monday = next(day for day in december if day.weekday() == 0)
    moved = INVENTED | {"holidays": [*RANGES, monday], "workdays": [saturday]}
    calendar = Calendars.load(write(tmp_path, moved)).get("CN")
    assert calendar.working(saturday) != CN.working(saturday)
    assert calendar.working(monday) != CN.working(monday)
    changed = {day for day in days(LAST) if calendar.kind(day) != CN.kind(day)}
    assert changed == {saturday, monday}
    assert calendar.official(dt.date(year, 1, 4))


def test_an_operator_can_define_a_calendar(tmp_path: Path) -> None:
    definition = {
        "id": "US-HI",
        "title": "Hawaii",
        "zone": "Pacific/Honolulu",
        "country": "US",
        "subdivision": "HI",
        "official_through": 2026,
        "source": "state law",
    }
    calendar = Calendars.load(write(tmp_path, definition)).get("US-HI")
    assert not calendar.working(dt.date(2026, 3, 26))  # Prince Kuhio's day
    assert CALENDARS.get("US").working(dt.date(2026, 3, 26))
    assert str(calendar.zone) == "Pacific/Honolulu"


def test_an_operator_can_put_a_calendar_in_the_place_of_ours(tmp_path: Path) -> None:
    definition = {"id": "NL", "title": "ours", "zone": "Europe/Amsterdam", "country": "NL", "source": "ours"}
    calendar = Calendars.load(write(tmp_path, definition)).get("NL")
    assert calendar.title == "ours"
    assert calendar.working(dt.date(2026, 5, 5))


# Mistakes.


def test_every_mistake_is_named(tmp_path: Path) -> None:
    year = LAST + 1
    tuesday = next(day for day in days(year) if day.month == 7 and day.weekday() == 1)
    first = dt.date(year, 1, 1)
    write(
        tmp_path,
        {
            "id": "CN",
            "year": year,
            "source": "invented",
            "published": f"{LAST}-11-12",
            "holidays": [first, f"{year + 1}-02-01", f"{LAST}-11-30"],
            "workdays": [first, tuesday],
        },
    )
    write(tmp_path, {"id": "FR", "year": year, "source": "x", "published": first, "holidays": [first]})
    message = refusal(tmp_path)
    assert f"{year + 1}-02-01 is neither in {year} nor in the December before" in message
    assert f"{LAST}-11-30 is neither" in message
    assert f"{first} is both off and worked" in message
    assert f"{tuesday} is no day of the weekend" in message
    assert f"{year}-10-01 is off by law" in message
    assert "there is no calendar 'FR'; there are AE, CN" in message


BASE = {"id": "XX", "title": "x", "zone": "Europe/Paris", "country": "FR", "source": "x"}
YEAR = {"id": "FR", "year": 2027, "source": "x", "published": "2026-11-01", "holidays": ["2027-01-01"]}


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (BASE | {"zone": "Europe/Pairs"}, "XX.yaml", "there is no time zone 'Europe/Pairs'"),
        (BASE | {"zone": "../../etc/passwd"}, "XX.yaml", "there is no time zone"),
        (BASE | {"country": "QQ"}, "XX.yaml", "country, subdivision:"),
        (BASE | {"country": "DE", "subdivision": "QQ"}, "XX.yaml", "country, subdivision:"),
        (BASE | {"categories": ["nonsense"]}, "XX.yaml", "nonsense"),
        (BASE | {"id": "x x"}, "XX.yaml", "id:"),
        (BASE | {"id": "XX-2027"}, "XX-2027.yaml", "id:"),  # would be taken for a year of XX
        (BASE | {"colour": "red"}, "XX.yaml", "colour"),
        (BASE, "YY.yaml", "belongs into XX.yaml"),
        (YEAR, "FR.yaml", "belongs into FR-2027.yaml"),
        (YEAR | {"holidays": []}, "FR-2027.yaml", "holidays:"),
        (YEAR | {"holidays": ["2027-02-30"]}, "FR-2027.yaml", "holidays"),
        (YEAR | {"holidays": ["2027-02-10/2027-02-01"]}, "FR-2027.yaml", "is no range of days"),
        (YEAR | {"holidays": ["2027-02-01/2028-02-01"]}, "FR-2027.yaml", "is no range of days"),
        (YEAR | {"holidays": "2027-01-01"}, "FR-2027.yaml", "holidays"),
        (["a list"], "FR-2027.yaml", "a mapping"),
        (YEAR, "FR-2027.yml", "names of calendar files end in .yaml"),
        (YEAR, "FR-2027.YAML", "names of calendar files end in .yaml"),
    ],
)
def test_a_file_with_a_mistake_is_refused(content: object, name: str, said: str, tmp_path: Path) -> None:
    assert said in refusal(write(tmp_path, content, name))


def test_what_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "CN-2027.yaml").write_text("id: CN\nid: CN\n")
    assert "stands twice" in refusal(tmp_path)
    (tmp_path / "CN-2027.yaml").write_bytes(b"\xff\xfe")
    assert "CN-2027.yaml" in refusal(tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "there is no such folder" in refusal(tmp_path / "nowhere")


def test_notes_beside_the_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("who put what here\n")
    assert "CN" in Calendars.load(tmp_path)
