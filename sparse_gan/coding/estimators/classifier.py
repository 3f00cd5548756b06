"""The estimator that has classes: DrSAE."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import (
    ClassifierMixin,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from sparse_gan.coding.dictionary import (
    CHUNK_ROWS,
)
from sparse_gan.coding.drsae import (
    UNLABELLED,
    DrSAE,
    DrSAEConfig,
    DrSAETrainConfig,
    train_drsae,
)
from sparse_gan.coding.estimators.base import Array, Coder, to_numpy


class DrSAEClassifier(ClassifierMixin, Coder):  # type: ignore[misc]  # no types
    """DrSAE: `predict` gives classes, `transform` the codes z_T.

    Rows are scaled to length 1, as in the paper, unless ``unit_length`` is off.

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
        unit_length: bool = True,
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
        self.unit_length = unit_length
        self.random_state = random_state
        self.device = device

    def fit(self, X: Any, y: Any) -> Any:  # type: ignore[override]  # a classifier needs y
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
        self.unit_length_ = bool(self.unit_length)
        seed, rows = self._seed(), self._tensor(self._scaled(np.asarray(x)))
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
        return np.concatenate([to_numpy(self.model_(self._input(part))) for part in parts])

    def _codes(self, x: Tensor) -> Tensor:
        return self.model_.infer(x)

    def _input(self, x: Array) -> Tensor:
        return super()._input(self._scaled(x.astype(self.components_.dtype, copy=False)))

    def _scaled(self, x: Array) -> Array:
        """Rows of length 1 if the model is fitted to such; a row of zeros stays."""
        if not self.unit_length_:
            return x
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x / np.where(length > 0, length, 1))
