"""Who may call which rpc: lists kept as data beside each service, exact, and refusing by default.

A list is YAML: full service name, rpc, then the identities (`agency/system`, `agency/*`, or `*/*` for every member of
the zone). A service that a list names but the node does not serve stops the start; so does a listed rpc that the
service has not. A served rpc that no list names refuses everyone.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml
from pydantic import RootModel, ValidationError

from services.kit.caller import Caller
from services.kit.errors import FailedPrecondition, PermissionDenied, Reason
from services.kit.jurisdiction.pack import describe, load_yaml
from services.kit.records.catalogue import nearest


class _Lists(RootModel[dict[str, dict[str, list[str]]]]):
    pass


class AccessList:
    """The lists of one node, checked against what the node serves."""

    def __init__(self, lists: Mapping[str, Mapping[str, Iterable[str]]], served: Mapping[str, Iterable[str]]) -> None:
        """`served` maps full service names to their rpcs; raises `FailedPrecondition` ACCESS_LIST_INVALID."""
        self._allowed: dict[str, frozenset[str]] = {}
        for service, rpcs in lists.items():
            if service not in served:
                raise _invalid(f"the access list names service {service!r}, which is not served", service, served)
            for rpc, identities in rpcs.items():
                if rpc not in set(served[service]):
                    raise _invalid(f"the access list names {service}/{rpc}, which does not exist", rpc, served[service])
                self._allowed[f"/{service}/{rpc}"] = frozenset(_checked(identity) for identity in identities)

    def check(self, method: str, caller: Caller) -> None:
        """Let the caller through or raise `PermissionDenied`; `method` is `/package.Service/Rpc`."""
        allowed = self._allowed.get(method)
        if allowed is None or not (caller.path in allowed or f"{caller.agency}/*" in allowed or "*/*" in allowed):
            raise PermissionDenied(Reason.CALLER_NOT_LISTED, "this caller may not call this rpc")

    def allowed(self, method: str) -> frozenset[str]:
        """The identities listed for a method; empty where it is not listed."""
        return self._allowed.get(method, frozenset())


def read(*paths: Path) -> dict[str, dict[str, list[str]]]:
    """Read access lists; what is named twice, in one file or in two, is refused: lists do not add up silently.

    Raises `FailedPrecondition` ACCESS_LIST_INVALID.
    """
    merged: dict[str, dict[str, list[str]]] = {}
    for path in paths:
        try:
            lists = _Lists.model_validate(load_yaml(path.read_text(encoding="utf-8"))).root
        except ValidationError as error:
            raise FailedPrecondition(Reason.ACCESS_LIST_INVALID, f"{path}:\n  {describe(error)}") from None
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise FailedPrecondition(Reason.ACCESS_LIST_INVALID, f"{path}: {error}") from None
        if twice := merged.keys() & lists.keys():
            raise FailedPrecondition(Reason.ACCESS_LIST_INVALID, f"{path}: {', '.join(twice)} has a list already")
        merged |= lists
    return merged


def _checked(identity: str) -> str:
    agency, slash, system = identity.partition("/")
    if not agency or not slash or not system or "/" in system or (agency == "*" and system != "*"):
        raise FailedPrecondition(
            Reason.ACCESS_LIST_INVALID, f"{identity!r} is no identity; write 'agency/system', 'agency/*' or '*/*'"
        )
    return identity


def _invalid(message: str, name: str, known: Iterable[str]) -> FailedPrecondition:
    return FailedPrecondition(Reason.ACCESS_LIST_INVALID, message + nearest(name, known))
