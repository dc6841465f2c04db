"""What becomes of vLLM's own processes."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytest.importorskip("vllm")

from tests.vllm.test_vllm_engine import model_folder

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]

SERVICE = """
import asyncio, os, signal, sys
from pathlib import Path
import psutil
from services.rollout.vllm_engine import Room, VllmEngine

async def main():
    engine = VllmEngine(model=Path(sys.argv[1]), max_context=64, max_groups=1, room=Room(kv_cache_gib=0.25))
    await engine.start()
    Path(sys.argv[2]).write_text(" ".join(str(child.pid) for child in psutil.Process().children(recursive=True)))
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_vllm_ends_when_the_service_is_killed(tmp_path: Path) -> None:
    script, pids = tmp_path / "service.py", tmp_path / "pids"
    script.write_text(SERVICE)
    folder = model_folder(tmp_path / "model", tied=True)

    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, str(script), str(folder), str(pids)]
        subprocess.run(command, stdout=log, stderr=log, check=False, timeout=200)

    children = [psutil.Process(pid) for pid in map(int, pids.read_text().split()) if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(children, timeout=30)
    for process in alive:
        process.kill()
    assert len(pids.read_text().split()) >= 2
    assert alive == []
