"""`worldmodels play`: watch an agent, or act yourself."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym

from worldmodels import envs, runs, video
from worldmodels._threads import CoreThreads
from worldmodels.agent import Agent, find
from worldmodels.commands.evaluate import own_env
from worldmodels.commands.parsing import AgentName, Command
from worldmodels.config import Count, Seed
from worldmodels.policies.ensemble import Ensemble
from worldmodels.policies.opening import open_member, open_policy
from worldmodels.policies.planning import PlanningPolicy
from worldmodels.protocols import DEFAULT_AGENT, TEST_SEED_START, UserError
from worldmodels.runs import FilmPath
from worldmodels.tasks import task_for
from worldmodels.video import Frames, VideoConfig, scenes
from worldmodels.video.films import pace, pace_of, record
from worldmodels.video.scenes import ride
from worldmodels.video.window import Window, has_display

FOLDER = Path("runs/play")
"""Where films and pages go that nobody gave a name."""
PANEL, MAX_BYTES = 256, 5_000_000
"""Height and width of a film's panels, in pixels, and its approximate maximum size."""
PAGE = "worldmodels.web.page"
"""Module that writes the page of an agent's dream."""
Film: TypeAlias = tuple[Iterable[Frames], VideoConfig, int]
"""Frames, their size and speed, and how many there are at most."""


@dataclass(frozen=True)
class Play(Command):
    """Watch an agent for an episode, or act yourself with --keyboard.

    It opens a window where there is a display; elsewhere it writes a film and the page of the
    agent's dream. It is the policy that `evaluate` measures. A film of reality shows every frame,
    V's reconstruction and M's dream side by side; those of the first member of an ensemble. Dreams
    end where M says, as in training.
    """

    common: ClassVar[str] = "agent dream keyboard env seed video max-steps"

    agent: AgentName = DEFAULT_AGENT
    """agent: its folder, its run's folder, or the name of a bundled one"""
    dream: bool = False
    """act in M's dream, as V decodes it, instead of in the real environment"""
    keyboard: bool = False
    """act yourself, in a window that names its keys; the agent's return on the same seed follows"""
    env: str | None = None
    """Gymnasium id; --obs-key KEY chooses among its images, --env-kwargs '{"name": value}' passes
    arguments (default: the agent's own environment)"""
    seed: Seed = TEST_SEED_START
    """seed of the episode or the dream"""
    video: FilmPath | None = None
    """write a film to this mp4 file, and a picture of it beside it (default: open a window;
    without a display write to runs/play)"""
    max_steps: Count = 1000
    """truncate the episode or dream after so many steps"""

    def ignored(self) -> Mapping[str, str]:
        """A dream needs no environment, and a person no film."""
        found = {"env": "a dream has no environment"} if self.dream else {}
        return found | ({"video": "a person acts in a window"} if self.keyboard else {})

    def execute(self) -> None:
        """Open the window or write the film."""
        shown = has_display()
        if self.keyboard and not shown:
            raise UserError(
                "--keyboard needs a window, and there is no display: without --keyboard, play "
                "writes the page of the agent's dream, in which a browser lets you act"
            )
        agent = open_member(self.agent)
        with CoreThreads(1):  # one frame at a time is too little for several
            if self.keyboard or (shown and self.video is None):
                self._in_window(agent)
            else:
                self._as_film(agent, self.video or FOLDER / f"{self._name}.mp4")

    @property
    def _name(self) -> str:
        folder = find(self.agent)
        return folder.parent.name if folder.name == "agent" else folder.name

    def _in_window(self, agent: Agent) -> None:
        """Let the agent or the person act, and say how it went."""
        env_id = agent.env_id if self.dream else self.env or own_env(self.agent)
        scene = scenes.dream(agent, self.max_steps) if self.dream else scenes.reality(env_id)
        its = scenes.dreamer(agent) if self.dream else scenes.policy(self._policy(scene.env))
        mine = scenes.person(scene.keyboard) if self.keyboard else its
        greeting = f"any key begins, escape ends.  {scene.keyboard}" if self.keyboard else ""
        if greeting:
            print(greeting, flush=True)
        what = "dream" if self.dream else task_for(env_id).words.episode
        told = f"{what} {self.seed}"
        with contextlib.closing(scene.env):
            with Window(f"{'you' if self.keyboard else self._name}: {told}", scene.rate) as window:
                found = ride(scene, mine, self.seed, self.max_steps, window, greeting)
            if not self.keyboard:
                print(f"{self._name}, {told}: {found}")
            elif found.length:
                print(f"you, {told}: {found}", flush=True)
                theirs = ride(scene, its, self.seed, self.max_steps)
                print(f"{self._name}, the same {what}: {theirs}")

    def _policy(self, env: gym.Env[Any, Any]) -> Agent | PlanningPolicy | Ensemble:
        policy = open_policy(self.agent)
        policy.check_env(env)
        return policy

    def _as_film(self, agent: Agent, path: Path) -> None:
        """Write the film and its poster, and where nobody chose it, the page of the dream."""
        if self.dream:
            agent.vision.check_decoder()
        runs.check_output(path, "the film", runs.FILM)
        frames, cfg, count = self._dream(agent) if self.dream else self._reality(agent)
        poster = path.with_suffix(".png")
        video.write_video(path, _filmed(frames, count, poster), cfg, count)
        blind = self.video is not None or agent.vision.decoder is None
        page = None if blind else dream_page(self.agent, path.with_suffix(".html"))
        act = f"; act in the dream yourself, in a browser: {page}" if page else ""
        print(f"film: {path}, its poster: {poster}{act}")

    def _dream(self, agent: Agent) -> Film:
        """Four dreams side by side."""
        cfg = VideoConfig(panel=PANEL, max_bytes=MAX_BYTES).at(pace_of(agent.env_id))
        held = agent.action_repeat
        count = -(-self.max_steps // held) * max(1, held // cfg.every)
        return video.dream_frames(agent, cfg, 4, self.max_steps, self.seed % 2**63), cfg, count

    def _reality(self, agent: Agent) -> Film:
        """Act for an episode, and see it through V and M where V can paint."""
        from worldmodels.pages.text import one_return

        env_id = self.env or own_env(self.agent)
        with contextlib.closing(envs.make(env_id)) as env:
            cfg = VideoConfig(panel=PANEL, max_bytes=MAX_BYTES).at(pace(env))
            taken, result = record(env, self._policy(env), self.seed, self.max_steps)
        print(f"return {one_return(result.total_reward)} in {result.length} steps", flush=True)
        title = f"{task_for(env_id).words.episode} {self.seed}"
        if agent.vision.decoder is None:  # it was stored to act only
            return video.real_frames(taken, cfg, title), cfg, len(taken.frames[:: cfg.every])
        seen = video.views(agent, taken, cfg)
        count = len(range(0, len(taken.frames), min(cfg.every, seen.every)))
        return video.episode_frames(taken, seen, cfg, title), cfg, count


def _filmed(frames: Iterable[Frames], count: int, poster: Path) -> Iterator[Frames]:
    """The frames with progress; the middle one becomes a picture when all have been taken."""
    kept = None
    with runs.progress(range(count), "filming", unit="frames") as bar:
        for number, frame in enumerate(frames):
            kept = frame if number <= count // 2 else kept
            yield frame
            bar.advance()
    if kept is not None:
        video.write_picture(poster, kept)


def dream_page(agent: str, path: Path) -> Path | None:
    """Write the page in which a browser dreams; None where this installation has no such module."""
    try:
        page = importlib.import_module(PAGE)
    except ModuleNotFoundError as error:
        if error.name is None or not PAGE.startswith(error.name):
            raise
        return None
    written: Path = page.export(agent, path)
    return written
