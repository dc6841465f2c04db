"""The shape of the code base: who imports whom, what is frozen on the wire, what loads without torch."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

import prime.errors
import prime.v1
from prime.errors import PrimeError

ROOT = Path(__file__).parents[2]
PACKAGES = ("prime", "services", "jobs", "primectl")
GENERATED = ROOT / "prime" / "v1"

PROTO_FIELDS: dict[str, dict[str, int]] = {
    "GroupAnswersRequest": {"responses": 1},
    "GroupAnswersResponse": {"answers": 1, "classes": 2},
    "GenerateRequest": {"requests": 1},
    "GenerateResponse": {"groups": 1},
    "GradeItem": {
        "item_id": 1,
        "data_source": 2,
        "ability": 3,
        "response": 4,
        "ground_truth": 5,
        "kind": 6,
        "options": 7,
        "binary": 8,
    },
    "GradeRequest": {"items": 1, "idempotency_key": 2, "budget_seconds": 3},
    "GradeResponse": {"verdicts": 1},
    "LearnRequest": {"step": 1, "groups": 2, "outcomes": 3},
    "LearnResponse": {
        "prm_version": 1,
        "loss": 2,
        "grad_norm": 3,
        "pair_accuracy": 4,
        "mean_logit": 5,
        "calibration_error": 6,
        "frozen_pair_accuracy": 7,
    },
    "EnvironmentTask": {"name": 1, "task": 2, "max_turns": 3},
    "PrmGroup": {
        "group_id": 1,
        "prompt_ids": 2,
        "responses": 3,
        "reference_logprobs": 4,
        "reference": 5,
        "observed": 6,
    },
    "PrmServiceGetInfoRequest": {},
    "PrmServiceGetInfoResponse": {
        "prm_version": 1,
        "beta": 2,
        "reference_id": 3,
        "reference_mode": 4,
        "tokenizer_fingerprint": 5,
    },
    "PushBegin": {
        "version": 1,
        "tensors": 2,
        "probe_ids": 4,
        "probe_logprobs": 5,
        "max_gap": 6,
        "base_version": 7,
        "aliases": 8,
        "keep_base": 9,
        "offer": 10,
        "previous_logprobs": 11,
    },
    "PushCommit": {"digest": 1},
    "PushOffer": {"key": 1, "transport": 2, "place": 3, "checksums": 4, "deadline_seconds": 5},
    "PushWeightsRequest": {"begin": 1, "chunk": 2, "commit": 3},
    "PushWeightsResponse": {
        "version": 1,
        "probe_logprobs": 2,
        "stage_seconds": 3,
        "pause_seconds": 4,
        "probe_seconds": 5,
    },
    "RaggedFloats": {"values": 1, "lengths": 2},
    "RaggedTokens": {"values": 1, "lengths": 2},
    "RestoreRequest": {"step": 1},
    "RestoreResponse": {"prm_version": 1},
    "RolloutFailure": {"group_id": 1, "problem_id": 2, "reason": 3},
    "RolloutGroup": {
        "group_id": 1,
        "problem_id": 2,
        "attempt": 3,
        "prompt_ids": 4,
        "responses": 5,
        "logprobs": 6,
        "traces": 7,
    },
    "RolloutRequest": {
        "group_id": 1,
        "problem_id": 2,
        "attempt": 3,
        "prompt_ids": 4,
        "num_samples": 5,
        "sampling": 6,
        "seed": 7,
        "min_version": 8,
        "environment": 9,
    },
    "RolloutResult": {"group": 1, "failure": 2},
    "RolloutServiceGetStatusRequest": {},
    "RolloutServiceGetStatusResponse": {
        "engine": 1,
        "ready": 2,
        "version": 3,
        "groups_delivered": 4,
        "tokens_generated": 5,
        "groups_in_flight": 6,
        "tokenizer_fingerprint": 7,
        "busy_seconds": 8,
        "dtype": 9,
        "transports": 10,
        "takes_adapters": 11,
    },
    "SampleTrace": {"spans": 1, "finish_reason": 2, "observed": 3},
    "TokenSpan": {"start": 1, "length": 2},
    "TokenSpans": {"spans": 1},
    "SamplingParams": {
        "temperature": 1,
        "top_p": 2,
        "max_tokens": 3,
        "top_k": 4,
        "min_p": 5,
        "stop_token_ids": 6,
        "stop": 7,
    },
    "SaveRequest": {"step": 1},
    "SaveResponse": {"path": 1},
    "ScoreRequest": {"groups": 1},
    "ScoreResponse": {"rewards": 1, "prm_version": 2, "beta": 3, "reference_id": 4, "reference_cached": 5},
    "StopRequest": {},
    "StopResponse": {"step": 1},
    "TensorAlias": {"name": 1, "of": 2},
    "TensorSpec": {"name": 1, "dtype": 2, "shape": 3},
    "TestRecord": {"verdict": 1, "cpu_ms": 2, "wall_ms": 3, "peak_mib": 4, "output_bytes": 5, "signal": 6},
    "TrainerServiceGetStatusRequest": {},
    "TrainerServiceGetStatusResponse": {
        "run": 1,
        "phase": 2,
        "step": 3,
        "total_steps": 4,
        "policy_version": 5,
        "tokens_per_second": 6,
        "mean_score": 7,
        "accuracy": 8,
        "seconds_left": 9,
        "error": 10,
    },
    "Verdict": {
        "status": 1,
        "score": 2,
        "reason": 3,
        "milliseconds": 4,
        "method": 5,
        "tier": 6,
        "cached": 7,
        "tests": 8,
    },
    "VerifierServiceGetInfoRequest": {},
    "VerifierServiceGetInfoResponse": {"graders": 1, "isolation": 2, "workers": 3, "tier": 4, "canary_age_seconds": 5},
    "VersionSpan": {"version": 1, "length": 2},
}
PROTO_ENUMS: dict[str, dict[str, int]] = {
    "ReferenceSource": {
        "REFERENCE_SOURCE_UNSPECIFIED": 0,
        "REFERENCE_SOURCE_MODEL": 1,
        "REFERENCE_SOURCE_SUPPLIED": 2,
        "REFERENCE_SOURCE_NONE": 3,
    },
    "FinishReason": {"FINISH_REASON_UNSPECIFIED": 0, "FINISH_REASON_STOP": 1, "FINISH_REASON_LENGTH": 2},
    "VerdictStatus": {
        "VERDICT_STATUS_UNSPECIFIED": 0,
        "VERDICT_STATUS_PASSED": 1,
        "VERDICT_STATUS_FAILED": 2,
        "VERDICT_STATUS_UNDECIDED": 3,
        "VERDICT_STATUS_INVALID_REQUEST": 4,
        "VERDICT_STATUS_INFRA_ERROR": 5,
    },
    "TestVerdict": {
        "TEST_VERDICT_UNSPECIFIED": 0,
        "TEST_VERDICT_AC": 1,
        "TEST_VERDICT_WA": 2,
        "TEST_VERDICT_RE": 3,
        "TEST_VERDICT_TLE": 4,
        "TEST_VERDICT_ILE": 5,
        "TEST_VERDICT_MLE": 6,
        "TEST_VERDICT_OLE": 7,
        "TEST_VERDICT_CE": 8,
        "TEST_VERDICT_SE": 9,
    },
}
PROTO_CALLS: dict[str, list[str]] = {
    "PrmService": ["Score", "Learn", "Save", "Restore", "GetInfo"],
    "RolloutService": ["Generate", "PushWeights", "GetStatus"],
    "TrainerService": ["GetStatus", "Stop"],
    "VerifierService": ["Grade", "GroupAnswers", "GetInfo"],
}


def _modules() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (path for path in sorted((ROOT / package).rglob("*.py")) if path.parent != GENERATED)


def _fresh(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


# ---------------------------------------------------------------- imports


def test_the_import_contracts_hold() -> None:
    result = _fresh(
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert ", 0 broken" in result.stdout


def test_package_files_import_nothing() -> None:
    files = [path for path in _modules() if path.name == "__init__.py"] + [GENERATED / "__init__.py"]
    assert len(files) >= 13
    for path in files:
        imports = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not imports, f"{path.relative_to(ROOT)} imports something"


@pytest.mark.parametrize(
    "program",
    [
        "from primectl.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
        "import prime.types, prime.ports, prime.errors, prime.wire",
        "import importlib, pkgutil, prime.adapters\n"
        "for each in pkgutil.iter_modules(prime.adapters.__path__, 'prime.adapters.'):\n"
        "    importlib.import_module(each.name)",
        "import primectl.config",
        "import services.verifier.main",
        "import services.rollout.loop",
    ],
    ids=["primectl --help", "records", "adapters", "config", "verifier", "rollout loop"],
)
def test_what_is_light_loads_without_torch(program: str) -> None:
    result = _fresh(f"{program}\nimport sys\nprint('LOADED', *sorted(sys.modules))")
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.rpartition("LOADED ")[2].split())
    assert "prime" in loaded
    assert not loaded & {"torch", "transformers", "vllm"}


def test_the_client_of_the_scoring_api_loads_with_httpx_and_pydantic_alone() -> None:
    result = _fresh("import prime.client, sys; print(*{name.partition('.')[0] for name in sys.modules})")
    loaded = set(result.stdout.split())
    assert {"httpx", "pydantic", "prime"} <= loaded, result.stderr
    assert not loaded & {"torch", "numpy", "transformers", "fastapi", "starlette", "uvicorn", "grpc", "google"}
    assert not loaded & {"structlog", "prometheus_client", "opentelemetry", "redis", "services", "primectl", "jobs"}


def test_only_the_settings_adapter_reads_the_environment() -> None:
    readers = set()
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            attribute = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb")
            imported = (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and any(alias.name.startswith(("environ", "getenv")) for alias in node.names)
            )
            if attribute or imported:
                readers.add(path.relative_to(ROOT).as_posix())
    assert readers == {"prime/adapters/settings.py"}


# ---------------------------------------------------------------- errors


def _error_classes() -> list[type[PrimeError]]:
    found = [each for each in vars(prime.errors).values() if isinstance(each, type)]
    errors = [each for each in found if issubclass(each, PrimeError)]
    assert errors == found, "prime/errors.py holds errors and nothing else"
    return errors


def _drawn_tree() -> dict[str, tuple[str, str, bool]]:
    """Name to (parent, status, retry) as the docstring of prime/errors.py draws them."""
    row = re.compile(r"^ {4}(?P<bars>[│ ]*)[├└]── (?P<name>\w+) +(?P<status>[A-Z_]+) +(?P<retry>yes|no) ")
    parents, tree = ["PrimeError"], {}
    for line in (prime.errors.__doc__ or "").splitlines():
        if match := row.match(line):
            depth = len(match["bars"]) // 4 + 1
            parents = [*parents[:depth], match["name"]]
            tree[match["name"]] = (parents[depth - 1], match["status"], match["retry"] == "yes")
    return tree


def test_the_error_tree_is_drawn_as_it_is() -> None:
    assert _drawn_tree() == {
        each.__name__: (each.__bases__[0].__name__, each.grpc_status, each.retryable)
        for each in _error_classes()
        if each is not PrimeError
    }


def test_every_error_maps_to_a_status_that_grpc_knows() -> None:
    for each in _error_classes():
        assert each.grpc_status in grpc.StatusCode.__members__
        # A peer that retries must be able to tell so from the status alone.
        assert each.retryable == (each.grpc_status in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"))


# ---------------------------------------------------------------- wire format


def test_proto_numbers_never_change() -> None:
    fields, enums, calls = {}, {}, {}
    for each in pkgutil.iter_modules(prime.v1.__path__):
        if not each.name.endswith("_pb2"):
            continue
        descriptor = importlib.import_module(f"prime.v1.{each.name}").DESCRIPTOR
        for name, message in descriptor.message_types_by_name.items():
            assert not message.nested_types, f"{name} nests messages, which this test would not see"
            fields[name] = {field.name: field.number for field in message.fields}
        for name, enum in descriptor.enum_types_by_name.items():
            enums[name] = {value.name: value.number for value in enum.values}
        for name, service in descriptor.services_by_name.items():
            calls[name] = [method.name for method in service.methods]
    assert fields == PROTO_FIELDS
    assert enums == PROTO_ENUMS
    assert calls == PROTO_CALLS
