"""scikit-learn's interface to everything here: fit, transform, inverse_transform, components_.

Needs scikit-learn, which the rest of the package does not. Arrays go in and come out as numpy's;
the work is done by the modules, on ``device``, in single or double precision as the data are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from sparse_gan.coding.convolutional import ConvConfig, ConvSparseCoding, train_convolutional
from sparse_gan.coding.dictionary import (
    CHUNK_ROWS,
    DictionaryConfig,
    SparseCoding,
    learn_dictionary,
)
from sparse_gan.coding.drsae import (
    UNLABELLED,
    DrSAE,
    DrSAEConfig,
    DrSAETrainConfig,
    train_drsae,
)
from sparse_gan.coding.groups import GroupLasso, check_groups
from sparse_gan.coding.ista import SolverConfig, minimise
from sparse_gan.coding.lista import LISTA, LISTAConfig, LISTATrainConfig, train_lista
from sparse_gan.coding.local import LocalAutoencoder, LocalConfig, train_local
from sparse_gan.coding.psd import PSD, PSDConfig, train_psd
from sparse_gan.coding.topographic import (
    GroupSparseAutoencoder,
    TopographicConfig,
    train_topographic,
)
from sparse_gan.coding.training import shuffled

Array = NDArray[Any]


class _Coder(  # type: ignore[misc]  # scikit-learn has no types
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """What all share: checks, chunks, and the way to and from torch.

    A class gives `_train`, which makes ``model_`` and ``components_`` (N, M), and `_codes`.
    """

    random_state: Any
    device: str

    def fit(self, X: Any, y: Any = None) -> Any:
        """Learn from samples X (B, M); y is ignored."""
        x = self._check(X, reset=True)
        self._train(self._tensor(x), self._seed())
        self._n_features_out = len(self.components_)
        return self

    def transform(self, X: Any) -> Array:
        """Codes (B, N) of samples (B, M), computed in chunks."""
        check_is_fitted(self)
        x = self._check(X, reset=False)
        first = self._codes(self._input(x[:CHUNK_ROWS]))
        result = np.empty((len(x), first.shape[1]), x.dtype)
        result[:CHUNK_ROWS] = _numpy(first)
        for start in range(CHUNK_ROWS, len(x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            result[part] = _numpy(self._codes(self._input(x[part])))
        return result

    def inverse_transform(self, X: Any) -> Array:
        """Samples (B, M) that codes (B, N) stand for."""
        check_is_fitted(self)
        codes = np.asarray(X)
        if codes.ndim != 2 or codes.shape[1] != self._n_features_out:
            raise ValueError(
                f"codes have shape {codes.shape}; expected (samples, {self._n_features_out})"
            )
        return np.asarray(codes @ self.components_)

    def _train(self, x: Tensor, seed: int) -> None:
        raise NotImplementedError

    def _codes(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _check(self, X: Any, reset: bool) -> Array:
        x = validate_data(self, X, reset=reset, dtype=[np.float64, np.float32])
        return np.asarray(x)

    def _tensor(self, x: Array) -> Tensor:
        return torch.tensor(x, device=self.device)

    def _input(self, x: Array) -> Tensor:
        """Samples in the precision that the model was trained in."""
        return self._tensor(x.astype(self.components_.dtype, copy=False))

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _keep(self, model: nn.Module, dictionary: Tensor) -> None:
        self.model_ = model.requires_grad_(False).eval()
        self.components_ = _numpy(dictionary.T)

    def __sklearn_tags__(self) -> Any:
        """Tell that float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _numpy(x: Tensor) -> Array:
    return np.asarray(x.detach().cpu().numpy())


class DictionaryCoder(_Coder):
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


class LISTACoder(_Coder):
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


class PSDCoder(_Coder):
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
        model = train_psd(x, cfg, seed)
        self._keep(model, model.dictionary)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x) if self.exact else self.model_.encode(x)


class GroupCoder(_Coder):
    """Sparse coding in which disjoint groups of units are on or off together.

    The dictionary is learned with single units, then coded with ``groups``, lists of units that
    cover all; None makes groups of ``group_size`` neighbours.
    """

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
        cfg = DictionaryConfig(self.n_components, self.lam, epochs=self.epochs)
        model = learn_dictionary(x, cfg, seed)
        self._keep(model, model.dictionary)

    def _codes(self, x: Tensor) -> Tensor:
        group = self.group_.to(x.device)
        problem = GroupLasso(x, self.model_.dictionary.to(x), self.lam, group=group)
        return minimise(problem, SolverConfig(self.coding_steps, tolerance=self.tol)).z


class TopographicCoder(_Coder):
    """Group-sparse auto-encoder on a torus; codes are W x, and `pool` gives the features."""

    model_: GroupSparseAutoencoder

    def __init__(
        self,
        side: int = 8,
        pool_size: int = 4,
        stride: int = 2,
        lam: float = 0.1,
        epochs: int = 20,
        batch_size: int = 200,
        learning_rate: float = 2e-3,
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
        return _numpy(self.model_.features(self._input(self._check(X, reset=False))))


class ConvCoder(_Coder):
    """Convolutional sparse coding of flat images; a code is every filter's map, flattened."""

    model_: ConvSparseCoding

    def __init__(
        self,
        image_shape: tuple[int, int] | None = None,
        n_filters: int = 8,
        filter_size: int = 5,
        lam: float = 0.1,
        exact: bool = False,
        epochs: int = 5,
        batch_size: int = 16,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings; ``image_shape`` (H, W) of None is one row of pixels."""
        self.image_shape = image_shape
        self.n_filters = n_filters
        self.filter_size = filter_size
        self.lam = lam
        self.exact = exact
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        self.image_shape_ = _image_shape(self.image_shape, x.shape[1])
        cfg = ConvConfig(
            self.n_filters,
            min(self.filter_size, *self.image_shape_),
            self.lam,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
        model = train_convolutional(self._images(x), cfg, seed)
        size = model.encode(self._images(x[:1])).shape[1:]
        self._map = tuple(size)
        units = torch.eye(int(np.prod(size))).to(x).reshape(-1, *size)
        self._keep(model, model.decode(units).flatten(1).T)

    def _codes(self, x: Tensor) -> Tensor:
        images = self._images(x)
        return (self.model_.infer(images) if self.exact else self.model_.encode(images)).flatten(1)

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 1, *self.image_shape_)


class LocalCoder(_Coder):
    """Local filters without weight sharing, on flat images; codes are the encoder's."""

    model_: LocalAutoencoder

    def __init__(
        self,
        image_shape: tuple[int, int] | None = None,
        window: int = 4,
        stride: int = 1,
        units: int = 2,
        pool_size: int = 2,
        lam: float = 0.05,
        epochs: int = 10,
        batch_size: int = 50,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings; ``image_shape`` (H, W) of None is one row of pixels."""
        self.image_shape = image_shape
        self.window = window
        self.stride = stride
        self.units = units
        self.pool_size = pool_size
        self.lam = lam
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def _train(self, x: Tensor, seed: int) -> None:
        self.image_shape_ = _image_shape(self.image_shape, x.shape[1])
        height, width = self.image_shape_
        window = min(self.window, height, width)
        places = ((n - window) // self.stride + 1 for n in (height, width))
        cfg = LocalConfig(
            height,
            width,
            window=window,
            stride=self.stride,
            units=self.units,
            pool=min(self.pool_size, *places),
            lam=self.lam,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )
        model = train_local(x.reshape(-1, 1, height, width), cfg, seed)
        units = torch.eye(cfg.rows * cfg.columns * cfg.units).to(x)
        filters = model.decode(units.reshape(len(units), -1, cfg.units))
        self._keep(model, filters.flatten(1).T)

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.encode(x.reshape(-1, 1, *self.image_shape_)).flatten(1)


def _image_shape(given: tuple[int, int] | None, features: int) -> tuple[int, int]:
    shape = (1, features) if given is None else (int(given[0]), int(given[1]))
    if shape[0] * shape[1] != features:
        raise ValueError(f"image_shape is {shape}, and a sample has {features} values")
    return shape


class DrSAEClassifier(ClassifierMixin, _Coder):  # type: ignore[misc]  # scikit-learn has no types
    """DrSAE: `predict` gives classes, `transform` the codes z_T of rows scaled to length 1.

    With ``unlabelled`` set, samples of that label in y are learned from without a class.
    """

    model_: DrSAE

    def __init__(
        self,
        n_components: int = 100,
        n_steps: int = 11,
        lam: float = 0.018,
        label_weight: float = 0.2,
        unlabelled: Any = None,
        unsupervised_epochs: int = 20,
        epochs: int = 80,
        batch_size: int = 10,
        learning_rate: float = 5e-3,
        momentum: float = 0.9,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        """Keep the settings: those of `DrSAEConfig` and `DrSAETrainConfig`."""
        self.n_components = n_components
        self.n_steps = n_steps
        self.lam = lam
        self.label_weight = label_weight
        self.unlabelled = unlabelled
        self.unsupervised_epochs = unsupervised_epochs
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Any:
        """Learn from samples X (B, M) with classes y (B,)."""
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        known = np.ones(len(y), bool) if self.unlabelled is None else y != self.unlabelled
        self.classes_, positions = np.unique(y[known], return_inverse=True)
        if not len(self.classes_):
            raise ValueError("y has no labelled sample; at least one class is needed")
        labels = torch.full((len(y),), UNLABELLED, device=self.device)
        labels[torch.from_numpy(known)] = torch.from_numpy(positions).to(self.device)
        cfg = DrSAEConfig(
            self.n_components, len(self.classes_), self.n_steps, self.lam, self.label_weight
        )
        how = DrSAETrainConfig(
            self.unsupervised_epochs,
            self.epochs,
            self.batch_size,
            self.learning_rate,
            self.momentum,
        )
        seed, rows = self._seed(), self._tensor(np.asarray(x))
        model = train_drsae(DrSAE(rows, cfg, seed), rows, labels, how, seed)
        self._keep(model, model.decoder)
        self._n_features_out = self.n_components
        return self

    def decision_function(self, X: Any) -> Array:
        """Logits (B, K); for two classes the difference (B,) of the second to the first."""
        check_is_fitted(self)
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Array:
        """Probabilities (B, K)."""
        check_is_fitted(self)
        logits = torch.from_numpy(self._logits(X)).double()
        return np.asarray(torch.softmax(logits, 1).numpy())

    def predict(self, X: Any) -> Array:
        """Most likely classes (B,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self._logits(X).argmax(1)])

    def _logits(self, X: Any) -> Array:
        x = self._check(X, reset=False)
        parts = (x[start : start + CHUNK_ROWS] for start in range(0, len(x), CHUNK_ROWS))
        return np.concatenate([_numpy(self.model_(self._input(part))) for part in parts])

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x)

    def _tensor(self, x: Array) -> Tensor:
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return super()._tensor(x / np.where(length > 0, length, 1))


ESTIMATORS = (
    DictionaryCoder,
    LISTACoder,
    PSDCoder,
    GroupCoder,
    TopographicCoder,
    ConvCoder,
    LocalCoder,
    DrSAEClassifier,
)
"""All of them."""

__all__ = ["ESTIMATORS", *(kind.__name__ for kind in ESTIMATORS)]
