"""Golds that are numbers in a less usual spelling: dots, powers of primes, bases with a point, physical constants."""

from fractions import Fraction
from random import Random

from benchmarks.lies.problem import Problem, form
from benchmarks.lies.writing import number


@form("decimal with dots")
def dots(source: Random) -> Problem:
    digit = source.randint(1, 8)
    whole = source.choice((0, 0, 1, 7, 12))
    value = whole + Fraction(digit, 9)
    mark = source.choice(("\\ldots", "...", "\\dots", "\\cdots"))
    return Problem(
        gold=f"{whole}.{str(digit) * 3}{mark}",
        right={
            "fraction": number(value),
            "bar": f"{whole}.\\overline{{{digit}}}",
            "more digits": f"{whole}.{str(digit) * 5}\\ldots",
            "other dots": f"{whole}.{str(digit) * 3}\\dots",
        },
        wrong={
            "no dots": f"{whole}.{str(digit) * 3}",
            "other digit": f"{whole}.{str(digit + 1) * 3}\\ldots",
            "over ten": number(whole + Fraction(digit, 10)),
            "whole": str(whole + 5),
            "last digit": f"{whole}.{digit}{digit}{digit + 1}\\ldots",
            "sign": f"-{whole}.{str(digit) * 3}\\ldots",
        },
    )


@form("product of prime powers")
def prime_powers(source: Random) -> Problem:
    a, b, c = source.randint(2, 8), source.randint(1, 5), source.randint(1, 3)
    value = 2**a * 3**b * 5**c
    written = f"2^{a}\\cdot 3^{b}\\cdot 5^{c}"
    return Problem(
        gold=written if source.random() < 0.5 else str(value),
        right={
            "value": str(value),
            "powers": written,
            "times": f"2^{a}\\times 3^{b}\\times 5^{c}",
            "commuted": f"5^{c}\\cdot 2^{a}\\cdot 3^{b}",
            "braces": f"2^{{{a}}}\\cdot 3^{{{b}}}\\cdot 5^{{{c}}}",
            "grouped": f"{value:,}",
        },
        wrong={
            "exponent": f"2^{a + 1}\\cdot 3^{b}\\cdot 5^{c}",
            "sum": f"2^{a}+3^{b}+5^{c}" if 2**a + 3**b + 5**c != value else None,
            "exponents swapped": f"2^{a}\\cdot 3^{c}\\cdot 5^{b}" if b != c else None,
            "one more": str(value + 1),
            "joined": f"2{a}\\cdot 3{b}\\cdot 5{c}" if (20 + a) * (30 + b) * (50 + c) != value else None,
            "a prime lost": f"2^{a}\\cdot 3^{b}",
            "a list": f"2^{a}, 3^{b}, 5^{c}",
            "sign": f"-{value}",
        },
    )


@form("hexadecimal or base with a point")
def odd_bases(source: Random) -> Problem:
    if source.random() < 0.5:
        digits = source.choice("123456789") + "".join(source.sample("0123456789ABCDEF", 2)) + source.choice("ABCDEF")
        base, other = 16, 17
    else:
        base = source.randint(2, 7)
        digits = "0." + "".join(str(source.randint(0, base - 1)) for _ in range(2)) + "1"
        other = base + 1
    return Problem(
        gold=f"{digits}_{{{base}}}",
        right={
            "as it is": f"{digits}_{{{base}}}",
            "brackets": f"({digits})_{{{base}}}",
            "text": f"{digits}_{{\\text{{{base}}}}}",
        },
        wrong={
            "other base": f"{digits}_{{{other}}}",
            "no base": digits,
            "digits turned": f"{digits[:-2]}{digits[-1]}{digits[-2]}_{{{base}}}" if digits[-1] != digits[-2] else None,
            "sign": f"-{digits}_{{{base}}}",
            "a digit more": f"{digits}1_{{{base}}}",
        },
    )


@form("residues")
def residues(source: Random) -> Problem:
    modulus = source.randint(7, 30)
    one, two = sorted(source.sample(range(1, modulus), 2))
    third = next(rest for rest in range(modulus) if rest not in (one, two))
    return Problem(
        gold=f"x\\equiv {one},{two}\\pmod{{{modulus}}}",
        is_value=False,
        right={
            "other order": f"x\\equiv {two},{one}\\pmod{{{modulus}}}",
            "spaced": f"x \\equiv {one}, {two} \\pmod{{{modulus}}}",
        },
        wrong={
            "one": f"x\\equiv {one}\\pmod{{{modulus}}}",
            "one more": f"x\\equiv {one},{two},{third}\\pmod{{{modulus}}}",
            "one changed": f"x\\equiv {one},{third}\\pmod{{{modulus}}}",
            "modulus": f"x\\equiv {one},{two}\\pmod{{{modulus + 1}}}",
            "no modulus": f"x={one},{two}",
        },
    )


@form("physical constant with a unit")
def physical(source: Random) -> Problem:
    tenths, exponent = source.randint(11, 98), source.choice((-19, -7, 3, 5, 8, 11))
    tenths += tenths % 10 == 0
    mantissa = f"{tenths // 10}.{tenths % 10}"
    unit, other = source.choice((("m/s", "km/s"), ("J", "kJ"), ("kg", "g"), ("N", "kN"), ("Hz", "kHz"), ("m", "km")))
    value = f"{mantissa}\\times 10^{{{exponent}}}"
    return Problem(
        gold=f"{value}\\text{{ {unit}}}",
        right={
            "bare": value,
            "roman": f"{value}\\ \\mathrm{{{unit}}}",
            "dot": f"{mantissa}\\cdot 10^{{{exponent}}}\\text{{ {unit}}}",
            "thin space": f"{value}\\,\\text{{{unit}}}",
        },
        wrong={
            "exponent": f"{mantissa}\\times 10^{{{exponent + 1}}}\\text{{ {unit}}}",
            "sign of the exponent": f"{mantissa}\\times 10^{{{-exponent}}}\\text{{ {unit}}}",
            "other unit": f"{value}\\text{{ {other}}}",
            "mantissa": f"{mantissa}1\\times 10^{{{exponent}}}\\text{{ {unit}}}",
            "no power": f"{mantissa}\\text{{ {unit}}}",
            "unit alone": f"\\text{{{unit}}}",
        },
    )
