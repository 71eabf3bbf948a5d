"""The chart: what it renders keeps every rule and fits the versions of Kubernetes; what is wrong is refused."""

import functools
import hashlib
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import kubernetes_validate  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kubernetes_validate import utils  # pyright: ignore[reportMissingTypeStubs]

from services.cli import rooms
from tests.helm import rules
from tests.helm.chart import (
    AGENCIES,
    CHART,
    KUBERNETES,
    NAMESPACE,
    PREFIX,
    RELEASE,
    REPOSITORY,
    SERVICES,
    RefusedByHelm,
    helm,
    render,
    zone,
)

INLAND = {
    "configMap": "inland-trust",
    "target": "gateway.inland.example:443",
    "asked_by": ["taxation/*"],
    "may_ask": ["customs/*"],
    "cidrs": ["192.0.2.0/24"],
}
FAR = {"configMap": "far-trust", "via": "inland.example", "asked_by": ["taxation/*"], "longest_life": "1h"}

EXAMPLES = sorted(path.name for path in (CHART / "ci").glob("*.yaml"))
OUTSIDE = {"zone-keys", "zone-revocations"}
OURS = {"Certificate", "PrometheusRule", "ServiceMonitor"}
"""Kinds that come with operators: their schemas are not Kubernetes' own."""


def example(name: str) -> str:
    return (CHART / "ci" / name).read_text(encoding="utf-8")


TEXTS: Mapping[str, str] = {
    **{name: example(name) for name in EXAMPLES},
    "owned": json.dumps(zone(defaults={"database": {"owner": {"enabled": True}}})),
    "zones": json.dumps(zone(zones={"inland.example": INLAND, "far.example": FAR})),
}
"""Values that between them render every document there is."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_lint(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART, "--values", CHART / "ci" / name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_keep_every_rule(name: str) -> None:
    rules.check(render(example(name)), OUTSIDE)


@pytest.mark.parametrize("minor", range(25, 38))
def test_documents_fit_the_version_of_kubernetes(minor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library reads all definitions of a version again for every document.
    monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    for text in TEXTS.values():
        for document in render(text, f"1.{minor}.0").documents:
            if document["kind"] not in OURS:
                used = kubernetes_validate.validate(document, f"1.{minor}", strict=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                assert used == f"1.{minor}", "there are schemas of older versions only"


def test_the_zone_that_the_documentation_shows() -> None:
    text = (REPOSITORY / "docs" / "operations" / "install.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(# file: port\.yaml\n.*?)```", text, re.DOTALL)
    rules.check(render(shown))


def test_the_documentation_names_every_value_and_no_other() -> None:
    """At the top at least: what lies below stands beside its top."""
    text = (REPOSITORY / "docs" / "operations" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([^|]*) \|", text.partition("## Values")[2].partition("\n## ")[0])
    names = [name for row in rows if "…" not in row for name in row.split("`")[1::2]]
    shown = {re.split(r"[.\[]", name)[0] for name in names if not name.startswith(".")}
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert {*schema["properties"]} - shown == {"global", "imagePullSecrets"}
    assert shown <= {*schema["properties"]}


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(RefusedByHelm, match="kubeVersion"):
        render(zone(), "1.24.0")


SAFE = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])
texts = st.dictionaries(st.from_regex(r"CN-20[0-9]{2}\.yaml", fullmatch=True), st.text(SAFE, min_size=1), max_size=2)


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the values of some zone, which may be odd but not wrong."""
    names = draw(st.lists(st.sampled_from(AGENCIES), min_size=1, unique=True))
    source = draw(st.sampled_from(["issuer", "certManager", "spire"]))
    sqlite, lists = draw(st.booleans()), ("zone-revocations", "")
    agencies: list[dict[str, Any]] = []
    for name in names:
        agency: dict[str, Any] = {"name": name}
        if draw(st.booleans()):
            cidrs = draw(st.lists(st.sampled_from(["192.0.2.0/24", "2001:db8::/32"]), unique=True))
            agency["external"] = {"target": f"{name}.example:{draw(st.integers(1, 65535))}", "cidrs": cidrs}
        elif not sqlite:
            agency["replicas"] = draw(st.integers(1, 5))
            agency["autoscaling"] = {"enabled": draw(st.booleans())}
        agencies.append(agency)
    officers = draw(st.lists(st.sampled_from([*AGENCIES, "audit", "fiu"]), unique=True))
    limits = {"request_bytes": draw(st.integers(1024, 2**30)), "deadline": draw(st.sampled_from(["500ms", "2.5s"]))}
    return {
        "zone": draw(st.from_regex(r"[a-z]([a-z0-9-]{0,9}[a-z0-9])?(\.[a-z]{1,5}){0,2}", fullmatch=True)),
        "agencies": agencies,
        "recognition": {"enabled": draw(st.booleans()), "calendars": draw(texts)},
        "supervision": {"enabled": draw(st.booleans())},
        "gateway": {"config": {"limits": limits}},
        "defaults": {
            "replicas": 1,
            "database": {"kind": "sqlite" if sqlite else "postgresql", "owner": {"enabled": draw(st.booleans())}},
        },
        "certificates": {
            "source": source,
            "issuer": {"claim": "authority", "systems": ["taxation/refund"]},
            "certManager": {"issuerRef": {"name": "authority"}},
            "revocations": {"configMap": draw(st.sampled_from(lists[: 1 + (source == "spire")]))},
        },
        "keys": {"configMap": "zone-keys"},
        "officers": {name: {"issuer": f"spiffe://z/{name}", "jwks": '{"keys": []}'} for name in officers},
        "tiles": {"enabled": draw(st.booleans())},
        "service": {"type": draw(st.sampled_from(["ClusterIP", "LoadBalancer"]))},
        "nats": {"servers": draw(st.sampled_from([[], ["nats.messaging.svc:4222"]]))},
        "networkPolicy": {"enabled": draw(st.booleans())},
        "policy": {"files": draw(st.dictionaries(st.sampled_from(names), st.text(SAFE, min_size=1)))},
    }


@given(values())
@settings(max_examples=25, phases=[Phase.explicit, Phase.generate])
def test_whatever_the_values_the_rules_hold(drawn: dict[str, Any]) -> None:
    rendered = render(drawn)
    rules.check(rendered, OUTSIDE)
    here = {agency["name"] for agency in drawn["agencies"] if "external" not in agency}
    asked = rules.configs(rendered)["gateway"]["departments"]
    assert {*rules.configs(rendered)} & {*AGENCIES} == here
    for agency in drawn["agencies"]:
        expected = agency.get("external", {}).get("target", f"{PREFIX}-{agency['name']}.{NAMESPACE}.svc:50051")
        assert asked[agency["name"]]["target"] == expected
    for name, text in drawn["recognition"]["calendars"].items():
        if drawn["recognition"]["enabled"]:
            assert rendered.of("ConfigMap")[f"{PREFIX}-recognition-calendars"]["data"][name] == text


# What is wrong, and how it is named.
BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "a typo at the top": ({"agencis": []}, "additional properties 'agencis' not allowed"),
    "a typo below": ({"gateway": {"replica": 2}}, "at '/gateway': additional properties 'replica' not allowed"),
    "a typo in a node's config": (
        {"gateway": {"config": {"limits": {"deadlin": "5s"}}}},
        "at '/gateway/config/limits': additional properties 'deadlin' not allowed",
    ),
    "a setting of another kind of node": (
        {"gateway": {"config": {"break_glass": True}}},
        "at '/gateway/config': additional properties 'break_glass' not allowed",
    ),
    "what the chart itself fills in": (
        {"defaults": {"config": {"node": {"zone": "other.example"}}}},
        "at '/defaults/config': additional properties 'node' not allowed",
    ),
    "a duration that is none": ({"gateway": {"config": {"limits": {"deadline": "5 s"}}}}, "'5 s' does not match"),
    "an unknown agency": ({"agencies": [{"name": "custms"}]}, "at '/agencies/0/name': value must be one of"),
    "a service where an agency should be": ({"agencies": [{"name": "gateway"}]}, "at '/agencies/0/name'"),
    "no agency": ({"agencies": []}, "at '/agencies': minItems"),
    "agencies that are all switched off": (
        {"agencies": [{"name": "customs", "enabled": False}]},
        "agencies: all are switched off",
    ),
    "two agencies with one name": (
        {"agencies": [{"name": "customs"}, {"name": "quality"}, {"name": "customs", "replicas": 3}]},
        'agencies: two are called "customs", at positions 0 and 2',
    ),
    "no zone": ({"zone": ""}, "at '/zone': '' does not match"),
    "a zone in capitals": ({"zone": "Port.example"}, "at '/zone': 'Port.example' does not match"),
    "a zone that is too long": ({"zone": f"{'a' * 60}.{'b' * 10}"}, "at '/zone': maxLength"),
    "a policy of nobody's": ({"policy": {"files": {"custms": "x"}}}, "policy.files.custms: there is no such agency"),
    "a mapping that is not there": (
        {"agencies": [{"name": "customs", "live": {"customs.Penalty": {"mapping": "a.yaml", "key": "url"}}}]},
        'live customs.Penalty: there is no mapping "a.yaml"',
    ),
    "several replicas on one file": (
        {"defaults": {"database": {"kind": "sqlite"}}},
        "commerce: a SQLite file is one replica's",
    ),
    "bounds the wrong way round": (
        {"gateway": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}},
        "gateway: autoscaling.minReplicas is above maxReplicas",
    ),
    "no place for the authority": ({"certificates": {"source": "issuer"}}, "certificates.issuer.claim: name"),
    "no revocation list": (
        {"certificates": {"source": "certManager", "certManager": {"issuerRef": {"name": "a"}}}},
        "certificates.revocations.configMap: with source certManager",
    ),
    "no published keys": (
        {"certificates": {"source": "spire", "revocations": {"configMap": "a"}}},
        "keys.configMap: with source spire",
    ),
    "an issuer without a name": (
        {"certificates": {"source": "certManager", "revocations": {"configMap": "a"}}, "keys": {"configMap": "b"}},
        "certificates.certManager.issuerRef.name",
    ),
    "an unknown source": ({"certificates": {"source": "vault"}}, "at '/certificates/source': value must be one of"),
    "an identity provider without keys": (
        {"officers": {"audit": {"issuer": "x"}}},
        "at '/officers/audit': missing property 'jwks_url'",
    ),
    "keys over plain HTTP": (
        {"officers": {"audit": {"issuer": "x", "jwks_url": "http://id.example"}}},
        "at '/officers/audit/jwks_url'",
    ),
    "half an address": (
        {"agencies": [{"name": "customs", "external": {"target": "customs.example"}}]},
        "at '/agencies/0/external/target': 'customs.example' does not match",
    ),
    "no replica": ({"gateway": {"replicas": 0}}, "at '/gateway/replicas': minimum"),
}


@pytest.mark.parametrize("what", list(BAD))
def test_what_is_wrong_is_named(what: str) -> None:
    more, named = BAD[what]
    with pytest.raises(RefusedByHelm) as refused:
        render(zone(**more))
    assert named in str(refused.value)


def test_a_name_written_twice_by_hand_is_noticed() -> None:
    """In a YAML map helm would keep the last of two and say nothing; agencies are a list for that reason."""
    text = "zone: a.example\nagencies:\n  - name: customs\n  - name: customs\ncertificates: {issuer: {claim: a}}\n"
    with pytest.raises(RefusedByHelm, match="two are called"):
        render(text)


def test_the_schema_is_fresh() -> None:
    command = [sys.executable, str(REPOSITORY / "helm" / "schema.py"), "--check"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_policies_are_those_of_the_rooms() -> None:
    delivered = {f"{owner}.cedar": path.read_bytes() for owner, path in rooms.policies().items()}
    assert {path.name: path.read_bytes() for path in (CHART / "files" / "policy").iterdir()} == delivered


def test_the_schema_is_closed_everywhere() -> None:
    """A typo is refused at whatever depth: every object names its properties, but for those that Kubernetes checks."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    kubernetes = {"requests", "limits", "podSelector", "namespaceSelector", "ipBlock", "affinity", "global", "items"}
    open_ones: set[str] = set()

    def look(node: object, name: str) -> None:
        if isinstance(node, dict):
            found = cast("dict[str, Any]", node)
            if found.get("type") == "object" and "additionalProperties" not in found:
                open_ones.add(name)
            for key, below in found.items():
                look(below, key)
        elif isinstance(node, list):
            for below in cast("list[object]", node):
                look(below, name)

    look(schema, "")
    assert open_ones == kubernetes


def test_only_what_is_read_at_start_restarts_a_node() -> None:
    """Policies, mappings, calendars, officers' keys are followed by the running node; limits, procedures are not."""

    def checksums(
        calendar: str = "a", procedure: str = "a", mapping: str = "a", jwks: str = "{}", **more: Any
    ) -> dict[str, str]:
        rendered = render(
            zone(
                agencies=[{"name": "customs", "mappings": {"a.yaml": mapping}}, {"name": "quality"}],
                recognition={"calendars": {"CN-2027.yaml": calendar}, "procedures": {"a.yaml": procedure}},
                officers={"audit": {"issuer": "x", "jwks": jwks}},
                **more,
            )
        )
        templates = {name: each["spec"]["template"] for name, each in rendered.of("Deployment").items()}
        return {name: hashlib.sha256(json.dumps(each).encode()).hexdigest() for name, each in templates.items()}

    usual = checksums()
    policy = {"files": {"customs": "// another"}}
    assert checksums(calendar="b", mapping="b", jwks='{"keys": []}', policy=policy) == usual
    other = checksums(procedure="b", gateway={"config": {"limits": {"deadline": "3s"}}})
    assert {name for name in usual if usual[name] != other[name]} == {f"{PREFIX}-recognition", f"{PREFIX}-gateway"}


def test_a_policy_of_the_values_takes_the_place_of_the_delivered_one() -> None:
    data = render(zone(policy={"files": {"customs": "// none"}})).of("ConfigMap")[f"{PREFIX}-policy"]["data"]
    assert data["customs.cedar"].strip() == "// none"
    assert data["taxation.cedar"].strip() == rooms.policies()["taxation"].read_text(encoding="utf-8").strip()


def test_access_lists_of_the_values_take_the_place_of_the_delivered_ones() -> None:
    usual, text = render(zone()), "hutong.api.exchange.v1.FederationService: {Query: [harbour/*]}"
    assert all("access" not in config for config in rules.configs(usual).values())
    named = {name: {"access": text} for name in SERVICES}
    rendered = render(zone(agencies=[{"name": "customs", "access": text}, {"name": "quality"}], **named))
    placed = {name: config.get("access") for name, config in rules.configs(rendered).items()}
    assert placed == dict.fromkeys(("customs", *SERVICES), "/etc/hutong/access/access.yaml") | {"quality": None}
    for name in ("customs", *SERVICES):
        pod = rendered.of("Deployment")[f"{PREFIX}-{name}"]["spec"]["template"]["spec"]
        (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["mountPath"] == "/etc/hutong/access")
        (volume,) = (v for v in pod["volumes"] if v["name"] == mount["name"])
        assert rendered.of("ConfigMap")[volume["configMap"]["name"]]["data"]["access.yaml"].strip() == text


def test_an_agency_elsewhere_has_an_address_and_no_deployment() -> None:
    rendered = render(example("production-values.yaml"))
    assert {name.removeprefix(f"{PREFIX}-") for name in rendered.of("Deployment")} == {"commerce", "customs", *SERVICES}
    gateway = rules.configs(rendered)["gateway"]
    assert gateway["departments"]["taxation"] == {"target": "hutong.taxation.example:443", "timeout": "3s"}
    assert "quality" not in gateway["departments"]
    policies = rendered.of("NetworkPolicy")
    there = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    assert {"ports": [{"port": 443}], "to": there} in policies[f"{PREFIX}-gateway"]["spec"]["egress"]
    # It hears of revocations, follows events and has authorizations checked, as any node does.
    called = {"ports": [{"port": "grpc"}], "from": there}
    let_in = {name for name, each in policies.items() if called in each["spec"].get("ingress", ())}
    assert let_in == {f"{PREFIX}-{name}" for name in SERVICES}


def test_a_broker_carries_events_where_there_is_one() -> None:
    """The nodes reach it, and nobody else does; without one they follow each other."""
    rendered = render(example("production-values.yaml"))
    configs = rules.configs(rendered)
    assert configs["customs"]["events"]["recognition"]["carrier"] == "nats"
    assert configs["recognition"]["nats"]["readers"] == ["commerce/node", "customs/node"]
    policies = rendered.of("NetworkPolicy")
    reached = {
        name.removeprefix(f"{PREFIX}-")
        for name, policy in policies.items()
        if {"ports": [{"port": 4222}]} in policy["spec"].get("egress", ())
    }
    assert reached == {"commerce", "customs", "recognition"}
    assert not [each for each in rules.configs(render(zone())).values() if "nats" in each]
    # An agency elsewhere reads over it where it is named.
    named = {"servers": ["nats.messaging.svc:4222"], "readers": ["customs/node", "taxation/node"]}
    agencies = [{"name": "customs"}, {"name": "taxation", "external": {"target": "hutong.taxation.example:443"}}]
    recognition = {"config": {"nats": {"readers": named["readers"]}}}
    values = zone(agencies=agencies, nats={"servers": named["servers"]}, recognition=recognition)
    assert rules.configs(render(values))["recognition"]["nats"] == named


def test_other_zones_are_asked_and_ask_at_a_door_of_their_own() -> None:
    """What was brought is mounted, what is heard is kept where the pod may write, and only their gateways get there."""
    rendered = render(zone(zones={"inland.example": INLAND, "far.example": FAR}))
    rules.check(rendered)
    configs = rules.configs(rendered)
    gateway = configs["gateway"]
    assert gateway["door"] == {"listen": "0.0.0.0:50061"}
    assert gateway["zones"]["inland.example"] == {
        "bundle": "/etc/hutong/zones/inland.example/bundle.crt",
        "revoked": "/etc/hutong/zones/inland.example/revoked.crl",
        "folder": "/tmp/zones/inland.example",
        "target": "gateway.inland.example:443",
        "asked_by": ["taxation/*"],
        "may_ask": ["customs/*"],
    }
    # Of one that is asked through another nothing is heard: its files count as they lie, and are followed there.
    assert gateway["zones"]["far.example"] == {
        "bundle": "/etc/hutong/zones/far.example/bundle.crt",
        "longest_life": "1h",
        "via": "inland.example",
        "asked_by": ["taxation/*"],
    }
    assert {name for name, config in configs.items() if config.get("zones") == ["inland.example"]} == {*AGENCIES}
    policies = rendered.of("NetworkPolicy")
    there = [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    door = {"ports": [{"port": "door"}], "from": there}
    assert [name for name, each in policies.items() if door in each["spec"].get("ingress", ())] == [f"{PREFIX}-gateway"]
    assert {"ports": [{"port": 443}], "to": there} in policies[f"{PREFIX}-gateway"]["spec"]["egress"]
    assert {"name": "door", "port": 50061, "targetPort": "door"} in rendered.of("Service")[f"{PREFIX}-gateway"]["spec"][
        "ports"
    ]


CALLS: Mapping[str, set[str]] = {
    "commerce": {"gateway", "recognition", "supervision", "taxation"},
    "taxation": {"gateway", "recognition", "supervision", "customs"},
    "customs": {"gateway", "recognition", "supervision", "quality"},
    "quality": {"gateway", "recognition", "supervision", "publicsecurity"},
    "publicsecurity": {"gateway", "recognition", "supervision"},
    "recognition": {"gateway", "supervision"},
    "supervision": {"gateway"},
    "gateway": {*AGENCIES, "recognition", "supervision"},
}
"""Whom each node of a whole zone calls, and nobody else does."""


def test_who_calls_whom() -> None:
    """By the configs, by the NetworkPolicies of either end, and by the table of the documentation."""
    rendered = render(zone())
    expected = {(caller, callee) for caller, callees in CALLS.items() for callee in callees}
    assert rules.called(rendered) == expected
    assert rules.allowed(rendered) == (expected, expected)
    text = (REPOSITORY / "docs" / "design.md").read_text(encoding="utf-8").partition("### Who calls whom")[2]
    cells = [re.split(r" *\| *", row)[1:3] for row in text.partition("\n#")[0].splitlines() if row.startswith("| `")]
    names = re.compile(r"`(\w+)`")
    shown = [set(itertools.product(names.findall(callers), names.findall(callees))) for callers, callees in cells]
    assert set[tuple[str, str]]().union(*shown) == expected
    for name, policy in rendered.of("NetworkPolicy").items():
        rest = [rule["ports"] for rule in policy["spec"].get("egress") or () if not rule.get("to")]
        assert rest == ([[{"port": 5432}]] if name.removeprefix(f"{PREFIX}-") in CALLS else []), name


def test_a_table_that_is_read_live_is_reached_from_a_trial_too() -> None:
    live = {"customs.Penalty": {"mapping": "a.yaml", "key": "penalties-url"}}
    agencies = [{"name": "customs", "mappings": {"a.yaml": "a"}, "live": live}, {"name": "quality"}]
    rules.check(render(zone(agencies=agencies, defaults={"replicas": 1, "database": {"kind": "sqlite"}})))


def test_who_may_call_from_outside_the_release() -> None:
    rendered = render(zone())
    caller = {"podSelector": {"matchLabels": {"hutong/caller": "true"}}}
    open_to = {
        name.removeprefix(f"{PREFIX}-")
        for name, policy in rendered.of("NetworkPolicy").items()
        for rule in policy["spec"].get("ingress") or ()
        if caller in rule["from"]
    }
    assert open_to == set(SERVICES)


def test_hooks_come_in_order_and_what_they_read_before_them() -> None:
    """Policies are checked before databases are migrated, and both before identities are made."""
    rendered = render(zone(defaults={"database": {"owner": {"enabled": True}}}))
    weights = {
        f"{each['kind']}/{each['metadata']['name']}": int(notes.get("helm.sh/hook-weight", "0"))
        for each in rendered.documents
        if "pre-install" in (notes := each["metadata"].get("annotations", {})).get("helm.sh/hook", "")
    }
    jobs = [name for name in sorted(weights, key=lambda name: weights[name]) if name.startswith("Job/")]
    names = [f"Job/{PREFIX}-{name}-database" for name in sorted((*AGENCIES, *SERVICES))]
    assert [jobs[0], sorted(jobs[1:-1]), jobs[-1]] == [f"Job/{PREFIX}-policy", names, f"Job/{PREFIX}-issuer"]
    for name, spec in rendered.pods():
        if name in jobs:
            for volume in spec["volumes"]:
                if found := volume.get("configMap", {}).get("name"):
                    assert weights[f"ConfigMap/{found}"] < weights[name], name


def test_a_node_whose_tables_another_role_owns_does_not_migrate() -> None:
    agencies = [{"name": "customs", "database": {"owner": {"enabled": True}}}, {"name": "quality"}]
    rendered = render(zone(agencies=agencies))
    configs = rules.configs(rendered)
    assert (configs["customs"]["store"]["migrate"], configs["customs"]["log"]["migrate"]) == (False, False)
    assert (configs["quality"]["store"]["migrate"], configs["quality"]["log"]["migrate"]) == (True, True)
    assert [name for name in rendered.of("Job") if name.endswith("-database")] == [f"{PREFIX}-customs-database"]
    pods = dict(rendered.pods())
    secrets = [volume.get("secret", {}).get("secretName") for volume in pods[f"Deployment/{PREFIX}-customs"]["volumes"]]
    assert f"{PREFIX}-customs-owner" not in secrets


def test_load_moves_the_replicas_of_gateway_and_departments_only() -> None:
    rendered = render(zone(defaults={"autoscaling": {"enabled": True}}))
    assert set(rendered.of("HorizontalPodAutoscaler")) == {f"{PREFIX}-{name}" for name in (*AGENCIES, "gateway")}
    assert rendered.of("Deployment")[f"{PREFIX}-recognition"]["spec"]["replicas"] == 2


def test_several_zones_stand_beside_each_other() -> None:
    """Releases share no name and no selector."""
    found: list[set[tuple[str, str]]] = []
    chosen: list[set[str]] = []
    for release in ("north", "south"):
        text = helm(
            "template", release, CHART, "--values", CHART / "ci" / "trial-values.yaml", "--kube-version", KUBERNETES
        )
        documents = [each for each in yaml.safe_load_all(text) if each]
        found.append({(each["kind"], each["metadata"]["name"]) for each in documents})
        chosen.append({*selectors(documents)})
    assert not found[0] & found[1]
    assert chosen[0]
    assert not chosen[0] & chosen[1]


def selectors(document: object) -> Iterator[str]:
    """Every `matchLabels` and every service's selector, wherever it stands."""
    if isinstance(document, dict):
        found = cast("dict[str, Any]", document)
        chosen = (found.get("matchLabels"), found.get("selector"))
        yield from (json.dumps(each) for each in chosen if each and "app.kubernetes.io/name" in each)
        for below in found.values():
            yield from selectors(below)
    elif isinstance(document, list):
        for below in cast("list[object]", document):
            yield from selectors(below)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_notes_name_everything_that_has_to_be_there_beside_the_release(text: str, tmp_path: Path) -> None:
    """What pods mount, and neither the release nor cert-manager makes; and where external agencies are."""
    file = tmp_path / "values.yaml"
    file.write_text(text, encoding="utf-8")
    notes = helm("install", RELEASE, CHART, "--namespace", NAMESPACE, "--values", file, "--dry-run=client")
    notes, _, following = notes.partition("NOTES:")[2].partition("\nNext:\n")
    assert following.splitlines()[:2] == [
        f"  kubectl -n {NAMESPACE} rollout status deployment/{PREFIX}-gateway",
        f"  helm test {RELEASE} -n {NAMESPACE}",
    ]
    rendered = render(text)
    assert f"{PREFIX}-gateway" in rendered.of("Deployment")
    assert [each["metadata"]["annotations"]["helm.sh/hook"] for each in rendered.of("Pod").values()] == ["test"]
    issued = {each["spec"]["secretName"] for each in rendered.of("Certificate").values()}
    for _, spec in rendered.pods():
        for volume in spec["volumes"]:
            named = {
                volume.get("secret", {}).get("secretName", ""),
                volume.get("configMap", {}).get("name", ""),
                volume.get("persistentVolumeClaim", {}).get("claimName", ""),
                *(
                    source.get("configMap", {}).get("name", "")
                    for source in volume.get("projected", {}).get("sources", ())
                ),
            }
            for name in named - {"", *issued, *rendered.of("ConfigMap")}:
                assert f" {name}" in notes
    outside = [each["external"]["target"] for each in yaml.safe_load(text)["agencies"] if "external" in each]
    for target in outside:
        assert f"{target}, external" in notes


def test_what_the_operators_of_prometheus_and_grafana_are_given() -> None:
    """Every node is scraped once, as a job that the alerts know; the rules and the dashboard are those of the files."""
    rendered = render(example("production-values.yaml"))
    (monitor,) = [each["spec"] for each in rendered.of("ServiceMonitor").values()]
    ((endpoint,), wanted) = monitor["endpoints"], monitor["selector"]["matchLabels"].items()
    services = [each for each in rendered.of("Service").values() if wanted <= each["metadata"]["labels"].items()]
    scraped = [each for each in services if endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}]
    assert {each["metadata"]["name"] for each in scraped} == {*rendered.of("Deployment")}
    relabelled = {each["targetLabel"]: each for each in endpoint["relabelings"]}
    job, node = relabelled["job"], relabelled["node"]
    assert job["sourceLabels"] == ["__meta_kubernetes_service_name"]
    assert node["sourceLabels"] == ["__meta_kubernetes_service_label_hutong_node"]
    alerts = (CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    (known,) = set(re.findall(r'job=~"([^"]+)"', alerts))
    for service in scraped:
        made = re.sub(f"^{job['regex']}$", job["replacement"].replace("$1", r"\1"), service["metadata"]["name"])
        assert re.fullmatch(known, made)
        assert service["metadata"]["labels"]["hutong/node"] in service["metadata"]["name"]
    (rule,) = rendered.of("PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load(alerts)
    dashboard = json.loads(rendered.of("ConfigMap")[f"{PREFIX}-dashboard"]["data"]["hutong.json"])
    assert dashboard == json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))


def test_a_certificate_of_cert_manager_is_what_nodes_take() -> None:
    certificate = render(example("production-values.yaml")).of("Certificate")[f"{PREFIX}-gateway"]["spec"]
    assert certificate["uris"] == ["spiffe://port.example/gateway/main"]
    assert certificate["dnsNames"] == ["main.gateway.port.example"]
    assert certificate["privateKey"]["algorithm"] == "ECDSA"
    assert set(certificate["usages"]) == {"digital signature", "server auth", "client auth"}


def test_nothing_beside_the_chart_is_packed(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    listed = subprocess.run(["tar", "tzf", package], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in listed if "/ci/" in name or "/." in name]
    assert "hutong/values.schema.json" in listed
