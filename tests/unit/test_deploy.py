"""What the files under `deploy/` and the compose file say, held against the code: ports, variables, names, metrics."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from prime.adapters import settings as settings_module
from prime.adapters.telemetry import HistogramSpec
from primectl.config import RunConfig, load_config
from primectl.main import _parse
from tools.metrics_page import declared_metrics

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"].startswith("prime-")}
CONFIGS = sorted((ROOT / "deploy" / "configs").glob("*.toml"))
OBSERVABILITY = ROOT / "deploy" / "observability"


def config_of(path: Path) -> RunConfig:
    return load_config(path, [])


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def plain(text: str) -> str:
    """Compose's variables by their defaults."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", text)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_is_one_that_the_services_take(path: Path) -> None:
    config = config_of(path)
    assert config.trainer.peers.verifier == f"verifier:{port_of(config.verifier.listen)}"
    assert config.trainer.peers.prm == f"prm:{port_of(config.prm.listen)}"
    assert config.trainer.peers.rollout == (f"rollout:{port_of(config.rollout.listen)}",)


def test_the_demo_in_containers_is_the_demo() -> None:
    """It only adds where things lie and listen."""
    demo = tomllib.loads((ROOT / "primectl" / "demo.toml").read_text())
    contained = tomllib.loads((ROOT / "deploy" / "configs" / "demo.toml").read_text())

    def within(small: Mapping[str, Any], large: Mapping[str, Any]) -> bool:
        return all(
            within(value, large[key]) if isinstance(value, dict) else large[key] == value
            for key, value in small.items()
        )

    assert within(demo, contained)


@pytest.mark.parametrize("name", OURS)
def test_commands_are_ones_that_primectl_takes(name: str) -> None:
    target = OURS[name]["image"].removeprefix("prime-")
    _parse(list(map(plain, OURS[name].get("command") or image_command(target))))


def image_command(target: str) -> list[str]:
    """The last `CMD` of a target of the Dockerfile that begins a line."""
    stages = re.split(r"^FROM ", (ROOT / "deploy" / "Dockerfile").read_text(), flags=re.MULTILINE)
    (stage,) = [each for each in stages if re.match(rf"\S+ AS {target}\n", each)]
    found: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", stage, flags=re.MULTILINE)[-1])
    return found


def variables_that_the_code_reads() -> set[str]:
    """Every one of them may name a file instead."""
    return {
        f"{value}{ending}"
        for name, value in vars(settings_module).items()
        if name.endswith("_VARIABLE")
        for ending in ("", "_FILE")
    }


def test_variables_are_ones_that_the_code_reads() -> None:
    given = {variable for each in OURS.values() for variable in each.get("environment", {})}
    assert given <= variables_that_the_code_reads()
    assert {"PRIME_TOKEN", "PRIME_TOKEN_FILE", "PRIME_REDIS_PASSWORD_FILE"} <= given


def test_published_ports_are_loopback_and_served() -> None:
    config = config_of(ROOT / "deploy" / "configs" / "demo.toml")
    published = {name: list(map(plain, each["ports"])) for name, each in OURS.items() if "ports" in each}
    assert published == {
        "prm": [f"127.0.0.1:9152:{port_of(config.prm.ops_listen)}"],
        "dashboard": ["127.0.0.1:9160:9160"],
    }
    assert OURS["dashboard"]["command"][-1] == "0.0.0.0:9160"


def test_image_ports_and_health_checks_are_those_of_the_settings() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    config = config_of(ROOT / "deploy" / "configs" / "demo.toml")
    for service in (config.verifier, config.prm, config.trainer, config.rollout):
        assert f"EXPOSE {port_of(service.listen)} {port_of(service.ops_listen)}\n" in dockerfile
        assert re.search(rf"http://127\.0\.0\.1:{port_of(service.ops_listen)}/(readyz|healthz)", dockerfile)


def test_containers_are_given_longer_than_services_take_to_stop() -> None:
    config = config_of(ROOT / "deploy" / "configs" / "demo.toml")
    for each in SERVICES.values():
        assert int(each["stop_grace_period"].removesuffix("s")) > config.trainer.grace_seconds + 5


def test_containers_are_walled_in() -> None:
    for name, each in SERVICES.items():
        assert each["read_only"], name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert name == "setup" or each["networks"], name


def test_the_walls_as_written_leave_the_verifier_no_way() -> None:
    """Who shares a network with whom, from the file alone; `make test-compose` tries it."""
    networks = {name: set(each.get("networks") or ()) for name, each in SERVICES.items()}
    assert networks["verifier"] == {"grading"}
    for name in ("grading", "backend"):
        assert COMPOSE["networks"][name]["internal"]
        assert COMPOSE["networks"][name]["driver_opts"] == {"com.docker.network.bridge.inhibit_ipv4": "true"}
    beside = {name for name, each in networks.items() if "grading" in each} - {"verifier"}
    assert beside == {"trainer", "prometheus"}
    # Those two listen by a name that only the backend knows.
    assert [part for part in SERVICES["trainer"]["command"] if "listen=" in part] == [
        *("trainer.listen=control:50050", "trainer.ops_listen=control:9150"),
    ]
    assert "--web.listen-address=metrics:9090" in SERVICES["prometheus"]["command"]
    for name, alias in (("trainer", "control"), ("prometheus", "metrics")):
        assert SERVICES[name]["networks"]["backend"]["aliases"] == [alias]
        assert not SERVICES[name]["networks"]["grading"]


def expressions() -> Iterator[str]:
    for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for board in (OBSERVABILITY / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(board.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def test_every_metric_that_a_board_or_an_alert_names_exists() -> None:
    known: set[str] = set()
    for _, spec in declared_metrics():
        endings = ("_bucket", "_count", "_sum") if isinstance(spec, HistogramSpec) else ("",)
        known |= {f"{spec.name}{ending}" for ending in endings}
    assert {"prime_rpc_seconds_count", "prime_trainer_step", "prime_rollout_version"} <= known
    asked = {name for each in expressions() for name in re.findall(r"prime_[a-z_]+", each)}
    assert len(asked) > 12
    assert asked - known == set()


def test_every_alert_is_explained() -> None:
    page = (ROOT / "docs" / "deploy.md").read_text()
    for group in yaml.safe_load((OBSERVABILITY / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert f"| `{rule['alert']}` |" in page


def test_prometheus_asks_where_services_answer() -> None:
    config = config_of(ROOT / "deploy" / "configs" / "demo.toml")
    jobs = {
        each["job_name"]: each
        for each in yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert jobs["trainer"]["static_configs"][0]["targets"] == [f"control:{port_of(config.trainer.ops_listen)}"]
    assert jobs["prm"]["static_configs"][0]["targets"] == [f"prm:{port_of(config.prm.ops_listen)}"]
    for name in ("rollout", "verifier"):
        (found,) = jobs[name]["dns_sd_configs"]
        assert (found["names"], found["port"]) == ([name], port_of(getattr(config, name).ops_listen))
