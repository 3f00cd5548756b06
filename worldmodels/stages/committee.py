"""The stage that lets the best iterations' agents drive together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from worldmodels.agent import Agent
from worldmodels.evaluation import EvaluationResult, evaluate_many
from worldmodels.metrics import CommitteeSelection
from worldmodels.policies.ensemble import FOLDER, Committee
from worldmodels.policies.opening import open_member
from worldmodels.presets import SelectionConfig
from worldmodels.stages.context import StageContext


@dataclass(frozen=True)
class AddedMembers:
    """Which other agents drive beside an agent."""

    rounds: Sequence[int]
    """their iterations; empty where it drives alone"""
    real_mean: float
    """best mean return of several together"""
    alone_mean: float
    """mean return of the agent alone, on the same tracks"""
    frames: int
    """real frames that the choice took"""


def remove_members(agent: Path) -> None:
    """Remove the other members, of whatever was chosen before, from an agent's folder."""
    shutil.rmtree(agent / FOLDER, ignore_errors=True)


def add_members(
    cfg: SelectionConfig, folder: Path, others: Mapping[int, Path], ctx: StageContext
) -> AddedMembers | None:
    """Let an agent drive with other iterations' agents; keep what drives best.

    Tried are the agent with each of the others, and with all of them, on selection tracks on which
    nothing was chosen before; the agent alone drives them too, and stays alone if it is better.

    Args:
        cfg: the tracks.
        folder: of the agent.
        others: iteration -> folder of its agent, the best first; with none nothing is tried.
        ctx: executor, place for the candidates, and metrics.
    """
    remove_members(folder)
    if not others:
        return None
    if ctx.state is not None:
        return _try_members(cfg, folder, others, ctx.state, ctx)
    with TemporaryDirectory(dir=folder.parent) as store:
        return _try_members(cfg, folder, others, Path(store), ctx)


def _try_members(
    cfg: SelectionConfig,
    folder: Path,
    others: Mapping[int, Path],
    store: Path,
    ctx: StageContext,
) -> AddedMembers:
    first = open_member(folder)
    drivers = {number: _driver(agent, store / f"{number:02d}") for number, agent in others.items()}
    candidates = [[number] for number in others]
    if len(others) > 1:
        candidates.append([*others])
    episodes = cfg.final_episodes or cfg.episodes
    seed = cfg.seed + cfg.episodes + cfg.final_episodes + episodes
    alone, *together = evaluate_many(
        [first, *(Committee([first, *(drivers[n] for n in members)]) for members in candidates)],
        first.env_id,
        list(range(seed, seed + episodes)),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    best = int(np.argmax([result.mean for result in together]))
    kept = bool(together[best].mean > alone.mean)
    _tell(candidates, together, alone, candidates[best] if kept else [], ctx)
    if kept:
        for place, n in enumerate(candidates[best], 1):
            shutil.copytree(store / f"{n:02d}", store / FOLDER / f"{place:02d}")
        os.replace(store / FOLDER, folder / FOLDER)
    frames = alone.frames + sum(result.frames for result in together)
    return AddedMembers(candidates[best] if kept else [], together[best].mean, alone.mean, frames)


def _tell(
    candidates: Sequence[Sequence[int]],
    together: Sequence[EvaluationResult],
    alone: EvaluationResult,
    kept: Sequence[int],
    ctx: StageContext,
) -> None:
    """Log every result and say which one is best."""
    for members, result in zip(candidates, together, strict=True):
        ctx.log(
            "committee_selection",
            **CommitteeSelection(
                rounds=list(members),
                real_mean=result.mean,
                real_returns=result.returns.tolist(),
                alone_mean=alone.mean,
                alone_returns=alone.returns.tolist(),
                kept=members == kept,
            ),
        )
    best = int(np.argmax([result.mean for result in together]))
    names, result = " and ".join(str(n) for n in candidates[best]), together[best]
    ctx.say(
        f"committee with the driver of round {names}: {result.mean:.0f} +- "
        f"{result.summary.std:.0f} on {len(alone.returns)} tracks, the agent alone "
        f"{alone.mean:.0f} +- {alone.summary.std:.0f}: {'kept' if kept else 'it stays alone'}"
    )


def _driver(agent: Path, folder: Path) -> Agent:
    """An agent as a member is stored: what it needs in order to drive."""
    Agent.from_pretrained(agent).for_driving().save_pretrained(folder)
    return open_member(folder)
