"""Sokoban in text: push every box onto a goal. A level is the picture that players know.

#######     # wall   @ player   $ box   . goal
#@ $ .#     * box on a goal     + player on a goal
#######
"""

import random
import re
from collections import deque
from collections.abc import Iterable

from prime.environments.base import Observation
from prime.errors import DataError

_MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_MOVE = re.compile(r"\b(?:(up|u)|(down|d)|(left|l)|(right|r))\b", re.IGNORECASE)
_HINT = "Say up, down, left or right."
_TRIES, _STEPS_PER_PULL = 100, 20
Place = tuple[int, int]


class Sokoban:
    """One level. An action is the last of up, down, left and right (or u, d, l, r) that the model wrote."""

    def __init__(self, level: str) -> None:
        """Read a level, rows of equal or unequal length.

        Raises:
            DataError: it has not one player, no box, or fewer goals than boxes.
        """
        rows = level.split("\n")
        places = {(y, x): mark for y, row in enumerate(rows) for x, mark in enumerate(row)}
        wrong = sorted({mark for mark in places.values() if mark not in "# @$.*+"})
        if wrong:
            raise DataError(f"a Sokoban level has no mark {wrong[0]!r}; it has walls #, and @ $ . * + and blanks")
        self._size = (len(rows), max(map(len, rows)))
        self._walls = {place for place, mark in places.items() if mark == "#"}
        self._goals = {place for place, mark in places.items() if mark in ".*+"}
        boxes = frozenset(place for place, mark in places.items() if mark in "$*")
        players = [place for place, mark in places.items() if mark in "@+"]
        if len(players) != 1 or not boxes or len(self._goals) < len(boxes):
            raise DataError(
                f"a Sokoban level has one player, boxes, and a goal for each; this one has {len(players)} players, "
                f"{len(boxes)} boxes and {len(self._goals)} goals"
            )
        self._player, self._boxes = players[0], set(boxes)
        self._first = self.state

    def reset(self) -> str:
        """Back to the beginning; the level's picture."""
        self.state = self._first
        return self._picture()

    def step(self, action: str) -> Observation:
        """Move, and push a box that is in the way where there is room behind it."""
        moves = list(_MOVE.finditer(action))
        if not moves:
            return Observation(text=_HINT, done=False)
        number = next(index for index, group in enumerate(moves[-1].groups()) if group)
        step = list(_MOVES.values())[number]
        ahead = _beyond(self._player, step)
        behind = _beyond(ahead, step)
        if ahead in self._boxes and self._is_free(behind):
            self._boxes.remove(ahead)
            self._boxes.add(behind)
        if self._is_free(ahead):
            self._player = ahead
        return Observation(text=self._picture(), done=self.score == 1.0)

    @property
    def state(self) -> tuple[Place, frozenset[Place]]:
        """Where the player and the boxes are."""
        return self._player, frozenset(self._boxes)

    @state.setter
    def state(self, state: tuple[Place, frozenset[Place]]) -> None:
        self._player, self._boxes = state[0], set(state[1])

    @property
    def score(self) -> float:
        """1 when every box is on a goal, else 0."""
        return float(self._boxes <= self._goals)

    def _is_free(self, place: Place) -> bool:
        inside = 0 <= place[0] < self._size[0] and 0 <= place[1] < self._size[1]
        return inside and place not in self._walls and place not in self._boxes

    def _picture(self) -> str:
        height, width = self._size
        return "\n".join("".join(self._mark((y, x)) for x in range(width)).rstrip() for y in range(height))

    def _mark(self, place: Place) -> str:
        if place in self._walls:
            return "#"
        on_goal = place in self._goals
        if place == self._player:
            return "+" if on_goal else "@"
        if place in self._boxes:
            return "*" if on_goal else "$"
        return "." if on_goal else " "


def solution(level: str) -> tuple[str, ...]:
    """A shortest way to solve it, by breadth-first search; empty where there is none, or it is solved already."""
    room = Sokoban(level)
    if room.score == 1.0:
        return ()
    seen = {room.state}
    queue: deque[tuple[tuple[Place, frozenset[Place]], tuple[str, ...]]] = deque([(room.state, ())])
    while queue:
        state, moves = queue.popleft()
        for move in _MOVES:
            room.state = state
            if room.step(move).done:
                return (*moves, move)
            if room.state not in seen:
                seen.add(room.state)
                queue.append((room.state, (*moves, move)))
    return ()


def draw_levels(count: int, *, size: int, boxes: int, pulls: int, seed: int) -> list[tuple[str, int]]:
    """Different levels in a room of `size` by `size`, each with the fewest moves that solve it.

    Drawn backwards: from a solved room the player pulls boxes off their goals, and then stands anywhere. What cannot be
    solved from there is left out.

    Raises:
        DataError: the room has no room for so many different levels, or none is asked for.
    """
    if count < 1:
        raise DataError(f"{count} levels are asked for; at least one makes a file of problems")
    drawn: dict[str, int] = {}
    stream = random.Random(seed)
    for _ in range(_TRIES * count):
        level = _pulled_apart(stream, size, boxes, pulls)
        if level and level not in drawn and (moves := len(solution(level))):
            drawn[level] = moves
        if len(drawn) == count:
            return list(drawn.items())
    raise DataError(f"a room of {size} by {size} with {boxes} boxes has no {count} levels; take a larger one")


def _pulled_apart(stream: random.Random, size: int, boxes: int, pulls: int) -> str:
    """A level; empty when a box never left its goal."""
    free = [(y, x) for y in range(1, size - 1) for x in range(1, size - 1)]
    if len(free) < boxes + 1:
        return ""
    *goals, player = stream.sample(free, boxes + 1)
    standing = set(goals)
    pulled = 0
    for _ in range(_STEPS_PER_PULL * pulls):
        step = stream.choice(list(_MOVES.values()))
        target, behind = _beyond(player, step), _beyond(player, (-step[0], -step[1]))
        if target not in free or target in standing:
            continue
        if behind in standing:
            standing.remove(behind)
            standing.add(player)
            pulled += 1
        player = target
        if pulled == pulls:
            break
    if standing <= set(goals) or pulled < pulls:
        return ""
    marks = dict.fromkeys(free, " ") | dict.fromkeys(goals, ".")
    marks |= {box: "*" if box in goals else "$" for box in standing}
    player = stream.choice([place for place in free if place not in standing])
    marks[player] = "+" if player in goals else "@"
    return _drawing(marks, size)


def _drawing(marks: dict[Place, str], size: int) -> str:
    rows: Iterable[str] = ("".join(marks.get((y, x), "#") for x in range(size)) for y in range(size))
    return "\n".join(rows)


def _beyond(place: Place, step: Place) -> Place:
    return place[0] + step[0], place[1] + step[1]
