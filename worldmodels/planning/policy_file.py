"""Trained actors as drivers, and the file that they live in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.agent import Agent
from worldmodels.artifacts import filled, read_facts, read_tensors
from worldmodels.config import Config, Few, from_json
from worldmodels.planning.controller import Drive
from worldmodels.planning.networks import Actor, Critic, NetworkConfig
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write, to_jsonable, versions

REMEDY = "train it again"
SCHEMA = 2
"""Layout of the file; a reader refuses others."""


class ActorControl:
    """Actors' mean mode in C's place: see `Agent.with_control`."""

    def __init__(self, *actors: Actor) -> None:
        """Take actors of one shape; they act by the mean of their u."""
        self.actors = [actor.eval() for actor in actors]

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Actions (B, A), or indices (B,) for a Discrete space."""
        u = torch.stack([actor(z, h)[0] for actor in self.actors]).mean(0)
        first = self.actors[0]
        numbers = first.act(u)
        return numbers.argmax(-1) if first.discrete else first.to_input(numbers)


class StackedActors:
    """Actors of one shape as one network: `ActorControl` for dreams, where every step counts."""

    def __init__(self, actors: Sequence[Actor]) -> None:
        """Copy their weights, those of each layer side by side."""
        self.first, self.layers = actors[0], []
        bodies = [list(actor.body) for actor in actors]
        for parts in zip(*bodies, strict=True):
            if isinstance(parts[0], nn.SiLU):
                continue
            weight = torch.stack([part.weight.detach() for part in parts])
            bias = torch.stack([part.bias.detach() for part in parts])[:, None]
            if isinstance(parts[0], nn.Linear):
                self.layers.append((weight.transpose(1, 2).contiguous(), bias))
            else:
                self.layers.append((weight[:, None], bias))

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """M's action input (B, A) of z (B, Z) and h (B, H)."""
        first = self.first
        x = first.inputs(z, h).expand(len(self.layers[0][0]), -1, -1)
        *hidden, (weight, bias) = self.layers
        for (w, b), (gain, shift) in zip(hidden[::2], hidden[1::2], strict=True):
            x = torch.baddbmm(b, x, w)
            x = functional.silu(functional.layer_norm(x, x.shape[-1:]) * gain + shift)
        mean = torch.baddbmm(bias, x, weight)[..., : len(first.low)]
        numbers = first.act(first.changed(mean, z, h).mean(0))
        if not first.discrete:
            return first.to_input(numbers)
        return functional.one_hot(numbers.argmax(-1), len(first.low)).float()


@dataclass(frozen=True)
class _Facts(Config):
    """What the file says of its tensors."""

    kind: str
    memory: str
    network: NetworkConfig
    actors: Few


@dataclass(frozen=True)
class PolicyFile:
    """Trained actors of one shape, and the first one's critic where it has one."""

    actors: tuple[Actor, ...]
    """they drive by the mean of their u"""
    critic: Critic | None
    kind: str
    """how it was trained"""
    memory: str
    """digest of the memories in whose dreams it was trained, and of C for a residual: `origin`"""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the weights."""
        return digest_of(self.actors)

    @property
    def control(self) -> ActorControl:
        """What drives in C's place."""
        return ActorControl(*self.actors)

    @property
    def drive(self) -> Drive:
        """The same as M's action input (B, A), for dreams: alike up to rounding, and faster."""
        return StackedActors(self.actors)

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        tensors = {
            f"actor.{i}.{name}": tensor
            for i, actor in enumerate(self.actors)
            for name, tensor in actor.state_dict().items()
        }
        if self.critic is not None:
            tensors |= {f"critic.{k}": v for k, v in self.critic.state_dict().items()}
        facts = _Facts(self.kind, self.memory, self.actors[0].cfg, len(self.actors))
        record = {"schema": SCHEMA, **to_jsonable(facts), "versions": versions()}
        content = {name: t.contiguous() for name, t in tensors.items()}
        atomic_write(path, save(content, {"worldmodels": json.dumps(record)}))

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
        parts = _parts(file.tensors)
        names = [f"actor.{i}" for i in range(facts.actors)]
        if set(parts) - {"critic"} != set(names):
            raise UserError(f"{path} does not hold {facts.actors} actors; {REMEDY}")
        shape = (agent.z_dim, agent.h_dim)
        actors = tuple(
            filled(lambda: Actor(*shape, agent.action_spec, cfg), parts[name], path, REMEDY)
            for name in names
        )
        for actor in actors:
            actor.lead(agent)
        critic = None
        if "critic" in parts:
            critic = filled(lambda: Critic(*shape, cfg), parts["critic"], path, REMEDY)
        for network in (*actors, *([critic] if critic is not None else [])):
            network.requires_grad_(False).eval()
        return cls(actors, critic, facts.kind, facts.memory)


def origin(agent: Agent, cfg: NetworkConfig) -> str:
    """SHA-256 (hex) of what of an agent a policy is worth nothing without."""
    memories = digest_of(agent.memories)
    if not cfg.residual:
        return memories
    return hashlib.sha256(memories.encode() + agent.parameters.tobytes()).hexdigest()


def digest_of(models: Sequence[nn.Module]) -> str:
    """SHA-256 (hex) of the weights of some networks."""
    digest = hashlib.sha256()
    for model in models:
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _parts(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The tensors of each network by its name, "actor.0" or "critic"."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        words = name.split(".")
        first = 2 if words[0] == "actor" else 1
        parts.setdefault(".".join(words[:first]), {})[".".join(words[first:])] = tensor
    return parts
