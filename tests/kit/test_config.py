"""Config files: typed, complete, strict, and kind about what is wrong."""

import datetime as dt
from pathlib import Path

import pytest

from services.kit import config
from services.kit.config import DepartmentConfig
from services.kit.errors import FailedPrecondition, Reason

GOOD = """
secret = "secret"
[node]
zone = "zone.example"
agency = "customs"
listen = "127.0.0.1:0"
[tls]
certificate = "svid.pem"
key = "/elsewhere/svid.pem"
bundle = "bundle.crt"
revoked = "revoked.crl"
[store]
url = "sqlite+aiosqlite:///customs.db"
[policy]
files = ["customs.cedar"]
reload = "250ms"
"""


def read(tmp_path: Path, text: str) -> DepartmentConfig:
    path = tmp_path / "customs.toml"
    path.write_text(text)
    return config.read(path, DepartmentConfig)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.tls.certificate == tmp_path / "svid.pem"
    assert found.tls.key == Path("/elsewhere/svid.pem")
    assert found.policy.files == [tmp_path / "customs.cedar"]
    assert found.store.read_url(tmp_path) == f"sqlite+aiosqlite:///{tmp_path}/customs.db"


def test_durations_are_text(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD).policy.reload == dt.timedelta(milliseconds=250)


def test_a_url_with_a_password_is_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql+psycopg://hutong:secret@localhost/customs\n")
    found = read(tmp_path, GOOD.replace('url = "sqlite+aiosqlite:///customs.db"', 'url_file = "url"'))
    assert found.store.read_url(tmp_path) == "postgresql+psycopg://hutong:secret@localhost/customs"


@pytest.mark.parametrize(
    ("wrong", "reason", "words"),
    [
        (
            GOOD.replace("reload", "relaod"),
            Reason.CONFIG_UNKNOWN_KEY,
            "policy.relaod: unknown key; did you mean 'reload'",
        ),
        (GOOD.replace("[store]", "[stores]"), Reason.CONFIG_UNKNOWN_KEY, "did you mean 'store'"),
        (GOOD.replace('"250ms"', '"soon"'), Reason.CONFIG_INVALID, "is no duration"),
        (GOOD.replace("127.0.0.1:0", "localhost"), Reason.CONFIG_INVALID, "is no address"),
        (GOOD.replace("127.0.0.1:0", "h:70000"), Reason.CONFIG_INVALID, "is no address"),
        (GOOD.replace('secret = "secret"', ""), Reason.CONFIG_INVALID, "secret: Field required"),
        (GOOD.replace('["customs.cedar"]', "[]"), Reason.CONFIG_INVALID, "policy.files"),
        (GOOD.replace("[node]", "[node"), Reason.CONFIG_INVALID, "customs.toml"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, wrong: str, reason: Reason, words: str) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        read(tmp_path, wrong)
    assert refused.value.reason is reason
    assert words in refused.value.message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        config.read(tmp_path / "none.toml", DepartmentConfig)
    assert refused.value.reason is Reason.CONFIG_FILE_MISSING


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition) as refused:
        read(tmp_path, GOOD.replace("127.0.0.1:0", "nowhere").replace('"250ms"', '"soon"'))
    assert "node.listen" in refused.value.message
    assert "policy.reload" in refused.value.message
