"""Stored pictures are read, or refused in one line that says which array is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomaly_lab.reports.gallery import read_gallery
from anomaly_lab.types import UserError

WHOLE: dict[str, Any] = {
    "id": np.array(["a", "b"]),
    "kind": np.array(["tp", "fn"]),
    "image": np.zeros((2, 1, 4, 4), np.float32),
    "anomaly_map": np.zeros((2, 1, 4, 4), np.float32),
    "mask": np.zeros((2, 1, 4, 4), bool),
}


def stored(run: Path, **changes: Any) -> Path:
    (run / "samples").mkdir()
    np.savez(run / "samples" / "gallery.npz", **{k: v for k, v in (WHOLE | changes).items() if v is not None})
    return run


def test_what_was_stored_is_read(tmp_path: Path) -> None:
    assert read_gallery(stored(tmp_path, mask=None)).keys() == WHOLE.keys() - {"mask"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("id", None), ("kind", None), ("image", None), ("image", np.zeros((0, 1, 4, 4))), ("image", np.array(1.0)),
     ("image", np.array(["x", "y"])), ("anomaly_map", np.zeros((1, 1, 4, 4))), ("anomaly_map", np.zeros((2, 1, 5, 4))),
     ("mask", np.zeros((2, 4, 4))), ("id", np.array([1, 2])), ("id", np.array([None, {}]))],
)  # fmt: skip
def test_arrays_that_do_not_suit_each_other_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"gallery\.npz cannot be read .* make evaluate") as said:
        read_gallery(stored(tmp_path, **{name: value}))
    assert "\n" not in str(said.value)
