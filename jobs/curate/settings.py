"""What can be set for `primectl curate`: one TOML file."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from prime.adapters.settings import EndpointSettings, Settings
from services.verifier.settings import VerifierSettings

Kind = Literal["numina", "apps", "codecontests", "taco", "codeforces", "eurus", "rows"]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]

# The sets of NuminaMath-CoT that the published data has; orca_math, gsm8k and math are not among them.
_NUMINA_SETS = ("synthetic_math", "cn_k12", "olympiads", "aops_forum", "amc_aime", "synthetic_amc")


class ColumnSettings(Settings):
    """Which columns of a file of `kind = "rows"` hold what."""

    question: str
    """Column of the problem's text."""
    answer: str
    """Column of the answer; for programs, of the tests."""
    solution: str = ""
    """Column of the solution. Empty: none."""
    ability: Literal["math", "code"] = "math"
    """What the problems are."""


class SourceSettings(Settings):
    """One corpus."""

    kind: Kind
    """The corpus's schema. `rows`: any file, read by `columns`."""
    path: str
    """A `.jsonl`, `.parquet` or `.arrow` file, a pattern for several such as `raw/train-*.parquet`, a folder, or a
    dataset's name (`name` or `name:split`)."""
    name: Name = ""
    """Becomes `data_source`. Empty: the kind."""
    columns: ColumnSettings | None = None
    """The columns of a file of `kind = "rows"`."""
    sets: tuple[str, ...] = _NUMINA_SETS
    """For `numina`: which sets of NuminaMath-CoT to take. The default is PRIME's choice."""
    limit: int = Field(0, ge=0)
    """Rows to read at most. 0: all."""

    @model_validator(mode="after")
    def _columns_go_with_rows(self) -> "SourceSettings":
        if (self.kind == "rows") != (self.columns is not None):
            raise ValueError('`columns` is needed for kind = "rows", and for no other')
        return self


class MathSettings(Settings):
    """The rules for mathematics."""

    published_rules: bool = False
    """Follow the published scripts: words are found inside other words, and an answer needs a digit."""
    longest_answer: int = Field(200, ge=1)
    """Longest answer to keep, in characters."""
    rewrite: EndpointSettings | None = None
    """The model that turns multiple choice into open questions. Without one they are dropped."""
    rewrite_attempts: int = Field(10, ge=1)
    """Attempts for each question."""


class CodeSettings(Settings):
    """The rules for programs."""

    run: bool = True
    """Whether reference solutions are run in the verifier. If not, they are not checked."""
    solutions_tried: int = Field(5, ge=1)
    """Solutions tried for each problem."""
    max_tests: int = Field(100, ge=1)
    """Tests kept of each problem, the first ones."""
    max_test_bytes: int = Field(1_000_000, ge=1)
    """Larger tests are left out."""
    needs_checker: Literal["drop", "keep"] = "drop"
    """What to do with problems that have several right outputs, which comparison with one of them grades wrong: `drop`
    them, or `keep` them with a mark."""


class DuplicateSettings(Settings):
    """What counts as the same problem."""

    similarity: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of word n-grams from which on two texts are the same."""
    ngram: int = Field(3, ge=1)
    """Words in an n-gram."""
    permutations: int = Field(128, ge=16)
    """Permutations of MinHash."""


class ContaminationSettings(Settings):
    """Problems of evaluation sets are kept out."""

    sets: dict[str, str] = Field(default_factory=dict)
    """Evaluation sets: name = file or dataset. Each row has its text in one of the columns `problem`, `question`,
    `prompt`."""
    ngram: int = Field(8, ge=1)
    """Words in an n-gram."""
    overlap: float = Field(0.5, gt=0, le=1)
    """Share of an evaluation problem's n-grams from which on a problem counts as taken from it."""


class LengthSettings(Settings):
    """How long a prompt may be."""

    tokenizer: Path | None = None
    """A model's folder. Without one, nothing is dropped for its length."""
    max_prompt_tokens: int = Field(1024, ge=1)
    """Longest prompt, as it will be asked."""


class KeepSettings(Settings):
    """From which shares of a validator's attempts on a problem is kept."""

    solvable: float = Field(0.6, ge=0, le=1)
    """Smallest share of attempts that have an answer."""
    matching: float = Field(0.6, ge=0, le=1)
    """Smallest share of attempts that give the source's answer."""
    agreeing: float = Field(0.6, ge=0, le=1)
    """Smallest share of attempts that give the most frequent answer."""
    validators: Literal["all", "any"] = "all"
    """How many of the validators have to agree with these shares."""
    same_answer: bool = True
    """Whether the most frequent answers of all validators have to be equal."""


class ValidationSettings(Settings):
    """Models that solve every mathematics problem several times."""

    validators: tuple[EndpointSettings, ...] = ()
    """The models that validate. Empty: nothing is validated."""
    attempts: int = Field(5, ge=1)
    """Attempts of each model on each problem."""
    keep: KeepSettings = KeepSettings()
    probe: int = Field(0, ge=0)
    """Solvable problems that are made unsolvable, to measure which models notice."""


class CurateSettings(Settings):
    """One data set."""

    output: Path
    """Folder of the result, and of everything that a restart continues from."""
    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    """The corpora, at least one."""
    maths: MathSettings = MathSettings()
    code: CodeSettings = CodeSettings()
    duplicates: DuplicateSettings = DuplicateSettings()
    contamination: ContaminationSettings = ContaminationSettings()
    length: LengthSettings = LengthSettings()
    validation: ValidationSettings = ValidationSettings()
    system_prompt: Literal["actions", "none"] = "actions"
    """What precedes every problem: the seven `actions`, or nothing."""
    held_out: int = Field(0, ge=0)
    """Problems of each ability that go to `validation.parquet`."""
    seed: int = 42
    """Decides which problems are held out, and which are probes."""
    verifier: VerifierSettings = VerifierSettings()
    """The verifier that is started for it."""
    verifier_address: str = ""
    """A running verifier to ask instead, e.g. `127.0.0.1:50053`. `--token-file` has its token."""
    part_rows: int = Field(2000, ge=1)
    """Problems between two points from which a restart can continue."""

    @model_validator(mode="after")
    def _names_differ(self) -> "CurateSettings":
        names = [source.name or source.kind for source in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two sources are named {twice!r}; give each a `name`")
        models = [each.model for each in self.validation.validators]
        if len(set(models)) != len(models):
            raise ValueError("two validators are the same model; opinions of one model are one opinion")
        return self
