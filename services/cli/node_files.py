"""The configs of a zone folder: what each node's file says, table by table.

What a file has nothing of is added to its end, and nothing else is touched: so folders that an older version made go on
working, and what somebody edited stays.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.kit.officers.issuer import officers_uri

HOST: Final = "127.0.0.1"

AUDIT: Final = "audit"
"""The agency whose auditors every node knows."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node: who it is and where it listens."""

    name: str
    """What its folder is called."""
    agency: str
    system: str
    port: int
    metrics: int
    tiles: int

    @property
    def target(self) -> str:
        """Its address."""
        return f"{HOST}:{self.port}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a node's config says of others."""

    zone: str
    departments: Sequence[Place]
    recognition: Place
    supervision: Place
    gateway: Place

    @property
    def everyone(self) -> Sequence[Place]:
        """Every node."""
        return (*self.departments, self.recognition, self.supervision, self.gateway)

    def witness(self, place: Place) -> Place:
        """Say who co-signs a node's log: the next one, of another agency."""
        everyone = self.everyone
        return everyone[(everyone.index(place) + 1) % len(everyone)]


def department(place: Place, around: Surroundings) -> tuple[str, dict[str, str]]:
    """Write a department's config: what stands above all tables, and each table."""
    head = f"""\
# The department {place.agency}. `hutong serve {place.name} --config FILE --check-config` validates this file.
secret = "secret"
gateways = ["{_path(around.gateway)}"]
"""
    return head, {
        **_node(place, around),
        **_store("records", place.agency),
        f"events.{around.recognition.agency}": _peer(around.recognition),
        **_officers(around, (place.agency, AUDIT)),
        "authorizations": _authorizations(around),
    }


def recognition(place: Place, around: Surroundings) -> tuple[str, dict[str, str]]:
    """Write the recognition service's config."""
    head = f"""\
# The recognition service. `hutong serve {place.name} --config FILE --check-config` validates this file.
secret = "secret"
gateways = ["{_path(around.gateway)}"]
keys = "../keys"
signing = "signing"
procedures = "procedures"
arrangements = "arrangements"
calendars = "calendars"
"""
    return head, {
        **_node(place, around),
        **_store("cases", place.agency),
        **_officers(around, (place.agency, AUDIT)),
        "authorizations": _authorizations(around),
    }


def supervision(place: Place, around: Surroundings) -> tuple[str, dict[str, str]]:
    """Write the config of the service that keeps authorizations."""
    head = f"""\
# The supervision service. `hutong serve {place.name} --config FILE --check-config` validates this file.
secret = "secret"
gateways = ["{_path(around.gateway)}"]
keys = "../keys"
signing = "signing"
auditors = ["{AUDIT}/desk"]
# In an emergency one approver is enough, for hours, and it is reviewed afterwards. Off unless the zone's law allows it.
break_glass = false
"""
    agencies = (*(each.agency for each in around.departments), around.recognition.agency, place.agency, AUDIT)
    return head, {
        **_node(place, around),
        "store": 'url = "sqlite+aiosqlite:///authorizations.db"\nmigrate = true\n',
        "policy": _policies(around),
        **_officers(around, agencies),
    }


def gateway(place: Place, around: Surroundings) -> tuple[str, dict[str, str]]:
    """Write the gateway's config."""
    head = f"""\
# The gateway. `hutong serve {place.name} --config FILE --check-config` validates this file.
secret = "secret"
"""
    return head, {
        **_node(place, around),
        "policy": _policies(around),
        **{f"departments.{each.agency}": _peer(each) for each in (*around.departments, around.recognition)},
        **_officers(around, (AUDIT,)),
        "authorizations": _authorizations(around),
    }


def complete(text: str, tables: Mapping[str, str]) -> str:
    """Add to a config the tables that it has nothing of; one that has of all comes back as it was.

    Where one table of several is not there, `[officers.…]` say, somebody has taken it out: it stays out.
    """
    there = tomllib.loads(text)
    missing = {name: body for name, body in tables.items() if name.partition(".")[0] not in there}
    return text + "".join(f"\n[{name}]\n{body}" for name, body in missing.items())


def _path(place: Place) -> str:
    return f"{place.agency}/{place.system}"


def _node(place: Place, around: Surroundings) -> dict[str, str]:
    bundle = f"../certs/svid/{_path(place)}/credential-bundle.private-key.pem"
    witness = around.witness(place)
    return {
        "node": f"""\
zone = "{around.zone}"
agency = "{place.agency}"
system = "{place.system}"
listen = "{place.target}"
metrics = "{HOST}:{place.metrics}"
""",
        "tls": f"""\
certificate = "{bundle}"
key = "{bundle}"
bundle = "../certs/bundle.crt"
revoked = "../certs/revoked.crl"
""",
        "log": f"""\
url = "sqlite+aiosqlite:///log.db"
migrate = true
key = "log.key"
keys = "../keys"
tiles = "{HOST}:{place.tiles}"
readers = ["{AUDIT}/desk"]
""",
        f"log.witnesses.{witness.agency}": _peer(witness),
    }


def _store(name: str, agency: str) -> dict[str, str]:
    return {
        "store": f'url = "sqlite+aiosqlite:///{name}.db"\nmigrate = true\n',
        "policy": f'files = ["../policy/{agency}.cedar"]\n',
    }


def _policies(around: Surroundings) -> str:
    owners = (*around.departments, around.recognition)
    files = ", ".join(f'"../policy/{each.agency}.cedar"' for each in owners)
    return f"files = [{files}]\n"


def _peer(place: Place) -> str:
    usual = "" if place.system == "node" else f'system = "{place.system}"\n'
    return f'target = "{place.target}"\n{usual}'


def _authorizations(around: Surroundings) -> str:
    return f'target = "{around.supervision.target}"\nkeys = "../keys"\n'


def _officers(around: Surroundings, agencies: Sequence[str]) -> dict[str, str]:
    def table(agency: str) -> str:
        return f'issuer = "{officers_uri(around.zone, agency)}"\njwks = "../officers/{agency}.jwks.json"\n'

    return {f"officers.{agency}": table(agency) for agency in agencies}
