"""Clients of other projects, unmodified, return what the native route says. Run by `make test-clients`."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import httpx
import pytest

from benchmarks.prm_server import KEY, Server
from prime.data.tiny import build_byte_tokenizer
from tests.clients.conftest import Ask, Engine

pytestmark = [pytest.mark.clients, pytest.mark.timeout(300)]

QUESTION = "What is 7 * 8?"
ANSWERS = ["It is 54.", "7 * 8 = 56\n\nSo it is 56.", "I do not know.", "\\boxed{56}"]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
STEPS = [["7 * 8 = 56;", "So it is 56."], ["7 * 8 = 54;", "54 + 2 = 56;", "It is \\boxed{56}."]]


def _native(service: Server, inputs: Mapping[str, Any], **options: Any) -> list[Any]:
    reply = httpx.post(f"{service.url}/v1/prm/score", json={"inputs": inputs, **options}, headers=service.headers)
    reply.raise_for_status()
    responses: list[Any] = reply.json()["data"][0]["responses"]
    return responses


def _scores(service: Server, answers: Sequence[str]) -> list[float]:
    scores = [each["score"] for each in _native(service, {"prompt": QUESTION, "responses": list(answers)})]
    # Answers must differ by far more than what is taken for equal, or a mix-up would go unnoticed.
    ordered = sorted(scores)
    assert all(upper - lower > 1e-3 for lower, upper in pairwise(ordered))
    return scores


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-5)


def _by_index(scores: Sequence[float], *, raw: bool = False) -> Any:
    """As a script prints ranked answers: score by index, the best first."""
    return _near({str(index): score if raw else _sigmoid(score) for index, score in enumerate(scores)})


def _question(service: Server) -> dict[str, Any]:
    return {"url": service.url, "key": KEY, "question": QUESTION, "answers": ANSWERS}


@pytest.mark.parametrize(
    ("script", "ways"),
    [
        ("with_langchain_cohere", {"rerank", "compress"}),
        ("with_llama_index", {"cohere", "tei"}),
        ("with_rerankers", {"cohere", "jina", "text-embeddings-inference"}),
    ],
)
def test_rerankers_return_the_sigmoids_best_first(ask: Ask, service: Server, script: str, ways: set[str]) -> None:
    found = ask(script, **_question(service))
    assert set(found) == ways
    for ranked in found.values():
        assert ranked == _by_index(_scores(service, ANSWERS))
        assert list(ranked.values()) == sorted(ranked.values(), reverse=True)


def test_haystack_ranks_by_cohere_and_by_tei(ask: Ask, service: Server) -> None:
    found = ask("with_haystack", **_question(service))
    scores = _scores(service, ANSWERS)
    assert found["cohere"] == _by_index(scores)
    assert found["tei"] == _by_index(scores)
    assert found["tei_raw"] == _by_index(scores, raw=True)


def test_litellm_reranks_and_completes(ask: Ask, service: Server, engine: Engine) -> None:
    found = ask("with_litellm", **_question(service))
    for provider in ("hosted_vllm", "cohere", "huggingface"):
        assert found[provider] == _by_index(_scores(service, ANSWERS))
    _check_completion(found["completion"], service, engine)


def test_huggingface_hub_classifies_completes_and_asks_about_the_server(
    ask: Ask, service: Server, engine: Engine
) -> None:
    prompt = build_byte_tokenizer().apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    found = ask("with_huggingface_hub", **_question(service), rendered=[f"{prompt}{answer}" for answer in ANSWERS])
    scores = _scores(service, ANSWERS)
    assert found["text_classification"] == _by_index(scores)
    assert found["text_classification_raw"] == _by_index(scores, raw=True)
    assert (found["is_healthy"], found["model_id"]) == (True, "prm")
    _check_completion(found["completion"], service, engine)


def test_its_hub_chooses_among_answers_that_the_service_chose(ask: Ask, service: Server, engine: Engine) -> None:
    before = len(engine.given)
    found = ask("with_its_hub", **_question(service))
    given = engine.given[before:]
    assert [len(samples) for samples in given] == [2, 2, 2]
    winners = [_best(service, samples) for samples in given]
    assert sorted(found["responses"]) == sorted(winners)
    assert found["scores"] == _near(_scores(service, found["responses"]))
    assert found["best"] == _best(service, winners)


def test_reward_hub_gets_a_row_per_marked_step(ask: Ask, open_service: Server) -> None:
    found = ask("with_reward_hub", url=open_service.url, question=QUESTION, system=SYSTEM, steps=STEPS)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    native = _native(
        open_service,
        {"messages": messages, "responses": ["".join(steps) for steps in STEPS]},
        step_separator=";",
    )
    expected = [[_sigmoid(step["reward"]) for step in each["steps"]] for each in native]
    assert [len(rows) for rows in found] == [2, 3]
    assert found == [_near(rows) for rows in expected]


def _check_completion(found: Mapping[str, Any], service: Server, engine: Engine) -> None:
    samples = engine.given[-1]
    assert len(samples) == 3
    assert found["scores"] == _near(_scores(service, samples))
    assert found["text"] == _best(service, samples)


def _best(service: Server, answers: Sequence[str]) -> str:
    return max(zip(_scores(service, answers), answers, strict=True))[1]
