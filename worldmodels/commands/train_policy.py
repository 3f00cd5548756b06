"""`worldmodels train-policy`: a policy network or an actor-critic, from an agent's dreams alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Self

from worldmodels.agent import Agent
from worldmodels.commands.parsing import Command
from worldmodels.commands.plan import of_planners
from worldmodels.config import Seed
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.config import Method, PlanningConfig
from worldmodels.planning.drivers import Learned, open_driver, policy_path
from worldmodels.planning.imitation import ImitationConfig, collect_decisions, imitate
from worldmodels.planning.policy import PlanningPolicy
from worldmodels.planning.policy_file import PolicyFile, origin
from worldmodels.planning.streams import PolicyTrainConfig, residual_training
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import FilePath, FolderPath, check_output, derive_seed
from worldmodels.stages.context import StageContext, open_stage


@dataclass(frozen=True)
class TrainPolicy(Command):
    """Train a network from [z, h] to actions in an agent's dreams; no real frame is needed.

    residual learns a bounded change of C's actions by the gradient of the rewards through M, with
    a critic beyond the horizon; actor-critic learns actions from nothing, policy-network has no
    critic, and imitation learns what a planner decides. The same command resumes an interrupted
    training.
    """

    common: ClassVar[str] = (
        "agent policy out planner seed run training.steps training.dreams training.horizon "
        "training.learning-rate training.actors training.network.hidden "
        "training.network.residual imitation.dreams imitation.epochs"
    )
    unused: ClassVar[Mapping[str, str]] = {"training.critic": "--policy tells whether there is one"}

    agent: str
    """agent: its folder, its run's folder, or the name of a bundled one"""
    policy: Learned = "actor-critic"
    """what to train"""
    out: FilePath | None = None
    """file to write (default: one named after the policy in the agent's folder)"""
    training: PolicyTrainConfig = field(default_factory=PolicyTrainConfig)
    """training of residual, actor-critic and policy-network"""
    planner: Method = "icem"
    """planner that imitation learns from"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner that imitation learns from"""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    """training of imitation"""
    seed: Seed = 0
    """random seed of weights, starts and noise"""
    run: FolderPath | None = None
    """run folder to log metrics into (default: do not log)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The policy's own settings."""
        training = PolicyTrainConfig()
        if flags.get("policy") == "residual":
            training = residual_training()
        if flags.get("policy") == "policy-network":
            training = PolicyTrainConfig(steps=300, horizon=12, longest=100, tail=12, critic=False)
        planning = PlanningConfig.of(flags.get("planner", "icem"))
        return replace(super().defaults(preset, flags), training=training, planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other policies."""
        if self.policy == "imitation":
            return {"training": "imitation has settings of its own"} | of_planners(self.planner)
        why = f"it is for imitation, and policy is {self.policy}"
        found = dict.fromkeys(("planner", "planning", "imitation"), why)
        if not self.training.critic:
            why = f"{self.policy} has no critic"
            found |= dict.fromkeys(("training.trace", "training.target-decay"), why)
        return found

    def execute(self) -> None:
        """Train, and write the file."""
        if (self.policy == "residual") != bool(self.training.network.residual):
            raise UserError(
                f"--training.network.residual is {self.training.network.residual} and --policy is "
                f"{self.policy}; a residual needs it above 0, all others need 0"
            )
        agent = Agent.from_pretrained(self.agent)
        out = self.out or policy_path(self.agent, self.policy)
        check_output(out, "--out")  # the agent's folder may not be writable
        cfg = self.imitation if self.policy == "imitation" else self.training
        memory = origin(agent, cfg.network)
        inputs = [replace(self, out=None, run=None), memory]
        with open_stage("policy", out, inputs, self.run, seed=self.seed) as stage:
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
        planner = open_driver(self.agent, self.planner, self.planning)
        assert isinstance(planner, PlanningPolicy)
        checkpoint = stage.checkpoint("decisions.safetensors")
        decisions = collect_decisions(planner, self.imitation, seed, checkpoint)
        log = partial(stage.log, "policy", policy=self.policy)
        actor = imitate(agent, decisions, self.imitation, seed=seed, log=log)
        return PolicyFile((actor,), None, self.policy, memory)
