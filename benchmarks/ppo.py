"""Speed of Stable-Baselines3's PPO with `worldmodels/CarRacing-v3` beside Gymnasium's CarRacing-v3.

    python benchmarks/ppo.py [--recipe zoo] [--rounds 3] [--workers 1] [--json FILE]

Both train by the same recipe, one update (rollout and epochs) after the other, in turns. A rate is
real frames, skipped ones counted, per second by the clock; the best round of each counts. Frames
per CPU second, which other work disturbs less, stand beside it where one process does all.
"""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from baselines.models import build_model
from baselines.ppo import FrameCounter
from baselines.recipes import RECIPES, Recipe
from baselines.training_env import make_training_env
from worldmodels.executors import usable_cores
from worldmodels.runs import machine, versions, write_json

CONTESTANTS = {"stock": "CarRacing-v3", "ours": "worldmodels/CarRacing-v3"}


@dataclass(frozen=True)
class Args:
    """What to measure."""

    recipe: Literal["zoo", "v3", "recurrent"] = "zoo"
    """settings of both"""
    rounds: int = 3
    """updates of each, after a first one that does not count"""
    n_steps: int | None = None
    """decisions of each environment in an update; None takes the recipe's. Fewer are for trials:
    then episodes begin more often, and the share of the epochs stays the same"""
    workers: int = 1
    """1 steps all environments in one process; more give each a process, as slow ones would have"""
    json: Path | None = None
    """file for the results"""


@dataclass(frozen=True)
class Round:
    """One update of one contestant."""

    frames: int
    """real frames of the rollout"""
    rollout: float
    """seconds of the rollout: environment and policy"""
    epochs: float
    """seconds of the epochs"""
    cpu: float
    """CPU seconds of this process, all threads"""

    @property
    def rate(self) -> float:
        """Frames per second of the whole update."""
        return self.frames / (self.rollout + self.epochs)


class Contestant:
    """A training in one of the environments."""

    def __init__(self, recipe: Recipe, env_id: str, workers: int) -> None:
        """Get ready: the first episodes have begun."""
        self.env = make_training_env(recipe, env_id, seed=0, workers=workers)
        self.model: OnPolicyAlgorithm = build_model(recipe, self.env, seed=0)
        self.model._setup_learn(10 * recipe.rollout)

    def update(self) -> Round:
        """One rollout and its epochs, both Stable-Baselines3's own."""
        model, counter = self.model, FrameCounter()
        counter.init_callback(model)
        began, cpu = time.perf_counter(), time.process_time()
        model.collect_rollouts(self.env, counter, model.rollout_buffer, model.n_steps)
        collected = time.perf_counter()
        model.train()
        ended = time.perf_counter()
        spent = time.process_time() - cpu
        return Round(counter.frames, collected - began, ended - collected, spent)


def main(args: Args) -> None:
    """Measure, print, write."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(usable_cores())
    recipe = RECIPES[args.recipe]
    if args.n_steps is not None:
        recipe = dataclasses.replace(recipe, n_steps=args.n_steps)
    contestants = {
        name: Contestant(recipe, env_id, args.workers) for name, env_id in CONTESTANTS.items()
    }
    rounds: dict[str, list[Round]] = {name: [] for name in contestants}
    for number in range(args.rounds + 1):
        for name, contestant in contestants.items():
            done = contestant.update()
            if number:  # the first compiles kernels and fills caches
                rounds[name].append(done)
    for contestant in contestants.values():
        contestant.env.close()
    results = {name: report(name, measured, args.workers) for name, measured in rounds.items()}
    ratio = results["ours"]["frames_per_second"] / results["stock"]["frames_per_second"]
    print(f"ours is {ratio:.2f} times as fast by the clock ({recipe.name}, {args.workers} workers)")
    if args.json is not None:
        record = {"args": args, "recipe": recipe, "results": results, "ratio": ratio}
        write_json(args.json, {**record, "machine": machine(), "versions": versions()})


def report(name: str, rounds: list[Round], workers: int) -> dict[str, Any]:
    """Print one contestant's best round; return all of them."""
    best = max(rounds, key=lambda one: one.rate)
    cpu = max(one.frames / one.cpu for one in rounds)
    share = best.rollout / (best.rollout + best.epochs)
    text = f"{name:6} {best.rate:8.1f} frames/s, {share:4.0%} of the time in the rollout"
    print(text + (f", {cpu:8.1f} frames per CPU second" if workers == 1 else ""))
    return {
        "frames_per_second": best.rate,
        "frames_per_cpu_second": cpu if workers == 1 else None,
        "rates": np.array([one.rate for one in rounds]),
        "rounds": [asdict(one) for one in rounds],
    }


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
