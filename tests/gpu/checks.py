"""What holds on a device: functions that raise where it does not. They need torch and transformers alone.

`test_on_cuda.py` has pytest run them on a GPU, and `python -m benchmarks.gpu` runs them without pytest, in a test on a
CPU too.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from prime.data.tiny import write_tiny_model
from prime.lm.compute import Compute, whole
from prime.lm.inbox import Inbox, checksum
from prime.lm.link import Link
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow, build_pack
from prime.lm.shared_memory import share
from prime.lm.training import Optimiser
from prime.types import PushOffer, TensorSpec

ROWS = [
    TokenRow(prompt_ids=(7, 8), response_ids=(9,)),
    TokenRow(prompt_ids=(5,), response_ids=(6, 4, 30, 77, 1)),
    TokenRow(prompt_ids=(100, 101, 102, 103), response_ids=(1,)),
]
SHARED = [TokenRow(prompt_ids=(7, 8, 9), response_ids=tuple(range(10, 10 + length))) for length in (1, 40, 7)]
CPU = torch.device("cpu")


class NotHere(Exception):
    """The machine lacks what a check needs."""


@contextmanager
def _model() -> Iterator[Path]:
    """A tiny model whose weights are large enough to make log-probs differ clearly."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_model(folder, seed=0, hidden=32, context=256)
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.save_pretrained(folder)
        yield folder


def logprobs_agree_with_the_cpu(device: torch.device) -> None:
    """In float32."""
    with _model() as folder:
        here, there = CausalLM(folder, device=device), CausalLM(folder, device=CPU)
    ours, theirs = here.score_rows(ROWS, token_budget=6), there.score_rows(ROWS, token_budget=100)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)


def rows_are_packed_in_both_precisions(device: torch.device) -> None:
    """The fast way passes the proof at load."""
    with _model() as folder:
        for dtype in ("float32", "bfloat16"):
            lm = CausalLM(folder, device=device, compute=Compute(dtype=dtype))
            assert not lm.slow_because, f"{dtype}: {lm.slow_because}"


def half_precision_sees_what_padded_attention_sees(device: torch.device) -> None:
    """In bfloat16, forward and backward; responses that share a prompt among them."""
    rows = [*ROWS, *SHARED]
    found = []
    with _model() as folder:
        for where, dtype in ((device, "bfloat16"), (CPU, "float32")):
            lm = CausalLM(folder, device=where, compute=Compute(dtype=dtype))  # type: ignore[arg-type]
            logprobs_N = lm.logprobs(build_pack(rows, range(len(rows)))).logprobs_N
            logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
            gradients = [whole(each.grad).float().cpu().flatten() for each in lm.parameters if each.grad is not None]
            assert len(gradients) == len(lm.parameters), "a weight has no gradient"
            found.append((logprobs_N.detach().cpu(), torch.cat(gradients)))
    (ours, our_gradient), (theirs, their_gradient) = found
    torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0.05)
    likeness = float(torch.cosine_similarity(our_gradient, their_gradient, dim=0))
    assert likeness > 0.99, f"the gradients' cosine is {likeness:.3f}"


def a_training_step_agrees_with_the_cpu(device: torch.device) -> None:
    """In float32, by its gradient norm and by the log-probs after it."""
    norms, after = [], []
    with _model() as folder:
        for where in (device, CPU):
            lm = CausalLM(folder, device=where)
            optimiser = Optimiser(lm, lr=1e-3, grad_clip=1.0)
            lm.logprobs(build_pack(ROWS, [0, 1, 2])).logprobs_N.sum().backward()  # type: ignore[no-untyped-call]
            norms.append(optimiser.step())
            after.append(torch.cat(lm.score_rows(ROWS, token_budget=100)))
    torch.testing.assert_close(norms[0], norms[1], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(after[0], after[1], rtol=1e-3, atol=1e-3)


def offloaded_weights_learn(device: torch.device) -> None:
    """Weights, gradients and moments in the machine's memory."""
    with _model() as folder:
        lm = CausalLM(folder, device=device, compute=Compute(dtype="bfloat16", offload=True, recompute=True))
    before = torch.cat(lm.score_rows(ROWS, token_budget=100))
    optimiser = Optimiser(lm, lr=1e-2, grad_clip=1.0)
    (-lm.logprobs(build_pack(ROWS, [0, 1, 2])).logprobs_N.sum()).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    after = torch.cat(lm.score_rows(ROWS, token_budget=100))
    assert float(after.sum()) > float(before.sum()), "what was learnt is no more likely"


# ---------------------------------------------------------------- weights on their way to a replica


def _weights() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw).bfloat16() for shape in ((1000, 64), (7,), (3, 5, 2))]


def _offer(transport: str, place: str) -> tuple[PushOffer, list[TensorSpec]]:
    specs = [
        TensorSpec(name=str(number), dtype="bfloat16", shape=tuple(tensor.shape))
        for number, tensor in enumerate(_weights())
    ]
    sums = tuple(map(checksum, _weights()))
    return PushOffer(key="k", transport=transport, place=place, checksums=sums, deadline_s=60.0), specs


def _take(device: str, transport: str, place: str, answer: Any) -> None:
    offer, specs = _offer(transport, place)
    inbox = Inbox(torch.device(device))
    inbox.begin(offer, specs)
    taken = inbox.take("k")
    answer.send([torch.equal(mine.cpu(), theirs) for mine, theirs in zip(taken, _weights(), strict=True)])


def _ask(device: str, transport: str, place: str) -> None:
    """Another process takes them, and finds them equal."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_take, args=(device, transport, place, sending), daemon=True)
    process.start()
    sending.close()
    try:
        assert receiving.poll(60), "the other process does not answer"
        assert receiving.recv() == [True, True, True]
    except EOFError:
        raise AssertionError("the other process ended without an answer; see its message") from None
    finally:
        process.join(30)


def a_checksum_is_that_of_the_cpu(device: torch.device) -> None:
    """Bit for bit."""
    assert [checksum(tensor.to(device)) for tensor in _weights()] == [checksum(tensor) for tensor in _weights()]


def another_process_reads_the_memory(device: torch.device) -> None:
    """CUDA IPC, or shared memory."""
    shared = share([tensor.to(device) for tensor in _weights()])
    _ask(str(device), "ipc", shared.place())
    shared.close()


def tensors_go_to_another_process(device: torch.device) -> None:
    """NCCL between two GPUs, or gloo between CPUs."""
    transport, there = "gloo", "cpu"
    if device.type == "cuda":
        if torch.cuda.device_count() < 2:
            raise NotHere("NCCL wants a GPU per rank, and there is one")
        transport, there = "nccl", "cuda:1"
    link = Link.listen(transport, towards="127.0.0.1", deadline_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(link.send, [tensor.to(device) for tensor in _weights()])
        _ask(there, transport, link.place)
        sending.result()
    link.close()


CHECKS: tuple[Callable[[torch.device], None], ...] = (
    logprobs_agree_with_the_cpu,
    rows_are_packed_in_both_precisions,
    half_precision_sees_what_padded_attention_sees,
    a_training_step_agrees_with_the_cpu,
    offloaded_weights_learn,
    a_checksum_is_that_of_the_cpu,
    another_process_reads_the_memory,
    tensors_go_to_another_process,
)
