"""scikit-learn's interface to everything here: `fit`, `transform`, `components_` and the rest.

Needs scikit-learn, which the rest of the package does not. Arrays go in and come out as numpy's;
the work is done by the modules, on ``device``, in single or double precision as the data are.
"""

from sparse_gan.coding.estimators.classifier import DrSAEClassifier
from sparse_gan.coding.estimators.pictures import ConvCoder, LocalCoder
from sparse_gan.coding.estimators.vectors import (
    DictionaryCoder,
    GroupCoder,
    LISTACoder,
    PSDCoder,
    TopographicCoder,
)

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

__all__ = [
    "ESTIMATORS",
    "ConvCoder",
    "DictionaryCoder",
    "DrSAEClassifier",
    "GroupCoder",
    "LISTACoder",
    "LocalCoder",
    "PSDCoder",
    "TopographicCoder",
]
