"""One loop for every energy F and generator G: down on data, up on what G makes.

The checkpoint holds the whole state, and batches are drawn by their number, so an interrupted run
resumes bit-exactly.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from sparse_gan.energy import EnergyModel
from sparse_gan.gan import losses
from sparse_gan.gan.ebgan import AutoencoderEnergy
from sparse_gan.gan.losses import LossConfig
from sparse_gan.gan.networks import Generator
from worldmodels._threads import with_fastest_threads
from worldmodels.config import Config, Count, Decay, Rate
from worldmodels.protocols import UserError
from worldmodels.runs import (
    derive_seed,
    load_checkpoint,
    mixed_precision,
    progress,
    save_checkpoint,
    to_jsonable,
)

Batches = Callable[[int], Tensor]
"""From a batch's number to its samples (B, ...), the same on every call."""
Log = Callable[..., None]
"""Takes the metrics of one moment as keyword arguments."""


class GANStep(TypedDict, total=False):
    """A line of metrics: means over the last batch."""

    step: int
    """of G, counted from 1"""
    seconds: float
    """of training so far"""
    steps_per_second: float
    energy_loss: float
    """of F, penalties included"""
    energy_real: float
    energy_fake: float
    generator_loss: float


@dataclass(frozen=True)
class GANTrainConfig(Config):
    """How G and F are trained."""

    loss: LossConfig = field(default_factory=LossConfig)
    """what is minimised"""
    steps: Count = 3000
    """steps of G"""
    energy_steps: Count = 1
    """steps of F for each step of G"""
    optimiser: Literal["adam", "rmsprop"] = "adam"
    """adam as in DCGAN, rmsprop as in the first Wasserstein GAN"""
    generator_rate: Rate = 2e-4
    """learning rate of G"""
    energy_rate: Rate = 2e-4
    """learning rate of F"""
    beta1: Decay = 0.5
    """Adam's memory of the gradient"""
    beta2: Decay = 0.999
    """Adam's memory of the squared gradient"""
    ema: Decay = 0.999
    """memory of the average over G's weights that samples are drawn from; 0 takes G itself"""
    bfloat16: bool = False
    """autocast to bfloat16 where the machine multiplies it fast"""
    checkpoint_every: Count = 500
    """steps between two checkpoints"""
    log_every: Count = 50
    """steps between two lines of metrics"""
    sample_every: Count = 250
    """steps between two pictures of the fixed noise"""


class GAN:
    """Both networks, the average of G, both optimisers and the fresh noise: all that training is.

    Attributes:
        generator: G as it is trained.
        average: exponential moving average of G, in evaluation mode; samples come from it.
        energy: F.
        step: steps of G done.
        seconds: spent in training so far, interruptions left out.
    """

    def __init__(
        self, cfg: GANTrainConfig, generator: Generator, energy: EnergyModel, seed: int
    ) -> None:
        """Take the networks as they are.

        Args:
            cfg: how to train.
            generator: G.
            energy: F; a loss with a penalty on its gradient needs one without batch norm.
            seed: fixes noise.

        Raises:
            UserError: network and loss that do not go together.
        """
        check_pair(cfg.loss, energy)
        self.cfg, self.generator, self.energy = cfg, generator, energy
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.optimisers = {
            "generator": _optimiser(cfg, generator, cfg.generator_rate),
            "energy": _optimiser(cfg, energy, cfg.energy_rate),
        }
        self.noise = torch.Generator().manual_seed(derive_seed(seed, "fresh noise") % 2**63)
        self.step, self.seconds = 0, 0.0

    @torch.no_grad()
    def sample(self, count: int, seed: int, chunk: int = 256) -> Tensor:
        """Samples (count, ...) of the averaged G from noise that training never sees."""
        source = torch.Generator().manual_seed(derive_seed(seed, "samples") % 2**63)
        noise = self.average.noise(count, source)
        return torch.cat([self.average(part).float() for part in noise.split(chunk)])

    def train_step(self, batches: Batches) -> dict[str, Tensor]:
        """Train F ``energy_steps`` times, then G once on the noise that F saw last."""
        cfg = self.cfg
        self.energy.requires_grad_(True)
        for number in range(cfg.energy_steps):
            real = batches(self.step * cfg.energy_steps + number)
            last = number == cfg.energy_steps - 1
            noise = self.generator.noise(len(real), self.noise)
            with torch.set_grad_enabled(last), self._autocast(real):
                fake = self.generator(noise)
            metrics = self._energy_step(real, fake.detach())
        self.energy.requires_grad_(False)  # G's step needs F's slope, not its gradients
        metrics |= self._generator_step(fake)
        self._average()
        self.step += 1
        return metrics

    def _energy_step(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        loss_cfg = self.cfg.loss
        deviation = losses.annealed(loss_cfg.instance_noise, self.step, self.cfg.steps)
        seen_real, seen_fake = self._blurred(real, deviation), self._blurred(fake, deviation)
        with self._autocast(real):
            low, high = self.energy.energy(seen_real), self.energy.energy(seen_fake)
        low, high = low.float(), high.float()
        loss = losses.energy_loss(loss_cfg, low, high)
        loss = loss + losses.penalty(
            loss_cfg, self.energy.energy, seen_real.float(), seen_fake.float(), self.noise
        )
        optimiser = self.optimisers["energy"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if loss_cfg.kind == "wasserstein":
            losses.clip_weights(self.energy.parameters(), loss_cfg.clip)
        return {
            "energy_loss": loss.detach(),
            "energy_real": low.detach().mean(),
            "energy_fake": high.detach().mean(),
        }

    def _generator_step(self, fake: Tensor) -> dict[str, Tensor]:
        cfg = self.cfg.loss
        deviation = losses.annealed(cfg.instance_noise, self.step, self.cfg.steps)
        extra: Tensor | float = 0.0
        with self._autocast(fake):
            seen = self._blurred(fake, deviation)
            if cfg.kind == "ebgan":
                assert isinstance(self.energy, AutoencoderEnergy)
                high, code = self.energy.energy_and_features(seen)
                extra = cfg.pulling_away * losses.pulling_away(code.float())
            else:
                high = self.energy.energy(seen)
        loss = losses.generator_loss(cfg, high.float()) + extra
        optimiser = self.optimisers["generator"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        return {"generator_loss": loss.detach()}

    def _blurred(self, x: Tensor, deviation: float) -> Tensor:
        """Samples with instance noise (Sonderby et al. 2017); themselves without."""
        if deviation == 0:
            return x
        return x + deviation * torch.randn(x.shape, generator=self.noise).to(x)

    def _autocast(self, like: Tensor) -> torch.autocast:
        return mixed_precision(like.device, self.cfg.bfloat16)

    @torch.no_grad()
    def _average(self) -> None:
        old: list[Tensor] = list(self.average.parameters())
        new: list[Tensor] = list(self.generator.parameters())
        torch._foreach_lerp_(old, new, 1 - self.cfg.ema)
        pairs = zip(self.average.buffers(), self.generator.buffers(), strict=True)
        for kept, buffer in pairs:
            kept.copy_(buffer)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, the loss among it."""
        return {
            "step": self.step,
            "seconds": self.seconds,
            "loss": to_jsonable(self.cfg.loss),
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "energy": self.energy.state_dict(),
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
            "fresh": self.noise.get_state(),
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from what `state` gave.

        Raises:
            UserError: no GAN's checkpoint, one of another loss, or one of other networks.
        """
        if "loss" not in state or "average" not in state:
            raise UserError(f"{source} is no checkpoint of a GAN; delete it or name another folder")
        wanted = to_jsonable(self.cfg.loss)
        if state["loss"] != wanted:
            theirs = {k: v for k, v in state["loss"].items() if wanted.get(k) != v}
            ours = {k: wanted.get(k) for k in theirs}
            raise UserError(
                f"{source} was trained with another loss: it has {theirs}, this run {ours}; "
                "take another folder"
            )
        try:
            for name in ("generator", "average", "energy"):
                getattr(self, name).load_state_dict(state[name])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{source} is of other networks than this run's ({reason})") from error
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.noise.set_state(state["fresh"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def check_pair(loss: LossConfig, energy: EnergyModel) -> None:
    """Refuse a loss for which F has not the right form.

    Raises:
        UserError: says which form it needs.
    """
    if loss.kind == "ebgan" and not isinstance(energy, AutoencoderEnergy):
        raise UserError("the loss ebgan needs an auto-encoder as its energy (AutoencoderEnergy)")
    if loss.needs_floor and not isinstance(energy, AutoencoderEnergy):
        config = getattr(energy, "cfg", energy)
        if not getattr(config, "nonnegative", False):
            raise UserError(
                f"the loss {loss.kind} needs an energy with a floor: set its nonnegative to true"
            )
    if loss.has_penalty and any(isinstance(m, nn.BatchNorm2d) for m in energy.modules()):
        raise UserError(
            "a penalty on the energy's gradient needs samples kept apart: "
            "norm is batch; it must be group, spectral or none"
        )


def train_gan(
    gan: GAN,
    batches: Batches,
    *,
    checkpoint: Path | None = None,
    log: Log | None = None,
    on_sample: Callable[[GAN], None] | None = None,
) -> GAN:
    """Train up to ``gan.cfg.steps``, from the checkpoint if there is one, and return the same GAN.

    Args:
        gan: networks and how to train them.
        batches: data by number.
        checkpoint: file for the resume state; read if it is there.
        log: receives a `GANStep`.
        on_sample: called at step 0 and each ``sample_every`` steps.

    Raises:
        UserError: a loss that is not finite, or a checkpoint that does not fit.
    """
    cfg = gan.cfg
    if checkpoint is not None and checkpoint.exists():
        gan.restore(load_checkpoint(checkpoint), str(checkpoint))
    elif on_sample is not None:
        on_sample(gan)
    before = gan.seconds
    started, since = time.perf_counter(), gan.step
    left = progress(range(gan.step, cfg.steps), "GAN", unit="step")
    for _ in with_fastest_threads(left):
        metrics = gan.train_step(batches)

        # metrics, pictures and checkpoint
        done, end = gan.step, gan.step == cfg.steps
        gan.seconds = before + time.perf_counter() - started
        if done % cfg.log_every == 0 or end:
            values = {name: float(value) for name, value in metrics.items()}
            check_finite(values, done, cfg)
            rate = (done - since) / max(1e-9, gan.seconds - before)
            if log is not None:
                own = GANStep(step=done, seconds=gan.seconds, steps_per_second=rate)
                log(**own, **values)
        if on_sample is not None and (done % cfg.sample_every == 0 or end):
            on_sample(gan)
        if checkpoint is not None and (done % cfg.checkpoint_every == 0 or end):
            save_checkpoint(checkpoint, gan.state())
    gan.energy.requires_grad_(True)
    return gan


def check_finite(values: dict[str, float], step: int, cfg: GANTrainConfig) -> None:
    """Stop at a loss that is not a number.

    Raises:
        UserError: names the figure, the step and the learning rates.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                f"{name} of the loss {cfg.loss.kind} is {value} at step {step}: lower "
                f"generator_rate ({cfg.generator_rate}) and energy_rate "
                f"({cfg.energy_rate}), or look for NaN in the data"
            )


def _optimiser(cfg: GANTrainConfig, module: nn.Module, rate: float) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if cfg.optimiser == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate)
    return torch.optim.Adam(parameters, lr=rate, betas=(cfg.beta1, cfg.beta2), fused=True)
