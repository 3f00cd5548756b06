"""Films and pictures of a driver: reality beside what V keeps of it and what M dreams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from worldmodels import runs
from worldmodels.agent import Agent
from worldmodels.evaluation import EvaluationResult
from worldmodels.executors import one_thread
from worldmodels.memory.interface import MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.protocols import UserError
from worldmodels.tasks import task_for
from worldmodels.video.config import Frames, VideoConfig
from worldmodels.video.drawing import compose, grid, write_picture, write_video
from worldmodels.video.replays import Recording, Views, replay, views

WHICH: tuple[Literal["best", "median", "worst"], ...] = ("best", "median", "worst")


def film(
    agent: Agent,
    env_id: str,
    result: EvaluationResult,
    folder: Path,
    cfg: VideoConfig | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Film the best, the median and the worst episode, and make the pictures of a report.

    Args:
        agent: what drove.
        env_id: where to replay; for CarRacing the fast environment gives the same episodes.
        result: evaluated with ``keep_actions=True``.
        folder: gets best.mp4, median.mp4, worst.mp4, episodes.json, reconstructions.png, dream.png
            and, where the agent has starts, dream.mp4.
        cfg: size and speed.
        env_kwargs: passed to `envs.make`.

    Returns:
        The files by name.
    """
    cfg = cfg or VideoConfig()
    runs.make_folder(folder)
    with one_thread():
        return _film(agent, env_id, result, folder, cfg, env_kwargs)


def _film(
    agent: Agent,
    env_id: str,
    result: EvaluationResult,
    folder: Path,
    cfg: VideoConfig,
    env_kwargs: Mapping[str, Any] | None,
) -> dict[str, Path]:
    """Do the work of `film`."""
    written: dict[str, Path] = {}
    noted: dict[str, dict[str, Any]] = {}
    what = task_for(env_id).words.episode
    for which in WHICH:
        episode = result.pick(which)
        recording = replay(env_id, episode, env_kwargs)
        seen = views(agent, recording, cfg)
        path = folder / f"{which}.mp4"
        frames = list(episode_frames(recording, seen, cfg, f"{what} {episode.seed}"))
        write_video(path, frames, cfg)
        written[path.name], noted[which] = path, {**episode.to_json(), "size": _size(frames)}
        if which == "best":
            for name, draw in (("reconstructions", reconstructions), ("dream", dream_strip)):
                written[f"{name}.png"] = write_picture(folder / f"{name}.png", draw(seen))
    if agent.starts is not None:
        path = folder / "dream.mp4"
        frames = list(dream_frames(agent, cfg))
        write_video(path, frames, cfg)
        written[path.name], noted["dream"] = path, {"size": _size(frames)}
    runs.write_json(folder / "episodes.json", noted)
    return written


def _size(frames: Sequence[Frames]) -> tuple[int, int]:
    """Width and height of a film in pixels."""
    height, width = frames[0].shape[:2]
    return width, height


def episode_frames(
    recording: Recording, seen: Views, cfg: VideoConfig, title: str
) -> Iterator[Frames]:
    """Frames of the film: real, reconstructed and dreamt side by side, with a line of figures."""
    total = np.concatenate([[0.0], np.cumsum(recording.rewards)])
    for t in range(0, len(recording.frames), min(cfg.every, seen.every)):
        k = min(t // seen.every, len(seen.seen) - 1)
        blind = t % seen.sync
        labels = ("real", "V reconstructs", f"M dreams, {blind:>3} steps unseen")
        pictures = (recording.frames[t], seen.reconstructed[k], seen.dreamt[k])
        reward = 0.0 if t == 0 else recording.rewards[t - 1]
        line = (title, f"step {t}", f"reward {reward:+.1f}", f"return {total[t]:.1f}")
        yield compose(pictures, labels, line, cfg.panel, blind / seen.sync)


@torch.inference_mode()
def dream_frames(
    agent: Agent, cfg: VideoConfig, dreams: int = 4, steps: int = 500, seed: int = 0
) -> Iterator[Frames]:
    """Frames of a film of pure dreams: the agent drives, M answers, V paints; side by side.

    Raises:
        UserError: the agent has no starts.
    """
    if agent.starts is None:
        raise UserError("the agent has no recorded starts, so its dreams have nowhere to begin")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(agent.starts.z), (dreams,), generator=generator).numpy()
    z = torch.from_numpy(agent.starts.z[chosen]).float()
    h, c = (torch.from_numpy(a[0, chosen]).float() for a in (agent.starts.h, agent.starts.c))
    state, memory, reward = MemoryState(h, c), agent.memories[0], np.zeros(dreams)
    held = agent.action_repeat
    for t in range(0, steps, held):
        if t % cfg.every < held:
            labels = [f"dream {d + 1}, return {reward[d]:.0f}" for d in range(dreams)]
            line = ("no frame here is real", f"step {t}")
            picture = compose(list(agent.decode(z)), labels, line, cfg.panel)
            yield from [picture] * max(1, held // cfg.every)  # at the pace of reality
        action = agent.act(z, state.h)
        noise = mixture_noise(z, generator)
        z, out, state = memory.dream(z, action, state, noise, cfg.temperature)
        if agent.reward_model is not None:
            reward += agent.reward_model.expected(out.reward).numpy()


def reconstructions(seen: Views, columns: int = 8, scale: int = 2) -> Frames:
    """Frames of an episode, evenly spaced, above what V keeps of them (a picture)."""
    at = np.linspace(0, len(seen.seen) - 1, columns).astype(int)
    return grid([seen.seen[at], seen.reconstructed[at]], ["what V sees", "what it keeps"], scale)


def dream_strip(seen: Views, first: int = 100, columns: int = 8, scale: int = 2) -> Frames:
    """Reality above the dream that begins with its first frame (a picture).

    Args:
        seen: an episode.
        first: step of the first column; moved back to where the dream last saw reality.
        columns: at most; the strip ends before the dream sees reality again.
        scale: pixels of the picture per pixel of V.
    """
    times = np.arange(len(seen.seen)) * seen.every
    begin = min(first, int(times[-1])) // seen.sync * seen.sync
    inside = np.flatnonzero((times >= begin) & (times < begin + seen.sync))
    at = inside[np.linspace(0, len(inside) - 1, min(columns, len(inside))).astype(int)]
    steps = [f"+{t}" for t in times[at] - begin]
    return grid([seen.seen[at], seen.dreamt[at]], ["real", "M dreams"], scale, steps)
