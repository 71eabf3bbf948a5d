"""SPIFFE IDs: what goes in comes out, and nothing else goes in."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certs.errors import NameRefused, SpiffeIdMalformed
from certs.spiffe import MAX_LENGTH, SpiffeId, server_name

_DOMAIN = string.ascii_lowercase + string.digits + ".-_"
_PATH = string.ascii_letters + string.digits + ".-_"
_trust_domains = st.text(_DOMAIN, min_size=1, max_size=255)
_segments = st.text(_PATH, min_size=1, max_size=40).filter(lambda segment: segment not in {".", ".."})
_paths = st.lists(_segments, max_size=8).map(lambda segments: "".join(f"/{segment}" for segment in segments))
_labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(trust_domain=_trust_domains, path=_paths)
def test_round_trip(trust_domain: str, path: str) -> None:
    text = f"spiffe://{trust_domain}{path}"
    parsed = SpiffeId.parse(text)
    assert (parsed.trust_domain, parsed.path, str(parsed)) == (trust_domain, path, text)


@given(text=st.one_of(st.text(), st.text().map(lambda rest: f"spiffe://{rest}")))
def test_any_text_is_refused_or_printed_back(text: str) -> None:
    try:
        printed = str(SpiffeId.parse(text))
    except SpiffeIdMalformed as error:
        printed = None
        message = str(error)
    else:
        message = ""
    assert printed in {None, text}
    assert message.isprintable()


@given(
    trust_domain=_trust_domains, path=_paths, where=st.floats(0, 1), odd=st.characters(exclude_characters=_PATH + "/")
)
def test_one_odd_character_anywhere_is_refused(trust_domain: str, path: str, where: float, odd: str) -> None:
    text = f"spiffe://{trust_domain}{path}"
    at = int(where * len(text))
    with pytest.raises(SpiffeIdMalformed):
        SpiffeId.parse(text[:at] + odd + text[at:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///path",
        "spiffe:/zone/path",
        "SPIFFE://zone/path",
        "https://zone/path",
        "spiffe://Zone/path",
        "spiffe://zone:8080/path",
        "spiffe://user@zone/path",
        "spiffe://[::1]/path",
        "spiffe://zone/",
        "spiffe://zone/path/",
        "spiffe://zone//path",
        "spiffe://zone/a/../b",
        "spiffe://zone/a/./b",
        "spiffe://zone/a?q=1",
        "spiffe://zone/a#f",
        "spiffe://zone/a%2Fb",
        "spiffe://zone/a b",
        "spiffe://zone/海关",
        "spiffe://zone/a\n",
        " spiffe://zone/a",
        "spiffe://" + "z" * 256,
        "spiffe://zone/" + "a" * MAX_LENGTH,
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(SpiffeIdMalformed):
        SpiffeId.parse(text)


@pytest.mark.parametrize("length", [MAX_LENGTH, MAX_LENGTH + 1])
def test_the_longest(length: int) -> None:
    text = "spiffe://zone/".ljust(length, "a")
    if length <= MAX_LENGTH:
        assert str(SpiffeId.parse(text)) == text
    else:
        with pytest.raises(SpiffeIdMalformed):
            SpiffeId.parse(text)


@given(agency=_labels, system=_labels)
def test_names_of_the_mesh(agency: str, system: str) -> None:
    name = SpiffeId.of("north.example", agency, system)
    assert (name.agency, name.system) == (agency, system)
    assert SpiffeId.parse(str(name)) == name
    # The server name leads back to the name: no two systems share one.
    assert server_name(name).split(".", 2) == [system, agency, "north.example"]


@pytest.mark.parametrize("path", ["", "/customs", "/customs/node/1", "/customs/no.de", "/Customs/node", "/customs/-x"])
def test_other_forms_have_no_agency(path: str) -> None:
    name = SpiffeId("zone", path)
    with pytest.raises(SpiffeIdMalformed):
        _ = name.agency
    with pytest.raises(SpiffeIdMalformed):
        _ = name.system
    with pytest.raises(SpiffeIdMalformed):
        server_name(name)


@given(zone=st.text(max_size=70), agency=st.text(max_size=70), system=st.text(max_size=70))
def test_any_names_are_refused_or_kept(zone: str, agency: str, system: str) -> None:
    try:
        name = SpiffeId.of(zone, agency, system)
    except NameRefused:
        return
    assert (name.trust_domain, name.agency, name.system) == (zone, agency, system)
