"""What the C++ compiler itself needs of the machine: its programs, their libraries, the headers, what it links.

Asked of the compiler and the loader, once. A compiler in the sandbox sees these, and nothing else below `/usr`.
"""

import functools
import os
import shutil
import subprocess

from services.verifier.sandbox.isolation.interpreter import without_nested

COMPILER = "/usr/bin/g++"
_PROGRAMS = ("cc1plus", "collect2", "as", "ld", "lto1", "lto-wrapper")
_LINKED = ("libc.a", "libm.a", "libmvec.a", "libpthread.a", "librt.a", "libdl.a", "libgcc.a", "libgcc_eh.a")
_LINKED_TOO = ("libstdc++.a", "libatomic.a", "libgomp.a", "libquadmath.a", "libsupc++.a")
_OBJECTS = (
    "crt1.o",
    "crti.o",
    "crtn.o",
    "crtbeginT.o",
    "crtend.o",
    "crtbegin.o",
    "crtbeginS.o",
    "crtendS.o",
    "rcrt1.o",
)
_SECONDS = 20


@functools.cache
def tools() -> tuple[str, ...]:
    """Files and folders; none where there is no compiler."""
    if shutil.which(COMPILER) is None:
        return ()
    programs = [COMPILER, *(_program(name) for name in _PROGRAMS)]
    linked = [_file(name) for name in (*_LINKED, *_LINKED_TOO, *_OBJECTS)]
    linked += [_script_part(path) for path in linked if path.endswith("libm.a")]
    own_folder = os.path.dirname(_ask("-print-libgcc-file-name"))
    found = [*programs, *linked, *_headers(), own_folder]
    found += [library for program in programs if program for library in _libraries_of(program)]
    return tuple(without_nested([path for path in found if path]))


def _ask(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        [COMPILER, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    return (done.stdout + done.stderr).strip()


def _program(name: str) -> str:
    """Where it is; empty if it is not."""
    found = _ask(f"-print-prog-name={name}")
    return found if os.path.isabs(found) else shutil.which(found) or ""


def _file(name: str) -> str:
    found = _ask(f"-print-file-name={name}")
    return found if os.path.isabs(found) else ""


def _script_part(path: str) -> str:
    """`libm.a` is a text that names the real archive."""
    with open(path, "rb") as file:
        words = file.read(1024).split()
    return next((word.decode() for word in words if word.startswith(b"/") and b"libm-" in word), "")


def _headers() -> list[str]:
    """The folders of `#include <...>`."""
    said = _ask("-E", "-x", "c++", "-", "-v").partition("search starts here:\n#include <...>")[2]
    lines = said.partition("End of search list")[0].splitlines()
    return [line.strip() for line in lines if line.startswith(" /")]


def _libraries_of(program: str) -> list[str]:
    """Shared libraries of a program, and its loader."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False, timeout=_SECONDS)
    return [word for word in done.stdout.split() if word.startswith("/")]
