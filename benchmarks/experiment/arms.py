"""The arms of the trial: what differs from outcome-only RLOO, as settings of trainer and PRM."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to learn: `Arm(name="rloo", title="RLOO", advantage={"process_coef": 0.0})`."""

    name: str
    title: str
    advantage: Mapping[str, Any] = field(default_factory=dict)
    """Of `trainer.advantage`."""
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Other settings of the trainer."""
    prm: Mapping[str, Any] = field(default_factory=dict)
    rewards: Literal["as they are", "shuffled", "judged"] = "as they are"
    """`shuffled`: dealt out anew within each response. `judged`: by who knows the right steps, in place of the PRM."""

    @property
    def has_prm(self) -> bool:
        """Whether a PRM is trained beside the policy, so that it has a rate of its own to tune."""
        settings = self.advantage
        from_prm = settings.get("process_coef", 1.0) > 0 and settings.get("source", "prm") == "prm"
        return from_prm and self.rewards != "judged"


_OUTCOME = {"process_coef": 0.0}
# A step's own reward is its credit, and process and outcome are whitened apart (iStar).
_LOCAL = {"granularity": "step", "gamma": 0.0, "combine": "apart"}
# Rewards are credit where they fall: nothing is summed over what follows.
_OWN_TOKEN = {"gamma": 0.0, "combine": "apart"}
# A true advantage needs no baseline, no sum over what follows, and no outcome beside it.
_TRUE = {"estimator": "reinforce", "gamma": 0.0, "outcome_coef": 0.0}
_TRUST = {"trust": {"enabled": True}}
_BALANCED = {"balance": True, "shift": True}
# IPVRM: the mean reward of every prefix says the outcome, and a token is worth what it changes in that mean.
_PREFIX = {"loss": "prefix", "margin": 5.0, "beta": 10.0}
_DIFFERENCE = {"step_worth": "difference"}

ARMS = (
    Arm(name="rloo", title="RLOO on outcomes", advantage=_OUTCOME),
    Arm(name="grpo", title="GRPO on outcomes", advantage={**_OUTCOME, "estimator": "grpo"}),
    Arm(
        name="dr-grpo",
        title="Dr. GRPO on outcomes",
        advantage={**_OUTCOME, "whiten": False},
        trainer={"loss": {"mean": "constant"}},
    ),
    Arm(
        name="lambda-grpo",
        title="RLOO with lambda-GRPO's correction",
        advantage={**_OUTCOME, "shared_prefix_correction": True},
    ),
    Arm(name="spro", title="SPRO", advantage={"source": "policy", "estimator": "spro"}),
    Arm(name="prime", title="PRIME as published"),
    Arm(name="prime-trust", title="PRIME, trusted as far as it has shown", advantage=_TRUST),
    Arm(name="prime-policy-ref", title="PRIME, the policy as reference", prm={"reference_mode": "policy"}),
    Arm(name="prime-dpo", title="PRIME, pairs (DPO)", prm={"loss": "dpo"}),
    Arm(
        name="prime-prefix",
        title="PRIME, prefix loss",
        prm=_PREFIX,
        advantage=_DIFFERENCE,
    ),
    Arm(name="prime-balanced", title="PRIME, labels balanced and shifted", prm=_BALANCED),
    Arm(name="prime-clip", title="PRIME, rewards clipped", advantage={"bound": "clip", "bound_at": 0.05}),
    Arm(name="prime-min", title="PRIME, min-form credit", advantage={"granularity": "step", "credit": "min"}),
    Arm(name="prime-apart", title="PRIME, sources whitened apart", advantage={"combine": "apart"}),
    Arm(name="prime-step", title="PRIME, a step's own credit (iStar)", advantage=_LOCAL),
    Arm(name="prime-own", title="PRIME, a token's own credit", advantage=_OWN_TOKEN),
    Arm(name="prime-alone", title="PRIME, a token's own credit alone", advantage={**_OWN_TOKEN, "outcome_coef": 0.0}),
    Arm(name="prime-running", title="PRIME, scaled by a running figure", advantage={"reward_norm": "running"}),
    Arm(name="prime-wrong", title="PRIME, on wrong responses only", advantage={"process_on": "wrong"}),
    Arm(
        name="prime-snapshot",
        title="PRIME, a copy of the policy as reference",
        trainer={"reference_every": 5},
        prm={"reference_mode": "policy"},
    ),
    # The changes that did better than `prime` on the tuning seeds.
    Arm(name="best", title="The best together", advantage=_DIFFERENCE, prm={**_PREFIX, **_BALANCED}),
    Arm(
        name="placebo",
        title="The best together, rewards shuffled",
        advantage=_DIFFERENCE,
        prm={**_PREFIX, **_BALANCED},
        rewards="shuffled",
    ),
    Arm(name="oracle", title="True step rewards", advantage=_TRUE, rewards="judged"),
    Arm(name="oracle-both", title="True step rewards and outcome", advantage=_OWN_TOKEN, rewards="judged"),
)
BY_NAME = {arm.name: arm for arm in ARMS}
