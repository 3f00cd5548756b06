"""Whether the dreams of MiniGrid's Memory reach the goal where reality does.

    python benchmarks/scripted_dreams.py AGENT ... [--temperatures 1 0.1] [--json FILE]

Takes the shortest way to one of the ends in reality, on selection seeds, and the same actions in
dreams from the same first frame. Prints the fraction of dreams that end at the same step, what they
pay in the mean where reality pays 0.97 in half of the cases, and the error of z one step before the
end, in units of z's standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks.remembering import FORWARD, Room
from worldmodels.agent import Agent
from worldmodels.protocols import SELECTION_SEED_START
from worldmodels.runs import machine, write_json

FIRST_SEED, EPISODES, DREAMS = SELECTION_SEED_START + 100_000, 24, 32
AFTER = 20
"""Actions after the end, for dreams that miss it."""


@dataclass(frozen=True)
class Args:
    """What to measure."""

    agents: tyro.conf.Positional[tuple[Path, ...]]
    """folders of agents on this environment"""
    temperatures: tuple[float, ...] = (1.0, 0.1)
    json: Path | None = None
    """where to write the figures"""


def way(room: Room, seed: int, up: bool) -> tuple[NDArray[np.uint8], list[int]]:
    """Frames (T + 1, H, W, 3) and actions (T) of the shortest way to an end."""
    obs, _ = room.env.reset(seed=seed)
    frames, actions, over = [obs], list[int](), False
    while not over:
        actions.append(room.toward(up))
        obs, _, over, _, _ = room.env.step(actions[-1])
        frames.append(obs)
    return np.stack(frames), actions


def measure(agent: Agent, temperature: float) -> dict[str, float]:
    """Means over the ways and their dreams."""
    room, rows = Room(0), []
    for seed in range(FIRST_SEED, FIRST_SEED + EPISODES):
        frames, actions = way(room, seed, up=seed % 2 == 0)
        steps = len(actions)
        dream = agent.imagine(
            steps + AFTER,
            DREAMS,
            frames=np.repeat(frames[:1], DREAMS, axis=0),
            actions=np.array([*actions, *[FORWARD] * AFTER]),
            seed=1,
            temperature=temperature,
        )
        real, _ = agent.encode(frames)
        away = np.asarray(dream.z)[:, steps - 1] - real.numpy()[steps - 1]
        error = np.sqrt(np.square(away).mean()) / float(real.std())
        ended = np.asarray(dream.length) == steps
        rows.append((ended.mean(), np.asarray(dream.total_reward).mean(), error))
    names = ("ended at the same step", "reward", "error of z")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True))


def main(args: Args) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    rows = list[dict[str, Any]]()
    for folder in args.agents:
        agent = Agent.from_pretrained(folder)
        for temperature in args.temperatures:
            found = measure(agent, temperature)
            rows.append({"agent": folder.name, "temperature": temperature, **found})
            shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
            print(f"{folder.name} at {temperature:g}: {shown}", flush=True)
    if args.json is not None:
        write_json(args.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Args))
