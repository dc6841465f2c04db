"""The scorer in this process and the one behind HTTP answer and refuse alike."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from prime.adapters.http_scorer import HttpScorer
from prime.client import AsyncPrmClient
from prime.errors import (
    BatchTooLarge,
    EmptyInput,
    InputTooLong,
    InvalidInput,
    PrimeError,
    VersionConflict,
)
from prime.ports import Scorer
from prime.scoring import Activation, Aggregation, Candidate, Prompt, ScoringRequest, StepSplit, StepValue, Truncation
from prime.types import ReferenceSource
from tests.edge.prm_api import KEY, Api

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scorers(api: Api) -> AsyncIterator[list[Scorer]]:
    async with AsyncPrmClient(api.url, KEY, timeout_s=30) as client:
        yield [api.scorer, HttpScorer(client)]


QUESTION = Prompt(text="What is 7 * 8?")
ANSWER = Candidate(text="7 * 8 = 56\n\nSo it is 56.")
REQUESTS = {
    "plain": ScoringRequest(prompt=QUESTION, candidates=(ANSWER, Candidate(steps=("a", "b")))),
    "messages": ScoringRequest(prompt=Prompt(messages=({"role": "user", "content": "hi"},)), candidates=(ANSWER,)),
    "rendered": ScoringRequest(prompt=Prompt(text="user: hi\nassistant: ", rendered=True), candidates=(ANSWER,)),
    "ids": ScoringRequest(
        prompt=Prompt(token_ids=(5, 6)),
        candidates=(Candidate(token_ids=(7, 8, 9), step_ends=(1, 3), reference_logprobs=(-1.0, -2.0, -3.0)),),
        reference=ReferenceSource.SUPPLIED,
    ),
    "options": ScoringRequest(
        prompt=QUESTION,
        candidates=(ANSWER,),
        split=StepSplit(separators=("=", "\n\n")),
        step_value=StepValue.CUMULATIVE,
        activation=Activation.SIGMOID,
        aggregation=Aggregation.PROD,
        beta=0.2,
        reference=ReferenceSource.NONE,
        end_token=False,
        require_version=0,
    ),
    "pattern": ScoringRequest(prompt=QUESTION, candidates=(ANSWER,), split=StepSplit(pattern=r"\d+")),
    "cut": ScoringRequest(prompt=QUESTION, candidates=(Candidate(text="x" * 400),), truncation=Truncation.RIGHT),
    "shortened": ScoringRequest(prompt=QUESTION, candidates=(Candidate(text="x" * 400), ANSWER), max_response_tokens=9),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_give_the_same_scores(scorers: list[Scorer], name: str) -> None:
    here, there = [await scorer.score(REQUESTS[name]) for scorer in scorers]
    for mine, theirs in zip(here.candidates, there.candidates, strict=True):
        assert theirs.score == pytest.approx(mine.score, abs=1e-5)
        assert theirs.token_rewards == pytest.approx(mine.token_rewards, abs=1e-5)
        assert theirs.aggregates == pytest.approx(mine.aggregates, abs=1e-5)
        assert [step.span for step in theirs.steps] == [step.span for step in mine.steps]
        assert (theirs.token_ids, theirs.truncated) == (mine.token_ids, mine.truncated)
    for field in ("aggregation", "step_value", "activation", "beta", "reference", "reference_id", "prm_version"):
        assert getattr(there, field) == getattr(here, field)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (ScoringRequest(prompt=QUESTION, candidates=()), EmptyInput),
        (ScoringRequest(prompt=QUESTION, candidates=(Candidate(text=""),)), EmptyInput),
        (ScoringRequest(prompt=Prompt(), candidates=(ANSWER,)), InvalidInput),
        (ScoringRequest(prompt=QUESTION, candidates=(Candidate(text="x" * 400),)), InputTooLong),
        (ScoringRequest(prompt=QUESTION, candidates=(ANSWER,) * 129), BatchTooLarge),
        (ScoringRequest(prompt=QUESTION, candidates=(ANSWER,), require_version=3), VersionConflict),
        (ScoringRequest(prompt=QUESTION, candidates=(ANSWER,), aggregation=Aggregation.PROD), InvalidInput),
    ],
)
async def test_both_refuse_with_the_same_class(
    scorers: list[Scorer], request_: ScoringRequest, kind: type[PrimeError]
) -> None:
    words = []
    for scorer in scorers:
        with pytest.raises(kind) as raised:
            await scorer.score(request_)
        assert type(raised.value) is kind
        words.append(str(raised.value))
    assert words[0] == words[1]


async def test_both_say_the_same_of_themselves(scorers: list[Scorer]) -> None:
    here, there = [await scorer.info() for scorer in scorers]
    assert here == there


async def test_an_answer_that_has_begun_is_not_scored_as_if_it_had_not(scorers: list[Scorer]) -> None:
    with pytest.raises(InvalidInput, match="begun"):
        await scorers[1].score(ScoringRequest(prompt=Prompt(text="q", begun_ids=(5,)), candidates=(ANSWER,)))
