"""`worldmodels train-policy`: a policy network or an actor-critic, from an agent's dreams alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import tyro

from worldmodels.agent import Agent
from worldmodels.commands.stage import OfRunBool, use_all_cores
from worldmodels.config import Seed
from worldmodels.planning import planners
from worldmodels.planning.actor_critic import train_policies
from worldmodels.planning.imitation import ImitationConfig, collect_decisions, imitate
from worldmodels.planning.planners import PlanningConfig
from worldmodels.planning.streams import PolicyTrainConfig, residual_training
from worldmodels.policies.learned import PolicyFile, origin
from worldmodels.policies.opening import Learned, open_driver, policy_path
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.presets import RunConfig
from worldmodels.protocols import UserError
from worldmodels.runs import FilePath, FolderPath, check_output, derive_seed
from worldmodels.stages.context import StageContext, open_stage


@dataclass(frozen=True)
class PolicyTraining(PolicyTrainConfig):
    """How a policy is trained in the dream; whether it has a critic, the policy's name says."""

    critic: OfRunBool = True


@dataclass(frozen=True)
class TrainPolicy:
    """Train a network from [z, h] to actions in an agent's dreams; no real frame is needed.

    residual learns a bounded change of C's actions by the gradient of the rewards through M, with
    a critic beyond the horizon; actor-critic does so from nothing, policy-network has no critic,
    imitation learns what a planner decides. The same command again goes on where it was stopped.
    """

    agent: str
    """folder of an agent or of its run, or name of an agent that comes with the package"""
    policy: Learned = "actor-critic"
    """what to train"""
    out: FilePath | None = None
    """file for the networks; None is one named after the policy in the agent's folder"""
    training: PolicyTraining = field(default_factory=PolicyTraining)
    """policy-network and actor-critic"""
    planner: planners.Method = "icem"
    """whom imitation imitates"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """that planner"""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    """imitation's training"""
    seed: Seed = 0
    """fixes weights, starts and noise"""
    run: FolderPath | None = None
    """run folder that gets the metrics; None writes nothing"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The policy's own settings."""
        policy = flags.get("policy")
        training = PolicyTraining()
        if policy == "residual":
            training = PolicyTraining(**vars(residual_training()))
        if policy == "policy-network":
            training = PolicyTraining(steps=300, horizon=12, longest=100, tail=12, critic=False)
        planning = planners.defaults(flags.get("planner", "icem"))
        return cls(agent=tyro.MISSING, training=training, planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other policies."""
        if self.policy == "imitation":
            return {"training": "imitation has settings of its own"} | planners.unused(self.planner)
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
        planners.get(self.planner)
        use_all_cores()
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
