"""Every family is computed as transformers computes it, by trainer, PRM and sampler, fast or slow; and learns.

`docs/models.md` says which is fast: its rows are checked here.
"""

import random
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from prime.lm.checkpoint import save_model
from prime.lm.compute import Compute
from prime.lm.model import CausalLM, load_module, load_tokenizer, settle_torch
from prime.lm.packing import TokenRow
from prime.lm.plain import plain_logprobs
from prime.lm.training import Optimiser
from prime.types import RolloutRequest, SamplingParams
from services.rollout.decoding import Batch
from services.rollout.readers import PlainReader, choose_reader
from tests.builders import tiny_model
from tests.families import FAMILIES, VOCABULARY, Family

CPU = torch.device("cpu")
PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
CLOSE = 1e-5
_DRAW = random.Random(1)


def _ids(count: int) -> tuple[int, ...]:
    return tuple(_DRAW.choices(range(3, VOCABULARY), k=count))


PROMPT = _ids(7)
ROWS = [
    TokenRow(prompt_ids=PROMPT, response_ids=_ids(12)),
    TokenRow(prompt_ids=PROMPT, response_ids=_ids(9)),
    TokenRow(prompt_ids=_ids(4), response_ids=_ids(15)),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    return load_tokenizer(tiny_model(tmp_path_factory.mktemp("tokenizer")))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_a_family(family: Family, tmp_path: Path, tokenizer: object) -> None:
    logging.disable_progress_bar()
    settle_torch(device="cpu", threads=1)
    folder = family.write(tmp_path / "model")
    lm = CausalLM(folder, device=CPU)
    scores = lm.score_rows(ROWS, token_budget=1000)
    _check_scores(folder, lm, scores)
    module = load_module(folder, dtype=torch.float32, attention=None).eval()
    reader, _ = choose_reader(module)
    _check_sampling(folder, lm, reader, module)
    _check_learning(lm, tmp_path, tokenizer)
    trains = "row by row" if lm.slow_because else "packed"
    samples = "prompt by prompt" if isinstance(reader, PlainReader) else "together"
    assert f"| {family.title} | {family.members} | {trains} | {samples} |" in PAGE


def _check_scores(folder: Path, lm: CausalLM, scores: list[torch.Tensor]) -> None:
    named = dict(lm.named_tensors())
    for row, logprobs_T in zip(ROWS, scores, strict=True):
        plain = plain_logprobs(folder, named, (*row.prompt_ids, *row.response_ids))[-len(row.response_ids) :]
        assert float((logprobs_T - torch.tensor(plain)).abs().max()) < CLOSE


def _check_sampling(folder: Path, lm: CausalLM, reader: object, module: torch.nn.Module) -> None:
    """Two requests together and one that joins later; long enough to leave every window."""
    batch = Batch(reader, torch.zeros(VOCABULARY, dtype=torch.bool))  # type: ignore[arg-type]
    cohorts = [batch.join([_request("a", _ids(9)), _request("b", _ids(5))])]
    batch.step(0)
    cohorts.append(batch.join([_request("c", _ids(6))]))
    while batch.is_alive:
        batch.step(0)
    groups = [group for cohort in cohorts for group in cohort.finished]
    assert len(groups) == 3
    named = dict(lm.named_tensors())
    for group in groups:
        for sample in group.samples:
            plain = plain_logprobs(folder, named, (*group.prompt_ids, *sample.response_ids))
            expected_T = torch.tensor(plain[-len(sample.response_ids) :])
            assert float((torch.tensor(sample.logprobs) - expected_T).abs().max()) < CLOSE


def _request(name: str, prompt_ids: tuple[int, ...]) -> RolloutRequest:
    return RolloutRequest(
        group_id=name,
        problem_id=name,
        attempt=0,
        prompt_ids=prompt_ids,
        num_samples=2,
        sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=12),
        seed=ord(name),
        min_version=0,
    )


def _check_learning(lm: CausalLM, folder: Path, tokenizer: object) -> None:
    """Steps towards the responses make them likelier, and a checkpoint computes what was saved."""
    optimiser = Optimiser(lm, lr=1e-3, grad_clip=10.0)
    likelihood = []
    for _ in range(4):
        optimiser.clear()
        total = 0.0
        for pack in lm.packs(ROWS, token_budget=1000):
            logprobs_R = lm.logprobs(pack).logprobs_N
            (-logprobs_R.mean()).backward()  # type: ignore[no-untyped-call]
            total += float(logprobs_R.detach().sum())
        likelihood.append(total)
        optimiser.step()
    assert likelihood[-1] > likelihood[0]
    learnt = lm.score_rows(ROWS, token_budget=1000)
    save_model(lm, tokenizer, folder / "saved")
    again = CausalLM(folder / "saved", device=CPU).score_rows(ROWS, token_budget=1000)
    assert all(torch.equal(one, two) for one, two in zip(learnt, again, strict=True))


@pytest.mark.parametrize(
    ("title", "is_packed"),
    [("Llama", True), ("Gemma 3", True), ("LFM2", False), ("Qwen3.5", False), ("Falcon-H1", False)],
)
def test_the_proof_tells_rounding_from_rows_that_see_each_other(title: str, is_packed: bool, tmp_path: Path) -> None:
    """In bfloat16, as a GPU computes it."""
    [family] = [each for each in FAMILIES if each.title == title]
    lm = CausalLM(family.write(tmp_path / "model"), device=CPU, compute=Compute(dtype="bfloat16"))
    assert (lm.slow_because == "") is is_packed
    if not is_packed:
        assert "they see each other" in lm.slow_because


def test_the_page_names_every_family_and_no_other() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "|---" not in line][1:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [family.title for family in FAMILIES]
