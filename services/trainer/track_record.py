"""What the run remembers of token rewards between steps: how well they ordered outcomes, and how large they were."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRecord:
    """Running sums in which a step counts less with every step after it; a checkpoint keeps them.

    Example: after one batch in which 30 of 40 pairs were in order, `TrackRecord(agreeing=30.0, pairs=40.0, scale=0.2)`.
    """

    agreeing: float = 0.0
    """Pairs of one group that the rewards put in the order of their outcomes."""
    pairs: float = 0.0
    scale: float = 0.0
    """Root mean square of the rewards' returns; 0: there were none yet."""

    @property
    def pair_accuracy(self) -> float:
        """Share of pairs in order; 0.5, which is chance, before there were any."""
        return self.agreeing / self.pairs if self.pairs else 0.5

    def with_pairs(self, agreeing: float, pairs: float, *, memory: float) -> "TrackRecord":
        """After a batch, of which the sums before keep the share `memory`."""
        return replace(self, agreeing=memory * self.agreeing + agreeing, pairs=memory * self.pairs + pairs)

    def with_scale(self, scale: float, *, memory: float) -> "TrackRecord":
        """After a batch with returns of this size; the first one with any sets the scale."""
        return replace(self, scale=memory * self.scale + (1.0 - memory) * scale if self.scale else scale)
