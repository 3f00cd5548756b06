"""`worldmodels collect` and `export-minari`: episodes, recorded and for other libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import tyro

from worldmodels import envs, stages
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import Command, PresetName, load_preset, of_choices
from worldmodels.config import (
    NOT_EMPTY,
    Count,
    CountOrZero,
    Decay,
    Fraction,
    NotNegative,
    Repeat,
    Seed,
    Size,
)
from worldmodels.envs.frames import Crop
from worldmodels.executors import Placement
from worldmodels.experience.collect import GroupSize, TrainingEpisodes
from worldmodels.experience.exploration import BrownianConfig, RandomControllerConfig
from worldmodels.experience.export import export_minari
from worldmodels.experience.store import EpisodeStore
from worldmodels.run_config import RunConfig
from worldmodels.runs import FolderPath
from worldmodels.stages.collection import CollectionPlan
from worldmodels.tasks import task_for

SETTINGS = {
    "scale": "explore_scales",
    "rho": "explore_rho",
    "noise": "agent_noise",
    "bias_std": "agent_bias_std",
    "burst_probability": "burst_probability",
    "burst_steps": "burst_steps",
    "group": "group",
}
"""Option -> setting of the preset that it changes."""
OTHERS: dict[str, BrownianConfig | RandomControllerConfig] = {
    "brownian": BrownianConfig(),
    "random-controller": RandomControllerConfig(),
}
"""Random policies other than the preset's."""


@dataclass(frozen=True)
class Collect(Command):
    """Record episodes, on the seeds that a run of the same --seed would use.

    Episodes that the folder holds already are kept, so the same command resumes an interrupted
    collection. Values of --scale or --noise get equal numbers of episodes, a folder for each.
    """

    common: ClassVar[str] = (
        "preset out env episodes max-steps patience scale noise burst-probability action-repeat "
        "behaviour agent seed workers executor address run"
    )

    preset: PresetName
    """where settings come from: smoke, quick or full"""
    out: FolderPath
    """folder for these episodes alone"""
    env_id: Annotated[str, tyro.conf.arg(name="env")]
    """Gymnasium id of the environment; `module:Id-v0` imports the module first, --obs-key KEY
    chooses among its images, --env-kwargs '{"name": value}' passes arguments"""
    episodes: TrainingEpisodes
    """number of episodes"""
    max_steps: Count | None
    """truncate episodes after so many steps; None leaves it to the environment"""
    patience: Count | None
    """truncate episodes after so many steps without a reward above 0; None never does"""
    scale: Annotated[tuple[NotNegative, ...], NOT_EMPTY]
    """standard deviations of random actions (ar1), where every action spans -1 to 1"""
    noise: Annotated[tuple[NotNegative, ...], NOT_EMPTY]
    """standard deviations of the noise on the agent's actions, in the same units"""
    bias_std: NotNegative
    """standard deviation of a shift of the agent's actions, drawn once per episode; 0 without
    noise"""
    burst_probability: Fraction
    """chance per step that a burst of one random action interrupts the agent"""
    burst_steps: Count
    """longest burst, in steps"""
    group: GroupSize
    """episodes that one worker runs side by side and stores in one shard"""
    action_repeat: Repeat
    """steps of the environment that each action is held for; an agent brings its own"""
    frame_rows: Size | None
    """rows of the frames to keep, from the top; None takes the task's"""
    crop: Crop | None
    """pixels of the frames to crop at the top, bottom, left and right; None takes the task's"""
    rho: Decay
    """correlation of the random actions (ar1) from one action to the next"""
    bias: tuple[float, ...] | None = None
    """mean of the random actions (ar1), in the same units (default: the preset's)"""
    behaviour: Literal["ar1", "brownian", "random-controller"] = "ar1"
    """random policy without an agent"""
    agent: str | None = None
    """agent that acts, with noise: its folder, its run's folder, or the name of a bundled one
    (default: act at random)"""
    seed: Seed = 0
    """random seed; the same as in `worldmodels run` gives the same episodes"""
    used: CountOrZero | None = None
    """skip so many training seeds, which earlier collections have used (default: 0, or the
    preset's random episodes where an agent acts)"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""
    run: FolderPath | None = None
    """run folder to log metrics and frames into (default: do not log)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The preset's first iteration, or its later ones where an agent acts."""
        cfg, by_agent = preset.experience, "agent" in flags
        return dataclasses.replace(
            super().defaults(preset, flags),
            episodes=cfg.agent_episodes if by_agent else cfg.explore_episodes,
            max_steps=cfg.agent_steps if by_agent else cfg.explore_steps,
            patience=cfg.agent_patience if by_agent else cfg.patience,
            **{flag: getattr(cfg, setting) for flag, setting in SETTINGS.items()},
        )

    def ignored(self) -> Mapping[str, str]:
        """Options for agents alone, or for random policies alone."""
        if self.agent is not None:
            own = "the agent brings its own"
            random = "an agent acts, not noise alone; its noise is --noise"
            names = ("scale", "rho", "bias", "behaviour")
            return dict.fromkeys(("action-repeat", "frame-rows", "crop"), own) | dict.fromkeys(
                names, random
            )
        names = ("noise", "bias-std", "burst-probability", "burst-steps")
        found = dict.fromkeys(names, "no agent acts") | of_choices(self.env_id, "scale")
        if self.behaviour != "ar1":
            why = f"it is for ar1, and behaviour is {self.behaviour}"
            found |= dict.fromkeys(("scale", "rho", "bias"), why)
        return found

    def execute(self) -> None:
        """Collect, and print the totals."""
        from worldmodels.pages.text import one_return

        if self.agent is not None:
            agent = Agent.from_pretrained(find(self.agent))
            env = envs.make(self.env_id)
            agent.check_env(env)
            env.close()
            repeat, frames = agent.action_repeat, agent.frame_spec
        else:
            repeat = self.action_repeat
            frames = task_for(self.env_id).frame_spec.changed(self.frame_rows, self.crop)
        drives = self._plan()
        same = dataclasses.replace(drives, episodes=1)  # a longer collection extends a shorter one
        inputs = [self.env_id, same, self.group, repeat, frames]
        stage = ("collect", self.out, inputs, self.run)
        at = int(self.agent is not None)
        with (
            self.placement.make() as executor,
            stages.open_stage(*stage, seed=self.seed, iteration=at, executor=executor) as ctx,
        ):
            what = (drives, self.env_id, self.out, ctx)
            found = stages.collect(*what, group=self.group, action_repeat=repeat, frame_spec=frames)
        print(
            f"{found['frames']:,} frames in {found['episodes']} episodes with a mean return of "
            f"{one_return(found['mean_return'])}: {self.out}"
        )

    def _plan(self) -> CollectionPlan:
        """The preset's iteration, with the changes of the options."""
        settings = {setting: getattr(self, flag) for flag, setting in SETTINGS.items()}
        if self.bias is not None:
            settings["explore_bias"] = (self.bias,)
        preset = load_preset(self.preset, self.env_id).experience
        cfg = dataclasses.replace(preset, **settings)
        if self.agent is not None:
            drives = stages.by_agents(cfg, [find(self.agent)], iteration=1)
        else:
            drives = stages.exploration(cfg)
        if self.behaviour in OTHERS:
            drives = dataclasses.replace(drives, behaviours=[OTHERS[self.behaviour]])
        return dataclasses.replace(
            drives,
            episodes=self.episodes,
            steps=self.max_steps,
            patience=self.patience,
            used=drives.used if self.used is None else self.used,
        )


@dataclass(frozen=True)
class ExportMinari(Command):
    """Write collected episodes into a new local Minari dataset, which other libraries open.

    The frames are those that V sees, without loss. Minari is an extra: pip install
    'worldmodels-control[minari]'. It keeps its datasets where MINARI_DATASETS_PATH says, or in
    ~/.minari/datasets.
    """

    data: tuple[Path, ...]
    """run folders, or folders of `worldmodels collect`"""
    dataset: str
    """name of the new dataset, in Minari's form: car-racing/random-v0"""
    author: str | None = None
    """whom the dataset names as its author"""

    def execute(self) -> None:
        """Write the dataset and print its size."""
        store = EpisodeStore(self.data)
        export_minari(store, self.dataset, self.author)
        print(
            f"{store.num_steps:,} steps of {len(store):,} episodes: Minari dataset {self.dataset}"
        )
