"""`worldmodels play`: watch a driver, in a window or as a film, in reality or in its dream."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import tyro

from worldmodels import envs, video
from worldmodels.agent import Agent
from worldmodels.commands.evaluate import home_of
from worldmodels.config import Count, Seed
from worldmodels.evaluation import evaluate
from worldmodels.experience.rollout import PolicyBehaviour, run_group
from worldmodels.policies.opening import open_driver, open_member
from worldmodels.presets import RunConfig
from worldmodels.protocols import TEST_SEED_START, UserError
from worldmodels.runs import FilmPath
from worldmodels.tasks import task_for
from worldmodels.video import Frames, VideoConfig

FPS = 50
"""Frames per second in a window, which is CarRacing's pace."""


@dataclass(frozen=True)
class Play:
    """Watch a driver for an episode, in a window where there is a display, or as a film.

    It is the one that `evaluate` measures. A film of reality shows what V keeps of every frame and
    what M dreams, side by side. Of a committee, the first member sees and dreams.
    """

    agent: str
    """folder of an agent or of its run, or name of an agent that comes with the package"""
    dream: bool = False
    """drive in M's dream, as V paints it, instead of in the real environment"""
    env: str | None = None
    """Gymnasium id of the real environment; None takes the agent's own"""
    seed: Seed = TEST_SEED_START
    """of the track, or of the dream"""
    video: FilmPath | None = None
    """mp4 file to write; None opens a window"""
    steps: Count = 1000
    """longest episode or dream, in steps"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """Only the agent must be given."""
        return cls(agent=tyro.MISSING)

    def ignored(self) -> Mapping[str, str]:
        """What a dream does without."""
        return {"env": "a dream has no environment"} if self.dream else {}

    def execute(self) -> None:
        """Show it."""
        if self.video is None and not has_display():
            raise UserError(
                "there is no display to open a window on; write a film instead: "
                f"worldmodels play --agent {self.agent} --video play.mp4"
            )
        agent = open_member(self.agent)
        if self.dream or self.video is not None:
            agent.vision.check_decoder()
        if self.video is not None:
            cfg = VideoConfig(max_bytes=5_000_000)
            frames = self._dream(agent, cfg) if self.dream else self._reality(agent, cfg)
            print(f"film: {video.write_video(self.video, frames, cfg)}")
        elif self.dream:
            show(self._dream(agent, VideoConfig(every=1, panel=288)), f"{self.agent} dreams")
        else:
            self._drive()

    def _dream(self, agent: Agent, cfg: VideoConfig) -> Iterable[Frames]:
        dreams = 4 if self.video else 2
        return video.dream_frames(agent, cfg, dreams, self.steps, self.seed % 2**63)

    def _reality(self, agent: Agent, cfg: VideoConfig) -> Iterable[Frames]:
        """Drive once, then film what was driven."""
        env_id = self.env or home_of(self.agent)
        driver = open_driver(self.agent)
        result = evaluate(driver, env_id, [self.seed], 1, max_steps=self.steps, keep_actions=True)
        print(f"return {result.mean:.1f} in {result.frames} steps")
        recording = video.replay(env_id, result.episodes[0])
        seen = video.views(agent, recording, cfg)
        title = f"{task_for(env_id).words.episode} {self.seed}"
        return video.episode_frames(recording, seen, cfg, title)

    def _drive(self) -> None:
        """Drive an episode in the environment's own window."""
        driver = open_driver(self.agent)
        env = envs.make(self.env or home_of(self.agent), render_mode="human")
        try:
            driver.check_env(env)
            (result,) = run_group(
                [env], PolicyBehaviour(driver), [self.seed], max_steps=self.steps, width=1
            )
            print(f"return {result.total_reward:.1f} in {result.length} steps")
        finally:
            env.close()


def has_display() -> bool:
    """Whether a window can be opened here."""
    if os.environ.get("SDL_VIDEODRIVER") == "dummy":
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(frames: Iterable[Frames], title: str, fps: int = FPS) -> None:
    """Show frames (H, W, 3) in a window until they end or the window is closed."""
    import pygame

    pygame.init()
    try:
        clock, screen = pygame.time.Clock(), None
        for frame in frames:
            if screen is None:
                screen = pygame.display.set_mode((frame.shape[1], frame.shape[0]))
                pygame.display.set_caption(title)
            if any(event.type == pygame.QUIT for event in pygame.event.get()):
                break
            screen.blit(pygame.surfarray.make_surface(np.swapaxes(frame, 0, 1)), (0, 0))
            pygame.display.flip()
            clock.tick(fps)
    finally:
        pygame.quit()
