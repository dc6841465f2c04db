"""Shows a run while it works: a live bar on a terminal, a line per step elsewhere."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from prime.types import TrainerStatus


class Display:
    """Phases, SFT steps and RL steps of one run."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(quiet=quiet)
        self._last_line = ""

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False, soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator["Bar"]:
        """A bar for the time of the block."""
        with self._progress() as progress:
            yield Bar(self, progress, title, total)

    @contextmanager
    def stages(self) -> Iterator[Callable[[str, int, int, str], None]]:
        """A bar for one stage after the other: a function of stage, how much is done, of how much (0: unknown), note.

        Without a terminal, a line per stage.
        """
        with self._progress() as progress:
            task = progress.add_task("", total=None, note="")

            def show(stage: str, done: int, of: int, note: str) -> None:
                progress.update(task, description=f"[bold]{stage}", completed=done, total=of or None, note=note)
                if not self.console.is_terminal and stage != self._last_line:
                    self._last_line = stage
                    self.say(f"{stage} ...")

            yield show

    def _progress(self) -> Progress:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self.console, disable=not self.console.is_terminal)


class Bar:
    """One bar, or the lines that stand for it."""

    def __init__(self, display: Display, progress: Progress, title: str, total: int) -> None:
        self._display = display
        self._progress = progress
        self._title = title
        self._total = total
        self._task = progress.add_task(title, total=total, note="")
        self._printed = -1

    def update(self, step: int, note: str, *, every: int = 1, total: int | None = None) -> None:
        """Show a step; without a terminal, a line for every `every`-th. `total`: once it is known."""
        self._total = self._total if total is None else total
        self._progress.update(self._task, completed=step, total=self._total, note=note)
        if self._display.console.is_terminal or step == self._printed or (step % every and step != self._total):
            return
        self._printed = step
        self._display.say(f"{self._title}: {step}/{self._total}  {note}")


def note_of(status: TrainerStatus) -> str:
    """Phase, speed, reward, accuracy and time left."""
    parts = [f"{status.phase:<10}", f"{status.tokens_per_second:7,.0f} tokens/s"]
    if status.mean_score == status.mean_score:
        parts.append(f"score {status.mean_score:.3f}")
    if status.accuracy == status.accuracy:
        parts.append(f"accuracy {status.accuracy:.3f}")
    parts.append(f"{minutes(status.seconds_left)} left")
    return "  ".join(parts)


def minutes(seconds: float) -> str:
    """`61.0` as `1:01`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}" if math.isfinite(seconds) else "-:--"
