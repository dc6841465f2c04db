"""The typed client against the real API, sync and async: what it returns, raises, retries and closes."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.telemetry import Meters
from prime.chat import Selection
from prime.client import AsyncPrmClient, PrmClient
from prime.errors import (
    BatchTooLarge,
    EmptyInput,
    EngineError,
    InputTooLong,
    InvalidInput,
    NotReady,
    Overloaded,
    PeerUnavailable,
    PrimeError,
    SettingsError,
    TookTooLong,
    Unauthenticated,
    VersionConflict,
)
from prime.prm_api import (
    REFUSALS,
    InfoReply,
    InputBody,
    PrimeOptions,
    ResponseBody,
    ScoreBody,
    ScoreOptions,
    pack,
    unpack,
)
from prime.scoring import Activation, Aggregation, StepValue
from prime.types import ReferenceSource
from services.prm.best_of_n import BestOfN
from services.prm.http.app import add_prm_routes
from services.prm.http.errors import fault_of, openai_answer, plain_answer
from services.prm.keys import Keys
from services.prm.settings import ApiSettings, BestOfNSettings
from tests.edge.prm_api import KEY, Api, open_tiny_scorer, running_app

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS: list[str | ResponseBody] = ["7 * 8 = 56\n\nSo it is 56.", ResponseBody(steps=["7 * 8 = 54", "So it is 54."])]

T = TypeVar("T")


async def _both(url: str, call: Callable[[Any], Any], key: str = KEY, **how: Any) -> list[Any]:
    """What both clients return for a call, or the error that they raise."""
    results: list[Any] = []
    async with AsyncPrmClient(url, key, **how) as client:
        try:
            results.append(await call(client))
        except PrimeError as error:
            results.append(error)

    def blocking() -> Any:
        with PrmClient(url, key, **how) as client:
            return call(client)

    try:
        results.append(await asyncio.to_thread(blocking))
    except PrimeError as error:
        results.append(error)
    return results


# ---------------------------------------------------------------- against the real service


async def test_a_score_is_one_call_and_has_names(api: Api) -> None:
    options = ScoreOptions(aggregation=Aggregation.MIN, beta=0.1)
    for reply in await _both(
        api.url, lambda client: client.score(ANSWERS, prompt="What is 7 * 8?", return_tokens=True, options=options)
    ):
        assert (reply.aggregation, reply.beta, reply.model) == (Aggregation.MIN, 0.1, "tiny-prm")
        assert reply.scores == [each.score for each in reply.responses]
        for response in reply.responses:
            assert response.score == min(step.reward for step in response.steps)
            assert sum(response.rewards()) == pytest.approx(response.response_reward)
            assert len(response.ids()) == response.num_tokens


async def test_messages_and_whole_bodies_are_scored_too(api: Api) -> None:
    messages = [{"role": "user", "content": "What is 7 * 8?"}]
    question = InputBody(prompt="What is 7 * 8?", responses=ANSWERS)
    packed = ScoreBody(inputs=[question, question], return_tokens=True, encoding_format="base64")
    async with AsyncPrmClient(api.url, KEY) as client:
        by_prompt = await client.score(ANSWERS, prompt="What is 7 * 8?", return_tokens=True)
        assert (await client.score(ANSWERS, messages=messages)).scores == pytest.approx(by_prompt.scores, abs=1e-6)
        twice = await client.score_body(packed)
    assert twice.scores == pytest.approx(by_prompt.scores * 2, abs=1e-6)
    assert twice.encoding is not None
    for one, other in zip(by_prompt.responses, twice.responses, strict=False):
        assert other.ids() == one.ids()
        assert other.rewards() == pytest.approx(one.rewards(), abs=1e-6)


async def test_the_service_says_who_it_is(api: Api) -> None:
    for about in await _both(api.url, lambda client: client.info()):
        assert (about.model_id, about.beta, about.step_separators) == ("tiny-prm", 0.05, ["\n\n"])


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda client: client.score([], prompt="q"), EmptyInput),
        (lambda client: client.score(["a"]), InvalidInput),
        (lambda client: client.score(["a"], prompt="q", messages=[]), InvalidInput),
        (lambda client: client.score([1], prompt="q"), InvalidInput),
        (lambda client: client.score(["x" * 4000], prompt="q"), InputTooLong),
        (lambda client: client.score(["a"] * 129, prompt="q"), BatchTooLarge),
        (lambda client: client.score(["a"], prompt="q", options=ScoreOptions(require_version=3)), VersionConflict),
        (lambda client: client.score(["a"], prompt="q", timeout_s=1e-9), TookTooLong),
        (lambda client: client.best_of_n(prompt="q"), SettingsError),
        (lambda client: client.best_of_n(prompt="q", messages=[]), InvalidInput),
        (lambda client: client.best_of_n(prompt="q", stream=True), InvalidInput),
        (lambda client: client.best_of_n(prompt="q", best_of="many"), InvalidInput),
    ],
)
async def test_refusals_are_the_projects_errors(api: Api, call: Callable[[Any], Any], kind: type[PrimeError]) -> None:
    errors = await _both(api.url, call)
    assert [type(error) for error in errors] == [kind, kind]
    assert str(errors[0]) == str(errors[1]) != ""


async def test_a_wrong_key_and_a_wrong_address_are_told(api: Api) -> None:
    for url, key, kind in ((api.url, "wrong", Unauthenticated), ("http://127.0.0.1:9", KEY, PeerUnavailable)):
        errors = await _both(url, lambda client: client.score(["a"], prompt="q"), key, patience_s=0.0)
        assert [type(error) for error in errors] == [kind, kind]
    with pytest.raises(SettingsError, match="http://"):
        PrmClient("127.0.0.1:9152")


async def test_a_reply_without_tokens_says_how_to_ask_for_them(api: Api) -> None:
    async with AsyncPrmClient(api.url, KEY) as client:
        reply = await client.score(["a"], prompt="q")
    with pytest.raises(InvalidInput, match="return_tokens"):
        reply.responses[0].rewards()


async def test_the_best_of_n_is_typed(prm_pair: tuple[Path, Path]) -> None:
    def add_engine(app: FastAPI) -> None:
        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Any:
            body = await request.json()
            assert body["temperature"] == 0.7
            assert "best_of" not in body
            choices = [
                {"index": each, "message": {"role": "assistant", "content": f"{each}"}, "finish_reason": "stop"}
                for each in range(body["n"])
            ]
            return {"choices": choices, "model": "m", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}

    scorer = open_tiny_scorer(*prm_pair)
    async with running_app(add_engine) as engine_url:
        engine = OpenAIEngine(f"{engine_url}/v1", timeout_s=20, setting="engine")
        best_of_n = BestOfN(engine, scorer, None, BestOfNSettings())
        add_routes = partial(
            add_prm_routes,
            scorer=scorer,
            keys=Keys(KEY, meters=Meters()),
            settings=ApiSettings(),
            meters=Meters(),
            best_of_n=best_of_n,
        )
        async with running_app(add_routes) as url:
            fields = {"model": "m", "best_of": 4, "n": 2, "temperature": 0.7}
            for completion in await _both(url, lambda client: client.best_of_n(prompt="q", **fields)):
                found = completion.prime
                assert (found.selection, found.candidates, len(completion.choices)) == (Selection.BEST, 4, 2)
                best = max(range(4), key=lambda number: found.scores[number])
                assert (found.selected[0], completion.text) == (best, str(best))
                assert completion.usage.completion_tokens == 4
            strict = PrimeOptions(scores=False)
            for completion in await _both(
                url,
                lambda client: client.best_of_n(messages=[{"role": "user", "content": "q"}], options=strict, **fields),
            ):
                assert completion.prime is None
            votes = PrimeOptions(selection=Selection.MAJORITY)
            for error in await _both(url, lambda client: client.best_of_n(prompt="q", options=votes, **fields)):
                assert isinstance(error, InvalidInput)
                assert "no verifier" in str(error)
        await engine.close()


# ---------------------------------------------------------------- against services that fail


class Failing:
    """A service that answers each request with the next of its responses, and the last one from then on."""

    def __init__(self, *responses: Response) -> None:
        self.responses = list(responses)
        self.came: list[float] = []
        self.timeouts: list[float] = []

    def add_to(self, app: FastAPI) -> None:
        @app.get("/info")
        @app.post("/v1/chat/completions")
        @app.post("/v1/prm/score")
        async def answer(request: Request) -> Response:
            self.came.append(time.monotonic())
            self.timeouts.append(float(request.headers["x-request-timeout"]))
            return self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]


INFO = InfoReply(
    model_id="a-prm",
    prm_version=0,
    reference=ReferenceSource.MODEL,
    reference_id="sha256:0",
    tokenizer_fingerprint="sha256:1",
    dtype="float32",
    beta=0.05,
    aggregation=Aggregation.SUM,
    step_value=StepValue.DELTA,
    activation=Activation.NONE,
    step_separators=[";"],
    end_token=True,
    generation_prompt="",
    generation_prompt_ids=[],
    end_text="#",
    max_input_length=64,
    max_client_batch_size=8,
    max_concurrent_requests=8,
    max_batch_tokens=64,
)


@pytest.mark.parametrize("answer", [plain_answer, openai_answer])
@pytest.mark.parametrize("kind", [kind for kind, _, _ in REFUSALS])
async def test_every_error_that_a_service_raises_is_raised_by_the_client(
    kind: type[PrimeError], answer: Callable[[Any], Response]
) -> None:
    service = Failing(answer(fault_of(kind("its words"))))
    async with running_app(service.add_to) as url:
        # Which of the two is away, an answer does not say.
        expected = NotReady if kind is PeerUnavailable else kind
        for error in await _both(url, lambda client: client.info(), patience_s=0.0):
            assert (type(error), str(error)) == (expected, "its words")


async def test_what_is_overloaded_is_asked_again_when_it_says() -> None:
    busy = JSONResponse({"error": "busy", "error_type": "overloaded"}, 429, {"Retry-After": "1"})
    for client_kind in range(2):
        service = Failing(busy, JSONResponse(INFO.model_dump(mode="json")))
        async with running_app(service.add_to) as url:
            if client_kind:
                async with AsyncPrmClient(url, KEY, timeout_s=30.0) as client:
                    about = await client.info()
            else:
                with PrmClient(url, KEY, timeout_s=30.0) as blocking:
                    about = await asyncio.to_thread(blocking.info)
        assert about == INFO
        assert service.came[1] - service.came[0] >= 1.0
        assert 28.0 < service.timeouts[1] <= service.timeouts[0] - 1.0 <= 29.0


async def test_patience_and_time_end() -> None:
    busy = JSONResponse({"error": "busy", "error_type": "overloaded"}, 429, {"Retry-After": "20"})
    limits: list[dict[str, Any]] = [{"patience_s": 2.0}, {"timeout_s": 2.0}]
    for how in limits:
        service = Failing(busy)
        async with running_app(service.add_to) as url:
            errors = await _both(url, lambda client: client.info(), **how)
        assert [type(error) for error in errors] == [Overloaded, Overloaded]
        assert len(service.came) == 2


@pytest.mark.parametrize(
    ("response", "kind"),
    [
        (Response("<html>Bad gateway</html>", 502), PeerUnavailable),
        (Response("slow down", 429), Overloaded),
        (Response("teapot", 418), EngineError),
        (JSONResponse([1]), EngineError),
        (Response("<html>hello</html>"), EngineError),
        (JSONResponse({"detail": "Not Found"}, 404), EngineError),
    ],
)
async def test_what_is_no_scoring_service_is_told(response: Response, kind: type[PrimeError]) -> None:
    service = Failing(response)
    async with running_app(service.add_to) as url:
        errors = await _both(url, lambda client: client.info(), patience_s=0.0)
        assert [type(error) for error in errors] == [kind, kind]
        assert all(url in str(error) for error in errors)


# ---------------------------------------------------------------- alone


async def test_numbers_are_packed_and_unpacked() -> None:
    assert list(unpack("I", pack("I", [0, 7, 2**32 - 1]))) == [0, 7, 2**32 - 1]
    assert list(unpack("f", pack("f", [0.5, -1.25]))) == [0.5, -1.25]
    assert unpack("f", [0.1]) == [0.1]
