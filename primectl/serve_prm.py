"""`primectl serve-prm`: a PRM folder as a scoring API, without a run."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from prime.adapters.settings import RunSettings, given_token, load_settings, read_token
from prime.errors import SettingsError
from prime.lm.heads import kind_of
from prime.lm.model import require_model_folder
from prime.scoring import PrmKind
from primectl.verifiers import open_verifier_of
from services.prm.settings import PrmSettings
from services.verifier.settings import VerifierSettings

NO_REFERENCE = "none"


def prm_settings(model: Path, reference: str | None, overrides: Sequence[str]) -> PrmSettings:
    """Settings of a frozen PRM; `reference` is a folder, or "none". One with a reward head has none.

    Raises:
        CheckpointError: a folder holds no model.
        SettingsError: there is no word on the reference of an implicit PRM, or one on a head's, or an override does not
            fit.
    """
    kind = kind_of(model)
    if kind is not PrmKind.IMPLICIT and reference not in (None, NO_REFERENCE):
        raise SettingsError(
            f"--reference {reference}: {model} holds a {kind.value}, whose rewards are no log-ratios; leave it out"
        )
    if kind is not PrmKind.IMPLICIT:
        reference = NO_REFERENCE
    if reference is None:
        raise SettingsError(
            "--reference is missing: rewards are log-ratios to the model that the PRM was trained from (`run.model` of "
            "an RL run, `reference` of train-prm). Give its folder, or `--reference none` to score without one"
        )
    if reference == NO_REFERENCE:
        chosen = ["reference_mode=none"]
    else:
        require_model_folder(Path(reference))
        chosen = [f"reference={reference}"]
    return load_settings(PrmSettings, None, ["frozen=true", f"model={model}", *chosen, *overrides])


def run_serve_prm(settings: PrmSettings, *, token_file: Path | None) -> int:
    """Serve until stopped."""
    from services.prm.main import main

    token, origin = _key(token_file)
    print(f"Loading. The PRM scoring API will be at http://{settings.ops_listen} (/docs: routes, /info: which PRM)")
    print(f"API key: {token}   ({origin})" if settings.api.require_key else "API key: none asked for", flush=True)
    if settings.api.keys is not None:
        print(f"API keys: also those of {settings.api.keys}", flush=True)
    # A frozen PRM has no run: nothing is written anywhere.
    run = RunSettings(name="prm", model=settings.model or Path())
    # Answers are compared and no program is run, so the sandbox's best is not asked for.
    verifier = load_settings(VerifierSettings, None, ["min_tier=B"])
    main(run, settings, token, open_grouper=lambda: open_verifier_of("", None, verifier, "prm"))
    return 0


def _key(token_file: Path | None) -> tuple[str, str]:
    if given_token() or token_file is not None:
        return read_token(token_file), "yours"
    return secrets.token_urlsafe(24), "made for this start; set PRIME_TOKEN to choose one"
