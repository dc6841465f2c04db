"""Compiles `proto/prime/v1/*.proto` to `prime/v1/` whenever the project is built or installed.

The proto path mirrors the package path, so the generated imports are right as they come.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileProtos(BuildHookInterface):  # type: ignore[type-arg]
    """Runs protoc with the message, service and type-stub generators."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate into the source tree; git ignores the result, the wheel ships it."""
        from grpc_tools import protoc

        root = Path(self.root)
        out = root
        sources = sorted(str(path) for path in (root / "proto").rglob("*.proto"))
        well_known = Path(protoc.__file__).parent / "_proto"
        arguments = [
            "protoc",
            f"-I{root / 'proto'}",
            f"-I{well_known}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *sources,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc failed on {len(sources)} files under {root / 'proto'}")
