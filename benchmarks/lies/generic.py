"""Lies that fit any gold, lies about any equation, and the dress of a response, which changes nothing."""

from collections.abc import Callable
from random import Random

from benchmarks.lies.problem import Problem, listed

PROSE = (
    "\\text{The answer cannot be determined from the given information}",
    "\\text{we have to find the value that is asked for}",
    "I do not know",
    "\\text{What is the value of } x \\text{?}",
    "the same as in the problem statement",
    "\\text{see above}",
)
TOWERS = (
    "9^{9^{9^{9}}}",
    "10^{10^{10}}",
    "\\frac{7^{7^{7^{7}}}-7}{6}",
    "2^{2^{2^{2^{2^{2}}}}}",
    "(10^9)!",
    "e^{e^{e^{e^{e}}}}",
)
EMPTY = ("", " ", "\\text{}", "?", "\\ldots", "\\quad", "{}", "-", "\\_\\_\\_")


def any_lies(problem: Problem, source: Random) -> dict[str, str]:
    """What is wrong whatever the gold is."""
    lies = {
        "prose": source.choice(PROSE),
        "tower": source.choice(TOWERS),
        "empty": source.choice(EMPTY),
        "not the gold": f"\\text{{not }}{problem.gold}",
        "a falsehood": source.choice(("1=2", "0=1", "3=5", "2<1")),
        "a tautology": source.choice(("1<2", "q=q", "q+1=1+q", "\\sin q=\\sin q")),
    }
    if problem.is_value:
        answers = [answer for kind, answer in listed(problem.wrong) if kind not in ("name alone", "itself")]
        if answers:
            other = source.choice(answers)
            lies["hedge"] = f"{other}\\text{{ or }}{problem.gold}"
            lies["hedge, right one first"] = f"{problem.gold}\\text{{ or }}{other}"
        lies["empty set"] = source.choice(("\\emptyset", "\\{\\}", "\\text{no solution}"))
        lies["everything"] = source.choice(("(-\\infty,\\infty)", "\\mathbb{R}", "\\text{all real numbers}"))
        lies["a set with more"] = f"\\{{{problem.gold}, 1234\\}}"
        lies["itself and more"] = f"{problem.gold}, 1234"
    if problem.variables:
        lies |= _identities(problem, source)
    return lies


def _identities(problem: Problem, source: Random) -> dict[str, str]:
    """True for all values of the gold's own letters, so no answer to an equation or inequality."""
    x, y, *more = problem.variables
    z = more[0] if more else "1"
    both = f"({x}+{y})"
    every = "".join(f"{{{letter}}}" for letter in problem.variables)
    k = source.randint(2, 9)
    sides = source.choice(
        (
            (f"\\sin({x}+{y})", f"\\sin {x}\\cos {y}+\\cos {x}\\sin {y}"),
            (f"\\cos({x}-{y})", f"\\cos {x}\\cos {y}+\\sin {x}\\sin {y}"),
            (f"\\sin^2({every})+\\cos^2({every})", "1"),
            (f"{both}^2", f"{x}^2+2{{{x}}}{{{y}}}+{y}^2"),
            (f"{x}^2-{y}^2", f"({x}-{y})({x}+{y})"),
            (f"{x}+{y}", f"\\frac{{{x}^2-{y}^2}}{{{x}-{y}}}"),
            (f"e^{{{x}+{y}}}", f"e^{{{x}}}e^{{{y}}}"),
            (f"\\ln(e^{{{x}+{y}}})", f"{x}+{y}"),
            (f"{k}{both}", f"{k}{x}+{k}{y}"),
            (f"\\sin(2{both})", f"2\\sin{both}\\cos{both}"),
            (f"\\tan({x}+{y})", f"\\frac{{\\tan {x}+\\tan {y}}}{{1-\\tan {x}\\tan {y}}}"),
            (f"{x}^3-{y}^3", f"({x}-{y})({x}^2+{{{x}}}{{{y}}}+{y}^2)"),
            (f"\\cos^2({x}+{y}+{z})", f"1-\\sin^2({x}+{y}+{z})"),
            (f"\\sin({x}+{y}+{z})", f"\\sin({x}+{y})\\cos {z}+\\cos({x}+{y})\\sin {z}"),
            (f"\\cosh^2({x}{y})-\\sinh^2({x}{y})", "1"),
            (f"{x}+{y}", f"{y}+{x}"),
            (f"\\sqrt{{{both}^2}}", f"|{x}+{y}|"),
            (f"{k}\\sin({x}+{y})", f"{k}\\sin {x}\\cos {y}+{k}\\cos {x}\\sin {y}"),
            (f"\\log_2(2^{{{x}-{y}}})", f"{x}-{y}"),
        )
    )
    signs = ["=", "\\le ", "<", "\\ge ", ">", "\\ne "]
    sign = source.choice(signs) if problem.inequality or source.random() < 0.15 else "="
    one, two = sides if source.random() < 0.5 else sides[::-1]
    return {
        f"identity with {sign.strip()}": f"{one}{sign}{two}",
        "identity moved to zero": f"{one}-\\left({two}\\right){sign}0",
        "identity times a number": f"{k}\\left({one}\\right){sign}{k}\\left({two}\\right)",
        "identity plus the left side": f"{_left(problem.gold)}+{one}{sign}{_left(problem.gold)}+{two}",
        "gold's left side twice": f"{_left(problem.gold)}{sign}{_left(problem.gold)}",
    }


def _left(gold: str) -> str:
    for sign in ("=", "\\le ", "\\ge ", "<", ">"):
        if sign in gold:
            return gold.split(sign)[0]
    return gold


Dress = Callable[[str, Random], str]


def _words(source: Random) -> str:
    return source.choice(
        (
            "So the answer is ",
            "Let us see. We find that the result is as follows.\n\nThe answer is ",
            "After simplifying, we get ",
            "Therefore, the final answer is: ",
            "",
            "**Final Answer**\n\n",
            "Step 1: compute. Step 2: conclude.\nHence ",
        )
    )


def respond(answer: str, source: Random) -> str:
    """A whole response with the answer in its box."""
    box = f"\\boxed{{{answer}}}"
    return _words(source) + source.choice(
        (
            f"${box}$.",
            f"\\({box}\\).",
            f"\\[{box}\\]",
            f"$$\n{box}\n$$",
            f"$$ {box} $$",
            box,
            f"**${box}$**",
            f"\\boxed {{{answer}}}",
            f"\\begin{{align*}}\n{box}\n\\end{{align*}}",
            f"${box}$\n\nThis completes the solution.",
            f"$\\displaystyle {box}$",
        )
    )


def dress(answer: str, source: Random, is_textual: bool) -> tuple[str, str]:
    """The answer in other clothes, and what they are called. A right one stays right, a wrong one wrong."""
    plain: dict[str, str] = {"": answer, "braces": f"{{{answer}}}", "spaces": f" {answer} ", "full stop": f"{answer}."}
    if not is_textual:
        plain |= {
            "display style": f"\\displaystyle {answer}",
            "thin spaces": f"\\,{answer}\\,",
            "dollars": f"${answer}$",
            "red": f"\\color{{red}}{{{answer}}}",
            "blue": f"\\textcolor{{blue}}{{{answer}}}",
            "blue group": f"{{\\color{{blue}}{answer}}}",
            "underlined": f"\\underline{{{answer}}}",
            "bold symbol": f"\\boldsymbol{{{answer}}}",
        }
        if answer.replace("-", "").replace(".", "").isdigit():
            plain |= {"bold": f"\\mathbf{{{answer}}}", "bf": f"\\bf {answer}", "stars": f"**{answer}**"}
    if answer.endswith(("?", ".", ",")) or not answer.strip():
        plain.pop("full stop")
    kind = source.choice(list(plain)) if source.random() < 0.35 else ""
    return plain[kind], kind
