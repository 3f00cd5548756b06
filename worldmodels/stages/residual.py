"""The stage that learns a bounded change of the chosen C."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worldmodels.agent import Agent
from worldmodels.evaluation import evaluate_many
from worldmodels.metrics import ResidualSelection
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.streams import PolicyTrainConfig
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.presets import SelectionConfig
from worldmodels.runs import derive_seed
from worldmodels.stages.committee import remove_members
from worldmodels.stages.context import StageContext


@dataclass(frozen=True)
class Residual:
    """What a bounded change of C is worth."""

    real_mean: float
    """mean return of C with the change"""
    controller_mean: float
    """of C alone, on the same tracks"""
    kept: bool
    """whether the agent has it now"""
    frames: int
    """real frames that the choice took"""
    dreamt: int
    """steps of M that the training took"""


def residual_file(agent: Path) -> Path:
    """Where the residual of an agent lies."""
    return agent / "residual.safetensors"


def remove_residual(agent: Path) -> None:
    """Remove the residual of another C from an agent's folder."""
    residual_file(agent).unlink(missing_ok=True)


def learn_residual(
    training: PolicyTrainConfig, cfg: SelectionConfig, folder: Path, ctx: StageContext
) -> Residual:
    """Learn a bounded change of an agent's C in its dream; keep it if it drives better.

    Both drive selection tracks on which nothing was chosen before: on those that chose C, its mean
    is the best of several, and flatters it.

    Args:
        training: of the change.
        cfg: the tracks.
        folder: of the agent.
        ctx: seed, executor, checkpoints and metrics.
    """
    remove_members(folder)
    agent = Agent.from_pretrained(folder)
    actors, critic = train_policies(
        agent,
        training,
        seed=derive_seed(ctx.seed, "residual"),
        checkpoint=ctx.checkpoint("policy.safetensors"),
        log=partial(ctx.log, "residual"),
    )
    file = PolicyFile(actors, critic, "residual", origin(agent, training.network))
    number = cfg.final_episodes or cfg.episodes
    first = cfg.seed + cfg.episodes + cfg.final_episodes
    alone, changed = evaluate_many(
        [agent, agent.with_control(file.control, file.digest)],
        agent.env_id,
        list(range(first, first + number)),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    kept = bool(changed.mean > alone.mean)
    ctx.log(
        "residual_selection",
        **ResidualSelection(
            real_mean=changed.mean,
            real_returns=changed.returns.tolist(),
            controller_mean=alone.mean,
            controller_returns=alone.returns.tolist(),
            kept=kept,
        ),
    )
    ctx.say(
        f"residual: {changed.mean:.0f} +- {changed.summary.std:.0f} on {number} tracks, C alone "
        f"{alone.mean:.0f} +- {alone.summary.std:.0f}: {'kept' if kept else 'C stays alone'}"
    )
    if kept:
        file.save(residual_file(folder))
    else:
        remove_residual(folder)
    dreamt = training.actors * training.steps * training.dreams * training.horizon
    frames = alone.frames + changed.frames
    return Residual(changed.mean, alone.mean, kept, frames, dreamt)
