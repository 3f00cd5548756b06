"""Actor and critic on [z, h], and the file that they live in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from worldmodels.agent import Agent
from worldmodels.controller.components import Components, controller_inputs
from worldmodels.controller.linear import ControllerConfig
from worldmodels.envs.spaces import ActionSpec
from worldmodels.memory.mdn_rnn import MDNRNN
from worldmodels.planning.config import at_least, require
from worldmodels.planning.controller import ControllerDrive, Drive
from worldmodels.planning.gradient import squash
from worldmodels.protocols import UserError
from worldmodels.runs import atomic_write, versions

SCHEMA = 2
"""Layout of the file; a reader refuses others."""

NEAR_EDGE = 0.76
"""An untrained actor acts near zero, but no nearer to a bound than this share of half a range."""

LOG_STD = (-4.0, 1.0)
"""Bounds of the actor's log deviation, before squashing."""

C_EDGE = 0.995
"""C's actions are taken this far into their bounds at most; at the bounds tanh has no inverse."""


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of the actor and of the critic."""

    hidden: int = 256
    """units of each hidden layer"""
    layers: int = 2
    """hidden layers"""
    components: int = 32
    """whitened principal components of [z, h] that the networks see, all of them if there are
    fewer; 0 shows [z, h] itself"""
    residual: float = 0.0
    """learn what to change in C's actions instead of actions: the largest change of an action's u
    (action = middle + half tanh(u)). The search then stays where C's own data lie. 0 is an actor
    from nothing"""
    noise: float | None = None
    """deviation of the actor's u in training; None learns it"""

    def __post_init__(self) -> None:
        """Check the ranges; `UserError` names the field."""
        rules = at_least(self, 1, "hidden", "layers") | at_least(self, 0, "components", "residual")
        fine = self.noise is None or 0 < self.noise < math.inf
        rules["noise"] = (fine, "above 0 and finite, or None")
        require(self, rules)


class Inputs(nn.Module):
    """What actor and critic see of z and h: all of it, or the components that C is searched in.

    A gradient finds directions in which M's state hardly ever varies, and M does not know what
    follows from there; the components leave them out.
    """

    mean: Tensor
    analysis: Tensor

    def __init__(self, z_dim: int, h_dim: int, cfg: NetworkConfig) -> None:
        """Make room for the components; `fit` finds them, or a file brings them."""
        super().__init__()
        self.size = min(cfg.components, z_dim + h_dim) or z_dim + h_dim
        if cfg.components:
            self.register_buffer("mean", torch.zeros(z_dim + h_dim))
            self.register_buffer("analysis", torch.zeros(self.size, z_dim + h_dim))
        self.all = not cfg.components

    def fit(self, agent: Agent) -> Inputs:
        """Find the components of the agent's recorded states; fewer states have fewer of them."""
        if self.all or agent.starts is None:
            return self
        starts = agent.starts
        seen = controller_inputs(ControllerConfig(), starts.z, starts.h[0])
        count = min(self.size, len(seen))
        found = Components.of(seen, count, ControllerConfig())
        self.mean.copy_(torch.from_numpy(found.mean))
        self.analysis[:count].copy_(torch.from_numpy(found.analysis))
        return self

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """The inputs (..., K) of z (..., Z) and h (..., H)."""
        seen = torch.cat((z, h), dim=-1)
        return seen if self.all else (seen - self.mean) @ self.analysis.T


def perceptron(inputs: int, outputs: int, cfg: NetworkConfig) -> nn.Sequential:
    """Linear layers with layer norm and SiLU between them; the last one starts near zero."""
    parts: list[nn.Module] = []
    for width in [inputs] + [cfg.hidden] * (cfg.layers - 1):
        parts += [nn.Linear(width, cfg.hidden), nn.LayerNorm(cfg.hidden), nn.SiLU()]
    last = nn.Linear(cfg.hidden, outputs)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*parts, last)


class Actor(nn.Module):
    """A Gaussian over u, squashed into the actions' bounds by tanh.

    For a Discrete space the bounds are [-1, 1] for each choice, and the largest number acts. With
    `NetworkConfig.residual` the mean is C's u and a bounded change of it (residual policy learning,
    Silver et al. 2018, arXiv:1812.06298).
    """

    low: Tensor
    high: Tensor
    shift: Tensor

    def __init__(self, z_dim: int, h_dim: int, spec: ActionSpec, cfg: NetworkConfig) -> None:
        """Build an actor that begins near action 0 (global generator)."""
        super().__init__()
        self.cfg, self.discrete = cfg, spec.kind == "discrete"
        low, high = bounds_of(spec)
        near = np.clip(-(high + low) / (high - low), -NEAR_EDGE, NEAR_EDGE)
        for name, value in (("low", low), ("high", high), ("shift", np.arctanh(near))):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)))
        self.inputs = Inputs(z_dim, h_dim, cfg)
        self.body = perceptron(self.inputs.size, 2 * spec.size, cfg)
        self.controller: Drive | None = None

    @classmethod
    def of(cls, agent: Agent, cfg: NetworkConfig) -> Self:
        """An untrained actor for an agent: its spaces, its components, its C for a residual."""
        actor = cls(agent.z_dim, agent.h_dim, agent.action_spec, cfg)
        actor.inputs.fit(agent)
        if cfg.residual:
            actor.controller = ControllerDrive(agent)
        return actor

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log deviation of u, each (B, A), from z (B, Z) and h (B, H)."""
        mean, raw = self.body(self.inputs(z, h)).chunk(2, dim=-1)
        low, high = LOG_STD
        log_std = (raw - 1.0).clamp(low, high)
        if self.cfg.noise is not None:
            log_std = torch.full_like(raw, math.log(self.cfg.noise))
        return self.changed(mean, z, h), log_std

    def changed(self, mean: Tensor, z: Tensor, h: Tensor) -> Tensor:
        """The u (..., B, A) that outputs (..., B, A) of the body ask for."""
        if self.controller is None:
            return mean + self.shift
        bound = self.cfg.residual
        return self._unsquashed(self.controller(z, h)) + bound * torch.tanh(mean / bound)

    def _unsquashed(self, numbers: Tensor) -> Tensor:
        """The u (B, A) of numbers within the bounds."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return torch.atanh(((numbers - middle) / half).clamp(-C_EDGE, C_EDGE))

    def act(self, u: Tensor) -> Tensor:
        """U (B, A) as numbers within the bounds."""
        return squash(u, self.low, self.high)

    def mode(self, z: Tensor, h: Tensor) -> Tensor:
        """The actor's likeliest numbers (B, A)."""
        return self.act(self(z, h)[0])

    def to_input(self, numbers: Tensor) -> Tensor:
        """Numbers (B, A) as M sees actions: as they are, or one-hot."""
        return straight_through(numbers) if self.discrete else numbers


class Critic(nn.Module):
    """The value of a state: a perceptron times a fixed scale, which is that of the returns."""

    scale: Tensor

    def __init__(self, z_dim: int, h_dim: int, cfg: NetworkConfig) -> None:
        """Build a critic that begins at 0 (global generator)."""
        super().__init__()
        self.inputs = Inputs(z_dim, h_dim, cfg)
        self.body = perceptron(self.inputs.size, 1, cfg)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        """Values (B,) of z (B, Z) and h (B, H)."""
        value: Tensor = self.body(self.inputs(z, h)).squeeze(-1)
        return self.scale * value


class ActorControl:
    """Actors' mean mode in C's place: see `Agent.with_control`."""

    def __init__(self, *actors: Actor) -> None:
        """Take actors of one shape; they act by the mean of their u."""
        self.actors = [actor.eval() for actor in actors]

    def __call__(self, z: Tensor, h: Tensor) -> Tensor:
        """Actions (B, A), or indices (B,) for a Discrete space."""
        u = torch.stack([actor(z, h)[0] for actor in self.actors]).mean(0)
        numbers = self.actors[0].act(u)
        return numbers.argmax(-1) if self.actors[0].discrete else numbers


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
            return numbers
        return functional.one_hot(numbers.argmax(-1), len(first.low)).float()


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
        facts = {"schema": SCHEMA, "kind": self.kind, "memory": self.memory}
        facts |= {"network": asdict(self.actors[0].cfg), "actors": len(self.actors)}
        facts |= {"versions": versions()}
        content = {name: t.contiguous() for name, t in tensors.items()}
        atomic_write(path, save(content, {"worldmodels": json.dumps(facts)}))

    @classmethod
    def load(cls, path: Path, agent: Agent) -> PolicyFile:
        """Read it for the agent in whose dreams it was trained.

        Raises:
            UserError: a missing or damaged file, or one of another agent.
        """
        if not path.is_file():
            raise UserError(f"there is no file {path}; `worldmodels train-policy` makes one")
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads((file.metadata() or {})["worldmodels"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            cfg = NetworkConfig(**facts["network"])
            kind, memory = str(facts["kind"]), str(facts["memory"])
            if facts["schema"] != SCHEMA:
                raise UserError(
                    f"{path} has schema {facts['schema']}; this version reads {SCHEMA}: train it "
                    "again"
                )
            count = int(facts["actors"])
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UserError(f"{path} is no readable policy ({error}); train it again") from error
        if memory != origin(agent, cfg):
            whose = "with another M or C" if cfg.residual else "in the dreams of another M"
            raise UserError(f"{path} was trained {whose}; train it again")
        actors = tuple(Actor.of(agent, cfg) for _ in range(count))
        critic = Critic(agent.z_dim, agent.h_dim, cfg)
        found = any(name.startswith("critic.") for name in tensors)
        try:
            for i, actor in enumerate(actors):
                actor.load_state_dict(_part(tensors, f"actor.{i}."))
            if found:
                critic.load_state_dict(_part(tensors, "critic."))
        except RuntimeError as error:
            raise UserError(f"{path} has other shapes ({error}); train it again") from error
        for network in (*actors, critic):
            network.requires_grad_(False).eval()
        return cls(actors, critic if found else None, kind, memory)


def origin(agent: Agent, cfg: NetworkConfig) -> str:
    """SHA-256 (hex) of what of an agent a policy is worth nothing without."""
    memories = digest_of(agent.memories)
    if not cfg.residual:
        return memories
    return hashlib.sha256(memories.encode() + agent.parameters.tobytes()).hexdigest()


def straight_through(scores: Tensor) -> Tensor:
    """The largest of the scores (..., n) one-hot, with the gradient of their softmax.

    The straight-through estimator (Bengio et al. 2013, arXiv:1308.3432).
    """
    soft = torch.softmax(4 * scores, dim=-1)
    hard = nn.functional.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
    return hard + soft - soft.detach()


def bounds_of(spec: ActionSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds (A,) of the numbers that an actor gives for an action space."""
    if spec.kind == "discrete":
        return np.full(spec.size, -1, np.float32), np.full(spec.size, 1, np.float32)
    return np.array(spec.low, np.float32), np.array(spec.high, np.float32)


def digest_of(models: Sequence[MDNRNN | Actor]) -> str:
    """SHA-256 (hex) of the weights of some networks."""
    digest = hashlib.sha256()
    for model in models:
        for name, tensor in model.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


__all__ = [
    "Actor",
    "ActorControl",
    "Critic",
    "Inputs",
    "NetworkConfig",
    "PolicyFile",
    "StackedActors",
    "bounds_of",
    "digest_of",
    "origin",
    "perceptron",
    "straight_through",
]
