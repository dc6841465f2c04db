"""An engine in the caller's process, for commands that sample from a model folder: no queue, no pushes, no replica."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import AutoConfig

from prime.errors import InvalidInput
from prime.lm.model import load_tokenizer
from prime.types import RolloutGroup, RolloutRequest
from services.rollout.episodes import Episodes, Sampler
from services.rollout.main import build_engine
from services.rollout.settings import RolloutSettings

_ANY_VERSION = -1


class LocalRollout:
    """Samples at once; requests that are made at the same time are decoded together."""

    def __init__(self, sampler: Sampler, *, max_context: int) -> None:
        self._sampler = sampler
        self._max_context = max_context

    async def generate(self, requests: Sequence[RolloutRequest]) -> list[RolloutGroup]:
        """Groups in the order of the requests.

        Raises:
            InvalidInput: a request does not fit into the context.
        """
        for request in requests:
            longest = len(request.prompt_ids) + request.sampling.max_tokens
            if longest > self._max_context:
                raise InvalidInput(
                    f"{request.problem_id}: {len(request.prompt_ids)} prompt tokens and up to "
                    f"{request.sampling.max_tokens} new ones exceed the model's context of {self._max_context}"
                )
        # Its weights never change, so no request has to wait for newer ones.
        asked = [replace(request, min_version=_ANY_VERSION) for request in requests]
        by_id = {group.group_id: group async for group in self._sampler.generate(asked)}
        return [by_id[request.group_id] for request in requests]


@contextlib.asynccontextmanager
async def open_rollout(model: Path, settings: RolloutSettings, *, longest: int = 0) -> AsyncIterator[LocalRollout]:
    """The model of a folder, ready to sample for the time of the block.

    `longest`: tokens of the longest prompt with its answer. The context is set for it, as far as the model has
    positions, unless `settings` say otherwise.

    Raises:
        SettingsError: the engine is not installed.
        EngineError: the model cannot be served, saying why.
    """
    if longest and "max_context" not in settings.model_fields_set:
        config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
        positions = getattr(config, "max_position_embeddings", None) or longest
        settings = settings.model_copy(update={"max_context": min(longest, positions)})
    engine = build_engine(model, settings)
    await engine.start()
    try:
        yield LocalRollout(Episodes(engine, tokenizer=load_tokenizer(model)), max_context=settings.max_context)
    finally:
        await engine.close()
