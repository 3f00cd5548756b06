"""The stages that make the driver: C in the dream, selection, the final choice, the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from worldmodels.agent import Agent
from worldmodels.controller.evolve import Generation
from worldmodels.dream.starts import DreamStarts, before_losses, build_starts
from worldmodels.evaluation import (
    AgentParameters,
    EvaluationResult,
    evaluate,
    evaluate_many,
)
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.pipeline.committee import disband
from worldmodels.pipeline.context import Context, Iteration
from worldmodels.pipeline.evolution import DreamEvolution, generation_metrics
from worldmodels.pipeline.model import (
    dreaming_memories,
    load_latents,
    load_reward_model,
    load_vision,
)
from worldmodels.pipeline.residual import residual_file
from worldmodels.planning.drivers import best_driver, open_driver, open_member
from worldmodels.presets import RunConfig
from worldmodels.runs import load_checkpoint, save_checkpoint, versions
from worldmodels.video import film
from worldmodels.vision.latents import Latents

# --- the dream and C


def evolve_controller(
    ctx: Context, this: Iteration, before: Sequence[Iteration], key: str
) -> dict[str, Any]:
    """Evolve C inside the dream; keep its mean at several generations for the selection."""
    cfg = ctx.cfg
    memories = [memory.to(ctx.dreams_on) for memory in dreaming_memories(ctx, this, before)]
    starts = _starts(ctx, this, before, memories)
    reward = load_reward_model(this)
    search = DreamEvolution.of(
        cfg.controller, cfg.dream, memories, reward, starts, cfg.env_id, ctx.action_spec
    )
    seed = ctx.seed_for("controller", this.number)
    x0 = search.first_parameters(seed)
    if before and cfg.controller.carry_on:
        x0 = Agent.from_pretrained(before[-1].agent).parameters

    def log(record: Generation, _: Any) -> None:
        ctx.run.log("controller", iteration=this.number, **generation_metrics(record))

    checkpoint = ctx.checkpoint_folder(f"controller/{this.number:02d}") / "state.json"
    result = search.run(seed, x0, checkpoint, log, key)
    dreamed = {g.generation: g.mean_return for g in result.history if g.mean_return is not None}
    agent = Agent(
        load_vision(ctx, this),
        [memory.cpu() for memory in memories],
        search.shape,
        result.parameters,
        env_id=cfg.env_id,
        frame_spec=cfg.frame_spec,
        action_spec=ctx.action_spec,
        reward_model=reward,
        input_stats=search.stats,
        starts=fewer_starts(starts),
        action_repeat=cfg.action_repeat,
    )
    agent.save_pretrained(this.agent, dtype="float32")
    snapshots = {g: torch.from_numpy(p.copy()) for g, p in result.snapshots.items()}
    save_checkpoint(this.folder / "controllers.pt", {"snapshots": snapshots, "dreamed": dreamed})
    evolution = cfg.controller.evolve
    dreams = cfg.dream.episodes * (
        len(result.history) * evolution.strategy.population + len(snapshots)
    )
    ctx.run.count_frames("dream", dreams * cfg.dream.horizon, f"dream/{this.number:02d}/{key[:8]}")
    return {"dreamed": dreamed}


def _starts(
    ctx: Context, this: Iteration, before: Sequence[Iteration], memories: Sequence[MDNRNN]
) -> DreamStarts:
    """Recorded states of all rounds, each with every memory's state warmed up to it."""
    seed = ctx.seed_for("starts", this.number)
    return recorded_starts(ctx.cfg, load_latents(this, before), memories, seed)


def recorded_starts(
    cfg: RunConfig, parts: Sequence[Latents], memories: Sequence[MDNRNN], seed: int
) -> DreamStarts:
    """Where dreams begin: recorded states, weighted as `StartsConfig` says.

    None of them is a mirror image: V and M are to know both worlds, C is to drive in one.

    Args:
        cfg: of the run.
        parts: latents of each round, the newest last.
        memories: warmed up to every state.
        seed: fixes the choice.
    """
    if cfg.mirror:
        parts = [part.select(np.arange(0, part.num_episodes, 2)) for part in parts]
    latents = Latents.concatenate(parts)
    weight = np.ones(latents.num_frames)
    weight[-parts[-1].num_frames :] = cfg.starts.newest_weight
    if cfg.starts.loss_weight != 1:
        before, streak = cfg.starts.loss_before, cfg.starts.loss_streak
        weight[before_losses(latents.reward, latents.offsets, before, streak)] *= (
            cfg.starts.loss_weight
        )
    rng, noise = np.random.default_rng(seed), cfg.memory_training.posterior_noise
    return build_starts(memories, latents, cfg.starts.count, cfg.starts.warmup, rng, weight, noise)


def fewer_starts(starts: DreamStarts, count: int = 512) -> DreamStarts:
    """As many starts as an agent's folder is given."""
    every = max(1, len(starts) // count)
    return DreamStarts(
        *(a[..., ::every, :][..., :count, :] for a in (starts.z, starts.h, starts.c))
    )


# --- selection


def select(ctx: Context, this: Iteration, key: str) -> dict[str, Any]:
    """Drive every snapshot of C on the selection tracks; the best becomes the round's driver."""
    cfg = ctx.cfg.selection
    saved = load_checkpoint(this.folder / "controllers.pt")
    generations = sorted(saved["snapshots"])
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes_of(this.number, ctx.cfg.iterations)))
    results = evaluate_many(
        [AgentParameters(this.agent, saved["snapshots"][g].numpy()) for g in generations],
        ctx.cfg.env_id,
        seeds,
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    frames = sum(result.frames for result in results)
    ctx.run.count_frames("selection", frames, f"select/{this.number:02d}/{key[:8]}")
    best = int(np.argmax([result.mean for result in results]))
    for place, (generation, result) in enumerate(zip(generations, results, strict=True)):
        dream = saved["dreamed"][generation]
        alarm = dream_alarm(ctx.cfg, dream, result)
        if alarm:
            ctx.say(f"alarm, generation {generation}: {alarm}")
        ctx.run.log(
            "selection",
            iteration=this.number,
            generation=generation,
            dream_return=dream,
            real_mean=result.mean,
            real_std=result.summary.std,
            real_returns=result.returns,
            episodes=len(seeds),
            alarm=alarm,
            selected=place == best,
        )
    ctx.say(
        f"iteration {this.number}: dream {saved['dreamed'][generations[best]]:.0f}, real "
        f"{results[best].mean:.0f} +- {results[best].summary.std:.0f} on {len(seeds)} tracks"
    )
    chosen = saved["snapshots"][generations[best]].numpy()
    agent = Agent.from_pretrained(this.agent).with_parameters(
        chosen, iteration=this.number, generation=generations[best]
    )
    agent.save_pretrained(this.agent, dtype="float32")
    dream_picks = int(np.argmax([saved["dreamed"][g] for g in generations]))
    return {
        "generation": generations[best],
        "real_mean": results[best].mean,
        "dream_selected_real_mean": results[dream_picks].mean,
    }


def dream_alarm(cfg: RunConfig, dream: float, real: EvaluationResult) -> str | None:
    """Say why a dream return cannot be believed, or None.

    Compared are rewards per step: a dream is shorter than a drive. The bound is what the
    environment can pay at most (`SelectionConfig.reward_bound`); without one, the alarm is raised
    where the dream promises more than double of what the same driver gets in reality.
    """
    dreamt = dream / (cfg.dream.horizon * cfg.action_repeat)
    bound = cfg.selection.reward_bound
    if bound is not None and dreamt > bound:
        return f"the dream pays {dreamt:.2f} a step, reality at most {bound:.2f}: it is exploited"
    steps = max(1, real.frames)
    driven = float(real.returns.sum()) / steps
    if dreamt > max(2 * driven, driven + 0.25):
        return f"the dream pays {dreamt:.2f} a step, reality paid {driven:.2f}: do not trust it"
    return None


def best_rounds(ctx: Context, iterations: Sequence[Iteration]) -> list[Iteration]:
    """Rounds whose drivers are finalists, the best first."""
    cfg = ctx.cfg.selection
    if cfg.early_episodes is not None:  # so few episodes of the others prove nothing
        iterations = iterations[-cfg.late_rounds :]
    return sorted(iterations, key=lambda it: -_selected_mean(ctx, it))[: cfg.finalists]


def _selected_mean(ctx: Context, iteration: Iteration) -> float:
    """Mean return of a round's driver on the tracks that chose it."""
    return float(ctx.run.stage_outputs(f"select/{iteration.number:02d}")["real_mean"])


def choose(
    ctx: Context, this: Iteration, iterations: Sequence[Iteration], key: str
) -> dict[str, Any]:
    """Let the best rounds' drivers drive a second, larger round; the winner is the run's agent."""
    cfg = ctx.cfg.selection
    finalists = best_rounds(ctx, iterations)
    winner, final_mean = finalists[0], _selected_mean(ctx, finalists[0])
    if len(finalists) > 1 and cfg.final_episodes:
        first = cfg.seed + cfg.episodes
        results = evaluate_many(
            [it.agent for it in finalists],
            ctx.cfg.env_id,
            list(range(first, first + cfg.final_episodes)),
            executor=ctx.executor,
            max_steps=cfg.max_steps,
        )
        frames = sum(result.frames for result in results)
        ctx.run.count_frames("selection", frames, f"final/{key[:8]}")
        best = int(np.argmax([result.mean for result in results]))
        winner, final_mean = finalists[best], results[best].mean
    ctx.run.log("final", iteration=this.number, winner=winner.number, real_mean=final_mean)
    ctx.say(f"final: round {winner.number}, {final_mean:.0f}")
    residual_file(ctx).unlink(missing_ok=True)  # it belonged to another C
    disband(ctx)
    agent = Agent.from_pretrained(winner.agent)
    agent.metadata |= {"seed": ctx.seed, "selection_mean": final_mean, "versions": versions()}
    agent.save_pretrained(ctx.run.agent)
    return {"iteration": winner.number, "selection_mean": final_mean}


# --- the test


def test(ctx: Context, this: Iteration, key: str) -> dict[str, Any]:
    """Drive the published test tracks in the stock environment, once, every episode counted."""
    cfg = ctx.cfg.test
    seeds = list(range(cfg.seed, cfg.seed + cfg.episodes))
    chosen = best_driver(ctx.run.agent)
    opened = open_driver(ctx.run.agent, chosen)
    result = evaluate(
        ctx.run.agent if chosen == "controller" else opened,
        ctx.cfg.test_env,
        seeds,
        executor=ctx.executor,
        name=ctx.run.agent.name + ("" if chosen == "controller" else f" ({chosen})"),
        keep_actions=True,
        max_steps=cfg.max_steps,
    )
    result.write(ctx.run.path / "evaluation.json")
    ctx.run.count_frames("test", result.frames, f"test/{key[:8]}")
    ci95 = result.summary.ci95
    interval = "" if ci95 is None else f" (95% interval {ci95[0]:.0f} to {ci95[1]:.0f})"
    ctx.say(f"test: {result.mean:.0f}{interval} over {len(seeds)} tracks")
    if cfg.random_driver:
        # the fast environment has the same physics and rewards, and a random driver sees no pixels
        random = evaluate(
            "random", ctx.cfg.env_id, seeds, executor=ctx.executor, max_steps=cfg.max_steps
        )
        random.write(ctx.run.path / "evaluation_random.json")
    if cfg.videos:
        # the fast environment replays the same episodes
        film(open_member(ctx.run.agent), ctx.cfg.env_id, result, ctx.run.path / "media")
    return {"mean": result.mean, "ci95": ci95}
