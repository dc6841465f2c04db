"""`make gpu` on a CPU with tiny shapes: it needs torch and transformers alone, and keeps to its time.

Its figures say nothing here; what is checked is that they are there and that no section has a problem.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import report
from benchmarks.gpu.job import TINY, Figures, Job, Stopwatch
from benchmarks.gpu.plan import SECTIONS, Outcome, Section, measure
from benchmarks.gpu.prime_step import Defaults, Trio, rows_of
from benchmarks.gpu.processes import Processes
from benchmarks.gpu.proof import documented_layouts
from benchmarks.gpu.training import Way, first_that_fits, fit, measure_way, operations, ways_of
from benchmarks.prm_pair import Shape
from benchmarks.training import SHAPES
from prime.lm.model import settle_torch
from prime.types import FinishReason, GradedGroup, RolloutGroup, Sample, TokenRewards, VersionSpan, prm_view
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from services.trainer.batch import PolicyBatch, sampler_logprobs, token_rows
from services.trainer.credit import CreditAssigner
from services.trainer.policy import Policy
from services.trainer.settings import TrainerSettings
from tests.builders import tiny_model
from tests.families import FAMILIES

ROOT = Path(__file__).parents[2]
ALL = [section.name for section in SECTIONS]
# What this environment has, and a machine with torch and transformers alone may not.
LACKING = (
    "accelerate", "datasets", "fastapi", "google", "grpc", "hypothesis", "matplotlib", "opentelemetry", "peft",
    "prometheus_client", "psutil", "pydantic", "pytest", "redis", "rich", "scipy", "structlog", "uvicorn", "vllm",
    "xxhash",
)  # fmt: skip
BLOCKER = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {LACKING!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@dataclass(frozen=True)
class Call:
    code: int
    tree: dict[str, Any]
    complaints: str
    folder: Path


def _call(folder: Path, *options: str, variables: Mapping[str, str]) -> Call:
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", *options],
        cwd=ROOT,
        # Tiny products are slower on several threads.
        env={"PATH": os.defpath, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return Call(found.returncode, json.loads(found.stdout.splitlines()[-1]), found.stderr, folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variable that hides what a bare machine lacks from Python."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    return {"PYTHONPATH": str(folder)}


def test_the_blocker_hides_what_is_installed(bare: Mapping[str, str]) -> None:
    program = f"import importlib.util as u; print([name for name in {LACKING!r} if u.find_spec(name)]); import torch"
    found = subprocess.run([sys.executable, "-c", program], env=dict(bare), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.timeout(1200)
def test_every_kind_of_section_runs_with_torch_and_transformers_alone(bare: Mapping[str, str], tmp_path: Path) -> None:
    """In a trial all shapes are the same, so one of each kind is enough."""
    kinds = [name for name in ALL if name.split()[-1] not in ("1.5B", "7B")]
    call = _call(tmp_path, "--minutes", "60", "--out", str(tmp_path), "--sections", *kinds, variables=bare)
    sections = call.tree["sections"]
    found = {name: (each["status"], each["reason"]) for name, each in sections.items()}
    assert found == dict.fromkeys(kinds, ("done", "")), call.complaints
    assert call.code == 0
    assert json.loads((tmp_path / "gpu.json").read_text()) == call.tree
    assert "### Training" in (tmp_path / "gpu.md").read_text()
    checks = sections["checks"]["figures"]
    assert checks["passed"] == checks["of"] == 8
    assert sections["step"]["figures"]["step_2_largest_reward"] > 0


def test_without_time_everything_is_skipped_and_says_so(tmp_path: Path) -> None:
    call = _call(tmp_path, "--minutes", "0.05", variables={"OUT": str(tmp_path)})
    assert call.code == 0
    sections = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert list(sections) == ALL
    for each in sections.values():
        assert each["status"] == "skipped"
        assert "--minutes" in each["reason"]
    assert "training 7B: skipped: " in (tmp_path / "gpu.md").read_text()


# ---------------------------------------------------------------- the time plan


class Scripted:
    """Sections that take as long as the script says, on a clock of their own."""

    def __init__(self, takes: Mapping[str, float]) -> None:
        self._takes = takes
        self.now = 0.0
        self.given: dict[str, tuple[float, float]] = {}

    def run(self, section: Section, *, seconds: float, limit: float) -> Outcome:
        self.given[section.name] = (seconds, limit)
        self.now += min(self._takes.get(section.name, seconds), limit)
        return Outcome(status="done", figures={"limit": limit})


THREE = [Section(name=name, least=60, share=180) for name in ("first", "second", "third")]


def test_a_slow_section_leaves_the_later_ones_their_least() -> None:
    runner = Scripted({"first": 1000})
    outcomes = measure(THREE, runner, minutes=9, clock=lambda: runner.now, seen=lambda _: None)
    assert runner.given == {"first": (180, 420), "second": (60, 60), "third": (60, 60)}
    assert {outcome.status for outcome in outcomes.values()} == {"done"}


def test_shares_shrink_with_the_time_and_what_no_longer_fits_is_skipped() -> None:
    runner = Scripted({"first": 18, "second": 12})
    outcomes = measure(THREE, runner, minutes=0.6, clock=lambda: runner.now, seen=lambda _: None)
    assert runner.given == {"first": (12, 28), "second": (12, 14)}
    assert outcomes["third"] == Outcome(
        status="skipped", reason="6 s are left, and it needs 12 s; give it more --minutes"
    )


def test_what_is_finished_is_on_the_disk_before_the_next_begins(tmp_path: Path) -> None:
    on_disk = []

    class Looking(Scripted):
        def run(self, section: Section, *, seconds: float, limit: float) -> Outcome:
            file = tmp_path / "gpu.json"
            on_disk.append(list(json.loads(file.read_text())["sections"]) if file.exists() else [])
            return super().run(section, seconds=seconds, limit=limit)

    sections = [section for section in SECTIONS if section.name in ("card", "checks", "step")]
    measure(sections, Looking({}), minutes=9, seen=lambda outcomes: report.write(tmp_path, outcomes, {}))
    assert on_disk == [[], ["card"], ["card", "checks"]]


# ---------------------------------------------------------------- sections that go wrong

CHILD = """
import json, sys, time
match sys.argv[1]:
    case "raises": raise ValueError("no such kernel")
    case "hangs": time.sleep(3600)
    case "dies": import os; os.abort()
    case "mumbles": print("no JSON")
    case "wants": print(json.dumps({"skipped": "does not fit"}))
    case "doubts": print(json.dumps({"rate": 1.5, "problems": ["a norm is inf"]}))
    case _: print("loading"); print(json.dumps({"rate": 2.5, "problems": []}))
"""


def test_a_section_that_goes_wrong_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    runner = Processes(options=(), command=(sys.executable, str(script)))
    names = ("raises", "dies", "mumbles", "wants", "doubts", "works")
    sections = [Section(name=name, least=0, share=60) for name in names]
    found = measure(sections, runner, minutes=60, seen=lambda _: None)
    said = {name: (outcome.status, outcome.reason) for name, outcome in found.items()}
    assert said == {
        "raises": ("failed", "ended with code 1: ValueError: no such kernel"),
        "dies": ("failed", "ended with code -6: it said nothing"),
        "mumbles": ("failed", "its last line is no JSON object"),
        "wants": ("skipped", "does not fit"),
        "doubts": ("failed", "a norm is inf"),
        "works": ("done", ""),
    }
    assert found["works"].figures == {"rate": 2.5}
    assert found["doubts"].figures == {"rate": 1.5}


def test_a_section_that_hangs_is_ended(tmp_path: Path) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    runner = Processes(options=(), command=(sys.executable, str(script)))
    outcome = runner.run(Section(name="hangs", least=0, share=1), seconds=1, limit=1)
    assert (outcome.status, outcome.reason) == ("failed", "did not end within its 1 s")


# ---------------------------------------------------------------- figures


def test_the_table_has_a_column_per_shape_and_says_what_is_missing() -> None:
    row = {"kernel": "eager|sdpa", "mean": 0.5}
    outcomes = {
        "training 0.5B": Outcome(status="done", figures={"mfu": 0.4, "peak_gib": None, "steps": 1000, "rows": [row]}),
        "training 1.5B": Outcome(status="failed", reason="a norm is inf", figures={"mfu": 0.3}),
        "training 7B": Outcome(status="skipped", reason="does not fit"),
    }
    assert report.as_markdown(outcomes, {"minutes": 9.0}).splitlines() == [
        "minutes: 9.0",
        "",
        "### Training",
        "",
        "|  | 0.5B | 1.5B |",
        "| --- | --- | --- |",
        "| mfu | 0.4 | 0.3 |",
        "| peak gib | - | - |",
        "| steps | 1,000 | - |",
        "",
        "| kernel | mean |",
        "| --- | --- |",
        "| eager/sdpa | 0.5 |",
        "",
        "training 1.5B: failed: a norm is inf",
        "",
        "training 7B: skipped: does not fit",
    ]


def test_operations_of_a_worked_example() -> None:
    """Two layers of 4 x 4 attention (16 + 16 + 8 + 8) and 3 x 4 x 5, a head of 4 x 10; a row of 3 + 2 tokens."""
    shape = Shape(hidden=4, layers=2, heads=2, groups=1, inner=5, vocabulary=10)
    assert shape.body_parameters == 2 * (48 + 60)
    assert operations(shape, prompt=3, response=2) == 6 * (216 * 5 + 40 * 2) + 12 * 2 * 4 * 25 / 2
    assert operations(shape, prompt=3, response=2, is_frozen=True) == 4 * (216 * 5 + 40 * 2) + 12 * 2 * 4 * 25 / 2


@pytest.mark.parametrize(
    ("shape", "room", "has_peft", "taken"),
    [
        ("0.5B", 78.0, True, "defaults"),
        ("1.5B", 78.0, True, "recompute"),
        ("1.5B", 139.0, True, "defaults"),
        ("7B", 78.0, True, "recompute, LoRA of rank 32"),
        ("7B", 78.0, False, "recompute, 12 of 28 layers"),
        ("7B", 180.0, False, "recompute"),
    ],
)
def test_a_shape_is_trained_as_the_card_allows(shape: str, room: float, has_peft: bool, taken: str) -> None:
    ways = ways_of(SHAPES[shape], dtype="bfloat16", has_peft=has_peft)
    assert fit(ways, room)[0].name == taken


def test_a_card_that_is_too_small_has_no_way() -> None:
    assert fit(ways_of(SHAPES["7B"], dtype="bfloat16", has_peft=False), 8.0) == []


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_shape_that_does_not_fit_is_trained_in_another_way(number: int) -> None:
    """Recomputed activations, LoRA, and fewer layers."""
    way = ways_of(TINY, dtype="bfloat16", has_peft=True)[number]
    found = measure_way(way, Job(device=torch.device("cpu"), tiny=True, seconds=0.0))
    assert found["settings"] == way.name
    assert found["problems"] == []
    assert found["steps"] == 2
    assert found["context"] == 64


def test_ways_that_run_out_of_memory_are_named() -> None:
    def measure_small(way: Way) -> Figures:
        if way.compute.lora_rank == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"settings": way.name}

    ways = ways_of(SHAPES["7B"], dtype="bfloat16", has_peft=True)
    assert first_that_fits(ways, measure_small) == {
        "settings": "recompute, LoRA of rank 32",
        "not_taken": "defaults ran out of memory; recompute ran out of memory",
    }
    with pytest.raises(torch.OutOfMemoryError, match="no way to train it fits: all need more memory"):
        first_that_fits([], measure_small)


def test_every_family_is_in_the_table_of_models() -> None:
    assert set(documented_layouts()) == {family.title for family in FAMILIES}
    assert set(documented_layouts().values()) == {"packed", "row by row"}


# ---------------------------------------------------------------- the step is the services' step


def test_the_defaults_of_the_step_are_the_services() -> None:
    trainer, prm = TrainerSettings(problems="p", steps=1), PrmSettings()
    assert Defaults() == Defaults(
        samples_per_prompt=trainer.samples_per_prompt,
        low=trainer.filter.low,
        high=trainer.filter.high,
        temperature=trainer.sampling.temperature,
        token_budget=trainer.optimiser.token_budget,
        lr=trainer.optimiser.lr,
        grad_clip=trainer.optimiser.grad_clip,
        clip=trainer.loss.clip,
        importance_cap=trainer.loss.importance_cap,
        gamma=trainer.advantage.gamma,
        process_coef=trainer.advantage.process_coef,
        outcome_coef=trainer.advantage.outcome_coef,
        prm_lr=prm.lr,
        prm_grad_clip=prm.grad_clip,
        beta=0.05 if prm.beta is None else prm.beta,
    )


def _groups(step: int) -> list[GradedGroup]:
    draw = torch.Generator().manual_seed(step)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, 200, (length,), generator=draw).tolist())

    def sample(length: int) -> Sample:
        return Sample(
            response_ids=ids(length),
            logprobs=tuple((-5.0 - 2 * torch.rand(length, generator=draw)).tolist()),
            spans=(VersionSpan(version=0, length=length),),
            finish_reason=FinishReason.STOP,
        )

    groups = [
        RolloutGroup(
            group_id=str(number),
            problem_id=str(number),
            attempt=0,
            prompt_ids=ids(3 + number),
            samples=tuple(sample(2 + place) for place in range(4)),
        )
        for number in range(3)
    ]
    return [GradedGroup(group=group, outcomes=(1.0, 0.0, 0.0, 1.0)) for group in groups]


def test_two_steps_end_where_the_services_end(tmp_path: Path) -> None:
    """To the bit: with a rate at which a step would show."""
    settle_torch(device="cpu", threads=1)
    folder = tiny_model(tmp_path / "model")
    rate = {"lr": 1e-3}
    settings = TrainerSettings.model_validate({"problems": "p", "steps": 1, "optimiser": {**rate, "device": "cpu"}})
    policy = Policy(folder, settings)
    prm = ImplicitPrm(PrmSettings.model_validate({**rate, "device": "cpu"}), start=folder)
    trio = Trio(folder, device=torch.device("cpu"), defaults=Defaults(lr=1e-3, prm_lr=1e-3), load=lambda: None)
    for step in (1, 2):
        groups = _groups(step)
        scored = prm.score(prm_view(groups)).rewards
        rewards = TokenRewards(rows=tuple(map(tuple, scored)), prm_version=0, beta=prm.beta, reference_id="")
        metrics = prm.learn(prm_view(groups), [outcome for each in groups for outcome in each.outcomes])
        advantages, _ = CreditAssigner(settings.advantage, tokenizer=policy.tokenizer, longest=9).assign(
            groups, rewards
        )
        batch = PolicyBatch(rows=token_rows(groups), advantages=advantages, sampler_logprobs=sampler_logprobs(groups))
        update = policy.update(batch, seed=0)
        found = trio.step(groups, Stopwatch(torch.device("cpu")))
        assert (found.prm_loss, found.prm_grad_norm) == (metrics.loss, metrics.grad_norm)
        assert found.policy_grad_norm == update.grad_norm
        assert found.policy_loss == pytest.approx(update.loss)
        assert found.sampler_gap == pytest.approx(update.sampler_gap)
        assert found.mean_importance == pytest.approx(update.mean_importance)
        rows = rows_of(groups)
        for ours, theirs in zip(trio.logprobs(rows), policy.logprobs(rows), strict=True):
            assert torch.equal(ours, theirs)
    assert found.largest_reward > 0
