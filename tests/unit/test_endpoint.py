"""A model asked by a batch job: nothing is paid twice, not too much at once, and patience ends."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from prime.adapters.endpoint import Endpoint, ResponseCache, Usage
from prime.chat import ChatCandidate, ChatSamples
from prime.errors import EngineError, InUse, InvalidInput, Overloaded, PeerUnavailable

ASKED = [{"role": "user", "content": "Find $1+1$."}]


class Engine:
    """Answers with the seed; fails as often as it is told."""

    def __init__(self, *failures: Exception, content: Any = "answer {seed}") -> None:
        self.failures = list(failures)
        self.content = content
        self.bodies: list[Mapping[str, Any]] = []
        self.under_way = self.most_under_way = 0

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        assert n == 1
        self.bodies.append(request)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0.005)
        self.under_way -= 1
        if self.failures:
            raise self.failures.pop(0)
        content = self.content.format(seed=request["seed"]) if isinstance(self.content, str) else self.content
        candidate = ChatCandidate(message={"role": "assistant", "content": content}, finish_reason="stop")
        return ChatSamples(candidates=(candidate,), model="m", usage={"prompt_tokens": 10, "completion_tokens": 20})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[ResponseCache]:
    opened = ResponseCache(tmp_path / "cache" / "responses.sqlite")
    yield opened
    opened.close()


def endpoint(
    engine: Engine, cache: ResponseCache, *, identity: str = "m at x", at_once: int = 4, patience_s: float = 5.0
) -> Endpoint:
    defaults = {"model": "m", "temperature": 0.8}
    return Endpoint(engine, cache, identity=identity, defaults=defaults, at_once=at_once, patience_s=patience_s)


async def test_what_was_answered_is_never_asked_again_also_by_another_process(tmp_path: Path) -> None:
    first, cache = Engine(), ResponseCache(tmp_path / "responses.sqlite")
    asker = endpoint(first, cache)
    assert [await asker.ask(ASKED), await asker.ask(ASKED)] == ["answer 0", "answer 0"]
    assert asker.usage == Usage(paid=1, kept=1, prompt_tokens=10, completion_tokens=20)
    with pytest.raises(InUse, match=r"another process \(\d+\) works with .*responses\.sqlite"):
        ResponseCache(tmp_path / "responses.sqlite")
    cache.close()
    second = Engine()
    restarted = endpoint(second, ResponseCache(tmp_path / "responses.sqlite"))
    assert await restarted.ask(ASKED) == "answer 0"
    assert (restarted.usage.paid, restarted.usage.kept, second.bodies) == (0, 1, [])


async def test_another_attempt_question_setting_or_endpoint_is_another_request(cache: ResponseCache) -> None:
    engine = Engine()
    asker = endpoint(engine, cache)
    await asker.ask(ASKED)
    assert await asker.ask(ASKED, attempt=1) == "answer 1"
    await asker.ask([{"role": "user", "content": "Find $1+2$."}])
    await endpoint(engine, cache, identity="m at y").ask(ASKED)
    assert [body["seed"] for body in engine.bodies] == [0, 1, 0, 0]
    assert engine.bodies[0] == {"model": "m", "temperature": 0.8, "messages": ASKED, "seed": 0}


async def test_askers_of_the_same_share_one_request(cache: ResponseCache) -> None:
    engine = Engine()
    asker = endpoint(engine, cache)
    assert await asyncio.gather(*(asker.ask(ASKED) for _ in range(10))) == ["answer 0"] * 10
    assert len(engine.bodies) == 1


async def test_no_more_than_so_many_are_under_way(cache: ResponseCache) -> None:
    engine = Engine()
    asker = endpoint(engine, cache, at_once=3)
    await asyncio.gather(*(asker.ask(ASKED, attempt=number) for number in range(20)))
    assert engine.most_under_way == 3


async def test_an_endpoint_that_is_away_or_full_is_asked_again(cache: ResponseCache) -> None:
    engine = Engine(Overloaded("429"), PeerUnavailable("away"))
    asker = endpoint(engine, cache)
    assert await asker.ask(ASKED) == "answer 0"
    assert (len(engine.bodies), asker.usage.paid) == (3, 1)


async def test_patience_ends(cache: ResponseCache) -> None:
    with pytest.raises(PeerUnavailable):
        await endpoint(Engine(*[PeerUnavailable("away")] * 9), cache, patience_s=0.1).ask(ASKED)
    # What failed was not kept.
    assert await endpoint(Engine(), cache).ask(ASKED) == "answer 0"


async def test_a_refused_request_costs_itself_alone_and_is_not_kept(cache: ResponseCache) -> None:
    engine = Engine(InvalidInput("the context is too long"))
    asker = endpoint(engine, cache)
    assert [await asker.ask(ASKED), await asker.ask(ASKED, attempt=1)] == ["", "answer 1"]
    assert (asker.usage.refused, asker.usage.paid) == (1, 1)
    assert await asker.ask(ASKED) == "answer 0"


async def test_an_endpoint_that_refuses_everything_ends_the_job(cache: ResponseCache) -> None:
    asker = endpoint(Engine(*[InvalidInput("404: no model of that name")] * 20), cache)
    with pytest.raises(EngineError, match="m at x refused the first 10 requests: 404: no model of that name"):
        await asyncio.gather(*(asker.ask(ASKED, attempt=number) for number in range(20)))


async def test_an_answer_without_a_text_is_an_error_and_is_not_kept(cache: ResponseCache) -> None:
    with pytest.raises(EngineError, match="m at x answered without a text"):
        await endpoint(Engine(content=None), cache).ask(ASKED)
    assert await endpoint(Engine(), cache).ask(ASKED) == "answer 0"


async def test_half_a_character_in_a_question_does_not_end_the_job(cache: ResponseCache) -> None:
    assert await endpoint(Engine(), cache).ask([{"role": "user", "content": "\ud835"}]) == "answer 0"
