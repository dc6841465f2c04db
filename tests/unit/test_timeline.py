"""Who worked when, by a clock that the test turns."""

import pytest

from services.trainer.timeline import Timeline


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_the_worked_example_holds() -> None:
    clock = Clock()
    timeline = Timeline(clock)
    with timeline.working("policy"):
        clock.seconds = 2.0
        prm = timeline.working("prm")
        prm.__enter__()
        clock.seconds = 3.0
    clock.seconds = 4.0
    prm.__exit__(None, None, None)
    clock.seconds = 5.0
    assert timeline.seconds() == {"policy": 3.0, "prm": 2.0}
    assert timeline.anybody_seconds() == 4.0
    assert timeline.anybody_seconds(since=2.5) == 1.5


def test_work_that_spans_two_steps_counts_in_each_with_its_part() -> None:
    clock = Clock()
    timeline = Timeline(clock)
    with timeline.working("prm"):
        clock.seconds = 3.0
        assert timeline.seconds() == {"prm": 3.0}
        timeline.begin_step()
        clock.seconds = 4.0
        assert timeline.anybody_seconds() == 1.0
    clock.seconds = 9.0
    assert timeline.seconds() == {"prm": 1.0}


def test_one_that_works_on_two_things_is_busy_once_and_work_that_fails_has_ended() -> None:
    clock = Clock()
    timeline = Timeline(clock)

    def work_and_fail() -> None:
        with timeline.working("verifier"), timeline.working("verifier"):
            clock.seconds = 2.0
            raise KeyError

    with pytest.raises(KeyError):
        work_and_fail()
    clock.seconds = 7.0
    assert timeline.seconds() == {"verifier": 2.0}
