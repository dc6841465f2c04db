"""The seven actions: which layouts pass, what prompts say, and responses written by a model."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.action_responses import ResponseSettings, write_responses
from prime.adapters.settings import EndpointSettings
from prime.data.actions import GENERATION_PROMPT, SYSTEM_PROMPT, Action, fault_of, prompt_of, strip_format_request
from prime.data.problems import write_jsonl
from prime.errors import DataError, PeerUnavailable, SettingsError
from prime.types import Message
from tests.builders import problem
from tests.curate.corpora import TextVerifier
from tests.curate.model_server import ModelServer

GOOD = """[ASSESS]
# Two numbers are given; their sum is asked for.
Next action: [ADVANCE]
[ADVANCE]
# 3 + 5 = 8
Next action: [OUTPUT]
[OUTPUT]
Three and five make $\\boxed{8}$."""


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        (GOOD, ""),
        (GOOD.replace("[ADVANCE]", "[VERIFY]"), ""),
        ("[ASSESS]\n# Nothing.\n\nNext action: [OUTPUT]\n\n[OUTPUT]\nThe answer is 8.", ""),
        ("", "does not begin with an action"),
        ("The sum is 8.", "does not begin with an action"),
        (f"Sure!\n{GOOD}", "does not begin with an action"),
        (GOOD.replace("[ADVANCE]", "[THINK]"), "[THINK] is no action"),
        (GOOD.replace("[ASSESS]\n", "[PIVOT]\n"), "begins with [PIVOT] instead of [ASSESS]"),
        (GOOD.rpartition("[OUTPUT]")[0].replace("[OUTPUT]", "[ADVANCE]"), "does not end with its only [OUTPUT]"),
        (f"{GOOD}\n[OUTPUT]\nOnce more.", "does not end with its only [OUTPUT]"),
        (GOOD.replace("Next action: [ADVANCE]\n", ""), "[ASSESS] does not end with a next action"),
        (GOOD.replace("[OUTPUT]\n[", "[VERIFY]\n["), "[ADVANCE] announces [VERIFY], and [OUTPUT] follows"),
        (GOOD.replace("# 3", "3"), "[ADVANCE] has no step that begins with #"),
        (GOOD.partition("Three")[0], "[OUTPUT] is empty"),
        (f"{GOOD}\nNext action: [VERIFY]", "[OUTPUT] announces a next action"),
        (GOOD.replace("Three", "As shown above, three"), "[OUTPUT] leans on what its reader cannot see"),
    ],
)
def test_which_layouts_pass(response: str, fault: str) -> None:
    assert fault_of(response) == fault


def test_prompts_name_all_actions_and_the_long_one_says_what_they_mean() -> None:
    assert len(Action) == 7
    for action in Action:
        assert f"[{action}]" in SYSTEM_PROMPT
        assert f"[{action}] " in GENERATION_PROMPT
    for duty in ("Begin with [ASSESS]", "begin with `#`", "Next action: [NAME]", "without the rest"):
        assert duty in GENERATION_PROMPT
    assert len(SYSTEM_PROMPT) < len(GENERATION_PROMPT) / 2


def test_a_problem_is_asked_with_the_actions_and_the_form_and_the_form_comes_off_again() -> None:
    system, user = prompt_of("Find $1+1$.", "math")
    assert (system.role, system.content) == ("system", SYSTEM_PROMPT)
    assert user.content == "Find $1+1$.\n\nGive the final answer in LaTeX, as \\boxed{your answer}."
    assert prompt_of("Find $1+1$.", "math", with_actions=False) == (user,)
    assert strip_format_request(user.content) == "Find $1+1$."
    code = prompt_of("Double it.", "code")[1].content
    assert "```python" in code
    assert strip_format_request(code) == "Double it."
    assert strip_format_request("Present the answer in LaTex format: not here. Find $1$.").startswith("Present")


# ---------------------------------------------------------------- written by a model


class Writer(ModelServer):
    """Answers in actions; at first without, for every other problem, and for some for ever."""

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        system, user = body["messages"]
        assert system["content"] == GENERATION_PROMPT
        question = user["content"].partition("\n")[0]
        good = GOOD if "wrong" not in question or body["seed"] >= 3 else GOOD.replace("boxed{8}", "boxed{9}")
        if "never" in question or ("later" in question and body["seed"] < 2):
            good = "The sum is 8."
        choice = {"index": 0, "message": {"role": "assistant", "content": good}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 20}
        return {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}


def _write(tmp_path: Path, url: str, *questions: str, **changes: Any) -> ResponseSettings:
    problems = [
        replace(problem(number, ground_truth="8"), messages=(Message(role="user", content=question),))
        for number, question in enumerate(questions)
    ]
    write_jsonl(problems, tmp_path / "problems.jsonl")
    model = EndpointSettings(url=url, model="llama", patience_seconds=20)
    settings = {"problems": str(tmp_path / "problems.jsonl"), "output": tmp_path / "sft.jsonl", "model": model}
    return ResponseSettings(**{**settings, **changes})


def test_responses_that_fail_are_asked_for_again_and_kept_with_the_short_prompt(tmp_path: Path) -> None:
    server = Writer()
    settings = _write(tmp_path, server.url, "Add 3 and 5.", "Add 3 and 5, later.", "Add 3 and 5, never.")
    found = asyncio.run(write_responses(settings, None, lambda responses: None))
    rows = [json.loads(line) for line in settings.output.read_text().splitlines()]
    assert [(row["attempts"], row["response"]) for row in rows] == [(1, GOOD), (3, GOOD)]
    assert [turn["role"] for turn in rows[0]["prompt"]] == ["system", "user"]
    assert rows[0]["prompt"][0]["content"] == SYSTEM_PROMPT
    assert (found.kept, found.given_up, found.faults) == (2, 1, {"does not begin with an action": 7})
    asked = sum(server.tried.values())
    settings.output.unlink()
    again = asyncio.run(write_responses(settings, None, lambda responses: None))
    assert (sum(server.tried.values()), again.paid, again.kept) == (asked, 0, 2)
    server.close()


def test_answers_are_checked_where_that_is_asked_for(tmp_path: Path) -> None:
    class Last(TextVerifier):
        def _verdict(self, item: Any) -> Any:
            boxed = item.response.rpartition("\\boxed{")[2].partition("}")[0]
            return super()._verdict(replace(item, response=f"\\boxed{{{boxed}}}"))

    server = Writer()
    settings = _write(tmp_path, server.url, "Add 3 and 5, wrong.", check_answers=True)
    found = asyncio.run(write_responses(settings, Last(), lambda responses: None))
    assert (found.kept, found.faults) == (1, {"its answer is wrong": 3})
    server.close()


def test_mistakes_cost_nothing(tmp_path: Path) -> None:
    settings = _write(tmp_path, "http://127.0.0.1:9/v1", "Add.")
    settings.output.write_text("mine")
    with pytest.raises(SettingsError, match="exists; choose another file"):
        asyncio.run(write_responses(settings, None, lambda responses: None))
    settings.output.unlink()
    missing = settings.model_copy(update={"problems": str(tmp_path / "no.jsonl")})
    with pytest.raises(DataError):
        asyncio.run(write_responses(missing, None, lambda responses: None))
    impatient = settings.model_copy(
        update={"model": EndpointSettings(url="http://127.0.0.1:9/v1", model="m", patience_seconds=0)}
    )
    with pytest.raises(PeerUnavailable, match=r"is `url` of m right"):
        asyncio.run(write_responses(impatient, None, lambda responses: None))
    assert not settings.output.exists()
