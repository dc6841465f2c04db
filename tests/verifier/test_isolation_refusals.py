"""Machines on which a layer of isolation is missing must be refused by the name of the layer, with what to change.

Each is made by a process that first takes the layer away from itself.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from services.verifier.sandbox import isolation

_AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="takes capabilities from root")

_WITHOUT = """
import asyncio, ctypes, json, os, sys
from services.verifier.sandbox.isolation import kernel
from services.verifier.sandbox.isolation.seccomp import Filter

def without(*calls, error=1):
    # A filter that refuses these calls and allows all others.
    rules = [(0x20, 0, 0, 0)]
    for number in calls: rules += [(0x15, 0, 1, number), (0x06, 0, 0, 0x50000 | error)]
    if os.getuid() != 0: kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    Filter([*rules, (0x06, 0, 0, 0x7FFF0000)]).install(os.getpid())

def drop_capabilities(*numbers):
    for number in numbers: ctypes.CDLL(None).prctl(24, number, 0, 0, 0)
"""
_SANDBOX = """
from prime.errors import SandboxError
from services.verifier.sandbox.executions import Limits, Task
from services.verifier.sandbox.sandbox import Sandbox
from services.verifier.sandbox.zygotes import Tier

async def main():
    sandbox = Sandbox(1, Tier(sys.argv[1]))
    try:
        await sandbox.start()
        async with sandbox.program(b"print(8)") as program:
            limits = Limits(cpu_seconds=5.0, wall_seconds=20.0, memory_mib=512, output_kib=64)
            execution = await program.run(Task(), limits)
        print(json.dumps(["ran", execution.stdout.decode(), sandbox.layers]))
    except SandboxError as error:
        print(json.dumps(["refused", str(error)]))
    finally:
        sandbox.close()

asyncio.run(main())
"""
_VERIFIER = """
from prime.adapters.telemetry import Meters
from prime.errors import SandboxError
from prime.types import GradeItem
from services.verifier.main import open_verifier
from services.verifier.settings import VerifierSettings

def item(language, program, **more):
    tests = {"inputs": ["3 5"], "outputs": ["8"], "language": language, **more}
    return GradeItem(item_id="x", data_source="taco", ability="code", response=f"```{language}\\n{program}\\n```",
                     ground_truth=json.dumps(tests))

async def main():
    try:
        async with open_verifier(VerifierSettings(workers=1, min_tier=sys.argv[1]), Meters()) as parts:
            info = await parts.grader.info()
            items = [item("python", "print(8)"), item("cpp", "int main() {}"),
                     item("python", "print(8)", checker={"language": "python", "source": "1"})]
            print(json.dumps([info.tier, *[[v.status, v.tier, v.reason] for v in await parts.grader.grade(items)]]))
    except SandboxError as error:
        print(json.dumps(["refused", str(error)]))

asyncio.run(main())
"""


def try_with(preparation: str, what: str, tier: str) -> list[object]:
    """What becomes of it in a process that has done `preparation`."""
    source = f"{_WITHOUT}\n{preparation}\n{what}"
    done = subprocess.run([sys.executable, "-c", source, tier], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    answer: list[object] = json.loads(done.stdout.splitlines()[-1])
    return answer


_NO_NAMESPACES = "without(272)  # unshare"
_ADVICE = ("seccomp profile", "AppArmor", "max_user_namespaces", "min_tier")

REFUSALS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "namespaces refused": (_NO_NAMESPACES, "A", ("namespaces: refused", *_ADVICE)),
    "mounts refused": ("without(165)", "A", ("namespaces: refused", *_ADVICE)),
    "namespaces refused within namespaces": ("without(56)", "A", ("namespaces: refused within", *_ADVICE)),
    "no Landlock in tier A": ("without(444, error=38)", "A", ("landlock: ABI 3 is needed", "none", "6.2")),
    "no Landlock in tier B": ("without(444, error=38)", "B", ("landlock: ABI 3 is needed", "none", "6.2")),
    "Landlock that takes no rules": ("without(446)", "B", ("landlock: the rules cannot be put in force",)),
    "no seccomp in tier A": ("without(317)", "A", ("seccomp: the filter was not taken", "CONFIG_SECCOMP_FILTER")),
    "no seccomp in tier B": ("without(317)", "B", ("seccomp: the filter was not taken", "container's own profile")),
    "another machine in tier A": ("kernel.call(135, 8)", "A", ("no table of system calls for i686", "x86_64")),
    "another machine in tier B": ("kernel.call(135, 8)", "B", ("no table of system calls for i686", "x86_64")),
}
ROOT_REFUSALS = {
    "a user that root may not become in tier A": (
        "drop_capabilities(6, 7)",
        "A",
        ("root may not become", "CAP_SETUID"),
    ),
    "a user that root may not become in tier B": (
        "drop_capabilities(6, 7)",
        "B",
        ("root may not become", "CAP_SETUID"),
    ),
}


def refuses(preparation: str, tier: str, said: tuple[str, ...]) -> None:
    kind, message = try_with(preparation, _SANDBOX, tier)[:2]
    assert kind == "refused", message
    assert all(part in str(message) for part in said), message


@pytest.mark.parametrize("name", REFUSALS)
def test_a_machine_that_lacks_a_layer_is_refused_with_what_to_change(name: str) -> None:
    refuses(*REFUSALS[name])


@_AS_ROOT
@pytest.mark.parametrize("name", ROOT_REFUSALS)
def test_root_that_cannot_stop_being_root_is_refused(name: str) -> None:
    refuses(*ROOT_REFUSALS[name])


def test_nothing_taken_away_is_nothing_refused() -> None:
    for tier in ("A", "B"):
        kind, printed, layers = try_with("", _SANDBOX, tier)
        assert (kind, printed) == ("ran", "8\n")
        assert {"session", "rlimits", "no_new_privs", "landlock", "seccomp", "user"} <= set(layers)  # type: ignore[call-overload]


_SECOND_THREAD = """
import resource, runpy, sys, threading, time
# High enough, so that it is not executed anew, without the thread.
resource.setrlimit(resource.RLIMIT_STACK, (2**28, resource.getrlimit(resource.RLIMIT_STACK)[1]))
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("tier", ["A", "B"])
def test_a_zygote_with_a_second_thread_is_refused(tier: str) -> None:
    zygote = Path(isolation.__path__[0], "zygote.py")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        config = {"root": str(zygote.parents[4]), "control": theirs.fileno(), "tier": tier, "identity": 65534}
        config |= {"serves": "", "readable": []}
        source = f"import sys\nsys.argv = {[str(zygote), json.dumps(config)]!r}\n{_SECOND_THREAD}"
        subprocess.run([sys.executable, "-c", source], pass_fds=(theirs.fileno(),), check=False)
        said = json.loads(ours.recv(8192))
    assert "more than one thread" in said["refused"]


def test_tier_b_is_taken_only_where_it_is_allowed_and_says_what_it_lacks() -> None:
    kind, message = try_with(_NO_NAMESPACES, _VERIFIER, "A")
    assert kind == "refused"
    assert "min_tier" in str(message)
    tier, python, cpp, checked = try_with(_NO_NAMESPACES, _VERIFIER, "B")
    assert tier == "B"
    assert python == ["passed", "B", "all_tests"]
    for refused in (cpp, checked):
        assert refused[0] == "invalid_request"  # type: ignore[index]
        assert "tier A" in refused[2]  # type: ignore[index]
