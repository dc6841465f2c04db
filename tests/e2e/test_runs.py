"""Whole runs: all services as processes of their own, over real gRPC and a real Redis, with a tiny model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import trustme
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.sft import SftSettings, run_sft
from prime.data.chain import draw_chains, problem_of, sft_texts, write_fresh_model
from prime.data.problems import write_jsonl
from prime.errors import EngineError
from primectl.config import RunConfig
from primectl.places import free_port
from primectl.stack import local_stack
from tests.builders import documented_metrics

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

REPOSITORY = Path(__file__).parents[2]
STEPS = 10


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that knows the form of an answer and guesses the digits; problems; held-out problems."""
    folder = tmp_path_factory.mktemp("material")
    chains = draw_chains(64, length=3, seed=1)
    write_jsonl([problem_of(digits) for digits in chains[:48]], folder / "problems.jsonl")
    write_jsonl([problem_of(digits) for digits in chains[48:]], folder / "held_out.jsonl")
    with (folder / "sft.jsonl").open("w") as file:
        for prompt, response in islice(sft_texts(length=3, seed=2, wrong_share=0.2), 1024):
            file.write(json.dumps({"prompt": [{"role": "user", "content": prompt}], "response": response}) + "\n")
    write_fresh_model(folder / "fresh", seed=0, hidden=32)
    run_sft(
        SftSettings(
            model=folder / "fresh",
            data=folder / "sft.jsonl",
            output=folder / "sft",
            steps=80,
            batch_size=32,
            lr=5e-3,
            device="cpu",
        ),
        lambda step: None,
    )
    return folder


def _config(material: Path, runs: Path, name: str, **changes: Any) -> RunConfig:
    trainer = {
        "problems": str(material / "problems.jsonl"),
        "steps": STEPS,
        "prompts_per_step": 6,
        "samples_per_prompt": 4,
        "max_prompt_tokens": 16,
        "checkpoint_every": 2,
        "max_lag": 0,
        "sampling": {"max_tokens": 24},
        "filter": {"low": 0.1, "high": 0.9},
        "optimiser": {"lr": 1e-3, "threads": 1},
        "evaluation": {
            "problems": str(material / "held_out.jsonl"),
            "sets": [f"more={material / 'held_out.jsonl'}:3"],
            "limit": 10,
            "every": 2,
        },
        "peers": {"stall_seconds": 60},
        **changes,
    }
    return RunConfig.model_validate(
        {
            "run": {"name": name, "folder": str(runs), "model": str(material / "sft")},
            "trainer": trainer,
            "prm": {"lr": 1e-3, "threads": 1},
            "rollout": {"max_context": 64, "lease_seconds": 3},
        }
    )


def _metrics(config: RunConfig) -> list[dict[str, float]]:
    """Everything that was measured but by the clock."""
    lines = (config.run.path / "metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if not key.startswith(("time/", "wait/", "busy/"))}
        for line in lines
    ]


def _tensorboard_curve(config: RunConfig, name: str) -> dict[int, float]:
    """By step; a step that is there twice fails."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(config.run.path / "tensorboard"))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars(name)]
    assert len(dict(points)) == len(points)
    return dict(points)


async def _run(config: RunConfig, *, resume: bool = False, num_rollouts: int = 1) -> None:
    async with local_stack(config, num_rollouts=num_rollouts) as stack:
        async for _ in stack.train(resume=resume):
            pass


async def _run_and_kill(config: RunConfig, *names: str, times: int = 1) -> list[str]:
    """After the first checkpoint; what the stack had to say of it."""
    said: list[str] = []

    async def kill() -> None:
        while not (config.run.path / "checkpoints" / "latest").is_file():
            await asyncio.sleep(0.01)
        for _ in range(times):
            pids = [stack.process_id(name) for name in names]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            while [stack.process_id(name) for name in names] == pids:
                await asyncio.sleep(0.01)

    async with local_stack(config, say=said.append) as stack:
        killing = asyncio.create_task(kill())
        try:
            async for _ in stack.train(resume=False):
                pass
        finally:
            killing.cancel()
    return said


@pytest.fixture(scope="module")
async def uninterrupted(material: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    config = _config(material, tmp_path_factory.mktemp("runs"), "whole", record=True)
    await _run(config)
    return config


async def test_a_run_leaves_metrics_and_folders_that_transformers_alone_can_load(uninterrupted: RunConfig) -> None:
    metrics = _metrics(uninterrupted)
    assert [row["step"] for row in metrics] == list(range(STEPS + 1))
    first = metrics[1]
    assert first["prm/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first["reward/largest_token"] == 0.0
    assert metrics[2]["reward/largest_token"] > 0.0
    assert all(row["push/probe_gap"] < 1e-4 for row in metrics[1:])
    written = {name for row in metrics for name in row if name != "step"}
    assert sorted(name for name in written if not documented_metrics().fullmatch(name)) == []
    assert {row["step"] for row in metrics if "eval/accuracy" in row} == set(range(0, STEPS + 1, 2))
    curve = [json.loads(line) for line in (uninterrupted.run.path / "evaluation.jsonl").read_text().splitlines()]
    assert [(row["version"], row["newest"]) for row in curve] == [(step, step) for step in range(0, STEPS + 1, 2)]
    assert [sum(curve[0]["sets"][name]["counts"].values()) for name in ("held_out", "more")] == [10, 30]
    assert list(curve[0]["sets"]["more"]["pass_at"]) == ["1", "2", "3"]
    for kind in ("policy", "prm"):
        folder = uninterrupted.run.path / "checkpoints" / f"step_{STEPS}" / kind
        AutoTokenizer.from_pretrained(folder)
        AutoModelForCausalLM.from_pretrained(folder)
    rollouts = (uninterrupted.run.path / "rollouts" / "step_2.jsonl").read_text().splitlines()
    assert len(rollouts) == 4
    assert {"response", "outcome", "token_rewards"} <= set(json.loads(rollouts[0]))


async def test_the_same_seed_gives_the_same_metrics(uninterrupted: RunConfig, material: Path, tmp_path: Path) -> None:
    again = _config(material, tmp_path, "whole")
    await _run(again)
    assert _metrics(again) == _metrics(uninterrupted)
    curves = [(each.run.path / "evaluation.jsonl").read_text() for each in (again, uninterrupted)]
    assert curves[0] == curves[1]


async def test_a_running_replica_is_evaluated_by_address_and_graded_by_the_running_verifier(
    material: Path, tmp_path: Path
) -> None:
    config = _config(material, tmp_path, "served", steps=2)
    async with local_stack(config) as stack:
        async for _ in stack.train(resume=False):
            pass
        command = [
            *("evaluate", f"held_out={material / 'held_out.jsonl'}", "--samples", "3", "--max-tokens", "24"),
            *("--model", str(material / "sft"), "--rollout-address", stack.config.trainer.peers.rollout[0]),
            *("--verifier-address", stack.config.trainer.peers.verifier),
            *("--token-file", str(config.run.token_file), "--output", str(tmp_path / "out")),
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "primectl", *command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    found = json.loads(out.decode().splitlines()[-1])
    assert found["samples"] == 48
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert {span["version"] for row in rows for span in row["spans"]} == {2}
    identity = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert identity["policy"]["name"].endswith(" at version 2")


@pytest.mark.parametrize("transport", ["ipc", "gloo"])
async def test_weights_that_are_fetched_past_grpc_give_the_same_metrics(
    uninterrupted: RunConfig, material: Path, tmp_path: Path, transport: str
) -> None:
    config = _config(material, tmp_path, "whole", push=transport)
    await _run(config)
    over_grpc, fetched = _metrics(uninterrupted), _metrics(config)
    assert {row.pop("push/fetched") for row in over_grpc if "push/fetched" in row} == {0.0}
    assert {row.pop("push/fetched") for row in fetched if "push/fetched" in row} == {1.0}
    assert fetched == over_grpc


async def test_a_run_whose_services_ask_each_other_for_certificates_gives_the_same_metrics(
    uninterrupted: RunConfig, material: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1")
    folder = tmp_path / "tls"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    own.private_key_pem.write_to_path(folder / "tls.key")
    own.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    config = _config(material, tmp_path, "whole")
    config = config.model_copy(update={"run": config.run.model_copy(update={"tls_folder": folder})})
    await _run(config)
    assert _metrics(config) == _metrics(uninterrupted)


async def test_a_replay_on_several_processes_learns_what_the_recorded_run_learnt(
    uninterrupted: RunConfig, material: Path, tmp_path: Path
) -> None:
    """The same batches with policy and PRM each cut over two processes: sharding is no other algorithm."""
    recorded = str(uninterrupted.run.path / "recorded")
    config = _config(material, tmp_path, "replay", mode="replay", recorded=recorded, processes=2, steps=4)
    config = config.model_copy(update={"prm": config.prm.model_copy(update={"processes": 2})})
    await _run(config)
    for before, after in zip(_metrics(uninterrupted)[1:5], _metrics(config)[1:], strict=True):
        names = [name for name in before if name.startswith(("policy/", "prm/", "reward/", "advantage/", "batch/"))]
        assert len(names) > 15
        for name in names:
            assert after[name] == pytest.approx(before[name], abs=1e-4, rel=1e-3), name
    folder = config.run.path / "checkpoints" / "step_4" / "policy"
    AutoModelForCausalLM.from_pretrained(folder)


async def test_a_trainer_over_two_machines_learns_what_one_learns(
    uninterrupted: RunConfig, material: Path, tmp_path: Path
) -> None:
    """Two launchers that meet by torchrun's rendezvous, as the page on scaling has it."""
    recorded = str(uninterrupted.run.path / "recorded")
    config = _config(material, tmp_path, "nodes", mode="replay", recorded=recorded, steps=2)
    rendezvous = f"127.0.0.1:{free_port()}"
    async with local_stack(config):
        nodes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
                *(f"--node-rank={number}", "--rdzv-backend=c10d", f"--rdzv-endpoint={rendezvous}", "--rdzv-id=run"),
                *("-m", "primectl", "trainer", "--config", str(config.run.path / "settings.json")),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number in range(2)
        ]
        assert [await node.wait() for node in nodes] == [0, 0]
    for before, after in zip(_metrics(uninterrupted)[1:3], _metrics(config)[1:], strict=True):
        for name in ("policy/loss", "policy/grad_norm", "prm/loss", "reward/mean_response"):
            assert after[name] == pytest.approx(before[name], abs=1e-4, rel=1e-3), name


async def test_without_learning_sampler_and_trainer_stay_together(material: Path, tmp_path: Path) -> None:
    """Twenty pushes and twenty batches later their log-probs differ as little as at the start."""
    still = {"lr": 0.0, "threads": 1}
    config = _config(material, tmp_path, "still", steps=20, max_lag=1, filter={"low": 0, "high": 1}, optimiser=still)
    await _run(config)
    gaps = [row["policy/sampler_gap"] for row in _metrics(config)[1:]]
    assert len(gaps) == 20
    assert max(gaps) < 1e-5
    assert all(row["push/probe_gap"] < 1e-5 for row in _metrics(config)[1:])
    before, after = (
        AutoModelForCausalLM.from_pretrained(folder)
        for folder in (material / "sft", config.run.path / "checkpoints" / "step_20" / "policy")
    )
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert all(mine.equal(theirs) for mine, theirs in pairs)


def test_a_prm_learns_once_more_from_what_its_run_recorded(uninterrupted: RunConfig, tmp_path: Path) -> None:
    run = uninterrupted.run.path
    answered = _primectl(
        *("refine-prm", str(run), "--output", str(tmp_path / "prm"), "--last", "4"),
        *("batch_size=16", "lr=1e-3", "aggregation=mean", "holdout_share=0.2"),
        cwd=tmp_path,
    )
    assert answered.returncode == 0, answered.stderr
    report = json.loads(answered.stdout.splitlines()[-1])
    rows = [json.loads(line) for line in (run / "recorded" / "candidates.jsonl").read_text().splitlines()]
    assert [len(row["completions"]) for row in rows] == [4] * 24
    assert report["examples"] < 96
    assert report["after"]["loss"] != report["before"]["loss"]
    config = json.loads((tmp_path / "prm" / "prm_config.json").read_text())
    assert config["aggregation"] == "mean"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "prm")
    recorded = json.loads((run / "recorded" / "step_7.jsonl").read_text().splitlines()[0])["group"]
    text = tokenizer.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True, tokenize=False)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == recorded["prompt_ids"]
    assert tokenizer.decode(recorded["samples"][0]["response_ids"]).startswith(rows[0]["completions"][0])
    nothing = _primectl("refine-prm", str(tmp_path), "--output", str(tmp_path / "other"), cwd=tmp_path)
    assert nothing.returncode == 1
    assert "holds no run" in nothing.stderr


@pytest.mark.parametrize("names", [("trainer",), ("prm",), ("redis",), ("prm", "rollout-0", "redis")])
async def test_whatever_is_killed_is_brought_back_and_the_run_ends_as_if_nothing_had_died(
    uninterrupted: RunConfig, material: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    config = _config(material, tmp_path, "whole")
    said = await _run_and_kill(config, *names)
    for name in names:
        assert any(line.startswith(f"{name} was killed by SIGKILL") for line in said), said
    assert any("goes on from step" in line for line in said)
    assert _metrics(config) == _metrics(uninterrupted)


async def test_what_is_killed_again_and_again_ends_the_run_which_can_be_resumed(
    uninterrupted: RunConfig, material: Path, tmp_path: Path
) -> None:
    config = _config(material, tmp_path, "whole", trackers={"use": ["tensorboard"]})
    with pytest.raises(EngineError, match="trainer was killed by SIGKILL"):
        await _run_and_kill(config, "trainer", times=4)
    assert 2 <= _metrics(config)[-1]["step"] < STEPS
    await _run(config, resume=True)
    assert _metrics(config) == _metrics(uninterrupted)
    tracked = _tensorboard_curve(config, "policy/loss")
    assert tracked == pytest.approx({row["step"]: row["policy/loss"] for row in _metrics(config) if row["step"]})


async def test_a_killed_replica_is_replaced_and_no_group_is_lost(material: Path, tmp_path: Path) -> None:
    config = _config(material, tmp_path, "kill", steps=60, max_lag=1, filter={"low": 0, "high": 1})
    killed = False
    async with local_stack(config, num_rollouts=2) as stack:
        async for status in stack.train(resume=False):
            if status.step >= 1 and not killed:
                os.kill(stack.process_id("rollout-1"), signal.SIGKILL)
                killed = True
    assert killed
    metrics = _metrics(config)[1:]
    assert [row["batch/groups"] for row in metrics] == [6.0] * 60


def _primectl(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "primectl", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_the_example_file_runs_with_real_grading_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    assert _primectl("tiny-model", "runs/tiny-model", cwd=tmp_path).returncode == 0
    result = _primectl("train", "--config", "examples/train.toml", "trainer.steps=2", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in (tmp_path / "runs/example/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
    # Groups may be graded while the step before is learnt from, and then count there.
    assert sum(row.get("collect/graded", 0) for row in rows) >= sum(row.get("batch/groups", 0) for row in rows) > 0
    status = _primectl("status", "runs/example", cwd=tmp_path)
    assert "not running" in status.stdout


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["trainer.problems=missing.jsonl"], "missing.jsonl does not exist"),
        (["trainer.problems=bad.jsonl"], "bad.jsonl, row 2: column 'prompt' is empty"),
        (["run.model=nowhere"], "the model folder nowhere does not exist"),
        (["trainer.samples_per_prompt=1"], "'trainer.samples_per_prompt' = 1"),
        (["trainer.stepz=1"], "unknown setting 'trainer.stepz'"),
        (["trainer.max_prompt_tokens=2"], "over trainer.max_prompt_tokens = 2"),
        (["prm.model=other"], "prm.model = other has another tokenizer"),
        (["run.redis_url=redis://127.0.0.1:1/0"], "Redis at redis://127.0.0.1:1/0 does not answer"),
    ],
)
def test_bad_input_is_one_clear_message_and_leaves_nothing_behind(
    material: Path, tmp_path: Path, overrides: list[str], complaint: str
) -> None:
    good = (material / "problems.jsonl").read_text().splitlines()
    bad = json.loads(good[1]) | {"prompt": [{"role": "user", "content": " "}]}
    (tmp_path / "bad.jsonl").write_text(good[0] + "\n" + json.dumps(bad) + "\n")
    if "prm.model=other" in overrides:
        _primectl("tiny-model", "other", cwd=tmp_path)
    (tmp_path / "run.toml").write_text(
        f'[run]\nname = "x"\nmodel = "{material / "sft"}"\n'
        f'[trainer]\nproblems = "{material / "problems.jsonl"}"\nsteps = 1\nsampling = {{ max_tokens = 24 }}\n'
    )
    result = _primectl("up", "--config", "run.toml", *overrides, cwd=tmp_path)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("service", ["trainer", "rollout"])
def test_a_service_without_its_redis_or_its_peers_says_so_and_ends(
    material: Path, tmp_path: Path, redis_url: str, service: str
) -> None:
    config = _config(material, tmp_path, "alone")
    (tmp_path / "settings.json").write_text(config.model_dump_json())
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "token").write_text("t")
    missing_redis = _primectl(service, "--config", "settings.json", "run.redis_url=redis://127.0.0.1:1/0", cwd=tmp_path)
    assert missing_redis.returncode == 1
    assert "does not answer" in missing_redis.stderr
    if service == "trainer":
        peers = '["127.0.0.1:1"]'
        alone = _primectl(
            service,
            "--config",
            "settings.json",
            f"run.redis_url={redis_url}",
            f"trainer.peers.rollout={peers}",
            cwd=tmp_path,
        )
        assert alone.returncode == 1
        assert "127.0.0.1:1" in alone.stderr


def test_a_run_is_seen_and_stopped_from_another_terminal(material: Path, tmp_path: Path) -> None:
    config = _config(material, tmp_path, "stopped", steps=1000, checkpoint_every=1000, evaluation={})
    (tmp_path / "run.json").write_text(config.model_dump_json(exclude_unset=True))
    command = [sys.executable, "-m", "primectl", "up", "--config", "run.json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as up:
        while not (config.run.path / "metrics.jsonl").is_file():
            assert up.poll() is None
            time.sleep(0.05)
        seen = _primectl("status", str(config.run.path), cwd=tmp_path).stdout
        second = _primectl("up", "--config", "run.json", "--resume", cwd=tmp_path)
        stopped = _primectl("stop", str(config.run.path), cwd=tmp_path)
        assert up.wait() == 130
    assert "stopped: step" in seen
    for name in ("primectl", "redis", "trainer", "prm", "verifier", "rollout-0"):
        assert f"  {name:<10} process " in seen, seen
    assert second.returncode == 1
    assert f"in use by another primectl (process {up.pid})" in second.stderr
    assert stopped.returncode == 0, stopped.stderr
    latest = int((config.run.path / "checkpoints" / "latest").read_text())
    assert latest == _metrics(config)[-1]["step"]


async def test_a_trainer_stopped_before_its_end_tells_a_supervisor_that_it_has_to_go_on(
    material: Path, tmp_path: Path
) -> None:
    config = _config(material, tmp_path, "supervised")
    command = [sys.executable, "-m", "primectl", "trainer", "--config", str(config.run.path / "settings.json")]
    flags = ("--resume-if-begun", "--fail-if-unfinished")
    async with local_stack(config):
        trainer = await asyncio.create_subprocess_exec(*command, *flags, stdout=subprocess.DEVNULL)
        while not (config.run.path / "checkpoints" / "latest").is_file():
            await asyncio.sleep(0.01)
        trainer.send_signal(signal.SIGTERM)
        assert await trainer.wait() == 75
        trainer = await asyncio.create_subprocess_exec(*command, *flags, stdout=subprocess.DEVNULL)
        assert await trainer.wait() == 0
    assert [row["step"] for row in _metrics(config)] == list(range(STEPS + 1))
