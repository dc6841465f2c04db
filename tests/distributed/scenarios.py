"""What the equality tests compute, in a world of any size: under torchrun as a module, or in the test process."""

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.sft import SftSettings, SftStep, run_sft
from prime.lm.checkpoint import Snapshot, load_training_state, load_weights
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, settle_torch
from prime.lm.packing import TokenRow, split_rows
from prime.lm.training import Optimiser
from prime.lm.world import World, follow, join_world
from prime.types import PrmGroup
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from services.trainer.batch import PolicyBatch
from services.trainer.policy import Policy
from services.trainer.settings import TrainerSettings
from tests.builders import with_tokenizer
from tests.families import FAMILIES

CPU = torch.device("cpu")
_DRAW = torch.Generator().manual_seed(5)


def _ids(count: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 250, (count,), generator=_DRAW).tolist())


PROMPTS = [_ids(length) for length in (3, 1, 9)]
ROWS = [
    TokenRow(prompt_ids=PROMPTS[number % 3], response_ids=_ids(length))
    for number, length in enumerate((1, 12, 5, 7, 2, 30, 4))
]
GROUPS = [
    PrmGroup(group_id=str(number), prompt_ids=prompt, responses=tuple(_ids(length) for length in lengths))
    for number, (prompt, lengths) in enumerate(zip(PROMPTS, ((4, 9), (1, 6, 3), (20, 2)), strict=True))
]
OUTCOMES = [1.0, 0.0, 0.25, 1.0, 0.0, 0.0, 1.0]
WEIGHTS = [0.5 * number - 1.0 for number in range(len(ROWS))]


def loss_and_gradients(folder: Path, compute: Compute, world: World, *, token_budget: int) -> dict[str, Tensor]:
    """Of `sum_i w_i * sum_t log p` over all rows, put together from all ranks and packs."""
    lm = CausalLM(folder, device=CPU, compute=compute, world=world)
    loss = torch.zeros(())
    for pack in lm.packs(ROWS, token_budget=token_budget):
        logprobs_N = lm.logprobs(pack, temperature=0.7).logprobs_N
        by_row = split_rows(logprobs_N, pack)
        part = logprobs_N[:0].sum() + sum(WEIGHTS[number] * by_row[number].sum() for number in pack.rows)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.detach()
    found = {"loss": world.sum(loss)}
    for name, parameter in lm.module.named_parameters():
        if parameter.grad is not None:
            gradient = parameter.grad
            found[f"grad.{name}"] = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return found


def policy_step(folder: Path, settings: TrainerSettings, world: World) -> dict[str, Tensor]:
    """Two updates on one batch: figures, and log-probs after each."""
    policy = Policy(folder, settings, world)
    if not world.is_leader:
        follow(policy)
        return {}
    draw = torch.Generator().manual_seed(1)
    before = policy.logprobs(ROWS)
    batch = PolicyBatch(
        rows=ROWS,
        advantages=[torch.randn(len(row.response_ids), generator=draw) for row in ROWS],
        sampler_logprobs=[each + 0.1 * torch.randn(len(each), generator=draw) for each in before],
    )
    found = {"before": torch.cat(before)}
    for number in range(2):
        metrics = policy.update(batch, seed=number)
        found[f"metrics.{number}"] = torch.tensor([metrics.loss, metrics.grad_norm, metrics.entropy, metrics.kl_to_old])
        found[f"after.{number}"] = torch.cat(policy.logprobs(ROWS))
    world.send(None)
    return found


def prm_step(folder: Path, settings: PrmSettings, world: World) -> dict[str, Tensor]:
    """Score, learn twice, score."""
    prm = ImplicitPrm(settings, start=folder, world=world)
    if not world.is_leader:
        follow(prm)
        return {}
    found: dict[str, Tensor] = {}
    for number in range(2):
        found[f"rewards.{number}"] = torch.cat([torch.tensor(row) for row in prm.score(GROUPS).rewards])
        metrics = prm.learn(GROUPS, OUTCOMES)
        found[f"metrics.{number}"] = torch.tensor([metrics.loss, metrics.grad_norm, metrics.mean_logit])
    found["rewards.2"] = torch.cat([torch.tensor(row) for row in prm.score(GROUPS, reuse=True).rewards])
    world.send(None)
    return found


def train(lm: CausalLM, optimiser: Optimiser, *, steps: int) -> Tensor:
    """A few steps on the rows; log-probs after them."""
    for _ in range(steps):
        for pack in lm.packs(ROWS, token_budget=20):
            (-lm.logprobs(pack).logprobs_N.sum() / 61).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return torch.cat(lm.score_rows(ROWS, token_budget=1000))


def save_and_go_on(folder: Path, checkpoint: Path, world: World, compute: Compute) -> dict[str, Tensor]:
    """Two steps, a snapshot, and two more that must not be in it."""
    lm = CausalLM(folder, device=CPU, compute=compute, world=world)
    optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
    train(lm, optimiser, steps=2)
    snapshot = Snapshot(
        lm,
        optimiser,
        load_tokenizer(folder),
        model_folder=checkpoint / "model",
        state_folder=checkpoint / "state",
        facts={"cursor": 7},
    )
    after = train(lm, optimiser, steps=2)
    snapshot.wait()
    return {"after": after}


def resume(folder: Path, checkpoint: Path, world: World, compute: Compute) -> dict[str, Tensor]:
    """From somebody's checkpoint, two steps."""
    lm = CausalLM(folder, device=CPU, compute=compute, world=world)
    optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
    load_weights(lm, checkpoint / "model")
    facts = load_training_state(lm, optimiser, checkpoint / "state")
    assert facts == {"cursor": 7}
    return {"after": train(lm, optimiser, steps=2)}


def sft(folder: Path, output: Path, world: World) -> dict[str, Tensor]:
    """Four steps with an evaluation; cut after the third and resumed, in the same world."""
    rows = [
        {"prompt": [{"role": "user", "content": f"Count to {number}."}], "response": "one two " * (1 + number % 5)}
        for number in range(12)
    ]
    data = output / "sft.jsonl"
    if world.size == 1:  # which comes first
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = SftSettings(
        model=folder,
        data=data,
        evaluation_data=data,
        output=output / f"sft-{folder.name}-{world.size}",
        steps=4,
        batch_size=5,
        lr=1e-3,
        token_budget=60,
        evaluate_every=2,
        checkpoint_every=2,
        device="cpu",
    )
    steps: list[SftStep] = []

    class Cut(Exception):
        pass

    def on_step(step: SftStep) -> None:
        steps.append(step)
        if step.step == 3:
            raise Cut

    with contextlib.suppress(Cut):
        run_sft(settings, on_step, world=world)
    del steps[-1]
    run_sft(settings, steps.append, resume=True, world=world)
    return {
        "losses": torch.tensor([step.loss for step in steps if step.loss is not None]),
        "norms": torch.tensor([step.grad_norm for step in steps]),
        "evaluations": torch.tensor([step.evaluation_loss for step in steps if step.evaluation_loss is not None]),
    }


def trainer_settings(**changes: Any) -> TrainerSettings:
    return TrainerSettings.model_validate(
        {
            "problems": "none",
            "steps": 1,
            "max_lag": 1,
            "optimiser": {"lr": 1e-3, "mini_batches": 2, "token_budget": 24},
            **changes,
        }
    )


def prm_settings(**changes: Any) -> PrmSettings:
    return PrmSettings(lr=1e-3, mini_batches=2, token_budget=24, **changes)


LOSSES: Mapping[str, dict[str, Any]] = {
    "gspo": {"kind": "gspo", "mean": "sequence", "clip": 0.01},
    "cispo": {"kind": "cispo", "mean": "constant", "clip_high": 0.3},
    "dual-clip": {"dual_clip": 1.3, "importance_kind": "masked", "importance_cap": 1.1},
    "entropy": {"entropy_coef": 0.1, "importance_kind": "sequence", "mean": "sequence"},
}


def write_mixture(folder: Path) -> None:
    """A small mixture of experts, with the tokenizer of the other models."""
    (family,) = [each for each in FAMILIES if each.title == "Qwen3-MoE"]
    with_tokenizer(replace(family, config={**family.config, "vocab_size": 258}).write(folder))


def run_all(folders: dict[str, Path], output: Path, world: World) -> dict[str, dict[str, Tensor]]:
    """Every scenario; the untied and the tied model are Llamas."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, folder in folders.items():
        found[f"gradients/{name}"] = loss_and_gradients(folder, Compute(), world, token_budget=24)
        found[f"policy/{name}"] = policy_step(folder, trainer_settings(), world)
        found[f"prm/{name}"] = prm_step(folder, prm_settings(), world)
        found[f"dpo/{name}"] = prm_step(folder, prm_settings(loss="dpo"), world)
        found[f"sft/{name}"] = sft(folder, output, world)
        found[f"saved/{name}"] = save_and_go_on(folder, output / f"{name}-{world.size}", world, Compute())
    moe = output / "moe"
    if world.size == 1:
        write_mixture(moe)
    found["loss/routers"] = policy_step(moe, trainer_settings(loss={"router_coef": 0.5}), world)
    untied = folders["untied"]
    found["recomputed"] = loss_and_gradients(untied, Compute(recompute=True), world, token_budget=24)
    found["offloaded"] = loss_and_gradients(untied, Compute(offload=True), world, token_budget=24)
    found["coarse"] = loss_and_gradients(untied, Compute(dtype="bfloat16"), world, token_budget=24)
    for name, loss in LOSSES.items():
        found[f"loss/{name}"] = policy_step(untied, trainer_settings(loss=loss), world)
    found["lora"] = policy_step(untied, trainer_settings(compute={"lora_rank": 2}), world)
    return found


def main(folders: dict[str, Path], output: Path) -> None:
    """Under torchrun: rank 0 leaves what it found."""
    settle_torch(device="cpu", threads=1)
    world = join_world("cpu")
    found = run_all(folders, output, world)
    for name, folder in folders.items():
        found[f"resumed/{name}"] = resume(folder, output / f"{name}-1", world, Compute())
    if world.size == 2:  # once is enough for what takes half a minute to compile
        found["compiled"] = loss_and_gradients(folders["untied"], Compute(compile=True), world, token_budget=24)
    if world.is_leader:
        torch.save(found, output / f"found-{world.size}.pt")
    world.leave()


if __name__ == "__main__":
    main({"untied": Path(sys.argv[1]), "tied": Path(sys.argv[2])}, Path(sys.argv[3]))
