"""What can be set for the PRM: the section `[prm]`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from prime.adapters.settings import Address, ServiceSettings


class PrmSettings(ServiceSettings):
    """The implicit PRM, its reference and its optimiser. Defaults are the paper's."""

    listen: Address = "127.0.0.1:50052"
    ops_listen: Address = "127.0.0.1:9152"
    model: Path | None = None
    """Where the PRM starts; empty: `run.model`, as in the paper."""
    reference: Path | None = None
    """The frozen reference; empty: where the PRM starts, so that rewards begin at exactly 0."""
    reference_mode: Literal["freeze", "policy"] = "freeze"
    """`policy`: the policy's own log-probs serve as reference, and no reference model is loaded."""
    beta: float = Field(0.05, gt=0)
    loss: Literal["ce", "dpo"] = "ce"
    lr: float = Field(1e-6, gt=0)
    grad_clip: float = Field(10.0, gt=0)
    mini_batches: int = Field(1, ge=1)
    """Optimiser steps per Learn; each takes whole groups."""
    device: str = "auto"
    token_budget: int = Field(16384, ge=1)
    """Tokens per forward pass."""
    threads: int = Field(0, ge=0)
    """CPU threads; 0 leaves the choice to torch."""
