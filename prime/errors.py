"""The one error tree. Every failure that a caller can act on is one of these.

    PrimeError                      status               retry   raised when
    ├── InvalidInput                INVALID_ARGUMENT     no      a request, a record or a batch breaks its contract
    │   ├── SettingsError           INVALID_ARGUMENT     no      a setting is unknown, missing or out of range
    │   ├── DataError               INVALID_ARGUMENT     no      a row of a file cannot be used
    │   ├── EmptyInput              INVALID_ARGUMENT     no      there is nothing to score
    │   ├── InputTooLong            INVALID_ARGUMENT     no      prompt and response are longer than the model reads
    │   ├── BatchTooLarge           INVALID_ARGUMENT     no      one request holds more than may be asked at once
    │   └── UnknownModel            INVALID_ARGUMENT     no      of several models, none has the name asked for
    ├── TokenizerMismatch           FAILED_PRECONDITION  no      two models do not share one tokenizer
    ├── VersionConflict             FAILED_PRECONDITION  no      a model is not at the version the caller counts on
    ├── CheckpointError             FAILED_PRECONDITION  no      a run folder or checkpoint is missing, foreign or torn
    ├── InUse                       FAILED_PRECONDITION  no      another process works with this folder or file
    ├── Unauthenticated             UNAUTHENTICATED      no      the bearer token is missing or wrong
    ├── Forbidden                   PERMISSION_DENIED    no      a key is known and does not open what was asked for
    ├── WeightPushError             DATA_LOSS            no      pushed weights are not the ones that answer
    │   └── StaleBase               DATA_LOSS            no      what changed is told of weights that are not held
    ├── EngineError                 INTERNAL             no      the generation engine or a model broke
    ├── SandboxError                INTERNAL             no      the sandbox itself cannot work on this machine
    ├── TookTooLong                 DEADLINE_EXCEEDED    no      a request was not done, or not sent, within its time
    ├── TrackerError                INTERNAL             no      an experiment tracker refused figures, or is away
    ├── NotReady                    UNAVAILABLE          yes     a service holds no weights yet, or is stopping
    ├── PeerUnavailable             UNAVAILABLE          yes     Redis or another service cannot be reached
    └── Overloaded                  RESOURCE_EXHAUSTED   yes     a bounded queue is full
        └── LimitReached            RESOURCE_EXHAUSTED   yes     a key has used up its requests or tokens for now

Messages say what was wrong, where, and what to do. To add a class, add its row above.
"""

from typing import ClassVar


class PrimeError(Exception):
    """Base of everything this project raises on purpose."""

    grpc_status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False


class InvalidInput(PrimeError):
    """A request, a record or a batch breaks its contract."""

    grpc_status = "INVALID_ARGUMENT"


class SettingsError(InvalidInput):
    """A setting is unknown, missing or out of range; names the setting and where it was set."""


class DataError(InvalidInput):
    """A row of a file cannot be used; names the file, the row and the column."""


class EmptyInput(InvalidInput):
    """There is nothing to score: no candidate, or one without a token."""


class InputTooLong(InvalidInput):
    """Prompt and response are longer than the model reads, and truncation was not asked for."""


class BatchTooLarge(InvalidInput):
    """One request holds more candidates or tokens than may be asked at once."""


class UnknownModel(InvalidInput):
    """A service holds several models, and none has the name that was asked for."""


class TokenizerMismatch(PrimeError):
    """Two models do not share one tokenizer, so their log-probs speak of different tokens."""

    grpc_status = "FAILED_PRECONDITION"


class VersionConflict(PrimeError):
    """A model is not at the version that the caller counts on."""

    grpc_status = "FAILED_PRECONDITION"


class CheckpointError(PrimeError):
    """A run folder or a checkpoint is missing, belongs to another run, or was torn by a crash."""

    grpc_status = "FAILED_PRECONDITION"


class InUse(PrimeError):
    """Another process works with this folder or file; names that process."""

    grpc_status = "FAILED_PRECONDITION"


class Unauthenticated(PrimeError):
    """The bearer token is missing or wrong."""

    grpc_status = "UNAUTHENTICATED"


class Forbidden(PrimeError):
    """A key is known and does not open what was asked for; names the key and what it lacks."""

    grpc_status = "PERMISSION_DENIED"


class WeightPushError(PrimeError):
    """Pushed weights did not arrive whole, or are not the ones that answer."""

    grpc_status = "DATA_LOSS"


class StaleBase(WeightPushError):
    """A push says what changed since weights that the replica does not hold; a whole push is needed."""


class EngineError(PrimeError):
    """The generation engine or a model broke."""


class SandboxError(PrimeError):
    """The sandbox cannot work on this machine; names the missing layer."""


class TrackerError(PrimeError):
    """An experiment tracker refused figures, cannot be reached or broke; carries the library's words."""


class NotReady(PrimeError):
    """A service holds no weights yet, or is stopping."""

    grpc_status = "UNAVAILABLE"
    retryable = True


class PeerUnavailable(PrimeError):
    """Redis or another service cannot be reached; names the address."""

    grpc_status = "UNAVAILABLE"
    retryable = True


class TookTooLong(PrimeError):
    """A request was not done, or not even sent, within its time."""

    grpc_status = "DEADLINE_EXCEEDED"


class Overloaded(PrimeError):
    """A bounded queue is full; try again after `retry_after_s` seconds."""

    grpc_status = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, text: str = "", *, retry_after_s: float = 1.0) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class LimitReached(Overloaded):
    """A key has used up its requests or tokens for now; says when there are more."""
