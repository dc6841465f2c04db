"""Self-made rows in each public schema, and parts that tests share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.curate.draft import Draft
from prime.types import GradeItem, Verdict, VerdictStatus, VerifierInfo

DOUBLE = "print(2 * int(input()))"


def math_draft(question: str, answer: str = "", *, solution: str = "", number: int = 1, **notes: Any) -> Draft:
    return Draft(
        origin=f"numina: rows.jsonl, row {number}",
        source="numina_olympiads",
        ability="math",
        question=question,
        answer=answer,
        solutions=(solution,) if solution else (),
        notes=notes,
    )


def code_draft(question: str, tests: Any, programs: Sequence[str] = (), *, number: int = 1) -> Draft:
    return Draft(
        origin=f"taco: rows.jsonl, row {number}",
        source="taco",
        ability="code",
        question=question,
        answer=json.dumps(tests),
        solutions=tuple(f"```python\n{program}\n```" for program in programs),
    )


def numina(problem: str, solution: str, source: str = "olympiads") -> dict[str, Any]:
    messages = [{"role": "user", "content": problem}, {"role": "assistant", "content": solution}]
    return {"source": source, "problem": problem, "solution": solution, "messages": messages}


def apps(question: str, tests: Any, programs: Sequence[str], **changes: Any) -> dict[str, Any]:
    return {
        "problem_id": 7,
        "question": question,
        "solutions": json.dumps(list(programs)),
        "input_output": json.dumps(tests),
        "difficulty": "introductory",
        "url": "",
        "starter_code": "",
        **changes,
    }


def taco(question: str, tests: Any, programs: Sequence[str], **changes: Any) -> dict[str, Any]:
    return apps(question, tests, programs) | {"source": "codewars", "tags": "[]", "time_limit": None, **changes}


def code_contests(description: str, pairs: Sequence[tuple[str, str]], **changes: Any) -> dict[str, Any]:
    (first, *others) = pairs
    return {
        "name": "1_A. Doubling",
        "description": description,
        "public_tests": {"input": [first[0]], "output": [first[1]]},
        "private_tests": {"input": [given for given, _ in others], "output": [expected for _, expected in others]},
        "generated_tests": {"input": [], "output": []},
        "source": 2,
        "difficulty": 7,
        "solutions": {"language": [1, 3], "solution": ["print 2 * input()", DOUBLE]},
        "incorrect_solutions": {"language": [3], "solution": ["print(0)"]},
        "input_file": "",
        "output_file": "",
        **changes,
    }


def codeforces(description: str, pairs: Sequence[tuple[str, str]], **changes: Any) -> dict[str, Any]:
    return {
        "contestId": 4,
        "index": "A",
        "title": "Doubling",
        "problem-description": description,
        "input-specification": "One integer.",
        "output-specification": "Its double.",
        "demo-input": [pairs[0][0]],
        "demo-output": [pairs[0][1]],
        "note": "",
        "test_cases": [{"input": given, "output": expected} for given, expected in pairs],
        "programmingLanguage": "Python 3",
        "verdict": "OK",
        "code": DOUBLE,
        **changes,
    }


def eurus(content: str, truth: Any, ability: str = "math", **changes: Any) -> dict[str, Any]:
    return {
        "data_source": "numina_olympiads" if ability == "math" else "taco",
        "prompt": [{"role": "system", "content": "Think in actions."}, {"role": "user", "content": content}],
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": truth},
        "extra_info": {"split": "dummy", "index": 0},
        **changes,
    }


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    """Rows as JSON; text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


class TextVerifier:
    """Answers are right when their text is the ground truth's; for stages whose own logic is under test."""

    def __init__(self) -> None:
        self.asked: list[GradeItem] = []

    async def grade(self, items: Sequence[GradeItem]) -> list[Verdict]:
        self.asked += items
        return [self._verdict(item) for item in items]

    async def info(self) -> VerifierInfo:
        return VerifierInfo(graders=("math",), isolation=(), workers=1, tier="", canary_age_seconds=0.0)

    def _verdict(self, item: GradeItem) -> Verdict:
        right = item.response == f"\\boxed{{{item.ground_truth}}}"
        status = VerdictStatus.PASSED if right else VerdictStatus.FAILED
        if not item.ground_truth:
            return Verdict(
                status=VerdictStatus.INVALID_REQUEST, score=None, reason="the ground truth is empty", milliseconds=0.0
            )
        return Verdict(status=status, score=float(right), reason="text", milliseconds=0.0)


class ScriptedModel:
    """Answers by attempt from a list, and keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self._replies = replies
        self.asked: list[tuple[str, int]] = []

    async def ask(self, messages: Any, *, attempt: int = 0) -> str:
        self.asked.append((messages[-1]["content"], attempt))
        return self._replies[min(attempt, len(self._replies) - 1)]
