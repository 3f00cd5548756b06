"""The stages that choose between controllers by driving: the best snapshot, then the best agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldmodels.agent import Agent
from worldmodels.dream.config import DreamConfig
from worldmodels.evaluation import AgentParameters, EvaluationResult, evaluate_many
from worldmodels.metrics import Final, Selection
from worldmodels.presets import SelectionConfig
from worldmodels.runs import versions
from worldmodels.stages.committee import remove_members
from worldmodels.stages.context import StageContext
from worldmodels.stages.controller import Candidates
from worldmodels.stages.residual import remove_residual


@dataclass(frozen=True)
class Selected:
    """Which snapshot of C drives best."""

    generation: int
    """of the chosen snapshot"""
    real_mean: float
    """its mean return on the selection tracks"""
    dream_selected_real_mean: float
    """mean return of the snapshot that the dream would have chosen"""
    frames: int
    """real frames that the selection took"""


def select(
    cfg: SelectionConfig,
    dream: DreamConfig,
    folder: Path,
    candidates: Candidates,
    ctx: StageContext,
    *,
    episodes: int | None = None,
) -> Selected:
    """Drive every snapshot of C on the selection tracks; the agent gets the best one.

    Args:
        cfg: the tracks.
        dream: in which the snapshots were evolved, for the alarm.
        folder: agent whose C was evolved; it is written again with the chosen one.
        candidates: the snapshots.
        ctx: executor and metrics.
        episodes: on each snapshot; None takes ``cfg.episodes``.
    """
    agent = Agent.from_pretrained(folder)
    generations = sorted(candidates.snapshots)
    seeds = list(range(cfg.seed, cfg.seed + (episodes or cfg.episodes)))
    results = evaluate_many(
        [AgentParameters(folder, candidates.snapshots[g]) for g in generations],
        agent.env_id,
        seeds,
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    best = int(np.argmax([result.mean for result in results]))
    for place, (generation, result) in enumerate(zip(generations, results, strict=True)):
        promised = candidates.dreamed[generation]
        alarm = dream_alarm(cfg, promised / (dream.horizon * agent.action_repeat), result)
        if alarm:
            ctx.say(f"alarm, generation {generation}: {alarm}")
        ctx.log(
            "selection",
            **Selection(
                generation=generation,
                dream_return=promised,
                real_mean=result.mean,
                real_std=result.summary.std,
                real_returns=result.returns.tolist(),
                episodes=len(seeds),
                alarm=alarm,
                selected=place == best,
            ),
        )
    chosen, real = generations[best], results[best]
    ctx.say(
        f"iteration {ctx.iteration}: dream {candidates.dreamed[chosen]:.0f}, real "
        f"{real.mean:.0f} +- {real.summary.std:.0f} on {len(seeds)} tracks"
    )
    agent = agent.with_parameters(
        candidates.snapshots[chosen], iteration=ctx.iteration, generation=chosen
    )
    agent.save_pretrained(folder, dtype="float32")
    dream_picks = int(np.argmax([candidates.dreamed[g] for g in generations]))
    frames = sum(result.frames for result in results)
    return Selected(chosen, real.mean, results[dream_picks].mean, frames)


def dream_alarm(cfg: SelectionConfig, dreamt: float, real: EvaluationResult) -> str | None:
    """Say why a dream's reward per step cannot be believed, or None.

    Rewards per step are compared: a dream is shorter than a drive. The bound is what the
    environment can pay at most (`SelectionConfig.reward_bound`); without one, the alarm is raised
    where the dream promises more than double of what the same policy gets in reality.
    """
    bound = cfg.reward_bound
    if bound is not None and dreamt > bound:
        return f"the dream pays {dreamt:.2f} a step, reality at most {bound:.2f}: it is exploited"
    driven = float(real.returns.sum()) / max(1, real.frames)
    if dreamt > max(2 * driven, driven + 0.25):
        return f"the dream pays {dreamt:.2f} a step, reality paid {driven:.2f}: do not trust it"
    return None


@dataclass(frozen=True)
class Finalist:
    """The selected agent of one iteration."""

    iteration: int
    agent: Path
    """folder"""
    real_mean: float
    """mean return on the tracks that selected it"""


@dataclass(frozen=True)
class Chosen:
    """The finalist that becomes the run's agent."""

    iteration: int
    selection_mean: float
    """mean return on the last tracks that it drove"""
    frames: int
    """real frames that the choice took"""


def choose(
    cfg: SelectionConfig, finalists: Sequence[Finalist], out: Path, ctx: StageContext
) -> Chosen:
    """Let the finalists drive on further tracks; the winner becomes the agent in ``out``.

    Args:
        cfg: the tracks.
        finalists: the best on their own selection first; one alone drives no more.
        out: folder for the agent; what belonged to another agent is removed from it.
        ctx: seed, executor and metrics.
    """
    winner, mean, frames = finalists[0], finalists[0].real_mean, 0
    if len(finalists) > 1 and cfg.final_episodes:
        first = cfg.seed + cfg.episodes
        results = evaluate_many(
            [finalist.agent for finalist in finalists],
            Agent.from_pretrained(winner.agent).env_id,
            list(range(first, first + cfg.final_episodes)),
            executor=ctx.executor,
            max_steps=cfg.max_steps,
        )
        frames = sum(result.frames for result in results)
        best = int(np.argmax([result.mean for result in results]))
        winner, mean = finalists[best], results[best].mean
    ctx.log("final", **Final(winner=winner.iteration, real_mean=mean))
    ctx.say(f"final: round {winner.iteration}, {mean:.0f}")
    remove_residual(out)
    remove_members(out)
    agent = Agent.from_pretrained(winner.agent)
    agent.metadata |= {"seed": ctx.seed, "selection_mean": mean, "versions": versions()}
    agent.save_pretrained(out)
    return Chosen(winner.iteration, mean, frames)
