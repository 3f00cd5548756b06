"""Studies: C evolved again in the dream of a finished run or of an agent, with other settings.

A study takes V and the recordings, or the agent's starts, as they are, so that variants differ in
what they name only. Each variant is a few evolutions with their own seeds; every snapshot is judged
in the dream and on selection and test seeds: what the dream, the validation and an oracle would
choose.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch

from worldmodels import envs, stages
from worldmodels._from_json import from_json
from worldmodels.agent import Agent, find
from worldmodels.config import Config, Count, CountOrZero
from worldmodels.evaluation import AgentParameters
from worldmodels.evaluation.statistics import told
from worldmodels.executors import Executor
from worldmodels.memory.kinds import build
from worldmodels.metrics import VariantRow
from worldmodels.pipeline.iteration import Iteration
from worldmodels.presets import PRESETS
from worldmodels.protocols import SELECTION_SEED_START, TEST_SEED_START, UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import RunFolder, config_hash, derive_seed, read_json, versions, write_json
from worldmodels.settings import with_settings
from worldmodels.stages import MemoryFile, StageContext
from worldmodels.stages.controller import Evolved
from worldmodels.stages.learning import reward_model
from worldmodels.stages.selection import run_episodes
from worldmodels.vision.latents import Latents

STUDIED = ("dream", "starts", "controller", "memory", "memory_training")
"""Sections of a run's settings that a variant can change; V and the data are the run's."""

UNUSED = (
    "memory_training.finetune_steps",
    "memory_training.finetune_learning_rate",
    "memory_training.log_every",
)
"""Settings in them without effect: a study trains M from scratch, and does not log."""

OF_RUNS = ("controller.memory_iterations", "controller.warm_start")
"""Settings of C's evolution that name other iterations of its run."""

JUDGING_DREAMS = 128
"""Dreams that judge a snapshot: far more than a candidate has in the evolution."""


@dataclass(frozen=True)
class Variant:
    """Changed settings."""

    name: str
    """row of the table"""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """settings such as ``dream.temperature``, and values; `memory...` ones train M from scratch"""
    untrained: bool = False
    """dream with an M of random weights, the baseline for M's training"""

    def __post_init__(self) -> None:
        """Refuse settings without effect."""
        for name in self.settings:
            field_name = name.replace("-", "_")
            section = field_name.split(".")[0]
            if section in RunConfig.__dataclass_fields__ and section not in STUDIED:
                raise UserError(
                    f"{name} has no effect in a study, which takes V and the data as they are; a "
                    f"variant can change {', '.join(STUDIED)}"
                )
            if field_name in UNUSED:
                raise UserError(f"{name} has no effect in a study, which trains M from scratch")

    @property
    def trains(self) -> bool:
        """Whether M is trained again."""
        sections = {name.split(".")[0].replace("-", "_") for name in self.settings}
        return not self.untrained and bool(sections & {"memory", "memory_training"})


@dataclass(frozen=True)
class StudyConfig(Config):
    """Seeds and episodes of each variant."""

    seeds: Count = 3
    """evolutions of each variant"""
    selection_episodes: Count = 16
    """selection episodes, from seed 500000"""
    test_episodes: Count = 100
    """test episodes, from seed 1000000; not used to select"""
    iteration: CountOrZero | None = None
    """iteration of the run whose M is studied (default: the last)"""


class Studied(ABC):
    """What a study evolves C in: a dream, and the settings that variants change."""

    name: ClassVar[str]
    """row of its own settings"""

    def __init__(self, base: RunConfig, key: str) -> None:
        """Keep the settings, and what tells this dream from others."""
        self.base, self.key = base, key

    def configuration(self, variant: Variant) -> RunConfig:
        """The settings with the variant's, checked."""
        return with_settings(self.base, variant.settings)

    @abstractmethod
    def evolve(self, cfg: RunConfig, variant: Variant, out: Path, ctx: StageContext) -> Evolved:
        """Evolve C for a variant; M's that it trains are kept in ``out``."""


def studied(path: Path, preset: str, iteration: int | None) -> Studied:
    """The dream of a run (by default of its last iteration) or of an agent.

    Raises:
        UserError: neither is there, or it has no such iteration.
    """
    if (path / "iterations").is_dir():
        return RunDream(path, iteration)
    try:
        folder = find(path)
    except UserError as error:
        raise UserError(f"{path} is no run, since it has no folder iterations; {error}") from None
    if iteration is not None:
        raise UserError(f"--study.iteration is {iteration}, but {path} is an agent: it has none")
    return AgentDream(folder, preset)


class AgentDream(Studied):
    """The dream of an agent's own V and M, from the recorded starts in its folder."""

    name = "as the preset"

    def __init__(self, folder: Path, preset: str) -> None:
        """Open the agent; its settings are the preset's, since its folder has none."""
        self.agent = Agent.from_pretrained(folder)
        self.agent.to_dream()
        ends = {f"dream.{name}": value for name, value in vars(self.agent.ends).items()}
        base = with_settings(PRESETS[preset](self.agent.env_id), ends)
        super().__init__(base, config_hash([read_json(folder / "config.json"), base])[:16])

    def configuration(self, variant: Variant) -> RunConfig:
        """Refuse what needs recordings, which an agent's folder has not."""
        needs = "needs a run's recordings, and an agent's folder has none: study its run"
        if variant.untrained:
            raise UserError(f"variant {variant.name!r}: an untrained M {needs}")
        for name in variant.settings:
            field_name = name.replace("-", "_")
            if field_name.split(".")[0] not in ("dream", "controller") or field_name in OF_RUNS:
                raise UserError(f"{name} {needs}")
        return super().configuration(variant)

    def evolve(self, cfg: RunConfig, variant: Variant, out: Path, ctx: StageContext) -> Evolved:
        """Evolve C from zero in the agent's dream."""
        return stages.evolve_again(cfg.controller, cfg.dream, self.agent, ctx)


class RunDream(Studied):
    """The dream of a run's iteration, from its own recordings."""

    name = "as the run"

    def __init__(self, run: Path, iteration: int | None) -> None:
        """Open the run; `UserError` without its settings or without the iteration."""
        record = RunFolder(run, create=False).read_config()["config"]
        base = from_json(RunConfig, record, "config.", ignore_unknown=True)
        envs.from_file(base.env_id, run / "config.json")
        number = base.iterations - 1 if iteration is None else iteration
        folders = run / "iterations"
        self.iteration = Iteration(number, folders / f"{number:02d}")
        self.previous = Iteration(number - 1, folders / f"{number - 1:02d}") if number else None
        if not self.iteration.candidates.exists():
            raise UserError(
                f"{self.iteration.folder} has no controllers: resume the run until it has"
            )
        agent = read_json(self.iteration.agent / "config.json")
        super().__init__(base, config_hash([agent, number])[:16])

    def evolve(self, cfg: RunConfig, variant: Variant, out: Path, ctx: StageContext) -> Evolved:
        """Evolve C in the dream of the run's M, or of the variant's own."""
        memories = self._memories(cfg, variant, out, ctx.seed)
        return self.iteration.evolve(cfg, self.previous, ctx, memories)

    def _memories(self, cfg: RunConfig, variant: Variant, out: Path, seed: int) -> list[MemoryFile]:
        """The variant's own memories, if it has some."""
        if variant.untrained:
            return [self._untrained(cfg, seed)]
        if not variant.trains:
            return []
        name = config_hash([self.key, cfg.memory, cfg.memory_training, seed])[:16]
        path = out / "memories" / f"memory-{name}.safetensors"
        if not path.exists():
            state = path.with_suffix(".state")
            ctx, parts = StageContext(seed, None, state), self.iteration.load_latents()
            kind = self.iteration.load_memory().reward.kind
            stages.train_memory(cfg.memory, cfg.memory_training, parts, ctx, kind=kind).save(path)
            shutil.rmtree(state, ignore_errors=True)
        return [MemoryFile.load(path)]

    def _untrained(self, cfg: RunConfig, seed: int) -> MemoryFile:
        """Memories of random weights."""
        own, parts = self.iteration.load_memory(), self.iteration.load_latents()
        latents = Latents.concatenate([part.latents for part in parts])
        reward = reward_model(cfg.memory, latents, own.reward.kind)
        shape = cfg.memory.network(latents.z_dim, own.source.action_spec.size, reward.kind)
        torch.manual_seed(derive_seed(seed, "untrained") % 2**63)
        models = [build(shape).eval() for _ in range(cfg.memory.ensemble)]
        noise = cfg.memory_training.posterior_noise
        return dataclasses.replace(own, models=models, reward=reward, posterior_noise=noise)


class Study:
    """One study at work on a dream; finished cells are kept, so a killed one resumes."""

    def __init__(self, of: Studied, out: Path, cfg: StudyConfig, executor: Executor) -> None:
        """Write into ``out``."""
        self.of, self.out, self.cfg, self.executor = of, out, cfg, executor

    def cell(self, variant: Variant, seed: int) -> dict[str, Any]:
        """Evolve and test one variant with one seed, or read the finished cell."""
        name = config_hash([self.of.key, variant.settings, variant.untrained, seed, self.cfg])[:16]
        path = self.out / "cells" / f"{name}.json"
        if path.exists():
            return {**read_json(path), "variant": variant.name}
        cfg, work = self.of.configuration(variant), self.out / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        ctx = StageContext(seed, None, work, executor=self.executor)
        began = time.perf_counter()
        found = self.of.evolve(cfg, variant, self.out, ctx)
        generations = sorted(found.candidates.snapshots)
        population = np.stack([found.candidates.snapshots[g] for g in generations])
        judge = found.search.returns(episodes=JUDGING_DREAMS)
        dreamed = judge(population, derive_seed(seed, "judge")).tolist()
        evolved = time.perf_counter()
        real = self._real_returns(cfg, found, work, ctx)
        rows = [
            {"generation": g, "dream": dream, **returns}
            for g, dream, returns in zip(generations, dreamed, real, strict=True)
        ]
        seconds = {"dreams": evolved - began, "reality": time.perf_counter() - evolved}
        cell = {"variant": variant.name, "seed": seed, "settings": variant.settings}
        cell |= {"untrained": variant.untrained, "snapshots": rows, "seconds": seconds}
        write_json(path, {**cell, "versions": versions()})
        shutil.rmtree(work)
        return cell

    def _real_returns(
        self, cfg: RunConfig, found: Evolved, work: Path, ctx: StageContext
    ) -> list[dict[str, list[float]]]:
        """Real returns of every snapshot on selection and test seeds."""
        folder = found.agent.save_pretrained(work / "agent", dtype="float32")
        snapshots, count = found.candidates.snapshots, self.cfg.selection_episodes
        policies = [AgentParameters(folder, snapshots[g]) for g in sorted(snapshots)]
        seeds = [*range(SELECTION_SEED_START, SELECTION_SEED_START + count)]
        seeds += range(TEST_SEED_START, TEST_SEED_START + self.cfg.test_episodes)
        results = run_episodes(policies, cfg.env_id, seeds, cfg.selection.max_steps, ctx)
        return [
            {"selection": list(r.returns[:count]), "test": list(r.returns[count:])} for r in results
        ]


def summarise(cells: Sequence[Mapping[str, Any]]) -> list[VariantRow]:
    """One row per variant, in the order of the cells."""
    rows = list[VariantRow]()
    for name in dict.fromkeys(cell["variant"] for cell in cells):
        found = [_of_seed(cell["snapshots"]) for cell in cells if cell["variant"] == name]
        row: dict[str, Any] = {"variant": name, "seeds": len(found)}
        for key in found[0]:
            values = np.array([one[key] for one in found])
            row[key] = float(values.mean())
            row[f"{key}_std"] = float(values.std(ddof=1)) if len(values) > 1 else None
        rows.append(cast(VariantRow, row))
    return rows


def _of_seed(snapshots: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    selection = [float(np.mean(s["selection"])) for s in snapshots]
    dream = [float(s["dream"]) for s in snapshots]
    test = [float(np.mean(s["test"])) for s in snapshots]
    chosen, dreamed = int(np.argmax(selection)), int(np.argmax(dream))
    return {
        "dream": dream[chosen],
        "selection": selection[chosen],
        "validated": test[chosen],
        "dreamed": test[dreamed],
        "oracle": max(test),
    }


def to_markdown(rows: Sequence[VariantRow]) -> str:
    """The summary as a table for people."""

    def shown(row: Mapping[str, Any], key: str) -> str:
        std = row[f"{key}_std"]
        return told(row[key]) + ("" if std is None else f" ± {told(std)}")

    lines = [
        "| variant | seeds | dream | validated | dream-selected | oracle |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [shown(row, key) for key in ("dream", "validated", "dreamed", "oracle")]
        name = " ".join(str(row["variant"]).split()).replace("|", r"\|")
        lines.append(f"| {name} | {row['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
