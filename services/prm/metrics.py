"""What the metrics say of scoring: where the time of a request goes, how many wait, how large they are."""

from collections.abc import Callable

from prime.adapters.telemetry import Meters
from prime.ports import Scorer
from prime.scoring import ScorerInfo, ScoringReply, ScoringRequest


class MeteredScorer:
    """A `Scorer` that is watched."""

    def __init__(self, scorer: Scorer, meters: Meters, *, waiting: Callable[[], int]) -> None:
        self._scorer = scorer
        meters.gauge("prime_prm_waiting", "Scoring requests accepted and not yet answered.").set_function(waiting)
        self._tokenize = meters.histogram("prime_prm_tokenize_seconds", "Time to encode a request.")
        self._queue = meters.histogram("prime_prm_queue_seconds", "Time a request waits for its forward pass.")
        self._inference = meters.histogram("prime_prm_inference_seconds", "Time of the forward passes of its batch.")
        self._tokens = meters.counter("prime_prm_tokens", "Tokens scored.", ("kind",))

    async def score(self, request: ScoringRequest) -> ScoringReply:
        """A score per candidate."""
        reply = await self._scorer.score(request)
        self._tokenize.observe(reply.seconds.tokenize)
        self._queue.observe(reply.seconds.queue)
        self._inference.observe(reply.seconds.inference)
        self._tokens.labels("prompt").inc(reply.usage.prompt_tokens)
        self._tokens.labels("response").inc(reply.usage.response_tokens)
        self._tokens.labels("reference_cached").inc(reply.usage.reference_cached_tokens)
        return reply

    async def info(self) -> ScorerInfo:
        """Which PRM answers, and its limits."""
        return await self._scorer.info()
