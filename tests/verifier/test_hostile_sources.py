"""Sources, inputs and outputs that are odd, huge or no text at all."""

import pytest

from services.verifier.sandbox.executions import Outcome
from tests.verifier.judge import AC, CE, MLE, RE, TLE, WA, Case, Judge, names

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ENOUGH = {"cpu_seconds": 5}
CASES = [
    Case(row=50, tries="a null byte", program="print(8)\0", verdict=CE),
    Case(row=50, tries="a byte order mark", program="\ufeffprint(8)", verdict=AC),
    Case(row=50, tries="carriage returns", program="n = 8\r\nprint(n)\r", verdict=AC),
    Case(row=50, tries="a lone surrogate", program="print(8)\n# \udc80", verdict=AC),
    Case(row=50, tries="a lone surrogate in its name", program="\udc80 = 8\nprint(8)", verdict=CE),
    Case(row=50, tries="output with a null byte", program="print('8\\0')", verdict=WA),
    Case(
        row=50,
        tries="null bytes on both sides",
        program="print(input())",
        verdict=AC,
        tests={"inputs": ["8\0"], "outputs": ["8\0"]},
    ),
    Case(row=50, tries="output that is no text", program="import sys\nsys.stdout.buffer.write(b'8\\xff')", verdict=WA),
    Case(row=50, tries="output of a lone surrogate", program="print('8\\udc80')", verdict=WA),
    Case(
        row=50,
        tries="input of a lone surrogate",
        program="input()\nprint(8)",
        verdict=AC,
        tests={"inputs": ["\udc80\n"], "outputs": ["8"]},
    ),
    Case(
        row=50,
        tries="letters of other scripts",
        program="größe = input()\nprint(größe[::-1])",
        verdict=AC,
        tests={"inputs": ["日本"], "outputs": ["本日"]},
    ),
    Case(row=51, tries="ten megabytes", program="x = 1\n" * 1_700_000 + "print(8)", verdict=(AC, CE, TLE, MLE)),
    Case(row=51, tries="100,000 open brackets", program="(" * 100_000, verdict=CE),
    Case(row=51, tries="100,000 brackets", program="x = " + "(" * 100_000 + ")" * 100_000, verdict=CE),
    Case(row=51, tries="100,000 signs", program="x = " + "-" * 100_000 + "1\nprint(9)", verdict=(CE, RE)),
    Case(row=51, tries="deep indentation", program="\n".join(" " * i + "if 1:" for i in range(200)), verdict=CE),
    Case(row=51, tries="a huge number", program="x = " + "9" * 150_000 + "\nprint(9)", verdict=(WA, TLE, CE)),
    Case(row=51, tries="constants that unfold", program="x = ((1 << 10**10) << 10**10)", verdict=(MLE, CE)),
    Case(
        row=51,
        tries="tuples that unfold",
        program="x = " + "(" * 12 + "0,) * 255" + ",) * 255" * 11 + "\nprint(9)",
        verdict=(CE, MLE, TLE, WA),
    ),
    Case(row=52, tries="a coding that is none", program="# -*- coding: rot13 -*-\ncevag(8)", verdict=CE),
    Case(row=52, tries="an unknown coding", program="# coding: no-such\nprint(8)", verdict=CE),
    Case(row=52, tries="a coding that hides", program="# coding: utf-7\nprint(9) #+AAo-print(8)", verdict=WA),
    Case(row=52, tries="an archive", program="PK\x03\x04" + "\0" * 26 + "__main__.pyprint(8)", verdict=CE),
    Case(row=52, tries="byte code", program="\xa7\r\r\n\0\0\0\0\xe3\0\0\0", verdict=CE),
]


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
async def test_an_odd_source_has_a_defined_end(judge: Judge, case: Case) -> None:
    tests = {**_ENOUGH, **case.tests}
    await judge.expect(Case(row=case.row, tries=case.tries, program=case.program, verdict=case.verdict, tests=tests))


async def test_source_bytes_that_are_no_text_are_a_compile_error(judge: Judge) -> None:
    assert (await judge.run("print('\udcff\udcfe')")).outcome is Outcome.COMPILE_ERROR


async def test_a_compile_error_stops_the_tests(judge: Judge) -> None:
    found = await judge.grade("def", {"inputs": ["", ""], "outputs": ["1", "2"]})
    assert [record.verdict for record in found.tests] == [CE]
    assert (found.score, found.reason) == (0.0, "compile_error:0")
