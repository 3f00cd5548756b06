"""Policies in C's place as commands: `plan`, `train-policy` and `ensemble`."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tyro

from worldmodels._agent_files import CONFIG, read_config
from worldmodels._files import disk_errors
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import DEFAULT_PRESET, AgentName, Command, load_preset
from worldmodels.config import Count, CountOrZero, Seed
from worldmodels.envs import from_file
from worldmodels.planning import planners
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.imitation import ImitationConfig, collect_decisions, imitate
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.streams import PolicyTrainConfig, residual_training
from worldmodels.policies.ensemble import FOLDER, Ensemble, other_members
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.policies.opening import Learned, open_member, open_policy, own_policy, policy_path
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import DEFAULT_AGENT, SHIPPED, UserError
from worldmodels.run_config import RunConfig
from worldmodels.runs import (
    FilePath,
    FilmPath,
    FolderPath,
    Log,
    check_output,
    derive_seed,
    make_folder,
    read_json,
    write_json,
)
from worldmodels.stages.context import StageContext, open_stage
from worldmodels.video import VideoConfig, write_video
from worldmodels.video.plans import PlannedStep, plan_frames, plan_in_dream


@dataclass(frozen=True)
class PlanOnce(Command):
    """Plan from a recorded state, take the first action in the dream, and plan again.

    Prints what each decision expects and how long it took; the film shows the plan's dream.
    """

    common: ClassVar[str] = (
        "agent policy weights start decisions seed video json planning.objective.horizon "
        "planning.objective.particles planning.cem.samples planning.cem.iterations"
    )

    agent: AgentName = DEFAULT_AGENT
    """agent: its folder, its run's folder, or the name of a bundled one"""
    policy: planners.Method = "icem"
    """planner"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner"""
    weights: Path | None = None
    """file of `train-policy` with the critic, where the planner uses one (default: the one in the
    agent's folder)"""
    start: CountOrZero = 0
    """index of the recorded state to start from"""
    decisions: Count = 20
    """decisions in the dream, at most"""
    seed: Seed = 0
    """random seed of the search and the dream"""
    video: FilmPath | None = None
    """write a film of the plans over the dream to this mp4 file (default: do not write)"""
    json: FilePath | None = None
    """write every decision to this JSON file (default: do not write)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The planner's own settings."""
        planning = planners.defaults(flags.get("policy", "icem"))
        return replace(super().defaults(preset, flags), planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other planners, and weights without a use."""
        found = planners.unused(self.policy)
        if not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def execute(self) -> None:
        """Plan, print the decisions, and write the JSON and the film."""
        planners.get(self.policy)
        policy = open_policy(self.agent, self.policy, self.planning, self.weights)
        assert isinstance(policy, PlanningPolicy)
        steps = list(plan_in_dream(policy, self.decisions, self.start, self.seed))
        heads = ("decision", "score", "M reward", "plans", "ms", "aleatoric", "epistemic")
        print(" ".join(f"{head:>9}" for head in heads), " action")
        for t, step in enumerate(steps):
            plan, noise, doubt = step.plan, step.aleatoric.mean(), step.epistemic.mean()
            figures = f"{plan.score:+9.2f} {step.reward:+9.2f} {plan.samples:9}"
            action = " ".join(f"{number:+.2f}" for number in plan.actions[0])
            print(f"{t:9} {figures} {1000 * plan.seconds:9.1f} {noise:9.3f} {doubt:9.3f}  {action}")
        milliseconds = np.median([1000 * step.plan.seconds for step in steps])
        print(
            f"dream return {sum(step.reward for step in steps):.1f} in {len(steps)} decisions; "
            f"{milliseconds:.1f} ms per decision (median)"
        )
        if self.json is not None:
            write_json(self.json, {"policy": self.policy, "decisions": [_facts(s) for s in steps]})
        if self.video is not None:
            cfg = VideoConfig(max_bytes=3_000_000)
            print(f"film: {write_video(self.video, plan_frames(policy, steps, cfg), cfg)}")


def _env_of(flags: Mapping[str, str]) -> str | None:
    """The environment of the agent among the flags; None where there is none."""
    try:
        config = read_config(find(flags.get("agent", DEFAULT_AGENT)))
        return from_file(str(config["env_id"]), "the agent")
    except UserError:  # refused when the command opens it
        return None


def _facts(step: PlannedStep) -> dict[str, Any]:
    """A decision, for JSON."""
    return {
        "actions": step.plan.actions.tolist(),
        "score": step.plan.score,
        "reward": step.reward,
        "samples": step.plan.samples,
        "iterations": step.plan.iterations,
        "ms": 1000 * step.plan.seconds,
        "aleatoric": step.aleatoric.tolist(),
        "epistemic": step.epistemic.tolist(),
    }


@dataclass(frozen=True)
class TrainPolicy(Command):
    """Train a network from [z, h] to actions in an agent's dreams; no real frame is needed.

    residual learns a bounded change of C's actions by the gradient of the rewards through M, with
    a critic beyond the horizon; actor-critic learns actions from scratch, policy-network has no
    critic, and imitation learns a planner's decisions. The same command resumes an interrupted
    training.
    """

    common: ClassVar[str] = (
        "agent policy out planner seed run log training.steps training.batch-size training.horizon "
        "training.learning-rate training.actors training.network.hidden "
        "training.network.residual imitation.dreams imitation.epochs"
    )
    unused: ClassVar[Mapping[str, str]] = {"training.critic": "--policy tells whether there is one"}

    agent: AgentName = DEFAULT_AGENT
    """agent: its folder, its run's folder, or the name of a bundled one"""
    policy: Learned = "actor-critic"
    """what to train"""
    out: FilePath | None = None
    """file to write (default: one named after the policy in the agent's folder, unless it
    is a bundled one)"""
    training: PolicyTrainConfig = field(default_factory=PolicyTrainConfig)
    """training of residual, actor-critic and policy-network"""
    planner: planners.Method = "icem"
    """planner that imitation learns from"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner that imitation learns from"""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    """training of imitation"""
    seed: Seed = 0
    """random seed of weights, starts and noise"""
    run: FolderPath | None = None
    """run folder to log metrics into (default: do not log)"""
    log: Log = field(default=(), metadata={"omit_default": True})
    """also write the metrics for tensorboard or wandb, or both, into the folder of --run"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The policy's own settings."""
        training = PolicyTrainConfig()
        if flags.get("policy") == "residual":
            own = load_preset(DEFAULT_PRESET, _env_of(flags)).residual.training
            training = replace(residual_training(), no_event_penalty=own.no_event_penalty)
        if flags.get("policy") == "policy-network":
            dreams = replace(training, horizon=12, max_length=100, tail=12, critic=False)
            training = replace(dreams, steps=300)
        planning = planners.defaults(flags.get("planner", "icem"))
        return replace(super().defaults(preset, flags), training=training, planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other policies."""
        if self.policy == "imitation":
            return {"training": "imitation has settings of its own"} | planners.unused(self.planner)
        why = f"it is for imitation, and policy is {self.policy}"
        found = dict.fromkeys(("planner", "planning", "imitation"), why)
        if not self.training.critic:
            why = f"{self.policy} has no critic"
            found |= dict.fromkeys(("training.lambda", "training.target-decay"), why)
        return found

    def execute(self) -> None:
        """Train and write the file."""
        if (self.policy == "residual") != bool(self.training.network.residual):
            raise UserError(
                f"--training.network.residual is {self.training.network.residual} and --policy is "
                f"{self.policy}; a residual needs it above 0, all others need 0"
            )
        planners.get(self.planner)
        if self.out is None and find(self.agent).parent == SHIPPED:
            raise UserError(
                f"{self.agent} comes with the package, which stays as it is: give --out"
            )
        agent = Agent.from_pretrained(self.agent)
        out = self.out or policy_path(self.agent, self.policy)
        check_output(out, "--out")  # by default in the agent's folder
        cfg = self.imitation if self.policy == "imitation" else self.training
        memory = origin(agent, cfg.network)
        inputs = [replace(self, out=None, run=None, log=()), memory]
        with open_stage("policy", out, inputs, self.run, seed=self.seed, log=self.log) as stage:
            seed = derive_seed(self.seed, self.policy)
            if self.policy == "imitation":
                file = self._imitate(agent, stage, seed, memory)
            else:
                networks = train_policies(
                    agent,
                    self.training,
                    seed=seed,
                    checkpoint=stage.checkpoint("policy.safetensors"),
                    log=partial(stage.log, "policy", policy=self.policy),
                )
                file = PolicyFile(*networks, self.policy, memory)
            file.save(out)
        print(f"{self.policy}, trained in the dream: {out}")

    def _imitate(self, agent: Agent, stage: StageContext, seed: int, memory: str) -> PolicyFile:
        planner = open_policy(self.agent, self.planner, self.planning)
        assert isinstance(planner, PlanningPolicy)
        checkpoint = stage.checkpoint("decisions.safetensors")
        decisions = collect_decisions(planner, self.imitation, seed, checkpoint)
        log = partial(stage.log, "policy", policy=self.policy)
        actor = imitate(agent, decisions, self.imitation, seed=seed, log=log)
        return PolicyFile((actor,), None, self.policy, memory)


@dataclass(frozen=True)
class MakeEnsemble(Command):
    """Average the actions of several agents, each with its own V, M and C.

    The new folder is the first agent's, with the others in its `ensemble/`. `evaluate` lets all of
    them act, or the first one alone with `--policy residual` or `controller`; dreams and planners
    use the first one. The others are stored without what only dreams need: a third of the size.
    """

    agents: tyro.conf.Positional[tuple[str, ...]]
    """two or more agents: their folders, their runs' folders, or names of bundled ones"""
    out: FolderPath
    """folder of the agent to write; must not exist"""

    def execute(self) -> None:
        """Check that the agents fit each other, and write the folder as a whole."""
        folders = [
            folder for agent in self.agents for folder in (find(agent), *other_members(agent))
        ]
        if len(folders) < 2:
            raise UserError(f"one agent, {folders[0]}, is no ensemble; give two or more")
        if self.out.exists():
            raise UserError(f"{self.out} exists; choose a new folder for the ensemble")
        ensemble = Ensemble([open_member(folder) for folder in folders])
        make_folder(self.out.parent)
        new = self.out.with_name(f".{self.out.name}-{uuid.uuid4().hex[:12]}")
        try:
            with disk_errors(self.out):
                new.mkdir()
                for file in filter(Path.is_file, folders[0].iterdir()):  # no folders of members
                    shutil.copy2(file, new)
                for number, folder in enumerate(folders[1:], 1):
                    _copy_member(folder, new / FOLDER / f"{number:02d}")
                os.replace(new, self.out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        print(f"ensemble of {len(ensemble.members)}: {self.out}")


def _copy_member(folder: Path, target: Path) -> None:
    """Save what an agent needs in order to act, in the precision that it has."""
    agent = Agent.from_pretrained(folder)
    agent.without_dreams().save_pretrained(target, dtype=read_json(folder / CONFIG)["dtype"])
    if own_policy(folder) == "residual":
        file = PolicyFile.load(policy_path(folder, "residual"), agent)
        replace(file, critic=None).save(policy_path(target, "residual"))
