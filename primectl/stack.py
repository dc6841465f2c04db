"""All services of a run as local processes: start in order, watch, restart what holds no state, stop."""

import asyncio
import contextlib
import fcntl
import itertools
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prime.adapters.grpc_clients import GrpcTrainer, open_channel
from prime.adapters.settings import ServiceSettings, child_environment, given_token
from prime.adapters.tls import Tls
from prime.errors import CheckpointError, PeerUnavailable, PrimeError, SettingsError
from prime.types import TrainerStatus
from primectl.config import RunConfig
from primectl.processes import Child, start, stop_all
from primectl.redis_server import find_redis_server, wait_until_up, write_config

_START_SECONDS = 180.0
_RESTARTS, _RESTART_WINDOW_S = 3, 600.0
_STATUS_SECONDS = 2.0
# Below what Linux gives to outgoing connections (net.ipv4.ip_local_port_range).
_LOWEST_PORT, _NUM_PORTS = 20000, 12000
_ports_tried = itertools.count()


class LocalStack:
    """The processes of one run. Rollout replicas and the verifier hold no state and are restarted when they die."""

    def __init__(self, config: RunConfig, token: str) -> None:
        self.config = config
        self._token = token
        self._environment = child_environment(token)
        self._settings_file = config.run.path / "settings.json"
        self._logs = config.run.path / "logs"
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, list[float]] = {}
        self._tls = Tls.of(config.run.tls_folder)
        self._trainer = GrpcTrainer(config.trainer.listen, token, deadline_s=_STATUS_SECONDS, tls=self._tls)

    async def start_redis(self, binary: Path, *, port: int, password: str) -> None:
        """The run's own Redis."""
        file = write_config(self.config.run.path / "redis", port=port, password=password)
        command = [str(binary), str(file)]
        self._children["redis"] = await start("redis", command, environment=self._environment, logs=self._logs)
        await wait_until_up(self.config.run.redis_url)

    async def start_services(self) -> None:
        """Verifier, PRM and rollout replicas; returns when all of them serve.

        Raises:
            EngineError: one ended; carries its last words.
        """
        addresses = {"verifier": self.config.verifier.listen, "prm": self.config.prm.listen}
        addresses |= {f"rollout-{number}": each for number, each in enumerate(self.config.trainer.peers.rollout)}
        mode = self.config.trainer.mode
        if mode == "generate" or self.config.trainer.advantage.process_coef == 0:
            del addresses["prm"]
        if mode == "replay":
            addresses = {name: each for name, each in addresses.items() if name == "prm"}
        for name in addresses:
            await self._start_service(name)
        await asyncio.gather(*(self._wait_until_serving(name, address) for name, address in addresses.items()))

    async def train(self, *, resume: bool) -> AsyncIterator[TrainerStatus]:
        """Start the trainer and yield its status about twice a second, until it ends well.

        Raises:
            EngineError: the trainer, or a service that holds state, ended.
        """
        await self._start_service("trainer", *(["--resume"] if resume else []))
        trainer = self._children["trainer"]
        while not trainer.has_ended:
            await self._tend()
            with contextlib.suppress(PrimeError):  # it is still starting, or has just ended
                yield await self._trainer.status()
            await asyncio.sleep(0.5)
        if trainer.process.returncode != 0:
            raise trainer.death_notice()

    def process_id(self, name: str) -> int:
        """Of a child, e.g. `trainer` or `rollout-0`."""
        return self._children[name].process.pid

    async def stop(self) -> None:
        """The trainer first, so that it can finish its step and save; Redis last."""
        for names in (["trainer"], [name for name in self._children if name not in ("trainer", "redis")], ["redis"]):
            children = [self._children[name] for name in names if name in self._children]
            await stop_all(children, grace_seconds=self.config.trainer.grace_seconds + 5)
        await self._trainer.close()

    async def _start_service(self, name: str, *extra: str) -> None:
        service, _, number = name.partition("-")
        overrides = []
        if service == "rollout":
            index = int(number)
            host, _, _ = self.config.rollout.ops_listen.rpartition(":")
            overrides = [f"rollout.listen={self.config.trainer.peers.rollout[index]}"]
            if index:
                overrides.append(f"rollout.ops_listen={host}:{free_port()}")
        command = [
            *(sys.executable, "-m", *_launcher(getattr(self.config, service)), "primectl", service),
            *("--config", str(self._settings_file), *extra, *overrides),
        ]
        self._children[name] = await start(name, command, environment=self._environment, logs=self._logs)

    async def _wait_until_serving(self, name: str, address: str) -> None:
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        async with open_channel(address, tls=self._tls) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while asyncio.get_running_loop().time() < deadline:
                if self._children[name].has_ended:
                    raise self._children[name].death_notice()
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                except grpc.aio.AioRpcError:
                    pass  # not up yet
                await asyncio.sleep(0.2)
        raise PeerUnavailable(
            f"{name} did not serve at {address} within {_START_SECONDS:.0f} s; its log is in {self._logs}"
        )

    async def _tend(self) -> None:
        """Restart what died and holds no state; the trainer brings a fresh replica to the current weights."""
        for name, child in list(self._children.items()):
            if name == "trainer" or not child.has_ended:
                continue
            now = asyncio.get_running_loop().time()
            deaths = [each for each in self._deaths.get(name, []) if now - each < _RESTART_WINDOW_S]
            if not name.startswith(("rollout", "verifier")) or len(deaths) >= _RESTARTS:
                raise child.death_notice()
            self._deaths[name] = [*deaths, now]
            await self._start_service(name)


@contextlib.asynccontextmanager
async def local_stack(config: RunConfig, *, num_rollouts: int = 1) -> AsyncIterator[LocalStack]:
    """A stack whose Redis and services are up; everything is stopped on the way out.

    Writes the resolved settings and the token into the run folder.
    """
    redis_port, password = free_port(), secrets.token_hex(16)
    own_redis = not config.run.redis_url
    config = resolve_locally(
        config,
        num_rollouts=num_rollouts,
        redis_url=f"redis://:{password}@127.0.0.1:{redis_port}/0" if own_redis else config.run.redis_url,
    )
    config.run.path.mkdir(parents=True, exist_ok=True)
    with _only_owner(config.run.path):
        token = given_token() or secrets.token_hex(16)
        _write_private(config.run.path / "settings.json", json.dumps(config.model_dump(mode="json"), indent=2))
        _write_private(config.run.token_file, token)
        stack = LocalStack(config, token)
        try:
            if own_redis:
                await stack.start_redis(find_redis_server(), port=redis_port, password=password)
            await stack.start_services()
            yield stack
        finally:
            await stack.stop()


@contextlib.contextmanager
def _only_owner(folder: Path) -> Iterator[None]:
    """Hold the run folder against a second `primectl` until the block ends; the kernel lets go when we die."""
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{folder} is in use by another primectl; stop it, or choose another run.name"
            ) from None
        yield


def resolve_locally(config: RunConfig, *, num_rollouts: int, redis_url: str) -> RunConfig:
    """Free loopback ports wherever the settings file names none, and peers that point at them."""
    tree = config.model_dump()
    tree["run"]["redis_url"] = redis_url
    # Taken together, so that no two are the same: four services of two ports each, and the other replicas.
    ports = iter(free_ports(8 + num_rollouts - 1))
    for section in ("trainer", "rollout", "prm", "verifier"):
        given: ServiceSettings = getattr(config, section)
        for key in ("listen", "ops_listen"):
            if key not in given.model_fields_set:
                tree[section][key] = f"127.0.0.1:{next(ports)}"
    more = [f"127.0.0.1:{next(ports)}" for _ in range(num_rollouts - 1)]
    tree["trainer"]["peers"] |= {
        "rollout": (tree["rollout"]["listen"], *more),
        "prm": tree["prm"]["listen"],
        "verifier": tree["verifier"]["listen"],
    }
    return RunConfig.model_validate(tree)


def _launcher(settings: ServiceSettings) -> list[str]:
    """How several processes become one service: torchrun starts them, and rank 0 is the service."""
    processes = getattr(settings, "processes", 1)
    if processes == 1:
        return []
    return ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Different loopback ports that nobody listened on a moment ago.

    Not those that the system would give: it gives them to outgoing connections as well, and one may come before the
    service that the port is for. Each process begins at another place, and none is given twice.
    """
    found: list[int] = []
    for number in islice(_ports_tried, _NUM_PORTS):
        port = _LOWEST_PORT + (64 * os.getpid() + number) % _NUM_PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise SettingsError(f"no {count} loopback ports are free from {_LOWEST_PORT} on; set `listen` and `ops_listen`")


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
