"""Two whole PRIME steps in one process at the shape of 0.5B: sample, score, teach the PRM, update, hand weights over.

With the services' defaults, except that there are few prompts and responses are short, and that a rule takes the
verifier's place: a model with random weights solves nothing, so an answer passes if its first token is even.
"""

import math
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import untrained
from benchmarks.gpu.job import Figures, Job, Stopwatch, peak_gib
from benchmarks.gpu.prime_step import Defaults, Trio, rows_of
from prime.lm.packing import TokenRow
from prime.maths.agreement import mean_gap, share_of_the_way, tells_old_from_new
from prime.maths.filtering import in_band
from prime.types import GradedGroup, RolloutRequest, SamplingParams
from services.rollout.decoding import Batch
from services.rollout.readers import choose_reader

_STEPS = 2
_NOISE_TIMES, _LEAST_GAP = 4.0, 1e-3
"""By how much of what rounding makes of the probe an answer may be off, as `services/trainer/publisher.py` has it."""


class _Sampler:
    """The transformers engine's batch and reader, without the service around them."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self.reader, self.slow_because = choose_reader(module)
        stop_V = torch.zeros(module.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=module.device)
        self._batch = Batch(self.reader, stop_V)

    def sample(self, requests: list[RolloutRequest]) -> list[GradedGroup]:
        """Groups in the order of the requests, graded."""
        cohort = self._batch.join(requests)
        while self._batch.is_alive:
            self._batch.step(0)
        groups = {group.group_id: group for group in cohort.finished}
        ordered = [groups[request.group_id] for request in requests]
        return [
            GradedGroup(group=group, outcomes=tuple(_outcome(sample.response_ids) for sample in group.samples))
            for group in ordered
        ]

    @torch.no_grad()
    def take(self, named: Iterable[tuple[str, Tensor]]) -> None:
        """Other weights, by their checkpoint names."""
        own = self._module.state_dict()
        for name, tensor in named:
            own[name].copy_(tensor)


def _outcome(response_ids: tuple[int, ...]) -> float:
    """Half of all answers of a model without knowledge pass."""
    return float(response_ids[0] % 2 == 0)


def run(job: Job) -> Figures:
    """Seconds of each part in the second step, figures of both, and what is wrong with them."""
    shape, device, defaults = job.shape("0.5B"), job.device, Defaults()
    with tempfile.TemporaryDirectory() as name:
        folder = untrained.write_folder(Path(name), shape)
        load = partial(untrained.loader, device, seed=0)
        trio = Trio(folder, device=device, defaults=defaults, load=load)
        module = load()(folder, dtype=torch.float32, attention=None, empty=False).eval()
    sampler = _Sampler(module)
    prompts = untrained.draw_ids(job.size(16, 6), job.size(256, 8), shape=shape, seed=1)
    probe = untrained.draw_ids(1, job.size(128, 24), shape=shape, seed=2)[0]
    watch = Stopwatch(device)
    figures: Figures = {"prompts": len(prompts), "samples_per_prompt": defaults.samples_per_prompt}
    problems = [f"prompts are sampled one by one: {sampler.slow_because}"] if sampler.slow_because else []
    if trio.policy.slow_because:
        problems.append(f"rows are computed one by one: {trio.policy.slow_because}")
    for step in range(1, _STEPS + 1):
        requests = _requests(prompts, defaults, seed=step, most=job.size(256, 8))
        sampled = watch.time("sample", partial(sampler.sample, requests))
        kept = [each for each in sampled if in_band(each.outcomes, low=defaults.low, high=defaults.high)]
        rows = rows_of(kept)
        before, old = torch.cat(trio.logprobs(rows)), _probe(trio, probe)
        noise = mean_gap(sampler.reader.prompt_logprobs(probe), old)
        found = trio.step(kept, watch)
        after, new = torch.cat(trio.logprobs(rows)), _probe(trio, probe)
        watch.time("hand_over", lambda: sampler.take(trio.policy.named_tensors()))
        answer = sampler.reader.prompt_logprobs(probe)
        facts = {
            **asdict(found),
            "kept_groups": len(kept),
            "tokens": len(before),
            "share_of_logprobs_moved": float((before != after).float().mean()),
            "mean_move": float((before - after).abs().mean()),
            "probe_gap_before": noise,
            "probe_gap_after": mean_gap(answer, new),
            "probe_tells_old_from_new": tells_old_from_new(old, new, noise=noise),
            "probe_share_of_the_way": share_of_the_way(answer, old, new),
        }
        problems += _problems(step, facts)
        figures |= {f"step_{step}_{name}": _rounded(value) for name, value in facts.items()}
    tokens = sum(len(sample.response_ids) for each in sampled for sample in each.group.samples)
    return {
        **{f"seconds_{part}": round(spent, 3) for part, spent in watch.seconds.items()},
        "sampled_tokens_per_second": round(tokens / watch.seconds["sample"], 1),
        "response_tokens": job.size(256, 8),
        **figures,
        "peak_gib": peak_gib(device),
        "problems": problems,
    }


def _requests(prompts: list[tuple[int, ...]], defaults: Defaults, *, seed: int, most: int) -> list[RolloutRequest]:
    sampling = SamplingParams(temperature=defaults.temperature, top_p=1.0, max_tokens=most)
    return [
        RolloutRequest(
            group_id=f"{seed}.{number}",
            problem_id=str(number),
            attempt=0,
            prompt_ids=prompt,
            num_samples=defaults.samples_per_prompt,
            sampling=sampling,
            seed=1000 * seed + number,
            min_version=0,
        )
        for number, prompt in enumerate(prompts)
    ]


def _probe(trio: Trio, ids: tuple[int, ...]) -> list[float]:
    (logprobs_T,) = trio.logprobs([TokenRow(prompt_ids=ids[:1], response_ids=ids[1:])])
    return list(logprobs_T.tolist())


def _problems(step: int, facts: Figures) -> list[str]:
    """What cannot be right."""
    found = [f"step {step}: {name} is {value}" for name, value in facts.items() if not math.isfinite(value)]
    if step == 1 and facts["largest_reward"] != 0:
        found.append(f"step 1: PRM and reference are equal, and a reward is {facts['largest_reward']:.2g}")
    if step > 1 and facts["largest_reward"] == 0:
        found.append(f"step {step}: the PRM has learnt, and all rewards are 0")
    if facts["share_of_logprobs_moved"] == 0:
        found.append(f"step {step}: the update moved no log-prob")
    limit = max(_LEAST_GAP, _NOISE_TIMES * facts["probe_gap_before"])
    if facts["probe_gap_after"] > limit:
        found.append(f"step {step}: with the new weights the sampler is {facts['probe_gap_after']:.2g} nats off")
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
