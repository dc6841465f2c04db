"""Record to protobuf message and back, and nothing else. Ragged arrays are flat little-endian bytes plus lengths."""

import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TypeVar

from prime.errors import InvalidInput
from prime.types import (
    AnswerClasses,
    EnvironmentTask,
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
    TokenSpan,
    TrainerStatus,
    Verdict,
    VerdictStatus,
    VerifierInfo,
    VersionSpan,
    written_places,
)
from prime.v1 import prm_pb2, rollout_pb2, trainer_pb2, types_pb2, verifier_pb2

T = TypeVar("T")

# ---------------------------------------------------------------- arrays


def _to_bytes(typecode: str, values: Iterable[float]) -> bytes:
    packed = array(typecode, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _from_bytes(typecode: str, data: bytes) -> "array[float]":
    packed: array[float] = array(typecode)
    if len(data) % packed.itemsize:
        raise InvalidInput(f"packed array of {len(data)} bytes is not a whole number of {packed.itemsize}-byte items")
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed


def encode_ids(ids: Iterable[int]) -> bytes:
    """Token ids as int32 little-endian."""
    return _to_bytes("i", ids)


def decode_ids(data: bytes) -> tuple[int, ...]:
    """Inverse of `encode_ids`; raises InvalidInput on a torn array."""
    return tuple(map(int, _from_bytes("i", data)))


def encode_floats(values: Iterable[float]) -> bytes:
    """Floats as float32 little-endian."""
    return _to_bytes("f", values)


def decode_floats(data: bytes) -> tuple[float, ...]:
    """Inverse of `encode_floats`; raises InvalidInput on a torn array."""
    return tuple(_from_bytes("f", data))


def _rows(flat: tuple[T, ...], lengths: Sequence[int]) -> tuple[tuple[T, ...], ...]:
    if sum(lengths) != len(flat):
        raise InvalidInput(f"ragged array holds {len(flat)} values, its lengths sum to {sum(lengths)}")
    rows, start = [], 0
    for length in lengths:
        rows.append(flat[start : start + length])
        start += length
    return tuple(rows)


def encode_token_rows(rows: Sequence[Sequence[int]]) -> types_pb2.RaggedTokens:
    """Rows of token ids as one flat array plus lengths."""
    return types_pb2.RaggedTokens(values=encode_ids(chain.from_iterable(rows)), lengths=[len(row) for row in rows])


def decode_token_rows(message: types_pb2.RaggedTokens) -> tuple[tuple[int, ...], ...]:
    """Inverse of `encode_token_rows`; raises InvalidInput when lengths and values disagree."""
    return _rows(decode_ids(message.values), message.lengths)


def encode_float_rows(rows: Sequence[Sequence[float]]) -> types_pb2.RaggedFloats:
    """Rows of floats as one flat array plus lengths."""
    return types_pb2.RaggedFloats(values=encode_floats(chain.from_iterable(rows)), lengths=[len(row) for row in rows])


def decode_float_rows(message: types_pb2.RaggedFloats) -> tuple[tuple[float, ...], ...]:
    """Inverse of `encode_float_rows`; raises InvalidInput when lengths and values disagree."""
    return _rows(decode_floats(message.values), message.lengths)


# ---------------------------------------------------------------- rollout

_FINISH_TO_WIRE = {
    FinishReason.STOP: types_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: types_pb2.FINISH_REASON_LENGTH,
}
_FINISH_FROM_WIRE = {wire: reason for reason, wire in _FINISH_TO_WIRE.items()}


def encode_request(request: RolloutRequest) -> types_pb2.RolloutRequest:
    """A rollout request as a message."""
    return types_pb2.RolloutRequest(
        group_id=request.group_id,
        problem_id=request.problem_id,
        attempt=request.attempt,
        prompt_ids=encode_ids(request.prompt_ids),
        num_samples=request.num_samples,
        sampling=types_pb2.SamplingParams(
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            max_tokens=request.sampling.max_tokens,
            top_k=request.sampling.top_k,
            min_p=request.sampling.min_p,
            stop_token_ids=request.sampling.stop_token_ids,
            stop=request.sampling.stop,
        ),
        seed=request.seed,
        min_version=request.min_version,
        environment=_encode_task(request.environment),
    )


def _encode_task(task: EnvironmentTask | None) -> types_pb2.EnvironmentTask | None:
    if task is None:
        return None
    return types_pb2.EnvironmentTask(name=task.name, task=task.task, max_turns=task.max_turns)


def _decode_task(message: types_pb2.EnvironmentTask) -> EnvironmentTask:
    return EnvironmentTask(name=message.name, task=message.task, max_turns=message.max_turns)


def _encode_spans(spans: Iterable[TokenSpan]) -> list[types_pb2.TokenSpan]:
    return [types_pb2.TokenSpan(start=span.start, length=span.length) for span in spans]


def _decode_spans(messages: Iterable[types_pb2.TokenSpan], *, length: int, where: str) -> tuple[TokenSpan, ...]:
    """Raises InvalidInput when they are not in order, overlap, reach beyond the response, or leave nothing of it."""
    spans = tuple(TokenSpan(start=message.start, length=message.length) for message in messages)
    end = 0
    for span in spans:
        if span.start < max(end, 1) or span.length < 1:
            raise InvalidInput(f"{where}: spans of read tokens must be in order, apart, and after the first token")
        end = span.start + span.length
    if end > length:
        raise InvalidInput(f"{where}: a span of read tokens ends at {end}, the response at {length}")
    return spans


def decode_request(message: types_pb2.RolloutRequest) -> RolloutRequest:
    """Inverse of `encode_request`; raises InvalidInput on a request that no engine can serve."""
    request = RolloutRequest(
        group_id=message.group_id,
        problem_id=message.problem_id,
        attempt=message.attempt,
        prompt_ids=decode_ids(message.prompt_ids),
        num_samples=message.num_samples,
        sampling=SamplingParams(
            temperature=message.sampling.temperature,
            top_p=message.sampling.top_p,
            max_tokens=message.sampling.max_tokens,
            top_k=message.sampling.top_k,
            min_p=message.sampling.min_p,
            stop_token_ids=tuple(message.sampling.stop_token_ids),
            stop=tuple(message.sampling.stop),
        ),
        seed=message.seed,
        min_version=message.min_version,
        environment=_decode_task(message.environment) if message.HasField("environment") else None,
    )
    sampling = request.sampling
    if not (sampling.temperature >= 0 and 0 < sampling.top_p <= 1 and 0 <= sampling.min_p <= 1):
        raise InvalidInput(
            f"rollout request {request.group_id!r}: temperature must be 0 (greedy) or above, top_p in (0, 1], and "
            f"min_p in [0, 1]; got {sampling.temperature}, {sampling.top_p} and {sampling.min_p}"
        )
    if not all(sampling.stop):
        raise InvalidInput(f"rollout request {request.group_id!r}: an empty stop string would end every response")
    if not request.prompt_ids or request.num_samples < 1 or sampling.max_tokens < 1:
        raise InvalidInput(
            f"rollout request {request.group_id!r}: needs a prompt (has {len(request.prompt_ids)} ids), samples "
            f"(asks {request.num_samples}) and room to answer (max_tokens {request.sampling.max_tokens})"
        )
    return request


def encode_group(group: RolloutGroup) -> types_pb2.RolloutGroup:
    """A group of samples as a message."""
    return types_pb2.RolloutGroup(
        group_id=group.group_id,
        problem_id=group.problem_id,
        attempt=group.attempt,
        prompt_ids=encode_ids(group.prompt_ids),
        responses=encode_token_rows([sample.response_ids for sample in group.samples]),
        logprobs=encode_float_rows([sample.logprobs for sample in group.samples]),
        traces=[
            types_pb2.SampleTrace(
                spans=[types_pb2.VersionSpan(version=span.version, length=span.length) for span in sample.spans],
                finish_reason=_FINISH_TO_WIRE[sample.finish_reason],
                observed=_encode_spans(sample.observed),
            )
            for sample in group.samples
        ],
    )


def decode_group(message: types_pb2.RolloutGroup) -> RolloutGroup:
    """Inverse of `encode_group`; raises InvalidInput when its arrays disagree, or a response is empty."""
    responses = decode_token_rows(message.responses)
    logprobs = decode_float_rows(message.logprobs)
    if not len(responses) == len(logprobs) == len(message.traces):
        raise InvalidInput(
            f"group {message.group_id!r}: {len(responses)} responses, {len(logprobs)} rows of log-probs, "
            f"{len(message.traces)} traces"
        )
    samples = []
    for ids, logps, trace in zip(responses, logprobs, message.traces, strict=True):
        spans = tuple(VersionSpan(version=span.version, length=span.length) for span in trace.spans)
        if not ids:
            raise InvalidInput(f"group {message.group_id!r}: a response has no token; it needs its end token at least")
        if len(ids) != len(logps) or sum(span.length for span in spans) != len(ids):
            raise InvalidInput(f"group {message.group_id!r}: log-probs or version spans do not cover the response")
        samples.append(
            Sample(
                response_ids=ids,
                logprobs=logps,
                spans=spans,
                finish_reason=_FINISH_FROM_WIRE.get(trace.finish_reason, FinishReason.LENGTH),
                observed=_decode_spans(trace.observed, length=len(ids), where=f"group {message.group_id!r}"),
            )
        )
    return RolloutGroup(
        group_id=message.group_id,
        problem_id=message.problem_id,
        attempt=message.attempt,
        prompt_ids=decode_ids(message.prompt_ids),
        samples=tuple(samples),
    )


def encode_result(result: RolloutGroup | RolloutFailure) -> types_pb2.RolloutResult:
    """What goes into the stream of groups."""
    if isinstance(result, RolloutGroup):
        return types_pb2.RolloutResult(group=encode_group(result))
    return types_pb2.RolloutResult(
        failure=types_pb2.RolloutFailure(group_id=result.group_id, problem_id=result.problem_id, reason=result.reason)
    )


def decode_result(message: types_pb2.RolloutResult) -> RolloutGroup | RolloutFailure:
    """Inverse of `encode_result`; raises InvalidInput when it holds neither."""
    match message.WhichOneof("result"):
        case "group":
            return decode_group(message.group)
        case "failure":
            failure = message.failure
            return RolloutFailure(group_id=failure.group_id, problem_id=failure.problem_id, reason=failure.reason)
        case _:
            raise InvalidInput("rollout result holds neither a group nor a failure")


def encode_manifest(manifest: PushManifest) -> rollout_pb2.PushBegin:
    """The first message of a weight push."""
    return rollout_pb2.PushBegin(
        version=manifest.version,
        tensors=[
            rollout_pb2.TensorSpec(name=spec.name, dtype=spec.dtype, shape=spec.shape) for spec in manifest.tensors
        ],
        base_version=manifest.base_version,
        aliases=[rollout_pb2.TensorAlias(name=alias.name, of=alias.of) for alias in manifest.aliases],
        keep_base=manifest.keep_base,
        probe_ids=encode_ids(manifest.probe_ids),
        probe_logprobs=encode_floats(manifest.probe_logprobs),
        max_gap=manifest.max_gap,
        previous_logprobs=encode_floats(manifest.previous_logprobs),
        offer=None if manifest.offer is None else encode_offer(manifest.offer),
    )


def decode_manifest(message: rollout_pb2.PushBegin) -> PushManifest:
    """Inverse of `encode_manifest`."""
    return PushManifest(
        version=message.version,
        tensors=tuple(
            TensorSpec(name=spec.name, dtype=spec.dtype, shape=tuple(spec.shape)) for spec in message.tensors
        ),
        base_version=message.base_version if message.HasField("base_version") else None,
        aliases=tuple(TensorAlias(name=alias.name, of=alias.of) for alias in message.aliases),
        keep_base=message.keep_base,
        probe_ids=decode_ids(message.probe_ids),
        probe_logprobs=decode_floats(message.probe_logprobs),
        max_gap=message.max_gap,
        previous_logprobs=decode_floats(message.previous_logprobs),
        offer=decode_offer(message.offer) if message.HasField("offer") else None,
    )


def encode_offer(offer: PushOffer) -> rollout_pb2.PushOffer:
    """Where a replica fetches a push."""
    return rollout_pb2.PushOffer(
        key=offer.key,
        transport=offer.transport,
        place=offer.place,
        checksums=offer.checksums,
        deadline_seconds=offer.deadline_s,
    )


def decode_offer(message: rollout_pb2.PushOffer) -> PushOffer:
    """Inverse of `encode_offer`."""
    return PushOffer(
        key=message.key,
        transport=message.transport,
        place=message.place,
        checksums=tuple(message.checksums),
        deadline_s=message.deadline_seconds,
    )


# A chunk is the field `chunk` of `PushWeightsRequest`, laid down by hand: a message object would copy it twice more on
# either side, which is most of what a push costs beyond the bytes.
_CHUNK_TAG = bytes([(rollout_pb2.PushWeightsRequest.CHUNK_FIELD_NUMBER << 3) | 2])


def lay_chunk(chunk: bytes | memoryview) -> bytes:
    """The serialised `PushWeightsRequest(chunk=...)`."""
    length, head = len(chunk), bytearray(_CHUNK_TAG)
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return b"".join((head, chunk))


def read_push_part(serialised: bytes) -> rollout_pb2.PushWeightsRequest | memoryview:
    """A chunk as a view of the message's own memory; any other part as the message."""
    if serialised[:1] == _CHUNK_TAG:
        length, place, shift = 0, 1, 0
        while place < len(serialised):
            byte = serialised[place]
            length |= (byte & 0x7F) << shift
            place, shift = place + 1, shift + 7
            if byte < 0x80:
                break
        if place + length == len(serialised):
            return memoryview(serialised)[place:]
    return rollout_pb2.PushWeightsRequest.FromString(serialised)


def encode_receipt(receipt: PushReceipt) -> rollout_pb2.PushWeightsResponse:
    """A replica's answer to a push."""
    return rollout_pb2.PushWeightsResponse(
        version=receipt.version,
        probe_logprobs=encode_floats(receipt.probe_logprobs),
        stage_seconds=receipt.stage_seconds,
        pause_seconds=receipt.pause_seconds,
        probe_seconds=receipt.probe_seconds,
    )


def decode_receipt(message: rollout_pb2.PushWeightsResponse) -> PushReceipt:
    """Inverse of `encode_receipt`."""
    return PushReceipt(
        version=message.version,
        probe_logprobs=decode_floats(message.probe_logprobs),
        stage_seconds=message.stage_seconds,
        pause_seconds=message.pause_seconds,
        probe_seconds=message.probe_seconds,
    )


def encode_rollout_status(status: RolloutStatus) -> rollout_pb2.RolloutServiceGetStatusResponse:
    """Where a replica stands."""
    return rollout_pb2.RolloutServiceGetStatusResponse(
        engine=status.engine,
        ready=status.ready,
        version=status.version,
        groups_delivered=status.groups_delivered,
        tokens_generated=status.tokens_generated,
        groups_in_flight=status.groups_in_flight,
        tokenizer_fingerprint=status.tokenizer_fingerprint,
        busy_seconds=status.busy_seconds,
        dtype=status.dtype,
        transports=status.transports,
        takes_adapters=status.takes_adapters,
    )


def decode_rollout_status(message: rollout_pb2.RolloutServiceGetStatusResponse) -> RolloutStatus:
    """Inverse of `encode_rollout_status`."""
    return RolloutStatus(
        engine=message.engine,
        ready=message.ready,
        version=message.version,
        groups_delivered=message.groups_delivered,
        tokens_generated=message.tokens_generated,
        groups_in_flight=message.groups_in_flight,
        tokenizer_fingerprint=message.tokenizer_fingerprint,
        busy_seconds=message.busy_seconds,
        dtype=message.dtype,
        transports=tuple(message.transports),
        takes_adapters=message.takes_adapters,
    )


# ---------------------------------------------------------------- verifier

_STATUS_TO_WIRE = {
    VerdictStatus.PASSED: types_pb2.VERDICT_STATUS_PASSED,
    VerdictStatus.FAILED: types_pb2.VERDICT_STATUS_FAILED,
    VerdictStatus.UNDECIDED: types_pb2.VERDICT_STATUS_UNDECIDED,
    VerdictStatus.INVALID_REQUEST: types_pb2.VERDICT_STATUS_INVALID_REQUEST,
    VerdictStatus.INFRA_ERROR: types_pb2.VERDICT_STATUS_INFRA_ERROR,
}
_STATUS_FROM_WIRE = {wire: status for status, wire in _STATUS_TO_WIRE.items()}
_SCORED = (VerdictStatus.PASSED, VerdictStatus.FAILED)
_TEST_TO_WIRE = {verdict: types_pb2.TestVerdict.Value(f"TEST_VERDICT_{verdict.value}") for verdict in TestVerdict}
_TEST_FROM_WIRE = {wire: verdict for verdict, wire in _TEST_TO_WIRE.items()}


def encode_item(item: GradeItem) -> verifier_pb2.GradeItem:
    """An answer to grade."""
    return verifier_pb2.GradeItem(
        item_id=item.item_id,
        data_source=item.data_source,
        ability=item.ability,
        response=item.response,
        ground_truth=item.ground_truth,
        kind=item.kind,
        options=item.options,
        binary=item.binary,
    )


def decode_item(message: verifier_pb2.GradeItem) -> GradeItem:
    """Inverse of `encode_item`."""
    return GradeItem(
        item_id=message.item_id,
        data_source=message.data_source,
        ability=message.ability,
        response=message.response,
        ground_truth=message.ground_truth,
        kind=message.kind,
        options=tuple(message.options),
        binary=message.binary,
    )


def encode_verdict(verdict: Verdict) -> types_pb2.Verdict:
    """A verdict; where nobody knows there is no score that anyone could read by mistake as a zero (it is NaN)."""
    return types_pb2.Verdict(
        status=_STATUS_TO_WIRE[verdict.status],
        score=float("nan") if verdict.score is None else verdict.score,
        reason=verdict.reason,
        milliseconds=verdict.milliseconds,
        method=verdict.method,
        tier=verdict.tier,
        cached=verdict.cached,
        tests=[_encode_test(test) for test in verdict.tests],
    )


def decode_verdict(message: types_pb2.Verdict) -> Verdict:
    """Inverse of `encode_verdict`; raises InvalidInput on a status that this version does not know."""
    status = _STATUS_FROM_WIRE.get(message.status)
    if status is None:
        raise InvalidInput(f"verdict status {message.status} is not known here")
    return Verdict(
        status=status,
        score=message.score if status in _SCORED else None,
        reason=message.reason,
        milliseconds=message.milliseconds,
        method=message.method,
        tier=message.tier,
        cached=message.cached,
        tests=tuple(_decode_test(test) for test in message.tests),
    )


def _encode_test(test: TestRecord) -> types_pb2.TestRecord:
    return types_pb2.TestRecord(
        verdict=_TEST_TO_WIRE[test.verdict],
        cpu_ms=test.cpu_ms,
        wall_ms=test.wall_ms,
        peak_mib=test.peak_mib,
        output_bytes=test.output_bytes,
        signal=test.signal,
    )


def _decode_test(message: types_pb2.TestRecord) -> TestRecord:
    verdict = _TEST_FROM_WIRE.get(message.verdict)
    if verdict is None:
        raise InvalidInput(f"test verdict {message.verdict} is not known here")
    return TestRecord(
        verdict=verdict,
        cpu_ms=message.cpu_ms,
        wall_ms=message.wall_ms,
        peak_mib=message.peak_mib,
        output_bytes=message.output_bytes,
        signal=message.signal,
    )


def encode_verifier_info(info: VerifierInfo) -> verifier_pb2.VerifierServiceGetInfoResponse:
    """What a verifier can do."""
    return verifier_pb2.VerifierServiceGetInfoResponse(
        graders=info.graders,
        isolation=info.isolation,
        workers=info.workers,
        tier=info.tier,
        canary_age_seconds=info.canary_age_seconds,
    )


def decode_verifier_info(message: verifier_pb2.VerifierServiceGetInfoResponse) -> VerifierInfo:
    """Inverse of `encode_verifier_info`."""
    return VerifierInfo(
        graders=tuple(message.graders),
        isolation=tuple(message.isolation),
        workers=message.workers,
        tier=message.tier,
        canary_age_seconds=message.canary_age_seconds,
    )


def encode_answer_classes(found: AnswerClasses) -> verifier_pb2.GroupAnswersResponse:
    """Classes of equal answers."""
    return verifier_pb2.GroupAnswersResponse(answers=found.answers, classes=found.classes)


def decode_answer_classes(message: verifier_pb2.GroupAnswersResponse) -> AnswerClasses:
    """Inverse of `encode_answer_classes`; raises InvalidInput when the two lists differ in length."""
    if len(message.answers) != len(message.classes):
        raise InvalidInput(f"{len(message.answers)} answers came with {len(message.classes)} classes")
    return AnswerClasses(answers=tuple(message.answers), classes=tuple(message.classes))


# ---------------------------------------------------------------- prm

_REFERENCE_TO_WIRE = {
    None: prm_pb2.REFERENCE_SOURCE_UNSPECIFIED,
    ReferenceSource.MODEL: prm_pb2.REFERENCE_SOURCE_MODEL,
    ReferenceSource.SUPPLIED: prm_pb2.REFERENCE_SOURCE_SUPPLIED,
    ReferenceSource.NONE: prm_pb2.REFERENCE_SOURCE_NONE,
}
_REFERENCE_FROM_WIRE = {wire: source for source, wire in _REFERENCE_TO_WIRE.items()}


def encode_prm_group(group: PrmGroup) -> prm_pb2.PrmGroup:
    """Samples of one prompt, as the PRM sees them."""
    return prm_pb2.PrmGroup(
        group_id=group.group_id,
        prompt_ids=encode_ids(group.prompt_ids),
        responses=encode_token_rows(group.responses),
        reference_logprobs=encode_float_rows(group.reference_logprobs),
        reference=_REFERENCE_TO_WIRE[group.reference],
        observed=[types_pb2.TokenSpans(spans=_encode_spans(spans)) for spans in group.observed],
    )


def decode_prm_group(message: prm_pb2.PrmGroup) -> PrmGroup:
    """Inverse of `encode_prm_group`; raises InvalidInput when reference log-probs do not match the responses."""
    responses = decode_token_rows(message.responses)
    where = f"PRM group {message.group_id!r}"
    if message.observed and len(message.observed) != len(responses):
        raise InvalidInput(f"{where}: {len(message.observed)} lists of read tokens for {len(responses)} responses")
    group = PrmGroup(
        group_id=message.group_id,
        prompt_ids=decode_ids(message.prompt_ids),
        responses=responses,
        observed=tuple(
            _decode_spans(each.spans, length=len(response), where=where)
            for each, response in zip(message.observed, responses, strict=False)
        ),
        reference_logprobs=decode_float_rows(message.reference_logprobs),
        reference=_REFERENCE_FROM_WIRE.get(message.reference),
    )
    if not group.prompt_ids or not group.responses or not all(group.responses):
        raise InvalidInput(f"PRM group {group.group_id!r}: the prompt and every response need at least one token")
    written = [
        len(written_places(len(response), observed))
        for response, observed in zip(group.responses, group.observed_rows, strict=True)
    ]
    if group.reference_logprobs and [len(row) for row in group.reference_logprobs] != written:
        raise InvalidInput(f"PRM group {group.group_id!r}: reference log-probs do not match the responses")
    return group


def encode_rewards(rewards: TokenRewards) -> prm_pb2.ScoreResponse:
    """Token rewards of a batch."""
    return prm_pb2.ScoreResponse(
        rewards=encode_float_rows(rewards.rows),
        prm_version=rewards.prm_version,
        beta=rewards.beta,
        reference_id=rewards.reference_id,
        reference_cached=rewards.reference_cached,
    )


def decode_rewards(message: prm_pb2.ScoreResponse) -> TokenRewards:
    """Inverse of `encode_rewards`."""
    return TokenRewards(
        rows=decode_float_rows(message.rewards),
        prm_version=message.prm_version,
        beta=message.beta,
        reference_id=message.reference_id,
        reference_cached=tuple(message.reference_cached),
    )


def encode_prm_metrics(metrics: PrmMetrics) -> prm_pb2.LearnResponse:
    """What one Learn did."""
    return prm_pb2.LearnResponse(
        prm_version=metrics.prm_version,
        loss=metrics.loss,
        grad_norm=metrics.grad_norm,
        pair_accuracy=metrics.pair_accuracy,
        mean_logit=metrics.mean_logit,
        calibration_error=metrics.calibration_error,
        frozen_pair_accuracy=metrics.frozen_pair_accuracy,
    )


def decode_prm_metrics(message: prm_pb2.LearnResponse) -> PrmMetrics:
    """Inverse of `encode_prm_metrics`."""
    return PrmMetrics(
        prm_version=message.prm_version,
        loss=message.loss,
        grad_norm=message.grad_norm,
        pair_accuracy=message.pair_accuracy,
        mean_logit=message.mean_logit,
        calibration_error=message.calibration_error,
        frozen_pair_accuracy=message.frozen_pair_accuracy if message.HasField("frozen_pair_accuracy") else None,
    )


def encode_prm_info(info: PrmInfo) -> prm_pb2.PrmServiceGetInfoResponse:
    """Which PRM answers."""
    return prm_pb2.PrmServiceGetInfoResponse(
        prm_version=info.prm_version,
        beta=info.beta,
        reference_id=info.reference_id,
        reference_mode=info.reference_mode,
        tokenizer_fingerprint=info.tokenizer_fingerprint,
    )


def decode_prm_info(message: prm_pb2.PrmServiceGetInfoResponse) -> PrmInfo:
    """Inverse of `encode_prm_info`."""
    return PrmInfo(
        prm_version=message.prm_version,
        beta=message.beta,
        reference_id=message.reference_id,
        reference_mode=message.reference_mode,
        tokenizer_fingerprint=message.tokenizer_fingerprint,
    )


# ---------------------------------------------------------------- trainer


def encode_trainer_status(status: TrainerStatus) -> trainer_pb2.TrainerServiceGetStatusResponse:
    """Where a run stands."""
    return trainer_pb2.TrainerServiceGetStatusResponse(
        run=status.run,
        phase=status.phase,
        step=status.step,
        total_steps=status.total_steps,
        policy_version=status.policy_version,
        tokens_per_second=status.tokens_per_second,
        mean_score=status.mean_score,
        accuracy=status.accuracy,
        seconds_left=status.seconds_left,
        error=status.error,
    )


def decode_trainer_status(message: trainer_pb2.TrainerServiceGetStatusResponse) -> TrainerStatus:
    """Inverse of `encode_trainer_status`."""
    return TrainerStatus(
        run=message.run,
        phase=message.phase,
        step=message.step,
        total_steps=message.total_steps,
        policy_version=message.policy_version,
        tokens_per_second=message.tokens_per_second,
        mean_score=message.mean_score,
        accuracy=message.accuracy,
        seconds_left=message.seconds_left,
        error=message.error,
    )
