"""What outside testers found wrong with the scoring API and best-of-N, by kind, over real sockets."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.telemetry import Meters
from prime.errors import PeerUnavailable
from prime.ports import AnswerGrouper
from prime.types import AnswerClasses
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.http.bodies import MOST_VALUES
from services.prm.settings import ApiSettings, BestOfNSettings
from tests.edge.prm_api import KEY, Api, open_tiny_scorer, running_api, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
async def api(prm_pair: tuple[Path, Path]) -> Any:
    async with running_api(open_tiny_scorer(*prm_pair, max_tokens=256)) as running:
        yield running


def _scoring(**changes: Any) -> dict[str, Any]:
    return {"inputs": {"prompt": "q", "responses": ["abc"]}} | changes


async def _post(api: Api, route: str, body: Any) -> httpx.Response:
    # Python's own JSON, which writes what clients send: NaN, and halves of characters.
    return await api.client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("route", "body", "status"),
    [
        ("/v1/prm/score", {"inputs": {"prompt": "q", "responses": [1] * 50_000}}, 422),
        ("/v1/prm/score", {"inputs": {"prompt": "q", "responses": ["a"] * 70_000}}, 422),
        ("/v1/prm/score", {"inputs": {"prompt": "q", "responses": [[]] * 50_000}}, 422),
        ("/v1/prm/score", {"inputs": {"prompt": "q", "responses": [{"token_ids": ["a"] * 200_000}]}}, 422),
        ("/v1/prm/score", {"inputs": [1] * 50_000}, 422),
        ("/v1/prm/score", {"inputs": {"prompt": "q", "responses": [1] * MOST_VALUES}}, 413),
        ("/v1/prm/score", _scoring(step_separator=["a" * 20 + str(number) for number in range(20_000)]), 422),
        ("/v1/prm/score", _scoring(step_separator="a" * 1000), 422),
        ("/v1/prm/score", _scoring(step_pattern=""), 422),
        ("/rerank", {"query": "q", "documents": [{}] * 50_000}, 422),
        ("/rerank", {"query": "q", "texts": [1] * 50_000}, 422),
        ("/score", {"queries": "q", "documents": [1] * 50_000}, 400),
        ("/pooling", {"input": [[]] * 50_000 + [{}]}, 400),
        ("/predict", {"inputs": [1] * 50_000}, 422),
        ("/get_reward", {"query": [1] * 50_000}, 422),
    ],
)
async def test_of_a_list_of_wrong_items_one_is_told(api: Api, route: str, body: Any, status: int) -> None:
    response = await _post(api, route, body)
    assert response.status_code == status, response.text[:300]
    assert len(response.text) < 1000
    assert "more)" not in response.text or int(response.text.rpartition("(and ")[2].split()[0]) < 10


async def test_text_may_hold_as_many_commas_and_brackets_as_it_likes(api: Api) -> None:
    text = "[{," * MOST_VALUES
    response = await _post(api, "/v1/prm/score", {"inputs": {"prompt": "q", "responses": [text]}})
    assert (response.status_code, response.json()["error_type"]) == (400, "too_long")
    # Found by its length alone: nothing was encoded.
    assert "or more" in response.json()["error"]


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/rerank", {"query": "q", "documents": ["a"], "model": "\ud83d"}),
        ("/score", {"queries": "q", "documents": "a", "model": "\ud83d"}),
        ("/v1/prm/score", _scoring(beta=8.9e306, activation="sigmoid")),
        (
            "/v1/prm/score",
            {
                "inputs": {"prompt": "q", "responses": [{"token_ids": [5, 6], "ref_logprobs": [1e300, 5]}]},
                "reference": "supplied",
                "activation": "sigmoid",
            },
        ),
    ],
)
async def test_what_no_reply_could_carry_is_refused_and_no_500(api: Api, route: str, body: Any) -> None:
    assert (await _post(api, route, body)).status_code in (400, 422)


async def test_a_rerank_obeys_or_refuses_what_would_change_its_scores(api: Api) -> None:
    body = {"query": "q", "documents": ["a", "b" * 300, "c"]}
    assert (await _post(api, "/rerank", body)).status_code == 422
    cut = await _post(api, "/rerank", body | {"truncate_prompt_tokens": -1, "truncation_side": "right"})
    assert len(cut.json()["results"]) == 3
    for refused in ({"truncate_prompt_tokens": 5}, {"max_tokens_per_doc": 1}):
        assert (await _post(api, "/rerank", body | refused)).status_code == 422
    all_of_them = await _post(api, "/rerank", {"query": "q", "documents": ["a", "b"], "top_n": 0})
    assert len(all_of_them.json()["results"]) == 2


async def test_marked_steps_are_scored_apart_and_the_marks_are_not_scored(api: Api) -> None:
    def pooled(answer: str) -> dict[str, Any]:
        return {
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}],
            "use_activation": False,
        }

    marked = (await _post(api, "/pooling", pooled("one.<extra_0>two.<extra_0>"))).json()["data"][0]["data"]
    assert len(marked) == 2
    native = await _post(
        api,
        "/v1/prm/score",
        {
            "inputs": {"messages": [{"role": "user", "content": "q"}], "responses": ["one.two."]},
            "step_pattern": r"\.",
        },
    )
    [candidate] = native.json()["data"][0]["responses"]
    assert [step["reward"] for step in candidate["steps"]] == pytest.approx([row[0] for row in marked], abs=1e-6)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nowhere", 404), ("GET", "/v1/score", 405), ("GET", "/pooling", 405)],
)
async def test_what_is_not_there_is_told_in_openais_words_on_openais_paths(
    api: Api, method: str, path: str, status: int
) -> None:
    response = await api.client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"]


async def test_refusals_before_a_route_are_in_the_words_of_its_clients(api: Api) -> None:
    for route, is_openai in (("/score", True), ("/v1/score", True), ("/rerank", False), ("/v1/prm/score", False)):
        async with httpx.AsyncClient(base_url=api.url) as stranger:
            without = await stranger.post(route, json={})
        assert without.status_code == 401
        large = await api.client.post(route, content=b"[" + b" " * (17 * 2**20) + b"]")
        assert large.status_code == (400 if is_openai else 413)
        for response in (without, large):
            error = response.json()["error"]
            assert isinstance(error["message"] if is_openai else error, str)
    assert (await api.client.get("/nowhere")).json()["error_type"] == "not_found"


async def test_the_scheme_of_the_key_has_no_case(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": f"bearer {KEY}"}) as client:
        assert (await client.post("/v1/prm/score", json=_scoring())).status_code == 200


class Engine:
    """An engine of one answer per call; call i gives answer i, and fails as often as it is told."""

    def __init__(self, answers: Sequence[dict[str, Any]], *, failures: dict[int, int] | None = None) -> None:
        self.answers, self.failures = answers, failures or {}
        self.calls = 0
        self.seeds: dict[int, int] = {}

    def add_to(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            if body.get("n", 1) > 1:
                return JSONResponse({"error": {"message": "n > 1 is not supported"}}, status_code=400)
            self.calls += 1
            number = body.get("seed", 0)
            if self.failures.get(number, 0) > 0:
                self.failures[number] -= 1
                return JSONResponse({"error": {"message": "out of memory"}}, status_code=500)
            choice = {"index": 0, "finish_reason": "stop", "logprobs": None} | self.answers[number]
            usage = {"prompt_tokens": 1, "completion_tokens": 1}
            answer = {"choices": [choice], "model": "m", "usage": usage}
            return Response(json.dumps(answer), media_type="application/json")

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "org/tiny", "object": "model"}]}


class AwayVerifier:
    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        raise PeerUnavailable("the verifier is away")


async def _ask(
    prm_pair: tuple[Path, Path], engine: Engine, *, grouper: AnswerGrouper | None = None, **changes: Any
) -> httpx.Response:
    """A chat completion over an engine; seeds number its calls."""
    scorer = open_tiny_scorer(*prm_pair)
    async with running_app(engine.add_to) as engine_url:
        generator = OpenAIEngine(f"{engine_url}/v1", timeout_s=20, setting="engine")
        best_of_n = BestOfN(generator, scorer, grouper, BestOfNSettings())
        add_routes = partial(
            add_prm_routes, scorer=scorer, token=KEY, settings=ApiSettings(), meters=Meters(), best_of_n=best_of_n
        )
        async with (
            running_app(add_routes) as url,
            httpx.AsyncClient(base_url=url, headers=BEARER, timeout=60) as client,
        ):
            body = {
                "messages": [{"role": "user", "content": "q"}],
                "model": "m",
                "best_of": len(engine.answers),
                "seed": 0,
            } | changes
            response = await client.post(
                "/v1/chat/completions", content=json.dumps(body), headers={"content-type": "application/json"}
            )
        await generator.close()
    return response


def _said(*texts: str, **more: Any) -> list[dict[str, Any]]:
    return [{"message": {"role": "assistant", "content": text}, **more} for text in texts]


async def test_a_call_that_fails_once_is_repeated(prm_pair: tuple[Path, Path]) -> None:
    response = await _ask(prm_pair, Engine(_said(*"abcdefgh"), failures={3: 1}))
    assert (response.status_code, response.json()["prime"]["candidates"]) == (200, 8)
    assert "failed" not in response.json()["prime"]


async def test_one_call_that_fails_costs_itself_alone_unless_all_are_wanted(prm_pair: tuple[Path, Path]) -> None:
    response = await _ask(prm_pair, Engine(_said(*"abcdefgh"), failures={3: 9}))
    found = response.json()["prime"]
    assert (response.status_code, found["candidates"], found["failed"]) == (200, 7, 1)
    strict = await _ask(prm_pair, Engine(_said(*"abcdefgh"), failures={3: 9}), prime={"min_candidates": 8})
    assert strict.status_code == 424
    assert "7 candidates of 8" in strict.json()["error"]["message"]


async def test_without_its_verifier_a_vote_is_the_best_and_says_so(prm_pair: tuple[Path, Path]) -> None:
    response = await _ask(prm_pair, Engine(_said(*"abc")), grouper=AwayVerifier(), prime={"selection": "majority"})
    found = response.json()["prime"]
    assert (response.status_code, found["selection"]) == (200, "best")
    assert "the verifier is away" in found["fallback"]
    assert found["selected"] == [max(range(3), key=lambda number: found["scores"][number])]


@pytest.mark.parametrize(
    "changes",
    [
        {"prime": {"aggregation": "prod"}},
        {"prime": {"step_separator": [""]}},
        {"prime": {"step_separator": ["a" * 1000]}},
        {"prime": {"beta": 1e307}},
        {"messages": [{"content": "without a role"}]},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"user": "\ud83d"},
        {"messages": [{"role": "user", "content": "\ud83d"}]},
        {"prime": {"selection": "majority"}},
        {"prime": {"min_candidates": 3}},
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_is_sampled(
    changes: dict[str, Any], prm_pair: tuple[Path, Path]
) -> None:
    engine = Engine(_said(*"ab"))
    response = await _ask(prm_pair, engine, **changes)
    assert (response.status_code, engine.calls) == (400, 0), response.text


async def test_null_is_the_default(prm_pair: tuple[Path, Path]) -> None:
    response = await _ask(prm_pair, Engine(_said(*"ab")), n=None, prime=None)
    assert (response.status_code, len(response.json()["choices"])) == (200, 1)


async def test_equal_tool_calls_have_equal_scores(prm_pair: tuple[Path, Path]) -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    answers = [
        {
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call_{number}", "type": "function", "function": function}],
            }
        }
        for number in range(4)
    ]
    scores = (await _ask(prm_pair, Engine(answers))).json()["prime"]["scores"]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-6)


async def test_an_answer_that_was_cut_has_no_end_token_and_comes_after_complete_ones(
    prm_pair: tuple[Path, Path],
) -> None:
    texts = ["abc", "xyz", "a longer one"]
    whole = (await _ask(prm_pair, Engine(_said(*texts)))).json()["prime"]
    best = whole["selected"][0]
    answers = _said(*texts)
    answers[best]["finish_reason"] = "length"
    found = (await _ask(prm_pair, Engine(answers), n=3)).json()["prime"]
    assert found["cut"] == [best]
    assert found["selected"][-1] == best
    assert found["scores"][best] != pytest.approx(whole["scores"][best], abs=1e-6)
    async with running_api(open_tiny_scorer(*prm_pair)) as api:
        body = {
            "inputs": {"messages": [{"role": "user", "content": "q"}], "responses": [texts[best]]},
            "end_token": False,
        }
        alone = (await _post(api, "/v1/prm/score", body)).json()["data"][0]["responses"][0]["score"]
    assert found["scores"][best] == pytest.approx(alone, abs=1e-6)


async def test_a_log_prob_that_json_cannot_carry_does_not_lose_the_answers(prm_pair: tuple[Path, Path]) -> None:
    logprobs = {"content": [{"token": "a", "logprob": float("-inf"), "bytes": None, "top_logprobs": []}]}
    response = await _ask(prm_pair, Engine(_said(*"ab", logprobs=logprobs)))
    assert response.status_code == 200
    assert response.json()["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


async def test_health_answers_while_hostile_bodies_are_read(api: Api) -> None:
    body = {"inputs": {"prompt": "q", "responses": [1] * (MOST_VALUES - 10)}}
    hostile = [asyncio.ensure_future(_post(api, "/v1/prm/score", body)) for _ in range(4)]
    assert (await api.client.get("/healthz")).status_code == 200
    assert [response.status_code for response in await asyncio.gather(*hostile)] == [422] * 4
