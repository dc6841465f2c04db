"""Reward clients of RL trainers, unchanged: OpenRLHF (`POST /get_reward`) and slime (`POST /reward`).

verl's reward models ask vLLM's `/classify` or SGLang's `/v1/embeddings`: `vllm.py`. Scores are raw: training wants the
log-ratio, not its sigmoid.
"""

from typing import Any, Literal

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from prime.errors import EmptyInput, InvalidInput
from prime.prm_api import Listed
from prime.scoring import Candidate, Prompt, ScoringReply, ScoringRequest
from services.prm.http.errors import PlainRoute, finite
from services.prm.http.replies import OpenRlhfReply, SlimeReply
from services.prm.http.scored import scored
from services.prm.http.scorers import Scorers
from services.prm.http.transcripts import is_rendered

_log = structlog.get_logger()


class OpenRlhfBody(BaseModel):
    """Questions and answers as one text each, with special tokens, and the questions again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": ["What is 7 * 8? It is 56."], "prompts": ["What is 7 * 8?"]}]}
    )

    model: str | None = None
    query: Listed[str]
    prompts: Listed[str] | None = None
    labels: Listed[Any] | None = None


class SlimeBody(BaseModel):
    """One sample."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "What is 7 * 8?", "response": "It is 56."}]})

    prompt: str | Listed[dict[str, Any]]
    response: str
    model: str | None = None
    label: Any = None


def build_router(scorers: Scorers) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=PlainRoute, tags=["reward clients of trainers"])

    @router.post("/get_reward", response_model=OpenRlhfReply)
    async def openrlhf(body: OpenRlhfBody) -> JSONResponse:
        """`rewards` and `scores` of every query, and step counts as `extra_logs`."""
        if not body.query:
            raise EmptyInput("query: there is nothing to score")
        try:
            requests = [_openrlhf_request(body, number) for number in range(len(body.query))]
        except InvalidInput as error:
            # OpenRLHF takes an error for an empty reward after five tries, and says so at a level that few read.
            _log.warning("refused a reward client of a trainer", detail=str(error))
            raise
        replies = await scorers.of(body.model).score_all(requests)
        rewards = [finite(reply.candidates[0].score) for reply in replies]
        extra = {
            "response_reward": [reply.candidates[0].response_reward for reply in replies],
            "num_steps": [len(reply.candidates[0].steps) for reply in replies],
        }
        return scored({"rewards": rewards, "scores": rewards, "extra_logs": extra}, replies)

    @router.post("/reward", response_model=float | SlimeReply)
    async def slime(body: SlimeBody, form: Literal["number", "object"] = "number") -> JSONResponse:
        """A number; with `?form=object` an object for slime's reward key."""
        scorer = scorers.of(body.model)
        info = await scorer.info()
        if isinstance(body.prompt, str):
            prompt = Prompt(text=body.prompt, rendered=is_rendered(body.prompt, info))
        else:
            prompt = Prompt(messages=tuple(body.prompt))
        reply = await scorer.score(ScoringRequest(prompt=prompt, candidates=(Candidate(text=body.response),)))
        return scored(finite(reply.candidates[0].score) if form == "number" else _object(reply), [reply])

    return router


def _openrlhf_request(body: OpenRlhfBody, number: int) -> ScoringRequest:
    query = body.query[number]
    if body.prompts is None or len(body.prompts) != len(body.query):
        raise InvalidInput("prompts: one per query is needed, for a query alone does not say where the answer begins")
    prompt = body.prompts[number]
    if not prompt or not query.startswith(prompt):
        raise InvalidInput(f"query {number} does not start with its prompt, so where the answer begins is not known")
    # The text is what was sampled: without an end token it was cut at the length limit, and none may be added.
    return ScoringRequest(
        prompt=Prompt(text=prompt, rendered=True), candidates=(Candidate(text=query[len(prompt) :]),), end_token=False
    )


def _object(reply: ScoringReply) -> dict[str, Any]:
    candidate = reply.candidates[0]
    return {
        "score": finite(candidate.score),
        "response_reward": candidate.response_reward,
        "steps": [step.reward for step in candidate.steps],
        "prm_version": reply.prm_version,
    }
