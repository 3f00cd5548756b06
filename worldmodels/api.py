"""`worldmodels run` and `worldmodels evaluate` as functions, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldmodels import evaluation
from worldmodels.commands.check import checked
from worldmodels.commands.evaluate import Evaluate
from worldmodels.commands.parsing import load_preset
from worldmodels.evaluation import EvaluationResult
from worldmodels.executors import Placement
from worldmodels.pipeline import run_pipeline
from worldmodels.protocols import TEST_SEED_START, Policy, UserError
from worldmodels.run_config import DEFAULT_ENV, changed
from worldmodels.runs import Device
from worldmodels.settings import with_settings
from worldmodels.tasks import task_for


def run(
    env: str = DEFAULT_ENV,
    out: str | Path | None = None,
    *,
    preset: str = "quick",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int | None = None,
    max_steps: int | None = None,
    check: bool = True,
    device: Device = "cpu",
) -> Path:
    """Run all stages, as `worldmodels run` does: collect, V, M, dream, C, selection, test, report.

    ::

        folder = worldmodels.run("CarRacing-v3", preset="smoke", settings={"vision.z_dim": 16})
        agent = worldmodels.Agent.from_pretrained(folder)

    The same call resumes an interrupted run, and repeats only what changed settings concern. With
    several workers a script must call it under ``if __name__ == "__main__":``.

    Args:
        env: Gymnasium id, or ``module:Id-v0``.
        out: run folder (default: ``runs/PRESET``).
        preset: where settings come from: "smoke", "quick" or "full".
        settings: single settings to change, by their names on the command line.
        seed: of the whole run.
        workers: processes; the result is the same for any number (default: one per usable core).
        max_steps: truncate episodes of every stage after so many steps.
        check: play a few episodes first, and choose defaults by what they show, where the
            environment has no task with settings of its own.
        device: "cpu" or "cuda": where V and M are trained and C is evolved.

    Returns:
        The run folder: ``agent/``, ``report.html``, ``experience/``, ``evaluation.json``, ...

    Raises:
        UserError: an unknown setting or environment, a value out of its range, or a folder that
            another process works in or that holds another run.
    """
    folder, own = Path("runs") / preset if out is None else Path(out), settings or {}
    base = load_preset(preset, env)
    cfg = with_settings(base, own)
    if check:
        repeat = cfg.action_repeat if "action_repeat" in own else None
        record = checked(folder, cfg, preset, max_steps, repeat)
        if record is not None:
            cfg = with_settings(changed(base, record.settings), own)
    run_pipeline(cfg.limited(max_steps), folder, seed, workers, preset, device)
    return folder


def evaluate(
    agent: str | Path | Policy,
    env: str | None = None,
    *,
    episodes: int = 20,
    seed: int = TEST_SEED_START,
    policy: str | None = None,
    workers: int | None = None,
    max_steps: int | None = None,
    deterministic: bool = True,
) -> EvaluationResult:
    """Measure a policy in the real environment: one episode for each of the seeds S, ..., S+N-1.

    ::

        result = worldmodels.evaluate("car-racing", episodes=3)
        print(result.mean, result.summary.ci95, result.returns)

    Args:
        agent: an agent's or a baseline's folder, that of its run, the name of a bundled agent,
            "random", "zeros", or any object with Stable-Baselines3's `predict`.
        env: Gymnasium id (default: the agent's own, or the stock one of a faster version).
        episodes: N.
        seed: S; the published test seeds are 1000000 to 1000099.
        policy: policy on the V and M of an agent given by folder or name (default: see
            `open_policy`).
        workers: processes, for which an object must be picklable (default: one per usable core).
        max_steps: truncate episodes after so many steps.
        deterministic: ask the policy for its mode.

    Raises:
        UserError: no such agent, policy or environment, or an agent for another action space.
    """
    if isinstance(agent, str | Path):
        return Evaluate(
            str(agent),
            policy=policy,
            env=env,
            episodes=episodes,
            seed=seed,
            placement=Placement(workers),
            max_steps=max_steps,
            deterministic=deterministic,
        ).measure()
    home = getattr(agent, "env_id", None)
    if policy is not None:
        raise UserError(f"policy is {policy!r}; with an object leave it out: it is the policy")
    if env is None and home is None:
        raise UserError("the policy does not say its environment; name it with env")
    return evaluation.evaluate(
        agent,
        env or task_for(str(home)).test_env(str(home)),
        range(seed, seed + episodes),
        workers,
        max_steps=max_steps,
        deterministic=deterministic,
    )
