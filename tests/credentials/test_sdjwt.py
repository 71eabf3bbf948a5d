"""SD-JWT: what is hidden is shown by the holder only, and only where the issuer put it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OKPKey

from services.kit.credentials import sdjwt, signed, strict
from services.kit.credentials.sdjwt import Hidden, Opened, Path
from services.kit.errors import InvalidArgument, Reason

KEY = OKPKey.generate_key("Ed25519")
TYP = "test+sd-jwt"

NAMES = st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda name: name not in {"_sd", "_sd_alg", "..."})
HIDING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: (
        st.lists(inner | inner.map(Hidden), max_size=4) | st.dictionaries(NAMES, inner | inner.map(Hidden), max_size=4)
    ),
    max_leaves=16,
)
CLAIMS = st.dictionaries(NAMES, HIDING | HIDING.map(Hidden), max_size=4)


def plain(value: Any, keep: frozenset[Path] | None, path: Path = ()) -> Any:
    """What a holder who shows `keep` (None: everything) lets others see."""

    def seen(one: Any, place: Path) -> bool:
        return not isinstance(one, Hidden) or keep is None or any(k[: len(place)] == place for k in keep)

    value = value.value if isinstance(value, Hidden) else value
    if strict.is_object(value):
        return {n: plain(one, keep, (*path, n)) for n, one in value.items() if seen(one, (*path, n))}
    if strict.is_array(value):
        return [plain(one, keep, (*path, i)) for i, one in enumerate(value) if seen(one, (*path, i))]
    return value


def hidden_paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where something is hidden."""
    if isinstance(value, Hidden):
        yield path
        value = value.value
    if strict.is_object(value):
        for name, one in value.items():
            yield from hidden_paths(one, (*path, name))
    if strict.is_array(value):
        for number, one in enumerate(value):
            yield from hidden_paths(one, (*path, number))


def opened(text: str) -> Opened:
    return sdjwt.verify(sdjwt.read(text, typ=TYP), KEY)


@given(CLAIMS)
def test_everything_comes_back_and_nothing_hidden_stands_in_the_token(claims: dict[str, Any]) -> None:
    text = sdjwt.issue(claims, KEY, header={"typ": TYP})
    said = opened(text)
    assert said.claims == plain(claims, None)
    assert set(said.disclosed) == set(hidden_paths(claims))
    assert said.withheld == 0
    token = text.partition("~")[0]
    assert opened(token + "~").claims == plain(claims, frozenset())


@given(CLAIMS, st.data())
def test_a_holder_shows_any_choice(claims: dict[str, Any], data: st.DataObject) -> None:
    paths = sorted(hidden_paths(claims), key=repr)
    keep = frozenset(data.draw(st.lists(st.sampled_from(paths), unique=True)) if paths else ())
    text = sdjwt.issue(claims, KEY, header={"typ": TYP})
    shown = sdjwt.present(sdjwt.read(text, typ=TYP), keep.__contains__)
    assert opened(shown).claims == plain(claims, keep)
    assert shown.partition("~")[0] == text.partition("~")[0]


def test_salts_are_new_for_every_disclosure() -> None:
    claims = {"a": Hidden(1), "b": [Hidden(1), Hidden(1)]}
    texts = [sdjwt.issue(claims, KEY, header={"typ": TYP}) for _ in range(20)]
    disclosures = [one for text in texts for one in text.split("~")[1:-1]]
    salts = {strict.loads(strict.decode(one))[0] for one in disclosures}
    assert len(salts) == len(disclosures) == 60
    assert all(len(strict.decode(salt)) == 16 for salt in salts)


def test_the_order_of_digests_says_nothing() -> None:
    payload = sdjwt.read(
        sdjwt.issue({f"n{i}": Hidden(i) for i in range(20)}, KEY, header={"typ": TYP}), typ=TYP
    ).token.payload
    assert payload["_sd"] == sorted(payload["_sd"])


@pytest.mark.parametrize("name", ["_sd", "_sd_alg", "..."])
@pytest.mark.parametrize("hide", [False, True])
def test_names_of_sd_jwt_itself_are_not_issued(name: str, hide: bool) -> None:
    for claims in ({name: Hidden(1) if hide else 1}, {"a": [{name: 1}]}, {"a": Hidden({name: 1})}):
        with pytest.raises(ValueError, match="kept for SD-JWT"):
            sdjwt.issue(claims, KEY, header={"typ": TYP})


def disclosure(*content: Any) -> str:
    return strict.encode(json.dumps(content).encode())


def crafted(payload: dict[str, Any], *disclosures: str) -> str:
    return "~".join((signed.sign({"typ": TYP}, payload, KEY), *disclosures, ""))


NAMED = disclosure("salt", "name", "value")
ELEMENT = disclosure("salt", "value")


@pytest.mark.parametrize(
    "text",
    [
        crafted({}, NAMED),
        crafted({"_sd": [sdjwt.digest(NAMED)]}, NAMED, NAMED),
        crafted({"_sd": [sdjwt.digest(NAMED)] * 2}, NAMED),
        crafted({"_sd": [sdjwt.digest(NAMED)], "a": {"_sd": [sdjwt.digest(NAMED)]}}, NAMED),
        crafted({"_sd": [sdjwt.digest(NAMED)], "a": [{"...": sdjwt.digest(NAMED)}]}, NAMED),
        crafted({"_sd": ["x", "x"]}),
        crafted({"_sd": [sdjwt.digest(NAMED)], "name": 1}, NAMED),
        crafted({"_sd": [sdjwt.digest(ELEMENT)]}, ELEMENT),
        crafted({"a": [{"...": sdjwt.digest(NAMED)}]}, NAMED),
        crafted({"a": [{"...": sdjwt.digest(ELEMENT), "b": 1}]}, ELEMENT),
        crafted({"a": {"...": sdjwt.digest(ELEMENT)}}, ELEMENT),
        crafted({"...": sdjwt.digest(ELEMENT)}, ELEMENT),
        crafted({"a": [{"...": 7}]}),
        crafted({"_sd": "x"}),
        crafted({"_sd": [7]}),
        crafted({"_sd": {"a": "x"}}),
        crafted({"_sd_alg": "sha-512"}),
        crafted({"_sd_alg": "md5"}),
        crafted({"_sd_alg": None}),
        crafted({"_sd_alg": ["sha-256"]}),
        *(
            crafted({"_sd": [sdjwt.digest(one)]}, one)
            for one in (
                disclosure("salt", "_sd", ["x"]),
                disclosure("salt", "...", "x"),
                disclosure("salt", "_sd_alg", "sha-512"),
                disclosure("salt", 7, "x"),
                disclosure(7, "name", "x"),
                disclosure("salt", "name", "x", "y"),
                disclosure("salt"),
                disclosure(),
                strict.encode(b'{"salt":"x"}'),
                strict.encode(b'["salt","name",NaN]'),
                strict.encode(b'["salt","name",{"a":1,"a":2}]'),
                strict.encode(b"nonsense"),
                "A",
                "not+base64",
            )
        ),
    ],
)
def test_disclosures_that_were_not_issued_so_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        opened(text)
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


def test_what_always_stands_open_cannot_be_disclosed() -> None:
    expiry = disclosure("salt", "exp", 1)
    read = sdjwt.read(crafted({"_sd": [sdjwt.digest(expiry)]}, expiry), typ=TYP)
    assert sdjwt.verify(read, KEY).claims == {"exp": 1}
    with pytest.raises(InvalidArgument) as refused:
        sdjwt.verify(read, KEY, always_open={"exp"})
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


def test_a_disclosure_with_another_text_of_the_same_json_is_another() -> None:
    text = sdjwt.issue({"a": Hidden("b")}, KEY, header={"typ": TYP})
    token, one, _ = text.split("~")
    salt, name, value = strict.loads(strict.decode(one))
    same = disclosure(salt, name, value)
    assert same != one
    with pytest.raises(InvalidArgument) as refused:
        opened("~".join((token, same, "")))
    assert refused.value.reason is Reason.RESULT_DISCLOSURE


def test_decoys_and_what_is_withheld_are_counted_and_ignored() -> None:
    said = opened(crafted({"_sd": ["decoy"], "a": [{"...": "other decoy"}, 1], "b": {"_sd": []}}))
    assert said.claims == {"a": [1], "b": {}}
    assert said.withheld == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "~",
        "a.b.c",
        "a.b.c~",
        signed.sign({"typ": TYP}, {}, KEY),
        crafted({}) + "~",
        crafted({}).replace("~", "~~"),
        crafted({"_sd": [sdjwt.digest(NAMED)]}, NAMED).replace("~", "~~", 1),
        " " + crafted({}),
        crafted({}).replace(".", "..", 1),
        crafted({}).replace(".", ".é", 1),
        signed.sign({"typ": "other"}, {}, KEY) + "~",
        signed.sign({}, {}, KEY) + "~",
        signed.sign({"typ": TYP.upper()}, {}, KEY) + "~",
        "~".join((signed.sign({"typ": TYP}, {}, KEY), *(disclosure(str(i), "x") for i in range(257)), "")),
        crafted({"x": "y" * signed.LIMIT}),
        crafted({"a": strict.loads(b"[" * 31 + b"]" * 31)}).replace("~", "") + "x~",
    ],
)
def test_what_is_no_sd_jwt_is_malformed(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        opened(text)
    assert refused.value.reason in {Reason.RESULT_MALFORMED, Reason.RESULT_SIGNATURE}


def test_disclosures_cannot_nest_for_ever() -> None:
    disclosures: list[str] = []
    value: Any = 1
    for number in range(sdjwt.MAX_DEPTH + 1):
        disclosures.append(disclosure(str(number), "n", value))
        value = {"_sd": [sdjwt.digest(disclosures[-1])]}
    with pytest.raises(InvalidArgument) as refused:
        opened(crafted(value, *disclosures))
    assert refused.value.reason is Reason.RESULT_MALFORMED


@pytest.mark.parametrize("value", [{1}, object(), {"a": (1,)}, Hidden(Hidden(1))])
def test_what_is_no_json_is_not_issued(value: Any) -> None:
    if strict.is_object(value):
        assert opened(sdjwt.issue(value, KEY, header={"typ": TYP})).claims == {"a": [1]}
        return
    with pytest.raises(TypeError):
        sdjwt.issue({"a": value}, KEY, header={"typ": TYP})
