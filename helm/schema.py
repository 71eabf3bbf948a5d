"""Writes `hutong/values.schema.json`: what may stand in a values file, so that a typo is refused by name.

What a node's `config` may say is taken from the models that the node itself reads its file with, less what the chart
fills in: the two cannot drift apart unseen. `--check` writes nothing and fails where the file is not fresh.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.config import GatewayConfig, ZoneSection
from services.cli.rooms import packages
from services.kit.config import DepartmentConfig, NodeConfig
from services.recognition.config import RecognitionConfig
from services.supervision.config import SupervisionConfig

Schema = dict[str, Any]

FILE: Final = Path(__file__).parent / "hutong" / "values.schema.json"

LABEL: Final = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
ZONE: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
IDENTITY: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?|\*)$"
ADDRESS: Final = r"^[^\s:/]+:[0-9]{1,5}$"
DURATION: Final = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
GO_DURATION: Final = "^([0-9]+(h|m|s))+$"
FILE_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ROLE: Final = r"^([^,=\s]{1,63})?$"
CIDR: Final = r"^[0-9a-fA-F:.]+/[0-9]{1,3}$"
CRON: Final = r"^(@(hourly|daily)|\S+(\s+\S+){4})$"

MODELS: Final[dict[str, type[NodeConfig]]] = {
    "all": NodeConfig,
    "department": DepartmentConfig,
    "recognition": RecognitionConfig,
    "supervision": SupervisionConfig,
    "gateway": GatewayConfig,
}
"""What nodes read their files with; `all` is what the files of all have."""

OURS: Final = {
    "": {"node", "tls", "secret", "gateways", "departments", "events", "officers", "live", "keys", "signing"}
    | {"access", "procedures", "arrangements", "calendars", "auditors", "zones", "door"},
    "ZoneSection": {"bundle", "revoked", "folder"},
    "LogSection": {"url", "url_file", "migrate", "key", "keys", "readers", "tiles"},
    "StoreSection": {"url", "url_file", "migrate"},
    "PolicySection": {"files", "jurisdiction"},
    "AuthorizationsSection": {"keys", "agency"},
}
"""What the chart itself fills in, by section: it is no part of `config`."""


def closed(properties: Schema, required: Iterable[str] = (), **more: Any) -> Schema:
    """Describe an object that has these properties and no others."""
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return made | ({"required": list(required)} if required else {}) | more


def text(pattern: str = "", **more: Any) -> Schema:
    """Describe a text."""
    return {"type": "string"} | ({"pattern": pattern} if pattern else {}) | more


def number(minimum: int, maximum: int | None = None) -> Schema:
    """Describe a whole number."""
    return {"type": "integer", "minimum": minimum} | ({} if maximum is None else {"maximum": maximum})


def several(item: Schema, **more: Any) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": item} | more


def named(value: Schema, pattern: str = FILE_NAME) -> Schema:
    """Describe an object whose keys are names."""
    return {"type": "object", "additionalProperties": False, "patternProperties": {pattern: value}}


YES_OR_NO: Final[Schema] = {"type": "boolean"}
OBJECT: Final[Schema] = {"type": "object"}
LABELS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}
PEERS: Final = several(
    closed({"podSelector": OBJECT, "namespaceSelector": OBJECT, "ipBlock": OBJECT}, minProperties=1),
    description="NetworkPolicy peers",
)
TEXTS: Final = named(text(minLength=1))


def config(model: type[NodeConfig], prefix: str) -> tuple[Schema, dict[str, Schema]]:
    """Describe what may be set of a node's config, and the definitions that this refers to.

    Nothing is required of it: it lies on top of what the chart fills in.
    """
    whole = model.model_json_schema(mode="validation")
    definitions = {f"{prefix}{name}": _section(body, prefix, name) for name, body in whole.pop("$defs", {}).items()}
    made = _section(whole, prefix, "")
    return made, _reached(made, definitions)


def _section(body: Schema, prefix: str, name: str) -> Schema:
    kept = {key: _plain(value, prefix) for key, value in body["properties"].items() if key not in OURS.get(name, ())}
    return closed(kept)


def _plain(value: Any, prefix: str) -> Any:
    """Take what matters of a generated schema: titles and defaults are the application's own."""
    if isinstance(value, list):
        return [_plain(item, prefix) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, dict):
        return value
    found: Schema = value  # pyright: ignore[reportUnknownVariableType]
    if found.get("format") == "duration":
        return text(DURATION)
    left = {key: item for key, item in found.items() if key not in {"title", "default", "description", "format"}}
    if "$ref" in left:
        return {"$ref": f"#/$defs/{prefix}{str(left['$ref']).rpartition('/')[2]}"}
    return {key: _plain(item, prefix) for key, item in left.items()}


def _reached(made: Schema, definitions: dict[str, Schema]) -> dict[str, Schema]:
    """Keep the definitions that are referred to, from wherever."""
    found: dict[str, Schema] = {}
    waiting = [made]
    while waiting:
        written = json.dumps(waiting.pop())
        fresh = {name: body for name, body in definitions.items() if f'"#/$defs/{name}"' in written}
        waiting += [body for name, body in fresh.items() if name not in found]
        found |= fresh
    return found


def node(settings: Schema) -> Schema:
    """Describe what every node has; `settings` is what its `config` may say."""
    return {
        "replicas": number(1, 100),
        "resources": closed({"requests": OBJECT, "limits": OBJECT}),
        "autoscaling": closed(
            {
                "enabled": YES_OR_NO,
                "minReplicas": number(1, 100),
                "maxReplicas": number(1, 100),
                "cpu": number(1, 100),
            }
        ),
        "disruption": closed({"maxUnavailable": {"type": ["integer", "string"], "pattern": "^[0-9]+%$", "minimum": 1}}),
        "database": closed(
            {
                "kind": {"enum": ["postgresql", "sqlite"]},
                "secret": text(),
                "storeKey": text(FILE_NAME),
                "logKey": text(FILE_NAME),
                "migrate": YES_OR_NO,
                "claim": text(),
                "owner": closed(
                    {"enabled": YES_OR_NO, "secret": text(), "storeRole": text(ROLE), "logRole": text(ROLE)}
                ),
            }
        ),
        "private": text(),
        "grace": number(10, 3600),
        "nodeSelector": LABELS,
        "tolerations": several(OBJECT),
        "affinity": OBJECT,
        "priorityClassName": text(),
        "podLabels": LABELS,
        "podAnnotations": LABELS,
        "config": settings,
    }


def agency(settings: Schema, rooms: Iterable[str]) -> Schema:
    """Describe an agency: a node here, or the address of one elsewhere."""
    external = {
        "target": text(ADDRESS),
        "system": text(LABEL),
        "timeout": text(DURATION),
        "cidrs": several(text(CIDR)),
    }
    own = {
        "name": {"enum": list(rooms)},
        "enabled": YES_OR_NO,
        "external": closed(external, ["target"]),
        "mappings": TEXTS,
        "live": named(closed({"mapping": text(FILE_NAME), "key": text(FILE_NAME)}, ["mapping", "key"])),
        "access": text(),
        "callers": PEERS,
    }
    return closed(own | node(settings), ["name"])


def schema() -> Schema:
    """Describe a values file."""
    definitions: dict[str, Schema] = {}
    settings: dict[str, Schema] = {}
    for name, model in MODELS.items():
        settings[name], found = config(model, f"{name}.")
        definitions |= found
    # Where this chart is a part of another one, that one's `global` comes with the values.
    values = general() | nodes(settings) | {"certificates": certificates(), "metrics": metrics(), "global": OBJECT}
    definitions["agency"] = agency(settings["department"], packages())
    top = closed(values, ["zone", "agencies"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A zone"} | top | {"$defs": definitions}


def general() -> dict[str, Schema]:
    """Describe what the whole zone has, but for its nodes."""
    image = {
        "repository": text(minLength=1),
        "tag": text(),
        "digest": text("^(sha256:[0-9a-f]{64})?$"),
        "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    }
    network = {
        "enabled": YES_OR_NO,
        "callers": PEERS,
        "metrics": PEERS,
        "dns": PEERS,
        "database": closed({"port": number(1, 65535), "to": PEERS}),
    }
    return {
        "zone": text(ZONE, maxLength=64, description="A lower-case DNS name of at most 64 characters"),
        "image": closed(image),
        "imagePullSecrets": several(closed({"name": text(minLength=1)}, ["name"])),
        "keys": closed({"configMap": text()}),
        "officers": named(issuer(), LABEL),
        "readers": several(text(IDENTITY)),
        "tiles": closed({"enabled": YES_OR_NO}),
        "policy": closed({"jurisdiction": text(LABEL), "files": TEXTS}),
        "nats": closed({"servers": several(text(ADDRESS))}),
        "service": closed({"type": {"enum": ["ClusterIP", "LoadBalancer", "NodePort"]}, "annotations": LABELS}),
        "networkPolicy": closed(network),
        "zones": named(zone(), ZONE),
    }


def zone() -> Schema:
    """Describe another zone: what the gateway's config says of it, where its trust lies, and where it is."""
    section: Schema = _section(ZoneSection.model_json_schema(), "", "ZoneSection")["properties"]
    where = {"configMap": text(minLength=1), "cidrs": several(text(CIDR))}
    return closed(section | where, ["configMap"])


def nodes(settings: Mapping[str, Schema]) -> dict[str, Schema]:
    """Describe the nodes; `settings` is what the `config` of each kind may say."""
    service = {"enabled": YES_OR_NO, "access": text(), "callers": PEERS}
    folders = dict.fromkeys(("procedures", "arrangements", "calendars"), TEXTS)
    auditors = {"auditors": several(text(IDENTITY))}
    return {
        "agencies": several({"$ref": "#/$defs/agency"}, minItems=1),
        "recognition": closed(service | folders | node(settings["recognition"])),
        "supervision": closed(service | auditors | node(settings["supervision"])),
        "gateway": closed({"access": text(), "callers": PEERS} | node(settings["gateway"])),
        "defaults": closed(node(settings["all"])),
    }


def issuer() -> Schema:
    """Describe an agency's identity provider, whose keys come in one of two ways."""
    section = {
        "issuer": text(minLength=1),
        "jwks": text(minLength=2),
        "jwks_url": text("^https://"),
        "jwks_ca": text(minLength=1),
        "algorithms": several({"enum": ["Ed25519", "ES256", "PS256"]}, minItems=1),
    }
    return closed(section, ["issuer"], oneOf=[{"required": ["jwks"]}, {"required": ["jwks_url"]}])


def certificates() -> Schema:
    """Describe where identities come from."""
    manager = {
        "issuerRef": closed({"name": text(), "kind": text(), "group": text()}),
        "duration": text(GO_DURATION),
        "renewBefore": text(GO_DURATION),
    }
    sources = {
        "issuer": closed({"claim": text(), "schedule": text(CRON), "systems": several(text(IDENTITY))}),
        "certManager": closed(manager),
        "spire": closed({"socket": text(FILE_NAME), "longestLife": text(f"^$|{DURATION}")}),
    }
    return closed({"source": {"enum": [*sources]}, **sources, "revocations": closed({"configMap": text()})})


def metrics() -> Schema:
    """Describe what the operators of Prometheus and Grafana are given."""
    scraped = closed({"enabled": YES_OR_NO, "interval": text(GO_DURATION), "labels": LABELS})
    given = closed({"enabled": YES_OR_NO, "labels": LABELS})
    return closed({"serviceMonitor": scraped, "rules": given, "dashboard": given})


def main() -> int:
    """Write the file, or check it."""
    fresh = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        FILE.write_text(fresh, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == fresh:
        return 0
    sys.stderr.write(f"{FILE} is not fresh: run `python helm/schema.py`\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
