"""A gold with answers that are known to be right or wrong, and the list of makers of such problems."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

Answers = Mapping[str, str | None]
"""Answers by the name of the rewriting or of the lie. None: this draw has no such answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`Problem(gold="5", right={"with a point": "5.0"}, wrong={"off by one": "6"})`."""

    gold: str
    right: Answers = field(default_factory=dict)
    wrong: Answers = field(default_factory=dict)
    whole_right: Answers = field(default_factory=dict)
    """Whole responses, to be taken as they stand; the other answers are put in a box."""
    whole_wrong: Answers = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    """Of an equation or inequality: identities in these letters are lies about it."""
    inequality: bool = False
    is_value: bool = True
    """One number, tuple or expression: a second alternative beside it is a hedge, and an empty set is wrong."""
    is_textual: bool = False
    """Words and letters: spelling an answer otherwise may change them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiePair:
    """One answer beside its gold, and whether it is right. Known by construction, never asked of a grader."""

    form: str
    kind: str
    gold: str
    response: str
    expected: bool


Maker = Callable[[Random], Problem]

FORMS: dict[str, Maker] = {}


def form(name: str) -> Callable[[Maker], Maker]:
    """Register a maker of problems whose answers have this form."""

    def register(maker: Maker) -> Maker:
        assert name not in FORMS, name
        FORMS[name] = maker
        return maker

    return register


def listed(answers: Answers) -> Iterator[tuple[str, str]]:
    """The answers that this draw has."""
    for kind, answer in answers.items():
        if answer is not None:
            yield kind, answer
