"""PRMs with reward heads over a real socket: each client gets what the plain forward pass gives."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from prime.chat import ChatCandidate, ChatSamples, Selection, Strategy
from prime.data.rendering import closing_of
from prime.errors import InvalidInput
from prime.scoring import CandidateScore, ScorerInfo, ScoringReply, ScoringRequest
from prime.types import AnswerClasses
from services.prm.best_of_n import BestOfN, BestOfRequest, SearchOptions
from services.prm.main import open_scorer
from services.prm.scoring import PrmScorer
from services.prm.settings import BestOfNSettings, PrmSettings
from tests.edge.prm_api import Api, running_api
from tests.heads import MARK, chat_tokenizer, plain_probabilities, qwen_prm, sequence_classifier

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVED = PrmSettings(frozen=True, reference_mode="none", device="cpu")
SYSTEM = {"role": "system", "content": "Please reason step by step."}
QUESTION = {"role": "user", "content": "What is 7 * 8?"}
STEPS = ("7 * 8 = 56", "Then\n\nnothing.", "So it is 56.")
ANSWERS = ["7 * 8 = 56\n\nSo it is 56.", "54", "7 * 8 = 54\n\nIt is odd.\n\nSo 54."]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return qwen_prm(tmp_path_factory.mktemp("qwen"), seed=7)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def heads(qwen: Path) -> AsyncIterator[Api]:
    async with running_api(open_scorer(SERVED, model=qwen)) as api:
        yield api


async def _post(api: Api, path: str, body: dict[str, Any]) -> Any:
    response = await api.client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def _conversation(*turns: Mapping[str, str]) -> str:
    text: str = chat_tokenizer(MARK).apply_chat_template(list(turns), tokenize=False)
    return text


def _of_answers(qwen: Path, answers: Sequence[str]) -> list[list[float]]:
    marked = [answer.replace("\n\n", MARK) + MARK for answer in answers]
    turns = [_conversation(QUESTION, {"role": "assistant", "content": answer}) for answer in marked]
    return [plain_probabilities(qwen, chat_tokenizer(MARK), text) for text in turns]


async def test_pooling_answers_qwens_clients_as_vllm_does(heads: Api, qwen: Path) -> None:
    answer = {"role": "assistant", "content": "".join(step + MARK for step in STEPS)}
    text = _conversation(SYSTEM, QUESTION, answer)
    expected = plain_probabilities(qwen, chat_tokenizer(MARK), text)
    assert len(expected) == 3
    for body in (
        {"messages": [SYSTEM, QUESTION, answer]},
        {"input": text},
        {"input": text.removesuffix("\n") + "<|pad|>"},
    ):
        reply = await _post(heads, "/pooling", {"model": "Qwen2.5-Math-PRM-7B"} | body)
        rows = reply["data"][0]["data"]
        assert [right for _, right in rows] == pytest.approx(expected, abs=1e-5)
        assert [wrong + right for wrong, right in rows] == pytest.approx([1.0, 1.0, 1.0])
    raw = await _post(heads, "/pooling", {"input": text, "use_activation": False})
    logits = [row[1] - row[0] for row in raw["data"][0]["data"]]
    scored = {"inputs": {"messages": [SYSTEM, QUESTION], "responses": [{"steps": list(STEPS)}]}}
    native = await _post(heads, "/v1/prm/score", scored)
    assert logits == pytest.approx([step["reward"] for step in native["data"][0]["responses"][0]["steps"]], abs=1e-5)


async def test_a_rerankers_relevance_is_the_least_probability_of_a_step(heads: Api, qwen: Path) -> None:
    least = [min(row) for row in _of_answers(qwen, ANSWERS)]
    reply = await _post(heads, "/rerank", {"query": QUESTION["content"], "documents": ANSWERS})
    found = {each["index"]: each["relevance_score"] for each in reply["results"]}
    assert found == pytest.approx(dict(enumerate(least)), abs=1e-5)
    assert [each["index"] for each in reply["results"]] == sorted(range(3), key=lambda number: -least[number])
    pair = await _post(heads, "/predict", {"inputs": [QUESTION["content"], ANSWERS[1]]})
    assert pair[0]["score"] == pytest.approx(least[1], abs=1e-5)


async def test_info_says_what_it_is(heads: Api) -> None:
    info = (await heads.client.get("/info")).json()
    assert (info["kind"], info["step_mark"], info["aggregation"], info["activation"], info["reference"]) == (
        "step_head",
        MARK,
        "min",
        "sigmoid",
        "none",
    )


@pytest.mark.parametrize("options", [{"reference": "model"}, {"beta": 0.1}])
async def test_what_a_head_has_not_is_a_422(heads: Api, options: dict[str, Any]) -> None:
    body = {"inputs": {"prompt": "q", "responses": ["a"]}} | options
    response = await heads.client.post("/v1/prm/score", json=body)
    assert (response.status_code, response.json()["error_type"]) == (422, "validation")
    assert "step_head" in response.json()["error"]


async def test_a_sequence_head_gives_verls_client_its_raw_score(tmp_path: Path) -> None:
    folder = sequence_classifier(tmp_path / "rm")
    scorer = open_scorer(SERVED, model=folder)
    async with running_api(scorer) as api:
        turns = [QUESTION, {"role": "assistant", "content": ANSWERS[0]}]
        text = chat_tokenizer().apply_chat_template(turns, tokenize=False)
        reply = await _post(api, "/v1/embeddings", {"model": "rm", "input": [text]})
        native = await _post(api, "/v1/prm/score", {"inputs": {"messages": turns[:1], "responses": ANSWERS[:1]}})
        assert reply["data"][0]["embedding"] == pytest.approx([native["data"][0]["responses"][0]["score"]], abs=1e-5)
        assert (await api.client.get("/info")).json()["closing"] == closing_of(chat_tokenizer()) == "<|im_end|>\n"


class _Answers:
    """An engine that gives these answers."""

    async def models(self) -> Sequence[str]:
        return ["engine"]

    async def sample(self, body: Mapping[str, Any], count: int) -> ChatSamples:
        candidates = tuple(
            ChatCandidate(message={"role": "assistant", "content": text}, finish_reason="stop")
            for text in ANSWERS[:count]
        )
        return ChatSamples(candidates=candidates, model="engine", usage=None)


class _FirstAgainstTheOthers:
    """Says that all answers but the second are equal."""

    async def group_answers(self, responses: Sequence[str]) -> AnswerClasses:
        return AnswerClasses(answers=tuple(responses), classes=(0, 1, 0)[: len(responses)])


async def test_votes_are_weighted_by_probabilities_and_not_by_their_sigmoids(heads: Api, qwen: Path) -> None:
    first, second, third = (min(row) for row in _of_answers(qwen, ANSWERS))
    assert second > first + third
    best_of_n = BestOfN(
        _Answers(), open_scorer(SERVED, model=qwen), _FirstAgainstTheOthers(), BestOfNSettings(selection="weighted")
    )
    reply = await best_of_n.complete(BestOfRequest(body={"messages": [QUESTION]}, best_of=3))
    assert reply.selected == (1,)


async def test_best_of_n_chooses_by_the_least_probability(heads: Api, qwen: Path) -> None:
    least = [min(row) for row in _of_answers(qwen, ANSWERS)]
    best_of_n = BestOfN(_Answers(), open_scorer(SERVED, model=qwen), None, BestOfNSettings())
    reply = await best_of_n.complete(BestOfRequest(body={"messages": [QUESTION]}, best_of=3, n=3))
    assert reply.scores == pytest.approx(least, abs=1e-5)
    assert list(reply.selected) == sorted(range(3), key=lambda number: -least[number])
    assert reply.selection is Selection.BEST


class _Steps:
    """An engine that writes three steps, a number in each."""

    def __init__(self) -> None:
        self.calls = 0

    async def models(self) -> Sequence[str]:
        return ["engine"]

    async def sample(self, body: Mapping[str, Any], count: int) -> ChatSamples:
        self.calls += 1
        last = body["messages"][-1]
        written = last["content"].count("\n\n") if last["role"] == "assistant" else 0
        texts = [f"{10 * self.calls + number} apples" + ("\n\n" if written < 2 else "") for number in range(count)]
        candidates = tuple(
            ChatCandidate(message={"role": "assistant", "content": text}, finish_reason="stop") for text in texts
        )
        return ChatSamples(candidates=candidates, model="engine", usage=None)


class _Recorded:
    """A scorer, and what it was asked and said."""

    def __init__(self, scorer: PrmScorer) -> None:
        self._scorer = scorer
        self.said: list[tuple[ScoringRequest, CandidateScore]] = []

    async def info(self) -> ScorerInfo:
        return await self._scorer.info()

    async def check(self, request: ScoringRequest) -> None:
        await self._scorer.check(request)

    async def score(self, request: ScoringRequest) -> ScoringReply:
        [reply] = await self.score_all([request])
        return reply

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        replies = await self._scorer.score_all(requests)
        for request, reply in zip(requests, replies, strict=True):
            self.said += [(request, candidate) for candidate in reply.candidates]
        return replies


@pytest.mark.parametrize("strategy", [Strategy.BEAM, Strategy.DVTS, Strategy.PARTICLE])
async def test_a_search_reads_each_step_as_the_whole_answer_does(qwen: Path, strategy: Strategy) -> None:
    scorer = _Recorded(open_scorer(SERVED, model=qwen))
    best_of_n = BestOfN(_Steps(), scorer, None, BestOfNSettings())
    reply = await best_of_n.complete(
        BestOfRequest(
            body={"messages": [QUESTION], "seed": 1}, best_of=4, search=SearchOptions(strategy=strategy, width=2)
        )
    )
    [found] = reply.replies
    read = {
        (*request.prompt.begun_ids, *said.token_ids): (said.steps[-1].reward, len(said.steps))
        for request, said in scorer.said[: -len(found.candidates)]
    }
    for whole in found.candidates:
        assert len(whole.steps) == 3
        for step in whole.steps:
            reward, steps = read[whole.token_ids[: step.span.token_end]]
            assert steps == 1
            assert reward == pytest.approx(step.reward, abs=1e-4)
    texts = [str(each.message["content"]) for each in reply.samples.candidates]
    assert reply.scores == pytest.approx([min(row) for row in _of_answers(qwen, texts)], abs=1e-5)


async def test_a_step_that_is_several_of_the_prms_counts_each_of_them(qwen: Path) -> None:
    best_of_n = BestOfN(_Lines(), open_scorer(SERVED, model=qwen), None, BestOfNSettings())
    options = SearchOptions(strategy=Strategy.BEAM, width=4, delimiters=("END",))
    body = {"messages": [QUESTION], "seed": 1}
    reply = await best_of_n.complete(BestOfRequest(body=body, best_of=4, search=options))
    texts = [begun + "END" for begun in _Lines.BEGUN]
    least = [min(row) for row in _of_answers(qwen, texts)]
    best = _Lines.BEGUN[least.index(max(least))]
    assert all(str(each.message["content"]).startswith(f"{best}END") for each in reply.samples.candidates)


class _Lines:
    """An engine whose first step is one of these, and the second the end."""

    BEGUN = ("8", "It is odd.\n\n8", "54\n\n7 * 8 = 56", "Bad.\n\nSo 54.")

    async def models(self) -> Sequence[str]:
        return ["engine"]

    async def sample(self, body: Mapping[str, Any], count: int) -> ChatSamples:
        begins = body["messages"][-1]["role"] == "user"
        texts = [each + "END" for each in self.BEGUN] if begins else [f"{number}" for number in range(count)]
        candidates = tuple(
            ChatCandidate(message={"role": "assistant", "content": text}, finish_reason="stop") for text in texts
        )
        return ChatSamples(candidates=candidates, model="engine", usage=None)


async def test_a_sequence_head_steers_no_search(tmp_path: Path) -> None:
    engine = _Steps()
    scorer = open_scorer(SERVED, model=sequence_classifier(tmp_path / "rm"))
    best_of_n = BestOfN(engine, scorer, None, BestOfNSettings())
    request = BestOfRequest(
        body={"messages": [QUESTION]}, best_of=4, search=SearchOptions(strategy=Strategy.BEAM, width=2)
    )
    with pytest.raises(InvalidInput, match="sequence_head, which is read at an answer's end"):
        await best_of_n.complete(request)
    assert engine.calls == 0
