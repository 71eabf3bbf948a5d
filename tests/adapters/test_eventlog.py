"""Event logs: XES and tables give the same cases; what is bad is refused by line and case, and nothing is expanded."""

import contextlib
import datetime as dt
import gzip
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters import eventlog
from adapters.eventlog import Limits, Log, LogColumns, LoggedCase, LoggedEvent, WrongCase
from services.kit.errors import InvalidArgument, Reason
from tests.adapters.logs import Case, event, hours, packed, table, xes

DATES = frozenset({"deadline", "startdate", "enddate", "enddate_planned"})
COLUMNS = LogColumns(moments=frozenset({"deadline"}))
CASES = (
    Case("A-1", [event("Take in", hours(0), group="Desk", resource="R1", transition="complete")], {"channel": "Post"}),
    Case(
        "A-2",
        [event("Take in", hours(1)), event("Decide, at last", hours(30)), event("Decide, at last", hours(30))],
        {"deadline": "2026-03-20T00:00:00+01:00"},
    ),
)


def read(folder: Path, content: str | bytes, columns: LogColumns = COLUMNS, limits: Limits | None = None) -> Log:
    path = folder / "log"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return eventlog.read(path, columns, limits)


def refusal(folder: Path, content: str | bytes, limits: Limits | None = None, columns: LogColumns = COLUMNS) -> str:
    with pytest.raises(InvalidArgument) as caught:
        read(folder, content, columns, limits)
    assert caught.value.reason is Reason.LOG_INVALID
    assert caught.value.message.startswith("log")
    return caught.value.message


def good(log: Log) -> list[LoggedCase]:
    return [case for case in log.cases if isinstance(case, LoggedCase)]


def wrong(log: Log) -> list[tuple[str, int, str]]:
    return [(case.case_id, case.line, case.why) for case in log.cases if isinstance(case, WrongCase)]


def test_a_log_tells_cases_and_what_happened_in_them(tmp_path: Path) -> None:
    log = read(tmp_path, xes(CASES, ["deadline"]))
    assert (log.name, log.form, log.events) == ("log", "XES", 4)
    first, second = good(log)
    assert first.events == (
        LoggedEvent("Take in", dt.datetime(2026, 3, 2, 8, tzinfo=dt.UTC), "Desk", "R1", "", "complete"),
    )
    assert first.attributes == {"channel": "Post"}
    assert second.attributes == {"deadline": dt.datetime(2026, 3, 19, 23, tzinfo=dt.UTC)}
    assert all(case.events[0].at.tzinfo is dt.UTC for case in good(log))


@pytest.mark.parametrize(
    "content",
    [
        xes(CASES),
        packed(xes(CASES)),
        packed(xes(CASES)[:300]) + packed(xes(CASES)[300:]) + bytes(512),
        xes(CASES).replace(' xmlns="http://www.xes-standard.org/"', ""),
        xes(CASES).replace("UTF-8", "UTF-16").encode("utf-16"),
        "\ufeff" + xes(CASES),
        table(CASES),
        packed(table(CASES)),
        "\ufeff" + table(CASES),
        table(CASES, ";"),
        table(CASES, "\t"),
        table(CASES).replace("\r\n", "\n") + "\n\n",
    ],
    ids=["xes", "xes.gz", "members", "bare", "utf-16", "mark", "csv", "csv.gz", "csv-mark", "semicolons", "tabs", "lf"],
)
def test_a_log_says_the_same_in_any_form(tmp_path: Path, content: str | bytes) -> None:
    assert read(tmp_path, content).cases == read(tmp_path, xes(CASES)).cases


words = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
moments = st.lists(st.integers(0, 5000), min_size=1, max_size=5).map(lambda n: [hours(h) for h in sorted(n)])


def _told(names: Sequence[str], when: Sequence[Sequence[dt.datetime]], note: str) -> list[Case]:
    return [
        Case(name, [event(f"{name} did", at, group=name) for at in at_each], {"note": note} if note else {})
        for name, at_each in zip(names, when, strict=False)
    ]


cases = st.builds(
    _told,
    st.lists(words, min_size=1, max_size=4, unique=True),
    st.lists(moments, min_size=4, max_size=4),
    st.one_of(st.just(""), words),
)


@given(cases)
def test_both_forms_of_any_log_give_the_same_cases(
    tmp_path_factory: pytest.TempPathFactory, told: Sequence[Case]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    log = read(folder, xes(told), LogColumns())
    assert log.cases == read(folder, table(told), LogColumns()).cases
    assert not wrong(log)


def test_lines_of_a_table_may_stand_in_any_order_of_cases(tmp_path: Path) -> None:
    header, *lines = table(CASES).splitlines()
    mixed = "\n".join([header, lines[1], lines[0], *lines[2:]])
    assert {c.case_id: c for c in good(read(tmp_path, mixed))} == {
        c.case_id: c for c in good(read(tmp_path, xes(CASES)))
    }


def test_columns_have_the_names_that_the_profile_says(tmp_path: Path) -> None:
    text = "case_no,what,when,who\n7,Take in,2026-03-02 09:00:00,Desk\n"
    columns = LogColumns(
        case="no", activity="what", time="when", group="who", case_prefix="case_", zone="Europe/Amsterdam"
    )
    (case,) = good(read(tmp_path, text, columns))
    assert case == LoggedCase("7", {}, (LoggedEvent("Take in", dt.datetime(2026, 3, 2, 8, tzinfo=dt.UTC), "Desk"),))


def test_an_unknown_zone_is_no_profile() -> None:
    with pytest.raises(ValueError, match="no time zone of this name"):
        LogColumns(zone="Europe/Amsterdom")


# A log that is none, or was cut: all of it is refused.

XES_TEXT = xes(CASES)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is empty"),
        (packed(""), "it is empty"),
        ("<html><body>log</body></html>", "its root is no <log> but <html>"),
        ("<html><log><trace/></log></html>", "its root is no <log> but <html>"),
        ("<log xmlns='http://www.xes-standard.org/'></log>", "there is no case in it"),
        ("<log", "it is no XES, or was cut"),
        (XES_TEXT[: XES_TEXT.index("Decide")], "line 11: it is no XES, or was cut"),
        (XES_TEXT[: XES_TEXT.index("</log>")], "line 14: it is no XES, or was cut: no element found"),
        (packed(xes([Case(f"{n}", CASES[0].events) for n in range(900)]))[:-200], "it was cut: its end is missing"),
        (packed(XES_TEXT)[:-1] + b"x", "it is damaged"),
        (packed(XES_TEXT)[:15] + b"xxxx" + packed(XES_TEXT)[19:], "it is damaged"),
        (packed(XES_TEXT) + b"rest", "it is damaged"),
        (table(CASES)[:-60], "line 5: it has"),
        (table(CASES).rstrip() + '\r\nA-3,"', "it is no table, or was cut"),
        ("\x89PNG\r\n\x1a\n\x00\x00", "there is no column 'case:concept:name'"),
        (b"\x89PNG\r\n", "it is no XES, and no table in UTF-8"),
        ("case:concept:name,concept:name,case:deadline\n", "there is no column 'time:timestamp'"),
        ("case:concept:nam,concept:name,time:timestamp,case:deadline\n", "did you mean 'case:concept:nam'"),
        ("case:concept:name,concept:name,time:timestamp\n", "there is no column 'case:deadline'"),
        (table(CASES).replace("org:resource", "org:group"), "the column 'org:group' stands twice"),
        (table(CASES).splitlines()[0], "there is no case in it"),
    ],
)
def test_what_is_no_log_is_refused_whole(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refusal(tmp_path, content)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="none: it cannot be read: No such file"):
        eventlog.read(tmp_path / "none")
    with pytest.raises(InvalidArgument, match="it cannot be read: Is a directory"):
        eventlog.read(tmp_path)


@pytest.mark.parametrize("write", [xes, table])
def test_a_log_cut_anywhere_is_refused_or_lacks_nothing_before_the_cut(
    tmp_path: Path, write: Callable[[Sequence[Case]], str]
) -> None:
    """XES is never taken when cut. A table has no end mark: cut in a line's last cell it is a shorter one."""
    whole = write(CASES).rstrip()
    seen = 0
    for length in range(1, len(whole)):
        try:
            log = read(tmp_path, whole[:length], LogColumns())
        except InvalidArgument:
            continue
        seen += 1
        assert whole[length - 1] in "\r\n" or "," not in whole[length:].partition("\r\n")[0]
        assert log.events + len(wrong(log)) <= 4
    assert (seen > 0) is (write is table)


LAUGHS = """<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("what", ["laughs", "file", "network", "parameter", "late"])
def test_entities_and_document_types_are_refused_unread(tmp_path: Path, what: str, encoding: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    prolog = {
        "laughs": LAUGHS,
        "file": f'<!DOCTYPE x [<!ENTITY d SYSTEM "{secret.as_uri()}">]>',
        "network": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY d "y">]>',
        "parameter": f'<!DOCTYPE x [<!ENTITY % p SYSTEM "{secret.as_uri()}"> %p; <!ENTITY d "y">]>',
        "late": "<!--" + "x" * 200_000 + "-->" + LAUGHS,
    }[what]
    text = prolog + xes(CASES).partition("?>")[2].replace("a log", "&d;").replace("Take in", "&d;")
    said = refusal(tmp_path, text.encode(encoding))
    # Without a mark, and with nothing but a comment in the first bytes read, it is not even XML.
    assert said == "log: document types and entities are not read" or (what, encoding) == ("late", "utf-16-be")
    assert said == refusal(tmp_path, gzip.compress(text.encode(encoding)))


def test_size_has_limits(tmp_path: Path) -> None:
    many = [Case(f"{n}", [event("Take in", hours(n))]) for n in range(2000)]
    usual = LogColumns()
    for text in (xes(many), table(many)):
        assert "bytes; at most 100 are read" in refusal(tmp_path, text, Limits(file=100), usual)
        assert "unpacks to more than 80000 bytes" in refusal(tmp_path, packed(text), Limits(unpacked=80_000), usual)
        assert "more than 1999 events" in refusal(tmp_path, text, Limits(events=1999), usual)
        assert len(read(tmp_path, text, usual, Limits(events=2000)).cases) == 2000
    bomb = xes([Case("1", [event("x" * 5_000_000, hours(0))])])
    assert "without a case's end" in refusal(tmp_path, packed(bomb), Limits(case=1_000_000))
    line = "case:concept:name,concept:name,time:timestamp,case:deadline\n" + "x" * 5_000_000
    assert "without a case's end" in refusal(tmp_path, packed(line), Limits(case=1_000_000))


@pytest.mark.parametrize("write", [xes, table])
def test_a_packed_log_altered_or_cut_anywhere_is_refused(
    tmp_path: Path, write: Callable[[Sequence[Case]], str]
) -> None:
    """Or it says the same: some bits of its head, and those that fill up the last byte, are no part of the content."""
    whole = packed(write(CASES))
    for length in range(1, len(whole)):
        refusal(tmp_path, whole[:length], columns=LogColumns())
    same = 0
    for place in range(len(whole)):
        altered = whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :]
        with contextlib.suppress(InvalidArgument):
            assert read(tmp_path, altered, LogColumns()).cases == read(tmp_path, whole, LogColumns()).cases
            same += 1
    assert same <= 10


# Times.


@pytest.mark.parametrize("write", [xes, table])
def test_a_time_without_offset_refuses_the_log_naming_line_and_case(
    tmp_path: Path, write: Callable[[Sequence[Case]], str]
) -> None:
    told = [*CASES, Case("A-3", [event("Take in", hours(0)), event("Decide", "2026-03-03T10:00:00")])]
    said = refusal(tmp_path, write([Case(c.name, c.events, {"deadline": "", **c.said}) for c in told]))
    assert "case 'A-3'" in said
    assert "line " in said
    assert "says no offset" in said
    own = refusal(tmp_path, write([Case("A-4", CASES[0].events, {"deadline": "2026-03-20"})]))
    assert "case 'A-4'" in own


def test_a_stated_zone_places_times_also_where_summer_begins(tmp_path: Path) -> None:
    told = [Case("1", [event("a", "2026-03-29T01:59:00"), event("b", "2026-03-29 03:00:00")])]
    (case,) = good(read(tmp_path, table(told), LogColumns(zone="Europe/Amsterdam")))
    assert [e.at.hour for e in case.events] == [0, 1]


@pytest.mark.parametrize("write", [xes, table])
@pytest.mark.parametrize(
    ("events", "said", "why"),
    [
        ([event("b", hours(2)), event("a", hours(1))], {}, "event 2 is earlier than the one before it"),
        ([event("a", "yesterday")], {}, "'yesterday' is no moment"),
        ([event("a", "0001-01-01T00:00:00+01:00")], {}, "is no moment"),
        ([event("a", "")], {}, "'' is no moment"),
        ([event("", hours(0))], {}, "event 1 has no concept:name"),
        ([event("a", hours(0))], {"deadline": "soon"}, "'soon' is no moment"),
    ],
)
def test_what_is_wrong_with_one_case_leaves_out_that_case(
    tmp_path: Path,
    write: Callable[[Sequence[Case]], str],
    events: Sequence[dict[str, str]],
    said: dict[str, str],
    why: str,
) -> None:
    text = write([Case("A-0", events, {"deadline": "", **said}), *CASES])
    log = read(tmp_path, text)
    assert good(log) == good(read(tmp_path, xes(CASES)))
    ((case_id, line, found),) = wrong(log)
    assert case_id == "A-0"
    assert why in found
    lines = text.splitlines()
    assert (
        ("<event" in lines[line - 1] or "<trace" in lines[line - 1])
        if write is xes
        else lines[line - 1].startswith("A-0")
    )


@pytest.mark.parametrize("write", [xes, table])
@pytest.mark.parametrize("name", ["", " ", "A 1 ", "A\t1", "x" * 81])
def test_a_case_needs_a_name_that_can_be_said(
    tmp_path: Path, write: Callable[[Sequence[Case]], str], name: str
) -> None:
    log = read(tmp_path, write([Case(name, [event("a", hours(0))]), *CASES]), LogColumns())
    assert len(good(log)) == 2
    assert len(wrong(log)) == 1


def test_what_is_nested_says_nothing_of_the_event_and_other_elements_nothing_of_the_log(tmp_path: Path) -> None:
    """Attributes of attributes, lists, classifiers, elements of other namespaces."""
    text = (
        xes(CASES)
        .replace('value="Take in"/>', 'value="Take in"><string key="concept:name" value="nested"/></string>')
        .replace("<event>", '<event><list key="l"><values><string key="concept:name" value="x"/></values></list>')
        .replace("<trace>", '<trace xmlns:o="urn:other"><o:event><string key="concept:name" value="x"/></o:event>')
        .replace("</log>", '<classifier name="c" keys="k"/><float key="f" value="1"><event/></float></log>')
    )
    assert read(tmp_path, text).cases == read(tmp_path, xes(CASES)).cases
    prefixed = xes(CASES).replace("xmlns=", "xmlns:x=")
    for tag in ("log", "trace", "event", "string", "date", "global"):
        prefixed = prefixed.replace(f"<{tag}", f"<x:{tag}").replace(f"</{tag}", f"</x:{tag}")
    assert read(tmp_path, prefixed).cases == read(tmp_path, xes(CASES)).cases
    deep = xes(CASES).replace("</log>", "<a>" * 50_000 + "</a>" * 50_000 + "</log>")
    assert read(tmp_path, deep).cases == read(tmp_path, xes(CASES)).cases


def test_a_case_that_stands_twice_is_none(tmp_path: Path) -> None:
    log = read(tmp_path, xes([*CASES, CASES[0]]))
    assert wrong(log) == [("A-1", 14, "the case stands in lines 6 and 14")]
    assert [case.case_id for case in good(log)] == ["A-2"]


def test_lines_of_a_case_that_differ_about_it_are_no_case(tmp_path: Path) -> None:
    text = table(CASES).replace("2026-03-20T", "2026-03-21T", 1)
    assert wrong(read(tmp_path, text)) == [("A-2", 4, "its lines do not say the same of the case")]


def test_a_case_says_only_so_much_of_itself(tmp_path: Path) -> None:
    told = [Case("1", [event("a", hours(0))], {f"n{n}": "x" for n in range(600)})]
    for text in (xes(told), table(told)):
        ((_, _, why),) = wrong(read(tmp_path, text, LogColumns()))
        assert why == "it says more than 500 things of itself"


def test_progress_is_told_in_bytes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(packed(xes([Case(f"{n}", [event("Take in", hours(n))]) for n in range(500)])))
    shown: list[tuple[int, int]] = []
    eventlog.read(path, COLUMNS, show=lambda done, total: shown.append((done, total)))
    assert shown[-1] == (path.stat().st_size, path.stat().st_size)
    assert shown == sorted(shown)


# The real log.


@pytest.fixture(scope="module")
def real(shared_data: Path) -> tuple[Log, Log]:
    columns = LogColumns(moments=DATES)
    folder = shared_data / "approval"
    return tuple(eventlog.read(folder / f"coselog_receipt.{form}.gz", columns) for form in ("xes", "csv"))  # type: ignore[return-value]


def test_the_real_log_gives_the_same_cases_in_both_forms(real: tuple[Log, Log]) -> None:
    ours, theirs = real
    assert (ours.form, theirs.form) == ("XES", "CSV")
    assert ours.cases == theirs.cases
    assert not wrong(ours)
    assert (len(ours.cases), ours.events) == (1434, 8577)


def test_the_real_log_has_what_was_counted_by_hand(real: tuple[Log, Log]) -> None:
    cases = good(real[0])
    events = [event for case in cases for event in case.events]
    assert len({event.activity for event in events}) == 27
    assert Counter(event.group for event in events)["EMPTY"] == 1936
    assert len({event.group for event in events}) == 10
    assert {event.transition for event in events} == {"complete"}

    def said(case: LoggedCase, name: str) -> Any:
        return case.attributes.get(name)

    assert sum(said(case, "enddate") is None for case in cases) == 105
    ended = [case for case in cases if said(case, "enddate")]
    assert sum(said(case, "enddate") > said(case, "deadline") for case in ended) == 377
    assert sum(said(case, "enddate") > said(case, "enddate_planned") for case in ended) == 389
    assert sum(case.events[-1].at > said(case, "deadline") for case in cases) == 92
    assert sum(said(case, "startdate") > case.events[0].at for case in cases) == 2
