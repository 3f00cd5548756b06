"""Evolution strategies behind one ask/tell protocol: CMA-ES, sep-CMA-ES, PEPG and OpenES.

All maximise. None reads or changes a global random generator, none changes what it is given, and
each can be stopped after any `tell` and continued exactly from its state.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels._threads import one_blas_thread
from worldmodels.config import AtLeast, Config, Decay, Limit, Positive
from worldmodels.protocols import UserError

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class StrategyConfig(Config):
    """Which evolution strategy, and how it steps."""

    name: Literal["cma", "sep_cma", "pepg", "openes"] = "cma"
    """cma (full covariance), sep_cma (diagonal covariance), pepg or openes"""
    population: Annotated[int, AtLeast(4), Limit(65_536)] = 64
    """candidates per generation; even for pepg and openes, which sample mirrored pairs"""
    sigma0: Positive = 0.1
    """standard deviation of the first generation, in units of the parameters"""
    learning_rate: Positive = 0.02
    """step of the mean (Adam); pepg and openes only"""
    sigma_rate: Decay = 0.1
    """relative step of the standard deviations per generation; pepg only (openes keeps sigma0)"""
    sigma_min: Positive = 0.01
    """smallest standard deviation; pepg only"""

    def _check(self) -> None:
        if self.name in ("pepg", "openes") and self.population % 2:
            self.refuse("population", f"even for {self.name}")


class CMA:
    """CMA-ES of the `cma` package (Hansen, arXiv:1604.00772), with negative updates.

    "sep_cma" has a diagonal covariance (Ros & Hansen 2008), for larger controllers. The package's
    stopping rules (flat fitness and others) are never asked, so a dream that rewards all candidates
    alike does not end the run.
    """

    def __init__(self, cfg: StrategyConfig, x0: Vector, seed: int) -> None:
        """Start at ``x0``; 0 is a seed like any other (in `cma` it means the clock)."""
        import cma

        self.cfg = cfg
        # numpy's legacy generator, so that a seed gives the package's own results
        self._generator = np.random.RandomState(cma_seed(seed))
        options = {
            "popsize": cfg.population,
            "randn": self._generator.randn,
            "seed": float("nan"),
            "verbose": -10,  # writes no outcmaes/ and reads no cma_signals.in
            "CMA_diagonal": cfg.name == "sep_cma",
            "CMA_active": True,
        }
        with _quiet():
            self._es = cma.CMAEvolutionStrategy(x0, cfg.sigma0, options)

    @property
    def mean(self) -> Vector:
        """(N,) the distribution's mean."""
        return np.array(self._es.mean, np.float64)

    @property
    def sigma(self) -> float:
        """Root mean square of the parameters' standard deviations in the next generation."""
        with _quiet():
            return float(np.sqrt(np.mean(np.square(self._es.stds))))

    def ask(self) -> Vector:
        """Sample the next generation (P, N)."""
        with _quiet():
            return np.array(self._es.ask(), np.float64)

    def tell(self, population: Vector, returns: Vector) -> None:
        """Learn from the returns (P,), higher is better, of what `ask` gave (P, N)."""
        with _quiet():
            self._es.tell(list(np.array(population, np.float64)), [-float(r) for r in returns])

    def state_dict(self) -> dict[str, Any]:
        """Mean, step size, paths, covariance, its factors and the generator."""
        return {"arrays": _plain(self._es), "generator": self._generator.get_state(legacy=False)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state; an entry that CMA-ES does not know is a `UserError`."""
        if not self._es.countiter:  # the package makes some of its objects in the first generation
            self.tell(self.ask(), np.zeros(self.cfg.population))
        _restore(self._es, state["arrays"])
        self._generator.set_state(state["generator"])


_PARTS = ("sm", "adapt_sigma", "sigma_vec", "fit", "_stoptolxstagnation")
"""Objects of `cma.CMAEvolutionStrategy` whose numbers change from generation to generation."""
_SPARED = ("es.ary", "es.pop", "es.pop_sorted")
"""The last generation's samples, which the next one does not look at."""


def _owners(es: Any) -> dict[str, Any]:
    """Name -> object of the strategy that holds state."""
    return {"es": es, **{name: getattr(es, name) for name in _PARTS}}


def _plain(es: Any) -> dict[str, Any]:
    """Copies of every number, array and list of these in the state, by name.

    An array that stands in two places is given once; the second place gives the first one's name.
    """
    found: dict[str, Any] = {}
    seen: dict[int, str] = {}
    for owner, part in _owners(es).items():
        for attribute, value in vars(part).items():
            name = f"{owner}.{attribute}"
            if name in _SPARED:
                continue
            if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
                first = seen.setdefault(id(value), name)
                found[name] = value if first == name else first
            elif isinstance(value, bool | int | float | np.number):
                found[name] = value.item() if isinstance(value, np.number) else value
            elif type(value) is list and all(isinstance(x, int | float) for x in value):
                found[name] = [float(x) for x in value]
            elif type(value) is list and all(isinstance(x, np.ndarray) for x in value):
                found[name] = value  # samples to put into the next generation
    return copy.deepcopy(found)  # with the arrays' layout, by which products round


def _restore(es: Any, arrays: dict[str, Any]) -> None:
    """Put back what `_plain` gave."""
    owners, arrays = _owners(es), copy.deepcopy(arrays)
    for name, value in arrays.items():
        owner, _, attribute = name.partition(".")
        if owner not in owners:
            raise UserError(f"the saved state of CMA-ES holds the unknown {name!r}")
        setattr(owners[owner], attribute, arrays[value] if isinstance(value, str) else value)


class Mirrored:
    """Mirrored samples around a mean that Adam moves: PEPG and OpenES.

    PEPG is "parameter-exploring policy gradients with symmetric sampling" (Sehnke et al. 2010),
    which learns the standard deviations too; OpenES (Salimans et al. 2017, arXiv:1703.03864) keeps
    them fixed.
    """

    def __init__(self, cfg: StrategyConfig, x0: Vector, seed: int) -> None:
        """Start at ``x0``."""
        self.cfg = cfg
        self._rng = np.random.default_rng(seed)
        self._mean, self._std = x0.copy(), np.full(x0.shape, cfg.sigma0)
        self._m, self._v = np.zeros_like(x0), np.zeros_like(x0)
        self._steps = 0

    @property
    def mean(self) -> Vector:
        """(N,) the distribution's mean."""
        return self._mean.copy()

    @property
    def sigma(self) -> float:
        """Root mean square of the parameters' standard deviations in the next generation."""
        return float(np.sqrt(np.mean(np.square(self._std))))

    def ask(self) -> Vector:
        """Sample (P, N): the first half, then its mirror image about the mean."""
        half = self._rng.standard_normal((self.cfg.population // 2, self._mean.size)) * self._std
        return np.concatenate([self._mean + half, self._mean - half])

    def tell(self, population: Vector, returns: Vector) -> None:
        """Learn from the ranks, in [-0.5, 0.5], of the returns (P,) of what `ask` gave (P, N)."""
        from scipy.stats import rankdata  # a second to import

        cfg, half = self.cfg, self.cfg.population // 2
        eps = np.asarray(population[:half]) - self._mean
        plus, minus = np.split((rankdata(returns) - 1) / (len(returns) - 1) - 0.5, 2)
        if cfg.name == "openes":
            self._climb((plus - minus) @ eps / (2 * half * cfg.sigma0**2))
            return
        self._climb(((plus - minus) / 2) @ eps / half)
        both = (plus + minus) / 2
        slope = (both - both.mean()) @ (eps**2 / self._std**2 - 1) / half
        change = cfg.sigma_rate * np.clip(slope, -1, 1)
        self._std = np.maximum(self._std * (1 + change), cfg.sigma_min)

    def _climb(self, gradient: Vector) -> None:
        """One step of Adam (beta 0.9 and 0.999) uphill."""
        self._steps += 1
        self._m = 0.9 * self._m + 0.1 * gradient
        self._v = 0.999 * self._v + 0.001 * gradient**2
        m = self._m / (1 - 0.9**self._steps)
        v = self._v / (1 - 0.999**self._steps)
        self._mean = self._mean + self.cfg.learning_rate * m / (np.sqrt(v) + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """Mean, standard deviations, Adam's moments and the generator."""
        arrays = {name: vars(self)[name] for name in ("_mean", "_std", "_m", "_v", "_steps")}
        return {**copy.deepcopy(arrays), "generator": self._rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a state."""
        state = copy.deepcopy(state)
        self._rng.bit_generator.state = state.pop("generator")
        vars(self).update(state)


Strategy: TypeAlias = CMA | Mirrored


def make(cfg: StrategyConfig, seed: int, x0: ArrayLike) -> Strategy:
    """Build the strategy that ``cfg.name`` names, with its mean at ``x0`` (N,)."""
    kind = CMA if cfg.name in ("cma", "sep_cma") else Mirrored
    return kind(cfg, np.array(x0, np.float64), seed)


def cma_seed(seed: int) -> int:
    """Map any seed of 64 bits to one in [1, 2**32 - 1]: 32 bits is all that `RandomState` takes."""
    return 1 + int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] % (2**32 - 1))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep numpy's generator and threads as they were, and the package's warnings to itself."""
    state = np.random.get_state()
    try:
        with one_blas_thread(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"cma(\..*)?")
            yield
    finally:
        np.random.set_state(state)
