"""Evolution strategies behind one ask/tell protocol: CMA-ES, sep-CMA-ES, PEPG and OpenES.

All maximise. None reads or changes a global random generator, none changes what it is given, and
each can be stopped after any `tell` and continued exactly from its state.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldmodels.config import AtLeast, Config, Decay, Limit, Positive
from worldmodels.protocols import UserError

Vector = NDArray[np.float64]
Name = Literal["cma", "sep_cma", "pepg", "openes"]


@dataclass(frozen=True)
class StrategyConfig(Config):
    """Which evolution strategy, and how it steps."""

    name: Name = "cma"
    """cma (full covariance), sep_cma (its diagonal only), pepg or openes"""
    population: Annotated[int, AtLeast(4), Limit(65_536)] = 64
    """candidates per generation; pepg and openes sample in mirrored pairs, so an even number"""
    sigma0: Positive = 0.1
    """deviation of the first generation around the start, in units of the parameters"""
    learning_rate: Positive = 0.02
    """pepg and openes: step of the mean (Adam)"""
    sigma_rate: Decay = 0.1
    """pepg: relative step of the deviations per generation; openes keeps sigma0"""
    sigma_min: Positive = 0.01
    """pepg: the deviations never fall below this"""

    def _check(self) -> None:
        if self.name in ("pepg", "openes") and self.population % 2:
            self.refuse("population", f"even for {self.name}")


class Strategy(Protocol):
    """What the evolution loop sees of a strategy."""

    @property
    def mean(self) -> Vector:
        """(N,) the distribution's mean: the result."""

    @property
    def sigma(self) -> float:
        """Typical deviation of a parameter in the next generation."""

    def ask(self) -> Vector:
        """Sample the next generation (P, N)."""

    def tell(self, population: Vector, returns: Vector) -> None:
        """Learn from the returns (P,), higher is better, of what `ask` gave (P, N)."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue: plain numbers, strings and arrays."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where the state was taken."""


def make(
    cfg: StrategyConfig, num_parameters: int, seed: int, x0: ArrayLike | None = None
) -> Strategy:
    """Build the strategy that ``cfg.name`` names, with its mean at ``x0`` (zeros if not given)."""
    start = np.zeros(num_parameters) if x0 is None else np.array(x0, np.float64)
    if start.shape != (num_parameters,):
        raise UserError(
            f"x0 has shape {start.shape}; the controller has {num_parameters} parameters"
        )
    kinds: dict[Name, Callable[[StrategyConfig, Vector, int], Strategy]]
    kinds = {"cma": CMA, "sep_cma": SepCMA, "pepg": PEPG, "openes": OpenES}
    return kinds[cfg.name](cfg, start, seed)


class CMA:
    """CMA-ES of the `cma` package (Hansen, arXiv:1604.00772), with negative updates.

    The package decomposes its N x N covariance only when enough has changed (at N = 867 and P = 64
    every third generation), which costs about 50 ms per generation on one core instead of 110.
    """

    _diagonal = False

    def __init__(self, cfg: StrategyConfig, x0: Vector, seed: int) -> None:
        """Start at ``x0``; any seed from 0 on is a seed, unlike in `cma`, where 0 is the clock."""
        import cma

        self.cfg = cfg
        # The package takes numbers from the function it is given, so that a generator of our own
        # serves it; numpy's legacy generator, for a seed then gives the package's own results.
        self._generator = np.random.RandomState(cma_seed(seed))
        options = {
            "popsize": cfg.population,
            "randn": self._generator.randn,
            "seed": float("nan"),
            "verbose": -10,  # writes no outcmaes/ and reads no cma_signals.in
            "CMA_diagonal": self._diagonal,
            "CMA_active": True,
        }
        with _quiet():
            self._es = cma.CMAEvolutionStrategy(x0, cfg.sigma0, options)

    @property
    def mean(self) -> Vector:
        """(N,) mean of the distribution."""
        return np.array(self._es.mean, np.float64)

    @property
    def sigma(self) -> float:
        """Root mean square of the coordinates' deviations."""
        with _quiet():
            return float(np.sqrt(np.mean(np.square(self._es.stds))))

    def ask(self) -> Vector:
        """Sample the next generation (P, N)."""
        with _quiet():
            return np.array(self._es.ask(), np.float64)

    def tell(self, population: Vector, returns: Vector) -> None:
        """Update mean, step size and covariance.

        The package's stopping rules (flat fitness and others) only speak through `stop()`, which is
        never called: a dream that rewards everyone alike does not end the run.
        """
        _check(population, returns, self.cfg.population)
        with _quiet():
            self._es.tell(list(np.array(population, np.float64)), [-float(r) for r in returns])

    def state_dict(self) -> dict[str, Any]:
        """Mean, step size, paths, covariance, its factors and the generator, as plain arrays."""
        kind, keys, *place = self._generator.get_state()
        assert kind == "MT19937", "RandomState has one kind of generator"
        return {
            "arrays": dict(_plain(self._es)),
            "generator_keys": np.asarray(keys, np.int64),
            "generator_place": [float(number) for number in place],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state.

        Raises:
            UserError: it is of a search with other parameters, or of an earlier version.
        """
        if set(state) != {"arrays", "generator_keys", "generator_place"}:
            raise UserError(
                "the saved state of CMA-ES was written by an earlier version; delete the "
                "checkpoint and run the stage again"
            )
        mean = state["arrays"].get("es.mean")
        if np.shape(mean) != np.shape(self._es.mean):
            raise UserError(
                f"the saved state of CMA-ES has {np.size(mean)} parameters, expected "
                f"{self._es.mean.size}"
            )
        if not self._es.countiter:  # the package makes some of its objects in the first generation
            self.tell(self.ask(), np.zeros(self.cfg.population))
        _restore(self._es, state["arrays"])
        pos, has_gauss, cached = state["generator_place"]
        keys = np.asarray(state["generator_keys"], np.uint32)
        self._generator.set_state(("MT19937", keys, int(pos), int(has_gauss), float(cached)))


_PARTS = ("sm", "adapt_sigma", "sigma_vec", "fit", "_stoptolxstagnation")
"""Objects of `cma.CMAEvolutionStrategy` whose numbers change from generation to generation."""
_SPARED = ("ary", "pop", "pop_sorted")
"""The last generation's samples, which the next one does not look at."""


def _owners(es: Any) -> dict[str, Any]:
    """The strategy's objects that hold its state, by name."""
    return {"es": es, **{name: getattr(es, name) for name in _PARTS}}


def _plain(es: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) of every number, array and list of these in the state.

    An array that stands in two places is given once; the second place gives the first one's name.
    """
    seen: dict[int, str] = {}
    for owner, part in _owners(es).items():
        for attribute, value in vars(part).items():
            name = f"{owner}.{attribute}"
            if attribute in _SPARED and part is es:
                continue
            if isinstance(value, np.ndarray) and value.dtype.kind in "bif":
                first = seen.setdefault(id(value), name)
                yield name, value.copy("K") if first == name else first
            elif isinstance(value, bool | int | float | np.number):
                yield name, value.item() if isinstance(value, np.number) else value
            elif type(value) is list and all(isinstance(x, int | float) for x in value):
                yield name, [float(x) for x in value]
            elif type(value) is list and all(isinstance(x, np.ndarray) for x in value):
                yield name, [x.copy() for x in value]  # samples to put into the next generation


def _restore(es: Any, arrays: dict[str, Any]) -> None:
    """Put back what `_plain` gave."""
    owners = _owners(es)
    placed: dict[str, Any] = {}
    for name, value in arrays.items():
        owner, _, attribute = name.partition(".")
        if owner not in owners:
            raise UserError(f"the saved state of CMA-ES holds the unknown {name!r}")
        if isinstance(value, str):
            value = placed[value]
        elif isinstance(value, np.ndarray):
            value = placed[name] = value.copy("K")  # products round by the layout
        elif isinstance(value, list):
            value = [x.copy() if isinstance(x, np.ndarray) else x for x in value]
        setattr(owners[owner], attribute, value)


class SepCMA(CMA):
    """CMA-ES with a diagonal covariance (Ros & Hansen 2008), for larger controllers."""

    _diagonal = True


class _Mirrored:
    """What PEPG and OpenES share: mirrored samples around a mean that Adam moves."""

    def __init__(self, cfg: StrategyConfig, x0: Vector, seed: int) -> None:
        self.cfg = cfg
        self._rng = np.random.default_rng(seed)
        self._mean = np.array(x0, np.float64)
        self._std = np.full(self._mean.shape, cfg.sigma0)
        self._m = np.zeros_like(self._mean)
        self._v = np.zeros_like(self._mean)
        self._steps = 0

    @property
    def mean(self) -> Vector:
        """(N,) mean of the distribution."""
        return self._mean.copy()

    @property
    def sigma(self) -> float:
        """Root mean square of the deviations."""
        return float(np.sqrt(np.mean(np.square(self._std))))

    def ask(self) -> Vector:
        """Sample (P, N): the first half, then its mirror image about the mean."""
        half = self._rng.standard_normal((self.cfg.population // 2, self._mean.size)) * self._std
        return np.concatenate([self._mean + half, self._mean - half])

    def _pairs(self, population: Vector, returns: Vector) -> tuple[Vector, Vector, Vector]:
        """Perturbations (P/2, N) and the shaped returns (P/2,) of both sides."""
        _check(population, returns, self.cfg.population)
        half = self.cfg.population // 2
        shaped = centred_ranks(returns)
        return np.asarray(population[:half]) - self._mean, shaped[:half], shaped[half:]

    def _climb(self, gradient: Vector) -> None:
        """One step of Adam (beta 0.9 and 0.999) uphill."""
        self._steps += 1
        self._m = 0.9 * self._m + 0.1 * gradient
        self._v = 0.999 * self._v + 0.001 * gradient**2
        m = self._m / (1 - 0.9**self._steps)
        v = self._v / (1 - 0.999**self._steps)
        self._mean = self._mean + self.cfg.learning_rate * m / (np.sqrt(v) + 1e-8)

    def state_dict(self) -> dict[str, Any]:
        """Mean, deviations, Adam's moments and the generator."""
        return {
            "mean": self._mean.copy(),
            "std": self._std.copy(),
            "m": self._m.copy(),
            "v": self._v.copy(),
            "steps": self._steps,
            "generator": json.dumps(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self._mean, self._std, self._m, self._v = (
            np.array(state[name], np.float64) for name in ("mean", "std", "m", "v")
        )
        self._steps = int(state["steps"])
        self._rng.bit_generator.state = json.loads(state["generator"])


class PEPG(_Mirrored):
    """Parameter-exploring policy gradients with symmetric sampling (Sehnke et al. 2010)."""

    def tell(self, population: Vector, returns: Vector) -> None:
        """Move mean and deviations along the likelihood gradient of the shaped returns."""
        eps, plus, minus = self._pairs(population, returns)
        self._climb(((plus - minus) / 2) @ eps / len(eps))
        both = (plus + minus) / 2
        slope = (both - both.mean()) @ (eps**2 / self._std**2 - 1) / len(eps)
        change = self.cfg.sigma_rate * np.clip(slope, -1, 1)
        self._std = np.maximum(self._std * (1 + change), self.cfg.sigma_min)


class OpenES(_Mirrored):
    """The evolution strategy of Salimans et al. 2017 (arXiv:1703.03864): fixed deviation, Adam."""

    def tell(self, population: Vector, returns: Vector) -> None:
        """Move the mean along the estimated gradient of the smoothed return."""
        eps, plus, minus = self._pairs(population, returns)
        self._climb((plus - minus) @ eps / (2 * len(eps) * self.cfg.sigma0**2))


def centred_ranks(returns: ArrayLike) -> Vector:
    """Ranks of returns (P,), scaled to [-0.5, 0.5]; equal returns share their mean rank."""
    values = np.asarray(returns, np.float64)
    unique, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    if unique.size == 1:
        return np.zeros_like(values)
    ranks = np.cumsum(counts) - (counts + 1) / 2
    return np.asarray(ranks[inverse] / (values.size - 1) - 0.5, np.float64)


def cma_seed(seed: int) -> int:
    """Map any seed of 64 bits to one in [1, 2**32 - 1]: 32 bits is all that `RandomState` takes."""
    return 1 + int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] % (2**32 - 1))


def _check(population: Vector, returns: Vector, size: int) -> None:
    """Refuse returns that are not one finite number for each candidate."""
    assert np.ndim(population) == 2, f"population is (P, N), got {np.shape(population)}"
    assert len(population) == len(returns) == size, f"{len(returns)} returns for {size} candidates"
    bad = np.flatnonzero(~np.isfinite(returns))
    if bad.size:
        raise UserError(
            f"the return of candidate {bad[0]} is {returns[bad[0]]} ({bad.size} of {size} are not "
            "finite); a return must be a number: look at M's reward and the dream's settings"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep numpy's global generator as it was, and the package's warnings to itself."""
    state = np.random.get_state()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"cma(\..*)?")
            yield
    finally:
        np.random.set_state(state)
