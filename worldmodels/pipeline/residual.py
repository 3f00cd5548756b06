"""The stage that learns a bounded change of the chosen C."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from worldmodels.agent import Agent
from worldmodels.evaluation import evaluate
from worldmodels.pipeline.context import Context, Iteration
from worldmodels.planning.actor_critic import train_policy
from worldmodels.planning.networks import ActorControl, PolicyFile, origin


def residual_file(ctx: Context) -> Path:
    """Where the residual of the run's agent lies."""
    return ctx.run.agent / "residual.safetensors"


def learn_residual(ctx: Context, this: Iteration, key: str) -> dict[str, Any]:
    """Learn a bounded change of the agent's C in its dream; keep it if it drives better.

    It drives the tracks that the finalists drove last; where there was only one, C's mean over the
    tracks of its round is what it has to beat.
    """
    cfg = ctx.cfg.selection
    agent = Agent.from_pretrained(ctx.run.agent)
    training = ctx.cfg.residual.training
    actor, critic = train_policy(
        agent,
        training,
        seed=ctx.seed_for("residual"),
        checkpoint=ctx.checkpoint_folder(f"residual/{this.number:02d}") / "policy.pt",
        log=partial(ctx.run.log, "residual", iteration=this.number),
    )
    file = PolicyFile(actor, critic, "residual", origin(agent, training.network))
    first, count = cfg.seed + cfg.episodes, cfg.final_episodes or cfg.episodes
    result = evaluate(
        agent.with_control(ActorControl(actor), file.digest),
        ctx.cfg.env_id,
        list(range(first, first + count)),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    ctx.run.count_frames("selection", result.frames, f"residual/{key[:8]}")
    dreamt = training.steps * training.dreams * training.horizon
    ctx.run.count_frames("dream", dreamt, f"dream/residual/{key[:8]}")
    before = float(agent.metadata["selection_mean"])
    kept = bool(result.mean > before)
    ctx.say(
        f"residual: {result.mean:.0f} +- {result.summary.std:.0f} on {count} tracks, "
        f"C {before:.0f}: {'kept' if kept else 'C stays alone'}"
    )
    if kept:
        file.save(residual_file(ctx))
    else:
        residual_file(ctx).unlink(missing_ok=True)
    return {"real_mean": result.mean, "controller_mean": before, "kept": kept}
