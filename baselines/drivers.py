"""A trained baseline on disk: `config.json` with its frozen recipe, `policy.safetensors`.

No code is read from either: the network is built from the recipe and given tensors whose SHA-256
the config names. A policy of a dream also needs the agent that dreamt; the config names its folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldmodels import runs
from worldmodels._from_json import from_json
from worldmodels.protocols import Policy, UserError

if TYPE_CHECKING:
    import gymnasium as gym
    from torch import Tensor, nn

    from baselines.recipes import Recipe
    from worldmodels.envs import ActionSpec

CONFIG = "config.json"
WEIGHTS = "policy.safetensors"
SCHEMA = "driver/1"
"""Layout of the folder; a reader refuses others."""


def is_driver(folder: Path) -> bool:
    """Whether a folder, or its run's, holds a baseline's policy; False for anything unreadable."""
    try:
        content = runs.read_json(runs.agent_folder(folder) / CONFIG)
    except UserError:
        return False
    return isinstance(content, dict) and str(content.get("schema", "")).startswith("driver/")


def save_driver(
    folder: Path,
    policy: nn.Module,
    recipe: Recipe,
    env: gym.Env[Any, Any],
    *,
    env_id: str,
    world: Path | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write a policy; the config is last, so that a folder with one is complete.

    Args:
        folder: made if it is not there.
        policy: Stable-Baselines3's network.
        recipe: what it was trained by.
        env: an environment of the kind that it acts in, for its spaces.
        env_id: that environment's id.
        world: the agent in whose dream it was trained.
        facts: what else the config shall say: frames, seed, score.

    Raises:
        UserError: the action space is not supported, or the disk refuses the files.
    """
    from safetensors.torch import save

    from worldmodels.envs import ActionSpec

    # shared layers have several names; safetensors takes each tensor once
    data = save({name: p.detach().cpu().contiguous() for name, p in policy.named_parameters()})
    runs.atomic_write(folder / WEIGHTS, data)
    config = {
        "schema": SCHEMA,
        "env_id": env_id,
        "recipe": recipe,
        "observation_shape": env.observation_space.shape,
        "action_spec": ActionSpec.from_space(env.action_space),
        "world": None if world is None else os.path.relpath(world, folder),
        "sha256": hashlib.sha256(data).hexdigest(),
        "versions": runs.versions(),
        **(facts or {}),
    }
    runs.write_json(folder / CONFIG, config)
    return folder


def load_driver(folder: Path) -> Policy:
    """Open a policy of raw frames, by its folder or its run's.

    Raises:
        UserError: a file is missing or damaged, of another version, or a package is not installed.
    """
    from baselines.recipes import DriverConfig

    folder = runs.agent_folder(folder)
    config = runs.read_json(folder / CONFIG)
    schema = config.get("schema") if isinstance(config, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{folder / CONFIG} has schema {schema!r}, this version reads {SCHEMA!r}: "
            "use the version that wrote it"
        )
    cfg = from_json(DriverConfig, config, f"{folder / CONFIG}: ", ignore_unknown=True)
    recipe, tensors = cfg.recipe, _read(folder / WEIGHTS, cfg.sha256)
    if recipe.pixels is None:
        from baselines.dream import drive_by

        return drive_by(recipe, tensors, folder / str(cfg.world), cfg.sha256)
    from baselines.actions import UnitActions
    from baselines.models import build_policy
    from baselines.policies import PixelPolicy
    from worldmodels.policies.observations import declared_shape

    actions = UnitActions(cfg.action_spec) if recipe.unit_actions else None
    space = action_space(cfg.action_spec) if actions is None else actions.space
    policy = build_policy(recipe, recipe.pixels.space, space)
    assign(policy, tensors, folder / WEIGHTS)
    shape = cfg.observation_shape or declared_shape(cfg.env_id)
    return PixelPolicy(policy, recipe.pixels, cfg.sha256, shape, actions, cfg.sampled)


def _read(path: Path, digest: str) -> dict[str, Tensor]:
    from worldmodels.artifacts import read_tensors

    try:
        file = read_tensors(path, "copy the policy's folder again")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; the policy's folder is incomplete") from None
    if file.digest != digest:
        raise UserError(f"{path} is not the file that {CONFIG} was written with; copy it again")
    return file.tensors


def assign(policy: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a network its tensors and switch it to evaluation mode.

    Raises:
        UserError: one is missing or has another shape.
    """
    for name, parameter in policy.named_parameters():
        found = tensors.get(name)
        if found is None or found.shape != parameter.shape:
            shape = "is missing" if found is None else f"has shape {tuple(found.shape)}"
            raise UserError(
                f"{path}: tensor {name!r} {shape}; the recipe needs {tuple(parameter.shape)}"
            )
        parameter.data.copy_(found)
    policy.eval()


def action_space(spec: ActionSpec) -> gym.spaces.Space[Any]:
    """Gymnasium's space of the action spec in a config."""
    return spec.to_space()
