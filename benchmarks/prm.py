"""`make bench-prm`: the scoring engine beside the plain way, in one run. The last line is one JSON object.

Ratios are medians over rounds in which both sides take turns, so that a busy machine slows both. Peak memory is that
of processes of their own, which do one side once. Where vLLM is installed, its `prompt_logprobs` are a third side.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.prm_http import measure_http
from benchmarks.prm_pair import draw_group, shape_of_half_billion, write_model
from benchmarks.prm_plain import PlainScorer
from prime.types import PrmGroup
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings

_BETA = 0.05
_GOALS = {
    "candidates_vs_plain_cold": 2.5,
    "candidates_vs_plain_cached": 5.0,
    "peak_memory_ratio": 0.2,
    "candidates_vs_vllm": 2.0,
    "http_overhead_p50_ms": 3.0,
}
_LARGEST_GAP = 1e-5
_VLLM_PYTHON = Path(".venv-vllm/bin/python")


def main() -> None:
    """Run all parts and print the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4, help="of Qwen2.5-0.5B's 24")
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=256, help="tokens")
    parser.add_argument("--response", type=int, default=256, help="tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-vllm", action="store_true")
    arguments = parser.parse_args()
    shape = shape_of_half_billion(layers=arguments.layers)
    with tempfile.TemporaryDirectory() as folder:
        prm = write_model(Path(folder) / "prm", shape, seed=1)
        reference = write_model(Path(folder) / "reference", shape, seed=2)
        report: dict[str, object] = {"model": f"Qwen2.5-0.5B with {shape.layers} of 24 layers, fp32"}
        report |= {key: getattr(arguments, key) for key in ("candidates", "prompt", "response", "rounds")}
        report |= _memory(arguments, prm, reference)
        report |= _speed(arguments, prm, reference)
    report |= measure_http()
    print(json.dumps(report | {"goals": _GOALS, "machine": machine()}))


def _groups(arguments: argparse.Namespace) -> list[PrmGroup]:
    """One per round, after one to warm up with; the same that `benchmarks.prm_vllm` draws."""
    return [
        draw_group(candidates=arguments.candidates, prompt=arguments.prompt, response=arguments.response, seed=seed)
        for seed in range(arguments.rounds + 1)
    ]


def _open_ours(prm: Path, reference: Path) -> ImplicitPrm:
    return ImplicitPrm(PrmSettings(reference=reference, beta=_BETA, device="cpu", frozen=True), start=prm)


def _speed(arguments: argparse.Namespace, prm: Path, reference: Path) -> dict[str, object]:
    """Every round a new group: plain, ours with nothing cached, ours with the reference cached, vLLM."""
    ours, plain = _open_ours(prm, reference), PlainScorer(prm, reference)
    warm_up, *groups = _groups(arguments)
    short = PrmGroup(group_id="w", prompt_ids=warm_up.prompt_ids, responses=warm_up.responses[:1])
    ours.score([short], reuse=True)
    plain.score(short, beta=_BETA)
    seconds: dict[str, list[float]] = {"plain": [], "cold": [], "cached": []}
    sums: list[list[float]] = []
    gap = 0.0
    for number, group in enumerate(groups, start=1):
        rows: dict[str, Sequence[Sequence[float]]] = {}
        for name, work in (
            ("plain", partial(plain.score, group, beta=_BETA)),
            ("cold", partial(_score, ours, group)),
            ("cached", partial(_score, ours, group)),
        ):
            started = time.perf_counter()
            rows[name] = work()
            seconds[name].append(time.perf_counter() - started)
        gap = max(gap, _gap(rows["cold"], rows["plain"]), _gap(rows["cached"], rows["plain"]))
        sums.append([sum(row) for row in rows["cold"]])
        print(f"round {number}: " + ", ".join(f"{name} {each[-1]:.1f} s" for name, each in seconds.items()), flush=True)
    if gap > _LARGEST_GAP:
        raise SystemExit(f"the two ways differ by {gap} in a token reward: they did not compute the same")
    if not arguments.skip_vllm and _VLLM_PYTHON.is_file():
        del plain, ours
        seconds["vllm"] = _vllm(arguments, prm, reference, sums)
    report: dict[str, object] = {"largest_gap": gap}
    for name, each in seconds.items():
        report[f"{name}_candidates_per_second"] = round(arguments.candidates / statistics.median(each), 3)
    report["candidates_vs_plain_cold"] = _ratio(seconds["plain"], seconds["cold"])
    report["candidates_vs_plain_cached"] = _ratio(seconds["plain"], seconds["cached"])
    report["candidates_vs_vllm"] = _ratio(seconds["vllm"], seconds["cold"]) if "vllm" in seconds else None
    return report


def _score(ours: ImplicitPrm, group: PrmGroup) -> Sequence[Sequence[float]]:
    return ours.score([group], reuse=True).rewards


def _gap(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float:
    return max(abs(a - b) for mine, other in zip(ours, theirs, strict=True) for a, b in zip(mine, other, strict=True))


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(theirs, ours, strict=True)), 2)


def _vllm(arguments: argparse.Namespace, prm: Path, reference: Path, sums: Sequence[Sequence[float]]) -> list[float]:
    command = [str(_VLLM_PYTHON), "-m", "benchmarks.prm_vllm", "--prm", str(prm), "--reference", str(reference)]
    for key in ("candidates", "prompt", "response", "rounds"):
        command += [f"--{key}", str(getattr(arguments, key))]
    output = subprocess.run([*command, "--beta", str(_BETA)], check=True, capture_output=True, text=True).stdout
    # vLLM says goodbye on the same stream.
    answer = json.loads(next(line for line in reversed(output.splitlines()) if line.startswith('{"seconds"')))
    if _gap(answer["reward_sums"], sums) > 1e-3:
        raise SystemExit("vLLM's reward sums differ from ours: they did not compute the same")
    seconds: list[float] = answer["seconds"]
    print("vLLM: " + ", ".join(f"{each:.1f} s" for each in seconds), flush=True)
    return seconds


def _memory(arguments: argparse.Namespace, prm: Path, reference: Path) -> dict[str, object]:
    """Peak of what scoring adds to the loaded weights, and of the whole process, each side in its own."""
    added, whole = {}, {}
    for side in ("plain", "ours"):
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        child = context.Process(target=_peak, args=(sender, side, prm, reference, _groups(arguments)[1]))
        child.start()
        sender.close()
        added[side], whole[side] = receiver.recv()
        child.join()
        print(f"memory, {side}: {added[side] / 2**30:.2f} GiB beyond the weights", flush=True)
    return {
        "plain_peak_gib": round(added["plain"] / 2**30, 3),
        "ours_peak_gib": round(added["ours"] / 2**30, 3),
        "peak_memory_ratio": round(added["ours"] / added["plain"], 3),
        "process_memory_ratio": round(whole["ours"] / whole["plain"], 3),
    }


def _peak(sender: Connection, side: str, prm: Path, reference: Path, group: PrmGroup) -> None:
    if side == "plain":
        plain = PlainScorer(prm, reference)
        before = _start_counting()
        plain.score(group, beta=_BETA)
    else:
        ours = _open_ours(prm, reference)
        before = _start_counting()
        ours.score([group], reuse=True)
    peak = _resident("VmHWM")
    sender.send((peak - before, peak))


def _start_counting() -> int:
    """Forget the peak of loading; returns what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident("VmRSS")


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
