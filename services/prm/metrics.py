"""What the metrics say of scoring: where the time of a request goes, how many wait, how large they are."""

from collections.abc import Callable, Sequence

from prime.adapters.telemetry import Meters
from prime.ports import CheckingScorer
from prime.scoring import ScorerInfo, ScoringReply, ScoringRequest


class MeteredScorer:
    """A `CheckingScorer` that is watched; `charge` is told the tokens that were scored for whoever asked."""

    def __init__(
        self, scorer: CheckingScorer, meters: Meters, *, waiting: Callable[[], int], charge: Callable[[int], None]
    ) -> None:
        self._scorer = scorer
        self._charge = charge
        meters.gauge("prime_prm_waiting", "Scoring requests accepted and not yet answered.").set_function(waiting)
        self._tokenize = meters.histogram("prime_prm_tokenize_seconds", "Time to encode a request.")
        self._queue = meters.histogram("prime_prm_queue_seconds", "Time a request waits for its forward pass.")
        self._inference = meters.histogram("prime_prm_inference_seconds", "Time of the forward passes of its batch.")
        self._tokens = meters.counter("prime_prm_tokens", "Tokens scored.", ("kind",))

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
