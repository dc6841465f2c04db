"""A push is refused when the engine does not compute from what was sent, whatever the dtypes, and never for rounding.

Everything is real but the wire: policy, publisher, worker and engine. Faults are injected into the engine.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

from prime.adapters.memory import MemoryBroker, MemoryQueue
from prime.errors import WeightPushError
from prime.lm.inbox import checksum, total_checksum
from prime.lm.packing import TokenRow
from prime.maths.agreement import mean_gap, share_of_the_way, tells_old_from_new
from prime.types import PushManifest, TensorSpec
from services.rollout.loop import RolloutWorker, fault_of_probe
from services.rollout.near import NearReplica
from services.rollout.staging import WeightStore
from services.rollout.transformers_engine import TransformersEngine
from services.trainer.batch import PolicyBatch
from services.trainer.policy import Policy
from services.trainer.publisher import Publisher
from services.trainer.settings import TrainerSettings
from tests.builders import finder, perturb, tiny_model

PROBE = tuple(range(5, 60))
_ROW = TokenRow(prompt_ids=(5, 6), response_ids=(7, 8, 9))
BATCH = PolicyBatch(rows=[_ROW], advantages=[torch.tensor([1.0, -1.0, 2.0])], sampler_logprobs=[torch.zeros(3)])
DTYPES = ("float32", "bfloat16")
FAULTS: Mapping[str, Callable[[str], bool]] = {
    "old weights": lambda name: True,
    "one wrong tensor": lambda name: name == "model.layers.1.post_attention_layernorm.weight",
    "one wrong layer": lambda name: name.startswith("model.layers.0."),
    "an old head": lambda name: name == "lm_head.weight",
}


class Faulty(TransformersEngine):
    """Goes on with what it was first given for the weights that `keeps_old` names."""

    def __init__(self, *, model: Path, dtype: str, keeps_old: Callable[[str], bool], tells: bool) -> None:
        super().__init__(model=model, device="cpu", dtype=dtype)
        self._keeps_old = keeps_old
        self._tells = tells
        self._first: dict[str, bytes] = {}

    async def load_weights(self, version: int, tensors: Sequence[tuple[TensorSpec, memoryview]]) -> float:
        given = []
        for spec, data in tensors:
            old = self._first.setdefault(spec.name, bytes(data))
            given.append((spec, memoryview(bytearray(old)) if self._keeps_old(spec.name) else data))
        return await super().load_weights(version, given)

    async def checksum(self) -> int | None:
        """None, as an engine that packs its weights, unless it `tells`."""
        return await super().checksum() if self._tells else None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("model")), seed=1)


async def _replica(engine: TransformersEngine) -> RolloutWorker:
    await engine.start()
    queue = MemoryQueue(MemoryBroker(), consumer="w")
    return RolloutWorker(
        queue=queue, engine=engine, store=WeightStore(), max_groups=4, lease_seconds=5.0, max_context=256
    )


def _policy(folder: Path, dtype: str, *, lr: float = 1e-6, rank: int = 0) -> Policy:
    compute = {"dtype": dtype, "lora_rank": rank}
    settings = {"problems": "x", "steps": 1, "compute": compute, "optimiser": {"lr": lr}}
    return Policy(folder, TrainerSettings.model_validate(settings))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("trainer", "replica"), itertools.product(DTYPES, DTYPES))
async def test_what_the_engine_lost_of_a_push_is_found(folder: Path, trainer: str, replica: str, fault: str) -> None:
    policy = _policy(folder, trainer, lr=1e-2)  # of bfloat16 weights near 1 it changes the last bits
    worker = await _replica(Faulty(model=folder, dtype=replica, keeps_old=FAULTS[fault], tells=True))
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    assert (await publisher.push(0)).replicas == 1
    policy.update(BATCH, seed=1)
    with pytest.raises(WeightPushError, match="does not hold the weights that were sent"):
        await publisher.push(1)
    assert not worker.is_ready


@pytest.mark.parametrize(("trainer", "replica"), itertools.product(DTYPES, DTYPES))
async def test_an_engine_that_packs_its_weights_is_found_with_old_ones(
    folder: Path, trainer: str, replica: str
) -> None:
    policy = _policy(folder, trainer, lr=3e-3)
    worker = await _replica(Faulty(model=folder, dtype=replica, keeps_old=FAULTS["old weights"], tells=False))
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    await publisher.push(0)
    policy.update(BATCH, seed=1)
    with pytest.raises(WeightPushError, match="of the probe"):
        await publisher.push(1)
    assert not worker.is_ready


@pytest.mark.parametrize(("trainer", "replica"), itertools.product(DTYPES, DTYPES))
async def test_clean_pushes_are_taken_whatever_the_dtypes(folder: Path, trainer: str, replica: str) -> None:
    policy = _policy(folder, trainer, lr=1e-4)
    worker = await _replica(TransformersEngine(model=folder, device="cpu", dtype=replica))
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    for version in range(30):
        report = await publisher.push(version)
        assert report.refused == 0
        assert report.probe_gap < report.probe_limit / 2
        policy.update(BATCH, seed=version)


class WithoutAdapters(TransformersEngine):
    """As vLLM: it takes weights alone."""

    def __init__(self, *, model: Path, dtype: str) -> None:
        super().__init__(model=model, device="cpu", dtype=dtype)
        self.takes_adapters = False


@pytest.mark.parametrize(("trainer", "replica"), itertools.product(DTYPES, DTYPES))
async def test_adapters_travel_apart_from_weights_that_never_change(folder: Path, trainer: str, replica: str) -> None:
    policy = _policy(folder, trainer, lr=1e-3, rank=2)
    engine = TransformersEngine(model=folder, device="cpu", dtype=replica)
    worker = await _replica(engine)
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    shares = []
    for version in range(4):
        report = await publisher.push(version)
        assert report.refused == 0
        assert report.probe_gap < report.probe_limit
        shares.append(report.delta_share)
        policy.update(BATCH, seed=version)
    assert shares[0] == 1.0
    assert max(shares[1:]) < 0.2
    assert any(".lora_B." in name for name in engine._module.state_dict())


@pytest.mark.parametrize("replica", DTYPES)
async def test_an_engine_that_takes_none_gets_them_added_into_the_weights(folder: Path, replica: str) -> None:
    policy = _policy(folder, "float32", lr=1e-3, rank=2)
    worker = await _replica(WithoutAdapters(model=folder, dtype=replica))
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    for version in range(3):
        report = await publisher.push(version)
        assert report.probe_gap < report.probe_limit
        policy.update(BATCH, seed=version)


@pytest.mark.parametrize("tells", [True, False])
async def test_old_adapters_are_found(folder: Path, tells: bool) -> None:
    policy = _policy(folder, "float32", lr=3e-3, rank=2)
    keeps_old = lambda name: ".lora_B." in name  # noqa: E731
    worker = await _replica(Faulty(model=folder, dtype="float32", keeps_old=keeps_old, tells=tells))
    publisher = Publisher(finder(NearReplica(worker, "f")), source=policy, probe_ids=PROBE)
    await publisher.push(0)
    policy.update(BATCH, seed=1)
    with pytest.raises(WeightPushError, match="does not hold" if tells else "of the probe"):
        await publisher.push(1)
    assert not worker.is_ready


def test_a_thousand_clean_pushes_with_the_noise_of_bfloat16_are_taken() -> None:
    """Noise as was measured on a model of 135 M parameters: 0.06 nats on average, single tokens beyond 0.3."""
    source = torch.Generator().manual_seed(1)
    noise, tokens = 0.06, 63

    def rounding() -> torch.Tensor:
        heavy = torch.randn(tokens, generator=source) * (1 + torch.rand(tokens, generator=source))
        return heavy * noise / 1.2

    old = -5 * torch.rand(tokens, generator=source)
    for step in range(1000):
        # Updates of all sizes, many of them beyond what noise hides.
        new = old + torch.randn(tokens, generator=source) * 10 ** -(step % 4)
        telling = tells_old_from_new(old.tolist(), new.tolist(), noise=noise)
        manifest = _manifest(new, previous=old if telling else None, max_gap=4 * noise)
        assert not fault_of_probe(manifest, (new + rounding()).tolist())
        if telling:
            assert fault_of_probe(manifest, (old + rounding()).tolist())


def _manifest(new: torch.Tensor, *, previous: torch.Tensor | None, max_gap: float) -> PushManifest:
    return PushManifest(
        version=1,
        tensors=(),
        probe_ids=tuple(range(len(new) + 1)),
        probe_logprobs=tuple(new.tolist()),
        previous_logprobs=() if previous is None else tuple(previous.tolist()),
        max_gap=max_gap,
    )


# ---------------------------------------------------------------- the pieces, by hand


def test_agreement_by_hand() -> None:
    assert mean_gap((1.0, 2.0), (1.5, 1.0)) == 0.75
    assert mean_gap((float("nan"), 2.0), (0.0, 0.0)) == float("inf")
    old, new = (0.0, 0.0), (2.0, 0.0)
    assert share_of_the_way((0.5, 7.0), old, new) == 0.25
    assert share_of_the_way((9.0, 9.0), old, old) == 1.0
    # Half the way is 1 nat; five standard errors are 5 * 1.2533 * noise.
    assert tells_old_from_new(old, new, noise=0.15)
    assert not tells_old_from_new(old, new, noise=0.17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_over_tensors_survives_that_engines_fuse_them(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(rows, 8).to(dtype) for rows in (8, 4, 4))
    apart = total_checksum([query, key, value])
    assert apart == total_checksum([value, query, key]) == checksum(torch.cat([query, key, value]))
    assert apart != total_checksum([query, key, key])
    padded = torch.cat([query, torch.zeros(3, 8, dtype=dtype)])
    assert checksum(padded) == checksum(query)
