"""What holds of every rendering, whatever the values: each rule looks at the documents, and at nothing else."""

import tomllib
from typing import Any

from gateway.config import GatewayConfig
from services.kit.config import DepartmentConfig, NodeConfig
from services.recognition.config import RecognitionConfig
from services.supervision.config import SupervisionConfig
from tests.helm.chart import NAMESPACE, PREFIX, Document, Rendered

MODELS: dict[str, type[NodeConfig]] = {
    "recognition": RecognitionConfig,
    "supervision": SupervisionConfig,
    "gateway": GatewayConfig,
}

Arrows = set[tuple[str, str]]

DATABASE = 5432
"""The port of `networkPolicy.database`, unless the values say another."""
SPREAD = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]


def configs(rendered: Rendered) -> dict[str, dict[str, Any]]:
    """Every node's config, by node."""
    deployments = rendered.of("Deployment")
    texts = {name: rendered.of("ConfigMap")[name]["data"]["node.toml"] for name in deployments}
    return {name.removeprefix(f"{PREFIX}-"): tomllib.loads(text) for name, text in texts.items()}


def check_configs(rendered: Rendered) -> None:
    """Every config is one that the node's own model takes, and is the identity's that its deployment is for."""
    for name, raw in configs(rendered).items():
        read = MODELS.get(name, DepartmentConfig).model_validate(raw)
        assert read.node.agency == name
        assert read.log is not None
        container = rendered.of("Deployment")[f"{PREFIX}-{name}"]["spec"]["template"]["spec"]["containers"][0]
        assert container["args"][:2] == ["serve", name]


def called(rendered: Rendered) -> Arrows:
    """Who calls whom of the release, as the configs say."""
    places = {f"{PREFIX}-{name}.{NAMESPACE}.svc:50051": name for name in configs(rendered)}
    return {
        (name, places[target]) for name, raw in configs(rendered).items() for target in targets(raw) if target in places
    }


def targets(raw: Any) -> set[str]:
    """Every `target` anywhere in a config."""
    if not isinstance(raw, dict):
        return set()
    found: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
    below = set[str]().union(*(targets(value) for value in found.values()))
    return below | ({found["target"]} if "target" in found else set())


def allowed(rendered: Rendered) -> tuple[Arrows, Arrows]:
    """Who may call whom of the release, as the network policies of callers say, and as those of the called say."""
    out: Arrows = set()
    into: Arrows = set()
    for policy in rendered.of("NetworkPolicy").values():
        own = policy["spec"]["podSelector"]["matchLabels"].get("hutong/node")
        if own is None:
            continue
        out |= {(own, peer) for rule in policy["spec"].get("egress") or () for peer in nodes(rule.get("to"))}
        into |= {(peer, own) for rule in policy["spec"].get("ingress") or () for peer in nodes(rule.get("from"))}
    return out, into


def nodes(peers: list[Document] | None) -> set[str]:
    """The nodes among a rule's peers."""
    labels = [peer.get("podSelector", {}).get("matchLabels", {}) for peer in peers or ()]
    return {label["hutong/node"] for label in labels if "hutong/node" in label}


def check_network(rendered: Rendered) -> None:
    """Nodes may call each other exactly where a config says that they do; nothing else of the release may at all."""
    out, into = allowed(rendered)
    assert out == called(rendered)
    assert into == called(rendered)
    denied = rendered.of("NetworkPolicy")[f"{PREFIX}-deny"]["spec"]
    assert denied["policyTypes"] == ["Ingress", "Egress"]
    assert not denied.keys() & {"ingress", "egress"}
    assert set(denied["podSelector"]["matchLabels"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    for policy in rendered.of("NetworkPolicy").values():
        for rule in policy["spec"].get("ingress") or ():
            assert rule.get("from"), "an empty `from` is everybody"


def open_ends(raw: dict[str, Any], places: set[str]) -> set[int]:
    """The ports at which a node may call any address, unless the values narrow it: nobody there has a label of ours."""
    elsewhere = [target for target in targets(raw) if target not in places]
    elsewhere += raw.get("nats", {}).get("servers", ())
    collector = raw.get("telemetry", {}).get("otlp")
    providers = any("jwks_url" in officer for officer in raw.get("officers", {}).values())
    ports = {int(address.rpartition(":")[2]) for address in (*elsewhere, *([collector] if collector else ()))}
    ports |= {443} if providers else set[int]()
    return ports | ({DATABASE} if asks_database(raw) else set[int]())


def asks_database(raw: dict[str, Any]) -> bool:
    """Whether a node has a database that is no file: its own, or one that it reads live."""
    return "url_file" in raw["log"] or "live" in raw


def check_ports(rendered: Rendered) -> None:
    """Every rule names its ports, metrics and the door for themselves; `to` is missing at open ends only."""
    places = {f"{PREFIX}-{name}.{NAMESPACE}.svc:50051" for name in configs(rendered)}
    ends = {name: open_ends(raw, places) for name, raw in configs(rendered).items()}
    for name, policy in rendered.of("NetworkPolicy").items():
        own = policy["spec"]["podSelector"]["matchLabels"].get("hutong/node")
        for rule in policy["spec"].get("ingress") or ():
            ports = [each["port"] for each in rule["ports"]]
            assert ports in (["grpc"], ["grpc", "tiles"], ["door"], ["metrics"]), name
            assert ports == ["grpc"] or not nodes(rule["from"]), name
        out = policy["spec"].get("egress") or ()
        for rule in out:
            ports = [each["port"] for each in rule["ports"]]
            assert ports, f"{name}: no port is every port"
            assert (ports == [50051]) == bool(nodes(rule.get("to"))), name
            if not rule.get("to"):
                assert {*ports} <= ends.get(own, {DATABASE}), name
        if own:
            reached = {each["port"] for rule in out for each in rule["ports"]}
            assert (DATABASE in reached) == asks_database(configs(rendered)[own]), name


def check_spread(rendered: Rendered) -> None:
    """Of several replicas only so many are away at a time; and all are spread over zones and machines."""
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in rendered.of("HorizontalPodAutoscaler").values()}
    deployments = rendered.of("Deployment")
    several = {name for name, each in deployments.items() if name in scaled or each["spec"]["replicas"] > 1}
    assert set(rendered.of("PodDisruptionBudget")) == several
    for name, deployment in deployments.items():
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
        assert [each["topologyKey"] for each in spread] == SPREAD, name
        for each in spread:
            assert each["labelSelector"] == deployment["spec"]["selector"], name
            assert each["labelSelector"]["matchLabels"]["hutong/node"] == name.removeprefix(f"{PREFIX}-")
            assert each["whenUnsatisfiable"] == "ScheduleAnyway", "one machine is enough for a trial"


def check_restricted(rendered: Rendered) -> None:
    """Every pod keeps to the restricted Pod Security Standard, and to more: no token, no writing but to volumes.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for name, spec in rendered.pods():
        assert spec["automountServiceAccountToken"] is False, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName"}, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"], name
            assert container["resources"]["limits"]["memory"], name
        for volume in spec["volumes"]:
            (kind,) = volume.keys() - {"name"}
            assert kind in {"configMap", "secret", "projected", "emptyDir", "persistentVolumeClaim", "csi"}, name
            if kind == "secret":
                assert volume["secret"]["defaultMode"] & 0o007 == 0, name


def check_volumes(rendered: Rendered, outside: set[str]) -> None:
    """What is mounted is there: rendered, or named in the values; and every path in a config lies in a mount."""
    own = rendered.of("ConfigMap")
    for name, spec in rendered.pods():
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = spec["containers"][0]["volumeMounts"]
        mounted = {mount["name"] for mount in mounts}
        mounted |= {mount["name"] for each in spec.get("initContainers", ()) for mount in each["volumeMounts"]}
        assert mounted == set(volumes), name
        places = [mount["mountPath"] for mount in mounts]
        assert len(places) == len(set(places)), name
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in {*own, *outside}, name
        for mount in mounts:
            # With a subPath, the kubelet would not follow a change.
            assert not (mount.get("subPath") and {"configMap", "secret"} & volumes[mount["name"]].keys()), name
        if name.startswith("Deployment/"):
            raw = configs(rendered)[name.removeprefix(f"Deployment/{PREFIX}-")]
            for path in paths(raw):
                assert any(path == place or path.startswith(f"{place}/") for place in places), (name, path)


def paths(raw: Any) -> set[str]:
    """Every absolute path in a config."""
    match raw:
        case dict():
            values: list[Any] = list(raw.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            return set[str]().union(*map(paths, values))
        case list():
            items: list[Any] = raw  # pyright: ignore[reportUnknownVariableType]
            return set[str]().union(*map(paths, items))
        case str() if raw.startswith("sqlite"):
            return {raw.partition(":///")[2]}
        case str() if raw.startswith("/"):
            return {raw}
        case _:
            return set()


def check_selectors(rendered: Rendered) -> None:
    """A service, a budget, a deployment select the pods of one node; never those of a job, or of the test hook."""
    pods = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in rendered.of("Deployment").items()}
    others = [each["metadata"]["labels"] for each in rendered.of("Pod").values()]
    for name, service in rendered.of("Service").items():
        wanted = service["spec"]["selector"].items()
        assert [pod for pod, labels in pods.items() if wanted <= labels.items()] == [name.removesuffix("-public")]
        assert not [labels for labels in others if wanted <= labels.items()]
    for name, budget in rendered.of("PodDisruptionBudget").items():
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        assert [pod for pod, labels in pods.items() if wanted <= labels.items()] == [name]
    for name, scaler in rendered.of("HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in rendered.of("Deployment")[name]["spec"]


def check(rendered: Rendered, outside: set[str] | None = None) -> None:
    """Check every rule; `outside` names ConfigMaps that the values refer to."""
    check_configs(rendered)
    if rendered.of("NetworkPolicy"):
        check_network(rendered)
        check_ports(rendered)
    check_spread(rendered)
    check_restricted(rendered)
    check_volumes(rendered, outside or set())
    check_selectors(rendered)
