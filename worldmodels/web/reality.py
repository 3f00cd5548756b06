"""A real episode for the page: what V sees at every decision, and what was done there."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from worldmodels.agent import Agent
from worldmodels.envs.frames import to_vision
from worldmodels.evaluation import evaluate
from worldmodels.experience.store import EpisodeStore, shard_files
from worldmodels.policies.opening import open_policy
from worldmodels.video.films import replay
from worldmodels.vision.vae import to_float
from worldmodels.web.weights import Blob, Tree

COLUMNS = 16
"""Frames in a row of the picture that holds them all."""
QUALITY = 85
"""Of that picture, a JPEG."""
MOST_DECISIONS = 300
"""Decisions of an episode that a page shows."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """T decisions of a real episode."""

    frames: NDArray[np.uint8]
    """(T + 1, 64, 64, 3) as V sees them"""
    actions: NDArray[np.float32]
    """(T, A) as M sees them"""
    rewards: NDArray[np.float32]
    """(T,) of each decision"""
    seed: int
    """that the environment was reset with"""

    def part(self) -> Recorded:
        """Its first `MOST_DECISIONS` decisions."""
        end = min(len(self.actions), MOST_DECISIONS)
        frames, actions = self.frames[: end + 1], self.actions[:end]
        return Recorded(frames, actions, self.rewards[:end], self.seed)


def play(agent: Agent, folder: Path, env_id: str, seed: int) -> Recorded:
    """Let the agent's best policy act for an episode of the real environment.

    Raises:
        UserError: the environment cannot be made.
    """
    held, steps = agent.action_repeat, MOST_DECISIONS * agent.action_repeat
    result = evaluate(open_policy(folder), env_id, [seed], 1, max_steps=steps, keep_actions=True)
    recording = replay(env_id, result.episodes[0])
    decisions = range(0, len(recording.actions), held)
    rewards = np.add.reduceat(recording.rewards, decisions)
    frames = np.concatenate((recording.frames[decisions], recording.frames[-1:]))
    return Recorded(
        to_vision(frames, agent.frame_spec),
        agent.action_spec.encode(recording.actions[decisions]),
        rewards.astype(np.float32),
        seed,
    )


def of_run(agent: Agent, run: Path) -> Recorded | None:
    """The episode with the highest return among those that a run collected last, if it kept any."""
    folders = sorted({file.parent for file in run.glob("experience/*/**/manifest.json")})
    last = [folder for folder in folders if shard_files(folder)][-1:]
    if not last:
        return None
    store = EpisodeStore(last)
    best = max(store.episodes, key=lambda record: record.entry.total_reward)
    episode = store.read(best.index)
    encoded = agent.action_spec.encode(episode.action)
    return Recorded(episode.obs, encoded, episode.reward, episode.seed).part()


@torch.inference_mode()
def record(agent: Agent, episode: Recorded, blob: Blob) -> Tree:
    """The episode for the page, with V's means of its frames, at which dreams can begin."""
    frames = to_float(torch.from_numpy(episode.frames))
    mu = torch.cat([agent.vision.encode(part)[0] for part in frames.split(64)])
    return {
        "steps": len(episode.actions),
        "columns": COLUMNS,
        "frames": picture(episode.frames),
        "mu": blob.add(mu),
        "actions": blob.add(episode.actions, half=False),
        "rewards": blob.add(episode.rewards, half=False),
    }


def picture(frames: NDArray[np.uint8]) -> str:
    """Frames (n, S, S, 3) side by side in one picture, as a data address."""
    n, size = frames.shape[:2]
    rows = math.ceil(n / COLUMNS)
    sheet: NDArray[Any] = np.zeros((rows * COLUMNS, size, size, 3), np.uint8)
    sheet[:n] = frames
    grid = sheet.reshape(rows, COLUMNS, size, size, 3).swapaxes(1, 2)
    buffer = io.BytesIO()
    image = Image.fromarray(grid.reshape(rows * size, COLUMNS * size, 3))
    image.save(buffer, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
