"""Reads policy files and checks them: what does not pass here is never asked for a decision.

A file belongs to the agency its name begins with: `customs.cedar`, `customs-pilot.cedar`. Checked are: Cedar's syntax
and types; ids; a legal basis and an end for every permit; that only the agency's own records are named, and only ones
that exist; known purposes; transforms that fit every field they may meet; row conditions; and that withheld fields
leave as pseudonyms only. Every mistake of every file is found, not just the first.
"""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cedarpy

from hutong.api.schema.v1 import options_pb2
from services.kit.durations import duration_seconds
from services.kit.errors import FailedPrecondition, InvalidArgument, Reason
from services.kit.jurisdiction.pack import Jurisdiction
from services.kit.policy import nesting, reach
from services.kit.policy.places import Place, Text
from services.kit.policy.policies import AgencyPolicies, Policy, PolicySet
from services.kit.policy.reach import FieldReader
from services.kit.policy.schema import NAMESPACE, SHARES, groups, schema
from services.kit.policy.transforms import Transform
from services.kit.records import conditions
from services.kit.records.catalogue import Catalogue, Field, RecordType, nearest
from services.kit.records.conditions import Condition

PARAMS = frozenset({"caller_agency", "case_ref", "today"})
"""Parameters that row conditions may use."""

MAX_FILE = 1024 * 1024
"""A policy file has at most this many bytes."""

_COMMON = frozenset({"id", "from", "until", "title"})
_ANNOTATIONS = {"permit": _COMMON | {"basis", "transform", "rows", "retain"}, "forbid": _COMMON}
_NOWHERE = Place()
_SOME_PURPOSE = "no purpose that any list holds"


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy file."""

    reason: Reason
    file: str
    policy: str
    """Id of the policy, or empty where the mistake is the file's."""
    message: str
    place: Place = _NOWHERE
    """Where in the file."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.place}" if self.place.line else self.file
        return ": ".join(part for part in (where, self.policy, self.message) if part)


class PolicyRefused(FailedPrecondition):
    """Policy files do not pass the checks; the reason is the first mistake's."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems[0].reason, "\n".join(str(p) for p in self.problems))


class _Wrong(Exception):
    """A mistake in the policy at hand."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load(paths: Iterable[Path], catalogue: Catalogue, jurisdiction: Jurisdiction) -> PolicySet:
    """Load policy files; raises `PolicyRefused` with every mistake found in any of them."""
    return parse(read(paths), catalogue, jurisdiction)


def read(paths: Iterable[Path]) -> dict[str, str]:
    """Read policy files: what each says, by its name; raises `PolicyRefused` where one cannot be read."""
    texts: dict[str, str] = {}
    for path in paths:
        try:
            if path.stat().st_size > MAX_FILE:
                raise ValueError(f"it is larger than {MAX_FILE} bytes")
            texts[str(path)] = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise PolicyRefused([Problem(Reason.POLICY_INVALID, str(path), "", f"cannot be read: {why}")]) from None
    return texts


def parse(texts: Mapping[str, str], catalogue: Catalogue, jurisdiction: Jurisdiction) -> PolicySet:
    """Check policy texts by file name; raises `PolicyRefused` with every mistake found in any of them."""
    problems: list[Problem] = []
    found: dict[str, dict[str, Policy]] = {}
    ids: dict[str, str] = {}
    for file, text in texts.items():
        checker = _File(file, catalogue, jurisdiction)
        for policy in checker.read(text):
            if policy.id in ids:
                message = f"the id stands in {ids[policy.id]} already; ids must be unique, rename one"
                place = checker.places[policy.id]
                checker.problems.append(Problem(Reason.POLICY_INVALID, file, policy.id, message, place))
            ids[policy.id] = file
            found.setdefault(policy.agency, {})[policy.id] = policy
        problems += checker.problems
        found.setdefault(checker.agency, {})
    if problems:
        raise PolicyRefused(problems)
    return PolicySet({agency: AgencyPolicies(agency, policies) for agency, policies in sorted(found.items())})


def restore(agency: str, text: bytes, catalogue: Catalogue, jurisdiction: Jurisdiction) -> AgencyPolicies:
    """Make an agency's policies of what `AgencyPolicies.text` wrote; raises `PolicyRefused` where they do not stand.

    It may come from elsewhere: whoever names it by its version compares that first.
    """
    checker = _File(f"{agency}.cedar", catalogue, jurisdiction)
    try:
        found = json.loads(text)
        policies = {name: checker.policy(ast) for name, ast in found.items()}
        if any(name != policy.id for name, policy in policies.items()):
            raise ValueError("a policy stands under another's name")
    except (_Wrong, ValueError, LookupError, TypeError, AttributeError, RecursionError) as wrong:
        problem = Problem(Reason.POLICY_INVALID, f"{agency}.cedar", "", f"cannot be restored: {wrong}")
        raise PolicyRefused([problem]) from None
    return AgencyPolicies(agency, policies)


class _File:
    """Checks one file."""

    def __init__(self, file: str, catalogue: Catalogue, jurisdiction: Jurisdiction) -> None:
        self.problems: list[Problem] = []
        self.places: dict[str, Place] = {}
        """Where each policy begins, by its id: of two with one id, the second."""
        self._file = file
        self._catalogue = catalogue
        self._jurisdiction = jurisdiction
        stem = Path(file).name.removesuffix(".cedar")
        self.agency = stem.partition("-")[0]
        self._readers = [FieldReader(t, leaf) for t in catalogue.owned_by(self.agency) for leaf in t.leaves]

    def read(self, text: str) -> Iterator[Policy]:
        """Yield the policies that pass; the others' mistakes are in `problems`."""
        if not self._readers:
            known = ", ".join(f"{owner}.cedar" for owner in self._catalogue.owners())
            self._problem(
                "", Reason.POLICY_INVALID, f"the name begins with no agency that owns records; call it {known}"
            )
            return
        try:
            nesting.check(text)
            parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
            refused = cedarpy.validate_policies(text, schema()).errors  # pyright: ignore[reportUnknownMemberType]
        except (ValueError, RecursionError) as wrong:
            place = Place(wrong.line) if isinstance(wrong, nesting.TooDeep) else Text(text).syntax()
            self._problem("", Reason.POLICY_INVALID, f"not Cedar: {wrong}", place)
            return
        where = Text(text)
        for key in sorted(parsed["templates"], key=_number):
            message = "templates (?principal, ?resource) are not used here; write policies"
            self._problem("", Reason.POLICY_INVALID, message, where.policy(_number(key), "?"))
        policies: dict[str, dict[str, Any]] = parsed["staticPolicies"]
        names = {key: _name(ast, number) for number, (key, ast) in enumerate(_in_order(policies), 1)}
        for error in refused:
            key, message = error.policy_id, error.error.removeprefix(f"for policy `{error.policy_id}`, ")
            if key in names:
                self._problem(names[key], Reason.POLICY_INVALID, message, where.policy(_number(key), message))
            else:
                self._problem("", Reason.POLICY_INVALID, message)
        for key, ast in _in_order(policies):
            try:
                self.places[names[key]] = where.policy(_number(key), "")
                yield self.policy(ast)
            except _Wrong as wrong:
                self._problem(names[key], wrong.reason, str(wrong), where.policy(_number(key), str(wrong)))

    def _problem(self, policy: str, reason: Reason, message: str, place: Place = _NOWHERE) -> None:
        self.problems.append(Problem(reason, self._file, policy, message, place))

    def policy(self, ast: dict[str, Any]) -> Policy:
        """Check one policy; raises `_Wrong`."""
        notes = {name: value or "" for name, value in ast.get("annotations", {}).items()}
        _annotations(ast["effect"], notes)
        self._names(ast)
        since, until = _moment(notes, "from"), _moment(notes, "until")
        if since and until and since >= until:
            raise _Wrong(Reason.POLICY_INVALID, "@from is not before @until")
        _usable(ast)
        permit = ast["effect"] == "permit"
        basis, transform, rows = "", None, {}
        if permit:
            basis, transform = self._basis(notes), _transform(notes)
            if until is None:
                raise _Wrong(Reason.POLICY_WITHOUT_END, 'a permit ends: add @until("2027-12-31T23:59:59+08:00")')
            rows = self._reached(ast, transform, notes.get("rows", ""))
        return Policy(
            id=notes["id"],
            agency=self.agency,
            permit=permit,
            file=self._file,
            since=since,
            until=until,
            basis=basis,
            transform=transform,
            retain=_retain(notes),
            rows=rows,
            title=notes.get("title", ""),
            ast=ast,
        )

    def _basis(self, notes: Mapping[str, str]) -> str:
        basis, known = notes.get("basis", ""), self._jurisdiction.bases
        if not basis:
            raise _Wrong(Reason.POLICY_WITHOUT_BASIS, 'a permit names its legal basis: add @basis("CN-…")')
        if basis not in known:
            pack = f"{self._jurisdiction.id} {self._jurisdiction.version}"
            raise _Wrong(
                Reason.POLICY_WITHOUT_BASIS, f"{basis!r} is no legal basis of pack {pack}{nearest(basis, known)}"
            )
        return basis

    def _names(self, ast: dict[str, Any]) -> None:
        for kind, name in sorted(set(reach.mentioned(ast))):
            short = kind.removeprefix(NAMESPACE)
            if short in {"RecordType", "Field", "FieldGroup"}:
                self._record(short, name)
            elif short == "ShareClass" and name not in SHARES.values():
                raise _Wrong(Reason.POLICY_INVALID, f"there is no share class {name!r}{nearest(name, SHARES.values())}")
        for purpose in reach.purposes(ast):
            if purpose not in self._jurisdiction.purposes:
                hint = nearest(purpose, self._jurisdiction.purposes)
                raise _Wrong(Reason.POLICY_INVALID, f"{purpose!r} is no purpose of the jurisdiction's list{hint}")

    def _record(self, kind: str, name: str) -> None:
        agency, _, rest = name.partition(".")
        record, _, path = rest.partition(".")
        if kind == "RecordType":
            record, path = rest, ""
        if agency != self.agency and agency in self._catalogue.owners():
            raise _Wrong(
                Reason.POLICY_FOREIGN_RECORD,
                f"{name} is {agency}'s record; only {agency}'s own file may decide over it",
            )
        try:
            record_type = self._catalogue.get(f"{agency}.{record}")
            if kind == "Field":
                record_type.field(path)
        except InvalidArgument as error:
            raise _Wrong(Reason.POLICY_INVALID, error.message) from None
        if kind == "FieldGroup" and path not in (known := groups(record_type)):
            hint = nearest(path, known) or f"; there are: {', '.join(sorted(known)) or 'none'}"
            raise _Wrong(Reason.POLICY_INVALID, f"{record_type.name} has no field group {path!r}{hint}")

    def _reached(self, ast: dict[str, Any], transform: Transform | None, rows: str) -> dict[str, Condition]:
        if ast["resource"]["op"] == "All":
            raise _Wrong(
                Reason.POLICY_INVALID,
                'the resource is not limited: write resource in Hutong::RecordType::"…", a field, group or share class',
            )
        reached: dict[str, RecordType] = {}
        for reader in self._readers:
            found = reader.reach(ast)
            if not found.true:
                continue
            reached[reader.record_type.name] = reader.record_type
            if found.exact:
                _fits(transform, reader.record_type, reader.field)
            if reader.reach(ast, _SOME_PURPOSE).true:
                message = 'the permit holds whatever the purpose: add context.purpose == "P-…" to its condition'
                raise _Wrong(Reason.POLICY_INVALID, message)
        if not reached:
            raise _Wrong(
                Reason.POLICY_INVALID, "the permit reaches no field: check the fields it names against its scope"
            )
        return {name: _rows(rows, record_type) for name, record_type in reached.items()} if rows else {}


def _number(key: str) -> int:
    """Number a policy of a file: Cedar calls them policy0, policy1, … in its order."""
    return int(key.removeprefix("policy"))


def _in_order(policies: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return sorted(policies.items(), key=lambda item: _number(item[0]))


def _name(ast: Mapping[str, Any], number: int) -> str:
    return ast.get("annotations", {}).get("id") or f"policy number {number} of the file"


def _annotations(effect: str, notes: Mapping[str, str]) -> None:
    if not notes.get("id"):
        raise _Wrong(Reason.POLICY_INVALID, 'a policy needs a name: add @id("…")')
    for name in notes:
        if name not in (known := _ANNOTATIONS[effect]):
            raise _Wrong(
                Reason.POLICY_INVALID,
                f"@{name} means nothing on a {effect}{nearest(name, known)}; there are {', '.join(sorted(known))}",
            )


def _usable(ast: dict[str, Any]) -> None:
    # Cedar reads its own JSON form less deep than its text; a policy that fails there would fail when it is asked.
    try:
        cedarpy.PolicySet.from_json_str(
            json.dumps({"staticPolicies": {"p": ast}, "templates": {}, "templateLinks": []})
        )
    except ValueError:
        message = 'its condition is too long a chain: write many fields or texts as a set, ["a", "b"].contains(x)'
        raise _Wrong(Reason.POLICY_INVALID, message) from None


def _moment(notes: Mapping[str, str], name: str) -> dt.datetime | None:
    if name not in notes:
        return None
    reason = Reason.POLICY_WITHOUT_END if name == "until" else Reason.POLICY_INVALID
    try:
        moment = dt.datetime.fromisoformat(notes[name])
        if moment.tzinfo is None:
            raise ValueError("it states no time zone")
        return moment.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        raise _Wrong(reason, f"@{name} is no moment like 2027-12-31T23:59:59+08:00: {error}") from None


def _retain(notes: Mapping[str, str]) -> str:
    retain = notes.get("retain", "")
    try:
        if "retain" in notes:
            duration_seconds(retain)
    except ValueError as error:
        raise _Wrong(Reason.POLICY_INVALID, f"@retain: {error}") from None
    return retain


def _transform(notes: Mapping[str, str]) -> Transform | None:
    try:
        return Transform.parse(notes["transform"]) if "transform" in notes else None
    except ValueError as error:
        raise _Wrong(Reason.POLICY_TRANSFORM_INVALID, f"@transform: {error}") from None


def _fits(transform: Transform | None, record_type: RecordType, leaf: Field) -> None:
    if leaf.share == options_pb2.SHARE_CLASS_WITHHELD and (transform is None or transform.name != "pseudonym"):
        raise _Wrong(
            Reason.POLICY_OPENS_WITHHELD,
            f"{record_type.name}.{leaf.path} is withheld and leaves as a pseudonym only: name the other fields, "
            'or add unless { resource.share == "withheld" }',
        )
    if transform is not None:
        try:
            transform.check(leaf)
        except ValueError as error:
            raise _Wrong(Reason.POLICY_TRANSFORM_INVALID, f"@transform on {record_type.name}: {error}") from None


def _rows(rows: str, record_type: RecordType) -> Condition:
    try:
        return conditions.parse(rows, record_type, PARAMS)
    except InvalidArgument as error:
        raise _Wrong(Reason.POLICY_CONDITION_INVALID, f"@rows: {error.message}") from None
