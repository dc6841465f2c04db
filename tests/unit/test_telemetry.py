"""What the services log, and where to."""

import io
import json
from contextlib import redirect_stderr

import structlog

from prime.adapters.telemetry import configure_logging


def test_a_logger_outlives_the_error_stream_that_it_was_first_used_with() -> None:
    log = structlog.get_logger()
    with redirect_stderr(io.StringIO()) as first:
        configure_logging("somewhere")
        log.info("to the first")
    first.close()
    with redirect_stderr(io.StringIO()) as second:
        log.info("to the second", row=2)
    line = json.loads(second.getvalue())
    assert (line["event"], line["row"], line["service"]) == ("to the second", 2, "somewhere")
