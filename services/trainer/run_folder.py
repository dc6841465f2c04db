"""The run folder: resolved settings, metrics, sampled rollouts, checkpoints, and an atomic `latest`.

run.json                what this run is; another run's folder is refused
metrics.jsonl           one object per step (`prime/adapters/trackers/jsonl_files.py` writes it)
evaluation.jsonl        one object per evaluation: the run's curve (likewise)
rollouts/step_N.jsonl   a few samples with their token rewards
checkpoints/step_N/     policy/ prm/ (Hugging Face folders), policy_state/ prm_state/, trainer.json
checkpoints/latest      the number of the newest whole checkpoint
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prime.errors import CheckpointError
from prime.files import hold, write_file
from prime.tracking import METRICS
from prime.types import GradedGroup, Problem, Sample, TokenRewards, written_places
from services.trainer.collector import CollectorState, Ticket
from services.trainer.settings import TrainerSettings
from services.trainer.track_record import TrackRecord

_IDENTITY_FILE = "run.json"


def identity_of(
    settings: TrainerSettings, problems: Sequence[Problem], *, model: Path, seed: int, tokenizer_fingerprint: str
) -> dict[str, object]:
    """What makes a run this run: a folder with another identity is not resumed.

    What may change between two lives: steps, rates, losses, limits of time and memory, addresses.
    """
    return {
        "model": str(model),
        "seed": seed,
        "problems": settings.problems,
        # A ticket is a place in the order of the problems, after those that are too long have been dropped.
        "problems_sha256": _digest(problems),
        "max_prompt_tokens": settings.max_prompt_tokens,
        "long_prompts": settings.long_prompts,
        "max_tokens": settings.sampling.max_tokens,
        "prompts_per_step": settings.prompts_per_step,
        "samples_per_prompt": settings.samples_per_prompt,
        "tokenizer": tokenizer_fingerprint,
    }


def _digest(problems: Sequence[Problem]) -> str:
    total = hashlib.sha256()
    for problem in problems:
        total.update(repr(problem).encode())
    return total.hexdigest()


def _read_identity(path: Path) -> dict[str, object]:
    file = path / _IDENTITY_FILE
    return dict(_read_json(file)) if file.is_file() else {}


def check_run_folder(path: Path, *, identity: Mapping[str, object], resume: bool) -> None:
    """Refuse a folder that is not this run's, or is and should not be written over. Writes nothing.

    Raises:
        CheckpointError: says which, and what to do.
    """
    identity_file = path / _IDENTITY_FILE
    if not identity_file.is_file():
        if resume:
            raise CheckpointError(f"--resume: {path} holds no run; check run.name and run.folder")
        return
    written = _read_json(identity_file)
    _check_same(path, written, identity)
    if not resume and (path / METRICS).is_file():
        raise CheckpointError(f"{path} already holds steps of this run; give --resume, or another run.name")


def _check_same(path: Path, written: Mapping[str, object], identity: Mapping[str, object]) -> None:
    """Raises CheckpointError for the first key that both have and that differs."""
    for key in sorted(written.keys() & identity.keys()):
        if written[key] != identity[key]:
            raise CheckpointError(
                f"{path} belongs to another run: {key} was {written[key]!r}, is {identity[key]!r}; "
                f"choose another run.name, or put {key} back"
            )


class RunFolder:
    """One run's place on disk."""

    def __init__(self, path: Path, *, identity: Mapping[str, Any], resume: bool) -> None:
        """Open the folder, or refuse it before anything is written.

        Raises:
            CheckpointError: it holds another run, or an earlier life of this run and `resume` is off.
            InUse: another trainer is at work in it.
        """
        check_run_folder(path, identity=identity, resume=resume)
        try:
            path.mkdir(parents=True, exist_ok=True)
            # Held until this process ends: two trainers on one folder would overwrite each other.
            self._lock = hold(
                path / "trainer.lock",
                complaint=f"another trainer (process {{pid}}) is at work in {path}; stop it (primectl stop {path}), "
                "or choose another run.name",
            )
        except OSError as error:
            raise CheckpointError(f"the run folder {path} cannot be written: {error}; check run.folder") from None
        self.path = path
        self.checkpoints = path / "checkpoints"
        self._latest_file = self.checkpoints / "latest"
        self._identity = {**_read_identity(path), **identity}
        self._write_identity()

    def pin(self, facts: Mapping[str, object]) -> None:
        """More that makes this run what it is, known only now.

        Raises:
            CheckpointError: an earlier life of this run had something else.
        """
        _check_same(self.path, self._identity, facts)
        self._identity |= facts
        self._write_identity()

    def _write_identity(self) -> None:
        write_file(self.path / _IDENTITY_FILE, json.dumps(self._identity, indent=2, default=str))

    @property
    def latest(self) -> int:
        """The step of the newest whole checkpoint, 0 without one."""
        return self.latest_step(self.path)

    @staticmethod
    def latest_step(path: Path) -> int:
        """The same, of any run folder."""
        file = path / "checkpoints" / "latest"
        return int(_read_json(file)) if file.is_file() else 0

    @staticmethod
    def has_begun(path: Path) -> bool:
        """Whether the folder holds a run already."""
        return (path / _IDENTITY_FILE).is_file()

    def checkpoint(self, step: int) -> Path:
        """Where a step's checkpoint lies."""
        return self.checkpoints / f"step_{step}"

    def commit_checkpoint(
        self, step: int, state: CollectorState, record: TrackRecord, *, keep: int, every: int = 0
    ) -> None:
        """Policy and PRM are written: add the trainer's own state, move `latest`, drop the oldest.

        The newest `keep` stay, and for good those of steps that `every` divides.
        """
        write_file(self.checkpoint(step) / "trainer.json", json.dumps({**asdict(state), "rewards": asdict(record)}))
        write_file(self._latest_file, str(step))
        steps = sorted(int(folder.name.removeprefix("step_")) for folder in self.checkpoints.glob("step_*"))
        for old in [each for each in steps if each <= step][:-keep]:
            if every and old % every == 0:
                continue
            shutil.rmtree(self.checkpoint(old))

    def load_state(self, step: int) -> CollectorState:
        """The collector's state of a checkpoint.

        Raises:
            CheckpointError: it is not there or not whole.
        """
        file = self.checkpoint(step) / "trainer.json"
        try:
            tree = json.loads(file.read_text())
            return CollectorState(
                next_number=tree["next_number"],
                kept_share=tree["kept_share"],
                unfinished=[Ticket(**ticket) for ticket in tree["unfinished"]],
                resting={int(place): epoch for place, epoch in tree.get("resting", {}).items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error

    def load_record(self, step: int) -> TrackRecord:
        """What the token rewards had shown by a checkpoint; nothing, where an earlier release wrote it."""
        tree = _read_json(self.checkpoint(step) / "trainer.json")
        return TrackRecord(**tree.get("rewards", {}))

    def write_rollouts(
        self, step: int, groups: Sequence[GradedGroup], rewards: TokenRewards | None, tokenizer: Any
    ) -> None:
        """The first group of a step, readable: text, outcome, and each token with its reward."""
        if not groups:
            return
        graded = groups[0]
        lines = []
        for number, (sample, outcome) in enumerate(zip(graded.group.samples, graded.outcomes, strict=True)):
            row = (
                _with_observed(rewards.rows[number], sample)
                if rewards is not None
                else (0.0,) * len(sample.response_ids)
            )
            pieces = [tokenizer.decode([token]) for token in sample.response_ids]
            lines.append(
                {
                    "group_id": graded.group.group_id,
                    "prompt": tokenizer.decode(graded.group.prompt_ids),
                    "response": "".join(pieces),
                    "outcome": outcome,
                    "finish_reason": sample.finish_reason,
                    "observed": [(span.start, span.length) for span in sample.observed],
                    "versions": [(span.version, span.length) for span in sample.spans],
                    "token_rewards": [[piece, round(reward, 5)] for piece, reward in zip(pieces, row, strict=True)],
                }
            )
        write_file(
            self.path / "rollouts" / f"step_{step}.jsonl",
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines),
        )


def _with_observed(row: Sequence[float], sample: Sample) -> list[float]:
    """Rewards of all tokens: 0 of those that an environment said."""
    whole = [0.0] * len(sample.response_ids)
    for place, reward in zip(written_places(len(whole), sample.observed), row, strict=True):
        whole[place] = reward
    return whole


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
