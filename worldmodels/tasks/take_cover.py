"""TakeCover, the paper's second experiment: imps throw fireballs, and the agent steps aside.

How it is made (crop, four tics a decision, games of 2,100 tics) stands in `worldmodels.envs`. Its
room can be flipped, but not the imps' pictures or the bricks: it has no exact symmetry.
"""

from __future__ import annotations

from worldmodels.tasks.task import Key, Task, Words

TAKE_COVER = Task(
    name="take-cover",
    solved=750.0,
    # tics survived
    returns=(0.0, 2100.0),
    keys={"": Key("stay", 0), "left": Key("left", 2), "right": Key("right", 1)},
    words=Words(
        episode="game",
        verb="dodge",
        score="Each tic (1/35 s) that the agent survives pays 1. A game ends when it dies, and "
        "after 2,100 tics, a minute. A mean of 750 over 100 games counts as solved.",
    ),
)
