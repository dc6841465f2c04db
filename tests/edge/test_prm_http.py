"""The native scoring API over a real socket: what it answers, and exactly how it refuses."""

import asyncio
import base64
import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from prime.errors import EngineError, NotReady, Overloaded, PrimeError
from prime.scoring import ScorerInfo, ScoringReply, ScoringRequest
from services.prm.settings import ApiSettings
from tests.edge.prm_api import KEY, Api, open_tiny_scorer, running_api

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS = ["7 * 8 = 56\n\nSo it is 56.", {"steps": ["7 * 8 = 54", "So it is 54."]}, {"text": "56"}]
BODY: dict[str, Any] = {"inputs": {"prompt": "What is 7 * 8?", "responses": ANSWERS}}


async def _score(api: Api, body: dict[str, Any]) -> dict[str, Any]:
    response = await api.client.post("/v1/prm/score", json=body)
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


async def test_every_number_of_an_answer_fits_the_others(api: Api) -> None:
    reply = await _score(api, BODY | {"return_tokens": True})
    responses = reply["data"][0]["responses"]
    assert [len(each["steps"]) for each in responses] == [2, 2, 1]
    for each in responses:
        assert each["response_reward"] == pytest.approx(sum(each["token_rewards"]), abs=1e-9)
        assert each["steps"][-1]["cumulative"] == pytest.approx(each["response_reward"], abs=1e-12)
        for step in each["steps"]:
            tokens = each["token_rewards"][step["token_start"] : step["token_end"]]
            assert step["reward"] == pytest.approx(sum(tokens), abs=1e-9)
        rewards = [step["reward"] for step in each["steps"]]
        assert each["aggregates"] == pytest.approx(
            {"sum": sum(rewards), "mean": sum(rewards) / len(rewards), "min": min(rewards), "last": rewards[-1]}
        )
        assert each["score"] == each["aggregates"]["sum"]
        assert each["num_tokens"] == len(each["token_ids"]) == len(each["token_rewards"])
    first = responses[0]["steps"]
    assert (first[0]["char_end"], first[1]["char_start"], first[1]["char_end"]) == (12, 12, 24)
    assert reply["prm_version"] == 0
    assert reply["reference_id"].startswith("sha256:")
    assert (reply["aggregation"], reply["step_value"], reply["beta"]) == ("sum", "delta", 0.05)
    usage = reply["usage"]
    assert usage["response_tokens"] == sum(each["num_tokens"] for each in responses)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["response_tokens"]


async def test_the_same_question_again_takes_the_reference_from_the_cache(api: Api) -> None:
    body = {"inputs": {"prompt": "asked twice", "responses": ["one", "two"]}}
    first, again = await _score(api, body), await _score(api, body)
    assert first["usage"]["reference_cached_tokens"] == 0
    assert again["usage"]["reference_cached_tokens"] == again["usage"]["response_tokens"]
    assert again["data"][0]["responses"][0]["score"] == pytest.approx(first["data"][0]["responses"][0]["score"])


async def test_text_messages_and_token_ids_are_the_same_question(api: Api) -> None:
    info = await api.scorer.info()
    by_text = await _score(api, {"inputs": {"prompt": "hi", "responses": ["a\n\nb"]}, "return_tokens": True})
    response = by_text["data"][0]["responses"][0]
    by_messages = {"messages": [{"role": "user", "content": "hi"}], "responses": ["a\n\nb"]}
    rendered = {"prompt": f"user: hi\n{info.generation_prompt}", "template": "none", "responses": ["a\n\nb"]}
    by_ids = {
        "prompt": "hi",
        "responses": [{"token_ids": response["token_ids"], "step_ends": [response["steps"][0]["token_end"]]}],
    }
    for inputs in (by_messages, rendered, by_ids):
        reply = await _score(api, {"inputs": inputs})
        again = reply["data"][0]["responses"][0]
        assert again["score"] == pytest.approx(response["score"], abs=1e-6)
        assert [step["reward"] for step in again["steps"]] == pytest.approx(
            [step["reward"] for step in response["steps"]], abs=1e-6
        )


async def test_several_questions_are_answered_in_their_order(api: Api) -> None:
    inputs = [{"prompt": f"question {number}", "responses": ["a", "b"]} for number in range(5)]
    together = await _score(api, {"inputs": inputs})
    assert [each["index"] for each in together["data"]] == list(range(5))
    for number, each in enumerate(together["data"]):
        alone = await _score(api, {"inputs": inputs[number]})
        assert each["responses"][0]["score"] == pytest.approx(alone["data"][0]["responses"][0]["score"], abs=1e-5)


async def test_more_questions_in_one_body_than_requests_may_wait_are_one_request(prm_pair: tuple[Path, Path]) -> None:
    from services.prm.main import open_scorer
    from services.prm.settings import PrmSettings

    prm, reference = prm_pair
    settings = PrmSettings(reference=reference, device="cpu", frozen=True, api=ApiSettings(max_waiting=2))
    async with running_api(open_scorer(settings, model=prm)) as api:
        inputs = [{"prompt": f"question {number}", "responses": ["a"]} for number in range(20)]
        assert len((await _score(api, {"inputs": inputs}))["data"]) == 20
        queries = {"query": ["user: q\nassistant: a"] * 20, "prompts": ["user: q\nassistant: "] * 20}
        answer = await api.client.post("/get_reward", json=queries)
        assert len(answer.json()["rewards"]) == 20


async def test_options_say_what_a_score_is(api: Api) -> None:
    plain = (await _score(api, BODY))["data"][0]["responses"][0]
    steps = [step["reward"] for step in plain["steps"]]
    cumulative = await _score(api, BODY | {"step_value": "cumulative", "aggregation": ["min", "last"]})
    assert cumulative["data"][0]["responses"][0]["score"] == pytest.approx(min(steps[0], sum(steps)))
    assert cumulative["aggregation"] == "min"
    doubled = await _score(api, BODY | {"beta": 0.1})
    assert doubled["data"][0]["responses"][0]["score"] == pytest.approx(2 * plain["score"])
    assert doubled["beta"] == 0.1
    product = await _score(api, BODY | {"aggregation": "prod", "activation": "sigmoid"})
    assert 0 < product["data"][0]["responses"][0]["score"] < 1
    assert "prod" in product["data"][0]["responses"][0]["aggregates"]
    bare = await _score(api, BODY | {"reference": "none"})
    assert bare["reference_id"] == "none"
    assert bare["data"][0]["responses"][0]["score"] < 0
    one_step = await _score(api, BODY | {"step_separator": "nowhere"})
    assert len(one_step["data"][0]["responses"][0]["steps"]) == 1
    by_pattern = await _score(api, BODY | {"step_pattern": r"= "})
    assert len(by_pattern["data"][0]["responses"][0]["steps"]) == 2


async def test_a_supplied_reference_is_the_one_that_counts(api: Api) -> None:
    ids = [10, 11, 12]
    bare = await _score(
        api,
        {
            "inputs": {"prompt": "q", "responses": [{"token_ids": ids, "ref_logprobs": [0.0, 0.0, 0.0]}]},
            "reference": "supplied",
            "return_tokens": True,
        },
    )
    off = await _score(
        api, {"inputs": {"prompt": "q", "responses": [{"token_ids": ids}]}, "reference": "none", "return_tokens": True}
    )
    supplied, without = (each["data"][0]["responses"][0]["token_rewards"] for each in (bare, off))
    assert supplied == pytest.approx(without, abs=1e-6)
    assert bare["reference_id"] == "supplied"


async def test_arrays_come_as_base64_when_asked(api: Api) -> None:
    plain = (await _score(api, BODY | {"return_tokens": True}))["data"][0]["responses"][0]
    reply = await _score(api, BODY | {"return_tokens": True, "encoding_format": "base64"})
    packed = reply["data"][0]["responses"][0]
    assert reply["encoding"] == {"token_rewards": "float32", "token_ids": "uint32", "byteorder": "little"}
    count = plain["num_tokens"]
    assert list(struct.unpack(f"<{count}I", base64.b64decode(packed["token_ids"]))) == plain["token_ids"]
    rewards = struct.unpack(f"<{count}f", base64.b64decode(packed["token_rewards"]))
    assert rewards == pytest.approx(plain["token_rewards"], abs=1e-6)


def _inputs(**changes: Any) -> dict[str, Any]:
    return {"inputs": {"prompt": "q", "responses": ["a"]} | changes}


@pytest.mark.parametrize(
    ("body", "status", "error_type", "text"),
    [
        ({}, 422, "validation", "inputs: Field required"),
        ({"inputs": []}, 400, "empty", "nothing to score"),
        (_inputs(responses=[]), 400, "empty", "no candidate"),
        (_inputs(responses=[""]), 400, "empty", "a response is empty"),
        (_inputs(prompt=None), 422, "validation", "exactly one of messages, text and token ids"),
        (_inputs(prompt_token_ids=[5]), 422, "validation", "exactly one"),
        (_inputs(unknown=1), 422, "validation", "unknown"),
        (_inputs() | {"agregation": "min"}, 422, "validation", "agregation"),
        (_inputs() | {"\ud800": 1}, 422, "validation", "half of a character"),
        (_inputs() | {"aggregation": "prod"}, 422, "validation", "ask for activation 'sigmoid'"),
        (_inputs() | {"aggregation": "median"}, 422, "validation", "aggregation"),
        (_inputs() | {"beta": -1}, 422, "validation", "beta"),
        (_inputs() | {"require_version": 7}, 412, "version", "version 7 of the PRM is required; it is at 0"),
        (_inputs() | {"reference": "supplied"}, 422, "validation", "needs the log-probs of every response; 0 has none"),
        (_inputs() | {"step_separator": ""}, 422, "validation", "must not be empty"),
        (_inputs() | {"step_separator": "a", "step_pattern": "b"}, 422, "validation", "not both"),
        (_inputs() | {"step_pattern": "("}, 422, "validation", "no regular expression"),
        (_inputs(responses=[{"token_ids": [5, 10**6]}]), 422, "validation", "token 1 is 1000000"),
        (_inputs(responses=["x" * 3000]), 400, "too_long", "together more than the 256"),
        (_inputs(responses=["a"] * 129), 413, "batch_too_large", "129 candidates"),
        ({"inputs": [{"prompt": "q", "responses": ["a"]}] * 129}, 413, "batch_too_large", "129 candidates"),
        (_inputs(responses=["\ud800"]), 422, "validation", "half of a character"),
        (_inputs(prompt="\ud800"), 422, "validation", "half of a character"),
        (_inputs(prompt=None, messages=[{"role": "user", "content": "\ud800"}]), 422, "validation", "half of a"),
        (_inputs(messages=[{"content": "?"}], prompt=None), 422, "validation", "chat template refuses"),
        (_inputs(template="none", prompt=None, messages=[{"role": "user", "content": "a"}]), 422, "validation", "none"),
    ],
)
async def test_a_bad_request_is_told_what_is_wrong(
    api: Api, body: dict[str, Any], status: int, error_type: str, text: str
) -> None:
    headers = {"content-type": "application/json"}
    response = await api.client.post("/v1/prm/score", content=json.dumps(body), headers=headers)
    assert (response.status_code, response.json()["error_type"]) == (status, error_type), response.text
    assert text in response.json()["error"]


@pytest.mark.parametrize("content", [b"{", b'{"inputs": "\xff"}', b'{"beta": NaN, "inputs": []}', b"", b"[1]", b'"a"'])
async def test_what_is_no_json_is_a_bad_request(api: Api, content: bytes) -> None:
    response = await api.client.post("/v1/prm/score", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error_type"]) == (422, "validation"), response.text


async def test_without_the_key_nothing_is_scored_and_health_is_open(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url) as stranger:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            for path in ("/v1/prm/score", "/rerank", "/nowhere"):
                response = await stranger.post(path, json=BODY, headers=headers)
                assert (response.status_code, response.json()["error_type"]) == (401, "unauthenticated")
            for path in ("/pooling", "/v1/nowhere"):
                response = await stranger.post(path, json=BODY, headers=headers)
                assert (response.status_code, response.json()["error"]["type"]) == (401, "unauthenticated")
        for path in ("/health", "/healthz", "/readyz", "/info", "/metrics", "/openapi.json", "/docs"):
            assert (await stranger.get(path)).status_code == 200


async def test_the_key_can_be_switched_off(prm_pair: tuple[Path, Path]) -> None:
    async with (
        running_api(open_tiny_scorer(*prm_pair), ApiSettings(require_key=False)) as api,
        httpx.AsyncClient(base_url=api.url) as stranger,
    ):
        assert (await stranger.post("/v1/prm/score", json=BODY)).status_code == 200


async def test_a_large_body_is_refused_before_it_is_read(prm_pair: tuple[Path, Path]) -> None:
    async with running_api(open_tiny_scorer(*prm_pair), ApiSettings(max_body_mib=1)) as api:
        announced = await api.client.post("/v1/prm/score", content=b" " * (2**20 + 1))

        async def unannounced() -> Any:
            for _ in range(5):
                yield b" " * 2**18

        counted = await api.client.post("/v1/prm/score", content=unannounced())
        for response in (announced, counted):
            assert (response.status_code, response.json()["error_type"]) == (413, "batch_too_large")


async def test_truncation_is_done_when_asked_and_flagged(prm_pair: tuple[Path, Path]) -> None:
    async with running_api(open_tiny_scorer(*prm_pair, max_tokens=64)) as api:
        body = {"inputs": {"prompt": "q" * 30, "responses": ["a\n\n" * 8, "b"]}, "return_tokens": True}
        refused = await api.client.post("/v1/prm/score", json=body)
        assert refused.json()["error_type"] == "too_long"
        left = await _score(api, body | {"truncation": "left"})
        # Each is cut for itself: what stands beside a response does not change its score.
        assert [each["truncated"] for each in left["data"][0]["responses"]] == [True, False]
        alone = await _score(api, {"inputs": {"prompt": "q" * 30, "responses": ["b"]}})
        both = [each["data"][0]["responses"][-1]["score"] for each in (left, alone)]
        assert both[0] == pytest.approx(both[1], abs=1e-6)
        right = await _score(api, {"inputs": {"prompt": "q", "responses": ["a\n\n" * 30, "b"]}, "truncation": "right"})
        long, short = right["data"][0]["responses"]
        assert (long["truncated"], short["truncated"]) == (True, False)
        assert long["num_tokens"] == 64 - right["usage"]["prompt_tokens"]
        assert long["steps"][-1]["token_end"] == long["num_tokens"]
        hopeless = await api.client.post(
            "/v1/prm/score", json={"inputs": {"prompt": "q" * 99, "responses": ["a"]}, "truncation": "right"}
        )
        assert (hopeless.status_code, hopeless.json()["error_type"]) == (400, "too_long")


class Failing:
    """A scorer that fails in one way."""

    def __init__(self, scorer: Any, error: Exception) -> None:
        self._scorer, self._error = scorer, error

    async def score(self, request: ScoringRequest) -> ScoringReply:
        raise self._error

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        raise self._error

    async def info(self) -> ScorerInfo:
        info: ScorerInfo = await self._scorer.info()
        return info


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (Overloaded("full"), 429, "overloaded"),
        (EngineError("broken"), 424, "backend"),
        (NotReady("stopping"), 503, "unhealthy"),
        (PrimeError("else"), 500, "internal"),
        (ZeroDivisionError("a secret"), 500, "internal"),
    ],
)
async def test_our_own_failures_have_classes_too(
    prm_pair: tuple[Path, Path], error: Exception, status: int, error_type: str
) -> None:
    async with running_api(Failing(open_tiny_scorer(*prm_pair), error)) as api:
        response = await api.client.post("/v1/prm/score", json=BODY)
        assert (response.status_code, response.json()["error_type"]) == (status, error_type)
        assert "secret" not in response.text
        assert ("retry-after" in response.headers) == (status in (429, 503))
        metrics = (await api.client.get("/metrics")).text
        assert "secret" not in metrics


async def test_beyond_capacity_answers_are_429_and_everything_accepted_is_answered(
    prm_pair: tuple[Path, Path],
) -> None:
    from services.prm.main import open_scorer
    from services.prm.settings import PrmSettings

    prm, reference = prm_pair
    settings = PrmSettings(reference=reference, device="cpu", frozen=True, api=ApiSettings(max_waiting=4))
    async with running_api(open_scorer(settings, model=prm)) as api:
        body = {"inputs": {"prompt": "q", "responses": ["a" * 200] * 8}}
        alone = (await _score(api, body))["data"][0]["responses"][0]["score"]
        responses = await asyncio.gather(*(api.client.post("/v1/prm/score", json=body) for _ in range(60)))
        by_status = {status: [each for each in responses if each.status_code == status] for status in (200, 429)}
        assert len(by_status[200]) + len(by_status[429]) == 60
        assert len(by_status[200]) >= 4
        assert by_status[429], "sixty at once must be more than four may wait"
        assert all(each.headers["retry-after"] == "1" for each in by_status[429])
        for each in by_status[200]:
            assert each.json()["data"][0]["responses"][0]["score"] == pytest.approx(alone, abs=1e-4)
        assert (await _score(api, body))["prm_version"] == 0


async def test_headers_say_where_the_time_went(api: Api) -> None:
    response = await api.client.post("/v1/prm/score", json=BODY)
    names = ("x-tokenization-time", "x-queue-time", "x-inference-time")
    parts = [float(response.headers[name]) for name in names]
    assert float(response.headers["x-total-time"]) >= sum(parts)
    assert int(response.headers["x-compute-tokens"]) == response.json()["usage"]["total_tokens"]


async def test_the_openapi_page_describes_every_route_and_its_examples_work(api: Api) -> None:
    page = (await api.client.get("/openapi.json")).json()
    posts = {path for path, methods in page["paths"].items() if "post" in methods}
    assert {"/v1/prm/score", "/pooling", "/score", "/classify", "/rerank", "/predict", "/get_reward"} <= posts
    for example in page["components"]["schemas"]["ScoreBody"]["examples"]:
        await _score(api, example)


async def test_info_says_how_the_prm_reads(api: Api) -> None:
    info = (await api.client.get("/info")).json()
    assert info["model_id"] == "tiny-prm"
    assert (info["aggregation"], info["beta"], info["prm_version"]) == ("sum", 0.05, 0)
    assert info["max_input_length"] == 256
