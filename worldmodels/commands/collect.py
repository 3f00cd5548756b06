"""`worldmodels collect`: episodes into a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import tyro

from worldmodels import envs, executors
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName, load_preset
from worldmodels.commands.stage import open_stage, use_all_cores
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.collect import CollectConfig, CollectSummary, collect
from worldmodels.experience.exploration import (
    AgentNoiseConfig,
    AR1Config,
    BehaviourConfig,
    BrownianConfig,
    RandomControllerConfig,
)
from worldmodels.pipeline.model import load_driver
from worldmodels.presets import RunConfig
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.runs import FolderPath


@dataclass(frozen=True)
class Collect:
    """Drive and record episodes, one for each of the seeds S, S+1, ..., S+N-1.

    What the folder holds already is kept, so an interrupted collection goes on. Several values of
    --scale or --noise share the episodes, each in a folder of its own inside of --out.
    """

    preset: PresetName
    """where the settings come from"""
    out: FolderPath
    """folder for the episodes, for this collection alone"""
    env_id: str
    """Gymnasium id; `module:Id-v0` imports the module first"""
    episodes: int
    """number of episodes"""
    max_steps: int | None
    """truncate episodes after so many steps; None leaves it to the environment"""
    patience: int | None
    """truncate episodes after so many steps without a reward above 0; None never does"""
    scale: tuple[float, ...]
    """deviations of the random driving (ar1), in units in which every action spans -1 to 1"""
    noise: tuple[float, ...]
    """deviations of the noise on the agent's actions, in the same units"""
    bias_spread: float
    """deviation of a shift of the agent's actions, drawn once an episode; none where noise is 0"""
    kick_probability: float
    """chance in each step that the agent is kicked: a random action, held for a while"""
    kick_steps: int
    """longest kick, in steps"""
    group: int
    """episodes driven side by side by one worker, and stored in one shard"""
    action_repeat: int
    """steps of the environment that each action is held for; an agent brings its own"""
    frame_rows: int | None
    """rows of the frames that are kept, from the top; None leaves CarRacing's dashboard out"""
    rho: float
    """how much of the random driving's noise (ar1) is left one action later"""
    bias: tuple[float, ...] | None = None
    """centre of the random driving (ar1), in the same units; None takes the preset's"""
    behaviour: Literal["ar1", "brownian", "random-controller"] = "ar1"
    """how to drive without an agent"""
    agent: str | None = None
    """folder (or its run's) or name of an agent that drives, disturbed by noise; None drives at
    random"""
    seed: int = 0
    """first seed; collection has the seeds below 400000"""
    workers: int | None = None
    """processes; None takes one per usable core. The episodes are the same for any number"""
    run: FolderPath | None = None
    """run folder that gets metrics and the count of frames; None for none"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's first round, or its later ones where an agent drives."""
        cfg, by_agent = preset.experience, "agent" in flags
        return cls(
            preset=flags.get("preset", DEFAULT_PRESET),
            out=tyro.MISSING,
            env_id=preset.env_id,
            episodes=cfg.driver_episodes if by_agent else cfg.explore_episodes,
            max_steps=cfg.driver_steps if by_agent else cfg.explore_steps,
            patience=cfg.driver_patience if by_agent else cfg.patience,
            scale=cfg.explore_scales,
            noise=cfg.driver_noise,
            bias_spread=cfg.driver_bias_spread,
            kick_probability=cfg.kick_probability,
            kick_steps=cfg.kick_steps,
            group=cfg.group,
            action_repeat=preset.action_repeat,
            frame_rows=preset.frame_rows,
            rho=cfg.explore_rho,
        )

    def execute(self) -> None:
        """Collect and say what there is."""
        if self.episodes < 1:
            raise UserError(f"episodes is {self.episodes}; it must be at least 1")
        if not 0 <= self.seed <= TRAINING_SEED_LIMIT - self.episodes:
            raise UserError(
                f"seeds {self.seed} to {self.seed + self.episodes - 1} are not all for collection, "
                f"which has 0 to {TRAINING_SEED_LIMIT - 1}; choose another --seed"
            )
        if not (self.noise if self.agent else self.scale):
            raise UserError("--noise with an agent, and --scale without, need at least one number")
        use_all_cores()
        behaviours, repeat, frames = self._behaviours(), self.action_repeat, self._frames()
        if self.agent is not None:
            agent = Agent.from_pretrained(find(self.agent))
            repeat, frames = agent.action_repeat, agent.frame_spec
        shares = np.array_split(np.arange(self.seed, self.seed + self.episodes), len(behaviours))
        work = [(b, s.tolist()) for b, s in zip(behaviours, shares, strict=True) if len(s)]
        inputs = [self.env_id, behaviours, self.seed, self.max_steps, self.patience, self.group]
        inputs += [repeat, frames]
        with (
            open_stage("collect", self.out, inputs, self.run, "collection") as stage,
            executors.make(None, self.workers) as executor,
        ):
            summaries = [
                collect(
                    CollectConfig(self.group, self.max_steps, self.patience, repeat),
                    self.env_id,
                    behaviour,
                    seeds,
                    self.out if len(work) == 1 else self.out / str(number),
                    executor=executor,
                    load_policy=load_driver,
                    frame_spec=frames,
                )
                for number, (behaviour, seeds) in enumerate(work)
            ]
            figures = totals(summaries)
            stage.count_frames("collection", int(figures["frames"]))
            stage.log(**figures, behaviour=[type(behaviour).__name__ for behaviour in behaviours])
        print(
            f"{figures['frames']:,} frames in {figures['episodes']} episodes with a mean return of "
            f"{figures['mean_return']:.1f}: {self.out}"
        )

    def _frames(self) -> FrameSpec:
        """How the environment's frames become V's."""
        if self.frame_rows is None:
            return FrameSpec.for_env(self.env_id)
        return FrameSpec(rows=self.frame_rows)

    def _behaviours(self) -> Sequence[BehaviourConfig]:
        """What drives, one configuration for each share of the episodes."""
        if self.agent is not None:
            folder = find(self.agent)
            env = envs.make(self.env_id)
            Agent.from_pretrained(folder).check_env(env)
            env.close()
            return [
                AgentNoiseConfig(
                    folder,
                    scale=scale,
                    bias_spread=self.bias_spread if scale else 0.0,
                    kick_probability=self.kick_probability,
                    kick_steps=self.kick_steps,
                )
                for scale in self.noise
            ]
        if self.behaviour == "brownian":
            return [BrownianConfig()]
        if self.behaviour == "random-controller":
            return [RandomControllerConfig()]
        biases: Sequence[tuple[float, ...] | None] = (
            [self.bias]
            if self.bias
            else load_preset(self.preset, self.env_id).experience.explore_bias or [None]
        )
        return [AR1Config(self.rho, scale, bias) for scale in self.scale for bias in biases]


def totals(summaries: Sequence[CollectSummary]) -> dict[str, float]:
    """Figures of several collections as of one."""
    frames = sum(summary.frames for summary in summaries)
    episodes = sum(summary.episodes for summary in summaries)
    seconds = sum(summary.seconds for summary in summaries)
    returns = sum(summary.mean_return * summary.episodes for summary in summaries)
    return {
        "frames": frames,
        "episodes": episodes,
        "mean_return": returns / episodes,
        "seconds": seconds,
        "frames_per_second": sum(summary.new_frames for summary in summaries) / seconds,
    }
