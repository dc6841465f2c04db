"""One trace from the request for samples to the policy update, as an OpenTelemetry collector receives it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from prime.data.chain import draw_chains, problem_of, write_fresh_model
from prime.data.problems import write_jsonl
from primectl.config import RunConfig
from primectl.stack import local_stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STEPS = 3


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span by its id, with the name of the service that sent it."""

    def __init__(self) -> None:
        self.spans: dict[bytes, tuple[str, Any]] = {}

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            (service,) = (
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.spans |= {span.span_id: (service, span) for span in scope.spans}
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name: str) -> list[Any]:
        return [span for _, span in self.spans.values() if span.name == name]

    def chain(self, span: Any) -> list[str]:
        """Names from a span up to its root; fails where a parent was never sent."""
        names = [span.name]
        while span.parent_span_id:
            _, span = self.spans[span.parent_span_id]
            names.append(span.name)
        return names


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield kept
    server.stop(0).wait()


def _config(folder: Path, *, max_lag: int) -> RunConfig:
    write_jsonl([problem_of(digits) for digits in draw_chains(16, length=3, seed=1)], folder / "problems.jsonl")
    write_fresh_model(folder / "model", seed=0, hidden=32)
    return RunConfig.model_validate(
        {
            "run": {"name": "traced", "folder": str(folder / "runs"), "model": str(folder / "model")},
            "trainer": {
                "problems": str(folder / "problems.jsonl"),
                "steps": STEPS,
                "prompts_per_step": 4,
                "samples_per_prompt": 4,
                "max_prompt_tokens": 16,
                "max_lag": max_lag,
                "sampling": {"max_tokens": 12},
                "filter": {"low": 0.0, "high": 1.0},
                "optimiser": {"threads": 1},
            },
            "prm": {"threads": 1},
            "rollout": {"max_context": 64},
        }
    )


async def _run(config: RunConfig) -> None:
    async with local_stack(config) as stack:
        async for _ in stack.train(resume=False):
            pass


async def test_a_step_is_one_trace_through_all_services(collector: Collector, tmp_path: Path) -> None:
    await _run(_config(tmp_path, max_lag=0))
    steps = collector.named("step")
    assert sorted(each.attributes[0].value.int_value for each in steps) == [1, 2, 3]
    assert all(not each.parent_span_id and not each.links for each in steps)
    assert len({each.trace_id for each in steps}) == STEPS
    for step in steps:
        inside = Counter(
            (service, span.name) for service, span in collector.spans.values() if span.trace_id == step.trace_id
        )
        assert inside["prime-rollout", "sample"] == 4
        assert inside["prime-trainer", "policy"] == 1
        assert inside["prime-prm", "prime.v1.PrmService/Score"] >= 1
        assert inside["prime-prm", "prime.v1.PrmService/Learn"] == 1
        assert inside["prime-rollout", "prime.v1.RolloutService/PushWeights"] == 1
        assert inside["prime-verifier", "prime.v1.VerifierService/Grade"] >= 1
    (learn, *_) = collector.named("prime.v1.PrmService/Learn")
    assert collector.chain(learn) == ["prime.v1.PrmService/Learn", "prm", "step"]
    (grade, *_) = collector.named("prime.v1.VerifierService/Grade")
    assert collector.chain(grade) == ["prime.v1.VerifierService/Grade", "verifier", "grade", "sample", "step"]


async def test_a_step_that_learns_from_older_samples_names_the_trace_that_they_were_asked_in(
    collector: Collector, tmp_path: Path
) -> None:
    await _run(_config(tmp_path, max_lag=1))
    steps = sorted(collector.named("step"), key=lambda span: span.attributes[0].value.int_value)
    by_trace = {span.trace_id: number for number, span in enumerate(steps, 1)}
    linked = [[by_trace[link.trace_id] for link in span.links] for span in steps]
    assert linked[0] == []
    assert all(number < step for step, numbers in enumerate(linked, 1) for number in numbers)
    assert any(linked)
    assert all(collector.chain(span)[-1] == "step" for span in collector.named("sample"))
