"""A search over an engine and a scorer in memory: letters are sampled at random, and the scorer likes `a`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from prime.chat import ChatCandidate, ChatSamples, Strategy
from prime.errors import InvalidInput, PeerUnavailable
from prime.scoring import (
    Activation,
    Aggregation,
    Candidate,
    CandidateScore,
    PrmConfig,
    ScorerInfo,
    ScoringReply,
    ScoringRequest,
    ScoringSeconds,
    ScoringUsage,
    StepValue,
)
from prime.types import ReferenceSource
from services.prm.best_of_n import Adaptive, BestOfN, BestOfReply, BestOfRequest, SearchOptions
from services.prm.settings import BestOfNSettings, ContinuationForm

STEPS = 6
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "letters"}], "seed": 1}


class Letters:
    """An engine that writes `STEPS` steps of one letter and a dot each, and goes on with what it is shown."""

    def __init__(self, *, shows: bool = True, fails_at: int = 0) -> None:
        self.shows, self.fails_at = shows, fails_at
        self.bodies: list[Mapping[str, Any]] = []
        self.letters = 0

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        self.bodies.append(request)
        if len(self.bodies) == self.fails_at:
            raise PeerUnavailable("the engine is away")
        draw = random.Random(request["seed"])
        last = request["messages"][-1]
        written = last["content"].count(".") if last["role"] == "assistant" else 0
        texts = [self._text(draw, STEPS - written, whole="stop" not in request) for _ in range(n)]
        self.letters += sum(map(len, texts))
        return ChatSamples(
            candidates=tuple(
                ChatCandidate(message={"role": "assistant", "content": text}, finish_reason="stop") for text in texts
            ),
            model="m",
            usage={"prompt_tokens": 1, "completion_tokens": sum(map(len, texts))},
        )

    def _text(self, draw: random.Random, missing: int, *, whole: bool) -> str:
        letters = [draw.choice("abcd") for _ in range(missing)]
        if whole:
            return ".".join(letters)
        if missing <= 0:
            return ""
        return letters[0] + ("." if missing > 1 and self.shows else "")

    async def models(self) -> Sequence[str]:
        return ["m"]


class LikesA:
    """1 for an `a`, -1 for another letter, 0 for anything else; a token per character."""

    def __init__(self) -> None:
        self.read: list[ScoringRequest] = []

    async def info(self) -> ScorerInfo:
        return ScorerInfo(
            model_id="m", prm_version=0, reference_id="r", reference=ReferenceSource.MODEL, tokenizer_fingerprint="",
            dtype="float32", config=PrmConfig(separators=(".",)), generation_prompt="", generation_prompt_ids=(),
            end_text="$", max_tokens=1000, max_candidates=100, max_waiting=10, token_budget=1000,
        )  # fmt: skip

    async def check(self, request: ScoringRequest) -> None:
        pass

    async def score(self, request: ScoringRequest) -> ScoringReply:
        self.read.append(request)
        scored = tuple(map(_scored, request.candidates))
        return ScoringReply(
            candidates=scored,
            aggregation=Aggregation.SUM,
            step_value=StepValue.DELTA,
            activation=Activation.NONE,
            beta=1.0,
            reference=ReferenceSource.MODEL,
            reference_id="r",
            prm_version=0,
            usage=ScoringUsage(
                prompt_tokens=7 + len(request.prompt.begun_ids),
                response_tokens=sum(len(each.token_ids) for each in scored),
                reference_cached_tokens=0,
            ),
            seconds=ScoringSeconds(tokenize=0.0, queue=0.0, inference=0.0),
        )

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        return [await self.score(request) for request in requests]


def _scored(candidate: Candidate) -> CandidateScore:
    text = candidate.text or ""
    rewards = tuple({"a": 1.0, ".": 0.0}.get(letter, -1.0) for letter in text)
    return CandidateScore(
        score=sum(rewards), response_reward=sum(rewards), aggregates={}, steps=(),
        token_ids=tuple(map(ord, text)), token_rewards=rewards, truncated=False,
    )  # fmt: skip


async def _ask(
    engine: Letters, scorer: LikesA, options: SearchOptions, *, form: ContinuationForm = "vllm", seed: int = 1
) -> BestOfReply:
    best_of_n = BestOfN(engine, scorer, None, BestOfNSettings(continuation=form))
    return await best_of_n.complete(BestOfRequest(body=BODY | {"seed": seed}, search=options, best_of=8))


def _answer(reply: BestOfReply) -> str:
    return str(reply.samples.candidates[reply.selected[0]].message["content"])


@pytest.mark.parametrize("strategy", [Strategy.BEAM, Strategy.DVTS, Strategy.PARTICLE])
async def test_a_search_finds_what_whole_answers_hardly_do(strategy: Strategy) -> None:
    async def found(strategy: Strategy) -> int:
        answers = [
            _answer(await _ask(Letters(), LikesA(), SearchOptions(strategy=strategy, width=4), seed=seed))
            for seed in range(12)
        ]
        assert {len(answer.split(".")) for answer in answers} == {STEPS}
        return "".join(answers).count("a")

    # Of 72 letters: by chance 18, the best of 8 whole answers some 40.
    assert await found(strategy) > await found(Strategy.BEST_OF_N)


async def test_every_sampled_token_is_scored_once_in_the_search_and_counted() -> None:
    engine, scorer = Letters(), LikesA()
    reply = await _ask(engine, scorer, SearchOptions(strategy=Strategy.BEAM, width=4))
    assert reply.searched is not None
    assert reply.searched.sampled_tokens == engine.letters
    assert (reply.samples.usage or {})["completion_tokens"] == engine.letters
    assert reply.searched.engine_calls == len(engine.bodies)
    *searching, final = scorer.read
    assert sum(len(each.text or "") for request in searching for each in request.candidates) == engine.letters
    # At the end whole answers are read, without a beginning.
    assert final.prompt.begun_ids == ()
    # What was written before is in the prompt, token by token.
    begun = {"".join(map(chr, request.prompt.begun_ids)) for request in searching}
    shown = {body["messages"][-1]["content"] for body in engine.bodies if body["messages"][-1]["role"] == "assistant"}
    assert begun - {""} == shown


async def test_a_round_asks_as_often_as_the_plan_says_and_with_seeds_of_its_own() -> None:
    engine = Letters()
    await _ask(engine, LikesA(), SearchOptions(strategy=Strategy.DVTS, width=4))
    # The first step of 8 in one call; then two trees go on.
    assert len(engine.bodies) == 1 + 2 * (STEPS - 1)
    assert len({body["seed"] for body in engine.bodies}) == len(engine.bodies)
    first, later = engine.bodies[0], engine.bodies[1]
    assert first["stop"] == ["."]
    assert first["include_stop_str_in_output"]
    assert "continue_final_message" not in first
    assert (later["continue_final_message"], later["add_generation_prompt"]) == (True, False)


async def test_the_same_seed_finds_the_same_answer() -> None:
    options = SearchOptions(strategy=Strategy.PARTICLE)
    assert _answer(await _ask(Letters(), LikesA(), options)) == _answer(await _ask(Letters(), LikesA(), options))


async def test_an_engine_that_hides_delimiters_is_asked_once_more_whether_it_has_ended() -> None:
    reply = await _ask(Letters(shows=False), LikesA(), SearchOptions(strategy=Strategy.DVTS, width=4), form="plain")
    answer = _answer(reply)
    assert len(answer.split(".")) == STEPS
    assert not answer.endswith(".")


async def test_what_is_open_when_steps_or_tokens_are_used_up_is_an_answer_that_was_cut() -> None:
    for options in (
        SearchOptions(strategy=Strategy.BEAM, width=4, max_steps=2),
        SearchOptions(strategy=Strategy.BEAM, width=4, max_sampled_tokens=20),
    ):
        reply = await _ask(Letters(), LikesA(), options)
        assert reply.searched is not None
        assert reply.searched.rounds == 2
        assert reply.cut == (0, 1)
        assert len(_answer(reply)) == 4
        assert reply.samples.candidates[0].finish_reason == "length"


async def test_an_engine_that_goes_away_later_does_not_lose_the_answers() -> None:
    reply = await _ask(Letters(fails_at=4), LikesA(), SearchOptions(strategy=Strategy.DVTS, width=4))
    # One tree of two is lost; the last step of the other gave four whole answers.
    assert len(reply.scores) == 4
    assert reply.samples.failed == 1
    with pytest.raises(PeerUnavailable):
        await _ask(Letters(fails_at=1), LikesA(), SearchOptions(strategy=Strategy.BEAM, width=4))


async def test_an_answer_that_the_client_began_is_part_of_what_is_scored_and_not_of_the_reply() -> None:
    engine, scorer = Letters(), LikesA()
    begun = {"role": "assistant", "content": "b.c."}
    body = BODY | {"messages": [*BODY["messages"], begun], "continue_final_message": True}
    best_of_n = BestOfN(engine, scorer, None, BestOfNSettings())
    options = SearchOptions(strategy=Strategy.BEAM, width=4)
    reply = await best_of_n.complete(BestOfRequest(body=body, best_of=8, search=options))
    assert len(_answer(reply).split(".")) == STEPS - 2
    assert (scorer.read[0].candidates[0].text or "").startswith("b.c.")
    assert engine.bodies[0]["messages"][-1]["content"] == "b.c."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"body": BODY | {"stop": ["x"]}}, "'stop'"),
        ({"body": BODY | {"tools": [{}]}}, "'tools'"),
        ({"best_of": 6}, "multiple of width"),
        ({"adaptive": Adaptive(score=1.0)}, "adaptive"),
        ({"search": SearchOptions(strategy=Strategy.BEAM, delimiters=("",))}, "empty"),
    ],
)
async def test_what_a_search_cannot_do_is_refused_before_anything_is_sampled(
    changes: dict[str, Any], words: str
) -> None:
    engine = Letters()
    request = BestOfRequest(body=BODY, best_of=8, search=SearchOptions(strategy=Strategy.BEAM, width=4))
    with pytest.raises(InvalidInput, match=words):
        await BestOfN(engine, LikesA(), None, BestOfNSettings()).complete(replace(request, **changes))
    assert engine.bodies == []


async def test_sampling_stops_at_an_answer_that_is_good_enough() -> None:
    engine = Letters()
    best_of_n = BestOfN(engine, LikesA(), None, BestOfNSettings())
    request = BestOfRequest(body=BODY, best_of=32, adaptive=Adaptive(first=4, score=-2.0))
    reply = await best_of_n.complete(request)
    assert 0 < reply.saved == 32 - len(reply.scores)
    # Portions are sampled with other seeds, or they would be copies of the first.
    assert len({body["seed"] for body in engine.bodies}) == len(engine.bodies)
    all_of_them = await best_of_n.complete(replace(request, adaptive=Adaptive(first=4, score=100.0)))
    assert (all_of_them.saved, len(all_of_them.scores)) == (0, 32)
    with pytest.raises(InvalidInput, match="score"):
        await best_of_n.complete(replace(request, adaptive=Adaptive()))
