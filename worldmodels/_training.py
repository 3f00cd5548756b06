"""What the trainings of V and M share: setup, resume, metrics and checkpoints."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Required, TypedDict, TypeVar

import torch
from torch import Tensor, nn

from worldmodels._graphs import Replayed, can_record
from worldmodels._threads import CoreThreads, keep_freed_memory
from worldmodels.config import Config, Count, CountOrZero, Rate
from worldmodels.protocols import UserError
from worldmodels.runs import (
    derive_seed,
    has_fast_bfloat16,
    load_checkpoint,
    progress,
    save_checkpoint,
)

N = TypeVar("N", bound=nn.Module)
R = TypeVar("R")

PARTS = 4
"""Most parts of a batch, each computed by one thread on a CPU."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a network is trained."""

    steps: Count
    """gradient steps from scratch"""
    finetune_steps: CountOrZero
    """gradient steps when fine-tuned from an earlier iteration's weights"""
    learning_rate: Rate
    """peak of Adam's schedule"""
    bfloat16: bool
    """autocast to bfloat16 where the machine multiplies it fast"""
    checkpoint_every: Count = 200
    """steps between two checkpoints"""
    log_every: Count = 25
    """steps between two lines of metrics"""


class Options(TypedDict, total=False):
    """Where a training begins, and where it writes."""

    seed: Required[int]
    """fixes initial weights, order and noise"""
    init: dict[str, Tensor] | None
    """weights to fine-tune, for ``cfg.finetune_steps`` (default: train from scratch)"""
    checkpoint: Path | None
    """file for the resume state; read if it exists"""
    log: Callable[..., None] | None
    """gets ``step, loss, ..., val_loss`` and a rate as keyword arguments"""
    device: str


def in_bfloat16(model: N) -> N:
    """A copy with matrices of its own in bfloat16; biases and buffers are the model's own."""
    other = copy.deepcopy(model)
    for mine, copied in zip(model.modules(), other.modules(), strict=True):
        for name, weight in mine.named_parameters(recurse=False):
            low = nn.Parameter(weight.detach().bfloat16(), requires_grad=weight.requires_grad)
            setattr(copied, name, low if weight.ndim > 1 else weight)
        for name, buffer in mine.named_buffers(recurse=False):
            setattr(copied, name, buffer)
    return other


class TrainingLoop(Generic[N]):
    """Iterates over the gradient steps that are left, each counted from 0."""

    def __init__(
        self, name: str, noise: str, make: Callable[[], N], cfg: TrainConfig, options: Options
    ) -> None:
        """Make the network and its optimiser, and resume from a checkpoint if there is one.

        ``name`` is V or M, for the progress and for errors; ``noise`` names the steps' generator;
        ``make`` returns the network, its weights drawn from the global generator.
        """
        keep_freed_memory()
        torch.manual_seed(options["seed"] % 2**63)
        self.name, self.cfg, self._options = name, cfg, options
        with CoreThreads(1):  # drawing an orthogonal matrix depends on them
            self.model = make().to(options.get("device", "cpu"))
        init = options.get("init")
        if init is not None:
            self.model.load_state_dict(init)
        self.steps = cfg.steps if init is None else cfg.finetune_steps
        self.trainable = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.device = device = self.trainable[0].device
        low = cfg.bfloat16 and has_fast_bfloat16(device)
        self.computing = in_bfloat16(self.model) if low else self.model
        """the network that the gradients are of; in bfloat16 its matrices are cast once a step"""
        self._leaves = [weight for weight in self.computing.parameters() if weight.requires_grad]
        recorded = can_record(device)  # in a graph, so that the rate is a tensor, too
        rate = torch.tensor(cfg.learning_rate, device=device) if recorded else cfg.learning_rate
        self.optimiser = torch.optim.Adam(self.trainable, lr=rate, fused=True, capturable=recorded)
        self.noise = torch.Generator()  # on the CPU, so that every device draws the same
        self.noise.manual_seed(derive_seed(options["seed"], noise) % 2**63)
        self.resumed: dict[str, Any] = {}
        """what the checkpoint holds; empty without one"""
        checkpoint = options.get("checkpoint")
        if checkpoint is not None and checkpoint.exists():
            self.resumed = load_checkpoint(checkpoint)
            self.model.load_state_dict(self.resumed["model"])
            own = [dict(group) for group in self.optimiser.param_groups]
            self.optimiser.load_state_dict(self.resumed["optimiser"])
            for group, mine in zip(self.optimiser.param_groups, own, strict=True):
                group |= {name: mine[name] for name in ("lr", "fused", "capturable")}
            self.noise.set_state(self.resumed["noise"])
        self.begin = int(self.resumed.get("step", 0))
        self._parts = PARTS if device.type == "cpu" else 1
        self.threads = CoreThreads(min(self._parts, torch.get_num_threads()))
        """of a batch's parts; a training is within their block"""

    def gradients(
        self,
        sums: Callable[[slice], tuple[Tensor, R]],
        loss: Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]],
        rows: int,
        least: int,
    ) -> tuple[dict[str, Tensor], list[R]]:
        """Leave the gradient of a loss in the weights; the metrics, and what else the parts gave.

        On a CPU the batch's rows are cut into 1, 2 or 4 parts of at least ``least``. ``sums``
        computes (K,) numbers of some rows by `computing`, and anything else; ``loss`` is of their
        sums over all rows, and gives the metrics, too. The result does not depend on the number of
        threads.
        """
        with torch.no_grad():
            for leaf, weight in zip(self._leaves, self.trainable, strict=True):
                if leaf is not weight:
                    leaf.copy_(weight)
        most = max(1, min(self._parts, rows // least))
        count = 1 << (most.bit_length() - 1)  # two threads would wait for the third part
        cuts = [rows * part // count for part in range(count + 1)]
        parts = list(self.threads.map(sums, map(slice, cuts, cuts[1:])))
        total = torch.stack([part.detach() for part, _ in parts]).sum(0).requires_grad_()
        value, metrics = loss(total)
        (slope,) = torch.autograd.grad(value, total)

        def backward(part: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(part, self._leaves, slope, allow_unused=True)

        found = self.threads.map(backward, [part for part, _ in parts])
        for weight, *gradients in zip(self.trainable, *found, strict=True):
            weight.grad = None
            for gradient in gradients:
                if weight.grad is not None and gradient is not None:
                    weight.grad += gradient
                elif gradient is not None and gradient.stride() == weight.stride():
                    weight.grad = gradient.float()
                elif gradient is not None:  # the fused optimiser wants one layout
                    weight.grad = torch.empty_like(weight).copy_(gradient)
        return metrics, [more for _, more in parts]

    def replayed(self, update: Callable[..., R]) -> Replayed[R]:
        """A gradient step, which a GPU records once; on a CPU ``update`` itself."""
        return Replayed(update, self.device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the steps to come."""
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def __iter__(self) -> Iterator[int]:
        """Steps that are left, with their progress shown."""
        self._started, self._since = time.perf_counter(), self.begin
        for step in progress(range(self.begin, self.steps), self.name, unit="step"):
            yield step
            if step + 1 >= self.steps:  # fewer, if the training has found it enough
                return

    def report(
        self,
        step: int,
        metrics: Mapping[str, Tensor | int],
        per_step: tuple[int, str],
        remedy: str,
        validate: Callable[[], Mapping[str, float]] | None,
    ) -> None:
        """Log a line of metrics when one is due, with the validation losses in every fourth.

        ``metrics`` are scalars, "loss" among them; ``per_step`` is the number of units in a step
        and their name. A loss that is not finite is a `UserError` that ends with the remedy.
        """
        if not self._due(step, self.cfg.log_every):
            return
        values = {k: float(v) if isinstance(v, Tensor) else v for k, v in metrics.items()}
        if not math.isfinite(values["loss"]):
            raise UserError(f"{self.name}'s loss is {values['loss']} at step {step}: {remedy}")
        count, unit = per_step
        rate = (step + 1 - self._since) * count / (time.perf_counter() - self._started)
        if validate is not None and self._due(step, 4 * self.cfg.log_every):
            values |= validate()
        if log := self._options.get("log"):
            log(step=step + 1, **{f"{unit}_per_second": rate}, **values)
        self._started, self._since = time.perf_counter(), step + 1

    def keep(self, step: int, **more: Any) -> None:
        """Write a checkpoint when one is due, with ``more`` that a resume needs."""
        checkpoint = self._options.get("checkpoint")
        if checkpoint is None or not self._due(step, self.cfg.checkpoint_every):
            return
        networks = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        state = {"step": step + 1, **more, **networks, "noise": self.noise.get_state()}
        save_checkpoint(checkpoint, state)

    def _due(self, step: int, every: int) -> bool:
        return (step + 1) % every == 0 or step + 1 == self.steps
