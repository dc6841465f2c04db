"""What can be set for the verifier: the section `[verifier]`."""

from pydantic import Field, field_validator

from prime.adapters.settings import Address, ServiceSettings
from prime.errors import InvalidInput
from services.verifier.mathematics.options import check_options
from services.verifier.sandbox.folders import LIBRARIES
from services.verifier.sandbox.zygotes import Tier


class VerifierSettings(ServiceSettings):
    """One verifier. There are two tiers of isolation to choose from (`docs/grading.md`); isolation cannot be switched
    off."""

    listen: Address = "127.0.0.1:50053"
    ops_listen: Address = "127.0.0.1:9153"
    min_tier: Tier = Tier.A
    """The weakest isolation to accept. `A` needs namespaces. With `B` the service does without them where it must."""
    workers: int = Field(2, ge=1, le=64)
    """Programs tested at once, and in addition as many mathematics answers."""
    math_seconds: float = Field(1.5, gt=0)
    """Processor time for one mathematics answer. Then its worker is killed and the verdict is undecided. A busy machine
    changes no verdict."""
    math_options: tuple[str, ...] = ()
    """Options of `docs/grading.md` for every mathematics problem, in addition to those that it brings."""
    cpu_seconds: float = Field(5.0, gt=0, le=60)
    """Processor time of one test, so that a busy machine changes no verdict. A problem may bring its own limit."""
    wall_seconds: float = Field(12.0, gt=0)
    """Wall time of one test, without the time in which the machine kept it waiting. Never below twice the processor
    time."""
    idle_seconds: float = Field(4.0, gt=0)
    """Time in which a program may neither compute nor wait for the processor, in all its tests together, and half of it
    in one test. It stops a program that sleeps."""
    program_seconds: float = Field(120.0, gt=0)
    """Processor time of all tests of one program together. Tests that are left then count as failed."""
    memory_mib: int = Field(512, ge=128)
    """Memory of one test. A problem may bring its own limit. The address space is 512 MiB larger, for stacks of
    threads."""
    libraries: tuple[str, ...] = LIBRARIES
    """What Python programs may import besides the standard library. Libraries that are not installed with the service
    are left out; the log names the rest at the start. `[]`: none."""
    output_kib: int = Field(8192, ge=1)
    """Output of one test."""
    max_tests: int = Field(1000, ge=1)
    """A problem with more tests is an invalid request."""
    testlib_path: str = ""
    """Path of the header `testlib.h`, for checker programs that include it. Without it they are an invalid request."""
    max_queue: int = Field(4096, ge=1)
    """Answers accepted and not yet graded. Beyond it calls are turned away."""
    cache_entries: int = Field(16384, ge=0)
    """Verdicts kept for answers that are asked again. 0: none. Only verdicts that would come out the same again are
    kept."""

    @field_validator("math_options")
    @classmethod
    def _are_known(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        try:
            check_options(options)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return options
