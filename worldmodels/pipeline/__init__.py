"""The whole way from nothing to a driver: stages in order, each skipped when nothing has changed.

One iteration is collect -> V -> encode -> M -> dream and C -> selection; the next collects with the
driver that was selected. A stage's key is a hash of its configuration and of the keys of what it
reads, so a changed setting redoes exactly what depends on it, and a killed run goes on where its
last checkpoint is.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldmodels import executors
from worldmodels.config import Seed, require
from worldmodels.envs import make, require_limit
from worldmodels.envs.spaces import ActionSpec
from worldmodels.metrics import StageSeconds
from worldmodels.pages import build_report
from worldmodels.pipeline.iteration import Iteration, agent_files
from worldmodels.pipeline.work import Work
from worldmodels.policies.ensemble import FOLDER as COMMITTEE
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import Device, LedgerEntry, RunFolder, config_hash, require_device
from worldmodels.stages.committee import remove_members
from worldmodels.stages.context import StageContext, begin_metrics
from worldmodels.stages.files import Source
from worldmodels.stages.residual import remove_residual, residual_file
from worldmodels.tasks import task_for

TESTED = ("evaluation.json", "evaluation_random.json", "media")
"""What the test leaves in the run folder."""

LEDGER = ("collect", "dream", "select", "final", "residual", "committee", "test")
"""First words of the keys under which the stages enter frames into the ledger."""


class Pipeline:
    """Runs the stages of one run folder."""

    def __init__(
        self,
        cfg: RunConfig,
        out: Path,
        seed: int = 0,
        executor: executors.Executor | None = None,
        preset: str = "custom",
        device: Device = "cpu",
    ) -> None:
        """Open the run folder.

        Args:
            cfg: the resolved configuration.
            out: the run folder; made if it is not there, gone on with if it is.
            seed: fixes every generator of the run.
            executor: where episodes are driven; None uses this process.
            preset: the preset's name, for the report.
            device: where V and M are trained and dream; what is done stays valid on the other.

        Raises:
            UserError: the environment, or that of the test, cannot be used, may never end an
                episode or has no mirror image, the seed is negative, or there is no such device.
        """
        require("seed", seed, Seed)
        require_device(device)
        spec, task = _check_environments(cfg), task_for(cfg.env_id)
        if cfg.mirror:
            task.flip(cfg.env_id, cfg.frame_spec, spec)
        self.run = RunFolder(out)
        self.settings = {
            "preset": preset,
            "seed": seed,
            "task": task.name,
            **_fields(cfg),
            "test_env_id": cfg.test_env,
        }
        source = Source(cfg.env_id, cfg.frame_spec, spec, cfg.action_repeat)
        executor = executor or executors.make("serial", 1)
        self.context = StageContext(seed, run=self.run, executor=executor, device=device)
        self.work = Work(cfg, self.run, source)
        self.cfg, self.seed = cfg, seed
        self.results: dict[str, str] = {}
        """key of a stage that is done -> hash of what it found"""
        self.frames: list[LedgerEntry] = []
        """what the stages that are done entered into the ledger"""

    def execute(self) -> Path:
        """Run what is not done yet; return the path of the report.

        Raises:
            UserError: another process works in the folder, or the run in it has another seed or
                another environment.
        """
        with self.run.lock():
            self.run.claim(self.settings, ("method", "seed", "env_id"))
            self.run.write_config(self.settings, self.context.device)
            self.run.drop_damaged_ledger()
            return self._execute()

    def _execute(self) -> Path:
        iterations: list[Iteration] = []
        for number in range(self.cfg.iterations):
            iterations.append(self._iteration(number, iterations))
        final = self._final(iterations)
        self._residual(final)
        self._committee(final, iterations)
        self._test(final)
        self._settle(iterations, final)
        return build_report(self.run.path)

    def _settle(self, iterations: list[Iteration], final: Iteration) -> None:
        """Let the ledger's totals be what this agent cost."""
        keys = {
            f"{word}/{iteration.number:02d}/{iteration.keys[name][:8]}"
            for word, name in (
                ("collect", "collect"),
                ("dream", "controller"),
                ("select", "select"),
            )
            for iteration in iterations
        }
        keys |= {f"{name}/{key[:8]}" for name, key in final.keys.items()}
        keys.add(f"dream/residual/{final.keys['residual'][:8]}")
        self.run.settle(LEDGER, sorted(keys), self.frames)

    def _iteration(self, number: int, before: list[Iteration]) -> Iteration:
        """One round; every stage's key holds the keys of what it reads."""
        cfg, work = self.cfg, self.work
        this = Iteration(number, self.run.path / "iterations" / f"{number:02d}")
        previous = before[-1] if before else None
        self._stage(
            "collect",
            this,
            [
                cfg.env_id,
                cfg.experience,
                cfg.action_repeat,
                cfg.frame_spec,
                _key(previous, "select" if cfg.experience.needs_selection else "controller"),
            ],
            lambda ctx: work.collect(this, previous, ctx),
            lambda: [this.experience],
        )
        past = [iteration.keys["collect"] for iteration in [*before, this]]
        self._stage(
            "vision",
            this,
            [
                cfg.vision,
                cfg.vision_training_of(number),
                past,
                None if cfg.begins_vision(number) else _key(previous, "vision"),
                *(["mirror"] if cfg.mirror else []),
            ],
            lambda ctx: work.train_vision(this, before, ctx),
            lambda: [this.vision],
        )
        self._stage(
            "encode",
            this,
            [this.keys["vision"], past],
            lambda ctx: work.encode(this, before, ctx),
            lambda: [this.latents(past) for past in range(number + 1)],
        )
        self._stage(
            "memory",
            this,
            [
                cfg.memory,
                cfg.memory_training_of(number),
                this.keys["encode"],
                None if cfg.begins_memory(number) else _key(previous, "memory"),
            ],
            lambda ctx: work.train_memory(this, before, ctx),
            lambda: [this.memory],
        )
        self._stage(
            "controller",
            this,
            [
                cfg.dream,
                cfg.starts,
                cfg.controller,
                this.keys["memory"],
                _key(previous, "select") if cfg.controller.carry_on else None,
            ],
            lambda ctx: work.evolve_controller(this, previous, ctx),
            lambda: this.evolved_files,
        )
        self._stage(
            "select",
            this,
            [
                cfg.selection,
                cfg.selection.episodes_of(number, cfg.iterations),
                this.keys["controller"],
            ],
            lambda ctx: work.select(this, ctx),
            lambda: this.selected_files,
        )
        return this

    def _final(self, iterations: list[Iteration]) -> Iteration:
        """Choose the agent of the run among the best checkpoints of all iterations."""
        last = Iteration(self.cfg.iterations, self.run.path / "iterations" / "final")
        self._stage(
            "final",
            last,
            [self.cfg.selection, [iteration.keys["select"] for iteration in iterations]],
            lambda ctx: self.work.choose(iterations, ctx),
            lambda: agent_files(self.run.agent),
        )
        return last

    def _residual(self, final: Iteration) -> None:
        """Learn a bounded change of the chosen C."""
        if not self.cfg.residual.enabled:
            final.keys["residual"] = final.keys["final"]
            remove_residual(self.run.agent)
            return
        self._stage(
            "residual",
            final,
            [self.cfg.residual, self.cfg.selection, final.keys["final"]],
            self.work.learn_residual,
            lambda: [residual_file(self.run.agent)],
        )

    def _committee(self, final: Iteration, iterations: list[Iteration]) -> None:
        """Let the other finalists drive beside the agent, if that is better."""
        if not self.cfg.committee.enabled:
            final.keys["committee"] = final.keys["residual"]
            remove_members(self.run.agent)
            return
        winner = self.run.stage_outputs(f"final/{final.number:02d}")["iteration"]
        finalists = self.work.best_rounds(iterations)
        others = {f.iteration: f.agent for f in finalists if f.iteration != winner}
        self._stage(
            "committee",
            final,
            [self.cfg.committee, self.cfg.selection, final.keys["residual"]],
            lambda ctx: self.work.add_members(others, ctx),
            lambda: [self.run.agent / COMMITTEE],
        )

    def _test(self, final: Iteration) -> None:
        """Drive the test tracks once and film."""
        self._stage(
            "test",
            final,
            [self.cfg.test, self.cfg.test_env, final.keys["committee"]],
            self.work.test,
            lambda: [self.run.path / name for name in TESTED],
        )

    def _stage(
        self,
        name: str,
        iteration: Iteration,
        inputs: Any,
        work: Callable[[StageContext], dict[str, Any]],
        files: Callable[[], Sequence[Path]],
    ) -> None:
        """Do the work unless it is done with these inputs; the iteration gets the stage's key.

        Args:
            name: of the stage.
            iteration: that it belongs to.
            inputs: its settings, and the keys of the stages that it reads.
            work: does it.
            files: what it writes, called when its key is known.
        """
        key = config_hash([name, iteration.number, self.seed, inputs])
        label = f"{name}/{iteration.number:02d}"
        iteration.keys[name] = key
        sources = config_hash([self.results[read] for read in _keys(inputs, self.results)])
        if not self.run.stage_done(label, key, sources, files()):
            outputs = self._do(label, name, iteration.number, key, work)
            self.run.mark_done(label, key, outputs, files(), sources)
            shutil.rmtree(self._state(label), ignore_errors=True)
        self.results[key] = self.run.stage_result(label)
        self.frames += self.run.stage_frames(label)

    def _state(self, label: str) -> Path:
        """Folder that a stage resumes from."""
        return self.run.checkpoints / label.replace("/", "-")

    def _do(
        self,
        label: str,
        name: str,
        number: int,
        key: str,
        work: Callable[[StageContext], dict[str, Any]],
    ) -> dict[str, Any]:
        """Do a stage's work; return its outputs."""
        self.context.say(label)
        folder = self._state(label)
        begun = (folder / "key").exists() and (folder / "key").read_text() == key
        if not begun:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "key").write_text(key)
        begin_metrics(self.run, name, number, resumed=begun)
        started = time.perf_counter()
        outputs = work(dataclasses.replace(self.context, iteration=number, state=folder, key=key))
        seconds = time.perf_counter() - started
        self.run.log("stage", iteration=number, **StageSeconds(name=name, seconds=seconds))
        return outputs


def run_pipeline(
    cfg: RunConfig,
    out: Path,
    seed: int = 0,
    workers: int | None = None,
    preset: str = "custom",
    device: Device = "cpu",
) -> Path:
    """Run the whole pipeline in ``out`` with one pool of worker processes; return the report.

    Running it again goes on where it was stopped, and redoes only what a changed configuration
    concerns. One seed gives one agent, whatever the number of workers; a GPU
    adds up in no fixed order, and gives another agent every time.
    """
    with executors.make(None, workers) as executor:
        return Pipeline(cfg, out, seed, executor, preset, device).execute()


def _check_environments(cfg: RunConfig) -> ActionSpec:
    """Make the run's environments once, so that it fails before anything is learnt.

    Returns:
        The action space of both.
    """
    limits = {
        "experience.explore_steps": cfg.experience.explore_steps,
        "experience.driver_steps": cfg.experience.driver_steps,
        "selection.max_steps": cfg.selection.max_steps,
        "test.max_steps": cfg.test.max_steps,
    }
    unlimited = [name for name, limit in limits.items() if limit is None]
    spaces = {}
    for env_id in dict.fromkeys((cfg.env_id, cfg.test_env)):
        env = make(env_id)
        try:
            spaces[env_id] = env.action_space
            if unlimited:
                names = ", ".join(unlimited)
                require_limit(env, f"give --max-steps, which limits {names}, or ")
        finally:
            env.close()
    spec, tested = (ActionSpec.from_space(spaces[name]) for name in (cfg.env_id, cfg.test_env))
    if tested != spec:
        raise UserError(
            f"test_env_id {cfg.test_env!r} takes other actions than env_id {cfg.env_id!r}: "
            f"{spaces[cfg.test_env]}, not {spaces[cfg.env_id]}"
        )
    return spec


def _fields(cfg: RunConfig) -> dict[str, Any]:
    return {name: getattr(cfg, name) for name in cfg.__dataclass_fields__}


def _keys(inputs: Any, known: Mapping[str, str]) -> list[str]:
    """The keys of stages among some inputs, in their order."""
    if isinstance(inputs, str):
        return [inputs] if inputs in known else []
    if isinstance(inputs, list):
        return [key for part in inputs for key in _keys(part, known)]
    return []


def _key(iteration: Iteration | None, stage: str) -> str | None:
    return None if iteration is None else iteration.keys[stage]


__all__ = ["Pipeline", "run_pipeline"]
