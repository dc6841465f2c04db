"""What the metrics say of scoring: where the time of a request goes, how many wait, how large they are."""

import copy
from collections.abc import Callable, Sequence

from prime.adapters.telemetry import Meters
from prime.ports import CheckingScorer
from prime.scoring import ScorerInfo, ScoringReply, ScoringRequest
from services.prm import metric_specs


class MeteredScorer:
    """A `CheckingScorer` that is watched; `charge` is told the tokens that were scored for whoever asked."""

    def __init__(
        self, scorer: CheckingScorer, meters: Meters, *, waiting: Callable[[], int], charge: Callable[[int], None]
    ) -> None:
        self._scorer = scorer
        self._charge = charge
        meters.gauge(metric_specs.WAITING).set_function(waiting)
        self._tokenize = meters.histogram(metric_specs.TOKENIZE_SECONDS)
        self._queue = meters.histogram(metric_specs.QUEUE_SECONDS)
        self._inference = meters.histogram(metric_specs.INFERENCE_SECONDS)
        self._tokens = meters.counter(metric_specs.TOKENS)

    def over(self, scorer: CheckingScorer) -> "MeteredScorer":
        """Another scorer of the same service, counted with this one."""
        other = copy.copy(self)
        other._scorer = scorer
        return other

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate."""
        [reply] = await self.score_all([request])
        return reply

    async def score_all(self, requests: Sequence[ScoringRequest]) -> list[ScoringReply]:
        """A score per candidate of every request."""
        replies = await self._scorer.score_all(requests)
        self._tokenize.observe(sum(reply.seconds.tokenize for reply in replies))
        # Of one batch: they waited together and were computed together.
        self._queue.observe(replies[0].seconds.queue)
        self._inference.observe(replies[0].seconds.inference)
        self._charge(sum(reply.usage.prompt_tokens + reply.usage.response_tokens for reply in replies))
        for reply in replies:
            self._tokens.labels("prompt").inc(reply.usage.prompt_tokens)
            self._tokens.labels("response").inc(reply.usage.response_tokens)
            self._tokens.labels("reference_cached").inc(reply.usage.reference_cached_tokens)
        return replies

    async def check(self, request: ScoringRequest) -> None:
        """Whether a request could be scored."""
        await self._scorer.check(request)

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""
        return await self._scorer.info()
