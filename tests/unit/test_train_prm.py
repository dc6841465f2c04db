"""Offline training of a PRM: it learns right from wrong, and where wrong begins, from files in two forms."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs.candidates import parse_candidates
from jobs.prm_examples import Example
from jobs.train_prm import Trained, TrainPrmSettings, batch_loss, run_train_prm, step_sums
from prime.data.prm_config import read_prm_config
from prime.errors import CheckpointError, DataError, SettingsError
from prime.lm.packing import TokenRow
from prime.scoring import Aggregation, PrmConfig, StepValue
from prime.types import PrmGroup
from services.prm.reward_model import ImplicitPrm
from services.prm.settings import PrmSettings
from tests.builders import perturb, tiny_model


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return perturb(tiny_model(tmp_path_factory.mktemp("start")), seed=1)


def _rollouts(count: int) -> list[dict[str, Any]]:
    """A right answer says yes; which it is hangs on nothing else."""
    return [
        {
            "dataset": "toy",
            "prompt": f"question {number}",
            "completions": [f"yes {number}", f"no {number}", "yes.", "no."],
            "correctness": [True, False, True, False],
        }
        for number in range(count)
    ]


def _stepwise(count: int) -> list[dict[str, Any]]:
    """The first `bad` makes it and all after it wrong."""
    rows = []
    for number in range(count):
        bad = number % 4
        rows.append(
            {
                "prompt": f"question {number}",
                "completions": ["bad" if step == bad else "good" for step in range(3)],
                "labels": [step < bad for step in range(3)],
            }
        )
    return rows


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _train(start: Path, data: Path | Sequence[Path], output: Path, **changes: Any) -> tuple[Trained, list[float]]:
    losses: list[float] = []
    settings: dict[str, Any] = {
        "model": start,
        "data": [data] if isinstance(data, Path) else data,
        "output": output,
        "lr": 3e-3,
        "batch_size": 16,
        "epochs": 4,
        "device": "cpu",
        **changes,
    }
    trained = run_train_prm(TrainPrmSettings(**settings), lambda step, of, loss: losses.append(loss))
    return trained, losses


@pytest.mark.parametrize("loss", ["ce", "dpo"])
def test_it_learns_right_from_wrong_on_prompts_that_it_has_not_seen(start: Path, tmp_path: Path, loss: str) -> None:
    data = _write(tmp_path / "rollouts.jsonl", _rollouts(40))
    trained, losses = _train(start, data, tmp_path / "prm", loss=loss, holdout_share=0.2)
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]
    assert trained.before is not None
    assert trained.after is not None
    assert (trained.examples, trained.before.pair_accuracy) == (128, 0.5)
    assert trained.after.pair_accuracy > 0.9
    assert trained.after.loss < trained.before.loss


def test_the_folder_is_one_that_the_service_and_transformers_load(start: Path, tmp_path: Path) -> None:
    data = _write(tmp_path / "rollouts.jsonl", _rollouts(8))
    trained, _ = _train(start, data, tmp_path / "prm", aggregation="min", separator="\n", beta=0.1)
    AutoModelForCausalLM.from_pretrained(trained.output)
    config = read_prm_config(trained.output)
    assert (config.beta, config.aggregation, config.separators) == (0.1, Aggregation.MIN, ("\n",))
    prm = ImplicitPrm(PrmSettings(reference=start, device="cpu", frozen=True), start=trained.output)
    assert prm.beta == 0.1
    assert config.trained_with["reference"] == prm.reference_id
    ids = prm.tokenizer("x")["input_ids"]
    right, wrong = (tuple(prm.tokenizer(text)["input_ids"]) for text in ("yes.", "no."))
    rewards = prm.score([PrmGroup(group_id="g", prompt_ids=tuple(ids), responses=(right, wrong))]).rewards
    assert sum(rewards[0]) > sum(rewards[1])


@pytest.mark.parametrize("step_value", ["cumulative", "delta"])
def test_step_labels_teach_where_wrong_begins(start: Path, tmp_path: Path, step_value: str) -> None:
    data = _write(tmp_path / "steps.jsonl", _stepwise(64))
    trained, losses = _train(start, data, tmp_path / "prm", step_value=step_value, epochs=8)
    assert losses[-1] < 0.7 * losses[0]
    assert read_prm_config(trained.output).trained_with["with_step_labels"] is True


def test_both_forms_may_be_mixed(start: Path, tmp_path: Path) -> None:
    files = [
        _write(tmp_path / "rollouts.jsonl", _rollouts(4)),
        _write(tmp_path / "steps.jsonl", _stepwise(4)),
    ]
    trained, _ = _train(start, files, tmp_path / "prm", epochs=1)
    assert trained.examples == 20


@pytest.mark.parametrize("loss", ["ce", "dpo"])
def test_how_responses_fall_into_packs_changes_nothing(start: Path, tmp_path: Path, loss: str) -> None:
    data = [
        _write(tmp_path / "rollouts.jsonl", _rollouts(4)),
        _write(tmp_path / "steps.jsonl", _stepwise(4)),
    ]
    states = []
    for number, token_budget in enumerate((1, 16384)):
        output = tmp_path / f"prm{number}"
        _train(start, data, output, loss=loss, epochs=1, token_budget=token_budget, lr=1e-3)
        states.append(AutoModelForCausalLM.from_pretrained(output).state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], atol=2e-5, rtol=1e-3)


def test_the_same_seed_gives_the_same_weights(start: Path, tmp_path: Path) -> None:
    data = _write(tmp_path / "rollouts.jsonl", _rollouts(8))
    for name in ("one", "two"):
        _train(start, data, tmp_path / name, epochs=1)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_the_loss_of_a_hand_worked_batch() -> None:
    """beta 0.5; sums 2 and -2 with outcomes 1 and 0 give logits 1 and -1: both cost ln(1 + e^-1)."""
    row = TokenRow(prompt_ids=(5,), response_ids=(6, 7))
    settings = TrainPrmSettings(model=Path("m"), data=(Path("d"),), output=Path("o"), beta=0.5)
    ratios = [torch.tensor([1.5, 0.5]), torch.tensor([-1.0, -1.0])]
    batch = [Example(group=0, row=row, outcome=1.0), Example(group=0, row=row, outcome=0.0)]
    one = torch.log1p(torch.exp(torch.tensor(-1.0)))
    torch.testing.assert_close(batch_loss(ratios, batch, settings), one)
    dpo = settings.model_copy(update={"loss": "dpo"})
    torch.testing.assert_close(batch_loss(ratios, batch, dpo), torch.log1p(torch.exp(torch.tensor(-2.0))))
    steps = [Example(group=0, row=row, ends=(1, 2), labels=(1.0, 0.0))]
    expected = (torch.log1p(torch.exp(torch.tensor(-0.75))) + torch.log1p(torch.exp(torch.tensor(1.0)))) / 2
    torch.testing.assert_close(batch_loss(ratios[:1], steps, settings), expected)


def test_step_sums_as_worked() -> None:
    values_T = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert step_sums(values_T, (2, 4), StepValue.CUMULATIVE).tolist() == [3.0, 10.0]
    assert step_sums(values_T, (2, 4), StepValue.DELTA).tolist() == [3.0, 7.0]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"prompt": "q"}, "no column with responses"),
        ({"prompt": "q", "completions": []}, "list of texts, and not empty"),
        ({"prompt": "q", "completions": ["a", " "], "correctness": [1, 0]}, "entry 1 is empty"),
        ({"prompt": "q", "completions": ["a"], "correctness": [1, 0]}, "2 entries for 1 texts"),
        ({"prompt": "q", "completions": ["a"], "correctness": [2]}, "from 0 to 1"),
        ({"prompt": "q", "completions": ["a"], "correctness": ["yes"]}, "from 0 to 1"),
        ({"prompt": "", "completions": ["a"], "correctness": [1]}, "column 'prompt'"),
        ({"prompt": [], "completions": ["a"], "correctness": [1]}, "column 'prompt'"),
        ({"prompt": "q", "completions": ["a"]}, "`correctness` or `labels` is needed"),
        ({"prompt": "q", "completions": ["a" * 400], "correctness": [1]}, "over the 256 that are read"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(start: Path, tmp_path: Path, row: dict[str, Any], text: str) -> None:
    data = _write(tmp_path / "data.jsonl", [*_rollouts(1), row])
    with pytest.raises(DataError, match=f"row 2.*{text}"):
        _train(start, data, tmp_path / "prm")
    assert not (tmp_path / "prm").exists()


def test_long_rows_can_be_dropped_and_are_counted(start: Path, tmp_path: Path) -> None:
    long = {"prompt": "q", "completions": ["a" * 400, "b"], "correctness": [1, 0]}
    data = _write(tmp_path / "data.jsonl", [*_rollouts(2), long])
    trained, _ = _train(start, data, tmp_path / "prm", long_rows="drop", epochs=1)
    assert (trained.dropped, trained.examples) == (1, 9)


def test_what_stands_at_the_output_stays(start: Path, tmp_path: Path) -> None:
    (tmp_path / "prm").mkdir()
    (tmp_path / "prm" / "mine").write_text("")
    data = _write(tmp_path / "data.jsonl", _rollouts(1))
    with pytest.raises(SettingsError, match="exists and is not empty"):
        _train(start, data, tmp_path / "prm")
    with pytest.raises(DataError, match="does not exist"):
        _train(start, tmp_path / "nowhere.jsonl", tmp_path / "other")
    with pytest.raises(CheckpointError):
        _train(tmp_path / "no-model", data, tmp_path / "other")


def test_rows_come_from_parquet_too(start: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rollouts.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_rollouts(3)), path)
    trained, _ = _train(start, path, tmp_path / "prm", epochs=1)
    assert trained.examples == 12


def test_a_row_of_messages_and_one_answer_is_a_row() -> None:
    row = parse_candidates({"messages": [{"role": "user", "content": "q"}], "response": "a", "id": 7}, "f, row 1", "1")
    assert (row.row_id, len(row.candidates), row.outcomes) == ("7", 1, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "JSON object"),
        ('{"betta": 1}', "unknown key 'betta'"),
        ('{"beta": 0}', "above 0"),
        ('{"aggregation": "prod"}', "needs activation 'sigmoid'"),
        ('{"aggregation": "median"}', "median"),
        ('{"separators": [""]}', "not empty"),
        ("{", "prm_config.json"),
    ],
)
def test_a_broken_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prm_config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_prm_config(tmp_path)


def test_a_folder_without_a_configuration_has_the_defaults(tmp_path: Path) -> None:
    assert read_prm_config(tmp_path) == PrmConfig()
