"""The LM core: packing changes nothing, and every model goes through the same code."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from prime.errors import CheckpointError, EngineError, SettingsError
from prime.lm.checkpoint import Snapshot, load_training_state, load_weights, save_model, write_folder
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_tokenizer, require_model_folder, stop_token_ids, tokenizer_fingerprint
from prime.lm.packing import TokenRow, build_pack, plan_packs, split_rows
from prime.lm.training import Optimiser
from tests.builders import perturb, tiny_model

CPU = torch.device("cpu")
ROWS = [
    TokenRow(prompt_ids=(7, 8), response_ids=(9,)),
    TokenRow(prompt_ids=(5,), response_ids=(6, 4, 30, 77, 1)),
    TokenRow(prompt_ids=(100, 101, 102, 103), response_ids=(1,)),
    TokenRow(prompt_ids=(5,), response_ids=(6, 4)),
]


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("model"), tied=request.param), seed=1)


def _plain_logprobs(folder: Path, row: TokenRow) -> torch.Tensor:
    module: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    logprobs_LV = module(input_ids=ids).logits[0].float().log_softmax(dim=1)
    start = len(row.prompt_ids)
    return torch.stack([logprobs_LV[start + place - 1, token] for place, token in enumerate(row.response_ids)])


@pytest.mark.parametrize("token_budget", [1, 8, 1000])
def test_packed_logprobs_equal_one_plain_pass_per_row(folder: Path, token_budget: int) -> None:
    lm = CausalLM(folder, device=CPU)
    for row, ours in zip(ROWS, lm.score_rows(ROWS, token_budget=token_budget), strict=True):
        torch.testing.assert_close(ours, _plain_logprobs(folder, row), atol=1e-5, rtol=1e-5)


def test_gradients_do_not_depend_on_the_packs(folder: Path) -> None:
    gradients = []
    for token_budget in (1, 8, 1000):
        lm = CausalLM(folder, device=CPU)
        for numbers in plan_packs(ROWS, token_budget=token_budget):
            pack = build_pack(ROWS, numbers)
            by_row = split_rows(lm.logprobs(pack).logprobs_N, pack)
            torch.stack([(number + 1) * by_row[number].sum() for number in numbers]).sum().backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in lm.parameters])
    for other in gradients[1:]:
        for mine, theirs in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_equal_weights_give_equal_bits(folder: Path) -> None:
    """Reference and PRM use one code path, so the log-ratio starts at exactly 0."""
    one, other = CausalLM(folder, device=CPU), CausalLM(folder, device=CPU)
    for mine, theirs in zip(
        one.score_rows(ROWS, token_budget=64), other.score_rows(ROWS, token_budget=64), strict=True
    ):
        assert torch.equal(mine, theirs)
    assert one.digest() == other.digest()


def test_the_head_is_named_even_when_it_is_tied(folder: Path) -> None:
    names = [name for name, _ in CausalLM(folder, device=CPU).named_tensors()]
    assert "lm_head.weight" in names
    assert names == sorted(names)


def test_packs_keep_every_row_once_and_respect_the_budget() -> None:
    plans = plan_packs(ROWS, token_budget=6)
    assert sorted(number for plan in plans for number in plan) == [0, 1, 2, 3]
    assert all(sum(len(ROWS[number]) for number in plan) <= 6 for plan in plans)


def test_the_worked_example_of_a_pack_holds() -> None:
    pack = build_pack(
        [TokenRow(prompt_ids=(7, 8), response_ids=(9,)), TokenRow(prompt_ids=(5,), response_ids=(6, 4))], [0, 1]
    )
    assert pack.ids_N.tolist() == [7, 8, 9, 5, 6, 4]
    assert pack.positions_N.tolist() == [0, 1, 2, 0, 1, 2]
    assert pack.slots_SL.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert pack.predictors_R.tolist() == [1, 3, 4]
    assert pack.chosen_R.tolist() == [9, 6, 4]


def test_a_row_without_a_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt token"):
        build_pack([TokenRow(prompt_ids=(), response_ids=(1,))], [0])


def test_coarse_master_weights_are_refused_at_small_rates(folder: Path) -> None:
    lm = CausalLM(folder, device=CPU, dtype=torch.bfloat16)
    with pytest.raises(SettingsError, match="bfloat16"):
        Optimiser(lm, lr=1e-6, grad_clip=1.0)
    Optimiser(lm, lr=1e-3, grad_clip=1.0)


def test_a_gradient_that_is_not_finite_updates_nothing(folder: Path) -> None:
    lm = CausalLM(folder, device=CPU)
    before = lm.digest()
    optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
    lm.parameters[0].grad = torch.full_like(lm.parameters[0], float("nan"))
    with pytest.raises(EngineError, match="not taken"):
        optimiser.step()
    assert lm.digest() == before


def test_a_checkpoint_brings_weights_and_moments_back(folder: Path, tmp_path: Path) -> None:
    def train(lm: CausalLM, optimiser: Optimiser) -> None:
        lm.logprobs(build_pack(ROWS, [0, 1, 2, 3])).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    lm = CausalLM(folder, device=CPU)
    optimiser = Optimiser(lm, lr=1e-2, grad_clip=1.0)
    train(lm, optimiser)
    snapshot = Snapshot(
        lm,
        optimiser,
        load_tokenizer(folder),
        model_folder=tmp_path / "model",
        state_folder=tmp_path / "state",
        facts={"version": 3},
    )
    train(lm, optimiser)  # while it is written
    snapshot.wait()

    again = CausalLM(folder, device=CPU)
    load_weights(again, tmp_path / "model")
    optimiser_again = Optimiser(again, lr=1e-2, grad_clip=1.0)
    assert load_training_state(again, optimiser_again, tmp_path / "state") == {"version": 3}
    train(again, optimiser_again)
    assert again.digest() == lm.digest()


@pytest.mark.parametrize("by_snapshot", [False, True])
def test_adapters_are_kept_by_themselves_and_added_in(folder: Path, tmp_path: Path, by_snapshot: bool) -> None:
    """What peft makes of base and adapter is what we computed, and what the merged weights are."""
    lm = CausalLM(folder, device=CPU, compute=Compute(lora_rank=3))
    optimiser = Optimiser(lm, lr=1e-2, grad_clip=1.0)
    for _ in range(2):  # in the first, half of an adapter is 0 and gives the other half no gradient
        lm.logprobs(build_pack(ROWS, [0, 1, 2, 3])).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    tokenizer, saved = load_tokenizer(folder), tmp_path / "model"
    if by_snapshot:
        Snapshot(lm, optimiser, tokenizer, facts={}, model_folder=saved, state_folder=tmp_path / "state").wait()
    else:
        save_model(lm, tokenizer, saved)

    config = json.loads((saved / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (3, 6, str(folder))
    assert "q_proj" in config["target_modules"]
    base, merged = AutoModelForCausalLM.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(saved)
    ids = torch.tensor([[*ROWS[1].prompt_ids, *ROWS[1].response_ids]])
    with torch.no_grad():
        before, expected = base(ids).logits, merged(ids).logits
        served = PeftModel.from_pretrained(base, saved / "adapter")(ids).logits
    torch.testing.assert_close(served, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, expected, atol=1e-3)
    ours = lm.score_rows(ROWS, token_budget=100)
    theirs = CausalLM(saved, device=CPU).score_rows(ROWS, token_budget=100)
    torch.testing.assert_close(torch.cat(ours), torch.cat(theirs), atol=1e-5, rtol=1e-5)


def test_a_torn_write_leaves_the_old_folder_in_place(tmp_path: Path) -> None:
    def succeed(target: Path) -> None:
        (target / "a").write_text("old")

    write_folder(tmp_path / "x", succeed)

    def fail(target: Path) -> None:
        (target / "a").write_text("new")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_folder(tmp_path / "x", fail)
    assert (tmp_path / "x" / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_fingerprints_tell_tokenizers_apart(tmp_path: Path) -> None:
    from prime.data.chain import build_tokenizer

    bytes_folder = tiny_model(tmp_path / "bytes")
    one, same = load_tokenizer(bytes_folder), load_tokenizer(bytes_folder)
    assert tokenizer_fingerprint(one) == tokenizer_fingerprint(same)
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(build_tokenizer())
    same.chat_template = "{{ messages }}"
    assert tokenizer_fingerprint(one) != tokenizer_fingerprint(same)


@pytest.mark.parametrize(("named", "ids"), [([1, 30, 31], (1, 30, 31)), (30, (1, 30)), (None, (1,))])
def test_end_tokens_of_the_generation_config_count_too(tmp_path: Path, named: Any, ids: tuple[int, ...]) -> None:
    folder = tiny_model(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    assert stop_token_ids(folder, tokenizer) == (tokenizer.eos_token_id,) == (1,)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    assert stop_token_ids(folder, tokenizer) == ids


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        CausalLM(tmp_path, device=CPU)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_model_that_this_user_may_not_read_is_named() -> None:
    """As in a container whose user is not the owner; safetensors alone says that there is no such file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").touch(mode=0o600)
        os.seteuid(65534)
        try:
            with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read by user 65534"):
                require_model_folder(folder)
        finally:
            os.seteuid(0)
