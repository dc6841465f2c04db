"""Weights past gRPC: links between two ends, shared memory, and the inbox that proves what came."""

import gc
import inspect
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import rebuild_cuda_tensor

from prime.errors import WeightPushError
from prime.lm.inbox import Inbox, checksum, transports_of
from prime.lm.link import Link
from prime.lm.model import tensor_bytes
from prime.lm.shared_memory import SharedMemory, read_shared, share
from prime.types import PushOffer, TensorSpec

CPU = torch.device("cpu")
WEIGHTS = [
    torch.arange(7, dtype=torch.bfloat16),
    torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    torch.full((2, 2, 2), 0.5, dtype=torch.float16),
    torch.tensor(3.0),
]
_keys = map(str, count())


def spec_of(tensor: Tensor, name: str = "w") -> TensorSpec:
    return TensorSpec(name=name, dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))


SPECS = [spec_of(tensor, f"w{number}") for number, tensor in enumerate(WEIGHTS)]


def offer(transport: str, place: str, tensors: list[Tensor] = WEIGHTS, *, deadline_s: float = 20.0) -> PushOffer:
    return PushOffer(
        key=next(_keys),
        transport=transport,
        place=place,
        checksums=tuple(map(checksum, tensors)),
        deadline_s=deadline_s,
    )


def listening(*, deadline_s: float = 20.0) -> Link:
    return Link.listen("gloo", towards="127.0.0.1", deadline_s=deadline_s)


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(
        mine.dtype == theirs.dtype and torch.equal(mine, theirs) for mine, theirs in zip(left, right, strict=True)
    )


# ---------------------------------------------------------------- links


def test_a_link_brings_tensors_over_in_order_push_after_push() -> None:
    sender = listening()
    with ThreadPoolExecutor(1) as pool:
        receiver = Link.join("gloo", sender.place, deadline_s=20.0)
        for factor in (1, 2):
            tensors = [tensor * factor for tensor in WEIGHTS]
            sending = pool.submit(sender.send, tensors)
            assert same(list(receiver.receive(SPECS, CPU)), tensors)
            sending.result()


def test_a_link_listens_on_loopback_alone_for_a_replica_on_loopback() -> None:
    assert listening().place.startswith("127.0.0.1:")


def test_a_third_end_is_refused() -> None:
    sender = listening()
    Link.join("gloo", sender.place, deadline_s=5.0)
    with pytest.raises(WeightPushError, match="joined by another process before"):
        Link.join("gloo", sender.place, deadline_s=5.0)


def test_a_trainer_that_is_not_there_is_named() -> None:
    place = listening().place  # its socket closes at once
    with pytest.raises(WeightPushError, match=rf"cannot be met at {place.partition('/')[0]}"):
        Link.join("gloo", place, deadline_s=1.0)


def test_an_end_that_goes_away_is_noticed_by_the_other() -> None:
    sender = listening()
    with ThreadPoolExecutor(1) as pool:
        receiver = Link.join("gloo", sender.place, deadline_s=20.0)
        sending = pool.submit(sender.send, WEIGHTS)
        list(receiver.receive(SPECS, CPU))
        sending.result()
        receiver.close()
        with pytest.raises(WeightPushError, match="sending over gloo failed"):
            sender.send(WEIGHTS)


def test_a_push_that_is_called_off_waits_for_nobody() -> None:
    sender = listening(deadline_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(sender.send, WEIGHTS)
        sender.close()
        with pytest.raises(WeightPushError, match="called off"):
            sending.result(timeout=10)


def test_a_replica_that_never_joins_is_given_up() -> None:
    with pytest.raises(WeightPushError, match=r"did not join within 0\.2 s"):
        listening(deadline_s=0.2).send(WEIGHTS)


# ---------------------------------------------------------------- shared memory


def test_what_is_shared_is_read_whole_and_leaves_no_descriptor_behind() -> None:
    gc.collect()  # what earlier tests left is closed before we count, and not while
    open_before = set(os.listdir("/proc/self/fd"))
    shared = share(WEIGHTS)
    arrived = list(read_shared(shared.place(), SPECS))
    shared.close()
    assert same(arrived, WEIGHTS)  # what is mapped stays
    del arrived
    assert set(os.listdir("/proc/self/fd")) <= open_before


def test_a_reader_changes_nothing_for_others() -> None:
    shared = SharedMemory([tensor_bytes(torch.zeros(3))])
    spec = spec_of(torch.zeros(3))
    (mine,) = read_shared(shared.place(), [spec])
    mine += 1
    (theirs,) = read_shared(shared.place(), [spec])
    shared.close()
    assert theirs.tolist() == [0.0, 0.0, 0.0]


def test_memory_that_cannot_be_reached_is_refused_with_what_to_do() -> None:
    shared = SharedMemory([tensor_bytes(torch.zeros(3))])
    shared.close()
    with pytest.raises(WeightPushError, match=r"one user on one machine.*push over gRPC"):
        list(read_shared(shared.place(), [spec_of(torch.zeros(3))]))
    with pytest.raises(WeightPushError, match="GPU GPU-1 is not visible"):
        list(read_shared('{"gpu": "GPU-1", "handles": []}', []))


def test_torch_rebuilds_gpu_tensors_from_what_is_sent() -> None:
    """Which values a handle has is torch's own business; another torch may have others."""
    names = list(inspect.signature(rebuild_cuda_tensor).parameters)
    assert names[:7] == [
        *("tensor_cls", "tensor_size", "tensor_stride", "tensor_offset", "storage_cls", "dtype", "storage_device"),
    ]
    assert names[7] == "storage_handle"


# ---------------------------------------------------------------- checksums


def test_a_checksum_is_the_sum_of_words_and_of_the_bytes_left_over() -> None:
    assert checksum(torch.tensor([[1.0, 2.0], [0.0, 0.0]])) == 0x40000000_3F800000  # little-endian
    assert checksum(torch.tensor([1.0], dtype=torch.bfloat16)) == 0x80 + 0x3F  # the bytes that are left over
    assert checksum(torch.tensor([0.0, -0.0])) == -(2**63)
    assert checksum(torch.tensor([0.0, -0.0] * 2)) == 0  # modulo 2^64
    assert checksum(torch.tensor([0.0, -0.0, 1.0])) == -(2**63) + 0x80 + 0x3F


def test_a_checksum_tells_a_bit() -> None:
    tensor = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).bfloat16()
    before = checksum(tensor)
    tensor.view(torch.int16)[777] ^= 1
    assert checksum(tensor) != before


# ---------------------------------------------------------------- the inbox


def test_an_inbox_takes_what_is_sent_over_a_link_that_it_keeps() -> None:
    inbox, sender = Inbox(CPU), listening()
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            sending = pool.submit(sender.send, WEIGHTS)
            told = offer("gloo", sender.place)
            inbox.begin(told, SPECS)
            assert same(inbox.take(told.key), WEIGHTS)
            sending.result()


def test_an_inbox_refuses_what_is_not_what_was_sent() -> None:
    shared = share(WEIGHTS)
    other = [WEIGHTS[0] + 1, *WEIGHTS[1:]]
    told = offer("ipc", shared.place(), other)
    inbox = Inbox(CPU)
    inbox.begin(told, SPECS)
    with pytest.raises(WeightPushError, match="1 of 4 tensors are not the ones that were sent"):
        inbox.take(told.key)
    shared.close()


def test_a_push_that_another_one_overtook_is_not_taken_for_it() -> None:
    shared, inbox = share(WEIGHTS), Inbox(CPU)
    first, second = offer("ipc", shared.place()), offer("ipc", shared.place())
    inbox.begin(first, SPECS)
    inbox.begin(second, SPECS)
    with pytest.raises(WeightPushError, match="another one began after it"):
        inbox.take(first.key)
    assert same(inbox.take(second.key), WEIGHTS)
    shared.close()


def test_a_trainer_that_goes_away_half_way_is_let_go_and_the_next_is_met() -> None:
    inbox, gone = Inbox(CPU), listening()
    told = offer("gloo", gone.place)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(gone.send, WEIGHTS[:2])
        inbox.begin(told, SPECS)
        sending.result()
        gone.close()
        with pytest.raises(WeightPushError, match="receiving over gloo failed"):
            inbox.take(told.key)
        sender = listening()
        again = replace(offer("gloo", sender.place), key="again")
        sending = pool.submit(sender.send, WEIGHTS)
        inbox.begin(again, SPECS)
        assert same(inbox.take("again"), WEIGHTS)
        sending.result()


def test_a_transport_of_other_devices_is_refused() -> None:
    assert transports_of("cuda") == ("ipc", "nccl")
    with pytest.raises(WeightPushError, match="weights on cpu cannot be pushed by 'nccl'"):
        Inbox(CPU).begin(offer("nccl", "127.0.0.1:1/x"), SPECS)
