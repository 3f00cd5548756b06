"""Networks trained in an agent's dreams as policies in C's place, and the file of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldmodels._from_json import from_json
from worldmodels.agent import Agent
from worldmodels.artifacts import file_of_tensors, filled, read_facts, read_tensors, weights_digest
from worldmodels.config import Config, Few
from worldmodels.planning.networks import Actor, Critic, NetworkConfig
from worldmodels.protocols import LatentPolicy, UserError
from worldmodels.runs import atomic_write, versions

REMEDY = "train it again"
SCHEMA = 2
"""Layout of the file; a reader refuses others."""


class MeanActor:
    """The `LatentPolicy` of some actors of one shape: the mean of their u."""

    def __init__(self, *actors: Actor) -> None:
        """Use these actors themselves."""
        self.actors = [actor.eval() for actor in actors]

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """M's action input (B, A) of z (B, Z) and h (B, H)."""
        u = torch.stack([actor(z, h)[0] for actor in self.actors]).mean(0)
        return self.actors[0].chosen(u)


class StackedActors:
    """`MeanActor` as one network, which is faster: equal up to rounding."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        """Copy the weights of actors of one shape, those of each layer side by side."""
        self.first, self.layers = actors[0], []
        bodies = [list(actor.body) for actor in actors]
        for parts in zip(*bodies, strict=True):
            if isinstance(parts[0], nn.SiLU):
                continue
            weight = torch.stack([part.weight.detach() for part in parts])
            bias = torch.stack([part.bias.detach() for part in parts])[:, None]
            linear = isinstance(parts[0], nn.Linear)
            weight = weight.transpose(1, 2).contiguous() if linear else weight[:, None]
            self.layers.append((weight, bias))

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """M's action input (B, A) of z (B, Z) and h (B, H)."""
        first = self.first
        x = first.inputs(z, h).expand(len(self.layers[0][0]), -1, -1)
        *hidden, (weight, bias) = self.layers
        for (w, b), (gain, shift) in zip(hidden[::2], hidden[1::2], strict=True):
            x = torch.baddbmm(b, x, w)
            x = functional.silu(functional.layer_norm(x, x.shape[-1:]) * gain + shift)
        mean = torch.baddbmm(bias, x, weight)[..., : len(first.low)]
        return first.chosen(first.changed(mean, z, h).mean(0))


@dataclass(frozen=True)
class _Facts(Config):
    """What the file says of its tensors."""

    kind: str
    memory: str
    network: NetworkConfig
    actors: Few


@dataclass(frozen=True)
class PolicyFile:
    """Trained actors of one shape, and the critic of the first where it has one."""

    actors: tuple[Actor, ...]
    critic: Critic | None
    kind: str  #: name of the policy, such as "residual"
    memory: str  #: digest of the agent's weights that they depend on: `origin`

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return weights_digest(*self.actors)

    @property
    def policy(self) -> LatentPolicy:
        """What acts in C's place."""
        return MeanActor(*self.actors)

    @property
    def dream_policy(self) -> LatentPolicy:
        """The same policy for dreams, up to rounding: faster."""
        return StackedActors(self.actors)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = _Networks(self.actors, self.critic).state_dict()
        facts = {"memory": self.memory, "network": self.actors[0].cfg, "actors": len(self.actors)}
        facts |= {"versions": versions()}
        atomic_write(path, file_of_tensors(tensors, self.kind, SCHEMA, **facts))

    @classmethod
    def load(cls, path: Path, agent: Agent) -> PolicyFile:
        """Read it for the agent in whose dreams it was trained.

        Raises:
            UserError: a missing or damaged file, or one of another agent.
        """
        if not path.is_file():
            raise UserError(f"there is no file {path}; `worldmodels train-policy` makes one")
        file = read_tensors(path, REMEDY)
        record = read_facts(file, dict, path, REMEDY)
        if record.get("schema") != SCHEMA:
            raise UserError(
                f"{path} has schema {record.get('schema')!r}; this version reads {SCHEMA}: {REMEDY}"
            )
        facts = from_json(_Facts, record, f"{path}: ", ignore_unknown=True)
        cfg = facts.network
        if facts.memory != origin(agent, cfg):
            whose = "with another M or C" if cfg.residual else "in the dreams of another M"
            raise UserError(f"{path} was trained {whose}; train it again")
        shape = (agent.z_dim, agent.seen_dim)
        valued = any(name.startswith("critic.") for name in file.tensors)

        def untrained() -> _Networks:
            actors = [Actor(*shape, agent.action_spec, cfg) for _ in range(facts.actors)]
            return _Networks(actors, Critic(*shape, cfg) if valued else None)

        networks = filled(untrained, file.tensors, path, REMEDY).requires_grad_(False).eval()
        for actor in networks.actors:
            actor.lead(agent)
        return cls(networks.actors, networks.critic, facts.kind, facts.memory)


class _Networks(nn.Module):
    """Actors and critic as one module, whose tensors have the names of the file's."""

    def __init__(self, actors: Sequence[Actor], critic: Critic | None) -> None:
        super().__init__()
        self.actors, self.critic = tuple(actors), critic
        self.actor = nn.ModuleList(actors)


def origin(agent: Agent, cfg: NetworkConfig) -> str:
    """SHA-256 (hex) of the agent's weights that a policy depends on: M, and C for a residual."""
    memories = weights_digest(*agent.memories)
    if not cfg.residual:
        return memories
    return hashlib.sha256(memories.encode() + agent.parameters.tobytes()).hexdigest()
