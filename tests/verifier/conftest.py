"""Judges of both tiers, started once: a tier A sandbox needs a kernel that allows namespaces."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.verifier.sandbox.zygotes import Tier
from tests.verifier.judge import Judge, open_judge


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def judge_a() -> AsyncIterator[Judge]:
    async with open_judge(Tier.A) as judge:
        yield judge


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def judge_b() -> AsyncIterator[Judge]:
    async with open_judge(Tier.B) as judge:
        yield judge


@pytest.fixture(params=["A", "B"])
def judge(request: pytest.FixtureRequest, judge_a: Judge, judge_b: Judge) -> Judge:
    """Each test in both tiers."""
    return judge_a if request.param == "A" else judge_b
