"""Pictures of the environments, as an agent sees them and as `worldmodels check` shows them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldmodels import envs
from worldmodels.tasks.default import measure_in_worker
from worldmodels.video.drawing import PAPER, Frames, write_picture

HEIGHT, GAP, HEAD = 192, 6, 26

TASKS = {
    "car-racing": ("worldmodels/CarRacing-v3", "CarRacing"),
    "take-cover": ("VizdoomTakeCover-v1", "TakeCover"),
    "cart-pole": ("CartPole-v1", "CartPole"),
    "pendulum": ("Pendulum-v1", "Pendulum"),
    "freeway": ("ALE/Freeway-v5", "Freeway"),
    "minigrid-memory": ("MiniGrid-MemoryS7-v0", "Memory"),
}
"""Name of a task's page -> id and title."""


def play(env_id: str, moments: Sequence[int], seed: int = 3, hold: int = 5) -> list[Frames]:
    """Frames at some steps of one episode under random actions, each held for some steps."""
    chosen, found = np.random.default_rng(seed), []
    with contextlib.closing(envs.make(env_id)) as env:
        obs, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        action = env.action_space.sample()
        for step in range(max(moments) + 1):
            if step in moments:
                found.append(np.array(obs))
            if step % hold == 0 or chosen.random() < 0.1:
                action = env.action_space.sample()
            obs, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                obs, _ = env.reset()
    return found


def draw_sheet(path: Path) -> None:
    """One frame of each of the six tasks, three in a row."""
    tiles = [(title, _tile(play(env_id, [40])[0], (300, 200))) for env_id, title in TASKS.values()]
    sheet = Image.new("RGB", (3 * 300 + 4 * GAP, 2 * (200 + HEAD) + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for number, (title, tile) in enumerate(tiles):
        left, top = GAP + number % 3 * (300 + GAP), number // 3 * (200 + HEAD)
        draw.text((left + 2, top + 5), title, (236, 236, 236), font)
        sheet.paste(tile, (left, top + HEAD))
    write_picture(path, np.asarray(sheet))


def draw_task(path: Path) -> None:
    """Four moments of one episode; the figure's name is the task's."""
    env_id, _ = TASKS[path.stem.removeprefix("task-")]
    tiles = [_fitted(frame) for frame in play(env_id, [0, 12, 24, 36])]
    width = sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1)
    sheet, left = Image.new("RGB", (width, HEIGHT), PAPER), 0
    for tile in tiles:
        sheet.paste(tile, (left, 0))
        left += tile.width + GAP
    write_picture(path, np.asarray(sheet))


def _fitted(frame: Frames) -> Image.Image:
    image = Image.fromarray(frame if frame.ndim == 3 and frame.shape[-1] == 3 else frame.squeeze())
    width = round(image.width * HEIGHT / image.height)
    return image.convert("RGB").resize((width, HEIGHT), Image.Resampling.LANCZOS)


def _tile(frame: Frames, size: tuple[int, int]) -> Image.Image:
    """The frame as large as it fits into the tile, on its own edge's colour."""
    image = Image.fromarray(frame if frame.ndim == 3 and frame.shape[-1] == 3 else frame.squeeze())
    image = image.convert("RGB")
    scale = min(size[0] / image.width, size[1] / image.height)
    fitted = image.resize((round(image.width * scale), round(image.height * scale)))
    tile = Image.new("RGB", size, PAPER)
    tile.paste(fitted, ((size[0] - fitted.width) // 2, (size[1] - fitted.height) // 2))
    return tile


def draw_check(path: Path) -> None:
    """The picture that `worldmodels check CartPole-v1 --picture` writes."""
    png = measure_in_worker("CartPole-v1", seed=0).png
    seen = Image.open(io.BytesIO(png)).convert("RGB")
    write_picture(path, np.asarray(seen.resize((2 * seen.width, 2 * seen.height), 0)))
