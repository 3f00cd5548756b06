"""The controls of the final test: random actions, and the best of the constant ones.

They depend on the environment and the seeds alone, so they hold for every agent.
"""

from __future__ import annotations

from pathlib import Path

from worldmodels import envs
from worldmodels.evaluation import ConstantPolicy, PolicySpec, constant_policies, evaluate_many
from worldmodels.evaluation.statistics import told
from worldmodels.executors import given_or_new
from worldmodels.runs import write_json
from worldmodels.stage_configs import SelectionConfig, TestConfig
from worldmodels.stages.context import StageContext
from worldmodels.stages.selection import best_of

RANDOM, CONSTANT = "evaluation_random.json", "evaluation_constant.json"
"""Results in a run folder."""
MOST_EPISODES = 8
"""Selection episodes of each constant action, unless the selection has fewer."""


def remove_controls(cfg: TestConfig, out: Path) -> list[Path]:
    """Remove results that are not wanted any more; return the files of those that are."""
    wanted = {RANDOM: cfg.random_policy, CONSTANT: cfg.constant_action}
    for name in (name for name, on in wanted.items() if not on):
        (out / name).unlink(missing_ok=True)
    return [out / name for name, on in wanted.items() if on]


def run_controls(
    cfg: TestConfig, selection: SelectionConfig, env_id: str, out: Path, ctx: StageContext
) -> dict[str, float]:
    """Run the test episodes with each control; the results go to ``out``.

    Selection seeds choose the constant action. Returned are the mean returns there, by action.
    """
    policies: dict[str, PolicySpec] = {RANDOM: "random"} if cfg.random_policy else {}
    means, frames = dict[str, float](), 0
    if cfg.constant_action:
        with given_or_new(ctx.executor, 1, 1) as worker:
            ((_, tried),) = worker.map(_constants, [env_id])
        found = evaluate_many(
            tried,
            env_id,
            range(selection.seed, selection.seed + min(MOST_EPISODES, selection.episodes)),
            executor=ctx.executor,
            max_steps=selection.max_steps,
            resume=ctx.checkpoint("tried.json"),
        )
        policies[CONSTANT] = tried[best_of(found)]
        means = {result.agent: result.mean for result in found}
        frames = sum(result.frames for result in found)
    results = evaluate_many(
        list(policies.values()),
        env_id,
        range(cfg.seed, cfg.seed + cfg.episodes),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
        resume=ctx.checkpoint("tested.json"),
    )
    for name, result in zip(policies, results, strict=True):
        label = f"best constant{result.agent.removeprefix('always')}"
        named = {"label": label} if name == CONSTANT else {}
        write_json(out / name, {**result.to_json(), **named})
    ctx.count_frames("controls", frames + sum(result.frames for result in results))
    scores = ", ".join(f"{result.agent} {told(result.mean)}" for result in results)
    ctx.say(f"controls in {cfg.episodes} episodes: {scores}")
    return means


def _constants(env_id: str) -> list[ConstantPolicy]:
    env = envs.make(env_id)
    try:
        return constant_policies(envs.ActionSpec.from_space(env.action_space))
    finally:
        env.close()
