"""Parses LaTeX into sympy expressions with the parser of Math-Verify. Runs inside the workers only.

The text is first put the way the parser reads as we mean it: decimals as exact fractions, mixed numbers as sums.
"""

import functools
import re
from typing import Any

from services.verifier.mathematics.brackets import split_outside
from services.verifier.mathematics.opaque import symbol_for

_KEPT_GOLDS = 2048
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_APPLIED = re.compile(r"(?<![a-zA-Z])([f-hF-HuvP])(?:'|\^\{-1\})*\(")
_END_OF_TEXT = -1
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(?![\d.])")
_EXPONENT = re.compile(r"(?<=\d)[eE]([-+]?\d+)")
_MIXED = re.compile(r"(?<![\d.^_}])(\d+) ?\\frac\{(\d+)\}\{(\d+)\}")
_PRODUCT = re.compile(r"(?<![\w^.])\d+(?:\.\d+)?(?=\()|\)(?=\\frac)")
# Names that the parser takes for a function, for a constant, or not at all, where they stand for a quantity.
_NAME = re.compile(
    r"\\(?!gamma(?![a-zA-Z])|Gamma(?![a-zA-Z]))[a-zA-Z]+"
    r"|(?P<name>\\gamma|\\Gamma|I|[eE](?=_))(?:_\{?(?P<index>\w+?)(?:\}|(?<=_\w)))?(?P<called>\()?"
)
_RENAMED = {"\\gamma": "g_{9901", "\\Gamma": "G_{9902", "I": "J_{9903", "e": "f_{9904", "E": "F_{9905"}
_BASE = re.compile(r"(?P<command>\\(?!(?:pi|theta|alpha|beta|lambda|phi)\^)[a-zA-Z]+)|\\[a-z]+|[a-df-zA-Z](?=\^)")
# Behind a function, in a derivative or in a tower, a brace could change what belongs together.
_KEPT_BASES = re.compile(
    r"\\(?:sin|cos|tan|cot|sec|csc|arc[a-z]+|[a-z]*h|ln|log|exp|det|text)(?![a-zA-Z])|\bd\^|[fgh]\^|[a-zA-Z]\(|\^\w\^"
)


@functools.lru_cache(maxsize=_KEPT_GOLDS)
def parse_gold(text: str, applied: frozenset[str] = frozenset()) -> Any:
    """Like `parse`, for texts that come again."""
    return parse(text, applied)


def parse(text: str, applied: frozenset[str] = frozenset()) -> Any:
    """The expression that a LaTeX text stands for, upper and lower case kept apart, or None.

    Letters in `applied` are functions: `f(x+y)` with `f` among them is one symbol, not a product.
    """
    try:
        values: dict[str, Any] = {}
        if applied:
            text = _with_applied_functions(text, applied, values)
        parsed = _with_imaginary_unit(_parser()(_readable(text)))
        return _with_values(parsed, values) if values else parsed
    except (MemoryError, RecursionError):
        raise
    except Exception:  # noqa: BLE001 - the parser raises bare exceptions, and others from deep inside sympy
        return None


@functools.cache
def _parser() -> Any:
    import sympy
    from antlr4.atn.PredictionMode import PredictionMode  # type: ignore[import-untyped]
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy

    config = ConversionConfig(lowercase_symbols=False, interpret_contains_as_eq=False)

    class Parser(_Latex2Sympy):  # type: ignore[misc]
        def __init__(self, prediction: Any) -> None:
            super().__init__(None, True, False, config=config)
            self._prediction = prediction

        def create_parser(self, latex_str: str) -> Any:
            self._parser = super().create_parser(latex_str)
            self._parser._interp.predictionMode = self._prediction
            return self._parser

        def parse_number(self, text: str) -> Any:
            # The parser's own way has Python compile and run each number, which takes a quarter of the whole time.
            digits = text.replace(",", "")
            if digits.isascii() and digits.isdigit():
                return sympy.Integer(int(digits))
            return super().parse_number(text)

        def parse_all(self, text: str) -> Any:
            # The grammar is content with a beginning that it knows: `\\sqrt2 & 3` would be the root of two.
            parsed = self.parse(text)
            if self._parser.getCurrentToken().type != _END_OF_TEXT:
                raise ValueError(text)
            return parsed

    def read(text: str) -> Any:
        # With little context prediction is several times faster. Where that is not enough it fails, and never errs.
        try:
            return Parser(PredictionMode.SLL).parse_all(text)
        except (MemoryError, RecursionError):
            raise
        except Exception:  # noqa: BLE001 - see `parse`
            return Parser(PredictionMode.LL).parse_all(text)

    return read


def applied_letters(text: str) -> frozenset[str]:
    """The letters among f, g, h, F, G, H, P and so on that stand in front of a bracket wherever they occur."""
    if "(" not in text:
        return frozenset()
    plain = _COMMAND.sub(" ", text)
    return frozenset(
        letter
        for letter in set(_APPLIED.findall(plain))
        if plain.count(letter) == len(re.findall(rf"(?<![a-zA-Z]){letter}(?:'|\^\{{-1\}})*\(", plain))
    )


def _with_applied_functions(text: str, applied: frozenset[str], values: dict[str, Any]) -> str:
    """The text with a symbol for each value of a function; `values` is given what they stand for."""
    import sympy

    # Of an unmarked letter with one argument the parser makes a function by itself.
    letters = "".join(sorted(applied))
    marks = r"(?:'|\^\{-1\})"
    found = re.search(rf"(?<![\\a-zA-Z])([{letters}])({marks}+\(|\((?![a-zA-Z]\)))", text)
    if found is None:
        return text
    end = _closing(text, found.end() - 1)
    arguments = [parse(part, applied) for part in split_outside(text[found.end() : end], ",")]
    if end < 0 or None in arguments:
        raise ValueError(text)
    value = sympy.Function(found.group(1) + found.group(2)[:-1])(*(sympy.expand(argument) for argument in arguments))
    symbol = symbol_for(sympy.srepr(value))
    values[symbol] = value
    return text[: found.start()] + symbol + _with_applied_functions(text[end + 1 :], applied, values)


def _with_values(parsed: Any, values: dict[str, Any]) -> Any:
    import sympy

    if not isinstance(parsed, sympy.Basic):
        return parsed
    return parsed.xreplace({symbol: values[symbol.name] for symbol in parsed.free_symbols if symbol.name in values})


def _closing(text: str, opening: int) -> int:
    depth = 0
    for index in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return index
    return -1


def _readable(text: str) -> str:
    text = _EXPONENT.sub(r"\\cdot10^{\1}", text)
    text = _PRODUCT.sub(r"\g<0>\\cdot ", _MIXED.sub(_sum, text))
    text = _NAME.sub(_renamed, _DECIMAL.sub(_fraction, text))
    return text if _KEPT_BASES.search(text) else _BASE.sub(_braced, text)


def _fraction(match: re.Match[str]) -> str:
    # The parser would read a decimal as a binary number.
    whole, decimals = match.groups()
    return f"\\frac{{{int(whole + decimals)}}}{{{10 ** len(decimals)}}}"


def _sum(match: re.Match[str]) -> str:
    # The parser takes `3(\frac12)` for a mixed number, and `3\frac12x` for none.
    whole, numerator, denominator = match.groups()
    return match.group() if int(numerator) >= int(denominator) else f"({whole}+\\frac{{{numerator}}}{{{denominator}}})"


def _renamed(match: re.Match[str]) -> str:
    name = match.group("name")
    if name is None or (name[0] == "\\" and match.group("called")):
        return match.group()
    return f"{_RENAMED[name]}{match.group('index') or ''}}}{match.group('called') or ''}"


def _braced(match: re.Match[str]) -> str:
    # `{x}^2` is read with little context, `x^2` only with all of it.
    return match.group() if match.group("command") else f"{{{match.group()}}}"


def _with_imaginary_unit(parsed: Any) -> Any:
    import sympy

    if not isinstance(parsed, sympy.Basic):
        return parsed
    units = [symbol for symbol in parsed.free_symbols if symbol.name == "i"]
    return parsed.xreplace(dict.fromkeys(units, sympy.I)) if units else parsed
