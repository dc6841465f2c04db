"""`primectl best-of-n`: asks a running best-of-N service for every prompt of a file and writes the chosen answers."""

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prime.adapters.settings import read_token
from prime.client import AsyncPrmClient
from prime.data.problems import read_rows
from prime.errors import DataError, PeerUnavailable, PrimeError, SettingsError, Unauthenticated
from primectl.display import Display
from primectl.written import refuse_existing, written

_AT_ONCE = 4
_CALL_SECONDS = 3600.0
_FAULTS_SHOWN = 10


def run_best_of_n(
    path: Path, *, address: str, token_file: Path | None, out: Path | None, options: Mapping[str, Any]
) -> int:
    """Answer every prompt; 0 when all were, 1 when some could not be. A row that fails costs itself alone."""
    refuse_existing(out)
    display = Display()
    key = read_token(token_file)
    rows = list(read_rows(path))
    started = time.monotonic()
    faults: list[str] = []

    async def work() -> None:
        places = asyncio.Semaphore(_AT_ONCE)
        async with AsyncPrmClient(address, key, timeout_s=_CALL_SECONDS) as client:

            async def one(number: int, row: Mapping[str, Any] | str) -> dict[str, Any]:
                async with places:
                    return await _answer(client, row, f"{path}, row {number}", options)

            tasks = [asyncio.ensure_future(one(number, row)) for number, row in enumerate(rows, start=1)]
            try:
                with written(out) as lines, display.bar("best-of-n", len(rows)) as bar:
                    for number, task in enumerate(tasks, start=1):
                        line = {"row": number, **(await task)}
                        if "error" in line:
                            faults.append(line["error"])
                        if lines is not None:
                            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
                        else:
                            print(json.dumps(line, ensure_ascii=False))
                        bar.update(number, f"{len(faults)} failed", every=max(1, len(rows) // 10))
            finally:
                for task in tasks:
                    task.cancel()

    asyncio.run(work())
    display.say(f"{len(rows) - len(faults)} of {len(rows)} prompts answered in {time.monotonic() - started:.1f} s")
    for fault in faults[:_FAULTS_SHOWN]:
        display.say(f"not answered: {fault}")
    if out is not None:
        display.say(f"answers: {out}")
    return 1 if faults else 0


async def _answer(
    client: AsyncPrmClient, row: Mapping[str, Any] | str, where: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The line of a row: its answers, or what is wrong with it. What is wrong with the service is raised."""
    try:
        completion = await client.best_of_n(messages=_messages(row, where), **options)
    except DataError as error:
        return {"error": str(error)}
    except (SettingsError, Unauthenticated, PeerUnavailable):
        # The next row would fare no better.
        raise
    except PrimeError as error:
        return {"error": f"{where}: {error}"}
    identity = {"id": row["id"]} if isinstance(row, Mapping) and "id" in row else {}
    return identity | {
        "responses": [choice.message.get("content") for choice in completion.choices],
        "usage": completion.usage and completion.usage.model_dump(),
        "prime": completion.prime and completion.prime.model_dump(mode="json", exclude_none=True),
    }


def _messages(row: Mapping[str, Any] | str, where: str) -> list[Any]:
    if isinstance(row, str):
        raise DataError(row)
    value = row.get("messages") if row.get("messages") is not None else row.get("prompt")
    if isinstance(value, str) and value.strip():
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value:
        return value
    raise DataError(f"{where}: column 'prompt' must be text or a list of messages, and not empty")
