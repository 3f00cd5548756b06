"""Pictures of the package's agent: a real drive beside a dream, what V keeps, what M expects."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scripts.figures.style import BLUE, INK, MUTED, chart, save
from worldmodels import Agent, envs
from worldmodels.evaluation import evaluate
from worldmodels.memory.interface import MemoryOutput, MemoryState
from worldmodels.memory.mixture import mixture_noise
from worldmodels.policies.opening import open_member
from worldmodels.runs import atomic_path
from worldmodels.video.drawing import VideoConfig, write_picture
from worldmodels.video.films import Recording, Views, dream_strip, reconstructions, replay, views

AGENT, TRACK = "car-racing", 1_000_012
GAP, HEAD = 8, 30
"""Between the panels of a film, above them."""
PAPER, LIGHT, WARM = (17, 19, 24), (236, 236, 236), (240, 171, 60)


@dataclass(frozen=True)
class Film:
    """Left reality, right the agent's dream of it: from one moment on, a dream of its own."""

    agent: str
    env_id: str
    seed: int
    title: str
    """above reality"""
    size: tuple[int, int]
    """of a panel: width, height"""
    seconds: float
    """of a decision, as they pass in reality"""
    first: int
    """decisions before the film begins"""
    sees: int = 12
    """decisions for which both panels show reality"""
    dreams: int = 108
    """decisions of the dream"""


FILMS = {
    "drive-and-dream.webp": Film(
        AGENT, "CarRacing-v3", TRACK, "the agent drives", (432, 288), 0.08, first=60
    ),
    "dodge-and-dream.webp": Film(
        "take-cover",
        "VizdoomTakeCover-v1",
        1_000_000,
        "the agent dodges",
        (432, 270),
        4 / 35,
        first=40,
        dreams=80,
    ),
}


@functools.cache
def _agent() -> Agent:
    return Agent.from_pretrained(AGENT)


@functools.cache
def _views() -> tuple[Recording, Views]:
    """The whole episode of the track, through V and M."""
    result = evaluate(_agent(), _agent().env_id, [TRACK], workers=1, keep_actions=True)
    recording = replay(_agent().env_id, result.episodes[0])
    return recording, views(_agent(), recording, VideoConfig())


def draw_reconstructions(path: Path) -> None:
    """Frames, V's reconstructions of them and what is lost."""
    write_picture(path, reconstructions(_views()[1]))


def draw_dream_strip(path: Path) -> None:
    """M's open-loop dream below the frames that it is a dream of."""
    write_picture(path, dream_strip(_views()[1]))


def draw_film(path: Path) -> None:
    """Reality beside a dream; the figure's name is the film's."""
    film = FILMS[path.name]
    sheets = [
        _sheet(film, picture, dream, step - film.sees)
        for step, (picture, dream) in enumerate(_play(film))
    ]
    with atomic_path(path) as temporary:
        sheets[0].save(
            temporary,
            format="WEBP",
            save_all=True,
            append_images=sheets[1:],
            duration=round(1000 * film.seconds),
            loop=0,
            quality=62,
            method=6,
        )


@torch.inference_mode()
def _play(film: Film) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """For each decision of the film what is seen in reality, drawn large, and in the dream."""
    agent = open_member(film.agent)
    with contextlib.closing(envs.make(film.env_id, render_mode="rgb_array")) as env:
        obs, _ = env.reset(seed=film.seed)
        state: Any = None
        generator = torch.Generator().manual_seed(3)
        for step in range(film.first + film.sees + film.dreams):
            action, state = agent.predict(obs, state, deterministic=True)
            if step >= film.first:
                if step < film.first + film.sees:
                    z = torch.from_numpy(state.z)
                    memory = MemoryState(torch.from_numpy(state.h), torch.from_numpy(state.c))
                else:
                    chosen = agent.act(z, memory.h)
                    z, _, memory = agent.memories[0].dream(
                        z, chosen, memory, mixture_noise(z, generator), 1.0
                    )
                picture: Any = env.render()
                yield picture, agent.decode(z)[0]
            for held in range(agent.action_repeat):
                obs, *_ = env.step(action)
                if held + 1 < agent.action_repeat:
                    action, state = agent.predict(obs, state, deterministic=True)


def _sheet(
    film: Film, real: NDArray[np.uint8], dream: NDArray[np.uint8], dreamt: int
) -> Image.Image:
    """One picture of the film; ``dreamt`` decisions ago the dream last saw reality."""
    width, height = film.size
    sheet = Image.new("RGB", (2 * width + GAP, height + HEAD), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=17)
    dreams = dreamt >= 0
    passed = f"{(dreamt + 1) * film.seconds:.1f}"
    said = f"its dream, {passed} s with its eyes closed" if dreams else "what V sees"
    for left, frame, text, ink in (
        (0, real, film.title, LIGHT),
        (width + GAP, dream, said, WARM if dreams else LIGHT),
    ):
        panel = Image.fromarray(frame).resize(film.size, Image.Resampling.BICUBIC)
        sheet.paste(panel, (left, HEAD))
        draw.text((left + 8, 5), text, ink, font)
    return sheet


@torch.inference_mode()
def draw_mixture(path: Path) -> None:
    """What M expects of the latent of which its mixture is most divided."""
    agent, (recording, _) = _agent(), _views()
    held = agent.action_repeat
    mu = agent.encode(recording.frames[::held][:200])[0][None]
    actions = torch.from_numpy(agent.action_spec.encode(recording.actions[::held][:200]))[None]
    _, out, _ = agent.memories[0](mu, actions[:, : mu.shape[1]])
    t, i = _most_divided(out, mu[0])
    y = np.linspace(-3.2, 3.2, 801)
    pi, centre, sigma = (
        part[0, t, i].double().numpy() for part in (out.log_pi.exp(), out.mu, out.log_sigma.exp())
    )
    parts = pi / (sigma * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((y[:, None] - centre) / sigma) ** 2)
    figure, axes = chart(8.2, 3.2)
    axes.plot(y, parts, color=MUTED, linewidth=1)
    axes.plot(y, parts.sum(1), color=BLUE, linewidth=2.4, label="what M expects")
    axes.fill_between(y, parts.sum(1), color=BLUE, alpha=0.12)
    axes.axvline(float(mu[0, t + 1, i]), color=INK, linewidth=1.6, label="what came")
    axes.plot([], [], color=MUTED, linewidth=1, label="its five Gaussians")
    axes.set(xlabel=f"latent number {i} at the next decision", ylabel="density", xlim=(-3.2, 3.2))
    axes.set_ylim(0)
    axes.legend(frameon=False)
    save(figure, path)


def _most_divided(out: MemoryOutput, z: Tensor) -> tuple[int, int]:
    """Time and latent whose two likeliest components lie furthest apart, and one of them was right.

    ``z`` (T + 1, Z) is what was seen; distances are in standard deviations.
    """
    pi, best = out.log_pi[0].exp().topk(2, dim=-1)
    mu, sigma = (part[0].gather(-1, best) for part in (out.mu, out.log_sigma.exp()))
    pi, mu, sigma, came = pi[:-1], mu[:-1], sigma[:-1], z[1:]
    apart = (mu[..., 0] - mu[..., 1]).abs() / sigma.sum(-1)
    right = ((came[..., None] - mu).abs() < sigma).any(-1)
    score = torch.where((pi[..., 1] > 0.25) & right, apart, 0.0)
    t, i = divmod(int(score.argmax()), score.shape[-1])
    return t, i
