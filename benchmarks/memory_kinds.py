"""Kinds of M at equal frames: held-out negative log-likelihood, seed by seed.

    python benchmarks/memory_kinds.py --run runs/quick [--steps 1500] [--seeds 0 1 2] [--json FILE]

Every kind is trained on the same latents, for as many steps, with the same batches. Without a run
folder an agent that comes with the package drives some episodes, and its V encodes them.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from worldmodels import executors
from worldmodels._from_json import from_json
from worldmodels.agent import Agent, find
from worldmodels.experience.collect import CollectConfig, collect
from worldmodels.experience.exploration import AgentNoiseConfig
from worldmodels.experience.store import EpisodeStore
from worldmodels.memory.kinds import KINDS, Kind
from worldmodels.memory.train import MemoryTrainConfig, reward_kind, train_memory
from worldmodels.pipeline.iteration import Iteration
from worldmodels.run_config import RunConfig
from worldmodels.runs import Device, machine, read_json, versions, write_json
from worldmodels.stage_configs import MemoryStageConfig
from worldmodels.stages.collection import load_policy
from worldmodels.stages.learning import held_out, reward_model
from worldmodels.vision.latents import Latents, encode_episodes


@dataclass(frozen=True)
class Args:
    """What to compare."""

    run: Path | None = None
    """run folder whose newest latents are used; None lets `agent` drive"""
    agent: str = "car-racing"
    """who acts without a run folder"""
    episodes: int = 40
    """episodes that it drives, half of them with noise"""
    training: MemoryTrainConfig = field(default_factory=MemoryTrainConfig)
    """the training of every kind"""
    memory: MemoryStageConfig = field(default_factory=MemoryStageConfig)
    """shape of M; its kind is set"""
    kinds: tuple[Kind, ...] = tuple(KINDS)
    """kinds to compare"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """trainings of each"""
    device: Device = "cpu"
    """where to train"""
    json: Path | None = None
    """where to write the figures"""


def collected(args: Args) -> Latents:
    """Episodes of the agent, encoded by its V."""
    folder = find(args.agent)
    agent, half = Agent.from_pretrained(folder), args.episodes // 2
    with tempfile.TemporaryDirectory() as temporary, executors.make(None, None) as pool:
        places = []
        for scale, seeds in ((0.0, range(half)), (0.3, range(half, args.episodes))):
            places.append(Path(temporary) / f"noise-{scale}")
            collect(
                CollectConfig(action_repeat=agent.action_repeat),
                agent.env_id,
                AgentNoiseConfig(folder, scale=scale),
                seeds,
                places[-1],
                executor=pool,
                load_policy=load_policy,
                frame_spec=agent.frame_spec,
            )
        store = EpisodeStore(places)
        episodes = (store.read(index) for index in range(len(store)))
        return encode_episodes(agent.vision, episodes, store.action_spec)


def latents_of(args: Args) -> tuple[Latents, bool]:
    """What M is trained on, and whether every second episode is a flip."""
    if args.run is None:
        return collected(args), False
    where = args.run / "config.json"
    cfg = from_json(RunConfig, read_json(where)["config"], f"{where}: ", ignore_unknown=True)
    number = max(int(folder.name) for folder in (args.run / "iterations").iterdir())
    newest = Iteration(number, args.run / "iterations" / f"{number:02d}")
    return Latents.concatenate(
        [file.latents for file in newest.load_latents()]
    ), cfg.horizontal_flip


def main(args: Args) -> dict[str, Any]:
    """Train every kind with every seed."""
    latents, mirror = latents_of(args)
    held = held_out(latents.num_episodes, mirror)
    reward = reward_model(args.memory, latents, reward_kind(latents))
    rows = []
    for seed in args.seeds:
        for kind in args.kinds:
            stage = dataclasses.replace(args.memory, kind=kind)
            shape = stage.network(latents.z_dim, latents.action.shape[1], reward.kind)
            last: dict[str, float] = {}
            began = time.perf_counter()
            model = train_memory(
                args.training,
                shape,
                reward,
                latents,
                seed=seed,
                holdout=latents.select(np.flatnonzero(held)),
                repeats=np.where(held, 0, 1),
                log=lambda last=last, **line: last.update(line),
                device=args.device,
            )
            row = {name: last[f"val_{name}"] for name in ("nll", "reward_loss", "termination_loss")}
            row |= {"seconds": time.perf_counter() - began}
            row |= {"parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)}
            rows.append({"kind": kind, "seed": seed, **row})
            print(
                "  ".join(f"{k} {v:.4g}" if k != "kind" else f"{v:12}" for k, v in rows[-1].items())
            )
    for kind in args.kinds:
        mine = [float(row["nll"]) for row in rows if row["kind"] == kind]
        print(
            f"{kind:12} held-out {np.mean(mine):.4f} nats per latent dimension, {len(mine)} seeds"
        )
    found = {
        "frames": latents.num_frames,
        "held_out": int(held.sum()),
        "training": args.training,
        "rows": rows,
        "machine": machine(),
        "versions": versions(),
    }
    if args.json is not None:
        write_json(args.json, found)
    return found


if __name__ == "__main__":
    main(tyro.cli(Args))
