"""From pictures to rows that a code can learn from: contrast, whitening, crops that move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodels._threads import one_blas_thread
from worldmodels.protocols import UserError

Images = NDArray[np.float32]


def halve(image: Images) -> Images:
    """Means (H // 2, W // 2) of 2x2 pixels of a grey image (H, W).

    What is finest in a photograph is the camera's noise and the compression's.
    """
    h, w = image.shape[0] // 2, image.shape[1] // 2
    cells = image[: 2 * h, : 2 * w].reshape(h, 2, w, 2)
    return np.asarray(cells.mean((1, 3)), np.float32)


def crop(big: Images, size: int, shift: int = 0, degrees: float = 0.0) -> Images:
    """Middles (B, size, size) of larger patches, shifted along both axes or turned about them.

    Args:
        big: (B, S, S).
        size: side of what is cut out.
        shift: pixels down and to the right.
        degrees: counter-clockwise, interpolated between pixels.

    Raises:
        UserError: the larger patches have no room for it.
    """
    room = (big.shape[-1] - size) / 2
    reach = size / 2 * (2**0.5 - 1) if degrees else shift
    if reach > room:
        raise UserError(f"patches of {big.shape[-1]} pixels have no room to move a crop of {size}")
    if degrees:
        from scipy.ndimage import rotate

        big = rotate(big, degrees, axes=(2, 1), reshape=False, order=3, mode="nearest")
    first = int(room) + shift
    return np.asarray(big[:, first : first + size, first : first + size], np.float32)


def high_pass(pictures: Images, sigma: float = 2.0) -> Images:
    """Pictures (B, H, W) less their blur, scaled to a standard deviation of 1 over all of them."""
    from scipy.ndimage import gaussian_filter

    sharp = pictures - gaussian_filter(pictures, (0, sigma, sigma), mode="nearest")
    return np.asarray(sharp / max(float(sharp.std()), 1e-12), np.float32)


def unit_rows(x: NDArray[Any]) -> Images:
    """Flatten pictures (B, ...) to rows (B, M) of length 1; a row of zeros stays."""
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-12), np.float32)


def normalise_contrast(x: NDArray[Any], floor: float = 0.05) -> Images:
    """Rows (B, M) with mean 0 and a length of 1, those of less contrast than ``floor`` shorter.

    Args:
        x: (B, ...) patches in [0, 1].
        floor: standard deviation, in units of x, below which a patch is not amplified fully.
    """
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    flat = flat - flat.mean(1, keepdims=True)
    deviation = np.sqrt((flat**2).mean(1, keepdims=True) + floor**2)
    return np.asarray(flat / (deviation * flat.shape[1] ** 0.5), np.float32)


def has_contrast(patches: Images, least: float = 0.02) -> NDArray[np.bool_]:
    """Which patches (B, S, S) in [0, 1] have a standard deviation above ``least``."""
    return np.asarray(patches.std((1, 2)) > least)


@dataclass(frozen=True)
class Whitening:
    """x W, the strongest K principal components of x, all made equally strong."""

    matrix: Images
    """(M, K)"""
    inverse: Images
    """(K, M), from whitened data back to the part of the data that is kept"""

    @classmethod
    def fit(cls, x: Images, keep: float = 1.0) -> Whitening:
        """Learn from rows (B, M) of mean 0.

        Args:
            x: the data.
            keep: fraction of the variance in the kept directions; the others, mostly noise in
                photographs, are dropped, as are those without variance.
        """
        with one_blas_thread():
            variance, directions = np.linalg.eigh(np.asarray(x.T @ x / len(x), np.float64))
        variance, directions = variance[::-1].clip(0), directions[:, ::-1]
        before = (variance.cumsum() - variance) / variance.sum()  # by the stronger ones
        kept = (before < keep) & (variance > 1e-9 * variance[0])
        deviation, directions = np.sqrt(variance[kept]), directions[:, kept]
        matrix, inverse = directions / deviation, (directions * deviation).T
        return cls(matrix.astype(np.float32), inverse.astype(np.float32))

    def __call__(self, x: Images) -> Images:
        """Whiten rows (B, M): (B, K)."""
        return np.asarray(x @ self.matrix, np.float32)


@dataclass(frozen=True)
class PatchWhitening:
    """What patches go through before a map learns from them, learned from the patches.

    The mean of each is taken off, then the directions that carry almost all of the variance are
    made equally strong, and last each row is scaled towards length 1, weak ones less.
    """

    whitening: Whitening
    """of the directions"""

    @classmethod
    def fit(cls, patches: Images, keep: float = 0.98) -> PatchWhitening:
        """Learn from patches (B, S, S), those without contrast left out; see `has_contrast`."""
        rows = _centred(patches[has_contrast(patches)])
        if not len(rows):
            raise UserError("no patch has any contrast; take other pictures")
        return cls(Whitening.fit(rows, keep))

    def __call__(self, patches: Images) -> Images:
        """Rows (B, K) of patches (B, S, S)."""
        rows = self.whitening(_centred(patches))
        power = rows.shape[1]  # the mean squared length of a whitened row
        length = np.sqrt(np.square(rows).sum(1, keepdims=True) + 0.3 * power)
        return np.asarray(rows / length, np.float32)


def _centred(patches: Images) -> Images:
    flat = patches.reshape(len(patches), -1)
    return np.asarray(flat - flat.mean(1, keepdims=True), np.float32)
