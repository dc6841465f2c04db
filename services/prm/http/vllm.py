"""vLLM's and SGLang's scoring routes, for clients that have been written for those: the same bodies, the same replies.

    /pooling                       one value per step, as of a process reward model
    /score, /v1/score              question and answer apart, 1:1, 1:N or N:N
    /classify, /v1/classify        one probability per conversation; what verl asks of vLLM
    /v1/embeddings                 one raw score per conversation; what verl asks of SGLang

A conversation is a list of messages, or a text or token ids in the PRM's own chat format. Values are sigmoids unless
`use_activation` is false; embeddings are raw, as SGLang's are.
"""

import base64
import time
import uuid
from array import array
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StrictBool, StrictInt

from prime.errors import EmptyInput, InvalidInput
from prime.ports import Scorer
from prime.prm_api import Listed, Numbers
from prime.scoring import (
    Candidate,
    CandidateScore,
    PrmKind,
    Prompt,
    ScorerInfo,
    ScoringReply,
    ScoringRequest,
    StepSplit,
    StepValue,
    Truncation,
)
from services.prm.http.errors import OpenAIRoute
from services.prm.http.replies import (
    ClassifyReply,
    EmbeddingsReply,
    PairScoresReply,
    PoolingReply,
    SglangClassification,
)
from services.prm.http.rerank import relevance, relevance_of, vllm_truncation
from services.prm.http.scored import scored, usage_of
from services.prm.http.scorers import Scorers
from services.prm.http.transcripts import split_ids, split_messages, split_text

_Conversation = str | Numbers[StrictInt]


class _Options(BaseModel):
    """What all of these routes take. A field that would change the meaning and is not known here is refused."""

    model: str = ""
    use_activation: StrictBool | None = Field(
        None, validation_alias=AliasChoices("use_activation", "activation", "softmax")
    )
    truncate_prompt_tokens: StrictInt | None = None
    truncation_side: Literal["left", "right"] = "left"
    chat_template: str | None = None

    @property
    def truncation(self) -> Truncation:
        """What to do with a conversation that is too long."""
        if self.chat_template is not None:
            raise InvalidInput("chat_template: the PRM's own is used; render the text yourself and send it as input")
        return vllm_truncation(self.truncate_prompt_tokens, self.truncation_side)


class ConversationsBody(_Options):
    """One or more conversations, each with the answer at its end."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "messages": [
                        {"role": "user", "content": "What is 7 * 8?"},
                        {"role": "assistant", "content": "It is 56."},
                    ]
                }
            ]
        }
    )

    input: _Conversation | Listed[_Conversation] | None = None
    messages: Listed[dict[str, Any]] | None = None
    text: str | Listed[str] | None = Field(None, description="SGLang's word for input on /classify.")
    encoding_format: Literal["float", "base64"] = "float"
    embed_dtype: Literal["float32"] = "float32"
    endianness: Literal["native", "little"] = "native"


class PairsBody(_Options):
    """Questions and answers."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": "What is 7 * 8?", "documents": ["It is 56.", "It is 54."]}]}
    )

    first: str | Listed[str] = Field(validation_alias=AliasChoices("queries", "data_1", "text_1", "query"))
    second: str | Listed[str] = Field(validation_alias=AliasChoices("documents", "items", "data_2", "text_2"))


def build_router(scorers: Scorers) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=OpenAIRoute, tags=["other servers' clients"])

    @router.post("/pooling", response_model=PoolingReply)
    async def pooling(body: ConversationsBody) -> JSONResponse:
        """`data[i].data` holds a row per step: its value, or of a step head, as vLLM has it, wrong and right."""
        scorer = scorers.of(body.model)
        replies = await _score_conversations(scorer, body)
        as_row = _wrong_and_right if (await scorer.info()).kind is PrmKind.STEP_HEAD else _value_alone
        raw = body.use_activation is False
        rows = [[as_row(value, raw=raw) for value in _step_values(reply)] for reply in replies]
        data = [
            {"index": index, "object": "pooling", "data": _base64(row) if body.encoding_format == "base64" else row}
            for index, row in enumerate(rows)
        ]
        return await _listed(scorer, "pool", body, data, replies)

    @router.post("/score", response_model=PairScoresReply)
    @router.post("/v1/score", response_model=PairScoresReply)
    async def score(body: PairsBody) -> JSONResponse:
        """`data[i].score`, in the order of the pairs."""
        scorer = scorers.of(body.model)
        replies = await scorer.score_all(_pair_requests(body))
        scores = [
            relevance_of(reply, raw=body.use_activation is False, number=number)
            for reply in replies
            for number in range(len(reply.candidates))
        ]
        data = [{"index": index, "object": "score", "score": each} for index, each in enumerate(scores)]
        return await _listed(scorer, "score", body, data, replies)

    @router.post("/classify", response_model=ClassifyReply | list[SglangClassification])
    @router.post("/v1/classify", response_model=ClassifyReply | list[SglangClassification])
    async def classify(body: ConversationsBody) -> JSONResponse:
        """`data[i].probs` holds one number; towards SGLang's `text` a list of `embedding`s."""
        scorer = scorers.of(body.model)
        replies = await _score_conversations(scorer, body)
        values = [relevance_of(reply, raw=body.use_activation is False) for reply in replies]
        if body.text is not None:
            return scored([{"embedding": [value], "meta_info": {}} for value in values], replies)
        data = [
            {"index": index, "label": "reward", "probs": [value], "num_classes": 1}
            for index, value in enumerate(values)
        ]
        return await _listed(scorer, "classify", body, data, replies)

    @router.post("/v1/embeddings", response_model=EmbeddingsReply)
    async def embeddings(body: ConversationsBody) -> JSONResponse:
        """`data[i].embedding` holds one number: the raw score."""
        scorer = scorers.of(body.model)
        replies = await _score_conversations(scorer, body)
        rows = [[relevance_of(reply, raw=True)] for reply in replies]
        data = [
            {
                "index": index,
                "object": "embedding",
                "embedding": _base64([row]) if body.encoding_format == "base64" else row,
            }
            for index, row in enumerate(rows)
        ]
        return await _listed(scorer, "embd", body, data, replies)

    return router


async def _score_conversations(scorer: Scorer, body: ConversationsBody) -> list[ScoringReply]:
    pairs = _conversations(body, await scorer.info())
    return await scorer.score_all(
        [
            ScoringRequest(
                prompt=prompt,
                candidates=(candidate,),
                truncation=body.truncation,
                # Steps that are marked are joined as they were, without the marks.
                split=StepSplit(separators=("",)) if candidate.steps is not None else None,
            )
            for prompt, candidate in pairs
        ],
    )


def _conversations(body: ConversationsBody, info: ScorerInfo) -> list[tuple[Prompt, Candidate]]:
    given = [each for each in (body.input, body.messages, body.text) if each is not None]
    if len(given) != 1:
        raise InvalidInput("exactly one of input and messages is needed")
    if body.messages is not None:
        return [split_messages(body.messages, info)]
    conversations = body.text if body.input is None else body.input
    if not conversations:
        raise EmptyInput("input: there is nothing to score")
    if isinstance(conversations, str) or isinstance(conversations[0], int):
        conversations = [conversations]
    return [split_text(each, info) if isinstance(each, str) else split_ids(each, info) for each in conversations]


def _pair_requests(body: PairsBody) -> list[ScoringRequest]:
    first = [body.first] if isinstance(body.first, str) else body.first
    second = [body.second] if isinstance(body.second, str) else body.second
    if not first or not second:
        raise EmptyInput("there is nothing to score: a list is empty")
    if len(first) not in (1, len(second)):
        raise InvalidInput(f"{len(first)} questions and {len(second)} answers: give one question, or one per answer")
    if len(first) == 1:
        pairs = [(first[0], tuple(second))]
    else:
        pairs = [(question, (answer,)) for question, answer in zip(first, second, strict=True)]
    return [
        ScoringRequest(
            prompt=Prompt(text=question),
            candidates=tuple(Candidate(text=answer) for answer in answers),
            truncation=body.truncation,
        )
        for question, answers in pairs
    ]


def _step_values(reply: ScoringReply) -> list[float]:
    candidate: CandidateScore = reply.candidates[0]
    cumulative = reply.step_value is StepValue.CUMULATIVE
    return [step.cumulative if cumulative else step.reward for step in candidate.steps]


def _value_alone(value: float, *, raw: bool) -> list[float]:
    return [relevance(value, raw=raw)]


def _wrong_and_right(log_odds: float, *, raw: bool) -> list[float]:
    """Two probabilities; raw, two logits with this difference, whose softmax they are."""
    return (
        [0.0, relevance(log_odds, raw=True)] if raw else [relevance(each, raw=False) for each in (-log_odds, log_odds)]
    )


def _base64(rows: Sequence[Sequence[float]]) -> str:
    """float32, little-endian, row after row."""
    return base64.b64encode(array("f", [value for row in rows for value in row]).tobytes()).decode()


async def _listed(
    scorer: Scorer, kind: str, body: _Options, data: list[dict[str, Any]], replies: Sequence[ScoringReply]
) -> JSONResponse:
    answer = {
        "id": f"{kind}-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": body.model or (await scorer.info()).model_id,
        "data": data,
        "usage": usage_of(replies),
    }
    return scored(answer, replies)
