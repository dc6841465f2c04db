"""The problem sets that an evaluation knows by name: one record each. The sets themselves are not part of the project.

A set is a file in a public repository, pinned by commit and digest, or comes by its name from a dataset hub. Rows of
either source are read by the same mapping.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prime.errors import SettingsError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A row as a question: `Question(text="What is 7 * 8?", ground_truth="56")`."""

    text: str
    ground_truth: str
    """An answer in LaTeX, or tests as JSON; see `docs/grading.md`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """One problem set.

    Example: `EvaluationSet(name="math500", title="MATH-500", ability="math", rows=500, read=..., licence="MIT",
    file="math500.json", address="https://...", sha256="8b79...", dataset="HuggingFaceH4/MATH-500:test")`.
    """

    name: str
    title: str
    ability: str
    """`math`: graded by the final answer. `code`: graded by tests. `process`: steps with labels, for
    `primectl evaluate-prm`."""
    rows: int
    read: Callable[[Row], Question | None]
    """One row; None: it does not belong to the set."""
    licence: str
    file: str
    """Its name in a folder of sets."""
    address: str = ""
    """Where the file can be had; empty: nowhere but from the hub."""
    sha256: str = ""
    dataset: str = ""
    """`name` or `name:split` on the hub."""


def known_sets() -> Mapping[str, EvaluationSet]:
    """All sets by name."""
    return {each.name: each for each in _SETS}


def find_set(name: str) -> EvaluationSet:
    """The set of this name.

    Raises:
        SettingsError: there is none; lists those that there are.
    """
    found = known_sets().get(name)
    if found is None:
        raise SettingsError(
            f"no evaluation set is called {name!r}; known are {', '.join(known_sets())}. A file of your own is given "
            "as NAME=FILE, in the schema of Eurus-2-RL-Data"
        )
    return found


# ---------------------------------------------------------------- columns


def _answered(question: str, answer: str) -> Callable[[Row], Question]:
    """Columns by name; several, separated by `|`, where sources name them differently."""

    def read(row: Row) -> Question:
        return Question(text=_column(row, question), ground_truth=_number(_value(row, answer)))

    return read


def _gsm8k(row: Row) -> Question:
    """The answer stands behind `####` at the end of the solution."""
    return Question(text=_column(row, "question"), ground_truth=_column(row, "answer").rpartition("####")[2].strip())


def _minerva(row: Row) -> Question:
    """The answer stands in the solution's last box."""
    return Question(text=_column(row, "problem|question"), ground_truth=_last_box(_column(row, "solution")))


def _olympiad_bench(row: Row) -> Question:
    """Answers in dollars, several in one list; the unit is asked for by the question, and not part of the answer."""
    answers = [str(each).strip().strip("$").rstrip(".") for each in _value(row, "final_answer")]
    return Question(text=_column(row, "question"), ground_truth=", ".join(answers))


def _human_eval(row: Row) -> Question:
    prompt = _column(row, "prompt")
    tests = {"assertions": [_column(row, "test")], "fn_name": _column(row, "entry_point")}
    return Question(
        text=f"Complete this Python function, and give it whole.\n\n```python\n{prompt.strip()}\n```",
        ground_truth=json.dumps(tests),
    )


def _mbpp(row: Row) -> Question:
    imports = "\n".join(row.get("test_imports") or row.get("test_setup_code", "").splitlines())
    tests = _value(row, "test_list")
    return Question(
        text="{}\nThe function has to pass these tests:\n\n```python\n{}\n```".format(
            _column(row, "prompt|text"), "\n".join(tests)
        ),
        ground_truth=json.dumps({"assertions": [f"{imports}\n{test}" for test in tests]}),
    )


def _leetcode(row: Row) -> Question:
    return Question(text=_column(row, "prompt_sft"), ground_truth=json.dumps({"assertions": [_column(row, "test")]}))


def _live_code_bench(row: Row, since: str, until: str) -> Question | None:
    """Problems of contests between two days, the last one not included."""
    if not since <= str(_value(row, "contest_date"))[:10] < until:
        return None
    starter = str(row.get("starter_code") or "")
    asked = (
        f"Complete this code:\n\n```python\n{starter}\n```"
        if starter
        else "Read the input from standard input, and print the answer."
    )
    tests = {
        key: row[key] for key in ("public_test_cases", "private_test_cases", "metadata") if row.get(key) is not None
    }
    return Question(text=f"{_column(row, 'question_content')}\n\n{asked}", ground_truth=json.dumps(tests))


def _steps(row: Row) -> Question:
    return Question(text=_column(row, "problem"), ground_truth=str(_value(row, "label")))


def _value(row: Row, columns: str) -> Any:
    for name in columns.split("|"):
        if row.get(name) is not None:
            return row[name]
    raise KeyError(columns)


def _column(row: Row, columns: str) -> str:
    value = _value(row, columns)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"column {columns!r} must be text, and not empty")
    return value


def _number(value: Any) -> str:
    """An answer as text: some files hold whole numbers as 142.0."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _last_box(solution: str) -> str:
    """What stands in the last `\\boxed{...}`, braces inside counted."""
    start = solution.rindex("\\boxed{") + len("\\boxed{")
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(solution[end], 0)
        end += 1
    return solution[start : end - 1].strip()


# ---------------------------------------------------------------- the sets

_PRIME = "https://raw.githubusercontent.com/PRIME-RL/PRIME/18ad596f08d487bb546d80d738d99ec697bd2e75/eval/data"
_QWEN = "https://raw.githubusercontent.com/QwenLM/Qwen2.5-Math/a45202bd16f1ec06f433442dc1152d0074773465/evaluation/data"
_GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
_SKILLS = "https://raw.githubusercontent.com/NVIDIA-NeMo/Skills/8b18f3992854bcb668095228a146e214c567b370"
_IPVRM = "https://raw.githubusercontent.com/gaoshiping/IPVRM/b3ddd9a54401964fd459ffed74a8604e72ebbcb2"
_MAA = "text of the Mathematical Association of America"
_YEAR = re.compile(r"/(20\d\d)_AIME")


def _aime(year: str) -> Callable[[Row], Question | None]:
    """The problems of one year in the file of 2022 to 2024."""
    read = _answered("question|problem", "answer")

    def of_year(row: Row) -> Question | None:
        found = _YEAR.search(_column(row, "url"))
        return read(row) if found and found.group(1) == year else None

    return of_year


def _aime_set(name: str, title: str, rows: int, read: Callable[[Row], Question | None]) -> EvaluationSet:
    return EvaluationSet(
        name=name,
        title=title,
        ability="math",
        rows=rows,
        read=read,
        licence=_MAA,
        file="aime_2022_2024.jsonl",
        address=f"{_PRIME}/AI-MO/aimo-validation-aime/aimo-validation-aime.jsonl",
        sha256="7db6f782e60f62dafcc492d5c12f59e2a4e7ae74544d98224c5e25afdff32d5a",
        dataset="AI-MO/aimo-validation-aime:train",
    )


def _live_code_bench_set(version: str, until: str, rows: int) -> EvaluationSet:
    return EvaluationSet(
        name=f"livecodebench_{version}",
        title=f"LiveCodeBench, release {version[1:]} (2023-05-01 to {until})",
        ability="code",
        rows=rows,
        read=lambda row: _live_code_bench(row, "2023-05-01", until),
        licence="CC for the collection; problem text of LeetCode, AtCoder and Codeforces",
        file="livecodebench.jsonl",
        dataset="livecodebench/code_generation_lite:test",
    )


def _process_bench_set(part: str, rows: int, sha256: str) -> EvaluationSet:
    return EvaluationSet(
        name=f"processbench_{part}",
        title=f"ProcessBench, {part}",
        ability="process",
        rows=rows,
        read=_steps,
        licence="Apache-2.0",
        file=f"processbench_{part}.json",
        address=f"{_IPVRM}/process_bench/data/{part}.json",
        sha256=sha256,
        dataset=f"Qwen/ProcessBench:{part}",
    )


_SETS = (
    _aime_set("aime", "AIME 2022 to 2024", 90, _answered("question|problem", "answer")),
    _aime_set("aime22", "AIME 2022", 30, _aime("2022")),
    _aime_set("aime23", "AIME 2023", 30, _aime("2023")),
    _aime_set("aime24", "AIME 2024", 30, _aime("2024")),
    EvaluationSet(
        name="aime25",
        title="AIME 2025",
        ability="math",
        rows=30,
        read=_answered("problem", "expected_answer|answer"),
        licence=_MAA,
        file="aime25.jsonl",
        address=f"{_SKILLS}/nemo_skills/dataset/aime25/test.txt",
        sha256="b672f9c6660b68dd42f5fc705b17405f24eaa9991c98991d63463c6b683468a8",
        dataset="math-ai/aime25:test",
    ),
    EvaluationSet(
        name="amc",
        title="AMC 12 2022 and 2023",
        ability="math",
        rows=83,
        read=_answered("question|problem", "answer"),
        licence=_MAA,
        file="amc.jsonl",
        address=f"{_PRIME}/AI-MO/aimo-validation-amc/aimo-validation-amc.jsonl",
        sha256="f4d4c28866b1b7dee913538f5bf9760b69532fe0c25eb1b765905546bd61846e",
        dataset="AI-MO/aimo-validation-amc:train",
    ),
    EvaluationSet(
        name="amc23",
        title="AMC 12 2023",
        ability="math",
        rows=40,
        read=_answered("question|problem", "answer"),
        licence=_MAA,
        file="amc23.jsonl",
        address=f"{_QWEN}/amc23/test.jsonl",
        sha256="43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4",
        dataset="math-ai/amc23:test",
    ),
    EvaluationSet(
        name="math500",
        title="MATH-500",
        ability="math",
        rows=500,
        read=_answered("problem", "expected_answer|answer"),
        licence="MIT",
        file="math500.json",
        address=f"{_PRIME}/math500/math_test_cleaned.json",
        sha256="8b7943482dadca3c0c9819db270aee203ab6d51a461e6ff59b99d5edc7f529ec",
        dataset="HuggingFaceH4/MATH-500:test",
    ),
    EvaluationSet(
        name="gsm8k",
        title="GSM8K",
        ability="math",
        rows=1319,
        read=_gsm8k,
        licence="MIT",
        file="gsm8k_test.jsonl",
        address=f"{_GSM8K}/grade_school_math/data/test.jsonl",
        sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        dataset="openai/gsm8k:test",
    ),
    EvaluationSet(
        name="minerva",
        title="Minerva",
        ability="math",
        rows=272,
        read=_minerva,
        licence="problems of MIT OpenCourseWare, CC BY-NC-SA",
        file="minerva.jsonl",
        address=f"{_PRIME}/minerva_math/test.jsonl",
        sha256="0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2",
        dataset="math-ai/minervamath:test",
    ),
    EvaluationSet(
        name="olympiadbench",
        title="OlympiadBench, English open-ended mathematics",
        ability="math",
        rows=675,
        read=_olympiad_bench,
        licence="none is stated",
        file="olympiadbench.jsonl",
        address=f"{_PRIME}/olympiadbench/test.jsonl",
        sha256="bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416",
        dataset="math-ai/olympiadbench:test",
    ),
    EvaluationSet(
        name="humaneval",
        title="HumanEval",
        ability="code",
        rows=164,
        read=_human_eval,
        licence="MIT",
        file="humaneval.jsonl.gz",
        address=f"{_PRIME}/humaneval/HumanEval.jsonl.gz",
        sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        dataset="openai/openai_humaneval:test",
    ),
    EvaluationSet(
        name="mbpp",
        title="MBPP, as in PRIME's evaluation",
        ability="code",
        rows=399,
        read=_mbpp,
        licence="CC BY 4.0",
        file="mbpp.json",
        address=f"{_PRIME}/mbpp/new_mbpp.json",
        sha256="19247247bb52143392f7e10d208144c65c008701ab3591095b6929c29f64462a",
        dataset="google-research-datasets/mbpp:test",
    ),
    EvaluationSet(
        name="leetcode",
        title="LeetCode weekly contests, July 2023 to January 2024",
        ability="code",
        rows=180,
        read=_leetcode,
        licence="problem text of LeetCode",
        file="leetcode.jsonl",
        address=f"{_PRIME}/leetcode/leetcode-test.json",
        sha256="7630417651034cfef749d2b21b47163921e1199e078b39ecbc218b4e7c73fbfc",
    ),
    _live_code_bench_set("v2", "2024-06-01", 511),
    _live_code_bench_set("v3", "2024-08-04", 612),
    _live_code_bench_set("v4", "2024-11-02", 713),
    _process_bench_set("gsm8k", 400, "fb1c59dfd1e83e1c5a48dbe598db27e4bc0b8bc524a09445f2d4b69178f61349"),
    _process_bench_set("math", 1000, "60cb0d7a69cbec98d43cf50855b9b7e7294599c3c9a24bdd031abd18c3b6b136"),
    _process_bench_set("olympiadbench", 1000, "e9d801c9f3c03f949adbfa08e90cb21ad85c0b9224bc5e98326f8215c218aa55"),
    _process_bench_set("omnimath", 1000, "e8d7cf4512c82168dae2fe48b1718069a3002e7910af1d180a27ee0d9948ba47"),
)
