"""A film of a planner in the dream: the current frame, the expected ones, the plan's actions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worldmodels.planning.objective import Belief, Unrolled, along
from worldmodels.planning.plan import Plan
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import UserError
from worldmodels.runs import derive_seed
from worldmodels.video.drawing import ACCENT, PAPER, Frames, VideoConfig, compose

_COLOURS = (ACCENT, (94, 201, 120), (226, 92, 92), (120, 160, 240), (200, 130, 220))
_RULE = (60, 64, 72)


class PlannedStep(NamedTuple):
    """One decision of a planner in the dream."""

    plan: Plan
    z: NDArray[np.float32]
    """(Z,) at the decision"""
    expected: NDArray[np.float32]
    """(T, Z) along the plan, in the dream at temperature 0"""
    reward: float
    """expected by M for the decision"""
    aleatoric: NDArray[np.float32]
    """(T,) aleatoric standard deviation of z along the plan"""
    epistemic: NDArray[np.float32]
    """(T,) epistemic one: disagreement of the memories; 0 for a single memory"""


@torch.no_grad()
def plan_in_dream(
    policy: PlanningPolicy, decisions: int, start: int = 0, seed: int = 0
) -> Iterator[PlannedStep]:
    """Let a planner act in a dream from recorded state ``start``, for ``decisions`` at most."""
    agent, imagination, starts = policy.agent, policy.imagination, policy.agent.starts
    count = 0 if starts is None else len(starts.z)
    if starts is None or not 0 <= start < count:
        raise UserError(f"start is {start}; this agent has {count} recorded states, from 0")
    rng = np.random.default_rng(derive_seed(seed, "reality"))
    dream = (agent.memories, imagination.reward_model)
    world = Unrolled.of(*dream, Belief.recorded(starts, start))
    for belief, plan, reward in policy.dream(world, decisions, seed, rng):
        now = Unrolled.of(*dream, belief)
        actions = imagination.to_input(torch.from_numpy(plan.actions))
        parts = along(agent.memories, now.z, now.states, actions[None])
        aleatoric, epistemic = (
            torch.cat(part).mean(-1).sqrt().numpy() for part in zip(*parts, strict=True)
        )
        expected = _likeliest(policy, belief, actions)
        yield PlannedStep(plan, belief.z, expected, reward, aleatoric, epistemic)


def _likeliest(
    policy: PlanningPolicy, belief: Belief, actions: torch.Tensor
) -> NDArray[np.float32]:
    """Latents (T, Z) of the first memory's dream at temperature 0."""
    memories = policy.agent.memories[:1]
    world = Unrolled.of(memories, policy.imagination.reward_model, belief, 0.0)
    seen, unused = [], world.z
    for action in actions:
        world.step(action[None], unused, unused)
        seen.append(world.z[0].numpy())
    return np.stack(seen)


def plan_frames(
    policy: PlanningPolicy, steps: Sequence[PlannedStep], cfg: VideoConfig
) -> Iterator[Frames]:
    """Frames of the film: the dream now, three looks ahead along the plan, and its actions."""
    held, total = policy.agent.action_repeat, 0.0
    for t, step in enumerate(steps):
        horizon = len(step.expected)
        looks = sorted({max(0, horizon * k // 3 - 1) for k in (1, 2, 3)})
        codes = np.concatenate((step.z[None], step.expected[looks]))
        pictures = [*policy.agent.decode(codes), draw_actions(step.plan.actions, policy, cfg.panel)]
        ahead = [f"plan, +{(look + 1) * held} steps" for look in looks]
        line = (
            f"{policy.method}, decision {t}",
            f"return {total:.1f}",
            f"plan {step.plan.score:+.1f}",
            f"{step.plan.samples} plans tried",
            f"noise / doubt {step.aleatoric.mean():.2f} / {step.epistemic.mean():.2f}",
        )
        labels = ["now, in the dream", *ahead, "the plan's actions"]
        picture = compose(pictures, labels, line, cfg.panel)
        yield from [picture] * max(1, held // cfg.every)
        total += step.reward


def draw_actions(plan: NDArray[np.float32], policy: PlanningPolicy, size: int) -> Frames:
    """A plan (T, A) as one line for each number, from its lower bound to its upper one."""
    low, high = policy.imagination.low, policy.imagination.high
    sheet = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.line([(3, size / 2), (size - 4, size / 2)], _RULE, 1)
    x = np.linspace(3, size - 4, len(plan))
    y = (size - 6) - (plan - low) / (high - low) * (size - 12)
    for a in range(plan.shape[1]):
        points = list(zip(x.tolist(), y[:, a].tolist(), strict=True))
        draw.line([*points, points[-1]], _COLOURS[a % len(_COLOURS)], 2)
    return np.asarray(sheet)
