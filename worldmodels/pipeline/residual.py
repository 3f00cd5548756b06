"""The stage that learns a bounded change of the chosen C."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from worldmodels.agent import Agent
from worldmodels.evaluation import evaluate_many
from worldmodels.pipeline.committee import disband
from worldmodels.pipeline.context import Context, Iteration
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.policy_file import PolicyFile, origin


def residual_file(ctx: Context) -> Path:
    """Where the residual of the run's agent lies."""
    return ctx.run.agent / "residual.safetensors"


def learn_residual(ctx: Context, this: Iteration, key: str) -> dict[str, Any]:
    """Learn a bounded change of the agent's C in its dream; keep it if it drives better.

    Both drive selection tracks on which nothing was chosen before: on those that chose C, its mean
    is the best of several, and flatters it.
    """
    disband(ctx)
    cfg = ctx.cfg.selection
    agent = Agent.from_pretrained(ctx.run.agent)
    training = ctx.cfg.residual.training
    actors, critic = train_policies(
        agent,
        training,
        seed=ctx.seed_for("residual"),
        checkpoint=ctx.checkpoint_folder(f"residual/{this.number:02d}") / "policy.pt",
        log=partial(ctx.run.log, "residual", iteration=this.number),
    )
    file = PolicyFile(actors, critic, "residual", origin(agent, training.network))
    number = cfg.final_episodes or cfg.episodes
    first = cfg.seed + cfg.episodes + cfg.final_episodes
    alone, changed = evaluate_many(
        [agent, agent.with_control(file.control, file.digest)],
        ctx.cfg.env_id,
        list(range(first, first + number)),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    ctx.run.count_frames("selection", alone.frames + changed.frames, f"residual/{key[:8]}")
    dreamt = training.actors * training.steps * training.dreams * training.horizon
    ctx.run.count_frames("dream", dreamt, f"dream/residual/{key[:8]}")
    kept = bool(changed.mean > alone.mean)
    ctx.run.log(
        "residual_selection",
        iteration=this.number,
        real_mean=changed.mean,
        real_returns=changed.returns,
        controller_mean=alone.mean,
        controller_returns=alone.returns,
        kept=kept,
    )
    ctx.say(
        f"residual: {changed.mean:.0f} +- {changed.summary.std:.0f} on {number} tracks, C alone "
        f"{alone.mean:.0f} +- {alone.summary.std:.0f}: {'kept' if kept else 'C stays alone'}"
    )
    if kept:
        file.save(residual_file(ctx))
    else:
        residual_file(ctx).unlink(missing_ok=True)
    return {"real_mean": changed.mean, "controller_mean": alone.mean, "kept": kept}
