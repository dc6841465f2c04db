"""The checks of this folder on a GPU. Skips by itself where there is none."""

from collections.abc import Callable

import pytest
import torch

from tests.gpu.checks import CHECKS, NotHere

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_holds(check: Callable[[torch.device], None]) -> None:
    try:
        check(torch.device("cuda"))
    except NotHere as why:
        pytest.skip(str(why))
