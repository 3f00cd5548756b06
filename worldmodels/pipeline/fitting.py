"""Whether a run's settings fit its environments, which is asked before anything runs."""

from __future__ import annotations

import contextlib

from worldmodels.envs import make, require_limit
from worldmodels.envs.spaces import ActionSpec
from worldmodels.protocols import UserError
from worldmodels.run_config import RunConfig
from worldmodels.tasks import task_for


def require_fitting(cfg: RunConfig) -> None:
    """Make the run's environments and compare their spaces with the settings, before anything runs.

    Raises:
        UserError: an environment cannot be made, or a setting does not fit it.
    """
    spaces = {}
    for env_id in dict.fromkeys((cfg.env_id, cfg.test_env)):
        with contextlib.closing(make(env_id)) as env:
            spaces[env_id] = env.action_space
    spec, tested = (ActionSpec.from_space(spaces[name]) for name in (cfg.env_id, cfg.test_env))
    if tested != spec:
        raise UserError(
            f"test_env_id {cfg.test_env!r} takes other actions than env_id {cfg.env_id!r}: "
            f"{spaces[cfg.test_env]}, not {spaces[cfg.env_id]}"
        )
    cfg.check_fits(spec)
    if cfg.horizontal_flip:
        task_for(cfg.env_id).flip(cfg.env_id, cfg.frame_spec, spec)


def require_limits(cfg: RunConfig) -> None:
    """Refuse episodes without any limit: a `UserError` that says how to give one."""
    unlimited = [name for name, limit in cfg.limits().items() if limit is None]
    if unlimited:
        for env_id in dict.fromkeys((cfg.env_id, cfg.test_env)):
            with contextlib.closing(make(env_id)) as env:
                require_limit(env, f"give --max-steps, which limits {', '.join(unlimited)}, or ")
