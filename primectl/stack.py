"""All services of a run as local processes: start in order, watch, bring back what died, stop."""

import asyncio
import contextlib
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from prime.adapters.grpc_clients import GrpcTrainer, open_channel
from prime.adapters.redis_queue import RedisQueue, consumer_name
from prime.adapters.settings import ServiceSettings, child_environment, given_token
from prime.adapters.tls import Tls
from prime.errors import PeerUnavailable, PrimeError
from prime.files import hold
from prime.types import TrainerStatus
from primectl.config import RunConfig
from primectl.placement import Placement, find_gpus, place
from primectl.places import free_port, resolve_locally
from primectl.processes import LOCK, Child, start, stop_all, write_processes
from primectl.redis_server import find_redis_server, wait_until_up, write_config
from services.trainer.run_folder import RunFolder

_START_SECONDS = 180.0
_RESTARTS, _RESTART_WINDOW_S = 3, 600.0
_STATUS_SECONDS = 2.0


class LocalStack:
    """The processes of one run.

    Rollout replicas and the verifier hold no state: one that dies is started again, and the run does not notice. With
    the PRM, the trainer or Redis a part of the run's state dies: it is started again, and the trainer goes on from the
    last checkpoint, which holds policy and PRM of one step.
    """

    def __init__(self, config: RunConfig, token: str, *, placement: Placement, say: Callable[[str], None]) -> None:
        """`say` is told, in a line for people, what died and what became of it."""
        self.config = config
        self._placement = placement
        self._say = say
        self._token = token
        self._settings_file = config.run.path / "settings.json"
        self._logs = config.run.path / "logs"
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, list[float]] = {}
        self._own_redis: list[str] = []
        self._tls = Tls.of(config.run.tls_folder)
        self._trainer = GrpcTrainer(config.trainer.listen, token, deadline_s=_STATUS_SECONDS, tls=self._tls)

    async def start_redis(self, binary: Path, *, port: int, password: str) -> None:
        """The run's own Redis."""
        file = write_config(self.config.run.path / "redis", port=port, password=password)
        self._own_redis = [str(binary), str(file)]
        await self._start_service("redis")
        await wait_until_up(self.config.run.redis_url)

    async def start_services(self) -> None:
        """Verifier, PRM and rollout replicas; returns when all of them serve.

        Raises:
            EngineError: one ended; carries its last words.
        """
        addresses = {"verifier": self.config.verifier.listen, "prm": self.config.prm.listen}
        addresses |= {f"rollout-{number}": each for number, each in enumerate(self.config.trainer.peers.rollout)}
        mode = self.config.trainer.mode
        if mode == "generate" or not self.config.trainer.advantage.asks_a_prm:
            del addresses["prm"]
        if mode == "replay":
            addresses = {name: each for name, each in addresses.items() if name == "prm"}
        for name in addresses:
            await self._start_service(name)
        await asyncio.gather(*(self._wait_until_serving(name, address) for name, address in addresses.items()))

    async def train(self, *, resume: bool) -> AsyncIterator[TrainerStatus]:
        """Start the trainer and yield its status about twice a second, until it ends well.

        Raises:
            EngineError: the trainer gave up, or something died more often than it is brought back.
        """
        await self._start_service("trainer", *(["--resume"] if resume else []))
        while self._children["trainer"].process.returncode != 0:
            await self._tend()
            with contextlib.suppress(PrimeError):  # it is still starting, or has just ended
                yield await self._trainer.status()
            await asyncio.sleep(0.5)

    def process_id(self, name: str) -> int:
        """Of a child, e.g. `trainer` or `rollout-0`."""
        return self._children[name].process.pid

    async def stop(self) -> None:
        """The trainer first, so that it can finish its step and save; Redis last."""
        for names in (["trainer"], [name for name in self._children if name not in ("trainer", "redis")], ["redis"]):
            await self._stop(*names)
        await self._trainer.close()

    async def _stop(self, *names: str) -> None:
        children = [self._children[name] for name in names if name in self._children]
        trainer = self.config.trainer
        # Twice, since W&B waits once more at the exit of the process.
        flush_seconds = 2 * trainer.trackers.flush_seconds if trainer.trackers.use else 0.0
        await stop_all(children, grace_seconds=trainer.grace_seconds + flush_seconds + 5)

    async def _start_service(self, name: str, *extra: str) -> None:
        command = self._own_redis if name == "redis" else self._command(name, *extra)
        environment = child_environment(self._token, gpus=self._placement.gpus_of(name))
        self._children[name] = await start(name, command, environment=environment, logs=self._logs)
        write_processes(self.config.run.path, self._children.values())

    def _command(self, name: str, *extra: str) -> list[str]:
        service, _, number = name.partition("-")
        overrides = []
        if service == "rollout":
            index = int(number)
            host, _, _ = self.config.rollout.ops_listen.rpartition(":")
            overrides = [f"rollout.listen={self.config.trainer.peers.rollout[index]}"]
            if index:
                overrides.append(f"rollout.ops_listen={host}:{free_port()}")
        return [
            *(sys.executable, "-m", *_launcher(getattr(self.config, service)), "primectl", service),
            *("--config", str(self._settings_file), *extra, *overrides),
        ]

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
        """Bring back what died.

        A trainer that ended by itself had its reason, unless a part of the state died with it.

        Raises:
            EngineError: see `train`.
        """
        dead = {name: child for name, child in self._children.items() if child.has_ended}
        trainer = dead.pop("trainer", None)
        if trainer is not None and trainer.process.returncode == 0:
            return
        lost = [name for name in ("redis", "prm") if name in dead]
        if trainer is not None and not trainer.was_killed and not lost:
            raise trainer.death_notice()
        for name, child in dead.items():
            self._count_death(name, child)
            await self._start_service(name)
            if name.startswith("rollout"):
                await self._give_back_claims(child)
        if trainer is not None and trainer.was_killed:
            self._count_death("trainer", trainer)
        if lost or trainer is not None:
            await self._go_on_from_the_checkpoint(lost)

    async def _go_on_from_the_checkpoint(self, lost: Sequence[str]) -> None:
        """Start the trainer again; `lost` has been started already, and must serve first."""
        if "redis" in lost:
            await wait_until_up(self.config.run.redis_url)
            # Policy and PRM are whole, so the steps since the last checkpoint need not be lost.
            await self._stop("trainer")
        if "prm" in lost:
            # What the trainer would save now has no PRM that goes with it.
            await stop_all([self._children["trainer"]], grace_seconds=0)
            await self._wait_until_serving("prm", self.config.prm.listen)
        step = RunFolder.latest_step(self.config.run.path)
        if self._children["trainer"].process.returncode == 0 and step == self.config.trainer.steps:
            return  # it was told to stop after its last step
        self._say(f"the trainer is started again and goes on from step {step}")
        await self._start_service("trainer", "--resume-if-begun")

    def _count_death(self, name: str, child: Child) -> None:
        """Note a death, and raise when there were too many of late."""
        notice = child.death_notice()
        now = asyncio.get_running_loop().time()
        deaths = [each for each in self._deaths.get(name, []) if now - each < _RESTART_WINDOW_S]
        if len(deaths) >= _RESTARTS:
            raise notice
        self._deaths[name] = [*deaths, now]
        self._say(f"{notice}\n{name} is started again ({len(deaths) + 1} of {_RESTARTS} within ten minutes)")

    async def _give_back_claims(self, replica: Child) -> None:
        """What a dead replica was to sample is free for others at once, and not only when its leases lapse."""
        run = self.config.run
        with contextlib.suppress(PrimeError):  # then the leases lapse
            async with RedisQueue(
                run.redis_url,
                run=run.name,
                consumer=consumer_name(replica.process.pid),
                lease_seconds=self.config.rollout.lease_seconds,
            ) as queue:
                await queue.give_back_all()


@contextlib.asynccontextmanager
async def local_stack(
    config: RunConfig, *, num_rollouts: int | None = None, say: Callable[[str], None] = print
) -> AsyncIterator[LocalStack]:
    """A stack whose Redis and services are up; everything is stopped on the way out.

    Writes the resolved settings and the token into the run folder. `num_rollouts` None: one, or as many as the GPUs for
    sampling hold.
    """
    placement = place(config, find_gpus(), num_rollouts=num_rollouts)
    redis_port, password = free_port(), secrets.token_hex(16)
    own_redis = not config.run.redis_url
    config = resolve_locally(
        placement.applied_to(config),
        num_rollouts=len(placement.rollouts),
        redis_url=f"redis://:{password}@127.0.0.1:{redis_port}/0" if own_redis else config.run.redis_url,
    )
    config.run.path.mkdir(parents=True, exist_ok=True)
    with _only_owner(config.run.path):
        token = given_token() or secrets.token_hex(16)
        _write_private(config.run.path / "settings.json", json.dumps(config.model_dump(mode="json"), indent=2))
        _write_private(config.run.token_file, token)
        stack = LocalStack(config, token, placement=placement, say=say)
        try:
            if own_redis:
                await stack.start_redis(find_redis_server(), port=redis_port, password=password)
            await stack.start_services()
            yield stack
        finally:
            await stack.stop()


@contextlib.contextmanager
def _only_owner(folder: Path) -> Iterator[None]:
    """Hold the run folder against a second `primectl` until the block ends."""
    complaint = (
        f"{folder} is in use by another primectl (process {{pid}}); stop it (primectl stop {folder}), "
        "or choose another run.name"
    )
    with hold(folder / LOCK, complaint=complaint):
        yield


def _launcher(settings: ServiceSettings) -> list[str]:
    """How several processes become one service: torchrun starts them, and rank 0 is the service."""
    processes = getattr(settings, "processes", 1)
    if processes == 1:
        return []
    return ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
