"""A page that shows how runs go: read from their folders, so it goes on after the trainer has ended."""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse


def dashboard_routes(folder: Path) -> Callable[[FastAPI], None]:
    """`/`: the page. `/api/runs`: names, the newest first. `/api/runs/NAME?after=K`: metrics of the steps after K."""

    def add(app: FastAPI) -> None:
        page = resources.files("prime.adapters").joinpath("dashboard.html").read_text(encoding="utf-8")

        @app.get("/", response_class=HTMLResponse, include_in_schema=False)
        def index() -> str:
            return page

        @app.get("/api/runs", tags=["runs"])
        def runs() -> list[str]:
            return list(_metrics_files(folder))

        @app.get("/api/runs/{name}", tags=["runs"])
        def metrics(name: str, after: int = -1) -> list[dict[str, Any]]:
            # Looked up among what is there, so that a name is never a path.
            file = _metrics_files(folder).get(name)
            if file is None:
                raise HTTPException(404, f"there is no run {name!r}; /api/runs lists them")
            return [row for row in _rows(file) if row.get("step", -1) > after]

    return add


def _metrics_files(folder: Path) -> dict[str, Path]:
    files = {file.parent.name: file for file in folder.glob("*/metrics.jsonl")}
    return dict(sorted(files.items(), key=lambda each: each[1].stat().st_mtime, reverse=True))


def _rows(file: Path) -> list[dict[str, Any]]:
    """Whole lines only: the last may be in the middle of being written."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
