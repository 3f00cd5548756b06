"""The stage that tests: the published tracks, once, every episode counted."""

from __future__ import annotations

from pathlib import Path

from worldmodels.evaluation import EvaluationResult, evaluate
from worldmodels.planning.drivers import best_driver, open_driver, open_member
from worldmodels.presets import TestConfig
from worldmodels.stages.context import StageContext
from worldmodels.video import film


def test(
    cfg: TestConfig, env_id: str, test_env_id: str, folder: Path, out: Path, ctx: StageContext
) -> EvaluationResult:
    """Drive the test tracks, write the result, and film three of the episodes.

    Args:
        cfg: the tracks.
        env_id: environment that the agent learnt in: the random policy and the films use it, since
            it has the same physics and rewards and is faster.
        test_env_id: environment of the test.
        folder: of the agent.
        out: folder for `evaluation.json`, `evaluation_random.json` and `media`.
        ctx: executor.
    """
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes))
    chosen = best_driver(folder)
    result = evaluate(
        folder if chosen == "controller" else open_driver(folder, chosen),
        test_env_id,
        seeds,
        executor=ctx.executor,
        name=folder.name + ("" if chosen == "controller" else f" ({chosen})"),
        keep_actions=True,
        max_steps=cfg.max_steps,
    )
    ctx.count_frames("test", result.frames)
    result.write(out / "evaluation.json")
    ci95 = result.summary.ci95
    interval = "" if ci95 is None else f" (95% interval {ci95[0]:.0f} to {ci95[1]:.0f})"
    ctx.say(f"test: {result.mean:.0f}{interval} over {len(seeds)} tracks")
    if cfg.random_driver:
        random = evaluate("random", env_id, seeds, executor=ctx.executor, max_steps=cfg.max_steps)
        random.write(out / "evaluation_random.json")
    if cfg.videos:
        film(open_member(folder), env_id, result, out / "media")
    return result
