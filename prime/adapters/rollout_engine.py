"""`ports.Generator` over a rollout replica of ours: the policy that is being trained answers chat completions."""

import secrets
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from prime.chat import ChatCandidate, ChatSamples, plain_text
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
        "continue_final_message",
        "add_generation_prompt",
        "include_stop_str_in_output",
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
        prompt_ids = self._prompt_ids(request)
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
        stops, shows = _strings(request.get("stop")), bool(request.get("include_stop_str_in_output"))
        return ChatSamples(
            candidates=tuple(self._candidate(sample, stops, shows=shows) for sample in group.samples),
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

    def _prompt_ids(self, request: Mapping[str, Any]) -> tuple[int, ...]:
        """Of the messages; with `continue_final_message` also of what there is of the answer."""
        messages, tools = tuple(request["messages"]), tuple(request.get("tools") or ())
        if not request.get("continue_final_message"):
            return encode_scoring_prompt(self._tokenizer, Prompt(messages=messages, tools=tools))
        *before, last = messages
        if last.get("role") != "assistant" or not before:
            raise InvalidInput("continue_final_message: the last message has to be the assistant's, after another one")
        begun = self._tokenizer(plain_text(last.get("content")), add_special_tokens=False)["input_ids"]
        return encode_scoring_prompt(
            self._tokenizer, Prompt(messages=tuple(before), tools=tools, begun_ids=tuple(begun))
        )

    def _candidate(self, sample: Sample, stops: Sequence[str], *, shows: bool) -> ChatCandidate:
        """A stop string is no part of what is answered, as with OpenAI, unless it is asked for (`shows`)."""
        text = response_text(self._tokenizer, sample.response_ids)
        ends = [text.index(stop) + (len(stop) if shows else 0) for stop in stops if stop in text]
        text = text[: min(ends, default=len(text))]
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
