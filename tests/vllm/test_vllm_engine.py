"""Tiny random Qwen2 models: what vLLM answers after each push must be what transformers computes from the same weights.

One engine per kind of output head for the whole module, because a start takes half a minute; every test pushes the
weights it speaks of.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from prime.errors import EngineError, WeightPushError
from prime.lm.adapters import add_adapters, merged_tensors, stored_tensors
from prime.lm.inbox import checksum
from prime.lm.link import Link
from prime.lm.model import tensor_bytes
from prime.lm.shared_memory import share
from prime.types import (
    FinishReason,
    PushManifest,
    PushOffer,
    RolloutGroup,
    RolloutRequest,
    Sample,
    SamplingParams,
    TensorSpec,
    VersionSpan,
)
from services.rollout.loop import Engine

pytest.importorskip("vllm")

from services.rollout.vllm_engine import Room, VllmEngine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

EOS = 1
VOCAB = 100
CLOSE = 1e-3
PROBE = (5, 17, 33, 2, 9, 64, 41, 7, 80, 23, 11, 50)
SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=32)
REQUEST = RolloutRequest(
    group_id="g",
    problem_id="p",
    attempt=0,
    prompt_ids=(5, 6, 7),
    num_samples=4,
    sampling=SAMPLING,
    seed=7,
    min_version=0,
)

Weights = dict[str, Tensor]


def config(tied: bool) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,  # of 32: vLLM's CPU attention has no smaller heads
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        eos_token_id=EOS,
        initializer_range=0.15,  # well away from uniform, so that other weights give clearly other log-probs
    )


def model_folder(folder: Path, tied: bool) -> Path:
    from tokenizers import Tokenizer, models

    letters = {"<pad>": 0, "<end>": EOS} | {chr(0x4E00 + i): i for i in range(2, VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(letters, unk_token="<pad>")), eos_token="<end>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    config(tied).save_pretrained(folder)
    return folder


def random_weights(seed: int, tied: bool) -> Weights:
    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(config(tied))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # their initial values are all 0 or 1: a mix-up would not show
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def without_end(weights: Weights) -> Weights:
    """The same, but the end token is practically never sampled: all other logits are spread widely around its 0."""
    head = 4 * weights["lm_head.weight"]
    head[EOS] = 0
    return weights | {"lm_head.weight": head}


def with_other_head(weights: Weights, tied: bool) -> Weights:
    torch.manual_seed(99)
    head = weights["lm_head.weight"] + 0.15 * torch.randn_like(weights["lm_head.weight"])
    return weights | {"lm_head.weight": head} | ({"model.embed_tokens.weight": head} if tied else {})


def pushed(weights: Weights) -> list[tuple[TensorSpec, memoryview]]:
    return [
        (TensorSpec(name=name, dtype="float32", shape=tuple(tensor.shape)), tensor_bytes(tensor))
        for name, tensor in sorted(weights.items())
    ]


@torch.no_grad()
def reference(weights: Weights, ids: tuple[int, ...], *, temperature: float = 1.0) -> Tensor:
    """Log-prob of each token after the first, by plain transformers."""
    model = Qwen2ForCausalLM(config(tied=False)).eval()
    model.load_state_dict(weights)
    logprobs_TV = (model(torch.tensor([ids])).logits[0, :-1] / temperature).log_softmax(-1)
    chosen_T: Tensor = logprobs_TV.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    return chosen_T


def gap(left: Any, right: Any) -> float:
    return float((torch.as_tensor(left) - torch.as_tensor(right)).abs().max())


def sampled_gap(weights: Weights, group: RolloutGroup, sample: Sample, *, temperature: float = 1.0) -> float:
    expected = reference(weights, group.prompt_ids + sample.response_ids, temperature=temperature)
    return gap(sample.logprobs, expected[len(group.prompt_ids) - 1 :])


async def generate(engine: Engine, *requests: RolloutRequest) -> list[RolloutGroup]:
    return [group async for group in engine.generate(requests)]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=[True, False], ids=["tied", "untied"])
async def served(request: Any, tmp_path_factory: Any) -> AsyncIterator[tuple[VllmEngine, bool]]:
    tied = request.param
    folder = model_folder(tmp_path_factory.mktemp("model"), tied)
    engine = VllmEngine(model=folder, max_context=1024, max_groups=8, room=Room(kv_cache_gib=0.25))
    await engine.start()
    with pytest.raises(EngineError, match="holds no weights"):
        await generate(engine, REQUEST)
    yield engine, tied
    await engine.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def with_adapters(tmp_path_factory: Any) -> AsyncIterator[VllmEngine]:
    folder = model_folder(tmp_path_factory.mktemp("adapted"), tied=True)
    engine = VllmEngine(model=folder, max_context=1024, max_groups=8, room=Room(kv_cache_gib=0.25), lora_rank=4)
    await engine.start()
    yield engine
    await engine.close()


def adapted(weights: Weights, seed: int, *, rank: int = 4) -> tuple[Weights, Weights]:
    """What is pushed of a model with adapters, and the same with them added in."""
    model = Qwen2ForCausalLM(config(tied=True))
    model.load_state_dict(weights)
    add_adapters(model, rank)
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:  # 0 at the start
            parameter.data.normal_(0.0, 0.1)
    apart, merged = ({name: tensor.detach().clone() for name, tensor in of} for of in _both(model))
    return apart, merged


def _both(model: Qwen2ForCausalLM) -> tuple[Any, Any]:
    return stored_tensors(model), merged_tensors(model)


async def test_adapters_are_pushed_beside_the_weights_and_exchanged_in_flight(with_adapters: VllmEngine) -> None:
    engine = with_adapters
    assert engine.takes_adapters
    weights = without_end(random_weights(1, tied=True))
    weights |= {"model.embed_tokens.weight": weights["lm_head.weight"]}
    (first, first_merged), (second, second_merged) = (adapted(weights, seed) for seed in (1, 2))
    assert gap(reference(first_merged, PROBE), reference(second_merged, PROBE)) > 0.3
    await engine.load_weights(1, pushed(first))
    assert gap(await engine.logprobs(PROBE), reference(first_merged, PROBE)) < CLOSE

    long = replace(REQUEST, group_id="long", sampling=replace(SAMPLING, max_tokens=900))
    sampling = asyncio.create_task(generate(engine, long))
    await asyncio.sleep(0.5)
    await engine.load_weights(2, pushed(second))
    assert gap(await engine.logprobs(PROBE), reference(second_merged, PROBE)) < CLOSE
    (group,) = await sampling
    assert (group.oldest_version, group.newest_version) == (1, 2)

    (group,) = await generate(engine, REQUEST)
    assert group.oldest_version == group.newest_version == 2
    assert max(sampled_gap(second_merged, group, sample) for sample in group.samples) < CLOSE
    # Other weights beside the adapters are taken too.
    other, other_merged = adapted(random_weights(5, tied=True), 3)
    await engine.load_weights(3, pushed(other))
    assert gap(await engine.logprobs(PROBE), reference(other_merged, PROBE)) < CLOSE
    # Weights alone are answered from without the adapters before.
    await engine.load_weights(4, pushed(weights))
    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE


async def test_adapters_that_are_too_large_are_refused_and_change_nothing(with_adapters: VllmEngine) -> None:
    engine = with_adapters
    weights = random_weights(1, tied=True)
    await engine.load_weights(5, pushed(weights))
    apart, _ = adapted(weights, 1, rank=8)
    with pytest.raises(WeightPushError, match=r"rank 8, and rollout\.lora_rank is 4"):
        await engine.load_weights(6, pushed(apart))
    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE


async def test_the_probe_follows_every_push(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    first, second = random_weights(1, tied), random_weights(2, tied)

    for version, weights in ((1, first), (2, second), (3, first)):
        pause_seconds = await engine.load_weights(version, pushed(weights))
        assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
        assert 0 < pause_seconds < 10
    assert gap(reference(first, PROBE), reference(second, PROBE)) > 0.5


async def test_a_push_of_another_head_alone_is_not_ignored(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    before = random_weights(3, tied)
    after = with_other_head(before, tied)
    await engine.load_weights(4, pushed(before))
    await engine.logprobs(PROBE)

    await engine.load_weights(5, pushed(after))
    probe = await engine.logprobs(PROBE)

    assert gap(probe, reference(after, PROBE)) < CLOSE
    assert gap(probe, reference(before, PROBE)) > 0.3


async def test_a_head_may_differ_from_the_embedding_that_the_configuration_ties_it_to(
    served: tuple[VllmEngine, bool],
) -> None:
    engine, tied = served
    weights = with_other_head(random_weights(3, tied), tied=False)

    await engine.load_weights(6, pushed(weights))

    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE


@pytest.mark.parametrize("temperature", [1.0, 0.7])
async def test_sampled_logprobs_are_those_of_the_distribution_sampled_from(
    served: tuple[VllmEngine, bool], temperature: float
) -> None:
    engine, tied = served
    weights = random_weights(4, tied)
    await engine.load_weights(7, pushed(weights))
    requests = [
        replace(REQUEST, group_id=f"g{n}", seed=n, sampling=replace(SAMPLING, temperature=temperature))
        for n in range(4)
    ]

    groups = await generate(engine, *requests)

    assert {group.group_id for group in groups} == {"g0", "g1", "g2", "g3"}
    for group in groups:
        assert group.oldest_version == group.newest_version == 7
        assert len({sample.response_ids for sample in group.samples}) == REQUEST.num_samples
        for sample in group.samples:
            assert sum(span.length for span in sample.spans) == len(sample.response_ids) == len(sample.logprobs)
            assert sampled_gap(weights, group, sample, temperature=temperature) < CLOSE


async def test_a_seed_gives_the_same_samples_again_and_its_neighbour_gives_others(
    served: tuple[VllmEngine, bool],
) -> None:
    engine, tied = served
    await engine.load_weights(8, pushed(random_weights(4, tied)))

    (again,), (first,), (neighbour,) = [
        await generate(engine, request) for request in (REQUEST, REQUEST, replace(REQUEST, seed=8))
    ]

    assert again == first
    assert not {s.response_ids for s in first.samples} & {s.response_ids for s in neighbour.samples}


async def test_seeded_requests_survive_more_prompt_tokens_than_one_step_takes(
    served: tuple[VllmEngine, bool],
) -> None:
    """A prompt read in parts kills vLLM's CPU worker: it winds the sample's random stream back, which a CPU cannot."""
    engine, tied = served
    await engine.load_weights(1, pushed(random_weights(1, tied)))
    prompts = [tuple(2 + (number * place) % 97 for place in range(1, 401)) for number in range(1, 31)]
    requests = [
        replace(REQUEST, group_id=f"g{number}", prompt_ids=prompt, seed=number) for number, prompt in enumerate(prompts)
    ]
    assert len([group async for group in engine.generate(requests)]) == len(requests)


async def test_a_response_ends_with_its_end_token_or_at_the_limit(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    weights = random_weights(5, tied)
    await engine.load_weights(9, pushed(weights))
    requests = [
        replace(REQUEST, group_id=f"{n}", seed=n, num_samples=8, sampling=replace(SAMPLING, max_tokens=80))
        for n in range(8)
    ]

    samples = [sample for group in await generate(engine, *requests) for sample in group.samples]

    assert {sample.finish_reason for sample in samples} == {FinishReason.STOP, FinishReason.LENGTH}
    for sample in samples:
        assert EOS not in sample.response_ids[:-1]
        if sample.finish_reason is FinishReason.STOP:
            assert sample.response_ids[-1] == EOS
        else:
            assert len(sample.response_ids) == 80


async def test_a_request_in_flight_survives_a_push_and_tells_which_weights_sampled_what(
    served: tuple[VllmEngine, bool],
) -> None:
    engine, tied = served
    first, second = (without_end(random_weights(seed, tied)) for seed in (6, 7))
    await engine.load_weights(10, pushed(first))
    await generate(engine, replace(REQUEST, sampling=replace(SAMPLING, max_tokens=2)))  # warm
    long = replace(REQUEST, num_samples=2, sampling=replace(SAMPLING, max_tokens=1000))

    sampling = asyncio.create_task(generate(engine, long))
    await asyncio.sleep(0.3)
    await engine.load_weights(11, pushed(second))
    (group,) = await sampling

    for sample in group.samples:
        old, new = sample.spans
        assert (old.version, new.version) == (10, 11)
        assert old.length + new.length == 1000
        start = len(group.prompt_ids) - 1
        ids = group.prompt_ids + sample.response_ids
        assert gap(sample.logprobs[: old.length], reference(first, ids)[start : start + old.length]) < CLOSE
        assert gap(sample.logprobs[old.length :], reference(second, ids)[start + old.length :]) < CLOSE


async def test_no_key_or_value_of_old_weights_is_reused_after_a_push(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    prompt = tuple(2 + n % 90 for n in range(600))  # longer than a few cache blocks
    request = replace(REQUEST, prompt_ids=prompt)

    for version, seed in ((12, 8), (13, 9)):
        weights = random_weights(seed, tied)
        await engine.load_weights(version, pushed(weights))
        for _ in range(2):
            (group,) = await generate(engine, request)
            assert max(sampled_gap(weights, group, sample) for sample in group.samples) < CLOSE
            assert group.samples[0].spans[0].version == version


async def test_pushes_at_the_same_time_take_turns(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    weights = {version: random_weights(version, tied) for version in (14, 15, 16)}

    await asyncio.gather(*(engine.load_weights(version, pushed(tensors)) for version, tensors in weights.items()))
    (group,) = await generate(engine, REQUEST)

    assert gap(await engine.logprobs(PROBE), reference(weights[group.newest_version], PROBE)) < CLOSE


async def test_a_caller_that_goes_away_leaves_no_half_push(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    await engine.load_weights(17, pushed(random_weights(17, tied)))
    weights = random_weights(18, tied)

    push = asyncio.create_task(engine.load_weights(18, pushed(weights)))
    await asyncio.sleep(0.03)
    push.cancel()
    await asyncio.wait([push])
    await engine.load_weights(19, pushed(weights))

    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
    (group,) = await generate(engine, REQUEST)
    assert group.samples[0].spans[0] == VersionSpan(version=19, length=len(group.samples[0].response_ids))


async def test_requests_of_a_caller_that_goes_away_are_dropped(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    await engine.load_weights(20, pushed(without_end(random_weights(6, tied))))
    endless = replace(REQUEST, sampling=replace(SAMPLING, max_tokens=1000))

    sampling = asyncio.create_task(generate(engine, endless))
    await asyncio.sleep(0.1)
    sampling.cancel()
    await asyncio.wait([sampling])

    assert engine._llm.get_num_unfinished_requests() == 0


async def test_a_push_that_lacks_the_head_changes_nothing(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    weights = random_weights(21, tied)
    await engine.load_weights(21, pushed(weights))
    other = random_weights(22, tied)
    del other["lm_head.weight"]

    with pytest.raises(WeightPushError, match=r"'lm_head.weight': pushed not at all"):
        await engine.load_weights(22, pushed(other))

    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE


def fetched(weights: Weights, *, version: int, transport: str, place: str) -> PushManifest:
    """Announces weights that lie there, a tied head under its own name too."""
    specs = [spec for spec, _ in pushed(weights)]
    sums = tuple(checksum(weights[spec.name]) for spec in specs)
    offer = PushOffer(key=str(version), transport=transport, place=place, checksums=sums, deadline_s=60.0)
    return PushManifest(
        version=version, tensors=tuple(specs), probe_ids=PROBE, probe_logprobs=(), max_gap=0.0, offer=offer
    )


def in_order(weights: Weights) -> list[Tensor]:
    return [weights[spec.name].contiguous() for spec, _ in pushed(weights)]


async def test_vllm_fetches_weights_over_a_link_while_it_samples(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    before = without_end(random_weights(30, tied))
    await engine.load_weights(30, pushed(before))
    endless = replace(REQUEST, num_samples=1, sampling=replace(SAMPLING, max_tokens=200))
    link = Link.listen("gloo", towards="127.0.0.1", deadline_s=60.0)

    sampling = asyncio.create_task(generate(engine, endless))
    for version in (31, 32):
        weights = without_end(random_weights(version, tied))
        manifest = fetched(weights, version=version, transport="gloo", place=link.place)
        await engine.begin_fetch(manifest)
        await asyncio.to_thread(link.send, in_order(weights))
        await engine.finish_fetch(manifest)
        await engine.load_fetched(manifest)
        assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
    (group,) = await sampling
    link.close()

    assert [span.version for span in group.samples[0].spans] == [30, 31, 32]
    assert sum(span.length for span in group.samples[0].spans) == 200


async def test_vllm_reads_weights_where_the_trainer_has_them(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    weights = random_weights(33, tied)
    shared = share(in_order(weights))
    manifest = fetched(weights, version=33, transport="ipc", place=shared.place())

    await engine.begin_fetch(manifest)
    await engine.finish_fetch(manifest)
    await engine.load_fetched(manifest)
    shared.close()

    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
    (group,) = await generate(engine, REQUEST)
    assert group.newest_version == 33


async def test_weights_that_do_not_arrive_leave_the_old_ones_in_use(served: tuple[VllmEngine, bool]) -> None:
    engine, tied = served
    weights, other = random_weights(34, tied), random_weights(35, tied)
    await engine.load_weights(34, pushed(weights))
    torn = share(in_order(other | {"lm_head.weight": weights["lm_head.weight"]}))
    manifest = fetched(other, version=35, transport="ipc", place=torn.place())

    await engine.begin_fetch(manifest)
    with pytest.raises(EngineError, match="not the ones that were sent"):
        await engine.finish_fetch(manifest)
    torn.close()
    with pytest.raises(EngineError, match="one user on one machine"):
        await engine.begin_fetch(manifest)
    link = Link.listen("gloo", towards="127.0.0.1", deadline_s=60.0)
    manifest = fetched(other, version=36, transport="gloo", place=link.place)
    await engine.begin_fetch(manifest)
    await asyncio.to_thread(link.send, in_order(other)[:3])
    link.close()
    with pytest.raises(EngineError, match="receiving over gloo failed"):
        await engine.finish_fetch(manifest)

    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
    (group,) = await generate(engine, REQUEST)
    assert group.newest_version == 34


async def test_an_engine_that_a_push_broke_says_so_and_answers_nothing_more(served: tuple[VllmEngine, bool]) -> None:
    """Stays last: the engine is of no use afterwards."""
    engine, tied = served
    weights = random_weights(23, tied)
    await engine.load_weights(23, pushed(weights))
    unknown, unloadable = (
        [(replace(spec, dtype=dtype), content) for spec, content in pushed(weights)] for dtype in ("float33", "bits8")
    )

    with pytest.raises(EngineError, match="float33"):
        await engine.load_weights(24, unknown)
    assert gap(await engine.logprobs(PROBE), reference(weights, PROBE)) < CLOSE
    with pytest.raises(EngineError, match="taking the weights of version 25"):
        await engine.load_weights(25, unloadable)

    for call in (engine.logprobs(PROBE), generate(engine, REQUEST), engine.load_weights(26, [])):
        with pytest.raises(EngineError, match="restart this replica"):
            await call
