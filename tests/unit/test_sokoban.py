"""The Sokoban environment: rules by hand-worked levels, drawn levels by what they promise."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prime.environments.registry import play, read_task
from prime.environments.sokoban import Sokoban, draw_levels, solution
from prime.errors import DataError
from prime.types import EnvironmentTask

ROOM = "######\n#@$ .#\n######"


def test_a_level_is_solved_by_pushing_its_box_onto_the_goal() -> None:
    level = Sokoban(ROOM)
    assert level.reset() == ROOM
    first = level.step("I think right is best, so: right")
    assert (first.text, first.done) == ("######\n# @$.#\n######", False)
    second = level.step("R")
    assert (second.text, second.done, level.score) == ("######\n#  @*#\n######", True, 1.0)
    assert level.reset() == ROOM
    assert level.score == 0.0


def test_the_last_move_that_is_named_counts_and_words_that_hold_one_do_not() -> None:
    level = Sokoban(ROOM)
    level.reset()
    assert level.step("right, no, left").text == ROOM
    assert level.step("upright").text == "Say up, down, left or right."
    assert level.step("").done is False


@pytest.mark.parametrize(
    ("picture", "action"),
    [
        ("####\n#@$#\n####", "right"),
        ("#####\n#@$$ #\n#####", "right"),
        ("#####\n#@#$#\n#####", "up"),
        ("#####\n#@#$#\n#####", "right"),
        ("$@", "right"),
        ("@$", "right"),
    ],
)
def test_walls_boxes_and_the_edge_stop_what_is_pushed(picture: str, action: str) -> None:
    level = Sokoban(picture + "\n..")
    assert level.step(action).text == level.reset()


def test_goals_that_are_covered_are_drawn_as_players_know_them() -> None:
    level = Sokoban("#+*$ #")
    assert level.reset() == "#+*$ #"
    assert level.step("left").text == "#+*$ #"
    assert Sokoban("# @.$#").step("right").text == "#  +$#"


@pytest.mark.parametrize("level", ["", "####", "@@$.", "@.", "@$", "@$.x", "@$$."])
def test_what_is_no_level_is_refused(level: str) -> None:
    with pytest.raises(DataError, match="Sokoban level"):
        Sokoban(level)


@pytest.mark.parametrize(
    ("level", "moves"),
    [
        (ROOM, 2),
        ("#######\n#@ $ .#\n#######", 3),
        ("#####\n#  .#\n# $ #\n#@  #\n#####", 5),  # push up from below, then right from the left
        ("####\n#@*#\n####", 0),
        ("#####\n#@ $#\n#  .#\n#####", 0),  # in a corner
    ],
)
def test_the_fewest_moves_are_found(level: str, moves: int) -> None:
    assert len(solution(level)) == moves
    if moves:
        room = Sokoban(level)
        assert [room.step(move).done for move in solution(level)] == [False] * (moves - 1) + [True]


@pytest.mark.parametrize(("size", "boxes", "pulls"), [(5, 1, 1), (6, 1, 2), (6, 2, 2)])
def test_drawn_levels_differ_and_can_be_solved(size: int, boxes: int, pulls: int) -> None:
    levels = draw_levels(12, size=size, boxes=boxes, pulls=pulls, seed=3)
    assert len({picture for picture, _ in levels}) == 12
    assert levels == draw_levels(12, size=size, boxes=boxes, pulls=pulls, seed=3)
    for picture, moves in levels[:4]:
        level = Sokoban(picture)
        assert level.reset() == "\n".join(row.rstrip() for row in picture.split("\n"))
        assert level.score == 0.0
        assert moves == len(solution(picture)) >= 1


def test_a_room_that_is_too_small_is_named() -> None:
    with pytest.raises(DataError, match="take a larger one"):
        draw_levels(50, size=3, boxes=1, pulls=1, seed=0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=10))
def test_no_action_breaks_the_world_or_loses_a_box(actions: list[str]) -> None:
    level = Sokoban("#####\n#@ .#\n# $ #\n#####")
    text = level.reset()
    for action in actions:
        seen = level.step(action).text
        text = text if seen.startswith("Say") else seen
        assert text.count("$") + text.count("*") == 1
        assert text.count("@") + text.count("+") == 1


def test_a_task_is_played_again_up_to_its_last_turn() -> None:
    task = EnvironmentTask(name="sokoban", task=ROOM, max_turns=2)
    assert play(task, ["right", "right"]) == 1.0
    assert play(task, ["right", "right", "left"]) == 1.0
    assert play(task, ["left", "right", "right"]) == 0.0
    assert play(task, []) == 0.0


@pytest.mark.parametrize(
    ("ground_truth", "complaint"),
    [
        ("no JSON", "object with `environment`"),
        (json.dumps({"environment": "sokoban", "task": ROOM}), "max_turns"),
        (json.dumps({"environment": "chess", "task": ROOM, "max_turns": 2}), "no environment is called 'chess'"),
        (json.dumps({"environment": "sokoban", "task": "@", "max_turns": 2}), "Sokoban level"),
        (json.dumps({"environment": "sokoban", "task": ROOM, "max_turns": 0}), "a turn at least"),
    ],
)
def test_a_ground_truth_that_is_no_task_is_refused(ground_truth: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_task(ground_truth)
