"""MiniGrid's Memory: an object seen at the start decides which way to turn at the end."""

from __future__ import annotations

from worldmodels.tasks.task import Key, Task, Words

MEMORY = Task(
    name="minigrid-memory",
    returns=(0.0, 1.0),
    # 6 is "done", which changes nothing here
    keys={
        "": Key("wait", 6),
        "left": Key("turn left", 0),
        "right": Key("turn right", 1),
        "up": Key("forward", 2),
    },
    words=Words(
        verb="act",
        score="The first room shows a key or a ball; at the end of the corridor, the way to the "
        "same object pays 1 - 0.9 t / T after t of T steps, and the way to the other nothing. Who "
        "remembers nothing is right half of the time.",
    ),
)
MEMORY_IDS = tuple(
    f"MiniGrid-Memory{size}-v0" for size in ("S7", "S9", "S11", "S13", "S13Random", "S17Random")
)
