"""Rerankers' clients, unchanged: Cohere, Jina and vLLM (`documents`), and text-embeddings-inference (`texts`).

The query is the question, the documents are candidate answers. A relevance score is the sigmoid of the PRM's score.
"""

import math
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictInt, Tag

from prime.errors import EmptyInput, InvalidInput
from prime.ports import Scorer
from prime.prm_api import Listed
from prime.scoring import Candidate, Prompt, ScoringReply, ScoringRequest, Truncation
from services.prm.http.errors import Fault, PlainRoute, finite
from services.prm.http.replies import RerankReply, TextRank
from services.prm.http.scored import scored
from services.prm.http.scorers import Scorers


class Document(BaseModel):
    """A candidate in Cohere's longer form."""

    text: str


class DocumentsBody(BaseModel):
    """As Cohere, Jina and vLLM send it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"query": "What is 7 * 8?", "documents": ["It is 54.", "It is 56."], "top_n": 1}]
        }
    )

    model: str = ""
    query: str
    documents: Listed[str | Document]
    top_n: StrictInt | None = Field(None, ge=0)
    return_documents: StrictBool | None = None
    use_activation: StrictBool | None = None
    truncate_prompt_tokens: StrictInt | None = None
    truncation_side: Literal["left", "right"] = "left"
    max_tokens_per_doc: StrictInt | None = Field(None, ge=1)

    @property
    def truncation(self) -> Truncation:
        """What to do with a pair that is too long."""
        return vllm_truncation(self.truncate_prompt_tokens, self.truncation_side)


class TextsBody(BaseModel):
    """As text-embeddings-inference sends it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "What is 7 * 8?", "texts": ["It is 54.", "It is 56."]}]}
    )

    model: str | None = None
    query: str
    texts: Listed[str]
    raw_scores: StrictBool = False
    return_text: StrictBool = False
    truncate: StrictBool = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    @property
    def truncation(self) -> Truncation:
        """What to do with a pair that is too long."""
        return Truncation(self.truncation_direction.lower()) if self.truncate else Truncation.ERROR


def _kind(body: Any) -> str:
    return "texts" if isinstance(body, dict) and "texts" in body else "documents"


Body = Annotated[Annotated[DocumentsBody, Tag("documents")] | Annotated[TextsBody, Tag("texts")], Discriminator(_kind)]


class TeiRoute(PlainRoute):
    """As text-embeddings-inference: what is too long is a matter of validation."""

    def render(self, fault: Fault) -> Response:
        """Errors of these clients."""
        if fault.error_type == "too_long":
            fault = Fault(422, "validation", fault.text)
        return super().render(fault)


def build_router(scorers: Scorers) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=TeiRoute, tags=["other servers' clients"])

    @router.post("/rerank", response_model=RerankReply | list[TextRank])
    @router.post("/v1/rerank", response_model=RerankReply | list[TextRank])
    @router.post("/v2/rerank", response_model=RerankReply | list[TextRank])
    async def rerank(request: Request, body: Body) -> JSONResponse:
        """Candidates by falling relevance, in the form that the request came in."""
        scorer = scorers.of(body.model)
        if isinstance(body, TextsBody):
            return await _texts(scorer, body)
        return await _documents(scorer, body, shows_documents=not request.url.path.startswith("/v2"))

    return router


def vllm_truncation(tokens: int | None, side: Literal["left", "right"]) -> Truncation:
    """-1 is vLLM's word for what the model reads."""
    if tokens is None:
        return Truncation.ERROR
    if tokens != -1:
        raise InvalidInput("truncate_prompt_tokens: only -1 is known, which cuts to what the model reads")
    return Truncation(side)


def relevance(score: float, *, raw: bool, is_probability: bool = False) -> float:
    """A score as these clients want it: `1 / (1 + exp(-score))`, or as it is where it is a probability already."""
    if raw or is_probability:
        return finite(score)
    # Of the two forms the one whose exponential cannot overflow.
    smaller = math.exp(-abs(finite(score)))
    return 1 / (1 + smaller) if score >= 0 else smaller / (1 + smaller)


def relevance_of(reply: ScoringReply, *, raw: bool, number: int = 0) -> float:
    """Of a candidate of a reply."""
    return relevance(reply.candidates[number].score, raw=raw, is_probability=reply.is_probability)


async def score_texts(
    scorer: Scorer,
    question: str,
    answers: Sequence[str],
    truncation: Truncation = Truncation.ERROR,
    max_answer_tokens: int | None = None,
) -> ScoringReply:
    """Scores of plain answers to a plain question; of an answer at most `max_answer_tokens` are read."""
    if not question:
        raise EmptyInput("the query is empty")
    # An answer of nothing is one that ends at once; it must not cost the others their scores.
    end_text = (await scorer.info()).end_text
    return await scorer.score(
        ScoringRequest(
            prompt=Prompt(text=question),
            candidates=tuple(Candidate(text=answer if answer.strip() else end_text) for answer in answers),
            truncation=truncation,
            max_response_tokens=max_answer_tokens,
        )
    )


async def _documents(scorer: Scorer, body: DocumentsBody, *, shows_documents: bool) -> JSONResponse:
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    reply = await score_texts(scorer, body.query, texts, body.truncation, body.max_tokens_per_doc)
    shows = shows_documents if body.return_documents is None else body.return_documents
    results = _ranked(
        reply,
        raw=body.use_activation is False,
        entry=lambda index, score: {
            "index": index,
            "relevance_score": score,
            **({"document": {"text": texts[index]}} if shows else {}),
        },
    )
    tokens = reply.usage.prompt_tokens + reply.usage.response_tokens
    answer = {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": body.model or (await scorer.info()).model_id,
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
        "results": results[: body.top_n or None],
    }
    return scored(answer, [reply])


async def _texts(scorer: Scorer, body: TextsBody) -> JSONResponse:
    reply = await score_texts(scorer, body.query, body.texts, body.truncation)
    answer = _ranked(
        reply,
        raw=body.raw_scores,
        entry=lambda index, score: {
            "index": index,
            "score": score,
            **({"text": body.texts[index]} if body.return_text else {}),
        },
    )
    return scored(answer, [reply])


def _ranked(reply: ScoringReply, *, raw: bool, entry: Callable[[int, float], dict[str, Any]]) -> list[dict[str, Any]]:
    scores = [candidate.score for candidate in reply.candidates]
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
    return [entry(index, relevance_of(reply, raw=raw, number=index)) for index in order]
