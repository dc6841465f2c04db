"""`primectl`: parses first and imports late, so that `--help` loads neither torch nor any service."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prime import __version__
from prime.errors import PrimeError

if TYPE_CHECKING:
    from prime.adapters.settings import SettingsT
    from primectl.scorers import ScorerOptions

_UNFINISHED = 75  # EX_TEMPFAIL: try again
_ROLLOUTS_HELP = "rollout replicas (default: 1, or as many as the GPUs for sampling hold)"
_OVERRIDES_HELP = "settings, over those of the file; docs/settings.md lists all"
_CONFIG_HELP = "the run's TOML file; section.key=value after it overrides single settings"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; a failure that we foresee is one message and exit code 1."""
    parsed = _parse(arguments)
    try:
        sys.exit(parsed.run(parsed))
    except PrimeError as error:
        print(f"primectl: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("primectl: interrupted", file=sys.stderr)
        sys.exit(130)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand anywhere: argparse itself takes them only where the other positionals are."""
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "overrides") or any(each.startswith("-") for each in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.overrides = [*parsed.overrides, *rest]
    return parsed


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; `docs/cli.md` is generated from it."""
    parser = argparse.ArgumentParser(
        prog="primectl", description="PRIME: online RL with implicit process rewards, as services."
    )
    parser.add_argument("--version", action="version", version=f"primectl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _add_demos(commands)
    _add_runs(commands)
    _add_data_commands(commands)

    verify = _command(commands, "verify", _verify, "grade a file of answers and print a report")
    verify.add_argument("file", type=Path, help="a .jsonl or .parquet file: problems with a column `response`")
    verify.add_argument("overrides", nargs="*", metavar="key=value", help="settings of [verifier], e.g. workers=4")
    verify.add_argument("--out", type=Path, metavar="FILE", help="write the verdicts there, one JSON object a line")
    verify.add_argument("--address", default="", metavar="HOST:PORT", help="ask a running verifier instead")
    verify.add_argument("--token-file", type=Path, metavar="FILE", help="its bearer token")
    verify.add_argument("--json", action="store_true", help="print one JSON object instead of the report")

    _add_prm_commands(commands)
    _add_evaluation_commands(commands)

    _command(commands, "doctor", _doctor, "what this machine has and lacks")

    dashboard = _command(commands, "dashboard", _dashboard, "a page in the browser that shows how runs go")
    dashboard.add_argument(
        "--folder", type=Path, default=Path("runs"), help="folder of the run folders (default %(default)s)"
    )
    dashboard.add_argument(
        "--listen", default="127.0.0.1:9160", metavar="HOST:PORT", help="address of the page (default %(default)s)"
    )

    prepare = _command(commands, "prepare", _prepare, "write secrets and the demo's material, for containers")
    prepare.add_argument("--token-file", type=Path, metavar="FILE", help="the services' token: PRIME_TOKEN, else new")
    prepare.add_argument("--redis", type=Path, metavar="FOLDER", help="Redis' password and its list of users")
    prepare.add_argument(
        "--demo",
        type=lambda text: Path(text) if text else None,
        metavar="FOLDER",
        help="problems and SFT checkpoint of the toy task; empty: none",
    )

    health = _command(commands, "health", _health, "is a service alive (/healthz), or ready (/readyz)?")
    health.add_argument("url", help="e.g. http://127.0.0.1:9152/readyz")

    gguf = _command(commands, "import-gguf", _import_gguf, "write a GGUF file's Llama model as a Hugging Face folder")
    gguf.add_argument("file", type=Path, help="the .gguf file")
    gguf.add_argument("output", type=Path, help="the folder to write")

    make_model = _command(commands, "tiny-model", _tiny_model, "write a small untrained model, to try things with")
    make_model.add_argument("output", type=Path, help="the folder to write")
    make_model.add_argument("--seed", type=int, default=0, help="seed of its weights (default %(default)s)")

    for name in ("rollout", "prm", "verifier", "trainer"):
        service = _command(commands, name, _service, f"run the {name} service alone")
        _add_config(service)
        service.set_defaults(service=name)
        if name == "trainer":
            service.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
            service.add_argument(
                "--resume-if-begun", action="store_true", help="the same where the run has begun; for supervisors"
            )
            service.add_argument(
                "--fail-if-unfinished",
                action="store_true",
                help="exit code 75 when it was stopped before the last step; for supervisors that take 0 for the end",
            )
    return parser


def _add_runs(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, text in (
        ("up", "start all services of a run on this machine and train"),
        ("train", "the same as up, on the problems given"),
    ):
        up = _command(commands, name, _up, text)
        _add_config(up)
        up.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
        up.add_argument("--rollouts", type=int, metavar="N", help=_ROLLOUTS_HELP)
        if name == "train":
            up.add_argument("--problems", metavar="FILE", help="sets trainer.problems")
            up.add_argument("--model", metavar="FOLDER", help="sets run.model")

    plan = _command(commands, "plan", _plan, "which GPUs each service of a run would get")
    _add_config(plan)
    plan.add_argument("--rollouts", type=int, metavar="N", help=_ROLLOUTS_HELP)
    plan.add_argument("--gpus", type=int, metavar="N", help="plan for a machine with N GPUs instead of this one")

    status = _command(commands, "status", _status, "where a run stands")
    status.add_argument("folder", type=Path, help="the run folder, e.g. runs/demo-1")

    stop = _command(commands, "stop", _stop, "end a run in good order: it finishes its step and saves")
    stop.add_argument("folder", type=Path, help="the run folder, e.g. runs/demo-1")
    stop.add_argument(
        "--patience",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="longest wait for its end (default %(default)g)",
    )


def _add_demos(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = _command(commands, "demo", _demo, "SFT, then PRIME with all services, on a toy task; about ten minutes")
    demo.add_argument(
        "--engine", choices=("transformers", "vllm"), default="transformers", help="what samples (default %(default)s)"
    )
    demo.add_argument("--steps", type=int, default=40, help="RL steps (default %(default)s)")
    demo.add_argument(
        "--folder", type=Path, default=Path("runs"), help="folder of the run folders (default %(default)s)"
    )

    real = _command(
        commands,
        "demo-real",
        _demo_real,
        "SFT and PRIME on a real model of 135 M parameters; about 45 minutes on two cores",
    )
    real.add_argument("--short", action="store_true", help="a few steps: shows that all parts work, learns nothing")
    real.add_argument(
        "--folder", type=Path, default=Path("runs"), help="folder of the run folders (default %(default)s)"
    )
    real.add_argument(
        "--data",
        type=Path,
        default=Path("evaluation-sets"),
        help="folder of gsm8k, to measure it too (default %(default)s)",
    )


def _add_data_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sft = _command(commands, "sft", _sft, "supervised fine-tuning of a checkpoint on prompts with responses")
    sft.add_argument("--config", type=Path, help="TOML file with the settings; key=value overrides single ones")
    sft.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
    sft.add_argument("--resume", action="store_true", help="go on from the last checkpoint (checkpoint_every)")
    sft.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")

    sokoban = _command(commands, "sokoban", _sokoban, "write Sokoban levels as problems; docs/environments.md")
    sokoban.add_argument("output", type=Path, help="a .jsonl file")
    sokoban.add_argument("--count", type=int, default=512, help="levels, all different (default %(default)s)")
    sokoban.add_argument("--size", type=int, default=7, help="side of the room, walls included (default %(default)s)")
    sokoban.add_argument("--boxes", type=int, default=1, help="boxes in a room (default %(default)s)")
    sokoban.add_argument(
        "--pulls", type=int, default=2, help="how far boxes are from their goals (default %(default)s)"
    )
    sokoban.add_argument("--seed", type=int, default=0, help="seed of the levels (default %(default)s)")

    sft_data = _command(commands, "sft-data", _sft_data, "have a model write responses in the seven actions")
    sft_data.add_argument("--config", type=Path, help="TOML file with the settings; key=value overrides single ones")
    sft_data.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
    sft_data.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token of verifier_address")
    sft_data.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")

    curate = _command(commands, "curate", _curate, "raw corpora to problems with verified answers; docs/data.md")
    curate.add_argument("--config", type=Path, required=True, help="TOML file with the settings")
    curate.add_argument("overrides", nargs="*", metavar="section.key=value", help=_OVERRIDES_HELP)
    curate.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token of verifier_address")
    curate.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")


def _add_prm_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve_prm = _command(commands, "serve-prm", _serve_prm, "serve a PRM folder as a scoring API over HTTP")
    _add_prm(serve_prm)
    serve_prm.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds the API key; else PRIME_TOKEN, else new"
    )
    serve_prm.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="NAME=FOLDER[,reference=FOLDER]",
        help="another PRM in the same service, chosen by a request's `model`; may be repeated",
    )
    serve_prm.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")

    new_key = _command(commands, "new-key", _new_key, "make an API key, and print its table for the file prm.api.keys")
    new_key.add_argument("name", help="name of its holder, in metrics and messages")
    new_key.add_argument(
        "--scopes", default="score", metavar="LIST", help="any of score, chat, learn, metrics (default %(default)s)"
    )

    score = _command(commands, "score", _score, "score a file of candidates with a PRM")
    score.add_argument("file", type=Path, help="a .jsonl or .parquet file: prompts with `responses`")
    _add_scorer(score)
    score.add_argument("--out", type=Path, metavar="FILE", help="write the scores there, one JSON object a line")
    score.add_argument(
        "--aggregation",
        choices=("sum", "mean", "min", "last"),
        help="how steps make a score; else as the PRM's folder says",
    )
    score.add_argument(
        "--truncation",
        choices=("error", "left", "right"),
        default="error",
        help="what to do with prompts that are too long (default %(default)s)",
    )
    score.add_argument("--json", action="store_true", help="print one JSON object instead of the report")

    best_of_n = _command(commands, "best-of-n", _best_of_n, "answer a file of prompts by a running best-of-N service")
    best_of_n.add_argument("file", type=Path, help="a .jsonl or .parquet file with `prompt` or `messages`")
    best_of_n.add_argument("--address", required=True, metavar="URL", help="e.g. http://127.0.0.1:9152")
    best_of_n.add_argument("--token-file", type=Path, metavar="FILE", help="holds the API key; else PRIME_TOKEN")
    best_of_n.add_argument("--out", type=Path, metavar="FILE", help="write the answers there; else they are printed")
    best_of_n.add_argument("--model", default="", help="the engine's name for its model")
    best_of_n.add_argument("--best-of", type=int, metavar="N", help="candidates per prompt")
    best_of_n.add_argument(
        "--selection",
        choices=("best", "majority", "weighted"),
        help="how the answer is chosen; else as the service is set",
    )
    best_of_n.add_argument("--temperature", type=float, help="sampling temperature")
    best_of_n.add_argument("--max-tokens", type=int, help="longest candidate, in tokens")
    best_of_n.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="anything else of the request, e.g. top_p=0.9 seed=1 prime.strategy=dvts prime.width=4",
    )

    train_prm = _command(commands, "train-prm", _train_prm, "train a PRM on labelled responses or steps")
    train_prm.add_argument("--config", type=Path, help="TOML file with the settings; key=value overrides single ones")
    train_prm.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES_HELP)
    train_prm.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")

    refine = _command(commands, "refine-prm", _refine_prm, "train a run's PRM once more on what the run recorded")
    refine.add_argument("run_folder", type=Path, metavar="RUN", help="a run with trainer.record = true")
    refine.add_argument("overrides", nargs="*", metavar="key=value", help="settings of train-prm, e.g. lr=5e-7")
    refine.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the new PRM")
    refine.add_argument("--last", type=int, default=0, metavar="N", help="the last N steps only (default: all)")

    evaluate = _command(commands, "evaluate-prm", _evaluate_prm, "best-of-N tables and ProcessBench of a PRM")
    _add_scorer(evaluate)
    evaluate.add_argument("--candidates", type=Path, nargs="+", default=[], metavar="FILE", help="fixed candidates")
    evaluate.add_argument(
        "--process-bench", type=Path, nargs="+", default=[], metavar="FILE", help="rows of ProcessBench"
    )
    evaluate.add_argument("--tune-on", type=Path, metavar="FILE", help="where the threshold of ProcessBench is tuned")
    evaluate.add_argument("--no-votes", action="store_true", help="do without the verifier, and so without votes")
    evaluate.add_argument(
        "--min-tier",
        choices=("A", "B"),
        default="A",
        help="weakest isolation of the verifier (default %(default)s); docs/grading.md",
    )


def _add_evaluation_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = _command(
        commands, "evaluate", _evaluate, "how good a policy is, on problem sets; started again it goes on"
    )
    evaluate.add_argument(
        "overrides",
        nargs="*",
        metavar="SET",
        help="math500, math500:4 (samples), NAME=FILE (your own); key=value overrides a setting",
    )
    evaluate.add_argument("--output", type=Path, metavar="FOLDER", help="samples, verdicts and reports go there")
    evaluate.add_argument("--config", type=Path, help="TOML file with the settings")
    evaluate.add_argument("--model", type=Path, metavar="FOLDER", help="the policy's Hugging Face folder")
    evaluate.add_argument("--rollout-address", metavar="HOST:PORT", help="a running replica; --model has its tokenizer")
    evaluate.add_argument("--endpoint", metavar="URL", help="any engine that speaks OpenAI's chat completions")
    evaluate.add_argument("--endpoint-model", metavar="NAME", help="the engine's name for its model")
    evaluate.add_argument("--data", type=Path, metavar="FOLDER", help="files of the sets (default evaluation-sets)")
    evaluate.add_argument("--samples", type=int, metavar="K", help="samples per problem (default 1)")
    evaluate.add_argument("--greedy", action="store_true", default=None, help="one more sample, at temperature 0")
    evaluate.add_argument("--temperature", type=float, help="sampling temperature (default 1)")
    evaluate.add_argument("--top-p", type=float, help="share of the probability that is sampled from (default 1)")
    evaluate.add_argument("--max-tokens", type=int, help="longest answer, in tokens (default 1024)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="the first N problems of each set only")
    evaluate.add_argument("--prm", type=Path, metavar="FOLDER", help="a PRM, for best-of-N")
    evaluate.add_argument("--reference", metavar="FOLDER", help="the model that the PRM was trained against; or none")
    evaluate.add_argument("--prm-address", default="", metavar="URL", help="ask a running scoring service instead")
    evaluate.add_argument("--verifier-address", metavar="HOST:PORT", help="ask a running verifier")
    evaluate.add_argument("--training", metavar="FILE", help="training problems, to count those that are in the sets")
    evaluate.add_argument("--token-file", type=Path, metavar="FILE", help="holds the services' bearer token")
    evaluate.add_argument("--regrade", action="store_true", help="grade the samples again; nothing is sampled")
    evaluate.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")

    compare = _command(commands, "compare", _compare, "the paired difference of two evaluations, per set and overall")
    compare.add_argument("first", type=Path, help="folder of an evaluation")
    compare.add_argument("second", type=Path, help="folder of another, on the same sets")
    compare.add_argument("--out", type=Path, metavar="FILE", help="write the table there, as Markdown")

    export = _command(commands, "export", _export, "write a run's figures to an experiment tracker, also afterwards")
    export.add_argument(
        "folder", type=Path, metavar="RUN", help="a run folder, e.g. runs/demo-1; the run may still go on"
    )
    export.add_argument(
        "--to", required=True, choices=("tensorboard", "wandb", "mlflow", "trackio"), help="the tracker"
    )
    export.add_argument("--out", type=Path, metavar="FOLDER", help="event files and ids go there (default RUN/export)")
    export.add_argument("--name", default="", help="the run's name in the tracker (default: its own)")
    export.add_argument("--project", help="of W&B and trackio; MLflow's experiment (default prime)")
    export.add_argument("--entity", help="W&B's user or team")
    export.add_argument("--mlflow-uri", metavar="URI", help="MLflow's tracking URI (default: as MLflow decides)")
    export.add_argument("--offline", action="store_true", default=None, help="W&B: files under --out, for `wandb sync`")

    curve = _command(commands, "curve", _curve, "accuracy of runs against the step, from their own evaluations")
    curve.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, e.g. runs/first")
    curve.add_argument("--out", type=Path, metavar="FILE", help="the page (default: curve.html in the first run)")

    fetch = _command(commands, "fetch-set", _fetch_set, "get the files of evaluation sets; without a name, list them")
    fetch.add_argument("names", nargs="*", metavar="SET", help="e.g. gsm8k math500")
    fetch.add_argument(
        "--data",
        type=Path,
        default=Path("evaluation-sets"),
        metavar="FOLDER",
        help="where to keep them (default %(default)s)",
    )
    fetch.add_argument("--address", default="", metavar="URL", help="download from here instead; the digest is checked")
    fetch.add_argument(
        "--from-hub", action="store_true", help="download by the data set's name instead of from the repository"
    )


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, help=_CONFIG_HELP)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help=_OVERRIDES_HELP)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved settings and stop")


def _add_prm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=Path, help="the PRM's Hugging Face folder, e.g. runs/demo-1/checkpoints/step_40/prm"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings of [prm], e.g. ops_listen=127.0.0.1:80"
    )
    parser.add_argument("--reference", metavar="FOLDER", help="the model that the PRM was trained against; or none")


def _add_scorer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of [prm]")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the PRM's folder, to score in this process")
    parser.add_argument("--reference", metavar="FOLDER", help="the model that the PRM was trained against; or none")
    parser.add_argument("--address", default="", metavar="URL", help="ask a running scoring service instead")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="holds its API key; else PRIME_TOKEN")


def _demo(arguments: argparse.Namespace) -> int:
    from primectl.demo import run_demo

    return run_demo(engine=arguments.engine, steps=arguments.steps, folder=arguments.folder)


def _demo_real(arguments: argparse.Namespace) -> int:
    from primectl.demo_real import FULL, SHORT
    from primectl.demo_real_report import run_demo_real_command

    scale = SHORT if arguments.short else FULL
    return run_demo_real_command(folder=arguments.folder, scale=scale, data=arguments.data)


def _up(arguments: argparse.Namespace) -> int:
    from primectl.config import load_config
    from primectl.up import plan_lines, run_up

    overrides = list(arguments.overrides)
    if getattr(arguments, "problems", None):
        overrides.append(f"trainer.problems={arguments.problems}")
    if getattr(arguments, "model", None):
        overrides.append(f"run.model={arguments.model}")
    config = load_config(arguments.config, overrides)
    if arguments.dry_run:
        print(config.model_dump_json(indent=2))
        for line in plan_lines(config, num_gpus=None, num_rollouts=arguments.rollouts):
            print(line, file=sys.stderr)
        return 0
    return run_up(config, resume=arguments.resume, num_rollouts=arguments.rollouts)


def _plan(arguments: argparse.Namespace) -> int:
    from primectl.config import load_config
    from primectl.up import plan_lines

    config = load_config(arguments.config, list(arguments.overrides))
    print("\n".join(plan_lines(config, num_gpus=arguments.gpus, num_rollouts=arguments.rollouts)))
    return 0


def _with_settings(model: "type[SettingsT]", arguments: argparse.Namespace, run: "Callable[[SettingsT], int]") -> int:
    """Run with the settings of the command line, or show them."""
    from prime.adapters.settings import load_settings

    settings = load_settings(model, arguments.config, arguments.overrides)
    if arguments.dry_run:
        print(settings.model_dump_json(indent=2))
        return 0
    return run(settings)


def _sft(arguments: argparse.Namespace) -> int:
    from jobs.sft import SftSettings
    from primectl.sft import run_sft_command

    return _with_settings(SftSettings, arguments, lambda settings: run_sft_command(settings, resume=arguments.resume))


def _sokoban(arguments: argparse.Namespace) -> int:
    from prime.data.levels import write_levels

    found = write_levels(
        arguments.output,
        count=arguments.count,
        size=arguments.size,
        boxes=arguments.boxes,
        pulls=arguments.pulls,
        seed=arguments.seed,
    )
    print(f"{found} levels in {arguments.output}")
    return 0


def _sft_data(arguments: argparse.Namespace) -> int:
    from jobs.action_responses import ResponseSettings
    from primectl.sft import run_sft_data

    return _with_settings(
        ResponseSettings, arguments, lambda settings: run_sft_data(settings, token_file=arguments.token_file)
    )


def _curate(arguments: argparse.Namespace) -> int:
    from jobs.curate.settings import CurateSettings
    from primectl.curate import run_curate

    return _with_settings(
        CurateSettings, arguments, lambda settings: run_curate(settings, token_file=arguments.token_file)
    )


def _stop(arguments: argparse.Namespace) -> int:
    from primectl.stop import stop_run

    return stop_run(arguments.folder, patience_s=arguments.patience)


def _status(arguments: argparse.Namespace) -> int:
    from primectl.status import show_status

    return show_status(arguments.folder)


def _verify(arguments: argparse.Namespace) -> int:
    from primectl.verify import run_verify

    return run_verify(
        arguments.file,
        out=arguments.out,
        address=arguments.address,
        token_file=arguments.token_file,
        overrides=arguments.overrides,
        as_json=arguments.json,
    )


def _serve_prm(arguments: argparse.Namespace) -> int:
    from primectl.serve_prm import prm_settings, run_serve_prm

    also = [f"api.also={json.dumps(arguments.also)}"] if arguments.also else []
    settings = prm_settings(arguments.model, arguments.reference, [*also, *arguments.overrides])
    if arguments.dry_run:
        print(settings.model_dump_json(indent=2))
        return 0
    return run_serve_prm(settings, token_file=arguments.token_file)


def _new_key(arguments: argparse.Namespace) -> int:
    from primectl.new_key import run_new_key

    return run_new_key(arguments.name, scopes=arguments.scopes)


def _score(arguments: argparse.Namespace) -> int:
    from primectl.score import run_score

    return run_score(
        arguments.file,
        asked=_scorer_options(arguments),
        out=arguments.out,
        aggregation=arguments.aggregation,
        truncation=arguments.truncation,
        as_json=arguments.json,
    )


def _scorer_options(arguments: argparse.Namespace) -> "ScorerOptions":
    from primectl.scorers import ScorerOptions

    return ScorerOptions(
        model=arguments.model,
        reference=arguments.reference,
        address=arguments.address,
        token_file=arguments.token_file,
        overrides=arguments.overrides,
    )


def _best_of_n(arguments: argparse.Namespace) -> int:
    from prime.adapters.settings import merged, read_overrides
    from primectl.best_of_n import run_best_of_n

    options = {
        "model": arguments.model,
        "best_of": arguments.best_of,
        "temperature": arguments.temperature,
        "max_tokens": arguments.max_tokens,
        "prime": {"selection": arguments.selection} if arguments.selection else None,
    }
    options = merged(
        {name: each for name, each in options.items() if each is not None}, read_overrides(arguments.overrides)
    )
    return run_best_of_n(
        arguments.file,
        address=arguments.address,
        token_file=arguments.token_file,
        out=arguments.out,
        options=options,
    )


def _train_prm(arguments: argparse.Namespace) -> int:
    from jobs.train_prm import TrainPrmSettings
    from primectl.train_prm import run_train_prm_command

    return _with_settings(TrainPrmSettings, arguments, lambda settings: run_train_prm_command(settings))


def _refine_prm(arguments: argparse.Namespace) -> int:
    from primectl.refine_prm import settings_of
    from primectl.train_prm import run_train_prm_command

    settings = settings_of(
        arguments.run_folder, output=arguments.output, last=arguments.last, overrides=arguments.overrides
    )
    return run_train_prm_command(settings)


def _evaluate_prm(arguments: argparse.Namespace) -> int:
    from primectl.evaluate_prm import run_evaluate_prm

    return run_evaluate_prm(
        _scorer_options(arguments),
        candidates=arguments.candidates,
        process_bench=arguments.process_bench,
        tune_on=arguments.tune_on,
        votes=not arguments.no_votes,
        min_tier=arguments.min_tier,
    )


_SAMPLING = ("temperature", "top_p", "max_tokens")


def _evaluate(arguments: argparse.Namespace) -> int:
    from jobs.evaluate.settings import EvaluateSettings
    from prime.adapters.settings import load_settings
    from primectl.evaluate import run_evaluate
    from primectl.scorers import ScorerOptions

    settings: list[str] = []
    sets: list[str] = []
    for each in arguments.overrides:
        is_setting = "=" in each and each.partition("=")[0].partition(".")[0] in EvaluateSettings.model_fields
        (settings if is_setting else sets).append(each)
    flags = {name: getattr(arguments, name, None) for name in EvaluateSettings.model_fields}
    flags |= {f"sampling.{name}": getattr(arguments, name) for name in _SAMPLING} | {"sets": sets or None}
    given = [f"{name}={json.dumps(value, default=str)}" for name, value in flags.items() if value is not None]
    resolved = load_settings(EvaluateSettings, arguments.config, [*given, *settings])
    if arguments.dry_run:
        print(resolved.model_dump_json(indent=2))
        return 0
    scorer = None
    if arguments.prm is not None or arguments.prm_address:
        scorer = ScorerOptions(
            model=arguments.prm,
            reference=arguments.reference,
            address=arguments.prm_address,
            token_file=arguments.token_file,
        )
    return run_evaluate(resolved, scorer=scorer, token_file=arguments.token_file, regrade=arguments.regrade)


def _compare(arguments: argparse.Namespace) -> int:
    from primectl.evaluate import run_compare

    return run_compare(arguments.first, arguments.second, out=arguments.out)


def _export(arguments: argparse.Namespace) -> int:
    from primectl.export import run_export, tracker_settings

    given = {name: getattr(arguments, name) for name in ("project", "entity", "mlflow_uri", "offline")}
    settings = tracker_settings(arguments.to, {name: value for name, value in given.items() if value is not None})
    return run_export(arguments.folder, settings, out=arguments.out, name=arguments.name)


def _curve(arguments: argparse.Namespace) -> int:
    from primectl.evaluate import run_curve

    return run_curve(arguments.runs, out=arguments.out or arguments.runs[0] / "curve.html")


def _fetch_set(arguments: argparse.Namespace) -> int:
    from primectl.evaluate import run_fetch_sets

    return run_fetch_sets(arguments.names, arguments.data, from_hub=arguments.from_hub, address=arguments.address)


def _doctor(arguments: argparse.Namespace) -> int:
    from primectl.doctor import examine

    return examine()


def _dashboard(arguments: argparse.Namespace) -> int:
    from primectl.dashboard import run_dashboard

    return run_dashboard(folder=arguments.folder, listen=arguments.listen)


def _prepare(arguments: argparse.Namespace) -> int:
    from primectl.prepare import run_prepare

    return run_prepare(token=arguments.token_file, redis=arguments.redis, demo=arguments.demo)


def _health(arguments: argparse.Namespace) -> int:
    from primectl.health import check_health

    return check_health(arguments.url)


def _import_gguf(arguments: argparse.Namespace) -> int:
    from jobs.gguf import import_gguf

    print(import_gguf(arguments.file, arguments.output))
    return 0


def _tiny_model(arguments: argparse.Namespace) -> int:
    from prime.data.tiny import write_tiny_model

    write_tiny_model(arguments.output, seed=arguments.seed)
    print(f"{arguments.output}: an untrained model that reads any text byte by byte")
    return 0


def _service(arguments: argparse.Namespace) -> int:
    from prime.adapters.settings import read_token
    from primectl.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    if arguments.dry_run:
        print(config.model_dump_json(indent=2))
        return 0
    token = read_token(config.run.token_file)
    match arguments.service:
        case "rollout":
            from services.rollout.main import main as rollout

            rollout(config.run, config.rollout, token)
        case "prm":
            from services.prm.main import main as prm

            prm(config.run, config.prm, token)
        case "verifier":
            from services.verifier.main import main as verifier

            verifier(config.run, config.verifier, token)
        case "trainer":
            from services.trainer.main import main as trainer
            from services.trainer.run_folder import RunFolder

            resume = arguments.resume or (arguments.resume_if_begun and RunFolder.has_begun(config.run.path))
            trainer(config.run, config.trainer, token, resume=resume)
            if arguments.fail_if_unfinished and RunFolder.latest_step(config.run.path) < config.trainer.steps:
                return _UNFINISHED
    return 0
