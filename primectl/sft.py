"""`primectl sft` and `primectl sft-data`."""

import asyncio
import json
import time
from collections.abc import Iterable
from pathlib import Path

from jobs.action_responses import Responses, ResponseSettings, write_responses
from jobs.sft import SftSettings, SftStep, run_sft
from prime.lm.world import World, join_world
from primectl.display import Display
from primectl.verifiers import open_verifier_of


def run_sft_command(settings: SftSettings, *, resume: bool) -> int:
    """Train with a bar; 0 when the folder is written. Under torchrun the first process speaks for all."""
    world = join_world(settings.device)
    fine_tune(settings, Display(quiet=not world.is_leader), resume=resume, world=world)
    world.leave()
    return 0


def fine_tune(settings: SftSettings, display: Display, *, resume: bool = False, world: World | None = None) -> None:
    """SFT with a bar: loss and time left."""
    started, begun_at = time.monotonic(), 0
    with display.bar("SFT", settings.steps or 1) as bar:

        def on_step(step: SftStep) -> None:
            nonlocal begun_at
            begun_at = begun_at or max(step.step - 1, 0)
            measured = "" if step.evaluation_loss is None else f"  evaluation loss {step.evaluation_loss:.4f}"
            if step.loss is None:
                display.say(f"before the first step:{measured}")
                return
            left = (time.monotonic() - started) / (step.step - begun_at) * (step.of - step.step)
            note = f"loss {step.loss:.4f}{measured}  {int(left) // 60}:{int(left) % 60:02d} left"
            bar.update(step.step, note, every=1 if measured else 50, total=step.of)

        folder = run_sft(settings, on_step, resume=resume, world=world)
    display.say(f"SFT checkpoint: {folder}")


def write_sft_data(path: Path, texts: Iterable[tuple[str, str]]) -> None:
    """Prompts of one user turn with their responses, as `SftSettings.data` has them."""
    with path.open("w", encoding="utf-8") as file:
        for prompt, response in texts:
            file.write(json.dumps({"prompt": [{"role": "user", "content": prompt}], "response": response}) + "\n")


def run_sft_data(settings: ResponseSettings, *, token_file: Path | None) -> int:
    """Have responses written; 0 when the file is there; the last line on stdout is one JSON object."""
    display = Display()

    def show(responses: Responses) -> None:
        note = f"{responses.kept} kept  {responses.given_up} given up  {responses.paid} paid"
        bar.update(responses.done, note, every=100, total=responses.of)

    async def work() -> Responses:
        if not settings.check_answers:
            return await write_responses(settings, None, show)
        async with open_verifier_of(settings.verifier_address, token_file, settings.verifier, "sft-data") as verifier:
            return await write_responses(settings, verifier, show)

    with display.bar("responses", 1) as bar:
        found = asyncio.run(work())
    for fault, count in sorted(found.faults.items(), key=lambda each: -each[1])[:10]:
        display.say(f"{count:8d}  {fault}")
    display.say(f"SFT data: {settings.output}")
    print(json.dumps({"kept": found.kept, "given_up": found.given_up, "usage": list(found.usage)}))
    return 0
