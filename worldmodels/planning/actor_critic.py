"""Policies trained in the dream: by the gradient through M, with a critic as in Dreamer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldmodels._threads import CoreThreads
from worldmodels.agent import Agent
from worldmodels.planning.networks import Actor, Critic
from worldmodels.planning.streams import Imagined, PolicyTrainConfig, Streams
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed, load_checkpoint, progress, save_checkpoint

Log = Callable[..., None]


def lambda_returns(
    reward: Tensor, alive: Tensor, values: Tensor, discount: float, lambda_: float
) -> Tensor:
    """Returns (T, B): ``R_t = r_t + g c_t ((1 - l) v_{t+1} + l R_{t+1})``, ``R_T = v_T``.

    Equation 4 of Dreamer (Hafner et al. 2020, arXiv:1912.01603), written backwards as in its second
    version: rewards r (T, B), chances c (T, B) that the episode continues, values v_1 to v_T (T, B)
    of the states after each step, discount g and lambda l.
    """
    following, found = values[-1], []
    for t in reversed(range(len(reward))):
        mixed = (1 - lambda_) * values[t] + lambda_ * following
        following = reward[t] + discount * alive[t] * mixed
        found.append(following)
    return torch.stack(found[::-1])


def losses(
    dreamt: Imagined, critic: Critic, target: Critic, cfg: PolicyTrainConfig
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Losses of actor and critic, each a mean over steps and dreams, and metrics.

    Every step is weighed by the chance that the dream reaches it; ``target`` is a slow copy of the
    critic.
    """
    after = (dreamt.z[1:], dreamt.h[1:])
    nothing = torch.zeros_like(dreamt.reward[1:])
    values = target(*after) if cfg.critic else torch.cat((nothing, dreamt.tail_return[None]))
    lambda_ = cfg.lambda_ if cfg.critic else 1.0
    returns = lambda_returns(dreamt.reward, dreamt.alive, values, cfg.discount, lambda_)
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
    aim = (returns / scale).detach()
    error = nn.functional.smooth_l1_loss(guess / scale, aim, reduction="none")
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


class _Learner(nn.Module):
    """Networks, optimisers and dreams: the state of a training."""

    def __init__(self, agent: Agent, cfg: PolicyTrainConfig, seed: int) -> None:
        super().__init__()
        torch.manual_seed(derive_seed(seed, "networks") % 2**63)
        self.generator = torch.Generator().manual_seed(derive_seed(seed, "dreams") % 2**63)
        self.actor = Actor.of(agent, cfg.network)
        self.average = copy.deepcopy(self.actor).requires_grad_(False)
        self.critic = Critic(agent.z_dim, agent.seen_dim, cfg.network)
        self.critic.inputs.fit(agent)
        model = agent.reward_model
        if model is not None:  # the scale of a return, before any is known
            size = abs(model.event_value) if model.has_events else model.scale
            self.critic.scale.fill_(size / (1 - min(cfg.discount, 0.999)))
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.optimisers = [
            torch.optim.Adam(network.parameters(), lr=cfg.learning_rate)
            for network in (self.actor, self.critic)
        ]
        self.streams = Streams(agent, cfg, self.generator)
        self.cfg, self.steps = cfg, 0

    def step(self) -> dict[str, Tensor]:
        """Take a gradient step of actor and critic; return the metrics."""
        cfg = self.cfg
        dreamt = self.streams.imagine(self.actor, gradient=cfg.gradient == "model")
        actor_loss, critic_loss, metrics = losses(dreamt, self.critic, self.target, cfg)
        pairs = [(self.actor, actor_loss), (self.critic, critic_loss)]
        self.steps += 1
        for (network, loss), optimiser in zip(pairs, self.optimisers, strict=True):
            if network is self.actor and self.steps <= cfg.critic_warmup_steps:
                continue
            parameters = list(network.parameters())
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            norm = torch.nn.utils.clip_grad_norm_(parameters, cfg.clip_norm)
            if torch.isfinite(norm):
                optimiser.step()
        follow(self.target, self.critic, cfg.target_decay)
        follow(self.average, self.actor, cfg.ema_decay)
        return metrics

    def snapshot(self, step: int) -> dict[str, Any]:
        """The contents of a checkpoint."""
        return {
            **{name: network.state_dict() for name, network in self.named_children()},
            "step": step,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "streams": self.streams.state(),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Continue from a snapshot; return the number of steps done."""
        for name, network in self.named_children():
            network.load_state_dict(state[name])
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.streams.restore(state["streams"])
        self.generator.set_state(state["generator"])
        self.steps = int(state["step"])
        return self.steps


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, decay: float) -> None:
    """Exponential moving average: the slow network's weights keep ``decay`` of their values."""
    for old, new in zip(slow.parameters(), fast.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


def train_policy(
    agent: Agent,
    cfg: PolicyTrainConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> tuple[Actor, Critic | None]:
    """Train an actor, and its critic if it has one, in an agent's dreams.

    ``seed`` fixes weights, starts and noise; a checkpoint is read if it exists; ``log`` receives
    ``step, actor_loss, dream_reward, ...``.

    Raises:
        UserError: an agent that cannot dream, or a loss that is not finite, with its step.
    """
    learner, begin = _Learner(agent, cfg, seed), 0
    if checkpoint is not None and checkpoint.exists():
        begin = learner.restore(load_checkpoint(checkpoint))
    bar = progress(range(cfg.steps), "policy", unit="step")
    with bar, CoreThreads(1):  # with several the last digits differ, and little is gained
        bar.advance(begin)
        for done in range(begin + 1, cfg.steps + 1):
            metrics = learner.step()
            if done % cfg.log_every == 0 or done == cfg.steps:
                values = {name: float(value) for name, value in metrics.items()}
                found = values["actor_loss"], values["critic_loss"]
                if not math.isfinite(sum(found)):
                    raise UserError(
                        f"the policy's losses are {found[0]} and {found[1]} at step {done}: lower "
                        f"the learning rate ({cfg.learning_rate}) or the horizon ({cfg.horizon})"
                    )
                if log is not None:
                    log(step=done, **values)
                bar.advance(0, reward=values["dream_reward"], value=values["value"])
            if checkpoint is not None and (done % cfg.checkpoint_every == 0 or done == cfg.steps):
                save_checkpoint(checkpoint, learner.snapshot(done))
            bar.advance()
    return learner.average.eval(), learner.critic.eval() if cfg.critic else None


def train_policies(
    agent: Agent,
    cfg: PolicyTrainConfig,
    *,
    seed: int,
    checkpoint: Path | None = None,
    log: Log | None = None,
) -> tuple[tuple[Actor, ...], Critic | None]:
    """Train ``cfg.actors`` actors by `train_policy`, and the critic of the first.

    The seeds of the others are derived; their checkpoints lie beside the first one's.
    """
    actors, critics = [], []
    for member in range(cfg.actors):
        path = checkpoint
        if path is not None and member:
            path = path.with_name(f"{path.stem}-{member}{path.suffix}")
        own = derive_seed(seed, "member", member) if member else seed
        tell = None if log is None else partial(log, member=member)
        actor, critic = train_policy(agent, cfg, seed=own, checkpoint=path, log=tell)
        actors.append(actor)
        critics.append(critic)
    return tuple(actors), critics[0]
