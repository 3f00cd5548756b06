"""Training of M: truncated back-propagation through time over streams of whole episodes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels.config import AtLeast, Config, Count, CountOrZero, Limit, NotNegative, Rate, Size
from worldmodels.memory.interface import Memory, MemoryConfig, MemoryOutput, MemoryState
from worldmodels.memory.kinds import build
from worldmodels.memory.losses import (
    count_loss,
    hit_loss,
    mixture_nll,
    raw_reward_loss,
    termination_loss,
)
from worldmodels.memory.rewards import RewardKind, RewardModel
from worldmodels.memory.sequences import SequenceBatch, SequenceStreams
from worldmodels.protocols import UserError
from worldmodels.runs import (
    derive_seed,
    load_checkpoint,
    mixed_precision,
    progress,
    save_checkpoint,
)
from worldmodels.vision.latents import Latents

Log = Callable[..., None]


@dataclass(frozen=True)
class MemoryTrainConfig(Config):
    """How M is trained."""

    steps: Count = 1500
    """gradient steps from a fresh start"""
    finetune_steps: CountOrZero = 600
    """gradient steps when M goes on from an earlier iteration's weights"""
    streams: Size = 96
    """episodes played side by side: the batch"""
    length: Annotated[int, AtLeast(2), Limit(65_536)] = 48
    """steps of back-propagation through time; the state is carried on from window to window"""
    learning_rate: Rate = 2e-3
    """peak of Adam's cosine schedule from a fresh start"""
    finetune_learning_rate: Rate = 5e-4
    """peak where M goes on from earlier weights; at the first peak it forgets them first"""
    clip_value: NotNegative = 1.0
    """largest absolute value of a gradient's element (paper's code: 1)"""
    clip_norm: NotNegative = 0.5
    """largest norm of the whole gradient, after that; 0 does not limit it. Without it a rare batch
    throws M back by hundreds of steps"""
    bfloat16: bool = False
    """autocast to bfloat16 where the machine multiplies it fast"""
    posterior_noise: NotNegative = 1.0
    """share of V's posterior deviation that is sampled into z; 1 is the paper's, 0 trains on V's
    means, which are what the driver sees"""
    input_noise: NotNegative = 0.0
    """share of V's posterior deviation added to M's inputs, but not to its targets: M learns to
    return to the recorded path from beside it, which its own dream will need"""
    reward_weight: NotNegative = 2.0
    """weight of the reward loss beside the mixture's nats per latent dimension"""
    termination_weight: NotNegative = 1.0
    """weight of the termination loss"""
    checkpoint_every: Count = 200
    """steps between two checkpoints"""
    log_every: Count = 25
    """steps between two lines of metrics"""


def fit_reward_model(latents: Latents, kind: RewardKind) -> RewardModel:
    """Read the reward's constants off the data.

    "hit" and "count" take the commonest reward for the base and the mean excess of the rewards
    above it for an event's value (CarRacing: -0.1 a frame, 1000/N a tile); "raw" standardises.
    """
    reward = latents.reward[_steps(latents)]
    if kind == "raw":
        scale = float(reward.std())
        return RewardModel("raw", scale=scale if scale > 1e-6 else 1.0, shift=float(reward.mean()))
    values, counts = np.unique(np.round(reward, 4), return_counts=True)
    base = float(values[counts.argmax()])
    excess = reward[reward > base + 1e-3] - base
    return RewardModel(kind, base=base, hit_value=float(excess.mean()) if len(excess) else 1.0)


def reward_kind(latents: Latents) -> RewardKind:
    """Which form of reward the data have.

    "hit" where most steps pay one and the same reward and nearly all others more (a rare event on
    top of a constant), "count" where these pay different amounts (several events in a step); else
    "raw".
    """
    reward = latents.reward[_steps(latents)]
    values, counts = np.unique(np.round(reward, 4), return_counts=True)
    base, share = values[counts.argmax()], counts.max() / len(reward)
    others = reward[np.abs(reward - base) > 1e-3]
    if share <= 0.5 or not len(others) or np.mean(others > base) <= 0.9:
        return "raw"
    low, high = np.quantile(others[others > base] - base, (0.05, 0.95))
    return "hit" if high < 1.6 * low else "count"


def _steps(latents: Latents) -> NDArray[np.bool_]:
    """(F,) frames that have a step: all but each episode's last."""
    steps = np.ones(latents.num_frames, np.bool_)
    steps[latents.offsets[1:] - 1] = False
    return steps


class _Batch:
    """A sequence batch as tensors, with z sampled from V's posterior."""

    def __init__(
        self,
        batch: SequenceBatch,
        noise: torch.Generator,
        cfg: MemoryTrainConfig,
        reward: RewardModel,
        device: str,
    ) -> None:
        mu, logvar = torch.from_numpy(batch.mu), torch.from_numpy(batch.logvar)
        deviation = torch.exp(0.5 * logvar)
        z = mu + cfg.posterior_noise * deviation * torch.randn(mu.shape, generator=noise)
        self.target = z[:, 1:].to(device)
        if cfg.input_noise:
            z = z + cfg.input_noise * deviation * torch.randn(mu.shape, generator=noise)
        self.z = z[:, :-1].to(device)
        self.action = torch.from_numpy(batch.action).to(device)
        self.mask = torch.from_numpy(batch.mask).to(device)
        self.reward = reward.target(torch.from_numpy(batch.reward).to(device))
        self.terminated = torch.from_numpy(batch.terminated).to(device)
        self.carry = torch.from_numpy(~batch.restart).to(device)[:, None]


_REWARD_LOSSES: dict[RewardKind, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "hit": hit_loss,
    "count": count_loss,
    "raw": raw_reward_loss,
}


def memory_loss(
    model: Memory, batch: _Batch, state: MemoryState, dropout: Tensor | None, cfg: MemoryTrainConfig
) -> tuple[Tensor, dict[str, Tensor], MemoryState]:
    """Loss of one window of B streams: mixture nats per dimension, reward, termination."""
    state = state.kept(batch.carry)
    with mixed_precision(batch.z.device, cfg.bfloat16):
        _, low, last = model(batch.z, batch.action, state, dropout)
    out = MemoryOutput(*(part.float() for part in low))
    nll = mixture_nll(out, batch.target, batch.mask)
    reward = _REWARD_LOSSES[model.cfg.reward](out.reward, batch.reward, batch.mask)
    ends = termination_loss(out.terminated_logit, batch.terminated, batch.mask)
    loss = nll + cfg.reward_weight * reward + cfg.termination_weight * ends
    parts = {"loss": loss, "nll": nll, "reward_loss": reward, "termination_loss": ends}
    metrics = {name: value.detach() for name, value in parts.items()}
    return loss, metrics, MemoryState(last.h.detach(), last.c.detach())


def train_memory(
    cfg: MemoryTrainConfig,
    memory: MemoryConfig,
    reward: RewardModel,
    latents: Latents,
    *,
    seed: int,
    holdout: Latents | None = None,
    repeats: NDArray[np.int64] | None = None,
    init: dict[str, Tensor] | None = None,
    checkpoint: Path | None = None,
    log: Log | None = None,
    device: str = "cpu",
) -> Memory:
    """Train M, or go on with ``init``'s weights, and return it in evaluation mode.

    Args:
        cfg: the training's configuration.
        memory: M's shape.
        reward: what the reward head's target is.
        latents: encoded episodes to train on.
        seed: fixes initial weights, order, posterior noise and dropout masks.
        holdout: encoded episodes for the validation loss.
        repeats: (E,) how often an epoch plays each episode.
        init: state dict to go on from (``cfg.finetune_steps`` steps instead of ``cfg.steps``).
        checkpoint: file for the resume state; read if it is there.
        log: receives ``step, loss, nll, reward_loss, ..., steps_per_second``.
        device: torch device.

    Raises:
        UserError: a loss that is not finite, with its step.
    """
    torch.manual_seed(seed % 2**63)
    model = build(memory).to(device)
    if init is not None:
        model.load_state_dict(init)
    steps = cfg.steps if init is None else cfg.finetune_steps
    peak = cfg.learning_rate if init is None else cfg.finetune_learning_rate
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trainable, lr=cfg.learning_rate, fused=True)
    noise = torch.Generator().manual_seed(derive_seed(seed, "noise") % 2**63)
    streams = SequenceStreams(latents, cfg.length, cfg.streams, seed, repeats)
    state, begin = model.initial_state(cfg.streams), 0
    if checkpoint is not None and checkpoint.exists():
        begin, state = _restore(load_checkpoint(checkpoint), model, optimiser, noise)
        state = MemoryState(state.h.to(device), state.c.to(device))

    source = streams.batches(begin)
    started, since = time.perf_counter(), begin
    for step in progress(range(begin, steps), "M", unit="step"):
        # one gradient step
        batch = _Batch(next(source), noise, cfg, reward, device)
        dropout = model.sample_mask(cfg.streams, generator=noise) if memory.dropout else None
        for group in optimiser.param_groups:
            group["lr"] = _cosine(step, steps, peak)
        loss, metrics, state = memory_loss(model, batch, state, dropout, cfg)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        _clip_gradient(trainable, cfg)
        optimiser.step()

        # metrics and checkpoint
        done = step + 1
        if done % cfg.log_every == 0 or done == steps:
            values = {name: float(value) for name, value in metrics.items()}
            if not math.isfinite(values["loss"]):
                raise UserError(
                    f"M's loss is {values['loss']} at step {step}: lower the learning rate "
                    f"({peak}) or raise the model's sigma_floor"
                )
            rate = (done - since) * cfg.streams * cfg.length / (time.perf_counter() - started)
            if holdout is not None and (done % (4 * cfg.log_every) == 0 or done == steps):
                values |= validate(model, reward, holdout, cfg)
            if log is not None:
                log(step=done, steps_per_second=rate, **values)
            started, since = time.perf_counter(), done
        if checkpoint is not None and (done % cfg.checkpoint_every == 0 or done == steps):
            save_checkpoint(checkpoint, _snapshot(done, state, model, optimiser, noise))
    return model.eval()


def validate(
    model: Memory, reward: RewardModel, latents: Latents, cfg: MemoryTrainConfig
) -> dict[str, float]:
    """Losses over whole held-out episodes, as ``val_loss`` and its parts."""
    device = str(model.device)
    width = min(cfg.streams, latents.num_episodes)
    streams = SequenceStreams(latents, cfg.length, width, seed=0)
    noise = torch.Generator().manual_seed(0)
    state, weight = model.initial_state(width), 0.0
    totals: dict[str, float] = {}
    batches = streams.batches()
    with torch.inference_mode():
        for _ in range(streams.steps_per_epoch()):
            batch = _Batch(next(batches), noise, cfg, reward, device)
            _, metrics, state = memory_loss(model, batch, state, None, cfg)
            count = float(batch.mask.sum())
            weight += count
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + float(value) * count
    return {f"val_{name}": value / max(weight, 1.0) for name, value in totals.items()}


def _clip_gradient(trainable: list[torch.nn.Parameter], cfg: MemoryTrainConfig) -> None:
    """Limit the gradient's elements, then its norm."""
    torch.nn.utils.clip_grad_value_(trainable, cfg.clip_value)
    if cfg.clip_norm:
        torch.nn.utils.clip_grad_norm_(trainable, cfg.clip_norm)


def _cosine(step: int, steps: int, peak: float) -> float:
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))


def _snapshot(
    step: int,
    state: MemoryState,
    model: Memory,
    optimiser: torch.optim.Optimizer,
    noise: torch.Generator,
) -> dict[str, Any]:
    return {
        "step": step,
        "h": state.h,
        "c": state.c,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "noise": noise.get_state(),
    }


def _restore(
    state: dict[str, Any], model: Memory, optimiser: torch.optim.Optimizer, noise: torch.Generator
) -> tuple[int, MemoryState]:
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    noise.set_state(state["noise"])
    return int(state["step"]), MemoryState(state["h"], state["c"])
