"""What outside testers found wrong with the scoring API and best-of-N, by kind, over real sockets."""

import asyncio
import json
import math
import shutil
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
from prime.data import chain
from prime.data.prm_config import write_prm_config
from prime.errors import PeerUnavailable
from prime.ports import AnswerGrouper
from prime.prm_api import MOST_VALUES
from prime.scoring import PrmConfig
from prime.types import AnswerClasses
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.main import open_scorer
from services.prm.settings import ApiSettings, BestOfNSettings, PrmSettings
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


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": [_scoring()["inputs"], {"prompt": "q", "responses": ["a", 3]}]}, "inputs.1.responses.1: Input"),
        ({"inputs": {"prompt": "q", "response": ["a"]}}, "inputs: unknown field 'response'; did you mean 'responses'?"),
        ({"inputs": {"prompt": "q", "responses": [{"txt": "a"}]}}, "inputs.responses.0: unknown field 'txt'"),
        (_scoring(step_separator=["a"] * 17), "step_separator: List should have at most 16 items"),
        (_scoring(step_separator="a" * 201), "step_separator: String should have at most 200 characters"),
        (_scoring(aggregation="median"), "aggregation: Input should be 'sum', 'mean', 'min', 'last' or 'prod'"),
        (_scoring(agregation="sum"), "unknown field 'agregation'"),
        ({}, "inputs: Field required"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_body_is_said_with_its_place(api: Api, body: Any, words: str) -> None:
    said = (await _post(api, "/v1/prm/score", body)).json()["error"]
    assert said.startswith(words), said


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
    for refused in ({"truncate_prompt_tokens": 5}, {"max_tokens_per_doc": 0}):
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


async def test_a_content_in_parts_is_read_as_its_text_and_other_parts_are_refused(api: Api) -> None:
    def turns(answer: Any, *more: dict[str, Any]) -> list[dict[str, Any]]:
        question = [{"type": "text", "text": "q"}, *more]
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    plain = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "abc"}]
    in_parts = turns([{"type": "text", "text": "abc"}])
    for route in ("/pooling", "/classify"):
        expected = (await _post(api, route, {"messages": plain})).json()["data"]
        assert (await _post(api, route, {"messages": in_parts})).json()["data"] == expected
    scored = {"inputs": {"messages": in_parts[:1], "responses": ["abc"]}}
    assert (await _post(api, "/v1/prm/score", scored)).status_code == 200
    for wrong in (turns("abc", {"type": "image_url", "image_url": {"url": "data:"}}), turns(5)):
        response = await _post(api, "/pooling", {"messages": wrong})
        assert response.status_code == 400
        assert "image_url" in response.text or "int" in response.text


async def test_an_empty_document_costs_the_others_nothing(api: Api) -> None:
    alone = (await _post(api, "/rerank", {"query": "q", "documents": ["abc"]})).json()["results"]
    both = (await _post(api, "/rerank", {"query": "q", "documents": ["", "abc"]})).json()["results"]
    found = {each["index"]: each["relevance_score"] for each in both}
    assert found[1] == pytest.approx(alone[0]["relevance_score"], abs=1e-6)
    ends_at_once = {"inputs": {"prompt": "q", "responses": [(await api.scorer.info()).end_text]}, "activation": "none"}
    score = (await _post(api, "/v1/prm/score", ends_at_once)).json()["data"][0]["responses"][0]["score"]
    assert found[0] == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)


async def test_without_an_engine_the_models_are_the_prm(api: Api) -> None:
    listed = (await api.client.get("/v1/models")).json()["data"]
    assert [each["id"] for each in listed] == ["tiny-prm"]
    assert (await api.client.get("/v1/models/tiny-prm")).json() == listed[0]
    assert (await api.client.get("/v1/models/other")).status_code == 404


async def test_a_connection_whose_headers_do_not_come_is_closed() -> None:
    async with running_app(lambda app: None, header_seconds=0.2) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        for begun in (b"", b"GET /healthz HTTP/1.1\r\nHost: a\r\n"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(begun)
            assert await asyncio.wait_for(reader.read(), timeout=20) == b""
            writer.close()
        # A second request on a connection has its time anew, and one that came is answered.
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).split()[1] == b"200"
        writer.write(b"GET /healthz HTTP/1.1\r\n")
        assert b"alive" in await asyncio.wait_for(reader.read(), timeout=20)
        writer.close()


async def test_a_checkpoint_tells_its_run_and_step_and_how_much_it_learnt(
    prm_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "demo-7" / "checkpoints" / "step_40" / "prm"
    shutil.copytree(prm_pair[0], folder)
    write_prm_config(PrmConfig(trained_with={"updates": 40}), folder)
    scorer = open_scorer(PrmSettings(reference=prm_pair[1], device="cpu", frozen=True), model=folder)
    info = await scorer.info()
    assert (info.model_id, info.prm_version) == ("demo-7/step_40", 40)
    async with running_api(scorer) as api:
        assert (await api.client.get("/v1/models/demo-7/step_40")).status_code == 200
        assert (await _post(api, "/v1/prm/score", _scoring())).json()["model"] == "demo-7/step_40"


async def test_a_prm_whose_template_writes_nothing_before_an_answer_reads_whole_texts(tmp_path: Path) -> None:
    chain.write_fresh_model(tmp_path, seed=0)
    write_prm_config(chain.READING, tmp_path)
    text, answer = "3+5+8=3+5=8;8+8=6#6", "3+5=8;8+8=6#6"
    async with running_api(open_scorer(PrmSettings(device="cpu", frozen=True), model=tmp_path)) as api:
        steps = (await _post(api, "/pooling", {"input": text})).json()["data"][0]["data"]
        assert len(steps) == 3
        [probability] = (await _post(api, "/classify", {"input": text})).json()["data"][0]["probs"]
        ranked = (await _post(api, "/rerank", {"query": "3+5+8=", "documents": [answer]})).json()["results"]
        assert probability == pytest.approx(ranked[0]["relevance_score"], abs=1e-6)
        for route, body in (("/predict", {"inputs": text}), ("/v1/embeddings", {"input": text})):
            assert (await _post(api, route, body)).status_code == 200


class Engine:
    """An engine of one answer per call; call i gives answer i, and fails as often as it is told."""

    def __init__(
        self,
        answers: Sequence[dict[str, Any]],
        *,
        failures: dict[int, int] | None = None,
        refusal: Response | None = None,
        usage: dict[str, Any] | None = None,
    ) -> None:
        self.answers, self.failures, self.refusal, self.usage = answers, failures or {}, refusal, usage
        self.calls = 0
        self.seeds: dict[int, int] = {}

    def add_to(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            if self.refusal is not None:
                return self.refusal
            if body.get("n", 1) > 1:
                return JSONResponse({"error": {"message": "n > 1 is not supported"}}, status_code=400)
            self.calls += 1
            number = body.get("seed", 0)
            if self.failures.get(number, 0) > 0:
                self.failures[number] -= 1
                return JSONResponse({"error": {"message": "out of memory"}}, status_code=500)
            choice = {"index": 0, "finish_reason": "stop", "logprobs": None} | self.answers[number]
            answer = {"choices": [choice], "model": "m", "usage": self.usage, "system_fingerprint": "fp_1"}
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
            add_prm_routes,
            scorer=scorer,
            keys=Keys(KEY, meters=Meters()),
            settings=ApiSettings(),
            meters=Meters(),
            best_of_n=best_of_n,
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


class NoAnswers:
    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        return AnswerClasses(answers=("",) * len(responses), classes=(-1,) * len(responses))


async def test_a_vote_over_texts_without_answers_is_the_best_and_says_so(prm_pair: tuple[Path, Path]) -> None:
    options = {"selection": "weighted", "adaptive": {"first": 2}}
    found = (await _ask(prm_pair, Engine(_said(*"abcd")), grouper=NoAnswers(), prime=options)).json()["prime"]
    assert (found["selection"], found["candidates"]) == ("best", 4)
    assert "no candidate holds an answer" in found["fallback"]
    assert found["selected"] == [max(range(4), key=lambda number: found["scores"][number])]


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


async def test_what_the_engine_says_besides_comes_through_and_usage_is_added_up(prm_pair: tuple[Path, Path]) -> None:
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    answers = _said("a", "b", stop_reason=7, token_ids=[1, 2])
    found = (await _ask(prm_pair, Engine(answers, usage=usage))).json()
    assert found["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 4,
        "total_tokens": 10,
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert found["system_fingerprint"] == "fp_1"
    assert (found["choices"][0]["stop_reason"], found["choices"][0]["token_ids"]) == (7, [1, 2])
    assert (await _ask(prm_pair, Engine(answers))).json()["usage"] is None


async def test_an_engines_refusal_keeps_its_key_to_itself_and_says_when_to_come_again(
    prm_pair: tuple[Path, Path],
) -> None:
    refused = JSONResponse({"error": {"message": "Incorrect API key: sk-secret"}}, status_code=401)
    response = await _ask(prm_pair, Engine(_said("a"), refusal=refused))
    assert response.status_code == 424
    assert "secret" not in response.text
    assert "PRIME_ENGINE_KEY" in response.text
    busy = JSONResponse({"error": {"message": "slow down"}}, status_code=429, headers={"Retry-After": "37"})
    response = await _ask(prm_pair, Engine(_said("a"), refusal=busy))
    assert (response.status_code, response.headers["retry-after"]) == (429, "37")


async def test_an_answer_that_the_client_began_is_scored_as_a_whole(prm_pair: tuple[Path, Path]) -> None:
    question = {"role": "user", "content": "q"}
    begun = [question, {"role": "assistant", "content": "so "}]
    changes: dict[str, Any] = {"continue_final_message": True, "messages": begun}
    continued = (await _ask(prm_pair, Engine(_said("a", "b")), **changes)).json()
    whole = (await _ask(prm_pair, Engine(_said("so a", "so b")), messages=[question])).json()
    assert continued["prime"]["scores"] == pytest.approx(whole["prime"]["scores"], abs=1e-6)
    # What is given back is the engine's own answer.
    assert continued["choices"][0]["message"]["content"] in ("a", "b")


class StepEngine(Engine):
    """An engine that writes three steps, in vLLM's words, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__([])
        self.bodies: list[dict[str, Any]] = []

    def add_to(self, app: FastAPI) -> None:
        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            last = body["messages"][-1]
            step = last["content"].count(";") if last["role"] == "assistant" else 0
            choices = [
                {
                    "index": index,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": f"{step}{index}" + (";" if step < 2 else "")},
                }
                for index in range(body.get("n", 1))
            ]
            usage = {"prompt_tokens": 5, "completion_tokens": 3 * len(choices)}
            return JSONResponse({"choices": choices, "model": "m", "usage": usage})


@pytest.mark.parametrize(("strategy", "calls"), [("beam", 5), ("dvts", 5), ("particle", None)])
async def test_a_search_over_the_chat_route(prm_pair: tuple[Path, Path], strategy: str, calls: int | None) -> None:
    engine = StepEngine()
    options = {"strategy": strategy, "width": 2, "step_delimiters": ";"}
    response = await _ask(prm_pair, engine, best_of=4, n=2, prime=options)
    assert response.status_code == 200, response.text
    found = response.json()
    assert [len(choice["message"]["content"].split(";")) for choice in found["choices"]] == [3, 3]
    assert found["prime"]["search"]["engine_calls"] == len(engine.bodies)
    assert calls in (len(engine.bodies), None)
    assert found["usage"]["prompt_tokens"] == 5 * len(engine.bodies)
    # The scores are those of the whole answers, as the native route gives them.
    answers = [choice["message"]["content"] for choice in found["choices"]]
    async with running_api(open_tiny_scorer(*prm_pair)) as api:
        asked = {"inputs": {"messages": [{"role": "user", "content": "q"}], "responses": answers}}
        native = (await _post(api, "/v1/prm/score", asked)).json()["data"][0]["responses"]
    scores = [found["prime"]["scores"][number] for number in found["prime"]["selected"]]
    assert scores == pytest.approx([each["score"] for each in native], abs=1e-5)


async def test_health_answers_while_hostile_bodies_are_read(api: Api) -> None:
    body = {"inputs": {"prompt": "q", "responses": [1] * (MOST_VALUES - 10)}}
    hostile = [asyncio.ensure_future(_post(api, "/v1/prm/score", body)) for _ in range(4)]
    assert (await api.client.get("/healthz")).status_code == 200
    assert [response.status_code for response in await asyncio.gather(*hostile)] == [422] * 4
