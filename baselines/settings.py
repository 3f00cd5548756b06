"""What is trained, and where: the options of `worldmodels baseline`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from baselines.bookkeeping import SelectionTracks
from baselines.recipes import RECIPES, Recipe, recipe_for
from worldmodels import envs, runs
from worldmodels.config import Config, Count, Episodes, Horizon, Repeat, Seed, Size, Workers
from worldmodels.envs.frames import Crop, FrameSpec
from worldmodels.protocols import NUM_TEST_SEEDS
from worldmodels.runs import FolderPath
from worldmodels.tasks import task_for
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import measure_in_worker

CAR_RACING = "worldmodels/CarRacing-v3"
"""Where nothing else is said."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """Train a model-free baseline; the same command again resumes it."""

    recipe: Literal["default", "zoo", "v3", "recurrent", "dream"] = "default"
    """default: PPO for any environment; for CarRacing, zoo: PPO as rl-zoo has it; v3: what worked
    on CarRacing-v3; recurrent: RecurrentPPO (needs sb3-contrib); dream: PPO in the dream of an
    agent"""
    run: Path | None = None
    """folder of a finished run to compare with: its environment, frames, action repeat and as many
    real frames as it took; the test is entered into its report"""
    out: FolderPath | None = None
    """run folder; an interrupted training in it is resumed (default: runs/ppo, or a folder in that
    of --run)"""
    seed: Seed | None = None
    """random seed of the training (default: that of --run, else 0)"""
    frames: Count | None = None
    """budget in frames of the environment, skipped ones counted (recipe dream: steps of M); None
    takes those of --run, else the recipe's. The learning rate falls over this budget, whatever it
    is"""
    env_id: Annotated[str | None, tyro.conf.arg(name="env")] = None
    """environment to learn in and to select in (default: that of --run, else CarRacing); the
    dream's agent brings its own"""
    action_repeat: Repeat | None = None
    """recipe default: steps of the environment that each action is held for (default: 1)"""
    frame_rows: Size | None = None
    """recipe default: rows of the frames to keep, from the top (default: those that V sees)"""
    crop: Crop | None = field(default=None, metadata={"omit_default": True})
    """recipe default: pixels of the frames to cut off at the top, bottom, left and right (default:
    those that V does not see)"""
    max_steps: Count | None = None
    """truncate episodes after so many steps; needed where nothing ends an episode (default: the
    environment's limit, or that of `worldmodels run`)"""
    agent: Path | None = None
    """recipe dream: agent that dreams: its folder, its run's folder, or the name of a bundled
    one"""
    horizon: Horizon = 250
    """recipe dream: longest dream, in steps of M"""
    checkpoint_frames: Count = 100_000
    """frames between checkpoints, by the recipe default at most a quarter of the budget; at each
    the policy is evaluated on selection seeds"""
    evaluate_episodes: SelectionTracks = 8
    """selection seeds, from 500000"""
    device: str = "cpu"
    """where the network is trained: cpu, or cuda for a GPU. The environments stay on the
    CPU, where for networks as small as these most of the time is spent"""
    workers: Workers = 1
    """1 steps all environments in this process; more give each a process, for slow environments"""
    log: runs.Log = ()
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""
    test_episodes: Episodes = NUM_TEST_SEEDS
    """with --run: episodes of its test seeds, played at the end"""

    def _check(self) -> None:
        if (self.recipe == "dream") != (self.agent is not None):
            self.refuse("agent", "given with the recipe dream, and with no other")
        if self.recipe == "dream" and self.run is not None:
            self.refuse("run", "left out with the recipe dream, whose agent has its own run")
        runs.require_device(self.device)

    def ignored(self) -> dict[str, str]:
        """Options that have no effect under the recipe, each with the reason."""
        named = f"it is for recipe default, and recipe is {self.recipe}"
        found = {} if self.recipe == "default" else dict.fromkeys(_SEEN, named)
        if self.run is not None:
            found = dict.fromkeys((*_SEEN, "max-steps"), "the run has its own")
        else:
            found["test-episodes"] = "it is for --run"
        if self.recipe == "dream":
            found |= {"env": "the dream's agent brings its own environment"}
            return found | dict.fromkeys(("workers", "max-steps"), "dreams run in this process")
        return found | {"horizon": f"it is for recipe dream, and recipe is {self.recipe}"}

    @property
    def own_seed(self) -> int:
        """The seed, given or not."""
        return self.seed or 0

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs/ppo")

    @property
    def home(self) -> str:
        """The real environment."""
        return self.env_id or CAR_RACING if self.agent is None else home_of(self.agent)

    @property
    def frame_spec(self) -> FrameSpec:
        """The part of the frames that the default recipe sees."""
        return task_for(self.home).frame_spec.changed(self.frame_rows, self.crop)

    def longest(self) -> int | None:
        """Steps after which episodes are truncated; None leaves it to the environment.

        Where it has no time limit, it is that of the test of `worldmodels run`: the task's, or what
        a few episodes suggest if they end by themselves.
        """
        if self.max_steps is not None:
            return self.max_steps
        env, task = envs.make(self.home), task_for(self.home)
        try:
            if envs.time_limit(env) is not None:
                return None
        finally:
            env.close()
        own = dict(task.settings.get("quick", {}))
        if not task.settings:
            frames = self.frame_spec
            found = measure_in_worker(self.home, rows=frames.rows, crop=frames.crop)
            if not found.ends.endless:
                own = {choice.setting: choice.value for choice in choices(found, "quick")}
        limit: int | None = own.get("test.max_steps")
        return limit

    def resolved_recipe(self) -> Recipe:
        """The recipe; the default one depends on the environment."""
        if self.recipe != "default":
            return RECIPES[self.recipe]
        env = envs.make(self.home)
        try:
            return recipe_for(env, self.action_repeat or 1, self.frame_spec)
        finally:
            env.close()


_SEEN = ("action-repeat", "frame-rows", "crop")
"""Options that say what the recipe "default" sees."""


def home_of(agent: Path) -> str:
    """The environment of the agent in a folder."""
    from baselines import dream

    return dream.home_of(agent)
