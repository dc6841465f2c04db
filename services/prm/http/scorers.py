"""Which PRM a request asks: one service may hold several, by the name in the request's field `model`."""

from collections.abc import Mapping

from prime.errors import UnknownModel
from prime.ports import Scorer


class Scorers:
    """The PRMs of a service: `Scorers(scorer, {"qwen-prm": other}, name="demo-1/step_40")`."""

    def __init__(self, scorer: Scorer, also: Mapping[str, Scorer] | None = None, *, name: str = "") -> None:
        """`scorer` answers requests without a name, and has `name` itself. Where it is alone, no name is looked at."""
        self.default = scorer
        self._by_name = {name: scorer, **also} if also else {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all PRMs, the default's first; empty where there is one alone."""
        return tuple(self._by_name)

    def of(self, model: str | None) -> Scorer:
        """The one that a request names.

        Raises:
            UnknownModel: there are several, and none has this name.
        """
        if not self._by_name or not model:
            return self.default
        if model not in self._by_name:
            raise UnknownModel(f"the model {model!r} does not exist; this service has {', '.join(self._by_name)}")
        return self._by_name[model]
