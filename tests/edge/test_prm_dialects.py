"""Clients of other servers get what they read, from bodies as they send them and from the real packages."""

import asyncio
import base64
import json
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cohere
import openai
import pytest

from prime.scoring import Candidate, Prompt, ScoringRequest, Truncation
from tests.edge.prm_api import KEY, Api

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORDED = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "recorded").glob("*.json")}
QUESTION = "What is 7 * 8?"
RIGHT, WRONG = "7 * 8 = 56\n\nSo it is 56.", "7 * 8 = 54\n\nSo it is 54."


async def _replay(api: Api, name: str, **changes: Any) -> Any:
    record = RECORDED[name]
    response = await api.client.post(record["path"], json=record["body"] | changes)
    assert response.status_code == 200, response.text
    assert {"x-inference-time", "x-compute-tokens"} <= set(response.headers)
    return response.json()


async def _scores(api: Api, *answers: str, end_token: bool | None = None) -> list[float]:
    """What the scorer itself says."""
    reply = await api.scorer.score(
        ScoringRequest(
            prompt=Prompt(text=QUESTION),
            candidates=tuple(Candidate(text=answer) for answer in answers),
            end_token=end_token,
        )
    )
    return [candidate.score for candidate in reply.candidates]


def _near(values: float | Sequence[float] | dict[int, float]) -> Any:
    return pytest.approx(values, abs=1e-5)


def _sigmoids(values: Sequence[float]) -> list[float]:
    return [1 / (1 + math.exp(-value)) for value in values]


# ---------------------------------------------------------------- trainers


async def test_openrlhf_reads_rewards_scores_and_extra_logs(api: Api) -> None:
    answer = await _replay(api, "openrlhf")
    assert answer["rewards"] == answer["scores"] == _near(await _scores(api, RIGHT))
    assert answer["extra_logs"]["num_steps"] == [2]


async def test_a_response_that_was_cut_off_gets_no_end_token_from_us(api: Api) -> None:
    body = RECORDED["openrlhf"]["body"]
    cut = await _replay(api, "openrlhf", query=[body["prompts"][0] + RIGHT])
    assert cut["rewards"] == _near(await _scores(api, RIGHT, end_token=False))


@pytest.mark.parametrize("prompts", [None, [], ["another question"], [""], ["a", "b"]])
async def test_openrlhf_without_its_prompt_is_refused_and_never_guessed_at(api: Api, prompts: Any) -> None:
    response = await api.client.post("/get_reward", json=RECORDED["openrlhf"]["body"] | {"prompts": prompts})
    assert (response.status_code, response.json()["error_type"]) == (422, "validation")
    assert "prompt" in response.json()["error"]
    metrics = (await api.client.get("/metrics")).text
    assert 'prime_prm_http_errors_total{error_type="validation",route="/get_reward"}' in metrics


async def test_slime_reads_a_number_or_an_object(api: Api) -> None:
    [expected] = await _scores(api, RIGHT)
    assert await _replay(api, "slime_text") == _near(expected)
    answer = await _replay(api, "slime_messages")
    assert answer["score"] == _near(expected)
    assert sum(answer["steps"]) == _near(answer["response_reward"])


async def test_verl_reads_the_last_number_of_vllm_and_of_sglang(api: Api) -> None:
    [expected] = await _scores(api, RIGHT)
    assert (await _replay(api, "verl_vllm"))["data"][-1]["probs"][-1] == _near(expected)
    assert (await _replay(api, "verl_sglang"))["data"][-1]["embedding"][-1] == _near(expected)


# ---------------------------------------------------------------- vLLM and SGLang


async def test_pooling_gives_a_row_per_step(api: Api) -> None:
    answer = await _replay(api, "vllm_pooling_messages")
    assert (answer["object"], answer["data"][0]["object"], answer["id"][:5]) == ("list", "pooling", "pool-")
    rows = answer["data"][0]["data"]
    assert len(rows) == 2
    assert all(0 < value < 1 for [value] in rows)
    raw = await _replay(api, "vllm_pooling_text")
    totals = [sum(value for [value] in each["data"]) for each in raw["data"]]
    assert totals == _near(await _scores(api, RIGHT, WRONG))
    assert raw["usage"]["total_tokens"] == raw["usage"]["prompt_tokens"] > 0


async def test_pooling_takes_token_ids_and_gives_base64(api: Api) -> None:
    asked = {"inputs": {"prompt": QUESTION, "responses": [RIGHT]}, "return_tokens": True}
    native = (await api.client.post("/v1/prm/score", json=asked)).json()
    opening = (await api.scorer.info()).generation_prompt_ids
    prompt = [97, *opening]
    ids = [*prompt, *native["data"][0]["responses"][0]["token_ids"]]
    body = {"input": [ids], "encoding_format": "base64", "use_activation": False}
    answer = (await api.client.post("/pooling", json=body)).json()
    values = struct.unpack("<2f", base64.b64decode(answer["data"][0]["data"]))
    again = {"inputs": {"prompt_token_ids": prompt, "responses": [{"token_ids": ids[len(prompt) :]}]}}
    same = (await api.client.post("/v1/prm/score", json=again)).json()
    steps = [step["reward"] for step in same["data"][0]["responses"][0]["steps"]]
    assert list(values) == _near(steps)


async def test_score_takes_one_to_many_and_many_to_many(api: Api) -> None:
    expected = _sigmoids(await _scores(api, RIGHT, WRONG))
    for name in ("vllm_score_one_to_many", "vllm_score_many_to_many"):
        answer = await _replay(api, name)
        assert [each["score"] for each in answer["data"]] == _near(expected)
    for first, second in (("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")):
        body = {"model": "prm", first: QUESTION, second: RIGHT}
        answer = (await api.client.post("/score", json=body)).json()
        assert [each["score"] for each in answer["data"]] == _near(expected[:1])


async def test_sglang_classify_gives_a_list(api: Api) -> None:
    answer = await _replay(api, "sglang_classify")
    assert [each["embedding"][0] for each in answer] == _near(_sigmoids(await _scores(api, RIGHT, WRONG)))


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/pooling", {"input": "no answer in here"}, "where the answer begins is not known"),
        ("/pooling", {"input": [[5, 6, 7]]}, "where the answer begins is not known"),
        ("/pooling", {"input": "a", "messages": []}, "exactly one"),
        ("/pooling", {"messages": [{"role": "user", "content": "a"}]}, "must be the assistant's answer"),
        ("/pooling", {"input": "a", "encoding_format": "bytes"}, "encoding_format"),
        ("/pooling", {"input": "a", "endianness": "big"}, "endianness"),
        ("/score", {"text_1": ["a", "b"], "text_2": ["c"]}, "2 questions and 1 answers"),
        ("/score", {"text_1": "a"}, "Field required"),
        ("/score", {"text_1": "a", "text_2": "b", "truncate_prompt_tokens": 7}, "only -1"),
        ("/score", {"text_1": "a", "text_2": "b", "chat_template": "x"}, "the PRM's own is used"),
        ("/score", {"text_1": "a", "text_2": "x" * 400}, "256 that are read"),
        ("/score", {"text_1": "a", "text_2": []}, "a list is empty"),
        ("/classify", {"input": []}, "nothing to score"),
    ],
)
async def test_vllm_clients_are_refused_in_their_own_form(api: Api, path: str, body: dict[str, Any], text: str) -> None:
    response = await api.client.post(path, json=body)
    error = response.json()["error"]
    assert response.status_code == error["code"] == 400
    assert text in error["message"]


async def test_the_openai_package_reads_embeddings(api: Api) -> None:
    [expected] = await _scores(api, RIGHT)
    text = RECORDED["verl_sglang"]["body"]["input"]
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{api.url}/v1") as client:
        answer = await client.embeddings.create(model="prm", input=[text], encoding_format="base64")
        assert (await client.embeddings.create(model="prm", input=text)).data[0].embedding == _near([expected])
        with pytest.raises(openai.BadRequestError, match="where the answer begins"):
            await client.embeddings.create(model="prm", input="nothing")
    assert isinstance(answer.data[0].embedding, str | list)
    async with openai.AsyncOpenAI(api_key="wrong", base_url=f"{api.url}/v1") as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.embeddings.create(model="prm", input=text)


# ---------------------------------------------------------------- rerankers


async def test_the_cohere_package_reranks(api: Api) -> None:
    expected = dict(enumerate(_sigmoids(await _scores(api, WRONG, RIGHT))))

    def ask() -> Any:
        with cohere.ClientV2(api_key=KEY, base_url=api.url) as client:
            return client.rerank(model="rerank-v3.5", query=QUESTION, documents=[WRONG, RIGHT], top_n=2)

    answer = await asyncio.to_thread(ask)
    scores = [each.relevance_score for each in answer.results]
    assert scores == sorted(scores, reverse=True)
    assert {each.index: each.relevance_score for each in answer.results} == _near(expected)


async def test_cohere_and_jina_shapes_carry_documents_and_usage(api: Api) -> None:
    best = max(await _scores(api, WRONG, RIGHT))
    cut = await _replay(api, "cohere_v1")
    assert len(cut["results"]) == 1
    assert cut["results"][0]["relevance_score"] == _near(_sigmoids([best])[0])
    assert cut["results"][0]["document"]["text"] in (RIGHT, WRONG)
    jina = await _replay(api, "jina")
    assert jina["model"] == "jina-reranker-v2-base-multilingual"
    assert jina["usage"]["total_tokens"] > 0
    assert sorted(each["index"] for each in jina["results"]) == [0, 1]


async def test_of_a_document_as_many_tokens_are_read_as_was_asked_for(api: Api) -> None:
    body = {"query": QUESTION, "documents": [RIGHT + "!" * 999, RIGHT, RIGHT + "!"], "max_tokens_per_doc": len(RIGHT)}
    results = (await api.client.post("/v2/rerank", json=body)).json()["results"]
    [cut] = _sigmoids(await _scores(api, RIGHT, end_token=False))
    [whole] = _sigmoids(await _scores(api, RIGHT))
    assert abs(cut - whole) > 1e-4
    assert {each["index"]: each["relevance_score"] for each in results} == _near({0: cut, 1: whole, 2: cut})


async def test_a_shortened_response_is_flagged(api: Api) -> None:
    body = {"inputs": {"prompt": QUESTION, "responses": [RIGHT, "56"]}, "max_response_tokens": 2}
    [long, short] = (await api.client.post("/v1/prm/score", json=body)).json()["data"][0]["responses"]
    assert [(each["truncated"], each["num_tokens"]) for each in (long, short)] == [(True, 2), (False, 3)]


async def test_tei_clients_get_bare_lists(api: Api) -> None:
    wrong, right = await _scores(api, WRONG, RIGHT)
    ranked = await _replay(api, "tei_rerank")
    assert {each["index"]: each["score"] for each in ranked} == _near(dict(enumerate(_sigmoids([wrong, right]))))
    assert [each["text"] for each in ranked] == [[WRONG, RIGHT][each["index"]] for each in ranked]
    assert await _replay(api, "tei_predict_pair") == [{"score": _near(right), "label": "reward"}]
    for function, expected in (("none", right), ("sigmoid", _sigmoids([right])[0])):
        asked = await _replay(api, "tei_predict_pair", parameters={"function_to_apply": function, "top_k": 1})
        assert asked[0]["score"] == _near(expected)
    batch = await _replay(api, "tei_predict_batch")
    assert [each[0]["score"] for each in batch] == _near([right, wrong])


@pytest.mark.parametrize(
    ("path", "body", "status", "error_type"),
    [
        ("/rerank", {"query": "", "texts": ["a"]}, 400, "empty"),
        ("/rerank", {"query": "a", "texts": []}, 400, "empty"),
        ("/rerank", {"query": "a"}, 422, "validation"),
        ("/rerank", {"query": "a", "texts": ["x" * 400]}, 422, "validation"),
        ("/rerank", {"query": "a", "texts": ["a"] * 129}, 413, "batch_too_large"),
        ("/predict", {"inputs": []}, 400, "empty"),
        ("/predict", {"inputs": "no answer"}, 422, "validation"),
        ("/predict", {"inputs": [["a", "b"]], "parameters": {"function_to_apply": "softmax"}}, 422, "validation"),
        ("/predict", {"inputs": [["a", "b", "c"]]}, 422, "validation"),
    ],
)
async def test_tei_clients_are_refused_with_teis_classes(
    api: Api, path: str, body: dict[str, Any], status: int, error_type: str
) -> None:
    response = await api.client.post(path, json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, error_type), response.text


async def test_tei_truncation_is_the_scorers(api: Api) -> None:
    body = {"query": QUESTION, "texts": ["x" * 400], "truncate": True, "raw_scores": True}
    answer = (await api.client.post("/rerank", json=body)).json()
    cut = await api.scorer.score(
        ScoringRequest(
            prompt=Prompt(text=QUESTION), candidates=(Candidate(text="x" * 400),), truncation=Truncation.RIGHT
        )
    )
    assert answer[0]["score"] == _near(cut.candidates[0].score)
    assert cut.candidates[0].truncated
