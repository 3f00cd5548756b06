"""The stages on a run's folders: each reads what earlier ones left, and writes what it makes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worldmodels import stages
from worldmodels._agent_files import CONFIG
from worldmodels.agent import Agent
from worldmodels.pipeline.iteration import (
    Iteration,
    copy_file,
    dreaming_memories,
    dreaming_rounds,
    store_of,
)
from worldmodels.presets import RunConfig
from worldmodels.runs import RunFolder, write_json
from worldmodels.stages import Finalist, Source, StageContext
from worldmodels.stages.collection import Drives, snapshot_folders
from worldmodels.stages.controller import World
from worldmodels.stages.files import LatentsFile, MemoryFile, VisionFile
from worldmodels.stages.memory import Memories


@dataclass(frozen=True)
class Work:
    """All stages of one run; each returns what later stages and the report want to know."""

    cfg: RunConfig
    run: RunFolder
    source: Source

    def collect(
        self, this: Iteration, previous: Iteration | None, ctx: StageContext
    ) -> dict[str, Any]:
        """Collect at random, or with the previous iteration's agent and noise."""
        out, cfg = this.experience, self.cfg
        found = stages.collect(
            self._drives(this.number, previous),
            cfg.env_id,
            out,
            ctx,
            group=cfg.experience.group,
            action_repeat=cfg.action_repeat,
            frame_spec=cfg.frame_spec,
        )
        label = f"collect/{this.number:02d}/{ctx.key[:8]}"
        self.run.count_frames("collection", found.frames, label)
        for old in out.parent.glob(f"{this.number:02d}-*"):
            if old != out:
                shutil.rmtree(old)
        return {
            "frames": found.frames,
            "episodes": found.episodes,
            "fingerprint": found.fingerprint,
        }

    def _drives(self, number: int, previous: Iteration | None) -> Drives:
        cfg = self.cfg.experience
        if previous is None:
            return stages.exploration(cfg)
        return stages.by_agents(cfg, drivers(previous, cfg.driver_snapshots), number)

    def train_vision(
        self, this: Iteration, before: Sequence[Iteration], ctx: StageContext
    ) -> dict[str, Any]:
        """Train V on all frames so far, from the previous iteration's weights if there are any.

        After `VisionTrainConfig.finetune_rounds` it stays as it is, and so do the latents, until
        the first iteration from scratch (`RunConfig.fresh`).
        """
        cfg, number = self.cfg, this.number
        this.folder.mkdir(parents=True, exist_ok=True)
        if not cfg.trains_vision(number):
            copy_file(before[-1].vision, this.vision)
            return {}
        model = stages.train_vision(
            cfg.vision_training_of(number),
            cfg.vision,
            store_of([*before, this]),
            ctx,
            mirror=cfg.mirror,
            init=None if cfg.begins_vision(number) else before[-1].load_vision().model.state_dict(),
        )
        VisionFile(model, self.source, cfg.mirror).save(this.vision)
        return {}

    def encode(
        self, this: Iteration, before: Sequence[Iteration], ctx: StageContext
    ) -> dict[str, Any]:
        """Encode every episode so far with this iteration's V, one file per iteration."""
        vision = this.load_vision()
        model, digest = vision.model, vision.digest
        frozen = not self.cfg.trains_vision(this.number)
        for iteration in [*before, this]:
            target = this.latents(iteration.number)
            if frozen and iteration is not this:
                copy_file(before[-1].latents(iteration.number), target)
                continue
            latents = stages.encode(model, store_of([iteration]), ctx, mirror=self.cfg.mirror)
            LatentsFile(latents, self.source, digest, self.cfg.mirror).save(target)
        return {}

    def train_memory(
        self, this: Iteration, before: Sequence[Iteration], ctx: StageContext
    ) -> dict[str, Any]:
        """Train M on all latents so far, from the previous iteration's weights or from scratch."""
        cfg, number = self.cfg, this.number
        scratch = cfg.begins_memory(number)
        training = cfg.memory_training_of(number)
        memories = stages.train_memory(
            cfg.memory,
            training,
            this.load_latents(),
            ctx,
            mirror=cfg.mirror,
            init=None
            if scratch
            else [model.state_dict() for model in before[-1].load_memory().models],
            kind=before[0].load_memory().reward.kind if before else None,
        )
        vision, noise = this.load_vision().digest, training.posterior_noise
        MemoryFile(memories.models, memories.reward, self.source, vision, noise).save(this.memory)
        return {}

    def evolve_controller(
        self, this: Iteration, previous: Iteration | None, ctx: StageContext
    ) -> dict[str, Any]:
        """Evolve C inside the dream; keep its mean at several generations for the selection."""
        cfg = self.cfg
        begin = previous if cfg.controller.carry_on else None
        evolved = stages.evolve_controller(
            cfg.controller,
            cfg.dream,
            cfg.starts,
            world_of(cfg, self.source, this),
            ctx,
            init=None if begin is None else Agent.from_pretrained(begin.agent),
        )
        _overwrite(this.agent)
        evolved.agent.save_pretrained(this.agent, dtype="float32")
        this.keep_evolved()
        evolved.candidates.save(this.candidates)
        self.run.count_frames("dream", evolved.frames, f"dream/{this.number:02d}/{ctx.key[:8]}")
        return {"dreamed": evolved.candidates.dreamed}

    def select(self, this: Iteration, ctx: StageContext) -> dict[str, Any]:
        """Drive every snapshot of C on the selection tracks; the best is the iteration's agent."""
        cfg = self.cfg
        this.restore_evolved()
        found = stages.select(
            cfg.selection,
            cfg.dream,
            this.agent,
            this.load_candidates(),
            ctx,
            episodes=cfg.selection.episodes_of(this.number, cfg.iterations),
        )
        self.run.count_frames("selection", found.frames, f"select/{this.number:02d}/{ctx.key[:8]}")
        return _without_frames(found)

    def best_rounds(self, iterations: Sequence[Iteration]) -> list[Finalist]:
        """Finalists among the iterations' agents, the best first."""
        cfg = self.cfg.selection
        if cfg.early_episodes is not None:  # so few episodes of the others prove nothing
            iterations = iterations[-cfg.late_rounds :]
        finalists = [Finalist(it.number, it.agent, self._selected_mean(it)) for it in iterations]
        return sorted(finalists, key=lambda finalist: -finalist.real_mean)[: cfg.finalists]

    def _selected_mean(self, iteration: Iteration) -> float:
        """Mean return of an iteration's agent on the tracks that chose it."""
        return float(self.run.stage_outputs(f"select/{iteration.number:02d}")["real_mean"])

    def choose(self, iterations: Sequence[Iteration], ctx: StageContext) -> dict[str, Any]:
        """Let the best iterations' agents drive on further tracks; the winner is the run's."""
        finalists = self.best_rounds(iterations)
        _overwrite(self.run.agent)
        found = stages.choose(self.cfg.selection, finalists, self.run.agent, ctx)
        if found.frames:
            self.run.count_frames("selection", found.frames, f"final/{ctx.key[:8]}")
        return _without_frames(found)

    def learn_residual(self, ctx: StageContext) -> dict[str, Any]:
        """Learn a bounded change of the chosen C."""
        training = self.cfg.residual.training
        found = stages.learn_residual(training, self.cfg.selection, self.run.agent, ctx)
        self.run.count_frames("selection", found.frames, f"residual/{ctx.key[:8]}")
        self.run.count_frames("dream", found.dreamt, f"dream/residual/{ctx.key[:8]}")
        return _without_frames(found)

    def add_members(self, others: Mapping[int, Path], ctx: StageContext) -> dict[str, Any]:
        """Let the other finalists drive beside the agent, if that is better."""
        found = stages.add_members(self.cfg.selection, self.run.agent, others, ctx)
        if found is None:
            return {"rounds": []}
        self.run.count_frames("selection", found.frames, f"committee/{ctx.key[:8]}")
        return _without_frames(found)

    def test(self, ctx: StageContext) -> dict[str, Any]:
        """Drive the test tracks once and film."""
        cfg, out = self.cfg, self.run.path
        result = stages.test(cfg.test, cfg.env_id, cfg.test_env, self.run.agent, out, ctx)
        self.run.count_frames("test", result.frames, f"test/{ctx.key[:8]}")
        return {"mean": result.mean, "ci95": result.summary.ci95}


def world_of(
    cfg: RunConfig, source: Source, this: Iteration, memories: Memories | None = None
) -> World:
    """V, M and latents of an iteration.

    Args:
        cfg: of the run.
        source: of its frames.
        this: the iteration.
        memories: that dream; None takes its own, and those of the iterations before that
            `ControllerStageConfig.memory_rounds` counts in.
    """
    if memories is None:
        rounds = dreaming_rounds(cfg, this.number)
        memories = Memories(dreaming_memories(this, rounds), this.load_memory().reward)
    return World(
        source,
        this.load_vision().model,
        memories.models,
        memories.reward,
        this.load_latents(),
        cfg.mirror,
        cfg.memory_training.posterior_noise,
    )


def drivers(previous: Iteration, which: Literal["selected", "all"]) -> list[Path]:
    """Folders for `load_driver`: the iteration's agent, or one of each snapshot of C."""
    if which == "selected":
        return [previous.agent]
    snapshots = previous.load_candidates().snapshots
    return snapshot_folders(previous.agent, snapshots, previous.folder / "drivers")


def _overwrite(agent: Path) -> None:
    """Let an agent's folder that has lost its configuration be written again."""
    if agent.is_dir() and not (agent / CONFIG).exists():
        write_json(agent / CONFIG, {})


def _without_frames(found: Any) -> dict[str, Any]:
    """A stage's result for its record; the ledger has the frames."""
    names = (f.name for f in dataclasses.fields(found) if f.name not in ("frames", "dreamt"))
    return {name: getattr(found, name) for name in names}
