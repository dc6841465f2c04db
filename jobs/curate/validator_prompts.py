"""What validators are told, by where a problem comes from. Agreed on for all: a worked solution in LaTeX, a word on
whether the problem can be solved, and a box at the end. This project's own wording.
"""

from collections.abc import Mapping

UNSOLVABLE = "no solution"

_DUTIES = f"""\
Work as follows.
1. Say what is given and what is asked for, and whether that determines one answer.
2. Solve it step by step, with every formula in LaTeX, and show the whole way: also attempts that you gave up, and why.
3. If something stands in your way (a condition that is missing, two that contradict each other, a question with several
   answers, a reference to something that is not there), name it, quote the words, and do not repair the problem.
4. End with one line. If the problem can be solved: its answer in a box, \\boxed{{answer}}, and nothing else in the box.
   If it cannot: \\boxed{{\\text{{{UNSOLVABLE}}}}}."""

_OPENINGS: Mapping[str, str] = {
    "exam": """\
You check exercises from schools and short contests before they are used in an examination. Most are sound, but they
were collected by machine: options were removed, numbers got lost, words were translated. Such an exercise has one short
answer.""",
    "forum": """\
You check problems that people posted in a forum. They are written carelessly: conditions stand in another post, names
are used before they are explained, a question may be a remark, and what is asked may have been proven and not computed.
Take a problem only for what it says. If it does not ask for something that can be written down as an answer, it has no
solution.""",
    "olympiad": """\
You check olympiad problems. They are hard, and their conditions are exact: every one is needed, and a small slip (an
inequality that is not strict, a set that lacks a word such as "distinct" or "positive") changes the answer or leaves
none. Try small cases before you believe an answer, and test the answer in the conditions at the end.""",
}
_KINDS: Mapping[str, str] = {
    "cn_k12": "exam",
    "synthetic_amc": "exam",
    "amc_aime": "exam",
    "synthetic_math": "exam",
    "aops_forum": "forum",
    "olympiads": "olympiad",
}


def kind_of(source: str) -> str:
    """Which prompt goes with a source: by the end of its name; `exam` for those that are not known."""
    return next((kind for ending, kind in _KINDS.items() if source.endswith(ending)), "exam")


def validator_messages(question: str, source: str) -> list[dict[str, str]]:
    """What a validator is asked."""
    return [
        {"role": "system", "content": f"{_OPENINGS[kind_of(source)]}\n\n{_DUTIES}"},
        {"role": "user", "content": question},
    ]
