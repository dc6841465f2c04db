"""One pair of tiny models and one scoring API for all edge tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.builders import perturb, tiny_model
from tests.edge.prm_api import Api, open_tiny_scorer, running_api


@pytest.fixture(scope="session")
def prm_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pair")
    return perturb(tiny_model(folder / "prm"), seed=1), perturb(tiny_model(folder / "reference"), seed=2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(prm_pair: tuple[Path, Path]) -> AsyncIterator[Api]:
    async with running_api(open_tiny_scorer(*prm_pair)) as running:
        yield running
