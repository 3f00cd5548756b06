"""Estimators for samples that are flat images: convolutional and local filters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse_gan.coding.convolutional import ConvConfig, ConvSparseCoding, train_convolutional
from sparse_gan.coding.estimators.base import Coder
from sparse_gan.coding.local import LocalAutoencoder, LocalConfig, train_local


class ConvCoder(Coder):
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
        self.exact_ = bool(self.exact)
        model = train_convolutional(self._images(x), cfg, seed)
        size = model.encode(self._images(x[:1])).shape[1:]
        units = torch.eye(int(np.prod(size))).to(x).reshape(-1, *size)
        self._keep(model, model.decode(units).flatten(1).T)

    def _codes(self, x: Tensor) -> Tensor:
        images = self._images(x)
        return (self.model_.infer(images) if self.exact_ else self.model_.encode(images)).flatten(1)

    def _images(self, x: Tensor) -> Tensor:
        return x.reshape(-1, 1, *self.image_shape_)


class LocalCoder(Coder):
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
