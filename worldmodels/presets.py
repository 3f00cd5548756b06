"""The presets: what fills every setting of a run, by name and environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from worldmodels.protocols import (
    NUM_TEST_SEEDS,
    UserError,
)
from worldmodels.run_config import DEFAULT_ENV, RunConfig, changed
from worldmodels.tasks import Task, task_for
from worldmodels.tasks.choices import choices
from worldmodels.tasks.default import measure
from worldmodels.tasks.findings import findings

SMOKE: dict[str, Any] = {
    "iterations": 2,
    "experience.explore_episodes": 4,
    "experience.explore_steps": 40,
    "experience.agent_episodes": 2,
    "experience.agent_steps": 40,
    "experience.agent_snapshots": "all",
    "experience.group": 2,
    "vision.standardized": True,
    "vision.z_dim": 8,
    "vision.width": 8,
    "vision_training.steps": 10,
    "vision_training.finetune_steps": 5,
    "vision_training.batch_size": 4,
    "vision_training.checkpoint_every": 4,
    "vision_training.log_every": 5,
    "memory.hidden_size": 32,
    "memory_training.steps": 10,
    "memory_training.finetune_steps": 6,
    "memory_training.batch_size": 4,
    "memory_training.sequence_length": 16,
    "memory_training.checkpoint_every": 4,
    "memory_training.log_every": 5,
    "dream.horizon": 20,
    "dream.episodes": 4,
    "starts.count": 32,
    "starts.warmup": 8,
    "controller.components": 8,
    "controller.no_event_after": 2,
    "controller.evolve.strategy.population": 8,
    "controller.evolve.generations": 4,
    "controller.evolve.snapshot_every": 2,
    "controller.evolve.mean_window": 2,
    "controller.evolve.checkpoint_every": 2,
    "selection.episodes": 2,
    "selection.finalists": 2,
    "selection.final_episodes": 2,
    "selection.max_steps": 50,
    "residual.enabled": True,
    "residual.training.steps": 6,
    "residual.training.actors": 2,
    "residual.training.batch_size": 4,
    "residual.training.horizon": 3,
    "residual.training.critic_warmup_steps": 2,
    "residual.training.checkpoint_every": 2,
    "residual.training.log_every": 3,
    "ensemble.enabled": True,
    "test.episodes": 2,
    "test.max_steps": 50,
    "test.random_policy": False,
    "test.constant_action": False,
}
"""Every stage once and tiny: under a minute, for tests. The agent learns nothing."""

QUICK: dict[str, Any] = {
    "iterations": 4,
    "from_scratch.iterations": 1,
    "from_scratch.memory_steps": 6000,
    "experience.explore_episodes": 600,
    "experience.explore_scales": (0.2, 0.4, 0.7),
    "experience.agent_noise": (0.0, 0.05, 0.15, 0.3),
    "experience.agent_snapshots": "all",
    "experience.burst_steps": 5,
    "vision.standardized": True,
    "vision_training.adaptive": True,
    "memory_training.exact": True,
    "vision_training.steps": 2400,
    "vision_training.finetune_steps": 600,
    "vision_training.finetune_iterations": 1,
    "vision_training.batch_size": 32,
    "vision_training.kl_tolerance": 1.0,
    "memory.newest_repeats": 2,
    "memory_training.steps": 4000,
    "memory_training.finetune_steps": 2500,
    "memory_training.batch_size": 24,
    "memory_training.sequence_length": 32,
    "memory_training.learning_rate": 6e-3,
    "memory_training.finetune_learning_rate": 3e-3,
    "memory_training.bfloat16": True,
    "memory_training.checkpoint_every": 500,
    "memory_training.log_every": 50,
    "dream.horizon": 250,
    "dream.termination": "sampled",
    "starts.newest_weight": 3.0,
    "starts.off_track_before": 15,
    "controller.components": 32,
    "controller.evolve.generations": 80,
    "controller.evolve.snapshot_every": 20,
    "controller.evolve.mean_window": 30,
    "controller.no_event_after": 30,
    "controller.memory_iterations": 3,
    "controller.warm_start": False,
    "selection.episodes": 12,
    "selection.early_episodes": 2,
    "selection.late_iterations": 2,
    "selection.finalists": 2,
    "selection.final_episodes": 32,
    "residual.training.actors": 1,
    "ensemble.enabled": True,
    "test.episodes": 20,
}
"""An agent within 30 minutes on two cores; docs/results/lab-notebook.md explains the numbers."""

FULL: dict[str, Any] = QUICK | {
    "iterations": 8,
    "from_scratch.iterations": 3,
    "from_scratch.vision_steps": 6000,
    "from_scratch.memory_steps": 6000,
    "vision_training.steps": 2500,
    "vision_training.finetune_steps": 1000,
    "memory_training.finetune_steps": 3000,
    "controller.evolve.generations": 60,
    "controller.memory_iterations": 1,
    "selection.episodes": 16,
    "selection.late_iterations": 3,
    "selection.finalists": 3,
    "selection.final_episodes": 40,
    "residual.training.actors": 2,
    "test.episodes": NUM_TEST_SEEDS,
}
"""The best agent, tested on all seeds: 90 minutes on two cores and a million real frames."""


def _preset(
    name: str, settings: Mapping[str, Any], env_id: str = DEFAULT_ENV, task: Task | None = None
) -> RunConfig:
    """A preset, with what a task (default: the environment's) changes in it."""
    cfg, task = changed(RunConfig(env_id=env_id), settings), task or task_for(env_id)
    own = task.settings.get(name, {})
    return changed(cfg, {**own, "made_for": task.name} if own else {})


PRESETS: dict[str, Callable[..., RunConfig]] = {
    "smoke": partial(_preset, "smoke", SMOKE),
    "quick": partial(_preset, "quick", QUICK),
    "full": partial(_preset, "full", FULL),
}
"""Presets by name; each gives the settings for an environment, as its task has them."""


def _settings(name: str, env_id: str = DEFAULT_ENV) -> RunConfig:
    """A preset for an environment, as `worldmodels run` takes it.

    Unless its task has settings of its own, a few episodes are played to choose them by what they
    show, as `worldmodels check` does; their frames are in no ledger.

    Raises:
        UserError: the environment cannot be made, or nothing can be learnt in it.
    """
    cfg = PRESETS[name](env_id)
    if task_for(env_id).settings:
        return cfg
    frames = cfg.frame_spec
    found = measure(env_id, rows=frames.rows, crop=frames.crop)
    for finding in findings(found):
        if finding.level == "refused":
            raise UserError(f"{env_id}: {finding.text}")
    own = {choice.setting: choice.value for choice in choices(found, name)}
    return changed(cfg, {**own, "made_for": env_id})


smoke = partial(_settings, "smoke")
quick = partial(_settings, "quick")
full = partial(_settings, "full")
