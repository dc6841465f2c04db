"""Wires the PRM service and runs it."""

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

from prime.adapters.grpc_clients import GrpcRollout, GrpcVerifier
from prime.adapters.openai_engine import OpenAIEngine
from prime.adapters.rollout_engine import RolloutEngine
from prime.adapters.service import Service, serve
from prime.adapters.settings import RunSettings, engine_key
from prime.adapters.telemetry import Meters, configure_telemetry
from prime.adapters.tls import Tls
from prime.data.rendering import generation_prompt
from prime.errors import SettingsError
from prime.lm.heads import kind_of
from prime.lm.model import settle_torch
from prime.lm.world import World, follow, join_world
from prime.ports import AnswerGrouper, CheckingScorer, Generator
from prime.scoring import PrmKind, ScorerInfo
from prime.v1 import prm_pb2_grpc
from services.prm import metric_specs
from services.prm.batching import Batcher
from services.prm.best_of_n import BestOfN
from services.prm.head_model import HeadPrm
from services.prm.http.app import add_prm_routes
from services.prm.keys import Keys
from services.prm.metrics import MeteredScorer
from services.prm.reward import RewardService
from services.prm.reward_model import REFERENCE_SOURCES, ImplicitPrm
from services.prm.rpc import KeyedGate, PrmServicer
from services.prm.scoring import PrmScorer
from services.prm.settings import BestOfNSettings, PrmSettings

SHORT_TOKENS = 512
"""Of a request that is computed beside long ones: a few short answers to a question."""
_log = structlog.get_logger()


ServedPrm = ImplicitPrm | HeadPrm
GrouperOpener = Callable[[], contextlib.AbstractAsyncContextManager[AnswerGrouper]]


def main(run: RunSettings, settings: PrmSettings, token: str, *, open_grouper: GrouperOpener | None = None) -> None:
    """Serve until stopped; `open_grouper` opens what votes ask where no verifier is named.

    Raises:
        SettingsError: votes are wanted, and there is neither.
    """
    best_of_n = settings.best_of_n
    if best_of_n.votes and not best_of_n.verifier and open_grouper is None:
        raise SettingsError(
            "prm.best_of_n.votes has `primectl serve-prm` run a verifier; here, name one: prm.best_of_n.verifier"
        )
    configure_telemetry("prm")
    settle_torch(device=settings.device, threads=settings.threads)
    world = join_world(settings.device)
    prm = load_prm(settings, start=run.model, world=world)
    if world.is_leader:
        _warn_of_another_reference(prm)
        also = load_others(settings, start=run.model)
        asyncio.run(_serve(run, settings, prm, also, token, open_grouper if best_of_n.votes else None))
        world.send(None)
    elif isinstance(prm, ImplicitPrm):  # one process holds a head, and leads
        follow(prm)
    world.leave()


def load_prm(settings: PrmSettings, *, start: Path, world: World | None = None) -> ServedPrm:
    """The PRM in `settings.model` or `start`, of whichever kind it is; raises as its kind does."""
    is_implicit = kind_of(settings.model or start) is PrmKind.IMPLICIT
    return (ImplicitPrm if is_implicit else HeadPrm)(settings, start=start, world=world)


def load_others(settings: PrmSettings, *, start: Path) -> dict[str, "Beside"]:
    """The PRMs of `prm.api.also` by their names, frozen.

    Raises:
        SettingsError: an entry is not `NAME=FOLDER[,reference=FOLDER]`, two have one name, or a reference does not
            fit the kind of PRM.
        CheckpointError: a folder holds no model.
    """
    names = [_served_name(settings, start)]
    found: dict[str, Beside] = {}
    for entry in settings.api.also:
        name, own = _settings_beside(settings, entry)
        if name in names:
            raise SettingsError(f"prm.api.also: two PRMs are named {name!r}; a request chooses by the name")
        names.append(name)
        prm = load_prm(own, start=start)
        _warn_of_another_reference(prm)
        found[name] = Beside(prm=prm, settings=own)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A PRM that is served beside the service's own, and what of the settings is its own."""

    prm: ServedPrm
    settings: PrmSettings

    def scorer(self, *, start: Path) -> tuple[PrmScorer, Batcher]:
        """With turns of its own."""
        reward_service = RewardService(self.prm, checkpoints=Path(), short_tokens=SHORT_TOKENS)
        return scorer_of(self.prm, reward_service, self.settings, start, short_tokens=SHORT_TOKENS)


def _settings_beside(settings: PrmSettings, entry: str) -> tuple[str, PrmSettings]:
    name, _, rest = entry.partition("=")
    folder, *options = rest.split(",")
    given = [option.partition("=") for option in options]
    if not name or not folder or any(key != "reference" or not value for key, _, value in given) or len(given) > 1:
        raise SettingsError(f"prm.api.also: {entry!r} is not NAME=FOLDER or NAME=FOLDER,reference=FOLDER")
    reference = given[0][2] if given else ""
    is_implicit = kind_of(Path(folder)) is PrmKind.IMPLICIT
    if is_implicit and not reference:
        raise SettingsError(f"prm.api.also: {entry!r} is an implicit PRM: add ,reference=FOLDER, or ,reference=none")
    has_reference = reference not in ("", "none")
    own = {
        "model": Path(folder),
        "reference": Path(reference) if has_reference else None,
        "reference_mode": "freeze" if has_reference else "none",
        "beta": None,
        "frozen": True,
        "api": settings.api.model_copy(update={"model_id": name, "also": ()}),
    }
    return name, settings.model_copy(update=own)


def scorer_of(
    prm: ServedPrm, reward_service: RewardService, settings: PrmSettings, start: Path, *, short_tokens: int = 0
) -> tuple[PrmScorer, Batcher]:
    """The scorer of a PRM, and the turns of its callers; requests of at most `short_tokens` have their own lane."""
    batcher = Batcher(
        reward_service,
        token_budget=settings.token_budget,
        max_waiting=settings.api.max_waiting,
        short_tokens=short_tokens,
    )
    return PrmScorer(batcher, prm.tokenizer, _info_reader(prm, settings, start)), batcher


async def _serve(
    run: RunSettings,
    settings: PrmSettings,
    prm: ServedPrm,
    also: Mapping[str, Beside],
    token: str,
    open_grouper: GrouperOpener | None,
) -> None:
    _keep_pauses_short()
    reward_service = RewardService(prm, checkpoints=run.path / "checkpoints", short_tokens=SHORT_TOKENS)
    meters = Meters()
    meters.gauge(metric_specs.VERSION).set_function(lambda: prm.version)
    keys = Keys(token, meters=meters, file=settings.api.keys)
    own, batcher = scorer_of(prm, reward_service, settings, run.model, short_tokens=SHORT_TOKENS)
    others = {name: each.scorer(start=run.model) for name, each in also.items()}
    batchers = [batcher, *(each for _, each in others.values())]
    scorer = MeteredScorer(own, meters, waiting=lambda: sum(each.unanswered for each in batchers), charge=keys.charge)
    tls = Tls.of(run.tls_folder)
    async with contextlib.AsyncExitStack() as open_ones:
        grouper = await open_ones.enter_async_context(_open_grouper(settings.best_of_n, token, tls, open_grouper))
        best_of_n = await open_ones.enter_async_context(
            _open_best_of_n(settings.best_of_n, scorer, prm, token, tls, grouper)
        )
        await serve(
            Service(
                name="prime.v1.PrmService",
                settings=settings,
                token=token,
                meters=meters,
                add_servicers=lambda server: prm_pb2_grpc.add_PrmServiceServicer_to_server(
                    PrmServicer(reward_service, charge=keys.charge), server
                ),
                add_routes=partial(
                    add_prm_routes,
                    scorer=scorer,
                    keys=keys,
                    settings=settings.api.model_copy(update={"model_id": _served_name(settings, run.model)}),
                    meters=meters,
                    best_of_n=best_of_n,
                    also={name: scorer.over(each) for name, (each, _) in others.items()},
                ),
                tls=tls,
                gate=KeyedGate(keys),
            )
        )


def _keep_pauses_short() -> None:
    """Make the event loop wait less for the threads that compute, and for the garbage collector."""
    # A thread may hold the interpreter for so long while others wait; the default is 5 ms, the time of a small request.
    sys.setswitchinterval(0.0005)
    # What is loaded by now stays. Without this, each full collection walks through all modules of torch.
    gc.collect()
    gc.freeze()


@contextlib.asynccontextmanager
async def _open_best_of_n(
    settings: BestOfNSettings,
    scorer: CheckingScorer,
    prm: ServedPrm,
    token: str,
    tls: Tls | None,
    grouper: AnswerGrouper | None,
) -> AsyncIterator[BestOfN | None]:
    """Best-of-N where an engine is configured, with its connections."""
    kind, _, address = settings.engine.partition("://")
    seconds = settings.engine_seconds
    async with contextlib.AsyncExitStack() as open_ones:
        generator: Generator
        match kind:
            case "":
                yield None
                return
            case "http" | "https":
                engine = OpenAIEngine(
                    settings.engine,
                    key=engine_key(),
                    model=settings.engine_model,
                    timeout_s=seconds,
                    setting="prm.best_of_n.engine",
                )
                open_ones.push_async_callback(engine.close)
                generator = engine
            case "grpc":
                rollout = GrpcRollout(address, token, deadline_s=seconds, tls=tls)
                open_ones.push_async_callback(rollout.close)
                generator = RolloutEngine(rollout, prm.tokenizer, fingerprint=prm.fingerprint)
            case _:
                raise SettingsError(
                    f"prm.best_of_n.engine = {settings.engine!r} is neither http://HOST:PORT/v1 nor grpc://HOST:PORT"
                )
        yield BestOfN(generator, scorer, grouper, settings)


@contextlib.asynccontextmanager
async def _open_grouper(
    settings: BestOfNSettings, token: str, tls: Tls | None, open_own: GrouperOpener | None
) -> AsyncIterator[AnswerGrouper | None]:
    """Who says which answers are equal: the verifier that is named, else one of our own where there is to be one."""
    if settings.verifier:
        named = GrpcVerifier(settings.verifier, token, deadline_s=settings.engine_seconds, tls=tls)
        try:
            yield named
        finally:
            await named.close()
    elif open_own is not None:
        async with open_own() as own:
            yield own
    else:
        yield None


def _warn_of_another_reference(prm: ServedPrm) -> None:
    """Rewards against another reference than the PRM was trained with mean something else."""
    known = prm.config.trained_with.get("reference")
    if known is not None and known != prm.reference_id:
        _log.warning("another reference than this PRM was trained with", trained=known, serving=prm.reference_id)


def open_scorer(settings: PrmSettings, *, model: Path) -> PrmScorer:
    """A scorer in this process, for commands that score a file.

    Raises:
        CheckpointError: a folder holds no model.
        TokenizerMismatch: PRM and reference do not share a tokenizer.
    """
    settle_torch(device=settings.device, threads=settings.threads)
    prm = load_prm(settings, start=model)
    _warn_of_another_reference(prm)
    reward_service = RewardService(prm, checkpoints=Path())
    return scorer_of(prm, reward_service, settings, model)[0]


def _served_name(settings: PrmSettings, start: Path) -> str:
    return settings.api.model_id or _name_of((settings.model or start).resolve())


def _name_of(folder: Path) -> str:
    """The folder's name; of a run's checkpoint the run and the step, `demo-1/step_40`, for all are named `prm`."""
    step, checkpoints = folder.parent, folder.parent.parent
    if checkpoints.name == "checkpoints" and step.name.startswith("step_"):
        return f"{checkpoints.parent.name}/{step.name}"
    return folder.name


def _info_reader(prm: ServedPrm, settings: PrmSettings, start: Path) -> Callable[[], ScorerInfo]:
    """What the service says of itself; everything but the version stays as it is."""
    opening = generation_prompt(prm.tokenizer)
    info = ScorerInfo(
        model_id=_served_name(settings, start),
        prm_version=prm.version,
        reference_id=prm.reference_id,
        reference=REFERENCE_SOURCES[settings.reference_mode],
        tokenizer_fingerprint=prm.fingerprint,
        dtype=settings.dtype,
        config=prm.config,
        generation_prompt=opening,
        generation_prompt_ids=tuple(prm.tokenizer(opening, add_special_tokens=False)["input_ids"]),
        end_text=prm.tokenizer.eos_token,
        max_tokens=min(settings.api.max_tokens or prm.max_positions, prm.max_positions),
        max_candidates=settings.api.max_candidates,
        max_waiting=settings.api.max_waiting,
        token_budget=settings.token_budget,
        kind=prm.kind,
    )
    return lambda: replace(info, prm_version=prm.version)
