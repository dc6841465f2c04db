"""Which GPUs of this machine each service of a run gets: `primectl plan` shows it, `primectl up` starts them there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prime.adapters.settings import visible_gpus
from prime.errors import SettingsError
from primectl.config import RunConfig

_ALONE, _SHARED = 0.9, 0.35
"""Share of a GPU's memory that vLLM takes where it is alone, and where the trainer or the PRM is there too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Names of GPUs, as `CUDA_VISIBLE_DEVICES` has them; all empty on a machine without.

    Four GPUs: `Placement(trainer=("0",), prm=("1",), rollouts=(("2",), ("3",)), memory_share=0.9)`.
    """

    trainer: tuple[str, ...]
    prm: tuple[str, ...]
    rollouts: tuple[tuple[str, ...], ...]
    """Of each replica."""
    memory_share: float
    """Of a replica's GPUs, that it takes; what vLLM calls `gpu_memory_utilization`."""

    def gpus_of(self, service: str) -> tuple[str, ...]:
        """Of `trainer`, `prm`, or a replica by its name, e.g. `rollout-1`; the verifier needs none."""
        kind, _, number = service.partition("-")
        if kind == "rollout":
            return self.rollouts[int(number)]
        return {"trainer": self.trainer, "prm": self.prm}.get(kind, ())

    def applied_to(self, config: RunConfig) -> RunConfig:
        """The same settings, with as many processes as there are GPUs for them; what was left open stays so."""
        changed: dict[str, Any] = {}
        for section in ("trainer", "prm"):
            settings = getattr(config, section)
            if "processes" not in settings.model_fields_set:
                changed[section] = settings.model_copy(update={"processes": max(1, len(self.gpus_of(section)))})
        if self.memory_share and not config.rollout.memory_share:
            changed["rollout"] = config.rollout.model_copy(update={"memory_share": self.memory_share})
        return config.model_copy(update=changed)

    def lines(self, config: RunConfig) -> list[str]:
        """The plan for people, a line per service."""
        placed = self.applied_to(config)
        rows = [
            ("trainer", self.trainer, f"{placed.trainer.processes} process(es)"),
            ("prm", self.prm, f"{placed.prm.processes} process(es)" if self.needs_prm(config) else "not needed"),
            *((f"rollout-{number}", gpus, self._share(gpus)) for number, gpus in enumerate(self.rollouts)),
            ("verifier", (), f"{placed.verifier.workers or 'one per core'} worker(s)"),
        ]
        return [f"  {name:<10} {'GPU ' + ', '.join(gpus) if gpus else 'CPU':<24} {note}" for name, gpus, note in rows]

    def _share(self, gpus: Sequence[str]) -> str:
        return f"{self.memory_share:.2f} of the memory" if gpus else ""

    @staticmethod
    def needs_prm(config: RunConfig) -> bool:
        """Whether the run has token rewards at all."""
        return config.trainer.mode != "generate" and config.trainer.advantage.asks_a_prm


def find_gpus() -> tuple[str, ...]:
    """The GPUs of this machine that this process may use, by the names that `CUDA_VISIBLE_DEVICES` has for them."""
    import torch  # it takes a second to load, and not every command needs it

    count = torch.cuda.device_count()
    return (visible_gpus() or tuple(map(str, range(count))))[:count]


def place(config: RunConfig, gpus: Sequence[str], *, num_rollouts: int | None) -> Placement:
    """Deal the GPUs out.

    Half of them sample, for sampling takes most of a step; the rest goes to trainer and PRM in equal parts, and what is
    left over to the trainer. With two GPUs trainer and PRM share one; where a replica needs them all, all share.
    `gpus`, `processes` and `tensor_parallel` in the settings, and `num_rollouts`, go before that.

    Raises:
        SettingsError: what the settings ask for is not there, or does not fit together.
    """
    width = config.rollout.tensor_parallel
    if not gpus:
        _refuse_without_gpus(config)
        return Placement(trainer=(), prm=(), rollouts=((),) * (num_rollouts or 1), memory_share=0.0)
    sampling = _asked(config.rollout.gpus, gpus, "rollout.gpus") or _for_sampling(config, gpus, num_rollouts)
    trainer, prm = _for_learning(config, gpus, sampling)
    if len(sampling) < width:
        raise SettingsError(
            f"rollout.tensor_parallel = {width} needs as many GPUs, and {len(sampling)} are for sampling"
        )
    slots = [tuple(sampling[start : start + width]) for start in range(0, len(sampling) - width + 1, width)]
    count = num_rollouts or len(slots)
    rollouts = tuple(slots[number % len(slots)] for number in range(count))
    busiest = -(-count // len(slots))
    is_alone = not {*trainer, *prm} & {gpu for slot in rollouts for gpu in slot}
    share = (_ALONE if is_alone else _SHARED) / busiest
    return Placement(trainer=trainer, prm=prm, rollouts=rollouts, memory_share=round(share, 3))


def _for_sampling(config: RunConfig, gpus: Sequence[str], num_rollouts: int | None) -> tuple[str, ...]:
    """The last ones: as many as the replicas want, else half, in whole replicas; one at least stays for learning."""
    if len(gpus) == 1:
        return tuple(gpus)
    width = config.rollout.tensor_parallel
    taken = {*config.trainer.gpus, *config.prm.gpus}
    free = [gpu for number, gpu in enumerate(gpus) if number not in taken]
    most = len(free) if taken else len(gpus) - 1
    wanted = num_rollouts * width if num_rollouts else max(width, len(gpus) // 2 // width * width)
    count = max(min(wanted, most // width * width), width)
    return tuple(free[-count:])


def _for_learning(
    config: RunConfig, gpus: Sequence[str], sampling: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """GPUs of trainer and PRM, out of those that do not sample where there are any."""
    trainer, prm = _asked(config.trainer.gpus, gpus, "trainer.gpus"), _asked(config.prm.gpus, gpus, "prm.gpus")
    free = [gpu for gpu in gpus if gpu not in {*sampling, *trainer, *prm}] or list(trainer or prm or gpus)
    prm_count = (_wanted(config, "prm") or max(1, len(free) // 2)) if Placement.needs_prm(config) else 0
    trainer_count = _wanted(config, "trainer") or max(1, len(free) - (0 if prm else prm_count))
    trainer = trainer or tuple(free[:trainer_count])
    if not prm and prm_count:
        rest = [gpu for gpu in free if gpu not in trainer] or list(trainer)
        prm = tuple(rest[:prm_count])
    for section, found in (("trainer", trainer), ("prm", prm)):
        processes = _wanted(config, section)
        if found and processes and processes != len(found):
            raise SettingsError(
                f"{section}.processes = {processes}, and there are {len(found)} GPUs for it ({', '.join(found)}); set "
                f"{section}.gpus, or leave {section}.processes out"
            )
    return trainer, prm


def _wanted(config: RunConfig, section: str) -> int:
    """Processes that the settings name; 0 where they leave it open."""
    settings = getattr(config, section)
    return int(settings.processes) if "processes" in settings.model_fields_set else 0


def _asked(numbers: Sequence[int], gpus: Sequence[str], key: str) -> tuple[str, ...]:
    missing = [number for number in numbers if number >= len(gpus)]
    if missing:
        raise SettingsError(f"{key} names GPU {missing[0]}, and there are {len(gpus)}, counted from 0")
    if len(set(numbers)) < len(numbers):
        raise SettingsError(f"{key} names a GPU twice")
    return tuple(gpus[number] for number in numbers)


def _refuse_without_gpus(config: RunConfig) -> None:
    for section in ("trainer", "prm", "rollout"):
        if getattr(config, section).gpus:
            raise SettingsError(
                f"{section}.gpus is set, and this machine shows no GPU; see nvidia-smi and CUDA_VISIBLE_DEVICES"
            )
