"""`docker compose up` on a real engine: images, order of start, the loop, scaling, a crash, the walls, and the end.

The tests are one story and run in order, each on what the ones before left. Run by `make test-compose`.
"""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from prime.data.chain import draw_chains, prompt_of, solve
from primectl.places import free_ports

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
STEPS = 150
SERVICES = {"redis", "verifier", "prm", "rollout", "trainer", "dashboard"}
BASE = "python:3.11-slim-bookworm"
KEY = "the-key-that-was-given"
MIB = 1024 * 1024
REACH = """
import concurrent.futures, socket, sys
def answers(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        return True
    except OSError:
        return False
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    print(*(target for target, found in zip(sys.argv[1:], pool.map(answers, sys.argv[1:])) if found))
"""


@dataclass
class Stack:
    """One project of compose."""

    project: str
    environment: Mapping[str, str]
    api: str
    dashboard: str

    def compose(self, *arguments: str, timeout: float = 600.0) -> str:
        return run("docker", "compose", "-p", self.project, *arguments, environment=self.environment, timeout=timeout)

    def containers(self) -> list[dict[str, Any]]:
        """As `docker inspect` tells them, also those that have ended."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *ids))
        return found

    def of(self, service: str) -> list[dict[str, Any]]:
        return [each for each in self.containers() if service_of(each) == service]

    def metrics(self) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = json.loads(fetch(f"{self.dashboard}/api/runs/demo"))
        except OSError:  # there is no run yet
            rows = []
        return rows

    def wait_for(self, condition: Callable[[], Any], *, what: str, seconds: float = 240.0) -> Any:
        ends = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > ends:
                logs = self.compose("logs", "--no-color", "--tail", "15")
                pytest.fail(f"waited {seconds:.0f} s for {what}; the last of the logs:\n{logs}")
            time.sleep(0.3)
        return found


def run(*command: str, environment: Mapping[str, str] | None = None, timeout: float = 120.0) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def service_of(container: Mapping[str, Any]) -> str:
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


def fetch(url: str, *, key: str = "", body: Any = None) -> bytes:
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=20) as answer:
        return bytes(answer.read())


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo, with slower learning, so that there is something to learn in all steps."""
    config = tmp_path_factory.mktemp("config") / "run.toml"
    text = (ROOT / "deploy" / "configs" / "demo.toml").read_text()
    assert text.count("lr = 1e-4") == 2
    config.write_text(text.replace("lr = 1e-4", "lr = 2e-5").replace("every = 10", "every = 50"))
    api, dashboard = free_ports(2)
    environment = dict(os.environ) | {  # noqa: TID251  what docker needs, and what compose is told
        "PRIME_CONFIG": str(config),
        "PRIME_STEPS": str(STEPS),
        "PRIME_TOKEN": KEY,
        "PRIME_API_PORT": str(api),
        "PRIME_DASHBOARD_PORT": str(dashboard),
    }
    stack = Stack(
        project=f"prime-test-{secrets.token_hex(3)}",
        environment=environment,
        api=f"http://127.0.0.1:{api}",
        dashboard=f"http://127.0.0.1:{dashboard}",
    )
    try:
        stack.compose("up", "--build", "--detach", timeout=900)
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


def test_everything_comes_up_healthy(stack: Stack) -> None:
    def all_healthy() -> bool:
        states = {service_of(each): each["State"] for each in stack.containers()}
        health = {name: state["Health"]["Status"] for name, state in states.items() if "Health" in state}
        return health == dict.fromkeys(SERVICES, "healthy") and states["setup"]["ExitCode"] == 0

    stack.wait_for(all_healthy, what="all containers to be healthy")


def test_a_second_replica_is_used_by_the_pushes_that_follow(stack: Stack) -> None:
    stack.wait_for(lambda: len(stack.metrics()) > 3, what="the first steps")
    stack.compose("up", "--detach", "--no-recreate", "--scale", "rollout=2")
    stack.wait_for(lambda: stack.metrics()[-1].get("push/replicas") == 2.0, what="a push to two replicas")
    assert len(stack.of("rollout")) == 2


def test_a_replica_killed_at_work_loses_nothing(stack: Stack) -> None:
    killed = stack.of("rollout")[0]
    os.kill(killed["State"]["Pid"], signal.SIGKILL)
    at = stack.metrics()[-1]["step"]
    restarted = stack.wait_for(
        lambda: [each for each in stack.of("rollout") if each["RestartCount"] and each["State"]["Running"]],
        what="the killed replica to be started again",
    )
    assert [each["Id"] for each in restarted] == [killed["Id"]]
    stack.wait_for(
        lambda: any(row["step"] > at and row.get("push/replicas") == 2.0 for row in stack.metrics()[2:]),
        what="a push to both replicas again",
    )


def test_containers_have_no_more_than_they_need(stack: Stack) -> None:
    for each in stack.containers():
        name, host = service_of(each), each["HostConfig"]
        assert each["Config"]["User"] == ("redis" if name == "redis" else "10001:10001"), name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        published = [binding["HostIp"] for port in (host["PortBindings"] or {}).values() for binding in port]
        assert published == (["127.0.0.1"] if name in ("prm", "dashboard") else []), name
        secret = [line for line in each["Config"]["Env"] if KEY in line]
        assert bool(secret) == (name == "setup"), name


def test_images_are_small() -> None:
    def size(image: str) -> float:
        return float(json.loads(run("docker", "image", "inspect", image))[0]["Size"]) / MIB

    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode:
        run("docker", "pull", BASE, timeout=600)  # a builder may keep its base images to itself
    base = size(BASE)
    sizes = {name: round(size(f"prime-{name}") - base) for name in ("verifier", "prm", "rollout", "trainer")}
    assert sizes["verifier"] <= 250, sizes
    assert max(sizes.values()) <= 1500, sizes


def test_the_verifier_reaches_nothing(stack: Stack) -> None:
    """And a replica, asked in the same way, reaches what it should: the question can be answered otherwise."""
    (verifier,), replica = stack.of("verifier"), stack.of("rollout")[0]
    (network,) = verifier["NetworkSettings"]["Networks"].values()
    others = [
        f"{each['IPAddress']}:{port}"
        for container in stack.containers()
        if service_of(container) not in ("verifier", "setup")
        for each in container["NetworkSettings"]["Networks"].values()
        if each["IPAddress"]
        for port in (6379, 9150, 9151, 9152, 9160, 50050, 50051, 50052)
    ]
    names = ["redis:6379", "prm:9152", "rollout:50051", "trainer:50050", "control:50050", "example.org:443"]
    outside = ["1.1.1.1:53", "8.8.8.8:53", "169.254.169.254:80"]
    # The address that the host would have there, with a listener on all of the host's interfaces behind it.
    gateway = next(ip_interface(f"{network['IPAddress']}/{network['IPPrefixLen']}").network.hosts())

    def reached(container: Mapping[str, Any], *targets: str) -> list[str]:
        return run("docker", "exec", container["Id"], "python", "-c", REACH, *targets, timeout=300).split()

    with socket.create_server(("", 0)) as listener:
        host = [f"{gateway}:{listener.getsockname()[1]}", f"{gateway}:22", f"{gateway}:2375"]
        assert reached(verifier, *names, *outside, *host, *others) == []
    asked = ("redis:6379", "prm:50052", "verifier:50053", "1.1.1.1:53")
    assert reached(replica, *asked) == ["redis:6379", "prm:50052"]


def test_the_loop_comes_to_its_end_and_has_learnt(stack: Stack) -> None:
    (trainer,) = stack.wait_for(
        lambda: [each for each in stack.of("trainer") if each["State"]["Status"] == "exited"],
        what="the trainer to end",
        seconds=600.0,
    )
    assert trainer["State"]["ExitCode"] == 0
    assert trainer["RestartCount"] == 0
    rows = stack.metrics()
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert all(row["batch/groups"] == 32 for row in rows[1:])
    accuracies = [row["eval/accuracy"] for row in rows if "eval/accuracy" in row]
    assert accuracies[-1] > accuracies[0] + 0.2
    password = run("docker", "exec", stack.of("rollout")[0]["Id"], "cat", "/secrets/redis/password").strip()
    ask = ["redis-cli", "--no-auth-warning", "--user", "prime", "--pass", password, "XLEN", "prime:demo:dead"]
    assert run("docker", "exec", stack.of("redis")[0]["Id"], *ask).strip() == "0"


def test_the_prm_goes_on_serving_to_those_who_have_the_key(stack: Stack) -> None:
    draw = random.Random(0)
    chains = draw_chains(16, length=6, seed=99)
    inputs = [
        {"prompt": prompt_of(digits), "responses": [solve(digits, draw, wrong_share=share) for share in (0.0, 1.0)]}
        for digits in chains
    ]
    answer = json.loads(fetch(f"{stack.api}/v1/prm/score", key=KEY, body={"inputs": inputs}))
    pairs = [[response["score"] for response in result["responses"]] for result in answer["data"]]
    assert sum(right > wrong for right, wrong in pairs) >= 13
    for key in ("", "another"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetch(f"{stack.api}/v1/prm/score", key=key, body={"inputs": inputs})


def test_the_dashboard_goes_on_serving(stack: Stack) -> None:
    assert b"<title>PRIME runs</title>" in fetch(f"{stack.dashboard}/")
    assert json.loads(fetch(f"{stack.dashboard}/api/runs")) == ["demo"]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{stack.dashboard}/api/runs/..%2Fsecrets")


def test_a_finished_run_is_not_begun_again(stack: Stack) -> None:
    before = stack.metrics()
    stack.compose("up", "--detach", "--no-recreate", "--scale", "rollout=2")
    stack.wait_for(lambda: stack.of("trainer")[0]["State"]["Status"] == "exited", what="the trainer to end again")
    assert stack.of("trainer")[0]["State"]["ExitCode"] == 0
    assert stack.metrics() == before


TIER_A = ("-f", "docker-compose.yml", "-f", "docker-compose.tier-a.yml")


def test_the_verifier_has_all_layers_with_the_profile_for_it_and_does_not_start_without(stack: Stack) -> None:
    everything = ("verifier", "--config", "/etc/prime/run.toml", "verifier.min_tier=A")
    refused = subprocess.run(
        ["docker", "compose", "-p", stack.project, "run", "--rm", "--no-deps", "verifier", *everything],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert refused.returncode != 0
    assert "namespaces: refused" in refused.stdout + refused.stderr

    stack.compose(*TIER_A, "up", "--detach", "--no-deps", "verifier")
    stack.wait_for(
        lambda: stack.of("verifier")[0]["State"]["Health"]["Status"] == "healthy", what="the verifier in tier A"
    )
    assert '"tier": "A"' in stack.compose("logs", "verifier")
    doctor = ["docker", "exec", stack.of("verifier")[0]["Id"], "python", "-m", "primectl", "doctor"]
    # It ends with 1, because there is no torch in this image.
    assert "sandbox, tier A" in subprocess.run(doctor, capture_output=True, text=True, check=False).stdout


def test_everything_stops_within_its_grace_and_well(stack: Stack) -> None:
    started = time.monotonic()
    stack.compose("stop")
    seconds = time.monotonic() - started
    codes = {f"{service_of(each)} {each['Name']}": each["State"]["ExitCode"] for each in stack.containers()}
    assert codes == dict.fromkeys(codes, 0)
    assert seconds < 30
