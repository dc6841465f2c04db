"""Episodes of several turns: how they are sampled, and that what was read is neither graded, scored nor learnt."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prime import wire
from prime.data.episodes import actions_of, encode_observation
from prime.data.prompts import encode_prompt
from prime.data.tiny import build_byte_tokenizer
from prime.errors import DataError, InvalidInput
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow
from prime.types import (
    EnvironmentTask,
    FinishReason,
    GradedGroup,
    Message,
    PrmGroup,
    Problem,
    ReferenceSource,
    RolloutGroup,
    RolloutRequest,
    Sample,
    SamplingParams,
    TokenRewards,
    TokenSpan,
    VersionSpan,
    prm_view,
    written_places,
)
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from services.rollout.episodes import Episodes
from services.trainer.batch import PolicyBatch, sampler_logprobs, token_rows
from services.trainer.collector import grade_item
from services.trainer.credit import CreditAssigner
from services.trainer.policy import Policy
from services.trainer.settings import AdvantageSettings, TrainerSettings
from tests.builders import tiny_model

TOKENIZER = build_byte_tokenizer()
END = TOKENIZER.eos_token_id
ROOM = "#@$  .#"
SHORT = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=20)
TASK = EnvironmentTask(name="sokoban", task=ROOM, max_turns=4)


def ids_of(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


class Script:
    """An engine that says what a test wrote down, by turn; it remembers what it was asked."""

    def __init__(self, *turns: str, cut: int = -1) -> None:
        self._turns = turns
        self._cut = cut
        self.asked: list[list[RolloutRequest]] = []

    async def generate(self, requests: Sequence[RolloutRequest]) -> AsyncIterator[RolloutGroup]:
        number = len(self.asked)
        self.asked.append(list(requests))
        for request in reversed(requests):
            ids = (*ids_of(self._turns[number]), END)
            reason = FinishReason.LENGTH if number == self._cut else FinishReason.STOP
            sample = Sample(
                response_ids=ids,
                logprobs=(-0.5,) * len(ids),
                spans=(VersionSpan(version=number // 2, length=len(ids)),),
                finish_reason=reason,
            )
            yield RolloutGroup(
                group_id=request.group_id,
                problem_id=request.problem_id,
                attempt=0,
                prompt_ids=request.prompt_ids,
                samples=(sample,) * request.num_samples,
            )


def request(**changes: Any) -> RolloutRequest:
    whole = RolloutRequest(
        group_id="g",
        problem_id="p",
        attempt=0,
        prompt_ids=encode_prompt(TOKENIZER, [Message(role="user", content=ROOM)]),
        num_samples=2,
        sampling=SamplingParams(temperature=1.0, top_p=1.0, max_tokens=200),
        seed=5,
        min_version=0,
        environment=TASK,
    )
    return replace(whole, **changes)


async def play(engine: Script, *requests: RolloutRequest) -> list[RolloutGroup]:
    return [group async for group in Episodes(engine, tokenizer=TOKENIZER).generate(requests)]


async def test_turns_and_answers_of_the_world_alternate_until_the_level_is_solved() -> None:
    engine = Script("right", "right", "right", "left")
    (group,) = await play(engine, request())
    assert len(engine.asked) == 3
    sample = group.samples[0]
    text = TOKENIZER.decode(sample.response_ids)
    assert text == ("right<|end|>user: # @$ .#\nassistant: right<|end|>user: #  @$.#\nassistant: right<|end|>").replace(
        "<|end|>user", "<|end|>\nuser"
    )
    assert sample.finish_reason is FinishReason.STOP
    assert [TOKENIZER.decode(turn) for turn in sample.turns] == ["right<|end|>"] * 3
    assert json.loads(actions_of(TOKENIZER, sample)) == ["right"] * 3
    assert len(sample.logprobs) == len(sample.response_ids) == sum(span.length for span in sample.spans)
    assert [span.version for span in sample.spans] == [0, 1]
    for place, logprob in enumerate(sample.logprobs):
        assert (logprob == 0.0) == (place not in set(written_places(len(sample.logprobs), sample.observed)))


async def test_each_turn_is_asked_with_all_that_came_before_and_a_seed_of_its_own() -> None:
    engine = Script("right", "right", "right")
    (group,) = await play(engine, request())
    whole = (*group.prompt_ids, *group.samples[0].response_ids)
    seeds = set()
    for turn in engine.asked[1:]:
        assert len(turn) == 2
        for each in turn:
            assert whole[: len(each.prompt_ids)] == each.prompt_ids
            assert each.environment is None
            assert each.sampling.max_tokens == 200 - (len(each.prompt_ids) - len(group.prompt_ids))
            seeds.add(each.seed)
    assert len(seeds) == 4


@pytest.mark.parametrize(
    ("engine", "changes", "reason", "turns"),
    [
        (Script("left", "up", "what?", "left"), {}, FinishReason.STOP, 4),
        (Script("left", "left", cut=1), {}, FinishReason.LENGTH, 2),
        (
            Script("left"),
            {"sampling": SamplingParams(temperature=1.0, top_p=1.0, max_tokens=20)},
            FinishReason.LENGTH,
            1,
        ),
    ],
    ids=["turns are used up", "a turn is cut off", "no room for another"],
)
async def test_an_episode_ends(engine: Script, changes: dict[str, Any], reason: FinishReason, turns: int) -> None:
    (group,) = await play(engine, request(**changes))
    assert group.samples[0].finish_reason is reason
    assert len(group.samples[0].turns) == turns
    assert group.samples[0].turns[-1][-1] == END


async def test_what_is_answered_and_what_is_played_are_asked_together() -> None:
    engine = Script("right", "right", "right", "right")
    groups = await play(engine, request(), request(group_id="plain", environment=None))
    assert [group.group_id for group in groups] == ["plain", "g"]
    assert groups[0].samples[0].observed == ()


async def test_a_task_that_nobody_can_read_is_refused() -> None:
    with pytest.raises(DataError, match="no environment is called"):
        await play(Script("x"), request(environment=replace(TASK, name="chess")))


def test_a_template_says_what_follows_a_turn() -> None:
    assert TOKENIZER.decode(encode_observation(TOKENIZER, "wall")) == "\nuser: wall\nassistant: "
    plain = build_byte_tokenizer()
    plain.chat_template = None
    assert plain.decode(encode_observation(plain, "wall")) == "\n\nwall\n\n"
    silent = build_byte_tokenizer()
    silent.chat_template = "{{ messages[-1]['content'] }}"
    with pytest.raises(DataError, match="chat template"):
        encode_observation(silent, "wall")


# ---------------------------------------------------------------- what is learnt of them

RESPONSE = (9, 8, 7, 6, 5, 4, END)
SEEN = (TokenSpan(start=2, length=3),)
ROW = TokenRow(prompt_ids=(3, 4), response_ids=RESPONSE, observed=SEEN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("token_budget", [1, 1000])
def test_log_probs_are_those_of_the_whole_sequence_at_the_places_that_were_written(
    folder: Path, others: int, token_budget: int
) -> None:
    lm = CausalLM(folder, device=torch.device("cpu"))
    plain = replace(ROW, observed=())
    shared = TokenRow(prompt_ids=(3, 4), response_ids=(10, END))
    rows = [ROW, *[shared] * others, replace(ROW, prompt_ids=(12, 13, 14))]
    found = lm.score_rows(rows, token_budget=token_budget)
    (whole,) = lm.score_rows([plain], token_budget=1000)
    torch.testing.assert_close(found[0], whole[[0, 1, 5, 6]], atol=1e-6, rtol=1e-6)
    assert [len(each) for each in found] == [4, *[2] * others, 4]


def _sample(observed: tuple[TokenSpan, ...] = SEEN) -> Sample:
    read = {place for span in observed for place in range(span.start, span.start + span.length)}
    return Sample(
        response_ids=RESPONSE,
        logprobs=tuple(0.0 if place in read else -1.0 for place in range(len(RESPONSE))),
        spans=(VersionSpan(version=0, length=len(RESPONSE)),),
        finish_reason=FinishReason.STOP,
        observed=observed,
    )


def _graded() -> list[GradedGroup]:
    short = replace(
        _sample(()), response_ids=(10, END), logprobs=(-1.0, -1.0), spans=(VersionSpan(version=0, length=2),)
    )
    group = RolloutGroup(group_id="g", problem_id="p", attempt=0, prompt_ids=(3, 4), samples=(_sample(), short))
    return [GradedGroup(group=group, outcomes=(1.0, 0.0))]


def test_rewards_are_of_written_tokens_alone_and_learning_moves_them(folder: Path) -> None:
    prm = ImplicitPrm(PrmSettings(lr=1e-2, device="cpu", beta=1.0), start=folder)
    groups = prm_view(_graded())
    assert groups[0].observed == (SEEN, ())
    assert [len(row) for row in prm.score(groups).rewards] == [4, 2]
    prm.learn(groups, [1.0, 0.0])
    rewards = prm.score(groups).rewards
    assert sum(rewards[0]) > 0 > sum(rewards[1])
    # The reference is kept per row, and a row is another one when other tokens were read.
    assert [len(row) for row in prm.score(groups, reuse=True).rewards] == [4, 2]
    plain = [replace(groups[0], observed=())]
    assert [len(row) for row in prm.score(plain, reuse=True).rewards] == [7, 2]
    bare = replace(groups[0], reference=ReferenceSource.NONE)
    assert [len(row) for row in prm.score([bare]).rewards] == [4, 2]


def test_what_was_read_changes_no_gradient_of_its_own(folder: Path) -> None:
    """An update is the same whatever log-probs the read tokens would have had."""
    settings = TrainerSettings.model_validate(
        {"problems": "p", "steps": 1, "optimiser": {"lr": 1e-3, "device": "cpu"}, "advantage": {"granularity": "turn"}}
    )
    groups = _graded()
    rows = token_rows(groups)
    advantages, _ = CreditAssigner(settings.advantage, tokenizer=None, longest=100).assign(groups, None)
    assert [len(each) for each in advantages] == [4, 2]
    assert [each.tolist() for each in sampler_logprobs(groups)] == [[-1.0] * 4, [-1.0] * 2]
    policy = Policy(folder, settings)
    before = policy.logprobs(rows)
    metrics = policy.update(
        PolicyBatch(rows=rows, advantages=advantages, sampler_logprobs=sampler_logprobs(groups)), seed=0
    )
    after = policy.logprobs(rows)
    assert metrics.grad_norm > 0
    assert float(after[0].sum()) > float(before[0].sum())


def test_a_turn_ends_where_something_was_read() -> None:
    rewards = TokenRewards(rows=((1.0, 2.0, 4.0, 8.0), (0.0, 0.0)), prm_version=0, beta=1.0, reference_id="")
    turns = AdvantageSettings(granularity="turn", reward_norm="none", outcome_coef=0.0)
    whole = AdvantageSettings(granularity="whole", reward_norm="none", outcome_coef=0.0)
    by_turn, _ = CreditAssigner(turns, tokenizer=None, longest=100).assign(_graded(), rewards)
    at_end, _ = CreditAssigner(whole, tokenizer=None, longest=100).assign(_graded(), rewards)
    # 3 after the first turn and 12 after the second: what the first turn can still gain is more.
    assert by_turn[0][0] == by_turn[0][1] > by_turn[0][2] == by_turn[0][3]
    assert at_end[0][0] == at_end[0][3]


def test_the_verifier_is_given_the_actions() -> None:
    problem = Problem(problem_id="p", data_source="sokoban", ability="environment", messages=(), ground_truth="{}")
    sample = replace(_sample(), response_ids=(*ids_of("up"), *ids_of("abc"), *ids_of("l"), END))
    assert json.loads(grade_item("g/0", problem, sample, TOKENIZER).response) == ["up", "l"]


# ---------------------------------------------------------------- on the wire


def test_groups_requests_and_prm_groups_survive_the_wire() -> None:
    graded = _graded()[0]
    assert wire.decode_group(wire.encode_group(graded.group)) == graded.group
    assert wire.decode_request(wire.encode_request(request())) == request()
    assert wire.decode_request(wire.encode_request(request(environment=None))).environment is None
    (view,) = prm_view([graded])
    assert wire.decode_prm_group(wire.encode_prm_group(view)) == view
    supplied = replace(view, reference_logprobs=((0.0,) * 4, (0.0,) * 2))
    assert wire.decode_prm_group(wire.encode_prm_group(supplied)) == supplied


@pytest.mark.parametrize(
    "observed",
    [
        (TokenSpan(start=0, length=1),),
        (TokenSpan(start=3, length=9),),
        (TokenSpan(start=2, length=0),),
        (TokenSpan(start=2, length=2), TokenSpan(start=3, length=1)),
    ],
)
def test_spans_that_cannot_be_are_refused(observed: tuple[TokenSpan, ...]) -> None:
    group = PrmGroup(group_id="g", prompt_ids=(3,), responses=(RESPONSE,), observed=(observed,))
    with pytest.raises(InvalidInput, match="read tokens"):
        wire.decode_prm_group(wire.encode_prm_group(group))
    message = wire.encode_prm_group(replace(group, observed=((), ())))
    with pytest.raises(InvalidInput, match="2 lists of read tokens for 1 responses"):
        wire.decode_prm_group(message)
