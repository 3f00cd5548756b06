"""The evolution loop: a population, its returns, the next population; C is its final mean."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels import runs
from worldmodels.config import Config, Count, CountOrZero, NotNegative, Positive
from worldmodels.controller import strategies
from worldmodels.controller.linear import Components, Parameters
from worldmodels.controller.strategies import StrategyConfig, Vector
from worldmodels.protocols import ReturnFunction, UserError


@dataclass(frozen=True)
class EvolveConfig(Config):
    """How long and how C is evolved."""

    GONE: ClassVar[Mapping[str, object]] = {"restart_patience": 0}

    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    """the evolution strategy"""
    generations: Count = 200
    """total generations, including those before a resume"""
    l2: NotNegative = 0.0
    """weight of the mean squared parameter, subtracted from a candidate's return"""
    snapshot_every: Count = 10
    """generations between snapshots of the search mean; the last generation always has one"""
    mean_window: Count = 1
    """average the search mean over the last so many generations, or over the later half of the run
    so far if that is shorter, to smooth noisy returns"""
    checkpoint_every: Count = 10
    """generations between checkpoints; the last generation always has one"""
    restart_every: CountOrZero = field(default=0, metadata={"omit_default": True})
    """generations after which the search restarts from its first mean, with other samples, so that
    selection may choose among several; 0 for one search"""
    seconds: Positive | None = None
    """time limit in seconds; results then depend on the machine's speed"""


@dataclass(frozen=True)
class Generation:
    """One line of the history; returns are without the L2 penalty."""

    generation: int
    """counted from 1"""
    best: float
    """return of the best candidate"""
    mean: float
    """mean return of the population"""
    std: float
    """standard deviation of the population's returns (ddof 0)"""
    sigma: float
    """standard deviation of the search after the update"""
    seconds: float
    """wall clock of this generation"""
    mean_return: float | None = None
    """return of the search mean, on starts of its own; None between snapshots"""
    restarted: bool = False
    """whether the search restarted after this generation"""


@dataclass(frozen=True)
class EvolveResult:
    """What evolution found."""

    parameters: Parameters
    """(N,) mean of the last distribution: the controller"""
    history: tuple[Generation, ...]
    """one record per generation"""
    snapshots: dict[int, Parameters]
    """generation -> (N,) mean: what selection chooses from"""


OnGeneration = Callable[[Generation], None]
"""Called after each generation with its record."""

Objective = Callable[[Parameters, int, int], NDArray[np.float64]]
"""Returns (P,) of a population (P, N), by a seed and the generation, counted from 1."""


class _Search:
    """State of a run between generations; n is the dimension of the space it searches."""

    _SAVED = "means snapshots restarts since_start".split()

    def __init__(
        self, cfg: EvolveConfig, seed: int, x0: Parameters, components: Components | None
    ) -> None:
        self.cfg, self.seed, self.components = cfg, seed, components
        self.x0 = x0 if components is None else components.compress(x0[None])[0]
        self.history: list[Generation] = []
        self.means: list[Vector] = []
        """(n,) each: the last ones, which the controller is the mean of"""
        self.snapshots: dict[int, Parameters] = {}
        """generation -> (n,)"""
        self.restarts = self.since_start = 0
        self.strategy = self._begin()

    def _begin(self) -> strategies.Strategy:
        seed = runs.derive_seed(self.seed, "strategy", self.restarts)
        return strategies.make(self.cfg.strategy, seed, self.x0)

    def expand(self, searched: Parameters) -> Parameters:
        """Points (P, n) of the search as controllers (P, N)."""
        return searched if self.components is None else self.components.expand(searched)

    @property
    def mean(self) -> Parameters:
        """(n,) the controller as it stands."""
        return np.asarray(np.mean(self.means or [self.strategy.mean], axis=0), np.float32)

    @property
    def finished(self) -> bool:
        """True once the generations or the seconds are used up."""
        spent, limit = sum(g.seconds for g in self.history), self.cfg.seconds
        return len(self.history) >= self.cfg.generations or (limit is not None and spent >= limit)

    def tell(self, population: Vector, values: Vector, generation: int) -> None:
        """Update the strategy and the means; a value that is not finite is a `UserError`."""
        assert values.shape == (len(population),), f"{values.shape} returns of {len(population)}"
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise UserError(
                f"generation {generation}: the return of candidate {bad[0]} is {values[bad[0]]} "
                f"({bad.size} of {len(values)} are not finite); a return must be a number: look at "
                "M's reward and the dream's settings"
            )
        self.strategy.tell(population, values)
        self.since_start += 1
        most = min(self.cfg.mean_window, (self.since_start + 1) // 2)
        self.means = [*self.means, self.strategy.mean][-most:]

    def judge(self, returns: ReturnFunction, generation: int) -> float:
        """Evaluate the mean, and keep it as a snapshot."""
        seed = runs.derive_seed(self.seed, "mean", generation)
        self.snapshots[generation] = self.mean
        return float(returns(self.expand(self.mean[None]), seed)[0])

    def restarts_after(self, generation: int) -> bool:
        """Whether the next generation is the first one of another search."""
        every, last = self.cfg.restart_every, generation == self.cfg.generations
        return every > 0 and generation % every == 0 and not last

    def restart(self) -> None:
        """Restart from the first mean, with other samples."""
        self.restarts, self.since_start, self.means = self.restarts + 1, 0, []
        self.strategy = self._begin()

    def key(self, key: str) -> str:
        """Hash of all that fixes the search but its length: a longer run may continue a shorter."""
        length: dict[str, Any] = {"generations": 1, "seconds": None, "checkpoint_every": 1}
        cfg = dataclasses.replace(self.cfg, **length)
        return runs.config_hash((cfg, self.x0.size, self.seed, self.x0, key))

    def save(self, path: Path, key: str) -> None:
        """Write the checkpoint."""
        saved = {name: getattr(self, name) for name in self._SAVED}
        history = [dataclasses.asdict(g) for g in self.history]
        state = {"key": self.key(key), "strategy": self.strategy.state_dict(), "history": history}
        runs.save_checkpoint(path, {**state, **saved})

    def load(self, path: Path, key: str) -> None:
        """Continue exactly from a checkpoint; one of another run is a `UserError`."""
        state = runs.load_checkpoint(path)
        if state.get("key") != self.key(key):
            raise UserError(
                f"checkpoint {path} was written with other settings, seed or start; delete it, or "
                "choose another folder"
            )
        self.strategy.load_state_dict(state["strategy"])
        self.history = [Generation(**g) for g in state["history"]]
        for name in self._SAVED:
            setattr(self, name, state[name])


def evolve(
    returns: ReturnFunction,
    cfg: EvolveConfig,
    seed: int,
    x0: ArrayLike,
    checkpoint: Path | None = None,
    on_generation: OnGeneration | None = None,
    key: str = "",
    objective: Objective | None = None,
    components: Components | None = None,
) -> EvolveResult:
    """Evolve a controller; the result is the mean of the distribution, not the best sample.

    The candidates of a generation share a fresh seed (common random numbers). One seed gives one
    result, unless ``cfg.seconds`` ends the run.

    Args:
        returns: evaluates a population; higher is better.
        cfg: strategy, length, penalty, checkpoints.
        seed: fixes the samples and every generation's starts.
        x0: (N,) the first mean.
        checkpoint: a `.safetensors` path to resume from and to write to.
        on_generation: called with each generation's record.
        key: names what ``returns`` depends on; a checkpoint with another key is refused.
        objective: evaluates the population in place of ``returns``, which then evaluates the mean.
        components: the space to search; None is that of all parameters.

    Raises:
        UserError: a return is not finite, or the checkpoint is of another run.
    """
    search = _Search(cfg, seed, np.array(x0, np.float32), components)
    if checkpoint is not None and checkpoint.exists():
        search.load(checkpoint, key)
    while not search.finished:
        began, g = time.perf_counter(), len(search.history) + 1
        # one generation: sample, evaluate on a common seed, update
        population = search.strategy.ask()
        searched = population.astype(np.float32)
        candidates, shared = search.expand(searched), runs.derive_seed(seed, "generation", g)
        judged = objective(candidates, shared, g) if objective else returns(candidates, shared)
        values = np.asarray(judged, np.float64)
        penalty = cfg.l2 * np.mean(np.square(searched, dtype=np.float64), axis=1)
        search.tell(population, values - penalty, g)
        # the mean is the controller: evaluate it on a seed of its own
        restarted = search.restarts_after(g)
        due = g % cfg.snapshot_every == 0 or g == cfg.generations or restarted
        mean_return = search.judge(returns, g) if due else None
        sigma = search.strategy.sigma
        if restarted:
            search.restart()
        best, mean, std = (float(x) for x in (values.max(), values.mean(), values.std()))
        seconds = time.perf_counter() - began
        record = Generation(g, best, mean, std, sigma, seconds, mean_return, restarted)
        search.history.append(record)
        if on_generation is not None:
            on_generation(record)
        if checkpoint is not None and (g % cfg.checkpoint_every == 0 or search.finished):
            search.save(checkpoint, key)
    snapshots = {g: search.expand(mean[None])[0] for g, mean in search.snapshots.items()}
    return EvolveResult(search.expand(search.mean[None])[0], tuple(search.history), snapshots)
