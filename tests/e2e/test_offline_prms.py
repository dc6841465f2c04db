"""PRMs trained offline on a tiny model's own responses, by every loss: do they tell right from wrong?"""

from pathlib import Path

import pytest

from benchmarks.experiment.family import Family
from benchmarks.experiment.offline import LOSSES, train_and_measure, write_candidates
from tests.e2e.tiny_policy import write_tiny_policy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def _write(folder: Path) -> None:
    """A model that adds three digits, carelessly."""
    write_tiny_policy(
        folder,
        length=3,
        problems=240,
        held_out=60,
        wrong_share=0.2,
        hidden=64,
        steps=500,
        batch_size=64,
        lr=3e-3,
    )


FAMILY = Family(
    name="tiny",
    write=_write,
    trainer={"sampling": {"max_tokens": 18}, "advantage": {"step_delimiter": ";"}, "optimiser": {}},
    prm={},
    max_context=32,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("offline")
    write_candidates(FAMILY, FAMILY.material(found), found / "candidates")
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_makes_a_prm_that_tells_right_from_wrong(loss: str, folder: Path) -> None:
    result = train_and_measure(
        FAMILY,
        loss=loss,
        lr=3e-4,
        seed=1,
        sft=folder / "tiny" / "sft",
        candidates=folder / "candidates",
        scratch=folder / "prm",
    )
    assert not (folder / "prm").exists()
    assert 0.1 < result.one < result.best_of_4 <= result.any_of_4
    assert result.pair_accuracy > 0.6
    assert max(result.auc_own, result.auc_value, result.auc_difference) > 0.6
