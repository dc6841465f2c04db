"""Locks that say who holds them, and `primectl stop`, which goes by them; with real processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prime.errors import CheckpointError, EngineError, InUse
from prime.files import hold, holder, write_file
from primectl.stop import stop_run

_HOLDER = """
import signal, sys
from pathlib import Path
from prime.files import hold
kept = hold(Path(sys.argv[1]), complaint="")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7) if sys.argv[2] == "obeys" else None)
print("held", flush=True)
while True:
    signal.pause()
"""


def _hold_elsewhere(file: Path, *, manners: str = "obeys") -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(file), manners], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_held_file_names_its_holder_and_is_free_once_the_holder_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert holder(file) is None
    other = _hold_elsewhere(file)
    assert holder(file) == other.pid
    with pytest.raises(InUse, match=f"^process {other.pid} is at work$"):
        hold(file, complaint="process {pid} is at work")
    other.kill()
    other.wait()
    assert holder(file) is None
    with hold(file, complaint="in use"):
        assert holder(file) == os.getpid()
    assert holder(file) is None


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_file(tmp_path / "folder" / "file", "first")
    write_file(tmp_path / "folder" / "file", "second")
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["file"]
    assert (tmp_path / "folder" / "file").read_text() == "second"


@pytest.mark.parametrize("lock", ["lock", "trainer.lock"])
def test_stop_ends_whoever_holds_the_run(tmp_path: Path, lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "settings.json").write_text("{}")
    process = _hold_elsewhere(tmp_path / lock)
    assert stop_run(tmp_path, patience_s=60) == 0
    assert process.wait() == 7
    assert f"process {process.pid}" in capsys.readouterr().out
    assert stop_run(tmp_path, patience_s=60) == 0
    assert "not running" in capsys.readouterr().out


def test_stop_says_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        stop_run(tmp_path, patience_s=1)
    (tmp_path / "settings.json").write_text("{}")
    process = _hold_elsewhere(tmp_path / "lock", manners="ignores")
    with pytest.raises(EngineError, match=rf"primectl \(process {process.pid}\) has not ended within 1 s"):
        stop_run(tmp_path, patience_s=1)
    process.kill()
    process.wait()
