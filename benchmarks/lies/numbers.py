"""Golds that are one plain number."""

from decimal import Decimal
from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import SQUAREFREE, decimal, nonzero, number, proper, root, rounded, slashed, total

_BASE_WORDS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight", 9: "nine"}


@form("integer")
def integer(source: Random) -> Problem:
    n = source.choice((source.randint(2, 99), source.randint(100, 99_999)))
    digits = str(n)
    swapped = digits[:-2] + digits[-1] + digits[-2] if len(digits) > 1 else digits
    return Problem(
        gold=str(n),
        right={
            "with a point": f"{n}.00",
            "plus sign": f"+{n}",
            "leading zero": f"0{n}",
            "fraction": f"\\frac{{{3 * n}}}{{3}}",
            "root of a square": f"\\sqrt{{{n * n}}}",
            "after x=": f"x={n}",
            "named sum": f"m+n={n}",
            "worked out": f"\\frac{{{4 * n}}}{{4}}={n}",
            "in text": f"\\text{{{n}}}",
        },
        wrong={
            "off by one": str(n + source.choice((-1, 1))),
            "sign": f"-{n}",
            "times ten": f"{n}0",
            "a tenth": f"{n // 10}.{n % 10}" if n % 10 else None,
            "last digit": digits[:-1] + str((n + source.randint(1, 9)) % 10),
            "digits swapped": swapped if int(swapped) != n else None,
            "a little more": f"{n}.0001",
            "a little less": f"{n - 1}.999999",
            "twice": f"{n},{n}",
            "plus or minus": f"\\pm {n}",
            "squared": f"{n}^2",
            "inverse": f"\\frac{{1}}{{{n}}}",
            "root": f"\\sqrt{{{n}}}",
            "with pi": f"{n}\\pi",
            "with a letter": f"{n}x",
            "imaginary": f"{n}i",
            "factorial": f"{n}!" if 2 < n < 100 else None,
            "tuple": f"({n},{n})",
            "interval": f"[{n},{n + 1}]",
            "bound": f"x>{n}",
            "excluded": f"x\\ne {n}",
            "chain that does not hold": f"{n + 1}={n}",
            "unsolved": f"x+2={n + 2}",
            "range": f"{n}-{n + 1}",
            "in another base": f"{n}_{{16}}" if n > 9 else None,
            "from ... to": f"{n}\\text{{ to }}{n + 2}",
            "digits apart": " ".join(digits) if n > 9 else None,
        },
    )


@form("negative integer")
def negative(source: Random) -> Problem:
    n = source.randint(2, 9999)
    return Problem(
        gold=f"-{n}",
        right={
            "true minus": f"\u2212{n}",
            "spaced": f"- {n}",
            "with a point": f"-{n}.0",
            "bracketed": f"-({n})",
            "fraction": f"\\frac{{-{2 * n}}}{{2}}",
            "minus in front": f"-\\frac{{{2 * n}}}{{2}}",
            "in the denominator": f"\\frac{{{2 * n}}}{{-2}}",
            "after x=": f"x=-{n}",
        },
        wrong={
            "sign": str(n),
            "off by one": f"-{n + 1}",
            "two signs": f"--{n}",
            "plus or minus": f"\\pm{n}",
            "absolute": f"|-{n}|",
            "bound": f"x<-{n}",
        },
    )


@form("decimal")
def decimals(source: Random) -> Problem:
    places = source.randint(1, 4)
    units = source.randint(11, 99_999)
    units += 1 if units % 10 == 0 else 0
    value = Fraction(units, 10**places)
    text = decimal(value) or ""
    return Problem(
        gold=text,
        right={
            "trailing zero": f"{text}0",
            "fraction": number(value) if value.denominator > 1 else None,
            "over a power of ten": f"\\frac{{{units}}}{{{10**places}}}",
            "slash": slashed(value),
            "after x=": f"x={text}",
            "no leading zero": text[1:] if text.startswith("0.") else None,
        },
        wrong={
            "point moved right": decimal(value * 10),
            "point moved left": decimal(value / 10),
            "last digit": decimal(value + Fraction(1, 10**places)),
            "truncated": decimal(Fraction(units // 10, 10 ** (places - 1))),
            "one more digit": f"{text}1",
            "sign": f"-{text}",
            "comma": text.replace(".", ", "),
            "repeating": f"{text[:-1]}\\overline{{{text[-1]}}}",
        },
    )


@form("scientific")
def scientific(source: Random) -> Problem:
    tenths, exponent = source.randint(11, 99), source.choice((-7, -5, -4, -3, 3, 4, 6, 8, 12, 23))
    tenths += tenths % 10 == 0
    mantissa = f"{tenths // 10}.{tenths % 10}"
    return Problem(
        gold=f"{mantissa}\\times 10^{{{exponent}}}",
        right={
            "dot": f"{mantissa}\\cdot 10^{{{exponent}}}",
            "e": f"{mantissa}e{exponent}",
            "E": f"{mantissa}E{exponent}",
            "written out": decimal(Fraction(tenths, 10) * Fraction(10) ** exponent) if abs(exponent) < 9 else None,
            "other mantissa": f"{tenths}\\times 10^{{{exponent - 1}}}",
            "unicode": f"{mantissa} \u00d7 10^{{{exponent}}}",
        },
        wrong={
            "exponent": f"{mantissa}\\times 10^{{{exponent + 1}}}",
            "sign of the exponent": f"{mantissa}\\times 10^{{{-exponent}}}",
            "mantissa": f"{tenths // 10}.{(tenths + 1) % 10}\\times 10^{{{exponent}}}",
            "no exponent": mantissa,
            "sign": f"-{mantissa}\\times 10^{{{exponent}}}",
            "e to a power": f"{mantissa}e^{{{exponent}}}",
            "letter": f"{mantissa}\\times x^{{{exponent}}}",
        },
    )


@form("fraction")
def fraction(source: Random) -> Problem:
    value = proper(source, 40) * source.choice((1, 1, -1))
    top, bottom, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    written = decimal(value)
    whole = top // bottom
    return Problem(
        gold=number(value),
        right={
            "dfrac": f"{sign}\\dfrac{{{top}}}{{{bottom}}}",
            "tfrac": f"{sign}\\tfrac{{{top}}}{{{bottom}}}",
            "cfrac": f"{sign}\\cfrac{{{top}}}{{{bottom}}}",
            "slash": f"{sign}{top}/{bottom}",
            "spaced": f"{sign}\\frac {{ {top} }} {{ {bottom} }}",
            "short": f"{sign}\\frac{top}{bottom}" if top < 10 and bottom < 10 else None,
            "sign above": f"\\frac{{{sign}{top}}}{{{bottom}}}",
            "not reduced": f"{sign}\\frac{{{3 * top}}}{{{3 * bottom}}}",
            "decimal": written,
            "rounded rightly": rounded(value, 8) if not written and abs(value) > Fraction(1, 100) else None,
            "product": f"{sign}{top}\\cdot\\frac{{1}}{{{bottom}}}",
            "negative power": f"{sign}{top}\\cdot {bottom}^{{-1}}",
            "mixed": f"{sign}{whole}\\frac{{{top % bottom}}}{{{bottom}}}" if whole else None,
            "after x=": f"x={sign}\\frac{{{top}}}{{{bottom}}}",
        },
        wrong={
            "inverse": f"{sign}\\frac{{{bottom}}}{{{top}}}",
            "numerator": f"{sign}\\frac{{{top + 1}}}{{{bottom}}}",
            "denominator": f"{sign}\\frac{{{top}}}{{{bottom + 1}}}",
            "sign": number(-value),
            "numerator alone": f"{sign}{top}",
            "two decimals": rounded(value, 2) if not written else None,
            "truncated": rounded(value, 6, off=1) if not written else None,
            "ratio turned": f"{sign}{bottom}/{top}",
            "wrong mixed": f"{sign}{whole + 1}\\frac{{{top % bottom}}}{{{bottom}}}" if whole else None,
            "with a letter": f"{number(value)}n",
            "power": f"\\frac{{{top}^2}}{{{bottom}}}" if top > 1 or value < 0 else None,
        },
    )


@form("repeating decimal")
def repeating(source: Random) -> Problem:
    block = source.randint(1, 98)
    if block % 11 == 0:
        block += 1
    text = f"{block:02d}"
    value = Fraction(block, 99)
    return Problem(
        gold=f"0.\\overline{{{text}}}",
        right={
            "fraction": number(value),
            "over 99": f"\\frac{{{block}}}{{99}}",
            "block twice": f"0.\\overline{{{text}{text}}}",
            "one period written": f"0.{text}\\overline{{{text}}}",
        },
        wrong={
            "no bar": f"0.{text}",
            "bar over one digit": f"0.{text[0]}\\overline{{{text[1]}}}",
            "turned": f"0.\\overline{{{text[::-1]}}}",
            "over 100": f"\\frac{{{block}}}{{100}}",
            "other block": f"0.\\overline{{{(block + 1) % 100:02d}}}",
        },
    )


@form("mixed number")
def mixed(source: Random) -> Problem:
    whole, part = source.randint(1, 30), proper(source, 9)
    part -= int(part)
    if part == 0:
        part = Fraction(1, 2)
    top, bottom = part.numerator, part.denominator
    value = whole + part
    return Problem(
        gold=f"{whole}\\frac{{{top}}}{{{bottom}}}",
        right={
            "spaced": f"{whole} \\frac{{{top}}}{{{bottom}}}",
            "dfrac": f"{whole}\\dfrac{{{top}}}{{{bottom}}}",
            "thin space": f"{whole}\\,\\frac{{{top}}}{{{bottom}}}",
            "slash": f"{whole} {top}/{bottom}",
            "improper": number(value),
            "improper slash": slashed(value),
            "sum": f"{whole}+\\frac{{{top}}}{{{bottom}}}",
            "decimal": decimal(value),
        },
        wrong={
            "product": f"{whole}\\cdot\\frac{{{top}}}{{{bottom}}}" if whole * part != value else None,
            "whole changed": f"{whole + 1}\\frac{{{top}}}{{{bottom}}}",
            "part changed": f"{whole}\\frac{{{top}}}{{{bottom + 1}}}",
            "whole alone": str(whole),
            "part alone": f"\\frac{{{top}}}{{{bottom}}}",
            "sign": f"-{whole}\\frac{{{top}}}{{{bottom}}}",
            "difference": f"{whole}-\\frac{{{top}}}{{{bottom}}}",
            "digits joined": f"\\frac{{{whole}{top}}}{{{bottom}}}",
        },
    )


@form("percent")
def percent(source: Random) -> Problem:
    value = Fraction(source.randint(2, 990), source.choice((1, 1, 2, 10)))
    if value in (100, 10):
        value += 1
    text = decimal(value) or ""
    return Problem(
        gold=f"{text}\\%",
        right={
            "bare sign": f"{text}%",
            "spaced": f"{text} \\%",
            "bare number": text,
            "in words": f"{text}\\text{{ percent}}",
            "value": decimal(value / 100),
            "fraction": number(value / 100),
            "trailing zero": f"{text}{'0' if '.' in text else '.0'}\\%",
        },
        wrong={
            "other": f"{decimal(value + 1)}\\%",
            "value in percent": f"{decimal(value / 100)}\\%",
            "times ten": decimal(value * 10),
            "a tenth": decimal(value / 10),
            "times a hundred": f"{decimal(value * 100)}\\%",
            "sign": f"-{text}\\%",
            "currency": f"\\${text}",
            "a thousandth": decimal(value / 10000),
            "rest": f"{decimal(100 - value)}\\%" if value != 50 else None,
        },
    )


def _digits(value: int, base: int) -> str:
    text = ""
    while value:
        value, digit = divmod(value, base)
        text = "0123456789ABCDEF"[digit] + text
    return text


@form("number in a base")
def based(source: Random) -> Problem:
    base = source.randint(2, 9)
    digits = _digits(source.randint(base * base, base**5), base)
    other = base + 1 if base < 9 else 11
    changed = digits[:-1] + str((int(digits[-1]) + 1) % base)
    return Problem(
        gold=f"{digits}_{base}" if source.random() < 0.5 else f"{digits}_{{{base}}}",
        right={
            "braces": f"{digits}_{{{base}}}",
            "brackets": f"({digits})_{base}",
            "base in words": f"{digits}_{{\\text{{{_BASE_WORDS[base]}}}}}",
            "after N=": f"N={digits}_{base}",
        },
        wrong={
            "other base": f"{digits}_{{{other}}}",
            "digit": f"{changed}_{base}",
            "sign": f"-{digits}_{base}",
            "value, other base": f"{_digits(int(digits, base), 10)}_{{{base}}}",
            "base for digits": f"{base}_{{{digits}}}",
            "power": f"{digits}^{base}",
        },
    )


@form("number in a base inside a form")
def based_inside(source: Random) -> Problem:
    base = source.randint(3, 8)
    one, two = (_digits(n, base) for n in source.sample(range(base, base**4), 2))
    wrap = source.choice(
        ("-{}_{}", "x={}_{}", "\\{{{}_{}\\}}", "2\\cdot {}_{}", "n=-{}_{}", "+{}_{}", "\\frac{{{}_{}}}{{7}}", "|{}_{}|")
    )
    joined = source.choice(
        ("{}_{}, {}_{}", "({}_{}, {}_{})", "\\{{{}_{}, {}_{}\\}}", "{}_{}+{}_{}", "x={}_{}, y={}_{}")
    )
    single = source.random() < 0.5
    gold = wrap.format(one, base) if single else joined.format(one, base, two, base)

    def with_base(name: object) -> str:
        return wrap.format(one, name) if single else joined.format(one, name, two, name)

    return Problem(
        gold=gold,
        right={"braces": with_base(f"{{{base}}}"), "in words": with_base(f"{{\\text{{{_BASE_WORDS[base]}}}}}")},
        wrong={
            "other base": with_base(base + 1),
            "ten": with_base("{10}"),
            "no base": wrap.format(one, "").replace("_", "")
            if single
            else joined.format(one, "", two, "").replace("_", ""),
            "one base of two": None if single else joined.format(one, base, two, base + 1),
            "order of bases": None if single or "+" in joined else joined.format(one, base + 1, two, base),
        },
    )


@form("residue")
def residue(source: Random) -> Problem:
    modulus = source.randint(5, 40)
    rest = source.randint(1, modulus - 1)
    return Problem(
        gold=source.choice((f"{rest}\\pmod{{{modulus}}}", f"x\\equiv {rest}\\pmod{{{modulus}}}")),
        right={
            "no braces": f"{rest}\\pmod {{{modulus}}}",
            "with x": f"x\\equiv {rest}\\pmod{{{modulus}}}",
            "next": f"x\\equiv {rest + modulus}\\pmod{{{modulus}}}",
            "negative": f"x\\equiv {rest - modulus}\\pmod{{{modulus}}}",
            "mod": f"{rest} \\mod {modulus}",
        },
        wrong={
            "other rest": f"x\\equiv {(rest + 1) % modulus}\\pmod{{{modulus}}}",
            "other modulus": f"x\\equiv {rest}\\pmod{{{modulus + 1}}}",
            "twice the modulus": f"x\\equiv {rest}\\pmod{{{2 * modulus}}}",
            "sign": f"x\\equiv {-rest}\\pmod{{{modulus}}}" if 2 * rest != modulus else None,
            "two rests": f"x\\equiv {rest},{(rest + 2) % modulus}\\pmod{{{modulus}}}",
            "turned": f"x\\equiv {modulus}\\pmod{{{rest}}}" if rest > 1 else None,
        },
    )


@form("thousands")
def thousands(source: Random) -> Problem:
    groups = [str(source.randint(1, 999))] + [f"{source.randint(0, 999):03d}" for _ in range(source.randint(1, 3))]
    other = [*groups[:-1], f"{(int(groups[-1]) + source.randint(1, 998)) % 1000:03d}"]
    spellings = (",", "{,}", ",\\!", ",\\! ", "\\,", "\\;", "\\ ", "{,}\\!", "\\, ", "~")
    gap, gold_gap = source.choice(spellings), source.choice((*spellings, "", ""))
    turned = [groups[0], *reversed(groups[1:])]
    return Problem(
        gold=gold_gap.join(groups),
        right={
            **{f"by {way!r}": way.join(groups) for way in (*spellings, "")},
            "with a point": ",".join(groups) + ".0",
            "after x=": f"x={gap.join(groups)}",
            "with a unit": f"{gap.join(groups)}\\text{{ m}}",
        },
        wrong={
            "last group": gap.join(other),
            "a group less": gap.join(groups[:-1]),
            "a group more": gap.join([*groups, "000"]),
            "first group lost": gap.join(groups[1:]) if int(groups[0]) else None,
            "groups turned": gap.join(turned) if turned != groups else None,
            "point": ".".join(groups) if len(groups) == 2 else None,
            "sign": "-" + gap.join(groups),
            "two numbers": ", ".join(groups),
        },
    )


@form("radical")
def radical(source: Random) -> Problem:
    factor, inside = source.randint(2, 20), source.choice(SQUAREFREE)
    exact = factor * root(inside)
    return Problem(
        gold=f"{factor}\\sqrt{{{inside}}}",
        right={
            "under the root": f"\\sqrt{{{factor * factor * inside}}}",
            "factor behind": f"\\sqrt{{{inside}}}\\cdot {factor}",
            "spaced": f"{factor} \\sqrt {{{inside}}}",
            "power": f"{factor}\\cdot {inside}^{{1/2}}",
            "root below": f"\\frac{{{factor * inside}}}{{\\sqrt{{{inside}}}}}",
            "rounded rightly": rounded(exact, 8),
            "worked out": f"\\sqrt{{{factor * factor * inside}}}={factor}\\sqrt{{{inside}}}",
            "about": f"{factor}\\sqrt{{{inside}}}\\approx {rounded(exact, 2)}",
        },
        wrong={
            "factor": f"{factor + 1}\\sqrt{{{inside}}}",
            "inside": f"{factor}\\sqrt{{{inside + 1}}}",
            "factor under the root": f"\\sqrt{{{factor * inside}}}",
            "cube root": f"{factor}\\sqrt[3]{{{inside}}}",
            "sign": f"-{factor}\\sqrt{{{inside}}}",
            "both signs": f"\\pm {factor}\\sqrt{{{inside}}}",
            "no root": str(factor * inside),
            "two decimals": rounded(exact, 2),
            "rounded wrongly": rounded(exact, 7, off=1),
            "sum": f"{factor}+\\sqrt{{{inside}}}",
            "about another": f"{factor + 1}\\sqrt{{{inside}}}\\approx {rounded(exact, 2)}",
            "nearly under the root": f"\\sqrt{{{factor * factor * inside + 1}}}",
        },
    )


@form("sum with a radical")
def surd(source: Random) -> Problem:
    p, q, inside, below = nonzero(source, 12), nonzero(source, 9), source.choice(SQUAREFREE), source.randint(2, 9)
    root_ = f"\\sqrt{{{inside}}}"
    other_root = f"\\sqrt{{{inside + 1}}}"
    norm = p * p - q * q * inside
    return Problem(
        gold=f"\\frac{{{total((p, ''), (q, root_))}}}{{{below}}}",
        right={
            "commuted": f"\\frac{{{total((q, root_), (p, ''))}}}{{{below}}}",
            "split": total((Fraction(p, below), ""), (Fraction(q, below), root_)),
            "slash": f"({total((p, ''), (q, root_))})/{below}",
            "rationalised the other way": f"\\frac{{{norm}}}{{{below}({total((p, ''), (-q, root_))})}}",
            "scaled": f"\\frac{{{total((2 * p, ''), (2 * q, root_))}}}{{{2 * below}}}",
            "signs turned": f"\\frac{{{total((-p, ''), (-q, root_))}}}{{-{below}}}",
        },
        wrong={
            "conjugate": f"\\frac{{{total((p, ''), (-q, root_))}}}{{{below}}}",
            "both": f"\\frac{{{p}\\pm {abs(q)}{root_}}}{{{below}}}",
            "sign": f"-\\frac{{{total((p, ''), (q, root_))}}}{{{below}}}",
            "denominator": f"\\frac{{{total((p, ''), (q, root_))}}}{{{below + 1}}}",
            "half divided": total((p, ""), (Fraction(q, below), root_)),
            "inside": f"\\frac{{{total((p, ''), (q, other_root))}}}{{{below}}}",
            "turned": f"\\frac{{{below}}}{{{total((p, ''), (q, root_))}}}",
        },
    )


@form("multiple of pi or e")
def constant(source: Random) -> Problem:
    value = proper(source, 12) if source.random() < 0.7 else Fraction(source.randint(2, 60))
    name, other = source.choice((("\\pi", "e"), ("e", "\\pi")))
    top, bottom = value.numerator, value.denominator
    below = f"\\frac{{{top if top > 1 else ''}{name}}}{{{bottom}}}" if bottom > 1 else f"{top}{name}"
    near = Decimal("3.14159265358979323846") if name == "\\pi" else Decimal("2.71828182845904523536")
    exact = near * top / bottom
    return Problem(
        gold=below,
        right={
            "factor in front": f"{number(value)}{name}",
            "factor behind": f"{name}\\cdot{number(value)}",
            "slash": f"{top}{name}/{bottom}",
            "dfrac": below.replace("\\frac", "\\dfrac"),
            "about": f"{below}\\approx {rounded(exact, 2)}",
            "rounded rightly": rounded(exact, 8) if exact > 1 else None,
        },
        wrong={
            "no constant": number(value),
            "other constant": below.replace(name, other),
            "inverse": f"\\frac{{{bottom}{name}}}{{{top}}}" if value != 1 else None,
            "squared": f"{number(value)}{name}^2",
            "one more": f"{number(value + 1)}{name}",
            "sign": f"-{below}",
            "two decimals": rounded(exact, 2),
            "22/7": number(value * Fraction(22, 7)),
            "letter": below.replace(name, "x"),
            "below": f"\\frac{{{top}}}{{{bottom}{name}}}",
        },
    )


@form("complex number")
def complex_number(source: Random) -> Problem:
    a, b = source.sample(range(1, 15), 2)
    a, b = a * source.choice((-1, 1)), b * source.choice((-1, 1))
    return Problem(
        gold=total((a, ""), (b, "i")),
        right={
            "commuted": total((b, "i"), (a, "")),
            "i in front": f"{a}{'+' if b > 0 else '-'}i\\cdot {abs(b)}",
            "after z=": f"z={total((a, ''), (b, 'i'))}",
            "minus taken out": f"-({total((-a, ''), (-b, 'i'))})",
            "times -i": f"-i({total((-b, ''), (a, 'i'))})",
        },
        wrong={
            "conjugate": total((a, ""), (-b, "i")),
            "parts swapped": total((b, ""), (a, "i")),
            "sign": total((-a, ""), (-b, "i")),
            "real part": str(a),
            "imaginary part": total((b, "i")),
            "no i": str(a + b),
            "tuple": f"({a},{b})",
            "both": f"{a}\\pm {abs(b)}i",
            "size": f"\\sqrt{{{a * a + b * b}}}",
        },
    )


@form("logarithm")
def logarithm(source: Random) -> Problem:
    inside, factor = source.choice((2, 3, 5, 6, 7, 10, 11, 13)), source.randint(2, 5)
    return Problem(
        gold=f"{factor}\\ln {inside}",
        right={
            "brackets": f"{factor}\\ln({inside})",
            "power inside": f"\\ln {inside**factor}",
            "of the inverse": f"-{factor}\\ln\\frac{{1}}{{{inside}}}",
            "commuted": f"\\ln({inside})\\cdot {factor}",
            "split": f"\\ln {inside}+\\ln {inside ** (factor - 1)}",
        },
        wrong={
            "base ten": f"{factor}\\log {inside}",
            "factor": f"{factor + 1}\\ln {inside}",
            "inside": f"{factor}\\ln {inside + 1}",
            "factor inside": f"\\ln {factor * inside}" if factor * inside != inside**factor else None,
            "sign": f"-{factor}\\ln {inside}",
            "power outside": f"(\\ln {inside})^{factor}",
            "no logarithm": str(factor * inside),
        },
    )


@form("logarithm to a base")
def based_logarithm(source: Random) -> Problem:
    base, inside = source.sample((2, 3, 5, 6, 7, 10, 11), 2)
    return Problem(
        gold=f"\\log_{{{base}}} {inside}",
        right={
            "brackets": f"\\log_{{{base}}}({inside})",
            "quotient": f"\\frac{{\\ln {inside}}}{{\\ln {base}}}",
            "squares": f"\\log_{{{base * base}}} {inside * inside}",
            "inverse": f"\\frac{{1}}{{\\log_{{{inside}}} {base}}}",
        },
        wrong={
            "swapped": f"\\log_{{{inside}}} {base}",
            "other base": f"\\log_{{{base + 1}}} {inside}",
            "other inside": f"\\log_{{{base}}} {inside + 1}",
            "quotient turned": f"\\frac{{\\ln {base}}}{{\\ln {inside}}}",
            "quotient of numbers": f"\\frac{{{inside}}}{{{base}}}",
            "product": f"\\ln {base}\\cdot\\ln {inside}",
        },
    )


_ANGLES = (
    ("\\frac{1}{2}", "\\sin 30^\\circ", "\\cos\\frac{\\pi}{3}"),
    ("\\frac{\\sqrt{3}}{2}", "\\sin 60^\\circ", "\\cos\\frac{\\pi}{6}"),
    ("\\frac{\\sqrt{2}}{2}", "\\sin 45^\\circ", "\\cos\\frac{\\pi}{4}"),
    ("\\frac{\\sqrt{3}}{3}", "\\tan 30^\\circ", "\\tan\\frac{\\pi}{6}"),
    ("\\sqrt{3}", "\\tan 60^\\circ", "\\tan\\frac{\\pi}{3}"),
    ("\\frac{\\sqrt{6}-\\sqrt{2}}{4}", "\\sin 15^\\circ", "\\cos 75^\\circ"),
    ("2+\\sqrt{3}", "\\tan 75^\\circ", "\\tan\\frac{5\\pi}{12}"),
    ("\\frac{\\pi}{6}", "\\arcsin\\frac{1}{2}", "\\arccos\\frac{\\sqrt{3}}{2}"),
    ("\\frac{\\pi}{4}", "\\arctan 1", "\\arcsin\\frac{\\sqrt{2}}{2}"),
    ("-\\frac{1}{2}", "\\cos 120^\\circ", "\\sin\\frac{7\\pi}{6}"),
)


@form("trigonometric constant")
def trigonometric_constant(source: Random) -> Problem:
    (gold, one, two), (_, lie, _) = source.sample(_ANGLES, 2)
    plain, turned = source.choice(((gold, one), (gold, two)))
    if source.random() < 0.3:
        plain, turned = turned, plain
    return Problem(
        gold=plain,
        right={"other": turned, "same": gold, "worked out": f"{turned}={gold}" if turned != gold else None},
        wrong={
            "other angle": lie,
            "degrees left out": one.replace("^\\circ", "") if "circ" in one else None,
            "sign": f"-({turned})",
            "doubled": f"2\\cdot {turned}",
            "inverse": f"\\frac{{1}}{{{gold}}}",
        },
    )
