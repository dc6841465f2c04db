"""`primectl sft`."""

import time

from jobs.sft import SftSettings, run_sft
from primectl.display import Display


def run_sft_command(settings: SftSettings) -> int:
    """Train with a bar; 0 when the folder is written."""
    fine_tune(settings, Display())
    return 0


def fine_tune(settings: SftSettings, display: Display) -> None:
    """SFT with a bar: loss and time left."""
    started = time.monotonic()
    with display.bar("SFT", settings.steps) as bar:

        def on_step(step: int, loss: float) -> None:
            left = (time.monotonic() - started) / step * (settings.steps - step)
            bar.update(step, f"loss {loss:.4f}  {int(left) // 60}:{int(left) % 60:02d} left", every=50)

        folder = run_sft(settings, on_step)
    display.say(f"SFT checkpoint: {folder}")
