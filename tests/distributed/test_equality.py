"""One worker or several, whole or cut, packed or padded, compiled or not: the same losses, gradients and steps."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from prime.lm.compute import Compute
from prime.lm.world import World
from tests.builders import perturb, tiny_model
from tests.distributed import scenarios

pytestmark = pytest.mark.timeout(300)
MODELS = ("untied", "tied")
Found = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "untied": perturb(tiny_model(root / "untied"), seed=1),
        "tied": perturb(tiny_model(root / "tied", tied=True), seed=2),
    }


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path], output: Path) -> Found:
    return scenarios.run_all(folders, output, World())


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest, folders: dict[str, Path], output: Path, alone: Found) -> Found:
    """The same under torchrun, by real processes over gloo. After `alone`, whose checkpoints are read."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={request.param}"),
        *("-m", "tests.distributed.scenarios", *map(str, folders.values()), str(output)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: Found = torch.load(output / f"found-{request.param}.pt")
    return found


def _agree(mine: dict[str, Tensor], theirs: dict[str, Tensor], *, within: float = 1e-5) -> None:
    assert mine.keys() == theirs.keys()
    assert mine
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], atol=within, rtol=within, msg=name)


def _plain(folder: Path) -> dict[str, Tensor]:
    """Loss and gradients from one padded pass of transformers alone."""
    module: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    longest = max(map(len, scenarios.ROWS))
    ids_BL = torch.zeros(len(scenarios.ROWS), longest, dtype=torch.long)
    mask_BL = torch.zeros_like(ids_BL)
    for number, row in enumerate(scenarios.ROWS):
        ids_BL[number, : len(row)] = torch.tensor([*row.prompt_ids, *row.response_ids])
        mask_BL[number, : len(row)] = 1
    logprobs_BLV = (module(input_ids=ids_BL, attention_mask=mask_BL).logits.float() / 0.7).log_softmax(dim=2)
    loss = torch.zeros(())
    for number, row in enumerate(scenarios.ROWS):
        for place in range(len(row.prompt_ids), len(row)):
            loss = loss + scenarios.WEIGHTS[number] * logprobs_BLV[number, place - 1, ids_BL[number, place]]
    loss.backward()  # type: ignore[no-untyped-call]
    return {"loss": loss.detach()} | {f"grad.{name}": each.grad for name, each in module.named_parameters()}


@pytest.mark.parametrize("model", MODELS)
def test_one_worker_equals_a_plain_padded_pass(folders: dict[str, Path], alone: Found, model: str) -> None:
    _agree(alone[f"gradients/{model}"], _plain(folders[model]))


@pytest.mark.parametrize("token_budget", [1, 8, 1000])
def test_the_split_into_micro_batches_changes_nothing(
    folders: dict[str, Path], alone: Found, token_budget: int
) -> None:
    split = scenarios.loss_and_gradients(folders["untied"], Compute(), World(), token_budget=token_budget)
    _agree(split, alone["gradients/untied"])


@pytest.mark.parametrize("model", MODELS)
def test_gradients_do_not_depend_on_the_workers(alone: Found, together: Found, model: str) -> None:
    _agree(together[f"gradients/{model}"], alone[f"gradients/{model}"])


@pytest.mark.parametrize("scenario", ["policy", "prm", "dpo", "sft"])
@pytest.mark.parametrize("model", MODELS)
def test_whole_steps_do_not_depend_on_the_workers(alone: Found, together: Found, scenario: str, model: str) -> None:
    _agree(together[f"{scenario}/{model}"], alone[f"{scenario}/{model}"])


@pytest.mark.parametrize("name", scenarios.LOSSES)
def test_no_loss_depends_on_the_workers(alone: Found, together: Found, name: str) -> None:
    _agree(together[f"loss/{name}"], alone[f"loss/{name}"])
    assert not torch.equal(alone[f"loss/{name}"]["after.1"], alone["policy/untied"]["after.1"])


def test_the_balance_of_routers_does_not_depend_on_the_workers(alone: Found, together: Found) -> None:
    _agree(together["loss/routers"], alone["loss/routers"])


def test_recomputed_activations_change_nothing(alone: Found, together: Found) -> None:
    for found in (alone, together):
        _agree(found["recomputed"], alone["gradients/untied"])


def test_offloaded_weights_change_nothing(alone: Found, together: Found) -> None:
    for found in (alone, together):
        _agree(found["offloaded"], alone["gradients/untied"])


def test_products_in_bfloat16_give_gradients_that_point_the_same_way_summed_in_fp32(
    alone: Found, together: Found
) -> None:
    exact = alone["gradients/untied"]
    for found in (alone, together):
        coarse = found["coarse"]
        assert float(coarse["loss"]) == pytest.approx(float(exact["loss"]), rel=0.02)
        for name in exact.keys() - {"loss"}:
            assert coarse[name].dtype == torch.float32
            assert float(torch.cosine_similarity(coarse[name].flatten(), exact[name].flatten(), dim=0)) > 0.99, name


def test_adapters_learn_the_same_on_any_number_of_workers(alone: Found, together: Found) -> None:
    _agree(together["lora"], alone["lora"])


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_one_worker_goes_on_with_several(alone: Found, together: Found, model: str) -> None:
    _agree(together[f"resumed/{model}"], alone[f"saved/{model}"])


@pytest.mark.parametrize("model", MODELS)
def test_a_checkpoint_of_several_workers_goes_on_with_one(
    folders: dict[str, Path], output: Path, alone: Found, together: Found, model: str
) -> None:
    for size in (2, 4):
        checkpoint = output / f"{model}-{size}"
        if checkpoint.exists():
            _agree(scenarios.resume(folders[model], checkpoint, World(), Compute()), alone[f"saved/{model}"])


def test_compiled_layers_that_are_cut_over_workers_give_the_same_gradients(alone: Found, together: Found) -> None:
    if "compiled" in together:
        _agree(together["compiled"], alone["gradients/untied"])


@pytest.mark.filterwarnings("ignore")  # the compiler looks at tensors in ways that torch warns of
def test_compiled_layers_give_the_same_gradients(folders: dict[str, Path], alone: Found) -> None:
    compiled = scenarios.loss_and_gradients(folders["untied"], Compute(compile=True), World(), token_budget=24)
    _agree(compiled, alone["gradients/untied"])
