"""What each service needs by the size of the model, from formulas: `python -m benchmarks.capacity` prints the tables.

`tests/unit/test_capacity.py` holds the formulas against small models that are really made, and `docs/deploy.md` against
what this prints. Memory of a training step is `benchmarks.training.peak_gib`.
"""

from collections.abc import Iterator

from benchmarks.prm_pair import Shape
from benchmarks.training import SHAPES, peak_gib

_GIB = 1024**3
_TOKENS = 16384
CONTEXT = 4096
"""Of the paper: 1024 of the prompt, 3072 of the response."""
GROUPS, SAMPLES = 256, 4
CARD_GIB = 78.0
"""Of a GPU with 80 GB, what is free."""
_VLLM_SHARE = 0.9
DELTA_SHARE = 0.03
"""Of the weights' bytes, what a delta has after a PRIME step; measured by `make bench-weights`."""
_NET_BYTES = 10e9 / 8


def cache_bytes(shape: Shape, *, width: int = 2) -> int:
    """Keys and values of one token, in all layers."""
    return 2 * shape.layers * shape.groups * (shape.hidden // shape.heads) * width


def sequences_in_flight(shape: Shape, *, card_gib: float = CARD_GIB) -> int:
    """How many of the paper's length a replica on one GPU samples at once, beside its weights in bfloat16."""
    free = _VLLM_SHARE * card_gib * _GIB - 2 * shape.parameters
    return max(0, int(free // (CONTEXT * cache_bytes(shape))))


def queue_bytes(*, prompt: int, response: int, samples: int) -> int:
    """One group in Redis: 4 bytes per token id, 4 per log-prob."""
    return 4 * prompt + 8 * response * samples


def prm_gib(shape: Shape, *, gpus: int, tokens: int = _TOKENS) -> float:
    """Per GPU: as the policy, and the reference in bfloat16 beside it, cut over the same GPUs."""
    return peak_gib(shape, tokens=tokens, gpus=gpus) + 2 * shape.parameters / gpus / _GIB


def smallest(shape: Shape, *, of_prm: bool) -> int:
    """GPUs of 80 GB that hold it."""
    for gpus in (1, 2, 3, 4, 6, 8, 16, 32):
        needed = prm_gib(shape, gpus=gpus) if of_prm else peak_gib(shape, tokens=_TOKENS, gpus=gpus)
        if needed < CARD_GIB:
            return gpus
    raise ValueError("more than 32 GPUs")


def rows() -> Iterator[str]:
    """The table of `docs/deploy.md`, by model size."""
    for name, shape in SHAPES.items():
        policy, prm = smallest(shape, of_prm=False), smallest(shape, of_prm=True)
        gigabytes = 2 * shape.parameters / 1e9
        yield (
            f"| {name} | {policy} | {peak_gib(shape, tokens=_TOKENS, gpus=policy):.0f} | {prm} "
            f"| {prm_gib(shape, gpus=prm):.0f} | {2 * shape.parameters / _GIB:.1f} "
            f"| {cache_bytes(shape) / 1024:.0f} | {sequences_in_flight(shape)} "
            f"| {gigabytes:.1f} / {DELTA_SHARE * gigabytes:.2f} | {2 * shape.parameters / _NET_BYTES:.1f} |"
        )


def main() -> None:
    """Print it."""
    for row in rows():
        print(row)
    step = GROUPS * queue_bytes(prompt=1024, response=3072, samples=SAMPLES)
    print(f"queue, per step of the paper's size: {step / 1e6:.0f} MB at most")


if __name__ == "__main__":
    main()
