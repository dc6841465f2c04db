"""Which GPUs a run gets, with made-up machines."""

from typing import Any

import pytest

from prime.errors import SettingsError
from primectl.config import RunConfig
from primectl.placement import Placement, place
from primectl.places import resolve_locally


def config(**sections: dict[str, Any]) -> RunConfig:
    trainer = {"problems": "p.jsonl", "steps": 1, **sections.pop("trainer", {})}
    return RunConfig.model_validate({"run": {"name": "r", "model": "m"}, "trainer": trainer, **sections})


def gpus(count: int) -> list[str]:
    return [str(number) for number in range(count)]


@pytest.mark.parametrize(
    ("count", "trainer", "prm", "rollouts", "share"),
    [
        (0, "", "", [""], 0.0),
        (1, "0", "0", ["0"], 0.35),
        (2, "0", "0", ["1"], 0.9),
        (3, "0", "1", ["2"], 0.9),
        (4, "0", "1", ["2", "3"], 0.9),
        (8, "01", "23", ["4", "5", "6", "7"], 0.9),
    ],
)
def test_gpus_are_dealt_out_by_themselves(
    count: int, trainer: str, prm: str, rollouts: list[str], share: float
) -> None:
    plan = place(config(), gpus(count), num_rollouts=None)
    assert plan == Placement(
        trainer=tuple(trainer), prm=tuple(prm), rollouts=tuple(map(tuple, rollouts)), memory_share=share
    )


@pytest.mark.parametrize("count", range(1, 17))
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("num_rollouts", [None, 1, 2, 5])
@pytest.mark.parametrize("process_coef", [0.0, 1.0])
def test_every_service_has_a_gpu_and_none_is_idle(
    count: int, width: int, num_rollouts: int | None, process_coef: float
) -> None:
    settings = config(
        rollout={"engine": "vllm", "tensor_parallel": width}, trainer={"advantage": {"process_coef": process_coef}}
    )
    if width > count:
        with pytest.raises(SettingsError, match="tensor_parallel"):
            place(settings, gpus(count), num_rollouts=num_rollouts)
        return
    plan = place(settings, gpus(count), num_rollouts=num_rollouts)
    learning = {*plan.trainer, *plan.prm}
    sampling = {gpu for slot in plan.rollouts for gpu in slot}
    assert plan.trainer
    assert bool(plan.prm) == (process_coef > 0)
    assert {len(slot) for slot in plan.rollouts} == {width}
    assert num_rollouts is None or len(plan.rollouts) == num_rollouts
    shared = width == count
    assert bool(learning & sampling) == shared
    assert learning | sampling == set(gpus(count))
    replicas = max(sum(gpu in slot for slot in plan.rollouts) for gpu in sampling)
    assert plan.memory_share * replicas == pytest.approx(0.35 if shared else 0.9, abs=0.01)


def test_settings_go_before_the_plan() -> None:
    asked = config(trainer={"gpus": [4, 5, 6]}, prm={"gpus": [7]}, rollout={"gpus": [0, 1], "engine": "vllm"})
    plan = place(asked, gpus(8), num_rollouts=3)
    assert (plan.trainer, plan.prm) == (("4", "5", "6"), ("7",))
    assert plan.rollouts == (("0",), ("1",), ("0",))
    assert plan.memory_share == 0.45
    only_trainer = place(config(trainer={"gpus": [7]}), gpus(8), num_rollouts=None)
    assert only_trainer.trainer == ("7",)
    assert "7" not in {*only_trainer.prm, *(gpu for slot in only_trainer.rollouts for gpu in slot)}
    processes = place(config(trainer={"processes": 3}), gpus(8), num_rollouts=None)
    assert (processes.trainer, processes.prm) == (("0", "1", "2"), ("3",))


def test_names_are_those_of_the_devices_that_are_visible() -> None:
    plan = place(config(), ["GPU-a", "GPU-b"], num_rollouts=None)
    assert [plan.gpus_of(name) for name in ("trainer", "prm", "rollout-0", "verifier")] == [
        ("GPU-a",),
        ("GPU-a",),
        ("GPU-b",),
        (),
    ]


def test_what_was_left_open_is_filled_in_and_nothing_else() -> None:
    settings = config(prm={"processes": 1})
    applied = place(settings, gpus(8), num_rollouts=None).applied_to(settings)
    assert (applied.trainer.processes, applied.prm.processes) == (3, 1)
    assert applied.rollout.memory_share == 0.9
    # Ports that nobody named are still to be found by whoever starts the services.
    assert "listen" not in applied.trainer.model_fields_set | applied.rollout.model_fields_set
    two = [resolve_locally(applied, num_rollouts=2, redis_url="redis://x") for _ in range(2)]
    listening = [(each.trainer.listen, each.prm.listen, *each.trainer.peers.rollout) for each in two]
    assert len({address for addresses in listening for address in addresses}) == 8
    own = config(rollout={"memory_share": 0.5})
    assert place(own, gpus(2), num_rollouts=None).applied_to(own).rollout.memory_share == 0.5


@pytest.mark.parametrize(
    ("sections", "count", "complaint"),
    [
        ({"trainer": {"gpus": [8]}}, 8, r"trainer\.gpus names GPU 8, and there are 8"),
        ({"prm": {"gpus": [1, 1]}}, 2, r"prm\.gpus names a GPU twice"),
        ({"prm": {"gpus": [0]}}, 0, "this machine shows no GPU"),
        ({"trainer": {"gpus": [0, 1], "processes": 3}}, 4, r"trainer\.processes = 3, and there are 2 GPUs for it"),
    ],
)
def test_what_does_not_fit_is_refused(sections: dict[str, Any], count: int, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint):
        place(config(**sections), gpus(count), num_rollouts=None)


def test_the_plan_is_shown_a_line_per_service() -> None:
    settings = config()
    lines = place(settings, gpus(4), num_rollouts=None).lines(settings)
    assert [line.split()[0] for line in lines] == ["trainer", "prm", "rollout-0", "rollout-1", "verifier"]
    assert "GPU 1" in lines[1]
    assert "0.90 of the memory" in lines[2]
