"""From how many episodes M learns what MiniGrid's Memory asks it to remember.

    python benchmarks/remembering.py RUN [--episodes 1000 4000] [--steps 6000]
        [--reward-weight 10] [--json FILE]

Scripted episodes begin with random actions and then go straight to a random end of the corridor. V
is that of a run on the same environment. Prints, for the episodes in which the first object was in
view, how well M tells the right end from the wrong one, one step before it is reached: the area
under the ROC curve and the accuracy, in the episodes of its training and in others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from worldmodels import envs
from worldmodels.envs.frames import to_vision
from worldmodels.memory.calibration import told
from worldmodels.memory.rewards import RewardKind
from worldmodels.memory.train import MemoryTrainConfig, fit_reward_model, train_memory
from worldmodels.runs import machine, write_json
from worldmodels.stage_configs import MemoryStageConfig
from worldmodels.stages import VisionFile
from worldmodels.tasks import task_of
from worldmodels.vision.latents import Latents
from worldmodels.vision.vae import ConvVAE, to_float

ENV = "MiniGrid-MemoryS7-v0"
CORRIDOR, MIDDLE = 5, 3
"""Column where the corridor ends, and its row."""
OBJECT = (1, MIDDLE - 1)
"""Where the object lies that is to be remembered."""
EAST, SOUTH, NORTH = 0, 1, 3
LEFT, RIGHT, FORWARD = 0, 1, 2
CHOICES = 7
LONGEST_BEGINNING, NOISE, KEPT = 20, 0.05, 0.5
"""Random actions at the beginning at most, the fraction later, and the chance to keep a choice."""
TESTED = 1000


@dataclass(frozen=True)
class Args:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """folder of a run on this environment, whose first V is taken"""
    episodes: tuple[int, ...] = (1000, 4000)
    """episodes that M learns from"""
    steps: int = 6000
    """gradient steps of M"""
    reward_weight: float = 10.0
    """of the reward's loss; runs choose 100"""
    seed: int = 0
    json: Path | None = None
    """where to write the figures"""


class Played(NamedTuple):
    """One episode; frames are numbers, since there are few different ones."""

    frames: list[int]
    actions: list[int]
    rewards: list[float]
    seen: bool
    """whether the object was in view"""
    terminated: bool


class Room:
    """The environment, and every frame that it has shown."""

    def __init__(self, seed: int) -> None:
        """Make it; what is played follows from the seed."""
        self.env: gym.Env[Any, Any] = envs.make(ENV)
        self.grid: Any = self.env.unwrapped
        self.rng = np.random.default_rng(seed)
        self.numbers: dict[bytes, int] = {}
        self.frames: list[NDArray[np.uint8]] = []
        self.spec = task_of(self.env).frame_spec

    def number(self, obs: NDArray[np.uint8]) -> int:
        """The number of a frame."""
        key = obs.tobytes()
        if key not in self.numbers:
            self.numbers[key] = len(self.frames)
            self.frames.append(to_vision(obs[None], self.spec)[0])
        return self.numbers[key]

    def play(self) -> Played:
        """One episode of the script."""
        rng = self.rng
        obs, _ = self.env.reset(seed=int(rng.integers(400_000)))
        played = Played([self.number(obs)], [], [], seen=False, terminated=False)
        beginning, up = rng.integers(LONGEST_BEGINNING + 1), bool(rng.integers(2))
        choice, terminated, over = int(rng.integers(CHOICES)), False, False
        while not over:
            if not played.seen and self.grid.agent_sees(*OBJECT):
                played = played._replace(seen=True)
            action = self.toward(up)
            if len(played.actions) < beginning or rng.random() < NOISE:
                if rng.random() >= KEPT:
                    choice = int(rng.integers(CHOICES))
                action = choice
            obs, reward, terminated, truncated, _ = self.env.step(action)
            over = terminated or truncated
            played.frames.append(self.number(obs))
            played.actions.append(action)
            played.rewards.append(float(reward))
        return played._replace(terminated=terminated)

    def toward(self, up: bool) -> int:
        """The next action on the way to one of the ends."""
        x, y = self.grid.agent_pos
        wanted = EAST
        if x >= CORRIDOR:
            wanted = NORTH if up else SOUTH
        elif y != MIDDLE:
            wanted = SOUTH if y < MIDDLE else NORTH
        turn = (wanted - self.grid.agent_dir) % 4
        return FORWARD if turn == 0 else LEFT if turn == 3 else RIGHT


def latents(vision: ConvVAE, room: Room, played: list[Played]) -> Latents:
    """Episodes as V sees them."""
    with torch.inference_mode():
        mu, logvar = vision.encode(to_float(torch.from_numpy(np.stack(room.frames))))
    index = np.concatenate([one.frames for one in played])
    action = np.zeros((len(index), CHOICES), np.float32)
    offsets = np.cumsum([0, *(len(one.frames) for one in played)])
    at = np.setdiff1d(np.arange(len(index)), offsets[1:] - 1)
    action[at, np.concatenate([one.actions for one in played])] = 1
    reward = np.zeros(len(index), np.float32)
    reward[at] = np.concatenate([one.rewards for one in played])
    return Latents(
        mu=mu.numpy()[index],
        logvar=logvar.numpy()[index],
        action=action,
        reward=reward,
        terminated=np.array([one.terminated for one in played]),
        offsets=offsets,
        seeds=np.arange(len(played)),
    )


def score(told_apart: NDArray[np.float64], right: NDArray[np.bool_]) -> dict[str, float]:
    """Area under the ROC curve and accuracy of chances (N,)."""
    good, bad = told_apart[right], told_apart[~right]
    above = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    return {"auc": float(above), "accuracy": float(((told_apart > 0.5) == right).mean())}


def measure(args: Args) -> Iterator[dict[str, Any]]:
    """Train M on each number of episodes, and test it."""
    folder = args.run / "iterations" / "00"
    vision = VisionFile.load(folder / "vision.safetensors").model
    room = Room(args.seed)
    played = [room.play() for _ in range(TESTED + max(args.episodes))]
    kind: RewardKind = "event"
    shape = MemoryStageConfig(reward=kind).network(vision.cfg.z_dim, CHOICES, kind)
    cfg = MemoryTrainConfig(
        steps=args.steps,
        learning_rate=0.006,
        batch_size=24,
        sequence_length=32,
        exact=True,
        reward_weight=args.reward_weight,
        termination_weight=10.0,
    )
    for count in args.episodes:
        own = played[TESTED : TESTED + count]
        data = latents(vision, room, own)
        reward = fit_reward_model(data, kind)
        memory = train_memory(cfg, shape, reward, data, seed=args.seed)
        found: dict[str, Any] = {"episodes": count, "steps": args.steps}
        found["reward_weight"] = args.reward_weight
        for name, part in (("test", played[:TESTED]), ("training", own[:TESTED])):
            chances = told(memory, reward, latents(vision, room, part))
            last = np.cumsum([len(one.actions) for one in part]) - 1
            seen = np.array([one.seen for one in part])
            found[name] = score(chances.predicted[last][seen], chances.observed[last][seen] > 0)
        yield found


def main(args: Args) -> None:
    """Measure and print."""
    print(machine())
    rows = []
    for found in measure(args):
        rows.append(found)
        told_as = {name: found[name] for name in ("test", "training")}
        print(f"{found['episodes']:,} episodes: {told_as}", flush=True)
    if args.json is not None:
        write_json(args.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Args))
