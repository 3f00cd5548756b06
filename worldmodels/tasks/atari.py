"""Freeway, an Atari game: a chicken crosses ten lanes of traffic as often as it can."""

from __future__ import annotations

from worldmodels.tasks.task import Key, Task, Words

FREEWAY = Task(
    name="freeway",
    returns=(0.0, 34.0),
    keys={"": Key("wait", 0), "up": Key("up", 1), "down": Key("down", 2)},
    words=Words(
        episode="game",
        verb="play",
        score="Each crossing of the road pays 1, and a game lasts 2 minutes and 16 seconds. A car "
        "that hits the chicken throws it back. Going up without looking pays 21.",
    ),
)
