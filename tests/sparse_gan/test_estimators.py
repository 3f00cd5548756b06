"""scikit-learn's own checks of every estimator, and what they do not look at."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sparse_gan.coding import estimators

B, M = 30, 9
SMALL: dict[str, dict[str, Any]] = {
    "DictionaryCoder": {"n_components": 6, "epochs": 1, "coding_steps": 20},
    "LISTACoder": {"n_components": 6, "epochs": 1, "steps": 2, "n_layers": 2},
    "PSDCoder": {"n_components": 6, "epochs": 1},
    "GroupCoder": {"n_components": 6, "epochs": 1, "coding_steps": 20, "group_size": 2},
    "TopographicCoder": {"side": 3, "pool_size": 2, "stride": 1, "epochs": 1},
    "ConvCoder": {"n_filters": 2, "filter_size": 2, "epochs": 1},
    "LocalCoder": {"epochs": 1},
    "DrSAEClassifier": {
        "n_components": 20,
        "n_steps": 2,
        "label_weight": 3.0,
        "unit_length": False,
        "unsupervised_epochs": 1,
        "epochs": 12,
        "batch_size": 20,
        "learning_rate": 0.02,
    },
}
KINDS = [pytest.param(kind, id=kind.__name__) for kind in estimators.ESTIMATORS]


def make(kind: Any, **changes: Any) -> Any:
    return kind(random_state=0, **{**SMALL[kind.__name__], **changes})


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    y = np.arange(B) % 3
    return np.eye(M)[y] + 0.2 * rng.standard_normal((B, M)), y


@pytest.mark.parametrize("kind", KINDS)
def test_scikit_learns_checks(kind: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of checks it skips, array API for one
        results = check_estimator(make(kind), on_fail=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    assert len(results) > 40


@pytest.mark.parametrize("kind", KINDS)
def test_it_clones_repeats_and_stands_in_a_pipeline(kind: Any) -> None:
    x, y = data()
    first = make(kind).fit(x, y)
    second = clone(first).fit(x, y)
    np.testing.assert_array_equal(first.transform(x), second.transform(x))
    codes = make_pipeline(StandardScaler(), make(kind)).fit(x, y).transform(x)
    assert codes.shape == (B, len(first.components_))
    assert first.inverse_transform(first.transform(x)).shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
def test_components_are_what_units_stand_for(kind: Any) -> None:
    x, y = data()
    model = make(kind).fit(x, y)
    np.testing.assert_allclose(
        model.inverse_transform(np.eye(len(model.components_))), model.components_
    )
    assert model.components_.shape[1] == M


def test_images_may_have_two_dimensions() -> None:
    x, _ = data()
    codes = make(estimators.ConvCoder, image_shape=(3, 3)).fit_transform(x)
    assert codes.shape == (B, 2 * 2 * 2)
    with pytest.raises(ValueError, match=r"image_shape is \(2, 2\), and a sample has 9 values"):
        make(estimators.LocalCoder, image_shape=(2, 2)).fit(x)


def test_few_labels() -> None:
    x, y = data()
    few = np.where(np.arange(B) < 9, y, -1)
    model = make(
        estimators.DrSAEClassifier, unlabelled=-1, epochs=60, batch_size=10, learning_rate=0.02
    ).fit(x, few)
    assert model.classes_.tolist() == [0, 1, 2]
    assert (model.predict(x) == y).mean() > 0.9
    np.testing.assert_allclose(model.predict_proba(x).sum(1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lam": -1.0}, "lam is -1.0"),
        ({"groups": [[0, 1], [2, 3]]}, "no group covers unit 4; 2 of 6 are left"),
        ({"groups": [[0, 1, 2], [2, 3, 4, 5]]}, "unit 2 is in groups 0 and 1"),
    ],
)
def test_settings_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    x, _ = data()
    with pytest.raises(ValueError, match=message):
        make(estimators.GroupCoder, **change).fit(x).transform(x)
