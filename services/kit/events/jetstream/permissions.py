"""The config of a NATS server that carries events: who may connect, and what each may say and hear.

A client is who its certificate says (`verify_and_map`: the SPIFFE id is the user's name); who is not named here cannot
connect. A reader may read its own agency's stream and listen to its own beats; a source may write its own streams; and
no one may listen where the server answers another. Everything else is refused, as nothing else is allowed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from certs.spiffe import SpiffeId
from services.kit.events.jetstream.way import Way, inbox_prefix


@dataclass(frozen=True, slots=True)
class Cluster:
    """What makes a server one of several.

    Certificates of the zone do not do between servers: every node has one, and who is let in there may do anything. So
    these are of an authority of their own, and name the hosts of the routes; from no other host is a server taken.
    """

    server: str
    """Its own name, another one for each."""
    listen: str
    """`host:port` for the other servers."""
    routes: tuple[str, ...]
    """`host:port` of each server; its own may be among them."""
    certificate: Path
    key: Path
    bundle: Path
    """The roots of these certificates, and of no others."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and what it holds."""

    listen: str
    """`host:port`."""
    certificate: Path
    """Of the identity that the nodes' `[nats]` names; may hold the key too."""
    key: Path
    bundle: Path
    """The zone's roots."""
    store: Path
    """Folder of what it keeps."""
    cluster: Cluster | None = None
    """With which others; absent it is alone."""


def server_config(place: Place, source: SpiffeId, readers: Iterable[SpiffeId]) -> str:
    """Write the config of a server that carries from one source to these readers, each for its own agency."""
    lines = [
        f"listen: {_text(place.listen)}",
        f"jetstream {{ store_dir: {_text(place.store)} }}",
        *_tls(place, "handshake_first: true", "verify_and_map: true"),
        *(_cluster(place.cluster) if place.cluster else ()),
        *authorization(source, readers),
    ]
    return "\n".join(lines) + "\n"


def _tls(of: Place | Cluster, *more: str) -> list[str]:
    return [
        "tls {",
        f"  cert_file: {_text(of.certificate)}",
        f"  key_file: {_text(of.key)}",
        f"  ca_file: {_text(of.bundle)}",
        '  min_version: "1.3"',
        *(f"  {each}" for each in more),
        "}",
    ]


def _cluster(cluster: Cluster) -> list[str]:
    return [
        f"server_name: {_text(cluster.server)}",
        "cluster {",
        '  name: "hutong"',
        f"  listen: {_text(cluster.listen)}",
        f"  routes: {json.dumps([f'nats-route://{route}' for route in cluster.routes])}",
        *(f"  {line}" for line in _tls(cluster, "verify_cert_and_check_known_urls: true")),
        "}",
    ]


def authorization(source: SpiffeId, readers: Iterable[SpiffeId]) -> list[str]:
    """Write the part of a server's config that says who may do what, to be included in a config of one's own."""
    named = tuple(readers)
    ways = {reader: Way.of(source, reader.agency) for reader in named}
    write = [subject for way in ways.values() for subject in _writing(way)]
    asks = [way.asks for way in ways.values()]
    return [
        "authorization { users: [",
        *_user(source, write, asks),
        *(line for reader, way in ways.items() for line in _user(reader, _reading(way), [way.beats])),
        "] }",
    ]


def _writing(way: Way) -> list[str]:
    calls = ("STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.PURGE", "STREAM.MSG.GET")
    return [way.events, way.beats, *(f"$JS.API.{call}.{way.stream}" for call in calls)]


def _reading(way: Way) -> list[str]:
    return [way.asks, *(f"$JS.API.{call}.{way.stream}" for call in ("STREAM.INFO", "STREAM.MSG.GET"))]


def _user(identity: SpiffeId, publish: list[str], subscribe: list[str]) -> list[str]:
    hear = [f"{inbox_prefix(identity)}.>", *subscribe]
    return [
        f"  {{ user: {_text(identity)}, permissions: {{",
        f"    publish: {{ allow: {json.dumps(publish)} }}",
        f"    subscribe: {{ allow: {json.dumps(hear)} }}",
        "  } }",
    ]


def _text(value: object) -> str:
    return json.dumps(str(value))
