"""Dreams a block of steps at a time, as a GPU records and replays them.

A block looks at no value and makes no tensor from a number, so that its operations are the same
ones every time; the host draws the next block's noise while the device is at work.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels._graphs import Replayed
from worldmodels.dream.config import DreamConfig
from worldmodels.dream.starts import Array
from worldmodels.dream.world import BLOCK, EXTRA_UNIFORMS, DreamNoise, MakeAct, TorchWorld

_State: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""z (R, Z), h (M, R, H) and c (M, R, C)."""


class _Tally(NamedTuple):
    """Running sums of R dreams, as in `DreamResult`."""

    returns: Tensor
    """(R,) float64"""
    weight: Tensor
    """() float64 of the next reward"""
    terminated: Tensor
    """(R,)"""


def _block(
    world: TorchWorld,
    make_act: MakeAct,
    shape: tuple[int, int],
    discount: float,
    population: Tensor,
    left: Tensor,
    *rest: Any,
) -> tuple[_State, _Tally]:
    """Some steps of dreams by a population (P, N); those beyond the ``left`` () count nothing.

    ``rest``: z, h, c, the mask, the tally, and the steps' noise (T, n, Z + 3) and (T, n, Z).
    """
    z, h, c, mask, returns, weight, terminated, uniform, normal = rest
    dreams, act = world.at(z, h, c, mask), make_act(population)
    for step, (drawn, noise) in enumerate(zip(uniform, normal, strict=True)):
        z, h = dreams.seen()
        action = act(z.view(*shape, -1), h.view(*shape, -1)).flatten(0, 1)
        outputs = dreams.advance(action, drawn, noise)
        paid, ended, _ = dreams.judge(outputs, drawn[:, -EXTRA_UNIFORMS:])
        alive = ~terminated & (left > step)
        returns = returns + torch.where(alive, weight * paid.double(), 0.0)
        terminated, weight = terminated | (alive & ended), weight * discount
    after = dreams.z, torch.stack(dreams.h), torch.stack(dreams.c)
    return after, _Tally(returns, weight, terminated)


class Blocks:
    """Recorded blocks of one engine's dreams, kept by what acts and by the dreams' shape."""

    def __init__(self, cfg: DreamConfig, device: torch.device) -> None:
        """Record nothing yet."""
        self.cfg, self.device = cfg, device
        self._kept: dict[Hashable, Replayed[tuple[_State, _Tally]]] = {}

    def returns(
        self,
        world: TorchWorld,
        members: Hashable,
        noise: DreamNoise,
        make_act: MakeAct,
        population: Array,
        shape: tuple[int, int],
    ) -> NDArray[Any]:
        """Returns (P, E) of a population (P, N), from dreams before their first step.

        ``members`` names the memories of ``world``; recordings are made once for each of them.
        """
        key = (make_act, shape, members)
        block = self._kept.get(key)
        if block is None:
            work = partial(_block, world, make_act, shape, self.cfg.discount)
            block = self._kept.setdefault(key, Replayed(work, self.device))
        rows = shape[0] * shape[1]
        state = world.z, torch.stack(world.h), torch.stack(world.c)
        tally = _Tally(
            torch.zeros(rows, dtype=torch.float64),
            torch.ones((), dtype=torch.float64),
            torch.zeros(rows, dtype=torch.bool),
        )
        candidates = torch.from_numpy(population)
        for first in range(0, self.cfg.horizon, BLOCK):
            drawn = map(torch.from_numpy, noise.block())  # while the device is at work
            if bool(tally.terminated.all()):
                break
            left = torch.tensor(self.cfg.horizon - first)
            state, tally = block(candidates, left, *state, world.mask, *tally, *drawn)
        return tally.returns.cpu().numpy().reshape(shape)
