"""The stages in the real environment: selection, final, residual, ensemble and test.

All but the test use selection seeds, and each stage its own: the mean that chose an agent is the
best of several, and too high.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
from worldmodels.evaluation.statistics import told
from worldmodels.executors import given_or_new
from worldmodels.metrics import EnsembleSelection, Final, ResidualSelection, Selection
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.streams import PolicyTrainConfig
from worldmodels.policies.ensemble import FOLDER, Ensemble
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.policies.opening import best_policy, open_member, open_policy
from worldmodels.runs import atomic_write, derive_seed, versions
from worldmodels.stage_configs import SelectionConfig, TestConfig
from worldmodels.stages.alarm import Outcomes, WholeDreams, curves, disbelief
from worldmodels.stages.context import StageContext
from worldmodels.stages.controller import Candidates
from worldmodels.video import film

RESIDUAL = "residual.safetensors"
"""The residual in an agent's folder."""


def run_episodes(
    policies: Sequence[PolicySpec],
    env_id: str,
    seeds: Sequence[int],
    max_steps: int | None,
    ctx: StageContext,
) -> list[EvaluationResult]:
    """Run policies on the same selection seeds, and count the frames."""
    results = evaluate_many(policies, env_id, seeds, executor=ctx.executor, max_steps=max_steps)
    ctx.count_frames("selection", sum(result.frames for result in results))
    return results


def best_of(results: Sequence[EvaluationResult]) -> int:
    """Index of the best mean return."""
    return int(np.argmax([result.mean for result in results]))


def select(
    cfg: SelectionConfig,
    dream: DreamConfig,
    folder: Path,
    candidates: Candidates,
    ctx: StageContext,
    *,
    episodes: int | None = None,
) -> dict[str, Any]:
    """Run every snapshot of C on selection seeds; the agent in ``folder`` gets the best one.

    ``dream``, in which they were evolved, is for the alarm (`alarm_of`); ``episodes`` stands in for
    ``cfg.episodes``. Returned are the "generation" of the best, its "real_mean", and the "lowest"
    mean of all.
    """
    agent = Agent.from_pretrained(folder)
    generations = sorted(candidates.snapshots)
    seeds = range(cfg.seed, cfg.seed + (episodes or cfg.episodes))
    policies = [AgentParameters(folder, candidates.snapshots[g]) for g in generations]
    results = run_episodes(policies, agent.env_id, seeds, cfg.max_steps, ctx)
    best = best_of(results)
    own = ctx.seed_for("whole dreams")
    whole = WholeDreams(agent, dream, seeds, cfg.max_steps, own, ctx.executor)
    for place, (generation, result) in enumerate(zip(generations, results, strict=True)):
        record = _checkpoint(cfg, candidates, generation, result, whole, place == best)
        if record["alarm"]:
            ctx.say(f"alarm, generation {generation}: {record['alarm']}")
        ctx.log("selection", **record)
    chosen, real = generations[best], results[best]
    ctx.say(
        f"iteration {ctx.iteration}: dream {told(candidates.dreamed[chosen])}, real {_shown(real)} "
        f"in {len(seeds)} episodes"
    )
    parameters = candidates.snapshots[chosen]
    agent = agent.with_parameters(parameters, iteration=ctx.iteration, generation=chosen)
    agent.save_pretrained(folder, dtype="float32")
    lowest = min(result.mean for result in results)
    return {"generation": chosen, "real_mean": real.mean, "lowest": lowest}


def confirm(cfg: SelectionConfig, folder: Path, ctx: StageContext) -> float:
    """Mean return of the agent in ``folder`` on the seeds that compare finalists.

    A few selection episodes, the same for all checkpoints, may all be easy ones: an agent that
    survived in each of eight scored 457 of 500 in 64 others.
    """
    seeds = _final_seeds(cfg, cfg.final_episodes or cfg.episodes)
    agent = Agent.from_pretrained(folder)
    own = dataclasses.replace(ctx, ledger=f"confirm/{ctx.ledger.partition('/')[2]}")
    (result,) = run_episodes([agent], agent.env_id, seeds, cfg.max_steps, own)
    verdict = "no other iteration follows"
    if not cfg.is_enough(result.mean):
        verdict = "not enough to end with"
    ctx.say(f"iteration {ctx.iteration} scores {_shown(result)} in {len(seeds)} more: {verdict}")
    return result.mean


def _final_seeds(cfg: SelectionConfig, number: int) -> range:
    """The first seeds after those of the selection."""
    first = cfg.seed + cfg.episodes
    return range(first, first + number)


def _checkpoint(
    cfg: SelectionConfig,
    candidates: Candidates,
    generation: int,
    result: EvaluationResult,
    whole: WholeDreams,
    selected: bool,
) -> Selection:
    dreamed, real = candidates.dreamed[generation], Outcomes.of(result)
    dreamt = whole(candidates.snapshots[generation], result)
    return Selection(
        generation=generation,
        dream_return=dreamed,
        real_mean=result.mean,
        real_std=result.summary.std,
        real_returns=result.returns.tolist(),
        episodes=len(result.episodes),
        real_length=float(real.lengths.mean()),
        whole_dream_return=float(dreamt.returns.mean()),
        whole_dream_length=float(dreamt.lengths.mean()),
        survival=curves(dreamt, real) if selected else None,
        alarm=alarm_of(cfg, dreamed / whole.usual, dreamt, real),
        selected=selected,
    )


def alarm_of(cfg: SelectionConfig, per_step: float, dreamt: Outcomes, real: Outcomes) -> str | None:
    """Why a dream is not credible: above `SelectionConfig.reward_bound`, or see `disbelief`.

    ``per_step`` is its mean reward per step of the environment in the evolution.
    """
    bound = cfg.reward_bound
    if bound is not None and per_step > bound:
        return f"the dream pays {per_step:.2f} a step, reality at most {bound:.2f}: it is exploited"
    return disbelief(dreamt, real)


@dataclass(frozen=True)
class Finalist:
    """The selected agent of one iteration."""

    iteration: int
    agent: Path
    """folder"""
    real_mean: float
    """mean return on the seeds that selected it"""


def choose(
    cfg: SelectionConfig, finalists: Sequence[Finalist], out: Path, ctx: StageContext
) -> dict[str, Any]:
    """Compare the finalists (the best first) on other seeds; save the winner as the agent ``out``.

    A single finalist wins without episodes. The residual and the members of an earlier agent are
    removed from ``out``. Returned are the winner's "iteration" and its last "selection_mean".
    """
    winner, mean = finalists[0], finalists[0].real_mean
    if len(finalists) > 1 and cfg.final_episodes:
        seeds = _final_seeds(cfg, cfg.final_episodes)
        env_id = Agent.from_pretrained(winner.agent).env_id
        results = run_episodes([f.agent for f in finalists], env_id, seeds, cfg.max_steps, ctx)
        best = best_of(results)
        winner, mean = finalists[best], results[best].mean
    ctx.log("final", **Final(winner=winner.iteration, real_mean=mean))
    ctx.say(f"final: iteration {winner.iteration}, {told(mean)}")
    remove_residual(out)
    remove_members(out)
    agent = Agent.from_pretrained(winner.agent)
    agent.metadata |= {"seed": ctx.seed, "selection_mean": mean, "versions": versions()}
    agent.save_pretrained(out)
    return {"iteration": winner.iteration, "selection_mean": mean}


def remove_residual(agent: Path) -> None:
    """Remove the residual of another C from an agent's folder."""
    (agent / RESIDUAL).unlink(missing_ok=True)


def learn_residual(
    training: PolicyTrainConfig, cfg: SelectionConfig, folder: Path, ctx: StageContext
) -> ResidualSelection:
    """Learn a bounded change of an agent's C in its dream; keep it if it scores better."""
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
    alone, changed = run_episodes(policies, agent.env_id, seeds, cfg.max_steps, ctx)
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
        f"residual: {_shown(changed)} in {number} episodes, C alone {_shown(alone)}: "
        f"{'kept' if kept else 'not kept'}"
    )
    if kept:
        file.save(folder / RESIDUAL)
    else:
        remove_residual(folder)
    return record


def remove_members(agent: Path) -> None:
    """Remove the other members of an ensemble from an agent's folder."""
    shutil.rmtree(agent / FOLDER, ignore_errors=True)


def add_members(
    cfg: SelectionConfig, folder: Path, others: Mapping[int, Path], ctx: StageContext
) -> list[int]:
    """Try ensembles of an agent and other iterations' agents; keep and return the best members.

    The agent is combined with each of the others and with all of them, on new selection seeds, and
    stays alone if that scores better. Two members whose actions are choices would always do what
    the first one does. ``others`` are folders by iteration, the best first.
    """
    remove_members(folder)
    agent, store = open_member(folder), ctx.state
    pairs = agent.action_spec.kind == "box"
    candidates = [[number] for number in others] if pairs else []
    if len(others) > 1:
        candidates.append([*others])
    if not candidates:
        return []
    episodes = cfg.final_episodes or cfg.episodes
    first = cfg.seed + cfg.episodes + cfg.final_episodes + episodes
    assert store is not None, "the candidates are stored there"
    members = {n: _member(other, store / f"{n:02d}") for n, other in others.items()}
    groups = [Ensemble([agent, *(members[n] for n in group)]) for group in candidates]
    seeds = range(first, first + episodes)
    alone, *together = run_episodes([agent, *groups], agent.env_id, seeds, cfg.max_steps, ctx)
    best = best_of(together)
    kept = candidates[best] if together[best].mean > alone.mean else []
    shutil.rmtree(store / FOLDER, ignore_errors=True)  # left by a kill
    for place, n in enumerate(kept, 1):
        shutil.copytree(store / f"{n:02d}", store / FOLDER / f"{place:02d}")
    if kept:
        os.replace(store / FOLDER, folder / FOLDER)
    for tried, result in zip(candidates, together, strict=True):
        ctx.log(
            "ensemble_selection",
            **EnsembleSelection(
                rounds=list(tried),
                real_mean=result.mean,
                real_returns=result.returns.tolist(),
                alone_mean=alone.mean,
                alone_returns=alone.returns.tolist(),
                kept=tried == kept,
            ),
        )
    names = " and ".join(str(n) for n in candidates[best])
    ctx.say(
        f"ensemble with the agent of iteration {names}: {_shown(together[best])} in {episodes} "
        f"episodes, the agent alone {_shown(alone)}: {'kept' if kept else 'not kept'}"
    )
    return kept


def _member(agent: Path, folder: Path) -> Agent:
    """Store an agent as a member, with what it needs to act, and open it."""
    Agent.from_pretrained(agent).without_dreams().save_pretrained(folder)
    return open_member(folder)


def _shown(result: EvaluationResult) -> str:
    return f"{told(result.mean)} +- {told(result.summary.std)}"


def test(
    cfg: TestConfig, env_id: str, test_env_id: str, folder: Path, out: Path, ctx: StageContext
) -> EvaluationResult:
    """Run the test episodes once, and film three of them; results and films go to ``out``.

    The films use ``env_id``, in which the agent learnt: it has the physics and rewards of
    ``test_env_id``, and is faster.
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
    interval = "" if ci95 is None else f" (95% interval {told(ci95[0])} to {told(ci95[1])})"
    ctx.say(f"test: {told(result.mean)}{interval} in {len(seeds)} episodes")
    if cfg.videos:
        with given_or_new(ctx.executor, 1, 1) as worker:
            acting = open_member(folder) if worker.remote else folder
            ((_, files),) = worker.map(partial(_film, acting, result), [env_id])
        for name, content in files.items():
            atomic_write(out / "media" / name, content)
    return result


def _film(acting: Agent | Path, result: EvaluationResult, env_id: str) -> dict[str, bytes]:
    """The files of `film`."""
    agent = open_member(acting) if isinstance(acting, Path) else acting
    with tempfile.TemporaryDirectory() as home:
        film(agent, env_id, result, Path(home))
        return {path.name: path.read_bytes() for path in sorted(Path(home).iterdir())}
