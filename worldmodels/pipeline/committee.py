"""The stage that lets the best rounds' drivers drive together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.agent import Agent
from worldmodels.evaluation import evaluate_many
from worldmodels.pipeline.context import Context, Iteration
from worldmodels.planning.committee import FOLDER, Committee
from worldmodels.planning.drivers import open_member


def disband(ctx: Context) -> None:
    """Take the other members, of whatever was chosen before, from the run's agent."""
    shutil.rmtree(ctx.run.agent / FOLDER, ignore_errors=True)


def seat(ctx: Context, this: Iteration, others: Sequence[Iteration], key: str) -> dict[str, Any]:
    """Let the run's agent drive with other rounds' drivers; keep what drives best.

    Tried are the agent with each of the others, and with all of them, on selection tracks on which
    nothing was chosen before; the agent alone drives them too, and stays alone if it is better.

    Args:
        ctx: of the run.
        this: the round after the last.
        others: rounds whose drivers may take a seat, the best first.
        key: of the stage.
    """
    disband(ctx)
    if not others:
        return {"rounds": []}
    cfg = ctx.cfg.selection
    store = ctx.checkpoint_folder(f"committee/{this.number:02d}")
    first = open_member(ctx.run.agent)
    drivers = {other.number: _driver(other, store / f"{other.number:02d}") for other in others}
    benches = [[other.number] for other in others]
    if len(others) > 1:
        benches.append([other.number for other in others])
    number = cfg.final_episodes or cfg.episodes
    seed = cfg.seed + cfg.episodes + cfg.final_episodes + number
    alone, *together = evaluate_many(
        [first, *(Committee([first, *(drivers[n] for n in bench)]) for bench in benches)],
        ctx.cfg.env_id,
        list(range(seed, seed + number)),
        executor=ctx.executor,
        max_steps=cfg.max_steps,
    )
    frames = alone.frames + sum(result.frames for result in together)
    ctx.run.count_frames("selection", frames, f"committee/{key[:8]}")
    best = int(np.argmax([result.mean for result in together]))
    kept = bool(together[best].mean > alone.mean)
    for place, (bench, result) in enumerate(zip(benches, together, strict=True)):
        ctx.run.log(
            "committee_selection",
            iteration=this.number,
            rounds=bench,
            real_mean=result.mean,
            real_returns=result.returns,
            alone_mean=alone.mean,
            alone_returns=alone.returns,
            kept=kept and place == best,
        )
    names = " and ".join(str(n) for n in benches[best])
    ctx.say(
        f"committee with the driver of round {names}: {together[best].mean:.0f} +- "
        f"{together[best].summary.std:.0f} on {number} tracks, the agent alone {alone.mean:.0f} +- "
        f"{alone.summary.std:.0f}: {'kept' if kept else 'it stays alone'}"
    )
    if kept:
        for place, n in enumerate(benches[best], 1):
            shutil.copytree(store / f"{n:02d}", store / FOLDER / f"{place:02d}")
        os.replace(store / FOLDER, ctx.run.agent / FOLDER)
    return {
        "rounds": benches[best] if kept else [],
        "real_mean": together[best].mean,
        "alone_mean": alone.mean,
    }


def _driver(other: Iteration, folder: Path) -> Agent:
    """A round's driver as a member is stored: what it needs in order to drive."""
    Agent.from_pretrained(other.agent).for_driving().save_pretrained(folder)
    return open_member(folder)
