"""The seven actions in which the policy reasons, and every prompt that speaks of them: for SFT, RL and evaluation.

PRIME (arXiv 2502.01456), Appendix: a response is a sequence of actions, each a heading, steps that begin with `#`, and
the name of the next action; the last one, OUTPUT, stands alone. The wording is this project's own.

    [ASSESS]
    # Two numbers are given; their sum is asked for.
    Next action: [ADVANCE]
    [ADVANCE]
    # 3 + 5 = 8
    Next action: [OUTPUT]
    [OUTPUT]
    The sum is $\\boxed{8}$.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

from prime.types import Message


class Action(StrEnum):
    """What a part of the reasoning does."""

    ASSESS = "ASSESS"
    ADVANCE = "ADVANCE"
    VERIFY = "VERIFY"
    SIMPLIFY = "SIMPLIFY"
    SYNTHESIZE = "SYNTHESIZE"
    PIVOT = "PIVOT"
    OUTPUT = "OUTPUT"


_MEANINGS: Mapping[Action, str] = {
    Action.ASSESS: "take stock of the situation: what is known, what is asked, what matters",
    Action.ADVANCE: "make progress: compute, derive, conclude, or set up a hypothesis",
    Action.VERIFY: "check what was found, and look for mistakes",
    Action.SIMPLIFY: "break something complicated into parts that are easier",
    Action.SYNTHESIZE: "put partial results together into a whole",
    Action.PIVOT: "give up a line of thought that leads nowhere, and take another",
    Action.OUTPUT: "give the final answer, with what is needed to follow it",
}

_LAYOUT = """\
Open every action with its name in brackets on a line of its own, write its steps on lines that begin with `#`, and end
it with a line `Next action: [NAME]`. OUTPUT comes last, has no next action, and needs no `#`."""

SYSTEM_PROMPT = f"""\
Solve the problem in actions. The actions are {", ".join(f"[{action}]" for action in Action)}.
{_LAYOUT}"""
"""Stands before every problem in SFT, RL and evaluation."""

GENERATION_PROMPT = f"""\
You write model solutions. Solve the problem in actions, of which there are seven:

{chr(10).join(f"[{action}] {meaning}." for action, meaning in _MEANINGS.items())}

{_LAYOUT}

Begin with [ASSESS]. Choose each next action by what the solution needs at that point; an action may come several times,
and not every one has to occur. Whoever asked reads [OUTPUT] alone: it has to be complete without the rest."""
"""For the model that writes responses to be trained on; they are trained on with `SYSTEM_PROMPT`."""

_MATH_REQUEST = "Give the final answer in LaTeX, as \\boxed{your answer}."
_CODE_REQUEST = "Give the solution in Python, in one ```python block at the end."
_REQUESTS: Mapping[str, str] = {"math": _MATH_REQUEST, "code": _CODE_REQUEST}

# Ours, and those of Eurus-2-RL-Data.
_KNOWN_REQUESTS = re.compile(
    rf"\n\s*(?:{re.escape(_MATH_REQUEST)}|{re.escape(_CODE_REQUEST)}"
    r"|Present the answer in LaTex format: \\boxed\{Your answer\}"
    r"|Write Python code to solve the problem\. Present the code in\s*```python\s*Your code\s*```\s*at the end\.?"
    r")\s*\Z",
    re.IGNORECASE,
)
_HEADING = re.compile(r"^\[([A-Za-z]+)\]\s*$", re.MULTILINE)
_NEXT = re.compile(r"^Next action:\s*\[([A-Za-z]+)\]\s*\Z", re.MULTILINE)
_LEANS_ON_THE_REST = re.compile(
    r"\b(?:as (?:shown|computed|found|derived|explained|verified) above|see above"
    r"|the (?:above|previous) (?:steps?|actions?))\b",
    re.IGNORECASE,
)


def prompt_of(question: str, ability: str, *, with_actions: bool = True) -> tuple[Message, ...]:
    """The messages in which a problem is asked: the actions, the problem, and in which form to answer."""
    user = Message(role="user", content=f"{question.strip()}\n\n{_REQUESTS[ability]}")
    return (Message(role="system", content=SYSTEM_PROMPT), user) if with_actions else (user,)


def strip_format_request(content: str) -> str:
    """A user turn without the request for a form at its end, ours or that of the published data."""
    return _KNOWN_REQUESTS.sub("", content).strip()


def fault_of(response: str) -> str:
    """What is wrong with the layout of a response in actions; empty when nothing is.

    Checked are: it begins with ASSESS and ends with OUTPUT, names are known, every action but the last ends with the
    name of the one that follows it, has steps that begin with `#`, and OUTPUT stands alone.
    """
    headings = list(_HEADING.finditer(response))
    if not headings or response[: headings[0].start()].strip():
        return "does not begin with an action"
    names = [match.group(1) for match in headings]
    ends = [match.start() for match in headings[1:]] + [len(response)]
    bodies = [response[match.end() : end].strip() for match, end in zip(headings, ends, strict=True)]
    faults = (
        _fault_of_names(names),
        *map(_fault_of_action, names, bodies, names[1:]),  # all but the last
        _fault_of_output(bodies[-1]),
    )
    return next((fault for fault in faults if fault), "")


def _fault_of_names(names: Sequence[str]) -> str:
    unknown = next((name for name in names if name not in Action.__members__), None)
    if unknown is not None:
        return f"[{unknown}] is no action"
    if names[0] != Action.ASSESS:
        return f"begins with [{names[0]}] instead of [ASSESS]"
    is_last = Action.OUTPUT in names and names.index(Action.OUTPUT) == len(names) - 1
    return "" if is_last else "does not end with its only [OUTPUT]"


def _fault_of_action(name: str, body: str, following: str) -> str:
    announced = _NEXT.search(body)
    if announced is None:
        return f"[{name}] does not end with a next action"
    if announced.group(1) != following:
        return f"[{name}] announces [{announced.group(1)}], and [{following}] follows"
    return "" if re.search(r"^#", body, re.MULTILINE) else f"[{name}] has no step that begins with #"


def _fault_of_output(body: str) -> str:
    if not body:
        return "[OUTPUT] is empty"
    if re.search(r"^Next action:", body, re.MULTILINE):
        return "[OUTPUT] announces a next action"
    return "[OUTPUT] leans on what its reader cannot see" if _LEANS_ON_THE_REST.search(body) else ""
