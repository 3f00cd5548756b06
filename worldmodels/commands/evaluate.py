"""`worldmodels evaluate` and `worldmodels play`: measure a policy, or watch it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import tyro

from baselines import drivers
from worldmodels import envs, video
from worldmodels._agent_files import CONFIG, read_config
from worldmodels._files import is_stream
from worldmodels.agent import Agent, find
from worldmodels.commands.parsing import Command
from worldmodels.config import Count, Episodes, Seed
from worldmodels.evaluation import EvaluationResult, PolicySpec, evaluate
from worldmodels.executors import Placement
from worldmodels.experience.rollout import PolicyBehaviour, run_group
from worldmodels.planning import planners
from worldmodels.planning.planners import PlanningConfig
from worldmodels.policies.opening import Named, best_policy, open_member, open_policy
from worldmodels.presets import DEFAULT_ENV, RunConfig
from worldmodels.protocols import TEST_SEED_START, UserError
from worldmodels.runs import FilePath, FilmPath, FolderPath, RunFolder, config_hash, read_json
from worldmodels.tasks import task_for
from worldmodels.video import Frames, VideoConfig

CONTROLS = ("random", "zeros")
"""Policies that need no agent: uniform actions, and zeros."""
FPS = 50
"""Frames per second in a window."""


@dataclass(frozen=True)
class Evaluate(Command):
    """Measure a policy in the real environment: one episode for each of the seeds S, ..., S+N-1.

    Prints the statistics; the JSON has every episode too.
    """

    common: ClassVar[str] = (
        "agent policy weights env episodes seed json workers executor address resume max-steps run "
        "deterministic"
    )

    agent: str
    """what to measure: an agent or a baseline (its folder, its run's folder, or the name of a
    bundled one), `random` or `zeros`"""
    policy: Named = None
    """policy on the agent's V and M: its C, a planner, or a network of `train-policy` (default: the
    agent's ensemble or residual where it has one, else its C)"""
    weights: Path | None = None
    """file of `train-policy` with the network, or with a planner's critic (default: the one in the
    agent's folder)"""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """the planner, where --policy is one"""
    env: str | None = None
    """Gymnasium id; --obs-key KEY chooses among its images, --env-kwargs '{"name": value}' passes
    arguments (default: the agent's own environment, or the stock one of a faster one)"""
    episodes: Episodes = 20
    """number of episodes"""
    seed: Seed = TEST_SEED_START
    """first seed; the published test seeds are 1000000 to 1000099"""
    json: FilePath | None = None
    """write the result to this JSON file (default: do not write)"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""
    resume: bool = False
    """keep finished episodes beside the JSON, and resume from them after an interruption"""
    deterministic: bool = True
    """act on V's mean; otherwise z is sampled"""
    max_steps: Count | None = None
    """truncate episodes after so many steps; needed where the environment has no time limit"""
    run: FolderPath | None = None
    """run folder to log the frames into (default: do not log)"""

    @classmethod
    def defaults(cls, preset: RunConfig, flags: Mapping[str, str]) -> Self:
        """The planner's own settings."""
        planning = planners.defaults(flags.get("policy"))
        return replace(super().defaults(preset, flags), planning=planning)

    def ignored(self) -> Mapping[str, str]:
        """Settings of other planners, and weights without a use."""
        try:
            policy = self._policy
        except UserError:  # no such agent: refused when it is opened
            return {}
        found = planners.unused(policy)
        if policy in planners.PLANNERS and not self.planning.objective.critic:
            found["weights"] = "the planner uses no critic; set --planning.objective.critic"
        return found

    def measure(self) -> EvaluationResult:
        """Run the episodes."""
        unfinished = None
        if self.resume:
            if self.json is None:
                raise UserError("--resume keeps finished episodes beside the JSON; give --json too")
            if is_stream(self.json):
                raise UserError(f"--resume keeps finished episodes beside {self.json}; name a file")
            unfinished = self.json.with_name(f".{self.json.name}-resume")
        if self.run is not None:
            with RunFolder(self.run).lock():
                pass  # a live run would refuse the count of frames at the end
        name = self.agent if self._policy == "controller" else f"{self.agent} ({self._policy})"
        remote = self.placement.executor == "ray"
        with self.placement.make() if remote else nullcontext() as executor:
            return evaluate(
                self._open(),
                self.env or home_of(self.agent),
                self._seeds,
                self.placement.workers,
                executor=executor,
                name=name,
                deterministic=self.deterministic,
                max_steps=self.max_steps,
                resume=unfinished,
            )

    def execute(self) -> None:
        """Evaluate, print the table, write the JSON."""
        result, seeds = self.measure(), self._seeds
        if self.json is not None:
            result.write(self.json)
        if self.run is not None:
            key = config_hash([result.agent, result.env, list(seeds), result.returns])[:16]
            run = RunFolder(self.run)
            with run.lock(wait=60):  # other evaluations may count theirs
                run.count_frames("test", result.frames, f"test/{key}")
        print(f"{result.agent} in {result.env}")
        for name, value in statistics(result, seeds):
            print(f"  {name:20} {value}")

    @property
    def _seeds(self) -> range:
        return range(self.seed, self.seed + self.episodes)

    @property
    def _policy(self) -> str:
        """The policy that acts; of controls and baselines "controller"."""
        if self.policy is not None:
            return self.policy
        alone = self.agent in CONTROLS or drivers.is_driver(Path(self.agent))
        return "controller" if alone else best_policy(self.agent)

    def _open(self) -> PolicySpec:
        if self.weights is not None and self._policy in ("controller", "ensemble"):
            raise UserError(
                f"--weights is {self.weights}, but {self._policy} takes no such file; name the "
                "policy that the file holds, for example --policy residual"
            )
        if self._policy == "controller":
            folder = Path(self.agent)
            return drivers.load_driver(folder) if drivers.is_driver(folder) else self.agent
        if self.agent in CONTROLS:
            raise UserError(f"{self.agent} has no V and M for {self.policy}; give an agent")
        return open_policy(self.agent, self._policy, self.planning, self.weights)


def home_of(agent: str) -> str:
    """The environment that an agent is evaluated in: its own, or the stock one of a faster one."""
    env_id = DEFAULT_ENV
    if agent not in CONTROLS:
        folder = find(agent)
        config = read_json(folder / CONFIG) if drivers.is_driver(folder) else read_config(folder)
        env_id = envs.from_file(str(config["env_id"]), folder / CONFIG)
    return task_for(env_id).test_env(env_id)


def statistics(result: EvaluationResult, seeds: range) -> Iterator[tuple[str, str]]:
    """Name and text of each figure of an evaluation."""
    found = result.summary
    yield "mean return", f"{found.mean:.1f}"
    if found.ci95 is not None:
        yield "95% interval", f"{found.ci95[0]:.1f} to {found.ci95[1]:.1f}"
    yield "standard deviation", f"{found.std:.1f}"
    yield "median", f"{found.median:.1f}"
    yield "interquartile mean", f"{found.iqm:.1f}"
    yield "tenth percentile", f"{found.p10:.1f}"
    if found.fraction_solved is not None:
        yield "solved", f"{found.fraction_solved:.0%}"
    laps = [episode.lap_finished for episode in result.episodes]
    if None not in laps:
        finished = task_for(result.env).words.finished or ("finished",)
        yield finished[-1], f"{sum(map(bool, laps))} of {len(laps)}"
    if result.ms_per_action is not None:
        yield "time per action", f"{result.ms_per_action:.1f} ms"
    yield "seeds", f"{seeds[0]} to {seeds[-1]}"
    yield "frames", f"{result.frames:,} in {result.seconds:.1f} s"


@dataclass(frozen=True)
class Play(Command):
    """Watch an agent for an episode, in a window where there is a display, or as a film.

    It is the policy that `evaluate` measures. A film of reality shows every frame, V's
    reconstruction and M's dream side by side; those of the first member of an ensemble. A film of
    the dream shows the chance of an end that M gives each step, and ends where training does.
    """

    agent: str
    """agent: its folder, its run's folder, or the name of a bundled one"""
    dream: bool = False
    """act in M's dream, as V decodes it, instead of in the real environment"""
    env: str | None = None
    """Gymnasium id; --obs-key KEY chooses among its images, --env-kwargs '{"name": value}' passes
    arguments (default: the agent's own environment, or the stock one of a faster one)"""
    seed: Seed = TEST_SEED_START
    """seed of the episode or the dream"""
    video: FilmPath | None = None
    """write a film to this mp4 file (default: open a window)"""
    steps: Count = 1000
    """truncate the episode or dream after so many steps"""

    def ignored(self) -> Mapping[str, str]:
        """A dream needs no environment."""
        return {"env": "a dream has no environment"} if self.dream else {}

    def execute(self) -> None:
        """Open the window or write the film."""
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
            self._episode()

    def _dream(self, agent: Agent, cfg: VideoConfig) -> Iterable[Frames]:
        dreams = 4 if self.video else 2
        return video.dream_frames(agent, cfg, dreams, self.steps, self.seed % 2**63)

    def _reality(self, agent: Agent, cfg: VideoConfig) -> Iterable[Frames]:
        """Act for an episode, then replay it as a film."""
        env_id = self.env or home_of(self.agent)
        policy = open_policy(self.agent)
        result = evaluate(policy, env_id, [self.seed], 1, max_steps=self.steps, keep_actions=True)
        print(f"return {result.mean:.1f} in {result.frames} steps")
        recording = video.replay(env_id, result.episodes[0])
        seen = video.views(agent, recording, cfg)
        title = f"{task_for(env_id).words.episode} {self.seed}"
        return video.episode_frames(recording, seen, cfg, title)

    def _episode(self) -> None:
        """Act for an episode in the environment's own window."""
        policy = open_policy(self.agent)
        env = envs.make(self.env or home_of(self.agent), render_mode="human")
        try:
            policy.check_env(env)
            behaviour = PolicyBehaviour(policy)
            (result,) = run_group([env], behaviour, [self.seed], max_steps=self.steps, width=1)
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


def show(frames: Iterable[Frames], title: str) -> None:
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
            clock.tick(FPS)
    finally:
        pygame.quit()
