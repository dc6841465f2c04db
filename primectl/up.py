"""`primectl up` and `primectl train`: all services of a run on this machine, watched from one terminal."""

import asyncio
import json
import signal
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from prime.errors import EngineError, SettingsError
from prime.types import TrainerStatus
from primectl.config import RunConfig
from primectl.display import Display, note_of
from primectl.placement import find_gpus, place
from primectl.preflight import check_inputs, check_redis
from primectl.stack import local_stack
from services.trainer.run_folder import RunFolder

# A closed terminal stops the services as well: they do not belong to it, so nobody else would.
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_up(config: RunConfig, *, resume: bool, num_rollouts: int | None) -> int:
    """Check the input, start everything, train, stop everything; 0 when the run came to its end."""
    if num_rollouts is not None and num_rollouts < 1:
        raise SettingsError(f"--rollouts {num_rollouts}: at least one replica is needed")
    display = Display()
    gpus = find_gpus()
    plan = place(config, gpus, num_rollouts=num_rollouts)
    check_inputs(config, resume=resume)
    asyncio.run(check_redis(config))
    display.say(f"run {config.run.name} in {config.run.path}: starting the services (logs in {config.run.path}/logs)")
    if gpus:
        display.say("\n".join(plan.lines(config)))
    started = time.monotonic()
    try:
        asyncio.run(until_signal(train_all(config, display, resume=resume, num_rollouts=num_rollouts)))
    except EngineError as error:
        step = RunFolder.latest_step(config.run.path)
        raise EngineError(f"{error}\nThe last checkpoint is of step {step}; --resume goes on from there.") from error
    step = RunFolder.latest_step(config.run.path)
    ended = "finished" if step == config.trainer.steps else f"stopped at step {step} of {config.trainer.steps}"
    display.say(f"{ended} after {time.monotonic() - started:.0f} s; artefacts:")
    _warn_of_idle_steps(config, display)
    for kind in ("policy", "prm"):
        folder = config.run.path / "checkpoints" / f"step_{step}" / kind
        if folder.is_dir():
            display.say(f"  {kind:<8}{folder}")
    display.say(f"  metrics {config.run.path / 'metrics.jsonl'}")
    return 0


def _warn_of_idle_steps(config: RunConfig, display: Display) -> None:
    """A run whose groups never pass the filter ends well and has learnt nothing: say so."""
    lines = (config.run.path / "metrics.jsonl").read_text().splitlines()
    idle = sum(1 for line in lines if json.loads(line).get("batch/skipped"))
    if idle:
        display.say(
            f"  NOTE: {idle} of {config.trainer.steps} steps learnt nothing, because too few groups had a mean score "
            f"within [{config.trainer.filter.low}, {config.trainer.filter.high}] (trainer.filter); "
            f"collect/* in the metrics says more"
        )


def plan_lines(config: RunConfig, *, num_gpus: int | None, num_rollouts: int | None) -> list[str]:
    """Which service gets which GPUs, of this machine or of one with `num_gpus`; for people.

    Raises:
        SettingsError: the settings ask for what is not there.
    """
    gpus = find_gpus() if num_gpus is None else tuple(map(str, range(num_gpus)))
    title = f"{len(gpus)} GPU(s):" if gpus else "no GPU; everything on the CPU:"
    return [title, *place(config, gpus, num_rollouts=num_rollouts).lines(config)]


async def train_all(
    config: RunConfig, display: Display, *, resume: bool, num_rollouts: int | None
) -> TrainerStatus | None:
    """Run the stack until the trainer ends; returns its last status."""
    status = None
    async with local_stack(config, num_rollouts=num_rollouts, say=display.say) as stack:
        with display.bar("RL", config.trainer.steps) as bar:
            async for status in stack.train(resume=resume):
                bar.update(status.step, note_of(status))
            if status is not None:
                # The trainer ends with its last step, before anybody can ask for it.
                step = RunFolder.latest_step(config.run.path)
                bar.update(step, note_of(replace(status, phase="ended", seconds_left=0.0)))
    return status


async def until_signal(work: Coroutine[Any, Any, object]) -> None:
    """Await `work`; SIGINT, SIGTERM and SIGHUP cancel it, so that what it started is stopped in good order."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()

    def stop_once() -> None:
        # A second signal must not interrupt the stopping itself: it would leave services behind.
        for signum in _STOP_SIGNALS:
            loop.add_signal_handler(signum, lambda: None)
        task.cancel()

    for signum in _STOP_SIGNALS:
        loop.add_signal_handler(signum, stop_once)
    try:
        await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
