"""What a PRM learns from: responses as tokens with their labels, and what the reference says of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from jobs.candidates import CandidateRow, read_candidates
from prime.data.rendering import encode_candidate, encode_scoring_prompt
from prime.errors import DataError, InvalidInput
from prime.lm.model import CausalLM
from prime.lm.packing import TokenRow
from prime.scoring import StepSplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One response as tokens, with what is known of it.

    Examples: `Example(group=3, row=TokenRow(...), outcome=1.0)`; with step labels,
    `Example(group=3, row=TokenRow(...), ends=(7, 12), labels=(1.0, 0.0))`.
    """

    group: int
    """Number of its prompt."""
    row: TokenRow
    outcome: float | None = None
    ends: tuple[int, ...] = ()
    """One past the last token of every step."""
    labels: tuple[float, ...] = ()
    reference_T: Tensor | None = None
    """Log-probs of the reference; there once it was asked."""

    @property
    def known_reference(self) -> Tensor:
        """The reference's log-probs.

        Raises:
            InvalidInput: it was not asked yet.
        """
        if self.reference_T is None:
            raise InvalidInput("the reference was not asked for these examples yet")
        return self.reference_T


def load_examples(
    paths: Sequence[Path], tokenizer: Any, *, separator: str, end_token: bool, max_tokens: int, drop_long: bool
) -> tuple[list[Example], int]:
    """All responses of all files, and how many were dropped for their length.

    Raises:
        DataError: a row cannot be used, or there is none; names file, row and column.
    """
    examples: list[Example] = []
    dropped = group = 0
    for path in paths:
        for row in read_candidates(path):
            if isinstance(row, DataError):
                raise row
            for example in _examples(row, group, tokenizer, StepSplit(separators=(separator,)), end_token):
                if len(example.row) > max_tokens:
                    if not drop_long:
                        raise DataError(
                            f"{row.where}: prompt and response have {len(example.row)} tokens, over the {max_tokens} "
                            f"that are read; raise max_tokens, or set long_rows = 'drop'"
                        )
                    dropped += 1
                    continue
                examples.append(example)
            group += 1
    if not examples:
        raise DataError(f"there is nothing to learn from in {', '.join(map(str, paths))}")
    return examples, dropped


def _examples(row: CandidateRow, group: int, tokenizer: Any, split: StepSplit, end_token: bool) -> list[Example]:
    if not row.outcomes and not row.step_labels:
        raise DataError(f"{row.where}: nothing is known of its responses; `correctness` or `labels` is needed")
    try:
        prompt_ids = encode_scoring_prompt(tokenizer, row.prompt)
        encoded = [
            encode_candidate(tokenizer, candidate, split=split, end_token=end_token) for candidate in row.candidates
        ]
    except InvalidInput as error:
        raise DataError(f"{row.where}: {error}") from None
    rows = [TokenRow(prompt_ids=prompt_ids, response_ids=response.token_ids) for response in encoded]
    if row.step_labels:
        ends = tuple(span.token_end for span in encoded[0].spans)
        if len(ends) != len(row.step_labels):
            raise DataError(
                f"{row.where}: {len(row.step_labels)} step labels, but only {len(ends)} of its steps have tokens of "
                f"their own"
            )
        return [Example(group=group, row=rows[0], ends=ends, labels=row.step_labels)]
    return [Example(group=group, row=each, outcome=outcome) for each, outcome in zip(rows, row.outcomes, strict=True)]


def ask_reference(reference: CausalLM, examples: Sequence[Example], *, token_budget: int) -> list[Example]:
    """The examples with the reference's log-probs: asked once, for it never changes."""
    rows = [example.row for example in examples]
    known = reference.score_rows(rows, token_budget=token_budget)
    return [replace(example, reference_T=each_T) for example, each_T in zip(examples, known, strict=True)]
