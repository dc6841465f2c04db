"""What can be known to be wrong before anything is started or written: said at once, in one message."""

import importlib.util

from prime.adapters.redis_queue import RedisQueue
from prime.adapters.settings import redis_password
from prime.adapters.trackers.choice import check_installed
from prime.data.problems import load_problems
from prime.data.prompts import encode_prompts
from prime.errors import SettingsError, TokenizerMismatch
from prime.lm.model import load_tokenizer, tokenizer_fingerprint
from primectl.config import RunConfig
from services.trainer.collector import CollectorState
from services.trainer.recording import RecordedGroups
from services.trainer.run_folder import check_run_folder, identity_of

# bf16 keeps eight bits: log-probs of a few nats are off by hundredths.
_ROUNDED_PROBE_GAP = 0.05


def check_inputs(config: RunConfig, *, resume: bool) -> None:
    """Models, tokenizers, problems and the run folder.

    Raises:
        PrimeError: the first thing that is wrong; nothing was written.
    """
    check_installed(config.trainer.trackers.use)
    tokenizer = load_tokenizer(config.run.model)
    for name, folder in (("prm.model", config.prm.model), ("prm.reference", config.prm.reference)):
        if folder is not None and tokenizer_fingerprint(load_tokenizer(folder)) != tokenizer_fingerprint(tokenizer):
            raise TokenizerMismatch(
                f"{name} = {folder} has another tokenizer than the policy's run.model = {config.run.model}; "
                f"policy, PRM and reference must read text as the same tokens"
            )
    problems = load_problems(config.trainer.problems)
    sources = {config.trainer.problems: problems}
    if held_out := config.trainer.evaluation.problems:
        sources[held_out] = load_problems(held_out)
    for source, rows in sources.items():
        encode_prompts(
            tokenizer,
            rows,
            source=source,
            max_tokens=config.trainer.max_prompt_tokens,
            drop_long=config.trainer.long_prompts == "drop",
        )
    _check_libraries(config)
    if config.trainer.recorded is not None:
        RecordedGroups(config.trainer.recorded, state=CollectorState())
    longest = config.trainer.max_prompt_tokens + config.trainer.sampling.max_tokens
    if longest > config.rollout.max_context:
        raise SettingsError(
            f"trainer.max_prompt_tokens + trainer.sampling.max_tokens = {longest} exceed "
            f"rollout.max_context = {config.rollout.max_context}"
        )
    if config.prm.frozen:
        raise SettingsError(
            "prm.frozen is for serving without a run (primectl serve-prm); in a run set trainer.prm_update = 'none'"
        )
    if config.prm.reference_mode == "policy" and config.trainer.sampling.temperature != 1.0:
        raise SettingsError(
            "prm.reference_mode = 'policy' needs trainer.sampling.temperature = 1: the policy's log-probs carry it"
        )
    if config.rollout.dtype != "float32" and 0 < config.trainer.probe_gap < _ROUNDED_PROBE_GAP:
        raise SettingsError(
            f"rollout.dtype = {config.rollout.dtype!r} rounds log-probs, so every push would fail its probe at "
            f"trainer.probe_gap = {config.trainer.probe_gap}; set it to {_ROUNDED_PROBE_GAP} or more, or leave it out"
        )
    identity = identity_of(
        config.trainer,
        problems,
        model=config.run.model,
        seed=config.run.seed,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
    )
    check_run_folder(config.run.path, identity=identity, resume=resume)


def _check_libraries(config: RunConfig) -> None:
    if config.rollout.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise SettingsError("rollout.engine = 'vllm' and vLLM is not installed here; see docs/vllm.md (make vllm)")
    if (config.trainer.compute.lora_rank or config.prm.compute.lora_rank) and importlib.util.find_spec("peft") is None:
        raise SettingsError("lora_rank needs the library peft, which is not installed here: pip install peft")


async def check_redis(config: RunConfig) -> None:
    """Raises PeerUnavailable when a Redis was named and does not answer."""
    if config.run.redis_url:
        async with RedisQueue(
            config.run.redis_url, password=redis_password(), run=config.run.name, consumer="preflight"
        ):
            pass
