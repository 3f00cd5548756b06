"""The whole pipeline: stages in order, each skipped when it is done already.

One iteration is collect -> V -> encode -> M -> dream and C -> selection; the next collects with the
selected agent. A stage's key is a hash of its configuration and of the keys of what it reads, so a
changed setting redoes exactly what depends on it, and a killed run resumes at its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldmodels import executors, stages
from worldmodels._agent_files import CONFIG
from worldmodels.config import Seed, require
from worldmodels.executors import Placement
from worldmodels.pages import build_report
from worldmodels.pipeline.fitting import require_fitting, require_limits
from worldmodels.pipeline.iteration import SMALL, Iteration, agent_files, copy_file, store_of
from worldmodels.pipeline.runner import Runner
from worldmodels.policies.ensemble import FOLDER
from worldmodels.run_config import RunConfig
from worldmodels.runs import Device, Log, RunFolder, require_device, write_json
from worldmodels.stages import Candidates, Finalist, StageContext
from worldmodels.stages.selection import RESIDUAL, remove_members, remove_residual
from worldmodels.tasks import task_for
from worldmodels.web.page import export_run

TESTED = ("evaluation.json", "media")
"""What the test writes into the run folder."""


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
        log: Log = (),
    ) -> None:
        """Open the run folder; the arguments are those of `run_pipeline`, and an executor."""
        require("seed", seed, Seed)
        require_device(device)
        require_fitting(cfg)
        require_limits(cfg)
        self.run = RunFolder(out, log=log)
        self.settings = {
            "preset": preset,
            "seed": seed,
            "task": task_for(cfg.env_id).name,
            **{name: getattr(cfg, name) for name in cfg.__dataclass_fields__},
            "test_env_id": cfg.test_env,
        }
        executor = executor or executors.make("serial", 1)
        self.cfg, self.device = cfg, device
        context = StageContext(seed, run=self.run, executor=executor, device=device)
        self.runner = Runner(self.run, cfg, context)

    def execute(self) -> Path:
        """Run what is missing; return the path of the report, which is there from the start."""
        with self.run.lock():
            self.run.claim(self.settings, ("method", "seed", "env_id"))
            self.run.write_config(self.settings, self.device)
            self.run.ledger.drop_if_damaged()
            try:
                self._all_stages()
            except BaseException:
                with contextlib.suppress(Exception):  # the first error counts
                    build_report(self.run.path)
                raise
            self.runner.settle()
            export_run(self.run.path)
            return build_report(self.run.path)

    def _all_stages(self) -> None:
        """Every iteration, then what is done once."""
        iterations: list[Iteration] = []
        for number in range(self.cfg.iterations):
            this = Iteration(number, self.run.path / "iterations" / f"{number:02d}")
            self._iteration(this, iterations)
            iterations.append(this)
            if self._enough(this):
                break
        final = Iteration(self.cfg.iterations, self.run.path / "iterations" / "final")
        self._choose(final, iterations)
        self._learn_residual(final)
        self._add_members(final, iterations)
        self._test(final)
        self._run_controls(final)

    def _iteration(self, this: Iteration, before: Sequence[Iteration]) -> None:
        """One pass through the loop; every stage's key holds the keys of what it reads."""
        previous = before[-1] if before else None
        self._collect(this, previous)
        self._train_vision(this, before)
        self._encode(this, before)
        self._train_memory(this, before)
        self._evolve_controller(this, previous)
        self._select(this)

    def _collect(self, this: Iteration, previous: Iteration | None) -> None:
        """Collect with random actions, or with the previous iteration's agent and noise."""
        cfg, own = self.cfg, self.cfg.experience

        def work(ctx: StageContext) -> dict[str, Any]:
            plan, out = stages.exploration(own), this.experience
            if previous is not None:
                folders = previous.policies(own.agent_snapshots)
                plan = stages.by_agents(own, folders, this.number)
            found = stages.collect(
                plan,
                cfg.env_id,
                out,
                ctx,
                group=own.group,
                action_repeat=cfg.action_repeat,
                frame_spec=cfg.frame_spec,
            )
            for old in out.parent.glob(f"{this.number:02d}-*"):
                if old != out:
                    shutil.rmtree(old)
            kept = {name: found[name] for name in ("frames", "episodes")}
            return {**kept, "fingerprint": store_of([this]).fingerprint}

        policy = _key(previous, "select" if own.agent_snapshots == "selected" else "controller")
        read = own.of_random_actions() if previous is None else own
        inputs = [cfg.env_id, read, cfg.action_repeat, cfg.frame_spec, policy]
        self.runner.stage("collect", this, inputs, work, lambda: [this.experience])

    def _train_vision(self, this: Iteration, before: Sequence[Iteration]) -> None:
        """Train V on all frames so far, from the previous iteration's weights if there are any.

        After `VisionTrainConfig.finetune_iterations` V and the latents are kept until the first
        iteration from scratch (`RunConfig.from_scratch`).
        """
        cfg, number = self.cfg, this.number
        previous = None if cfg.begins_vision(number) else before[-1]
        training, everything = cfg.vision_training_of(number), [*before, this]

        def work(ctx: StageContext) -> None:
            if not cfg.trains_vision(number):
                copy_file(before[-1].vision, this.vision)
                return
            init = None if previous is None else previous.load_vision()
            vision = stages.train_vision(
                training,
                cfg.vision,
                store_of(everything),
                ctx,
                horizontal_flip=cfg.horizontal_flip,
                init=init,
            )
            vision.save(this.vision)

        past = [iteration.keys["collect"] for iteration in everything]
        flip = ["horizontal_flip"] if cfg.horizontal_flip else []
        inputs = [cfg.vision, training, past, _key(previous, "vision"), *flip]
        self.runner.stage("vision", this, inputs, work, lambda: [this.vision])

    def _encode(self, this: Iteration, before: Sequence[Iteration]) -> None:
        """Encode every episode so far with this iteration's V, one file per iteration."""
        frozen, everything = not self.cfg.trains_vision(this.number), [*before, this]

        def work(ctx: StageContext) -> None:
            for iteration in everything:
                target = this.latents(iteration.number)
                if frozen and iteration is not this:
                    copy_file(before[-1].latents(iteration.number), target)
                else:
                    stages.encode(this.load_vision(), store_of([iteration]), ctx).save(target)

        past = [iteration.keys["collect"] for iteration in everything]
        files = [this.latents(iteration.number) for iteration in everything]
        self.runner.stage("encode", this, [this.keys["vision"], past], work, lambda: files)

    def _train_memory(self, this: Iteration, before: Sequence[Iteration]) -> None:
        """Train M on all latents so far, from the previous iteration's weights or from scratch."""
        cfg, number = self.cfg, this.number
        previous = None if cfg.begins_memory(number) else before[-1]
        training = cfg.memory_training_of(number)

        def work(ctx: StageContext) -> None:
            init = None if previous is None else previous.load_memory()
            kind = before[0].load_memory().reward.kind if before else None
            parts = this.load_latents()
            memory = stages.train_memory(cfg.memory, training, parts, ctx, init=init, kind=kind)
            memory.save(this.memory)

        inputs = [cfg.memory, training, this.keys["encode"], _key(previous, "memory")]
        self.runner.stage("memory", this, inputs, work, lambda: [this.memory])

    def _evolve_controller(self, this: Iteration, previous: Iteration | None) -> None:
        """Evolve C inside the dream; keep its mean at several generations for the selection."""
        cfg = self.cfg

        def work(ctx: StageContext) -> dict[str, Any]:
            evolved = this.evolve(cfg, previous, ctx)
            _overwrite(this.agent)
            evolved.agent.save_pretrained(this.agent, dtype="float32")
            this.keep_evolved()
            evolved.candidates.save(this.candidates)
            return {"dreamed": evolved.candidates.dreamed}

        begin = _key(previous, "select") if cfg.controller.warm_start else None
        inputs = [cfg.dream, cfg.starts, cfg.controller, this.keys["memory"], begin]
        large = [path for path in agent_files(this.agent) if path.name not in SMALL]
        files = [this.candidates, this.evolved, *large]
        self.runner.stage("controller", this, inputs, work, lambda: files)

    def _select(self, this: Iteration) -> None:
        """Run every snapshot of C on selection seeds; the best is the iteration's agent."""
        cfg = self.cfg.selection
        episodes = cfg.episodes_of(this.number, self.cfg.iterations)

        def work(ctx: StageContext) -> Any:
            this.restore_evolved()
            candidates = Candidates.load(this.candidates)
            found = stages.select(
                cfg, self.cfg.dream, this.agent, candidates, ctx, episodes=episodes
            )
            if this.number < self.cfg.iterations - 1 and cfg.is_enough(found["lowest"]):
                found["confirmed"] = stages.confirm(cfg, this.agent, ctx)
            return found

        inputs = [cfg, episodes, this.keys["controller"]]
        files = [this.agent / name for name in SMALL]
        self.runner.stage("select", this, inputs, work, lambda: files)

    def _selected(self, iteration: Iteration) -> dict[str, Any]:
        """What the selection of a finished iteration found."""
        return self.run.stage_outputs(f"select/{iteration.number:02d}")

    def _enough(self, iteration: Iteration) -> bool:
        """Whether the iteration reaches so much that no other one need follow.

        A run of an earlier version has not noted it.
        """
        found = self._selected(iteration).get("confirmed")
        return found is not None and self.cfg.selection.is_enough(found)

    def _real_mean(self, iteration: Iteration) -> float:
        found = self._selected(iteration)
        return float(found["confirmed" if self._enough(iteration) else "real_mean"])

    def _choose(self, final: Iteration, iterations: Sequence[Iteration]) -> None:
        """Compare the best iterations' agents on other seeds; the winner is the run's."""
        cfg, agent = self.cfg.selection, self.run.agent

        def work(ctx: StageContext) -> Any:
            _overwrite(agent)
            return stages.choose(cfg, self._finalists(iterations), agent, ctx)

        inputs = [cfg, [iteration.keys["select"] for iteration in iterations]]
        self.runner.stage("final", final, inputs, work, lambda: agent_files(agent))

    def _finalists(self, iterations: Sequence[Iteration]) -> list[Finalist]:
        """The best of the iterations' agents on the seeds that chose them, the best first."""
        cfg = self.cfg.selection
        if self._enough(iterations[-1]):
            iterations = iterations[-1:]
        elif cfg.early_episodes is not None:  # the others had too few episodes
            iterations = iterations[-cfg.late_iterations :]
        finalists = [Finalist(it.number, it.agent, self._real_mean(it)) for it in iterations]
        return sorted(finalists, key=lambda finalist: -finalist.real_mean)[: cfg.finalists]

    def _learn_residual(self, final: Iteration) -> None:
        """Learn a bounded change of the chosen C."""
        cfg, agent = self.cfg, self.run.agent
        if not cfg.residual.enabled:
            final.keys["residual"] = final.keys["final"]
            remove_residual(agent)
            return

        def work(ctx: StageContext) -> Any:
            return stages.learn_residual(cfg.residual.training, cfg.selection, agent, ctx)

        inputs = [cfg.residual, cfg.selection, final.keys["final"]]
        self.runner.stage("residual", final, inputs, work, lambda: [agent / RESIDUAL])

    def _add_members(self, final: Iteration, iterations: Sequence[Iteration]) -> None:
        """Add the other finalists to the agent as an ensemble, if that scores better."""
        cfg, agent = self.cfg, self.run.agent
        if not cfg.ensemble.enabled:
            final.keys["ensemble"] = final.keys["residual"]
            remove_members(agent)
            return

        def work(ctx: StageContext) -> dict[str, Any]:
            winner = self.run.stage_outputs(f"final/{final.number:02d}")["iteration"]
            finalists = self._finalists(iterations)
            others = {f.iteration: f.agent for f in finalists if f.iteration != winner}
            return {"rounds": stages.add_members(cfg.selection, agent, others, ctx)}

        inputs = [cfg.ensemble, cfg.selection, final.keys["residual"]]
        self.runner.stage("ensemble", final, inputs, work, lambda: [agent / FOLDER])

    def _test(self, final: Iteration) -> None:
        """Run the test episodes once and film."""
        cfg, out = self.cfg, self.run.path

        def work(ctx: StageContext) -> dict[str, Any]:
            result = stages.test(cfg.test, cfg.env_id, cfg.test_env, self.run.agent, out, ctx)
            return {"mean": result.mean, "ci95": result.summary.ci95}

        alone = dataclasses.replace(cfg.test, random_policy=True, constant_action=True)
        inputs = [alone, cfg.test_env, final.keys["ensemble"]]
        self.runner.stage("test", final, inputs, work, lambda: [out / name for name in TESTED])

    def _run_controls(self, final: Iteration) -> None:
        """Run the test episodes with random actions and with the best constant one."""
        cfg, out = self.cfg, self.run.path
        files = stages.remove_controls(cfg.test, out)
        if not files:
            return

        def work(ctx: StageContext) -> dict[str, Any]:
            return stages.run_controls(cfg.test, cfg.selection, cfg.env_id, out, ctx)

        test = dataclasses.replace(cfg.test, videos=True)
        own = [cfg.selection.seed, cfg.selection.episodes, cfg.selection.max_steps]
        self.runner.stage("controls", final, [test, own, cfg.env_id], work, lambda: files)


def run_pipeline(
    cfg: RunConfig,
    out: Path,
    seed: int = 0,
    workers: int | Placement | None = None,
    preset: str = "custom",
    device: Device = "cpu",
    log: Log = (),
) -> Path:
    """Run the whole pipeline in ``out`` with one pool of workers; return the report.

    The same call resumes a run, and redoes only what depends on changed settings. One seed gives
    one agent for any number of workers; a GPU sums in varying order, so it gives another agent
    every time. Finished stages stay valid on another device. ``preset`` is a name for the report,
    and ``workers`` a number of processes, or another placement. Metrics go to ``metrics.jsonl`` and
    to the sinks in ``log``.

    Raises:
        UserError: an environment, the seed or the device cannot be used; another process works in
            the folder, or the run in it has another seed or another environment.
    """
    place = workers if isinstance(workers, Placement) else Placement(workers)
    with place.make() as executor:
        return Pipeline(cfg, out, seed, executor, preset, device, log).execute()


def _overwrite(agent: Path) -> None:
    """Allow an agent's folder without its configuration to be written again."""
    if agent.is_dir() and not (agent / CONFIG).exists():
        write_json(agent / CONFIG, {})


def _key(iteration: Iteration | None, stage: str) -> str | None:
    return None if iteration is None else iteration.keys[stage]
