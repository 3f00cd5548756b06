"""Training of M: truncated back-propagation through time over streams of whole episodes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, Literal, NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels._training import Options, TrainConfig, TrainingLoop
from worldmodels.config import (
    AtLeast,
    Count,
    CountOrZero,
    Fraction,
    Limit,
    NotNegative,
    Rate,
    Size,
)
from worldmodels.memory.interface import Memory, MemoryConfig, MemoryOutput, MemoryState
from worldmodels.memory.kinds import build
from worldmodels.memory.mixture import (
    component_posterior,
    mixture_from_noise,
    mixture_log_prob,
    mixture_noise,
)
from worldmodels.memory.rewards import RewardKind, RewardModel, event_loss, masked_mean
from worldmodels.memory.sequences import SequenceBatch, SequenceStreams
from worldmodels.runs import mixed_precision
from worldmodels.vision.latents import Latents

LEAST_STREAMS = 8
"""Fewest streams that one thread computes in a step."""


@dataclass(frozen=True)
class MemoryTrainConfig(TrainConfig):
    """How M is trained: Adam with a cosine schedule."""

    steps: Count = 1500
    finetune_steps: CountOrZero = 600
    learning_rate: Rate = 2e-3
    finetune_learning_rate: Rate = 5e-4
    """peak learning rate when M is fine-tuned"""
    batch_size: Size = 96
    """episodes in a batch"""
    sequence_length: Annotated[int, AtLeast(2), Limit(65_536)] = 48
    """steps of back-propagation through time"""
    exact: bool = field(default=False, metadata={"omit_default": True})
    """keep M's state free of what pads an episode's first window, and cut no episode that fits into
    one: what M has to remember from the first frames on"""
    clip_value: NotNegative = 1.0
    """largest absolute value of an element of the gradient"""
    clip_norm: NotNegative = 0.5
    """largest norm of the gradient, after clip_value; 0 for no limit"""
    bfloat16: bool = False
    """autocast to bfloat16 where the machine multiplies it fast"""
    posterior_noise: NotNegative = 1.0
    """fraction of V's posterior standard deviation sampled into z (the paper: 1)"""
    input_noise: NotNegative = 0.0
    """fraction of V's posterior standard deviation added to M's inputs only, so that M learns to
    correct its own errors"""
    own_inputs: Fraction = field(default=0.0, metadata={"omit_default": True})
    """fraction of M's inputs that are its own predictions from the recorded ones, so that dreams
    come back to what frames look like; raise it where they dissolve"""
    own_inputs_after: Fraction = field(default=0.0, metadata={"omit_default": True})
    """fraction of the training before which M reads no predictions of its own: what it should
    remember for long it learns from recorded inputs first"""
    own_inputs_from: Literal["prior", "posterior"] = field(
        default="prior", metadata={"omit_default": True}
    )
    """what their components are drawn from: M's mixture, so that M learns to find back from what
    does not fit together, or the mixture given what was recorded, so that it believes what it
    dreams where it cannot know what comes"""
    reward_weight: NotNegative = 2.0
    """weight of the reward loss, relative to the mixture's in nats per latent dimension"""
    termination_weight: NotNegative = 1.0
    """weight of the termination loss"""


def fit_reward_model(latents: Latents, kind: RewardKind) -> RewardModel:
    """Estimate the reward's constants.

    "event" and "count" take the most common reward as the base and the mean excess of the rewards
    above it as an event's value, and "count" the most events of a step; "raw" standardises,
    "two_hot" spreads its bins over the rewards, and for both a constant reward has the scale 0: it
    is known.
    """
    reward, base, _ = _rewards(latents)
    if kind == "two_hot":
        return RewardModel.spread(reward)
    if kind == "raw":
        scale = float(reward.std())
        return RewardModel("raw", scale=scale if scale > 1e-6 else 0.0, shift=float(reward.mean()))
    excess = reward[reward > base + 1e-3] - base
    if not len(excess):
        return RewardModel(kind, base=base)
    value = float(excess.mean())
    most = float(excess.max()) / value if kind == "count" else None
    return RewardModel(kind, base=base, event_value=value, most=most)


def reward_kind(latents: Latents) -> RewardKind:
    """Form of the reward in the data.

    "event" if most steps pay the same reward and nearly all others more (a rare event on top of a
    constant), "count" if these pay different amounts (several events in a step), else "two_hot".
    """
    reward, base, fraction = _rewards(latents)
    others = reward[np.abs(reward - base) > 1e-3]
    if fraction <= 0.5 or not len(others) or np.mean(others > base) <= 0.9:
        return "two_hot"
    low, high = np.quantile(others[others > base] - base, (0.05, 0.95))
    return "event" if high < 1.6 * low else "count"


def _rewards(latents: Latents) -> tuple[NDArray[np.float32], float, float]:
    """Rewards (S,) of all steps, the most common reward, and the fraction of steps that pay it."""
    reward = np.delete(latents.reward, latents.offsets[1:] - 1)
    values, counts = np.unique(np.round(reward, 4), return_counts=True)
    return reward, float(values[counts.argmax()]), counts.max() / len(reward)


class Window(NamedTuple):
    """One window of B streams, as M is trained on it."""

    z: Tensor
    """(B, T, Z) what M sees"""
    target: Tensor
    """(B, T, Z) what it predicts"""
    action: Tensor
    reward: Tensor
    terminated: Tensor
    mask: Tensor
    restart: Tensor
    """these five as in `SequenceBatch`"""
    h: Tensor
    c: Tensor
    """the state after the window before"""
    dropped: Tensor | None
    """(B, H) dropout mask"""
    own: Tensor | None
    """(B, T, 1) which inputs are M's own predictions"""
    uniform: Tensor | None
    normal: Tensor | None
    """(B, T, Z) what these are drawn from"""
    first: int
    """as in `SequenceBatch`"""

    def part(self, rows: slice) -> Window:
        """Some of the streams."""
        return Window._make(x[rows] if isinstance(x, Tensor) else x for x in self)

    def to(self, device: torch.device) -> Window:
        """All of it on a device."""
        return Window._make(x.to(device) if isinstance(x, Tensor) else x for x in self)


def draw_window(
    model: Memory,
    batch: SequenceBatch,
    state: MemoryState,
    noise: torch.Generator,
    cfg: MemoryTrainConfig,
    training: bool = True,
    progress: float = 1.0,
) -> Window:
    """Draw z from the posteriors and, in training, dropout and what M's own inputs are drawn from.

    ``progress`` is the fraction of the training that is done. ``noise`` is on the CPU, so that
    every device sees the same z; so is the window, but its state.
    """
    std = torch.exp(0.5 * batch.logvar)
    z = batch.mu + cfg.posterior_noise * std * torch.randn(std.shape, generator=noise)
    target = z[:, 1:]
    if cfg.input_noise:
        z = z + cfg.input_noise * std * torch.randn(std.shape, generator=noise)
    dropped = model.sample_mask(len(z), noise) if training else None
    own = uniform = normal = None
    if training and cfg.own_inputs and progress >= cfg.own_inputs_after:
        own = torch.rand((*target.shape[:2], 1), generator=noise) < cfg.own_inputs
        uniform, normal = mixture_noise(target, noise)
    drawn = dropped, own, uniform, normal
    return Window(z[:, :-1], target, *batch[2:7], *state, *drawn, batch.first)


def memory_losses(
    model: Memory, reward: RewardModel, window: Window, cfg: MemoryTrainConfig
) -> tuple[Tensor, MemoryState]:
    """Losses (3,) averaged over the steps that exist, and the state after the window.

    The mixture's negative log-likelihood, in nats per step and latent dimension; the reward's; that
    of the episodes' ends.
    """
    out, last = _predicted(model, _with_own_inputs(model, window, cfg), cfg)
    nll = masked_mean(-mixture_log_prob(*out[:3], window.target).mean(-1), window.mask)
    rewarded = reward.loss(out.reward, window.reward, window.mask)
    ends = event_loss(out.terminated_logit, window.terminated, window.mask)
    carried = MemoryState(last.h.detach(), last.c.detach())
    return torch.stack((nll, rewarded, ends)), carried


def _predicted(
    model: Memory, window: Window, cfg: MemoryTrainConfig
) -> tuple[MemoryOutput, MemoryState]:
    """What M predicts at every step (B, T, ...), and its state after the window."""
    dropped = window.dropped
    state = MemoryState(window.h, window.c).kept(~window.restart[:, None])
    with mixed_precision(model.device, cfg.bfloat16):
        features, last = _features(model, window, state)
        low = model.predict(window.z, features, None if dropped is None else dropped.unsqueeze(1))
    return MemoryOutput(*(part.float() for part in low)), last


def _with_own_inputs(model: Memory, window: Window, cfg: MemoryTrainConfig) -> Window:
    """The window with some of its inputs replaced by what M predicts for them.

    All are predicted at once, from recorded inputs ("parallel scheduled sampling", Duckworth et al.
    2019). A component drawn from M's mixture may be of what did not happen, before targets that
    did, and teaches M that nothing follows from it; one drawn from the posterior is of what did.
    """
    if window.own is None or window.uniform is None or window.normal is None:
        return window
    with torch.no_grad():
        out, _ = _predicted(model, window, cfg)
        log_pi = out.log_pi
        if cfg.own_inputs_from == "posterior":
            log_pi = component_posterior(*out[:3], window.target)
        guess = mixture_from_noise(log_pi, *out[1:3], window.uniform, window.normal)
        later = torch.where(window.own[:, 1:], guess[:, :-1], window.z[:, 1:])
    return window._replace(z=torch.cat((window.z[:, :1], later), dim=1))


def _part(
    model: Memory, reward: RewardModel, cfg: MemoryTrainConfig, window: Window, rows: slice
) -> tuple[Tensor, MemoryState]:
    """What some streams add to `memory_losses` of the window, and the state after it."""
    own = window.part(rows)
    losses, after = memory_losses(model, reward, own, cfg)
    return losses * (own.mask.sum() / window.mask.sum().clamp_min(1)), after


def weighted(losses: Tensor, cfg: MemoryTrainConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of `memory_losses` (3,), and the metrics."""
    nll, rewarded, ends = losses.unbind()
    loss = nll + cfg.reward_weight * rewarded + cfg.termination_weight * ends
    metrics = {"loss": loss, "nll": nll, "reward_loss": rewarded, "termination_loss": ends}
    return loss, {name: value.detach() for name, value in metrics.items()}


def _features(model: Memory, window: Window, state: MemoryState) -> tuple[Tensor, MemoryState]:
    """h_{1..T} (B, T, H), and M's state after them; after `Window.first` of rows that restart.

    What follows these is no part of the episode, and M must not remember it.
    """
    z, action, first, dropped = window.z, window.action, window.first, window.dropped
    early, middle = model.recurrence(z[:, :first], action[:, :first], state, dropped)
    if first == z.shape[1]:
        return early, middle
    late, last = model.recurrence(z[:, first:], action[:, first:], middle, dropped)
    rows = window.restart.unsqueeze(1)
    kept = (torch.where(rows, *two) for two in zip(middle, last, strict=True))
    return torch.cat((early, late), dim=1), MemoryState(*kept)


def train_memory(
    cfg: MemoryTrainConfig,
    memory: MemoryConfig,
    reward: RewardModel,
    latents: Latents,
    *,
    holdout: Latents | None = None,
    repeats: NDArray[np.int64] | None = None,
    **options: Unpack[Options],
) -> Memory:
    """Train M of a shape on latents and return it in evaluation mode.

    The validation loss is of ``holdout``; ``repeats`` (E,) says how often an epoch plays each
    episode. Raises a `UserError` that names the step where the loss is not finite.
    """

    def make() -> Memory:
        model = build(memory)
        if reward.kind == "two_hot" and not cfg.reward_weight:  # the head stays as it is
            model.reward.bias.data = reward.prior(torch.from_numpy(_rewards(latents)[0]))
        return model

    loop = TrainingLoop("M", "noise", make, cfg, options)
    model = loop.model
    peak = cfg.learning_rate if options.get("init") is None else cfg.finetune_learning_rate
    length, seed = cfg.sequence_length, options["seed"]
    streams = SequenceStreams(latents, length, cfg.batch_size, seed, repeats, cfg.exact)
    state, batches = model.initial_state(cfg.batch_size), streams.batches(loop.begin)
    weigh = partial(weighted, cfg=cfg)

    def update(*parts: Any) -> tuple[dict[str, Tensor], MemoryState]:
        """One gradient step: the metrics, and the state after the window."""
        window = Window(*parts)
        part = partial(_part, loop.computing, reward, cfg, window)
        metrics, states = loop.gradients(part, weigh, len(window.z), LEAST_STREAMS)
        torch.nn.utils.clip_grad_value_(loop.trainable, cfg.clip_value)
        if cfg.clip_norm:
            torch.nn.utils.clip_grad_norm_(loop.trainable, cfg.clip_norm)
        loop.optimiser.step()
        return metrics, MemoryState(*(torch.cat(parts) for parts in zip(*states, strict=True)))

    take_step = loop.replayed(update)
    if loop.resumed:
        state = MemoryState(*(loop.resumed[name].to(model.device) for name in "hc"))
    with loop.threads:
        for step in loop:
            # one gradient step
            loop.set_rate(_cosine(step, loop.steps, peak))
            batch, progress = next(batches), step / loop.steps
            window = draw_window(model, batch, state, loop.noise, cfg, progress=progress)
            metrics, state = take_step(*window)

            # metrics and checkpoint
            loop.report(
                step,
                metrics,
                (cfg.batch_size * length, "steps"),
                f"lower the learning rate ({peak}) or raise the model's sigma_floor",
                partial(validate, model, reward, holdout, cfg) if holdout is not None else None,
            )
            loop.keep(step, h=state.h, c=state.c)
    return model.eval()


def validate(
    model: Memory, reward: RewardModel, latents: Latents, cfg: MemoryTrainConfig
) -> dict[str, float]:
    """Losses over whole held-out episodes, as ``val_loss`` and its parts."""
    width = min(cfg.batch_size, latents.num_episodes)
    streams = SequenceStreams(latents, cfg.sequence_length, width, 0, exact=cfg.exact)
    noise = torch.Generator().manual_seed(0)
    state, weight = model.initial_state(width), 0.0
    totals: dict[str, float] = {}
    with torch.inference_mode():
        for batch in islice(streams.batches(), streams.steps_per_epoch()):
            window = draw_window(model, batch, state, noise, cfg, training=False).to(model.device)
            losses, state = memory_losses(model, reward, window, cfg)
            metrics = weighted(losses, cfg)[1]
            count = float(batch.mask.sum())
            weight += count
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + float(value) * count
    return {f"val_{name}": value / max(weight, 1.0) for name, value in totals.items()}


def _cosine(step: int, steps: int, peak: float) -> float:
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / max(1, steps))))
