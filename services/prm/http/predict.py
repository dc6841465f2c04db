"""`POST /predict` of text-embeddings-inference: question and answer as a pair, one or many."""

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StrictBool

from prime.errors import EmptyInput, InvalidInput
from prime.prm_api import Listed
from prime.scoring import Candidate, Prompt, ScorerInfo, ScoringRequest, Truncation
from services.prm.http.replies import Prediction
from services.prm.http.rerank import TeiRoute, relevance_of
from services.prm.http.scored import scored
from services.prm.http.scorers import Scorers
from services.prm.http.transcripts import split_text


class Parameters(BaseModel):
    """As huggingface_hub's client sends it beside the inputs."""

    function_to_apply: Literal["sigmoid", "none"] | None = None


class PredictBody(BaseModel):
    """One text, one pair, or a batch of either."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": [["What is 7 * 8?", "It is 56."], ["What is 7 * 8?", "It is 54."]]}]}
    )

    inputs: str | Listed[str] | Listed[Listed[str]]
    model: str | None = None
    parameters: Parameters = Parameters()
    raw_scores: StrictBool = False
    truncate: StrictBool = False
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    @property
    def is_raw(self) -> bool:
        """Whether scores are wanted as they are, and not as sigmoids."""
        function = self.parameters.function_to_apply
        return self.raw_scores if function is None else function == "none"


def build_router(scorers: Scorers) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=TeiRoute, tags=["other servers' clients"])

    @router.post("/predict", response_model=list[Prediction] | list[list[Prediction]])
    async def predict(body: PredictBody) -> JSONResponse:
        """The one label `reward` with its score: of a pair, or of a text that the PRM's template rendered."""
        scorer = scorers.of(body.model)
        info = await scorer.info()
        truncation = Truncation(body.truncation_direction.lower()) if body.truncate else Truncation.ERROR
        is_batch = isinstance(body.inputs, list) and all(isinstance(each, list) for each in body.inputs)
        inputs = body.inputs if is_batch else [body.inputs]
        if not inputs:
            raise EmptyInput("inputs: there is nothing to score")
        pairs = [_pair(each, info) for each in inputs]
        replies = await scorer.score_all(
            [
                ScoringRequest(prompt=prompt, candidates=(candidate,), truncation=truncation)
                for prompt, candidate in pairs
            ],
        )
        answers = [[{"score": relevance_of(reply, raw=body.is_raw), "label": "reward"}] for reply in replies]
        return scored(answers if is_batch else answers[0], replies)

    return router


def _pair(given: object, info: ScorerInfo) -> tuple[Prompt, Candidate]:
    match given:
        case str(text) | [str(text)]:
            return split_text(text, info)
        case [str(question), str(answer)]:
            return Prompt(text=question), Candidate(text=answer)
    raise InvalidInput("inputs: a text, or a pair of question and answer, or a list of lists of either")
