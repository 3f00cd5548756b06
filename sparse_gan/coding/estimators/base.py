"""Base of the estimators: checks, chunks, and the way to and from torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from sparse_gan.coding.dictionary import (
    CHUNK_ROWS,
)

Array = NDArray[Any]


class Coder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no types
    """Base class: checks, chunks, and the way to and from torch.

    A class gives `_train`, which makes ``model_`` and ``components_`` (N, M), and `_codes`.

    As in scikit-learn, only `fit` reads the constructor's parameters. What comes after it uses
    attributes that end in _, so a parameter that is set later has no effect before the next `fit`.
    """

    random_state: Any
    device: str
    model_: nn.Module
    components_: Array

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
        result[:CHUNK_ROWS] = to_numpy(first)
        for start in range(CHUNK_ROWS, len(x), CHUNK_ROWS):
            part = slice(start, start + CHUNK_ROWS)
            result[part] = to_numpy(self._codes(self._input(x[part])))
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
        """Samples in the precision and on the device that the model was trained in."""
        device = next(self.model_.parameters()).device
        return torch.tensor(x.astype(self.components_.dtype, copy=False), device=device)

    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _keep(self, model: nn.Module, dictionary: Tensor) -> None:
        self.model_ = model.requires_grad_(False).eval()
        self.components_ = to_numpy(dictionary.T)

    def __sklearn_tags__(self) -> Any:
        """Tell that float32 stays float32."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def to_numpy(x: Tensor) -> Array:
    """Array of a tensor, wherever it is."""
    return np.asarray(x.detach().cpu().numpy())
