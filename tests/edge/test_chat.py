"""Best-of-N through the real `openai` package, in front of an engine on a socket of its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.rollout_engine import RolloutEngine
from prime.adapters.telemetry import Meters
from prime.data.tiny import build_byte_tokenizer
from prime.errors import InvalidInput, Overloaded, TokenizerMismatch
from prime.ports import CheckingScorer
from prime.scoring import Candidate, Prompt, ScorerInfo, ScoringReply, ScoringRequest
from prime.types import AnswerClasses, PushManifest, PushReceipt, RolloutGroup, RolloutRequest, RolloutStatus
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.settings import ApiSettings, BestOfNSettings
from tests.builders import group
from tests.edge.prm_api import KEY, open_tiny_scorer, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS = ["a wrong one", "half: \\boxed{1/2}", "the same: \\boxed{0.5}", "two: \\boxed{2}", "", "longer and longer"]
MESSAGES: list[Any] = [{"role": "user", "content": "What is a half?"}]


class Engine:
    """An OpenAI-compatible engine: candidate i is ANSWERS[i]; remembers what it was asked."""

    def __init__(self, *, takes_n: bool = True, ignores_n: bool = False) -> None:
        self.takes_n, self.ignores_n = takes_n, ignores_n
        self.bodies: list[dict[str, Any]] = []
        self.next = 0
        self.hold: asyncio.Event | None = None
        self.was_cancelled = False

    def add_to(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            if body["messages"][-1].get("content") == "refuse me":
                return JSONResponse({"error": {"message": "no such tool"}}, status_code=400)
            n = body.get("n", 1)
            if n > 1 and not self.takes_n:
                return JSONResponse({"error": {"message": "n > 1 is not supported"}}, status_code=400)
            if self.hold is not None:
                try:
                    await self.hold.wait()
                except asyncio.CancelledError:
                    self.was_cancelled = True
                    raise
            return JSONResponse(self._completion(1 if self.ignores_n else n, body))

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "tiny-engine", "object": "model"}]}

    def _completion(self, n: int, body: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for index in range(n):
            message: dict[str, Any] = {"role": "assistant", "content": ANSWERS[self.next % len(ANSWERS)]}
            if body.get("tools"):
                function = {"name": "add", "arguments": json.dumps({"a": self.next})}
                message |= {
                    "content": None,
                    "tool_calls": [{"id": f"c{index}", "type": "function", "function": function}],
                }
            choices.append({"index": index, "message": message, "finish_reason": "stop", "logprobs": None})
            self.next += 1
        usage = {"prompt_tokens": 7, "completion_tokens": 10 * n, "total_tokens": 7 + 10 * n}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "tiny-engine"}
        return {**head, "choices": choices, "usage": usage}


class EqualHalves:
    """Knows that 1/2 and 0.5 are equal; the real verifier's knowledge is tested with the verifier."""

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        classes = [0 if "1/2" in each or "0.5" in each else 1 if "boxed" in each else -1 for each in responses]
        return AnswerClasses(answers=tuple(responses), classes=tuple(classes))


@contextlib.asynccontextmanager
async def _proxy(
    scorer: CheckingScorer, engine: Engine, *, votes: bool = False, settings: BestOfNSettings | None = None
) -> AsyncIterator[openai.AsyncOpenAI]:
    async with running_app(engine.add_to) as engine_url:
        generator = OpenAIEngine(f"{engine_url}/v1", timeout_s=20, setting="engine")
        best_of_n = BestOfN(generator, scorer, EqualHalves() if votes else None, settings or BestOfNSettings())
        add_routes = partial(
            add_prm_routes,
            scorer=scorer,
            keys=Keys(KEY, meters=Meters()),
            settings=ApiSettings(),
            meters=Meters(),
            best_of_n=best_of_n,
        )
        async with (
            running_app(add_routes) as url,
            openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client,
        ):
            try:
                yield client
            finally:
                await generator.close()


@pytest.fixture(scope="module")
def scorer(prm_pair: tuple[Path, Path]) -> CheckingScorer:
    return open_tiny_scorer(*prm_pair)


async def _offline(scorer: CheckingScorer, answers: Sequence[str]) -> list[float]:
    reply = await scorer.score(
        ScoringRequest(
            prompt=Prompt(messages=tuple(MESSAGES)), candidates=tuple(Candidate(text=each) for each in answers)
        )
    )
    return [candidate.score for candidate in reply.candidates]


async def test_the_winner_is_the_one_that_an_offline_score_names(scorer: CheckingScorer) -> None:
    engine = Engine()
    async with _proxy(scorer, engine) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, extra_body={"best_of": 4})
    scores = await _offline(scorer, ANSWERS[:4])
    assert answer.choices[0].message.content == ANSWERS[scores.index(max(scores))]
    assert len(answer.choices) == 1
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 40, 47)
    extension = answer.model_extra["prime"] if answer.model_extra else {}
    assert extension["scores"] == pytest.approx(scores, abs=1e-5)
    assert extension["selected"] == [scores.index(max(scores))]
    assert engine.bodies == [{"model": "m", "messages": MESSAGES, "n": 4}]


async def test_n_choices_come_best_first_and_the_caller_s_options_go_to_the_engine(scorer: CheckingScorer) -> None:
    engine = Engine()
    async with _proxy(scorer, engine) as client:
        answer = await client.chat.completions.create(
            model="m", messages=MESSAGES, n=2, temperature=0.3, max_tokens=9, stop=["x"], seed=5,
            extra_body={"best_of": 4, "top_k": 3, "prime": {"scores": False}},
        )  # fmt: skip
    scores = await _offline(scorer, ANSWERS[:4])
    best = sorted(range(4), key=lambda number: -scores[number])[:2]
    assert [choice.message.content for choice in answer.choices] == [ANSWERS[number] for number in best]
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert not (answer.model_extra or {}).get("prime")
    [body] = engine.bodies
    assert (body["temperature"], body["max_tokens"], body["stop"], body["seed"], body["top_k"]) == (0.3, 9, ["x"], 5, 3)
    assert not {"best_of", "prime", "stream"} & set(body)


@pytest.mark.parametrize("kind", [{"takes_n": False}, {"ignores_n": True}])
async def test_an_engine_that_gives_one_answer_a_call_is_called_often_enough(
    scorer: CheckingScorer, kind: dict[str, bool]
) -> None:
    engine = Engine(**kind)
    async with _proxy(scorer, engine) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, seed=3, extra_body={"best_of": 4})
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (28, 40)
    scores = await _offline(scorer, ANSWERS[:4])
    assert answer.choices[0].message.content == ANSWERS[scores.index(max(scores))]
    alone = [body for body in engine.bodies if body["n"] == 1]
    assert len({body["seed"] for body in alone}) == len(alone) > 2


async def test_a_busy_moment_of_the_prm_does_not_lose_the_answers(scorer: CheckingScorer) -> None:
    class BusyOnce:
        refusals = 0

        async def check(self, request: ScoringRequest) -> None:
            await scorer.check(request)

        async def score(self, request: ScoringRequest) -> ScoringReply:
            [reply] = await self.score_all([request])
            return reply

        async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
            if not self.refusals:
                self.refusals += 1
                raise Overloaded("a moment")
            return await scorer.score_all(requests)

        async def info(self) -> ScorerInfo:
            return await scorer.info()

    busy, engine = BusyOnce(), Engine()
    async with _proxy(busy, engine) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert (busy.refusals, len(engine.bodies)) == (1, 1)
    assert answer.choices[0].message.content


async def test_votes_count_equal_answers(scorer: CheckingScorer) -> None:
    scores = await _offline(scorer, ANSWERS[:4])
    halves = max((1, 2), key=lambda number: scores[number])
    for selection in ("majority", "weighted"):
        async with _proxy(scorer, Engine(), votes=True) as client:
            answer = await client.chat.completions.create(
                model="m", messages=MESSAGES, extra_body={"best_of": 4, "prime": {"selection": selection}}
            )
        assert answer.choices[0].message.content == ANSWERS[halves]
        extension = answer.model_extra["prime"] if answer.model_extra else {}
        assert extension["classes"] == [-1, 0, 0, 1]


async def test_a_stream_brings_the_winner_its_usage_and_its_scores(scorer: CheckingScorer) -> None:
    async with _proxy(scorer, Engine()) as client:
        stream = await client.chat.completions.create(
            model="m", messages=MESSAGES, n=2, stream=True, stream_options={"include_usage": True},
            extra_body={"best_of": 4},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
    scores = await _offline(scorer, ANSWERS[:4])
    best = sorted(range(4), key=lambda number: -scores[number])[:2]
    for index, number in enumerate(best):
        parts = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
        assert "".join(part.delta.content or "" for part in parts) == ANSWERS[number]
        assert parts[0].delta.role == "assistant"
        assert parts[-1].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 40
    assert (chunks[-1].model_extra or {})["prime"]["selected"] == best


async def test_tools_and_earlier_turns_pass_through(scorer: CheckingScorer) -> None:
    engine = Engine()
    tools: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
    turns: Any = [
        {"role": "system", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "data:"}}],
        },
        {"role": "assistant", "content": "done"},
        {"role": "user", "content": "and now?"},
    ]
    async with _proxy(scorer, engine) as client:
        whole = await client.chat.completions.create(model="m", messages=turns, tools=tools)
        stream = await client.chat.completions.create(model="m", messages=turns, tools=tools, stream=True)
        chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.tool_calls is not None
    assert "add" in whole.model_dump_json()
    assert [body["messages"] for body in engine.bodies] == [turns, turns]
    assert engine.bodies[0]["tools"] == tools
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [call.index for call in calls] == [0]


async def test_candidates_without_text_come_last_and_none_at_all_is_no_error(scorer: CheckingScorer) -> None:
    engine = Engine()
    engine.next = 4
    async with _proxy(scorer, engine) as client:
        answer = await client.chat.completions.create(model="m", messages=MESSAGES, n=2, extra_body={"best_of": 2})
        assert [choice.message.content for choice in answer.choices] == [ANSWERS[5], ""]
        engine.next = 4
        alone = await client.chat.completions.create(model="m", messages=MESSAGES, extra_body={"best_of": 1})
    assert alone.choices[0].message.content == ""
    assert (alone.model_extra or {})["prime"]["scores"] == [None]


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"n": 3, "extra_body": {"best_of": 2}}, openai.BadRequestError, "best_of = 2 is below n = 3"),
        ({"extra_body": {"best_of": 65}}, openai.BadRequestError, "at most 64"),
        ({"extra_body": {"prime": {"selection": "majority"}}}, openai.BadRequestError, "prm.best_of_n.verifier"),
        ({"extra_body": {"prime": {"selektion": "best"}}}, openai.BadRequestError, "selektion"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "user", "content": "refuse me"}]}, openai.BadRequestError, "no such tool"),
    ],
)
async def test_what_cannot_be_done_is_told_in_openais_form(
    scorer: CheckingScorer, changes: dict[str, Any], kind: type[Exception], text: str
) -> None:
    for stream in (False, True):
        async with _proxy(scorer, Engine()) as client:
            with pytest.raises(kind, match=text):
                await client.chat.completions.create(
                    **({"model": "m", "messages": MESSAGES, "stream": stream} | changes)
                )


async def test_an_engine_that_is_away_is_a_503_that_names_it(scorer: CheckingScorer) -> None:
    generator = OpenAIEngine("http://127.0.0.1:9/v1", timeout_s=2, setting="engine")
    best_of_n = BestOfN(generator, scorer, None, BestOfNSettings())
    add_routes = partial(
        add_prm_routes,
        scorer=scorer,
        keys=Keys(KEY, meters=Meters()),
        settings=ApiSettings(),
        meters=Meters(),
        best_of_n=best_of_n,
    )
    async with (
        running_app(add_routes) as url,
        openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match=r"127\.0\.0\.1:9"):
            await client.chat.completions.create(model="m", messages=MESSAGES)
    await generator.close()


async def test_a_client_that_hangs_up_ends_the_sampling(scorer: CheckingScorer) -> None:
    engine = Engine()
    engine.hold = asyncio.Event()
    async with _proxy(scorer, engine) as client:
        for stream in (False, True):
            engine.bodies.clear()
            asking = asyncio.ensure_future(client.chat.completions.create(model="m", messages=MESSAGES, stream=stream))
            while not engine.bodies:
                await asyncio.sleep(0.02)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        engine.hold.set()
        engine.hold = None
        again = await client.chat.completions.create(model="m", messages=MESSAGES)
    assert again.choices


async def test_models_are_the_engines(scorer: CheckingScorer) -> None:
    async with _proxy(scorer, Engine()) as client:
        assert [model.id async for model in client.models.list()] == ["tiny-engine"]


async def test_a_long_prompt_is_cut_for_the_prm_and_the_answers_are_not_lost(prm_pair: tuple[Path, Path]) -> None:
    short = open_tiny_scorer(*prm_pair, max_tokens=64)
    long: Any = [{"role": "user", "content": "x" * 500}]
    async with _proxy(short, Engine()) as client:
        answer = await client.chat.completions.create(model="m", messages=long)
    assert (answer.model_extra or {})["prime"]["truncated"] is True


class OneReplica:
    """A rollout replica that answers two bytes."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self.requests: list[RolloutRequest] = []

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        self.requests += requests
        tokenizer = build_byte_tokenizer()
        ids = [*tokenizer("42")["input_ids"], tokenizer.eos_token_id]
        return [group(responses=[ids] * requests[0].num_samples)]

    async def push(self, manifest: PushManifest, chunks: Any, digest: Any) -> PushReceipt:
        raise NotImplementedError

    async def status(self) -> RolloutStatus:
        return RolloutStatus(
            engine="t", ready=True, version=0, groups_delivered=0, tokens_generated=0, groups_in_flight=0,
            tokenizer_fingerprint=self.fingerprint,
        )  # fmt: skip


async def test_a_rollout_replica_can_be_the_engine() -> None:
    replica = OneReplica("same")
    engine = RolloutEngine(replica, build_byte_tokenizer(), fingerprint="same")
    samples = await engine.sample({"messages": MESSAGES, "temperature": 0.5, "max_tokens": 4, "seed": 11}, 3)
    assert [candidate.message["content"] for candidate in samples.candidates] == ["42"] * 3
    assert samples.completion_tokens == 9
    [asked] = replica.requests
    assert (asked.num_samples, asked.sampling.temperature, asked.sampling.max_tokens, asked.seed) == (3, 0.5, 4, 11)
    more = {"stop": "2", "top_k": 5, "min_p": 0.1, "stop_token_ids": [7]}
    samples = await engine.sample({"messages": MESSAGES, **more}, 1)
    assert samples.candidates[0].message["content"] == "4", "a stop string is no part of the answer"
    sampling = replica.requests[-1].sampling
    assert (sampling.stop, sampling.top_k, sampling.min_p, sampling.stop_token_ids) == (("2",), 5, 0.1, (7,))
    wrongs: list[dict[str, Any]] = [
        {"stop": [""]},
        {"stop": 3},
        {"logit_bias": {}},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": "high"},
    ]
    for wrong in wrongs:
        with pytest.raises(InvalidInput):
            await engine.sample({"messages": MESSAGES, **wrong}, 1)
    with pytest.raises(TokenizerMismatch):
        await RolloutEngine(replica, build_byte_tokenizer(), fingerprint="other").sample({"messages": MESSAGES}, 1)


async def test_a_rollout_replica_goes_on_with_an_answer_and_leaves_the_delimiter_in_it() -> None:
    replica, tokenizer = OneReplica("same"), build_byte_tokenizer()
    engine = RolloutEngine(replica, tokenizer, fingerprint="same")
    await engine.sample({"messages": MESSAGES}, 1)
    begun = [*MESSAGES, {"role": "assistant", "content": "so "}]
    more = {"continue_final_message": True, "add_generation_prompt": False}
    samples = await engine.sample({"messages": begun, "stop": ["4"], "include_stop_str_in_output": True, **more}, 1)
    assert samples.candidates[0].message["content"] == "4"
    fresh, continued = (request.prompt_ids for request in replica.requests)
    assert continued == (*fresh, *tokenizer("so ", add_special_tokens=False)["input_ids"])
    with pytest.raises(InvalidInput, match="assistant"):
        await engine.sample({"messages": MESSAGES, **more}, 1)


async def test_the_stream_says_that_it_is_alive_and_what_went_wrong(scorer: CheckingScorer) -> None:
    engine = Engine()
    engine.hold = asyncio.Event()
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    async with (
        _proxy(scorer, engine) as client,
        httpx.AsyncClient(base_url=str(client.base_url), headers={"Authorization": f"Bearer {KEY}"}) as http,
        http.stream("POST", "chat/completions", json=body, timeout=30) as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == ": sampling"
        engine.hold.set()
        rest = [line async for line in lines if line]
    assert rest[-1] == "data: [DONE]"
