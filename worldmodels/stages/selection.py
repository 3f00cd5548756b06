"""The stages of real driving: a snapshot, the run's agent, its residual, its ensemble, the test.

All but the test drive tracks of the selection; those that chose an agent do not judge it a second
time, since its mean there is the best of several, and flatters it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from worldmodels.agent import Agent
from worldmodels.dream.config import DreamConfig
from worldmodels.evaluation import (
    AgentParameters,
    EvaluationResult,
    PolicySpec,
    evaluate,
    evaluate_many,
)
from worldmodels.metrics import EnsembleSelection, Final, ResidualSelection, Selection
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.streams import PolicyTrainConfig
from worldmodels.policies.ensemble import FOLDER, Ensemble
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.policies.opening import best_policy, open_member, open_policy
from worldmodels.presets import SelectionConfig, TestConfig
from worldmodels.runs import derive_seed, versions
from worldmodels.stages.context import StageContext
from worldmodels.stages.controller import Candidates
from worldmodels.video import film

RESIDUAL = "residual.safetensors"
"""The residual in an agent's folder."""


def drive(
    policies: Sequence[PolicySpec],
    env_id: str,
    seeds: Sequence[int],
    max_steps: int | None,
    ctx: StageContext,
) -> list[EvaluationResult]:
    """Let policies drive the same selection tracks, and count the frames."""
    results = evaluate_many(policies, env_id, seeds, executor=ctx.executor, max_steps=max_steps)
    ctx.count_frames("selection", sum(result.frames for result in results))
    return results


def best_of(results: Sequence[EvaluationResult]) -> int:
    """Place of the best mean return."""
    return int(np.argmax([result.mean for result in results]))


@dataclass(frozen=True)
class Selected:
    """Which snapshot of C drives best."""

    generation: int
    """of the chosen snapshot"""
    real_mean: float
    """its mean return on the selection tracks"""


def select(
    cfg: SelectionConfig,
    dream: DreamConfig,
    folder: Path,
    candidates: Candidates,
    ctx: StageContext,
    *,
    episodes: int | None = None,
) -> Selected:
    """Drive every snapshot of C on the selection tracks; the agent in ``folder`` gets the best one.

    ``dream``, in which they were evolved, is needed for the alarm (`dream_alarm`); ``episodes``
    drives so many tracks instead of ``cfg.episodes``.
    """
    agent = Agent.from_pretrained(folder)
    generations = sorted(candidates.snapshots)
    seeds = range(cfg.seed, cfg.seed + (episodes or cfg.episodes))
    policies = [AgentParameters(folder, candidates.snapshots[g]) for g in generations]
    results = drive(policies, agent.env_id, seeds, cfg.max_steps, ctx)
    best = best_of(results)
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
        f"iteration {ctx.iteration}: dream {candidates.dreamed[chosen]:.0f}, real {_shown(real)} "
        f"on {len(seeds)} tracks"
    )
    parameters = candidates.snapshots[chosen]
    agent = agent.with_parameters(parameters, iteration=ctx.iteration, generation=chosen)
    agent.save_pretrained(folder, dtype="float32")
    return Selected(chosen, real.mean)


def dream_alarm(cfg: SelectionConfig, dreamt: float, real: EvaluationResult) -> str | None:
    """Say why a dream's reward per step cannot be believed, or None.

    Rewards per step are compared: a dream is shorter than an episode. The bound is what the
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


def choose(
    cfg: SelectionConfig, finalists: Sequence[Finalist], out: Path, ctx: StageContext
) -> Chosen:
    """Let the finalists drive on further tracks; the winner becomes the agent in ``out``.

    The best on their own selection come first; one alone drives no more. What belonged to another
    agent is removed from ``out``.
    """
    winner, mean = finalists[0], finalists[0].real_mean
    if len(finalists) > 1 and cfg.final_episodes:
        first = cfg.seed + cfg.episodes
        seeds = range(first, first + cfg.final_episodes)
        env_id = Agent.from_pretrained(winner.agent).env_id
        results = drive([f.agent for f in finalists], env_id, seeds, cfg.max_steps, ctx)
        best = best_of(results)
        winner, mean = finalists[best], results[best].mean
    ctx.log("final", **Final(winner=winner.iteration, real_mean=mean))
    ctx.say(f"final: iteration {winner.iteration}, {mean:.0f}")
    remove_residual(out)
    remove_members(out)
    agent = Agent.from_pretrained(winner.agent)
    agent.metadata |= {"seed": ctx.seed, "selection_mean": mean, "versions": versions()}
    agent.save_pretrained(out)
    return Chosen(winner.iteration, mean)


def remove_residual(agent: Path) -> None:
    """Remove the residual of another C from an agent's folder."""
    (agent / RESIDUAL).unlink(missing_ok=True)


def learn_residual(
    training: PolicyTrainConfig, cfg: SelectionConfig, folder: Path, ctx: StageContext
) -> ResidualSelection:
    """Learn a bounded change of an agent's C in its dream; keep it if it drives better."""
    remove_members(folder)
    agent = Agent.from_pretrained(folder)
    actors, critic = train_policies(
        agent,
        training,
        seed=derive_seed(ctx.seed, "residual"),
        checkpoint=ctx.checkpoint("policy.safetensors"),
        log=partial(ctx.log, "residual"),
    )
    ctx.count_frames(
        "dream", training.actors * training.steps * training.batch_size * training.horizon
    )
    file = PolicyFile(actors, critic, "residual", origin(agent, training.network))
    number = cfg.final_episodes or cfg.episodes
    first = cfg.seed + cfg.episodes + cfg.final_episodes
    policies = [agent, agent.with_policy(file.policy, file.digest)]
    seeds = range(first, first + number)
    alone, changed = drive(policies, agent.env_id, seeds, cfg.max_steps, ctx)
    kept = bool(changed.mean > alone.mean)
    record = ResidualSelection(
        real_mean=changed.mean,
        real_returns=changed.returns.tolist(),
        controller_mean=alone.mean,
        controller_returns=alone.returns.tolist(),
        kept=kept,
    )
    ctx.log("residual_selection", **record)
    ctx.say(
        f"residual: {_shown(changed)} on {number} tracks, C alone {_shown(alone)}: "
        f"{'kept' if kept else 'C stays alone'}"
    )
    if kept:
        file.save(folder / RESIDUAL)
    else:
        remove_residual(folder)
    return record


def remove_members(agent: Path) -> None:
    """Remove the other members, of whatever was chosen before, from an agent's folder."""
    shutil.rmtree(agent / FOLDER, ignore_errors=True)


def add_members(
    cfg: SelectionConfig, folder: Path, others: Mapping[int, Path], ctx: StageContext
) -> list[int]:
    """Let an agent drive with other iterations' agents; keep and return those that help most.

    Tried are the agent with each of the others, and with all of them, on selection tracks on which
    nothing was chosen before; the agent alone drives them too, and stays alone if it is better.

    ``others`` are folders of agents by their iteration, the best first; with none nothing is tried.
    """
    remove_members(folder)
    if not others:
        return []
    candidates = [[number] for number in others]
    if len(others) > 1:
        candidates.append([*others])
    episodes = cfg.final_episodes or cfg.episodes
    first = cfg.seed + cfg.episodes + cfg.final_episodes + episodes
    agent, store = open_member(folder), ctx.state
    assert store is not None, "the candidates are stored there"
    drivers = {n: _member(other, store / f"{n:02d}") for n, other in others.items()}
    groups = [Ensemble([agent, *(drivers[n] for n in group)]) for group in candidates]
    seeds = range(first, first + episodes)
    alone, *together = drive([agent, *groups], agent.env_id, seeds, cfg.max_steps, ctx)
    best = best_of(together)
    kept = candidates[best] if together[best].mean > alone.mean else []
    shutil.rmtree(store / FOLDER, ignore_errors=True)  # left by a kill
    for place, n in enumerate(kept, 1):
        shutil.copytree(store / f"{n:02d}", store / FOLDER / f"{place:02d}")
    if kept:
        os.replace(store / FOLDER, folder / FOLDER)
    for members, result in zip(candidates, together, strict=True):
        ctx.log(
            "ensemble_selection",
            **EnsembleSelection(
                rounds=list(members),
                real_mean=result.mean,
                real_returns=result.returns.tolist(),
                alone_mean=alone.mean,
                alone_returns=alone.returns.tolist(),
                kept=members == kept,
            ),
        )
    names = " and ".join(str(n) for n in candidates[best])
    ctx.say(
        f"ensemble with the agent of iteration {names}: {_shown(together[best])} on {episodes} "
        f"tracks, the agent alone {_shown(alone)}: {'kept' if kept else 'it stays alone'}"
    )
    return kept


def _member(agent: Path, folder: Path) -> Agent:
    """An agent as a member is stored: what it needs in order to drive."""
    Agent.from_pretrained(agent).without_dreams().save_pretrained(folder)
    return open_member(folder)


def _shown(result: EvaluationResult) -> str:
    return f"{result.mean:.0f} +- {result.summary.std:.0f}"


def test(
    cfg: TestConfig, env_id: str, test_env_id: str, folder: Path, out: Path, ctx: StageContext
) -> EvaluationResult:
    """Drive the test tracks once, every episode counted; film three of them.

    The result and the films go to ``out``. The random policy and the films use ``env_id``, in which
    the agent learnt: it has the physics and rewards of ``test_env_id``, and is faster.
    """
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes))
    chosen = best_policy(folder)
    result = evaluate(
        folder if chosen == "controller" else open_policy(folder, chosen),
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
    if cfg.random_policy:
        random = evaluate("random", env_id, seeds, executor=ctx.executor, max_steps=cfg.max_steps)
        random.write(out / "evaluation_random.json")
    if cfg.videos:
        film(open_member(folder), env_id, result, out / "media")
    return result
