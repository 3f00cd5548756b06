"""Policies trained in the dream: by the gradient through M, and with a critic, as Dreamer does."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from worldmodels.agent import Agent
from worldmodels.memory.mdn_rnn import MemoryState
from worldmodels.planning.config import at_least, require, share
from worldmodels.planning.networks import Actor, Critic, NetworkConfig
from worldmodels.planning.objective import ControllerDrive, Unrolled
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed, load_checkpoint, progress, save_checkpoint

Log = Callable[..., None]


@dataclass(frozen=True)
class PolicyTrainConfig:
    """How a policy is trained in the dream."""

    steps: int = 2000
    """gradient steps"""
    dreams: int = 128
    """dreams side by side; each goes on where the step before left it"""
    horizon: int = 15
    """decisions per gradient step"""
    longest: int = 250
    """decisions after which a dream begins anew at a recorded state"""
    tail: int = 0
    """decisions that the agent's C drives after the horizon, for a policy without a critic: what C
    can make of where the policy leads is then a value that needs no training"""
    critic: bool = True
    """learn values, and count them at the horizon; without, only rewards inside of it and of the
    tail count"""
    gradient: Literal["model", "reinforce"] = "model"
    """how the actor learns: through the unrolled M, or by the score of what it tried"""
    discount: float = 0.97
    """weight of a reward relative to the one before it"""
    trace: float = 0.95
    """lambda of the returns: 1 trusts M's rewards to the horizon, 0 the critic at once"""
    entropy: float = 1e-3
    """reward per nat of the actor's entropy, in units of the returns' scale"""
    temperature: float = 1.0
    """tau of M's mixture"""
    learning_rate: float = 3e-4
    """of Adam, for actor and critic"""
    clip_norm: float = 1.0
    """largest norm of a network's gradient"""
    target_decay: float = 0.98
    """weight of the old target critic after each step"""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    checkpoint_every: int = 50
    """steps between two checkpoints"""
    log_every: int = 25
    """steps between two lines of metrics"""

    def __post_init__(self) -> None:
        """Check the ranges; `UserError` names the field."""
        rules = at_least(
            self, 1, "steps", "dreams", "horizon", "longest", "checkpoint_every", "log_every"
        )
        rules |= at_least(self, 0, "tail", "entropy", "temperature") | share(self, "discount")
        for name in ("trace", "target_decay"):
            rules[name] = (0 <= getattr(self, name) <= 1, "in [0, 1]")
        for name in ("learning_rate", "clip_norm"):
            rules[name] = (0 < getattr(self, name) < math.inf, "above 0 and finite")
        rules["gradient"] = (self.gradient in ("model", "reinforce"), "model or reinforce")
        require(self, rules)
        if self.gradient == "reinforce" and not self.critic:
            raise UserError("PolicyTrainConfig.gradient is 'reinforce', which needs critic")
        if self.tail and self.critic:
            raise UserError(
                f"PolicyTrainConfig.tail is {self.tail}; it must be 0 with a critic, which says "
                "what lies beyond the horizon"
            )


class Imagined(NamedTuple):
    """T steps of B dreams under an actor."""

    z: Tensor
    """(T + 1, B, Z)"""
    h: Tensor
    """(T + 1, B, H)"""
    reward: Tensor
    """(T, B) expected"""
    alive: Tensor
    """(T, B) chance that a dream goes on after this step"""
    log_prob: Tensor
    """(T, B) of what the actor tried"""
    entropy: Tensor
    """(T, B) of the actor, in nats, before squashing"""
    beyond: Tensor
    """(B,) what C is paid in the tail, discounted to its beginning"""


def lambda_returns(
    reward: Tensor, going_on: Tensor, values: Tensor, discount: float, trace: float
) -> Tensor:
    """Returns (T, B): ``R_t = r_t + g c_t ((1 - l) v_{t+1} + l R_{t+1})``, ``R_T = v_T``.

    Equation 4 of Dreamer (Hafner et al. 2020, arXiv:1912.01603), written backwards as in its
    second version.

    Args:
        reward: (T, B) r.
        going_on: (T, B) c, chance that the episode goes on.
        values: (T, B) of the states after each step, v_1 to v_T.
        discount: g.
        trace: l.
    """
    following, found = values[-1], []
    for t in reversed(range(len(reward))):
        mixed = (1 - trace) * values[t] + trace * following
        following = reward[t] + discount * going_on[t] * mixed
        found.append(following)
    return torch.stack(found[::-1])


class Streams:
    """Dreams that go on from gradient step to gradient step, so that the actor meets its own."""

    def __init__(self, agent: Agent, cfg: PolicyTrainConfig, generator: torch.Generator) -> None:
        """Begin all of them at recorded states.

        Raises:
            UserError: the agent has no recorded states or no reward model.
        """
        if agent.starts is None or agent.reward_model is None:
            raise UserError("this agent has no recorded states or no reward model to dream with")
        self.cfg, self.generator = cfg, generator
        self._reward_model = agent.reward_model
        self._memory = copy.deepcopy(agent.memories[0]).requires_grad_(False)
        self._controller = ControllerDrive(agent)
        starts = (agent.starts.z, agent.starts.h[0], agent.starts.c[0])
        self._starts = [torch.from_numpy(part).float() for part in starts]
        drawn = self._draw(cfg.dreams)
        self.z, self.h, self.c = (part[drawn] for part in self._starts)
        ages = torch.randint(cfg.longest, (cfg.dreams,), generator=generator)
        self.age = ages  # so that they do not all begin anew together

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"z": self.z, "h": self.h, "c": self.c, "age": self.age}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from a checkpoint."""
        self.z, self.h, self.c, self.age = (state[name] for name in ("z", "h", "c", "age"))

    def imagine(self, actor: Actor, gradient: bool) -> Imagined:
        """Dream one horizon; ``gradient`` says whether rewards know how they hang on actions."""
        cfg = self.cfg
        world = Unrolled(
            [self._memory],
            self._reward_model,
            self.z,
            [MemoryState(self.h, self.c)],
            cfg.temperature,
        )
        z, h, rest = [world.z], [world.h], []
        for _ in range(cfg.horizon):
            seen = (world.z, world.h) if gradient else (world.z.detach(), world.h.detach())
            mean, log_std = actor(*seen)
            u = mean + log_std.exp() * torch.randn(mean.shape, generator=self.generator)
            tried = u if gradient else u.detach()
            density = torch.distributions.Normal(mean, log_std.exp(), validate_args=False)
            action = actor.to_input(actor.act(tried))
            uniform = torch.rand(world.z.shape, generator=self.generator)
            normal = torch.randn(world.z.shape, generator=self.generator)
            reward, alive = world.step(action, uniform, normal)
            log_prob = density.log_prob(u.detach()).sum(-1)
            rest.append((reward, alive, log_prob, density.entropy().sum(-1)))
            z.append(world.z)
            h.append(world.h)
        columns = [torch.stack(column) for column in zip(*rest, strict=True)]
        self._carry_on(world, columns[1])
        return Imagined(torch.stack(z), torch.stack(h), *columns, self._tail(world))

    def _tail(self, world: Unrolled) -> Tensor:
        """What C is paid (B,) when it drives on from there."""
        weight, total = torch.ones(len(world.z)), torch.zeros(len(world.z))
        for _ in range(self.cfg.tail):
            uniform = torch.rand(world.z.shape, generator=self.generator)
            normal = torch.randn(world.z.shape, generator=self.generator)
            reward, alive = world.step(self._controller(world.z, world.h), uniform, normal)
            total = total + weight * reward
            weight = weight * alive * self.cfg.discount
        return total

    def _carry_on(self, world: Unrolled, alive: Tensor) -> None:
        """Keep where the dreams are; begin those anew that have ended or are too old."""
        self.z, self.h, self.c = (x.detach() for x in (world.z, world.h, world.states[0].c))
        self.age = self.age + self.cfg.horizon
        over = (alive.detach().amin(0) < 0.5) | (self.age >= self.cfg.longest)
        over |= ~torch.isfinite(self.z).all(1)
        drawn = self._draw(self.cfg.dreams)
        begun = [part[drawn] for part in self._starts]
        now = (self.z, self.h, self.c)
        self.z, self.h, self.c = (
            torch.where(over[:, None], new, old) for new, old in zip(begun, now, strict=True)
        )
        self.age = torch.where(over, 0, self.age)

    def _draw(self, number: int) -> Tensor:
        return torch.randint(len(self._starts[0]), (number,), generator=self.generator)


def losses(
    dreamt: Imagined, critic: Critic, target: Critic, cfg: PolicyTrainConfig
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Losses of actor and critic, each a mean over steps and dreams, and metrics.

    Every step weighs as much as the dream is likely to have got there.

    Args:
        dreamt: one horizon of dreams.
        critic: learns.
        target: a slow copy of it, which judges.
        cfg: the training.
    """
    after = (dreamt.z[1:], dreamt.h[1:])
    nothing = torch.zeros_like(dreamt.reward[1:])
    values = target(*after) if cfg.critic else torch.cat((nothing, dreamt.beyond[None]))
    trace = cfg.trace if cfg.critic else 1.0
    returns = lambda_returns(dreamt.reward, dreamt.alive, values, cfg.discount, trace)
    reached = torch.cat((torch.ones_like(dreamt.alive[:1]), dreamt.alive[:-1])).cumprod(0).detach()
    scale = critic.scale.clamp_min(1e-3)
    before = (dreamt.z[:-1].detach(), dreamt.h[:-1].detach())
    guess = critic(*before)
    if not cfg.critic:
        actor_loss = -(returns[0] / scale).mean()
    elif cfg.gradient == "model":
        actor_loss = -(reached * returns / scale).mean()
    else:
        advantage = (returns - target(*before)).detach() / scale
        actor_loss = -(reached * dreamt.log_prob * advantage).mean()
    actor_loss = actor_loss - cfg.entropy * (reached * dreamt.entropy).mean()
    error = nn.functional.smooth_l1_loss(
        guess / scale, (returns / scale).detach(), reduction="none"
    )
    critic_loss = (reached * error).mean()
    metrics = {
        "actor_loss": actor_loss,
        "critic_loss": critic_loss,
        "dream_reward": dreamt.reward.mean(),
        "dream_return": returns[0].mean(),
        "value": guess.mean(),
        "entropy": dreamt.entropy.mean(),
    }
    return actor_loss, critic_loss, {name: value.detach() for name, value in metrics.items()}


class _Learner:
    """Networks, their optimisers and their dreams: all that a checkpoint keeps."""

    def __init__(self, agent: Agent, cfg: PolicyTrainConfig, seed: int) -> None:
        torch.manual_seed(derive_seed(seed, "networks") % 2**63)
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "dreams") % 2**63)
        self.actor = Actor(agent.z_dim, agent.h_dim, agent.action_spec, cfg.network)
        self.critic = Critic(agent.z_dim, agent.h_dim, cfg.network)
        for network in (self.actor, self.critic):
            network.inputs.fit(agent)
        model = agent.reward_model
        if model is not None:  # the size of a return, before any is known
            size = model.scale if model.kind == "raw" else abs(model.hit_value)
            self.critic.scale.fill_(size / (1 - min(cfg.discount, 0.999)))
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), lr=cfg.learning_rate)
            for network in (self.actor, self.critic)
        ]
        self.streams = Streams(agent, cfg, self.generator)
        self.cfg = cfg

    def step(self) -> dict[str, Tensor]:
        """One gradient step of actor and critic; the metrics."""
        cfg = self.cfg
        dreamt = self.streams.imagine(self.actor, gradient=cfg.gradient == "model")
        actor_loss, critic_loss, metrics = losses(dreamt, self.critic, self.target, cfg)
        pairs = [(self.actor, actor_loss), (self.critic, critic_loss)]
        for (network, loss), optimiser in zip(pairs, self.optimisers, strict=True):
            parameters = list(network.parameters())
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.clip_norm)
            if torch.isfinite(norm):
                optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(fast, 1 - cfg.target_decay)
        return metrics

    def snapshot(self, step: int) -> dict[str, Any]:
        """The resume state."""
        networks = {name: getattr(self, name).state_dict() for name in _NETWORKS}
        return {
            **networks,
            "step": step,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "streams": self.streams.state(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Go on from a snapshot; the number of steps done."""
        for name in _NETWORKS:
            getattr(self, name).load_state_dict(state[name])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.streams.restore(state["streams"])
        self.generator.set_state(state["generator"])
        return int(state["step"])


_NETWORKS = ("actor", "critic", "target")


def train_policy(
    agent: Agent,
    cfg: PolicyTrainConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> tuple[Actor, Critic | None]:
    """Train an actor, and a critic where there is one, in an agent's dreams alone.

    Args:
        agent: with recorded states; its first memory dreams.
        cfg: the training.
        seed: fixes weights, starts and noise.
        checkpoint: file for the resume state; read if it is there.
        log: receives ``step, actor_loss, dream_reward, ...``.

    Raises:
        UserError: an agent that cannot dream, or a loss that is not finite, with its step.
    """
    learner, begin = _Learner(agent, cfg, seed), 0
    if checkpoint is not None and checkpoint.exists():
        begin = learner.restore(load_checkpoint(checkpoint))
    with progress(cfg.steps, "policy", unit="step") as bar:
        bar.advance(begin)
        for done in range(begin + 1, cfg.steps + 1):
            metrics = learner.step()
            if done % cfg.log_every == 0 or done == cfg.steps:
                values = {name: float(value) for name, value in metrics.items()}
                if not math.isfinite(values["actor_loss"] + values["critic_loss"]):
                    raise UserError(
                        f"the policy's losses are {values['actor_loss']} and "
                        f"{values['critic_loss']} at step {done}: lower the learning rate "
                        f"({cfg.learning_rate}) or the horizon ({cfg.horizon})"
                    )
                if log is not None:
                    log(step=done, **values)
                bar.advance(0, reward=values["dream_reward"], value=values["value"])
            if checkpoint is not None and (done % cfg.checkpoint_every == 0 or done == cfg.steps):
                save_checkpoint(checkpoint, learner.snapshot(done))
            bar.advance()
    return learner.actor.eval(), learner.critic.eval() if cfg.critic else None


__all__ = [
    "Imagined",
    "PolicyTrainConfig",
    "Streams",
    "lambda_returns",
    "losses",
    "train_policy",
]
