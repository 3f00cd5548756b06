"""Estimators for samples that are vectors: dictionary, LISTA, PSD and groups."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from sparse_gan.coding.dictionary import (
    DictionaryConfig,
    SparseCoding,
    learn_dictionary,
)
from sparse_gan.coding.estimators.base import Array, Coder, to_numpy
from sparse_gan.coding.groups import GroupLasso, check_groups
from sparse_gan.coding.ista import SolverConfig, minimise, unfinished
from sparse_gan.coding.lista import LISTA, LISTAConfig, LISTATrainConfig, train_lista
from sparse_gan.coding.psd import PSD, PSDConfig, train_psd
from sparse_gan.coding.topographic import (
    GroupSparseAutoencoder,
    TopographicConfig,
    train_topographic,
)
from sparse_gan.coding.training import shuffled


class DictionaryCoder(Coder):
    """Dictionary learning, and codes by ISTA or FISTA; see `learn_dictionary`."""

    model_: SparseCoding

    def __init__(
        self,
        n_components: int = 64,
        lam: float = 0.1,
        positive: bool = False,
        momentum: bool = True,
        epochs: int = 5,
        batch_size: int = 256,
        coding_steps: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `DictionaryConfig` and `SolverConfig`."""
        self.n_components = n_components
        self.lam = lam
        self.positive = positive
        self.momentum = momentum
        self.epochs = epochs
        self.batch_size = batch_size
        self.coding_steps = coding_steps
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        cfg = DictionaryConfig(
            self.n_components, self.lam, self.positive, self.epochs, self.batch_size
        )
        solver = SolverConfig(self.coding_steps, self.momentum, tolerance=self.tol)
        learned = learn_dictionary(x, cfg, seed).dictionary
        self._keep(SparseCoding(learned, self.lam, self.positive, solver), learned)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x)


class LISTACoder(Coder):
    """Dictionary learning, then a LISTA that codes with it in a few products."""

    model_: LISTA

    def __init__(
        self,
        n_components: int = 64,
        lam: float = 0.1,
        n_layers: int = 6,
        kind: str = "full",
        tied: bool = False,
        epochs: int = 5,
        steps: int = 200,
        batch_size: int = 256,
        learning_rate: float = 1e-3,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `LISTAConfig` and `LISTATrainConfig`."""
        self.n_components = n_components
        self.lam = lam
        self.n_layers = n_layers
        self.kind = kind
        self.tied = tied
        self.epochs = epochs
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        cfg = DictionaryConfig(
            self.n_components, self.lam, epochs=self.epochs, batch_size=self.batch_size
        )
        learned = learn_dictionary(x, cfg, seed).dictionary
        shape = LISTAConfig(self.n_layers, self.kind, self.tied, self.lam)  # type: ignore[arg-type]  # checked there
        how = LISTATrainConfig("objective", False, 0, self.steps, self.learning_rate)
        generator = torch.Generator().manual_seed(seed)

        def batch(step: int) -> tuple[Tensor, None]:
            return x[next(shuffled(len(x), self.batch_size, generator)).to(x.device)], None

        self._keep(train_lista(LISTA(learned, shape), batch, how), learned)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x)


class PSDCoder(Coder):
    """PSD: codes are the encoder's guess, or those of least energy if ``exact``."""

    model_: PSD

    def __init__(
        self,
        n_components: int = 64,
        lam: float = 0.2,
        beta: float = 1.0,
        exact: bool = False,
        epochs: int = 10,
        batch_size: int = 100,
        learning_rate: float = 2e-3,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `PSDConfig`."""
        self.n_components = n_components
        self.lam = lam
        self.beta = beta
        self.exact = exact
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        cfg = PSDConfig(
            self.n_components,
            self.lam,
            self.beta,
            self.epochs,
            self.batch_size,
            learning_rate=self.learning_rate,
        )
        self.exact_ = bool(self.exact)
        model = train_psd(x, cfg, seed)
        self._keep(model, model.dictionary)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x) if self.exact_ else self.model_.encode(x)


class GroupCoder(Coder):
    """Sparse coding in which disjoint groups of units are on or off together.

    The dictionary is learned with single units, then coded with ``groups``, lists of units that
    cover all; None makes groups of ``group_size`` neighbours.
    """

    model_: SparseCoding

    def __init__(
        self,
        n_components: int = 64,
        lam: float = 0.1,
        groups: Any = None,
        group_size: int = 4,
        epochs: int = 5,
        coding_steps: int = 500,
        tol: float = 1e-5,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `DictionaryConfig` and `GroupLasso`."""
        self.n_components = n_components
        self.lam = lam
        self.groups = groups
        self.group_size = group_size
        self.epochs = epochs
        self.coding_steps = coding_steps
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        units = range(self.n_components)
        size = self.group_size
        groups = self.groups
        if groups is None:
            groups = [list(units[first : first + size]) for first in units[::size]]
        self.group_ = check_groups(groups, self.n_components)
        self.solver_ = SolverConfig(self.coding_steps, tolerance=self.tol)
        cfg = DictionaryConfig(self.n_components, self.lam, epochs=self.epochs)
        model = learn_dictionary(x, cfg, seed)
        self._keep(model, model.dictionary)

    def _codes(self, x: Tensor) -> Tensor:
        group = self.group_.to(x.device)
        problem = GroupLasso(x, self.model_.dictionary.to(x), self.model_.lam, group=group)
        found = minimise(problem, self.solver_)
        unfinished([found], self.solver_)
        return found.z


class TopographicCoder(Coder):
    """Group-sparse auto-encoder on a torus; codes are W x, and `pool` gives the features."""

    model_: GroupSparseAutoencoder

    def __init__(
        self,
        side: int = 8,
        pool_size: int = 4,
        stride: int = 2,
        lam: float = 0.5,
        epochs: int = 25,
        batch_size: int = 100,
        learning_rate: float = 4e-3,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `TopographicConfig`."""
        self.side = side
        self.pool_size = pool_size
        self.stride = stride
        self.lam = lam
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        cfg = TopographicConfig(
            self.side,
            self.pool_size,
            self.stride,
            self.lam,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        model = train_topographic(x, cfg, seed)
        self._keep(model, model.dictionary)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.encode(x)

    def pool(self, X: Any) -> Array:
        """Pooled features (B, P) of samples (B, M)."""
        check_is_fitted(self)
        return to_numpy(self.model_.features(self._input(self._check(X, reset=False))))
