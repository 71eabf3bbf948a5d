"""Database URLs: what they say of a connection, and which servers have to prove who they are."""

from pathlib import Path

import pytest

from services.kit import config
from services.kit.config import DatabaseSection, DepartmentConfig, LogSection, StoreSection
from services.kit.errors import FailedPrecondition, Reason
from services.kit.records import urls
from tests.kit.test_config import GOOD

PROVEN = "sslmode=verify-full&sslrootcert=/etc/roots.pem"


def reason(url: str) -> Reason | None:
    try:
        urls.check_proven(url)
    except FailedPrecondition as error:
        return error.reason
    return None


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////var/lib/store.db",
        "postgresql://localhost/db",
        "postgresql+psycopg://me@127.0.0.9:5432/db",
        "postgresql://[::1]/db",
        "postgresql://me@/db?host=/run/postgresql",
        f"postgresql://me@db.internal/db?{PROVEN}",
        "postgresql://me@db.internal/db?sslmode=verify-full&sslrootcert=system",
    ],
)
def test_servers_that_are_here_or_prove_who_they_are(url: str) -> None:
    assert reason(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://db.internal/db",
        "postgresql://10.0.0.7/db?sslmode=require",
        "postgresql://db.internal/db?sslmode=verify-ca&sslrootcert=/etc/roots.pem",
        "postgresql://db.internal/db?sslmode=verify-full",
        "postgresql://me@/db?host=/run/postgresql,db.internal",
        "postgresql://localhost/db?hostaddr=10.0.0.7",
        "postgresql:///db?service=production",
        "postgresql://localhost.evil.example/db",
        "mysql+pymysql://db.internal/db",
    ],
)
def test_servers_that_need_not_are_refused(url: str) -> None:
    assert reason(url) is Reason.STORE_UNPROVEN


def test_what_a_url_leaves_open_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason("postgresql:///db") is None
    monkeypatch.setenv("PGHOST", "db.internal")
    assert reason("postgresql:///db") is Reason.STORE_UNPROVEN


def read(tmp_path: Path, store: str) -> DepartmentConfig:
    path = tmp_path / "node.toml"
    path.write_text(GOOD.replace('url = "sqlite+aiosqlite:///customs.db"', store))
    return config.read(path, DepartmentConfig)


def test_a_config_leads_to_no_server_that_proves_nothing(tmp_path: Path) -> None:
    away = 'url = "postgresql://db.internal/db"'
    with pytest.raises(FailedPrecondition, match="sslmode=verify-full") as caught:
        read(tmp_path, away).store.read_url(tmp_path)
    assert caught.value.reason is Reason.STORE_UNPROVEN
    said = read(tmp_path, f"{away}\ninsecure = true").store.read_url(tmp_path)
    assert said == "postgresql://db.internal/db"


def test_roots_lie_where_the_config_says(tmp_path: Path) -> None:
    """Also for a node that asks for the URL when the config's folder is long forgotten."""
    url = "postgresql://db.internal/db?sslmode=verify-full&sslrootcert=roots.pem"
    found = read(tmp_path, f'url = "{url}"').store.read_url(Path())
    assert urls.parse(found)[0].query["sslrootcert"] == str(tmp_path / "roots.pem")
    assert DatabaseSection(url=url.replace("roots.pem", "system")).read_url(tmp_path).endswith("sslrootcert=system")


def test_how_to_connect_goes_with_the_url(tmp_path: Path) -> None:
    usual = read(tmp_path, 'url = "postgresql://localhost/db"').store.read_url(tmp_path)
    assert (usual, urls.parse(usual)[1]) == ("postgresql://localhost/db", urls.USUAL)
    said = 'url = "postgresql://localhost/db"\npool = 9\nstatement_timeout = "2s"\nconnect_timeout = "3s"'
    parsed, settings = urls.parse(read(tmp_path, said).store.read_url(tmp_path))
    assert settings == urls.Settings(pool=9, statement_ms=2000, connect_s=3)
    assert parsed.query == {}
    lite = StoreSection(url=f"sqlite:///{tmp_path}/a.db", pool=2).read_url(tmp_path)
    assert (urls.parse(lite)[0].database, urls.parse(lite)[1].pool) == (f"{tmp_path}/a.db", 2)


@pytest.mark.parametrize("said", ["pool = 0", "pool = 101", 'statement_timeout = "1ms"', 'connect_timeout = "1s"'])
def test_limits_that_are_none(tmp_path: Path, said: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        read(tmp_path, f'url = "postgresql://localhost/db"\n{said}')
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("said", ["pool=0", "pool=x", "statement_timeout=-1"])
def test_a_url_that_says_nonsense(said: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        urls.parse(f"postgresql://localhost/db?{said}")
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    for url in ("postgresql://me:geheim@db.internal/db", "postgresql://me:geheim@[::/db"):
        with pytest.raises(FailedPrecondition) as caught:
            LogSection(url=url, key=tmp_path, keys=tmp_path).read_url(tmp_path)
        assert "geheim" not in caught.value.message


def test_a_url_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="url_file") as caught:
        read(tmp_path, 'url_file = "nowhere"').store.read_url(tmp_path)
    assert caught.value.reason is Reason.CONFIG_INVALID
