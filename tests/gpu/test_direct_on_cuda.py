"""Weights from GPU to GPU: CUDA IPC between two processes, NCCL between two GPUs. Skips by itself without them."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from prime.lm.inbox import Inbox, checksum
from prime.lm.link import Link
from prime.lm.shared_memory import share
from prime.types import PushOffer, TensorSpec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def weights() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw).bfloat16() for shape in ((1000, 64), (7,), (3, 5, 2))]


def _offer(transport: str, place: str) -> tuple[PushOffer, list[TensorSpec]]:
    specs = [
        TensorSpec(name=str(number), dtype="bfloat16", shape=tuple(tensor.shape))
        for number, tensor in enumerate(weights())
    ]
    sums = tuple(map(checksum, weights()))
    return PushOffer(key="k", transport=transport, place=place, checksums=sums, deadline_s=60.0), specs


def _take(device: str, transport: str, place: str, answer: Any) -> None:
    offer, specs = _offer(transport, place)
    inbox = Inbox(torch.device(device))
    inbox.begin(offer, specs)
    taken = inbox.take("k")
    answer.send([torch.equal(mine.cpu(), theirs) for mine, theirs in zip(taken, weights(), strict=True)])


def _ask(device: str, transport: str, place: str) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_take, args=(device, transport, place, sending), daemon=True)
    process.start()
    return process, receiving


def test_a_checksum_is_the_same_on_a_gpu() -> None:
    assert [checksum(tensor.cuda()) for tensor in weights()] == [checksum(tensor) for tensor in weights()]


def test_another_process_reads_a_gpus_memory_where_it_lies() -> None:
    tensors = [tensor.cuda() for tensor in weights()]
    process, receiving = _ask("cuda:0", "ipc", share(tensors).place())
    assert receiving.poll(60)
    assert receiving.recv() == [True, True, True]
    process.join(30)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL wants a GPU per rank")
def test_tensors_go_from_one_gpu_to_another() -> None:
    link = Link.listen("nccl", towards="127.0.0.1", deadline_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(link.send, [tensor.to("cuda:0") for tensor in weights()])
        process, receiving = _ask("cuda:1", "nccl", link.place)
        assert receiving.poll(60)
        assert receiving.recv() == [True, True, True]
        sending.result()
    process.join(30)
    link.close()
