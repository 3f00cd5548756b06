"""Studies: C evolved again in the dream of a finished run, under other settings, and driven.

A study takes V and the latents of one round as they are, so that its variants differ in nothing but
what they name. Each variant is a few evolutions with seeds of their own; every snapshot of each is
judged in the dream, on selection tracks and on test tracks, which shows what the dream would have
chosen, what the real validation chooses, and what an oracle would.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldmodels.agent import Agent
from worldmodels.evaluation import AgentParameters, evaluate_many
from worldmodels.executors import Executor
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.memory.train import train_memory
from worldmodels.pipeline import driver
from worldmodels.pipeline.evolution import DreamEvolution
from worldmodels.pipeline.model import dreaming_rounds, held_out, load_memories
from worldmodels.presets import RunConfig
from worldmodels.protocols import SELECTION_SEED_START, TEST_SEED_START, UserError
from worldmodels.runs import (
    RunFolder,
    config_hash,
    derive_seed,
    load_checkpoint,
    read_json,
    save_checkpoint,
    versions,
    write_json,
)
from worldmodels.settings import from_json, with_settings
from worldmodels.vision.latents import Latents

JUDGING_DREAMS = 128
"""Dreams that a snapshot is judged on: far more than a candidate has in the evolution."""


@dataclass(frozen=True)
class Variant:
    """What is changed."""

    name: str
    """row of the table"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """from settings such as ``dream.temperature`` to values; those of `memory` and
    `memory_training` train M anew, from a fresh start"""
    untrained: bool = False
    """dream with an M of random weights: the control that says what M's training is worth"""


@dataclass(frozen=True)
class StudyConfig:
    """How much each variant is given."""

    seeds: int = 3
    """evolutions of each variant"""
    selection_episodes: int = 16
    """selection tracks, from seed 500000"""
    test_episodes: int = 100
    """test tracks, from seed 1000000, for the table alone"""
    round: int | None = None
    """round of the run whose M is studied; None takes the last"""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("seeds", "selection_episodes", "test_episodes"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"StudyConfig.{name} is {getattr(self, name)}; it must be at least 1"
                )


class Study:
    """One study at work on a run folder; finished cells are kept, so it goes on after a kill."""

    def __init__(self, run: Path, out: Path, cfg: StudyConfig, executor: Executor) -> None:
        """Open the run.

        Raises:
            UserError: no finished run, or no such round.
        """
        self.cfg, self.out, self.executor = cfg, out, executor
        self.base: RunConfig = from_json(RunFolder(run, create=False).read_config()["config"])
        number = self.base.iterations - 1 if cfg.round is None else cfg.round
        self.number = number
        self.round = run / "iterations" / f"{number:02d}"
        if not (self.round / "controllers.pt").exists():
            raise UserError(f"{self.round} has no controllers: let the run come so far first")
        files = sorted(self.round.glob("latents-*.safetensors"))
        self.parts = [Latents.load(file) for file in files]
        self.agent = Agent.from_pretrained(self.round / "agent")
        self.key = config_hash([read_json(self.round / "agent" / "config.json"), number])[:16]

    def cell(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Evolve and drive one variant with one seed, or read what was found before."""
        name = config_hash([self.key, variant.settings, variant.untrained, seed, self.cfg])[:16]
        path = self.out / "cells" / f"{name}.json"
        if path.exists():
            return {**read_json(path), "variant": variant.name}
        cfg = with_settings(self.base, variant.settings)
        work = self.out / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        memories = self._memories(cfg, variant, seed)
        trained = time.perf_counter()
        agent, snapshots, dreamed = self._evolve(cfg, memories, seed, work)
        evolved = time.perf_counter()
        driven = self._drive(cfg, agent, snapshots, work)
        rows = [
            {"generation": g, "dream": dream, **returns}
            for g, dream, returns in zip(sorted(snapshots), dreamed, driven, strict=True)
        ]
        seconds = {"memory": trained - began, "evolution": evolved - trained}
        seconds["drives"] = time.perf_counter() - evolved
        cell = {"variant": variant.name, "seed": seed, "settings": variant.settings}
        cell |= {"untrained": variant.untrained, "snapshots": rows, "seconds": seconds}
        write_json(path, {**cell, "versions": versions()})
        shutil.rmtree(work)
        return cell

    def _memories(self, cfg: RunConfig, variant: Variant, seed: int) -> Sequence[MDNRNN]:
        """The run's own, or others where the variant asks for them."""
        other = [n for n in variant.settings if n.split(".")[0] in ("memory", "memory_training")]
        reward = self.agent.reward_model
        assert reward is not None, "agents of a run have a reward model"
        network = cfg.memory.network(self.agent.z_dim, self.agent.action_spec.size, reward.kind)
        if not other and not variant.untrained:
            folders = [self.round.parent / f"{n:02d}" for n in dreaming_rounds(cfg, self.number)]
            each = [load_memories(folder, network, cfg.memory.ensemble) for folder in folders]
            return [memory for memories in each for memory in memories]
        if variant.untrained:
            torch.manual_seed(derive_seed(seed, "untrained") % 2**63)
            return [MDNRNN(network).eval() for _ in range(cfg.memory.ensemble)]
        latents = Latents.concatenate(self.parts)
        held = held_out(cfg, latents.num_episodes)
        memories = []
        for member in range(cfg.memory.ensemble):
            what = [self.key, cfg.memory, cfg.memory_training, seed, member]
            path = self.out / "memories" / f"{config_hash(what)[:16]}.pt"
            memory = MDNRNN(network)
            if path.exists():
                memory.load_state_dict(load_checkpoint(path))
            else:
                memory = train_memory(
                    cfg.memory_training,
                    network,
                    reward,
                    latents,
                    seed=derive_seed(seed, "memory", member),
                    repeats=np.where(held, 0, 1),
                    checkpoint=path.with_suffix(".state"),
                )
                save_checkpoint(path, memory.state_dict())
                path.with_suffix(".state").unlink(missing_ok=True)
            memories.append(memory.eval())
        return memories

    def _evolve(
        self, cfg: RunConfig, memories: Sequence[MDNRNN], seed: int, work: Path
    ) -> tuple[Agent, dict[int, NDArray[np.float32]], list[float]]:
        """The agent, its snapshots, and what each returns in many dreams."""
        old, reward = self.agent, self.agent.reward_model
        assert reward is not None, "agents of a run have a reward model"
        starts = driver.recorded_starts(cfg, self.parts, memories, derive_seed(seed, "starts"))
        search = DreamEvolution.of(
            cfg.controller, cfg.dream, memories, reward, starts, cfg.env_id, old.action_spec
        )
        own = derive_seed(seed, "controller")
        result = search.run(own, search.first_parameters(own), work / "state.json")
        agent = Agent(
            old.vision,
            memories,
            search.shape,
            result.parameters,
            env_id=cfg.env_id,
            frame_spec=old.frame_spec,
            action_spec=old.action_spec,
            reward_model=reward,
            input_stats=search.stats,
            action_repeat=cfg.action_repeat,
        )
        judge = search.returns(episodes=JUDGING_DREAMS)
        population = np.stack([result.snapshots[g] for g in sorted(result.snapshots)])
        return agent, result.snapshots, judge(population, derive_seed(seed, "judge")).tolist()

    def _drive(
        self,
        cfg: RunConfig,
        agent: Agent,
        snapshots: Mapping[int, NDArray[np.float32]],
        work: Path,
    ) -> list[dict[str, list[float]]]:
        """Real returns of every snapshot on selection and test tracks."""
        folder = agent.save_pretrained(work / "agent", dtype="float32")
        drivers = [AgentParameters(folder, snapshots[g]) for g in sorted(snapshots)]
        first, count = SELECTION_SEED_START, self.cfg.selection_episodes
        seeds = [*range(first, first + count)]
        seeds += range(TEST_SEED_START, TEST_SEED_START + self.cfg.test_episodes)
        results = evaluate_many(drivers, cfg.env_id, seeds, executor=self.executor)
        return [
            {"selection": list(r.returns[:count]), "test": list(r.returns[count:])} for r in results
        ]


def summarise(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per variant, in the order of the cells: means over seeds, and their deviation.

    ``validated`` is the test mean of the snapshot that the selection tracks choose, ``dreamed`` of
    the one that the dream chooses, ``oracle`` of the one that the test tracks themselves choose.
    """
    rows = []
    for name in dict.fromkeys(cell["variant"] for cell in cells):
        found = [_of_seed(cell["snapshots"]) for cell in cells if cell["variant"] == name]
        row: dict[str, Any] = {"variant": name, "seeds": len(found)}
        for key in found[0]:
            values = np.array([one[key] for one in found])
            row[key] = float(values.mean())
            row[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(row)
    return rows


def _of_seed(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    selection = [float(np.mean(s["selection"])) for s in snapshots]
    dream = [float(s["dream"]) for s in snapshots]
    test = [float(np.mean(s["test"])) for s in snapshots]
    chosen, dreamt = int(np.argmax(selection)), int(np.argmax(dream))
    return {
        "dream": dream[chosen],
        "selection": selection[chosen],
        "validated": test[chosen],
        "dreamed": test[dreamt],
        "oracle": max(test),
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The summary as a table for people."""

    def shown(row: Mapping[str, Any], key: str) -> str:
        spread = row[f"{key}_std"]
        return f"{row[key]:.0f}" + ("" if spread is None else f" ± {spread:.0f}")

    lines = [
        "| variant | seeds | dream | validated | dream-selected | oracle |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [shown(row, key) for key in ("dream", "validated", "dreamed", "oracle")]
        name = " ".join(str(row["variant"]).split()).replace("|", r"\|")
        lines.append(f"| {name} | {row['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


__all__ = ["Study", "StudyConfig", "Variant", "summarise", "to_markdown"]
