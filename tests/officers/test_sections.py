"""How a node's config says which identity providers it knows."""

from pathlib import Path

import pytest

from services.kit import config
from services.kit.config import NodeConfig
from services.kit.errors import FailedPrecondition, Reason

NODE = """
[node]
zone = "zone.example"
agency = "customs"
listen = "127.0.0.1:0"
[tls]
certificate = "svid.pem"
key = "svid.pem"
bundle = "bundle.crt"
revoked = "revoked.crl"
[officers.customs]
issuer = "https://login.customs.example"
"""


def read(tmp_path: Path, lines: str) -> NodeConfig:
    path = tmp_path / "node.toml"
    path.write_text(NODE + lines)
    return config.read(path, NodeConfig)


def test_keys_from_a_file(tmp_path: Path) -> None:
    section = read(tmp_path, 'jwks = "customs.jwks.json"').officers["customs"]
    assert section.jwks == tmp_path / "customs.jwks.json"
    assert section.algorithms == ["Ed25519"]


def test_keys_from_a_url(tmp_path: Path) -> None:
    lines = 'jwks_url = "https://login.customs.example/keys"\njwks_ca = "ca.pem"\nalgorithms = ["ES256", "PS256"]'
    section = read(tmp_path, lines).officers["customs"]
    assert (section.jwks_ca, section.algorithms) == (tmp_path / "ca.pem", ["ES256", "PS256"])


@pytest.mark.parametrize(
    "lines",
    [
        "",
        'jwks = "a"\njwks_url = "https://login.customs.example/keys"',
        'jwks = "a"\njwks_ca = "ca.pem"',
        'jwks_url = "http://login.customs.example/keys"',
        'jwks_url = "file:///keys"',
        'jwks = "a"\nalgorithms = []',
        'jwks = "a"\nalgorithms = ["none"]',
        'jwks = "a"\nalgorithms = ["HS256"]',
        'jwks = "a"\nalgorithms = ["RS256"]',
    ],
)
def test_what_does_not_stand(tmp_path: Path, lines: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        read(tmp_path, lines)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert "officers.customs" in refused.value.message
