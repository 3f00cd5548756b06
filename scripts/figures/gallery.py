"""Small animations of an agent for a page: its dreams, their temperature, exploitation, plans."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels import envs, runs
from worldmodels.agent import Agent
from worldmodels.dream.world import ended
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.policies.opening import open_member, open_policy
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import SELECTION_SEED_START, UserError
from worldmodels.video.drawing import Frames, VideoConfig, compose, write_animation
from worldmodels.video.films import (
    dream_frames,
    dream_steps,
    episode_frames,
    pace_of,
    painted,
    record,
    views,
)
from worldmodels.video.plans import plan_frames, plan_in_dream

TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.5)
DECISIONS = 60
"""Length of the animations."""
PANEL, LARGE = 144, 224
"""Height and width of panels, in pixels; two have room to be large."""
SEED = SELECTION_SEED_START
BEGIN = 50
"""Decisions of a real episode before a dream begins."""
EXPLOITED = 30
"""Decisions that are searched for in the dream."""
POPULATION, ELITES, ITERATIONS = 256, 24, 30
"""How they are searched for."""
SLOWER = 3.0
"""How much longer plans are seen than they last."""

Piece: TypeAlias = Callable[[str, Agent, VideoConfig], Iterator[Frames]]


def dreams(_: str, agent: Agent, cfg: VideoConfig) -> Iterator[Frames]:
    """Four dreams in which the agent acts."""
    return dream_frames(agent, cfg, 4, DECISIONS * agent.action_repeat)


def temperatures(_: str, agent: Agent, cfg: VideoConfig) -> Iterator[Frames]:
    """One start, dreamt at several temperatures."""
    steps = DECISIONS * agent.action_repeat
    streams = [dream_steps(agent, 1, steps, 2, tau) for tau in TEMPERATURES]
    latest = [next(stream) for stream in streams]
    labels = [f"temperature {tau:g}" for tau in TEMPERATURES]
    for _number in range(DECISIONS):
        pictures = [painted(agent, now)[0] for now in latest]
        line = [f"return {now.total[0]:.0f}" for now in latest]
        yield compose(pictures, labels, line, cfg.panel)
        latest = [next(stream, now) for stream, now in zip(streams, latest, strict=True)]


def reality(name: str, agent: Agent, cfg: VideoConfig) -> Iterator[Frames]:
    """A real episode, through V, and dreamt along its actions."""
    with contextlib.closing(envs.make(agent.env_id)) as env:
        steps = (BEGIN + DECISIONS) * agent.action_repeat
        taken, _ = record(env, open_policy(name), SEED, steps)
    shown = list(episode_frames(taken, views(agent, taken, cfg), cfg, "a real episode"))
    return iter(shown[-DECISIONS:])


def exploited(name: str, agent: Agent, cfg: VideoConfig) -> Iterator[Frames]:
    """Actions searched for in the dream, there and in reality.

    Both begin at the same frame of a real episode.
    """
    held, spec = agent.action_repeat, agent.action_spec
    with contextlib.closing(envs.make(agent.env_id)) as env:
        taken, _ = record(env, open_policy(name), SEED, BEGIN * held)
        z, state = _belief(agent, taken.frames[::held], taken.actions[::held])
        actions = exploit(agent, z, state, EXPLOITED)
        dreamt, gained = dream_of(agent, z, state, actions[None])
        real, dreamed, frame = 0.0, np.cumsum([0, *gained[0]]), taken.frames[-1]
        over = False
        for t, painting in enumerate(agent.decode(dreamt[0])):
            labels = (f"real: return {real:+.0f}", f"dream: return {dreamed[t]:+.0f}")
            line = ("searched for in the dream", f"step {t * held}")
            yield compose([frame, painting], labels, line, cfg.panel)
            if t == len(actions) or over:
                continue
            for _repeat in range(held):
                frame, reward, terminated, truncated, _ = env.step(spec.decode(actions[t]))
                real, over = real + float(reward), terminated or truncated
                if over:
                    break


def planning(name: str, _: Agent, cfg: VideoConfig) -> Iterator[Frames]:
    """A planner's expected frames over its dream."""
    policy = open_policy(name, "icem")
    assert isinstance(policy, PlanningPolicy)
    return plan_frames(policy, list(plan_in_dream(policy, DECISIONS // 3)), cfg)


PIECES: dict[str, Piece] = {
    "dreams": dreams,
    "temperatures": temperatures,
    "reality": reality,
    "exploited": exploited,
    "planning": planning,
}
"""By the ends of their files' names."""


def draw_piece(path: Path) -> None:
    """The animation that the file is named after: AGENT-PIECE.webp."""
    name, _, piece = path.stem.rpartition("-")
    animate(name, PIECES[piece], path)


def animate(name: str, piece: Piece, path: Path) -> None:
    """Write one animation of an agent; `UserError` for one that cannot dream."""
    agent = open_member(name)
    if agent.starts is None or agent.vision.decoder is None:
        raise UserError(f"{name} has no recorded starts or no decoder, and so no dreams to show")
    runs.make_folder(path.parent)
    cfg = VideoConfig(panel=LARGE if piece is exploited else PANEL, every=agent.action_repeat)
    rate = pace_of(agent.env_id) / agent.action_repeat / (SLOWER if piece is planning else 1)
    write_animation(path, piece(name, agent, cfg), rate)


@torch.inference_mode()
def _belief(
    agent: Agent, frames: Frames, actions: NDArray[np.generic]
) -> tuple[Tensor, MemoryState]:
    """V's mean (1, Z) and M's state at the last of T + 1 frames, after T actions."""
    mu, _ = agent.encode(frames)
    taken = torch.from_numpy(agent.action_spec.encode(actions[: len(frames) - 1]))
    memory = agent.memories[0]
    _, _, state = memory(mu[None, :-1], taken[None], memory.initial_state(1))
    return mu[-1:], state


@torch.inference_mode()
def dream_of(
    agent: Agent, z: Tensor, state: MemoryState, actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Dream along actions (P, T, A) at temperature 0 from z (1, Z).

    Returns z (P, T + 1, Z) and rewards (P, T); a dream that ends pays nothing more.
    """
    assert agent.reward_model is not None
    count, memory = len(actions), agent.memories[0]
    generator = torch.Generator().manual_seed(0)
    z = z.expand(count, -1)
    state = MemoryState(state.h.expand(count, -1), state.c.expand(count, -1))
    seen, gained, alive = [z.numpy()], [], np.ones(count, np.bool_)
    for action in torch.from_numpy(actions).unbind(1):
        z, out, state = memory.dream(z, action, state, mixture_noise(z, generator), 0.0)
        gained.append(np.where(alive, agent.reward_model.expected(out.reward).numpy(), 0.0))
        alive &= ~ended(agent.ends, out.terminated_logit, torch.full((count,), 0.5)).numpy()
        seen.append(z.numpy())
    return np.stack(seen, 1), np.stack(gained, 1)


def exploit(agent: Agent, z: Tensor, state: MemoryState, decisions: int) -> NDArray[np.float32]:
    """Search actions (T, A), as M sees them, for their return in the dream alone.

    It is the cross-entropy method, without what keeps a planner honest: the dream is at temperature
    0, nothing prices doubt, and nobody looks at reality on the way.
    """
    spec, rng = agent.action_spec, np.random.default_rng(0)
    box = spec.kind == "box"
    low, high = np.array((spec.low, spec.high) if box else ([-1.0], [1.0]), np.float32)
    mean, std = np.full((decisions, spec.size), (low + high) / 2), (high - low) / 2
    for _ in range(ITERATIONS):
        drawn = rng.normal(mean, std, (POPULATION, *mean.shape))
        tried = np.clip(drawn, low, high) if box else np.eye(spec.size)[drawn.argmax(-1)]
        total = dream_of(agent, z, state, tried.astype(np.float32))[1].sum(1)
        best = np.argsort(total)[-ELITES:]
        mean, std = drawn[best].mean(0), drawn[best].std(0) + 0.02 * (high - low)
    found: NDArray[np.float32] = tried[np.argmax(total)].astype(np.float32)
    return found
