"""`primectl status`: asks the trainer, or reads what it left."""

import asyncio
import json
from pathlib import Path

from prime.adapters.grpc_clients import GrpcTrainer
from prime.adapters.settings import read_token
from prime.adapters.tls import Tls
from prime.errors import CheckpointError, PeerUnavailable
from prime.files import holder
from prime.types import TrainerStatus
from primectl.display import Display, note_of
from primectl.processes import LOCK, PROCESSES, TRAINER_LOCK

_SECONDS = 2.0


def show_status(folder: Path) -> int:
    """One line for a live run, the last metrics of one that is not.

    Raises:
        CheckpointError: the folder holds no run.
    """
    settings_file = folder / "settings.json"
    if not settings_file.is_file():
        raise CheckpointError(f"{folder} holds no run: it has no settings.json")
    settings = json.loads(settings_file.read_text())
    display = Display()
    try:
        tls = settings["run"].get("tls_folder")
        status = asyncio.run(
            _ask(settings["trainer"]["listen"], read_token(folder / "token"), Tls.of(Path(tls) if tls else None))
        )
        display.say(f"{status.run}: step {status.step}/{status.total_steps}  {note_of(status)}")
    except PeerUnavailable:
        metrics = folder / "metrics.jsonl"
        last = (metrics.read_text().splitlines() if metrics.is_file() else [])[-1:] or ["{}"]
        display.say(f"{settings['run']['name']}: not running; last metrics:")
        display.console.print_json(last[0])
    for line in _processes(folder):
        display.say(line)
    return 0


def _processes(folder: Path) -> list[str]:
    """Who works for the run: `primectl` and what it started, with their process ids."""
    watcher = holder(folder / LOCK)
    if watcher is None:
        trainer = holder(folder / TRAINER_LOCK)
        return [] if trainer is None else [f"  trainer    process {trainer}, started alone"]
    file = folder / PROCESSES
    children = json.loads(file.read_text()) if file.is_file() else {}
    return [f"  {name:<10} process {pid}" for name, pid in {"primectl": watcher, **children}.items()]


async def _ask(address: str, token: str, tls: Tls | None) -> TrainerStatus:
    trainer = GrpcTrainer(address, token, deadline_s=_SECONDS, tls=tls)
    try:
        return await trainer.status()
    finally:
        await trainer.close()
