"""SFT data: responses in the seven actions, written by a model behind an OpenAI-compatible endpoint.

Every response is checked for its layout, and if asked for its answer; one that fails is asked for again. It is kept
with the short prompt that policy and evaluation see, not with the long one that it was written by. For `primectl`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.grading import BoundedVerifier
from prime.adapters.endpoint import Endpoints
from prime.adapters.settings import EndpointSettings, Settings
from prime.data.actions import GENERATION_PROMPT, fault_of, prompt_of, strip_format_request
from prime.data.problems import load_problems
from prime.errors import SettingsError
from prime.ports import ChatModel, Verifier
from prime.types import GradeItem, Problem, VerdictStatus
from services.verifier.settings import VerifierSettings

_PART = 256  # problems that are asked about together


class ResponseSettings(Settings):
    """What is written, and by which model."""

    problems: str
    """A file or dataset in the schema of Eurus-2-RL-Data."""
    output: Path
    """JSON lines for `primectl sft`. Answers are kept in `<output>.responses.sqlite` for a restart."""
    model: EndpointSettings
    """The model that writes."""
    attempts: int = Field(5, ge=1)
    """Attempts for each problem, until a response passes."""
    check_answers: bool = False
    """Whether a response has to be right as well."""
    verifier: VerifierSettings = VerifierSettings()
    """The verifier that is started."""
    verifier_address: str = ""
    """A running verifier to ask instead. `--token-file` has its token."""


@dataclass(slots=True, kw_only=True)
class Responses:
    """How far it is: `Responses(of=100, done=40, kept=38, given_up=2, faults={"[OUTPUT] is empty": 5})`."""

    of: int
    done: int = 0
    kept: int = 0
    given_up: int = 0
    """Problems for which no attempt passed; they are not in the file."""
    faults: Counter[str] = field(default_factory=Counter)
    """Of attempts that did not pass."""
    usage: Sequence[Mapping[str, Any]] = ()

    @property
    def paid(self) -> int:
        """Requests, in this run."""
        return sum(int(each["paid"]) for each in self.usage)


async def write_responses(
    settings: ResponseSettings, verifier: Verifier | None, on_progress: Callable[[Responses], None]
) -> Responses:
    """Write the file; in place only when it is whole.

    Raises:
        SettingsError: the file is there already.
        DataError: the problems cannot be read; nothing was asked.
        PrimeError: the endpoint or the verifier is away for longer than patience lasts. Start again to go on.
    """
    if settings.output.exists():
        raise SettingsError(f"setting 'output' = {settings.output} exists; choose another file")
    problems = load_problems(settings.problems)
    found = Responses(of=len(problems))
    grader = None if verifier is None else BoundedVerifier(verifier)
    settings.output.parent.mkdir(parents=True, exist_ok=True)
    partial = settings.output.with_name(f"{settings.output.name}.partial")
    cache = settings.output.with_name(f"{settings.output.name}.responses.sqlite")
    async with Endpoints(cache) as endpoints:
        model = endpoints.open(settings.model)
        with partial.open("w", encoding="utf-8") as file:
            for start in range(0, len(problems), _PART):
                part = problems[start : start + _PART]
                rows = await asyncio.gather(*(_respond(each, model, grader, settings.attempts, found) for each in part))
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows if row is not None)
                found.done += len(part)
                found.usage = endpoints.usage()
                on_progress(found)
    partial.replace(settings.output)
    return found


async def _respond(
    problem: Problem, model: ChatModel, verifier: Verifier | None, attempts: int, found: Responses
) -> dict[str, Any] | None:
    """A row of SFT data; None when every attempt failed."""
    question = strip_format_request(problem.messages[-1].content)
    prompt = prompt_of(question, problem.ability)
    asked = [{"role": "system", "content": GENERATION_PROMPT}, {"role": "user", "content": prompt[-1].content}]
    for attempt in range(attempts):
        response = (await model.ask(asked, attempt=attempt)).strip()
        fault = fault_of(response)
        if not fault and verifier is not None and not await _is_right(problem, response, verifier):
            fault = "its answer is wrong"
        if not fault:
            found.kept += 1
            return {
                "prompt": [{"role": message.role, "content": message.content} for message in prompt],
                "response": response,
                "problem_id": problem.problem_id,
                "data_source": problem.data_source,
                "attempts": attempt + 1,
            }
        found.faults[fault] += 1
    found.given_up += 1
    return None


async def _is_right(problem: Problem, response: str, verifier: Verifier) -> bool:
    item = GradeItem(
        item_id=problem.problem_id,
        data_source=problem.data_source,
        ability=problem.ability,
        response=response,
        ground_truth=problem.ground_truth,
        binary=True,
    )
    (verdict,) = await verifier.grade([item])
    return verdict.status is VerdictStatus.PASSED
