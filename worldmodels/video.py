"""Films and pictures of a driver: the real frame, what V keeps of it, and what M dreams.

An episode is replayed from its seed and actions, so nothing needs to be kept while it is measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldmodels import envs, runs
from worldmodels.agent import Agent
from worldmodels.controller import linear
from worldmodels.envs.frames import to_vision
from worldmodels.evaluation import EpisodeRecord, EvaluationResult, one_thread
from worldmodels.memory.mdn_rnn import MemoryState
from worldmodels.memory.mixture import mixture_from_noise
from worldmodels.protocols import UserError

Frames = NDArray[np.uint8]
WHICH: tuple[Literal["best", "median", "worst"], ...] = ("best", "median", "worst")

_GAP, _CAPTION = 4, 22
_INK, _PAPER, _ACCENT = (236, 236, 236), (17, 19, 24), (240, 171, 60)


@dataclass(frozen=True)
class VideoConfig:
    """Size, speed and what the dream is reminded of."""

    panel: int = 144
    """height and width of one panel, in pixels; even"""
    every: int = 2
    """one frame of the film for so many steps"""
    fps: int = 25
    """frames of the film per second; CarRacing runs at 50 steps per second"""
    sync: int = 50
    """steps after which the dream sees reality again; between, it goes on by itself"""
    temperature: float = 1.0
    """of the dream's samples; at 0 it takes the likeliest component's mean"""
    max_bytes: int = 600_000
    """a film is encoded with a bit rate that keeps it about below this"""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        for name in ("every", "fps", "sync", "max_bytes"):
            if getattr(self, name) < 1:
                raise UserError(
                    f"VideoConfig.{name} is {getattr(self, name)}; it must be at least 1"
                )
        if self.panel < 16 or self.panel % 2:
            raise UserError(f"VideoConfig.panel is {self.panel}; it must be even and at least 16")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"VideoConfig.temperature is {self.temperature}; it must be 0 or more")


@dataclass(frozen=True, eq=False)
class Recording:
    """An episode as it was seen."""

    frames: Frames
    """(T + 1, H, W, 3) the environment's own frames"""
    actions: NDArray[Any]
    """(T, A) or (T,) executed actions"""
    rewards: NDArray[np.float64]
    """(T,)"""


@dataclass(frozen=True, eq=False)
class Views:
    """What V and M make of a recording: frames (n, 64, 64, 3) of every k-th step from 0."""

    every: int
    """k"""
    sync: int
    """steps after which the dream saw reality again"""

    seen: Frames
    """V's input"""
    reconstructed: Frames
    """V's mean, decoded"""
    dreamt: Frames
    """M's dream, decoded; at every ``sync``-th step it is V's reconstruction"""


def replay(
    env_id: str, episode: EpisodeRecord, env_kwargs: Mapping[str, Any] | None = None
) -> Recording:
    """Drive an episode again, by its seed and actions.

    Args:
        env_id: the environment, or one of the same physics with faster pixels.
        episode: evaluated with ``keep_actions=True``.
        env_kwargs: passed to `envs.make`.

    Raises:
        UserError: the record has no actions.
    """
    if episode.actions is None:
        raise UserError("the episode has no actions to replay; evaluate with keep_actions=True")
    env = envs.make(env_id, **(env_kwargs or {}))
    try:
        frames, rewards = [env.reset(seed=episode.seed)[0]], []
        for action in episode.actions:
            obs, reward, *_ = env.step(action)
            frames.append(obs)
            rewards.append(float(reward))
    finally:
        env.close()
    stacked = np.stack(frames)
    if stacked.ndim == 3:
        stacked = np.repeat(stacked[..., None], 3, axis=3)
    return Recording(stacked, episode.actions, np.array(rewards))


@torch.inference_mode()
def views(agent: Agent, recording: Recording, cfg: VideoConfig, seed: int = 0) -> Views:
    """See a recording through V, and dream it: open loop from every ``cfg.sync``-th step.

    M gets the executed actions. Its state at a synchronised step is warmed on the episode so far.
    """
    mu = torch.cat([agent.encode(chunk)[0] for chunk in _chunks(recording.frames, 64)])
    z = dream_along(agent, mu, recording.actions, cfg.sync, cfg.temperature, seed)[:: cfg.every]
    mu = mu[:: cfg.every]
    return Views(
        cfg.every,
        cfg.sync,
        to_vision(recording.frames[:: cfg.every], agent.frame_spec),
        np.concatenate([agent.decode(chunk) for chunk in _chunks(mu, 64)]),
        np.concatenate([agent.decode(chunk) for chunk in _chunks(z, 64)]),
    )


@torch.inference_mode()
def dream_along(
    agent: Agent,
    mu: Tensor,
    actions: NDArray[Any],
    sync: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """Dream latents for recorded actions, beginning anew from reality at every ``sync``-th step.

    Args:
        agent: its first memory dreams.
        mu: (T + 1, Z) V's means of the recorded frames.
        actions: (T, A) or (T,) executed.
        sync: steps between two looks at reality.
        temperature: of the samples.
        seed: of the samples.

    Returns:
        (T + 1, Z) with ``z[k * sync] = mu[k * sync]``.
    """
    memory = agent.memories[0]
    encoded = torch.from_numpy(agent.action_spec.encode(actions))
    generator = torch.Generator().manual_seed(seed)
    state = memory.initial_state(1)
    z = mu.clone()
    for first in range(0, len(actions), sync):
        stop = min(first + sync, len(actions))
        dream = state
        for t in range(first, stop):
            out, dream = memory.step(z[t : t + 1], encoded[t : t + 1], dream)
            if t + 1 < stop or stop == len(actions):
                shape = (1, agent.z_dim)
                u, n = (
                    torch.rand(shape, generator=generator),
                    torch.randn(shape, generator=generator),
                )
                z[t + 1] = mixture_from_noise(*out[:3], u, n, temperature)[0]
        past = slice(first, stop)
        _, state = memory.recurrence(mu[None, past], encoded[None, past], state)
    return z


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
    written, noted = {}, {}
    for which in WHICH:
        episode = result.pick(which)
        recording = replay(env_id, episode, env_kwargs)
        seen = views(agent, recording, cfg)
        path = folder / f"{which}.mp4"
        write_video(path, episode_frames(recording, seen, cfg, f"track {episode.seed}"), cfg)
        written[path.name], noted[which] = path, episode.to_json()
        if which == "best":
            for name, draw in (("reconstructions", reconstructions), ("dream", dream_strip)):
                written[f"{name}.png"] = write_picture(folder / f"{name}.png", draw(seen))
    runs.write_json(folder / "episodes.json", noted)
    if agent.starts is not None:
        path = folder / "dream.mp4"
        write_video(path, dream_frames(agent, cfg), cfg)
        written[path.name] = path
    return written


def episode_frames(
    recording: Recording, seen: Views, cfg: VideoConfig, title: str
) -> Iterator[Frames]:
    """Frames of the film: real, reconstructed and dreamt side by side, with a line of figures."""
    total = np.concatenate([[0.0], np.cumsum(recording.rewards)])
    for k, t in enumerate(range(0, len(recording.frames), seen.every)):
        blind = t % cfg.sync
        labels = ("real", "V reconstructs", f"M dreams, {blind:>3} steps unseen")
        pictures = (recording.frames[t], seen.reconstructed[k], seen.dreamt[k])
        reward = 0.0 if t == 0 else recording.rewards[t - 1]
        line = (title, f"step {t}", f"reward {reward:+.1f}", f"return {total[t]:.1f}")
        yield compose(pictures, labels, line, cfg.panel, blind / cfg.sync)


@torch.inference_mode()
def dream_frames(
    agent: Agent, cfg: VideoConfig, dreams: int = 4, steps: int = 500, seed: int = 0
) -> Iterator[Frames]:
    """Frames of a film of pure dreams: C drives, M answers, V paints; side by side.

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
    weights = linear.unflatten(
        torch.from_numpy(agent.parameters)[None],
        agent.controller,
        agent.z_dim,
        agent.h_dim,
        agent.input_stats,
    )
    for t in range(steps):
        if t % cfg.every == 0:
            labels = [f"dream {d + 1}, return {reward[d]:.0f}" for d in range(dreams)]
            line = ("no frame here is real", f"step {t}")
            yield compose(list(agent.decode(z)), labels, line, cfg.panel)
        seen = state.h[None] if agent.controller.inputs == "zh" else None
        action = linear.forward(weights, z[None], seen, agent.controller)[0]
        out, state = memory.step(z, linear.memory_input(action, agent.controller), state)
        u, n = torch.rand(z.shape, generator=generator), torch.randn(z.shape, generator=generator)
        z = mixture_from_noise(*out[:3], u, n, cfg.temperature)
        if agent.reward_model is not None:
            reward += agent.reward_model.expected(out.reward).numpy()


def compose(
    pictures: Sequence[Frames],
    labels: Sequence[str],
    line: Sequence[str],
    panel: int,
    share: float | None = None,
) -> Frames:
    """Put pictures (H, W, 3) side by side, with a label under each and a line of facts below.

    Args:
        pictures: any sizes; each fills its panel as far as its shape allows.
        labels: one for each.
        line: caption of the whole: facts that keep their places while they change.
        panel: size of a panel.
        share: in [0, 1), drawn as a bar under the last panel: how long the dream has been blind.
    """
    count = len(pictures)
    width = count * panel + (count + 1) * _GAP
    height = panel + 2 * _CAPTION + 2 * _GAP
    sheet = Image.new("RGB", (width + width % 2, height + height % 2), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        left = _GAP + i * (panel + _GAP)
        tile = _fit(picture, panel)
        sheet.paste(tile, (left + (panel - tile.width) // 2, _GAP + (panel - tile.height) // 2))
        draw.text((left, _GAP + panel + 4), label, _INK, font)
    if share is not None:
        end = left + round(share * (panel - 1))
        draw.line([(left, _GAP + panel + 1), (end, _GAP + panel + 1)], _ACCENT, 2)
    for i, fact in enumerate(line):
        place = _GAP + i * (width - _GAP) // len(line)
        draw.text((place, _GAP + panel + _CAPTION + 2), fact, _ACCENT, font)
    return np.asarray(sheet)


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


def grid(
    rows: Sequence[Frames], names: Sequence[str], scale: int, columns: Sequence[str] = ()
) -> Frames:
    """Rows of frames, each (n, S, S, 3), with a name above each row and one over each column."""
    size = rows[0].shape[1] * scale
    head = 18
    width = rows[0].shape[0] * (size + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (size + head) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for r, (row, name) in enumerate(zip(rows, names, strict=True)):
        top = r * (size + head)
        draw.text((_GAP, top + 2), name, _ACCENT, font)
        for i, picture in enumerate(row):
            left = _GAP + i * (size + _GAP)
            sheet.paste(_fit(picture, size), (left, top + head))
            if columns and r == 0 and i > 0:
                draw.text((left, top + 2), columns[i], _INK, font)
    return np.asarray(sheet)


def write_picture(path: Path, picture: Frames) -> Path:
    """Write a PNG, atomically."""
    with runs.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", optimize=True)
    return path


def write_video(path: Path, frames: Iterable[Frames], cfg: VideoConfig) -> Path:
    """Write an mp4 (H.264, playable everywhere), atomically.

    Raises:
        UserError: there are no frames, no ffmpeg, or a full disk.
    """
    import imageio_ffmpeg

    pictures = list(frames)
    if not pictures:
        raise UserError(f"{path}: a film needs at least one frame")
    height, width = pictures[0].shape[:2]
    seconds = len(pictures) / cfg.fps
    rate = max(16, int(0.9 * cfg.max_bytes * 8 / seconds / 1000))  # kbit/s
    options = ["-crf", "26", "-preset", "medium", "-maxrate", f"{rate}k", "-bufsize", f"{rate}k"]
    with runs.atomic_path(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            os.fspath(temporary),
            (width, height),
            fps=cfg.fps,
            codec="libx264",
            quality=None,
            macro_block_size=2,
            output_params=[*options, "-movflags", "+faststart"],
            ffmpeg_log_level="error",
        )
        writer.send(None)
        try:
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture))
        finally:
            writer.close()
    return path


def _fit(picture: Frames, panel: int) -> Image.Image:
    """Enlarge or shrink a picture so that its longer side fills the panel."""
    image = Image.fromarray(picture)
    scale = panel / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _chunks(values: Any, size: int) -> Iterator[Any]:
    """Pieces of an array or a tensor, for a bounded memory."""
    for first in range(0, len(values), size):
        yield values[first : first + size]


__all__ = [
    "Recording",
    "VideoConfig",
    "Views",
    "compose",
    "dream_along",
    "dream_frames",
    "dream_strip",
    "episode_frames",
    "film",
    "grid",
    "reconstructions",
    "replay",
    "views",
    "write_picture",
    "write_video",
]
