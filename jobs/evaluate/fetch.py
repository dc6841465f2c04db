"""Gets the file of a set: from its repository, checked by digest, or from the hub by its name."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx

from prime.data.problems import dataset_rows
from prime.errors import DataError, PeerUnavailable, SettingsError
from prime.evaluation.reading import check_digest, digest_of, read_set
from prime.evaluation.sets import EvaluationSet

_SECONDS = 60.0


def fetch_set(
    known: EvaluationSet, folder: Path, *, from_hub: bool, address: str = "", on_progress: Callable[[int], None]
) -> Path:
    """The set's file in `folder`; one that is there and right is kept. `address`: another place to get it from.

    Raises:
        SettingsError: there is no place to get it from.
        PeerUnavailable: the place cannot be reached.
        DataError: what came is not the file that the set is known by; nothing is kept of it.
    """
    path = folder / known.file
    if path.is_file():
        check_digest(known, path)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        if from_hub:
            _from_hub(known, unfinished)
        else:
            _download(known, address or known.address, unfinished, on_progress)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _download(known: EvaluationSet, address: str, file: Path, on_progress: Callable[[int], None]) -> None:
    if not address:
        raise SettingsError(
            f"{known.title} is in no repository that is known here: `--from-hub` asks for the data set "
            f"{known.dataset}, or put the file into the folder yourself, as {known.file}"
        )
    digest, size = hashlib.sha256(), 0
    try:
        with (
            httpx.stream("GET", address, follow_redirects=True, timeout=_SECONDS) as answer,
            file.open("wb") as out,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_bytes():
                out.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                on_progress(size)
    except httpx.HTTPError as error:
        raise PeerUnavailable(
            f"{address} cannot be had ({type(error).__name__}: {error}). On a machine without a network put the file "
            f"into the folder yourself, as {known.file}; its SHA-256 is {known.sha256}"
        ) from None
    if digest.hexdigest() != known.sha256:
        raise DataError(
            f"{address} gave another file than the one that {known.title} is known by: its SHA-256 is "
            f"{digest.hexdigest()}, not {known.sha256}. Nothing was kept"
        )


def _from_hub(known: EvaluationSet, file: Path) -> None:
    """Rows as JSON lines. A hub's copy has no digest that is known here: that all rows can be read is the check."""
    if not known.dataset:
        raise SettingsError(f"{known.title} is on no hub that is known here; run without --from-hub")
    if not known.file.endswith(".jsonl"):
        raise SettingsError(
            f"{known.title} from the hub is no copy of {known.file}; run without --from-hub, or save its rows yourself "
            "and give them as NAME=FILE"
        )
    with file.open("w", encoding="utf-8") as out:
        for row in dataset_rows(known.dataset):
            out.write(json.dumps(dict(row), default=str) + "\n")


def describe(known: EvaluationSet, path: Path) -> str:
    """What was got, in a line."""
    problems = f"{len(read_set(known, path))} problems" if known.ability != "process" else f"{known.rows} rows"
    return f"{path}: {known.title}, {problems}, SHA-256 {digest_of(path)[:12]}, licence: {known.licence}"
