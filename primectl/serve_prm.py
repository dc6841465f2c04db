"""`primectl serve-prm`: a PRM folder as a scoring API, without a run."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from prime.adapters.settings import RunSettings, given_token, load_settings, read_token
from prime.lm.model import require_model_folder
from services.prm.settings import PrmSettings


def prm_settings(model: Path, reference: Path | None, overrides: Sequence[str]) -> PrmSettings:
    """Settings of a frozen PRM.

    Raises:
        CheckpointError: a folder holds no model.
        SettingsError: an override does not fit.
    """
    for folder in (model, *([reference] if reference is not None else [])):
        require_model_folder(folder)
    paths = [f"model={model}", *([f"reference={reference}"] if reference is not None else [])]
    return load_settings(PrmSettings, None, ["frozen=true", *paths, *overrides])


def run_serve_prm(settings: PrmSettings, *, token_file: Path | None) -> int:
    """Serve until stopped."""
    from services.prm.main import main

    token, origin = _key(token_file)
    print(f"PRM scoring API: http://{settings.ops_listen}   (what it takes: /docs; which PRM: /info)")
    print(f"API key: {token}   ({origin})" if settings.api.require_key else "API key: none asked for", flush=True)
    # A frozen PRM has no run: nothing is written anywhere.
    main(RunSettings(name="prm", model=settings.model or Path()), settings, token)
    return 0


def _key(token_file: Path | None) -> tuple[str, str]:
    if given_token() or token_file is not None:
        return read_token(token_file), "yours"
    return secrets.token_urlsafe(24), "made for this start; set PRIME_TOKEN to choose one"
