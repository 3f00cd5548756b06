"""An episode replayed, seen through V and dreamt by M: films and pictures of an agent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldmodels import envs, runs
from worldmodels.agent import Agent
from worldmodels.dream.world import ended
from worldmodels.evaluation import EvaluationResult
from worldmodels.executors import one_thread
from worldmodels.experience.episode import EpisodeResult
from worldmodels.experience.rollout import PolicyBehaviour, run_group
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.protocols import Policy, UserError
from worldmodels.tasks import task_for
from worldmodels.video.drawing import Frames, VideoConfig, compose, grid, write_picture, write_video

USUAL_PACE = 30.0
"""Steps per second of an environment that names no rate of frames."""
LOSS_GAIN = 4
"""Brightness of V's error in a picture, relative to the frames'."""
WHICH: tuple[Literal["best", "median", "worst"], ...] = ("best", "median", "worst")


@dataclass(frozen=True, eq=False)
class Recording:
    """An episode as it was seen."""

    frames: Frames
    """(T + 1, H, W, C) the environment's own frames, C 3, or 1 for grey ones"""
    actions: NDArray[Any]
    """(T, A) or (T,) executed actions"""
    rewards: NDArray[np.float64]
    """(T,)"""


@dataclass(frozen=True, eq=False)
class Views:
    """A recording through V and M: frames (n, 64, 64, 3) of every k-th step from 0."""

    every: int
    """k, a multiple of the agent's action repeat"""
    sync: int
    """steps after which the dream saw reality again"""
    seen: Frames
    """V's input"""
    reconstructed: Frames
    """V's mean, decoded"""
    dreamt: Frames
    """M's dream, decoded; at every ``sync``-th step it is V's reconstruction"""
    end: NDArray[np.float32]
    """(n,) chance of an end that M gave the step to each frame; 0 where it saw reality"""
    over: NDArray[np.bool_]
    """(n,) whether the dream had ended, and stands still"""


class Dreamt(NamedTuple):
    """A dream along T recorded steps; the fields as in `Views`, for every decision."""

    z: Tensor  #: (T + 1, Z)
    end: NDArray[np.float32]  #: (T + 1,)
    over: NDArray[np.bool_]  #: (T + 1,)


def pace(env: gym.Env[Any, Any]) -> float:
    """Steps per second at which people see an environment; the usual pace where it names none."""
    return float(env.metadata.get("render_fps") or USUAL_PACE)


def pace_of(env_id: str) -> float:
    """The same of an id; the usual pace if it is not installed."""
    try:
        with contextlib.closing(envs.make(env_id)) as env:
            return pace(env)
    except UserError:
        return USUAL_PACE


def record(
    env: gym.Env[Any, Any], policy: Policy, seed: int, max_steps: int
) -> tuple[Recording, EpisodeResult]:
    """Let a policy act for an episode, and keep every frame."""
    frames: list[Frames] = []
    with runs.progress(range(max_steps), "acting", unit="steps") as bar:

        def keep(obs: Frames, _: NDArray[np.bool_]) -> None:
            frames.append(obs[0].copy())
            bar.advance(int(len(frames) > 1))

        behaviour = PolicyBehaviour(policy)
        limits: dict[str, Any] = {"max_steps": max_steps, "width": 1}
        (result,) = run_group([env], behaviour, [seed], on_frames=keep, **limits)
    assert result.actions is not None and result.rewards is not None
    return Recording(np.stack(frames), result.actions, result.rewards), result


def replay(
    env_id: str, episode: EpisodeResult, env_kwargs: Mapping[str, Any] | None = None
) -> Recording:
    """Play an episode, evaluated with ``keep_actions=True``, again.

    ``env_id`` is the environment or one of the same physics; `envs.make` gets ``env_kwargs``.
    """
    if episode.actions is None:
        raise UserError("the episode has no actions to replay; evaluate with keep_actions=True")
    with contextlib.closing(envs.make(env_id, **(env_kwargs or {}))) as env:
        seen, rewards = [env.reset(seed=episode.seed)[0]], []
        for action in envs.ActionSpec.from_space(env.action_space).to_env(episode.actions):
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append(obs)
            rewards.append(float(reward))
            if terminated or truncated:
                break
    frames = np.stack(seen)
    if frames.ndim == 3:
        frames = frames[..., None]
    return Recording(frames, episode.actions[: len(rewards)], np.array(rewards))


@torch.inference_mode()
def views(agent: Agent, recording: Recording, cfg: VideoConfig, seed: int = 0) -> Views:
    """See a recording through V, and dream it open-loop from every ``cfg.sync``-th step.

    M gets the executed actions, and its state is warmed on the episode so far. Where the agent
    repeats actions, only the frames at its decisions count.
    """
    held = agent.action_repeat
    every, sync = max(1, cfg.every // held), max(1, cfg.sync // held)
    frames = recording.frames[::held]
    mu = torch.cat([agent.encode(frames[t : t + 64])[0] for t in range(0, len(frames), 64)])
    actions = recording.actions[::held][: len(frames) - 1]
    dream = dream_along(agent, mu, actions, sync, cfg.temperature, seed)
    reconstructed, dreamt = (
        np.concatenate([agent.decode(part) for part in latents[::every].split(64)])
        for latents in (mu, dream.z)
    )
    seen = envs.to_vision(frames[::every], agent.frame_spec)
    ends = dream.end[::every], dream.over[::every]
    return Views(every * held, sync * held, seen, reconstructed, dreamt, *ends)


@torch.inference_mode()
def dream_along(
    agent: Agent,
    mu: Tensor,
    actions: NDArray[Any],
    sync: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Dreamt:
    """Dream by the agent's first memory along executed actions (T, A) or (T,).

    ``mu`` (T + 1, Z) are V's means of the recorded frames. A dream begins at each
    ``z[k * sync] = mu[k * sync]``; one that ends (`Agent.ends`) stands still until the next.
    """
    memory = agent.memories[0]
    encoded = torch.from_numpy(agent.action_spec.encode(actions))
    generator = torch.Generator().manual_seed(seed)
    state = memory.initial_state(1)
    z, end, over = mu.clone(), np.zeros(len(mu), np.float32), np.zeros(len(mu), np.bool_)
    for first in range(0, len(actions), sync):
        stop = min(first + sync, len(actions))
        dream, past = state, slice(first, stop)
        for t in range(first, stop if stop == len(actions) else stop - 1):
            at = slice(t, t + 1)
            if over[t]:
                z[t + 1], end[t + 1], over[t + 1] = z[t], end[t], True
                continue
            noise = mixture_noise(z[at], generator)
            z[t + 1], out, dream = memory.dream(z[at], encoded[at], dream, noise, temperature)
            logit = out.terminated_logit
            end[t + 1] = torch.sigmoid(logit).item()
            over[t + 1] = bool(ended(agent.ends, logit, _uniform(1, generator)))
        _, _, state = memory(mu[None, past], encoded[None, past], state)
    return Dreamt(z, end, over)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


@one_thread()
def film(
    agent: Agent,
    env_id: str,
    result: EvaluationResult,
    folder: Path,
    cfg: VideoConfig | None = None,
) -> None:
    """Film the best, the median and the worst episode, and make the pictures of a report.

    Args:
        agent: the policy.
        env_id: where to replay.
        result: evaluated with ``keep_actions=True``.
        folder: gets best.mp4, median.mp4, worst.mp4, episodes.json, reconstructions.png, dream.png
            and, where the agent has starts, dream.mp4.
        cfg: size and speed (default: the environment's speed).
    """
    runs.make_folder(folder)
    cfg = VideoConfig().at(pace_of(env_id)) if cfg is None else cfg
    noted: dict[str, dict[str, Any]] = {}

    def write(name: str, frames: Iterator[Frames], facts: Mapping[str, Any]) -> None:
        pictures = list(frames)
        height, width = pictures[0].shape[:2]
        write_video(folder / f"{name}.mp4", pictures, cfg)
        noted[name] = {**facts, "size": (width, height)}

    what = task_for(env_id).words.episode
    for which in WHICH:
        episode = result.pick(which)
        recording = replay(env_id, episode)
        seen = views(agent, recording, cfg)
        frames = episode_frames(recording, seen, cfg, f"{what} {episode.seed}")
        write(which, frames, episode.to_json())
        if which == "best":
            write_picture(folder / "reconstructions.png", reconstructions(seen))
            write_picture(folder / "dream.png", dream_strip(seen))
    if agent.starts is not None:
        write("dream", dream_frames(agent, cfg), {})
    runs.write_json(folder / "episodes.json", noted)


def episode_frames(
    recording: Recording, seen: Views, cfg: VideoConfig, title: str
) -> Iterator[Frames]:
    """Frames of the film: real, reconstructed and dreamt side by side, with a line of facts."""
    total = np.concatenate([[0.0], np.cumsum(recording.rewards)])
    for t in range(0, len(recording.frames), min(cfg.every, seen.every)):
        k = min(t // seen.every, len(seen.seen) - 1)
        ahead = t % seen.sync
        what = "M: ended" if seen.over[k] else "M dreams"
        labels = ("real", "V reconstructs", f"{what}, {ahead:>3} steps ahead")
        pictures = (recording.frames[t], seen.reconstructed[k], seen.dreamt[k])
        reward = 0.0 if t == 0 else recording.rewards[t - 1]
        line = [title, f"step {t}", f"reward {reward:+.1f}", f"return {total[t]:.1f}"]
        line.append(f"M: end {seen.end[k]:.1%}")
        yield compose(pictures, labels, line, cfg.panel, ahead / seen.sync)


def real_frames(recording: Recording, cfg: VideoConfig, title: str) -> Iterator[Frames]:
    """Frames of a film of reality alone, with a line of facts."""
    total = np.concatenate([[0.0], np.cumsum(recording.rewards)])
    for t in range(0, len(recording.frames), cfg.every):
        line = [f"step {t}", f"return {total[t]:.1f}"]
        yield compose((recording.frames[t],), (title,), line, 2 * cfg.panel)


class DreamStep(NamedTuple):
    """n dreams at one decision."""

    t: int  #: steps of the real environment since their start
    z: Tensor  #: (n, Z)
    total: NDArray[np.float64]  #: (n,) returns so far
    end: NDArray[np.float32]  #: (n,) chance of an end that M gave the last step
    alive: NDArray[np.bool_]  #: (n,)
    length: NDArray[np.int64]  #: (n,) steps of those that have ended


@torch.inference_mode()
def dream_steps(
    agent: Agent, dreams: int, steps: int, seed: int = 0, temperature: float = 1.0
) -> Iterator[DreamStep]:
    """Pure dreams: the agent acts and M answers, until all have ended (`Agent.ends`)."""
    if agent.starts is None:
        raise UserError("the agent has no recorded starts, so its dreams have nowhere to begin")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(agent.starts.z), (dreams,), generator=generator).numpy()
    z = torch.from_numpy(agent.starts.z[chosen]).float()
    h, c = (torch.from_numpy(a[0, chosen]).float() for a in (agent.starts.h, agent.starts.c))
    state, memory, reward = MemoryState(h, c), agent.memories[0], np.zeros(dreams)
    held, length = agent.action_repeat, np.full(dreams, steps)
    end = np.zeros(dreams, np.float32)
    for t in range(0, steps, held):
        alive = length == steps
        yield DreamStep(t, z.clone(), reward.copy(), end, alive, length.copy())
        if not alive.any():
            return
        before, action = z, agent.act(z, state.seen(agent.controller.carry))
        noise = mixture_noise(z, generator)
        z, out, state = memory.dream(z, action, state, noise, temperature)
        z[~alive] = before[~alive]
        end = torch.sigmoid(out.terminated_logit).numpy()
        over = ended(agent.ends, out.terminated_logit, _uniform(dreams, generator)).numpy()
        length[alive & over] = t + held
        if agent.reward_model is not None:
            reward += np.where(alive, agent.reward_model.expected(out.reward).numpy(), 0.0)


def dream_frames(
    agent: Agent, cfg: VideoConfig, dreams: int = 4, steps: int = 500, seed: int = 0
) -> Iterator[Frames]:
    """Frames of a film of pure dreams, as V paints them; side by side.

    Under each is its return and the chance of an end that M gave the last step. One that ends
    stands still and dark, and with the last of them ends the film.
    """
    held = agent.action_repeat
    for now in dream_steps(agent, dreams, steps, seed, cfg.temperature):
        if now.t % cfg.every >= held and now.alive.any():
            continue
        labels = [
            f"return {r:.0f}, " + (f"end {p:.1%}" if alive else f"ended at {n}")
            for r, p, alive, n in zip(now.total, now.end, now.alive, now.length, strict=True)
        ]
        line = ("no frame here is real", f"step {now.t}")
        picture = compose(painted(agent, now), labels, line, cfg.panel)
        yield from [picture] * max(1, held // cfg.every)  # at the pace of reality


def painted(agent: Agent, now: DreamStep) -> list[Frames]:
    """V's pictures of n dreams; those that have ended are dark."""
    pictures = agent.decode(now.z)
    pictures[~now.alive] //= 3
    return list(pictures)


def reconstructions(seen: Views, columns: int = 8, scale: int = 2) -> Frames:
    """Frames of an episode, above what V keeps and loses of them (a picture).

    They are the worst of as many parts of it: errors count by the change from the frame before.
    """
    frames, painted = (part.astype(np.float32) for part in (seen.seen, seen.reconstructed))
    moved = np.square(np.diff(frames, axis=0, prepend=frames[:1])).sum(-1)
    lost_motion = (moved * np.square(frames - painted).sum(-1)).sum((1, 2))
    parts = np.array_split(np.arange(len(frames)), min(columns, len(frames)))
    at = np.array([part[lost_motion[part].argmax()] for part in parts])
    rows = [seen.seen[at], seen.reconstructed[at]]
    lost = LOSS_GAIN * np.abs(np.subtract(*rows, dtype=np.int16))
    names = ["frame", "V reconstructs", f"what it loses, {LOSS_GAIN} times as bright"]
    return grid([*rows, np.minimum(lost, 255).astype(np.uint8)], names, scale)


def dream_strip(seen: Views, first: int = 100, columns: int = 8, scale: int = 2) -> Frames:
    """Frames of one open-loop stretch of the dream, around ``first``, below reality (a picture)."""
    times = np.arange(len(seen.seen)) * seen.every
    begin = min(first, int(times[-1])) // seen.sync * seen.sync
    inside = np.flatnonzero((times >= begin) & (times < begin + seen.sync))
    at = inside[np.linspace(0, len(inside) - 1, min(columns, len(inside))).astype(int)]
    steps = [f"+{t}" for t in times[at] - begin]
    return grid([seen.seen[at], seen.dreamt[at]], ["real", "M dreams"], scale, steps)
