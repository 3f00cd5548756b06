"""scikit-learn's own checks of every estimator, and what they do not look at."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from sparse_gan.coding import estimators

B, M = 30, 9
SMALL: dict[str, dict[str, Any]] = {
    "DictionaryCoder": {"n_components": 6, "epochs": 1},
    "LISTACoder": {"n_components": 6, "epochs": 1, "steps": 2, "n_layers": 2},
    "PSDCoder": {"n_components": 6, "epochs": 1},
    "GroupCoder": {"n_components": 6, "epochs": 1, "group_size": 2},
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
FEWER: dict[str, dict[str, Any]] = {
    "DictionaryCoder": {"epochs": 1},
    "GroupCoder": {"epochs": 1},
    "ConvCoder": {"epochs": 1},
    "LISTACoder": {"epochs": 1, "steps": 2},
    "PSDCoder": {"epochs": 2},
    "DrSAEClassifier": {"unsupervised_epochs": 1, "epochs": 8},
}
"""Trainings cut short in scikit-learn's checks; everything else there is as constructed."""
KINDS = [pytest.param(kind, id=kind.__name__) for kind in estimators.ESTIMATORS]


FULL = "FULL_ESTIMATOR_CHECKS" in os.environ
"""Whether the checks take the trainings at their full length, a minute of one core."""


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
        cut = {} if FULL else FEWER.get(kind.__name__, {})
        results = check_estimator(kind(**cut), on_fail=None)
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
def test_a_parameter_set_after_fit_changes_nothing_before_the_next_fit(kind: Any) -> None:
    x, y = data()
    model = make(kind).fit(x, y)
    methods = [
        getattr(model, name)
        for name in ("transform", "predict", "predict_proba", "decision_function", "pool")
        if hasattr(model, name)
    ]
    before = [method(x) for method in methods]
    model.set_params(**dict.fromkeys(model.get_params(), object()))  # whoever reads it, fails
    for method, found in zip(methods, before, strict=True):
        np.testing.assert_array_equal(method(x), found)
    assert model.inverse_transform(before[0]).shape == x.shape
    assert len(model.get_feature_names_out()) == before[0].shape[1]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (estimators.PSDCoder, "exact", True),
        (estimators.ConvCoder, "exact", True),
        (estimators.GroupCoder, "lam", 0.4),
        (estimators.DrSAEClassifier, "unit_length", True),
    ],
)
def test_the_next_fit_takes_the_parameter(kind: Any, name: str, value: Any) -> None:
    x, y = data()
    model = make(kind).fit(x, y)
    before = model.transform(x)
    after = model.set_params(**{name: value}).fit(x, y).transform(x)
    assert not np.allclose(before, after)
    np.testing.assert_array_equal(after, make(kind, **{name: value}).fit(x, y).transform(x))


def test_drsae_as_constructed_learns_scaled_iris() -> None:
    x, y = load_iris(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    model = estimators.DrSAEClassifier(epochs=10, unsupervised_epochs=2, random_state=0).fit(x, y)
    assert np.isfinite(model.transform(x)).all()
    assert model.score(x, y) > 0.8


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
