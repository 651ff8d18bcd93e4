"""Values of JSON files are compared with types; what differs is named by its key."""

from typing import Annotated, Any, Literal, TypedDict

import pytest

from anomaly_lab.experiment.json_types import check
from anomaly_lab.types import Range


class Inner(TypedDict):
    size: list[Annotated[int, Range("[1, 9]")]]
    kind: Literal["a", "b"]


class Outer(TypedDict, total=False):
    inner: Inner | None
    by_name: dict[str, float]


@pytest.mark.parametrize(
    "value", [{}, {"inner": None}, {"inner": {"size": [1, 9], "kind": "a"}}, {"by_name": {"x": 1}}, {"other": object()}]
)
def test_what_suits_passes(value: Any) -> None:
    check(value, Outer)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ([], " is"),
        ({"inner": {"size": [0], "kind": "a"}}, "inner.size.0 is 0, not"),
        ({"inner": {"size": [True], "kind": "a"}}, "inner.size.0 is True"),
        ({"inner": {"size": [1]}}, "inner.kind is missing"),
        ({"inner": {"size": [1], "kind": "c"}}, "inner.kind is 'c', not 'a' or 'b'"),
        ({"inner": [1]}, "inner is"),
        ({"by_name": {"x": float("nan")}}, "by_name.x is nan, not a number"),
        ({"by_name": {"x": 2**70}}, "by_name.x is"),
    ],
)
def test_what_does_not_is_named(value: Any, key: str) -> None:
    with pytest.raises(ValueError, match=key):
        check(value, Outer)
