"""The optimiser that policy, PRM and SFT share: gradients are accumulated by the caller, one call makes a step."""

import math
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from prime.errors import EngineError, SettingsError
from prime.lm.adapters import adapters_of
from prime.lm.compute import whole
from prime.lm.model import CausalLM

# At or below this rate most updates are smaller than half a bf16 step of the weight, and are lost.
_BF16_LOSES_UPDATES_BELOW = 1e-5


def lr_share(step: int, *, steps: int, warmup_share: float, final_share: float) -> float:
    """Share of the learning rate: linear warm-up, then a cosine from 1 to `final_share`; steps count from 1."""
    warmup = warmup_share * steps
    if step <= warmup:
        return step / warmup
    # Of the steps after the warm-up the first gets the whole rate, and the last still learns.
    progress = max(0.0, step - 1 - warmup) / (steps - warmup)
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))


class Optimiser:
    """AdamW over fp32 master weights, with gradient clipping."""

    def __init__(
        self,
        lm: CausalLM,
        *,
        lr: float,
        grad_clip: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        max_skipped: int = 0,
    ) -> None:
        """Refuse to train what could not learn. `max_skipped`: steps in a row that may be left out, see `step`.

        Raises:
            SettingsError: master weights in bf16 or fp16 at a rate at which their updates would be lost.
        """
        coarse = {str(parameter.dtype) for parameter in lm.parameters if parameter.dtype != torch.float32}
        if coarse and lr <= _BF16_LOSES_UPDATES_BELOW:
            raise SettingsError(
                f"master weights are {sorted(coarse)} at lr {lr}: updates at or below {_BF16_LOSES_UPDATES_BELOW} "
                f"are lost in them; load the model in float32"
            )
        self._lm = lm
        self._parameters = lm.parameters
        self._grad_clip = grad_clip
        self._max_skipped = max_skipped
        self._skipped_in_a_row = 0
        self._adamw = torch.optim.AdamW(self._parameters, lr=lr, betas=betas, weight_decay=weight_decay)
        self.clear()

    def clear(self) -> None:
        """Forget accumulated gradients, e.g. of a step that failed half-way."""
        self._adamw.zero_grad(set_to_none=True)

    def step(self, *, lr: float | None = None) -> float:
        """Clip the accumulated gradient, update, and clear it; returns the norm before clipping.

        A gradient that is not finite updates nothing, and its norm is what is returned.

        Raises:
            EngineError: it was so more than `max_skipped` times in a row.
        """
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self._parameters, self._grad_clip)))
        if not math.isfinite(norm):
            self.clear()
            self._skipped_in_a_row += 1
            if self._skipped_in_a_row > self._max_skipped:
                raise EngineError(
                    f"the gradient norm is {norm}, {self._skipped_in_a_row} times in a row; the step was not taken. "
                    f"Lower the learning rate"
                )
            return norm
        self._skipped_in_a_row = 0
        if lr is not None:
            for group in self._adamw.param_groups:
                group["lr"] = lr
        self._adamw.step()
        self.clear()
        return norm

    def state(self) -> dict[str, Any]:
        """Moments and step counts by the names of the weights, this rank's part of them; adapters too, where there are.

        Before the first step they are 0.
        """
        is_fresh = not self._adamw.state
        state: dict[str, Any] = dict(get_optimizer_state_dict(self._lm.module, self._adamw))
        if is_fresh:
            # torch makes the moments by a step at rate 0, which would count in the bias correction.
            for moments in (*state["state"].values(), *self._adamw.state.values()):
                moments["step"].zero_()
        # The model's folder holds what adapters amount to, from which they cannot be told again.
        return {**state, "adapters": adapters_of(self._lm.module)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        moments = {key: value for key, value in state.items() if key != "adapters"}
        set_optimizer_state_dict(self._lm.module, self._adamw, moments)
        self._lm.module.load_state_dict(state["adapters"], strict=False)
