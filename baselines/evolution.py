"""Evolution in the real environment: V and M of an agent, C by the same CMA-ES, on real returns.

This is how "World Models" (Ha and Schmidhuber, 2018) trained its CarRacing driver. A group of
candidates runs its episodes in step, so that V sees one batch of frames for all of them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from baselines.bookkeeping import Bookkeeping, SelectionTracks, inherit, open_run, selection_seeds
from worldmodels import evaluation, executors, runs
from worldmodels.agent import Agent, find
from worldmodels.config import Config, Count, Seed, SizeOrZero
from worldmodels.controller import linear
from worldmodels.controller.evolve import EvolveConfig, EvolveResult, Generation, evolve
from worldmodels.controller.linear import Components, controller_inputs
from worldmodels.controller.strategies import StrategyConfig
from worldmodels.envs import from_file, require_limit
from worldmodels.executors import Executor, Placement
from worldmodels.experience.collect import GroupSize
from worldmodels.experience.rollout import run_group, shared_envs
from worldmodels.protocols import TRAINING_SEED_LIMIT, UserError
from worldmodels.runs import FolderPath

METHOD = "evolution-real"
"""What results are filed under."""

NEVER = 2**31
"""A generation that no run reaches."""


@dataclass(frozen=True)
class DriveConfig(Config):
    """How candidates are evaluated."""

    episodes: Count = 2
    """real episodes for each candidate, the same tracks for all of a generation"""
    patience: Count | None = 100
    """end a training episode after so many frames without a reward above 0; None never does, as in
    the paper"""
    max_steps: Count | None = None
    """longest episode in training; None leaves it to the environment"""
    group: GroupSize = 16
    """candidates that run in step; the floats depend on it"""


@dataclass(frozen=True)
class EvolutionConfig(Config):
    """Evolve C in the real environment; the same command again resumes it."""

    agent: Path
    """agent whose V and M are used: its folder, its run's folder, or the name of a bundled one; its
    C is used with `--start agent` alone"""
    out: FolderPath = Path("runs/evolution")
    """run folder; an interrupted search in it is resumed"""
    seed: Seed = 0
    """random seed of samples and tracks"""
    frames: Count = 4_000_000
    """budget in frames of the environment; the last generations may go a little beyond it"""
    start: Literal["zeros", "agent"] = "zeros"
    """first mean of the search: zeros, as in the paper, or the agent's own C"""
    components: SizeOrZero = 0
    """search in so many principal components of what C sees, whitened, as the presets do; 0
    searches in all of C's parameters, as the paper does"""
    mean_window: Count = 1
    """generations whose means are averaged"""
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    """the evolution strategy"""
    drive: DriveConfig = field(default_factory=DriveConfig)
    """how candidates are evaluated"""
    evaluate_every: Count = 5
    """generations between measurements of the mean on selection tracks"""
    evaluate_episodes: SelectionTracks = 8
    """selection tracks, from seed 500000"""
    placement: Annotated[Placement, tyro.conf.arg(name="")] = field(default_factory=Placement)
    """where episodes are played"""
    log: runs.Log = ()
    """also write the metrics for tensorboard or wandb, or both, into the run folder; wandb stays
    offline unless WANDB_MODE=online"""


class Candidates:
    """A group of controllers behind one V and one M, as a behaviour of their lockstep episodes.

    Row ``c * episodes + e`` is episode e of candidate c.
    """

    def __init__(self, agent: Agent, population: NDArray[np.float32]) -> None:
        """Lay out controllers (C, N) for batched products."""
        self._agent, self._count = agent, len(population)
        self._weights = linear.Controllers(
            torch.from_numpy(population),
            agent.controller,
            agent.z_dim,
            agent.h_dim,
            agent.input_stats,
        )

    def start(self, seeds: Sequence[int]) -> None:
        """Begin episodes with M's memory empty."""
        self._memory = self._agent.memories[0].initial_state(len(seeds))

    @torch.inference_mode()
    def act(self, obs: NDArray[np.uint8], active: NDArray[np.bool_]) -> NDArray[Any]:
        """Choose for every row; V looks only at frames of episodes that go on."""
        agent, cfg = self._agent, self._agent.controller
        rows = torch.from_numpy(np.flatnonzero(active))
        z = torch.zeros(len(obs), agent.z_dim)
        z[rows] = agent.encode(obs[active])[0]
        h = self._memory.seen(cfg.carry).view(self._count, -1, agent.seen_dim)
        action = self._weights.act(z.view(self._count, -1, agent.z_dim), h).flatten(0, 1)
        if cfg.inputs != "z":
            known = linear.memory_input(action, cfg)
            self._memory = agent.memories[0].advance(z, known, self._memory)
        chosen: NDArray[Any] = action.numpy()
        return chosen


class RealReturns:
    """Real episodes as the return function of controllers: a `worldmodels.protocols` one."""

    def __init__(
        self, agent: Path, cfg: DriveConfig, executor: Executor, env_id: str | None = None
    ) -> None:
        """Get ready.

        Args:
            agent: folder with V and M.
            cfg: how candidates are evaluated.
            executor: where episodes run.
            env_id: None takes the agent's own.

        Raises:
            UserError: there is no such agent.
        """
        self._folder, self._cfg, self._executor = agent, cfg, executor
        self._digest = str(runs.read_json(agent / "config.json")["sha256"])
        self._env_id = env_id or _open(agent, self._digest).env_id
        self.frames = 0
        """real frames so far"""
        # one function for all generations: V and M travel once
        acting = _open(agent, self._digest) if executor.remote else agent
        self._work = partial(_drive, acting, self._digest, self._env_id, cfg)

    def __call__(self, population: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
        """Mean returns (P,) of controllers (P, N) over the tracks that a seed draws."""
        rng = np.random.default_rng(seed)
        tracks = rng.integers(TRAINING_SEED_LIMIT, size=self._cfg.episodes).tolist()
        size = self._cfg.group
        groups = [population[i : i + size] for i in range(0, len(population), size)]
        items = [_Group(tuple(tracks), group) for group in groups]
        returns: list[NDArray[np.float64]] = [np.empty(0)] * len(groups)
        for index, (means, frames) in self._executor.map(self._work, items):
            returns[index] = means
            self.frames += frames
        return np.concatenate(returns)


class _Group(NamedTuple):
    """Candidates that run in step."""

    tracks: tuple[int, ...]
    """seeds of each one's episodes"""
    population: NDArray[np.float32]
    """(C, N)"""


def _drive(
    acting: Path | Agent, digest: str, env_id: str, cfg: DriveConfig, group: _Group
) -> tuple[NDArray[np.float64], int]:
    """Mean returns of one group of candidates, and the frames they took; what a worker does."""
    tracks, population = group
    agent = acting if isinstance(acting, Agent) else _open(acting, digest)
    rows = len(population) * len(tracks)
    with executors.one_thread():
        results = run_group(
            shared_envs(env_id, rows),
            Candidates(agent, np.ascontiguousarray(population, np.float32)),
            list(tracks) * len(population),
            max_steps=cfg.max_steps,
            patience=cfg.patience,
            action_repeat=agent.action_repeat,
            width=rows,
        )
    returns = np.array([result.total_reward for result in results])
    frames = sum(result.length for result in results)
    return returns.reshape(len(population), len(tracks)).mean(axis=1), frames


@lru_cache(maxsize=1)
def _open(folder: Path, digest: str) -> Agent:
    """Open an agent once in a process, and again when its folder has changed."""
    return Agent.from_pretrained(folder)


def evolve_in_reality(cfg: EvolutionConfig) -> Path:
    """Evolve and return the run folder: the selected agent in `agent/`, the last in `last/`.

    Raises:
        UserError: there is no such agent, its cost is unknown, or the folder has another run.
    """
    with runs.locked(cfg.out), cfg.placement.make() as executor:
        session = _Session(cfg, executor)
        while True:
            books, every = session.books, cfg.evaluate_every
            if books.step % every == 0 and session.unmeasured:
                session.measure()
            if books.step % every == 0 and books.frames >= cfg.frames:
                return session.run.path
            session.evolve((books.step // every + 1) * every)


class _Session:
    """One evolution at work."""

    def __init__(self, cfg: EvolutionConfig, executor: Executor) -> None:
        self.cfg, self.executor, self.folder = cfg, executor, find(cfg.agent)
        self.agent = Agent.from_pretrained(self.folder)
        home = from_file(self.agent.env_id, self.folder / "config.json")
        require_limit(shared_envs(home, 1)[0])
        digest = runs.read_json(self.folder / "config.json")["sha256"]
        settings = {"method": METHOD, **dataclasses.asdict(cfg), "weights": digest}
        settings["env_id"] = self.agent.env_id
        changeable = {"out", "placement", "agent", "frames", "log"}
        same = [key for key in settings if key not in changeable]
        self.run = open_run(cfg.out, settings, same, cfg.log)
        self.returns = RealReturns(self.folder, cfg.drive, executor)
        self.result: EvolveResult | None = None
        self.books = Bookkeeping()
        inherit(self.books, self.folder)
        if self.books_file.exists():
            self.books = Bookkeeping.from_state(runs.read_json(self.books_file))
            self.books.publish(self.run)

    @property
    def books_file(self) -> Path:
        return self.run.checkpoints / "books.json"

    @property
    def unmeasured(self) -> bool:
        """Whether there were generations since the last measurement."""
        books = self.books
        return books.step > 0 and (not books.curve or books.curve[-1].step < books.step)

    def evolve(self, target: int) -> None:
        """Go on to a generation; one that is past gives back the state as it was saved."""
        text = f"evolving in reality, to generation {target}"
        with runs.progress(range(target - self.books.step), text, unit="generations") as bar:
            began = time.perf_counter()
            self.returns.frames = 0

            def note(record: Generation) -> None:
                nonlocal began
                now = time.perf_counter()
                self._note(record, now - began)
                began = now
                bar.advance(best=record.best, mean=record.mean)

            # the mean is measured on selection tracks, by `measure`
            settings = EvolveConfig(
                self.cfg.strategy,
                generations=target,
                snapshot_every=NEVER,
                mean_window=self.cfg.mean_window,
                checkpoint_every=1,
            )
            self.result = evolve(
                self.returns,
                settings,
                runs.derive_seed(self.cfg.seed, "evolution"),
                self._first_mean(),
                checkpoint=self.run.checkpoints / "evolution.safetensors",
                on_generation=note,
                key=runs.config_hash([self.cfg.drive, self.agent.env_id]),
                components=self._components(),
            )

    def _components(self) -> Components | None:
        """Principal components of [z, h] over the starts of dreams that the agent has with it."""
        agent = self.agent
        if not self.cfg.components:
            return None
        if agent.starts is None:
            raise UserError(
                f"components is {self.cfg.components}, but agent {self.folder} has no recorded "
                "starts to find them in; it must be 0"
            )
        seen = controller_inputs(
            agent.controller, agent.starts.z, agent.starts.seen(agent.controller.carry)
        )
        return Components.of(seen, self.cfg.components, agent.controller)

    def _first_mean(self) -> NDArray[np.float32]:
        if self.cfg.start == "agent":
            return self.agent.parameters
        agent, seed = self.agent, runs.derive_seed(self.cfg.seed, "start")
        return linear.initial_parameters(agent.controller, agent.z_dim, agent.h_dim, seed)

    def _note(self, record: Generation, seconds: float) -> None:
        """Enter a generation into the books; one that a kill has repeated is in them already."""
        books, frames = self.books, self.returns.frames
        self.returns.frames = 0
        if record.generation <= books.step:
            return
        books.step = record.generation
        books.frames += frames
        books.seconds += seconds
        figures = {"best": record.best, "mean": record.mean, "std": record.std}
        figures |= {"sigma": record.sigma, "seconds": books.seconds}
        self.run.log("evolution", step=books.step, frames=books.frames, **figures)
        runs.write_json(self.books_file, books.to_state())

    def measure(self) -> None:
        """Evaluate the mean on selection tracks, save it, publish curve and ledger."""
        books = self.books
        if self.result is None:  # killed between the last generation and its measurement
            self.evolve(books.step)
        assert self.result is not None
        mean = self.result.parameters
        result = evaluation.evaluate(
            evaluation.AgentParameters(self.folder, mean),
            self.agent.env_id,
            selection_seeds(self.cfg.evaluate_episodes),
            executor=self.executor,
            name=METHOD,
        )
        is_best = books.measured(result, "model_free")
        point = dataclasses.asdict(books.curve[-1])
        self.run.log("evaluation", **point)
        facts = {"seed": self.cfg.seed, "method": METHOD, "selection": point}
        agent = self.agent.with_parameters(mean, **facts)
        dtype = runs.read_json(self.folder / "config.json")["dtype"]
        for folder in (self.run.path / "last", self.run.agent)[: 1 + is_best]:
            agent.save_pretrained(folder, dtype)
        runs.write_json(self.books_file, books.to_state())
        books.publish(self.run)
