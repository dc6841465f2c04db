"""Which text of a response is the program, as a reader takes it. In both directions: what is none must not be run."""

import pytest

from services.verifier.programs.blocks import find_program

PROGRAM = "a,b=map(int,input().split());print(a+b)"

TAKEN: dict[str, tuple[str, str]] = {
    **{
        f"a closing fence and {trailer!r}": (f"```python\n{PROGRAM}\n```{trailer}", PROGRAM)
        for trailer in ("<|im_end|>", "<|endoftext|>", "</answer>", ".", " </s>", "\u200b", "</pre></div>", "**")
    },
    **{
        f"{text!r} before the opening fence": (f"{text}```python\n{PROGRAM}\n```", PROGRAM)
        for text in ("Here is the code: ", "**Solution:**", "<answer>", "<pre>", "\u200b", "\u00a0", "\ufeff")
    },
    **{
        f"the label {label} alone": (f"```{label}\n{PROGRAM}\n```", PROGRAM)
        for label in ("text", "plaintext", "txt", "code", "Solution", "python_code")
    },
    "a closing fence behind the last line": (f"```python\n{PROGRAM}```\nThis adds.", PROGRAM),
    "an answer before a second thought": (
        f"<think>a</think>\n```python\n{PROGRAM}\n```\n<think>check</think>\n",
        PROGRAM,
    ),
    "a fence that prose speaks of after it": (f"```python\n{PROGRAM}\n```\nI used ```python\nas you said.", PROGRAM),
    "a comment with a fence": ("```python\nprint(1) # ```\nprint(2)\n```", "print(1) # ```\nprint(2)"),
    **{
        f"bare, {name}": (text, PROGRAM)
        for name, text in {
            "between tags": f"<answer>\n{PROGRAM}\n</answer>",
            "between tags of code": f"Here:\n<code>{PROGRAM}</code>",
            "between brackets": f"[PYTHON]\n{PROGRAM}\n[/PYTHON]",
            "before a token": f"{PROGRAM}<|im_end|>\n",
            "in backticks": f"`{PROGRAM}`",
            "after an introduction": f"Here is my solution:\n\n{PROGRAM}",
        }.items()
    },
    **{
        f"bare, first {line}": (f"{line}\n{PROGRAM}", f"{line}\n{PROGRAM}")
        for line in ("'''doc'''", "[a, b] = 1, 2", "(a, b) = 1, 2", "*x, = [1]", "assert 1", "print(int(\n  1))")
    },
    "a block": (f"```python\n{PROGRAM}\n```", PROGRAM),
    "the last of two": (f"```python\nprint(1)\n```\nbetter:\n```python\n{PROGRAM}\n```", PROGRAM),
    "sample output after it": (f"```python\n{PROGRAM}\n```\nExample output:\n```\n7\n```\n", PROGRAM),
    "sample input before it": (f"Input:\n```\n3 4\n```\n```python\n{PROGRAM}\n```\n", PROGRAM),
    "a block of text after it": (f"```python\n{PROGRAM}\n```\n```text\n7\n```\n", PROGRAM),
    "commands after it": (f"```python\n{PROGRAM}\n```\nRun it:\n```bash\npython3 a.py\n```\n", PROGRAM),
    "a stray fence after it": (f"```python\n{PROGRAM}\n```\n```\n", PROGRAM),
    "a stray fence and text after it": (f"```python\n{PROGRAM}\n```\n```\nThis reads and adds.\n", PROGRAM),
    "a cut sample after it": (f"```python\n{PROGRAM}\n```\nOutput:\n```\n7", PROGRAM),
    "a cut block of another language after it": (f"```python\n{PROGRAM}\n```\n```bash\npyth", PROGRAM),
    "a label of another one that is empty": (f"```python\n{PROGRAM}\n```\n```python\n", PROGRAM),
    "a stray fence before it": (f"```\nsome text\n```python\n{PROGRAM}\n```", PROGRAM),
    "a title": (f'```python title="solution.py"\n{PROGRAM}\n```', PROGRAM),
    "line numbers": (f"```python3 linenums\n{PROGRAM}\n```", PROGRAM),
    "attributes in braces": (f"```{{.python .numberLines}}\n{PROGRAM}\n```", PROGRAM),
    "a language in braces": (f"```{{python}}\n{PROGRAM}\n```", PROGRAM),
    "marked lines": (f"```python{{1,3-4}}\n{PROGRAM}\n```", PROGRAM),
    "a file after a colon": (f"```python:solution.py\n{PROGRAM}\n```", PROGRAM),
    "a file as label": (f"```solution.py\n{PROGRAM}\n```", PROGRAM),
    "a blank before the label": (f"``` python\n{PROGRAM}\n```", PROGRAM),
    "a version": (f"```python3.11\n{PROGRAM}\n```", PROGRAM),
    "capitals": (f"```Python\n{PROGRAM}\n```", PROGRAM),
    "all capitals": (f"```PYTHON3\n{PROGRAM}\n```", PROGRAM),
    "four backticks": (f"````python\n{PROGRAM}\n````", PROGRAM),
    "five backticks around three": ("`````python\nx = '''\n```\n'''\n`````", "x = '''\n```\n'''"),
    "a longer closing fence": (f"```python\n{PROGRAM}\n`````", PROGRAM),
    "tildes": (f"~~~python\n{PROGRAM}\n~~~", PROGRAM),
    "tildes around backticks": ("~~~python\nx = '''\n```\n'''\n~~~", "x = '''\n```\n'''"),
    "in a list": ("1. Read and add:\n   ```python\n   a = 1\n   print(a)\n   ```\n", "a = 1\nprint(a)"),
    "behind a bullet": ("- ```python\n  a = 1\n  print(a)\n  ```", "a = 1\nprint(a)"),
    "indented by a tab": ("\t```python\n\tif 1:\n\t\tprint(1)\n\t```", "if 1:\n\tprint(1)"),
    "in a list, with a flush closing fence": (
        "* so:\n  ```python\n  if 1:\n      print(1)\n```",
        "if 1:\n    print(1)",
    ),
    "a fence that is indented more than its code": ("  ```python\nif 1:\n  print(1)\n  ```", "if 1:\n  print(1)"),
    "code that is indented as a whole": ("```python\n  a = 1\n  print(a)\n```", "a = 1\nprint(a)"),
    "quoted": ("> ```python\n> if 1:\n>     print(1)\n> ```", "if 1:\n    print(1)"),
    "a fence in a text in the code": (
        '```python\ndef f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1\n```',
        'def f():\n    """\n    ```\n    f()\n    ```\n    """\n    return 1',
    ),
    "Markdown in Markdown": (f"````markdown\n# Solution\n```python\n{PROGRAM}\n```\n````", PROGRAM),
    "Windows line ends": (f"Here:\r\n```python\r\n{PROGRAM}\r\n```\r\n", PROGRAM),
    "blanks after the fences": (f"```python  \n{PROGRAM}\n```  \n", PROGRAM),
    "after the thinking": (f"<think>```python\nprint(1)\n```</think>\n```python\n{PROGRAM}\n```", PROGRAM),
    "after thinking that was begun in the prompt": (
        f"hm\n```python\nx\n```\n</think>\n```python\n{PROGRAM}\n```",
        PROGRAM,
    ),
    "after an open block in the thinking": (f"<think>\n```python\ndraft\n</think>\n```python\n{PROGRAM}\n```", PROGRAM),
    "the tag in a comment": (f"<think>x</think>\n```python\n{PROGRAM}  # </think>\n```", f"{PROGRAM}  # </think>"),
    "the tag in a comment, without thinking": (f"```python\n{PROGRAM} # </think>\n```", f"{PROGRAM} # </think>"),
    "both tags in a text": ("```python\nprint('<think>', '</think>')\n```", "print('<think>', '</think>')"),
    "the opening tag in a comment": (f"</think>\n```python\n# <think>\n{PROGRAM}\n```", f"# <think>\n{PROGRAM}"),
    "talk about the tag after it": (f"<think>x</think>\n```python\n{PROGRAM}\n```\nNo </think> here.", PROGRAM),
    "no label": (f"```\n{PROGRAM}\n```", PROGRAM),
    "no label, and a sample after it": (f"```\n{PROGRAM}\n```\nprints\n```\n7\n```", PROGRAM),
    "no label, and a sample before it": (f"```\n3 4\n```\n```\n{PROGRAM}\n```", PROGRAM),
    "no fence": (PROGRAM, PROGRAM),
    "no fence, with a comment first": (f"# reads and adds\n{PROGRAM}", f"# reads and adds\n{PROGRAM}"),
    "no fence after the thinking": (f"<think>add</think>\n{PROGRAM}\n", PROGRAM),
    "no fence, a function": ("def f(a):\n    return a\n", "def f(a):\n    return a"),
    "no fence, a class": ("class Solution:\n    pass", "class Solution:\n    pass"),
    "no fence, an import": ("import sys\nprint(1)", "import sys\nprint(1)"),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_program_is_what_a_reader_takes_for_it(name: str) -> None:
    response, program = TAKEN[name]
    found = find_program(response)
    assert found is not None
    assert (found.language, found.source.strip("\n")) == ("python", program)


_F = "def f(a):\n    return a"
_USE = "print(f(1))"


@pytest.mark.parametrize(
    ("blocks", "program"),
    [
        ((_F, _USE), _F),
        ((_F, "def g(): pass\n" + _F, _USE), "def g(): pass\n" + _F),
        ((_USE, _F), _F),
        (("class Solution:\n    def f(self): pass", _USE), "class Solution:\n    def f(self): pass"),
        (("f = max", _USE), "f = max"),
        ((_F, "f == 1", "ff = 2"), _F),
        ((_USE, "print(2)"), "print(2)"),
    ],
)
def test_an_example_of_its_use_is_not_the_program(blocks: tuple[str, ...], program: str) -> None:
    response = "\nand\n".join(f"```python\n{block}\n```" for block in blocks)
    found = find_program(response, names=("f",))
    assert found is not None
    assert found.source.strip() == program


NONE = {
    "nothing": "",
    "prose": "The answer is 7.",
    "a number": "7",
    "a word with a colon": "Answer: 7",
    "a formula": "3 + 4 == 7",
    "prose that begins like a statement": "for all n the sum is even",
    "an empty block": "```python\n\n```",
    "another language": f"```java\n{PROGRAM}\n```",
    "another version": "```python2\nprint 1\n```",
    "a session": "```python-repl\n>>> 1\n1\n```",
    "its only block was cut": f"```python\n{PROGRAM}",
    "its only block was cut within a fence": f"```python\n{PROGRAM}\n``",
    "its last program was cut": f"```python\nprint(1)\n```\nfaster:\n```python\n{PROGRAM}",
    "a block only in the thinking": f"<think>\n```python\n{PROGRAM}\n```\n</think>\nSo that is it.",
    "thinking without end": f"<think>\n```python\n{PROGRAM}\n```\n",
    "a second thinking without end": f"<think>a</think>\nb\n<think>\n```python\n{PROGRAM}\n```\n",
    "a program within a line": f"Use ```{PROGRAM}``` here.",
    "a shorter closing fence": f"````python\n{PROGRAM}\n```",
    "a closing fence of another kind": f"```python\n{PROGRAM}\n~~~",
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_program_is_not_taken_for_one(name: str) -> None:
    assert find_program(NONE[name]) is None


@pytest.mark.parametrize(
    ("label", "standard"),
    [
        *(("cpp", ""), ("c++", ""), ("C++", ""), ("cc", ""), ("cpp17", ""), ("c++14", ""), ("main.cpp", "")),
        *(("cpp20", "20"), ("c++20", "20"), ("C++20", "20"), ("c++ 20", "20"), ("c++2a", "20"), ("gnu++20", "20")),
        *(("cpp23", "23"), ("c++23", "23"), ("CPP23", "23"), ("c++2b", "23"), ('cpp20 title="a.cpp"', "20")),
    ],
)
def test_a_label_names_the_standard(label: str, standard: str) -> None:
    found = find_program(f"```{label}\nint main() {{}}\n```", ("cpp",))
    assert found is not None
    assert (found.language, found.standard) == ("cpp", standard)


@pytest.mark.parametrize("label", ["c", "cs", "cpython", "ccc", "pythonic", "py2", "cuda", "cpp-output"])
def test_a_label_that_only_begins_like_a_language_is_another(label: str) -> None:
    assert find_program(f"```{label}\nint main() {{}}\n```", ("cpp", "python")) is None


def test_without_a_label_the_text_tells_the_language() -> None:
    for text in ("#include <cstdio>\nint main() {}\n", "```\n#include <cstdio>\nint main() {}\n```"):
        found = find_program(text, ("python", "cpp"))
        assert found is not None
        assert found.language == "cpp"


_LONG = (
    *(" " * 10**6, ">" * 10**6, "```" + " x" * 10**5, "```\n" * 10**4, "```py\n" * 10**4, "a[" + "]:" * 10**5),
    *("```python\n" + "<think>" * 10**4 + "\n```", "1. " * 10**5, "<think>" * 10**4, "\n</think>" * 10**4),
)


@pytest.mark.parametrize("response", _LONG, ids=range(len(_LONG)))
def test_any_response_is_read(response: str) -> None:
    find_program(response)
