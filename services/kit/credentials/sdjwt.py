"""SD-JWT (RFC 9901): a signed object of which the holder shows as much as is needed.

What may be hidden is replaced by a digest; the value travels beside the token as a disclosure, and is taken only where
its digest stands in what was signed. Members of objects, elements of arrays, and values inside hidden values are all
handled; the digest is SHA-256 and no other.
"""

import hashlib
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.kit.credentials import signed, strict
from services.kit.credentials.signed import PRODUCT, Key, Signed, malformed
from services.kit.errors import InvalidArgument, Reason

DIGEST: Final = "sha-256"
MAX_DISCLOSURES: Final = 256
MAX_DEPTH: Final = strict.DEPTH
"""Deepest nesting once everything that is disclosed stands in its place."""

_SD, _SD_ALG, _ELEMENT = "_sd", "_sd_alg", "..."
_KEPT: Final = frozenset({_SD, _SD_ALG, _ELEMENT})
_SALT_BYTES: Final = 16

Path = tuple[str | int, ...]
"""Where a value stands: names of members and numbers of elements."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Marks a value, in claims to issue, that the holder may keep to itself."""

    value: Any


@dataclass(frozen=True, slots=True)
class SdJwt:
    """An SD-JWT that was read; its signature is not checked yet."""

    token: Signed
    disclosures: tuple[str, ...] = field(repr=False)
    binding: str = field(default="", repr=False)
    """The key binding token behind it; empty where there is none."""

    @property
    def text(self) -> str:
        """The SD-JWT as it was signed and disclosed, without key binding."""
        return "~".join((self.token.text, *self.disclosures, ""))


@dataclass(frozen=True, slots=True)
class Opened:
    """What an SD-JWT says, with every disclosure in its place."""

    claims: Mapping[str, Any]
    disclosed: Mapping[Path, str] = field(repr=False)
    """The disclosures, by where their value came to stand."""
    withheld: int
    """How many digests have no disclosure with them: hidden values, or decoys."""


def issue(
    claims: Mapping[str, Any],
    key: Key,
    *,
    header: Mapping[str, Any],
    algorithm: str = "Ed25519",
    salt: Callable[[], str] = lambda: strict.encode(secrets.token_bytes(_SALT_BYTES)),
) -> str:
    """Sign claims, of which those marked `Hidden` become disclosures; raises `ValueError` for names that SD-JWT keeps.

    `salt` gives a new one for every disclosure: whoever could guess it could guess what is hidden.
    """
    disclosures: list[str] = []
    payload = _pack(dict(claims), disclosures, salt)
    if disclosures:
        payload[_SD_ALG] = DIGEST
    return "~".join((signed.sign(header, payload, key, algorithm), *disclosures, ""))


def _pack(value: Any, disclosures: list[str], salt: Callable[[], str]) -> Any:
    def hide(*content: Any) -> str:
        disclosures.append(strict.encode(strict.dumps([salt(), *content])))
        return digest(disclosures[-1])

    if isinstance(value, Hidden):
        raise TypeError("only members of objects and elements of arrays can be hidden")
    if strict.is_object(value):
        if not _KEPT.isdisjoint(value):
            raise ValueError("a name is kept for SD-JWT itself")
        made = {name: _pack(one, disclosures, salt) for name, one in value.items() if not isinstance(one, Hidden)}
        hidden = {name: one.value for name, one in value.items() if isinstance(one, Hidden)}
        if hidden:
            # Sorted: their order must not tell which is which.
            made[_SD] = sorted(hide(name, _pack(one, disclosures, salt)) for name, one in hidden.items())
        return made
    if strict.is_array(value):
        return [
            {_ELEMENT: hide(_pack(one.value, disclosures, salt))}
            if isinstance(one, Hidden)
            else _pack(one, disclosures, salt)
            for one in value
        ]
    return value


def digest(disclosure: str) -> str:
    """Digest a disclosure as it is written."""
    return strict.encode(hashlib.sha256(disclosure.encode("ascii")).digest())


def read(text: str, *, typ: str, algorithms: Collection[str] = PRODUCT, limit: int = signed.LIMIT) -> SdJwt:
    """Read an SD-JWT; raises `InvalidArgument` RESULT_MALFORMED or RESULT_ALGORITHM."""
    if len(text) > limit or not text.isascii():
        raise malformed("too long, or not ASCII")
    token, *parts = text.split("~")
    if not parts:
        raise malformed("there is no ~ behind the token")
    *disclosures, binding = parts
    if len(disclosures) > MAX_DISCLOSURES or not all(disclosures):
        raise malformed("too many disclosures, or an empty one")
    return SdJwt(signed.read(token, typ=typ, algorithms=algorithms, limit=limit), tuple(disclosures), binding)


def verify(sd_jwt: SdJwt, key: Key, *, always_open: Collection[str] = ()) -> Opened:
    """Check the signature and put the disclosures in their place.

    Raises `InvalidArgument` RESULT_SIGNATURE, or RESULT_DISCLOSURE where a disclosure was not issued, stands twice,
    puts itself in another's place, or discloses a claim at the top that is `always_open`.
    """
    signed.check(sd_jwt.token, key)
    return unpack(sd_jwt, always_open=always_open)


def unpack(sd_jwt: SdJwt, *, always_open: Collection[str] = ()) -> Opened:
    """Put the disclosures in their place; for holders, who know where it is from. Raises as `verify` does."""
    if sd_jwt.token.payload.get(_SD_ALG, DIGEST) != DIGEST:
        raise _refused("its digests are not SHA-256")
    return _Unpacking(sd_jwt.disclosures, frozenset(always_open)).run(sd_jwt.token.payload)


def present(sd_jwt: SdJwt, keep: Callable[[Path], bool]) -> str:
    """Show only what `keep` says, and what that is inside of; raises as `verify` does.

    Raises `InvalidArgument` RESULT_MALFORMED where somebody has bound it already: that was for another occasion.
    """
    if sd_jwt.binding:
        raise malformed("it is bound to another occasion")
    disclosed = unpack(sd_jwt).disclosed
    kept = [path for path in disclosed if keep(path)]
    wanted = {text for path, text in disclosed.items() if any(one[: len(path)] == path for one in kept)}
    return "~".join((sd_jwt.token.text, *(text for text in sd_jwt.disclosures if text in wanted), ""))


def _refused(what: str) -> InvalidArgument:
    return InvalidArgument(Reason.RESULT_DISCLOSURE, f"a disclosure cannot be taken: {what}")


class _Unpacking:
    """The processing of RFC 9901 section 7.1, once."""

    def __init__(self, disclosures: Collection[str], always_open: frozenset[str]) -> None:
        self._always_open = always_open
        self._texts: dict[str, str] = {}
        for text in disclosures:
            if self._texts.setdefault(digest(text), text) is not text:
                raise _refused("it stands twice")
        self._seen: set[str] = set()
        self._placed: dict[Path, str] = {}

    def run(self, payload: Mapping[str, Any]) -> Opened:
        claims = self._object(payload, ())
        claims.pop(_SD_ALG, None)
        if len(self._placed) != len(self._texts):
            raise _refused("it was not issued with this token")
        return Opened(claims, self._placed, len(self._seen) - len(self._placed))

    def _value(self, value: Any, path: Path) -> Any:
        if len(path) > MAX_DEPTH:
            raise malformed("nested too deep")
        if strict.is_object(value):
            return self._object(value, path)
        return self._array(value, path) if strict.is_array(value) else value

    def _object(self, members: Mapping[str, Any], path: Path) -> dict[str, Any]:
        if _ELEMENT in members:
            raise _refused("a digest of an element stands outside an array")
        made = {name: self._value(value, (*path, name)) for name, value in members.items() if name != _SD}
        for one in self._digests(members.get(_SD, [])):
            content = self._take(one, 3)
            if content is None:
                continue
            name, value = content
            if not isinstance(name, str) or name in _KEPT:
                raise _refused("its name is not one that can be disclosed")
            if name in made or (not path and name in self._always_open):
                raise _refused("it stands in the place of what is open")
            made[name] = self._value(value, (*path, name))
            self._placed[(*path, name)] = self._texts[one]
        return made

    def _array(self, elements: list[Any], path: Path) -> list[Any]:
        made: list[Any] = []
        for number, element in enumerate(elements):
            place = (*path, number)
            if not strict.is_object(element) or _ELEMENT not in element:
                made.append(self._value(element, place))
                continue
            if len(element) != 1:
                raise _refused("a digest of an element stands beside other members")
            one = self._digests([element[_ELEMENT]])[0]
            content = self._take(one, 2)
            if content is not None:
                made.append(self._value(content[0], place))
                self._placed[place] = self._texts[one]
        return made

    def _digests(self, found: Any) -> list[str]:
        if not strict.is_array(found) or not all(isinstance(one, str) for one in found):
            raise _refused("digests are texts in an array")
        for one in found:
            if one in self._seen:
                raise _refused("a digest stands twice")
            self._seen.add(one)
        return found

    def _take(self, one: str, size: int) -> tuple[Any, ...] | None:
        text = self._texts.get(one)
        if text is None:
            return None
        try:
            content = strict.loads(strict.decode(text))
        except ValueError:
            raise _refused("it is not base64url and JSON") from None
        if not strict.is_array(content) or len(content) != size or not isinstance(content[0], str):
            raise _refused("it is no array of salt, name and value")
        return tuple(content[1:])
