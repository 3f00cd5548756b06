"""The evolution loop: a population, its returns, the next population; C is its final mean."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels import runs
from worldmodels.config import Config, Count, CountOrZero, NotNegative, Positive
from worldmodels.controller import strategies
from worldmodels.controller.strategies import Strategy, StrategyConfig, Vector
from worldmodels.protocols import ReturnFunction, UserError

Parameters = NDArray[np.float32]


@dataclass(frozen=True)
class EvolveConfig(Config):
    """How long and how C is evolved."""

    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    """the evolution strategy"""
    generations: Count = 200
    """generations in all, those before a resume included"""
    l2: NotNegative = 0.0
    """penalty on the mean square of a candidate's parameters, subtracted from its return"""
    mean_every: Count = 10
    """every so many generations, and at the last, the mean is judged and kept as a snapshot"""
    average: Count = 1
    """the mean is that of the last so many generations' distributions, or of the later half of all
    so far where those are fewer: returns are noisy, and a single mean wanders with them"""
    checkpoint_every: Count = 10
    """generations between checkpoints; the last one is always written"""
    restart_patience: CountOrZero = 0
    """start the strategy anew at the best snapshot after so many judgements of the mean without a
    better one; 0 for never"""
    seconds: Positive | None = None
    """stop after so much time; results then depend on the machine's speed: prefer generations"""


@dataclass(frozen=True)
class Generation:
    """One line of the history.

    The population's returns are what the objective says, without the L2 penalty; the mean's return
    is the plain one.
    """

    generation: int
    """counted from 1"""
    best: float
    """return of the best candidate"""
    mean: float
    """mean return of the population"""
    std: float
    """deviation of the population's returns (ddof 0)"""
    sigma: float
    """the strategy's deviation after the update"""
    seconds: float
    """wall clock of this generation"""
    mean_return: float | None = None
    """return of the distribution's mean, on starts of its own; None where it was not judged"""
    restarted: bool = False
    """True where the strategy began anew after this generation"""


@dataclass(frozen=True)
class EvolveResult:
    """What evolution found."""

    parameters: Parameters
    """(N,) mean of the last distribution: the controller"""
    history: tuple[Generation, ...]
    """one record per generation"""
    snapshots: dict[int, Parameters]
    """generation -> (N,) mean, wherever the mean was judged: what selection chooses from"""


OnGeneration = Callable[[Generation, Parameters], "bool | None"]
"""Called after each generation with its record and the mean (N,); True ends the run."""

Objective = Callable[[NDArray[np.float32], int, int], NDArray[np.float64]]
"""Judges a population (P, N) by a seed in a generation, counted from 1: (P,), higher is better."""


class _State:
    """What a run carries from generation to generation, and what a checkpoint holds."""

    def __init__(self, cfg: EvolveConfig, size: int, seed: int, x0: Parameters) -> None:
        self.cfg, self.size, self.seed = cfg, size, seed
        self.strategy = self.begin(0, x0)
        self.means: list[Vector] = []
        self.history: list[Generation] = []
        self.snapshots: dict[int, Parameters] = {}
        self.restarts = 0
        self.since_start = 0
        self.since_best = 0
        self.best_mean = -np.inf
        self.best_snapshot = 0
        self.stopped = False

    def begin(self, number: int, x0: Parameters) -> Strategy:
        """A fresh strategy around ``x0``."""
        seed = runs.derive_seed(self.seed, "strategy", number)
        return strategies.make(self.cfg.strategy, self.size, seed, x0)

    @property
    def mean(self) -> Parameters:
        """(N,) the controller as it stands."""
        if not self.means:
            return self.strategy.mean.astype(np.float32)
        mean: Parameters = np.mean(self.means, axis=0).astype(np.float32)
        return mean

    def tell(self, population: Vector, values: Vector, generation: int) -> None:
        """Update the strategy, and the means that count."""
        _tell(self.strategy, population, values, generation)
        self.since_start += 1
        most = min(self.cfg.average, (self.since_start + 1) // 2)
        self.means = [*self.means, self.strategy.mean][-most:]

    def judge(self, returns: ReturnFunction, generation: int) -> float:
        """Return the mean's own return, keep it as a snapshot, count judgements without gain."""
        seed = runs.derive_seed(self.seed, "mean", generation)
        value = float(returns(self.mean[None], seed)[0])
        self.snapshots[generation] = self.mean
        self.since_best += 1
        if value > self.best_mean:
            self.best_mean, self.best_snapshot, self.since_best = value, generation, 0
        return value

    def restart_if_stuck(self) -> bool:
        """Start anew from the best snapshot where patience has run out."""
        if not self.cfg.restart_patience or self.since_best < self.cfg.restart_patience:
            return False
        self.restarts += 1
        self.since_best = self.since_start = 0
        self.means = []
        self.strategy = self.begin(self.restarts, self.snapshots[self.best_snapshot])
        return True

    def save(self, path: Path, key: str) -> None:
        """Write the checkpoint under a name that its generation gives, then point to it.

        The pointer is written last and holds the file's hash, so a kill at any moment leaves a
        whole pair; older files go after it.
        """
        target = path.with_name(f"{path.stem}-{len(self.history):06d}.safetensors")
        runs.save_checkpoint(
            target,
            {
                "strategy": self.strategy.state_dict(),
                "history": [dataclasses.asdict(g) for g in self.history],
                "snapshots": dict(self.snapshots),
                "counters": [
                    self.restarts,
                    self.since_start,
                    self.since_best,
                    self.best_snapshot,
                ],
                "means": list(self.means),
                "best_mean": float(self.best_mean),
                "stopped": self.stopped,
            },
        )
        runs.write_json(path, {"file": target.name, "sha256": _sha256(target), "key": key})
        for old in path.parent.glob(f"{path.stem}-??????.safetensors"):
            if old != target:
                old.unlink()

    def load(self, path: Path, key: str) -> None:
        """Continue from a checkpoint, exactly.

        Raises:
            UserError: it is of another run, or unreadable.
        """
        pointer = runs.read_json(path)
        if pointer.get("key") != key:
            raise UserError(
                f"checkpoint {path} was written with other settings, seed or start; delete it, or "
                "choose another folder"
            )
        file = path.with_name(pointer["file"])
        data = runs.load_checkpoint(file)
        if _sha256(file) != pointer["sha256"]:
            raise UserError(
                f"checkpoint {file} does not match the SHA-256 in {path.name}; it was changed or "
                "damaged: delete both and run the stage again"
            )
        self.strategy.load_state_dict(data["strategy"])
        self.history = [Generation(**g) for g in data["history"]]
        self.snapshots = dict(data["snapshots"])
        self.restarts, self.since_start, self.since_best, self.best_snapshot = data["counters"]
        self.means = list(data["means"])
        self.best_mean, self.stopped = data["best_mean"], data["stopped"]


def evolve(
    returns: ReturnFunction,
    cfg: EvolveConfig,
    num_parameters: int,
    seed: int,
    x0: ArrayLike | None = None,
    checkpoint: Path | None = None,
    on_generation: OnGeneration | None = None,
    key: str = "",
    objective: Objective | None = None,
) -> EvolveResult:
    """Evolve a controller; the result is the mean of the distribution, not the best sample.

    Every generation has a fresh seed that all its candidates share, so that they are comparable and
    none can live on lucky starts. One seed gives one result, unless ``cfg.seconds`` ends the run:
    then the number of generations depends on the machine.

    Args:
        returns: judges a population; higher is better.
        cfg: strategy, length, penalty, checkpoints.
        num_parameters: N.
        seed: fixes the samples and every generation's starts.
        x0: (N,) the first mean; zeros if not given.
        checkpoint: a `.json` path to resume from and to write to; its data lie beside it.
        on_generation: called with each generation's record and the mean; True ends the run.
        key: names what ``returns`` depends on, so that a checkpoint of another dream is refused.
        objective: judges the population in place of ``returns``, which then judges the mean alone.

    Raises:
        UserError: a return is not finite, or the checkpoint is of another run.
    """
    start = np.zeros(num_parameters, np.float32) if x0 is None else np.array(x0, np.float32)
    state = _State(cfg, num_parameters, seed, start)
    full_key = _key(cfg, num_parameters, seed, start, key)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, full_key)
    saved = len(state.history)
    while not _finished(state, cfg):
        began, g = time.perf_counter(), len(state.history) + 1
        # one generation: sample, judge on shared seeds, update
        population = state.strategy.ask()
        candidates = population.astype(np.float32)
        luck = runs.derive_seed(seed, "generation", g)
        judged = objective(candidates, luck, g) if objective else returns(candidates, luck)
        values = np.asarray(judged, np.float64)
        penalty = cfg.l2 * np.mean(np.square(candidates, dtype=np.float64), axis=1)
        state.tell(population, values - penalty, g)
        # the mean is what counts, so judge it on seeds of its own
        due = g % cfg.mean_every == 0 or g == cfg.generations
        mean_return = state.judge(returns, g) if due else None
        mean, sigma = state.mean, state.strategy.sigma
        restarted = due and g < cfg.generations and state.restart_if_stuck()
        record = Generation(
            g,
            float(values.max()),
            float(values.mean()),
            float(values.std()),
            sigma,
            time.perf_counter() - began,
            mean_return,
            restarted,
        )
        state.history.append(record)
        if on_generation is not None and on_generation(record, mean):
            state.stopped = True
        if checkpoint is not None and (g % cfg.checkpoint_every == 0 or _finished(state, cfg)):
            state.save(checkpoint, full_key)
            saved = g
    if checkpoint is not None and saved < len(state.history):
        state.save(checkpoint, full_key)
    return EvolveResult(state.mean, tuple(state.history), state.snapshots)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _finished(state: _State, cfg: EvolveConfig) -> bool:
    """True once the generations or the seconds are used up, or the caller said stop."""
    if state.stopped or len(state.history) >= cfg.generations:
        return True
    return cfg.seconds is not None and sum(g.seconds for g in state.history) >= cfg.seconds


def _tell(strategy: Strategy, population: NDArray[np.float64], values: Any, g: int) -> None:
    """Tell the strategy, naming the generation if a return is no number."""
    try:
        strategy.tell(population, values)
    except UserError as error:
        raise UserError(f"generation {g}: {error}") from error


def _key(cfg: EvolveConfig, size: int, seed: int, x0: Parameters, key: str) -> str:
    """Hash of all that fixes the search; a longer run may continue a shorter one."""
    length = {"generations": 1, "seconds": None, "checkpoint_every": 1}
    same: Sequence[Any] = (dataclasses.replace(cfg, **length), size, seed, x0, key)  # type: ignore[arg-type]  # mypy takes the dict's values for one type
    return runs.config_hash(same)
