"""Which sections there are, how much time each gets, and what becomes of one that has too little."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """`Section(name="training 7B", least=45, share=90)`: a module of this package, and maybe a shape."""

    name: str
    least: float
    """Seconds under which it is not worth starting, of nine minutes."""
    share: float
    """Seconds that it plans for, of nine minutes."""


# The most wanted first: what comes later is what falls out when time is short.
SECTIONS = (
    Section(name="card", least=20, share=25),
    Section(name="checks", least=30, share=60),
    Section(name="step", least=40, share=75),
    Section(name="training 0.5B", least=30, share=45),
    Section(name="scoring 0.5B", least=30, share=45),
    Section(name="noise", least=30, share=45),
    Section(name="training 1.5B", least=35, share=50),
    Section(name="training 7B", least=45, share=90),
    Section(name="scoring 7B", least=40, share=60),
    Section(name="proof", least=20, share=45),
)
FULL_S = 540.0
"""What the figures above add up to."""
LEAST_S = 12.0
"""For a section: until torch and transformers are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a section: `Outcome(status="skipped", reason="3 s are left, and it needs 20 s")`."""

    status: Literal["done", "failed", "skipped"]
    reason: str = ""
    seconds: float = 0.0
    figures: Mapping[str, Any] = field(default_factory=dict)


class Runner(Protocol):
    """Runs one section."""

    def run(self, section: Section, *, seconds: float, limit: float) -> Outcome:
        """`seconds`: what it should take; `limit`: after so many it is ended. Raises nothing that a section does."""


def measure(
    sections: Sequence[Section],
    runner: Runner,
    *,
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
    seen: Callable[[Mapping[str, Outcome]], None],
) -> dict[str, Outcome]:
    """Run the sections in their order. After each one `seen` gets all outcomes so far.

    A section may take what is left, less what those behind it need at least. Where that is less than it needs itself,
    it is skipped.
    """
    scale = 60 * minutes / FULL_S
    ends_at = clock() + 60 * minutes
    outcomes: dict[str, Outcome] = {}
    for number, section in enumerate(sections):
        later = sum(_least(each, scale) for each in sections[number + 1 :])
        left = ends_at - clock()
        limit = max(left - later, min(left, _least(section, scale)))
        least = max(_least(section, scale), LEAST_S)
        if limit < least:
            reason = f"{max(left, 0):.0f} s are left, and it needs {least:.0f} s; give it more --minutes"
            outcomes[section.name] = Outcome(status="skipped", reason=reason)
        else:
            seconds = min(section.share * scale, limit)
            outcomes[section.name] = runner.run(section, seconds=seconds, limit=limit)
        seen(outcomes)
    return outcomes


def _least(section: Section, scale: float) -> float:
    return section.least * scale
