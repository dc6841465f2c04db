"""The LM core on a GPU gives what it gives on a CPU. Skips by itself where there is none."""

from pathlib import Path

import pytest
import torch

from prime.lm.compute import Compute, whole
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow, build_pack
from prime.lm.training import Optimiser
from tests.builders import perturb, tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

ROWS = [
    TokenRow(prompt_ids=(7, 8), response_ids=(9,)),
    TokenRow(prompt_ids=(5,), response_ids=(6, 4, 30, 77, 1)),
    TokenRow(prompt_ids=(100, 101, 102, 103), response_ids=(1,)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("model")), seed=1)


def test_logprobs_agree_with_the_cpu(folder: Path) -> None:
    on_gpu, on_cpu = (CausalLM(folder, device=torch.device(name)) for name in ("cuda", "cpu"))
    for mine, theirs in zip(
        on_gpu.score_rows(ROWS, token_budget=6), on_cpu.score_rows(ROWS, token_budget=100), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


SHARED = [TokenRow(prompt_ids=(7, 8, 9), response_ids=tuple(range(10, 10 + length))) for length in (1, 40, 7)]


def test_the_flash_kernel_sees_what_padded_attention_sees(folder: Path) -> None:
    """In bfloat16, forward and backward; responses that share a prompt among them."""
    rows = [*ROWS, *SHARED]
    found = []
    for name, dtype in (("cuda", "bfloat16"), ("cpu", "float32")):
        lm = CausalLM(folder, device=torch.device(name), compute=Compute(dtype=dtype))  # type: ignore[arg-type]
        logprobs_N = lm.logprobs(build_pack(rows, range(len(rows)))).logprobs_N
        logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
        parameter = lm.parameters[0].grad
        gradient = whole(parameter) if parameter is not None else torch.zeros(())
        found.append((logprobs_N.detach().cpu(), gradient.float().cpu().flatten()))
    (on_gpu, gradient_on_gpu), (on_cpu, gradient_on_cpu) = found
    torch.testing.assert_close(on_gpu, on_cpu, atol=0.1, rtol=0.05)
    assert float(torch.cosine_similarity(gradient_on_gpu, gradient_on_cpu, dim=0)) > 0.99


def test_a_training_step_agrees_with_the_cpu(folder: Path) -> None:
    norms = []
    for name in ("cuda", "cpu"):
        lm = CausalLM(folder, device=torch.device(name))
        optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
        lm.logprobs(build_pack(ROWS, [0, 1, 2])).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
        norms.append(optimiser.step())
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
