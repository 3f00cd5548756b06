"""All settings of a run in one record, checked against one another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Annotated, Any, TypeVar

import tyro

from worldmodels.config import (
    Config,
    Count,
    Repeat,
    Size,
)
from worldmodels.dream.config import DreamConfig
from worldmodels.envs.frames import Crop, FrameSpec
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.kinds import KINDS
from worldmodels.memory.train import MemoryTrainConfig
from worldmodels.protocols import (
    TRAINING_SEED_LIMIT,
    UserError,
)
from worldmodels.stage_configs import (
    ControllerStageConfig,
    EnsembleStageConfig,
    ExperienceConfig,
    FromScratchConfig,
    MemoryStageConfig,
    ResidualStageConfig,
    SelectionConfig,
    StartsConfig,
    TestConfig,
)
from worldmodels.tasks import task_for
from worldmodels.vision.train import VisionTrainConfig
from worldmodels.vision.vae import VAEConfig

T = TypeVar("T")

DEFAULT_ENV = "worldmodels/CarRacing-v3"
"""Default environment of a run."""

LIMITS = (
    "experience.explore_steps",
    "experience.agent_steps",
    "selection.max_steps",
    "test.max_steps",
)
"""Settings that limit the length of episodes."""


@dataclass(frozen=True)
class RunConfig(Config):
    """The whole pipeline."""

    env_id: Annotated[str, tyro.conf.arg(name="env")] = DEFAULT_ENV
    """Gymnasium id, or `module:Id-v0`; --obs-key KEY chooses one of its images, --env-kwargs
    '{"name": value}' passes arguments"""
    test_env_id: Annotated[str | None, tyro.conf.arg(name="test-env")] = None
    """environment of the final test (default: the same, or the original of a faster
    version)"""
    iterations: Count = 5
    """times that collect, V, M, C and selection are repeated; more improve the agent"""
    action_repeat: Repeat = 1
    """environment steps per action and per step of M; raise it where a step changes little"""
    frame_rows: Size | None = None
    """rows of the frames to keep, from the top; set it to cut off a status bar (None: the
    task's)"""
    crop: Crop | None = field(default=None, metadata={"omit_default": True})
    """pixels of the frames to crop at the top, bottom, left and right, such as a status bar
    (None: the task's)"""
    horizontal_flip: bool = False
    """also train V and M on the horizontal flip of every episode, which doubles the data; only for
    tasks with that symmetry, such as CarRacing"""
    from_scratch: FromScratchConfig = field(default_factory=FromScratchConfig)
    """last iterations that train V and M from scratch"""
    experience: ExperienceConfig = field(default_factory=ExperienceConfig)
    """collection of episodes"""
    vision: VAEConfig = field(default_factory=VAEConfig)
    """shape of V"""
    vision_training: VisionTrainConfig = field(default_factory=VisionTrainConfig)
    """training of V"""
    memory: MemoryStageConfig = field(default_factory=MemoryStageConfig)
    """shape of M"""
    memory_training: MemoryTrainConfig = field(default_factory=MemoryTrainConfig)
    """training of M"""
    dream: DreamConfig = field(default_factory=DreamConfig)
    """the dream"""
    starts: StartsConfig = field(default_factory=StartsConfig)
    """where dreams begin"""
    controller: ControllerStageConfig = field(default_factory=ControllerStageConfig)
    """C and its evolution"""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """validation by real episodes"""
    residual: ResidualStageConfig = field(default_factory=ResidualStageConfig)
    """a learnt, bounded change of the chosen C"""
    ensemble: EnsembleStageConfig = field(default_factory=EnsembleStageConfig)
    """several iterations' agents as one"""
    test: TestConfig = field(default_factory=TestConfig)
    """the final test"""
    made_for: str | None = field(default=None, metadata={"omit_default": True})
    """task or environment that the settings were chosen for; another one's run refuses them
    (None: they are for any)"""

    def _check(self) -> None:
        cfg = self.experience
        total = cfg.explore_episodes + (self.iterations - 1) * cfg.most_agent_episodes
        if total > TRAINING_SEED_LIMIT:
            limit = f"the {TRAINING_SEED_LIMIT:,} training seeds"
            self.refuse("iterations", f"so small that {limit} are enough for {total:,} episodes")
        if self.controller.inputs == "zhc" and not KINDS[self.memory.kind][1].has_cell:
            allowed = f"zh or z with memory.kind {self.memory.kind}, which has no cell c"
            self.refuse("controller.inputs", allowed)
        if self.dream.backend == "kernels" and self.memory.kind != "lstm":
            allowed = f"torch or auto with memory.kind {self.memory.kind}, which has no kernels"
            self.refuse("dream.backend", allowed)

    def check_fits(self, spec: ActionSpec) -> None:
        """Refuse settings for another environment, or for other actions, before anything runs."""
        if self.made_for not in (None, self.env_id, task_for(self.env_id).name):
            raise UserError(
                f"the settings are for {self.made_for}, and env_id is {self.env_id}: begin with "
                f"quick({self.env_id!r}), smoke or full, or set made_for to None to keep them"
            )
        own = self.experience
        if spec.kind == "box":
            if self.controller.discrete != "argmax":
                self.refuse("controller.discrete", "argmax where actions are numbers (Box)")
            return
        if own.explore_bias:
            self.refuse("experience.explore_bias", "empty where actions are choices (Discrete)")
        if own.agent_bias_std:
            self.refuse("experience.agent_bias_std", "0 where actions are choices (Discrete)")
        if max(own.agent_noise) > 1:
            allowed = (
                "from 0 to 1 each where actions are choices (Discrete): fractions of decisions"
            )
            self.refuse("experience.agent_noise", allowed)

    def limited(self, max_steps: int | None) -> RunConfig:
        """The same with no episode longer than so many steps (None: unchanged)."""
        if max_steps is None:
            return self
        limits = self.limits().items()
        return changed(self, {name: min(own or max_steps, max_steps) for name, own in limits})

    def limits(self) -> dict[str, int | None]:
        """Longest episode of each kind by the name of its setting (None: the environment's)."""
        return {name: reduce(getattr, name.split("."), self) for name in LIMITS}  # type: ignore[misc]  # mypy follows no getattr

    def begins_memory(self, number: int) -> bool:
        """Whether M is trained from scratch in an iteration."""
        return number == 0 or number >= self.iterations - self.from_scratch.iterations

    def begins_vision(self, number: int) -> bool:
        """Whether V is trained from scratch in an iteration."""
        return number == 0 or number == self.iterations - self.from_scratch.iterations

    def trains_vision(self, number: int) -> bool:
        """Whether V is trained in an iteration; otherwise the previous one is kept."""
        return number <= self.vision_training.finetune_iterations or self.begins_vision(number)

    def vision_training_of(self, number: int) -> VisionTrainConfig:
        """How V is trained in an iteration."""
        steps = self.from_scratch.vision_steps if number and self.begins_vision(number) else None
        return dataclasses.replace(self.vision_training, steps=steps or self.vision_training.steps)

    def memory_training_of(self, number: int) -> MemoryTrainConfig:
        """How M is trained in an iteration."""
        steps = self.from_scratch.memory_steps if number and self.begins_memory(number) else None
        return dataclasses.replace(self.memory_training, steps=steps or self.memory_training.steps)

    @property
    def frame_spec(self) -> FrameSpec:
        """From the environment's frames to V's."""
        return task_for(self.env_id).frame_spec.changed(self.frame_rows, self.crop)

    @property
    def test_env(self) -> str:
        """Where the agent is tested: the original of a faster environment."""
        return self.test_env_id or task_for(self.env_id).test_env(self.env_id)


def changed(cfg: T, settings: Mapping[str, Any]) -> T:
    """A configuration with some fields replaced, by names such as ``dream.temperature``."""
    inner: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        first, _, rest = name.partition(".")
        inner.setdefault(first, {})[rest] = value
    values = {
        name: fields[""] if "" in fields else changed(getattr(cfg, name), fields)
        for name, fields in inner.items()
    }
    return dataclasses.replace(cfg, **values)  # type: ignore[type-var]  # every T here is a dataclass
