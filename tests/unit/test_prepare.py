"""What containers need around the services: secrets from files, `prepare`, `health`, and the dashboard's page."""

import json
import stat
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from prime.adapters.dashboard import dashboard_routes
from prime.adapters.settings import given_token, read_token, redis_password
from prime.errors import PeerUnavailable, SettingsError
from primectl.health import check_health
from primectl.prepare import run_prepare


def test_a_secret_comes_from_its_variable_or_from_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRIME_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    monkeypatch.setenv("PRIME_TOKEN_FILE", str(file))
    assert given_token() == read_token(None) == "from-a-file"
    monkeypatch.setenv("PRIME_TOKEN", "given")
    assert given_token() == "given"
    monkeypatch.setenv("PRIME_REDIS_PASSWORD_FILE", str(tmp_path / "nothing"))
    with pytest.raises(SettingsError, match=r"PRIME_REDIS_PASSWORD_FILE = .*nothing cannot be read"):
        redis_password()


def test_secrets_are_made_once_and_read_by_the_group_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PRIME_TOKEN", "PRIME_REDIS_PASSWORD", "PRIME_TOKEN_FILE", "PRIME_REDIS_PASSWORD_FILE"):
        monkeypatch.delenv(variable, raising=False)
    token, redis = tmp_path / "token" / "token", tmp_path / "redis"
    files = (token, redis / "password", redis / "users.acl")
    run_prepare(token=token, redis=redis, demo=None)
    first = [file.read_text() for file in files]
    run_prepare(token=token, redis=redis, demo=None)
    assert [file.read_text() for file in files] == first
    assert len({text.strip() for text in first[:2]}) == 2
    assert all(len(text.strip()) == 32 for text in first[:2])
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}
    assert f">{first[1].strip()} ~prime:*" in first[2]
    assert "user default off" in first[2]


def test_given_secrets_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIME_TOKEN", "mine")
    run_prepare(token=tmp_path / "token", redis=None, demo=None)
    assert (tmp_path / "token").read_text() == "mine\n"
    monkeypatch.setenv("PRIME_TOKEN", "another")
    run_prepare(token=tmp_path / "token", redis=None, demo=None)
    assert (tmp_path / "token").read_text() == "another\n"
    monkeypatch.delenv("PRIME_TOKEN")
    run_prepare(token=tmp_path / "token", redis=None, demo=None)
    assert (tmp_path / "token").read_text() == "another\n"


def test_nothing_to_prepare_is_an_error() -> None:
    with pytest.raises(SettingsError, match="give --token-file, --redis or --demo"):
        run_prepare(token=None, redis=None, demo=None)


def test_a_service_that_does_not_answer_is_not_healthy() -> None:
    with pytest.raises(PeerUnavailable, match=r"127\.0\.0\.1:1/healthz does not answer"):
        check_health("http://127.0.0.1:1/healthz")
    with pytest.raises(PeerUnavailable, match="does not answer: unknown url type"):
        check_health("127.0.0.1/healthz")


@pytest.fixture
def dashboard(tmp_path: Path) -> TestClient:
    app = FastAPI()
    dashboard_routes(tmp_path)(app)
    return TestClient(app)


def test_the_dashboard_tells_what_the_run_folders_hold(dashboard: TestClient, tmp_path: Path) -> None:
    assert dashboard.get("/api/runs").json() == []
    (tmp_path / "one").mkdir()
    rows = [{"step": number, "eval/accuracy": number / 10} for number in range(3)]
    half_a_line = '{"step": 3, "eval/acc'
    (tmp_path / "one" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + half_a_line)
    assert dashboard.get("/api/runs").json() == ["one"]
    assert dashboard.get("/api/runs/one").json() == rows
    assert dashboard.get("/api/runs/one?after=1").json() == rows[2:]
    assert dashboard.get("/").headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("name", ["two", "..%2Fone", "%2Fetc"])
def test_a_run_that_is_not_there_is_not_looked_for_elsewhere(dashboard: TestClient, name: str) -> None:
    assert dashboard.get(f"/api/runs/{name}").status_code == 404
