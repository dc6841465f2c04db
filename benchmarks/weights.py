"""The weight push against a bare gRPC stream of the same bytes: `make bench-weights`.

Whole, as what changed, and past gRPC (through memory on the same machine, and over a gloo link).

A replica process serves a 0.5B-parameter model in bfloat16 with the transformers engine, over loopback; this process is
the trainer's side. The weights lie ready in bfloat16, as a GPU trainer hands them over; between pushes 2 % of their
values move by one unit in the last place. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import torch
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.prm_pair import shape_of_half_billion, write_model
from prime.adapters.grpc_clients import GrpcRollout
from prime.adapters.grpc_server import MAX_MESSAGE_BYTES, build_server
from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.adapters.telemetry import Meters
from prime.lm.model import load_module, tensor_bytes
from prime.types import PushReceipt, TensorAlias
from services.rollout.loop import RolloutWorker
from services.rollout.rpc import RolloutServicer, add_rollout_servicer
from services.rollout.staging import WeightStore
from services.rollout.transformers_engine import TransformersEngine
from services.trainer.direct import DirectPush
from services.trainer.outgoing import OutgoingWeights, Probe

_TOKEN = "benchmark"
_CHUNK = 1024 * 1024
_CHANGED_SHARE = 0.02
# A probe of two tokens: its forward pass on a CPU without bfloat16 units would be most of a push otherwise.
_PROBE = Probe(ids=(5, 9), logprobs=(-1.0,), max_gap=1e9)
_TRANSPORTS = ("ipc", "gloo")


def main() -> None:
    """Push, and print the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=24)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        print("writing the model ...", flush=True)
        write_model(model, shape_of_half_billion(layers=arguments.layers), seed=0, dtype=torch.bfloat16)
        context = multiprocessing.get_context("spawn")
        receiving, sending = context.Pipe(duplex=False)
        replica = context.Process(target=_serve, args=(model, sending), daemon=True)
        replica.start()
        try:
            address = receiving.recv()
            print(json.dumps(asyncio.run(_measure(address, model, arguments.rounds))))
        finally:
            replica.terminate()
            replica.join()


# ---------------------------------------------------------------- the replica's process


def _serve(model: Path, sending: Any) -> None:
    torch.set_num_threads(1)
    asyncio.run(_serve_replica(model, sending))


async def _serve_replica(model: Path, sending: Any) -> None:
    engine = TransformersEngine(model=model, device="cpu", dtype="bfloat16")
    await engine.start()
    worker = RolloutWorker(
        queue=MemoryQueue(MemoryBroker(), consumer="benchmark"),
        engine=engine,
        store=WeightStore(),
        max_groups=8,
        lease_seconds=60.0,
        max_context=2048,
    )
    server = build_server(_TOKEN, Meters())
    add_rollout_servicer(RolloutServicer(worker, "fingerprint"), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    # The bare stream: the same process, gRPC and messages of 1 MiB; what comes is counted and dropped.
    bare = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])

    async def push(messages: AsyncIterator[bytes], context: Any) -> bytes:
        total = 0
        async for message in messages:
            total += len(message)
        return str(total).encode()

    handler: Any = grpc.stream_unary_rpc_method_handler(push)
    bare.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", {"Push": handler}),))
    bare_port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    sending.send((f"127.0.0.1:{port}", f"127.0.0.1:{bare_port}"))
    await server.wait_for_termination()


# ---------------------------------------------------------------- the trainer's side


async def _measure(addresses: tuple[str, str], model: Path, rounds: int) -> dict[str, Any]:
    module = load_module(model, dtype=torch.bfloat16, attention="sdpa")
    tensors = [(name, tensor) for name, tensor in module.state_dict().items() if name != "lm_head.weight"]
    aliases = [TensorAlias(name="lm_head.weight", of="model.embed_tokens.weight")]
    num_bytes = sum(2 * tensor.numel() for _, tensor in tensors)
    replica = GrpcRollout(addresses[0], _TOKEN, deadline_s=600.0)
    bare, full, delta, last = [], [], [], None
    fetched: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        bare.append(await _bare(addresses[1], tensors))
        last, seconds = await _push(replica, tensors, aliases, 2 * number, base=None)
        full.append(seconds)
        tensors = [(name, _moved(tensor, seed=number)) for name, tensor in tensors]
        await asyncio.sleep(1.0)  # as between two steps: the replica gets its other buffer ready
        last, seconds = await _push(replica, tensors, aliases, 2 * number + 1, base=last)
        delta.append({**seconds, "bytes": last.num_delta_bytes})
        print(json.dumps({"bare": bare[-1], "full": full[-1], "delta": delta[-1]}), flush=True)
    # Apart from the others: a replica that changes its way lets go of a gigabyte and asks for another each time.
    for transport in _TRANSPORTS:
        direct = DirectPush(transport, deadline_s=600.0)
        fetched[transport] = [await _push_past_grpc(direct, replica, tensors, aliases) for _ in range(rounds)]
        print(json.dumps({transport: fetched[transport][-1]}), flush=True)
    await replica.close()
    # The first round pays for memory that the operating system has not handed out yet.
    bare, full, delta = bare[1:], full[1:], delta[1:]
    fetched = {transport: pushes[1:] for transport, pushes in fetched.items()}
    middle = statistics.median
    return {
        "full_bytes_per_second_vs_raw_grpc": round(middle(b / f["in_use"] for b, f in zip(bare, full, strict=True)), 3),
        "delta_bytes_share": round(middle(each["bytes"] for each in delta) / num_bytes, 4),
        "delta_time_vs_full": round(middle(d["in_use"] / f["in_use"] for d, f in zip(delta, full, strict=True)), 3),
        **{
            f"{transport}_time_vs_full": round(
                middle(each["in_use"] for each in pushes) / middle(each["in_use"] for each in full), 3
            )
            for transport, pushes in fetched.items()
        },
        "pause_share": round(middle(each["pause"] / each["in_use"] for each in delta), 4),
        "pause_share_full": round(middle(each["pause"] / each["in_use"] for each in full), 4),
        "with_probe": {
            "full_bytes_per_second_vs_raw_grpc": round(
                middle(b / f["answered"] for b, f in zip(bare, full, strict=True)), 3
            ),
            "delta_time_vs_full": round(
                middle(d["answered"] / f["answered"] for d, f in zip(delta, full, strict=True)), 3
            ),
        },
        "seconds": {
            "bare": round(middle(bare), 3),
            "full": round(middle(each["in_use"] for each in full), 3),
            "delta": round(middle(each["in_use"] for each in delta), 3),
            "delta_pause": round(middle(each["pause"] for each in delta), 5),
            **{transport: round(middle(each["in_use"] for each in pushes), 3) for transport, pushes in fetched.items()},
        },
        "bytes": num_bytes,
        "engine": "transformers, bfloat16",
        "machine": machine(),
    }


async def _bare(address: str, tensors: list[tuple[str, Tensor]]) -> float:
    views = [tensor_bytes(tensor) for _, tensor in tensors]

    async def chunks() -> AsyncIterator[bytes]:
        for view in views:
            for start in range(0, len(view), _CHUNK):
                yield bytes(view[start : start + _CHUNK])

    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    ) as channel:
        started = time.perf_counter()
        push: Any = channel.stream_unary("/bare.Bare/Push")
        await push(chunks())
        return time.perf_counter() - started


async def _push(
    replica: GrpcRollout,
    tensors: list[tuple[str, Tensor]],
    aliases: list[TensorAlias],
    version: int,
    *,
    base: OutgoingWeights | None,
) -> tuple[OutgoingWeights, dict[str, float]]:
    """Seconds until the new weights are in use (the bars), and until the probe was answered as well."""
    started = time.perf_counter()
    outgoing = OutgoingWeights(version, tensors, aliases, probe=_PROBE, base=base, keep_base=True)
    chunks = outgoing.full() if base is None else outgoing.changes()
    receipt = await replica.push(outgoing.manifest(as_delta=base is not None), chunks, outgoing.digest)
    answered = time.perf_counter() - started
    return outgoing, _figures(answered, receipt)


async def _push_past_grpc(
    direct: DirectPush, replica: GrpcRollout, tensors: list[tuple[str, Tensor]], aliases: list[TensorAlias]
) -> dict[str, float]:
    """As `_push`, but the replica fetches the weights."""
    started = time.perf_counter()
    outgoing = OutgoingWeights(0, tensors, aliases, probe=_PROBE, base=None, keep_base=False)
    receipt = await direct.push(replica.address, replica, outgoing)
    answered = time.perf_counter() - started
    direct.release()
    return _figures(answered, receipt)


def _figures(answered: float, receipt: PushReceipt) -> dict[str, float]:
    return {
        "in_use": answered - receipt.probe_seconds,
        "answered": answered,
        "pause": receipt.pause_seconds,
    }


def _moved(tensor: Tensor, *, seed: int) -> Tensor:
    """2 % of the values one unit in the last place away."""
    moved = tensor.clone()
    integers = moved.view(-1).view(torch.int16)
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(integers), (max(1, round(_CHANGED_SHARE * len(integers))),), generator=draw)
    integers[chosen] ^= 1
    return moved


if __name__ == "__main__":
    main()
