"""Questions and answers as the PRM reads them: token ids, and where in them each step lies.

Prompt and response are encoded apart, as in RL, where the prompt's ids are given and the response's are sampled. The
response is encoded once; steps are found in its text and mapped to tokens by character offsets, so no prefix is ever
rendered again and no closing tag subtracted. Used by the scoring service and by the PRM's training: what is learnt
and what is scored are rendered alike.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import regex

from prime.chat import plain_text
from prime.errors import EmptyInput, InvalidInput
from prime.scoring import Candidate, Prompt, StepSpan, StepSplit

_LONGEST_PATTERN = 200
_PATTERN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedResponse:
    """A response as tokens. `spans` tile both the text and the tokens; one of token ids or with step marks has no text.

    Example: "7 * 8 = 56\\n\\nSo it is 56." in ten tokens and an end token: `EncodedResponse(token_ids=(...),
    text="7 * 8...", spans=(StepSpan(char_start=0, char_end=12, token_start=0, token_end=6), StepSpan(12, 24, 6, 11)))`.
    """

    token_ids: tuple[int, ...]
    text: str
    spans: tuple[StepSpan, ...]
    marks: tuple[int, ...] = ()
    """With step marks: of each step the token at which its head is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Markup:
    """What is written into a response besides its own text: `Markup(step_mark="<extra_0>")`."""

    step_mark: str = ""
    """Ends every step, in place of the separator there; empty: nothing does."""
    closing: str = ""
    """Closes a text in place of the end token; empty: the end token does."""


_PLAIN = Markup()


def encode_scoring_prompt(tokenizer: Any, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of the question, up to where the response begins.

    Raises:
        EmptyInput: it encodes to nothing.
        InvalidInput: not exactly one of messages, text and ids is given, or the chat template refuses the messages.
    """
    given = [bool(prompt.messages), prompt.text is not None, prompt.token_ids is not None]
    if given.count(True) != 1:
        raise InvalidInput("a prompt needs exactly one of messages, text and token ids")
    if prompt.token_ids is not None:
        ids = _checked_ids(tokenizer, prompt.token_ids, "the prompt")
    elif prompt.rendered:
        ids = _encode(tokenizer, prompt.text or "")
    else:
        ids = _encode_chat(tokenizer, prompt)
    if not ids:
        raise EmptyInput("the prompt encodes to no token, so nothing would predict the response's first one")
    return ids + _checked_ids(tokenizer, prompt.begun_ids, "what the answer begins with")


def generation_prompt(tokenizer: Any) -> str:
    """What the chat template writes where a response begins, e.g. `<|im_start|>assistant\n`; empty without one."""
    if not tokenizer.chat_template:
        return ""
    turns = [{"role": "user", "content": "?"}]
    closed, opened = (
        tokenizer.apply_chat_template(turns, add_generation_prompt=opens, tokenize=False) for opens in (False, True)
    )
    return str(opened.removeprefix(closed)) if opened.startswith(closed) else ""


def closing_of(tokenizer: Any) -> str:
    """What the chat template writes after an answer, e.g. `<|im_end|>\n`; empty if it has none, or rewrites it."""
    if not tokenizer.chat_template:
        return ""
    question, answer = {"role": "user", "content": "?"}, "7 * 8 = 56"
    asked = tokenizer.apply_chat_template([question], add_generation_prompt=True, tokenize=False)
    answered = tokenizer.apply_chat_template([question, {"role": "assistant", "content": answer}], tokenize=False)
    return str(answered.removeprefix(asked + answer)) if answered.startswith(asked + answer) else ""


def encode_candidate(tokenizer: Any, candidate: Candidate, *, split: StepSplit, end_token: bool) -> EncodedResponse:
    """One response; see `encode_candidates`."""
    return encode_candidates(tokenizer, [candidate], split=split, end_token=end_token)[0]


def encode_candidates(
    tokenizer: Any, candidates: Sequence[Candidate], *, split: StepSplit, end_token: bool, markup: Markup = _PLAIN
) -> list[EncodedResponse]:
    """Responses as tokens with their steps; with `end_token` the tokenizer's end token closes a text.

    A token belongs to the step in which its first character lies; a step that owns no token, or nothing but blanks,
    joins its neighbour. With step marks each step is encoded alone, and its mark after it: a text that holds marks
    already is cut at them and nowhere else.

    Raises:
        EmptyInput: a response holds no token.
        InvalidInput: not exactly one of text, steps and ids is given, or ids, ends or log-probs do not fit, or ids hold
            a step without its mark.
    """
    ending = ending_of(tokenizer, markup) if end_token else ()
    if markup.step_mark:
        return _encode_marked(tokenizer, candidates, split, ending, markup.step_mark)
    texts = [_text_and_ends(candidate, split) for candidate in candidates]
    by_text = [found for found in texts if found is not None]
    # One call for all: most of what encoding short texts costs is the call.
    encoding = (
        tokenizer([text for text, _ in by_text], add_special_tokens=False, return_offsets_mapping=True)
        if by_text
        else {}
    )
    tokens = zip(encoding.get("input_ids", ()), encoding.get("offset_mapping", ()), strict=True)
    return [
        _from_ids(tokenizer, candidate, split) if found is None else _from_text(*found, *next(tokens), ending)
        for candidate, found in zip(candidates, texts, strict=True)
    ]


def ending_of(tokenizer: Any, markup: Markup) -> tuple[int, ...]:
    """The token ids that close a text."""
    return _encode(tokenizer, markup.closing) if markup.closing else (tokenizer.eos_token_id,)


def _encode_marked(
    tokenizer: Any, candidates: Sequence[Candidate], split: StepSplit, ending: tuple[int, ...], mark: str
) -> list[EncodedResponse]:
    mark_ids = _encode(tokenizer, mark)
    found = [_marked_steps(tokenizer, candidate, split, mark) for candidate in candidates]
    own = [text for steps in found if steps is not None for text, _ in steps]
    encoded = iter(tokenizer(own, add_special_tokens=False)["input_ids"] if own else ())
    return [
        _from_marked_ids(tokenizer, candidate, mark_ids)
        if steps is None
        else _from_marked_steps([(next(encoded), end) for _, end in steps], mark_ids, ending)
        for candidate, steps in zip(candidates, found, strict=True)
    ]


def _marked_steps(tokenizer: Any, candidate: Candidate, split: StepSplit, mark: str) -> list[tuple[str, int]] | None:
    """Each step's own text, without what the mark stands for, and where it ends in the text; None for token ids."""
    if candidate.text is not None and mark in candidate.text:
        split = StepSplit(separators=(mark,))
    found = _text_and_ends(candidate, split)
    if found is None:
        return None
    text, ends = found
    marks = (mark,) if split.pattern else (mark, *filter(None, split.separators))
    at_end = re.compile(f"(?:{'|'.join(map(re.escape, marks))})+\\Z")
    if candidate.steps is not None:
        return [(at_end.sub("", step), end) for step, end in zip(candidate.steps, ends, strict=True)]
    # Blanks before the first step belong to it.
    ends = [end for end in ends if text[:end].strip()] or [len(text)]
    own = [at_end.sub("", text[start:end]) for start, end in pairwise([0, *ends])]
    # What a chat template wrote after an answer is no step.
    own[-1] = _without_specials_at_end(tokenizer, own[-1])
    if not own[-1].strip() and len(own) > 1:
        own.pop()
        del ends[-2]
    return list(zip(own, ends, strict=True))


def _without_specials_at_end(tokenizer: Any, text: str) -> str:
    specials = "|".join(map(re.escape, tokenizer.all_special_tokens))
    return re.sub(rf"(?:\s*(?:{specials}))+\s*\Z", "", text)


def _from_marked_steps(
    steps: Sequence[tuple[Sequence[int], int]], mark_ids: tuple[int, ...], ending: tuple[int, ...]
) -> EncodedResponse:
    ids: list[int] = []
    spans: list[StepSpan] = []
    marks: list[int] = []
    char_start = 0
    for own_ids, end in steps:
        token_start = len(ids)
        ids += (*own_ids, *mark_ids)
        marks.append(len(ids) - 1)
        spans.append(StepSpan(char_start=char_start, char_end=end, token_start=token_start, token_end=len(ids)))
        char_start = end
    ids += ending
    spans[-1] = replace(spans[-1], token_end=len(ids))
    return EncodedResponse(token_ids=tuple(ids), text="", spans=tuple(spans), marks=tuple(marks))


def _from_marked_ids(tokenizer: Any, candidate: Candidate, mark_ids: tuple[int, ...]) -> EncodedResponse:
    ids = _checked_ids(tokenizer, candidate.token_ids or (), "a response")
    if not ids:
        raise EmptyInput("a response is empty")
    last_of_marks = places_of(ids, mark_ids)
    if candidate.step_ends is not None:
        ends = _checked_ends(candidate.step_ends, len(ids))
    else:
        ends = [place + 1 for place in last_of_marks[:-1]] + [len(ids)]
    spans = [
        StepSpan(char_start=0, char_end=0, token_start=start, token_end=end) for start, end in pairwise([0, *ends])
    ]
    marks = [
        max((place for place in last_of_marks if span.token_start <= place < span.token_end), default=None)
        for span in spans
    ]
    if None in marks:
        raise InvalidInput(
            f"step {marks.index(None)} of a response in token ids holds no step mark {list(mark_ids)}, where the PRM's "
            "head is read; put one after every step, or send the response as text or steps"
        )
    read = tuple(place for place in marks if place is not None)
    return EncodedResponse(token_ids=ids, text="", spans=tuple(spans), marks=read)


def places_of(ids: Sequence[int], mark_ids: Sequence[int]) -> list[int]:
    """Where the last token of each mark lies: `places_of((5, 9, 6, 9), (9,))` is `[1, 3]`."""
    length = len(mark_ids)
    return [end - 1 for end in range(length, len(ids) + 1) if tuple(ids[end - length : end]) == tuple(mark_ids)]


def _text_and_ends(candidate: Candidate, split: StepSplit) -> tuple[str, list[int]] | None:
    """The text and where its steps end; None for token ids."""
    if [candidate.text is not None, candidate.steps is not None, candidate.token_ids is not None].count(True) != 1:
        raise InvalidInput("a response needs exactly one of text, steps and token ids")
    if candidate.token_ids is not None:
        return None
    if candidate.step_ends is not None or candidate.reference_logprobs is not None:
        raise InvalidInput("step ends and reference log-probs count tokens: they need the response as token ids")
    if candidate.steps is not None:
        _refuse_half_characters(*candidate.steps)
        return _join(candidate.steps, split.separators[0])
    if not candidate.text:
        raise EmptyInput("a response is empty")
    _refuse_half_characters(candidate.text)
    return candidate.text, split_text(candidate.text, split)


def split_text(text: str, split: StepSplit) -> list[int]:
    """Where steps end in a text: after each separator or match, and at the end. Growing; the last is its length.

    Steps of blanks alone, as after a doubled separator, join the step before them.

    Raises:
        InvalidInput: a separator is empty, or the pattern is too long, no expression, or too slow.
    """
    if split.pattern:
        found = _matches(split.pattern, text)
    elif split.separators and all(split.separators):
        # The longest first: at one place "\n\n" is one separator and not two times "\n".
        by_length = sorted(split.separators, key=len, reverse=True)
        found = [match.end() for match in re.finditer("|".join(map(re.escape, by_length)), text)]
    else:
        raise InvalidInput("a step separator must not be empty")
    return _without_blanks(text, [*(end for end in found if 0 < end < len(text)), len(text)])


def _matches(pattern: str, text: str) -> list[int]:
    """Ends of a stranger's pattern in a text; an expression that would search for ever is stopped."""
    if len(pattern) > _LONGEST_PATTERN:
        raise InvalidInput(f"the step pattern has {len(pattern)} characters; at most {_LONGEST_PATTERN} are taken")
    try:
        compiled = regex.compile(pattern)
        if compiled.match("", timeout=_PATTERN_SECONDS):
            raise InvalidInput("the step pattern matches the empty text, so every character would be a step")
        found = compiled.finditer(text, timeout=_PATTERN_SECONDS, concurrent=True)
        return [match.end() for match in found if match.end() > match.start()]
    except regex.error as error:
        raise InvalidInput(f"the step pattern is no regular expression: {error}") from None
    except TimeoutError:
        raise InvalidInput(
            f"the step pattern took more than {_PATTERN_SECONDS} s on one response; simplify it"
        ) from None


def _encode_chat(tokenizer: Any, prompt: Prompt) -> tuple[int, ...]:
    # Text models' templates take no content in parts, and some no absent one.
    messages = [{**message, "content": plain_text(message.get("content"))} for message in prompt.messages]
    messages = messages or [{"role": "user", "content": prompt.text or ""}]
    if not tokenizer.chat_template:
        if prompt.tools:
            raise InvalidInput("tools are given, and this PRM's tokenizer has no chat template that could show them")
        text = "\n\n".join(message["content"] for message in messages)
        _refuse_half_characters(text)
        return tuple(tokenizer(text)["input_ids"])
    tools = {"tools": [dict(tool) for tool in prompt.tools]} if prompt.tools else {}
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **tools)
    except Exception as error:  # noqa: BLE001  a template is a program of the model's, and may raise anything
        raise InvalidInput(f"the PRM's chat template refuses these messages: {error}") from None
    return _encode(tokenizer, text)


def _refuse_half_characters(*texts: str) -> None:
    """JSON can carry half of a surrogate pair, which no tokenizer can read."""
    for text in texts:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise InvalidInput("a text holds half of a character (a lone surrogate)")


def _encode(tokenizer: Any, text: str) -> tuple[int, ...]:
    _refuse_half_characters(text)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _from_text(
    text: str, ends: Sequence[int], ids: Sequence[int], offsets: Sequence[tuple[int, int]], ending: tuple[int, ...]
) -> EncodedResponse:
    ids = list(ids)
    if not ids:
        raise EmptyInput("a response is empty")
    # Never shrinking: pieces of one character share its place, and some tokenizers give (0, 0) to special tokens.
    starts = list(accumulate((start for start, _ in offsets), max))
    # An answer that was sampled to its end has the end token already.
    more = ending[1:] if ending and ids[-1] == ending[0] else ending
    ids += more
    starts += [max(starts[-1], len(text) - 1)] * len(more)
    return EncodedResponse(token_ids=tuple(ids), text=text, spans=tuple(_spans(ends, starts, len(text))))


def _spans(ends: Sequence[int], starts: Sequence[int], length: int) -> Iterator[StepSpan]:
    """Tiles: steps end before the first token that starts at or after their last character."""
    char_start = token_start = token = 0
    for end in ends:
        token = bisect_left(starts, end, lo=token)
        is_last = end == length
        if token > token_start and (is_last or token < len(starts)):
            yield StepSpan(char_start=char_start, char_end=end, token_start=token_start, token_end=token)
            char_start, token_start = end, token


def _from_ids(tokenizer: Any, candidate: Candidate, split: StepSplit) -> EncodedResponse:
    ids = _checked_ids(tokenizer, candidate.token_ids or (), "a response")
    if not ids:
        raise EmptyInput("a response is empty")
    known = candidate.reference_logprobs
    if known is not None and len(known) != len(ids):
        raise InvalidInput(f"a response has {len(ids)} tokens but {len(known)} reference log-probs")
    if candidate.step_ends is not None:
        ends = _checked_ends(candidate.step_ends, len(ids))
    else:
        ends = _ends_by_text(tokenizer, ids, split)
    spans = [
        StepSpan(char_start=0, char_end=0, token_start=start, token_end=end) for start, end in pairwise([0, *ends])
    ]
    return EncodedResponse(token_ids=ids, text="", spans=tuple(spans))


def _ends_by_text(tokenizer: Any, ids: Sequence[int], split: StepSplit) -> list[int]:
    """Steps of sampled tokens, found in the text that they stand for; ids are never encoded again."""
    # Token by token: what is lost is the form of characters cut in two, and no separator holds one.
    pieces = tokenizer.batch_decode([[token] for token in ids])
    text = "".join(pieces)
    starts = list(accumulate(map(len, pieces[:-1]), initial=0))
    spans = _spans(split_text(text, split), starts, len(text)) if text else ()
    return [span.token_end for span in spans if span.token_end < len(ids)] + [len(ids)]


def _checked_ids(tokenizer: Any, ids: Sequence[int], what: str) -> tuple[int, ...]:
    wrong = next((place for place, token in enumerate(ids) if not 0 <= token < len(tokenizer)), None)
    if wrong is not None:
        raise InvalidInput(f"{what}: token {wrong} is {ids[wrong]}, and the vocabulary has {len(tokenizer)} entries")
    return tuple(ids)


def _checked_ends(ends: Sequence[int], length: int) -> list[int]:
    if any(after <= before for before, after in pairwise([0, *ends])) or (ends and ends[-1] > length):
        raise InvalidInput(f"step ends must grow from 1 to at most {length}, the number of tokens; got {list(ends)}")
    return [*ends] if ends and ends[-1] == length else [*ends, length]


def _join(steps: Sequence[str], separator: str) -> tuple[str, list[int]]:
    if not steps or not all(step.strip() for step in steps):
        raise EmptyInput("a response's list of steps is empty, or one of them is")
    pieces = [f"{step}{separator}" for step in steps[:-1]] + [steps[-1]]
    return "".join(pieces), list(accumulate(map(len, pieces)))


def _without_blanks(text: str, ends: Sequence[int]) -> list[int]:
    kept: list[int] = []
    start = 0
    for end in ends:
        if kept and not text[start:end].strip():
            kept[-1] = end
        else:
            kept.append(end)
        start = end
    return kept
