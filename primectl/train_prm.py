"""`primectl train-prm`."""

import json
import time
from dataclasses import asdict

from jobs.train_prm import TrainPrmSettings, run_train_prm
from primectl.display import Display


def run_train_prm_command(settings: TrainPrmSettings) -> int:
    """Train with a line per tenth; the last line of the output is a JSON object."""
    display = Display()
    started = time.monotonic()
    display.say(f"Encoding {', '.join(map(str, settings.data))} and asking the reference ...")

    def on_step(step: int, of: int, loss: float) -> None:
        if step == 1 or step == of or step % max(1, of // 10) == 0:
            left = (time.monotonic() - started) / step * (of - step)
            display.say(f"train-prm: {step}/{of}  loss {loss:.4f}  {int(left) // 60}:{int(left) % 60:02d} left")

    trained = run_train_prm(settings, on_step)
    display.say(f"PRM: {trained.output}   (primectl serve-prm {trained.output} --reference ...)")
    report = asdict(trained) | {"output": str(trained.output), "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(report))
    return 0
