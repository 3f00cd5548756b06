"""`worldmodels collect`: episodes into a folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import tyro

from worldmodels import envs, executors, stages
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import DEFAULT_PRESET, PresetName, load_preset
from worldmodels.commands.stage import use_all_cores
from worldmodels.config import (
    Count,
    CountOrZero,
    Decay,
    Fraction,
    NotNegative,
    Repeat,
    Seed,
    Size,
    Workers,
)
from worldmodels.envs.frames import FrameSpec
from worldmodels.experience.collect import GroupSize, TrainingEpisodes
from worldmodels.experience.exploration import BrownianConfig, RandomControllerConfig
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import FolderPath
from worldmodels.stages.collection import Drives
from worldmodels.stages.context import open_stage
from worldmodels.tasks import task_for


@dataclass(frozen=True)
class Collect:
    """Drive and record episodes, on the tracks that a run of the same seed would drive.

    What the folder holds already is kept, so an interrupted collection goes on. Several values of
    --scale or --noise share the episodes; each has a folder of its own inside of --out.
    """

    preset: PresetName
    """where the settings come from"""
    out: FolderPath
    """folder for the episodes, for this collection alone"""
    env_id: str
    """Gymnasium id; `module:Id-v0` imports the module first"""
    episodes: TrainingEpisodes
    """number of episodes"""
    max_steps: Count | None
    """truncate episodes after so many steps; None leaves it to the environment"""
    patience: Count | None
    """truncate episodes after so many steps without a reward above 0; None never does"""
    scale: tuple[NotNegative, ...]
    """deviations of the random driving (ar1), in units in which every action spans -1 to 1"""
    noise: tuple[NotNegative, ...]
    """deviations of the noise on the agent's actions, in the same units"""
    bias_spread: NotNegative
    """deviation of a shift of the agent's actions, drawn once an episode; none where noise is 0"""
    kick_probability: Fraction
    """chance in each step that the agent is kicked: a random action, held for a while"""
    kick_steps: Count
    """longest kick, in steps"""
    group: GroupSize
    """episodes driven side by side by one worker, and stored in one shard"""
    action_repeat: Repeat
    """steps of the environment that each action is held for; an agent brings its own"""
    frame_rows: Size | None
    """rows of the frames that are kept, from the top; None leaves CarRacing's dashboard out"""
    rho: Decay
    """how much of the random driving's noise (ar1) is left one action later"""
    bias: tuple[float, ...] | None = None
    """centre of the random driving (ar1), in the same units; None takes the preset's"""
    behaviour: Literal["ar1", "brownian", "random-controller"] = "ar1"
    """how to drive without an agent"""
    agent: str | None = None
    """folder (or its run's) or name of an agent that drives, disturbed by noise; None drives at
    random"""
    seed: Seed = 0
    """as that of `worldmodels run`: shuffles the 400000 tracks of collection"""
    used: CountOrZero | None = None
    """tracks of that shuffle that earlier collections have used; None takes 0, or with an agent as
    many as the preset explores"""
    workers: Workers | None = None
    """processes; None takes one per usable core. The episodes are the same for any number"""
    run: FolderPath | None = None
    """run folder that gets metrics and the count of frames; None writes nothing"""

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

    def ignored(self) -> Mapping[str, str]:
        """What is for agents alone, or for random driving alone."""
        if self.agent is not None:
            own = "the agent brings its own"
            random = "an agent drives, not noise alone; its noise is --noise"
            names = ("scale", "rho", "bias", "behaviour")
            return {"action-repeat": own, "frame-rows": own} | dict.fromkeys(names, random)
        names = ("noise", "bias-spread", "kick-probability", "kick-steps")
        found = dict.fromkeys(names, "no agent drives")
        if self.behaviour != "ar1":
            why = f"it is for ar1, and behaviour is {self.behaviour}"
            found |= dict.fromkeys(("scale", "rho", "bias"), why)
        return found

    def execute(self) -> None:
        """Collect and say what there is."""
        if not (self.noise if self.agent else self.scale):
            raise UserError("--noise with an agent, and --scale without, need at least one number")
        use_all_cores()
        repeat, frames = self.action_repeat, self._frames()
        if self.agent is not None:
            agent = Agent.from_pretrained(find(self.agent))
            env = envs.make(self.env_id)
            agent.check_env(env)
            env.close()
            repeat, frames = agent.action_repeat, agent.frame_spec
        drives = self._drives()
        same = dataclasses.replace(drives, episodes=1)  # a longer collection extends a shorter one
        inputs = [self.env_id, same, self.group, repeat, frames]
        iteration = 0 if self.agent is None else 1
        with (
            executors.make(None, self.workers) as executor,
            open_stage(
                "collect",
                self.out,
                inputs,
                self.run,
                seed=self.seed,
                iteration=iteration,
                executor=executor,
            ) as ctx,
        ):
            found = stages.collect(
                drives,
                self.env_id,
                self.out,
                ctx,
                group=self.group,
                action_repeat=repeat,
                frame_spec=frames,
            )
            ctx.count_frames("collection", found.frames)
        print(
            f"{found.frames:,} frames in {found.episodes} episodes with a mean return of "
            f"{found.mean_return:.1f}: {self.out}"
        )

    def _frames(self) -> FrameSpec:
        """How the environment's frames become V's."""
        if self.frame_rows is None:
            return task_for(self.env_id).frame_spec
        return FrameSpec(rows=self.frame_rows)

    def _drives(self) -> Drives:
        """What drives: the preset's iteration, with what the options change."""
        cfg = load_preset(self.preset, self.env_id).experience
        if self.agent is not None:
            cfg = dataclasses.replace(
                cfg,
                driver_noise=self.noise,
                driver_bias_spread=self.bias_spread,
                kick_probability=self.kick_probability,
                kick_steps=self.kick_steps,
            )
            drives = stages.by_agents(cfg, [find(self.agent)], iteration=1)
        else:
            bias = cfg.explore_bias if self.bias is None else (self.bias,)
            cfg = dataclasses.replace(
                cfg, explore_scales=self.scale, explore_rho=self.rho, explore_bias=bias
            )
            drives = stages.exploration(cfg)
            if self.behaviour == "brownian":
                drives = dataclasses.replace(drives, behaviours=[BrownianConfig()])
            if self.behaviour == "random-controller":
                drives = dataclasses.replace(drives, behaviours=[RandomControllerConfig()])
        return dataclasses.replace(
            drives,
            episodes=self.episodes,
            steps=self.max_steps,
            patience=self.patience,
            used=drives.used if self.used is None else self.used,
        )
