"""What is encoded comes back equal over real bytes, and what is torn or foreign is refused."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from prime import wire
from prime.errors import InvalidInput
from prime.types import (
    AnswerClasses,
    FinishReason,
    GradeItem,
    PrmGroup,
    PrmInfo,
    PrmMetrics,
    PushManifest,
    PushOffer,
    PushReceipt,
    ReferenceSource,
    RolloutFailure,
    RolloutGroup,
    RolloutRequest,
    RolloutStatus,
    Sample,
    SamplingParams,
    TensorAlias,
    TensorSpec,
    TestRecord,
    TestVerdict,
    TokenRewards,
    TrainerStatus,
    Verdict,
    VerdictStatus,
    VerifierInfo,
    VersionSpan,
)
from prime.v1 import prm_pb2, rollout_pb2, types_pb2, verifier_pb2
from tests.builders import group, request

TEXT = st.text(max_size=12)
IDS = st.integers(0, 2**31 - 1)
UINT32, UINT64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
FLOAT32 = st.floats(width=32, allow_nan=False)
FLOAT64 = st.floats(allow_nan=False)
INT64 = st.integers(-(2**63), 2**63 - 1)


def _tuples(items: SearchStrategy[Any], *, least: int = 0, most: int = 4) -> SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=most).map(tuple)


@st.composite
def _samples(draw: st.DrawFn) -> Sample:
    lengths = [draw(st.integers(1, 4)), *draw(st.lists(st.integers(0, 4), max_size=2))]
    size = sum(lengths)
    return Sample(
        response_ids=draw(_tuples(IDS, least=size, most=size)),
        logprobs=draw(_tuples(FLOAT32, least=size, most=size)),
        spans=tuple(VersionSpan(version=draw(UINT64), length=length) for length in lengths),
        finish_reason=draw(st.sampled_from(FinishReason)),
    )


@st.composite
def _prm_groups(draw: st.DrawFn) -> PrmGroup:
    responses = draw(_tuples(_tuples(IDS, least=1), least=1))
    lengths = [len(row) for row in responses] if draw(st.booleans()) else []
    return PrmGroup(
        group_id=draw(TEXT),
        prompt_ids=draw(_tuples(IDS, least=1)),
        responses=responses,
        reference_logprobs=tuple(draw(_tuples(FLOAT32, least=size, most=size)) for size in lengths),
        reference=draw(st.sampled_from([None, *ReferenceSource])),
    )


@st.composite
def _answer_classes(draw: st.DrawFn) -> AnswerClasses:
    found = draw(_tuples(st.tuples(TEXT, st.integers(-1, 2**31 - 1))))
    return AnswerClasses(answers=tuple(text for text, _ in found), classes=tuple(number for _, number in found))


GROUPS = st.builds(
    RolloutGroup,
    group_id=TEXT,
    problem_id=TEXT,
    attempt=UINT32,
    prompt_ids=_tuples(IDS),
    samples=_tuples(_samples()),
)
TESTS = _tuples(
    st.builds(
        TestRecord,
        verdict=st.sampled_from(TestVerdict),
        cpu_ms=FLOAT64,
        wall_ms=FLOAT64,
        peak_mib=FLOAT64,
        output_bytes=UINT64,
        signal=st.integers(0, 64),
    )
)


def _verdicts(statuses: Sequence[VerdictStatus], scores: SearchStrategy[float | None]) -> SearchStrategy[Verdict]:
    return st.builds(
        Verdict,
        status=st.sampled_from(statuses),
        score=scores,
        reason=TEXT,
        milliseconds=FLOAT64,
        method=TEXT,
        tier=TEXT,
        cached=st.booleans(),
        tests=TESTS,
    )


DECIDED = _verdicts([VerdictStatus.PASSED, VerdictStatus.FAILED], st.floats(0, 1))
UNSCORED = _verdicts([VerdictStatus.UNDECIDED, VerdictStatus.INVALID_REQUEST, VerdictStatus.INFRA_ERROR], st.none())

OFFERS = st.builds(PushOffer, key=TEXT, transport=TEXT, place=TEXT, checksums=_tuples(INT64), deadline_s=FLOAT64)
RECORDS: dict[str, SearchStrategy[Any]] = {
    "ids": _tuples(st.integers(-(2**31), 2**31 - 1)),
    "floats": _tuples(FLOAT32),
    "token_rows": _tuples(_tuples(IDS)),
    "float_rows": _tuples(_tuples(FLOAT32)),
    "request": st.builds(
        RolloutRequest,
        group_id=TEXT,
        problem_id=TEXT,
        attempt=UINT32,
        prompt_ids=_tuples(IDS, least=1),
        num_samples=st.integers(1, 2**32 - 1),
        sampling=st.builds(
            SamplingParams,
            temperature=st.floats(0.125, 2, width=32),
            top_p=st.floats(0.125, 1, width=32),
            max_tokens=st.integers(1, 2**32 - 1),
            top_k=st.integers(0, 2**32 - 1),
            min_p=st.floats(0, 1, width=32),
            stop_token_ids=_tuples(st.integers(0, 2**32 - 1)),
            stop=_tuples(st.text(min_size=1)),
        ),
        seed=UINT64,
        min_version=UINT64,
    ),
    "group": GROUPS,
    "result": GROUPS | st.builds(RolloutFailure, group_id=TEXT, problem_id=TEXT, reason=TEXT),
    "manifest": st.builds(
        PushManifest,
        version=UINT64,
        tensors=_tuples(st.builds(TensorSpec, name=TEXT, dtype=TEXT, shape=_tuples(UINT64))),
        base_version=st.none() | UINT64,
        aliases=_tuples(st.builds(TensorAlias, name=TEXT, of=TEXT)),
        keep_base=st.booleans(),
        probe_ids=_tuples(IDS),
        probe_logprobs=_tuples(FLOAT32),
        max_gap=FLOAT64,
        offer=st.none() | OFFERS,
    ),
    "offer": OFFERS,
    "receipt": st.builds(
        PushReceipt,
        version=UINT64,
        probe_logprobs=_tuples(FLOAT32),
        stage_seconds=FLOAT64,
        pause_seconds=FLOAT64,
        probe_seconds=FLOAT64,
    ),
    "rollout_status": st.builds(
        RolloutStatus,
        engine=TEXT,
        ready=st.booleans(),
        version=UINT64,
        groups_delivered=UINT64,
        tokens_generated=UINT64,
        groups_in_flight=UINT32,
        tokenizer_fingerprint=TEXT,
        busy_seconds=FLOAT64,
        dtype=TEXT,
        transports=_tuples(TEXT),
        takes_adapters=st.booleans(),
    ),
    "item": st.builds(
        GradeItem,
        item_id=TEXT,
        data_source=TEXT,
        ability=TEXT,
        response=TEXT,
        ground_truth=TEXT,
        kind=TEXT,
        options=_tuples(TEXT),
        binary=st.booleans(),
    ),
    "verdict": DECIDED | UNSCORED,
    "verifier_info": st.builds(
        VerifierInfo,
        graders=_tuples(TEXT),
        isolation=_tuples(TEXT),
        workers=UINT32,
        tier=TEXT,
        canary_age_seconds=FLOAT64,
    ),
    "answer_classes": _answer_classes(),
    "prm_group": _prm_groups(),
    "rewards": st.builds(
        TokenRewards,
        rows=_tuples(_tuples(FLOAT32)),
        prm_version=UINT64,
        beta=FLOAT64,
        reference_id=TEXT,
        reference_cached=_tuples(st.booleans()),
    ),
    "prm_metrics": st.builds(
        PrmMetrics,
        prm_version=UINT64,
        loss=FLOAT64,
        grad_norm=FLOAT64,
        pair_accuracy=FLOAT64,
        mean_logit=FLOAT64,
        calibration_error=FLOAT64,
        frozen_pair_accuracy=st.none() | FLOAT64,
    ),
    "prm_info": st.builds(
        PrmInfo,
        prm_version=UINT64,
        beta=FLOAT64,
        reference_id=TEXT,
        reference_mode=TEXT,
        tokenizer_fingerprint=TEXT,
    ),
    "trainer_status": st.builds(
        TrainerStatus,
        run=TEXT,
        phase=TEXT,
        step=UINT64,
        total_steps=UINT64,
        policy_version=UINT64,
        tokens_per_second=FLOAT64,
        mean_score=FLOAT64,
        accuracy=FLOAT64,
        seconds_left=FLOAT64,
        error=TEXT,
    ),
}


def _travel(encoded: Any) -> Any:
    """Through real bytes, as over a connection."""
    return encoded if isinstance(encoded, bytes) else type(encoded).FromString(encoded.SerializeToString())


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("name", sorted(RECORDS))
@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_every_record_comes_back_equal(name: str, data: st.DataObject) -> None:
    record = data.draw(RECORDS[name])
    encoded = getattr(wire, f"encode_{name}")(record)
    assert getattr(wire, f"decode_{name}")(_travel(encoded)) == record


def test_every_pair_of_the_module_has_a_round_trip_above() -> None:
    names = {name for name in vars(wire) if name.startswith(("encode_", "decode_"))}
    assert names == {f"{way}_{name}" for name in RECORDS for way in ("encode", "decode")}


def test_answers_and_classes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 answers came with 1 classes"):
        wire.decode_answer_classes(verifier_pb2.GroupAnswersResponse(answers=["a", "b"], classes=[0]))


def test_arrays_are_little_endian_and_four_bytes_wide() -> None:
    assert wire.encode_ids([1, 258]) == b"\x01\0\0\0\x02\x01\0\0"
    assert wire.encode_floats([1.0]) == b"\0\0\x80\x3f"


def test_floats_are_rounded_to_float32() -> None:
    (back,) = wire.decode_floats(wire.encode_floats([0.1]))
    assert back != 0.1
    assert back == pytest.approx(0.1, rel=2**-23)


def test_a_float_that_is_not_a_number_stays_one() -> None:
    assert math.isnan(wire.decode_floats(wire.encode_floats([math.nan]))[0])


# ---------------------------------------------------------------- torn arrays and disagreeing lengths


@given(st.binary(max_size=17).filter(lambda data: len(data) % 4))
@settings(deadline=None, max_examples=25)
def test_a_torn_array_is_refused(data: bytes) -> None:
    for decode in (wire.decode_ids, wire.decode_floats):
        with pytest.raises(InvalidInput, match=f"{len(data)} bytes"):
            decode(data)


@pytest.mark.parametrize("lengths", [[], [1], [1, 2], [3, 0], [2**32 - 1]])
def test_lengths_that_do_not_sum_to_the_values_are_refused(lengths: list[int]) -> None:
    two = wire.encode_ids([7, 8])
    with pytest.raises(InvalidInput, match="holds 2 values"):
        wire.decode_token_rows(types_pb2.RaggedTokens(values=two, lengths=lengths))
    with pytest.raises(InvalidInput, match="holds 2 values"):
        wire.decode_float_rows(types_pb2.RaggedFloats(values=two, lengths=lengths))


@pytest.mark.parametrize("field", ["prompt_ids", "probe_ids", "probe_logprobs"])
def test_a_torn_array_inside_a_message_is_refused(field: str) -> None:
    message: Any = types_pb2.RolloutRequest() if field == "prompt_ids" else rollout_pb2.PushBegin()
    setattr(message, field, b"torn!")
    with pytest.raises(InvalidInput, match="5 bytes"):
        wire.decode_request(message) if field == "prompt_ids" else wire.decode_manifest(message)


def test_a_group_whose_arrays_disagree_is_refused() -> None:
    fewer_traces = wire.encode_group(group())
    del fewer_traces.traces[0]
    fewer_logprobs = wire.encode_group(group())
    fewer_logprobs.logprobs.CopyFrom(wire.encode_float_rows([(-0.5, -0.5)]))
    shorter_logprobs = wire.encode_group(group())
    shorter_logprobs.logprobs.CopyFrom(wire.encode_float_rows([(-0.5, -0.5), (-0.5,)]))
    longer_span = wire.encode_group(group())
    longer_span.traces[1].spans[0].length = 3
    for message in (fewer_traces, fewer_logprobs, shorter_logprobs, longer_span):
        with pytest.raises(InvalidInput, match=r"group '0\.0-p'"):
            wire.decode_group(message)


def test_a_group_with_an_empty_response_is_refused() -> None:
    """Its mean token reward would be 0 / 0, and whitening would spread that over the batch."""
    whole = group()
    empty = Sample(response_ids=(), logprobs=(), spans=(), finish_reason=FinishReason.STOP)
    with pytest.raises(InvalidInput, match="has no token"):
        wire.decode_group(wire.encode_group(replace(whole, samples=(whole.samples[0], empty))))


# ---------------------------------------------------------------- requests and results


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (request(prompt=()), "has 0 ids"),
        (request(samples=0), "asks 0"),
        (request(max_tokens=0), "max_tokens 0"),
    ],
)
def test_a_request_that_no_engine_can_serve_is_refused(broken: RolloutRequest, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        wire.decode_request(wire.encode_request(broken))


def test_an_empty_request_is_refused() -> None:
    with pytest.raises(InvalidInput, match="top_p in \\(0, 1"):
        wire.decode_request(types_pb2.RolloutRequest())


def test_a_result_that_holds_neither_group_nor_failure_is_refused() -> None:
    with pytest.raises(InvalidInput, match="neither"):
        wire.decode_result(types_pb2.RolloutResult())


def test_an_unknown_finish_reason_is_read_as_cut_off() -> None:
    message = wire.encode_group(group())
    message.traces[0].finish_reason = types_pb2.FINISH_REASON_UNSPECIFIED
    assert wire.decode_group(message).samples[0].finish_reason is FinishReason.LENGTH


# ---------------------------------------------------------------- verdicts


@pytest.mark.parametrize("status", [0, 6, 99])
def test_a_verdict_of_unknown_status_is_refused(status: int) -> None:
    message = types_pb2.Verdict.FromString(bytes([8, status]))
    with pytest.raises(InvalidInput, match=f"status {status}"):
        wire.decode_verdict(message)


def test_an_undecided_verdict_has_no_score_on_either_side() -> None:
    undecided = Verdict(status=VerdictStatus.UNDECIDED, score=None, reason="deadline", milliseconds=1.0)
    message = wire.encode_verdict(undecided)
    assert math.isnan(message.score)
    message.score = 1.0  # whatever a peer wrote there is not read
    assert wire.decode_verdict(message) == undecided


@pytest.mark.parametrize(
    ("status", "score"),
    [
        (VerdictStatus.UNDECIDED, 0.0),
        (VerdictStatus.INVALID_REQUEST, 0.0),
        (VerdictStatus.INFRA_ERROR, 0.0),
        (VerdictStatus.PASSED, None),
        (VerdictStatus.FAILED, None),
    ],
)
def test_a_verdict_that_contradicts_itself_cannot_be_made(status: VerdictStatus, score: float | None) -> None:
    with pytest.raises(ValueError, match="have a score, others none"):
        Verdict(status=status, score=score, reason="", milliseconds=0.0)


# ---------------------------------------------------------------- PRM groups


@pytest.mark.parametrize(
    "broken",
    [
        PrmGroup(group_id="g", prompt_ids=(), responses=((1,),)),
        PrmGroup(group_id="g", prompt_ids=(1,), responses=()),
        PrmGroup(group_id="g", prompt_ids=(1,), responses=((1,), ())),
        PrmGroup(group_id="g", prompt_ids=(1,), responses=((1, 2), (3,)), reference_logprobs=((0.0, 0.0),)),
        PrmGroup(group_id="g", prompt_ids=(1,), responses=((1, 2), (3,)), reference_logprobs=((0.0,), (0.0, 0.0))),
    ],
)
def test_a_prm_group_with_gaps_is_refused(broken: PrmGroup) -> None:
    with pytest.raises(InvalidInput, match="PRM group 'g'"):
        wire.decode_prm_group(wire.encode_prm_group(broken))


def test_rewards_whose_lengths_disagree_are_refused() -> None:
    message = prm_pb2.ScoreResponse(rewards=types_pb2.RaggedFloats(values=wire.encode_floats([0.5]), lengths=[2]))
    with pytest.raises(InvalidInput, match="sum to 2"):
        wire.decode_rewards(message)


@given(st.binary(max_size=300) | st.just(b"x" * 2_000_000))
def test_a_chunk_laid_down_by_hand_is_the_message(chunk: bytes) -> None:
    message = rollout_pb2.PushWeightsRequest(chunk=chunk)
    assert wire.lay_chunk(chunk) == message.SerializeToString()
    decoded = wire.read_push_part(message.SerializeToString())
    assert isinstance(decoded, memoryview)
    assert bytes(decoded) == chunk


def test_other_parts_of_a_push_are_messages() -> None:
    commit = rollout_pb2.PushWeightsRequest(commit=rollout_pb2.PushCommit(digest=b"d" * 16))
    assert wire.read_push_part(commit.SerializeToString()) == commit
