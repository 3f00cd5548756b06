from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

import pytest

from worldmodels._shapes import check
from worldmodels.config import AtLeast
from worldmodels.protocols import UserError


class Inner(TypedDict, total=False):
    name: Required[str]
    share: float | None


class Outer(TypedDict):
    count: Annotated[int, AtLeast(0)]
    kind: Literal["a", "b"]
    inner: list[Inner]
    sizes: NotRequired[dict[str, int]]
    free: NotRequired[Any]


GOOD = {"count": 0, "kind": "a", "inner": [{"name": "x"}, {"name": "y", "share": 1}]}


@pytest.mark.parametrize("more", [{}, {"sizes": {"a": 1}}, {"free": [{}]}, {"unknown": None}])
def test_what_fits_passes(more: dict[str, Any]) -> None:
    check({**GOOD, **more}, Outer, "x.json")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1], r"x\.json holds \[1\]; it must be a JSON object"),
        ({"kind": "a", "inner": []}, r"x\.json lacks count"),
        ({**GOOD, "count": -1}, "x.json: count is -1; it must be .*at least 0"),
        ({**GOOD, "count": True}, "x.json: count is True"),
        ({**GOOD, "count": 1.5}, "x.json: count is 1.5; it must be a whole number"),
        ({**GOOD, "kind": "c"}, "x.json: kind is 'c'; it must be one of a, b"),
        ({**GOOD, "inner": {}}, r"x\.json: inner is {}; it must be a list"),
        ({**GOOD, "inner": [{"name": "x"}, {}]}, r"x\.json: inner\[1\] lacks name"),
        ({**GOOD, "inner": [{"name": 3}]}, r"x\.json: inner\[0\]\.name is 3; it must be a text"),
        ({**GOOD, "inner": [{"name": "", "share": "x"}]}, r"inner\[0\]\.share is 'x'"),
        ({**GOOD, "sizes": {"a": None}}, r"x\.json: sizes\['a'\] is None"),
    ],
)
def test_what_does_not_fit_is_named(value: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(value, Outer, "x.json")
