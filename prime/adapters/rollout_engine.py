"""`ports.Generator` over a rollout replica of ours: the policy that is being trained answers chat completions."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from prime.chat import ChatCandidate, ChatSamples
from prime.data.prompts import response_text
from prime.data.rendering import encode_scoring_prompt
from prime.errors import InvalidInput, TokenizerMismatch
from prime.ports import Rollout
from prime.scoring import Prompt
from prime.types import FinishReason, RolloutRequest, Sample, SamplingParams

_KNOWN = frozenset(
    (
        "model",
        "messages",
        "tools",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "stop",
        "stop_token_ids",
        "max_tokens",
        "max_completion_tokens",
        "seed",
        "user",
    )
)
_DEFAULT_TOKENS = 512


class RolloutEngine:
    """One replica; `tokenizer` is the PRM's, and the replica's must be the same."""

    def __init__(self, rollout: Rollout, tokenizer: Any, *, fingerprint: str) -> None:
        self._rollout = rollout
        self._tokenizer = tokenizer
        self._fingerprint = fingerprint

    async def sample(self, request: Mapping[str, Any], n: int) -> ChatSamples:
        """`n` candidates from the replica's current weights.

        Raises:
            InvalidInput: the request asks for what a rollout replica does not do.
            TokenizerMismatch: the replica has another tokenizer.
        """
        unknown = sorted(key for key in request if key not in _KNOWN and request[key] is not None)
        if unknown:
            raise InvalidInput(
                f"{unknown[0]!r} is not known to a rollout replica; known are {', '.join(sorted(_KNOWN))}"
            )
        status = await self._rollout.status()
        if status.tokenizer_fingerprint != self._fingerprint:
            raise TokenizerMismatch("the rollout replica has another tokenizer than the PRM")
        prompt = Prompt(messages=tuple(request["messages"]), tools=tuple(request.get("tools") or ()))
        prompt_ids = encode_scoring_prompt(self._tokenizer, prompt)
        [group] = await self._rollout.generate(
            [
                RolloutRequest(
                    group_id=uuid.uuid4().hex,
                    problem_id="chat",
                    attempt=0,
                    prompt_ids=prompt_ids,
                    num_samples=n,
                    sampling=_sampling(request),
                    seed=_seed(request),
                    min_version=0,
                )
            ]
        )
        stops = _strings(request.get("stop"))
        return ChatSamples(
            candidates=tuple(self._candidate(sample, stops) for sample in group.samples),
            model="policy",
            usage={
                "prompt_tokens": len(prompt_ids),
                "completion_tokens": group.num_response_tokens,
                "total_tokens": len(prompt_ids) + group.num_response_tokens,
            },
        )

    async def models(self) -> Sequence[str]:
        """There is one."""
        return ["policy"]

    def _candidate(self, sample: Sample, stops: Sequence[str]) -> ChatCandidate:
        """A stop string is no part of what is answered, as with OpenAI."""
        text = response_text(self._tokenizer, sample.response_ids)
        text = text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]
        return ChatCandidate(
            message={"role": "assistant", "content": text},
            finish_reason="length" if sample.finish_reason is FinishReason.LENGTH else "stop",
        )


def _sampling(request: Mapping[str, Any]) -> SamplingParams:
    try:
        return SamplingParams(
            temperature=_share(request.get("temperature"), "temperature", zero=True),
            top_p=_share(request.get("top_p"), "top_p", zero=False),
            max_tokens=int(request.get("max_completion_tokens") or request.get("max_tokens") or _DEFAULT_TOKENS),
            top_k=max(0, int(request.get("top_k") or 0)),
            min_p=float(request.get("min_p") or 0.0),
            stop_token_ids=tuple(map(int, request.get("stop_token_ids") or ())),
            stop=_strings(request.get("stop")),
        )
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"sampling options cannot be read: {error}") from None


def _strings(value: Any) -> tuple[str, ...]:
    """OpenAI takes one string or a list."""
    strings = (value,) if isinstance(value, str) else tuple(value or ())
    if not all(isinstance(each, str) and each for each in strings):
        raise InvalidInput("stop has to be a string or a list of strings that are not empty")
    return strings


def _share(value: Any, name: str, *, zero: bool) -> float:
    number = 1.0 if value is None else float(value)
    if number < 0 or (number == 0 and not zero):
        raise InvalidInput(f"{name} = {number} is too small: a temperature of 0 is greedy, and top_p is above 0")
    return number


def _seed(request: Mapping[str, Any]) -> int:
    seed = request.get("seed")
    return int(seed) if isinstance(seed, int) and seed >= 0 else secrets.randbits(63)
